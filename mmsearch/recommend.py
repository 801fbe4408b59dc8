"""``Desk``: answers ``Engine.recommend`` and ``Engine.next``: what suits somebody, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from mmsearch.catalog import item_of
from mmsearch.errors import InvalidInput
from mmsearch.filters import Filter
from mmsearch.people import Liked, Person, person_of
from mmsearch.picking import Wishes
from mmsearch.protocols import Recommender
from mmsearch.ranking import Ranker
from mmsearch.reasons import reasons_of
from mmsearch.recommenders.content import Content
from mmsearch.recommenders.itemvectors import ItemVectors, unit_or_zero
from mmsearch.recommenders.profiles import MEAN, NEAREST
from mmsearch.retrieval import Candidate, best_groups, condition_of
from mmsearch.store import Store
from mmsearch.tastes import Learnt, Tastes
from mmsearch.types import Hit, Keys, Vectors
from mmsearch.vectors import best_first, check_k

_SCORED = 20_000
"""Up to so many items are all scored; of more, those that the models have in mind."""
_LEAST = 100
"""Items that are looked at for a list, at least; more as often as it takes."""
_GROWTH = 4


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked for: how many, among which, by what, and what the list should be like.

    ``fields`` are weights of content by field, and ``profile`` how it is read; with either, behaviour is left aside.
    ``decay`` is what a step back counts where content alone decides.
    """

    k: int
    where: Filter | None = None
    exclude_seen: bool = True
    fields: Mapping[str, float] | None = None
    profile: str | None = None
    decay: float = 1.0
    wishes: Wishes = field(default_factory=Wishes)


@dataclass(frozen=True, slots=True, eq=False)
class _Judged:
    """Items in the order of their shifted scores: positions, scores, shifted scores, and who may be among them."""

    columns: Keys
    scores: NDArray[np.float32]
    shifted: NDArray[np.float64]


class Desk:
    """Recommends from one store.

    Parameters
    ----------
    ranker
        What searches the same store.
    """

    def __init__(self, store: Store, ranker: Ranker, tastes: Tastes) -> None:
        self._store, self._ranker, self._tastes = store, ranker, tastes

    def recommend(self, asked: Asked, *, liked: Liked = (), disliked: Liked = (), user: str | None = None) -> list[Hit]:
        """What suits somebody; see ``Engine.recommend``."""
        check_k(asked.k)
        with self._store.reading() as view:
            learnt = self._tastes.learnt(view)
            person = person_of(
                self._store, view, learnt.stock, lambda: self._ranker.collection.encoder,
                liked=liked, disliked=disliked, user=user,
            )  # fmt: skip
            model, notes = _model(learnt, person, asked)
            return self._answer(learnt, person, model, asked, (*person.notes, *learnt.notes, *notes))

    def complementary(self, id: str, asked: Asked) -> list[Hit]:
        """What people had together with an item; see ``Engine.similar``.

        Raises
        ------
        InvalidInput
            If nothing was learnt from interactions.
        """
        check_k(asked.k)
        with self._store.reading() as view:
            learnt = self._tastes.learnt(view)
            if learnt.blend is None:
                raise InvalidInput(
                    "expected a store that has learnt what goes together, got one that has not: add interactions and "
                    "call fit_recommender"
                )
            person = person_of(self._store, view, learnt.stock, lambda: self._ranker.collection.encoder, liked=[id])
            model = learnt.blend.models["items"]
            known = replace(person, history=person.history.over(model.n_items))
            return [hit for hit in self._answer(learnt, known, model, asked, ()) if hit.score > 0]

    def _answer(
        self, learnt: Learnt, person: Person, model: Recommender | None, asked: Asked, notes: tuple[str, ...]
    ) -> list[Hit]:
        allowed = self._allowed(learnt, person, asked)
        wanted = max(_LEAST, _GROWTH * asked.k)
        while True:
            columns = _columns(model, person, allowed, wanted)
            judged = _judge(learnt, person, model, columns, asked.wishes)
            hits = self._picked(learnt, person, judged, asked, wanted)
            if len(hits) == asked.k or wanted >= len(allowed):
                break
            wanted *= _GROWTH
        told = []
        for hit, position in hits:
            reasons = reasons_of(model, person, position) if model is not None else ()
            told.append(replace(hit, reasons=reasons, notes=notes))
        return told

    def _allowed(self, learnt: Learnt, person: Person, asked: Asked) -> NDArray[np.bool_]:
        """(n_items,): which items may be shown."""
        allowed = learnt.stock.live.copy()
        condition = condition_of(asked.where)
        if condition is not None:
            passing = learnt.stock.positions(self._store.catalog.passing(condition))
            passed = np.zeros(len(allowed), dtype=bool)
            passed[passing[passing >= 0]] = True
            allowed &= passed
        if asked.exclude_seen:
            had = person.history.items
            allowed[had[had < len(allowed)]] = False
        return allowed

    def _picked(
        self, learnt: Learnt, person: Person, judged: _Judged, asked: Asked, wanted: int
    ) -> list[tuple[Hit, int]]:
        """The first k hits of ``wanted`` items that are looked at, with their positions."""
        first = slice(0, wanted)
        positions, scores, shifted = judged.columns[first], judged.scores[first], judged.shifted[first]
        keys = learnt.stock.keys[positions].tolist()
        rows = self._store.catalog.rows_by_key(keys)
        of_picture = learnt.stock.fields["picture"].there if "picture" in learnt.stock.fields else np.zeros(0, bool)
        barred = person.seen if asked.exclude_seen else frozenset()
        candidates, values = [], {}
        for position, key, score, value in zip(
            positions.tolist(), keys, scores.tolist(), shifted.tolist(), strict=True
        ):
            if key in rows and (rows[key][5] or key) not in barred:
                found_by = "picture" if position < len(of_picture) and of_picture[position] else "text"
                candidates.append(Candidate(key, rows[key][1], rows[key][5], value, found_by))
                values[key] = position, score
        groups = best_groups(candidates, max(1, len(candidates)))
        its = [values[one.key][0] for one in groups]
        vectors = side_by_side(learnt.stock.fields, np.array(its, dtype=np.int64))
        metadata = [item_of(rows[one.key]).metadata for one in groups] if asked.wishes.most_per else [{}] * len(groups)
        chosen = asked.wishes.pick(np.array([one.score for one in groups]), vectors, metadata, asked.k)
        shown = [replace(groups[n], score=values[groups[n].key][1]) for n in chosen]
        (hits,) = self._ranker.retriever.hits([shown])
        return [(hit, its[n]) for hit, n in zip(hits, chosen, strict=True)]


