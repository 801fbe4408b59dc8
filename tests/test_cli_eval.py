"""``mmsearch eval``, ``tune`` and ``bank``: what they print, what they promise to scripts, and how they refuse."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from mmsearch import Engine
from mmsearch.gallery import gallery_folder
from mmsearch.profile import Profile
from mmsearch.trec import read_run

PICTURES = {
    "mill 1": ("gcompris-photos-categorization-images-renewable-windmill3.webp", ["a windmill", "wind power"], "mill"),
    "mill 2": ("gcompris-photos-categorization-images-renewable-windmill5.webp", ["many windmills"], "mill"),
    "panda#1": ("gcompris-photos-explore-world-animals-animals-panda.webp", ["a panda"], "animal"),
    "bear": ("gcompris-photos-explore-world-animals-animals-polar-bear.webp", ["a polar bear"], "animal"),
    "żółty rower": ("openclipart-transportation-bicycle-philippe-colin-01.webp", ["a bicycle"], "thing"),
    "pizza": ("openclipart-food-pizza-pepperoni.webp", ["a pizza", "something to eat"], "thing"),
}
SPARE = ["gcompris-photos-explore-monuments-egypt-redpyramid.webp", "fluent-emoji-flat-parrot.webp"]
KEYS = {"task", "items", "queries", "measures", "stages", "ms_per_query"}


@pytest.fixture
def ask_json(ask):
    """The one JSON object that a command prints, and nothing else."""

    def run(*arguments):
        code, shown, said = ask(*arguments, "--json")
        assert (code, said) == (0, "")
        data, end = json.JSONDecoder().raw_decode(shown)
        assert shown[end:] == "\n"
        return data

    return run


def write_dataset(folder, names=tuple(PICTURES), **more):
    folder.mkdir(parents=True)
    shutil.copy(gallery_folder() / "images.zip", folder / "images.zip")
    rows = [
        {"id": id, "image": PICTURES[id][0], "captions": PICTURES[id][1], "label": PICTURES[id][2], **more}
        for id in names
    ]
    (folder / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A dataset folder, another one, a bank file, and a store of the dataset."""
    home = tmp_path_factory.mktemp("home")
    write_dataset(home / "data")
    other = home / "other"
    other.mkdir()
    with zipfile.ZipFile(gallery_folder() / "images.zip") as archive:
        for name in SPARE:
            (other / name).write_bytes(archive.read(name))
    rows = [{"image": name, "caption": f"picture {n}"} for n, name in enumerate(SPARE)]
    (other / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (home / "queries.txt").write_text("a red car\na dog on a beach\nA  Windmill\na pizza\nsomebody asleep\n")
    (home / "qrels.tsv").write_text(
        "where wind turns\tmill 1\nwhere wind turns\tmill 2\nblack and white fur\tpanda#1\n"
    )
    with Engine.open(home / "store") as engine:
        engine.add_folder(home / "data")
    return home


@pytest.fixture
def store(home, tmp_path):
    """A copy of the store that a test may change."""
    return shutil.copytree(home / "store", tmp_path / "store")


def state(store):
    with Engine.open(store, create=False) as engine:
        info = engine.info()
        return {item.id for item in engine.items()}, set(info.spaces), info.failures, engine._store.fields()


# eval ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "items", "queries"), [("text-to-image", 6, 8), ("image-to-text", 8, 6), ("image-to-image", 6, 6)]
)
def test_eval_prints_one_object_of_the_form_of_the_contract(ask_json, home, task, items, queries):
    said = ask_json("eval", home / "data", "--task", task, "--no-rerank")
    assert said.keys() >= KEYS
    assert (said["task"], said["items"], said["queries"], said["stages"]) == (task, items, queries, [])
    assert list(said["measures"]) == ["R@1", "R@5", "R@10", "MRR@10", "nDCG@10"]
    for measure in said["measures"].values():
        assert measure.keys() == {"value", "low", "high"}
        assert 0 <= measure["low"] <= measure["value"] <= measure["high"] <= 1
    assert said["measures"]["R@10"]["value"] == 1.0
    assert said["ms_per_query"] > 0


def test_without_a_store_the_default_stages_have_what_they_need(ask_json, home):
    said = ask_json("eval", home / "data")
    assert said["stages"] == ["regions", "late"]
    assert said["notes"] == []


