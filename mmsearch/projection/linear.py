"""Principal components: the plane that shows most of how vectors differ."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmsearch.protocols import VectorRows
from mmsearch.types import Keys, Vectors

_NUMBERS = 4_000_000
"""Numbers of vectors held at once: 32 MB as float64."""
_FLAT = 1e-5
"""Unit rows that differ by less than this along every axis are the same, but for the rounding of float32."""


@dataclass(frozen=True, slots=True)
class Plane:
    """Takes rows, (m, dim), to points, ``row @ matrix + offset``: (dim, 2) and (2,) float32."""

    matrix: NDArray[np.float32]
    offset: NDArray[np.float32]

    def place(self, vectors: Vectors) -> NDArray[np.float32]:
        """Points, (m, 2) float32, of unit rows; rows of zeros are at (0, 0)."""
        points = vectors @ self.matrix + self.offset
        return np.where(vectors.any(axis=1, keepdims=True), points, np.float32(0))


def fit_plane(rows: VectorRows, positions: Keys) -> Plane:
    """The plane of the first two principal components of the rows at positions, in one pass over all of them.

    Axes along which nothing differs are 0. The sign of an axis is such that its largest component is positive.
    """
    dim = rows.dim
    total, squares = np.zeros(dim), np.zeros((dim, dim))
    # Differences from one of the rows, and not the rows, are squared: the spread may be tiny beside the mean.
    shift = rows.take(positions[:1]).astype(np.float64).sum(axis=0)
    for block in blocks(positions, dim):
        part = rows.take(block) - shift
        total += part.sum(axis=0)
        squares += part.T @ part
    mean = total / max(1, len(positions))
    spread, axes = np.linalg.eigh(squares / max(1, len(positions)) - np.outer(mean, mean))
    matrix = np.zeros((dim, 2))
    for n in range(min(2, dim)):
        axis = axes[:, -1 - n]
        if spread[-1 - n] > _FLAT**2:
            matrix[:, n] = axis * np.sign(axis[np.argmax(np.abs(axis))])
    return Plane(matrix.astype(np.float32), (-(mean + shift) @ matrix).astype(np.float32))


def blocks(positions: Keys, dim: int) -> list[Keys]:
    """Positions in pieces that are small enough to take at once."""
    step = max(1, _NUMBERS // max(1, dim))
    return [positions[start : start + step] for start in range(0, len(positions), step)]
