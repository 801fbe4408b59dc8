"""Recommenders whose score is a sum over the events of a history: what neighbours, EASE and transitions share."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from mmsearch.behaviour import Behaviour
from mmsearch.recommenders.histories import (
    as_plain,
    averaged,
    check_fit,
    check_learnt,
    check_number,
    check_one,
    recency,
    seen_of,
)
from mmsearch.types import Keys
from mmsearch.vectors import best_first, check_k

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

_ENTRIES = 20_000_000
"""Products held at once while neighbours are counted: about 240 MB."""


class Linear(ABC):
    """The score of an item is the sum over events of the event's say times an item-to-item number."""

    n_items = -1
    """How many items it knows; below 0 before it has learnt anything."""
    fading = 1.0
    """What the say of an event is multiplied by for each step that it is before its person's end."""
    averaged = False
    """Whether the says of each person's events add up to 1 in size."""
    _settings = ("dislike",)
    """Names of the settings that answers depend on after fitting."""

    def lately(self, fading: float) -> Self:
        """The same model, sharing what it has learnt, with more regard to what a person did last.

        The says of a person's events add up to 1 in size, so that long histories do not have larger scores.

        Parameters
        ----------
        fading
            What the say of an event is multiplied by for each step that it is before its person's end, above 0 to 1.

        Raises
        ------
        InvalidInput
            If it is out of range.
        """
        other = copy.copy(self)
        other.fading, other.averaged = check_number("fading", fading, 1e-6, 1), True
        return other

    def _weighed(self, histories: Behaviour) -> NDArray[np.float32]:
        says = self._says(histories)
        if not self.averaged:
            return says
        return averaged(says * recency(histories, self.fading), histories)

    @abstractmethod
    def _says(self, histories: Behaviour) -> NDArray[np.float32]:
        """How much say each event has, (n_events,)."""

    @abstractmethod
    def _sums(self, items: Keys, says: NDArray[np.float32], columns: Keys | None) -> NDArray[np.float64]:
        """One person's scores of ``columns``, (m,), or of all items, (n_items,), if None."""

    @abstractmethod
    def _entries(self, items: Keys, column: int) -> NDArray[np.float32]:
        """What each of ``items`` says of one item, (n,)."""

    def scores(self, histories: Behaviour, columns: Keys | None = None) -> NDArray[np.float32]:
        """How well each item suits each person, (n_users, n_items) or (n_users, m) float32; see ``Recommender``.

        Raises
        ------
        InvalidInput
            If nothing was learnt, or the histories or columns do not go with it.
        """
        asked = check_fit(histories, self.n_items, columns)
        answer = np.zeros((histories.n_users, len(asked)), np.float32)
        for user, (items, says) in enumerate(self._each(histories)):
            answer[user] = self._sums(items, says, None if columns is None else asked)
        return answer

    def contributions(self, history: Behaviour, column: int) -> NDArray[np.float32]:
        """How much each event adds to the score of an item, (n_events,) float32; the score is their sum.

        Raises
        ------
        InvalidInput
            If nothing was learnt, it is not the history of one person, or the position is out of range.
        """
        check_fit(history, self.n_items)
        check_one(history, column)
        return (self._weighed(history) * self._entries(history.items, column)).astype(np.float32)

    def _told(self) -> dict[str, NDArray[Any]]:
        """The settings that answers depend on, as part of the state."""
        return {"settings": np.array([getattr(self, name) for name in self._settings], dtype=np.float64)}

    def _take(self, state: Mapping[str, NDArray[Any]]) -> None:
        for name, value in zip(self._settings, state["settings"], strict=True):
            setattr(self, name, float(value))

    def _each(self, histories: Behaviour) -> Iterator[tuple[Keys, NDArray[np.float32]]]:
        """Each person's items and their says, without those that have none."""
        says = self._weighed(histories)
        for start, end in zip(histories.starts[:-1], histories.starts[1:], strict=True):
            kept = np.flatnonzero(says[start:end]) + start
            yield histories.items[kept], says[kept]


