"""``Person``: who is asking for recommendations: a history by position, and what they must not be shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from numbers import Real
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mmsearch.anchors import Anchor, Like, encoded, meant_by
from mmsearch.behaviour import Behaviour
from mmsearch.catalog import EventBook
from mmsearch.errors import InvalidInput
from mmsearch.protocols import Encoder
from mmsearch.recommenders.histories import check_number, shares
from mmsearch.retrieval import Groups
from mmsearch.stock import Stock
from mmsearch.store import Store
from mmsearch.types import Hit, Item, Keys, Vectors

Liked: TypeAlias = Sequence[Like] | Mapping[str, float]
"""What somebody likes: ids, pictures, items or hits, or a weight by id."""
_DAY = 86_400.0
_MOST = float(np.finfo(np.float32).max)


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
        """Whether there is an opinion to go by: something that was not only seen, nor both liked and disliked."""
        return len(self.minded) > 0

    @property
    def minded(self) -> Keys:
        """(n,) int64 positions of what they have an opinion on, one an event."""
        minded: Keys = self.history.items[shares(self.history) != 0]
        return minded

    def over(self, n_items: int) -> Person:
        """The same person with what they had of the first ``n_items`` positions alone."""
        kept = self.history.items < n_items
        return replace(self, history=self.history.over(n_items), names=tuple(compress(self.names, kept.tolist())))


def person_of(
    store: Store,
    stock: Stock,
    encoder: Callable[[], Encoder],
    *,
    liked: Liked = (),
    disliked: Liked = (),
    user: str | None = None,
    half_life: float | None = None,
) -> Person:
    """Put together what is known of a user and what is said here, which comes last and so counts as the latest.

    What is said here of an item replaces the user's earlier opinion of it; what is both liked and disliked here has no
    say. ``half_life``: days after which the user's events count half, from their last one; None: they do not fade.

    Raises
    ------
    InvalidInput
        If what is liked is no list, a weight is no finite number, or a user no str.
    ItemNotFound
        For an unknown id.
    """
    if user is not None and (not isinstance(user, str) or not user):
        raise InvalidInput(f"expected a user as a str that is not empty, got {user!r:.60}")
    told = [*_weighted("what is liked", liked, 1.0), *_weighted("what is disliked", disliked, -1.0)]
    keys, weights, times = EventBook(store.catalog).of_user(user) if user is not None else _nothing()
    notes = (f"nothing is known of the user {user!r}",) if user is not None and not len(keys) else ()
    own, others = _placed([like for like, _ in told], store, encoder)
    outside = iter(range(len(stock), len(stock) + len(others)))
    said = [next(outside) if position < 0 else position for position in stock.positions(own).tolist()]
    latest = float(np.nanmax(times)) if np.isfinite(times).any() else 0.0
    placed, given = np.array(said, dtype=np.int64), np.array([weight for _, weight in told], dtype=np.float64)
    items = np.concatenate([stock.positions(keys), placed])
    weights = np.where(np.isin(stock.positions(keys), placed), 0.0, _faded(weights, times, half_life))
    given[np.isin(placed, np.intersect1d(placed[given > 0], placed[given < 0]))] = 0.0
    history = Behaviour.of(
        np.zeros(len(items), dtype=np.int64),
        items,
        np.concatenate([weights, given]),
        # Each a moment after the one before: they have an order.
        np.concatenate([times, latest + 1.0 + np.arange(len(said))]),
        n_users=1,
        n_items=len(stock) + len(others),
    )
    rows = store.catalog.rows_by_key(np.unique(np.concatenate([keys, own[own >= 0]])).tolist())
    ids = dict(zip(stock.positions(np.array(list(rows), dtype=np.int64)).tolist(), rows.values(), strict=True))
    names = {position: str(row[1]) for position, row in ids.items()}
    names |= {len(stock) + n: _name(anchor) for n, anchor in enumerate(others)}
    seen = {row[5] or row[0] for row in rows.values()} | {group for anchor in others for group in anchor.barred}
    named = tuple(names[position] for position in history.items.tolist())
    return Person(history, named, frozenset(seen), tuple(anchor.vectors for anchor in others), notes)


def _placed(likes: Sequence[Like], store: Store, encoder: Callable[[], Encoder]) -> tuple[Keys, list[Anchor]]:
    """The key of each thing, (n,) int64, -1 for what is not in the store; and the latter, in their order.

    A picture is in the store if an item has it, wherever its file is.
    """
    meant = [meant_by(like, store) for like in likes]
    ids = [one for one in meant if isinstance(one, str)]
    stored = iter([row[0] for row in store.catalog.rows_by_id(ids)])
    given = encoded([one for one in meant if isinstance(one, Item)], encoder)
    pictures = [next(iter(anchor.barred), None) if "text" not in anchor.vectors else None for anchor in given]
    copies = store.catalog.rows_by_content({content for content in pictures if isinstance(content, bytes)})
    same = {row[5]: int(row[0]) for row in reversed(copies)}  # the first of several, by id
    found = [same.get(content, -1) for content in pictures]
    others = [anchor for anchor, key in zip(given, found, strict=True) if key < 0]
    kept = iter(found)
    keys = [next(stored) if isinstance(one, str) else next(kept) for one in meant]
    return np.array(keys, dtype=np.int64), others


def _nothing() -> tuple[Keys, NDArray[np.float32], NDArray[np.float64]]:
    return np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros(0, np.float64)


def _weighted(name: str, given: Liked, sign: float) -> list[tuple[Like, float]]:
    if isinstance(given, str | bytes | Path | Item | Hit) or not isinstance(given, Iterable):
        raise InvalidInput(
            f"expected {name} as a list of ids, pictures or items, got {given!r:.60}: put it in brackets"
        )
    if not isinstance(given, Mapping):
        return [(like, sign) for like in given]
    return [(id, sign * _weight(name, id, weight)) for id, weight in given.items()]


def _weight(name: str, id: str, weight: Any) -> float:  # noqa: ANN401 as it came
    if isinstance(weight, bool) or not isinstance(weight, Real) or not abs(float(weight)) < _MOST:
        raise InvalidInput(f"expected a finite number as the weight of {id!r:.60} in {name}, got {weight!r:.60}")
    return float(weight)


def _name(anchor: Anchor) -> str:
    """What to call a thing that is not in the store."""
    image = anchor.query.image
    return str(image) if isinstance(image, Path) else anchor.query.text or "a picture"


def _faded(weights: NDArray[Any], times: NDArray[np.float64], half_life: float | None) -> NDArray[Any]:
    """Weights that fall by half for each ``half_life`` days before the last event; unknown times are the oldest."""
    if half_life is None:
        return weights
    days = check_number("half_life", half_life, 1e-9)
    known = np.isfinite(times)
    if not known.any():
        return weights
    age = (times[known].max() - np.where(known, times, times[known].min())) / _DAY
    return np.asarray(weights * 0.5 ** (age / days))
