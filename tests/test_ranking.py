"""Searching with everything: reranking by default and by choice, budgets, candidates, variety, sorting, filters."""

import gc
import threading
import weakref
from dataclasses import replace

import numpy as np
import pytest

from mmsearch import Engine, Item, Query
from mmsearch.cascade import Cascade, Step
from mmsearch.errors import InvalidInput
from mmsearch.profile import SETTINGS, Profile
from mmsearch.rerank.function import FunctionReranker
from mmsearch.rerank.hubness import Hubness
from mmsearch.rerank.late import LateInteraction
from mmsearch.rerank.regions import Regions


@pytest.fixture
def plain(engine, toy):
    """A store of pictures without regions, cells and bank."""
    engine.add(
        [
            Item(id=f"{kind} {n}", image=toy.png_of(kind, n), metadata={"n": n, "kind": kind})
            for kind in toy.KINDS
            for n in range(5)
        ]
    )
    return engine


@pytest.fixture
def rich(quadrants, tmp_path):
    """A store with all that stages ask for, of a model whose cells nobody has evaluated."""
    spaces = ["picture", "text", "regions", "cells"]
    with Engine.open(tmp_path / "rich", quadrants.QuadrantEncoder(), spaces=spaces) as engine:
        engine.add(quadrants.items())
        yield engine


def set_profile(engine, profile):
    with engine._store.writing(), engine._store.catalog.transaction():
        engine._store.catalog.set_setting(SETTINGS["text"], profile if isinstance(profile, str) else profile.to_json())


def stages_of(hits):
    return {tuple(hit.ranks) for hit in hits}


def by_number(query, items):
    return [item.metadata["n"] for item in items]


# By default ---------------------------------------------------------------------------------------------------------


def test_where_there_is_nothing_to_rerank_by_an_answer_is_that_of_the_vectors(plain, toy):
    for query in ("a red disc", toy.image_of("blue square"), Query(id="red disc 1")):
        assert plain.search(query, k=60) == plain.search(query, k=60, rerank=False)
        assert plain.search(query, k=60, rerank=[]) == plain.search(query, k=60, rerank=False)
    assert plain.search("a red disc")[0].explain() == (
        f"rank 1, score {plain.search('a red disc')[0].score:.4f}, found by its picture"
    )


def test_a_store_is_reranked_by_what_it_has(rich):
    assert stages_of(rich.search("red", field="picture")) == {("vectors", "regions")}
    rich.set_bank(["red", "blue"])
    assert stages_of(rich.search("red", field="picture")) == {("vectors", "hubness", "regions")}
    rich.set_bank(None)
    assert stages_of(rich.search("red", field="picture")) == {("vectors", "regions")}


def test_reranking_by_default_makes_no_notes_about_what_does_not_apply(rich, quadrants):
    rich.set_bank(["red", "blue"])
    for query in ("red", "...", quadrants.mosaic("red red blue blue"), Query(id="t1"), Query(vector=np.ones(16))):
        for field in (None, "picture", "text"):
            assert all(hit.notes == () for hit in rich.search(query, k=100, field=field))


def test_another_process_reranks_by_what_was_added_meanwhile(plain, open_engine):
    reader = open_engine()
    assert stages_of(reader.search("a red disc")) == {()}
    plain.set_bank(["a disc"])
    assert stages_of(reader.search("a red disc")) == {("vectors", "hubness")}


def test_similar_items_are_not_reranked(rich):
    assert stages_of(rich.similar("p03")) == {()}


# By choice ----------------------------------------------------------------------------------------------------------


def test_stages_may_be_given_as_a_list_of_stages_and_steps_or_as_a_cascade(plain):
    stage = FunctionReranker(by_number)
    right = plain.search("a red disc", rerank=[stage])
    assert [hit.item.metadata["n"] for hit in right] == [4] * 10
    for rerank in ((stage,), [Step(stage)], Cascade([stage]), Cascade([Step(stage)], quiet=True)):
        assert plain.search("a red disc", rerank=rerank) == right


@pytest.mark.parametrize("rerank", [None, 1, 0, "hubness", "", Hubness(), Hubness, {"a": 1}, np.True_])
def test_anything_else_is_refused_in_one_sentence(plain, rerank):
    with pytest.raises(InvalidInput, match="expected rerank as True, False, a Cascade or a list of stages"):
        plain.search("red", rerank=rerank)


@pytest.mark.parametrize("rerank", [["hubness"], [None], [Hubness], [object()], ["regions", Hubness()]])
def test_a_list_of_what_is_no_stage_is_refused(plain, rerank):
    with pytest.raises(InvalidInput, match="expected a stage with a name and rerank"):
        plain.search("red", rerank=rerank)


