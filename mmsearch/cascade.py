"""``Cascade``: stages in order, each dearer than the one before and over fewer hits, under a budget."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeGuard

import numpy as np

from mmsearch.errors import InvalidInput
from mmsearch.fusion import reciprocal_ranks
from mmsearch.protocols import Collection, Reranker, Scorer
from mmsearch.rerank.stage import ALONE, Stage, fuse, noted
from mmsearch.types import Hit, Query, Signal
from mmsearch.vectors import SCORE_DECIMALS

RETRIEVAL = "vectors"
"""The name under which hits carry their score and rank from before the first stage."""
FUSIONS = ("scores", "ranks")
N_CANDIDATES = 100


@dataclass(frozen=True, slots=True)
class Step:
    """A stage in a cascade: how many of the best hits it scores, and how much its values weigh against the rest.

    None: what the stage itself says.
    """

    stage: Reranker | Scorer
    weight: float | None = None
    n: int | None = None


class Cascade:
    """Reranks hits stage by stage.

    Each stage sees the best ``n`` hits of the order so far. A stage of ours adds its weighted values to the scores
    (see ``mmsearch.rerank.stage.fuse``); any other object with ``name`` and ``rerank(query, hits)`` hands back a new
    order. Whatever a stage does wrong (it raises, loses hits, gives NaN), the order before it stands, and the hits'
    ``notes`` say so.

    Parameters
    ----------
    stages
        In the order in which they run.
    budget_ms
        Milliseconds for all stages together. Later ones score as many hits as fit, best first, or are left out, and
        notes say so. None: no limit.
    fusion
        ``scores``: each stage adds its weighted values, so that it may outweigh others where it is sure. ``ranks``: in
        the end the retrieval's order and those of the stages' own values are fused by reciprocal ranks; then scales
        make no difference, and a step's weight (1 if it has none) counts its order that many times.
    quiet
        Whether stages that do not apply to a query are passed over in silence. That is right for a default, not for
        stages that somebody asked for.

    Raises
    ------
    InvalidInput
        For what is no stage, two of one name, or a bad weight, number of hits or budget.
    """

    def __init__(
        self,
        stages: Sequence[Reranker | Scorer | Step],
        *,
        budget_ms: float | None = None,
        fusion: str = "scores",
        quiet: bool = False,
    ) -> None:
        if isinstance(stages, str) or not isinstance(stages, Sequence):
            raise InvalidInput(f"expected a list of stages, got {type(stages).__name__}")
        self.steps = tuple(_checked(stage) for stage in stages)
        names = [step.stage.name for step in self.steps]
        if len(set(names)) < len(names):
            raise InvalidInput(f"expected stages of different names, got {', '.join(names)}")
        if budget_ms is not None and not (_is_number(budget_ms) and budget_ms >= 0):
            raise InvalidInput(f"expected a budget of at least 0 milliseconds or None, got {budget_ms!r}")
        if fusion not in FUSIONS:
            raise InvalidInput(f"expected a fusion of {', '.join(FUSIONS)}, got {fusion!r}")
        self.budget_ms = budget_ms
        self.fusion = fusion
        self.quiet = quiet
        self.notes: tuple[str, ...] = ()
        """What every hit is told besides."""
        self._unprepared: Mapping[str, str] = {}

    def __repr__(self) -> str:
        return f"Cascade({', '.join(self.names)})"

    @property
    def names(self) -> tuple[str, ...]:
        """The stages' names, in order."""
        return tuple(step.stage.name for step in self.steps)

    @property
    def n_candidates(self) -> int:
        """How many hits the stages want to see."""
        return max((_n_of(step) for step in self.steps), default=0)

    @property
    def needs(self) -> frozenset[str]:
        """The spaces that a store must have for these stages."""
        return frozenset(name for step in self.steps for name in getattr(step.stage, "needs", ()))

    def within(self, budget_ms: float | None) -> Cascade:
        """The same stages under another budget."""
        return self._like(self.steps, budget_ms)

    def looking_at(self, name: str, n: int) -> Cascade:
        """The same stages, of which the one of this name scores n hits, unless its step says otherwise."""
        steps = [replace(step, n=n) if step.stage.name == name and step.n is None else step for step in self.steps]
        return self._like(steps, self.budget_ms)

    def noting(self, note: str) -> Cascade:
        """The same stages; their hits have this note as well."""
        other = self._like(self.steps, self.budget_ms)
        other.notes = (*self.notes, note)
        return other

    def _like(self, steps: Sequence[Step], budget_ms: float | None) -> Cascade:
        other = Cascade(steps, budget_ms=budget_ms, fusion=self.fusion, quiet=self.quiet)
        other.notes, other._unprepared = self.notes, self._unprepared
        return other

    def prepare(self, collection: Collection) -> None:
        """Let each stage get to know the collection; one that fails at that is left out, and notes say why."""
        unprepared = {}
        for step in self.steps:
            if isinstance(step.stage, Stage):
                try:
                    step.stage.prepare(collection)
                except Exception as error:  # whatever a model does, the search has an answer
                    unprepared[step.stage.name] = _one_line(error)
        self._unprepared = unprepared

    def rerank(self, query: Query, hits: Sequence[Hit], slopes: Mapping[str, float] | None = None) -> list[Hit]:
        """The hits, best first.

        Parameters
        ----------
        slopes
            Scores per unit of cosine by field, where scores are calibrated; 1 without it.
        """
        endless = self.budget_ms is None or math.isinf(self.budget_ms)
        end = None if endless else time.perf_counter() + (self.budget_ms or 0.0) / 1000
        ordered = [_entered(hit, self.notes) for hit in hits]
        for step in self.steps:
            n = _n_of(step)
            head, tail = ordered[:n], ordered[n:]
            if head:
                head = self._run(step, query, head, end, slopes or {})
                ordered = head + list(_below(tail, head[-1].score, step.stage.name))
        return _by_ranks(ordered, self.steps) if self.fusion == "ranks" else ordered

    def _run(
        self, step: Step, query: Query, hits: list[Hit], end: float | None, slopes: Mapping[str, float]
    ) -> list[Hit]:
        stage, name = step.stage, step.stage.name
        if name in self._unprepared:
            return _left(hits, name, f"{name}: left out, it could not be prepared: {self._unprepared[name]}")
        if end is not None and time.perf_counter() >= end:
            return _left(hits, name, f"{name}: left out, the budget of {self.budget_ms:g} ms was used up")
        try:
            if not isinstance(stage, Scorer):
                return _reordered(name, stage.rerank(query, list(hits)), hits)
            signal = _checked_signal(stage.score(query, list(hits), end), len(hits), name)
            signal = replace(signal, skipped="") if self.quiet else noted(signal)
            return fuse(hits, signal, name, _weight_of(step), [slopes.get(hit.field, 1.0) for hit in hits])
        except Exception as error:  # whatever a model does, the search has an answer
            return _left(hits, name, f"{name}: failed, the order before it stands: {_one_line(error)}")


