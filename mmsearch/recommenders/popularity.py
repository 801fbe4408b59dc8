"""``Popular`` and ``Random``: the same for everybody, and a baseline that knows nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mmsearch.behaviour import Behaviour
from mmsearch.recommenders.histories import as_plain, check_fit, check_learnt, check_number, check_one, seen_of
from mmsearch.recommenders.top import best_columns
from mmsearch.types import Keys
from mmsearch.vectors import check_k

_DAY = 86_400.0


class Popular:
    """What most people like, the same for everybody.

    The score is log(1 + n) of the n people who like an item, that is, whose weights for it sum to above 0. With
    ``half_life`` each of them counts 0.5 ** (age / half_life), where the age is that of their last liking event,
    counted from the newest event of all. Unknown times count as the oldest known one, and do not decay where none is
    known. Ties go by position.

    Parameters
    ----------
    half_life
        Days after which a like counts half; None: it never fades.

    Raises
    ------
    InvalidInput
        For a ``half_life`` that is not a number above 0.
    """

    name = "popular"
    n_items = -1

    def __init__(self, *, half_life: float | None = None) -> None:
        self.half_life = None if half_life is None else check_number("half_life", half_life, 1e-6)

    def fit(self, behaviour: Behaviour) -> Self:
        """Count people."""
        at = np.flatnonzero(behaviour.weights > 0)
        users, items = behaviour.users[at], behaviour.items[at]
        liked = behaviour.liked()
        known = users * behaviour.n_items + items
        pairs = np.repeat(np.arange(behaviour.n_users), np.diff(liked.indptr)) * behaviour.n_items + liked.indices
        # Each pair's last event: of equal keys, the largest decay.
        decay = self._decay(behaviour.times)[at]
        order = np.lexsort((decay, known))
        last = np.searchsorted(known[order], pairs, side="right") - 1
        counts = np.bincount(liked.indices, weights=decay[order][last], minlength=behaviour.n_items)
        self._scores = np.log1p(counts).astype(np.float32)
        self._order = np.argsort(-self._scores, kind="stable")
        self.n_items = behaviour.n_items
        return self

    def _decay(self, times: NDArray[np.float64]) -> NDArray[np.float64]:
        known = times[~np.isnan(times)]
        if self.half_life is None or not len(known):
            return np.ones(len(times))
        ages = known.max() - np.where(np.isnan(times), known.min(), times)
        return np.asarray(0.5 ** (ages / (_DAY * self.half_life)))

    def scores(self, histories: Behaviour, columns: Keys | None = None) -> NDArray[np.float32]:
        """The same row for each person, (n_users, n_items) or (n_users, m) float32; see ``Recommender``.

        Raises
        ------
        InvalidInput
            If nothing was learnt, or the histories or columns do not go with it.
        """
        asked = check_fit(histories, self.n_items, columns)
        row = self._scores if columns is None else self._scores[asked]
        return np.tile(row, (histories.n_users, 1))

    def candidates(self, histories: Behaviour, k: int) -> list[Keys]:
        """The k most popular unseen items, for each person; see ``Recommender``.

        Raises
        ------
        InvalidInput
            If nothing was learnt, the histories do not go with it, or k is not from 1 to 1,000,000.
        """
        check_k(k)
        check_fit(histories, self.n_items, ())
        answer = []
        for user in range(histories.n_users):
            seen = seen_of(histories, user)
            top = self._order[: k + len(seen)]
            answer.append(top[~np.isin(top, seen)][:k])
        return answer

    def contributions(self, history: Behaviour, column: int) -> NDArray[np.float32]:
        """Zeros, (n_events,): popularity does not rest on what the person had.

        Raises
        ------
        InvalidInput
            If nothing was learnt, it is not the history of one person, or the position is out of range.
        """
        check_fit(history, self.n_items, ())
        check_one(history, column)
        return np.zeros(len(history), np.float32)

    def state(self) -> dict[str, NDArray[Any]]:
        """``scores``, (n_items,) float32, and ``order``, (n_items,) int64, best first."""
        check_learnt(self.n_items)
        return {"scores": self._scores, "order": self._order}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> Self:
        """Take back what ``state`` gave; nothing is copied."""
        self._scores, self._order = as_plain(state["scores"]), as_plain(state["order"])
        self.n_items = len(self._scores)
        return self


class Random:
    """Scores from 0 to 1 by chance, to compare others with: the same for the same seed, history and item.

    Parameters
    ----------
    seed
        Another seed gives other scores.
    """

    name = "random"
    n_items = -1

    def __init__(self, *, seed: int = 0) -> None:
        self.seed = seed

    def fit(self, behaviour: Behaviour) -> Self:
        """Learn how many items there are."""
        self.n_items = behaviour.n_items
        return self

    def scores(self, histories: Behaviour, columns: Keys | None = None) -> NDArray[np.float32]:
        """Numbers from 0 to below 1, (n_users, n_items) or (n_users, m) float32; see ``Recommender``.

        Raises
        ------
        InvalidInput
            If nothing was learnt, or the histories or columns do not go with it.
        """
        asked = check_fit(histories, self.n_items, columns).astype(np.uint64)
        # A person is the multiset of their items: the same in any order, and in any company.
        sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(_mixed(histories.items.astype(np.uint64)))])
        people = _mixed(np.diff(sums[histories.starts]) + np.uint64(self.seed % 2**64))
        bits = np.stack([_mixed(person + asked) for person in people]) if len(people) else np.zeros((0, len(asked)))
        return (bits.astype(np.uint64) >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)

    def candidates(self, histories: Behaviour, k: int) -> list[Keys]:
        """The best k of all unseen items, for each person; see ``Recommender``.

        Raises
        ------
        InvalidInput
            If nothing was learnt, the histories do not go with it, or k is not from 1 to 1,000,000.
        """
        return [best.keys for best in best_columns(self, histories, k)]

    def contributions(self, history: Behaviour, column: int) -> NDArray[np.float32]:
        """Zeros, (n_events,): chance has no reasons.

        Raises
        ------
        InvalidInput
            If nothing was learnt, it is not the history of one person, or the position is out of range.
        """
        check_fit(history, self.n_items, ())
        check_one(history, column)
        return np.zeros(len(history), np.float32)

    def state(self) -> dict[str, NDArray[Any]]:
        """``n_items`` and ``seed``, (1,) each."""
        check_learnt(self.n_items)
        return {"n_items": np.array([self.n_items]), "seed": np.array([self.seed % 2**64], np.uint64)}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> Self:
        """Take back what ``state`` gave."""
        self.n_items, self.seed = int(state["n_items"][0]), int(state["seed"][0])
        return self


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64 (Steele et al., OOPSLA 2014): a counter to 64 bits that look random."""
    values = values * np.uint64(0x9E3779B97F4A7C15) + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