def test_stages_are_refused_before_anything_is_encoded(plain, encoder):
    read = encoder.texts_read
    with pytest.raises(InvalidInput):
        plain.search("red", rerank=["hubness"])
    assert encoder.texts_read == read


def test_as_many_candidates_are_retrieved_as_stages_want_to_see(plain):
    seen = []

    def count(query, items):
        seen.append(len(items))
        return np.zeros(len(items))

    stage = FunctionReranker(count, batch_size=1000, cache_size=0)
    for options in ({}, {"n_candidates": 20}, {"n_candidates": 1}, {"n_candidates": 50, "k": 55}):
        assert len(plain.search("a red disc", **({"k": 5} | options), rerank=[stage])) == options.get("k", 5)
    plain.search("a red disc", rerank=[Step(stage, n=30)])
    assert seen == [60, 20, 5, 55, 30]


@pytest.mark.parametrize("n", [0, -1, 1.5, "ten", True])
def test_a_bad_number_of_candidates_is_refused(plain, n):
    with pytest.raises(InvalidInput, match="expected k as a whole number"):
        plain.search("red", n_candidates=n)


def test_a_budget_of_nothing_gives_the_answer_of_the_vectors_with_notes(rich):
    rich.set_bank(["red"])
    before = rich.search("red", k=60, rerank=False)
    hits = rich.search("red", k=60, budget_ms=0)
    assert [(hit.item.id, hit.score) for hit in hits] == [(hit.item.id, hit.score) for hit in before]
    assert hits[0].notes == tuple(
        f"{name}: left out, the budget of 0 ms was used up" for name in ("hubness", "regions")
    )
    assert rich.search("red", k=60, budget_ms=60_000) == rich.search("red", k=60)


def test_the_budget_is_for_each_query(rich):
    rich.set_bank(["red"])
    for hits in rich.search_many(["red", "blue"] * 40, budget_ms=10_000):
        assert hits[0].notes == ()


@pytest.mark.parametrize("budget", [-1, np.nan, "long"])
def test_a_bad_budget_is_refused(plain, budget):
    with pytest.raises(InvalidInput, match="expected a budget of at least 0 milliseconds"):
        plain.search("red", budget_ms=budget)


# What else is asked for ---------------------------------------------------------------------------------------------


def test_k_filters_and_sorting_hold_after_reranking(plain):
    stage = FunctionReranker(by_number)
    hits = plain.search("a red disc", k=7, where={"n": {"$lt": 3}}, rerank=[stage])
    assert [hit.item.metadata["n"] for hit in hits] == [2] * 7
    hits = plain.search("a red disc", k=7, sort="kind", rerank=[stage])
    assert [hit.item.metadata["kind"] for hit in hits] == sorted(hit.item.metadata["kind"] for hit in hits)
    assert [hit.rank for hit in hits] == list(range(1, 8))
    assert {hit.item.metadata["n"] for hit in hits} == {4}
    assert sorted(hit.ranks["function"] for hit in hits) == list(range(1, 8))


def test_without_diversity_nothing_is_varied(plain):
    assert plain.search("a red disc", diversity=0) == plain.search("a red disc")


def test_variety_starts_with_the_best_and_shows_more_kinds(plain, toy):
    plain_hits = plain.search("a red disc", k=5)
    kinds = [len({toy.kind_of(hit.item) for hit in plain.search("a red disc", k=5, diversity=d)}) for d in (0, 0.5, 1)]
    assert kinds[0] == 1
    assert kinds[0] <= kinds[1] <= kinds[2]
    assert kinds[2] > 1
    varied = plain.search("a red disc", k=5, diversity=1)
    assert varied[0] == plain_hits[0]
    assert [hit.rank for hit in varied] == [1, 2, 3, 4, 5]


def test_near_copies_are_left_out_and_k_is_still_reached(plain, toy):
    hits = plain.search("a red disc", k=10, collapse=0.9)
    assert len(hits) == 10
    _, rows = plain.vectors([hit.item.id for hit in hits])
    cosines = rows @ rows.T - 2 * np.eye(10)
    assert cosines.max() < 0.9
    assert hits[0] == plain.search("a red disc", k=1)[0]


def test_variety_counts_after_reranking(plain):
    stage = FunctionReranker(by_number)
    hits = plain.search("a red disc", k=3, collapse=0.8, rerank=[stage])
    assert [hit.item.metadata["n"] for hit in hits] == [4, 4, 4]
    assert len({hit.item.metadata["kind"] for hit in hits}) == 3


