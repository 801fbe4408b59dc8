"""``group``: vectors into clusters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from mmsearch.clustering.blocks import Held, distinct, drawn, filled, summed, unit
from mmsearch.clustering.density import dense
from mmsearch.clustering.joining import Tree
from mmsearch.clustering.kmeans import settled, streamed
from mmsearch.clustering.number import MOST as NUMBERS
from mmsearch.clustering.number import number
from mmsearch.clusters import NOISE
from mmsearch.errors import InvalidInput
from mmsearch.protocols import VectorRows
from mmsearch.types import Keys, Progress, Report, Vectors

METHODS = ("auto", "kmeans", "minibatch", "hdbscan", "agglomerative")
MOST = 5_000
"""The most clusters that can be asked for."""
_LARGE = 50_000
"""More vectors than this are clustered a block at a time."""
_JOINED = 4_000
"""Vectors that are joined to a tree: twice 64 MB of distances."""
_TRIED = 20_000
"""Vectors of a large collection that its first centres settle on."""
_EACH, _EACH_DRAWN = 4, 8
"""With fewer than so many joined vectors a cluster, first centres are drawn instead, from so many a cluster."""
_ROUNDS_TRIED = 10


@dataclass(frozen=True, slots=True)
class Grouping:
    """Clusters of vectors.

    Attributes
    ----------
    labels
        (n,) int64, the cluster of each vector: 0 to k - 1, the largest cluster first; -1 for noise.
    centres
        (k, dim) float32 unit rows: the directions of the means of the members.
    method
        Which of ``METHODS`` made it; never ``auto``.
    tried
        The score of each number of clusters that was tried; the highest was taken. Empty if the number was given.
    """

    labels: Keys
    centres: Vectors
    method: str
    tried: Mapping[int, float] = field(default_factory=dict)


def group(
    rows: VectorRows, n: int | None = None, *, method: str = "auto", seed: int = 0, report: Report | None = None
) -> Grouping:
    """Group vectors into clusters.

    Parameters
    ----------
    rows
        The vectors. A zero row, which stands for an item without a vector, is noise.
    n
        How many clusters; there are never more than there are distinct vectors. None: see ``number``.
    method
        ``kmeans``: spherical k-means that starts from the clusters of Ward's tree of at most 4,000 vectors; every
        vector is in the cluster whose centre it has the highest cosine to. ``minibatch``: the same in two passes over
        a large collection. ``agglomerative``: the clusters of Ward's tree, and every vector in the one with the
        nearest centre. ``hdbscan``: see ``dense``; the only one which leaves vectors in no cluster, and finds the
        number itself. ``auto``: ``kmeans`` for up to 50,000 vectors, else ``minibatch``.
    seed
        Draws the samples. The same seed gives the same clusters; up to 4,000 vectors there is nothing to draw.
    report
        Told now and then how far it is.

    Raises
    ------
    InvalidInput
        For another method, an n that is not a whole number from 1 to 5,000 (or the number of vectors, if there are
        fewer), or an n with ``hdbscan``.
    """
    _check(len(rows), n, method)
    there = filled(rows)
    if method == "auto":
        method = "minibatch" if len(there) > _LARGE else "kmeans"
    tried: dict[int, float] = {}
    if not len(there):
        found, centres = there, np.zeros((0, rows.dim), dtype=np.float32)
    elif method == "hdbscan":
        found, centres = dense(rows, there, seed)
    else:
        found, centres, tried = _Partition(rows, there, method, seed, report).made(n)
    labels = np.full(len(rows), NOISE, dtype=np.int64)
    labels[there], centres = _by_size(found, centres)
    return Grouping(labels, centres, method, tried)


def _check(n_rows: int, n: int | None, method: str) -> None:
    if method not in METHODS:
        raise InvalidInput(f"expected a method of {', '.join(METHODS)}, got {method!r}")
    if n is None:
        return
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
        raise InvalidInput(f"expected n as a whole number of at least 1, or None, got {n!r}")
    if method == "hdbscan":
        raise InvalidInput(f"expected no n with 'hdbscan', which finds the number itself, got {n}")
    if min(n, n_rows) > MOST:
        raise InvalidInput(f"expected n of at most {MOST} clusters, got {n}")


class _Partition:
    """Every vector at the positions ``there`` in one of n clusters; equal vectors are joined as one."""

    def __init__(self, rows: VectorRows, there: Keys, method: str, seed: int, report: Report | None) -> None:
        self._rows, self._there, self._method, self._seed, self._report = rows, there, method, seed, report
        self._sample = rows.take(drawn(there, _JOINED, seed))
        self._joined = self._sample[distinct(self._sample)]
        self._tree = Tree(self._joined)

    def made(self, n: int | None) -> tuple[Keys, Vectors, dict[int, float]]:
        """Labels, (m,), centres, (k, dim), of which some may have no members, and the score of each number tried."""
        tried: dict[int, float] = {}
        if n is None:
            n, tried = number(self._sample, self._try, len(self._there), len(self._joined))
        centres = self._first(n)
        if self._method == "agglomerative":
            labels, centres = settled(self._rows, self._there, centres, rounds=0)
        elif self._method == "minibatch":
            some = drawn(self._there, max(_TRIED, _EACH_DRAWN * n), self._seed)
            of_some, centres = settled(Held(self._rows.take(some)), np.arange(len(some)), centres)
            weights = np.bincount(of_some, minlength=len(centres))
            labels, centres = streamed(self._rows, self._there, centres, weights, self._report)
        else:
            labels, centres = settled(self._rows, self._there, centres, report=self._report)
        return labels, centres, tried

    def _try(self, n: int) -> Keys:
        """Labels of the sample."""
        if self._report is not None:
            self._report(Progress("number of clusters", n, NUMBERS))
        held = Held(self._sample)
        labels, _ = settled(held, np.arange(len(held)), self._first(n), rounds=_ROUNDS_TRIED)
        return np.unique(labels, return_inverse=True)[1].astype(np.int64)

    def _first(self, n: int) -> Vectors:
        """Centres to start from, (min(n, distinct vectors), dim)."""
        if len(self._there) > _JOINED and n * _EACH > len(self._joined):
            return self._drawn(n)
        n = min(n, len(self._joined))
        return unit(summed(self._joined, self._tree.cut(n), n))

    def _drawn(self, n: int) -> Vectors:
        """More centres than a tree of a sample can give: vectors far from each other (k-means++)."""
        from sklearn.cluster import kmeans_plusplus

        some = self._rows.take(drawn(self._there, max(_TRIED, _EACH_DRAWN * n), self._seed))
        some = some[distinct(some)]
        centres: Vectors = kmeans_plusplus(some, min(n, len(some)), random_state=self._seed)[0]
        return centres


def _by_size(labels: Keys, centres: Vectors) -> tuple[Keys, Vectors]:
    """Clusters numbered by descending size, and their centres in that order; empty ones are left out."""
    sizes = np.bincount(labels[labels >= 0], minlength=len(centres))
    order = np.argsort(-sizes, kind="stable")
    rank = np.full(len(order) + 1, NOISE, dtype=np.int64)  # the last one is that of label -1
    rank[order] = np.arange(len(order))
    return rank[labels], centres[order[: np.count_nonzero(sizes)]]
