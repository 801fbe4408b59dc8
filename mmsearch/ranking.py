"""``Ranker``: what ``Engine.search`` does: retrieve candidates, rerank them, vary them, cut to k."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias, TypedDict

import numpy as np

from mmsearch.bank import Bank
from mmsearch.cascade import Cascade, Step
from mmsearch.collection import StoreCollection
from mmsearch.diversify import mmr, near_duplicates
from mmsearch.errors import InvalidInput, StoreDamaged
from mmsearch.filters import Filter, parse
from mmsearch.overlap import batches
from mmsearch.profile import SETTINGS, Profile, default_cascade
from mmsearch.protocols import Encoder, Reranker
from mmsearch.queries import QueryLike, Resolved, as_query, resolve
from mmsearch.rerank.stage import text_of
from mmsearch.rerank.words import WordMatch
from mmsearch.retrieval import Groups, Retriever, sorted_by
from mmsearch.store import Store, View
from mmsearch.types import KINDS, PICTURE, PICTURE_FOR_TEXTS, TEXT, Hit, Query, Vectors
from mmsearch.vectors import check_k

Rerank: TypeAlias = bool | Cascade | Sequence[Reranker | Step]
"""True: the store's tuned cascade, or the default one; False: none; or the stages themselves."""

OTHER = "other"
"""Queries of neither kind, such as vectors and items: no stage is usual for them."""
_BATCH = 64
"""Queries that are retrieved together; their words stay in the encoder's memory until they are reranked."""
N_NAMED = 50
"""Items that full-text search adds to the candidates of a cascade with the stage ``words``."""
VARIETY_POOL = 4
"""Times k hits are looked at for variety."""


class SearchOptions(TypedDict, total=False):
    """What ``Engine.search`` takes beside the query and k."""

    where: Filter | None
    field: str | None
    sort: str | None
    exact: bool
    rerank: Rerank
    budget_ms: float | None
    n_candidates: int | None
    diversity: float
    collapse: float | None


@dataclass(frozen=True, slots=True)
class _Asked:
    """Queries of a batch that one cascade reranks, and their places there."""

    places: tuple[int, ...]
    queries: list[Query]
    resolved: Resolved

    @classmethod
    def by_kind(
        cls, batch: Sequence[Query], resolved: Resolved, cascades: Mapping[str, Cascade], only: str | None
    ) -> Iterator[tuple[str, _Asked]]:
        """The queries by their kind; those that are neither words nor one picture by ``OTHER``, where that is one.

        Parameters
        ----------
        only
            The field that is searched, if it is only one.
        """
        kinds = []
        for query, kind in zip(batch, resolved.kinds, strict=True):
            asks_texts = kind == PICTURE and only == "text"
            usual = OTHER not in cascades or _is_plain(query, kind)
            kinds.append(OTHER if not usual else PICTURE_FOR_TEXTS if asks_texts else kind)
        for kind in dict.fromkeys(kinds):
            places = tuple(n for n, one in enumerate(kinds) if one == kind)
            yield kind, cls(places, [batch[n] for n in places], resolved.of(places))


def _only(view: View, field: str | None) -> str | None:
    """The field that is searched, if it is only one."""
    return field or (view.held[0] if len(view.held) == 1 else None)


def _is_plain(query: Query, kind: str) -> bool:
    """Whether the usual stages were measured for such queries: with words in them, or one picture."""
    terms = list(query.terms())
    if kind == PICTURE:
        return len(terms) == 1 and terms[0].image is not None
    return any(term.text is not None for term in terms)


