"""The items with the highest inner products, by a scan of the longest and a graph of the rest, against brute force."""

import numpy as np
import pytest

from mmsearch.behaviour import Behaviour
from mmsearch.errors import InvalidInput, StoreDamaged
from mmsearch.factorindex import FactorIndex
from mmsearch.index.ranking import recall_of
from mmsearch.recommenders.factors import Factors
from mmsearch.recommenders.top import best_columns, best_products


def vectors(seed, n, dim=16, spread=0.3):
    """Vectors around 20 centres, whose lengths differ."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(20, dim))
    rows = centres[random.integers(20, size=n)] + random.normal(size=(n, dim))
    return (rows * np.exp(spread * random.normal(size=(n, 1)))).astype(np.float32)


def some_seen(seed, n_users, n_items, n):
    random = np.random.default_rng(seed)
    users, items = random.integers(n_users, size=n), random.integers(n_items, size=n)
    return Behaviour.of(users, items, n_users=n_users, n_items=n_items)


def plain_best(users, items, k, seen=None):
    """The definition, in double precision: positions of the best, ties by position."""
    scores = np.float64(users) @ np.float64(items).T
    if seen is not None:
        scores[seen.users, seen.items] = -np.inf
    order = np.argsort(-scores, axis=1, kind="stable")
    return [[key for key in row[:k] if np.isfinite(own[key])] for row, own in zip(order, scores, strict=True)]


def people_of_tastes(n_users=300, n_items=120):
    random = np.random.default_rng(5)
    users = np.repeat(np.arange(n_users), 8)
    items = (random.integers(0, n_items // 4, size=len(users)) * 4 + users % 4) % n_items
    return Behaviour.of(users, items, n_users=n_users, n_items=n_items)


@pytest.fixture(scope="module")
def world():
    """Items, other people than those it was settled by, and an index that follows a graph."""
    items, people = vectors(0, 4_000), vectors(1, 500)
    index = FactorIndex(items, people[:200], longest=200, scanned=400)
    return items, people[200:], index


def assert_exact(found, users, items, k, seen=None):
    expected = plain_best(users, items, k, seen)
    assert [best.keys.tolist() for best in found] == expected
    for best, user in zip(found, users, strict=True):
        np.testing.assert_allclose(best.scores, np.float64(items[best.keys]) @ user, rtol=1e-4, atol=1e-4)


# Exact --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 10, 100])
def test_a_small_collection_is_answered_exactly_and_without_a_graph(k):
    items, users = vectors(0, 2_000), vectors(1, 40)
    seen = some_seen(2, 40, 2_000, 2_000)
    index = FactorIndex(items, users)
    assert (index.in_graph, index.effort, index.recall, len(index), index.dim) == (0, 0, 1.0, 2_000, 16)
    assert_exact(index.search(users, k), users, items, k)
    assert_exact(index.search(users, k, exclude=seen), users, items, k, seen)


def test_where_few_long_items_win_there_is_no_graph_however_many_items_there_are():
    items = vectors(0, 4_000)
    items[200:] /= 1_000
    index = FactorIndex(items, vectors(1, 50), longest=100, scanned=400)
    assert index.in_graph == 0


def test_without_people_to_settle_it_by_all_is_exact():
    items, users = vectors(0, 3_000), vectors(1, 5)
    index = FactorIndex(items, longest=10, scanned=10)
    assert index.in_graph == 0
    assert_exact(index.search(users, 7), users, items, 7)
    assert FactorIndex(items, users[:0], longest=10, scanned=10).in_graph == 0


# Through the graph --------------------------------------------------------------------------------------------------


def test_the_graph_finds_nearly_all_with_their_true_scores(world):
    items, users, index = world
    assert 2_000 < index.in_graph <= 3_800
    assert index.recall >= 0.97
    found = index.search(users, 10)
    assert recall_of(best_products(users, items, 10), found) > 0.95
    for best, user in zip(found, users, strict=True):
        np.testing.assert_allclose(best.scores, items[best.keys] @ user, rtol=1e-5, atol=1e-5)
        assert len(set(best.keys.tolist())) == 10
        assert (np.diff(best.scores) <= 0).all()


def test_a_higher_target_takes_more_effort_and_finds_more():
    random = np.random.default_rng(0)
    items, people = (random.normal(size=(n, 32)).astype(np.float32) for n in (4_000, 300))
    low, high = (FactorIndex(items, people, longest=10, scanned=10, target=target) for target in (0.0, 0.999))
    assert low.effort < high.effort
    assert low.recall < high.recall


def test_nobody_gets_what_they_have_seen(world):
    items, users, index = world
    seen = some_seen(3, len(users), len(items), 100_000)
    found = index.search(users, 10, exclude=seen)
    assert recall_of(best_products(users, items, 10, seen), found) > 0.95
    for user, best in enumerate(found):
        own = seen.items[seen.starts[user] : seen.starts[user + 1]]
        assert not np.isin(best.keys, own).any()
        assert len(best) == 10


@pytest.mark.parametrize("n_seen", [30, 500, 3_995, 4_000])
def test_who_has_seen_the_best_gets_the_next_best_and_after_everything_nothing(world, n_seen):
    items, users, index = world
    users = users[:4]
    best = [best.keys for best in best_products(users, items, n_seen)]
    seen = Behaviour.of(np.repeat(np.arange(4), n_seen), np.concatenate(best), n_users=4, n_items=len(items))
    found = index.search(users, 10, exclude=seen)
    assert [len(one) for one in found] == [min(10, len(items) - n_seen)] * 4
    assert recall_of(best_products(users, items, 10, seen), found) > 0.9
    assert not any(np.isin(one.keys, had).any() for one, had in zip(found, best, strict=True))


def test_more_than_there_are_gives_all_and_no_padding(world):
    items, users, index = world
    assert [len(best) for best in index.search(users[:2], 10_000)] == [4_000, 4_000]
    assert_exact(index.search(users[:2], 4_000), users[:2], items, 4_000)


def test_a_batch_answers_like_single_queries(world):
    items, users, index = world
    seen = some_seen(4, len(users), len(items), 20_000)
    together = index.search(users, 10, exclude=seen)
    for user in (0, 17, 299):
        (alone,) = index.search(users[user : user + 1], 10, exclude=seen.of_users([user]))
        assert alone.keys.tolist() == together[user].keys.tolist()
        np.testing.assert_array_equal(alone.scores, together[user].scores)


def test_the_same_question_has_the_same_answer(world):
    _, users, index = world
    first, second = index.search(users, 10), index.search(users, 10)
    assert [best.keys.tolist() for best in first] == [best.keys.tolist() for best in second]


def test_of_many_people_some_settle_it():
    items, people = vectors(0, 2_500), vectors(1, 2_500)
    seen = some_seen(6, 2_500, 2_500, 10_000)
    index = FactorIndex(items, people, seen, longest=100, scanned=100)
    assert index.in_graph > 0
    assert recall_of(best_products(people, items, 10, seen), index.search(people, 10, exclude=seen)) > 0.95


def test_nobody_asks_and_nobody_is_answered(world):
    _, users, index = world
    assert index.search(users[:0], 10) == []
    assert index.search(users[:0], 10, exclude=Behaviour.of([], [], n_users=0, n_items=4_000)) == []


def test_no_items_and_no_best():
    index = FactorIndex(np.zeros((0, 3), np.float32), np.ones((2, 3), np.float32))
    assert len(index) == 0
    assert [len(best) for best in index.search(np.ones((2, 3), np.float32), 5)] == [0, 0]


def test_people_whom_everything_suits_badly_get_the_least_bad():
    items = np.abs(vectors(0, 3_000))
    users = -np.abs(vectors(1, 300))
    index = FactorIndex(items, users[:200], longest=100, scanned=100)
    assert index.in_graph > 0
    found = index.search(users[200:], 10)
    assert recall_of(best_products(users[200:], items, 10), found) > 0.95
    assert max(best.scores[0] for best in found) < 0


def test_people_of_whom_nothing_is_known_get_the_first_items_that_are_new_to_them(world):
    items, users, index = world
    users = users[:3].copy()
    users[1] = 0
    seen = Behaviour.of([1, 1], [0, 2], n_users=3, n_items=len(items))
    found = index.search(users, 3, exclude=seen)
    assert found[1].keys.tolist() == [1, 3, 4]
    assert found[1].scores.tolist() == [0, 0, 0]


def test_items_of_which_nothing_is_known_come_in_their_place(world):
    items, people = np.abs(vectors(0, 2_500)), vectors(1, 60)
    items[1_000:] = 0
    people[0] = -np.abs(people[0])
    index = FactorIndex(items, people, longest=100, scanned=100)
    assert index.in_graph > 0
    (best,) = index.search(people[:1], 5)
    assert best.keys.tolist() == [1_000, 1_001, 1_002, 1_003, 1_004]
    assert best.scores.tolist() == [0] * 5


def test_equal_items_come_by_position():
    items = np.tile(vectors(0, 300), (8, 1))
    users = vectors(1, 50)
    index = FactorIndex(items, users, longest=100, scanned=100)
    assert index.in_graph > 0
    for best in index.search(users, 16):
        place = best.keys.reshape(2, 8)
        assert (place == place[:, :1] % 300 + 300 * np.arange(8)).all()


def test_the_shortest_items_are_not_lost_to_those_who_have_had_all_longer_ones():
    items, users = vectors(0, 3_000, spread=1.5), vectors(1, 120)
    index = FactorIndex(items, users[:100], longest=50, scanned=50)
    assert 0 < index.in_graph < 2_950
    longer = np.argsort(-np.linalg.norm(items, axis=1))[: 50 + index.in_graph]
    n = len(longer)
    seen = Behaviour.of(np.repeat(np.arange(20), n), np.tile(longer, 20), n_users=20, n_items=3_000)
    assert_exact(index.search(users[100:], 10, exclude=seen), users[100:], items, 10, seen)


# Of a model ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["als", "bpr"])
def test_an_index_of_a_model_gives_its_best_columns(method):
    people = people_of_tastes()
    model = Factors(method, factors=8, iterations=5).fit(people)
    index = FactorIndex.of(model, people)
    found = index.search(model.user_vectors(people), 5, exclude=people)
    for ours, best in zip(found, best_columns(model, people, 5), strict=True):
        assert ours.keys.tolist() == best.keys.tolist()
        np.testing.assert_array_equal(ours.scores, best.scores)


@pytest.mark.parametrize("method", ["als", "bpr"])
def test_biases_and_all_are_found_through_the_graph(method):
    people = people_of_tastes(n_items=400)
    model = Factors(method, factors=8, iterations=20).fit(people)
    index = FactorIndex.of(model, people, longest=5, scanned=5)
    assert index.in_graph > 0
    found = index.search(model.user_vectors(people), 5, exclude=people)
    assert recall_of(best_columns(model, people, 5), found) > 0.95
    scores = model.scores(people)
    for row, best in zip(scores, found, strict=True):
        np.testing.assert_allclose(row[best.keys], best.scores, atol=1e-5)


# Files --------------------------------------------------------------------------------------------------------------


def test_a_loaded_index_answers_as_the_saved_one(world, tmp_path):
    items, users, index = world
    index.save(tmp_path / "factors")
    loaded = FactorIndex.load(tmp_path / "factors", items)
    assert (loaded.in_graph, loaded.effort, loaded.recall) == (index.in_graph, index.effort, index.recall)
    for ours, theirs in zip(loaded.search(users, 10), index.search(users, 10), strict=True):
        assert ours.keys.tolist() == theirs.keys.tolist()


def test_an_index_without_a_graph_can_be_saved_too(tmp_path):
    items, users = vectors(0, 50), vectors(1, 3)
    FactorIndex(items).save(tmp_path / "factors")
    loaded = FactorIndex.load(tmp_path / "factors", items)
    assert loaded.in_graph == 0
    assert_exact(loaded.search(users, 3), users, items, 3)


def test_other_items_do_not_go_with_a_saved_index(world, tmp_path):
    items, _, index = world
    index.save(tmp_path / "factors")
    with pytest.raises(StoreDamaged, match="vectors"):
        FactorIndex.load(tmp_path / "factors", items + 1)
    with pytest.raises(StoreDamaged):
        FactorIndex.load(tmp_path / "nothing", items)


# Errors -------------------------------------------------------------------------------------------------------------


def test_what_cannot_be_asked_is_refused(world):
    items, users, index = world
    exclude = Behaviour.of([], [], n_users=2, n_items=len(items))
    for asked, message in (
        (lambda: index.search(users[:, :5], 10), "got shape"),
        (lambda: index.search(np.full((1, 16), np.nan), 10), "finite"),
        (lambda: index.search([["a"] * 16], 10), "numbers"),
        (lambda: index.search(users, 0), "k as a whole number"),
        (lambda: index.search(users, 10, exclude=exclude), "exclude of 300 people and 4000 items"),
        (lambda: FactorIndex(items[0]), "got shape"),
        (lambda: FactorIndex(items * np.nan), "finite"),
        (lambda: FactorIndex(items, users, target=2), "target from 0 to 1"),
        (lambda: FactorIndex(items, users, longest=10, scanned=5), "longest from 1 to scanned"),
        (lambda: FactorIndex.of(Factors(), people_of_tastes()), "learnt something"),
    ):
        with pytest.raises(InvalidInput, match=message):
            asked()
