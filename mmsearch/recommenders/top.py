"""The exact best items for many people, in blocks of bounded memory."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol, runtime_checkable

import numpy as np

from mmsearch.behaviour import Behaviour
from mmsearch.protocols import Recommender
from mmsearch.recommenders.histories import seen_of
from mmsearch.types import Keys, Neighbors, Vectors
from mmsearch.vectors import best_first, check_k

_SCORES = 8_000_000
"""Scores held at once: 32 MB."""
_PEOPLE, _ITEMS = 512, 4_096
"""A block of a product: 8 MB, where matrix products reach the processor's speed."""
_SORTED_IN = 16
"""Blocks whose finds are kept before they are sorted in."""
_NOISE = 4e-6
"""Inner products of float32 vectors are this exact, as a share of the product of their lengths."""


@dataclass(frozen=True, slots=True)
class ByLength:
    """Vectors, (n, dim) float32, their lengths, (n,) float32, and their positions, (n,) int64, the longest first.

    With fewer positions only these are searched.
    """

    items: Vectors
    lengths: Vectors
    order: Keys

    @classmethod
    def of(cls, items: Vectors) -> ByLength:
        """Sort vectors by length."""
        lengths = np.sqrt(np.einsum("nd,nd->n", items, items))
        return cls(items, lengths, np.argsort(-lengths, kind="stable"))

    def longest(self, n: int) -> ByLength:
        """The n longest of them alone."""
        return ByLength(self.items, self.lengths, self.order[:n])


@runtime_checkable
class Factored(Protocol):
    """A recommender whose scores are inner products."""

    @property
    def by_length(self) -> ByLength:
        """The items' vectors, (n_items, dim) float32, sorted once."""
        ...

    def user_vectors(self, histories: Behaviour) -> Vectors:
        """(n_users, dim) float32."""
        ...


