"""``Content``: more of what looks, reads or is labelled like what somebody liked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mmsearch.behaviour import Behaviour
from mmsearch.errors import InvalidInput
from mmsearch.recommenders.histories import averaged, check_fit, check_number, check_one, recency, says
from mmsearch.recommenders.itemvectors import ItemVectors, unit_or_zero
from mmsearch.recommenders.profiles import INTERESTS, MEAN, MOST_EVENTS, PROFILES, best_score, interests
from mmsearch.types import Keys, Vectors
from mmsearch.vectors import best_first, check_k

_BLOCK = 32_768
Near = Callable[[Vectors, int], list[Keys]]
"""Finds the positions of about k items for each of (n, dim) vectors, as a vector index does."""


@dataclass(frozen=True, slots=True)
class _Things:
    """What was liked and disliked: (n,) positions of events, (n, dim) vectors, (n,) how much say each has."""

    events: Keys
    vectors: Vectors
    says: NDArray[np.float32]


class Content:
    """Cosines of an item to what a person likes, less what they dislike, in each field.

    It needs nobody's behaviour but the person's own, so that new items and new people are as good as any.

    Parameters
    ----------
    fields
        Vectors of the items by field, such as ``picture``, ``text`` and ``details``.
    weights
        How much each field counts; None: equally.
    decay
        What the say of an event is multiplied by for each later event of the same person; 1: all have the same.
    dislike
        How much a dislike counts against a like; for the profile ``mean``.
    profile
        ``mean``: the cosine to the weighted mean of the liked, less ``dislike`` times that of the disliked (Rocchio's
        feedback without a query; Manning et al. 2008, section 9.1.1). ``nearest``: the cosine to the nearest liked
        thing (see ``best_score``). ``interests``: the same of the medoids of clusters of what was liked (see
        ``interests``).
    near
        By field, what finds nearest items without looking at all of them; fields without one are scanned.

    Raises
    ------
    InvalidInput
        If there is no field, they are of different numbers of items, or a weight or setting is out of range.
    """

    name = "content"

    def __init__(
        self,
        fields: Mapping[str, ItemVectors],
        *,
        weights: Mapping[str, float] | None = None,
        decay: float = 1.0,
        dislike: float = 0.5,
        profile: str = MEAN,
        near: Mapping[str, Near] | None = None,
    ) -> None:
        if not fields or len({len(vectors) for vectors in fields.values()}) > 1:
            raise InvalidInput("expected vectors of at least one field, and as many items in each")
        if profile not in PROFILES:
            raise InvalidInput(f"expected profile as {', '.join(PROFILES)}, got {profile!r}")
        self.profile = profile
        self.fields = dict(fields)
        self.weights = {
            name: check_number(f"the weight of {name}", (weights or {}).get(name, 0.0 if weights else 1.0), 0)
            for name in fields
        }
        self.decay, self.dislike = check_number("decay", decay, 1e-6, 1), check_number("dislike", dislike, 0)
        self.n_items = len(next(iter(fields.values())))
        self._near = dict(near or {})

    def fit(self, behaviour: Behaviour) -> Self:
        """Nothing is learnt from others.

        Raises
        ------
        InvalidInput
            If the behaviour is of another number of items.
        """
        check_fit(behaviour, self.n_items, ())
        return self

    def scores(self, histories: Behaviour, columns: Keys | None = None) -> NDArray[np.float32]:
        """Weighted mean of what each field says, (n_users, n_items) or (n_users, m) float32; see ``Recommender``."""
        asked = check_fit(histories, self.n_items, columns)
        answer, say = np.zeros((histories.n_users, len(asked)), dtype=np.float32), self._says(histories)
        for name, weight in self._shares().items():
            things = [self._things(name, histories, say, user) for user in range(histories.n_users)]
            for start in range(0, len(asked), _BLOCK):
                part = slice(start, start + _BLOCK)
                vectors = self.fields[name].take(asked[part])
                for user, its in enumerate(things):
                    answer[user, part] += weight * self._scored(its, vectors)
        return answer

    def candidates(self, histories: Behaviour, k: int) -> list[Keys]:
        """The nearest of each field and interest in turn, seen ones among them; see ``Recommender``."""
        check_k(k)
        check_fit(histories, self.n_items, ())
        lists: list[list[Keys]] = [[] for _ in range(histories.n_users)]
        say = self._says(histories)
        for name, weight in self._shares().items():
            near = self._near.get(name, self._scan(name))
            for user in range(histories.n_users if weight else 0):
                things = self._things(name, histories, say, user)
                wanted = (
                    (things.says @ things.vectors)[None] if self.profile == MEAN else things.vectors[things.says > 0]
                )
                wanted = unit_or_zero(wanted.reshape(-1, self.fields[name].dim))
                wanted = wanted[np.abs(wanted).max(axis=1, initial=0) > 0]
                lists[user] += near(wanted, k) if len(wanted) else []
        return [_in_turn(its, k) for its in lists]

    def contributions(self, history: Behaviour, column: int) -> NDArray[np.float32]:
        """How much each event adds to an item's score, (n_events,) float32; the score is their sum."""
        parts = self.by_field(history, column)
        return sum(parts.values(), np.zeros(len(history), dtype=np.float32))

    def by_field(self, history: Behaviour, column: int) -> dict[str, NDArray[np.float32]]:
        """What each event adds to an item's score, (n_events,) float32, in each field.

        Raises
        ------
        InvalidInput
            If it is not the history of one person, or the position is out of range.
        """
        check_fit(history, self.n_items)
        check_one(history, column)
        say, parts = self._says(history), {}
        for name, weight in self._shares().items():
            things = self._things(name, history, say, 0)
            vector = self.fields[name].take(np.array([column]))[0]
            parts[name] = np.zeros(len(history), dtype=np.float32)
            parts[name][things.events] = np.float32(weight) * self._parts(things, vector)
        return parts

    def _things(self, name: str, histories: Behaviour, says_: NDArray[np.float32], user: int) -> _Things:
        """What stands for a person in a field."""
        start, end = histories.starts[user], histories.starts[user + 1]
        if self.profile != MEAN:
            start = max(start, end - MOST_EVENTS)
        say = says_[start:end]
        events = np.flatnonzero(say) + start
        vectors = self.fields[name].take(histories.items[events])
        has = np.abs(vectors).max(axis=1, initial=0) > 0
        events, vectors = events[has], vectors[has]
        say = say[events - start]
        if self.profile == INTERESTS:
            likes = np.flatnonzero(say > 0)
            kept = np.concatenate([likes[interests(vectors[likes], say[likes])[0]], np.flatnonzero(say < 0)])
            events, vectors, say = events[kept], vectors[kept], say[kept]
        return _Things(events, vectors, say)

    def _scored(self, things: _Things, vectors: Vectors) -> NDArray[np.float32]:
        """Scores of items, (m,)."""
        if self.profile == MEAN:
            scores: NDArray[np.float32] = vectors @ (things.says @ things.vectors)
            return scores
        return best_score(things.vectors @ vectors.T, things.says > 0)[0]

    def _parts(self, things: _Things, vector: Vectors) -> NDArray[np.float32]:
        """What each thing adds to the score of an item, (n_things,), given its (dim,) vector."""
        cosines = things.vectors @ vector
        if self.profile == MEAN:
            return things.says * cosines
        scores, decided = best_score(cosines[:, None], things.says > 0)
        return np.where(np.arange(len(cosines)) == decided[0], scores[0], np.float32(0))

    def state(self) -> dict[str, NDArray[Any]]:
        """Nothing: the vectors are the store's."""
        return {}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> Self:
        """Take back nothing."""
        return self

    def _says(self, histories: Behaviour) -> NDArray[np.float32]:
        """How much say each event has: those of a person add up to 1 in size."""
        return averaged(says(histories, self.dislike) * recency(histories, self.decay), histories)

    def _shares(self) -> dict[str, float]:
        total = sum(self.weights.values()) or 1.0
        return {name: weight / total for name, weight in self.weights.items()}

    def _scan(self, name: str) -> Near:
        vectors = self.fields[name]

        def near(profiles: Vectors, k: int) -> list[Keys]:
            best = [(np.zeros(0, np.int64), np.zeros(0, np.float32))] * len(profiles)
            for start, block in vectors.blocks():
                keys = np.arange(start, start + len(block))[vectors.there[start : start + len(block)]]
                for n, row in enumerate(profiles @ block.T):
                    both = np.concatenate([best[n][1], row[keys - start]])
                    best[n] = best_first(np.concatenate([best[n][0], keys]), both, k)
            return [keys for keys, _ in best]

        return near


def _in_turn(lists: list[Keys], k: int) -> Keys:
    """The first of each list, then the second of each, and so on: k different ones."""
    longest = max((len(one) for one in lists), default=0)
    turns = [int(one[n]) for n in range(longest) for one in lists if n < len(one)]
    return np.array(list(dict.fromkeys(turns))[:k], dtype=np.int64)
