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
from mmsearch.recommenders.profiles import MEAN, NEAREST, PROFILES
from mmsearch.retrieval import Candidate, condition_of
from mmsearch.store import Store
from mmsearch.tastes import Learnt, Tastes
from mmsearch.types import Hit, Keys, Reason, Vectors
from mmsearch.vectors import MAX_K, SCORE_DECIMALS, check_k

_SCORED = 20_000
"""Up to so many items are all scored; of more, those that the models have in mind."""
_LEAST = 100
"""Items that are looked at for a list, at least; more as often as it takes."""
_GROWTH = 4
_LIFTED = 500
"""The best items by score, among which the knobs for popularity and novelty choose; k where that is more."""
_FURTHEST = 10_000
"""So many items are looked at for caps, at most; k where that is more."""
_SHIFTED_DECIMALS = 9
"""Scores without noise are this exact after float64 arithmetic; knobs bring them a hundred times nearer together."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked for: how many, among which, by what, and what the list should be like.

    ``fields`` are weights of content by field, and ``profile`` how it is read; with either, behaviour is left aside.
    ``decay`` is what a step back counts where content alone decides. ``agreed``: only what has a score above 0.

    Raises
    ------
    InvalidInput
        For an unknown profile.
    """

    k: int
    where: Filter | None = None
    exclude_seen: bool = True
    fields: Mapping[str, float] | None = None
    profile: str | None = None
    decay: float = 1.0
    agreed: bool = False
    wishes: Wishes = field(default_factory=Wishes)

    def __post_init__(self) -> None:
        check_k(self.k)
        if self.profile is not None and self.profile not in PROFILES:
            raise InvalidInput(f"expected profile as {', '.join(PROFILES)}, got {self.profile!r:.60}")


