"""Cascades: order, weights and numbers of hits; budgets; stages that fail in every way; what hits say about it all."""

import time
from dataclasses import replace

import numpy as np
import pytest

from mmsearch import Hit, Item, Query
from mmsearch.cascade import Cascade, Step
from mmsearch.errors import InvalidInput
from mmsearch.rerank.function import FunctionReranker
from mmsearch.rerank.hubness import Hubness
from mmsearch.rerank.stage import ALONE, Stage, fuse
from mmsearch.types import Signal

RED = Query(text="red")


def hits_of(scores, **facts):
    return [Hit(Item(id=id), score, rank, **facts) for rank, (id, score) in enumerate(scores.items(), start=1)]


@pytest.fixture
def hits():
    return hits_of({"a": 0.9, "b": 0.8, "c": 0.7, "d": 0.6})


class Says(Stage):
    """Gives each item the number that it is told, NaN to others."""

    def __init__(self, values, name="says", **signal):
        self.values, self.name, self.signal = values, name, signal
        self.seen = []

    def score(self, query, hits, deadline=None):
        self.seen.append([hit.item.id for hit in hits])
        values = [self.values.get(hit.item.id, np.nan) for hit in hits]
        return Signal(np.array(values, dtype=np.float32), **self.signal)


class Foreign:
    """Somebody else's stage: ``answer`` makes of hits what it wants."""

    def __init__(self, answer, name="foreign"):
        self.answer, self.name = answer, name

    def rerank(self, query, hits):
        return self.answer(hits)


class Scoring(Foreign):
    """Somebody else's stage that gives numbers."""

    def score(self, query, hits, deadline=None):
        return self.answer(hits)


def order(hits):
    return "".join(hit.item.id for hit in hits)


def unchanged(after, before):
    """Whether the order and the scores stand."""
    return [(hit.item.id, hit.score, hit.rank) for hit in after] == [
        (hit.item.id, hit.score, hit.rank) for hit in before
    ]


# How stages change the order ----------------------------------------------------------------------------------------


def test_a_stage_adds_its_weighted_values_to_the_scores(hits):
    after = Cascade([Step(Says({"a": 0.0, "b": 0.4, "c": 0.1, "d": 0.1}), weight=0.5)]).rerank(RED, hits)
    assert [(hit.item.id, hit.score) for hit in after] == [("b", 1.0), ("a", 0.9), ("c", 0.75), ("d", 0.65)]
    assert after[0].scores == {"vectors": 0.8, "says": 0.4}
    assert after[0].ranks == {"vectors": 2, "says": 1}


def test_a_step_overrules_the_weight_and_the_number_of_its_stage(hits):
    stage = Says({"a": 0.0, "b": 1.0, "c": 1.0, "d": 1.0})
    stage.weight, stage.n = 0.0, 1
    assert order(Cascade([stage]).rerank(RED, hits)) == "abcd"
    assert order(Cascade([Step(stage, weight=1, n=2)]).rerank(RED, hits)) == "bacd"
    assert order(Cascade([Step(stage, weight=1, n=4)]).rerank(RED, hits)) == "bcda"


def test_by_ranks_the_scale_of_a_stage_makes_no_difference(hits):
    orders = []
    for scale in (1.0, 1000.0):
        stage = Says({id: scale * value for id, value in {"a": 0.0, "b": 0.1, "c": 0.2, "d": 0.3}.items()})
        orders.append(order(Cascade([Step(stage, weight=2)], fusion="ranks").rerank(RED, hits)))
    assert orders == ["dcba"] * 2


def test_by_ranks_a_hit_that_two_orders_put_first_is_first_and_scores_are_sums_of_reciprocal_ranks(hits):
    stages = [Says({"c": 2.0, "d": 1.0}, "one"), Says({"c": 1.0}, "two")]
    after = Cascade(stages, fusion="ranks").rerank(RED, hits)
    assert order(after) == "cdab"
    assert after[0].score == pytest.approx(1 / 63 + 1 / 61 + 1 / 61, abs=1e-5)
    assert after[0].ranks["fusion"] == 1
    assert [hit.score for hit in after] == sorted((hit.score for hit in after), reverse=True)


def test_an_unknown_fusion_is_refused():
    with pytest.raises(InvalidInput, match="expected a fusion of scores, ranks, got 'magic'"):
        Cascade([], fusion="magic")


