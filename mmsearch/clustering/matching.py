"""Stable identities: which cluster of a new clustering is which of the one before, and what became of the others."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from mmsearch.clusters import NOISE, Change
from mmsearch.errors import InvalidInput
from mmsearch.types import Keys

SAME = 0.3
"""A cluster keeps its id if its overlap with the former one, as Jaccard over the items both know, is at least this."""
CHANGED = 0.1
"""A cluster grew or shrank if its size differs by more than this share of the former one."""
MOST, PART = 0.5, 0.1
"""A cluster is a piece of another if ``MOST`` of its items are in it and they are at least ``PART`` of the other's."""

Of = TypeVar("Of", bound=Hashable)
"""What stands for an item: its id or its key."""


@dataclass(frozen=True, slots=True)
class Matching:
    """Which ids the clusters of a new clustering have.

    Attributes
    ----------
    ids
        The id of each new label but noise, in the order of the labels.
    changes
        What happened to the clusters, by id; the names are empty.
    next_id
        Larger than any id ever used: pass it to the next ``match``.
    """

    ids: Mapping[int, int]
    changes: tuple[Change, ...]
    next_id: int


def match(before: Mapping[Of, int], after: Mapping[Of, int], *, next_id: int = 0) -> Matching:
    """Give the clusters of a new clustering the ids of former ones where they are the same.

    Former and new clusters are paired one to one so that the sum of their Jaccard overlaps is largest (the assignment
    problem of Kuhn, Naval Research Logistics Quarterly 2, 1955), counted on the items that both clusterings know; a
    pair whose overlap is below ``SAME`` is none. A new cluster that is paired with none has a new id, larger than
    ``next_id`` - 1 and than all former ones; the largest such cluster has the smallest.

    Parameters
    ----------
    before
        The id of each item's cluster, by item; below 0 for none.
    after
        The label of each item's new cluster, by item; below 0 for none. Any whole numbers will do.
    next_id
        No new id is smaller.

    Returns
    -------
    Matching
        At most one change an id. A former cluster was ``split`` where at least two new ones are mostly its items and
        each has at least ``PART`` of it; ``others`` are these without itself. A new one was ``merged`` where at least
        two former ones went mostly into it and each is at least ``PART`` of it; ``others`` are the former ones without
        itself. A former one that is gone is ``merged`` too if most of its items are in one cluster, ``others``, else it
        has ``vanished``. A cluster that is neither a former one nor a piece of one is ``new``. One that is still there
        and none of these ``grew`` or ``shrank`` if its size changed by more than ``CHANGED``. Sizes count all items;
        shares are of the items that both clusterings know.

    Raises
    ------
    InvalidInput
        If ``next_id`` is below 0.

    >>> matching = match({"a": 4, "b": 4, "c": 7}, {"a": 1, "b": 1, "c": 0, "d": 2})
    >>> matching.ids, [(change.kind, change.id) for change in matching.changes], matching.next_id
    ({0: 7, 1: 4, 2: 8}, [('new', 8)], 9)
    """
    if next_id < 0:
        raise InvalidInput(f"expected next_id of at least 0, got {next_id}")
    counts = _Counts.of(before, after)
    pairs = _pairs(counts)
    fresh = max([next_id, *(int(old) + 1 for old in counts.old)])
    ids: dict[int, int] = {int(counts.new[column]): int(counts.old[row]) for row, column in pairs.items()}
    order = np.lexsort((counts.new, -counts.new_sizes))
    for label in counts.new[order].tolist():
        if label not in ids:
            ids[label], fresh = fresh, fresh + 1
    ids = dict(sorted(ids.items()))
    return Matching(ids, tuple(_changes(counts, ids)), fresh)


@dataclass(frozen=True, slots=True)
class _Counts:
    """Former clusters, (p,), new ones, (q,), their sizes, and how many items each two share, (p, q)."""

    old: Keys
    new: Keys
    old_sizes: Keys
    new_sizes: Keys
    shared: NDArray[np.int64]
    known: tuple[Keys, Keys]
    """How many items of each, former and new, both clusterings know."""

    @classmethod
    def of(cls, before: Mapping[Of, int], after: Mapping[Of, int]) -> _Counts:
        both = [item for item in before if item in after]
        first = np.array([before[item] for item in both], dtype=np.int64)
        second = np.array([after[item] for item in both], dtype=np.int64)
        old, old_sizes = _sizes(before)
        new, new_sizes = _sizes(after)
        clustered = (first > NOISE) & (second > NOISE)
        shared = np.zeros((len(old), len(new)), dtype=np.int64)
        at = np.searchsorted(old, first[clustered]), np.searchsorted(new, second[clustered])
        np.add.at(shared, at, 1)
        return cls(old, new, old_sizes, new_sizes, shared, (_count(first, old), _count(second, new)))