class SparseLinear(Linear):
    """Item-to-item numbers as a sparse matrix: row j holds what a like of item j says of other items."""

    _data: NDArray[np.float32]
    _indices: NDArray[np.int32]
    _indptr: Keys

    def candidates(self, histories: Behaviour, k: int) -> list[Keys]:
        """The best k of the unseen items with a score above 0, for each person; see ``Recommender``.

        Raises
        ------
        InvalidInput
            If nothing was learnt, the histories do not go with it, or k is not from 1 to 1,000,000.
        """
        check_k(k)
        check_fit(histories, self.n_items, ())
        return [
            self._nearest(items, says, seen_of(histories, user), k)
            for user, (items, says) in enumerate(self._each(histories))
        ]

    def state(self) -> dict[str, NDArray[Any]]:
        """The matrix in compressed rows, and ``settings``, float64, that answers depend on.

        ``data`` is float32, ``indices`` int32 and ``indptr``, (n_items + 1,), int64.
        """
        check_learnt(self.n_items)
        return {"data": self._data, "indices": self._indices, "indptr": self._indptr, **self._told()}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> Self:
        """Take back what ``state`` gave; nothing is copied."""
        self._data, self._indices = as_plain(state["data"]), as_plain(state["indices"])
        self._indptr = as_plain(state["indptr"])
        self._take(state)
        self.n_items = len(self._indptr) - 1
        return self

    def _keep(self, rows: list[csr_matrix], n_items: int) -> None:
        """Take blocks of rows, csr matrices with sorted indices, as the matrix."""
        lengths = [np.diff(block.indptr) for block in rows]
        self._data = np.concatenate([np.zeros(0), *(block.data for block in rows)]).astype(np.float32)
        self._indices = np.concatenate([np.zeros(0), *(block.indices for block in rows)]).astype(np.int32)
        self._indptr = np.concatenate([[0], np.cumsum(np.concatenate([np.zeros(0), *lengths]))]).astype(np.int64)
        self.n_items = n_items

    def _gather(self, items: Keys) -> tuple[Keys, Keys]:
        """Of all entries in the rows of ``items``: which of ``items`` it belongs to, and where it is stored."""
        begins = self._indptr[items]
        counts = self._indptr[items + 1] - begins
        before = np.cumsum(counts) - counts
        at = np.repeat(begins - before, counts) + np.arange(counts.sum())
        return np.repeat(np.arange(len(items)), counts), at

    def _sums(self, items: Keys, says: NDArray[np.float32], columns: Keys | None) -> NDArray[np.float64]:
        of, at = self._gather(items)
        others, parts = self._indices[at], self._data[at] * says[of]
        if columns is None:
            return np.bincount(others, weights=parts, minlength=self.n_items).astype(np.float64, copy=False)
        asked, back = np.unique(columns, return_inverse=True)
        if not len(asked):
            return np.zeros(0)
        place = np.minimum(np.searchsorted(asked, others), len(asked) - 1)
        hit = asked[place] == others
        return np.bincount(place[hit], weights=parts[hit], minlength=len(asked))[back].astype(np.float64, copy=False)

    def _entries(self, items: Keys, column: int) -> NDArray[np.float32]:
        of, at = self._gather(items)
        hit = self._indices[at] == column
        answer = np.zeros(len(items), np.float32)
        answer[of[hit]] = self._data[at[hit]]
        return answer

    def _nearest(self, items: Keys, says: NDArray[np.float32], seen: Keys, k: int) -> Keys:
        of, at = self._gather(items)
        others, place = np.unique(self._indices[at], return_inverse=True)
        # Summed as float64 and compared as float32, as scores are, so that ties fall alike.
        sums = np.bincount(place, weights=self._data[at] * says[of], minlength=len(others)).astype(np.float32)
        fresh = (sums > 0) & ~np.isin(others, seen)
        return best_first(others[fresh].astype(np.int64), sums[fresh], k)[0]


def gram_blocks(left: csr_matrix, right: csr_matrix) -> Iterator[tuple[int, csr_matrix]]:
    """Blocks of rows of ``left @ right`` for csr matrices, each with its first row, of bounded memory.

    A block holds at most 20 million products, or one row.
    """
    costs = np.minimum(left @ np.diff(right.indptr).astype(np.float64), right.shape[1]) if left.nnz else None
    done = 0
    while done < left.shape[0]:
        ahead = np.cumsum(costs[done:]) if costs is not None else np.zeros(left.shape[0] - done)
        end = done + max(1, int(np.searchsorted(ahead, _ENTRIES, side="right")))
        yield done, left[done:end] @ right
        done = end


def strongest(block: csr_matrix, n: int) -> csr_matrix:
    """The n largest entries of each row of a csr matrix, ties by column, as one with sorted indices; none up to 0."""
    block.data[block.data <= 0] = 0
    block.eliminate_zeros()
    block.sort_indices()
    kept = np.ones(block.nnz, dtype=bool)
    for row in np.flatnonzero(np.diff(block.indptr) > n):
        begin, end = block.indptr[row], block.indptr[row + 1]
        values = block.data[begin:end]
        best, _ = best_first(np.arange(len(values)), values, n)
        kept[begin:end] = False
        kept[begin + best] = True
    lengths = np.add.reduceat(np.append(kept, False), block.indptr[:-1]) * (np.diff(block.indptr) > 0)
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    return type(block)((block.data[kept], block.indices[kept], indptr), shape=block.shape)
