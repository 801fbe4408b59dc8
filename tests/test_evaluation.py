"""Evaluating: where a dataset is searched, what counts as an answer, and what is never looked at."""

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest

from mmsearch import Engine, InvalidInput, Item, PictureError, StoreError
from mmsearch.evaluation import run
from mmsearch.judged import IMAGE_TO_IMAGE, IMAGE_TO_TEXT, TASKS, read_judged
from mmsearch.judgedbanks import bank_for, bank_pictures, read_bank, without
from mmsearch.profile import Profile, build
from mmsearch.rerank.stage import Stage
from mmsearch.testbed import place
from mmsearch.types import Hit, Signal

SOME = ("red disc", "blue disc", "green square", "yellow triangle")


@pytest.fixture
def data(toy, folder):
    """A dataset of twelve pictures, one of each kind, each with two captions and its colour as label."""
    return made(toy, folder, toy.KINDS)


def made(toy, folder, kinds, each=1):
    toy.draw_all(folder, kinds, each)
    rows = [
        {
            "id": f"{kind} {n}",
            "image": f"{kind} {n}.png",
            "captions": [f"a {kind}", f"there is a {kind} here"],
            "label": kind.split()[0],
        }
        for kind in kinds
        for n in range(each)
    ]
    return toy.dataset(folder, rows)


@pytest.fixture
def evaluated(encoder):
    """Evaluates judged queries in a temporary store, or in one that is given."""

    def evaluate(judged, rerank=False, store=None, **options):
        with place(judged, store, encoder=encoder, **options) as (engine, added):
            return run(engine, judged, rerank), added

    return evaluate


def value(found, name="R@1"):
    return found.to_json()["measures"][name]["value"]


def files(folder):
    """What a store's folder holds, but for SQLite's own files of a moment."""
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file() and file.suffix not in (".sqlite-wal", ".sqlite-shm") and "sqlite-" not in file.name
    }


def catalogue(path, encoder):
    with Engine.open(path, encoder, create=False) as engine:
        info = engine.info()
        return {item.id for item in engine.items()}, set(info.spaces), info.failures, engine._store.fields()


# Answers ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
def test_what_an_evaluation_says_has_the_form_of_the_contract(data, evaluated, task):
    judged = read_judged(data, task)
    found, added = evaluated(judged)
    said = found.to_json()
    assert said.keys() >= {"task", "items", "queries", "measures", "stages", "ms_per_query"}
    assert said["measures"].keys() == {"R@1", "R@5", "R@10", "MRR@10", "nDCG@10"}
    for measure in said["measures"].values():
        assert 0 <= measure["low"] <= measure["value"] <= measure["high"] <= 1
    assert (said["task"], said["stages"]) == (task, [])
    assert (said["items"], said["queries"]) == (len(judged.items), len(judged.queries))
    assert said["ms_per_query"] > 0
    assert added.failed == ()
    assert said["notes"] == []


def test_captions_find_their_pictures_and_pictures_their_captions(data, evaluated):
    for task in ("text-to-image", IMAGE_TO_TEXT):
        assert value(evaluated(read_judged(data, task))[0]) == 1.0


def test_a_picture_is_no_answer_to_itself_and_its_label_is(data, evaluated):
    found, _ = evaluated(read_judged(data, IMAGE_TO_IMAGE))
    assert all(id not in answers for id, answers in found.run.items())
    assert value(found, "R@5") == 1.0


@pytest.mark.parametrize("n", [1, 2])
def test_one_picture_or_two_are_enough(toy, folder, evaluated, n):
    found, _ = evaluated(read_judged(made(toy, folder, toy.KINDS[:n])))
    assert value(found, "R@10") == 1.0
    assert found.n_items == n


def test_either_of_two_identical_pictures_is_right(toy, folder, evaluated):
    kinds = ["red disc", "blue disc"]
    toy.draw_all(folder, kinds, each=1)
    shutil.copy(folder / "red disc 0.png", folder / "copy.png")
    rows = [
        {"id": "z", "image": "red disc 0.png", "caption": "a red disc"},
        {"id": "a", "image": "copy.png", "caption": "the same red disc"},
        {"id": "b", "image": "blue disc 0.png", "caption": "a blue disc"},
    ]
    found, _ = evaluated(read_judged(toy.dataset(folder, rows)))
    assert value(found) == 1.0
    assert [answers[0] for answers in found.run.values()] == ["z", "a", "b"]
    assert found.n_items == 3