def _sizes(labels: Mapping[Of, int]) -> tuple[Keys, Keys]:
    values = np.fromiter(labels.values(), dtype=np.int64, count=len(labels))
    found, sizes = np.unique(values[values > NOISE], return_counts=True)
    return found, sizes.astype(np.int64)


def _count(labels: Keys, of: Keys) -> Keys:
    return np.bincount(np.searchsorted(of, labels[labels > NOISE]), minlength=len(of)).astype(np.int64)


def _pairs(counts: _Counts) -> dict[int, int]:
    """Rows of former clusters to columns of the new ones that are the same."""
    from scipy.optimize import linear_sum_assignment

    united = counts.known[0][:, None] + counts.known[1] - counts.shared
    overlap = counts.shared / np.maximum(united, 1)
    # An overlap that is too small for a match must not cost another pair its match.
    overlap[overlap < SAME] = 0.0
    found = zip(*linear_sum_assignment(overlap, maximize=True), strict=True)
    return {int(row): int(column) for row, column in found if overlap[row, column] > 0}


def _changes(counts: _Counts, ids: Mapping[int, int]) -> list[Change]:
    """What became of former clusters, by id, and of new ones."""
    now = np.array([ids[label] for label in counts.new.tolist()], dtype=np.int64)
    before = dict(zip(counts.old.tolist(), counts.old_sizes.tolist(), strict=True))
    after = dict(zip(now.tolist(), counts.new_sizes.tolist(), strict=True))
    splits, merges = _splits(counts, now), _merges(counts, now)
    pieces = {piece for others in splits.values() for piece in others}
    into = {int(id): int(now[column]) for id, column in zip(*_mostly_into(counts), strict=True)}
    changes = []
    for id in sorted(before | after):
        kind, others = "", ()  # type: str, tuple[int, ...]
        if id in merges:
            kind, others = "merged", tuple(old for old in merges[id] if old != id)
        elif id in splits:
            kind, others = "split", tuple(piece for piece in splits[id] if piece != id)
        elif id not in after:
            kind, others = ("merged", (into[id],)) if id in into else ("vanished", ())
        elif id not in before:
            kind = "" if id in pieces else "new"
        else:
            kind = _resized(before[id], after[id])
        if kind:
            changes.append(Change(kind, id, "", before.get(id, 0), after.get(id, 0), others))
    return changes


def _resized(before: int, after: int) -> str:
    if abs(after - before) <= CHANGED * before:
        return ""
    return "grew" if after > before else "shrank"


def _mostly_into(counts: _Counts) -> tuple[Keys, Keys]:
    """Former ids most of whose items went into one new cluster, and the columns of these."""
    most = counts.shared > MOST * np.maximum(counts.known[0], 1)[:, None]
    rows, columns = np.nonzero(most)
    return counts.old[rows], columns.astype(np.int64)


def _splits(counts: _Counts, now: Keys) -> dict[int, list[int]]:
    """Former ids that were split, with the ids of their pieces."""
    pieces = (counts.shared >= PART * np.maximum(counts.known[0], 1)[:, None]) & (
        counts.shared > MOST * np.maximum(counts.known[1], 1)
    )
    return {int(id): sorted(now[row].tolist()) for id, row in zip(counts.old, pieces, strict=True) if row.sum() > 1}


def _merges(counts: _Counts, now: Keys) -> dict[int, list[int]]:
    """Ids that others were merged into, with the former ids of these."""
    pieces = (counts.shared >= PART * np.maximum(counts.known[1], 1)) & (
        counts.shared > MOST * np.maximum(counts.known[0], 1)[:, None]
    )
    return {
        int(id): sorted(counts.old[column].tolist())
        for id, column in zip(now, pieces.T, strict=True)
        if column.sum() > 1
    }
