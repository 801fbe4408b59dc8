"""``Stage``: what every stage of ours shares, and how its numbers change an order."""

from __future__ import annotations

import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmsearch.types import Hit, Keys, Query, Signal
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


class StoreStage(Stage):
    """A stage that asks a collection: the one that this thread prepared it for, or else whoever did so last.

    So one stage may serve several engines in several threads at once, and one that was prepared beforehand serves all.
    """

    def __init__(self) -> None:
        self._last: Collection | None = None
        self._own = threading.local()

    def prepare(self, collection: Collection) -> None:
        """What is asked of the collection is computed at indexing, or when it is first asked for."""
        self._last = self._own.collection = collection

    @property
    def collection(self) -> Collection | None:
        """Where the hits are from; None before ``prepare``."""
        found: Collection | None = getattr(self._own, "collection", self._last)
        return found


def by_field(hits: Sequence[Hit]) -> Iterator[tuple[str, Keys]]:
    """The places of the hits that were found in pictures, and of those in texts; without those where there are none."""
    in_text = np.array([hit.field == "text" for hit in hits], dtype=np.bool_)
    for field, here in (("picture", ~in_text), ("text", in_text)):
        if here.any():
            yield field, np.flatnonzero(here)


def all_rows(first: Keys, count: Keys) -> tuple[Keys, Keys]:
    """The numbers of all rows of spans, one span after the other, and where in them each span starts."""
    starts = np.concatenate([[0], np.cumsum(count)[:-1]])
    return np.arange(int(count.sum())) + np.repeat(first - starts, count), starts


def fuse(hits: Sequence[Hit], signal: Signal, name: str, weight: float, slopes: ArrayLike = 1.0) -> list[Hit]:
    """Put hits into the order of ``score + weight * slope * value``, equal scores by id.

    Hits behind the last one that has a value keep their places behind all others, and no hit's score exceeds that of
    one before it: where only the best few were scored, the rest cannot overtake them. Among those few, a hit without
    a value keeps its score. A stage without a value for any hit changes nothing.

    Parameters
    ----------
    weight
        ``ALONE``: the values are the new scores, and hits without one come behind.
    slopes
        Scores per unit of cosine, (n,) or one for all, where the hits' scores are calibrated.
    """
    values = np.asarray(signal.values, dtype=np.float64)
    scored = np.isfinite(values)
    before = np.array([hit.score for hit in hits], dtype=np.float64)
    added = values if weight == ALONE else before + weight * np.asarray(slopes, dtype=np.float64) * values
    after = np.round(np.where(scored, added, before), SCORE_DECIMALS)
    reach = int(np.flatnonzero(scored).max(initial=-1)) + 1
    movable = scored[:reach] if weight == ALONE else np.ones(reach, dtype=np.bool_)
    scores = after.tolist()
    order = sorted(np.flatnonzero(movable).tolist(), key=lambda n: (-scores[n], hits[n].item.id))
    order += np.flatnonzero(~movable).tolist() + list(range(reach, len(hits)))
    least = np.minimum.accumulate(after[order]).tolist()
    said = np.where(scored, np.round(values, SCORE_DECIMALS), np.nan).tolist()
    regions, words = signal.regions or (None,) * len(hits), signal.words or ({},) * len(hits)
    fused = []
    for rank, (n, score) in enumerate(zip(order, least, strict=True), start=1):
        hit, value = hits[n], said[n]
        fused.append(  # not by ``replace``, which takes several times as long
            Hit(
                hit.item,
                score,
                rank,
                hit.copies,
                hit.field,
                hit.scores if math.isnan(value) else {**hit.scores, name: value},
                {**hit.ranks, name: rank},
                regions[n] or hit.region,
                words[n] or hit.words,
                hit.notes + signal.notes,
            )
        )
    return fused


def around_zero(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Values, NaN where there are none, less their mean."""
    known = np.isfinite(values)
    return np.asarray(values - values[known].mean() if known.any() else values, dtype=np.float32)


def unscored(n: int, why: str = "") -> Signal:
    """What a stage says that has no opinion on any of n hits, and why."""
    return Signal(np.full(n, np.nan, dtype=np.float32), skipped=why)


def why_skipped(signals: Sequence[Signal]) -> str:
    """Why a stage has nothing to say, if that is so for each of several lists of hits."""
    return signals[0].skipped if signals and all(signal.skipped for signal in signals) else ""


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