def test_an_identical_picture_is_neither_an_answer_to_its_twin_nor_missed(toy, folder, evaluated):
    toy.draw_all(folder, ["red disc", "blue disc"], each=2)
    shutil.copy(folder / "red disc 0.png", folder / "copy.png")
    names = ["red disc 0.png", "copy.png", "red disc 1.png", "blue disc 0.png", "blue disc 1.png"]
    rows = [{"id": name, "image": name, "label": "blue" if "blue" in name else "red"} for name in names]
    found, _ = evaluated(read_judged(toy.dataset(folder, rows), IMAGE_TO_IMAGE))
    assert found.run["copy.png"][0] == "red disc 1.png"
    assert "red disc 0.png" not in found.run["copy.png"]
    assert found.scores["nDCG@10"].tolist() == [1.0] * 5


def test_a_caption_of_two_pictures_is_right_for_each_only_with_its_own(toy, folder, evaluated):
    toy.draw_all(folder, ["red disc"], each=2)
    rows = [{"id": str(n), "image": f"red disc {n}.png", "caption": "a red disc"} for n in range(2)]
    found, _ = evaluated(read_judged(toy.dataset(folder, rows)))
    assert sorted(found.scores["R@1"].tolist()) == [0.0, 1.0]
    assert value(found, "R@5") == 1.0


def test_queries_about_pictures_that_cannot_be_read_count_as_0_and_it_is_said(toy, data, folder, evaluated):
    toy.write(folder / "red disc 0.png", b"no picture")
    found, added = evaluated(read_judged(data))
    assert value(found) == pytest.approx(22 / 24)
    assert found.n_items == 11
    assert [path for path, _ in added.failed] == [str(folder / "red disc 0.png")]
    assert any("2 of 24 queries have no right answer in the store" in note for note in found.notes)


@pytest.mark.parametrize("task", [IMAGE_TO_TEXT, IMAGE_TO_IMAGE])
def test_a_picture_that_cannot_be_opened_asks_for_nothing_and_counts_as_0(toy, data, folder, evaluated, task):
    toy.write(folder / "red disc 0.png", b"no picture")
    (folder / "blue disc 0.png").unlink()
    found, _ = evaluated(read_judged(data, task))
    assert found.scores.queries.index("red disc 0") >= 0
    assert found.run["red disc 0"] == found.run["blue disc 0"] == []
    assert np.count_nonzero(found.scores["R@5"]) == 10
    assert any("2 of 12 queries cannot be asked and count as 0" in note for note in found.notes)


def test_a_caption_that_is_too_long_to_ask_counts_as_0(toy, folder, evaluated):
    toy.draw_all(folder, SOME[:2], each=1)
    rows = [{"image": "red disc 0.png", "text": "red disc " * 400}, {"image": "blue disc 0.png", "text": "a blue disc"}]
    found, _ = evaluated(read_judged(toy.dataset(folder, rows)))
    assert found.scores["R@1"].tolist() == [0.0, 1.0]
    assert any("at most 2000 characters" in note for note in found.notes)


def test_queries_of_which_none_can_be_asked_are_an_error_and_no_result(toy, data, folder, evaluated):
    judged = read_judged(data, IMAGE_TO_TEXT)
    for file in folder.glob("*.png"):
        file.unlink()
    with pytest.raises(InvalidInput, match="expected queries that can be asked, got 12 that cannot"):
        evaluated(judged)


def test_a_judged_id_that_is_not_there_makes_the_answers_worse_and_not_the_program_fail(data, evaluated, tmp_path):
    file = tmp_path / "qrels.tsv"
    file.write_text("a red disc\tred disc 0\na red disc\tgone\na blue disc\tgone\n")
    found, _ = evaluated(read_judged(data, qrels=file))
    assert found.scores["R@1"].tolist() == [1.0, 0.0]
    assert 0 < found.scores["nDCG@10"][0] < 1
    assert len(found.notes) == 2


