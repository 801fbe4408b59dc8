"""``Behaviour``: who had what and when, by position, as the recommenders read it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmsearch.errors import InvalidInput
from mmsearch.types import Keys

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


@dataclass(frozen=True, slots=True, eq=False)
class Behaviour:
    """Events of users with items, user by user and each user's in the order of time.

    Both are positions: users 0 to ``n_users`` - 1, items 0 to ``n_items`` - 1. Make one with ``of``. A user may have
    no event at all: their history is empty.
    """

    n_items: int
    starts: Keys
    """(n_users + 1,) int64: where each user's events begin and end."""
    items: Keys
    """(n,) int64 item positions."""
    weights: NDArray[np.float32]
    """(n,) above 0 is liking, 0 mere seeing, below 0 disliking."""
    times: NDArray[np.float64]
    """(n,) seconds since 1970; NaN where unknown."""
    _cache: dict[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def of(
        cls,
        users: ArrayLike,
        items: ArrayLike,
        weights: ArrayLike | None = None,
        times: ArrayLike | None = None,
        *,
        n_users: int,
        n_items: int,
    ) -> Behaviour:
        """Put events in order; those of one user and time, or of unknown time, stay in the order given.

        Events of unknown time come before those of known time.

        Raises
        ------
        InvalidInput
            If the lengths differ, a position is out of range, or a weight is not finite.
        """
        who, what = np.asarray(users, dtype=np.int64), np.asarray(items, dtype=np.int64)
        much = np.ones(len(who), np.float32) if weights is None else np.asarray(weights, dtype=np.float32)
        when = np.full(len(who), np.nan) if times is None else np.asarray(times, dtype=np.float64)
        if not len(who) == len(what) == len(much) == len(when):
            raise InvalidInput(
                f"expected one user, item, weight and time an event, got {len(who)}, {len(what)}, {len(much)} and "
                f"{len(when)}"
            )
        for name, values, n in (("user", who, n_users), ("item", what, n_items)):
            if len(values) and not (values.min() >= 0 and values.max() < n):
                raise InvalidInput(f"expected {name} positions from 0 to {n - 1}, got {values.min()} to {values.max()}")
        if not np.isfinite(much).all():
            raise InvalidInput("expected finite weights, got NaN or infinity")
        order = np.lexsort((np.nan_to_num(when, nan=-np.inf), who))
        starts = np.concatenate([[0], np.cumsum(np.bincount(who, minlength=n_users))]).astype(np.int64)
        return cls(n_items, starts, what[order], much[order], when[order])

    @property
    def n_users(self) -> int:
        """How many users there are, those without an event included."""
        return len(self.starts) - 1

    @property
    def users(self) -> Keys:
        """(n,) int64: the user of each event."""
        return np.repeat(np.arange(self.n_users), np.diff(self.starts))

    def __len__(self) -> int:
        """How many events there are."""
        return len(self.items)

    def of_users(self, users: Sequence[int] | Keys) -> Behaviour:
        """The events of these users only, who are 0, 1, ... in the answer."""
        parts = [np.arange(self.starts[user], self.starts[user + 1]) for user in users]
        at = np.concatenate(parts) if parts else np.zeros(0, np.int64)
        starts = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)
        return Behaviour(self.n_items, starts, self.items[at], self.weights[at], self.times[at])

    def where(self, kept: NDArray[np.bool_]) -> Behaviour:
        """The events for which ``kept``, (n,), is true; all users stay."""
        counts = np.bincount(self.users[kept], minlength=self.n_users)
        starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        return Behaviour(self.n_items, starts, self.items[kept], self.weights[kept], self.times[kept])

    def over(self, n_items: int) -> Behaviour:
        """The events with the first ``n_items`` items, as behaviour over so many, which may be more than there were."""
        if n_items == self.n_items:
            return self
        kept = self.where(self.items < n_items) if n_items < self.n_items else self
        return Behaviour(n_items, kept.starts, kept.items, kept.weights, kept.times)

    def remembered(self, name: str, make: Callable[[Behaviour], NDArray[np.float32]]) -> NDArray[np.float32]:
        """What ``make`` makes of these events, made once for each name."""
        if name not in self._cache:
            self._cache[name] = make(self)
        found: NDArray[np.float32] = self._cache[name]
        return found

    def seen(self) -> csr_matrix:
        """(n_users, n_items) bool: who has had to do with what, in any way."""
        return self._sparse("seen", np.ones(len(self), dtype=bool))

    def liked(self) -> csr_matrix:
        """(n_users, n_items) float32: the summed weights of each pair, where that is above 0."""
        return self._sparse("liked", self.weights)

    def _sparse(self, name: str, values: NDArray[Any]) -> csr_matrix:
        from scipy.sparse import csr_matrix  # whose import takes long

        if name not in self._cache:
            matrix = csr_matrix((values, self.items, self.starts), shape=(self.n_users, self.n_items), copy=True)
            matrix.sum_duplicates()
            if name == "liked":
                matrix.data[matrix.data <= 0] = 0
                matrix.eliminate_zeros()
            self._cache[name] = matrix
        return self._cache[name]