def test_hits_that_a_stage_did_not_see_stay_behind_those_it_saw(hits):
    stage = Says({"a": -5.0, "b": -6.0, "c": 9.0, "d": 9.0})
    after = Cascade([Step(stage, n=2)]).rerank(RED, hits)
    assert stage.seen == [["a", "b"]]
    assert order(after) == "abcd"
    assert [hit.score for hit in after] == [-4.1, -5.2, -5.2, -5.2]
    assert [hit.ranks["says"] for hit in after] == [1, 2, 3, 4]
    assert ["says" in hit.scores for hit in after] == [True, True, False, False]


def test_each_stage_sees_the_best_of_the_order_so_far(hits):
    first, second = Says({"a": 0, "b": 0, "c": 0, "d": 1}), Says({"a": 0}, "second")
    Cascade([first, Step(second, n=2)]).rerank(RED, hits)
    assert (first.seen, second.seen) == ([["a", "b", "c", "d"]], [["d", "a"]])


def test_a_stage_that_counts_alone_replaces_the_scores_and_puts_the_others_behind(hits):
    after = Cascade([Step(Says({"a": 1.0, "c": 2.0, "d": 1.5}), weight=ALONE)]).rerank(RED, hits)
    assert order(after) == "cdab"
    assert [hit.score for hit in after] == [2.0, 1.5, 1.0, 0.8]


def test_among_hits_with_a_value_one_without_keeps_its_score(hits):
    after = Cascade([Says({"a": -0.15, "c": 0.0})]).rerank(RED, hits)
    assert [(hit.item.id, hit.score) for hit in after] == [("b", 0.8), ("a", 0.75), ("c", 0.7), ("d", 0.6)]


def test_equal_scores_are_ordered_by_id_whatever_the_order_was():
    before = hits_of({"c": 0.5, "a": 0.5 - 1e-7, "b": 0.5 - 2e-7})
    assert order(Cascade([Says({"a": 0, "b": 0, "c": 0})]).rerank(RED, before)) == "abc"


def test_calibrated_scores_are_changed_by_each_fields_own_scale():
    first, second = hits_of({"a": 1.0, "b": 0.9})
    before = [first, replace(second, field="text")]
    after = Cascade([Says({"a": 0.1, "b": 0.1})]).rerank(RED, before, {"picture": 2.0, "text": 10.0})
    assert [(hit.item.id, hit.score) for hit in after] == [("b", 1.9), ("a", 1.2)]


def test_a_scorer_of_somebody_elses_needs_no_rerank(hits):
    class Scorer:
        name = "scorer"

        def score(self, query, hits, deadline=None):
            return Signal(np.arange(len(hits), dtype=np.float32))

    assert order(Cascade([Scorer()]).rerank(RED, hits)) == "dcba"


def test_what_somebody_elses_attributes_mean_does_not_matter(hits):
    foreign = Foreign(lambda hits: hits[::-1])
    foreign.n, foreign.weight = None, "heavy"
    scoring = Scoring(lambda hits: Signal(np.arange(4.0)))
    scoring.n, scoring.weight = 0, np.zeros(3)
    assert order(Cascade([foreign]).rerank(RED, hits)) == "dcba"
    assert order(Cascade([scoring]).rerank(RED, hits)) == "dcba"


def test_a_foreign_stage_reorders_and_its_scores_never_rise(hits):
    after = Cascade([Foreign(lambda hits: [replace(hit, score=1 / hit.score) for hit in hits])]).rerank(RED, hits)
    assert order(after) == "abcd"
    assert [hit.score for hit in after] == [1 / 0.9] * 4
    assert [hit.scores["foreign"] for hit in after] == [1.11111, 1.25, 1.42857, 1.66667]


def test_a_foreign_stage_cannot_take_copies_scores_and_notes_away():
    copies = (Item(id="copy"),)
    before = hits_of({"a": 0.9, "b": 0.8}, copies=copies, field="text", notes=("before",), words={"red": 0.5})
    made = Foreign(lambda hits: [Hit(Item(id=hit.item.id), 0.0, 1, notes=("new",)) for hit in hits])
    for hit in Cascade([Says({"a": 0.0, "b": 0.0}), made]).rerank(RED, before):
        assert (hit.copies, hit.field, hit.notes, hit.words) == (copies, "text", ("before", "new"), {"red": 0.5})
        assert list(hit.scores) == ["vectors", "says", "foreign"]


