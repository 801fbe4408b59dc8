"""Several rankings as one."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmsearch.errors import InvalidInput
from mmsearch.fusion import reciprocal_ranks

RANKINGS = st.lists(st.lists(st.sampled_from("abcdefgh"), unique=True), max_size=5)
SOURCES = st.lists(st.dictionaries(st.sampled_from("abcdefgh"), st.floats(-100, 100)), max_size=5)


def ids(fused):
    return [id for id, _ in fused]


# By ranks -----------------------------------------------------------------------------------------------------------


def test_scores_are_sums_of_reciprocal_ranks_with_60_as_in_the_paper():
    fused = reciprocal_ranks([["a", "b"], ["b", "c"]])
    assert fused == [("b", 1 / 61 + 1 / 62), ("a", 1 / 61), ("c", 1 / 62)]


def test_weights_and_k_change_what_counts():
    assert ids(reciprocal_ranks([["a", "b"], ["b", "a"]], [1.0, 1.5])) == ["b", "a"]
    assert ids(reciprocal_ranks([["a"], ["b"]], [0.0, 1.0])) == ["b", "a"]
    assert ids(reciprocal_ranks([["a", "b"], ["c", "b"]], k=0)) == ["a", "b", "c"]
    assert ids(reciprocal_ranks([["a", "b"], ["b", "c"]], [1.0, -1.0])) == ["a", "b", "c"]


def test_nothing_fuses_to_nothing():
    assert reciprocal_ranks([]) == reciprocal_ranks([[], []]) == []


@given(RANKINGS, st.randoms())
def test_the_order_of_the_rankings_makes_no_difference(rankings, random):
    shuffled = random.sample(rankings, len(rankings))
    assert reciprocal_ranks(rankings) == reciprocal_ranks(shuffled)


@given(RANKINGS)
def test_every_document_comes_once_best_first_ties_by_id(rankings):
    fused = reciprocal_ranks(rankings)
    assert sorted(ids(fused)) == sorted({id for ranking in rankings for id in ranking})
    assert fused == sorted(fused, key=lambda pair: (-pair[1], pair[0]))


@given(st.lists(st.sampled_from("abcdefgh"), unique=True), st.integers(1, 4))
def test_equal_rankings_fuse_to_themselves(ranking, times):
    assert ids(reciprocal_ranks([ranking] * times)) == ranking


@pytest.mark.parametrize(
    "arguments",
    [
        {"rankings": [["a", "a"]]},
        {"rankings": [["a"]], "weights": [1.0, 2.0]},
        {"rankings": [["a"]], "weights": [math.nan]},
        {"rankings": [["a"]], "k": -1},
        {"rankings": [["a"]], "k": math.inf},
    ],
)
def test_wrong_rankings_are_refused(arguments):
    with pytest.raises(InvalidInput, match="expected"):
        reciprocal_ranks(**arguments)


# By scores ----------------------------------------------------------------------------------------------------------
