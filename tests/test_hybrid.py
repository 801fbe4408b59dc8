"""Behaviour and content blended: how weights are fitted, what items without behaviour get, and what is kept."""

import numpy as np
import pytest

from mmsearch.behaviour import Behaviour
from mmsearch.errors import InvalidInput
from mmsearch.receval import evaluate_recommenders, rank_all
from mmsearch.recommenders.blend import Cases, fit_weights, offset_for_share
from mmsearch.recommenders.bridge import Bridge
from mmsearch.recommenders.content import Content
from mmsearch.recommenders.hybrid import Hybrid
from mmsearch.recommenders.itemvectors import ItemVectors
from mmsearch.recommenders.neighbors import ItemNeighbors
from mmsearch.recommenders.parts import Part
from mmsearch.recommenders.popularity import Popular, Random
from mmsearch.recommenders.sessions import Transitions
from mmsearch.recsplits import cold_items, leave_last_out

# Weights -------------------------------------------------------------------------------------------------------------


def drawn(weights, n_people=400, n=30, seed=0, scale=1.0):
    """People who each pick one of their candidates with the softmax of a weighted sum of what parts say."""
    random = np.random.default_rng(seed)
    cases = []
    for _ in range(n_people):
        said = random.normal(size=(n, len(weights)))
        odds = np.exp(said @ weights)
        cases.append(Cases(said * scale, np.arange(n) == random.choice(n, p=odds / odds.sum())))
    return cases


def test_weights_are_those_by_which_people_chose():
    found = fit_weights(drawn([1.5, 0.75, 0.0, -0.3]))
    np.testing.assert_allclose(found, [1.5, 0.75, 0.0, 0.0], atol=0.2)
    assert found[0] > found[1] > found[2]
    assert found[3] == 0


def test_in_what_unit_a_part_says_something_does_not_matter():
    units = np.array([1000.0, 1e-9, 1.0])
    plain, scaled = fit_weights(drawn([2.0, 1.0, 0.5])), fit_weights(drawn([2.0, 1.0, 0.5], scale=units))
    np.testing.assert_allclose(scaled * units, plain, rtol=1e-4)


def test_what_is_added_to_all_of_a_persons_scores_does_not_matter():
    cases = drawn([2.0, 1.0])
    shifted = [Cases(case.said + np.array([n, -n]), case.right) for n, case in enumerate(cases)]
    np.testing.assert_allclose(fit_weights(shifted), fit_weights(cases), rtol=1e-3)


def test_a_part_that_says_the_same_of_all_has_no_weight():
    cases = [
        Cases(np.column_stack([case.said, np.full(30, 0.1 * n), np.full(30, np.float32(0.3)) + case.said[:, 0] * 1e-9]),
              case.right) for n, case in enumerate(drawn([1.0]))
    ]  # fmt: skip
    found = fit_weights(cases)
    assert found[0] > 0.5
    assert found[1:].tolist() == [0.0, 0.0]


def test_each_person_has_one_vote():
    # The first hundred people have one right candidate each, by part 0; the last ten have many, by part 1.
    random = np.random.default_rng(0)
    cases = []
    for person in range(110):
        said = random.normal(size=(60, 2))
        rank = np.argsort(-said[:, int(person >= 100)])
        cases.append(Cases(said, np.isin(np.arange(60), rank[: 20 if person >= 100 else 1])))
    found = fit_weights(cases)
    assert found[0] > 5 * found[1]


def test_where_nothing_is_right_or_no_part_is_better_than_none_parts_vary_alike():
    random = np.random.default_rng(0)
    said = [random.normal(size=(500, 2)) * [1.0, 10.0] for _ in range(20)]
    nothing = [Cases(one, np.zeros(500, bool)) for one in said]
    everything = [Cases(one, np.ones(500, bool)) for one in said]
    wrong = [Cases(one, np.arange(500) == np.argmin(one @ [1.0, 0.1])) for one in said]
    for cases in (nothing, everything, wrong):
        np.testing.assert_allclose(fit_weights(cases), [1.0, 0.1], rtol=0.05)


