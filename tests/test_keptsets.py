"""Sets of arrays that analyses leave behind: the latest of each name, and no obstacle when they are spoilt."""

import numpy as np
import pytest

from mmsearch.errors import StoreBusy, StoreError
from mmsearch.keptsets import KeptSets
from mmsearch.pastclusters import Past, PastClusters, name_of, place_of


@pytest.fixture
def store(engine):
    return engine._store


@pytest.fixture
def sets(store):
    return KeptSets(store, "maps", 3)


def folders(store, name="maps"):
    return sorted(place.name for place in (store.path / name).iterdir())


def numbers(n):
    return {"keys": np.arange(n), "points": np.full((n, 2), 0.5, dtype=np.float32)}


def test_what_was_put_is_got_again(sets):
    assert sets.get("a") is None
    sets.put("a", numbers(3), {"method": "pca", "of": ["x", 1]})
    arrays, facts = sets.get("a")
    assert facts == {"method": "pca", "of": ["x", 1]}
    np.testing.assert_array_equal(arrays["keys"], [0, 1, 2])
    assert (arrays["points"].shape, arrays["points"].dtype) == ((3, 2), np.float32)


def test_empty_arrays_and_names_of_any_letters_are_kept(sets):
    for name in ("", "ä \ud800\n\"'", '{"n": 1}'):
        sets.put(name, {"none": np.zeros((0, 2), dtype=np.float32)}, {})
        assert sets.get(name)[0]["none"].shape == (0, 2)


def test_the_latest_of_a_name_replaces_the_one_before_and_leaves_no_files(sets, store):
    for n in range(4):
        sets.put("a", numbers(n), {"n": n})
    arrays, facts = sets.get("a")
    assert (len(arrays["keys"]), facts["n"]) == (3, 3)
    assert len(folders(store)) == 1


def test_the_one_that_was_put_first_goes_first(sets, store):
    for name in ("a", "b", "c", "a", "d"):
        sets.put(name, numbers(1), {})
    assert [sets.get(name) is not None for name in "abcd"] == [True, False, True, True]
    assert len(folders(store)) == 3


def test_arrays_that_are_read_stay_readable_while_they_are_replaced(sets):
    sets.put("a", numbers(3), {})
    arrays, _ = sets.get("a")
    sets.put("a", numbers(5), {})
    assert arrays["keys"].sum() == 3


def test_sets_of_another_kind_are_others(sets, store):
    others = KeptSets(store, "clusters", 3)
    sets.put("a", numbers(1), {})
    others.put("a", numbers(2), {})
    assert [len(one.get("a")[0]["keys"]) for one in (sets, others)] == [1, 2]


def test_a_store_that_somebody_else_writes_to_says_so_and_keeps_what_there_is(sets, store, open_engine):
    sets.put("a", numbers(3), {})
    with open_engine()._store.writing(), pytest.raises(StoreBusy):
        sets.put("a", numbers(4), {})
    assert len(sets.get("a")[0]["keys"]) == 3
    assert len(folders(store)) == 1


def test_a_read_only_store_says_so(sets, store, monkeypatch):
    monkeypatch.setattr(store.catalog.database, "read_only", True)
    with pytest.raises(StoreError, match="read-only"):
        sets.put("a", numbers(1), {})


def test_facts_that_cannot_be_kept_leave_nothing_behind(sets, store):
    sets.put("a", numbers(3), {})
    with pytest.raises(TypeError):
        sets.put("a", numbers(1), {"no json": {1, 2}})
    assert len(sets.get("a")[0]["keys"]) == 3
    assert len(folders(store)) == 1


@pytest.mark.parametrize(
    "spoilt", ["not json", "[]", "7", '{"a": 7}', '{"a": {}}', '{"a": {"shelf": "0", "facts": 3}}']
)
def test_a_spoilt_setting_is_nothing_and_can_be_put_again(sets, store, spoilt):
    sets.put("a", numbers(1), {})
    with store.writing(), store.catalog.transaction():
        store.catalog.set_setting("maps", spoilt)
    assert sets.get("a") is None
    sets.put("a", numbers(2), {})
    assert len(sets.get("a")[0]["keys"]) == 2


