"""``ItemVectors``: what items look like, say or are labelled, by position, for recommenders that go by content."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mmsearch.errors import InvalidInput
from mmsearch.types import Keys, Vectors

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

_SAMPLE = 20_000
"""Vectors of which the mean is taken."""
_KEPT = 20_000_000
"""Numbers of vectors that are kept ready: 80 MB."""


class ItemVectors:
    """One vector an item, of one field; items may have none.

    Vectors are handed out less the field's mean and made unit rows again: what all items of a collection have in
    common says nothing of a person's taste, and vectors of CLIP have much in common (Mu & Viswanath, ICLR 2018,
    section 2, take off the mean of word vectors for the same reason).

    Parameters
    ----------
    matrix
        (n_rows, dim) of any float dtype, dense and possibly memory-mapped, or a scipy csr matrix.
    rows
        (n_items,) int64, the row of each item, -1 for none. None: row n is item n's.
    centred
        Whether the mean, of the items' unit rows, is taken off. It is not where only one item has a vector.

    Raises
    ------
    InvalidInput
        If a row is out of range.
    """

    def __init__(self, matrix: NDArray[Any] | csr_matrix, rows: Keys | None = None, *, centred: bool = True) -> None:
        self._matrix = matrix
        self._rows = np.arange(matrix.shape[0]) if rows is None else np.asarray(rows, dtype=np.int64)
        if len(self._rows) and (self._rows.min() < -1 or self._rows.max() >= matrix.shape[0]):
            raise InvalidInput(
                f"expected rows from -1 to {matrix.shape[0] - 1}, got {self._rows.min()} to {self._rows.max()}"
            )
        self._centre = np.zeros(matrix.shape[1], dtype=np.float32)
        self._all: Vectors | None = None
        self._later: Vectors = np.zeros((0, matrix.shape[1]), dtype=np.float32)
        there = np.flatnonzero(self._rows >= 0)
        if centred and len(there) > 1:
            picked = there[:: max(1, len(there) // _SAMPLE)]
            self._centre = self.take(picked).mean(axis=0)
        if len(self) * self.dim <= _KEPT:
            self._all = self.take(np.arange(len(self)))

    def __len__(self) -> int:
        """How many items, with and without a vector."""
        return len(self._rows) + len(self._later)

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return int(self._matrix.shape[1])

    @property
    def there(self) -> NDArray[np.bool_]:
        """(n_items,): which items have a vector."""
        return np.concatenate([self._rows >= 0, np.abs(self._later).max(axis=1, initial=0) > 0])

    def take(self, columns: Keys) -> Vectors:
        """Vectors of items, (m, dim) float32 unit rows; zeros for an item without one, or one that is just the mean."""
        if not len(self._later):
            return self._own(columns)
        vectors = np.zeros((len(columns), self.dim), dtype=np.float32)
        early = columns < len(self._rows)
        vectors[early] = self._own(columns[early])
        vectors[~early] = self._later[columns[~early] - len(self._rows)]
        return vectors

    def _own(self, columns: Keys) -> Vectors:
        if self._all is not None:
            return self._all[columns]
        rows = self._rows[columns]
        has = rows >= 0
        vectors = np.zeros((len(rows), self.dim), dtype=np.float32)
        if has.any():
            vectors[has] = self.prepare(_dense(self._matrix[rows[has]]))
        return vectors

    def followed_by(self, vectors: NDArray[Any]) -> ItemVectors:
        """The same items and, after them, others with (n, dim) vectors of the same field; zeros for one without.

        Raises
        ------
        InvalidInput
            If the vectors are of another width.
        """
        if vectors.ndim != 2 or vectors.shape[1] != self.dim:
            raise InvalidInput(f"expected vectors (n, {self.dim}), got shape {vectors.shape}")
        both = copy.copy(self)
        both._later = np.concatenate([self._later, self.prepare(vectors)])
        return both

    def prepare(self, vectors: NDArray[Any]) -> Vectors:
        """Vectors of the field, (n, dim), made unit rows, less its mean and made unit rows; zeros stay zeros."""
        rows = unit_or_zero(vectors)
        return np.where(rows.any(axis=1, keepdims=True), unit_or_zero(rows - self._centre), np.float32(0))


def unit_or_zero(vectors: NDArray[Any]) -> Vectors:
    """Rows made unit rows, (n, dim) float32; those of next to no length, and those not finite, become zeros."""
    rows = np.asarray(vectors, dtype=np.float32)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    some = (lengths > 1e-6) & np.isfinite(lengths)
    unit: Vectors = np.divide(rows, lengths, out=np.zeros_like(rows), where=some)
    return unit


def _dense(rows: NDArray[Any] | csr_matrix) -> NDArray[Any]:
    return np.asarray(rows) if isinstance(rows, np.ndarray) else rows.toarray()