def test_one_part_has_a_weight_and_no_people_give_none():
    assert fit_weights(drawn([1.0]))[0] == pytest.approx(1.0, abs=0.2)
    assert fit_weights([]).shape == (0,)
    assert fit_weights([Cases(np.ones((3, 2)), np.array([True, False, False]))]).tolist() == [0.0, 0.0]
    assert fit_weights([Cases(np.zeros((0, 2)), np.zeros(0, bool))]).tolist() == [1.0, 1.0]


def test_no_other_weights_are_likelier():
    cases = drawn([1.0, 0.5, 0.0], n_people=100)
    spread = np.sqrt(np.mean([case.said.var(axis=0) for case in cases], axis=0))

    def loss(weights):
        logits = [case.said @ weights for case in cases]
        likelihood = np.mean(
            [one[case.right].mean() - np.log(np.exp(one).sum()) for one, case in zip(logits, cases, strict=True)]
        )
        return 0.01 * np.sum((weights * spread) ** 2) - likelihood

    found = fit_weights(cases)
    for part in range(3):
        for step in (-0.02, 0.02):
            other = found + step * (np.arange(3) == part)
            if (other >= 0).all():
                assert loss(other) > loss(found)


# The share of new items ----------------------------------------------------------------------------------------------


def some_scores(seed=0):
    random = np.random.default_rng(seed)
    return [random.normal(3, 2, 40) for _ in range(200)], [random.normal(0, 1, 25) for _ in range(200)]


def share_taken(usual, others, offset):
    taken = []
    for a, b in zip(usual, others, strict=True):
        first = np.argsort(-np.concatenate([a, b + offset]))[:10]
        taken.append(np.mean(first >= len(a)))
    return np.mean(taken)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.1, 0.5, 0.9, 1.0])
def test_new_items_get_their_share_of_the_first_ten_places(share):
    usual, others = some_scores()
    offset = offset_for_share(usual, others, share)
    assert share_taken(usual, others, offset) == pytest.approx(share, abs=0.001)


def test_a_share_is_reached_as_far_as_there_are_others():
    usual, others = some_scores()
    few = [one[:3] for one in others]
    assert share_taken(usual, few, offset_for_share(usual, few, 1.0)) == pytest.approx(0.3)
    scant = [one[:3] for one in usual]
    assert share_taken(scant, others, offset_for_share(scant, others, 0.0)) == pytest.approx(0.7)


def test_where_there_is_nothing_to_compare_nothing_is_added():
    usual, others = some_scores()
    nothing = [np.zeros(0)] * 200
    assert offset_for_share([], [], 0.5) == 0
    assert offset_for_share(usual, nothing, 0.5) == 0
    assert offset_for_share(nothing, others, 0.5) == 0


# A world of two kinds of people --------------------------------------------------------------------------------------

N_COLOURS, PER_COLOUR = 6, 24
N_ITEMS = N_COLOURS * PER_COLOUR
COLOURS = np.repeat(np.arange(N_COLOURS), PER_COLOUR)