def test_a_bank_adds_hubness(ask_json, home):
    assert ask_json("eval", home / "data", "--bank", home / "queries.txt")["stages"] == ["hubness", "regions", "late"]
    pictures = ask_json("eval", home / "data", "--task", "image-to-text", "--bank", home / "other")
    assert "hubness" in pictures["stages"]


def test_people_see_percent_and_the_notes_on_stderr(ask, home):
    code, shown, said = ask("eval", home / "data", "--stages", " hubness ", "--queries", "3")
    assert code == 0
    assert shown.startswith("text-to-image: 3 queries among 6 items; hubness\n")
    assert re.search(r"R@1 +\d+\.\d% +\d+\.\d to \d+\.\d *\n", shown)
    assert "ms a query" in shown
    assert "note: hubness: there is no bank of text queries" in said


def test_a_store_that_was_indexed_is_measured_as_it_is(ask_json, home, store):
    before = state(store)
    said = ask_json("eval", home / "data", "--store", store)
    assert (said["stages"], said["items"]) == ([], 6)
    assert state(store) == before


def test_cells_are_filled_in_for_late(ask_json, home, store):
    said = ask_json("eval", home / "data", "--store", store, "--stages", "late")
    assert (said["stages"], said["notes"]) == (["late"], [])
    ids, spaces, failures, fields = state(store)
    assert spaces >= {"picture", "cells"}
    assert (len(ids), failures, set(fields)) == (6, 0, {"picture", "text", "cells"})
    assert "late" in ask_json("eval", home / "data", "--store", store)["stages"]


def test_a_store_that_is_not_there_is_made_as_index_makes_it(ask_json, home, tmp_path):
    ask_json("eval", home / "data", "--store", tmp_path / "new", "--no-rerank")
    report = ask_json("index", home / "data", "--store", tmp_path / "new")
    assert (report["added"], report["unchanged"], report["items"]) == (0, 6, 6)


def test_the_stores_own_bank_counts_without_the_evaluated_queries(ask_json, home, store):
    texts = home / "queries.txt"
    assert ask_json("bank", texts, "--store", store) == {"queries": 5}
    own = ask_json("eval", home / "data", "--store", store, "--stages", "hubness")
    named = ask_json("eval", home / "data", "--store", store, "--stages", "hubness", "--bank", texts)
    assert own["measures"] == named["measures"]
    assert own["notes"] == named["notes"] == []
    only = home / "data"
    ask_json("bank", only, "--store", store)
    said = ask_json("eval", home / "data", "--store", store, "--stages", "hubness")
    assert any("there is no bank of text queries" in note for note in said["notes"])
    assert ask_json("eval", home / "data", "--store", store)["stages"] == []


def test_judgements_of_a_file_take_the_place_of_captions(ask_json, home):
    said = ask_json("eval", home / "data", "--qrels", home / "qrels.tsv", "--stages", "words")
    assert (said["queries"], said["items"], said["stages"]) == (2, 6, ["words"])


