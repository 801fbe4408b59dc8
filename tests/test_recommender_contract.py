"""What every recommender promises, tested on each of them."""

import numpy as np
import pytest

from mmsearch.behaviour import Behaviour
from mmsearch.errors import InvalidInput
from mmsearch.protocols import Recommender
from mmsearch.recommenders.bridge import Bridge
from mmsearch.recommenders.content import Content
from mmsearch.recommenders.ease import Ease
from mmsearch.recommenders.factors import Factors
from mmsearch.recommenders.hybrid import Hybrid
from mmsearch.recommenders.itemvectors import ItemVectors
from mmsearch.recommenders.neighbors import ItemNeighbors
from mmsearch.recommenders.parts import Part
from mmsearch.recommenders.popularity import Popular, Random
from mmsearch.recommenders.sessions import Transitions

N_ITEMS = 30


def fields(n_items=N_ITEMS):
    """Pictures and texts of items whose number is odd or even; some have no text."""
    random = np.random.default_rng(0)
    pictures, texts = (random.normal(size=(n_items, 6)) + 2 * np.eye(6)[np.arange(n_items) % 2] for _ in range(2))
    rows = np.where(np.arange(n_items) % 7 == 5, -1, np.arange(n_items))
    return {"picture": ItemVectors(pictures.astype(np.float16)), "text": ItemVectors(texts, rows)}


def hybrid(n_items=N_ITEMS):
    return Hybrid(
        [
            Part("items", ItemNeighbors, "had together", fading=0.5),
            Part("ease", lambda: Ease(l2=5.0), "had together"),
            Part("popular", Popular, "popular"),
            Part("content", lambda: Content(fields(n_items)), "looks", cold=True),
            Part("bridge", lambda: Bridge(fields(n_items)), "bridge", cold=True),
        ]
    )


RECOMMENDERS = {
    "popular": Popular,
    "popular-fading": lambda: Popular(half_life=30.0),
    "random": Random,
    "items": ItemNeighbors,
    "items-all-options": lambda: ItemNeighbors(n_neighbors=20, shrink=3.0, damping=0.2, dislike=1.0),
    "bm25": lambda: ItemNeighbors("bm25"),
    "bm25-unshrunk": lambda: ItemNeighbors("bm25", shrink=0.0),
    "ease": lambda: Ease(l2=5.0),
    "als": lambda: Factors(factors=8, regularization=0.5),
    "bpr": lambda: Factors("bpr", factors=8, iterations=200),
    "sessions": Transitions,
}
LEARNING = [name for name in RECOMMENDERS if not name.startswith(("popular", "random"))]
BY_CONTENT = {
    "content-mean": lambda n_items=N_ITEMS: Content(fields(n_items), decay=0.9),
    "content-nearest": lambda n_items=N_ITEMS: Content(fields(n_items), profile="nearest"),
    "content-interests": lambda n_items=N_ITEMS: Content(fields(n_items), profile="interests"),
    "bridge": lambda n_items=N_ITEMS: Bridge(fields(n_items)),
    "hybrid": hybrid,
}
"""Made for so many items, whose vectors they have; they have a score for items that nobody had."""
RECOMMENDERS |= BY_CONTENT
SPARSE = ("items", "bm25", "sessions")
"""They say nothing on items that have nothing to do with the history."""
EXPLAINED = [name for name in (*LEARNING, *BY_CONTENT) if name not in ("bpr", "hybrid")]
"""Their contributions add up to the score, dislikes among them."""


@pytest.fixture(params=RECOMMENDERS.keys())
def new(request):
    """Makes a recommender, for 30 items unless told otherwise."""

    def make(n_items=N_ITEMS):
        return RECOMMENDERS[request.param](*[n_items] if request.param in BY_CONTENT else [])

    return make


@pytest.fixture
def fitted(new):
    return new().fit(some_people())


def some_people(n_users=60, seed=0):
    """Two tastes, halves of the items, with some noise; the last two items nobody had, and the last user nothing."""
    random = np.random.default_rng(seed)
    users = np.repeat(np.arange(n_users - 1), 9)
    half = random.integers(0, 14, size=len(users)) + 14 * (users % 2)
    items = np.where(random.random(len(users)) < 0.9, half, random.integers(0, 28, size=len(users)))
    weights = random.choice([1.0, 2.0, 0.0, -1.0], p=[0.5, 0.2, 0.2, 0.1], size=len(users))
    times = 1e9 + random.integers(0, 100 * 86_400, size=len(users)).astype(float)
    return Behaviour.of(users, items, weights, times, n_users=n_users, n_items=N_ITEMS)