def two_kinds(n_users=240, n_events=10, seed=0):
    """Even people have things of the one colour they like, in any order. Odd people go from item n to n + 7."""
    random = np.random.default_rng(seed)
    items = []
    for user in range(n_users):
        if user % 2:
            items.append((random.integers(N_ITEMS) + 7 * np.arange(n_events)) % N_ITEMS)
        else:
            items.append(random.choice(np.flatnonzero(user // 2 % N_COLOURS == COLOURS), n_events, replace=False))
    times = np.tile(np.arange(n_events, dtype=float), n_users)
    users = np.repeat(np.arange(n_users), n_events)
    return Behaviour.of(users, np.concatenate(items), None, times, n_users=n_users, n_items=N_ITEMS)


def colours(n=N_ITEMS, seed=0):
    """Vectors that tell the colour, with some noise, of the first n items."""
    random = np.random.default_rng(seed)
    return {"picture": ItemVectors((np.eye(N_COLOURS)[COLOURS] + 0.3 * random.normal(size=(N_ITEMS, N_COLOURS)))[:n])}


def parts(n=N_ITEMS):
    return [
        Part("sessions", Transitions, "had next"),
        Part("items", ItemNeighbors, "had together", fading=0.5),
        Part("popular", Popular, "popular"),
        Part("content", lambda: Content(colours(n)), "looks", cold=True),
        Part("bridge", lambda: Bridge(colours(n)), "bridge", cold=True),
    ]


@pytest.fixture(scope="module")
def people():
    return two_kinds()


@pytest.fixture(scope="module")
def fitted(people):
    """On people of whom nobody had items 0 to 3 and 24 to 27."""
    return Hybrid(parts()).fit(people.where(people.items % 24 > 3))


def test_the_blend_is_better_than_each_of_its_parts(people):
    split = leave_last_out(people)
    models = {part.name: part.make for part in parts()}
    judged = evaluate_recommenders(split, {**models, "hybrid": lambda: Hybrid(parts())})
    best = judged.best("nDCG@10")
    assert judged.difference("hybrid", best, "nDCG@10").low > 0


def test_scores_are_the_weighted_sums_of_what_parts_say(people, fitted):
    told = people.of_users(range(6))
    content, cold = fitted.models["content"].scores(told), np.arange(N_ITEMS) % 24 < 4
    voices = {
        "sessions": fitted.models["sessions"].lately(1.0).scores(told),
        "items": fitted.models["items"].lately(1.0).scores(told),
        "popular": fitted.models["popular"].scores(told),
        "content": content,
        "bridge": fitted.models["bridge"].scores(told),
        "items again": fitted.models["items"].lately(0.5).scores(told),
    }
    said = np.stack(list(voices.values()), axis=2)
    expected = np.where(cold, said @ fitted.cold_weights + fitted.offset, said @ fitted.warm_weights)
    np.testing.assert_allclose(fitted.scores(told), expected, rtol=1e-4, atol=1e-4)
    assert fitted.cold_weights[[0, 1, 2, 5]].tolist() == [0.0] * 4
    assert fitted.cold_weights.any()


def test_what_parts_say_adds_up_to_the_score(people, fitted):
    for user in range(4):
        told = people.of_users([user])
        scores = fitted.scores(told)[0]
        for column in (0, 9, 50, 143):
            cold = column % 24 < 4
            (shares,) = fitted.says(told, [column])
            assert sum(say.amount for say in shares) + cold * fitted.offset == pytest.approx(scores[column], abs=1e-3)
            assert [say.amount for say in shares] == sorted((say.amount for say in shares), reverse=True)
            assert len({say.part.name for say in shares}) == len(shares)  # a part that fades as well says it together
            untold = sum(say.amount for say in shares if say.part.name == "popular")
            known = scores[column] - untold - cold * fitted.offset
            assert fitted.contributions(told, column).sum() == pytest.approx(known, abs=1e-3)
            total = sum(max(0.0, say.amount) for say in shares)
            told_by_event = [say for say in shares if say.part.name != "popular" and say.amount >= 0.03 * total]
            assert told_by_event  # very small parts need not tell
            for say in told_by_event:
                assert say.by_event.sum() == pytest.approx(say.amount, abs=1e-3)


def test_a_blend_of_one_part_ranks_as_the_part_does(people):
    hybrid, alone = Hybrid(parts()[:1]).fit(people), Transitions().fit(people)
    np.testing.assert_array_equal(rank_all(hybrid, people, 3), rank_all(alone.lately(1.0), people, 3))


# Items without behaviour ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fresh", [0.0, 0.1, 0.3, 1.0])
def test_new_items_have_about_their_share_where_a_fifth_are_new(people, fresh):
    split = cold_items(people, 0.2, seed=5)
    hybrid = Hybrid(parts(), fresh=fresh).fit(split.train)
    share = split.cold[rank_all(hybrid, split.train, 10)].mean()
    assert share == pytest.approx(fresh, abs=0.05)


def test_new_items_are_told_by_their_content(people):
    split = cold_items(people, 0.2, seed=5)
    hybrid = Hybrid(parts(), fresh=0.3).fit(split.train)
    cold = np.flatnonzero(split.cold)
    even = people.of_users(range(0, 240, 2))
    best = cold[np.argmax(hybrid.scores(even, cold), axis=1)]
    right = COLOURS[best] == np.arange(120) % N_COLOURS
    assert right.mean() > 0.9


def test_without_a_part_that_goes_by_content_new_items_have_no_score(people):
    split = cold_items(people, 0.2)
    hybrid = Hybrid(parts()[:3]).fit(split.train)
    assert not hybrid.scores(people)[:, split.cold].any()
    assert hybrid.offset == 0


def test_where_all_items_are_new_content_decides():
    told = Behaviour.of([0, 0], [3, 30], [-1, 0], n_users=1, n_items=N_ITEMS)
    hybrid = Hybrid(parts()).fit(told)
    scores = hybrid.scores(told)[0]
    assert np.isfinite(scores).all()
    assert scores[COLOURS != 0].min() > scores[3]


# Learning ------------------------------------------------------------------------------------------------------------


class Noting(Popular):
    """Popularity that notes what it is fitted on."""

    def __init__(self, noted):
        super().__init__()
        self.noted = noted

    def fit(self, behaviour):
        self.noted.append(behaviour)
        return super().fit(behaviour)


def pairs(behaviour):
    return set(zip(behaviour.users.tolist(), behaviour.items.tolist(), strict=True))


def test_weights_are_fitted_on_what_the_parts_have_not_seen(people):
    noted = []
    Hybrid([*parts(), Part("noting", lambda: Noting(noted), "popular", cold=True)]).fit(people)
    without_last, without_some, everything = noted
    assert pairs(everything) == pairs(people)
    assert pairs(people) - pairs(without_last) == {
        (user, int(people.items[end - 1])) for user, end in enumerate(people.starts[1:])
    }
    hidden = np.setdiff1d(without_last.items, without_some.items)
    assert len(hidden) == round(0.2 * N_ITEMS)
    assert pairs(without_some) == {(user, item) for user, item in pairs(without_last) if item not in hidden}


def test_what_was_held_out_does_not_matter(people):
    # The same people before, with another last event: what is learnt from the training part is the same.
    random = np.random.default_rng(0)
    last = people.starts[1:] - 1
    items = people.items.copy()
    items[last] = [random.choice(np.setdiff1d(np.arange(N_ITEMS), items[end - 9 : end + 1])) for end in last]
    other = Behaviour(people.n_items, people.starts, items, people.weights, people.times)
    ours, theirs = (Hybrid(parts()).fit(leave_last_out(one).train) for one in (people, other))
    for name, array in ours.state().items():
        np.testing.assert_array_equal(array, theirs.state()[name], err_msg=name)


def test_fitting_is_repeatable_with_a_sample_of_the_people(people, monkeypatch):
    from mmsearch.recommenders import hybrid as module

    monkeypatch.setattr(module, "_MOST_PEOPLE", 60)
    monkeypatch.setattr(module, "_ENOUGH", 20)
    ours, theirs = Hybrid(parts()).fit(people), Hybrid(parts()).fit(people)
    for name, array in ours.state().items():
        np.testing.assert_array_equal(array, theirs.state()[name], err_msg=name)
    assert evaluate_recommenders(
        leave_last_out(people), {"hybrid": lambda: Hybrid(parts())}
    ).interval("hybrid", "R@10").value > 0.5  # fmt: skip


def test_in_blocks_the_weights_of_new_items_are_the_same(people, monkeypatch):
    from mmsearch.recommenders import hybrid as module

    at_once = Hybrid(parts()).fit(people)
    monkeypatch.setattr(module, "_SCORES", 500)
    np.testing.assert_allclose(Hybrid(parts()).fit(people).cold_weights, at_once.cold_weights, rtol=1e-3)


@pytest.mark.parametrize("n_events", [0, 1, 2, 3, 5])
def test_little_behaviour_is_enough_for_finite_answers(n_events):
    told = Behaviour.of(
        np.zeros(n_events, int), np.arange(n_events), None, np.arange(n_events) * 1.0, n_users=1, n_items=N_ITEMS
    )
    hybrid = Hybrid(parts()).fit(told)
    assert np.isfinite(hybrid.scores(told)).all()
    assert len(hybrid.candidates(told, 5)[0]) == 5
    if n_events < 3:  # nothing can be held out
        assert hybrid.warm_weights.tolist() == [1, 1, 1, 1, 1, 0]


def test_whom_nothing_is_known_of_gets_what_most_like(people, fitted):
    nobody = Behaviour.of([], [], n_users=1, n_items=N_ITEMS)
    warm = np.flatnonzero(np.arange(N_ITEMS) % 24 > 3)
    scores = fitted.scores(nobody, warm)[0]
    popular = fitted.models["popular"].scores(nobody, warm)[0]
    np.testing.assert_allclose(scores, fitted.warm_weights[2] * popular, rtol=1e-5)
    assert fitted.contributions(nobody, 5).shape == (0,)


# Keeping -------------------------------------------------------------------------------------------------------------


def stored(hybrid, folder):
    for name, array in hybrid.state().items():
        np.save(folder / f"{name}.npy", array)
    return {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in hybrid.state()}


def test_a_blend_comes_back_from_files_by_the_names_in_them(people, fitted, tmp_path):
    state = stored(fitted, tmp_path)
    assert Hybrid.names_in(state) == ["sessions", "items", "popular", "content", "bridge"]
    again = Hybrid(parts()).restore(state)
    np.testing.assert_array_equal(again.scores(people), fitted.scores(people))
    assert [keys.tolist() for keys in again.candidates(people, 4)] == [
        keys.tolist() for keys in fitted.candidates(people, 4)
    ]


def test_items_that_came_since_are_new_items(people, tmp_path):
    early = people.over(100)
    state = stored(Hybrid(parts(100), fresh=0.3).fit(early), tmp_path)
    grown = Hybrid(parts(), fresh=0.3).restore(state)
    assert grown.n_items == N_ITEMS
    told = people.of_users(range(0, 60, 2))
    scores = grown.scores(told)
    cold = np.flatnonzero(np.arange(N_ITEMS) >= 100)
    both = np.stack([grown.models[name].scores(told, cold) for name in ("content", "bridge")], axis=2)
    weights = grown.cold_weights[[3, 4]]
    np.testing.assert_allclose(scores[:, cold], both @ weights + grown.offset, rtol=1e-4, atol=1e-4)
    assert any((keys >= 100).any() for keys in grown.candidates(told, 20))
    # Who has had nothing but new items is answered, and told why.
    (best,) = grown.candidates(Behaviour.of([0] * 3, [121, 122, 123], n_users=1, n_items=N_ITEMS), 5)
    assert (COLOURS[best[best >= 100]] == 5).all()
    assert grown.contributions(told.of_users([0]), 143).shape == (10,)
    assert grown.says(told.of_users([5]), [143])[0][0].part.name in ("content", "bridge")


def test_what_does_not_fit_is_refused(people, fitted, tmp_path):
    state = stored(fitted, tmp_path)
    faded = [Part(part.name, part.make, part.reason, part.cold) for part in parts()]
    for make in (
        lambda: Hybrid(parts()[:4]).restore(state),
        lambda: Hybrid(faded).restore(state),
        lambda: Hybrid(parts()).fit(people.over(100)),
        lambda: Hybrid(parts()[3:4]).restore({**state, "parts": np.frombuffer(b"content", np.uint8)}),
    ):
        with pytest.raises(InvalidInput, match="expected"):
            make()
    alone = Hybrid([Part("content", lambda: Content(colours()), "looks", cold=True)]).fit(people)
    with pytest.raises(InvalidInput, match="144 items or more, got 100"):
        Hybrid([Part("content", lambda: Content(colours(100)), "looks", cold=True)]).restore(alone.state())


def test_wrong_settings_are_refused(people):
    popular = Part("popular", Popular, "popular")
    for make in (
        lambda: Hybrid([]),
        lambda: Hybrid([popular, popular]),
        lambda: Hybrid([Part("a.b", Popular, "popular")]),
        lambda: Hybrid([Part("a\nb", Popular, "popular")]),
        lambda: Hybrid([popular], fresh=1.5),
        lambda: Hybrid([popular], fresh=float("nan")),
        lambda: Hybrid([Part("items", ItemNeighbors, "had together", fading=0.0)]),
        lambda: Hybrid([Part("items", ItemNeighbors, "had together", fading=1.5)]),
        lambda: Hybrid([Part("random", Random, "chance", fading=0.5)]).fit(people),
    ):
        with pytest.raises(InvalidInput, match="expected"):
            make()
