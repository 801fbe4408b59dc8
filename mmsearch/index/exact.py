"""Brute force: right by definition, and the reference that the other indexes are measured against."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmsearch.errors import InvalidInput
from mmsearch.index.halves import widen
from mmsearch.index.ranking import ELEMENTS, best_of_each, blocks, pair_scores, ranked
from mmsearch.types import Keys, Neighbors, Vectors
from mmsearch.vectors import as_keys, as_unit_vectors, check_k

MARGIN = 2e-5
"""More than BLAS and the fixed-order sum can differ by."""
COPY_BYTES = 128 << 20
"""Float16 rows are kept as float32 too, from the second search on, if that takes at most this much memory."""


class ExactIndex:
    """Compares a query with every row. No approximation, nothing to tune.

    The answers do not depend on how queries are batched, to the last bit. Searches may run while another thread
    adds or removes: each sees the rows as they were when it began.

    Parameters
    ----------
    dim
        Width of the vectors.

    Examples
    --------
    >>> index = ExactIndex(2)
    >>> index.add(np.array([7, 8]), np.array([[1, 0], [0, 1]], dtype=np.float32))
    >>> index.search(np.array([[0, 1]], dtype=np.float32), k=5)[0].keys
    array([8, 7])
    """

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self._table = _Table(np.empty(0, np.int64), np.empty((0, dim), np.float32))
        self._writing = threading.Lock()

    @classmethod
    def over(cls, matrix: NDArray[Any], keys: Keys | None = None) -> ExactIndex:
        """Serve the rows of a matrix, (n, dim) float16 or float32, without copying or changing them.

        The rows must be unit vectors, to float16 precision; scores are their plain inner products with the query.
        ``keys``, (n,), default to the row numbers. The matrix may be a read-only memory map.

        Raises
        ------
        InvalidInput
            For another shape or dtype, or keys that are not n different whole numbers.
        """
        if matrix.ndim != 2 or matrix.dtype not in (np.dtype(np.float16), np.dtype(np.float32)):
            raise InvalidInput(f"expected a float16 or float32 matrix, got {matrix.dtype} of shape {matrix.shape}")
        index = cls(matrix.shape[1])
        keys = np.arange(len(matrix)) if keys is None else new_keys(keys, len(matrix))
        index._table = _Table(keys, np.asarray(matrix))
        return index

    def __len__(self) -> int:
        return len(self._table.keys)

    def add(self, keys: Keys, vectors: Vectors) -> None:
        """Store vectors, (n, dim), under new keys, (n,).

        Raises
        ------
        InvalidInput
            For a key that is taken or repeated, a wrong width, NaN, infinity or a zero vector; nothing is
            stored then.
        """
        rows = as_unit_vectors(vectors, self.dim)
        keys = new_keys(keys, len(rows))
        with self._writing:
            self._table = self._table.extended(keys, rows)

    def remove(self, keys: Keys) -> int:
        """Forget these keys; unknown ones are passed over. Says how many were there."""
        keys = as_keys(keys)
        with self._writing:
            table = self._table
            stays = ~np.isin(table.keys, keys)
            gone = len(table.keys) - int(stays.sum())
            if gone:
                self._table = _Table(table.keys[stays], table.rows[stays])
        return gone

    def search(self, queries: Vectors, k: int, *, among: Keys | None = None) -> list[Neighbors]:
        """For each query row, (q, dim), the k nearest, best first, equal scores by key.

        Parameters
        ----------
        queries
            (q, dim) float32.
        k
            How many to return; fewer come back where fewer are stored.
        among
            Only these keys are searched, in any order; unknown ones are passed over.

        Raises
        ------
        InvalidInput
            For a wrong width, NaN, infinity or a zero query, and k outside 1 to 1,000,000.
        """
        k = check_k(k)
        queries = as_unit_vectors(queries, self.dim)
        table = self._table
        places = None if among is None else table.places_of(as_keys(among))
        size = len(table.keys) if places is None else len(places)
        table.warm_up()
        chunk = max(1, min(1024, ELEMENTS // min(k, max(1, size))))
        pools = [_Pool(queries[start : start + chunk], k) for start in range(0, len(queries), chunk)]
        for start in range(0, size, table.step):
            span = slice(start, min(size, start + table.step))
            keys, rows = table.block(span if places is None else places[span])
            for pool in pools:
                pool.offer(keys, rows)
        return [neighbors for pool in pools for neighbors in pool.neighbors()]


def new_keys(values: ArrayLike, n: int) -> Keys:
    """Check keys for n vectors: as many, and none twice.

    Raises
    ------
    InvalidInput
        Otherwise, and for anything ``as_keys`` refuses.
    """
    keys = as_keys(values)
    if len(keys) != n:
        raise InvalidInput(f"expected one key a vector, got {len(keys)} keys for {n} vectors")
    ascending = np.sort(keys)
    again = ascending[1:] == ascending[:-1]
    if again.any():
        raise InvalidInput(f"expected different keys, got {int(ascending[1:][again][0])} more than once")
    return keys


class _Table:
    """Keys and rows, (n, dim) float16 or float32, that never change; caches that only save time."""

    def __init__(self, keys: Keys, rows: NDArray[Any]) -> None:
        self.keys = keys
        self.rows = rows
        self._wide: Vectors | None = rows if rows.dtype == np.float32 else None
        self._searched = False
        self._spare: tuple[Keys, Vectors] | None = None
        self._by_key: tuple[Keys, Keys] | None = None

    @property
    def step(self) -> int:
        """Rows a block: what is widened should stay in the processor's cache, what is read in place need not."""
        elements = ELEMENTS // 4 if self._wide is None else 2 * ELEMENTS
        return int(max(1, elements // max(1, self.rows.shape[1])))

    def warm_up(self) -> None:
        """Keep a float32 copy if it is small, but not for a process that searches only once."""
        if self._wide is None and self._searched and 4 * self.rows.size <= COPY_BYTES:
            wide = np.empty(self.rows.shape, np.float32)
            for start in range(0, len(wide), self.step):
                wide[start : start + self.step] = widen(self.rows[start : start + self.step])
            self._wide = wide
        self._searched = True

    def block(self, span: slice | Keys) -> tuple[Keys, Vectors]:
        if self._wide is not None:
            return self.keys[span], self._wide[span]
        return self.keys[span], widen(self.rows[span])

    def places_of(self, keys: Keys) -> Keys:
        """Positions of those keys that are here, ascending, none twice."""
        if self._by_key is None:
            order = np.argsort(self.keys)
            self._by_key = self.keys[order], order
        ascending, order = self._by_key
        if not len(ascending):
            return order
        at = np.minimum(np.searchsorted(ascending, keys), len(ascending) - 1)
        return np.unique(order[at[ascending[at] == keys]])

    def extended(self, keys: Keys, rows: Vectors) -> _Table:
        """Make a table with more rows, in memory shared with this one where there is room behind its end.

        Raises
        ------
        InvalidInput
            For a key that is here already.
        """
        taken = np.isin(keys, self.keys)
        if taken.any():
            raise InvalidInput(f"expected new keys, got {int(keys[np.argmax(taken)])} which is stored; remove it first")
        old, new = len(self.keys), len(self.keys) + len(keys)
        spare_keys, spare_rows = self._spare or (self.keys, self.rows)
        self._spare = None  # what lies behind the end can be given away once
        if new > len(spare_keys):
            spare_keys = np.empty(max(new, 2 * old), np.int64)
            spare_rows = np.empty((len(spare_keys), rows.shape[1]), np.float32)
            spare_keys[:old], spare_rows[:old] = self.keys, self.rows
        spare_keys[old:new], spare_rows[old:new] = keys, rows
        table = _Table(spare_keys[:new], spare_rows[:new])
        table._spare = spare_keys, spare_rows
        return table


class _Pool:
    """The best rows seen so far for each of some queries.

    BLAS only proposes: whatever comes within a margin of the k-th score is scored again in a fixed order, while its
    row is at hand, and that score decides. After each block a query keeps at most k rows and what the block proposed,
    so that even a matrix of equal rows stays bounded.
    """

    def __init__(self, queries: Vectors, k: int) -> None:
        self._queries = queries
        self._k = k
        self._limits = np.full(len(queries), -np.inf, dtype=np.float32)
        self._owner = np.empty(0, np.int64)
        self._keys = np.empty(0, np.int64)
        self._scores = np.empty(0, np.float32)

    def offer(self, keys: Keys, rows: Vectors) -> None:
        proposed = self._queries @ rows.T
        n = len(keys)
        if n > self._k and np.isneginf(self._limits).any():
            kth = np.partition(proposed, n - self._k, axis=1)[:, n - self._k]
            self._limits = np.maximum(self._limits, kth - np.float32(MARGIN))
        owner, row = np.divmod(np.flatnonzero(proposed >= self._limits[:, None]), n)
        for part in blocks(len(owner), rows.shape[1]):
            self._keep(owner[part], keys[row[part]], pair_scores(rows[row[part]], self._queries, owner[part]))

    def _keep(self, owner: Keys, keys: Keys, scores: NDArray[np.float32]) -> None:
        self._owner = np.concatenate([self._owner, owner])
        self._keys = np.concatenate([self._keys, keys])
        self._scores = np.concatenate([self._scores, scores])
        kept = best_of_each(self._owner, self._keys, self._scores, self._k)
        self._owner, self._keys, self._scores = self._owner[kept], self._keys[kept], self._scores[kept]
        last = np.searchsorted(self._owner, np.arange(len(self._queries)), side="right") - 1
        counts = np.bincount(self._owner, minlength=len(self._queries))
        full = counts >= self._k
        self._limits[full] = np.maximum(self._limits[full], self._scores[last[full]] - np.float32(MARGIN))

    def neighbors(self) -> list[Neighbors]:
        return ranked(self._owner, self._keys, self._scores, self._k, len(self._queries))