@dataclass(frozen=True, slots=True, eq=False)
class _Judged:
    """Items, ascending: (n,) positions, their scores less the noise, and these as they are wished for."""

    columns: Keys
    scores: NDArray[np.float64]
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

    def recommend(
        self,
        asked: Asked,
        *,
        liked: Liked = (),
        disliked: Liked = (),
        user: str | None = None,
        half_life: float | None = None,
    ) -> list[Hit]:
        """What suits somebody; see ``Engine.recommend``."""
        with self._store.reading() as view:
            learnt = self._tastes.learnt(view)
            person = person_of(
                self._store, learnt.stock, lambda: self._ranker.collection.encoder,
                liked=liked, disliked=disliked, user=user, half_life=half_life,
            )  # fmt: skip
            model, notes = _model(learnt, person, asked)
            notes = (*person.notes, *learnt.notes, *notes)
            if asked.wishes.popularity and not learnt.had.any():
                asked = replace(asked, wishes=replace(asked.wishes, popularity=0.0))
                notes += ("what many know is not known before fit_recommender: popularity was left aside",)
            return self._answer(learnt, person, model, asked, notes)

    def complementary(self, id: str, asked: Asked) -> list[Hit]:
        """What people had together with an item; see ``Engine.similar``.

        Raises
        ------
        InvalidInput
            If nothing was learnt from interactions.
        """
        with self._store.reading() as view:
            learnt = self._tastes.learnt(view)
            if learnt.blend is None:
                raise InvalidInput(
                    "expected a store that has learnt what goes together, got one that has not: "
                    + (" ".join(learnt.notes) or "add interactions and call fit_recommender")
                )
            person = person_of(self._store, learnt.stock, lambda: self._ranker.collection.encoder, liked=[id])
            return self._answer(learnt, person, learnt.blend.models["items"], replace(asked, agreed=True), ())

    def _answer(
        self, learnt: Learnt, person: Person, model: Recommender | None, asked: Asked, notes: tuple[str, ...]
    ) -> list[Hit]:
        allowed = self._allowed(learnt, person, asked)
        count = int(np.count_nonzero(allowed))
        # What came after the model was fitted has no say in it, and need not be shown all the same.
        heard = person if model is None else person.over(model.n_items)
        judged, wanted = None, max(_LEAST, _GROWTH * asked.k)
        while True:
            if judged is None or len(judged.columns) < count:
                judged = _judge(learnt, heard, model, _columns(model, heard, allowed, wanted), asked)
            hits = self._picked(learnt, person, judged, asked, wanted)
            if len(hits) == asked.k or wanted >= min(count, max(_FURTHEST, _GROWTH * asked.k)):
                break
            wanted *= _GROWTH
        none: list[tuple[Reason, ...]] = [()] * len(hits)
        why = none if model is None else reasons_of(model, heard, [position for _, position in hits])
        return [replace(hit, reasons=its, notes=notes) for (hit, _), its in zip(hits, why, strict=True)]

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
        """The first k hits of the best ``wanted`` items, with their positions."""
        best = _best(judged.shifted, learnt.stock.ranks[judged.columns], wanted)
        positions = judged.columns[best]
        keys = learnt.stock.keys[positions].tolist()
        rows = self._store.catalog.rows_by_key(keys)
        pictured = learnt.stock.fields["picture"].there if "picture" in learnt.stock.fields else None
        barred = person.seen if asked.exclude_seen else frozenset()
        groups: dict[bytes | int, int] = {}  # the place of the best of each
        for key, place in zip(keys, best.tolist(), strict=True):
            groups.setdefault(rows[key][5] or key, place)
        its = np.array([place for group, place in groups.items() if group not in barred], dtype=np.int64)
        shown = [rows[key] for key in learnt.stock.keys[judged.columns[its]].tolist()]
        vectors = side_by_side(learnt.stock.fields, judged.columns[its])
        metadata = [item_of(row).metadata for row in shown] if asked.wishes.most_per else [{}] * len(shown)
        candidates = []
        for n in asked.wishes.pick(judged.shifted[its], vectors, metadata, asked.k):
            key, id, *_, content = shown[n]
            found_by = "picture" if pictured is not None and pictured[judged.columns[its[n]]] else "text"
            candidates.append((Candidate(key, id, content, float(judged.scores[its[n]]), found_by), its[n]))
        (hits,) = self._ranker.retriever.hits([[candidate for candidate, _ in candidates]])
        return [(hit, int(judged.columns[place])) for hit, (_, place) in zip(hits, candidates, strict=True)]


def _model(learnt: Learnt, person: Person, asked: Asked) -> tuple[Recommender | None, tuple[str, ...]]:
    """What scores items for somebody, and what they should know about it; None if nothing can."""
    by_content = asked.fields is not None or asked.profile is not None
    fields = dict(learnt.stock.fields)
    lacking = [name for name in asked.fields or () if name not in fields]
    if lacking:
        raise InvalidInput(f"expected fields that items have ({', '.join(fields) or 'none'}), got {lacking[0]!r}")
    if not person.is_known:
        return _for_anybody(learnt, "nothing is known of what they like")
    if learnt.blend is not None and not person.others and not by_content:
        return learnt.blend, ()
    # What lacks a field that others have would have no say there.
    shared = [name for name in fields if all(name in one for one in person.others)] if asked.fields is None else []
    fields = _with_others({name: fields[name] for name in shared or fields}, person)
    if not any(vectors.there[person.minded].any() for name, vectors in fields.items() if _counts(asked, name)):
        return _for_anybody(learnt, "no item can be compared with what they like")
    notes: tuple[str, ...] = ()
    if learnt.blend is not None and not by_content:
        notes = ("what is not in the store speaks by its content alone, so behaviour was left aside",)
    profile = asked.profile or (MEAN if asked.decay < 1 else NEAREST)
    near = learnt.stock.near
    return Content(fields, weights=asked.fields, profile=profile, decay=asked.decay, near=near), notes


