"""``Blend``: the items with the largest weighted sum of cosines in several fields."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from mmsearch.filters import Condition
from mmsearch.queries import Resolved
from mmsearch.retrieval import Candidate, FieldSearch, Groups, Retriever, best_groups
from mmsearch.store import View
from mmsearch.types import Vectors
from mmsearch.vectors import MAX_K, SCORE_DECIMALS

_LEAST, _TIMES, _GROWTH = 100, 2, 4
"""Each field is asked for ``_TIMES`` k groups, at least ``_LEAST``, and for ``_GROWTH`` times as many as often as it
takes: more than are needed cost little beside one more question."""
_DEEPEST = 10_000
"""Where a graph answers a field, nobody asks it for more than this unless the answer has to be exact."""


_Lists: TypeAlias = dict[str, dict[int, Candidate]]
"""What was found, by field and by key."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is looked for: a unit vector, (dim,), for each field, and what one unit of cosine there adds to a sum.

    ``shares`` may name fewer fields than ``vectors`` does; ``barred`` are groups that must not be found.
    """

    vectors: Mapping[str, Vectors]
    shares: Mapping[str, float]
    barred: Groups = frozenset()


@dataclass(frozen=True, slots=True)
class Found:
    """A candidate with the weighted sum as its score, and its cosine in each field that it has, pictures first."""

    candidate: Candidate
    cosines: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Blend:
    """The best groups by a weighted sum of cosines in several fields.

    Each field gives its best items, and each item so found is looked up in the other fields. What no field has given
    has at most the last cosine given in each. Once k groups have larger sums than these cosines make, no other can be
    among the best k: the threshold algorithm (Fagin, Lotem & Naor, JCSS 2003, section 4).
    """

    retriever: Retriever
    view: View
    condition: Condition | None
    exact: bool

    def run(self, asked: Sequence[Asked], k: int) -> list[list[Found]]:
        """The best k groups for each, equal sums by id."""
        answers: list[list[Found]] = [[] for _ in asked]
        waiting, n = list(range(len(asked))), max(_LEAST, _TIMES * k)
        deepest = min(MAX_K, max(n, _DEEPEST) if self._guesses else MAX_K)
        while waiting:
            n = min(n, deepest)
            again = []
            tried = self._try([asked[i] for i in waiting], n)
            for i, (lists, unseen) in zip(waiting, tried, strict=True):
                best = best_groups(list(_summed(lists, asked[i].shares)), k)
                answers[i] = [Found(one, _cosines(lists, one.key)) for one in best]
                last = round(best[-1].score, SCORE_DECIMALS) if len(best) == k else -math.inf
                if n < deepest and last <= round(unseen, SCORE_DECIMALS) and unseen > -math.inf:
                    again.append(i)
            waiting, n = again, n * _GROWTH
        return answers

    @property
    def _guesses(self) -> bool:
        """Whether some field is searched by a graph, where long lists are dear and an answer may be off anyway."""
        return not self.exact and any(self.view.spaces[name].graph() is not None for name in self.view.held)

    def _try(self, asked: Sequence[Asked], n: int) -> list[tuple[_Lists, float]]:
        """For each the best n groups of each field, looked up in all, and the most that any other's sum may be."""
        lists: list[_Lists] = [{} for _ in asked]
        ends: list[list[float]] = [[] for _ in asked]
        searches = list(self._searches(asked, n))
        for name, places, search, resolved in searches:
            for i, found in zip(places, search.run(resolved), strict=True):
                lists[i][name] = {one.key: one for one in found}
                if len({one.group for one in found}) >= n:  # else it has given all that it has
                    # An item that lacks the field counts 0 there, which may be more.
                    ends[i].append(asked[i].shares[name] * max(0.0, min(one.score for one in found)))
        for name, places, search, resolved in searches:
            missing = [sorted(set().union(*lists[i].values()) - lists[i][name].keys()) for i in places]
            for i, found in zip(places, search.of_items(resolved, missing), strict=True):
                lists[i][name] |= {one.key: one for one in found}
        return [(found, sum(its) if its else -math.inf) for found, its in zip(lists, ends, strict=True)]

    def _searches(self, asked: Sequence[Asked], n: int) -> Iterator[tuple[str, list[int], FieldSearch, Resolved]]:
        """For each field its name, the places of those that are compared in it, its search, their vectors."""
        for name in self.view.held:
            places = [i for i, one in enumerate(asked) if name in one.shares]
            if places:
                barred, space = [asked[i].barred for i in places], self.view.spaces[name]
                search = self.retriever.within(self.view, space, self.condition, barred, n, self.exact)
                vectors = np.stack([asked[i].vectors[name] for i in places])
                yield name, places, search, Resolved(vectors, (name,) * len(places))


def _summed(lists: _Lists, shares: Mapping[str, float]) -> Iterator[Candidate]:
    """Every item found, with the weighted sum of its cosines."""
    for key in set().union(*lists.values()):
        own = [(name, its[key]) for name, its in lists.items() if key in its]
        score = sum(shares[name] * one.score for name, one in own)
        first = own[0][1]
        yield Candidate(key, first.id, first.content, score, first.field)


def _cosines(lists: _Lists, key: int) -> dict[str, float]:
    """An item's cosine in each field that it has."""
    return {name: round(its[key].score, SCORE_DECIMALS) for name, its in lists.items() if key in its}
