"""Run a store over judged queries: quality with intervals, and time."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmsearch.cascade import Cascade
from mmsearch.engine import Engine
from mmsearch.errors import InvalidInput, PictureError
from mmsearch.judged import TEXT_TO_IMAGE, Judged, JudgedQuery
from mmsearch.metrics import Interval, Scores, evaluate, interval
from mmsearch.overlap import batches
from mmsearch.queries import as_query
from mmsearch.ranking import Rerank
from mmsearch.rerank.words import WordMatch
from mmsearch.types import Hit, Progress, Query, Report

MEASURES = ("R@1", "R@5", "R@10", "MRR@10", "nDCG@10")
DEPTH = 10
_BATCH = 64


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How well a store answered judged queries. ``scores`` has every query's measures; an unanswered one has 0."""

    task: str
    n_items: int
    scores: Scores
    groups: tuple[str, ...]
    stages: tuple[str, ...]
    ms_per_query: float
    run: Mapping[str, Sequence[str]]
    notes: tuple[str, ...] = ()

    def intervals(self) -> dict[str, Interval]:
        """Each measure's mean with its 95% bootstrap interval, over the pictures that the queries are about."""
        return {str(one): interval(values, groups=self.groups) for one, values in self.scores.values.items()}

    def to_json(self) -> dict[str, Any]:
        """What ``mmsearch eval --json`` prints."""
        return {
            "task": self.task,
            "items": self.n_items,
            "queries": len(self.scores.queries),
            "measures": {
                name: {"value": found.value, "low": found.low, "high": found.high}
                for name, found in self.intervals().items()
            },
            "stages": list(self.stages),
            "ms_per_query": self.ms_per_query,
            "notes": list(self.notes),
        }


def run(engine: Engine, judged: Judged, rerank: Rerank = True, *, report: Report | None = None) -> Evaluation:
    """Ask every judged query and score the answers.

    Only the field that the task searches is looked in, and a query's own picture is no answer to it. A query that
    cannot be asked, as a picture that cannot be opened, has no answer, and a note says so.

    Raises
    ------
    InvalidInput
        If the stage ``words`` would read the texts that the queries were made from, or no query can be asked.
    """
    cascade, notes = _fair(engine, judged, rerank)
    known = Answers(engine, judged)
    # Once before the clock starts: it loads models, and computes what is computed once for a collection.
    ask(engine, ["a picture" if judged.task == TEXT_TO_IMAGE else judged.queries[0]], DEPTH, judged.field, cascade)
    answers: dict[str, list[str]] = {}
    grades: dict[str, Mapping[str, float]] = {}
    said: Counter[str] = Counter()
    failed: dict[str, str] = {}
    seconds = 0.0
    for places in batches(range(len(judged.queries)), _BATCH):
        if report is not None:
            report(Progress("queries", places[0], len(judged.queries)))
        start = time.perf_counter()
        found = ask(engine, [judged.queries[n] for n in places], DEPTH + 1, judged.field, cascade)
        seconds += time.perf_counter() - start
        for n, hits in zip(places, found, strict=True):
            id = judged.ids[n]
            if isinstance(hits, str):
                failed[id] = hits
            given = [] if isinstance(hits, str) else hits
            answers[id], grades[id] = known.of(n, given)
            said.update({note for hit in given for note in hit.notes})
    check_any(failed, judged)
    notes += [f"{note} ({count} queries)" for note, count in said.most_common(10)]
    return Evaluation(
        judged.task,
        known.n_items,
        evaluate(grades, answers, MEASURES),
        judged.groups,
        cascade.names,
        1000 * seconds / max(1, len(judged.queries)),
        answers,
        (*judged.notes, *known.notes(), *_unasked(failed, judged), *notes),
    )


def ask(
    engine: Engine, queries: Sequence[JudgedQuery | Query], k: int, field: str, rerank: Rerank
) -> list[list[Hit] | str]:
    """The hits of each query, or why it cannot be asked: one bad query is no reason to lose the others."""
    asked = [as_query(query) for query in queries]
    try:
        return list(engine.search_many(asked, k, field=field, rerank=rerank))
    except (PictureError, InvalidInput) as error:
        if len(asked) == 1:
            return [str(error)]
    return [answer for query in asked for answer in ask(engine, [query], k, field, rerank)]


def check_any(failed: Mapping[str, str], judged: Judged) -> None:
    """See that at least one query could be asked.

    Raises
    ------
    InvalidInput
        Otherwise, with the reason of the first.
    """
    if len(failed) == len(judged.queries):
        why = next(iter(failed.values()), "there is none")
        raise InvalidInput(f"expected queries that can be asked, got {len(judged.queries)} that cannot: {why}")


