"""Recommenders side by side: full rankings, measures by hand, intervals over people, and fair conditions."""

import math

import ir_measures
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mmsearch.receval
from mmsearch.behaviour import Behaviour
from mmsearch.errors import InvalidInput, MissingDependency
from mmsearch.metrics import Interval, compare, interval
from mmsearch.receval import evaluate_recommenders, rank_all
from mmsearch.recsplits import cold_items, leave_last_out
from mmsearch.types import Progress


class ByTable:
    """Scores from a rule of (history's items, n_items); remembers what it was shown."""

    def __init__(self, name, rule):
        self.name, self.rule, self.shown = name, rule, []

    def fit(self, behaviour):
        self.shown.append(behaviour)
        self.counts = np.bincount(behaviour.items, minlength=behaviour.n_items).astype(np.float32)
        return self

    def scores(self, histories, columns=None):
        self.shown.append(histories)
        rows = [
            self.rule(self, histories.items[a:b]) for a, b in zip(histories.starts, histories.starts[1:], strict=False)
        ]
        found = np.array(rows, dtype=np.float32).reshape(len(rows), histories.n_items)
        return found if columns is None else found[:, columns]

    def candidates(self, histories, k):
        return list(rank_all(self, histories, k))

    def contributions(self, history, column):
        return np.zeros(len(history), dtype=np.float32)

    def state(self):
        return {"counts": self.counts}

    def restore(self, state):
        self.counts = state["counts"]
        return self


def popular():
    return ByTable("popular", lambda model, history: model.counts)


def level():
    return ByTable("level", lambda model, history: np.zeros(len(model.counts)))


def noise():
    """The same numbers for the same history, many of them equal."""

    def rule(model, history):
        return np.random.default_rng([7, *history]).integers(0, 5, len(model.counts))

    return ByTable("noise", rule)


def knowing(split, sign=1):
    """Knows the answers by the history, which no model is told: for bounds only."""
    answers = {tuple(split.histories.of_users([n]).items): items for n, items in enumerate(split.answers)}

    def rule(model, history):
        scores = np.zeros(len(model.counts))
        scores[answers[tuple(history)]] = sign
        return scores

    return ByTable("knowing", rule)


def world(n_users=40, n_items=30, seed=0):
    """Everybody likes eight different items, one after the other."""
    chance = np.random.default_rng(seed)
    items = np.concatenate([chance.choice(n_items, 8, replace=False) for _ in range(n_users)])
    users = np.repeat(np.arange(n_users), 8)
    return Behaviour.of(users, items, times=np.tile(np.arange(8.0), n_users), n_users=n_users, n_items=n_items)


@pytest.fixture(scope="module")
def split():
    return leave_last_out(world())


@pytest.fixture(scope="module")
def found(split):
    vectors = np.random.default_rng(1).normal(size=(30, 4))
    return evaluate_recommenders(split, {"popular": popular, "noise": noise, "hybrid": level}, vectors=vectors)


# Rankings -----------------------------------------------------------------------------------------------------------


def plain_ranking(scores, seen, k):
    new = [item for item in range(len(scores)) if item not in seen]
    best = sorted(new, key=lambda item: (-scores[item], item))[:k]
    return best + [-1] * (min(k, len(scores)) - len(best))


@given(st.integers(0, 1000), st.integers(1, 12), st.integers(1, 60))
def test_all_new_items_are_ranked_and_equals_by_position_whatever_the_blocks(seed, k, numbers):
    chance = np.random.default_rng(seed)
    n_users, n_items = int(chance.integers(0, 12)), int(chance.integers(1, 9))
    n = int(chance.integers(0, 40)) if n_users else 0
    histories = Behaviour.of(
        chance.integers(0, max(1, n_users), n), chance.integers(0, n_items, n), n_users=n_users, n_items=n_items
    )
    model = noise().fit(histories)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mmsearch.receval, "_SCORES", numbers)
        got = rank_all(model, histories, k)
    scores = model.scores(histories)
    seen = [set(histories.items[a:b]) for a, b in zip(histories.starts, histories.starts[1:], strict=False)]
    assert got.shape == (n_users, min(k, n_items))
    assert got.tolist() == [plain_ranking(*each, k) for each in zip(scores, seen, strict=True)]