def test_fusing_nothing_gives_nothing():
    assert fuse([], Signal(np.zeros(0, dtype=np.float32)), "says", 1.0) == []
    assert Cascade([Says({})]).rerank(RED, []) == []


def test_no_stages_change_nothing(hits):
    assert unchanged(Cascade([]).rerank(RED, hits), hits)


# Stages that go wrong -----------------------------------------------------------------------------------------------


def raising(hits):
    raise RuntimeError("the model\n is gone")


def clearing(hits):
    hits.clear()
    raise RuntimeError("and so are the hits")


WRONG_ORDERS = {
    "raises": raising,
    "clears the list": clearing,
    "loses a hit": lambda hits: hits[1:],
    "gives none": lambda hits: [],
    "repeats a hit": lambda hits: [*hits, hits[0]],
    "puts one twice for another": lambda hits: [hits[0], *hits[:-1]],
    "invents a hit": lambda hits: [*hits[1:], Hit(Item(id="new"), 1.0, 1)],
    "gives nothing": lambda hits: None,
    "gives numbers": lambda hits: [0.1] * len(hits),
    "gives items": lambda hits: [hit.item for hit in hits],
    "scores NaN": lambda hits: [replace(hit, score=np.nan) for hit in hits],
    "scores infinity": lambda hits: [replace(hit, score=np.inf) for hit in hits],
    "scores None": lambda hits: [replace(hit, score=None) for hit in hits],
    "scores in words": lambda hits: [replace(hit, score="high") for hit in hits],
    "notes nothing": lambda hits: [replace(hit, notes=None) for hit in hits],
    "keeps no scores": lambda hits: [replace(hit, scores=None) for hit in hits],
}
WRONG_SIGNALS = {
    "raises": raising,
    "clears the list": clearing,
    "too few": lambda hits: Signal(np.zeros(3)),
    "too many": lambda hits: Signal(np.zeros(5)),
    "a table": lambda hits: Signal(np.zeros((4, 1))),
    "one number": lambda hits: Signal(np.float32(1)),
    "words": lambda hits: Signal(np.array(["a", "b", "c", "d"])),
    "a list": lambda hits: [0.1, 0.2, 0.3, 0.4],
    "nothing": lambda hits: None,
    "too few regions": lambda hits: Signal(np.arange(4.0), regions=(None,)),
    "too few words": lambda hits: Signal(np.arange(4.0), words=({},)),
    "NaN": lambda hits: Signal(np.full(4, np.nan)),
    "infinity": lambda hits: Signal(np.full(4, np.inf)),
    "huge": lambda hits: Signal(np.full(4, -1e300)),
}


@pytest.mark.parametrize("fault", WRONG_ORDERS)
def test_when_a_foreign_stage_goes_wrong_the_order_before_stands_and_notes_say_so(hits, fault):
    after = Cascade([Foreign(WRONG_ORDERS[fault])]).rerank(RED, hits)
    assert unchanged(after, hits)
    for hit in after:
        (note,) = hit.notes
        assert note.startswith("foreign: failed, the order before it stands: ")
        assert "\n" not in note
        assert hit.ranks == {"vectors": hit.rank, "foreign": hit.rank}


@pytest.mark.parametrize("fault", WRONG_SIGNALS)
def test_when_a_scoring_stage_goes_wrong_the_order_before_stands_and_notes_say_so(hits, fault):
    after = Cascade([Scoring(WRONG_SIGNALS[fault])]).rerank(RED, hits)
    assert unchanged(after, hits)
    for hit in after:
        (note,) = hit.notes
        assert note.startswith("foreign: ")
        assert hit.ranks == {"vectors": hit.rank, "foreign": hit.rank}


def test_the_note_on_lost_hits_counts_them(hits):
    (first, *_) = Cascade([Foreign(lambda hits: [hits[0], hits[0], Hit(Item(id="x"), 1, 1)])]).rerank(RED, hits)
    assert "expected the same 4 hits in another order, got 3: 3 lost, 1 repeated, 1 unknown" in first.notes[0]


