"""``Retriever``: query -> vectors -> nearest rows -> items that pass the filter -> hits.

A row is not an item: identical pictures share a row, a long text has several, and rows of removed items stay until
the space is compacted. So each space is asked for some rows more than k, and for many more as often as it takes: the
answer has k hits whenever k exist.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from mmsearch.calibration import N_ITEMS, N_QUERIES, Scale, fit_scale
from mmsearch.catalog import item_of
from mmsearch.errors import InvalidInput, StoreDamaged
from mmsearch.filters import And, Condition, Filter, parse
from mmsearch.protocols import Encoder
from mmsearch.queries import QueryLike, Resolved, as_query, resolve
from mmsearch.searchspace import SearchSpace
from mmsearch.store import Store, View
from mmsearch.types import FIELDS, Hit, Keys, Neighbors
from mmsearch.vectors import MAX_K, SCORE_DECIMALS, check_k

Groups: TypeAlias = frozenset[bytes | int]
"""What identical pictures have in common: their content; or the key of an item without a picture."""
REMEMBERED = 8
"""Filters' answers, and scales, that are kept for the next search of the same state."""
SPARE = 4
"""Rows asked for beyond k at first: enough to see that no tie was cut off, where rows are items."""
SCAN_ALLOWED = 20_000
"""Filters that keep at most this many rows, or a twentieth of all, are answered by an exact scan of those rows."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An item that a field has found for a query, by its best row."""

    key: int
    id: str
    content: bytes | None
    score: float
    field: str

    @property
    def group(self) -> bytes | int:
        """What identical pictures have in common; an item without a picture stands for itself."""
        return self.content or self.key