def test_memory_is_asked_for_a_block_of_people_at_a_time(split, monkeypatch):
    monkeypatch.setattr(mmsearch.receval, "_SCORES", 30 * 7)
    model = popular().fit(split.train)
    rank_all(model, split.histories, 5)
    assert [shown.n_users for shown in model.shown[1:]] == [7, 7, 7, 7, 7, 5]


def test_a_history_of_everything_leaves_nothing_to_recommend():
    histories = Behaviour.of([0, 0, 0], [0, 1, 2], n_users=2, n_items=3)
    assert rank_all(level().fit(histories), histories, 5).tolist() == [[-1, -1, -1], [0, 1, 2]]


@pytest.mark.parametrize("wrong", [np.zeros(3), np.full(30, np.nan), np.full(30, np.inf)])
def test_scores_of_another_shape_or_not_finite_are_refused_by_the_models_name(split, wrong):
    class Wrong(ByTable):
        def scores(self, histories, columns=None):
            return np.tile(wrong, (histories.n_users, 1))

    with pytest.raises(InvalidInput, match="'crooked'"):
        evaluate_recommenders(split, {"crooked": lambda: Wrong("crooked", None)})


# Fair conditions ----------------------------------------------------------------------------------------------------


def test_models_are_shown_the_training_part_and_histories_and_nothing_else(split):
    model = popular()
    evaluate_recommenders(split, {"popular": lambda: model})
    train, *histories = model.shown
    assert train is split.train
    held = {(user, item) for user, items in zip(split.users, split.answers, strict=True) for item in items}
    assert held
    assert not held & set(zip(train.users, train.items, strict=True))
    told = np.concatenate([shown.items for shown in histories])
    assert told.tolist() == split.histories.items.tolist()


def test_whoever_knew_the_answers_would_have_all_of_them_and_the_contrary_none(split):
    found = evaluate_recommenders(split, {"knowing": lambda: knowing(split), "contrary": lambda: knowing(split, -1)})
    for measure in ("nDCG@10", "recall@10", "MRR@10", "R@10"):
        assert found.interval("knowing", measure) == Interval(1.0, 1.0, 1.0)
        assert found.interval("contrary", measure) == Interval(0.0, 0.0, 0.0)


def test_new_items_are_ranked_among_all_others(split):
    cold = cold_items(world(), share=0.2)
    found = evaluate_recommenders(cold, {"knowing": lambda: knowing(cold), "popular": popular}, k=5)
    assert found.interval("knowing", "nDCG@5").value == 1.0
    assert found.interval("popular", "nDCG@5").value == 0.0  # 24 others were seen by somebody
    assert not cold.cold[found.lists["popular"]].any()


# Measures -----------------------------------------------------------------------------------------------------------


def test_what_popular_is_worth_can_be_told_by_hand():
    # Training: 3 people had item 0, 2 item 1, 1 item 2 and 3; they liked 3, 2, 1 and 4 last.
    behaviour = Behaviour.of(
        [0, 0, 1, 1, 2, 2, 2, 3, 3, 3, 3],
        [0, 3, 0, 2, 0, 2, 1, 1, 3, 1, 4],
        times=np.arange(11),
        n_users=4,
        n_items=5,
    )
    split = leave_last_out(behaviour)
    found = evaluate_recommenders(split, {"popular": popular}, k=3)
    # Counts of events are 3, 2, 1, 1, 0, of which everybody's own are passed over.
    assert found.lists["popular"].tolist() == [[1, 2, 3], [1, 2, 3], [1, 3, 4], [0, 2, 4]]
    assert [items.tolist() for items in split.answers] == [[3], [2], [1], [4]]
    values = found.values["popular"]
    assert values["MRR@3"].tolist() == pytest.approx([1 / 3, 1 / 2, 1, 1 / 3])
    assert values["nDCG@3"].tolist() == pytest.approx([1 / 2, 1 / math.log2(3), 1, 1 / 2])
    assert values["recall@3"].tolist() == values["R@3"].tolist() == [1, 1, 1, 1]
    assert found.interval("popular", "coverage@3").value == 1.0
    # Of 4 people, 3 had item 0, 1 item 1 (twice), 1 each items 2 and 3, none item 4.
    assert values["ARP@3"].tolist() == pytest.approx([3 / 12, 3 / 12, 2 / 12, 4 / 12])
    bits = [-math.log2((n + 1) / 6) for n in (3, 1, 1, 1, 0)]
    assert values["novelty@3"][3] == pytest.approx((bits[0] + bits[2] + bits[4]) / 3)