def _by_ranks(hits: Sequence[Hit], steps: Sequence[Step]) -> list[Hit]:
    """The hits by the reciprocal ranks of the retrieval and of each stage's own values, under the name ``fusion``."""
    by_id = {hit.item.id: hit for hit in hits}
    rankings, weights = [sorted(by_id, key=lambda id: by_id[id].ranks[RETRIEVAL])], [1.0]
    for step in steps:
        name = step.stage.name
        scored = [id for id, hit in by_id.items() if name in hit.scores]
        rankings.append(sorted(scored, key=lambda id: (-by_id[id].scores[name], id)))
        weights.append(1.0 if step.weight is None or step.weight == ALONE else step.weight)
    fused = []
    for rank, (id, score) in enumerate(reciprocal_ranks(rankings, weights), start=1):
        hit, score = by_id[id], round(score, SCORE_DECIMALS)
        scores, ranks = {**hit.scores, "fusion": score}, {**hit.ranks, "fusion": rank}
        fused.append(_changed(hit, score=score, rank=rank, scores=scores, ranks=ranks))
    return fused


def _checked(stage: Reranker | Scorer | Step) -> Step:
    step = stage if isinstance(stage, Step) else Step(stage)
    its = step.stage
    name = getattr(its, "name", None)
    if isinstance(its, type) or not isinstance(its, Reranker | Scorer) or not isinstance(name, str) or not name:
        got = f"the class {its.__name__}" if isinstance(its, type) else type(its).__name__
        raise InvalidInput(
            f"expected a stage with a name and rerank(query, hits), got {got}: see mmsearch.protocols.Reranker"
        )
    if step.weight is not None and not (_is_number(step.weight) and step.weight >= 0):
        raise InvalidInput(f"expected a weight of at least 0 for {name}, got {step.weight!r}")
    if step.n is not None and not (_is_whole(step.n) and step.n >= 1):
        raise InvalidInput(f"expected at least 1 hit for {name} to score, got {step.n!r}")
    if name == RETRIEVAL:
        raise InvalidInput(f"expected another name for a stage than {RETRIEVAL!r}, which is the retrieval's")
    return step


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _n_of(step: Step) -> int:
    """How many hits a stage is to see; somebody else's attribute ``n`` may mean anything."""
    n = step.n if step.n is not None else getattr(step.stage, "n", None)
    return int(n) if _is_whole(n) and n >= 1 else N_CANDIDATES