def test_progress_is_told(data, encoder):
    steps = []
    judged = read_judged(data)
    with place(judged, None, encoder=encoder, report=steps.append) as (engine, _):
        run(engine, judged, False, report=steps.append)
    assert {"encode", "queries"} <= {step.stage for step in steps}


# What is never looked at --------------------------------------------------------------------------------------------


def test_only_pictures_are_looked_at_in_a_store_that_holds_the_captions(toy, folder, open_engine):
    toy.draw_all(folder, SOME, each=1)
    lies = {"red disc": "a blue disc", "blue disc": "a red disc"}
    rows = [{"id": kind, "image": f"{kind} 0.png", "captions": [lies.get(kind, f"a {kind}")]} for kind in SOME]
    engine = open_engine()
    engine.add_folder(toy.dataset(folder, rows))
    found = run(engine, read_judged(folder))
    # Each lie leads to the other's picture; whoever reads the texts finds the right one.
    assert found.scores["R@1"].tolist() == [0.0, 0.0, 1.0, 1.0]


@pytest.mark.parametrize("field", ["captions", "text", "title"])
def test_the_stage_words_is_refused_where_it_would_read_the_queries(toy, folder, open_engine, field):
    toy.draw_all(folder, SOME, each=1)
    rows = [{"image": f"{kind} 0.png", field: f"code-{n} {n}"} for n, kind in enumerate(SOME)]
    engine = open_engine()
    engine.add_folder(toy.dataset(folder, rows))
    judged = read_judged(folder)
    with pytest.raises(InvalidInput, match="the stage words reads the very texts"):
        run(engine, judged, build(["words"]))


def test_a_profile_with_words_is_measured_without_them_and_it_is_said(toy, folder, open_engine):
    toy.draw_all(folder, SOME, each=1)
    rows = [{"id": kind, "image": f"{kind} 0.png", "text": f"code-{n} {n}"} for n, kind in enumerate(SOME)]
    engine = open_engine()
    engine.add_folder(toy.dataset(folder, rows))
    judged = read_judged(folder)
    plain = run(engine, judged, False)
    engine.set_profile(Profile(("words",), {"words": 9.0}, {"words": 200}, encoder="toy-0-32"))
    found = run(engine, judged)
    assert found.stages == ()
    assert found.run == plain.run
    assert any("the stage words was left out" in note for note in found.notes)


def test_words_help_queries_that_people_wrote(toy, folder, evaluated, tmp_path):
    toy.draw_all(folder, SOME, each=1)
    rows = [{"id": f"p{n}", "image": f"{kind} 0.png", "title": f"code-{n}a"} for n, kind in enumerate(SOME)]
    file = tmp_path / "qrels.tsv"
    file.write_text("".join(f"where is code-{n}a please\tp{n}\n" for n in range(4)))
    judged = read_judged(toy.dataset(folder, rows), qrels=file)
    words = build(["words"])
    words[0].weight = 5.0
    assert value(evaluated(judged, words)[0]) == 1.0
    assert evaluated(judged, words)[0].stages == ("words",)


# The place ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Where temporary stores are made."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.mark.parametrize("error", [KeyboardInterrupt, InvalidInput, SystemExit])
def test_a_temporary_store_is_gone_afterwards_whatever_happens(data, encoder, places, error):
    def use():
        with place(read_judged(data), None, encoder=encoder) as (engine, _):
            assert engine.path.parent == places
            raise error

    with pytest.raises(error):
        use()
    assert list(places.iterdir()) == []


def test_a_temporary_store_is_gone_after_an_interrupted_indexing(toy, data, places):
    def interrupt(kind, inputs, rows):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), place(read_judged(data), None, encoder=toy.ToyEncoder(hook=interrupt)):
        pass
    assert list(places.iterdir()) == []


