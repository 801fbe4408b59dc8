"""``Stage``: what every stage of ours shares, and how its numbers change an order."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from mmsearch.types import Hit, Query, Signal
from mmsearch.vectors import SCORE_DECIMALS

if TYPE_CHECKING:
    from mmsearch.protocols import Collection

ALONE = math.inf
"""The weight of a stage whose scores replace those before instead of being added to them."""


class Stage(ABC):
    """A ``Scorer`` and ``Reranker``; a subclass says how to score.

    ``name`` is what people call it; ``needs`` are the spaces that a store must have for it; ``weight`` is what its
    values are multiplied by before they are added to the scores so far, unless a cascade says otherwise.
    """

    name: str
    needs: tuple[str, ...] = ()
    weight: float = 1.0
    n: int = 100
    """How many of the best it scores in a cascade that does not say otherwise."""

    def prepare(self, collection: Collection) -> None:  # noqa: B027 some stages know all they need
        """Get to know the collection whose hits are to be scored, and compute what is computed once for it."""

    @abstractmethod
    def score(self, query: Query, hits: Sequence[Hit], deadline: float | None = None) -> Signal:
        """One number a hit, in the hits' order; what ``time.perf_counter() > deadline`` leaves no time for is NaN."""

    def rerank(self, query: Query, hits: Sequence[Hit]) -> list[Hit]:
        """The hits in the order of their scores so far and this stage's; those it did not score stay behind."""
        return fuse(hits, noted(self.score(query, hits)), self.name, self.weight)


def fuse(hits: Sequence[Hit], signal: Signal, name: str, weight: float, slope: float = 1.0) -> list[Hit]:
    """Put hits into the order of ``score + weight * slope * value``, equal scores by id.

    Hits behind the last one that has a value keep their places behind all others, and no hit's score exceeds that of
    one before it: where only the best few were scored, the rest cannot overtake them. Among those few, a hit without
    a value keeps its score. A stage without a value for any hit changes nothing.

    Parameters
    ----------
    weight
        ``ALONE``: the values are the new scores, and hits without one come behind.
    slope
        Scores per unit of cosine, where the hits' scores are calibrated.
    """
    values = np.asarray(signal.values, dtype=np.float64)
    scored = np.isfinite(values)
    before = np.array([hit.score for hit in hits], dtype=np.float64)
    added = values if weight == ALONE else before + weight * slope * values
    after = np.round(np.where(scored, added, before), SCORE_DECIMALS)
    reach = int(np.flatnonzero(scored).max(initial=-1)) + 1
    movable = [n for n in range(reach) if scored[n] or weight != ALONE]
    order = sorted(movable, key=lambda n: (-after[n], hits[n].item.id))
    order += [n for n in range(len(hits)) if n >= reach or not (scored[n] or weight != ALONE)]
    fused, least = [], math.inf
    for rank, n in enumerate(order, start=1):
        least = min(least, float(after[n]))
        fused.append(_after(hits[n], signal, n, name, rank, least))
    return fused


def _after(hit: Hit, signal: Signal, n: int, name: str, rank: int, score: float) -> Hit:
    """A hit as a stage leaves it."""
    value = float(signal.values[n])
    return replace(
        hit,
        rank=rank,
        score=score,
        scores={**hit.scores, name: round(value, SCORE_DECIMALS)} if math.isfinite(value) else hit.scores,
        ranks={**hit.ranks, name: rank},
        region=(signal.regions[n] if signal.regions else None) or hit.region,
        words=(signal.words[n] if signal.words else None) or hit.words,
        notes=hit.notes + signal.notes,
    )


def unscored(n: int, why: str = "") -> Signal:
    """What a stage says that has no opinion on any of n hits, and why."""
    return Signal(np.full(n, np.nan, dtype=np.float32), skipped=why)


def noted(signal: Signal) -> Signal:
    """The same, with the reason for saying nothing as a note."""
    return replace(signal, notes=(*signal.notes, signal.skipped), skipped="") if signal.skipped else signal


def text_of(query: Query) -> str | None:
    """The text of a query that is one text and nothing else, not pushed away; None for any other query.

    >>> text_of(Query(text="a red bicycle")), text_of(-Query(text="rain"))
    ('a red bicycle', None)
    """
    terms = list(query.terms())
    if len(terms) != 1 or terms[0].weight <= 0 or not (terms[0].text or "").strip():
        return None
    return terms[0].text