def _weight_of(step: Step) -> float:
    weight = step.weight if step.weight is not None else getattr(step.stage, "weight", None)
    return float(weight) if _is_number(weight) and weight >= 0 else 1.0


def _entered(hit: Hit, notes: tuple[str, ...]) -> Hit:
    """A hit as it comes from the retrieval."""
    scores, ranks = {RETRIEVAL: hit.score, **hit.scores}, {RETRIEVAL: hit.rank, **hit.ranks}
    entered = _changed(hit, score=hit.score, rank=hit.rank, scores=scores, ranks=ranks)
    return replace(entered, notes=(*hit.notes, *notes)) if notes else entered


def _changed(
    hit: Hit, *, score: float, rank: int, ranks: Mapping[str, int], scores: Mapping[str, float] | None = None
) -> Hit:
    """The same hit elsewhere; several times as fast as ``dataclasses.replace``."""
    scores = hit.scores if scores is None else scores
    return Hit(hit.item, score, rank, hit.copies, hit.field, scores, ranks, hit.region, hit.words, hit.notes)


def _below(hits: Sequence[Hit], least: float, name: str) -> Iterator[Hit]:
    """Hits that a stage did not see, behind those that it saw: their scores do not exceed the least of those."""
    for hit in hits:
        yield _changed(hit, score=min(hit.score, least), rank=hit.rank, ranks={**hit.ranks, name: hit.rank})


def _left(hits: Sequence[Hit], name: str, note: str) -> list[Hit]:
    """Hits as a stage found them, with a note on why it changed nothing."""
    return [replace(hit, ranks={**hit.ranks, name: hit.rank}, notes=(*hit.notes, note)) for hit in hits]


def _checked_signal(signal: Signal, n: int, name: str) -> Signal:
    """A stage's answer if it fits the hits: infinity made NaN, which is noted, as is silence that is not explained."""
    with np.errstate(over="ignore"):
        values = np.asarray(signal.values).astype(np.float32)
    if values.shape != (n,):
        raise InvalidInput(f"expected {n} values, got {values.shape[0] if values.ndim == 1 else values.shape}")
    if len(signal.regions) not in (0, n) or len(signal.words) not in (0, n):
        raise InvalidInput(f"expected regions and words of {n} hits or of none")
    infinite = np.isinf(values)
    notes = signal.notes
    if infinite.any():
        notes = (*notes, f"{name}: gave infinity for {int(infinite.sum())} of {n} hits")
        values = np.where(infinite, np.float32(np.nan), values)
    if not np.isfinite(values).any() and not notes and not signal.skipped:  # which is not to say that it does not apply
        notes = (f"{name}: gave no number for any hit",)
    return Signal(values, signal.regions, signal.words, notes, signal.skipped)


def _reordered(name: str, answer: Sequence[Hit], hits: Sequence[Hit]) -> list[Hit]:
    """What a stage of somebody else's made of the hits: the same hits, numbered anew, scores never rising.

    What a hit was found by, its item and its copies are as before; regions, words and notes may be new.
    """
    by_id = {hit.item.id: hit for hit in hits}
    ids = [hit.item.id for hit in answer]
    if sorted(ids) != sorted(hit.item.id for hit in hits):
        raise InvalidInput(f"expected the same {len(hits)} hits in another order, got {_difference(ids, by_id)}")
    scores = [float(hit.score) for hit in answer]
    if not np.isfinite(scores).all():
        raise InvalidInput("expected scores that are finite numbers, got NaN or infinity")
    ordered = []
    least = np.minimum.accumulate(scores).tolist()
    for rank, (hit, score) in enumerate(zip(answer, least, strict=True), start=1):
        before = by_id[hit.item.id]
        notes = tuple(note for note in hit.notes if note not in before.notes)
        ordered.append(
            Hit(
                before.item,
                score,
                rank,
                before.copies,
                before.field,
                {**before.scores, **hit.scores, name: round(float(hit.score), SCORE_DECIMALS)},
                {**before.ranks, name: rank},
                hit.region or before.region,
                hit.words or before.words,
                before.notes + notes,
            )
        )
    return ordered


def _difference(ids: Sequence[str], known: Mapping[str, Hit]) -> str:
    """What is wrong with the ids of an answer, in a few words."""
    lost, strange = sum(id not in set(ids) for id in known), sum(id not in known for id in ids)
    return f"{len(ids)}: {lost} lost, {len(ids) - len(set(ids))} repeated, {strange} unknown"


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
