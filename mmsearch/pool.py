"""``Pool``: judged queries with their candidates and what stages say of them, on which weights are tried."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mmsearch.types import Hit, Query
from mmsearch.vectors import SCORE_DECIMALS

DEPTH = 10
NOWHERE = np.iinfo(np.int64).max
"""The rank of a right answer that is not among the candidates."""

Floats = NDArray[np.float64]
Ranks = NDArray[np.int64]


@dataclass(slots=True)
class Pool:
    """Judged queries with their candidates, (q, n) arrays; what is padding has a base of minus infinity.

    ``place`` orders the ids of a row, by which ties settle; ``groups`` say which queries are about one picture.
    ``values`` are the stages' by name, (q, n), NaN where a stage has none; ``seen`` is how many of the best hits each
    stage is shown, all where it is not named; ``said`` is why a stage had nothing to say, by its name.
    """

    queries: list[Query]
    hits: list[list[Hit]]
    base: Floats
    relevant: NDArray[np.bool_]
    place: NDArray[np.int64]
    groups: tuple[str, ...]
    values: dict[str, Floats] = field(default_factory=dict)
    seen: dict[str, int] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)

    def ranks(self, weights: Mapping[str, float], chosen: Ranks) -> Ranks:
        """The rank of each chosen query's first right answer, from 1, or ``NOWHERE``: what ``Cascade.rerank`` gives.

        Stages run in the order of ``weights``.
        """
        ranks = np.empty(len(chosen), dtype=np.int64)
        plain = self._is_plain(weights, chosen)
        ranks[plain] = self._counted(weights, chosen[plain])
        if not plain.all():
            rows = chosen[~plain]
            where = np.where(self.relevant[rows], self.order(weights, rows), NOWHERE - 1).min(
                axis=1, initial=NOWHERE - 1
            )
            ranks[~plain] = where + 1
        return ranks

    def _is_plain(self, weights: Mapping[str, float], chosen: Ranks) -> NDArray[np.bool_]:
        """Which queries every stage has a value for each hit of, or none for any: then places are counted quickly."""
        padding = np.isneginf(self.base[chosen])
        plain = np.ones(len(chosen), dtype=np.bool_)
        for name in weights:
            there = np.isfinite(self.values[name][chosen])
            plain &= ~there.any(axis=1) | (there | padding).all(axis=1)
            plain &= (~padding).sum(axis=1) <= self.seen.get(name, self.base.shape[1])
        return plain

    def _counted(self, weights: Mapping[str, float], chosen: Ranks) -> Ranks:
        scores = self.base[chosen]
        for name, weight in weights.items():
            values = self.values[name][chosen]
            scores = np.round(scores + weight * np.where(np.isfinite(values), values, 0.0), SCORE_DECIMALS)
        relevant, place = self.relevant[chosen], self.place[chosen]
        best = np.where(relevant, scores, -np.inf).max(axis=1, keepdims=True, initial=-np.inf)
        first = np.where(relevant & (scores == best), place, NOWHERE).min(axis=1, keepdims=True, initial=NOWHERE)
        ahead = (scores > best) | ((scores == best) & (place < first))
        return np.asarray(np.where(np.isfinite(best[:, 0]), ahead.sum(axis=1) + 1, NOWHERE), dtype=np.int64)

    def order(self, weights: Mapping[str, float], chosen: Ranks) -> Ranks:
        """The place of each candidate of the chosen queries after the stages, (q, n) from 0, as ``fuse`` puts them."""
        scores, place = self.base[chosen], self.place[chosen]
        width: int = self.base.shape[1]
        at = np.broadcast_to(np.arange(width), scores.shape)
        for name, weight in weights.items():
            values = self.values[name][chosen]
            scored = np.isfinite(values) & (at < self.seen.get(name, width))
            after = np.round(np.where(scored, scores + weight * np.where(scored, values, 0.0), scores), SCORE_DECIMALS)
            movable = at <= np.where(scored, at, -1).max(axis=1, keepdims=True, initial=-1)
            order = np.lexsort((np.where(movable, place, at), np.where(movable, -after, np.inf)), axis=1)
            at = np.argsort(order, axis=1)
            least = np.minimum.accumulate(np.take_along_axis(after, order, axis=1), axis=1)
            scores = np.take_along_axis(least, at, axis=1)
        return np.asarray(at, dtype=np.int64)


def reciprocal(ranks: Ranks) -> Floats:
    """MRR@10 of each query."""
    return np.where(ranks <= DEPTH, 1.0 / ranks, 0.0)
