"""What every stage of a cascade promises, whatever it goes by: to add one, put it into ``STAGES``."""

import copy
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from mmsearch import Engine, Item, Query
from mmsearch.cascade import Cascade, Step
from mmsearch.rerank.cross import EmbeddedCross
from mmsearch.rerank.function import FunctionReranker
from mmsearch.rerank.hubness import Hubness
from mmsearch.rerank.late import LateInteraction
from mmsearch.rerank.regions import Regions
from mmsearch.rerank.second import SecondEncoder
from mmsearch.rerank.stage import Stage
from mmsearch.rerank.views import Views
from mmsearch.rerank.words import WordMatch


class Backwards:
    """A stage of somebody else's: it knows hits, and nothing of ours."""

    name = "backwards"

    def rerank(self, query, hits):
        return [replace(hit, score=float(n)) for n, hit in enumerate(hits)][::-1]


def by_length(query, items):
    return [len(item.text or "") or np.nan for item in items]


STAGES = {
    "hubness": lambda: [Hubness()],
    "regions": lambda: [Regions()],
    "corrected regions": lambda: [Regions(corrected=True)],
    "late": lambda: [LateInteraction()],
    "views": lambda: [Views()],
    "words": lambda: [WordMatch()],
    "second": lambda: [SecondEncoder(sys.modules["quadrants"].QuadrantEncoder(seed=1))],
    "cross, in a store without the joint model's cells": lambda: [EmbeddedCross()],
    "function": lambda: [FunctionReranker(by_length)],
    "somebody else's": lambda: [Backwards()],
    "few": lambda: [Step(LateInteraction(), n=5)],
    "all": lambda: [
        Hubness(),
        Regions(corrected=True),
        LateInteraction(),
        Step(FunctionReranker(by_length), n=20),
        Step(Backwards(), n=3),
    ],
}
QUERIES = (
    "text",
    "text that no word is read of",
    "long text",
    "path",
    "picture",
    "bytes",
    "blend",
    "pushed away",
    "id of a picture",
    "id of a text",
    "vector",
)


@pytest.fixture(scope="module")
def stocked(quadrants, tmp_path_factory):
    """A store of all that there is: pictures with regions and cells, texts, copies, a bank of queries."""
    with make(quadrants, tmp_path_factory.mktemp("store")) as engine:
        yield engine


def make(quadrants, path, encoder=None, n=40):
    engine = Engine.open(path, encoder or quadrants.QuadrantEncoder(), spaces=["picture", "text", "regions", "cells"])
    assert not engine.add(quadrants.items(n)).failed
    engine.set_bank([f"{one} {other}" for one in quadrants.COLOURS for other in ("thing", "red", "blue")])
    return engine


@pytest.fixture(scope="module")
def asked(quadrants, stocked):
    """Queries of every kind, by its name."""
    picture = quadrants.mosaic("red red green blue")
    path = stocked.path.parent / "asked.png"
    picture.save(path)
    queries = {
        "text": "a red thing",
        "text that no word is read of": "...?",
        "long text": "something or other that is quite long " * 3 + "and green and yellow",
        "path": path,
        "picture": picture,
        "bytes": path.read_bytes(),
        "blend": 2 * Query(text="blue") + Query(image=path) - Query(text="red"),
        "pushed away": Query(text="red") - 0.5 * Query(image=picture),
        "id of a picture": Query(id="p03"),
        "id of a text": Query(id="t2"),
        "vector": Query(vector=np.arange(16.0)),
    }
    assert set(queries) == set(QUERIES)
    return queries


def facts(hits):
    """What may not depend on how often, when, where and with what else it was asked."""
    return [(hit.item.id, hit.score, hit.rank, hit.scores, hit.ranks, hit.region, hit.words, hit.notes) for hit in hits]


