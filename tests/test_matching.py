"""Clusters keep their identity when a collection is clustered again."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmsearch.clustering import match
from mmsearch.errors import InvalidInput


def labelled(**groups):
    """Items by cluster: ``labelled(c3="abc", noise="d")`` puts a, b and c into cluster 3."""
    return {item: -1 if name == "noise" else int(name[1:]) for name, items in groups.items() for item in items}


def told(matching):
    return [(change.kind, change.id, change.before, change.after, change.others) for change in matching.changes]


def test_the_same_clusters_keep_their_ids_whatever_their_labels():
    matching = match(labelled(c5="abc", c9="defg", c2="hi"), labelled(c0="defg", c1="abc", c2="hi"))
    assert matching.ids == {0: 9, 1: 5, 2: 2}
    assert matching.changes == ()


def test_the_first_clustering_numbers_its_clusters_from_zero_by_size():
    matching = match({}, labelled(c0="abcd", c1="efg", c2="hi", noise="j"))
    assert matching.ids == {0: 0, 1: 1, 2: 2}
    assert matching.next_id == 3
    assert told(matching) == [("new", 0, 0, 4, ()), ("new", 1, 0, 3, ()), ("new", 2, 0, 2, ())]


def test_a_cluster_that_gains_items_keeps_its_id_and_grew():
    matching = match(labelled(c3="abcd", c4="efgh"), labelled(c0="abcdxyz", c1="efgh"))
    assert matching.ids == {0: 3, 1: 4}
    assert told(matching) == [("grew", 3, 4, 7, ())]


def test_a_cluster_that_loses_items_keeps_its_id_and_shrank():
    matching = match(labelled(c3="abcdef", c4="ghij"), labelled(c0="abc", c1="ghij", noise="def"))
    assert matching.ids == {0: 3, 1: 4}
    assert told(matching) == [("shrank", 3, 6, 3, ())]


def test_a_change_of_a_tenth_is_not_worth_telling():
    before = {n: 0 for n in range(100)}
    assert match(before, {n: 0 for n in range(110)}).changes == ()
    assert match(before, {n: 0 for n in range(90)}).changes == ()


def test_a_new_id_is_larger_than_any_that_was_ever_used():
    matching = match(labelled(c3="abc"), labelled(c0="abc", c1="xyz"), next_id=12)
    assert matching.ids == {0: 3, 1: 12}
    assert matching.next_id == 13
    assert told(matching) == [("new", 12, 0, 3, ())]


def test_the_id_of_a_vanished_cluster_is_not_given_out_again():
    first = match(labelled(c0="abc", c1="xyz"), labelled(c0="abc"), next_id=2)
    assert told(first) == [("vanished", 1, 3, 0, ())]
    second = match(labelled(c0="abc"), labelled(c0="abc", c1="pqr"), next_id=first.next_id)
    assert second.ids == {0: 0, 1: 2}


def test_a_split_names_the_pieces_and_the_larger_one_keeps_the_id():
    matching = match(labelled(c4="abcdefgh"), labelled(c0="abcde", c1="fgh"))
    assert matching.ids == {0: 4, 1: 5}
    assert told(matching) == [("split", 4, 8, 5, (5,))]


def test_a_cluster_that_fell_into_many_pieces_was_split_and_is_gone():
    matching = match(labelled(c0="abcdefgh"), labelled(c0="ab", c1="cd", c2="ef", c3="gh"))
    assert set(matching.ids.values()) == {1, 2, 3, 4}
    assert told(matching) == [("split", 0, 8, 0, (1, 2, 3, 4))]


def test_a_merger_keeps_the_id_of_the_larger_and_tells_of_the_other():
    matching = match(labelled(c0="abcde", c1="fgh"), labelled(c0="abcdefgh"))
    assert matching.ids == {0: 0}
    assert told(matching) == [("merged", 0, 5, 8, (1,)), ("merged", 1, 3, 0, (0,))]


def test_a_small_cluster_that_a_large_one_took_in_was_merged_into_it():
    before = {n: 0 for n in range(100)} | {n: 1 for n in range(100, 105)}
    matching = match(before, dict.fromkeys(range(105), 0))
    assert told(matching) == [("merged", 1, 5, 0, (0,))]


def test_a_cluster_that_is_scattered_has_vanished():
    before = labelled(c0="abcdef", c1="ghijkl", c2="mnopqr", c3="xyz")
    after = labelled(c0="abcdefx", c1="ghijkly", c2="mnopqrz")
    assert told(match(before, after))[-1] == ("vanished", 3, 3, 0, ())


def test_an_overlap_below_the_limit_is_no_match():
    # 2 of 8 items that either has: 0.25.
    matching = match(labelled(c0="abcde", noise="xyz"), labelled(c0="dexyz", noise="abc"))
    assert matching.ids == {0: 1}
    assert told(matching) == [("vanished", 0, 5, 0, ()), ("new", 1, 0, 5, ())]


def test_items_that_only_one_clustering_knows_do_not_loosen_a_match():
    before = labelled(c7="abc") | {f"gone {n}": 7 for n in range(50)}
    after = labelled(c0="abc") | {f"come {n}": 0 for n in range(50)}
    assert match(before, after).ids == {0: 7}


def test_the_best_pairing_as_a_whole_is_taken():
    # Cluster 0 overlaps most with a, but then 1 would have none.
    before = {n: 0 for n in range(10)} | {n: 1 for n in range(10, 16)}
    after = {n: 0 for n in range(5)} | {n: 1 for n in range(5, 16)}
    assert match(before, after).ids == {0: 0, 1: 1}


def test_nothing_before_and_nothing_after_are_answered():
    assert match({}, {}).ids == {}
    assert told(match(labelled(c0="abc"), {})) == [("vanished", 0, 3, 0, ())]
    assert told(match(labelled(c0="abc"), labelled(noise="abc"))) == [("vanished", 0, 3, 0, ())]
    assert told(match(labelled(noise="abc"), labelled(c0="abc"))) == [("new", 0, 0, 3, ())]


def test_a_next_id_below_zero_is_refused():
    with pytest.raises(InvalidInput, match="next_id"):
        match({}, {}, next_id=-1)


LABELS = st.dictionaries(st.integers(0, 30), st.integers(-1, 5), max_size=30)


@given(LABELS, LABELS, st.integers(0, 20))
def test_ids_are_distinct_and_only_those_of_known_clusters_are_old(before, after, next_id):
    matching = match(before, after, next_id=next_id)
    ids = list(matching.ids.values())
    assert list(matching.ids) == sorted({label for label in after.values() if label >= 0})
    assert len(set(ids)) == len(ids)
    former = {id for id in before.values() if id >= 0}
    assert all(id in former or id >= max(next_id, *(old + 1 for old in former), 0) for id in ids)
    assert matching.next_id > max([next_id - 1, *ids, *former])


@given(LABELS, LABELS)
def test_each_cluster_has_at_most_one_change_and_none_is_gone_in_silence(before, after):
    matching = match(before, after)
    changed = [change.id for change in matching.changes]
    assert len(set(changed)) == len(changed)
    gone = {id for id in before.values() if id >= 0} - set(matching.ids.values())
    assert gone <= set(changed)
    told = set(changed) | {other for change in matching.changes for other in change.others}
    fresh = set(matching.ids.values()) - set(before.values())
    assert fresh <= told


@given(LABELS, st.permutations(range(6)))
def test_a_clustering_matches_itself_under_other_labels(labels, renamed):
    after = {item: label if label < 0 else renamed[label] for item, label in labels.items()}
    matching = match(labels, after)
    assert {item: matching.ids.get(label, -1) for item, label in after.items()} == labels
    assert matching.changes == ()


def test_the_answer_does_not_depend_on_the_order_of_items():
    rng = np.random.default_rng(0)
    before = dict(enumerate(rng.integers(-1, 6, 200).tolist()))
    after = dict(enumerate(rng.integers(-1, 6, 200).tolist()))
    turned = match(dict(reversed(before.items())), dict(reversed(after.items())))
    assert turned == match(before, after)
