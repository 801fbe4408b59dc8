"""Rankings that do not say the same thing twice."""

import math
import time
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsearch.diversify import dpp, mmr, near_duplicates
from mmsearch.errors import InvalidInput
from mmsearch.vectors import as_unit_vectors

SEEDS = st.integers(0, 10_000)


def some(seed, n=40, dim=6):
    """Unit rows in a few directions, and scores."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(5, dim))
    rows = centres[random.integers(5, size=n)] + 0.3 * random.normal(size=(n, dim))
    return as_unit_vectors(rows), random.random(n)


def plain_mmr(vectors, scores, k, diversity):
    """The definition, step by step."""
    relevance = (scores - scores.min()) / (scores.max() - scores.min())
    chosen, left = [], list(range(len(scores)))
    while left and len(chosen) < k:
        worth = [
            (1 - diversity) * relevance[n]
            - diversity * max((round(float(vectors[n] @ vectors[c]), 5) for c in chosen), default=0.0)
            for n in left
        ]
        if not chosen:
            worth = [relevance[n] for n in left]
        chosen.append(left.pop(int(np.argmax(worth))))
    return chosen


# Maximal marginal relevance -----------------------------------------------------------------------------------------


@settings(deadline=None)
@given(SEEDS, st.floats(0, 1), st.integers(1, 50))
def test_the_choice_is_that_of_the_definition(seed, diversity, k):
    # Scores are continuous, but with a diversity of nearly 1 rounded cosines can tie: leave that to other tests.
    diversity = min(diversity, 0.95)
    vectors, scores = some(seed)
    ours, plain = mmr(vectors, scores, k, diversity), plain_mmr(vectors, scores, k, diversity)
    assert len(ours) == len(set(ours)) == min(k, 40)
    assert ours == plain


def test_more_diversity_brings_less_alike_answers():
    vectors, scores = some(1, n=200)

    def alikeness(diversity):
        chosen = mmr(vectors, scores, 10, diversity)
        return np.mean((vectors[chosen] @ vectors[chosen].T)[~np.eye(10, dtype=bool)])

    assert alikeness(0.9) < alikeness(0.5) < alikeness(0.0)


def test_a_hundred_of_a_thousand_take_milliseconds():
    vectors, scores = some(3, n=1000, dim=512)
    taken = []
    for _ in range(5):
        start = time.perf_counter()
        mmr(vectors, scores, 100, 0.5)
        taken.append(time.perf_counter() - start)
    assert min(taken) < 0.15  # about 0.01 s alone; machines that run tests are busy


# Determinantal point process ----------------------------------------------------------------------------------------


def plain_greedy_map(vectors, scores, k, diversity):
    """The definition: at each step the row that makes the determinant of the kernel largest."""
    relevance = (scores - scores.min()) / (scores.max() - scores.min())
    quality = np.exp((1 - diversity) / (2 * diversity) * relevance)
    rows = vectors.astype(np.float64)
    kernel = quality[:, None] * quality * (1 + rows @ rows.T) / 2
    chosen = []
    while len(chosen) < k:
        left = [n for n in range(len(scores)) if n not in chosen]
        sets = [np.ix_([*chosen, n], [*chosen, n]) for n in left]
        chosen.append(left[int(np.argmax([np.linalg.slogdet(kernel[each])[1] for each in sets]))])
    return chosen


@pytest.mark.parametrize("diversity", [0.05, 0.2, 0.5, 0.8, 0.99])
@pytest.mark.parametrize("seed", range(8))
def test_each_step_makes_the_determinant_largest(seed, diversity):
    random = np.random.default_rng(seed)
    vectors, scores = as_unit_vectors(random.normal(size=(25, 8))), random.random(25)
    assert dpp(vectors, scores, 7, diversity) == plain_greedy_map(vectors, scores, 7, diversity)


def test_the_greedy_choice_is_nearly_the_best_set():
    random = np.random.default_rng(0)
    vectors = as_unit_vectors(random.normal(size=(12, 8))).astype(np.float64)
    similar = (1 + vectors @ vectors.T) / 2

    def volume(chosen):
        return np.linalg.det(similar[np.ix_(chosen, chosen)])

    volumes = sorted((volume(each) for each in combinations(range(12), 4)), reverse=True)
    assert volume(dpp(vectors, np.zeros(12), 4, 1.0)) > volumes[len(volumes) // 10]


def test_more_diversity_brings_a_larger_volume_and_lower_scores():
    vectors, scores = some(1, n=200, dim=32)
    similar = (1 + vectors.astype(np.float64) @ vectors.T) / 2
    choices = [dpp(vectors, scores, 10, diversity) for diversity in (0.0, 0.1, 0.5, 0.9)]
    volumes = [np.linalg.det(similar[np.ix_(chosen, chosen)]) for chosen in choices]
    assert (np.diff(volumes) > 0).all()
    assert (np.diff([scores[chosen].mean() for chosen in choices]) < 0).all()


def test_what_several_chosen_ones_cover_together_adds_little():
    # The third lies between the first two; the last is nearer to the first than the third is to anything.
    angles = np.deg2rad([0, 90, 45])
    flat = np.stack([np.cos(angles), np.sin(angles), np.zeros(3)], axis=1)
    vectors = np.concatenate([flat, [[np.cos(np.deg2rad(40)), 0.0, np.sin(np.deg2rad(40))]]])
    scores = [1.0, 0.99, 0.98, 0.98]
    assert mmr(vectors, scores, 4, 0.5) == [0, 1, 2, 3]
    assert dpp(vectors, scores, 4, 0.5) == [0, 1, 3, 2]


def test_an_opposite_is_the_most_unlike():
    assert dpp([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]], [1.0, 1.0, 1.0], 3, 1.0) == [0, 2, 1]


def test_the_number_of_dimensions_is_no_limit():
    vectors, scores = some(5, n=60, dim=3)
    chosen = dpp(vectors, scores, 60, 0.5)
    assert sorted(chosen) == list(range(60))
    rest = chosen[4:]  # of 3 dimensions and opposites, nothing is left
    assert (np.diff(scores[rest]) <= 0).all()


def test_copies_come_last_in_the_order_of_their_scores():
    originals = as_unit_vectors(np.random.default_rng(0).normal(size=(5, 37)))
    vectors = np.concatenate([originals, originals * 3, originals])
    scores = np.linspace(1, 0, 15)
    for diversity in (1e-9, 0.3, 1.0):
        chosen = dpp(vectors, scores, 15, diversity)
        assert sorted(chosen[:5]) == [0, 1, 2, 3, 4]
        assert chosen[5:] == list(range(5, 15))


# Both ---------------------------------------------------------------------------------------------------------------

both = pytest.mark.parametrize("choose", [mmr, dpp])


@both
@given(SEEDS, st.integers(1, 50))
def test_no_diversity_gives_the_order_of_the_scores_with_ties_by_position(choose, seed, k):
    vectors, scores = some(seed)
    scores = np.round(scores, 1)
    assert choose(vectors, scores, k, 0.0) == np.argsort(-scores, kind="stable")[:k].tolist()


@both
def test_no_diversity_keeps_apart_scores_that_scaling_would_make_equal(choose):
    assert choose(np.eye(4), [1e300, 1.0, 3.0, 2.0], 4, 0) == [0, 2, 3, 1]
    assert choose(np.eye(3), [-1.7e308, 1.7e308, 0.0], 3, 0) == [1, 2, 0]


@both
@given(SEEDS, st.floats(0, 1))
def test_the_best_score_comes_first_whatever_the_diversity(choose, seed, diversity):
    vectors, scores = some(seed)
    assert choose(vectors, scores, 3, diversity)[0] == np.argmax(scores)


@both
@given(SEEDS, st.floats(0, 1), st.integers(1, 50))
def test_each_row_is_chosen_once_and_a_smaller_k_gives_the_beginning(choose, seed, diversity, k):
    vectors, scores = some(seed)
    whole = choose(vectors, scores, 40, diversity)
    assert sorted(whole) == list(range(40))
    assert choose(vectors, scores, k, diversity) == whole[:k]


@both
def test_a_copy_of_what_was_chosen_waits_for_something_else(choose):
    vectors = as_unit_vectors([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    assert choose(vectors, [0.9, 0.9, 0.5, 0.4], 4, 0.7) == [0, 2, 3, 1]


@both
def test_the_scale_of_the_scores_makes_no_difference(choose):
    vectors, scores = some(2)
    assert choose(vectors, scores, 20, 0.5) == choose(vectors, 256 * scores - 64, 20, 0.5)
    assert choose(vectors, scores, 20, 0.5) == choose(7 * vectors, scores, 20, 0.5)


@both
def test_equal_scores_leave_the_choice_to_the_cosines(choose):
    vectors = as_unit_vectors([[1, 0], [1, 0.1], [0, 1]])
    assert choose(vectors, [0.3, 0.3, 0.3], 3, 0.5) == [0, 2, 1]


@both
def test_equal_vectors_are_taken_in_the_order_of_their_scores(choose):
    vectors = np.repeat(as_unit_vectors(np.random.default_rng(0).normal(size=(1, 37))), 50, axis=0)
    scores = np.random.default_rng(1).random(50)
    for diversity in (0.3, 1.0):
        assert choose(vectors, scores, 50, diversity) == np.argsort(-scores).tolist()


@both
def test_nothing_and_one_row_are_no_special_cases(choose):
    assert choose(np.zeros((0, 4)), [], 5, 0.5) == choose(np.zeros((0, 4)), [], 5, 0) == []
    assert choose([[1.0, 0.0]], [0.2], 5, 0.5) == [0]


@both
@pytest.mark.parametrize(
    "changed",
    [
        {"diversity": -0.1},
        {"diversity": 1.1},
        {"diversity": math.nan},
        {"k": 0},
        {"k": 1.5},
        {"scores": [0.1, math.nan]},
        {"scores": [0.1, math.inf]},
        {"scores": [0.1]},
        {"scores": [[0.1, 0.2]]},
        {"vectors": [[0.0, 0.0], [1.0, 0.0]]},
        {"vectors": [[math.nan, 0.0], [1.0, 0.0]]},
        {"vectors": [1.0, 0.0]},
    ],
)
def test_wrong_input_is_refused(choose, changed):
    with pytest.raises(InvalidInput, match="expected"):
        choose(**{"vectors": [[1.0, 0.0], [0.0, 1.0]], "scores": [0.1, 0.2], "k": 1, "diversity": 0.5, **changed})


# Near duplicates ----------------------------------------------------------------------------------------------------


def plain_near_duplicates(vectors, threshold):
    """The definition, row by row."""
    owner = []
    for n in range(len(vectors)):
        originals = [m for m in range(n) if owner[m] == m and vectors[m] @ vectors[n] >= threshold - 1e-6]
        owner.append(originals[0] if originals else n)
    return owner


@settings(deadline=None)
@given(SEEDS, st.sampled_from([-1.0, 0.0, 0.5, 0.9, 0.95, 1.0]))
def test_each_row_belongs_to_the_first_original_that_it_is_near(seed, threshold):
    vectors, _ = some(seed)
    assert near_duplicates(vectors, threshold) == plain_near_duplicates(vectors, threshold)


def test_originals_stand_for_themselves_and_are_not_near_each_other():
    vectors, _ = some(1, n=300)
    owner = np.array(near_duplicates(vectors, 0.9))
    originals = np.unique(owner)
    assert 1 < len(originals) < 300
    np.testing.assert_array_equal(owner[originals], originals)
    assert (owner <= np.arange(300)).all()
    between = (vectors[originals] @ vectors[originals].T)[~np.eye(len(originals), dtype=bool)]
    assert between.max() < 0.9


def test_a_chain_of_near_copies_is_not_followed():
    angles = np.deg2rad([0, 15, 30])
    assert near_duplicates(np.stack([np.cos(angles), np.sin(angles)], axis=1), 0.95) == [0, 0, 2]


def test_exact_copies_are_found_with_a_threshold_of_1():
    rows = np.random.default_rng(0).normal(size=(20, 513))
    assert near_duplicates(np.concatenate([rows, rows]), 1.0) == [*range(20), *range(20)]


def test_many_rows_are_compared_in_blocks(monkeypatch):
    vectors, _ = some(4, n=100)
    whole = near_duplicates(vectors, 0.9)
    monkeypatch.setattr("mmsearch.diversify._COSINES", 700)
    assert near_duplicates(vectors, 0.9) == whole


def test_no_rows_have_no_duplicates():
    assert near_duplicates(np.zeros((0, 4)), 0.9) == []


@pytest.mark.parametrize("threshold", [-1.1, 1.1, math.nan])
def test_a_threshold_that_is_no_cosine_is_refused(threshold):
    with pytest.raises(InvalidInput, match="cosine from -1 to 1"):
        near_duplicates([[1.0, 0.0]], threshold)


def test_zero_vectors_are_refused():
    with pytest.raises(InvalidInput, match="zeros in row 1"):
        near_duplicates([[1.0, 0.0], [0.0, 0.0]], 0.9)