def test_pictures_and_texts_may_be_varied_together(rich):
    for options in ({"diversity": 0.5}, {"collapse": 0.9}, {"diversity": 1, "collapse": 0.5}):
        hits = rich.search("red", k=20, **options)
        assert len({hit.item.id for hit in hits}) == len(hits) > 1


@pytest.mark.parametrize(
    "options",
    [
        *({"diversity": value} for value in (-0.1, 1.1, np.nan, "much", None)),
        *({"collapse": value} for value in (0, -1, 1.01, np.nan, "near")),
    ],
)
def test_bad_variety_is_refused(plain, options):
    (name,) = options
    with pytest.raises(InvalidInput, match=f"expected {name}"):
        plain.search("red", **options)


def test_no_queries_get_no_answers_and_bad_options_are_refused_all_the_same(plain):
    assert plain.search_many([]) == []
    with pytest.raises(InvalidInput):
        plain.search_many([], rerank="no")


# A tuned profile ----------------------------------------------------------------------------------------------------


def test_a_tuned_profile_is_used_for_the_encoder_that_it_was_tuned_with(rich):
    rich.set_bank(["red", "blue"])
    usual = rich.search("red", field="picture")
    tuned = Profile(("late", "hubness"), {"late": 2.0}, {"late": 3}, encoder="quadrants-0-True")
    set_profile(rich, tuned)
    hits = rich.search("red", k=50, field="picture")
    assert stages_of(hits) == {("vectors", "hubness", "late")}
    assert sum("late" in hit.scores for hit in hits) == 3
    set_profile(rich, replace(tuned, encoder="another"))
    assert rich.search("red", field="picture") == usual


def test_after_reindexing_with_another_encoder_the_profile_no_longer_counts(rich, quadrants):
    set_profile(rich, Profile(("late",), {}, {}, encoder="quadrants-0-True"))
    assert stages_of(rich.search("red")) == {("vectors", "late")}
    rich.reindex(quadrants.QuadrantEncoder(seed=3))
    assert stages_of(rich.search("red")) == {("vectors", "regions")}


def test_a_profile_for_texts_says_nothing_about_pictures(rich, quadrants):
    before = rich.search(quadrants.mosaic("red red blue blue"))
    set_profile(rich, Profile(("late",), {}, {}, encoder="quadrants-0-True"))
    assert rich.search(quadrants.mosaic("red red blue blue")) == before


def test_a_profile_without_stages_reranks_nothing(rich):
    set_profile(rich, Profile((), {}, {}, encoder="quadrants-0-True"))
    assert rich.search("red") == rich.search("red", rerank=False)


# Writers and readers ------------------------------------------------------------------------------------------------


def test_searches_with_every_stage_see_whole_states_while_others_write(rich, quadrants):
    seen, done = [], threading.Event()
    stages = [Hubness(), Regions(corrected=True), LateInteraction()]

    def watch():
        try:
            while not done.is_set():
                hits = rich.search("red", k=200, field="picture", rerank=stages)
                whole = all({"regions", "late"} <= hit.scores.keys() for hit in hits)
                seen.append((len(hits) % 2, whole, {note for hit in hits for note in hit.notes if "failed" in note}))
        except BaseException as error:
            seen.append(error)

    rich.set_bank(["red", "blue"])
    rich.add([Item(id="even", image=quadrants.mosaic("white white white red", 99))])
    parity = len(rich.search("red", k=200, field="picture")) % 2
    watchers = [threading.Thread(target=watch) for _ in range(3)]
    for watcher in watchers:
        watcher.start()
    for n in range(12):
        added = [
            Item(id=f"{side} {n}", image=quadrants.mosaic(f"red {side} red", 10 + n))
            for side in ("green blue", "blue green")
        ]
        rich.add(added)
        if n % 3 == 2:
            rich.remove([item.id for item in added])
            rich.rebuild()
    done.set()
    for watcher in watchers:
        watcher.join()
    assert set(map(repr, seen)) == {repr((parity, True, set()))}


def test_a_query_that_is_asked_again_is_answered_by_what_is_there_then(rich, quadrants):
    query = Query(id="p03")
    before = rich.search(query, k=3, rerank=[Regions()])
    rich.add([Item(id="p03", image=quadrants.mosaic("yellow yellow yellow yellow", 7))])
    after = rich.search(query, k=3, rerank=[Regions()])
    fresh = rich.search(Query(id="p03"), k=3, rerank=[Regions()])
    assert after == fresh != before
    stage = Regions()
    stage.prepare(rich._ranker.collection)
    hits = rich.search(query, k=3, field="picture", rerank=False)
    first = [hit.scores for hit in stage.rerank(query, hits)]
    rich.add([Item(id="p03", image=quadrants.mosaic("green green green green", 7))])
    assert [hit.scores for hit in stage.rerank(query, hits)] != first
    rich.reindex(quadrants.QuadrantEncoder(seed=3))
    assert not any("failed" in note for hit in stage.rerank(query, hits) for note in hit.notes)