def test_infinity_for_one_hit_is_no_opinion_on_it(hits):
    after = Cascade([Scoring(lambda hits: Signal(np.array([0, 0.2, -np.inf, 0])))]).rerank(RED, hits)
    assert order(after) == "bacd"
    assert after[0].notes == ("foreign: gave infinity for 1 of 4 hits",)


def test_the_stages_after_one_that_failed_run_all_the_same(hits):
    after = Cascade([Foreign(raising), Says({"a": 0.0, "d": 1.0})]).rerank(RED, hits)
    assert order(after) == "dabc"
    assert all("RuntimeError: the model is gone" in hit.notes[0] for hit in after)


def test_only_the_hits_that_a_failed_stage_should_have_seen_say_so(hits):
    after = Cascade([Step(Foreign(raising), n=2)]).rerank(RED, hits)
    assert [len(hit.notes) for hit in after] == [1, 1, 0, 0]


def test_a_stage_that_cannot_be_prepared_is_left_out(engine, toy):
    class Unready(Says):
        def prepare(self, collection):
            raise OSError("no weights here")

    engine.add([Item(id=kind, image=toy.png_of(kind)) for kind in toy.KINDS])
    plain = engine.search("a red disc", rerank=False)
    stage = Unready({hit.item.id: float(hit.rank) for hit in plain})
    for budget in (None, 10_000):
        after = engine.search("a red disc", rerank=[stage], budget_ms=budget)
        assert unchanged(after, plain)
        assert {note for hit in after for note in hit.notes} == {
            "says: left out, it could not be prepared: OSError: no weights here"
        }


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interruption_goes_through(hits, error):
    def interrupted(hits):
        raise error

    for stage in (Foreign(interrupted), Scoring(interrupted)):
        with pytest.raises(error):
            Cascade([stage]).rerank(RED, hits)


@pytest.mark.parametrize("quiet", [False, True])
def test_a_stage_that_does_not_apply_says_why_unless_it_was_chosen_by_default(hits, quiet):
    after = Cascade([Says({}, skipped="says: not for such queries")], quiet=quiet).rerank(RED, hits)
    assert unchanged(after, hits)
    assert {hit.notes for hit in after} == {() if quiet else ("says: not for such queries",)}


# Budgets ------------------------------------------------------------------------------------------------------------


class Slow(Says):
    """Does not look at the clock."""

    def score(self, query, hits, deadline=None):
        time.sleep(0.05)
        return super().score(query, hits)


def test_a_budget_of_nothing_leaves_every_stage_out(hits):
    stages = [Says({"d": 1.0}), Foreign(lambda hits: hits[::-1])]
    after = Cascade(stages, budget_ms=0).rerank(RED, hits)
    assert unchanged(after, hits)
    assert after[0].notes == (
        "says: left out, the budget of 0 ms was used up",
        "foreign: left out, the budget of 0 ms was used up",
    )
    assert stages[0].seen == []


def test_a_stage_that_oversleeps_counts_and_the_later_ones_are_left_out(hits):
    late = Says({"a": -9.0}, "late")
    after = Cascade([Slow({"a": 0.0, "d": 1.0}), late], budget_ms=10).rerank(RED, hits)
    assert order(after) == "dabc"
    assert after[0].notes == ("late: left out, the budget of 10 ms was used up",)
    assert late.seen == []


def test_the_stages_know_when_their_time_is_up(hits):
    seen = []

    class Watches(Says):
        def score(self, query, hits, deadline=None):
            seen.append(deadline)
            return super().score(query, hits)

    before = time.perf_counter()
    Cascade([Watches({})], budget_ms=60_000).rerank(RED, hits)
    Cascade([Watches({})]).rerank(RED, hits)
    assert before + 60 <= seen[0] <= time.perf_counter() + 60
    assert seen[1] is None


def test_a_function_scores_as_many_as_fit_and_the_best_first(hits):
    def slow(query, items):
        time.sleep(0.03)
        return [{"a": 1, "b": 2, "c": 3, "d": 4}[item.id] for item in items]

    after = Cascade([FunctionReranker(slow, batch_size=1)], budget_ms=50).rerank(RED, hits)
    scored = [hit.item.id for hit in after if "function" in hit.scores]
    assert 1 <= len(scored) < 4
    assert sorted(scored) == ["a", "b", "c", "d"][: len(scored)]
    assert order(after)[: len(scored)] == "".join(sorted(scored, reverse=True))
    assert "the time was up" in after[0].notes[0]