@pytest.mark.parametrize("content", [b"", b"[1", b"\x93NUMPY rubbish"])
def test_a_spoilt_or_missing_file_is_nothing(sets, store, content):
    sets.put("a", numbers(3), {})
    (place,) = (store.path / "maps").iterdir()
    for file in place.iterdir():
        file.write_bytes(content)
    assert sets.get("a") is None
    for file in place.iterdir():
        file.unlink()
    assert sets.get("a") is None


# Clusters of before -----------------------------------------------------------------------------------------------


def past(n=3):
    return Past(np.arange(n) * 2, np.arange(n), {id: f"name {id}" for id in range(n)}, {0: "title"}, next_id=9)


def test_a_clustering_of_before_is_known_again_by_its_filter(store):
    clusters = PastClusters(store)
    where = {"year": {"$gte": 2024}, "kind": "a"}
    clusters.put(where, "3 auto", past())
    found = clusters.get({"kind": "a", "year": {"$gte": 2024}})  # the order of a filter's fields says nothing
    assert (dict(found.names), dict(found.titles), found.next_id) == (dict(past().names), {0: "title"}, 9)
    assert clusters.get(None) is None
    assert clusters.get("year >= 2024") is None


def test_items_that_came_later_are_in_no_cluster_of_before():
    assert past().labels_of(np.array([0, 1, 2, 4, 5])).tolist() == [0, -1, 1, 2, -1]
    assert past(0).labels_of(np.array([0, 7])).tolist() == [-1, -1]


def test_clusterings_of_many_filters_push_out_the_oldest(store):
    clusters = PastClusters(store)
    clusters.put(None, "None auto", past(2))
    for year in range(36):
        clusters.put(f"year = {year}", "None auto", past(1))
    assert [clusters.get(f"year = {year}") is not None for year in range(36)] == [False] * 4 + [True] * 32
    assert clusters.get(None) is not None  # that of the whole store is never given up


def test_the_clustering_that_was_asked_for_in_the_same_way_is_preferred(store):
    clusters = PastClusters(store)
    clusters.put(None, "3 auto", past(3))
    clusters.put(None, "2 auto", past(2))
    assert [len(clusters.get(None, asked).keys) for asked in ("3 auto", "2 auto", "7 auto", None)] == [3, 2, 2, 2]
    assert clusters.next_id() == 9


@pytest.mark.parametrize(
    "arrays",
    [
        {},
        {"keys": np.arange(3)},
        {"keys": np.arange(3), "labels": np.arange(2)},
        {"keys": np.arange(3), "labels": np.arange(3.0)},
        {"keys": np.zeros((3, 1), dtype=np.int64), "labels": np.zeros((3, 1), dtype=np.int64)},
    ],
)
def test_arrays_that_are_no_clustering_are_passed_over(store, arrays):
    KeptSets(store, "clusters", 16).put(
        name_of(None) + " of None auto", arrays, {"names": {}, "titles": {}, "next_id": 0}
    )
    assert PastClusters(store).get(None) is None


@pytest.mark.parametrize("facts", [{}, {"names": [], "titles": {}, "next_id": 0}, {"names": {"a": "x"}, "titles": {}}])
def test_facts_that_are_no_clustering_are_passed_over(store, facts):
    KeptSets(store, "clusters", 16).put(
        name_of(None) + " of None auto", {"keys": np.arange(1), "labels": np.arange(1)}, facts
    )
    assert PastClusters(store).get(None) is None


def test_places_are_found_among_ascending_keys():
    assert place_of(np.array([5, 1, 3, 9, 0]), np.array([1, 3, 5])).tolist() == [2, 0, 1, -1, -1]
    assert place_of(np.array([5]), np.zeros(0, dtype=np.int64)).tolist() == [-1]
    assert place_of(np.zeros(0, dtype=np.int64), np.array([1])).tolist() == []