def test_a_new_store_gets_the_dataset_as_index_would_make_it(data, encoder, evaluated, open_engine, tmp_path, toy):
    found, _ = evaluated(read_judged(data), store=tmp_path / "store")
    engine = open_engine()
    report = engine.add_folder(data)
    assert (report.added, report.unchanged, len(engine)) == (0, 12, 12)
    assert engine.get("red disc 0").metadata["captions"] == ["a red disc", "there is a red disc here"]
    assert {"picture", "text"} <= set(engine._store.fields())
    assert value(found) == 1.0
    assert toy.ids(engine.search("a red disc", k=1)) == ["red disc 0"]


def test_a_store_that_was_indexed_before_is_used_as_it_is(data, encoder, evaluated, open_engine, tmp_path):
    open_engine().add_folder(data)
    before, read = catalogue(tmp_path / "store", encoder), encoder.pictures_read
    found, added = evaluated(read_judged(data), rerank=True, store=tmp_path / "store")
    assert catalogue(tmp_path / "store", encoder) == before
    assert encoder.pictures_read == read
    assert (value(found), added.added) == (1.0, 0)


def test_a_broken_picture_is_not_written_down_again_by_an_evaluation(toy, data, encoder, evaluated, folder, tmp_path):
    toy.write(folder / "red disc 0.png", b"no picture")
    with Engine.open(tmp_path / "store", encoder) as engine:
        engine.add_folder(data)
    before = catalogue(tmp_path / "store", encoder)
    found, added = evaluated(read_judged(data), store=tmp_path / "store")
    assert catalogue(tmp_path / "store", encoder) == before
    assert [path for path, _ in added.failed] == [str(folder / "red disc 0.png")]
    assert value(found) == pytest.approx(22 / 24)


def test_pictures_that_came_since_are_indexed_and_keep_their_place(toy, folder, evaluated, open_engine, tmp_path):
    made(toy, folder, toy.KINDS[:5])
    engine = open_engine()
    engine.add_folder(folder)
    made(toy, folder, toy.KINDS)
    found, _ = evaluated(read_judged(folder), store=tmp_path / "store")
    assert (found.n_items, value(found)) == (12, 1.0)
    assert engine.add_folder(folder).unchanged == 12
    assert len(engine) == 12


def test_the_spaces_that_named_stages_need_are_filled_in(data, evaluated, open_engine, tmp_path):
    engine = open_engine()
    engine.add_folder(data)
    found, _ = evaluated(read_judged(data), build(["regions"]), tmp_path / "store", stages=["regions"])
    assert found.stages == ("regions",)
    assert found.notes == ()
    assert engine.info().spaces["regions"].live > 0
    assert set(engine._store.fields()) == {"picture", "text", "regions"}


def test_spaces_that_are_filled_in_part_only_are_filled(toy, folder, data, evaluated, open_engine, tmp_path):
    store = tmp_path / "store"
    with Engine.open(store, toy.ToyEncoder(), spaces=["picture", "regions"]) as engine:
        engine.add_folder(data)
    with Engine.open(store, toy.ToyEncoder(), spaces=["picture"]) as engine:
        engine.add([Item(id="late", path=toy.draw(folder / "red disc late.png", "red disc", 7))])
    engine = open_engine()
    assert engine.info().spaces["regions"].live < 9 * 13
    evaluated(read_judged(data), build(["regions"]), store, stages=["regions"])
    hits = [Hit(item, 0.0, 1) for item in engine.items()]
    assert (engine.ranker.collection.rows("regions", hits)[1] > 0).all()


@pytest.mark.parametrize("stage", ["late", "cross"])
def test_a_stage_that_the_encoder_cannot_serve_is_refused_and_the_store_stays(
    data, encoder, evaluated, open_engine, tmp_path, stage, toy
):
    engine = open_engine()
    engine.add_folder(data)
    before = catalogue(tmp_path / "store", encoder)
    with pytest.raises(InvalidInput, match="the encoder 'toy' has no"):
        evaluated(read_judged(data), build([stage]), tmp_path / "store", stages=[stage])
    assert catalogue(tmp_path / "store", encoder) == before
    assert engine.add([Item(id="more", text="a red disc")]).added == 1


def test_without_stages_an_encoder_without_cells_serves(data, evaluated):
    found, _ = evaluated(read_judged(data), rerank=True)
    assert found.stages == ("regions",)