def test_within_changes_the_budget_and_nothing_else(hits):
    cascade = Cascade([Says({"d": 1.0})], quiet=True)
    assert order(cascade.within(0).rerank(RED, hits)) == "abcd"
    assert order(cascade.within(0).within(None).rerank(RED, hits)) == "dabc"
    assert (cascade.within(5).quiet, cascade.within(5).budget_ms, cascade.budget_ms) == (True, 5, None)


# What is refused ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", [None, 3, "hubness", object(), Hubness, Foreign(None, ""), Foreign(None, 7)])
def test_what_is_no_stage_is_refused(stage):
    with pytest.raises(InvalidInput, match=r"expected a stage with a name and rerank\(query, hits\), got"):
        Cascade([stage])


@pytest.mark.parametrize("stages", ["hubness", None, 3, Hubness(), {"hubness"}])
def test_what_is_no_list_of_stages_is_refused(stages):
    with pytest.raises(InvalidInput, match="expected a list of stages, got"):
        Cascade(stages)


@pytest.mark.parametrize("weight", [-1, np.nan, "much", True, [1]])
def test_a_bad_weight_is_refused(weight):
    with pytest.raises(InvalidInput, match="expected a weight of at least 0 for says"):
        Cascade([Step(Says({}), weight=weight)])


@pytest.mark.parametrize("n", [0, -1, 1.5, "ten", True, np.nan])
def test_a_bad_number_of_hits_is_refused(n):
    with pytest.raises(InvalidInput, match="expected at least 1 hit for says to score"):
        Cascade([Step(Says({}), n=n)])


@pytest.mark.parametrize("budget", [-1, np.nan, "long", True])
def test_a_bad_budget_is_refused(budget):
    with pytest.raises(InvalidInput, match="expected a budget of at least 0 milliseconds or None"):
        Cascade([Says({})], budget_ms=budget)


@pytest.mark.parametrize("value", [np.int64(3), np.float32(0.5)])
def test_numbers_may_be_those_of_numpy(hits, value):
    step = Step(Says({"b": 1.0}), weight=value, n=np.int64(2))
    assert order(Cascade([step], budget_ms=np.float64(1e6)).rerank(RED, hits)) == "bacd"


def test_two_stages_of_one_name_and_the_name_of_the_retrieval_are_refused():
    with pytest.raises(InvalidInput, match="expected stages of different names, got says, says"):
        Cascade([Says({}), Says({})])
    with pytest.raises(InvalidInput, match="expected another name for a stage than 'vectors'"):
        Cascade([Says({}, "vectors")])


def test_a_cascade_says_what_it_is_made_of():
    cascade = Cascade([Hubness(), Step(Says({}), n=7)])
    assert repr(cascade) == "Cascade(hubness, says)"
    assert (cascade.names, cascade.n_candidates, cascade.needs) == (("hubness", "says"), 100, frozenset({"picture"}))
    assert (Cascade([]).n_candidates, Cascade([]).needs) == (0, frozenset())


# Explaining ---------------------------------------------------------------------------------------------------------


def test_a_hit_explains_itself_in_lines_for_people(hits):
    said = Says(
        {"b": 0.25},
        regions=((0.0, 0.0, 0.65, 0.65),) * 4,
        words=({"red": 0.5, "disc": 0.25},) * 4,
        notes=("says: half asleep",),
    )
    (best, *_) = Cascade([said, Foreign(raising)]).rerank(RED, hits)
    assert best.explain().splitlines() == [
        "rank 1, score 1.0500, found by its picture",
        "  vectors: score 0.8000, rank 2",
        "  says: score 0.2500, rank 1",
        "  foreign: not scored, rank 1",
        "  best region: 0% to 65% from the left, 0% to 65% from the top",
        "  words: red 0.50, disc 0.25",
        "  note: says: half asleep",
        "  note: foreign: failed, the order before it stands: RuntimeError: the model is gone",
    ]


@pytest.mark.parametrize("quiet", [False, True])
def test_a_stage_that_gives_only_nan_says_so_even_where_it_was_chosen_by_default(hits, quiet):
    after = Cascade([Says({})], quiet=quiet).rerank(RED, hits)
    assert unchanged(after, hits)
    assert all(hit.notes == ("says: gave no number for any hit",) for hit in after)