def test_each_persons_values_are_those_of_ir_measures():
    split = leave_last_out(world(seed=3), n=3)
    found = evaluate_recommenders(split, {"noise": noise}, ["nDCG@7", "recall@7", "MRR@7", "R@7", "P@4"])
    qrels = {str(n): {str(item): 1 for item in items} for n, items in enumerate(split.answers)}
    run = {
        str(n): {str(item): 1.0 / rank for rank, item in enumerate(row, 1) if item >= 0}
        for n, row in enumerate(found.lists["noise"].tolist())
    }
    names = {"nDCG@7": "nDCG@7", "recall@7": "R@7", "MRR@7": "RR@7", "R@7": "Success@7", "P@4": "P@4"}
    for ours, theirs in names.items():
        expected = np.zeros(len(split))
        for one in ir_measures.iter_calc([ir_measures.parse_measure(theirs)], qrels, run):
            expected[int(one.query_id)] = one.value
        assert found.values["noise"][ours] == pytest.approx(expected)
        assert expected.any()


def test_measures_with_a_longer_list_than_k_get_it(split):
    found = evaluate_recommenders(split, {"noise": noise}, ["recall@30"], k=2)
    assert (found.values["noise"]["recall@30"] == 1).all()
    assert found.lists["noise"].shape == (40, 30)
    assert found.interval("noise", "coverage@2").value < 1
    assert found.headline == "recall@30"


def test_without_vectors_diversity_is_not_measured(split, found):
    assert "ILD@10" in found.measures
    assert "ILD@10" not in evaluate_recommenders(split, {"popular": popular}).measures


def test_items_without_a_vector_do_not_count_for_diversity():
    histories = Behaviour.of([0, 0, 1, 1], [4, 3, 4, 3], n_users=2, n_items=5)
    split = leave_last_out(histories)
    vectors = np.array([[1, 0], [0, 0], [0, 2], [1, 1], [1, 1]])
    found = evaluate_recommenders(split, {"level": level}, vectors=vectors, k=3)
    assert found.lists["level"].tolist() == [[0, 1, 2]] * 2
    assert found.values["level"]["ILD@3"].tolist() == [1, 1]
    alone = evaluate_recommenders(split, {"level": level}, vectors=vectors, k=2)
    assert math.isnan(alone.interval("level", "ILD@2").value)
    assert alone.to_json()["models"]["level"]["ILD@2"] is None
    assert alone.best("ILD@2") == "level"


# Intervals and comparisons ------------------------------------------------------------------------------------------


def test_intervals_and_differences_are_those_over_people(found):
    ours, theirs = found.values["noise"]["nDCG@10"], found.values["popular"]["nDCG@10"]
    assert found.interval("noise", "nDCG@10") == interval(ours)
    assert found.difference("noise", "popular", "nDCG@10") == compare(theirs, ours)
    assert found.difference("noise", "popular", "nDCG@10").value == pytest.approx(ours.mean() - theirs.mean())


def test_every_interval_holds_its_value(found):
    for row in found.intervals().values():
        assert list(row) == [
            "nDCG@10", "recall@10", "MRR@10", "R@10", "ILD@10", "novelty@10", "ARP@10", "coverage@10",
        ]  # fmt: skip
        for one in row.values():
            assert one.low <= one.value <= one.high


def test_the_interval_of_the_coverage_is_about_what_other_people_of_the_kind_would_give():
    drawn, held = [], []
    for seed in range(40):
        split = leave_last_out(world(60, 400, seed))
        one = evaluate_recommenders(split, {"noise": noise}, k=5).interval("noise", "coverage@5")
        drawn.append(one.value)
        held.append((one.high - one.low) / 2 / 1.96)
    assert np.mean(held) == pytest.approx(np.std(drawn), rel=0.35)


