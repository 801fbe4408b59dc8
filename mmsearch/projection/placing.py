"""Where vectors lie on a map that is there already: amid those that are most alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmsearch.errors import InvalidInput
from mmsearch.types import Vectors

NEIGHBORS = 5
"""Mapped vectors that decide where a new one lies. On 9,583 fashion pictures, of 1, 3, 5, 8 and 15 this and 3 came
closest to where UMAP and PaCMAP lay an item out themselves, and the second power of the distance beat 0, 1 and 4."""
_COSINES = 16_000_000
"""Cosines held at once: 64 MB."""
_GROUP = 64
"""Landmarks of which only the best is looked at first."""
_SAME = 1e-6
"""Nearer than this, by 1 less the cosine, float32 cannot tell two vectors apart."""


@dataclass(frozen=True, slots=True)
class Landmarks:
    """Mapped vectors, (l, dim) float32 unit rows, and their points, (l, 2) float32."""

    vectors: Vectors
    points: NDArray[np.float32]

    def place(self, vectors: Vectors) -> NDArray[np.float32]:
        """Points, (m, 2) float32, of unit rows, (m, dim): the mean of the nearest landmarks' points.

        A landmark at distance d (1 less the cosine) counts 1 / d squared, which is Shepard's inverse distance weighting
        (ACM National Conference 1968), so that what is the same as a landmark lies on its point. Rows of zeros, and all
        rows where there is no landmark, are at (0, 0).
        """
        placed = np.zeros((len(vectors), 2), dtype=np.float32)
        if not len(self.vectors):
            return placed
        step = max(1, _COSINES // len(self.vectors))
        for start in range(0, len(vectors), step):
            block = vectors[start : start + step]
            at, cosines = nearest(block @ self.vectors.T, NEIGHBORS)
            weights = 1.0 / np.maximum(1.0 - cosines.astype(np.float64), _SAME) ** 2
            weights /= weights.sum(axis=1, keepdims=True)
            placed[start : start + step] = np.einsum("mk,mkd->md", weights, self.points[at])
            exact = cosines[:, 0] >= 1.0 - _SAME
            placed[start : start + step][exact] = self.points[at[exact, 0]]
        placed[~vectors.any(axis=1)] = 0.0
        return placed


def nearest(cosines: Vectors, k: int) -> tuple[NDArray[np.intp], Vectors]:
    """The columns and values of the k largest in each row, (m, min(k, l)), largest first and equal ones by column.

    The best k lie in the k groups of columns whose best is best: only those are sorted, which takes a tenth of the time
    of partitioning whole rows.
    """
    m, n = cosines.shape
    whole = n // _GROUP * _GROUP
    if whole // _GROUP <= 4 * k:
        columns = np.broadcast_to(np.arange(n), (m, n))
    else:
        best = cosines[:, :whole].reshape(m, -1, _GROUP).max(axis=2)
        groups = np.argpartition(best, best.shape[1] - k, axis=1)[:, -k:]
        inside = (groups[:, :, None] * _GROUP + np.arange(_GROUP)).reshape(m, -1)
        rest = np.broadcast_to(np.arange(whole, n), (m, n - whole))
        columns = np.sort(np.concatenate([inside, rest], axis=1), axis=1)
    values = np.take_along_axis(cosines, columns, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(columns, order, axis=1), np.take_along_axis(values, order, axis=1)


def unit_rows(values: ArrayLike, dim: int) -> Vectors:
    """Unit rows, (n, dim) float32; a row without direction (zero or not finite) becomes zeros.

    Raises
    ------
    InvalidInput
        If they are not numbers, or of another width.
    """
    try:
        rows = np.asarray(values, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"expected vectors of numbers, got {type(values).__name__}: {error}") from error
    if rows.ndim != 2 or rows.shape[1] != dim:
        raise InvalidInput(f"expected vectors (n, {dim}), got shape {rows.shape}")
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    some = (lengths > 1e-6) & np.isfinite(lengths)
    unit: Vectors = np.divide(rows, lengths, out=np.zeros_like(rows), where=some)
    return unit
