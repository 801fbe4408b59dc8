"""Measures of recommendation lists against hand counts, and the ranking measures against those of implicit."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmsearch.behaviour import Behaviour
from mmsearch.errors import InvalidInput
from mmsearch.listmeasures import coverage, gini, intra_list_diversity, novelty, popularity_bias, popularity_lift
from mmsearch.metrics import evaluate, interval
from mmsearch.vectors import as_unit_vectors

SEEDS = st.integers(0, 10_000)


def some(seed, n_users=30, n_items=50, k=8):
    """A run with lists of 0 to k items."""
    random = np.random.default_rng(seed)
    run = random.random((n_users, n_items)).argsort(axis=1)[:, :k]
    run[random.random((n_users, k)) < 0.2] = -1
    run[0] = -1
    return run


# Coverage and exposure ----------------------------------------------------------------------------------------------


def test_coverage_is_the_share_of_the_catalogue_that_anybody_is_shown():
    assert coverage([[0, 1], [1, 2]], 4) == 0.75
    assert coverage([[0, 1], [2, 3]], 4) == 1.0
    assert coverage([[-1, 3], [-1, -1]], 4) == 0.25


def test_gini_goes_from_equal_shares_to_one_item_alone():
    assert gini([[0, 1], [2, 3]], 4) == 0.0
    assert gini([[2], [2], [2]], 4) == 1.0
    assert gini([[0], [1]], 4) == pytest.approx(2 / 3)  # (1 * 1/2 + 3 * 1/2) / 3
    assert gini([[0, 1, 2], [0, 1, -1], [0, -1, -1]], 3) == pytest.approx(1 / 3)  # (-2 * 1/6 + 0 + 2 * 3/6) / 2


@given(SEEDS)
def test_gini_is_the_mean_difference_of_all_pairs(seed):
    run = some(seed)
    times = np.array([(run == item).sum() for item in range(50)])
    # The other form of the coefficient, n / (n - 1) for the range from 0 to 1.
    expected = np.abs(times[:, None] - times).sum() / (2 * 50 * times.sum()) * 50 / 49
    assert gini(run, 50) == pytest.approx(expected)


@pytest.mark.parametrize("run", [[], [[]], [[-1, -1], [-1, -1]], np.zeros((0, 10), int)])
def test_where_nothing_is_recommended_nothing_is_covered_and_all_are_equal(run):
    assert coverage(run, 5) == 0.0
    assert gini(run, 5) == 0.0


def test_a_catalogue_of_one_item_is_shared_equally():
    assert gini([[0], [0]], 1) == 0.0
    assert coverage([[0], [0]], 1) == 1.0


# Novelty ------------------------------------------------------------------------------------------------------------


def test_novelty_counts_bits():
    # Shares by the rule of succession: 1/32, 2/32, 16/32 and 31/32.
    found = novelty([[0, 1], [2, -1], [1, 2], [3, -1]], [0, 1, 15, 30], 30)
    np.testing.assert_allclose(found, [4.5, 1.0, 2.5, -math.log2(31 / 32)])


def test_novelty_is_finite_for_what_nobody_had_and_above_0_for_what_everybody_had():
    nobody, everybody = novelty([[0], [1]], [0, 100], 100)
    assert 0 < everybody < 0.02
    assert nobody == pytest.approx(math.log2(102))


def test_with_many_people_novelty_is_the_self_information():
    np.testing.assert_allclose(novelty([[0], [1]], [10**6, 250_000], 2 * 10**6), [1, 3], atol=1e-5)


def test_a_popularity_above_the_number_of_people_is_refused():
    with pytest.raises(InvalidInput, match="at most n_users = 10, got 11"):
        novelty([[0]], [11], 10)


# Popularity ---------------------------------------------------------------------------------------------------------


def test_popularity_bias_is_the_mean_popularity_by_list():
    found = popularity_bias([[0, 1, 2], [2, -1, 0], [-1, -1, -1]], [30, 20, 10])
    np.testing.assert_allclose(found, [20, 20, 0])


def test_lift_compares_lists_with_histories_by_group():
    popularity = [100, 50, 10, 10]
    run = [[0, 1], [0, -1], [2, 3], [0, 1]]
    # Means of the lists 75, 100, 10, 75; of the histories 50, 30, 10, none.
    histories = Behaviour.of([0, 1, 1, 1, 2, 2], [1, 1, 2, 1, 2, 3], n_users=4, n_items=4)
    groups = ["broad", "broad", "niche", "broad"]
    assert popularity_lift(run, popularity, histories, groups) == pytest.approx(
        {"broad": (87.5 - 40) / 40, "niche": 0.0}
    )
    assert popularity_lift(run, popularity, histories) == pytest.approx({"everybody": (185 / 3 - 30) / 30})


def test_people_without_a_list_are_left_out_of_the_lift():
    histories = Behaviour.of([0, 1], [0, 1], n_users=2, n_items=2)
    assert popularity_lift([[0], [-1]], [4, 2], histories) == {"everybody": 0.0}


def test_the_lift_of_a_group_without_anything_to_compare_is_nan():
    histories = Behaviour.of([0, 2], [0, 1], n_users=3, n_items=2)
    lifts = popularity_lift([[0], [0], [0]], [4, 0], histories, ["a", "none", "unpopular"])
    assert lifts["a"] == 0.0
    assert math.isnan(lifts["none"])
    assert math.isnan(lifts["unpopular"])
    assert popularity_lift([], [], Behaviour.of([], [], n_users=0, n_items=0), []) == {}


def test_histories_of_others_are_refused():
    with pytest.raises(InvalidInput, match="2 users with 3 items, got 1 users and 3 items"):
        popularity_lift([[0], [1]], [1, 1, 1], Behaviour.of([0], [0], n_users=1, n_items=3))
    with pytest.raises(InvalidInput, match="one group per user, got 1 for 2"):
        popularity_lift([[0], [1]], [1, 1], Behaviour.of([0], [0], n_users=2, n_items=2), ["a"])


# Diversity ----------------------------------------------------------------------------------------------------------


def test_diversity_is_the_mean_distance_of_all_pairs():
    vectors = [[1, 0], [0, 1], [-1, 0], [5, 0]]
    found = intra_list_diversity([[0, 1, -1], [0, -1, 2], [0, 1, 2], [3, 0, -1]], vectors)
    np.testing.assert_allclose(found, [1, 2, 4 / 3, 0], atol=1e-7)


@given(SEEDS)
def test_diversity_is_that_of_the_definition(seed):
    run, vectors = some(seed), as_unit_vectors(np.random.default_rng(seed).normal(size=(50, 7)))
    for found, one in zip(intra_list_diversity(run, vectors), run, strict=True):
        rows = vectors[one[one >= 0]]
        pairs = [1 - rows[n] @ rows[m] for n in range(len(rows)) for m in range(n)]
        assert found == pytest.approx(np.mean(pairs) if pairs else 0.0, abs=1e-6)


def test_a_list_of_one_item_or_none_has_no_diversity():
    assert intra_list_diversity([[0, -1], [-1, -1]], [[1.0, 0.0]]).tolist() == [0.0, 0.0]


def test_copies_have_a_diversity_of_0_and_never_less():
    vectors = np.repeat(np.random.default_rng(0).normal(size=(1, 37)), 10, axis=0)
    found = intra_list_diversity([range(10), range(9, -1, -1)], vectors)
    assert (found >= 0).all()
    np.testing.assert_allclose(found, 0, atol=1e-6)


def test_many_lists_are_measured_in_blocks(monkeypatch):
    run, vectors = some(1), np.random.default_rng(0).normal(size=(50, 7))
    whole = intra_list_diversity(run, vectors)
    monkeypatch.setattr("mmsearch.listmeasures._NUMBERS", 30)
    np.testing.assert_array_equal(intra_list_diversity(run, vectors), whole)


# All ----------------------------------------------------------------------------------------------------------------


BY_USER = {
    "novelty": lambda run: novelty(run, np.arange(50), 60),
    "popularity_bias": lambda run: popularity_bias(run, np.arange(50)),
    "intra_list_diversity": lambda run: intra_list_diversity(run, np.eye(50)),
}
ALL = {**BY_USER, "coverage": lambda run: coverage(run, 50), "gini": lambda run: gini(run, 50)}
ALL["popularity_lift"] = lambda run: popularity_lift(
    run, np.arange(50), Behaviour.of([0], [1], n_users=len(run), n_items=50)
)
each = pytest.mark.parametrize("measure", ALL.values(), ids=ALL.keys())
by_user = pytest.mark.parametrize("measure", BY_USER.values(), ids=BY_USER.keys())


@by_user
def test_each_user_is_measured_alone(measure):
    run = some(2)
    alone = np.concatenate([measure(run[user : user + 1]) for user in range(len(run))])
    np.testing.assert_allclose(measure(run), alone, atol=1e-12)


@by_user
def test_the_order_and_the_place_of_what_is_missing_make_no_difference(measure):
    run = some(3)
    np.testing.assert_allclose(measure(run), measure(np.sort(run, axis=1)), atol=1e-12)


@by_user
def test_values_by_user_have_intervals_and_an_empty_list_is_0(measure):
    values = measure(some(4))
    assert values.shape == (30,)
    assert values[0] == 0
    assert interval(values).low < values.mean() < interval(values).high
    assert measure([]).shape == (0,)


@each
@pytest.mark.parametrize(
    ("run", "message"),
    [
        ([0, 1], "whole numbers"),
        ([[0.5, 1.0]], "whole numbers"),
        ([["a", "b"]], "whole numbers"),
        ([[0, 1], [2]], "filled up with -1"),
        ([[0, 50]], "from 0 to 49, or -1 for none, got 0 to 50"),
        ([[0, -2]], "from 0 to 49, or -1 for none, got -2 to 0"),
        ([[0, 1, -1, -1], [3, 4, -1, 3]], "got 3 twice in the list of user 1"),
    ],
)
def test_what_is_no_run_is_refused(measure, run, message):
    with pytest.raises(InvalidInput, match=message):
        measure(run)


@pytest.mark.parametrize("popularity", [[-1.0], [math.nan], [math.inf], [[1.0]]])
def test_wrong_popularity_is_refused(popularity):
    with pytest.raises(InvalidInput, match="expected"):
        popularity_bias([[0]], popularity)
    with pytest.raises(InvalidInput, match="expected"):
        novelty([[0]], popularity, 5)


@pytest.mark.parametrize("size", [0, -1, 2.5, True])
def test_wrong_sizes_are_refused(size):
    for measure in (coverage, gini, lambda run, size: novelty(run, [0], size)):
        with pytest.raises(InvalidInput, match="whole number from 1"):
            measure([[0]], size)


# Ranking measures ---------------------------------------------------------------------------------------------------


class Fixed:
    """A model for implicit that recommends what it was given."""

    def __init__(self, run):
        self.run = run

    def recommend(self, users, user_items, N):
        return self.run[users][:, :N].astype(np.int32), None


@pytest.mark.parametrize("k", [1, 5, 10])
def test_the_ranking_measures_are_those_of_implicit(k):
    """nDCG is the same; MAP and precision are once it is undone that implicit divides by min(k, number relevant).

    It passes over people with nothing relevant, whom evaluate counts as 0, so they are not judged here. Its precision
    is that of all lists together: hits over the sum of min(k, number relevant), not a mean over people.
    """
    evaluation = pytest.importorskip("implicit.evaluation")
    from scipy.sparse import csr_matrix

    random = np.random.default_rng(0)
    relevant = random.random((200, 60)) < random.choice([0.02, 0.1, 0.4], size=(200, 1))
    run = some(1, n_users=200, n_items=60, k=10)
    test = csr_matrix(relevant.astype(np.float32))
    theirs = evaluation.ranking_metrics_at_k(Fixed(run), csr_matrix(test.shape), test, K=k, show_progress=False)

    judged = np.flatnonzero(relevant.any(axis=1))
    qrels = {str(user): {str(item): 1 for item in np.flatnonzero(relevant[user])} for user in judged}
    # implicit has rank 3 for what comes third even if the second is missing: nobody's id keeps the place.
    lists = {str(user): [str(i) if i >= 0 else f"none {n}" for n, i in enumerate(run[user])] for user in judged}
    ours = evaluate(qrels, lists, [f"nDCG@{k}", f"MAP@{k}", f"P@{k}"])

    n_relevant = relevant[judged].sum(axis=1)
    at_most = np.minimum(n_relevant, k)
    assert (n_relevant > k).any()
    assert len(judged) < 200
    assert theirs["ndcg"] == pytest.approx(ours[f"nDCG@{k}"].mean())
    assert theirs["map"] == pytest.approx((ours[f"MAP@{k}"] * n_relevant / at_most).mean())
    assert theirs["precision"] == pytest.approx((ours[f"P@{k}"] * k).sum() / at_most.sum())


def test_map_is_that_of_implicit_where_nobody_has_more_than_k_relevant():
    evaluation = pytest.importorskip("implicit.evaluation")
    from scipy.sparse import csr_matrix

    run = some(5, n_users=100, n_items=40, k=10)
    relevant = np.zeros((100, 40), dtype=np.float32)
    relevant[np.arange(100)[:, None], np.random.default_rng(0).integers(40, size=(100, 5))] = 1
    test = csr_matrix(relevant)
    theirs = evaluation.ranking_metrics_at_k(Fixed(run), csr_matrix(test.shape), test, K=10, show_progress=False)

    qrels = {str(user): {str(item): 1 for item in np.flatnonzero(relevant[user])} for user in range(100)}
    lists = {str(user): [str(i) if i >= 0 else f"none {n}" for n, i in enumerate(run[user])] for user in range(100)}
    means = evaluate(qrels, lists, ["MAP@10", "nDCG@10"]).means()
    assert means == pytest.approx({"MAP@10": theirs["map"], "nDCG@10": theirs["ndcg"]})
