"""Why an item was recommended: which kinds of evidence speak for it, and which of a person's items they rest on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from mmsearch.lineup import POPULAR, REASONS, TOGETHER
from mmsearch.people import Person
from mmsearch.protocols import Recommender
from mmsearch.recommenders.content import Content
from mmsearch.recommenders.hybrid import Hybrid
from mmsearch.recommenders.popularity import Popular
from mmsearch.types import Reason
from mmsearch.vectors import best_first

_Evidence: TypeAlias = tuple[str, float, NDArray[np.float32]]
"""Its kind, how much it adds to a score, and what of that each event adds, (n_events,)."""
_NAMED = 2
"""Items of the person's that are named for each kind of evidence."""
_LEAST = 0.005
"""A smaller share would be shown as nothing."""


def reasons_of(model: Recommender, person: Person, positions: Sequence[int]) -> list[tuple[Reason, ...]]:
    """The evidence for each item, the strongest first; shares of what speaks for it add up to 1, but for rounding.

    There is none for an item that the model does not know, or against which there is more than for it in all respects.

    Parameters
    ----------
    person
        With a history over as many items as the model knows.
    """
    known = [position for position in positions if position < model.n_items]
    said = dict(zip(known, _said(model, person, known), strict=True))
    return [_reasons(said.get(position, ()), person) for position in positions]


def _reasons(said: Sequence[_Evidence], person: Person) -> tuple[Reason, ...]:
    amounts: dict[str, float] = {}
    by_event: dict[str, NDArray[np.float32]] = {}
    for kind, amount, parts in said:
        amounts[kind] = amounts.get(kind, 0.0) + max(0.0, amount)
        by_event[kind] = by_event.get(kind, np.zeros(len(parts), np.float32)) + parts
    total = sum(amounts.values())
    kinds = sorted((kind for kind in amounts if amounts[kind] > _LEAST * total), key=lambda kind: -amounts[kind])
    return tuple(Reason(kind, round(amounts[kind] / total, 4), _strongest(by_event[kind], person)) for kind in kinds)


def _said(model: Recommender, person: Person, positions: Sequence[int]) -> list[list[_Evidence]]:
    """For each item the kinds of evidence, how much each adds to the score, and what of that each event adds."""
    history = person.history
    if isinstance(model, Hybrid):
        said = model.says(history, np.array(positions, dtype=np.int64))
        return [[(say.part.reason, say.amount, say.by_event) for say in its] for its in said]
    if isinstance(model, Content):
        by_field = [model.by_field(history, position) for position in positions]
        return [[(REASONS[name], float(parts.sum()), parts) for name, parts in its.items()] for its in by_field]
    if isinstance(model, Popular):
        none = np.zeros(len(person.names), np.float32)
        scores = model.scores(history, np.array(positions, dtype=np.int64))[0]
        return [[(POPULAR, float(score), none)] for score in scores]
    contributions = [model.contributions(history, position) for position in positions]
    return [[(TOGETHER, float(parts.sum()), parts)] for parts in contributions]


def _strongest(parts: NDArray[np.float32], person: Person) -> tuple[str, ...]:
    """Names of the items whose events add most, those that add something."""
    items, first, place = np.unique(person.history.items, return_index=True, return_inverse=True)
    sums = np.bincount(place, weights=parts, minlength=len(items)).astype(np.float32)
    opinions = np.bincount(place, weights=person.history.weights, minlength=len(items))
    kept = np.flatnonzero((sums > 0) & (opinions > 0))  # nothing is recommended because of what is disliked
    best, _ = best_first(kept, sums[kept], _NAMED)
    return tuple(dict.fromkeys(person.names[event] for event in first[best].tolist()))