def test_pictures_that_were_asked_with_are_let_go(rich, quadrants):
    alive = []
    for n in range(14):
        picture = quadrants.mosaic("red blue blue green", n).resize((3000, 1000))
        alive.append(weakref.ref(picture))
        rich.search(picture, k=1, rerank=[Hubness()])
        del picture
    gc.collect()
    assert sum(one() is not None for one in alive) < 9


BAD_PROFILES = {
    "no JSON": "{",
    "no object": "3",
    "null": "null",
    "weights that are none": '{"stages": [], "weights": 3, "n": {}}',
    "an endless weight": '{"stages": ["late"], "weights": {"late": Infinity}, "n": {}}',
    "an unknown stage": '{"stages": ["magic"], "weights": {}, "n": {}}',
    "too deep": "[" * 100_000,
}


@pytest.mark.parametrize("text", BAD_PROFILES.values(), ids=BAD_PROFILES.keys())
def test_a_damaged_profile_stops_no_search_and_the_hits_say_so(engine, toy, text):
    engine.add([Item(id=kind, image=toy.image_of(kind)) for kind in toy.KINDS])
    plain = engine.search("a red disc", rerank=False)
    store = engine.ranker.collection._store
    with store.writing(), store.catalog.transaction():
        store.catalog.set_setting(SETTINGS["text"], text)
    hits = engine.search("a red disc")
    assert toy.ids(hits) == toy.ids(plain)
    assert all("mmsearch tune" in hit.notes[0] for hit in hits)


def test_what_a_later_version_has_added_to_a_profile_is_passed_over():
    text = '{"stages": ["late"], "weights": {"late": 0.5}, "n": {"late": 50}, "mood": "new"}'
    assert Profile.from_json(text) == Profile(("late",), {"late": 0.5}, {"late": 50})


def test_the_usual_stages_outlive_writes_that_change_nothing_about_them(engine, toy):
    engine.add([Item(id=kind, image=toy.image_of(kind)) for kind in toy.KINDS[:6]])
    engine.set_bank(["a red disc", "a blue square"])
    before = engine.ranker.cascade(True).steps
    engine.add([Item(id=kind, image=toy.image_of(kind)) for kind in toy.KINDS[6:]])
    assert engine.ranker.cascade(True).steps is before
    engine.set_bank(None)
    assert engine.ranker.cascade(True).steps == ()


def test_a_store_keeps_a_profile_for_each_kind_of_query(engine, toy):
    engine.add([Item(id=kind, image=toy.image_of(kind)) for kind in toy.KINDS[:6]])
    own = engine.encoder.fingerprint
    for kind, stages in (("text", ("regions",)), ("picture", ("late",)), ("picture for texts", ("words",))):
        engine.set_profile(Profile(stages, {}, {}, encoder=own, kind=kind))
    assert [engine.ranker.cascade(True, kind=kind).names for kind in ("text", "picture", "picture for texts")] == [
        ("regions",), ("late",), ("words",)
    ]  # fmt: skip
    engine.set_profile(None)
    assert engine.ranker.cascade(True).names == ()


def test_biases_of_what_is_added_are_there_before_the_next_search(engine, toy):
    engine.add([Item(id=kind, image=toy.image_of(kind)) for kind in toy.KINDS[:6]])
    engine.set_bank(["a red disc", "a blue square", "something yellow"])
    read = engine.encoder.texts_read
    engine.add([Item(id=kind, image=toy.image_of(kind)) for kind in toy.KINDS[6:]])
    hubs = engine.ranker.collection._hubs["text"]
    (known,) = [known for (file, _), known in hubs._known.items() if "picture" in file]
    assert len(known.rows) == len(toy.KINDS)
    assert engine.encoder.texts_read == read


@pytest.mark.parametrize("budget", [float("inf"), 1e300])
def test_an_endless_budget_is_none(engine, toy, budget):
    engine.add([Item(id=kind, image=toy.image_of(kind)) for kind in toy.KINDS])
    stage = FunctionReranker(lambda query, items: [len(item.id) for item in items])
    hits = engine.search("red", rerank=[stage], budget_ms=budget)
    assert not any(hit.notes for hit in hits)
    assert [hit.score for hit in hits] == sorted((len(kind) for kind in toy.KINDS), reverse=True)[:10]