def history(items, weights=None, times=None, n_items=N_ITEMS):
    return Behaviour.of(np.zeros(len(items), int), items, weights, times, n_users=1, n_items=n_items)


def round_trip(recommender, new, folder):
    """Through files, as they are mapped into memory."""
    for name, array in recommender.state().items():
        np.save(folder / f"{name}.npy", array)
    return new().restore({name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in recommender.state()})


# Scores --------------------------------------------------------------------------------------------------------------


def test_it_offers_what_the_protocol_asks(new):
    recommender = new()
    assert isinstance(recommender, Recommender)
    assert recommender.name
    assert recommender.fit(some_people()) is recommender


def test_scores_are_finite_numbers_of_the_promised_type_and_shape(fitted):
    scores = fitted.scores(some_people(seed=1))
    assert (scores.shape, scores.dtype) == ((60, N_ITEMS), np.float32)
    assert np.isfinite(scores).all()


def test_scores_of_some_columns_are_those_among_all(fitted):
    people = some_people(seed=1)
    columns = np.array([5, 0, 29, 5, 17])
    some = fitted.scores(people, columns)
    assert (some.shape, some.dtype) == ((60, 5), np.float32)
    np.testing.assert_allclose(some, fitted.scores(people)[:, columns], atol=1e-5)
    assert fitted.scores(people, np.zeros(0, np.int64)).shape == (60, 0)


def test_a_batch_answers_like_single_histories(fitted):
    people = some_people(seed=1)
    alone = [fitted.scores(people.of_users([user]))[0] for user in range(people.n_users)]
    np.testing.assert_allclose(fitted.scores(people), alone, atol=1e-5)
    for together, single in zip(fitted.candidates(people, 5), range(people.n_users), strict=True):
        assert together.tolist() == fitted.candidates(people.of_users([single]), 5)[0].tolist()


def test_the_order_of_the_people_does_not_matter(fitted):
    people, order = some_people(seed=1), np.random.default_rng(0).permutation(60)
    np.testing.assert_allclose(fitted.scores(people.of_users(order)), fitted.scores(people)[order], atol=1e-5)


def test_nobody_gets_no_scores(fitted):
    nobody = Behaviour.of([], [], n_users=0, n_items=N_ITEMS)
    assert fitted.scores(nobody).shape == (0, N_ITEMS)
    assert fitted.scores(nobody, np.arange(3)).shape == (0, 3)
    assert fitted.candidates(nobody, 3) == []


def test_an_answer_is_the_same_again(new):
    people = some_people(seed=1)
    np.testing.assert_array_equal(new().fit(some_people()).scores(people), new().fit(some_people()).scores(people))


# Histories -----------------------------------------------------------------------------------------------------------


def test_an_empty_history_has_the_scores_of_somebody_unknown(fitted):
    scores = fitted.scores(history([]))
    assert np.isfinite(scores).all()
    # Whom nothing is known of may be among others or alone, there at fitting or not.
    np.testing.assert_allclose(fitted.scores(some_people().of_users([59, 59])), np.repeat(scores, 2, axis=0), atol=1e-6)
    assert len(fitted.candidates(history([]), 3)[0]) <= 3
    assert fitted.contributions(history([]), 3).shape == (0,)


@pytest.mark.parametrize("weight", [0.0, -1.0])
def test_histories_without_a_like_are_answered(fitted, weight):
    scores = fitted.scores(history([1, 2, 3], weights=[weight] * 3))
    assert np.isfinite(scores).all()
    assert len(fitted.candidates(history([1, 2, 3], weights=[weight] * 3), 5)) == 1
    assert fitted.contributions(history([1, 2, 3], weights=[weight] * 3), 4).shape == (3,)


@pytest.mark.parametrize("name", [*LEARNING, *BY_CONTENT])
def test_what_was_only_seen_has_no_say(name):
    fitted = RECOMMENDERS[name]().fit(some_people())
    np.testing.assert_allclose(
        fitted.scores(history([1, 2, 20], weights=[1.0, 1.0, 0.0])), fitted.scores(history([1, 2])), atol=1e-6
    )


FADING = ("sessions", "content-mean", "hybrid")
"""What counts is how many events were later."""


