"""Score pairs of rows and queries in a fixed order, and rank them per query."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mmsearch.types import Keys, Neighbors, Vectors
from mmsearch.vectors import dots

ELEMENTS = 1 << 22
"""How many numbers a temporary array may hold; larger work is cut into blocks."""


FEW = 4096
"""Candidates of one query that need no blocks."""


def blocks(n: int, width: int) -> Iterator[slice]:
    """Cut n rows into slices of at most ``ELEMENTS`` numbers each."""
    step = max(1, ELEMENTS // max(1, width))
    return (slice(start, min(n, start + step)) for start in range(0, n, step))


def pair_scores(rows: Vectors, queries: Vectors, owner: Keys) -> NDArray[np.float32]:
    """Inner products of rows[i], (n, dim), with queries[owner[i]], (q, dim), as (n,) float32.

    Each is summed exactly as ``vectors.dots`` sums it, so a score never depends on the company it is computed in.
    """
    return np.asarray((rows * queries[owner]).sum(axis=1, dtype=np.float32), dtype=np.float32)


def best_of_each(owner: Keys, keys: Keys, scores: NDArray[np.float32], k: int) -> Keys:
    """Positions, (m,) int64, of each owner's k best, owners ascending, then best first, then by key."""
    order = np.lexsort((keys, -scores, owner))
    owners = owner[order]
    place = np.arange(len(owners)) - np.searchsorted(owners, owners)
    return np.asarray(order[place < k], dtype=np.int64)


def ranked(owner: Keys, keys: Keys, scores: NDArray[np.float32], k: int, n_queries: int) -> list[Neighbors]:
    """Cut a pool of candidates, (m,) each, into one ``Neighbors`` a query with its k best."""
    order = best_of_each(owner, keys, scores, k)
    owner, keys, scores = owner[order], keys[order], scores[order]
    cuts = np.searchsorted(owner, np.arange(n_queries + 1)).tolist()
    return [Neighbors(keys[a:b], scores[a:b]) for a, b in pairwise(cuts)]


def rank_one(rows: Vectors, query: Vectors, keys: Keys, k: int) -> Neighbors:
    """The k best of a few candidates, (m, dim) rows under (m,) keys, for one query, (dim,).

    The scores and the order that ``pair_scores`` and ``ranked`` give, without the bookkeeping for many queries.
    """
    scores = dots(rows, query)
    order = np.lexsort((keys, -scores))[:k]
    return Neighbors(keys[order], scores[order])


def nothing_for(n_queries: int) -> list[Neighbors]:
    """Answers of an empty index."""
    return [Neighbors(np.empty(0, np.int64), np.empty(0, np.float32)) for _ in range(n_queries)]


def recall_of(truth: list[Neighbors], found: list[Neighbors]) -> float:
    """Share of the true places that are filled with a score that belongs there: equal scores are as good."""
    wanted = sum(len(true) for true in truth)
    hits = sum(int((got.scores >= true.scores[-1]).sum()) for true, got in zip(truth, found, strict=True) if len(true))
    return hits / wanted if wanted else 1.0
