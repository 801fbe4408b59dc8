"""``Content``: more of what looks, reads or is labelled like what somebody liked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mmsearch.behaviour import Behaviour
from mmsearch.errors import InvalidInput
from mmsearch.recommenders.histories import averaged, check_fit, check_number, check_one, recency, says
from mmsearch.recommenders.itemvectors import ItemVectors, unit_or_zero
from mmsearch.recommenders.profiles import INTERESTS, MEAN, MOST_EVENTS, PROFILES, best_score, interests
from mmsearch.recommenders.top import best_columns
from mmsearch.types import Keys, Vectors
from mmsearch.vectors import best_first, check_k

_COSINES = 8_000_000
"""Cosines of things to items held at once: 32 MB."""
_BLOCK = 32_768
"""Items whose vectors are held at once, at most."""
_MORE = 4
"""So many times as many candidates as asked for are scored, where several things were sought by."""
_WANTED = 10
"""The last things liked that candidates are sought near, at most: each is a search of its own."""
Near = Callable[[Vectors, int], list[Keys]]
"""Finds the positions of about k items for each of (n, dim) vectors, as a vector index does."""


@dataclass(frozen=True, slots=True)
class _Things:
    """What was liked and disliked, (n,) each: positions of events, items, and how much say each has."""

    events: Keys
    items: Keys
    says: NDArray[np.float32]


class Content:
    """Cosines of an item to what a person likes, less what they dislike, in each field.

    It needs nobody's behaviour but the person's own, so that new items and new people are as good as any. Where an item
    has no vector in a field, that field adds 0.

    Parameters
    ----------
    fields
        Vectors of the items by field, such as ``picture``, ``text`` and ``details``.
    weights
        How much each field counts, in proportion; those not named do not. None: equally.
    decay
        What the say of an event is multiplied by for each later event of the same person; 1: all have the same. For
        the profiles ``mean`` and ``interests``.
    dislike
        How much a dislike counts against a like; for the profile ``mean``.
    profile
        ``mean``: the weighted mean of the cosines to what was liked and, less, disliked, which is in proportion to the
        cosine to their weighted mean (Rocchio's feedback without a query; Manning et al. 2008, section 9.1.1).
        ``nearest``: the cosine to the nearest liked thing (see ``best_score``). ``interests``: the same of the medoids
        of clusters of what was liked (see ``interests``). The last two go by the latest 500 events.
    near
        By field, what finds nearest items without looking at all of them; without any, all items are scored.

    Raises
    ------
    InvalidInput
        If there is no field, they are of different numbers of items, a weight is for a field that is not there, or a
        weight or setting is out of range.
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
        unknown = sorted(set(weights or {}) - set(fields))
        if unknown:
            raise InvalidInput(f"expected weights for {', '.join(fields)}, got one for {unknown[0]}")
        self.profile = profile
        self.fields = dict(fields)
        self.weights = {
            name: check_number(f"the weight of {name}", (weights or {}).get(name, 0.0 if weights else 1.0), 0)
            for name in fields
        }
        self.decay, self.dislike = check_number("decay", decay, 1e-6, 1), check_number("dislike", dislike, 0)
        self.n_items = len(next(iter(fields.values())))
        self._near = {name: near[name] for name in fields if near and name in near}

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
            if weight:
                things = [self._things(name, histories, say, user) for user in range(histories.n_users)]
                self._add_scores(answer, np.float32(weight), self.fields[name], things, asked)
        return answer

    def candidates(self, histories: Behaviour, k: int) -> list[Keys]:
        """The best k of the unseen items, for each person; see ``Recommender``.

        With ``near``, of those that it finds in its fields near what stands for the person, the last ten things liked
        for the profile ``nearest``. For ``mean`` and one field these are the best if ``near`` is exact.
        """
        if not self._near:
            return [best.keys for best in best_columns(self, histories, k)]
        check_k(k)
        check_fit(histories, self.n_items, ())
        found = []
        for user in range(histories.n_users):
            history = histories.of_users([user])
            among = np.setdiff1d(self._in_mind(history, k), history.items)
            found.append(best_first(among, self.scores(history, among)[0], k)[0])
        return found

    def _in_mind(self, history: Behaviour, k: int) -> Keys:
        """What is near to what stands for one person: k unseen items and more, if there are so many; some twice."""
        found, say = [np.zeros(0, np.int64)], self._says(history)
        for name in self._near:
            weight, things = self._shares()[name], self._things(name, history, say, 0)
            vectors = self.fields[name].take(things.items)
            wanted = (things.says @ vectors)[None] if self.profile == MEAN else vectors[things.says > 0]
            wanted = unit_or_zero(wanted)
            wanted = wanted[wanted.any(axis=1)][-_WANTED:]
            if weight and len(wanted):
                most = k + len(history)
                each = min(most, -(-_MORE * most // len(wanted)))
                found += self._near[name](wanted, each)
        return np.concatenate(found)

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
            cosines = self.fields[name].take(things.items) @ self.fields[name].take(np.array([column]))[0]
            parts[name] = np.zeros(len(history), dtype=np.float32)
            parts[name][things.events] = np.float32(weight) * self._parts(things, cosines)
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
            events, say = events[kept], say[kept]
        return _Things(events, histories.items[events], say)

    def _add_scores(
        self, answer: NDArray[np.float32], weight: np.float32, vectors: ItemVectors, things: list[_Things], asked: Keys
    ) -> None:
        """Add each person's scores of items in one field, times its weight, to ``answer``, (n_users, m)."""
        # People like the same things, so cosines are taken once for each thing.
        ends = np.cumsum([0, *(len(its.items) for its in things)])
        both, at = np.unique(np.concatenate([ends[:0], *(its.items for its in things)]), return_inverse=True)
        rows, whose = vectors.take(both), [at[start:end] for start, end in pairwise(ends)]
        if self.profile == MEAN:
            means = [its.says @ rows[own] for its, own in zip(things, whose, strict=True)]
            rows = np.array(means, dtype=np.float32).reshape(-1, vectors.dim)
        step = max(1, min(_BLOCK, _COSINES // max(1, len(rows))))
        for start in range(0, len(asked), step):
            part = slice(start, start + step)
            cosines = rows @ vectors.take(asked[part]).T
            if self.profile == MEAN:
                answer[:, part] += weight * cosines
                continue
            for user, (its, own) in enumerate(zip(things, whose, strict=True)):
                answer[user, part] += weight * best_score(cosines[own], its.says > 0)[0]

    def _parts(self, things: _Things, cosines: NDArray[np.float32]) -> NDArray[np.float32]:
        """What each thing adds to the score of an item, (n_things,), given its cosines to them."""
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
        """How much say each event has, by its weight and how long ago.

        A person's likes add up to 1, and their dislikes to ``-dislike``: Rocchio's means over each.
        """
        say = says(histories, 1.0) * np.abs(histories.weights) * recency(histories, self.decay)
        likes = averaged(np.maximum(say, 0), histories)
        return likes + np.float32(self.dislike) * averaged(np.minimum(say, 0), histories)

    def _shares(self) -> dict[str, float]:
        total = sum(self.weights.values()) or 1.0
        return {name: weight / total for name, weight in self.weights.items()}