@pytest.mark.parametrize("name", [name for name in (*LEARNING, *BY_CONTENT) if name not in ("als", *FADING)])
def test_what_is_told_twice_counts_once(name):
    # For ALS more of the same is more confidence.
    fitted = RECOMMENDERS[name]().fit(some_people())
    np.testing.assert_allclose(fitted.scores(history([1, 1, 2])), fitted.scores(history([1, 2])), atol=1e-6)


def test_duplicate_events_are_answered(fitted):
    told = history([4, 4, 4, 4], weights=[1.0, 1.0, -1.0, 0.0], times=[5.0, 5.0, np.nan, 7.0])
    assert np.isfinite(fitted.scores(told)).all()
    assert fitted.contributions(told, 3).shape == (4,)


@pytest.mark.parametrize("name", ["items", "bm25", "ease"])
def test_a_dislike_takes_away_where_a_like_adds(name):
    fitted = RECOMMENDERS[name]().fit(some_people())
    liked, disliked = fitted.scores(history([3])), fitted.scores(history([3], weights=[-1.0]))
    assert np.corrcoef(liked[0], disliked[0])[0, 1] < -0.99
    assert 0 < np.abs(disliked).max() < np.abs(liked).max()


def test_an_item_nobody_had_is_answered_for_and_about(fitted):
    assert np.isfinite(fitted.scores(history([28]))).all()
    assert np.isfinite(fitted.contributions(history([28, 1]), 29)).all()


@pytest.mark.parametrize("name", ["popular", *(name for name in LEARNING if name != "bpr")])
def test_an_item_nobody_had_has_no_score(name):
    scores = RECOMMENDERS[name]().fit(some_people()).scores(some_people(seed=1))
    np.testing.assert_allclose(scores[:, 28:], 0, atol=1e-6)


def test_inputs_are_not_changed(new):
    people = some_people()
    for array in (people.starts, people.items, people.weights, people.times):
        array.setflags(write=False)
    before = [array.copy() for array in (people.starts, people.items, people.weights, people.times)]
    seen, liked = people.seen().copy(), people.liked().copy()
    fitted = new().fit(people)
    fitted.scores(people)
    fitted.candidates(people, 3)
    fitted.contributions(people.of_users([0]), 3)
    for array, old in zip((people.starts, people.items, people.weights, people.times), before, strict=True):
        np.testing.assert_array_equal(array, old)
    assert (people.seen() != seen).nnz == (people.liked() != liked).nnz == 0


# Fitting -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "little",
    [
        Behaviour.of([], [], n_users=0, n_items=5),
        Behaviour.of([], [], n_users=4, n_items=5),
        Behaviour.of([0], [2], n_users=1, n_items=5),
        Behaviour.of([0, 1], [2, 2], [0.0, -1.0], n_users=2, n_items=5),
        Behaviour.of([0, 0, 0], [2, 2, 2], n_users=1, n_items=5),
    ],
    ids=["nobody", "no events", "one event", "no likes", "one event thrice"],
)
def test_little_to_learn_from_is_enough(new, little):
    fitted = new(5).fit(little)
    for told in (history([2], n_items=5), history([], n_items=5)):
        assert np.isfinite(fitted.scores(told)).all()
        assert all(0 <= key < 5 for key in fitted.candidates(told, 10)[0])
    assert np.isfinite(fitted.contributions(history([2], n_items=5), 2)).all()


def test_one_person_and_one_item_are_enough(new):
    fitted = new(1).fit(history([0], n_items=1))
    assert fitted.scores(history([0], n_items=1)).shape == (1, 1)
    assert fitted.candidates(history([], n_items=1), 3)[0].tolist() in ([], [0])


def test_no_items_at_all_have_no_scores(new):
    nothing = Behaviour.of([], [], n_users=1, n_items=0)
    fitted = new(0).fit(nothing)
    assert fitted.scores(nothing).shape == (1, 0)
    assert fitted.candidates(nothing, 3)[0].tolist() == []


@pytest.mark.parametrize("name", RECOMMENDERS)
def test_fitting_again_forgets_what_was_learnt(name):
    people, new = some_people(seed=1), RECOMMENDERS[name]
    before = history([1, 2, 3], n_items=N_ITEMS if name in BY_CONTENT else 7)
    again = new().fit(before).fit(some_people())
    np.testing.assert_array_equal(again.scores(people), new().fit(some_people()).scores(people))


