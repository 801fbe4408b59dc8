"""What the recommenders read off histories: who likes what, how much say each event has, and whether they fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmsearch.behaviour import Behaviour
from mmsearch.errors import InvalidInput
from mmsearch.types import Keys
from mmsearch.vectors import as_keys

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


def check_fit(histories: Behaviour, n_items: int, columns: ArrayLike | None = None) -> Keys:
    """Return the item positions that are asked for: ``columns``, (m,) int64, or all of them if None.

    Raises
    ------
    InvalidInput
        If the recommender has learnt nothing yet (``n_items`` below 0), the histories are of another number of items,
        or a position is out of range.
    """
    check_learnt(n_items)
    if histories.n_items != n_items:
        raise InvalidInput(f"expected histories over {n_items} items as at fitting, got {histories.n_items}: fit anew")
    if columns is None:
        return np.arange(n_items)
    keys = as_keys(columns)
    if len(keys) and keys.max() >= n_items:
        raise InvalidInput(f"expected item positions from 0 to {n_items - 1}, got {keys.max()}")
    return keys


def check_learnt(n_items: int) -> None:
    """Check that a recommender, which knows ``n_items``, has learnt something.

    Raises
    ------
    InvalidInput
        If ``n_items`` is below 0.
    """
    if n_items < 0:
        raise InvalidInput("expected a recommender that has learnt something: call fit or restore first")


def check_one(history: Behaviour, column: int) -> None:
    """Check that a history is of one person, and ``column`` the position of an item.

    Raises
    ------
    InvalidInput
        Otherwise.
    """
    if history.n_users != 1:
        raise InvalidInput(f"expected the history of one person, got those of {history.n_users}")
    if not 0 <= column < history.n_items:
        raise InvalidInput(f"expected an item position from 0 to {history.n_items - 1}, got {column}")


def check_number(name: str, value: float, low: float, high: float = np.inf) -> float:
    """Return a setting if it is a finite number from ``low`` to ``high``.

    Raises
    ------
    InvalidInput
        Otherwise.
    """
    if not (np.isfinite(value) and low <= value <= high):
        raise InvalidInput(f"expected {name} as a number from {low:g} to {high:g}, got {value!r}")
    return value


def likes(behaviour: Behaviour) -> csr_matrix:
    """(n_users, n_items) float32 csr matrix: 1 where the weights of a person and an item sum to above 0."""
    matrix = behaviour.liked().copy()
    matrix.data[:] = 1.0
    matrix.sort_indices()
    return matrix


def opinions(behaviour: Behaviour) -> csr_matrix:
    """(n_users, n_items) float32 csr matrix: the summed weights of each person and item, where they are not 0."""
    from scipy.sparse import csr_matrix  # whose import takes long

    shape = (behaviour.n_users, behaviour.n_items)
    matrix = csr_matrix((behaviour.weights, behaviour.items, behaviour.starts), shape=shape, copy=True)
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    return matrix


def shares(histories: Behaviour) -> NDArray[np.float32]:
    """Each event's part in its person's opinion of its item, (n_events,): together 1, -1 or 0 for each such pair.

    An opinion is the sign of the summed weights. It is shared equally among the events of that sign, so that what is
    told twice counts once; the others have no part in it.
    """
    _, pair = np.unique(histories.users * histories.n_items + histories.items, return_inverse=True)
    sign = np.sign(np.bincount(pair, weights=histories.weights))[pair] if len(histories) else np.zeros(0)
    agreeing = (np.sign(histories.weights) == sign) & (sign != 0)
    return np.divide(sign, np.bincount(pair, weights=agreeing)[pair], where=agreeing, out=np.zeros(len(pair))).astype(
        np.float32
    )


def says(histories: Behaviour, dislike: float) -> NDArray[np.float32]:
    """How much say each event has, (n_events,) float32: ``shares``, with dislikes times ``dislike``."""
    parts = histories.remembered("shares", shares)
    return np.where(parts < 0, np.float32(dislike) * parts, parts)


def averaged(says: NDArray[np.float32], histories: Behaviour) -> NDArray[np.float32]:
    """Says, (n_events,), divided by the sum of their sizes for each person, so that they add up to 1; zeros stay."""
    total = np.bincount(histories.users, weights=np.abs(says), minlength=histories.n_users)
    return np.asarray(says / np.where(total > 0, total, 1.0)[histories.users], dtype=np.float32)


def recency(histories: Behaviour, decay: float) -> NDArray[np.float32]:
    """``decay`` ** (how many steps an event is before its person's end), (n_events,); 1 for the last.

    Events of one person at the same known time have no order: each is as far from the end as they are on the mean.
    Where times are unknown, the order given counts.
    """
    steps = histories.remembered("steps", _steps_back)
    return np.asarray(decay ** steps.astype(np.float64), dtype=np.float32)


def _steps_back(histories: Behaviour) -> NDArray[np.float32]:
    users, times = histories.users, histories.times
    steps = histories.starts[1:][users] - 1 - np.arange(len(histories))
    alone = np.ones(len(histories), dtype=bool)
    # NaN is equal to nothing: what has no time keeps its order.
    alone[1:] = (users[1:] != users[:-1]) | (times[1:] != times[:-1])
    group = np.cumsum(alone) - 1
    mean = (np.bincount(group, weights=steps) / np.maximum(np.bincount(group), 1))[group]
    return np.asarray(mean, dtype=np.float32)


def seen_of(histories: Behaviour, user: int) -> Keys:
    """Positions of what a person has had to do with, (n,) sorted int64, each once."""
    return np.unique(histories.items[histories.starts[user] : histories.starts[user + 1]])


def as_plain(array: NDArray[Any]) -> NDArray[Any]:
    """The same memory without the cost that memory-mapped arrays add to each operation."""
    return np.asarray(array).view(np.ndarray)