class Ranker:
    """Searches a store, with all that may follow the retrieval."""

    def __init__(self, store: Store, encoder: Callable[[], Encoder]) -> None:
        self._store, self._encoder = store, encoder
        self.retriever = Retriever(store, encoder)
        self.collection = StoreCollection(store, encoder)
        self._usual: tuple[int, dict[str, Cascade]] | None = None
        self._made: dict[str, tuple[tuple[object, ...], Cascade]] = {}
        self._usual_lock = threading.Lock()

    def search_many(
        self,
        queries: Sequence[QueryLike],
        k: int,
        *,
        where: Filter | None = None,
        field: str | None = None,
        sort: str | None = None,
        exact: bool = False,
        exclude: Sequence[str] = (),
        rerank: Rerank = True,
        budget_ms: float | None = None,
        n_candidates: int | None = None,
        diversity: float = 0.0,
        collapse: float | None = None,
        resolved: Resolved | None = None,
        barred: Sequence[Groups] = (),
    ) -> list[list[Hit]]:
        """The best k hits of each query, best first. See ``Engine.search``; the rest is as in ``Retriever``."""
        k = check_k(k)
        _check_variety(diversity, collapse)
        checked = [as_query(query) for query in queries]
        if rerank is True:
            usual = self._usual_cascades()
            cascades = usual if budget_ms is None else {kind: one.within(budget_ms) for kind, one in usual.items()}
            cascades = cascades | {OTHER: Cascade([])}
        else:
            cascades = dict.fromkeys(KINDS, self.cascade(rerank, budget_ms))
        reranks = any(cascade.steps for cascade in cascades.values())
        least = k if n_candidates is None else max(k, check_k(n_candidates))
        least = max(least, VARIETY_POOL * k) if diversity or collapse is not None else least
        answers: list[list[Hit]] = []
        for places in batches(range(len(checked)), _BATCH if reranks else max(1, len(checked))):
            batch = [checked[n] for n in places]
            with self._store.reading() as view:
                known = resolved.of(places) if resolved else resolve(batch, self._encoder, self._store, view)
                found: dict[int, list[Hit]] = {}
                # A query's own cascade says how many candidates it gets, so that it is answered as if asked alone.
                for kind, its in _Asked.by_kind(batch, known, cascades, _only(view, field)):
                    wanted = 0 if n_candidates is not None else cascades[kind].n_candidates
                    hits = self.retriever.search_many(
                        its.queries, max(least, wanted), where=where, field=field, exact=exact, exclude=exclude,
                        barred=[barred[places[n]] for n in its.places] if barred else (), resolved=its.resolved,
                        also=self._named(cascades[kind], its.queries, where, exclude),
                    )  # fmt: skip
                    found |= zip(its.places, self._reranked(view, cascades[kind], its, hits, field), strict=True)
                answers += [self.varied(found[n], k, diversity, collapse) for n in range(len(batch))]
        if not checked:
            self.retriever.search_many([], k, where=where, field=field)  # which sees whether the rest is right
        return [sorted_by(hits, sort) for hits in answers]

    def _named(
        self, cascade: Cascade, queries: Sequence[Query], where: Filter | None, exclude: Sequence[str]
    ) -> list[list[int]]:
        """Keys of the items that the words of each query find, if its cascade minds them: vectors miss many a name."""
        if WordMatch.name not in cascade.names:
            return [[] for _ in queries]
        condition = None if where is None else parse(where)
        named: list[list[int]] = []
        for query in queries:
            text = text_of(query)
            found = self._store.catalog.find_words(text, N_NAMED + len(exclude), condition) if text else []
            named.append([key for key, id in found if id not in exclude][:N_NAMED])
        return named

    def use_banks(self, banks: Mapping[str, Bank] | None) -> None:
        """Correct by these banks, by kind of query, instead of the store's own; None: by the store's own again."""
        self.collection = StoreCollection(self._store, self._encoder, banks)
        self._usual, self._made = None, {}

    def cascade(self, rerank: Rerank, budget_ms: float | None = None, kind: str = TEXT) -> Cascade:
        """The cascade that is meant for queries of a kind, ready to be used.

        Raises
        ------
        InvalidInput
            For anything else than a bool, a cascade or stages.
        """
        if rerank is False:
            return Cascade([])
        if rerank is True:
            cascade = self._usual_cascades()[kind]
        elif isinstance(rerank, Cascade):
            cascade = rerank
        elif isinstance(rerank, Sequence) and not isinstance(rerank, str):
            cascade = Cascade(rerank)
        else:
            raise InvalidInput(
                f"expected rerank as True, False, a Cascade or a list of stages, got {rerank!r}: "
                "put a single stage in brackets"
            )
        if budget_ms is not None:
            cascade = cascade.within(budget_ms)
        if rerank is not True:
            cascade.prepare(self.collection)
        return cascade

    def _usual_cascades(self) -> dict[str, Cascade]:
        """The store's tuned cascade if it was tuned for this encoder, else the default ones; by kind of query.

        They are made anew only when that of which they are made changes, since stages hold models and caches.
        """
        with self._usual_lock, self._store.reading() as view:
            usual = self._usual
            if usual is None or usual[0] != view.generation:
                cascades = {}
                for kind in KINDS:
                    made_of = self._made_of(view, kind)
                    if kind not in self._made or self._made[kind][0] != made_of:
                        cascade = self._usual_cascade(view, kind)
                        cascade.prepare(self.collection)
                        self._made[kind] = (made_of, cascade)
                    cascades[kind] = self._made[kind][1]
                usual = self._usual = (view.generation, cascades)
        return usual[1]

    def _made_of(self, view: View, kind: str) -> tuple[object, ...]:
        """What decides on a usual cascade."""
        fingerprint = view.encoder.fingerprint if view.encoder else ""
        banks = tuple(self.collection.has_bank(one) for one in ("text", "picture"))
        return self._store.catalog.setting(SETTINGS[kind]), fingerprint, self.collection.fields, banks

    def _usual_cascade(self, view: View, kind: str) -> Cascade:
        default = default_cascade(self.collection, kind)
        stored = self._store.catalog.setting(SETTINGS[kind])
        try:
            profile = Profile.from_json(stored) if stored else None
        except StoreDamaged as error:  # a search goes on by the default, and its hits say why
            return default.noting(str(error))
        fingerprint = view.encoder.fingerprint if view.encoder else ""
        return profile.cascade() if profile is not None and profile.encoder == fingerprint else default

    def _reranked(
        self, view: View, cascade: Cascade, asked: _Asked, found: list[list[Hit]], field: str | None
    ) -> list[list[Hit]]:
        if not cascade.steps and not cascade.notes:
            return found
        answers = []
        for n, (query, hits) in enumerate(zip(asked.queries, found, strict=True)):
            kind = asked.resolved.kinds[n]
            slopes = self.retriever.slopes(view, kind, field)
            self.collection.remember([query], Resolved(asked.resolved.vectors[n : n + 1], (kind,)))
            # Those that full text has added may well be the last.
            its = cascade.looking_at(WordMatch.name, len(hits)) if WordMatch.name in cascade.names and hits else cascade
            answers.append(its.rerank(query, hits, slopes))
        return answers

    def varied(self, hits: list[Hit], k: int, diversity: float, collapse: float | None) -> list[Hit]:
        """Without near copies, chosen for relevance and variety, the first k."""
        if (not diversity and collapse is None) or len(hits) < 2:
            return hits[:k]
        vectors = self._vectors(hits)
        if collapse is not None:
            first = near_duplicates(vectors, collapse)
            kept = [n for n, of in enumerate(first) if n == of]
            hits, vectors = [hits[n] for n in kept], vectors[kept]
        if diversity:
            scores = np.array([hit.score for hit in hits])
            hits = [hits[n] for n in mmr(vectors, scores, min(k, len(hits)), diversity)]
        return [replace(hit, rank=rank) for rank, hit in enumerate(hits[:k], start=1)]

    def _vectors(self, hits: Sequence[Hit]) -> Vectors:
        """The vector by which each hit was found, (n, dim)."""
        vectors: Vectors = np.zeros((len(hits), 0), dtype=np.float32)
        for field in ("picture", "text"):
            first, count = self.collection.rows(field, hits)
            wanted = np.array([hit.field == field for hit in hits]) & (count > 0)
            if wanted.any():
                found = self.collection.stored(field, first[wanted])
                if not vectors.shape[1]:
                    vectors = np.zeros((len(hits), found.shape[1]), dtype=np.float32)
                vectors[wanted] = found
        return vectors


def _check_variety(diversity: float, collapse: float | None) -> None:
    if not (isinstance(diversity, int | float) and 0 <= diversity <= 1):
        raise InvalidInput(f"expected diversity from 0 (relevance alone) to 1 (variety alone), got {diversity!r}")
    if collapse is not None and not (isinstance(collapse, int | float) and 0 < collapse <= 1):
        raise InvalidInput(f"expected collapse as a cosine above 0 and up to 1, or None; got {collapse!r}")
