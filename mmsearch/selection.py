"""``Selection``: the items that a question about a collection is about, with their vectors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self, overload

import numpy as np

from mmsearch.catalog import Catalog, item_of
from mmsearch.errors import InvalidInput, ItemNotFound
from mmsearch.filters import Filter
from mmsearch.recommenders.itemvectors import ItemVectors
from mmsearch.retrieval import condition_of
from mmsearch.store import Store, View
from mmsearch.types import FIELDS, Item, Keys

_TEXTS = 0.1
"""The share of items with only a text from which on they are looked at beside the pictures; fewer are left out."""
_JOINED = 200_000
"""The most items that are looked at so: 200 MB of vectors for each of two copies."""
_CHUNK = 1_000
"""Items that are read at once."""


@dataclass(frozen=True, slots=True, eq=False)
class Items(Sequence[Item]):
    """Items of a catalog by key, read when they are looked at: a million of them cost 8 MB until then.

    One that was removed meanwhile raises ``ItemNotFound`` when it is looked at.
    """

    keys: Keys
    catalog: Catalog

    def __len__(self) -> int:
        return len(self.keys)

    @overload
    def __getitem__(self, place: int) -> Item: ...

    @overload
    def __getitem__(self, place: slice) -> Items: ...

    def __getitem__(self, place: int | slice) -> Item | Items:
        if isinstance(place, slice):
            return Items(self.keys[place], self.catalog)
        return self._fetch(self.keys[[place]])[0]

    def __iter__(self) -> Iterator[Item]:
        for start in range(0, len(self.keys), _CHUNK):
            yield from self._fetch(self.keys[start : start + _CHUNK])

    def _fetch(self, keys: Keys) -> list[Item]:
        found = self.catalog.rows_by_key(keys.tolist())
        if len(found) < len(keys):
            raise ItemNotFound("an item was removed since this was made: ask anew")
        return [item_of(found[key]) for key in keys.tolist()]

    def __repr__(self) -> str:
        return f"<{len(self)} items>"


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """Items by position, in the order in which they came.

    ``keys``, (n,) int64 ascending, are the items' keys in the catalog, and ``rows`` their vectors, of which all items
    here have one. ``without``, (m,) ascending, are the keys of those that the filter lets through but that have none
    that can be compared. ``field`` is whose vectors these are: ``picture``, ``text``, or ``both`` where a tenth of the
    items or more have only a text (fewer are left out); then each field is taken less its mean, since pictures and
    texts lie apart in the space of CLIP. ``of_space``, (n,), are the rows of the items in the space of the field; empty
    for ``both``. ``stored`` are the vectors as they are stored.
    """

    store: Store
    keys: Keys
    rows: ItemVectors
    without: Keys
    field: str
    of_space: Keys
    stored: ItemVectors

    @classmethod
    def of(cls, store: Store, view: View, where: Filter | None = None, field: str | None = None) -> Self:
        """The items that pass a filter, with the vector of their picture, or else of their text.

        Parameters
        ----------
        field
            ``picture`` or ``text`` for this alone.

        Raises
        ------
        InvalidInput
            For a bad filter or field.
        """
        if field is not None and field not in FIELDS:
            raise InvalidInput(f"expected a field of {', '.join(FIELDS)}, got {field!r}")
        condition = condition_of(where)
        keys = store.catalog.all_keys() if condition is None else store.catalog.passing(condition)
        found: list[tuple[str, Keys, Keys]] = []
        left = keys
        for name in view.held if field is None else [name for name in view.held if name == field]:
            its, rows = first_rows(store, view, name, left)
            if len(its):
                found.append((name, its, rows))
                left = np.setdiff1d(left, its)
        if len(found) == 2 and not _comparable(found):
            found = [max(found, key=lambda one: len(one[1]))]
            left = np.setdiff1d(keys, found[0][1])
        if len(found) == 2:
            its, apart, stored = _joined(view, found)
            return cls(store, its, apart, left, "both", left[:0], stored)
        if found:
            name, its, rows = found[0]
            vectors = ItemVectors(view.spaces[name].matrix, rows, centred=False)
            return cls(store, its, vectors, left, name, rows, vectors)
        nothing = ItemVectors(np.zeros((0, view.encoder.dim if view.encoder else 0), dtype=np.float32), centred=False)
        return cls(store, left[:0], nothing, left, field or FIELDS[0], left[:0], nothing)

    def __len__(self) -> int:
        """How many items have a vector."""
        return len(self.keys)

    def ids(self, keys: Keys | None = None) -> list[str]:
        """The ids of these keys, of all positions without any."""
        return ids_of(self.store, self.keys if keys is None else keys)

    def items(self, positions: Keys) -> Items:
        """The items at positions, in their order."""
        return items_of(self.store, self.keys[positions])


def items_of(store: Store, keys: Keys) -> Items:
    """Items by key, read when they are looked at."""
    return Items(keys, store.catalog)


def ids_of(store: Store, keys: Keys) -> list[str]:
    """The ids of items by ascending keys, all of which are there."""
    if not len(keys):
        return []
    rows = store.catalog.database.reader.execute(
        "SELECT key, id FROM items WHERE key BETWEEN ? AND ? ORDER BY key", (int(keys[0]), int(keys[-1]))
    )
    wanted = set(keys.tolist())
    return [id for key, id in rows if key in wanted]


def check_field(store: Store, field: str) -> None:
    """See that items have a metadata field.

    Raises
    ------
    InvalidInput
        If it is no str, or there are items, but none that has it.
    """
    if not isinstance(field, str):
        raise InvalidInput(f"expected the name of a metadata field, got {field!r}")
    known = store.catalog.field_names()
    if field not in known and len(store.catalog):
        told = ", ".join(sorted(known)[:20]) or "none"
        raise InvalidInput(f"expected a metadata field that items have, got {field!r}; there are: {told}")


def labels_of(store: Store, ids: Sequence[str], field: str) -> list[str | None]:
    """What items, by id, have in a metadata field, as text; None for what has none or a list there.

    Raises
    ------
    InvalidInput
        If no item of the store has the field.
    """
    check_field(store, field)
    values: dict[str, str] = {}
    for _, item in store.catalog.items():
        value = item.metadata.get(field)
        if value is not None and value != "" and not isinstance(value, list | dict):
            values[item.id] = str(value)
    if not values and len(store.catalog):
        raise InvalidInput(
            f"expected a metadata field with one value an item, got {field!r}, which holds a list or none"
        )
    return [values.get(id) for id in ids]


def first_rows(store: Store, view: View, field: str, keys: Keys) -> tuple[Keys, Keys]:
    """Those of these items, ascending, that have a vector in a field, and the first row of each."""
    items, rows = store.book.of_items(view.spaces[field].record.space)
    its, first = np.unique(items, return_index=True)
    there = np.isin(its, keys)
    return its[there], rows[first][there]


def _comparable(found: list[tuple[str, Keys, Keys]]) -> bool:
    """Whether items with a picture and items with only a text are looked at together.

    A few texts must not take the mean off all pictures, and vectors less their mean are held in memory.
    """
    pictures, texts = (len(its) for _, its, _ in found)
    return texts >= _TEXTS * (pictures + texts) and pictures + texts <= _JOINED


def _joined(view: View, found: list[tuple[str, Keys, Keys]]) -> tuple[Keys, ItemVectors, ItemVectors]:
    """Items with vectors of either field: the keys, ascending, their vectors on common ground, and as stored."""
    keys = np.concatenate([its for _, its, _ in found])
    parts, stored = [], []
    for name, its, rows in found:
        every, matrix = np.arange(len(its)), view.spaces[name].matrix
        centred = ItemVectors(matrix, rows, centred=True).take(every)
        stored.append(ItemVectors(matrix, rows, centred=False).take(every))
        # Where all are the same, nothing is left of them without their mean.
        parts.append(np.where(centred.any(axis=1, keepdims=True), centred, stored[-1]))
    order = np.argsort(keys)
    apart, as_stored = (ItemVectors(np.concatenate(one)[order], centred=False) for one in (parts, stored))
    return keys[order], apart, as_stored