def test_pictures_that_cannot_be_read_are_named_in_json_too(ask_json, tmp_path):
    data = write_dataset(tmp_path / "data")
    (data / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    with (data / "items.jsonl").open("a") as file:
        file.write(json.dumps({"id": "broken", "image": "broken.jpg", "caption": "cannot be seen"}) + "\n")
    said = ask_json("eval", data, "--no-rerank")
    assert (said["queries"], said["items"]) == (9, 6)
    assert said["measures"]["R@10"]["value"] == pytest.approx(8 / 9)
    assert any("broken.jpg" in note for note in said["notes"])
    assert any("count as 0" in note for note in said["notes"])


def test_a_run_file_is_read_by_others_whatever_the_ids_and_queries(ask_json, home, tmp_path):
    file = tmp_path / "answers.run"
    ask_json("eval", home / "data", "--no-rerank", "--run", file)
    found = read_run(file)
    assert next(iter(found["mill%201#0"])) in {"mill%201", "mill%202"}
    assert set(found["żółty%20rower#0"]) == {"mill%201", "mill%202", "panda#1", "bear", "żółty%20rower", "pizza"}
    ask_json("eval", home / "data", "--no-rerank", "--run", file, "--qrels", home / "qrels.tsv")
    assert set(read_run(file)) == {"where%20wind%20turns", "black%20and%20white%20fur"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data", "--task", "image-to-music"], "expected a task of"),
        (["data", "--stages", "magic"], "expected different stages of hubness, regions, late, cross, second, words"),
        (["data", "--stages", "late,late"], "expected different stages"),
        (["data", "--stages", ""], "expected names of stages"),
        (["data", "--stages", " , "], "expected names of stages"),
        (["data", "--stages", "late", "--no-rerank"], "expected --no-rerank or --stages, got both"),
        (["data", "--stages", "second"], "expected an encoder for the stage 'second', got none"),
        (["data", "--second", "mini"], "expected --second with the stage that uses it"),
        (["data", "--stages", "words"], "the stage words reads the very texts"),
        (["data", "--bank", "data"], "expected a bank of other queries than the evaluated ones"),
        (["data", "--bank", "data", "--queries", "1"], "expected a bank of other queries than the evaluated ones"),
        (["data", "--bank", "empty.txt"], "expected a bank of at least one query"),
        (["data", "--bank", "data/images.zip"], "expected a folder, a picture, or a table"),
        (["data", "--bank", "binary.txt"], "expected a bank as UTF-8 text"),
        (["data", "--bank", "nowhere"], "does not exist"),
        (
            ["data", "--task", "image-to-text", "--bank", "queries.txt"],
            "expected a dataset folder with pictures as bank",
        ),
        (["data", "--task", "image-to-image", "--bank", "data"], "expected other pictures than the evaluated ones"),
        (["data", "--task", "image-to-image", "--label", "nothing"], "expected a field that says what a picture shows"),
        (["data", "--label", "label"], "expected a label only for image-to-image"),
        (["data", "--qrels", "nowhere.tsv"], "No such file"),
        (["data", "--qrels", "empty.txt"], "expected judgements in"),
        (["data", "--qrels", "binary.txt"], "expected UTF-8"),
        (["data", "--run", "no folder/file"], "expected a file in a folder that is there"),
        (["nowhere"], "does not exist"),
        (["queries.txt"], "expected a folder, a picture, or a table"),
        (["data", "--store", "other store"], "expected a store of this dataset's pictures"),
        (["data", "--task", "image-to-text", "--store", "store"], "expected a store of this dataset's texts"),
    ],
)
def test_wrong_input_is_refused_with_2_and_a_sentence(ask, home, monkeypatch, arguments, message):
    monkeypatch.chdir(home)
    (home / "empty.txt").write_bytes(b"\n")
    (home / "binary.txt").write_bytes(b"\x89PNG\r\n\xff\xfe")
    if not (home / "other store").exists():
        with Engine.open(home / "other store") as engine:
            engine.add_folder(home / "other")
    code, shown, said = ask("eval", *arguments)
    assert (code, shown) == (2, "")
    assert message in said
    assert state(home / "store")[2:] == (0, ("picture", "text"))


def test_0_queries_are_refused_with_2(ask, home):
    assert ask("eval", home / "data", "--queries", "0")[0] == 2


def test_a_store_that_cannot_be_used_is_refused_with_3_and_a_missing_model_with_4(ask, home):
    assert ask("eval", home / "data", "--store", home / "data")[0] == 3
    assert ask("eval", home / "data", "--store", home / "queries.txt")[0] == 3
    assert ask("eval", home / "data", "--encoder", "local-dir:/nowhere")[0] == 4