def test_a_store_of_something_else_is_refused_and_stays_as_it_was(toy, data, encoder, evaluated, tmp_path):
    other = toy.draw_all(tmp_path / "other", SOME, each=1)
    with Engine.open(tmp_path / "store", encoder) as engine:
        engine.add_folder(other)
    before = files(tmp_path / "store")
    with pytest.raises(InvalidInput, match="expected a store of this dataset's pictures or an empty one"):
        evaluated(read_judged(data), store=tmp_path / "store")
    assert files(tmp_path / "store") == before


@pytest.mark.parametrize("all_ids", [True, False])
def test_other_pictures_under_the_same_ids_are_not_taken_for_the_datasets(
    toy, folder, encoder, evaluated, tmp_path, all_ids
):
    first, second = tmp_path / "train", tmp_path / "test"
    for n, kind in enumerate(SOME):
        toy.draw(first / f"{n}.png", kind)
        toy.draw(second / f"{n}.png", kind, 5)
    rows = [{"id": str(n), "image": f"{n}.png", "caption": f"a {kind}"} for n, kind in enumerate(SOME)]
    toy.dataset(first, rows if all_ids else rows[:2])
    toy.dataset(second, rows)
    with Engine.open(tmp_path / "store", encoder) as engine:
        engine.add_folder(first)
    before = files(tmp_path / "store")
    with pytest.raises(InvalidInput, match="'0' is something else"):
        evaluated(read_judged(second), store=tmp_path / "store")
    assert files(tmp_path / "store") == before


def test_a_dataset_that_was_moved_is_still_its_stores(data, evaluated, open_engine, tmp_path):
    open_engine().add_folder(data)
    shutil.copytree(data, tmp_path / "elsewhere")
    found, _ = evaluated(read_judged(tmp_path / "elsewhere"), store=tmp_path / "store")
    assert (value(found), found.n_items) == (1.0, 12)


def test_pictures_are_known_by_their_place_where_another_folder_took_their_ids(
    toy, folder, evaluated, open_engine, tmp_path
):
    other = toy.draw_all(tmp_path / "other", ["red disc", "blue disc"], each=1)
    shutil.move(other / "red disc 0.png", other / "x.png")
    shutil.move(other / "blue disc 0.png", other / "red disc 0.png")
    shutil.move(other / "x.png", other / "blue disc 0.png")
    engine = open_engine()
    engine.add_folder(other)  # here "red disc 0.png" shows a blue disc
    toy.draw_all(folder, ["red disc", "blue disc"], each=2)
    rows = [{"image": f"{kind} {n}.png", "label": kind} for kind in ("red disc", "blue disc") for n in range(2)]
    engine.add_folder(toy.dataset(folder, rows))
    found, _ = evaluated(read_judged(folder, IMAGE_TO_IMAGE), store=tmp_path / "store")
    answers = {id: [each for each in its if "another" not in each] for id, its in found.run.items()}
    assert answers["red disc 0.png"][0] == "red disc 1.png"
    assert any("2 items beside the dataset's" in note for note in found.notes)


def test_captions_are_looked_for_in_a_store_of_their_own(data, evaluated, open_engine, tmp_path):
    judged = read_judged(data, IMAGE_TO_TEXT)
    first, added = evaluated(judged, store=tmp_path / "captions")
    again, more = evaluated(judged, store=tmp_path / "captions")
    assert (added.added, more.added) == (24, 0)
    assert first.run == again.run
    open_engine().add_folder(data)
    with pytest.raises(InvalidInput, match="expected a store of this dataset's texts"):
        evaluated(judged, store=tmp_path / "store")


def test_a_folder_of_other_files_is_no_store(data, evaluated):
    with pytest.raises(StoreError, match="a folder with other files in it"):
        evaluated(read_judged(data), store=data)


# Banks --------------------------------------------------------------------------------------------------------------


def test_a_bank_file_may_begin_with_a_mark_and_have_blank_lines(tmp_path):
    file = tmp_path / "queries.txt"
    file.write_bytes("\ufeffa red disc\n\n  a blue disc \r\na red disc\n".encode())
    assert read_bank(file) == ["a red disc", "a blue disc"]


