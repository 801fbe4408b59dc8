"""``Cascade``: stages in order, each dearer than the one before and over fewer hits, under a budget."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mmsearch.errors import InvalidInput
from mmsearch.protocols import Collection, Reranker, Scorer
from mmsearch.rerank.stage import Stage, fuse, noted
from mmsearch.types import Hit, Query, Signal

RETRIEVAL = "vectors"
"""The name under which hits carry their score and rank from before the first stage."""
N_CANDIDATES = 100


@dataclass(frozen=True, slots=True)
class Step:
    """A stage in a cascade: how many of the best hits it scores, and how much its values weigh against the rest.

    None: what the stage itself says.
    """

    stage: Reranker
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
    quiet
        Whether stages that do not apply to a query are passed over in silence. That is right for a default, not for
        stages that somebody asked for.

    Raises
    ------
    InvalidInput
        For what is no stage, two of one name, or a bad weight, number of hits or budget.
    """

    def __init__(
        self, stages: Sequence[Reranker | Step], *, budget_ms: float | None = None, quiet: bool = False
    ) -> None:
        if isinstance(stages, str) or not isinstance(stages, Sequence):
            raise InvalidInput(f"expected a list of stages, got {type(stages).__name__}")
        self.steps = tuple(_checked(stage) for stage in stages)
        names = [step.stage.name for step in self.steps]
        if len(set(names)) < len(names):
            raise InvalidInput(f"expected stages of different names, got {', '.join(names)}")
        if budget_ms is not None and not (isinstance(budget_ms, int | float) and budget_ms >= 0):
            raise InvalidInput(f"expected a budget of at least 0 milliseconds or None, got {budget_ms!r}")
        self.budget_ms = budget_ms
        self.quiet = quiet

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
        return Cascade(self.steps, budget_ms=budget_ms, quiet=self.quiet)

    def prepare(self, collection: Collection) -> None:
        """Let each stage get to know the collection."""
        for step in self.steps:
            if isinstance(step.stage, Stage):
                step.stage.prepare(collection)

    def rerank(self, query: Query, hits: Sequence[Hit], slopes: Mapping[str, float] | None = None) -> list[Hit]:
        """The hits, best first.

        Parameters
        ----------
        slopes
            Scores per unit of cosine by field, where scores are calibrated; 1 without it.
        """
        end = None if self.budget_ms is None else time.perf_counter() + self.budget_ms / 1000
        ordered = [_entered(hit) for hit in hits]
        for step in self.steps:
            n = _n_of(step)
            head, tail = ordered[:n], ordered[n:]
            if head:
                head = self._run(step, query, head, end, (slopes or {}).get(head[0].field, 1.0))
                ordered = head + list(_below(tail, head[-1].score, step.stage.name))
        return ordered

    def _run(self, step: Step, query: Query, hits: list[Hit], end: float | None, slope: float) -> list[Hit]:
        stage, name = step.stage, step.stage.name
        if end is not None and time.perf_counter() >= end:
            return _noted(hits, f"{name}: left out, the budget of {self.budget_ms:g} ms was used up")
        try:
            if not isinstance(stage, Scorer):
                return _reordered(name, stage.rerank(query, hits), hits)
            signal = stage.score(query, hits, end)
            if len(signal.values) != len(hits):
                raise InvalidInput(f"expected {len(hits)} values, got {len(signal.values)}")
        except Exception as error:  # whatever a model does, the search has an answer
            return _noted(hits, f"{name}: failed, the order before it stands: {_one_line(error)}")
        weight = step.weight if step.weight is not None else float(getattr(stage, "weight", 1.0))
        signal = replace(signal, skipped="") if self.quiet else noted(signal)
        return fuse(hits, _finite(signal, name), name, weight, slope)


def _checked(stage: Reranker | Step) -> Step:
    step = stage if isinstance(stage, Step) else Step(stage)
    if not isinstance(step.stage, Reranker) or not isinstance(step.stage.name, str) or not step.stage.name:
        raise InvalidInput(
            f"expected a stage with a name and rerank(query, hits), got {type(step.stage).__name__}: "
            "see mmsearch.protocols.Reranker"
        )
    if step.weight is not None and (math.isnan(step.weight) or step.weight < 0):
        raise InvalidInput(f"expected a weight of at least 0 for {step.stage.name}, got {step.weight}")
    if step.n is not None and step.n < 1:
        raise InvalidInput(f"expected at least 1 hit for {step.stage.name} to score, got {step.n}")
    if step.stage.name == RETRIEVAL:
        raise InvalidInput(f"expected another name for a stage than {RETRIEVAL!r}, which is the retrieval's")
    return step


def _n_of(step: Step) -> int:
    return step.n if step.n is not None else int(getattr(step.stage, "n", N_CANDIDATES))


def _entered(hit: Hit) -> Hit:
    """A hit as it comes from the retrieval."""
    return replace(hit, scores={RETRIEVAL: hit.score, **hit.scores}, ranks={RETRIEVAL: hit.rank, **hit.ranks})


def _below(hits: Sequence[Hit], least: float, name: str) -> Iterator[Hit]:
    """Hits that a stage did not see, behind those that it saw: their scores do not exceed the least of those."""
    for hit in hits:
        yield replace(hit, score=min(hit.score, least), ranks={**hit.ranks, name: hit.rank})


def _noted(hits: Sequence[Hit], note: str) -> list[Hit]:
    return [replace(hit, notes=(*hit.notes, note)) for hit in hits]


def _finite(signal: Signal, name: str) -> Signal:
    """NaN for infinities, with a note."""
    infinite = np.isinf(signal.values)
    if not infinite.any():
        return signal
    note = f"{name}: gave infinity for {int(infinite.sum())} of {len(infinite)} hits"
    return replace(signal, values=np.where(infinite, np.nan, signal.values), notes=(*signal.notes, note))


def _reordered(name: str, answer: Sequence[Hit], hits: Sequence[Hit]) -> list[Hit]:
    """What a stage of somebody else's made of the hits: the same hits, numbered anew, scores never rising."""
    by_id = {hit.item.id: hit for hit in hits}
    ids = [hit.item.id for hit in answer]
    if sorted(ids) != sorted(by_id):
        raise InvalidInput(f"expected the same {len(hits)} hits in another order, got {len(ids)}")
    if any(math.isnan(hit.score) for hit in answer):
        raise InvalidInput("expected scores that are numbers, got NaN")
    least, ordered = math.inf, []
    for rank, hit in enumerate(answer, start=1):
        least = min(least, hit.score)
        before = by_id[hit.item.id]
        ordered.append(
            replace(
                hit,
                rank=rank,
                score=least,
                scores={**before.scores, **hit.scores, name: hit.score},
                ranks={**before.ranks, name: rank},
            )
        )
    return ordered


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
