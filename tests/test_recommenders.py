"""What each recommender learns, against answers by hand, its formula or another library; and the exact best items."""

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsearch.behaviour import Behaviour
from mmsearch.errors import InvalidInput, MissingDependency
from mmsearch.recommenders.ease import Ease
from mmsearch.recommenders.factors import Factors
from mmsearch.recommenders.histories import likes, recency
from mmsearch.recommenders.neighbors import ItemNeighbors
from mmsearch.recommenders.popularity import Popular, Random
from mmsearch.recommenders.sessions import Transitions
from mmsearch.recommenders.top import best_columns, best_products

DAY = 86_400.0


def history(items, weights=None, times=None, n_items=3):
    return Behaviour.of(np.zeros(len(items), int), items, weights, times, n_users=1, n_items=n_items)


def three():
    """Ann likes items 0 and 1, Ben all three, Cy item 0; Ben dislikes nothing, Cy has seen 1 and dislikes 2."""
    return Behaviour.of(
        [0, 0, 1, 1, 1, 2, 2, 2], [0, 1, 0, 1, 2, 0, 1, 2], [1, 1, 1, 5, 1, 1, 0, -1], n_users=3, n_items=3
    )


def some_people(seed=0, n_users=80, n_items=40):
    """People of four tastes, with some noise."""
    random = np.random.default_rng(seed)
    users = np.repeat(np.arange(n_users), 8)
    own = random.integers(0, n_items // 4, size=len(users)) * 4 + users % 4
    items = np.where(random.random(len(users)) < 0.8, own, random.integers(0, n_items, size=len(users)))
    return Behaviour.of(users, items, None, random.random(len(users)), n_users=n_users, n_items=n_items)


def similarities(fitted, n_items):
    """Row j: what a like of item j says of the others."""
    return np.concatenate([fitted.scores(history([item], n_items=n_items)) for item in range(n_items)])


# Popularity ----------------------------------------------------------------------------------------------------------


def test_popularity_counts_people_and_not_events():
    people = Behaviour.of([0, 0, 0, 1, 2, 2], [0, 0, 0, 1, 1, 2], [1, 1, 1, 1, 2, -1], n_users=3, n_items=4)
    np.testing.assert_allclose(Popular().fit(people).scores(history([], n_items=4))[0], np.log1p([1, 2, 0, 0]))


def test_who_comes_to_dislike_an_item_is_not_counted():
    people = Behaviour.of([0, 0, 1], [0, 0, 0], [1, -3, 1], n_users=2, n_items=1)
    np.testing.assert_allclose(Popular().fit(people).scores(history([], n_items=1)), np.log1p([[1]]))


def test_a_like_counts_half_after_its_half_life():
    # Item 0: 10 days ago and, by the same person, 20 days ago. Item 1: now and 20 days ago. Item 2: time unknown.
    people = Behaviour.of(
        [0, 0, 0, 1, 2], [0, 0, 1, 1, 2], None, np.array([90, 80, 100, 80, np.nan]) * DAY, n_users=3, n_items=3
    )
    scores = Popular(half_life=10).fit(people).scores(history([]))[0]
    np.testing.assert_allclose(np.expm1(scores), [0.5, 1.25, 0.25], rtol=1e-5)


def test_without_any_known_time_nothing_fades():
    np.testing.assert_array_equal(
        Popular(half_life=1).fit(three()).scores(three()), Popular().fit(three()).scores(three())
    )


def test_equally_popular_items_come_by_position():
    people = Behaviour.of([0, 0, 0, 1], [4, 2, 3, 1], n_users=2, n_items=6)
    assert Popular().fit(people).candidates(history([3], n_items=6), 4)[0].tolist() == [1, 2, 4, 0]


def test_chance_depends_on_the_seed_and_on_what_they_had_but_not_in_what_order():
    people = some_people()
    scores = Random().fit(people).scores(people)
    assert 0 <= scores.min() < 0.01 < 0.99 < scores.max() < 1
    assert abs(scores.mean() - 0.5) < 0.02
    assert len(np.unique(scores[:, 0])) == 80
    assert not np.array_equal(scores, Random(seed=1).fit(people).scores(people))
    ours, theirs = history([3, 1, 3], n_items=40), history([1, 3, 3], n_items=40)
    np.testing.assert_array_equal(Random().fit(people).scores(ours), Random().fit(people).scores(theirs))


# Neighbours ----------------------------------------------------------------------------------------------------------


def test_cosines_are_those_by_hand():
    fitted = ItemNeighbors(shrink=0).fit(three())
    cosines = [[0, 2 / 6**0.5, 1 / 3**0.5], [2 / 6**0.5, 0, 1 / 2**0.5], [1 / 3**0.5, 1 / 2**0.5, 0]]
    np.testing.assert_allclose(similarities(fitted, 3), cosines, atol=1e-6)


def test_a_score_is_the_sum_over_likes_less_a_share_of_that_over_dislikes():
    fitted = ItemNeighbors(shrink=0, dislike=0.25).fit(three())
    scores = fitted.scores(history([0, 1, 1, 2], [1, 3, -5, 0]))[0]
    np.testing.assert_allclose(scores[2], 1 / 3**0.5 - 0.25 / 2**0.5, atol=1e-6)


def test_few_people_in_common_count_for_less():
    fitted = ItemNeighbors(shrink=2).fit(three())
    np.testing.assert_allclose(fitted.scores(history([0]))[0], [0, 2 / 6**0.5 * 2 / 4, 1 / 3**0.5 * 1 / 3], atol=1e-6)


def test_damping_divides_by_the_popularity_of_what_is_recommended():
    fitted = ItemNeighbors(shrink=0, damping=0.5).fit(three())
    np.testing.assert_allclose(fitted.scores(history([2]))[0], [1 / 3, 1 / 2, 0], atol=1e-6)


def test_only_the_strongest_neighbours_are_kept_with_ties_by_position():
    people = Behaviour.of([0, 0, 0, 0, 1, 1], [0, 1, 2, 3, 0, 3], n_users=2, n_items=4)
    kept = similarities(ItemNeighbors(n_neighbors=2, shrink=0).fit(people), 4)
    assert [np.flatnonzero(row).tolist() for row in kept] == [[1, 3], [0, 2], [0, 1], [0, 1]]


@pytest.mark.parametrize("weighting", ["cosine", "bm25"])
def test_neighbours_are_the_same_whatever_the_blocks(monkeypatch, weighting):
    people = some_people()
    whole = ItemNeighbors(weighting, n_neighbors=5).fit(people).state()
    monkeypatch.setattr("mmsearch.recommenders.linear._ENTRIES", 50)
    blocks = ItemNeighbors(weighting, n_neighbors=5).fit(people).state()
    for name, array in whole.items():
        np.testing.assert_array_equal(blocks[name], array)


@pytest.mark.filterwarnings("ignore:Method expects CSR input")  # about what the library itself makes
@pytest.mark.parametrize("n", [5, 40])
def test_cosine_and_bm25_agree_with_another_library(n):
    library = pytest.importorskip("implicit.nearest_neighbours")
    people = some_people()
    for ours, theirs in (
        (ItemNeighbors("cosine", n_neighbors=n, shrink=0), library.CosineRecommender(K=40, num_threads=1)),
        (ItemNeighbors("bm25", n_neighbors=n, shrink=0, k1=1.7, b=0.3), library.BM25Recommender(40, 1.7, 0.3, 1)),
    ):
        theirs.fit(likes(people), show_progress=False)
        expected = theirs.similarity.toarray()
        np.fill_diagonal(expected, 0)
        least = -np.sort(-expected, axis=1)[:, n - 1]
        found = similarities(ours.fit(people), 40)
        kept = found > 0
        assert (kept.sum(axis=1) <= n).all()
        np.testing.assert_allclose(found[kept], expected[kept], rtol=1e-5)
        assert (kept | (expected <= least[:, None] + 1e-6)).all()


@pytest.mark.parametrize(
    "changed",
    [
        {"weighting": "jaccard"},
        {"n_neighbors": 0},
        {"shrink": -1},
        {"damping": 2},
        {"dislike": -1},
        {"k1": np.nan},
        {"b": 1.5},
    ],
)
def test_settings_of_neighbours_are_checked(changed):
    with pytest.raises(InvalidInput, match="expected"):
        ItemNeighbors(**changed)


# EASE ----------------------------------------------------------------------------------------------------------------


def test_ease_is_its_formula():
    people = some_people()
    liked = likes(people).toarray().astype(np.float64)
    inverse = np.linalg.inv(liked.T @ liked + 3.0 * np.eye(40))
    expected = np.eye(40) - inverse / np.diag(inverse)
    np.testing.assert_allclose(similarities(Ease(l2=3.0).fit(people), 40), expected, atol=1e-5)


def test_ease_refuses_more_items_than_it_is_allowed():
    with pytest.raises(InvalidInput, match="at most 30 items for a dense model, got 40"):
        Ease(max_items=30).fit(some_people())


@pytest.mark.parametrize("changed", [{"l2": 0}, {"l2": np.inf}, {"dislike": -1}])
def test_settings_of_ease_are_checked(changed):
    with pytest.raises(InvalidInput, match="expected"):
        Ease(**changed)


# Transitions ---------------------------------------------------------------------------------------------------------


def test_transitions_are_those_by_hand():
    fitted = Transitions(window=2, symmetric=0, decay=0.5).fit(history([0, 1, 2], times=[1, 2, 3]))
    np.testing.assert_allclose(similarities(fitted, 3), [[0, 1, 0.5], [0, 0, 1], [0, 0, 0]])
    # Item 1 was last and has a say of 1, item 0 one of a half.
    np.testing.assert_allclose(fitted.scores(history([1, 0], times=[9, 8]))[0], [0, 0.5, 1 + 0.5 * 0.5])


def test_the_way_back_counts_by_its_share():
    fitted = Transitions(window=1, symmetric=0.5).fit(history([0, 1, 2], times=[1, 2, 3]))
    np.testing.assert_allclose(similarities(fitted, 3), [[0, 1, 0], [0.5, 0, 1], [0, 0.5, 0]])


def test_transitions_are_divided_by_the_popularity_of_both():
    people = Behaviour.of([0, 0, 1, 1], [0, 1, 0, 2], times=[1, 2, 1, 2], n_users=2, n_items=3)
    fitted = Transitions(symmetric=0).fit(people)
    np.testing.assert_allclose(fitted.scores(history([0]))[0], [0, 1 / 2**0.5, 1 / 2**0.5], rtol=1e-6)


def test_events_of_the_same_time_have_no_order():
    fitted = Transitions(symmetric=0).fit(history([0, 1], times=[1, 1]))
    np.testing.assert_allclose(similarities(fitted, 3)[:2, :2], [[0, 0.5], [0.5, 0]])
    np.testing.assert_allclose(recency(history([0, 1, 2], times=[1, 1, 0]), 0.5), [0.5**2, 0.5**0.5, 0.5**0.5])


def test_events_of_unknown_time_keep_their_order():
    fitted = Transitions(symmetric=0).fit(history([0, 1]))
    np.testing.assert_allclose(similarities(fitted, 3)[:2, :2], [[0, 1], [0, 0]])


def test_nothing_follows_from_one_person_to_the_next_nor_on_dislikes():
    people = Behaviour.of([0, 1, 1], [0, 1, 2], [1, 1, -1], n_users=2, n_items=3)
    assert not similarities(Transitions().fit(people), 3).any()


@pytest.mark.parametrize("changed", [{"window": 0}, {"decay": 0}, {"decay": 1.5}, {"symmetric": 2}, {"n_neighbors": 0}])
def test_settings_of_transitions_are_checked(changed):
    with pytest.raises(InvalidInput, match="expected"):
        Transitions(**changed)


# Factors -------------------------------------------------------------------------------------------------------------


def test_folding_in_solves_the_equation_of_the_paper():
    fitted = Factors(factors=6, regularization=0.3, alpha=4.0).fit(some_people())
    items = fitted.item_vectors.astype(np.float64)
    told = history([3, 3, 7, 9, 11], [1, 2, 1, -2, 0], n_items=40)
    confidence, wanted = np.ones(40), np.zeros(40)
    confidence[[3, 7, 9]], wanted[[3, 7]] = [1 + 4 * 3, 1 + 4, 1 + 4 * 2], 1
    normal = items.T @ np.diag(confidence) @ items + 0.3 * np.eye(6)
    expected = np.linalg.solve(normal, items.T @ (confidence * wanted))
    np.testing.assert_allclose(fitted.user_vectors(told)[0], expected, rtol=1e-4, atol=1e-6)


def test_who_was_there_at_fitting_is_folded_in_to_nearly_the_same_vector():
    library = pytest.importorskip("implicit.als")
    from threadpoolctl import threadpool_limits

    people = some_people()
    fitted = Factors(factors=6, regularization=0.3, iterations=60).fit(people)
    known = likes(people)
    known.data = 1 + people.liked().data
    with threadpool_limits(1, "blas"):
        model = library.AlternatingLeastSquares(
            factors=6, regularization=0.3, alpha=1.0, iterations=60, random_state=0, use_gpu=False, num_threads=1
        )
        model.fit(known, show_progress=False)
    np.testing.assert_allclose(fitted.item_vectors, model.item_factors, atol=1e-5)
    scale = np.abs(model.user_factors).max()
    np.testing.assert_allclose(fitted.user_vectors(people), model.user_factors, atol=0.02 * scale)


def test_more_weight_is_more_confidence():
    fitted = Factors(factors=6).fit(some_people())
    once, thrice = fitted.scores(history([3], n_items=40)), fitted.scores(history([3], [3.0], n_items=40))
    assert once[0, 3] < thrice[0, 3]


@pytest.mark.parametrize("method", ["als", "bpr"])
def test_people_get_what_they_like_first(method):
    people = some_people()
    fitted = Factors(method, factors=8).fit(people)
    scores, liked = fitted.scores(people), likes(people).toarray() > 0
    above = [(row[own][:, None] > row[~own]).mean() for row, own in zip(scores, liked, strict=True)]
    assert np.mean(above) > 0.85


def test_of_somebody_unknown_bpr_knows_the_biases():
    fitted = Factors("bpr", factors=4).fit(some_people())
    assert fitted.item_vectors.shape == (40, 5)
    np.testing.assert_array_equal(fitted.scores(history([], n_items=40))[0], fitted.item_vectors[:, 4])


def test_als_is_the_same_with_any_number_of_threads():
    one, two = (Factors(factors=4, num_threads=n).fit(some_people()) for n in (1, 2))
    np.testing.assert_allclose(one.item_vectors, two.item_vectors, atol=1e-6)


def test_without_the_library_fitting_says_what_to_install_and_answering_works(monkeypatch):
    fitted = Factors(factors=4).fit(some_people())
    monkeypatch.setitem(sys.modules, "implicit", None)
    monkeypatch.setitem(sys.modules, "implicit.als", None)
    with pytest.raises(MissingDependency, match=r"pip install 'mmsearch\[factors\]'"):
        Factors().fit(some_people())
    restored = Factors().restore(fitted.state())
    np.testing.assert_array_equal(restored.scores(some_people()), fitted.scores(some_people()))


@pytest.mark.parametrize(
    "changed",
    [
        {"method": "svd"},
        {"factors": 0},
        {"regularization": 0},
        {"iterations": 0},
        {"alpha": -1},
        {"learning_rate": 0},
    ],
)
def test_settings_of_factors_are_checked(changed):
    with pytest.raises(InvalidInput, match="expected"):
        Factors(**changed)


# The exact best ------------------------------------------------------------------------------------------------------


def vectors(seed, n_users, n_items, dim=24, spread=0.0):
    """Random rows, whose lengths differ the more, the larger the spread."""
    random = np.random.default_rng(seed)
    lengths = np.exp(spread * random.normal(size=(n_items, 1)))
    users, items = random.normal(size=(n_users, dim)), random.normal(size=(n_items, dim)) * lengths
    return users.astype(np.float32), items.astype(np.float32)


def plain_best(users, items, k, seen=None):
    """The definition: all products, seen ones left out, sorted."""
    scores = np.float64(users) @ np.float64(items).T
    if seen is not None:
        scores[seen.users, seen.items] = -np.inf
    order = np.argsort(-scores, axis=1, kind="stable")
    return [row[np.isfinite(own[row])][:k] for row, own in zip(order, scores, strict=True)]


@pytest.fixture
def small_blocks(monkeypatch):
    """So that a small world has many blocks."""
    monkeypatch.setattr("mmsearch.recommenders.top._ITEMS", 64)
    monkeypatch.setattr("mmsearch.recommenders.top._SORTED_IN", 3)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.sampled_from([1, 3, 50, 200]), st.sampled_from([0.0, 0.5, 2.0]), st.booleans())