@pytest.mark.parametrize("field", [None, "picture", "text"])
@pytest.mark.parametrize("kind", QUERIES)
@pytest.mark.parametrize("stages", STAGES)
def test_the_same_hits_come_back_numbered_with_scores_that_never_rise(stocked, asked, stages, kind, field):
    plain = stocked.search(asked[kind], k=100, field=field, rerank=False)
    hits = stocked.search(asked[kind], k=100, field=field, rerank=STAGES[stages]())
    assert Counter(hit.item.id for hit in hits) == Counter(hit.item.id for hit in plain)
    assert {hit.item.id: (hit.item, hit.copies, hit.field) for hit in hits} == {
        hit.item.id: (hit.item, hit.copies, hit.field) for hit in plain
    }
    assert [hit.rank for hit in hits] == list(range(1, len(hits) + 1))
    scores = [hit.score for hit in hits]
    assert np.isfinite(scores).all()
    assert scores == sorted(scores, reverse=True)
    assert not any("failed" in note for hit in hits for note in hit.notes)


@pytest.mark.parametrize("stages", STAGES)
def test_each_hit_says_where_it_was_before_and_after_each_stage(stocked, asked, stages):
    names = Cascade(STAGES[stages]()).names
    plain = {hit.item.id: hit for hit in stocked.search(asked["text"], k=100, rerank=False)}
    hits = stocked.search(asked["text"], k=100, rerank=STAGES[stages]())
    for hit in hits:
        assert tuple(hit.ranks) == ("vectors", *names)
        assert hit.ranks["vectors"] == plain[hit.item.id].rank
        assert hit.scores["vectors"] == plain[hit.item.id].score
        assert hit.ranks[names[-1]] == hit.rank
        assert set(hit.scores) <= {"vectors", *names}
        assert all(f"  {name}: " in hit.explain() for name in ("vectors", *names))
    for name in ("vectors", *names):
        assert sorted(hit.ranks[name] for hit in hits) == list(range(1, len(hits) + 1))


@pytest.mark.parametrize("stages", STAGES)
def test_asked_again_it_answers_the_same(stocked, asked, stages):
    built = STAGES[stages]()
    for query in asked.values():
        first = stocked.search(query, k=100, rerank=built)
        assert facts(stocked.search(query, k=100, rerank=built)) == facts(first)
        assert facts(stocked.search(query, k=100, rerank=STAGES[stages]())) == facts(first)


@pytest.mark.parametrize("stages", STAGES)
def test_a_query_alone_gets_what_it_gets_among_others(stocked, asked, stages):
    built = STAGES[stages]()
    together = stocked.search_many(list(asked.values()), k=20, rerank=built)
    for query, hits in zip(asked.values(), together, strict=True):
        assert facts(stocked.search(query, k=20, rerank=built)) == facts(hits)


@pytest.mark.parametrize("stages", STAGES)
def test_a_smaller_k_cuts_the_same_answer(stocked, asked, stages):
    built = STAGES[stages]()
    for query in asked.values():
        whole = stocked.search(query, k=100, rerank=built)
        for k in (1, 7, 30):
            assert facts(stocked.search(query, k=k, rerank=built)) == facts(whole[:k])


@pytest.mark.parametrize("stages", STAGES)
def test_eight_threads_get_what_one_gets(stocked, asked, stages):
    built = STAGES[stages]()
    alone = {kind: facts(stocked.search(query, k=30, rerank=built)) for kind, query in asked.items()}
    kinds = [*asked] * 4
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda kind: facts(stocked.search(asked[kind], k=30, rerank=built)), kinds))
    assert all(answer == alone[kind] for kind, answer in zip(kinds, answers, strict=True))