# Candidates ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 5, 100])
def test_candidates_are_the_best_unseen_items(fitted, k):
    people = some_people(seed=1)
    scores = np.where(people.seen().toarray(), -np.inf, fitted.scores(people))
    if fitted.name in SPARSE:
        scores = np.where(scores > 0, scores, -np.inf)
    for row, found in zip(scores, fitted.candidates(people, k), strict=True):
        assert found.dtype == np.int64
        assert len(found) == len(set(found.tolist())) == min(k, int(np.isfinite(row).sum()))
        np.testing.assert_allclose(row[found], np.sort(row)[::-1][: len(found)], atol=1e-5)


# Contributions -------------------------------------------------------------------------------------------------------


def test_each_event_has_a_contribution(fitted):
    told = some_people(seed=1).of_users([0])
    parts = fitted.contributions(told, 3)
    assert (parts.shape, parts.dtype) == ((len(told),), np.float32)
    assert np.isfinite(parts).all()


@pytest.mark.parametrize("name", EXPLAINED)
def test_contributions_add_up_to_the_score(name):
    fitted = RECOMMENDERS[name]().fit(some_people())
    told = history(
        [1, 1, 15, 2, 2, 3, 28, 4], [1.0, 2.0, -1.0, 1.0, -3.0, 0.0, 1.0, 0.5], [1, 2, 2, 2, 3, 3, 4, np.nan]
    )
    scores = fitted.scores(told)[0]
    sums = [fitted.contributions(told, column).sum() for column in range(N_ITEMS)]
    assert np.abs(scores).max() > 0
    np.testing.assert_allclose(sums, scores, atol=1e-5)


# State ---------------------------------------------------------------------------------------------------------------


def test_what_is_restored_from_files_answers_the_same(new, fitted, tmp_path):
    people = some_people(seed=1)
    restored = round_trip(fitted, new, tmp_path)
    np.testing.assert_array_equal(restored.scores(people), fitted.scores(people))
    np.testing.assert_array_equal(restored.scores(people, np.arange(3)), fitted.scores(people, np.arange(3)))
    for ours, theirs in zip(restored.candidates(people, 7), fitted.candidates(people, 7), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    one = people.of_users([1])
    np.testing.assert_array_equal(restored.contributions(one, 2), fitted.contributions(one, 2))


def test_the_state_is_plain_arrays(fitted):
    state = fitted.state()
    assert all(isinstance(array, np.ndarray) and array.dtype != object for array in state.values())


# Wrong use -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in RECOMMENDERS if not name.startswith("content")])
def test_nothing_can_be_asked_before_it_has_learnt(name):
    for ask in (
        lambda r: r.scores(history([1])),
        lambda r: r.candidates(history([1]), 3),
        lambda r: r.contributions(history([1]), 3),
        lambda r: r.state(),
    ):
        with pytest.raises(InvalidInput, match="fit or restore first"):
            ask(RECOMMENDERS[name]())


def test_wrong_questions_are_refused(fitted):
    for ask in (
        lambda: fitted.scores(history([1], n_items=7)),
        lambda: fitted.scores(history([1]), np.array([30])),
        lambda: fitted.scores(history([1]), np.array([-1])),
        lambda: fitted.candidates(history([1]), 0),
        lambda: fitted.candidates(history([1], n_items=7), 3),
        lambda: fitted.contributions(history([1]), 30),
        lambda: fitted.contributions(some_people(), 3),
    ):
        with pytest.raises(InvalidInput, match="expected"):
            ask()


# A world whose answer is known ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LEARNING)
def test_on_a_checkerboard_the_item_left_out_is_found(name):
    # Even people have all even items and odd people the odd ones, but for the one with their own number.
    n = 40
    users, items = np.nonzero((np.add.outer(np.arange(n), np.arange(n)) % 2 == 0) & ~np.eye(n, dtype=bool))
    shuffled = np.random.default_rng(0).permutation(len(users)).astype(float)
    people = Behaviour.of(users, items, None, shuffled, n_users=n, n_items=n)
    fitted = RECOMMENDERS[name]().fit(people)
    found = [keys[0] for keys in fitted.candidates(people, 1)]
    assert np.mean(np.array(found) == np.arange(n)) == 1.0
    # Somebody who was not there, and of whom little is known, gets their own kind as well.
    (stranger,) = fitted.candidates(history([2, 4, 6], n_items=n), 5)
    assert (stranger % 2 == 0).all()
    assert len(stranger) == 5