def test_the_best_products_are_those_of_the_definition(seed, k, spread, excluded):
    users, items = vectors(seed, 30, 1_000, spread=spread)
    random = np.random.default_rng(seed)
    seen = Behaviour.of(random.integers(30, size=900), random.integers(1_000, size=900), n_users=30, n_items=1_000)
    seen = seen if excluded else None
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("_ITEMS", 64), ("_SORTED_IN", 3)):
            patch.setattr(f"mmsearch.recommenders.top.{name}", value)
        found = best_products(users, items, k, seen, block=7)
    for ours, plain, user in zip(found, plain_best(users, items, k, seen), users, strict=True):
        assert len(ours) == len(plain) == len(set(ours.keys.tolist()))
        np.testing.assert_allclose(ours.scores, np.float64(items[plain]) @ user, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(ours.scores, np.float64(items[ours.keys]) @ user, rtol=1e-4, atol=1e-4)
        assert seen is None or len(ours) == k


def test_equal_products_come_by_position(small_blocks):
    users, items = vectors(0, 5, 20)
    found = best_products(users, np.tile(items, (30, 1)), 70)
    for ours, plain in zip(found, plain_best(users, items, 3), strict=True):
        assert ours.keys.tolist() == [*(plain[0] + 20 * np.arange(30)), *(plain[1] + 20 * np.arange(30)),
                                      *(plain[2] + 20 * np.arange(10))]  # fmt: skip


def test_people_of_whom_nothing_is_known_get_the_first_unseen_items(small_blocks):
    users, items = vectors(0, 3, 500)
    users[1] = 0
    seen = Behaviour.of([0, 1, 1], [4, 0, 2], n_users=3, n_items=500)
    found = best_products(users, items, 3, seen)
    assert found[1].keys.tolist() == [1, 3, 4]
    assert found[1].scores.tolist() == [0, 0, 0]
    assert [best.keys.tolist() for best in best_products(users, np.zeros_like(items), 2)] == [[0, 1]] * 3


def test_where_nearly_all_was_seen_what_is_left_comes(small_blocks):
    users, items = vectors(0, 2, 300)
    seen = Behaviour.of(np.repeat([0, 1], 297), np.tile(np.arange(297), 2), n_users=2, n_items=300)
    assert [sorted(best.keys) for best in best_products(users, items, 10, seen)] == [[297, 298, 299]] * 2


def test_no_people_and_no_items_have_no_best():
    users, items = vectors(0, 2, 0)
    assert [len(best) for best in best_products(users, items, 3)] == [0, 0]
    assert best_products(users[:0], users, 3) == []


@pytest.mark.parametrize("new", [Ease, Factors, Popular, Transitions])
@pytest.mark.parametrize("excluded", [True, False])
def test_the_best_columns_are_the_highest_scores_whatever_the_block(new, excluded):
    people = some_people()
    fitted = new().fit(people)
    scores = fitted.scores(people)
    if excluded:
        scores[people.users, people.items] = -np.inf
    for block in (None, 7):
        found = best_columns(fitted, people, 5, exclude_seen=excluded, block=block)
        for row, best in zip(scores, found, strict=True):
            np.testing.assert_allclose(best.scores, -np.sort(-row)[:5], atol=1e-5)
            np.testing.assert_allclose(row[best.keys], best.scores, atol=1e-5)


def test_als_learns_more_than_popularity_from_few_events_of_weight_one():
    drawn = np.random.default_rng(0)
    users = np.repeat(np.arange(60), 8)
    items = np.concatenate([drawn.permutation(np.arange(person % 6, 120, 6))[:8] for person in range(60)])
    told = Behaviour.of(users, items, n_users=60, n_items=120)
    scores = Factors("als").fit(told).scores(told)
    scores[told.users, told.items] = -np.inf
    best = np.argsort(-scores, axis=1)[:, :5]
    assert np.mean(best % 6 == (np.arange(60) % 6)[:, None]) > 0.9