@pytest.mark.parametrize("stages", STAGES)
def test_the_hits_that_are_given_stay_as_they_are(stocked, stages):
    query = Query(text="a red thing")
    stocked.search("warm", rerank=(built := STAGES[stages]()))
    hits = stocked.search(query, k=100, rerank=False)
    before = copy.deepcopy([(hit.item.id, hit.score, hit.rank, hit.scores, hit.ranks, hit.notes) for hit in hits])
    after = Cascade(built).rerank(query, hits)
    assert [(hit.item.id, hit.score, hit.rank, hit.scores, hit.ranks, hit.notes) for hit in hits] == before
    assert all(hit.scores for hit in after)


@pytest.mark.parametrize("stages", STAGES)
def test_no_hits_stay_none_and_one_stays_one(stocked, asked, stages):
    built = STAGES[stages]()
    assert stocked.search("red", where={"there is": "none"}, rerank=built) == []
    (only,) = stocked.search("red", k=1, n_candidates=1, rerank=built)
    assert (only.item.id, only.rank) == (stocked.search("red", k=1, rerank=False)[0].item.id, 1)
    assert Cascade(built).rerank(Query(text="red"), []) == []


@pytest.mark.parametrize("stages", ["hubness", "regions", "late", "all"])
def test_one_stage_may_serve_two_stores_in_turn_and_at_once(stocked, quadrants, tmp_path, stages):
    built = STAGES[stages]()
    with make(quadrants, tmp_path, quadrants.QuadrantEncoder(seed=3, closer=False), n=25) as other:
        engines = [stocked, other]
        queries = ["a red thing", "blue", quadrants.mosaic("red green red green")]
        right = [
            [facts(engine.search(query, k=60, rerank=STAGES[stages]())) for query in queries] for engine in engines
        ]
        for _ in range(2):
            for engine, answers in zip(engines, right, strict=True):
                assert [facts(engine.search(query, k=60, rerank=built)) for query in queries] == answers

        def ask(n):
            found = engines[n % 2].search(queries[n // 2 % 3], k=60, rerank=built)
            return facts(found) == right[n % 2][n // 2 % 3]

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(ask, range(60)))


@pytest.mark.parametrize("stages", STAGES)
def test_filters_and_k_hold_after_reranking(quadrants, tmp_path, stages):
    with Engine.open(tmp_path, quadrants.QuadrantEncoder(), spaces=["picture", "regions", "cells"]) as engine:
        pictures = [item for item in quadrants.items() if item.image is not None]
        engine.add([replace(item, metadata={"even": n % 2 == 0}) for n, item in enumerate(pictures)])
        engine.set_bank(["red", "blue"])
        hits = engine.search("red", k=9, where={"even": True}, rerank=STAGES[stages]())
        assert len(hits) == 9
        assert all(hit.item.metadata["even"] for hit in hits)


@pytest.mark.parametrize("stages", ["hubness", "regions", "late", "all"])
def test_a_store_without_what_a_stage_needs_answers_as_without_it_and_says_what_is_missing(toy, open_engine, stages):
    engine = open_engine()
    engine.add([Item(id=kind, image=toy.png_of(kind)) for kind in toy.KINDS])
    ours = [Hubness(), Regions(corrected=True), LateInteraction()]
    built = ours if stages == "all" else STAGES[stages]()
    hits = engine.search("a red disc", k=12, rerank=built)
    plain = engine.search("a red disc", k=12, rerank=False)
    assert [(hit.item.id, hit.score) for hit in hits] == [(hit.item.id, hit.score) for hit in plain]
    assert all(len(hit.notes) == len(built) for hit in hits)


@pytest.mark.parametrize("stage", [Hubness(), Regions(), LateInteraction(), FunctionReranker(by_length)])
def test_a_stage_that_knows_no_store_changes_nothing_or_needs_none(stocked, stage):
    hits = stocked.search("red", k=5, rerank=False)
    assert isinstance(stage, Stage)
    after = stage.rerank(Query(text="red"), hits)
    assert sorted(hit.item.id for hit in after) == sorted(hit.item.id for hit in hits)
    assert stage.name == "function" or all("not prepared" in hit.notes[0] for hit in after)
