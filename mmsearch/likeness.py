"""``Similar``: item to item by content: the items most like one, by its picture, by its text, or by both."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias, TypedDict, Unpack

import numpy as np

from mmsearch.anchors import Anchor, Like, anchors_of, resolved
from mmsearch.blending import Asked, Blend
from mmsearch.cascade import Cascade
from mmsearch.errors import InvalidInput
from mmsearch.filters import Filter
from mmsearch.overlap import batches
from mmsearch.ranking import VARIETY_POOL, Ranker, Rerank
from mmsearch.rerank.views import Views
from mmsearch.retrieval import condition_of
from mmsearch.store import Store
from mmsearch.types import FIELDS, Hit, Item, Reason
from mmsearch.vectors import MAX_K, check_k

Fields: TypeAlias = str | Sequence[str] | Mapping[str, float]
"""What is compared: a field, several that count the same, or the weight of each."""

REASONS = {"picture": "looks", "text": "text"}
"""What speaks for an item, by the field in which it is alike."""
_BATCH = 64
"""Anchors that are answered together; the pictures among them are in memory meanwhile."""


class SimilarOptions(TypedDict, total=False):
    """What ``Engine.similar`` takes beside what to compare with and k."""

    where: Filter | None
    field: str | None
    fields: Fields | None
    diversity: float
    exact: bool
    rerank: Rerank


class Similar:
    """Answers ``Engine.similar``.

    Parameters
    ----------
    ranker
        What searches the same store.
    """

    def __init__(self, store: Store, ranker: Ranker) -> None:
        self._store, self._ranker = store, ranker

    def similar(self, id: Like, k: int = 10, **options: Unpack[SimilarOptions]) -> list[Hit]:
        """The k items most like one. See ``Engine.similar``."""
        (hits,) = self.similar_many([id], k, **options)
        return hits

    def similar_many(
        self,
        ids: Sequence[Like],
        k: int = 10,
        *,
        where: Filter | None = None,
        field: str | None = None,
        fields: Fields | None = None,
        diversity: float = 0.0,
        exact: bool = False,
        rerank: Rerank = False,
    ) -> list[list[Hit]]:
        """``similar`` for many at once: the same answers, faster."""
        if isinstance(ids, str | Path | Item | Hit) or not isinstance(ids, Iterable):
            raise InvalidInput("expected a list of ids, got a single one: use similar, or put it in brackets")
        if field is not None and fields is not None:
            raise InvalidInput("expected field or fields, got both: fields=... compares a field with the same field")
        weights = None if fields is None else check_weights(fields)
        cascade = self._cascade(rerank)
        # Which sees whether the rest is right, even if there is nothing to do.
        self._ranker.search_many([], k, where=where, field=field, diversity=diversity, rerank=cascade)
        answers: list[list[Hit]] = []
        for batch in batches(ids, _BATCH):
            with self._store.reading() as view:
                anchors = anchors_of(batch, lambda: self._ranker.collection.encoder, self._store, view)
                if weights is None:
                    answers += self._ranker.search_many(
                        [anchor.query for anchor in anchors], k, where=where, field=field, exact=exact, rerank=cascade,
                        diversity=diversity, barred=[anchor.barred for anchor in anchors],
                        resolved=resolved(anchors, [anchor.kind for anchor in anchors]),
                    )  # fmt: skip
                else:
                    blend = Blend(self._ranker.retriever, view, condition_of(where), exact)
                    answers += self._blended(blend, anchors, weights, check_k(k), cascade, diversity)
        return answers

    def _cascade(self, rerank: Rerank) -> Cascade:
        """The stages to rerank by; True is for those that are measured to help, of which the store has what they need.

        They are not those of searches, which were chosen for questions that people ask.
        """
        if rerank is True:
            stages = [Views()] if set(Views.needs) <= self._ranker.collection.fields else []
            rerank = Cascade(stages, quiet=True)
        return self._ranker.cascade(rerank)

    def _blended(
        self,
        blend: Blend,
        anchors: Sequence[Anchor],
        weights: Mapping[str, float],
        k: int,
        cascade: Cascade,
        diversity: float,
    ) -> list[list[Hit]]:
        """The k items most like each anchor by several fields."""
        asked = [Asked(anchor.vectors, _shares(anchor, weights), anchor.barred) for anchor in anchors]
        n = min(MAX_K, max(k, cascade.n_candidates, VARIETY_POOL * k if diversity else 0))
        answers = []
        for anchor, own, found in zip(anchors, asked, blend.run(asked, n), strict=True):
            (hits,) = self._ranker.retriever.hits([[one.candidate for one in found]])
            hits = [replace(hit, scores=one.cosines) for hit, one in zip(hits, found, strict=True)]
            if cascade.steps:
                self._ranker.collection.remember([anchor.query], resolved([anchor], [next(iter(own.shares))]))
                hits = cascade.rerank(anchor.query, hits, own.shares)
            why = {one.candidate.id: _reasons(one.cosines, own.shares, anchor.id) for one in found}
            hits = self._ranker.varied(hits, k, diversity, None)
            answers.append([replace(hit, reasons=why[hit.item.id]) for hit in hits])
        return answers


def check_weights(fields: Fields, known: Sequence[str] = FIELDS) -> dict[str, float]:
    """The weight of each field to compare, pictures first; fields of weight 0 are left out.

    Raises
    ------
    InvalidInput
        For an unknown field, a weight that is negative or no finite number, or no weight above 0.

    >>> check_weights(["text", "picture"]), check_weights({"picture": 0.7, "text": 0})
    ({'picture': 1.0, 'text': 1.0}, {'picture': 0.7})
    """
    if isinstance(fields, str):
        fields = [fields]
    if not isinstance(fields, Mapping | Sequence) or any(name not in known for name in fields):
        raise InvalidInput(f"expected fields of {', '.join(known)}, or weights by field; got {fields!r}")
    given = dict(fields) if isinstance(fields, Mapping) else dict.fromkeys(fields, 1.0)
    for name, weight in given.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float | np.number) or not 0 <= weight < math.inf:
            raise InvalidInput(f"expected a finite weight of at least 0 for {name}, got {weight!r}")
    weights = {name: float(given[name]) for name in known if given.get(name, 0) > 0}
    if not weights:
        raise InvalidInput(f"expected at least one field with a weight above 0, got {fields!r}")
    return weights


def _shares(anchor: Anchor, weights: Mapping[str, float]) -> dict[str, float]:
    """What one unit of cosine in each field adds to a score: the weights of the fields that it has, summing to 1."""
    largest = max(weights.values())  # divided by first, so that no sum is infinite
    own = {name: weight / largest for name, weight in weights.items() if name in anchor.vectors}
    if not own:
        what = f"the item {anchor.id!r}" if anchor.id else "what to compare with"
        raise InvalidInput(
            f"expected {what} to have a vector for {' or '.join(weights)}, it has one for "
            f"{' and '.join(anchor.vectors)}: compare by other fields"
        )
    total = sum(own.values())
    return {name: weight / total for name, weight in own.items()}


def _reasons(cosines: Mapping[str, float], shares: Mapping[str, float], id: str) -> tuple[Reason, ...]:
    """How much of the positive part of a score each field is, the largest first."""
    parts = {name: shares[name] * max(0.0, cosine) for name, cosine in cosines.items()}
    total = sum(parts.values())
    ordered = sorted((name for name, part in parts.items() if part > 0), key=lambda name: -parts[name])
    return tuple(Reason(REASONS[name], round(parts[name] / total, 4), (id,) if id else ()) for name in ordered)