@dataclass(frozen=True, slots=True)
class Allowed:
    """What a filter lets through: item keys, and their rows in one space, both ascending."""

    keys: Keys
    rows: Keys

    def has(self, keys: Keys) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Which of these keys are let through."""
        if not len(self.keys):
            return np.zeros(len(keys), dtype=np.bool_)
        place = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.asarray(self.keys[place] == keys)


class Retriever:
    """Searches a store.

    Parameters
    ----------
    encoder
        Gives the encoder; called only if a query has to be encoded.
    """

    def __init__(self, store: Store, encoder: Callable[[], Encoder]) -> None:
        self._store = store
        self._encoder = encoder
        self._allowed: OrderedDict[tuple[int, int, Condition], Allowed] = OrderedDict()
        self._scales: OrderedDict[tuple[int, str, str], Scale] = OrderedDict()
        self._lock = threading.Lock()

    def search_many(
        self,
        queries: Sequence[QueryLike],
        k: int,
        *,
        where: Filter | None = None,
        field: str | None = None,
        sort: str | None = None,
        exclude: Sequence[str] = (),
        barred: Sequence[Groups] = (),
        exact: bool = False,
        resolved: Resolved | None = None,
        also: Sequence[Sequence[int]] = (),
    ) -> list[list[Hit]]:
        """The best k hits of each query, best first. See ``Engine.search``.

        Parameters
        ----------
        exclude
            Ids of items that no query finds, nor copies of their pictures.
        barred
            For each query the groups (see ``Candidate``) that it does not find either.
        resolved
            The queries' vectors, if they are known already.
        also
            For each query the keys of items that are hits too, beyond k, where the filter lets them through and they
            have a vector: something else than vectors has found them.
        """
        k = check_k(k)
        checked = [as_query(query) for query in queries]
        condition = condition_of(where)
        with self._store.reading() as view:
            spaces = _spaces(view, field)
            if not checked:
                return []
            resolved = resolved or resolve(checked, self._encoder, self._store, view)
            nobody = self._barred(exclude)
            barred = [nobody | own for own in barred] or [nobody] * len(checked)
            named = [self._with_copies(keys) for keys in also] or [[] for _ in checked]
            found: list[list[Candidate]] = [[] for _ in checked]
            others: list[list[Candidate]] = [[] for _ in checked]
            for space in spaces:
                search = self.within(view, space, condition, barred, k, exact)
                for to, answers in ((found, search.run(resolved)), (others, search.of_items(resolved, named))):
                    for candidates, answer, kind in zip(to, answers, resolved.kinds, strict=True):
                        candidates += self._calibrated(view, space, kind, answer) if len(spaces) > 1 else answer
            best = [best_groups(candidates, k) for candidates in found]
            best = [best_groups([*its, *more], k + len(more)) for its, more in zip(best, others, strict=True)]
            return [sorted_by(hits, sort) for hits in self.hits(best)]

    def within(
        self, view: View, space: SearchSpace, condition: Condition | None, barred: Sequence[Groups], k: int, exact: bool
    ) -> FieldSearch:
        """A search of one space for k groups a query; ``barred`` are the groups that each query must not find."""
        allowed = None if condition is None else self._let_through(view, space, condition)
        return FieldSearch(self._store, space, allowed, barred, k, exact)

    def _with_copies(self, keys: Sequence[int]) -> list[int]:
        """These items and those with the same pictures, which share a place and its best score."""
        rows = self._store.catalog.rows_by_key(keys)
        contents = {row[5] for row in rows.values() if row[5] is not None}
        return sorted({*rows, *(row[0] for row in self._store.catalog.rows_by_content(contents))})

    def _barred(self, exclude: Sequence[str]) -> Groups:
        """The groups that must not be found: those of the excluded items."""
        return frozenset(row[5] or row[0] for row in self._store.catalog.rows_by_id(exclude))

    def _let_through(self, view: View, space: SearchSpace, condition: Condition) -> Allowed:
        key = (view.generation, space.record.space, condition)
        allowed = self._allowed.get(key)
        if allowed is None:
            allowed = Allowed(*self._store.book.allowed(space.record.space, condition))
            with self._lock:
                self._allowed[key] = allowed
                while len(self._allowed) > REMEMBERED:
                    self._allowed.popitem(last=False)
        return allowed

    def slopes(self, view: View, kind: str, field: str | None = None) -> dict[str, float]:
        """Scores per unit of cosine by field, for queries of a kind; 1 where a field is searched alone."""
        spaces = _spaces(view, field)
        if len(spaces) < 2:
            return {}
        return {space.record.field: 1.0 / self._scale(view, space, kind).span for space in spaces}

    def _scale(self, view: View, space: SearchSpace, kind: str) -> Scale:
        key = (view.generation, kind, space.record.field)
        scale = self._scales.get(key)
        if scale is None:
            scale = fit_scale(
                self._store.sample(view, kind, N_QUERIES), self._store.sample(view, space.record.field, N_ITEMS)
            )
            with self._lock:
                self._scales[key] = scale
                while len(self._scales) > REMEMBERED:
                    self._scales.popitem(last=False)
        return scale

    def _calibrated(self, view: View, space: SearchSpace, kind: str, found: Sequence[Candidate]) -> list[Candidate]:
        scores = self._scale(view, space, kind)(np.array([candidate.score for candidate in found], dtype=np.float32))
        return [replace(candidate, score=float(score)) for candidate, score in zip(found, scores, strict=True)]

    def hits(self, chosen: Sequence[Sequence[Candidate]]) -> list[list[Hit]]:
        """Fill in items and the copies of their pictures, for all queries at once."""
        flat = [candidate for its in chosen for candidate in its]
        contents = {candidate.content for candidate in flat if candidate.content is not None}
        rows = self._store.catalog.rows_by_key({candidate.key for candidate in flat if candidate.content is None})
        copies: dict[bytes, list[tuple[Any, ...]]] = {}
        for row in self._store.catalog.rows_by_content(contents):
            rows[row[0]] = row
            copies.setdefault(row[5], []).append(row)
        if any(candidate.key not in rows for candidate in flat):
            raise StoreDamaged("the catalog contradicts itself about an item's picture: run `mmsearch doctor`")
        items = {key: item_of(row) for key, row in rows.items()}
        return [
            [
                Hit(
                    item=items[candidate.key],
                    score=round(candidate.score, SCORE_DECIMALS),
                    rank=rank,
                    copies=tuple(
                        items[row[0]] for row in copies.get(candidate.content or b"", ()) if row[0] != candidate.key
                    ),
                    field=candidate.field,
                )
                for rank, candidate in enumerate(its, start=1)
            ]
            for its in chosen
        ]


class FieldSearch:
    """The best groups of one field, for a batch of queries."""

    def __init__(
        self,
        store: Store,
        space: SearchSpace,
        allowed: Allowed | None,
        barred: Sequence[Groups],
        k: int,
        exact: bool,
    ) -> None:
        self.store, self.space, self.allowed, self.barred, self.k, self.exact = store, space, allowed, barred, k, exact
        self.total = space.record.rows
        self.among = allowed.rows if allowed is not None and self._scan(allowed) else None
        if self.among is not None:
            self.total = len(self.among)

    def _scan(self, allowed: Allowed) -> bool:
        return len(allowed.rows) <= max(SCAN_ALLOWED, self.total // 20) or self.space.graph() is None

    def run(self, resolved: Resolved) -> list[list[Candidate]]:
        """Ask for more and more rows until each query has k groups, or every row was seen."""
        answers: list[list[Candidate]] = [[] for _ in resolved.kinds]
        waiting = list(range(len(answers)))
        n = self.k + SPARE + max(map(len, self.barred), default=0)
        if self.allowed is not None and self.among is None:
            n = int(n * self.total / max(1, len(self.allowed.rows)))
        while waiting and self.total:
            n = min(n, self.total, MAX_K)
            if n > self.total // 4 and self.allowed is not None and self.among is None:
                # So many rows are scanned faster than they are walked to, and none is missed.
                self.among, self.total = self.allowed.rows, len(self.allowed.rows)
                n = min(n, self.total, MAX_K)
                if not self.total:
                    break
            near = self.space.search(resolved.vectors[waiting], n, among=self.among, exact=self.exact)
            again = []
            for i, neighbors in zip(waiting, near, strict=True):
                answers[i] = self._candidates(neighbors, self.barred[i])
                if n < min(self.total, MAX_K) and not self._enough(answers[i], neighbors):
                    again.append(i)
            waiting, n = again, n * 4
        return answers

    def of_items(self, resolved: Resolved, keys: Sequence[Sequence[int]]) -> list[list[Candidate]]:
        """Those of each query's items that may be found here, with the scores that a search would give them."""
        answers: list[list[Candidate]] = [[] for _ in keys]
        for n, its in enumerate(keys):
            rows = self.store.book.of_items(self.space.record.space, its)[1] if its else ()
            if len(rows):
                (near,) = self.space.search(resolved.vectors[n : n + 1], len(rows), among=np.asarray(rows))
                answers[n] = self._candidates(near, self.barred[n])
        return answers

    def _candidates(self, near: Neighbors, barred: Groups) -> list[Candidate]:
        """The items behind rows, each by its best row, best first."""
        scores = dict(zip(near.keys.tolist(), near.scores.tolist(), strict=True))
        owners = self.store.book.owners(self.space.record.space, near.keys)
        if self.allowed is not None and owners:
            passed = self.allowed.has(np.array([owner[1] for owner in owners], dtype=np.int64))
            owners = [owner for owner, ok in zip(owners, passed, strict=True) if ok]
        best: dict[int, Candidate] = {}
        field = self.space.record.field
        for row, key, id, content in owners:
            score = min(1.0, scores[row])
            if (content or key) not in barred and (key not in best or best[key].score < score):
                best[key] = Candidate(key, id, content, score, field)
        return list(best.values())

    def _enough(self, found: Sequence[Candidate], near: Neighbors) -> bool:
        """Whether k groups are known and no unseen row can tie with the last of them."""
        if not len(near):
            return False
        best = best_groups(found, self.k)
        last = round(float(near.scores[-1]), SCORE_DECIMALS)
        return len(best) == self.k and round(best[-1].score, SCORE_DECIMALS) > last