def _for_anybody(learnt: Learnt, why: str) -> tuple[Recommender | None, tuple[str, ...]]:
    """What most people like or, where nothing was learnt, the newest items."""
    if learnt.blend is None:
        return None, (f"{why}: the newest items",)
    return learnt.blend.models["popular"], (f"{why}: what most people like",)


def _counts(asked: Asked, name: str) -> bool:
    return asked.fields is None or asked.fields.get(name, 0) > 0


def _with_others(fields: Mapping[str, ItemVectors], person: Person) -> dict[str, ItemVectors]:
    """The fields of the store's items, and after them those of things that are not in it."""
    if not person.others:
        return dict(fields)
    both = {}
    for name, vectors in fields.items():
        none = np.zeros(vectors.dim, dtype=np.float32)
        both[name] = vectors.followed_by(np.stack([one.get(name, none) for one in person.others]))
    return both


def _columns(model: Recommender | None, person: Person, allowed: NDArray[np.bool_], wanted: int) -> Keys:
    """Items to score, ascending: all that are allowed, or of many those that the model has in mind."""
    count = int(np.count_nonzero(allowed))
    if model is None or count <= max(_SCORED, wanted):
        return np.flatnonzero(allowed)
    (found,) = model.candidates(person.history, min(len(allowed), wanted + len(person.history), MAX_K))
    found = np.union1d(found, person.history.items)  # models do not have in mind what was seen, which may be allowed
    found = found[found < len(allowed)]
    found = found[allowed[found]]
    return found if len(found) >= wanted else np.flatnonzero(allowed)


def _judge(learnt: Learnt, person: Person, model: Recommender | None, columns: Keys, asked: Asked) -> _Judged:
    """Items with their scores, and these as they are wished for."""
    if model is None:
        scores = (columns + 1) / max(1, len(learnt.stock))
    else:
        known = columns < model.n_items  # what came after it was fitted has nothing to go by
        scores = np.zeros(len(columns))
        scores[known] = np.round(model.scores(person.history, columns[known])[0].astype(np.float64), SCORE_DECIMALS)
    if asked.agreed:
        columns, scores = columns[scores > 0], scores[scores > 0]
    worth = _worth_showing(columns, scores, asked)
    columns, scores = columns[worth], scores[worth]
    items = had = np.zeros((0, 0), dtype=np.float32)
    if asked.wishes.novelty:
        items = side_by_side(learnt.stock.fields, columns)
        had = side_by_side(_with_others(learnt.stock.fields, person), np.unique(person.history.items))
    return _Judged(columns, scores, asked.wishes.shifted(scores, learnt.had[columns], items, had))


def _worth_showing(columns: Keys, scores: NDArray[np.float64], asked: Asked) -> Keys:
    """Places of the items that knobs may lift, ascending: the best by score, or all where none is turned."""
    if not (asked.wishes.popularity or asked.wishes.novelty) or len(columns) <= _LIFTED:
        return np.arange(len(columns))
    return np.sort(np.lexsort((columns, -scores))[: max(_LIFTED, asked.k)])


def _best(values: NDArray[np.float64], ranks: Keys, n: int) -> Keys:
    """Places of the n best values, (at most n,), best first; those that are equal but for noise by rank."""
    rounded, among = np.round(values, _SHIFTED_DECIMALS), np.arange(len(values))
    if len(values) > _GROWTH * n:
        among = np.flatnonzero(rounded >= np.partition(rounded, len(values) - n)[len(values) - n])
    return among[np.lexsort((ranks[among], -rounded[among]))[:n]]


def side_by_side(fields: Mapping[str, ItemVectors], columns: Keys) -> Vectors:
    """(m, dim) unit rows of all fields together; zeros for an item that has none."""
    if not fields:
        return np.zeros((len(columns), 1), dtype=np.float32)
    return unit_or_zero(np.hstack([vectors.take(columns) for vectors in fields.values()]))
