"""Passes over vectors that need not fit into memory, a block at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from mmsearch.protocols import VectorRows
from mmsearch.types import Keys, Vectors

_NUMBERS = 4_000_000
"""Numbers held at once: 16 MB."""


class Held:
    """Vectors that are in memory, (n, dim) float32 unit rows, as ``VectorRows``."""

    def __init__(self, vectors: Vectors) -> None:
        self._vectors = vectors

    def __len__(self) -> int:
        return len(self._vectors)

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return int(self._vectors.shape[1])

    def take(self, columns: Keys) -> Vectors:
        """The vectors at positions, (m, dim), in the order asked for."""
        return self._vectors[columns]


def blocks(rows: VectorRows, positions: Keys, width: int = 0) -> Iterator[tuple[slice, Vectors]]:
    """Vectors at positions, (n,), a block at a time: the block's place among the positions, and (m, dim) unit rows.

    ``width`` is how many numbers the caller keeps for each vector; blocks get smaller for large ones.
    """
    step = max(1, _NUMBERS // max(1, rows.dim, width))
    for start in range(0, len(positions), step):
        place = slice(start, min(start + step, len(positions)))
        yield place, rows.take(positions[place])


def filled(rows: VectorRows) -> Keys:
    """Positions of vectors that are not zero, (m,) int64: a zero row stands for an item without a vector."""
    everything = np.arange(len(rows), dtype=np.int64)
    found = [everything[place][vectors.any(axis=1)] for place, vectors in blocks(rows, everything)]
    return np.concatenate(found) if found else everything


def drawn(positions: Keys, most: int, seed: int) -> Keys:
    """At most so many of these positions, drawn with a seed, in the order that they had."""
    if len(positions) <= most:
        return positions
    picked = np.random.default_rng(seed).choice(len(positions), most, replace=False)
    return positions[np.sort(picked)]


def nearest(vectors: Vectors, centres: Vectors) -> tuple[Keys, NDArray[np.float32]]:
    """The nearest of the centres, (k, dim), to each vector: (n,) int64, the first of equals, and the cosines, (n,)."""
    alike = vectors @ centres.T
    labels = alike.argmax(axis=1)
    return labels, alike[np.arange(len(vectors)), labels]


def sums(rows: VectorRows, positions: Keys, labels: Keys, k: int) -> NDArray[np.float64]:
    """The sum of the vectors of each label from 0 to k - 1, (k, dim); labels, (n,), below 0 are left out."""
    total = np.zeros((k, rows.dim))
    for place, vectors in blocks(rows, positions):
        total += summed(vectors, labels[place], k)
    return total


def summed(vectors: Vectors, labels: Keys, k: int) -> NDArray[np.float64]:
    """The sum of these vectors, (n, dim), of each label from 0 to k - 1, (k, dim); labels below 0 are left out.

    Always in the same order, so that no bit of it depends on the number of threads.
    """
    from scipy.sparse import csr_matrix

    own = np.flatnonzero(labels >= 0)
    which = csr_matrix((np.ones(len(own)), (labels[own], own)), shape=(k, len(vectors)))
    total: NDArray[np.float64] = which @ vectors
    return total


def unit(vectors: NDArray[np.floating]) -> Vectors:
    """Rows made unit rows, float32; those of next to no length become zeros."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 1e-6)
    return np.asarray(rows, dtype=np.float32)


def distinct(vectors: Vectors) -> Keys:
    """Positions of the first of each set of vectors that are equal to 5 decimals, (m,), ascending."""
    # Adding 0 makes -0 and 0 the same.
    return np.sort(np.unique(np.round(vectors, 5) + 0.0, axis=0, return_index=True)[1]).astype(np.int64)