def condition_of(where: Filter | None) -> Condition | None:
    """A filter, parsed; None for one that lets everything through."""
    condition = None if where is None else parse(where)
    return None if condition == And(()) else condition


def best_groups(found: Sequence[Candidate], k: int) -> list[Candidate]:
    """The best candidate of each group, the best k groups, equal scores by id."""
    ordered = sorted(found, key=lambda candidate: (-round(candidate.score, SCORE_DECIMALS), candidate.id))
    groups: dict[bytes | int, Candidate] = {}
    for candidate in ordered:
        groups.setdefault(candidate.group, candidate)
        if len(groups) == k:
            break
    return list(groups.values())


def _spaces(view: View, field: str | None) -> list[SearchSpace]:
    """The spaces to search: of one field, or of every field that holds something.

    Raises
    ------
    InvalidInput
        For an unknown field.
    """
    if field is not None and field not in FIELDS:
        raise InvalidInput(f"expected a field of {', '.join(FIELDS)}, got {field!r}")
    return [view.spaces[name] for name in view.held if field in (None, name)]


def sorted_by(hits: list[Hit], sort: str | None) -> list[Hit]:
    """The same hits in the order of a metadata field, ``-field`` for the largest first; those without it come last."""
    if sort is None:
        return hits
    name, down = sort.removeprefix("-"), sort.startswith("-")
    values = {id(hit): _sort_key(hit.item.metadata, name) for hit in hits}
    there = [hit for hit in hits if values[id(hit)] is not None]
    there.sort(key=lambda hit: values[id(hit)] or (0, 0.0, ""), reverse=down)
    ordered = there + [hit for hit in hits if values[id(hit)] is None]
    return [replace(hit, rank=rank) for rank, hit in enumerate(ordered, start=1)]


def _sort_key(metadata: Mapping[str, Any], name: str) -> tuple[int, float, str] | None:
    """Numbers, and strings that read as such, before other strings."""
    value = metadata.get(name)
    if value is None or isinstance(value, list | dict):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    return (0, number, "") if math.isfinite(number) else (1, 0.0, str(value))
