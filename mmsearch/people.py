"""``Person``: who is asking for recommendations: a history by position, and what they must not be shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import TypeAlias

import numpy as np

from mmsearch.anchors import Anchor, Like, anchors_of
from mmsearch.behaviour import Behaviour
from mmsearch.catalog import EventBook
from mmsearch.errors import InvalidInput
from mmsearch.protocols import Encoder
from mmsearch.retrieval import Groups
from mmsearch.stock import Stock
from mmsearch.store import Store, View
from mmsearch.types import Hit, Item, Vectors

Liked: TypeAlias = Sequence[Like] | Mapping[str, float]
"""What somebody likes: ids, pictures, items or hits, or a weight by id."""


@dataclass(frozen=True, slots=True, eq=False)
class Person:
    """A history, and what goes with it.

    ``history`` is over the items of a ``Stock`` and, after them, those that are not in it, whose vectors are
    ``others`` by field; ``names`` say for each event of it what to call its item; ``seen`` are the groups (see
    ``Candidate``) of its items.
    """

    history: Behaviour
    names: tuple[str, ...]
    seen: Groups
    others: tuple[Mapping[str, Vectors], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def is_known(self) -> bool:
        """Whether there is an opinion to go by."""
        return bool((self.history.weights != 0).any())


def person_of(
    store: Store,
    view: View,
    stock: Stock,
    encoder: Callable[[], Encoder],
    *,
    liked: Liked = (),
    disliked: Liked = (),
    user: str | None = None,
) -> Person:
    """Put together what is known of a user and what is said here, which comes last and so counts as the latest.

    Raises
    ------
    InvalidInput
        If what is liked is no list, a weight is no finite number, or a user no str.
    ItemNotFound
        For an unknown id.
    """
    if user is not None and (not isinstance(user, str) or not user):
        raise InvalidInput(f"expected a user as a str that is not empty, got {user!r}")
    keys, weights, times = EventBook(store.catalog).of_user(user) if user is not None else _nothing()
    positions = stock.positions(keys)
    notes = (f"nothing is known of the user {user!r}",) if user is not None and not len(keys) else ()
    told = [*_weighted("liked", liked, 1.0), *_weighted("disliked", disliked, -1.0)]
    anchors = anchors_of([like for like, _ in told], encoder, store, view)
    own = stock.positions(np.array(store.catalog.keys([one.id for one in anchors if one.id]), dtype=np.int64)).tolist()
    others = [anchor for anchor in anchors if not anchor.id]
    own_positions, other_positions = iter(own), iter(range(len(stock), len(stock) + len(others)))
    said = [next(own_positions) if anchor.id else next(other_positions) for anchor in anchors]
    latest = float(np.nanmax(times)) if np.isfinite(times).any() else 0.0
    there = positions >= 0
    history = Behaviour.of(
        np.zeros(int(there.sum()) + len(said), dtype=np.int64),
        np.concatenate([positions[there], np.array(said, dtype=np.int64)]),
        np.concatenate([weights[there], np.array([weight for _, weight in told], dtype=np.float32)]),
        # Each a moment after the one before: they have an order.
        np.concatenate([times[there], latest + 1.0 + np.arange(len(said))]),
        n_users=1,
        n_items=len(stock) + len(others),
    )
    rows = store.catalog.rows_by_key(set(stock.keys[history.items[history.items < len(stock)]].tolist()))
    ids = {int(position): rows[int(stock.keys[position])][1] for position in history.items if position < len(stock)}
    ids |= {len(stock) + n: _name(anchor) for n, anchor in enumerate(others)}
    seen = {row[5] or row[0] for row in rows.values()} | {group for anchor in others for group in anchor.barred}
    names = tuple(ids[position] for position in history.items.tolist())
    return Person(history, names, frozenset(seen), tuple(anchor.vectors for anchor in others), notes)


def _nothing() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros(0, np.float64)


def _weighted(name: str, given: Liked, sign: float) -> list[tuple[Like, float]]:
    if isinstance(given, str | bytes | Path | Item | Hit) or not isinstance(given, Iterable):
        raise InvalidInput(
            f"expected {name} as a list of ids, pictures or items, got {given!r:.60}: put it in brackets"
        )
    if not isinstance(given, Mapping):
        return [(like, sign) for like in given]
    for id, weight in given.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not isfinite(weight):
            raise InvalidInput(f"expected a finite number as the weight of {id!r} in {name}, got {weight!r}")
    return [(id, sign * float(weight)) for id, weight in given.items()]


def _name(anchor: Anchor) -> str:
    """What to call a thing that is not in the store."""
    image = anchor.query.image
    return str(image) if isinstance(image, Path) else anchor.query.text or "a picture"
