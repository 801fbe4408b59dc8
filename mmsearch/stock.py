"""``Stock``: a store's items by position, with their vectors, as recommenders know them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from mmsearch.behaviour import Behaviour
from mmsearch.catalog import EventBook
from mmsearch.recommenders.content import Near
from mmsearch.recommenders.details import Details
from mmsearch.recommenders.itemvectors import ItemVectors
from mmsearch.searchspace import SearchSpace
from mmsearch.store import Store, View
from mmsearch.types import FIELDS, Keys, Vectors

DETAILS = "details"
"""The field of what items are labelled with, beside the fields that have spaces."""
_SCANNED = 20_000
"""Up to so many items, nearest ones are found by looking at all of them."""


@dataclass(frozen=True, slots=True, eq=False)
class Stock:
    """Items by position: the first one that came is 0.

    ``keys``, (n,) int64 ascending, are the items' keys; those of items that are no longer there may be among them
    (``live`` says which are not). ``ranks``, (n,) int64, are their places in the order of their ids. ``fields`` are
    their vectors, ``near`` finds nearest items by field where there are too many to look at all.
    """

    keys: Keys
    live: np.ndarray[Any, np.dtype[np.bool_]]
    ranks: Keys
    fields: Mapping[str, ItemVectors]
    near: Mapping[str, Near]
    details: Details

    @classmethod
    def of(
        cls,
        store: Store,
        view: View,
        keys: Keys | None = None,
        details: Details | None = None,
        names: Collection[str] = (),
    ) -> Self:
        """What a store has now.

        Parameters
        ----------
        keys, details
            The items' keys, and their labels, at an earlier time: they keep their positions, new items come after them.
        names
            Fields that are there even if no item has a vector in them any more.
        """
        now = store.catalog.all_keys()
        before = np.zeros(0, dtype=np.int64) if keys is None else keys
        its = np.concatenate([before, now[now > before[-1]] if len(before) else now])
        known = details if details is not None else Details().fit(_metadata(store, its))
        known.add(_metadata(store, its[len(known) :]))
        fields: dict[str, ItemVectors] = {}
        near: dict[str, Near] = {}
        for name in FIELDS:
            if name in view.held or (name in names and name in view.spaces):
                space = view.spaces[name]
                rows = _rows(store, space, its)
                fields[name] = ItemVectors(space.matrix, rows)
                if len(its) > _SCANNED:
                    near[name] = _finder(space, rows)
        labelled = known.vectors()
        if labelled is not None:
            fields[DETAILS] = labelled
        return cls(its, np.isin(its, now), _ranks(store, its), fields, near, known)

    def __len__(self) -> int:
        """How many positions there are."""
        return len(self.keys)

    def positions(self, keys: Keys) -> Keys:
        """Where items are, (m,); -1 for keys that are not among them."""
        if not len(self.keys):
            return np.full(len(keys), -1, dtype=np.int64)
        place = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[place] == keys, place, -1).astype(np.int64)

    def behaviour(self, book: EventBook) -> tuple[Behaviour, list[str]]:
        """All interactions by position, and the ids of the people."""
        events = book.events()
        items = self.positions(events.items)
        kept = items >= 0
        behaviour = Behaviour.of(
            events.users[kept], items[kept], events.weights[kept], events.times[kept],
            n_users=len(events.user_ids), n_items=len(self),
        )  # fmt: skip
        return behaviour, events.user_ids


def _ranks(store: Store, keys: Keys) -> Keys:
    """The place of each item in the order of the ids, (n,); items that are gone come last."""
    rows = store.catalog.database.reader.execute("SELECT key FROM items ORDER BY id")
    by_id = np.fromiter((key for (key,) in rows), dtype=np.int64)
    ranks = np.full(len(keys), len(by_id), dtype=np.int64)
    ranks[np.searchsorted(keys, by_id)] = np.arange(len(by_id))
    return ranks


def _metadata(store: Store, keys: Keys) -> Iterator[Mapping[str, Any]]:
    """The metadata of items in the order of ascending keys; empty for those that are gone."""
    for start in range(0, len(keys), 10_000):
        chunk = keys[start : start + 10_000].tolist()
        found = store.catalog.metadata(chunk)
        yield from (found.get(key, {}) for key in chunk)


def _rows(store: Store, space: SearchSpace, keys: Keys) -> Keys:
    """The row of each item in a space, -1 for none; a text of several windows is taken by its first."""
    items, rows = store.book.of_items(space.record.space)
    first = np.unique(items, return_index=True)[1]
    items, rows = items[first], rows[first]
    if not len(items):
        return np.full(len(keys), -1, dtype=np.int64)
    place = np.minimum(np.searchsorted(items, keys), len(items) - 1)
    return np.where(items[place] == keys, rows[place], -1).astype(np.int64)


def _finder(space: SearchSpace, rows: Keys) -> Near:
    """Finds items through the space's index. Their vectors' mean is not taken off there, so answers are candidates."""
    owners = np.full(space.record.rows, -1, dtype=np.int64)
    has = np.flatnonzero(rows >= 0)
    owners[rows[has]] = has

    def near(wanted: Vectors, k: int) -> list[Keys]:
        found = [owners[neighbors.keys] for neighbors in space.search(wanted, k)]
        return [positions[positions >= 0] for positions in found]

    return near