def test_a_single_person_has_intervals_without_width():
    split = leave_last_out(Behaviour.of([0, 0], [1, 2], n_users=1, n_items=4))
    row = evaluate_recommenders(split, {"level": level}).intervals()["level"]
    assert all(one.low == one.value == one.high for one in row.values())


def test_the_best_single_model_is_the_best_beside_the_hybrid(split):
    models = {"hybrid": lambda: knowing(split), "level": level, "popular": popular, "again": popular}
    found = evaluate_recommenders(split, models)
    means = {name: values["nDCG@10"].mean() for name, values in found.values.items()}
    expected = max(("level", "popular"), key=means.get)
    assert found.best("nDCG@10", without=()) == "hybrid"
    assert found.best("nDCG@10") == expected
    best, gain = found.verdict()
    assert best == expected
    assert gain == found.difference("hybrid", expected, "nDCG@10")
    assert gain.significant


def test_without_the_hybrid_or_anything_beside_it_there_is_no_verdict(split):
    for models in ({"popular": popular}, {"hybrid": popular}):
        found = evaluate_recommenders(split, models)
        assert found.verdict() is None
        assert found.to_json()["difference"] is None
    with pytest.raises(InvalidInput, match="beside hybrid"):
        found.best("nDCG@10")


def test_the_json_has_every_model_and_no_nan(found):
    said = found.to_json()
    assert said.keys() >= {"users", "models", "best_single", "difference"}
    assert said["users"] == 40
    assert list(said["models"]) == ["popular", "noise", "hybrid"]
    assert said["best_single"] in ("popular", "noise")
    assert said["difference"].keys() == {"value", "low", "high", "p"}
    numbers = [number for row in said["models"].values() for one in row.values() for number in one.values()]
    assert np.isfinite(numbers).all()


def test_people_without_a_history_are_counted_and_said():
    behaviour = Behaviour.of([0, 0, 1, 1], [0, 1, 2, 1], n_users=2, n_items=4)
    split = leave_last_out(Behaviour.of([0, 1, 1], [0, 2, 1], n_users=2, n_items=4), min_history=0)
    found = evaluate_recommenders(split, {"popular": popular})
    assert found.to_json()["empty_histories"] == 1
    assert "1 of 2 people" in found.notes()[0]
    assert evaluate_recommenders(leave_last_out(behaviour), {"popular": popular}).notes() == []


# What cannot be -----------------------------------------------------------------------------------------------------


def test_a_model_whose_package_is_missing_is_left_out_with_the_reason(split):
    class Missing(ByTable):
        def fit(self, behaviour):
            raise MissingDependency("als needs an extra: pip install 'mmsearch[als]'")

    found = evaluate_recommenders(split, {"als": lambda: Missing("als", None), "popular": popular})
    assert found.left_out == {"als": "als needs an extra: pip install 'mmsearch[als]'"}
    assert list(found.values) == ["popular"]
    none = evaluate_recommenders(split, {"als": lambda: Missing("als", None)})
    assert none.intervals() == none.to_json()["models"] == {}


def test_progress_is_told_by_model_and_can_end_the_work(split):
    said = []
    evaluate_recommenders(split, {"popular": popular}, report=said.append)
    assert said == [Progress("warm: popular", 0, 40), Progress("warm: popular", 40, 40)]

    def stop(state):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate_recommenders(split, {"popular": popular}, report=stop)


@pytest.mark.parametrize(
    ("options", "about"),
    [
        ({"models": {}}, "at least one model"),
        ({"measures": ["MRR"]}, "cutoff"),
        ({"measures": ["fame@3"]}, "fame@3"),
        ({"k": 0}, "k as"),
        ({"vectors": np.ones((3, 2))}, "30 items"),
    ],
)
def test_wrong_input_is_refused(split, options, about):
    with pytest.raises(InvalidInput, match=about):
        evaluate_recommenders(**{"split": split, "models": {"popular": popular}, **options})


@pytest.mark.parametrize(("model", "measure"), [("als", "nDCG@10"), ("popular", "nDCG@11")])
def test_unknown_names_are_refused_with_the_known_ones(found, model, measure):
    with pytest.raises(InvalidInput, match=r"popular, noise|nDCG@10, recall@10"):
        found.interval(model, measure)
