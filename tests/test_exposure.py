"""Who gets shown: limits by category, and knobs for popularity and novelty."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmsearch.errors import InvalidInput
from mmsearch.exposure import capped, novelty_shift, popularity_shift

SEEDS = st.integers(0, 10_000)


def order(scores):
    return np.argsort(-scores, kind="stable").tolist()


def some(seed, n=300):
    """Scores that go with popularity, as those of most recommenders do, and heavy-tailed counts."""
    random = np.random.default_rng(seed)
    popularity = np.floor(random.pareto(1.0, n) * 5)
    return np.log1p(popularity) + random.normal(size=n), popularity


# Limits by category -------------------------------------------------------------------------------------------------


def test_no_category_is_kept_more_often_than_the_limit():
    brands = [{"a"}, {"a"}, {"b"}, {"a"}, {"b"}, {"c"}]
    assert capped(brands, 1) == [0, 2, 5]
    assert capped(brands, 2) == [0, 1, 2, 4, 5]
    assert capped(brands, 100) == [0, 1, 2, 3, 4, 5]


def test_an_item_counts_for_each_of_its_categories():
    assert capped([{"a", "b"}, {"b", "c"}, {"a"}, {"c"}], 1) == [0, 3]


def test_what_was_passed_over_does_not_count():
    assert capped([{"a"}, {"a", "b"}, {"b"}], 1) == [0, 2]


def test_items_without_a_category_are_always_kept():
    assert capped([set(), {"a"}, (), {"a"}, []], 1) == [0, 1, 2, 4]


def test_a_category_named_twice_counts_once():
    assert capped([["a", "a"], ["a"], ["a"]], 2) == [0, 1]


def test_an_empty_ranking_stays_empty():
    assert capped([], 3) == []


@given(st.lists(st.sets(st.integers(0, 4), max_size=3), max_size=30), st.integers(1, 4))
def test_each_item_passed_over_would_have_broken_the_limit(categories, limit):
    kept = capped(categories, limit)
    for position, own in enumerate(categories):
        full = {each for each in own if sum(each in categories[n] for n in kept if n < position) >= limit}
        assert (position in kept) == (not full)


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, None])
def test_a_limit_that_is_no_number_of_items_is_refused(limit):
    with pytest.raises(InvalidInput, match="whole number from 1"):
        capped([{"a"}], limit)


def test_a_str_is_not_taken_for_its_letters():
    with pytest.raises(InvalidInput, match="item 1 as a set or list, got the str 'shoe'"):
        capped([{"shoe"}, "shoe"], 1)


def test_categories_that_cannot_be_told_apart_are_refused():
    with pytest.raises(InvalidInput, match="item 0 as hashable"):
        capped([[["a"]]], 1)


# Popularity ---------------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(-1e30, 1e30), max_size=20))
def test_the_knob_at_0_leaves_the_scores_as_they_are(scores):
    np.testing.assert_array_equal(popularity_shift(scores, np.arange(len(scores)), 0), scores)


@given(SEEDS, st.integers(1, 50))
def test_the_first_k_get_more_popular_as_the_knob_rises(seed, k):
    scores, popularity = some(seed)
    means = [
        np.log1p(popularity[order(popularity_shift(scores, popularity, knob))[:k]]).mean()
        for knob in np.linspace(-1, 1, 21)
    ]
    assert (np.diff(means) >= -1e-12).all()


def test_the_first_ten_are_far_less_known_at_minus_1_and_better_known_at_1():
    scores, popularity = some(0)
    few, plain, many = (popularity[order(popularity_shift(scores, popularity, knob))[:10]] for knob in (-1, 0, 1))
    assert few.max() == popularity.min()
    assert few.mean() < plain.mean() / 20
    assert sorted(many) == sorted(popularity)[-10:]


def test_half_way_the_scores_still_matter():
    scores, popularity = some(0)
    first = order(popularity_shift(scores, popularity, -0.4))[:10]
    assert popularity[first].mean() < popularity[order(scores)[:10]].mean()
    assert scores[first].mean() > scores.mean() + scores.std()


def test_the_scores_settle_the_order_of_equally_popular_ones():
    assert order(popularity_shift([1.0, 3.0, 2.0, 9.0], [5, 5, 5, 80], -1)) == [1, 2, 0, 3]
    assert order(popularity_shift([1.0, 3.0, 2.0, 0.0], [5, 5, 5, 80], 1)) == [3, 1, 2, 0]


@pytest.mark.parametrize("knob", [-1, -0.5, 0.5, 1])
def test_equal_popularity_leaves_the_order_and_equal_scores_leave_it_to_popularity(knob):
    assert order(popularity_shift([0.1, 0.3, 0.2], [0.1, 0.1, 0.1], knob)) == [1, 2, 0]
    by_popularity = [1, 2, 0] if knob > 0 else [0, 2, 1]
    assert order(popularity_shift([0.7, 0.7, 0.7], [1, 300, 20], knob)) == by_popularity
    assert order(popularity_shift([0.0, 0.0, 0.0], [4, 4, 4], knob)) == [0, 1, 2]


@given(SEEDS, st.floats(-1, 1))
def test_the_scale_of_the_scores_makes_no_difference_to_the_order(seed, knob):
    scores, popularity = some(seed, n=50)
    shifted = popularity_shift(scores, popularity, knob)
    np.testing.assert_allclose(popularity_shift(1000 * scores - 30, popularity, knob), 1000 * shifted - 30, atol=1e-8)
    assert shifted.mean() == pytest.approx(scores.mean())


def test_what_was_passed_in_is_not_changed():
    scores, popularity = some(0)
    before = scores.copy(), popularity.copy()
    popularity_shift(scores, popularity, 0.5)[:] = 0
    popularity_shift(scores, popularity, 0)[:] = 0
    np.testing.assert_array_equal((scores, popularity), before)


# Novelty ------------------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(-1e30, 1e30), max_size=20))
def test_no_novelty_leaves_the_scores_as_they_are(scores):
    np.testing.assert_array_equal(novelty_shift(scores, np.linspace(-1, 1, len(scores)), 0), scores)


@given(SEEDS, st.integers(1, 40))
def test_the_first_k_get_less_alike_to_the_history_as_novelty_rises(seed, k):
    random = np.random.default_rng(seed)
    nearest = random.uniform(-0.2, 1, 100)
    scores = nearest + random.normal(scale=0.2, size=100)
    means = [nearest[order(novelty_shift(scores, nearest, novelty))[:k]].mean() for novelty in np.linspace(0, 1, 11)]
    assert (np.diff(means) <= 1e-5).all()  # to which the cosines are rounded
    assert means[-1] == pytest.approx(np.sort(nearest)[:k].mean(), abs=0.05)


def test_full_novelty_takes_the_farthest_and_of_equally_far_ones_the_best():
    assert order(novelty_shift([0.9, 0.2, 0.5, 0.8], [0.9, 0.1, 0.1, 0.5], 1)) == [2, 1, 3, 0]


def test_somebody_without_a_history_gets_the_order_of_the_scores():
    assert order(novelty_shift([0.1, 0.3, 0.2], [-1.0, -1.0, -1.0], 1)) == [1, 2, 0]


def test_noise_in_equal_cosines_is_not_blown_up():
    nearest = 0.1 + 1e-8 * np.arange(3)
    assert order(novelty_shift([0.3, 0.2, 0.1], nearest[::-1], 1)) == [0, 1, 2]


# Both ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [popularity_shift, novelty_shift])
def test_nothing_and_one_candidate_are_no_special_cases(shift):
    assert shift([], [], 0.5).tolist() == []
    np.testing.assert_allclose(shift([3.0], [0.5], 1.0), [3.0])


@pytest.mark.parametrize("shift", [popularity_shift, novelty_shift])
@pytest.mark.parametrize(
    ("scores", "others", "knob"),
    [
        ([1.0, 2.0], [0.5, 0.5], 1.1),
        ([1.0, 2.0], [0.5, 0.5], -1.1),
        ([1.0, 2.0], [0.5, 0.5], math.nan),
        ([1.0, 2.0], [0.5], 0.5),
        ([1.0, math.nan], [0.5, 0.5], 0.5),
        ([1.0, -math.inf], [0.5, 0.5], 0.5),
        ([1.0, 1e300], [0.5, 0.5], 0.5),
        ([1.0, 2.0], [0.5, math.nan], 0.5),
        ([1.0, 2.0], [0.5, -1.1], 0.5),
        ([[1.0, 2.0]], [0.5, 0.5], 0.5),
        (1.0, [0.5], 0.5),
    ],
)
def test_wrong_input_is_refused(shift, scores, others, knob):
    with pytest.raises(InvalidInput, match="expected"):
        shift(scores, others, knob)


def test_cosines_above_1_by_rounding_are_let_pass():
    assert len(novelty_shift([1.0, 2.0], np.array([1.0000002, 0.5], np.float32), 0.5)) == 2
    with pytest.raises(InvalidInput, match=r"cosines from -1 to 1, got 1\.5 at position 1"):
        novelty_shift([1.0, 2.0], [0.5, 1.5], 0.5)