def test_an_interrupted_evaluation_leaves_no_temporary_store(home, tmp_path):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    big = tmp_path / "big"
    big.mkdir()
    shutil.copy(gallery_folder() / "images.zip", big)
    with zipfile.ZipFile(big / "images.zip") as archive:
        rows = [{"image": name, "caption": f"picture {n}"} for n, name in enumerate(archive.namelist()[:150])]
    (big / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    running = subprocess.Popen(
        [sys.executable, "-m", "mmsearch", "eval", big],
        env=os.environ | {"TMPDIR": str(temporary)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    while running.poll() is None and not list(temporary.glob("mmsearch-*/catalog.sqlite")):
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    _, said = running.communicate()
    assert running.returncode == 130
    assert b"Traceback" not in said
    assert list(temporary.iterdir()) == []


# tune ---------------------------------------------------------------------------------------------------------------


def test_tune_writes_a_profile_that_searches_use_from_then_on(ask_json, home, store):
    said = ask_json("tune", home / "data", "--store", store, "--bank", home / "queries.txt")
    assert said["stages"] == list(said["weights"]) == []  # six pictures are too few to tell
    assert list(said["MRR@10 gained"]) == ["hubness", "regions", "late"]
    assert said.keys() >= {"before", "after", "task", "queries"}
    with Engine.open(store) as engine:
        assert engine.search("a windmill")[0].ranks.keys() <= {"vectors"}
    assert ask_json("eval", home / "data", "--store", store)["stages"] == []
    assert ask_json("eval", home / "data", "--store", store, "--stages", "late")["stages"] == ["late"]


def test_tune_keeps_the_bank_without_the_judged_queries(ask_json, home, store):
    ask_json("tune", home / "data", "--store", store, "--stages", "hubness", "--bank", home / "queries.txt")
    with Engine.open(store) as engine:
        assert engine.ranker.collection.bank_texts() == ["a red car", "a dog on a beach", "somebody asleep"]


def test_tune_says_what_each_stage_was_worth(ask, home, store):
    code, shown, _ = ask("tune", home / "data", "--store", store, "--stages", "late")
    assert code == 0
    assert "left out" in shown
    assert "before R@1/5/10" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stages", "words"], "the stage words reads the very texts"),
        (["--stages", "second"], "expected an encoder for the stage 'second'"),
        (["--task", "image-to-image"], "expected --stages to try for image-to-image"),
        (["--task", "image-to-text", "--bank", "other"], "stores keep banks of texts"),
        (["--queries", "1"], "at least two pictures"),
        (["--bank", "data"], "expected a bank of other queries"),
        (["--stages", ","], "expected names of stages"),
    ],
)
def test_tune_refuses_before_it_touches_the_store(ask, home, monkeypatch, tmp_path, arguments, message):
    monkeypatch.chdir(home)
    code, shown, said = ask("tune", "data", "--store", tmp_path / "new", *arguments)
    assert (code, shown) == (2, "")
    assert message in said
    assert not (tmp_path / "new").exists()


def test_tune_refuses_a_store_of_something_else(ask, home, tmp_path):
    with Engine.open(tmp_path / "other") as engine:
        engine.add_folder(home / "other")
    before = state(tmp_path / "other")
    assert ask("tune", home / "data", "--store", tmp_path / "other")[0] == 2
    assert state(tmp_path / "other") == before


# bank ---------------------------------------------------------------------------------------------------------------


def test_a_bank_is_set_and_forgotten(ask, ask_json, home, store):
    assert ask_json("bank", home / "queries.txt", "--store", store) == {"queries": 5}
    assert ask("bank", home / "data", "--store", store)[1] == "8 queries in the bank\n"
    assert ask("bank", "--forget", "--store", store)[1] == "no bank any more\n"
    for wrong in ([], [home / "queries.txt", "--forget"], [Path("nowhere")]):
        assert ask("bank", *wrong, "--store", store)[0] == 2
    assert ask("bank", home / "queries.txt", "--store", home / "no store")[0] == 3


def test_what_tune_chose_is_forgotten_when_asked_for(ask, ask_json, home, store):
    with Engine.open(store, create=False) as engine:
        profile = Profile(("late",), {"late": 1.0}, {"late": 10}, encoder=engine.encoder.fingerprint)
        engine.set_profile(profile)
        assert engine.ranker.cascade(True).names == ("late",)
    assert ask_json("tune", "--forget", "--store", store) == {"stages": None}
    with Engine.open(store, create=False) as engine:
        assert engine.ranker.cascade(True).names != ("late",)
    code, _, said = ask("tune", "--store", store)
    assert code == 2
    assert "expected a dataset to tune on, or --forget" in said


def test_a_second_encoder_may_be_named_for_a_search(ask_json, ask, store):
    answer = ask_json("search", "a windmill", "--stages", "second", "--second", "mini", "--store", store, "-k", "2")
    assert all("second" in hit["scores"] for hit in answer["hits"])
    code, _, said = ask("search", "a windmill", "--second", "mini", "--store", store)
    assert code == 2
    assert "--second with the stage that uses it" in said