def test_the_captions_of_a_dataset_are_a_bank(data):
    assert len(read_bank(data)) == 24


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "at least one query"), (b"\n \n", "at least one query"), (b"\x89PNG\xff\xfe\x00", "UTF-8")],
)
def test_a_bank_without_a_text_is_refused(tmp_path, content, message):
    file = tmp_path / "queries.txt"
    file.write_bytes(content)
    with pytest.raises(InvalidInput, match=message):
        read_bank(file)


def test_a_bank_never_holds_what_is_evaluated_nor_the_rest_of_its_dataset(data):
    judged = read_judged(data).sampled(3)
    assert without(["A RED   disc", "there is a blue disc here", "a purple cow"], judged) == ["a purple cow"]
    with pytest.raises(InvalidInput, match="expected a bank of other queries than the evaluated ones"):
        without(read_bank(data), judged)


def test_pictures_of_another_dataset_are_a_bank_for_pictures(toy, data, folder, encoder, tmp_path):
    other = tmp_path / "other"
    toy.draw_all(other, SOME, each=2)
    shutil.copy(folder / "red disc 0.png", other / "copy.png")
    toy.write(other / "broken.png", b"no picture")
    toy.draw(other / "new.png", "red disc", 9)
    judged = read_judged(data, IMAGE_TO_TEXT)
    names = {path.name for path in bank_pictures(judged, other)}
    assert names >= {"new.png", "red disc 1.png"}
    assert not names & {"copy.png", "red disc 0.png"}
    with place(judged, None, encoder=encoder) as (engine, _):
        (bank,) = bank_for(judged, other, engine).values()
        assert len(bank.vectors) == 5


def test_the_evaluated_pictures_and_texts_are_no_bank_for_pictures(data, tmp_path):
    judged = read_judged(data, IMAGE_TO_TEXT).sampled(2)
    shutil.copytree(data, tmp_path / "copy of it")
    with pytest.raises(InvalidInput, match="expected other pictures than the evaluated ones"):
        bank_pictures(judged, data)
    with pytest.raises(InvalidInput, match="expected other pictures than the evaluated ones"):
        bank_pictures(read_judged(data, IMAGE_TO_TEXT), tmp_path / "copy of it")
    file = tmp_path / "queries.txt"
    file.write_text("a red disc\n")
    with pytest.raises(InvalidInput, match="expected a dataset folder with pictures as bank"):
        bank_pictures(judged, file)


class Failing(Stage):
    name = "failing"

    def score(self, query, hits, deadline=None):
        if "red" in query.text:
            raise PictureError("cannot")
        return Signal(np.zeros(len(hits), dtype=np.float32))


def test_what_a_stage_could_not_do_is_in_the_notes_with_how_often(data, evaluated):
    found, _ = evaluated(read_judged(data), [Failing()])
    assert found.stages == ("failing",)
    assert any("failing: failed" in note and "(6 queries)" in note for note in found.notes)


def test_hubness_without_a_bank_says_so(data, evaluated):
    found, _ = evaluated(read_judged(data), build(["hubness"]))
    assert any("there is no bank of text queries" in note for note in found.notes)


def test_a_dataset_without_a_folder_of_its_own_is_a_table(toy, folder, evaluated):
    toy.draw_all(folder, SOME, each=1)
    table = folder / "pictures.csv"
    table.write_text("image,caption\n" + "".join(f"{kind} 0.png,a {kind}\n" for kind in SOME))
    found, _ = evaluated(read_judged(Path(table)))
    assert value(found) == 1.0


def test_a_dataset_may_have_an_entry_for_each_caption_of_a_picture(toy, folder, evaluated):
    toy.draw_all(folder, toy.KINDS, 1)
    rows = [
        {"id": f"{kind}, caption {n}", "image": f"{kind} 0.png", "captions": [f"a {kind}"]}
        for kind in toy.KINDS
        for n in range(2)
    ]
    judged = read_judged(toy.dataset(folder, rows))
    found, _ = evaluated(judged)
    assert value(found) == 1.0
    assert found.notes == ()
    assert len(set(judged.groups)) == len(toy.KINDS)
