"""What was learnt from interactions: kept in the store, taken back, out of date, damaged, and learnt anew."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from mmsearch import Engine, Interaction, InvalidInput, Item, StoreBusy, StoreError
from mmsearch.errors import StoreDamaged
from mmsearch.shelf import Shelf
from mmsearch.store import Store
from mmsearch.tastes import Tastes


def people(toy, n=24):
    """Each likes eight things of one colour, one after the other."""
    told = []
    for person in range(n):
        colour = list(toy.COLOURS)[person % 4]
        for step in range(8):
            item = f"{colour} {toy.SHAPES[(person + step) % 3]} {(person * 7 + step) % 5}"
            told.append(Interaction(f"person {person}", item, time=1e9 + 100.0 * step + person))
    return told


@pytest.fixture(scope="module")
def made(tmp_path_factory, toy):
    """A store of sixty texts that has learnt from 24 people, to be copied."""
    place = tmp_path_factory.mktemp("made") / "store"
    with Engine.open(place, toy.ToyEncoder()) as engine:
        engine.add(
            [Item(id=f"{kind} {n}", text=f"a {kind} with the number {n}", metadata={"shape": kind.split()[1]})
             for kind in toy.KINDS for n in range(5)]
        )  # fmt: skip
        engine.add_interactions(people(toy))
        engine.fit_recommender()
    return place


@pytest.fixture
def fitted(made, tmp_path, open_engine):
    shutil.copytree(made, tmp_path / "store")
    return open_engine("store")


@pytest.fixture
def tastes(fitted):
    """What another program would make of the same store: (store, tastes)."""
    store = Store(fitted.path)
    yield store, Tastes(store)
    store.close()


def learnt(tastes):
    store, its = tastes
    with store.reading() as view:
        return its.learnt(view)


def ids(hits):
    return [hit.item.id for hit in hits]


def notes(engine):
    return engine.recommend(user="person 0", k=1)[0].notes


def kept(engine):
    return sorted(place.name for place in (engine.path / "recommender").iterdir())


# Kept and taken back -------------------------------------------------------------------------------------------------


def test_what_was_learnt_lasts(fitted, open_engine):
    before = fitted.recommend(user="person 0", k=30)
    fitted.close()
    assert open_engine("store").recommend(user="person 0", k=30) == before
    assert before[0].notes == ()
    assert "had together" in {reason.kind for hit in before for reason in hit.reasons}


def test_what_was_learnt_is_the_same_when_learnt_again(fitted):
    before = fitted.recommend(user="person 0", k=30)
    fitted.fit_recommender()
    assert fitted.recommend(user="person 0", k=30) == before


def test_another_process_recommends_the_same(fitted, toy, tmp_path):
    script = (
        "import importlib.util, json, sys\n"
        "spec = importlib.util.spec_from_file_location('toy', sys.argv[2])\n"
        "toy = importlib.util.module_from_spec(spec); sys.modules['toy'] = toy; spec.loader.exec_module(toy)\n"
        "from mmsearch import Engine\n"
        "with Engine.open(sys.argv[1], toy.ToyEncoder()) as engine:\n"
        "    print(json.dumps([[h.item.id, h.score] for h in engine.recommend(user='person 0', k=20)]))\n"
    )
    done = subprocess.run([sys.executable, "-c", script, fitted.path, toy.__file__], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    hits = fitted.recommend(user="person 0", k=20)
    assert json.loads(done.stdout) == [[hit.item.id, hit.score] for hit in hits]


def test_a_second_engine_sees_what_the_first_has_learnt(fitted, encoder):
    with Engine.open(fitted.path, encoder) as other:
        assert "red disc 1" not in ids(other.similar("yellow square 0", complementary=True))
        fitted.add_interactions(
            [Interaction(f"new {n}", id) for n in range(9) for id in ("yellow square 0", "red disc 1")]
        )
        fitted.fit_recommender()
        assert ids(other.similar("yellow square 0", k=1, complementary=True)) == ["red disc 1"]


def test_a_store_that_cannot_be_written_recommends(fitted, open_engine, monkeypatch):
    before = fitted.recommend(user="person 0")
    fitted.close()
    monkeypatch.setattr(os, "access", lambda place, mode: mode != os.W_OK)  # which is never so for root otherwise
    reader = open_engine("store")
    assert reader.recommend(user="person 0") == before
    with pytest.raises(StoreError, match="read-only"):
        reader.fit_recommender()


def test_old_sets_are_cleared_away_but_for_the_one_before(fitted):
    for _ in range(3):
        before = set(kept(fitted))
        fitted.fit_recommender()
        assert len(kept(fitted)) == 2
        assert len(before & set(kept(fitted))) == 1


def test_who_still_reads_the_state_before_a_fit_gets_what_was_learnt_before(fitted, tastes):
    store, its = tastes
    with store.reading() as view:
        fitted.fit_recommender()
        assert its.learnt(view).blend is not None
        assert its.learnt(view).notes == ()
    assert learnt(tastes).notes == ()


# Learning ------------------------------------------------------------------------------------------------------------


def test_learning_says_where_it_is(fitted):
    told = []
    fitted.fit_recommender(progress=told.append)
    assert (told[0].done, told[-1].done) == (0, 1)
    assert {one.stage for one in told} == {"learn"}


def test_learning_that_is_interrupted_leaves_what_was_there(fitted):
    before, files = fitted.recommend(user="person 0"), kept(fitted)

    def interrupt(progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fitted.fit_recommender(progress=interrupt)
    assert kept(fitted) == files
    assert fitted.recommend(user="person 0") == before
    fitted.fit_recommender()  # the lock was let go


def test_there_must_be_something_to_learn_from(open_engine):
    engine = open_engine("new")
    engine.add([Item(id="a", text="a red disc")])
    with pytest.raises(InvalidInput, match="expected interactions to learn from, got none"):
        engine.fit_recommender()
    assert kept(engine) == []


@pytest.mark.parametrize("fresh", [-0.1, 1.1, float("nan")])
def test_a_share_of_fresh_items_out_of_range_is_refused(fitted, fresh):
    before = kept(fitted)
    with pytest.raises(InvalidInput, match="expected fresh"):
        fitted.fit_recommender(fresh=fresh)
    assert kept(fitted) == before


def test_only_one_may_learn_at_a_time(fitted, tastes):
    store, _ = tastes
    with store.writing(), pytest.raises(StoreBusy):
        fitted.fit_recommender()
    assert notes(fitted) == ()


@pytest.mark.parametrize(
    "told",
    [
        [Interaction("ann", "red disc 0")],
        [Interaction("ann", "red disc 0", weight=0.0)],
        [Interaction("ann", "red disc 0", weight=-2.0), Interaction("bob", "red disc 1", weight=-1.0)],
        [Interaction("ann", "red disc 0")] * 3,
        [Interaction("ann", f"red disc {n}", weight=1e-30) for n in range(5)],
        [Interaction("ann", f"red disc {n}", weight=1e6) for n in range(5)],
    ],
    ids=["one event", "only seen", "only disliked", "told often", "tiny weights", "huge weights"],
)
def test_little_or_odd_behaviour_can_be_learnt_from(fitted, told):
    fitted.forget_interactions()
    fitted.add_interactions(told)
    fitted.fit_recommender()
    for hits in (fitted.recommend(user="ann", k=5), fitted.recommend(k=5), fitted.next(["blue square 0"], k=5)):
        assert len(hits) == 5
        assert np.isfinite([hit.score for hit in hits]).all()


def test_interactions_that_were_forgotten_are_forgotten_at_the_next_fit(fitted):
    fitted.forget_interactions()
    assert fitted.recommend(user="person 0", k=1)[0].notes[0] == "nothing is known of the user 'person 0'"
    with pytest.raises(InvalidInput):
        fitted.fit_recommender()


# Items that come and go ----------------------------------------------------------------------------------------------


def test_items_that_came_after_the_fit_are_recommended_by_their_content(fitted):
    fitted.add([Item(id=f"later {n}", text=f"a red disc, later {n}", metadata={"shape": "disc"}) for n in range(3)])
    hits = fitted.recommend(liked=["red disc 0"], k=100)
    assert len(hits) == 62
    later = [hit for hit in hits if hit.item.id.startswith("later")]
    assert len(later) == 3
    assert {reason.kind for hit in later for reason in hit.reasons} <= {"text", "details", "would go together"}
    assert all(hit.reasons for hit in later)
    blue = [hit.item.id for hit in hits].index("blue square 0")
    assert max(hit.rank for hit in later) < blue
    assert hits[0].notes == ()


def test_what_came_after_the_fit_can_be_liked(fitted):
    fitted.add([Item(id="later", text="a red disc, later")])
    hits = fitted.recommend(liked=["later"], k=5)
    assert all("red" in hit.item.id or "disc" in hit.item.id for hit in hits)
    fitted.add_interactions([Interaction("ann", "later"), Interaction("ann", "red disc 0")])
    assert "later" not in ids(fitted.recommend(user="ann", k=100))
    assert len(fitted.next(["red disc 0", "later"], k=100)) == 59


def test_items_removed_after_the_fit_never_appear(fitted):
    gone = ["red disc 0", "red disc 1", "blue square 0", "yellow triangle 4"]
    fitted.remove(gone)
    for hits in (
        fitted.recommend(user="person 0", k=100),
        fitted.recommend(k=100),
        fitted.next(["red disc 2"], k=100),
        fitted.similar("red disc 2", k=100, complementary=True),
    ):
        assert hits
        assert not set(ids(hits)) & set(gone)
        assert not {id for hit in hits for reason in hit.reasons for id in reason.because} & set(gone)
    fitted.fit_recommender()
    assert not set(ids(fitted.recommend(k=100))) & set(gone)


def test_all_items_may_be_removed_and_others_come(fitted):
    fitted.remove([item.id for item in fitted.items()])
    assert fitted.recommend(user="person 0") == []
    fitted.add([Item(id="new", text="a red disc")])
    assert ids(fitted.recommend(user="person 0")) == ["new"]


def test_replaced_items_are_judged_by_what_they_are_now(open_engine):
    engine = open_engine("new")
    engine.add([Item(id=f"{kind} {n}", text=f"a {kind} {n}") for kind in ("red disc", "blue square") for n in range(5)])
    engine.add([Item(id="changing", text="a blue square"), Item(id="same", text="a red disc")])
    assert "changing" not in ids(engine.recommend(liked=["red disc 0"], k=5))
    engine.add([Item(id="changing", text="a red disc")])  # whose vector is there already
    assert "changing" in ids(engine.recommend(liked=["red disc 0"], k=6))


def test_changed_metadata_count(open_engine):
    engine = open_engine("new")
    genres = {f"item {n}": "jazz" if n < 4 else "rock" for n in range(10)}
    engine.add([Item(id=id, text=f"word{id[-1]}", metadata={"genre": genre}) for id, genre in genres.items()])
    assert "item 9" not in ids(engine.recommend(liked=["item 0"], k=3, fields="details"))
    engine.add([Item(id="item 9", text="word9", metadata={"genre": "jazz"})])
    assert "item 9" in ids(engine.recommend(liked=["item 0"], k=4, fields="details"))


def test_a_field_that_comes_after_the_fit_breaks_nothing(fitted, toy):
    fitted.add([Item(id="picture", image=toy.image_of("red disc"))])
    hits = fitted.recommend(user="person 0", k=100)
    assert hits[0].notes == ()
    assert "had together" in {reason.kind for hit in hits for reason in hit.reasons}
    assert "picture" in ids(hits)
    assert ids(fitted.recommend(liked=["picture"], k=1, profile="nearest"))


def test_a_field_that_goes_after_the_fit_breaks_nothing(open_engine, toy):
    engine = open_engine("new")
    engine.add([Item(id=f"{kind} {n}", text=f"a {kind} {n}") for kind in toy.KINDS for n in range(5)])
    engine.add([Item(id="picture", image=toy.image_of("red disc"))])
    engine.add_interactions(people(toy))
    engine.fit_recommender()
    engine.remove(["picture"])
    hits = engine.recommend(user="person 0")
    assert hits[0].notes == ()
    assert "had together" in {reason.kind for hit in hits for reason in hit.reasons}


def test_items_without_vectors_are_recommended_by_behaviour(open_engine, toy):
    engine = open_engine("blind", spaces=["picture"])
    engine.add([Item(id=f"{kind} {n}", text=f"a {kind} {n}") for kind in toy.KINDS for n in range(5)])
    engine.add_interactions(people(toy))
    before = engine.recommend(user="person 0", k=100)
    assert len(before) == 60 - len({told.item for told in people(toy) if told.user == "person 0"})
    assert before[0].notes == ("no item can be compared with what they like: the newest items",)
    engine.fit_recommender()
    assert all("red" in id for id in ids(engine.recommend(user="person 0", k=5)))
    assert "red" in ids(engine.next(["red disc 0"], k=1))[0]
    engine.add([Item(id="later", text="a red disc")])
    hits = engine.recommend(user="person 0", k=100)
    assert "later" in ids(hits)
    assert [hit.reasons for hit in hits if hit.item.id == "later"] == [()]
    assert all("red" in id for id in ids(hits)[:5])
    assert "red" in ids(engine.recommend(liked=["red disc 0", "later"], k=1))[0]
    assert engine.recommend(k=100)[0].because() == "popular 1.0"


# Out of date and damaged ---------------------------------------------------------------------------------------------


def test_another_encoder_makes_what_was_learnt_out_of_date(fitted, toy):
    fitted.reindex(toy.ToyEncoder(seed=1))
    hits = fitted.recommend(liked=["red disc 0"], k=4)
    assert [toy.kind_of(hit.item) for hit in hits] == ["red disc"] * 4
    assert len(hits[0].notes) == 1
    assert "another encoder" in hits[0].notes[0]
    assert "fit_recommender" in hits[0].notes[0]
    with pytest.raises(InvalidInput, match="another encoder"):
        fitted.similar("red disc 0", complementary=True)
    fitted.fit_recommender()
    assert notes(fitted) == ()


def truncated(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def emptied(file):
    file.write_bytes(b"")


def of_another_shape(file):
    np.save(file, np.zeros((3, 2)))


def of_one_number(file):
    np.save(file, np.float64(7))


@pytest.mark.parametrize("harm", [truncated, emptied, of_another_shape, of_one_number, os.unlink])
def test_any_damaged_file_is_noted_and_content_goes_on(fitted, made, open_engine, tmp_path, harm):
    (name,) = kept(fitted)
    files = sorted(file.name for file in (fitted.path / "recommender" / name).iterdir())
    assert "contents.json" in files
    said = set()
    for file in files:
        place = tmp_path / f"harmed {file}"
        shutil.copytree(made, place)
        harm(place / "recommender" / name / file)
        with Engine.open(place, fitted.encoder) as engine:
            hits = engine.recommend(user="person 0", k=3)
        assert len(hits) == 3
        said |= set(hits[0].notes)
    assert said
    assert all("nothing is used of what was learnt" in note and "fit_recommender" in note for note in said)


@pytest.mark.parametrize("what", ["recommender", "its contents"])
def test_a_deleted_folder_is_noted_and_comes_back_with_the_next_fit(fitted, open_engine, what):
    fitted.close()
    shutil.rmtree(fitted.path / "recommender")
    if what != "recommender":
        (fitted.path / "recommender").mkdir()
    engine = open_engine("store")
    assert "nothing is used of what was learnt from interactions" in notes(engine)[0]
    with pytest.raises(InvalidInput, match="call fit_recommender"):
        engine.similar("red disc 0", complementary=True)
    engine.fit_recommender()
    assert notes(engine) == ()


# When it is made anew ------------------------------------------------------------------------------------------------


def test_new_interactions_alone_leave_everything_in_memory(fitted, tastes):
    before = learnt(tastes)
    assert learnt(tastes) is before
    fitted.add_interactions([Interaction("ann", "red disc 0")])
    fitted.add_interactions([Interaction("ann", "red disc 0", weight=5.0)])
    assert learnt(tastes) is before
    fitted.add([Item(id="later", text="a red disc")])
    after = learnt(tastes)
    assert after is not before
    assert len(after.stock) == 61
    fitted.fit_recommender()
    assert learnt(tastes) is not after


def test_whether_there_is_more_to_learn_is_known(fitted, tastes):
    assert not tastes[1].is_behind()
    fitted.add_interactions([Interaction("ann", "red disc 0")])
    assert tastes[1].is_behind()
    fitted.fit_recommender()
    assert not tastes[1].is_behind()
    shutil.rmtree(fitted.path / "recommender")
    assert tastes[1].is_behind()


def test_positions_stay_when_items_come_and_go(fitted, tastes):
    before = learnt(tastes).stock
    fitted.remove(["red disc 1"])
    fitted.add([Item(id="later", text="a red disc")])
    after = learnt(tastes).stock
    assert after.keys[:60].tolist() == before.keys.tolist()
    assert np.flatnonzero(~after.live).tolist() == [1]
    assert after.positions(np.array([before.keys[5], after.keys[-1], 10**9])).tolist() == [5, 60, -1]


# The shelf -----------------------------------------------------------------------------------------------------------


def test_a_shelf_gives_back_what_was_put_there(tmp_path):
    shelf = Shelf(tmp_path / "shelf")
    arrays = {
        "a name/of any kind": np.arange(6).reshape(2, 3),
        "none": np.zeros((0, 4), np.float32),
        "one": np.array(2.5),
        "bytes": np.frombuffer(b"\x00\xff", dtype=np.uint8),
    }
    found = shelf.get(shelf.put(arrays))
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


def test_a_shelf_leaves_nothing_behind_of_what_it_cannot_keep(tmp_path):
    shelf = Shelf(tmp_path / "shelf")
    with pytest.raises(ValueError, match="pickle"):
        shelf.put({"a": np.arange(3), "b": np.array([{}], dtype=object)})
    assert list((tmp_path / "shelf").iterdir()) == []
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="cannot be kept"):
        Shelf(tmp_path / "file").put({"a": np.arange(3)})


def test_a_shelf_drops_only_its_own(tmp_path):
    shelf = Shelf(tmp_path)
    names = [shelf.put({"a": np.arange(n)}) for n in range(3)]
    (tmp_path / "notes.txt").write_text("mine")
    shelf.keep(names[1], None)
    assert sorted(place.name for place in tmp_path.iterdir()) == sorted([names[1], "notes.txt"])
    with pytest.raises(StoreDamaged, match="call fit_recommender"):
        shelf.get(names[0])