def best_columns(
    recommender: Recommender, histories: Behaviour, k: int, *, exclude_seen: bool = True, block: int | None = None
) -> list[Neighbors]:
    """The k items with the highest scores, for each person, of all items: exactly, ties by position.

    Recommenders with ``user_vectors`` and ``by_length`` are searched by blocked products, others by blocks of
    ``scores``.

    Parameters
    ----------
    recommender
        Fitted.
    histories
        The people.
    k
        How many; fewer come back where there are fewer items.
    exclude_seen
        Leave out what a person has had to do with in any way.
    block
        How many people at once, for less or more memory.

    Returns
    -------
    list of Neighbors
        Item positions and scores, best first, for each person.

    Raises
    ------
    InvalidInput
        If nothing was learnt, the histories do not go with it, or k is not from 1 to 1,000,000.
    """
    check_k(k)
    if isinstance(recommender, Factored):
        users = recommender.user_vectors(histories)
        hidden = histories if exclude_seen else None
        return best_products(users, recommender.by_length, k, hidden, block=block or _PEOPLE)
    answer = []
    step = block or max(1, _SCORES // max(1, histories.n_items))
    for start in range(0, histories.n_users, step):
        some = histories.of_users(range(start, min(start + step, histories.n_users)))
        for user, row in enumerate(recommender.scores(some)):
            left = np.ones(len(row), dtype=bool)
            left[seen_of(some, user) if exclude_seen else []] = False
            keys = np.flatnonzero(left)
            answer.append(Neighbors(*best_first(keys, row[keys], k)))
    return answer


def best_products(
    users: Vectors,
    items: Vectors | ByLength,
    k: int,
    seen: Behaviour | None = None,
    *,
    block: int = _PEOPLE,
    floor: Vectors | None = None,
) -> list[Neighbors]:
    """The k items with the highest inner products, for each row of ``users``, without what they have seen.

    Blocks of products are compared with the k-th best so far, and only what reaches it is looked at. The longest items
    come first, and the search ends for whom the rest are too short (Teflioudi et al., SIGMOD 2015). The answer is
    exact: its scores are summed in a fixed order, so that equal items are equal whichever block they fall in.

    Parameters
    ----------
    users, items
        (n_users, dim) and (n_items, dim) float32; items sorted already save the time for it.
    k
        How many.
    seen
        What to leave out for each person; None leaves out nothing.
    block
        How many people at once.
    floor
        Below these, (n_users,), inner products need not be looked at; None: all count.
    """
    by_length = items if isinstance(items, ByLength) else ByLength.of(items)
    answer: list[Neighbors] = []
    for start in range(0, len(users), block):
        some = np.ascontiguousarray(users[start : start + block])
        hidden = _hidden(seen, start, len(some), len(by_length.items))
        best = _Best(some, by_length, k, hidden)
        if floor is not None:
            best.bar = np.maximum(best.bar, floor[start : start + block] - best.noise)
        answer += best.run()
    return answer


def _hidden(seen: Behaviour | None, start: int, n: int, n_items: int) -> Keys:
    """What n people must not get, as sorted numbers: person * n_items + item."""
    if seen is None:
        return np.zeros(0, np.int64)
    events = slice(seen.starts[start], seen.starts[start + n])
    people = np.repeat(np.arange(n), np.diff(seen.starts[start : start + n + 1]))
    return np.unique(people * n_items + seen.items[events])


class _Best:
    """The best k items so far of a block of people."""

    def __init__(self, users: Vectors, by_length: ByLength, k: int, hidden: Keys) -> None:
        self.users, self.by_length, self.items, self.hidden = users, by_length, by_length.items, hidden
        self.k = min(k, len(self.items))
        self.people, self.keys = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self.scores = np.zeros(0, np.float32)
        self.lengths = np.sqrt(np.einsum("nd,nd->n", users, users))
        self.noise = np.asarray(_NOISE * by_length.lengths.max(initial=0.0) * self.lengths, dtype=np.float32)
        self.bar = np.full(len(users), -np.inf, np.float32)
        """What a product must reach to be looked at, (n_users,)."""
        self._raise_bar(np.sort(by_length.order[:_ITEMS]))
        self.bar[self.noise == 0] = np.inf  # else all items would be looked at, to find that they are equal

    def _raise_bar(self, probe: Keys) -> None:
        """Look for at least as much as the k-th best of some items, (n,) sorted positions."""
        if not 0 < self.k <= len(probe):
            return
        products = self.users @ self.items[probe].T
        people, keys = np.divmod(self.hidden, len(self.items))
        place = np.minimum(np.searchsorted(probe, keys), len(probe) - 1)
        there = probe[place] == keys
        products[people[there], place[there]] = -np.inf
        self.bar = np.partition(products, len(probe) - self.k, axis=1)[:, len(probe) - self.k] - self.noise

    def run(self) -> list[Neighbors]:
        """Go through the items, the longest first, until no product can reach what was found."""
        found: list[tuple[Keys, Keys, Vectors]] = []
        for number, start in enumerate(range(0, len(self.by_length.order), _ITEMS), start=1):
            keys = self.by_length.order[start : start + _ITEMS]
            alive = np.flatnonzero(self.lengths * self.by_length.lengths[keys[0]] + self.noise >= self.bar)
            if not len(alive):
                break
            products = self.users[alive] @ self.items[keys].T
            people, at = np.divmod(np.flatnonzero(products >= self.bar[alive, None]), len(keys))
            if len(people):
                found.append(self._look(alive[people], keys[at]))
            if number == 1 or number % _SORTED_IN == 0:
                self._sort_in(found)
                found = []
        self._sort_in(found)
        return self._answer()

    def _answer(self) -> list[Neighbors]:
        """What was found, for each person; where all scores are 0, the first items."""
        ends = np.searchsorted(self.people, np.arange(len(self.users) + 1))
        found = [Neighbors(self.keys[begin:end], self.scores[begin:end]) for begin, end in pairwise(ends)]
        for person in np.flatnonzero(self.noise == 0):
            begin, end = np.searchsorted(self.hidden, [person * len(self.items), (person + 1) * len(self.items)])
            hidden = self.hidden[begin:end] - person * len(self.items)
            first = np.setdiff1d(np.arange(min(self.k + len(hidden), len(self.items))), hidden)[: self.k]
            found[person] = Neighbors(first, np.zeros(len(first), np.float32))
        return found

    def _look(self, people: Keys, keys: Keys) -> tuple[Keys, Keys, Vectors]:
        """Pairs that may be among the best, without the hidden ones, with their exact scores."""
        pairs = people * len(self.items) + keys
        kept = np.append(self.hidden, -1)[np.searchsorted(self.hidden, pairs)] != pairs
        people, keys = people[kept], keys[kept]
        scores = np.empty(len(keys), np.float32)
        for start in range(0, len(keys), _ITEMS):
            some = slice(start, start + _ITEMS)
            scores[some] = np.einsum("nd,nd->n", self.users[people[some]], self.items[keys[some]])
        reached = scores >= self.bar[people]
        return people[reached], keys[reached], scores[reached]

    def _sort_in(self, found: list[tuple[Keys, Keys, Vectors]]) -> None:
        if not found:
            return
        people = np.concatenate([self.people, *(part[0] for part in found)])
        keys = np.concatenate([self.keys, *(part[1] for part in found)])
        scores = np.concatenate([self.scores, *(part[2] for part in found)])
        order = np.lexsort((keys, -scores, people))
        people = people[order]
        rank = np.arange(len(order)) - np.searchsorted(people, people)
        best = rank < self.k
        self.people, self.keys, self.scores = people[best], keys[order[best]], scores[order[best]]
        last = np.flatnonzero(rank[best] == self.k - 1)
        whose = self.people[last]
        self.bar[whose] = np.maximum(self.bar[whose], self.scores[last] - self.noise[whose])