def _model(learnt: Learnt, person: Person, asked: Asked) -> tuple[Recommender | None, tuple[str, ...]]:
    """What scores items for somebody, and what they should know about it; None if nothing can."""
    by_content = asked.fields is not None or asked.profile is not None
    if learnt.blend is not None and not person.others and not by_content:
        return learnt.blend, ()
    fields = dict(learnt.stock.fields)
    lacking = [name for name in asked.fields or () if name not in fields]
    if lacking:
        raise InvalidInput(f"expected fields that items have ({', '.join(fields) or 'none'}), got {lacking[0]!r}")
    if not person.is_known or not fields:
        return None, ("nothing is known of what they like: the newest items",)
    if person.others:
        fields = {name: _with_others(vectors, name, person) for name, vectors in fields.items()}
    notes: tuple[str, ...] = ()
    if learnt.blend is not None and not by_content:
        notes = ("what is not in the store speaks by its content alone, so behaviour was left aside",)
    profile = asked.profile or (MEAN if asked.decay < 1 else NEAREST)
    near = learnt.stock.near
    return Content(fields, weights=asked.fields, profile=profile, decay=asked.decay, near=near), notes


def _with_others(vectors: ItemVectors, name: str, person: Person) -> ItemVectors:
    none = np.zeros(vectors.dim, dtype=np.float32)
    return vectors.followed_by(np.stack([one.get(name, none) for one in person.others]))


def _columns(model: Recommender | None, person: Person, allowed: NDArray[np.bool_], wanted: int) -> Keys:
    """Items to score, ascending: all that are allowed, or of many those that the model has in mind."""
    count = int(np.count_nonzero(allowed))
    if model is None or count <= max(_SCORED, wanted):
        return np.flatnonzero(allowed)
    (found,) = model.candidates(person.history, min(len(allowed), wanted + len(person.history)))
    found = np.unique(found[found < len(allowed)])
    found = found[allowed[found]]
    return found if len(found) >= wanted else np.flatnonzero(allowed)


def _judge(learnt: Learnt, person: Person, model: Recommender | None, columns: Keys, wishes: Wishes) -> _Judged:
    """Items by their scores, as they are wished for, the best first."""
    if model is None:
        scores = ((columns + 1) / max(1, len(learnt.stock))).astype(np.float32)
    else:
        known = columns < model.n_items  # what came after it was fitted has nothing to go by
        scores = np.zeros(len(columns), dtype=np.float32)
        scores[known] = model.scores(person.history, columns[known])[0]
    items = known_ = np.zeros((0, 0), dtype=np.float32)
    if wishes.novelty:
        had = person.history.items
        fields = learnt.stock.fields
        items, known_ = side_by_side(fields, columns), side_by_side(fields, had[had < len(learnt.stock)])
    shifted = wishes.shifted(scores, learnt.had[columns], items, known_)
    order, _ = best_first(np.arange(len(columns)), shifted.astype(np.float32), max(1, len(columns)))
    return _Judged(columns[order], scores[order], shifted[order])


def side_by_side(fields: Mapping[str, ItemVectors], columns: Keys) -> Vectors:
    """(m, dim) unit rows of all fields together; zeros for an item that has none."""
    if not fields:
        return np.zeros((len(columns), 1), dtype=np.float32)
    return unit_or_zero(np.hstack([vectors.take(columns) for vectors in fields.values()]))