def _unasked(failed: Mapping[str, str], judged: Judged) -> list[str]:
    if not failed:
        return []
    id, why = next(iter(failed.items()))
    return [f"{len(failed)} of {len(judged.queries)} queries cannot be asked and count as 0, such as {id!r}: {why}"]


def _fair(engine: Engine, judged: Judged, rerank: Rerank) -> tuple[Cascade, list[str]]:
    """The cascade for judged queries, without a stage that would find the queries' own texts."""
    cascade = engine.ranker.cascade(rerank, kind=judged.kind)
    if WordMatch.name not in cascade.names or not judged.says_answers:
        return cascade, []
    if rerank is not True:
        check_fair(cascade.names, judged)
    steps = [step for step in cascade.steps if step.stage.name != WordMatch.name]
    cascade = Cascade(steps, budget_ms=cascade.budget_ms, quiet=cascade.quiet)
    cascade.prepare(engine.ranker.collection)
    return cascade, ["the stage words was left out: the queries were made from the texts that it reads"]


def check_fair(names: Sequence[str], judged: Judged) -> None:
    """See that no stage reads the texts that the queries were made from.

    Raises
    ------
    InvalidInput
        If ``words`` would.
    """
    if WordMatch.name in names and judged.says_answers:
        raise InvalidInput(
            "the stage words reads the very texts that these queries were made from: leave it out, or name judgements "
            "of queries that people wrote with --qrels"
        )


class Answers:
    """What a store's hits are to judged queries: identical pictures are one hit, and whichever is right is the answer.

    A store may know a picture by another id than its dataset, where two folders have one of the same name.
    """

    def __init__(self, engine: Engine, judged: Judged) -> None:
        self.judged = judged
        items = list(engine.items())
        picture = judged.field == "picture"
        self.n_items = sum(item.path is not None if picture else bool(item.text) for item in items)
        paths = {item.id: item.path for item in judged.items if item.path is not None}
        of_path = {path: id for id, path in paths.items()}
        # One picture may be several items of a dataset, each with a caption of its own.
        own = {item.id for item in items if item.path is not None and paths.get(item.id) == item.path}
        self._alias = {it.id: of_path[it.path] for it in items if it.path in of_path and it.id not in own}
        taken, ours = own | set(self._alias.values()), {item.id for item in judged.items}
        for item in items:
            if item.id in taken - own and item.id not in self._alias:
                self._alias[item.id] = f"{item.id} (of another folder)"
        self._there = {self._alias.get(item.id, item.id) for item in items}
        self._others = self.n_items - len(self._there & ours)

    def of(self, n: int, hits: Sequence[Hit]) -> tuple[list[str], Mapping[str, float]]:
        """Ids of the answers to the nth query, best first, and its judgements.

        Identical pictures of what was asked with are neither answers nor missed: ``Engine.similar`` leaves them out. Of
        several right ones that are identical only one can be found, and only one is expected.
        """
        ids: list[str] = []
        passed_over: set[str] = set()
        grades, about = self.judged.qrels[self.judged.ids[n]], self.judged.about[n]
        for hit in hits:
            same = self.same(hit)
            if about in same:
                passed_over.update(same)
            else:
                ids.append(max(same, key=lambda id: grades.get(id, 0.0)))
                passed_over.update(id for id in same if id != ids[-1])
        if passed_over & grades.keys():
            grades = {id: grade for id, grade in grades.items() if id not in passed_over}
        return ids[:DEPTH], grades

    def same(self, hit: Hit) -> list[str]:
        """A hit's id and those of its copies, as the dataset has them."""
        return [self._alias.get(item.id, item.id) for item in (hit.item, *hit.copies)]

    def notes(self) -> list[str]:
        """What people should know of the store before they believe the numbers."""
        judged, notes = self.judged, []
        lost = [id for id in judged.ids if not any(grade > 0 for grade in self._found(id))]
        if lost:
            notes.append(
                f"{len(lost)} of {len(judged.ids)} queries have no right answer in the store and count as 0, such as "
                f"{lost[0]!r}"
            )
        if self._others > 0:
            notes.append(f"the store holds {self._others} items beside the dataset's, which are searched too")
        return notes

    def _found(self, id: str) -> Iterator[float]:
        return (grade for other, grade in self.judged.qrels[id].items() if other in self._there)
