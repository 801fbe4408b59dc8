"""Several rankings as one."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmsearch.errors import InvalidInput
from mmsearch.fusion import reciprocal_ranks, standardised, weighted_sum

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


def test_a_document_that_a_source_does_not_hold_gets_its_lowest_score():
    fused = weighted_sum([{"a": 1.0, "b": -2.0}, {"c": 5.0}], [1.0, 1.0])
    assert fused == [("a", 6.0), ("b", 3.0), ("c", 3.0)]


def test_an_empty_source_gives_nothing():
    assert weighted_sum([{"a": 1.0, "b": 2.0}, {}], [0.5, 9.0]) == [("b", 1.0), ("a", 0.5)]
    assert weighted_sum([], []) == weighted_sum([{}], [1.0]) == []


@given(SOURCES, st.randoms())
def test_the_order_of_the_sources_makes_no_difference(sources, random):
    weighted = [(source, number - 1.5) for number, source in enumerate(sources)]
    shuffled = random.sample(weighted, len(weighted))
    straight = weighted_sum([source for source, _ in weighted], [weight for _, weight in weighted])
    assert straight == weighted_sum([source for source, _ in shuffled], [weight for _, weight in shuffled])
    assert straight == sorted(straight, key=lambda pair: (-pair[1], pair[0]))


@given(st.dictionaries(st.sampled_from("abcdefgh"), st.floats(-100, 100)))
def test_one_source_of_weight_1_keeps_its_scores(source):
    assert dict(weighted_sum([source], [1.0])) == source


@pytest.mark.parametrize(
    ("scores", "weights"),
    [([{"a": 1.0}], []), ([{"a": 1.0}], [math.inf]), ([{"a": math.nan}], [1.0]), ([{"a": math.inf}], [1.0])],
)
def test_wrong_scores_are_refused(scores, weights):
    with pytest.raises(InvalidInput, match="expected"):
        weighted_sum(scores, weights)


# On one scale -------------------------------------------------------------------------------------------------------


@given(st.lists(st.one_of(st.floats(), st.just(math.nan)), max_size=20))
def test_finite_values_get_zero_mean_and_unit_variance_and_the_rest_stays(values):
    given_values = np.array(values, dtype=np.float64)
    result = standardised(given_values)
    finite = np.isfinite(given_values)
    np.testing.assert_array_equal(result[~finite], given_values[~finite])
    assert np.isfinite(result[finite]).all()
    if finite.any():
        assert result[finite].mean() == pytest.approx(0, abs=1e-9)
        assert result[finite].var() == pytest.approx(1, abs=1e-9) or not result[finite].any()


def test_the_order_stays_and_the_input_is_not_touched():
    values = np.random.default_rng(0).normal(3, 7, (4, 5)).astype(np.float32)
    before = values.copy()
    result = standardised(values)
    assert result.dtype == np.float64
    np.testing.assert_array_equal(np.argsort(result, axis=None), np.argsort(values, axis=None))
    np.testing.assert_allclose(result, (values - values.mean()) / values.std(), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(values, before)


@pytest.mark.parametrize("values", [[0.1] * 7, [1e308] * 3, [5], [0, 0]])
def test_equal_values_become_zeros(values):
    np.testing.assert_array_equal(standardised(np.array(values)), np.zeros(len(values)))


def test_values_at_the_ends_of_the_range_stay_finite():
    np.testing.assert_allclose(standardised(np.array([-1.7e308, 1.7e308])), [-1, 1])
    assert standardised(np.array([])).shape == (0,)
    np.testing.assert_array_equal(standardised(np.array([np.nan, np.inf])), [np.nan, np.inf])
