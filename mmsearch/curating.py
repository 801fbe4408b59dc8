"""``Curator``: what of a store's items is odd, looks wrongly labelled, or stands for the rest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmsearch.curation import coverage, mislabels, outliers
from mmsearch.errors import InvalidInput
from mmsearch.filters import Filter
from mmsearch.findings import Outlier, Suspect
from mmsearch.pastclusters import place_of
from mmsearch.selection import Selection, labels_of
from mmsearch.store import Store, View
from mmsearch.types import Item, Keys, Report, Vectors
from mmsearch.vectors import check_k, check_seed

_EXACT = 50_000
"""Up to so many labelled items, nearest ones are found by looking at all of them: half a minute."""
_VOTES = 30
"""Neighbours that have a say on a label."""
_SPARE = 20
"""More neighbours than have a vote: some are the item itself, or have no label."""


class Curator:
    """Answers ``Engine.outliers``, ``Engine.suspects`` and ``Engine.sample``."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def outliers(
        self,
        k: int,
        *,
        where: Filter | None = None,
        methods: Sequence[str] = outliers.METHODS,
        seed: int = 0,
        report: Report | None = None,
    ) -> list[Outlier]:
        """The k oddest items. See ``Engine.outliers``."""
        check_k(k)
        check_seed(seed)
        if isinstance(methods, str) or not isinstance(methods, Sequence):
            raise InvalidInput(f"expected a list of methods, got {methods!r}: put it in brackets")
        with self._store.reading() as view:
            chosen = Selection.of(self._store, view, where)
            scores = outliers.outlier_scores(chosen.rows, methods=methods, seed=seed, report=report)
            oddest = np.lexsort((np.arange(len(chosen)), -scores["score"]))[:k]
            items = list(chosen.items(oddest))
        return [
            Outlier(
                item,
                score=float(scores["score"][position]),
                scores={name: float(values[position]) for name, values in scores.items() if name != "score"},
            )
            for item, position in zip(items, oddest.tolist(), strict=True)
        ]

    def suspects(
        self, field: str, k: int | None = None, *, where: Filter | None = None, report: Report | None = None
    ) -> list[Suspect]:
        """Items whose label looks wrong. See ``Engine.suspects``."""
        if k is not None:
            check_k(k)
        with self._store.reading() as view:
            chosen = Selection.of(self._store, view, where)
            labels = labels_of(self._store, chosen.ids(), field)
            many = sum(label is not None for label in labels) > _EXACT and chosen.field in view.spaces
            near = _Near(view, chosen) if many else None
            found = mislabels.suspects(chosen.rows, labels, near, k=_VOTES, report=report)
            told = np.flatnonzero(found.likely)[:k]
            items = list(chosen.items(found.positions[told]))
        return [
            Suspect(
                item,
                label=labels[found.positions[n]] or "",
                suggested=found.suggested[n],
                score=float(found.scores[n]),
                agreement=float(found.agreement[n]),
            )
            for item, n in zip(items, told.tolist(), strict=True)
        ]

    def sample(
        self,
        n: int,
        *,
        method: str = "density",
        where: Filter | None = None,
        chosen: Sequence[str] = (),
        seed: int = 0,
    ) -> list[Item]:
        """N items that stand for the rest. See ``Engine.sample``."""
        check_seed(seed)
        if isinstance(chosen, str):
            raise InvalidInput(f"expected a list of ids, got the str {chosen!r}: put it in brackets")
        with self._store.reading() as view:
            among = Selection.of(self._store, view, where)
            keys = np.array(sorted(self._store.catalog.keys(list(chosen))), dtype=np.int64)
            taken = place_of(keys, among.keys)
            picked = coverage.sample(among.rows, n, method=method, seed=seed, chosen=taken[taken >= 0])
            return list(among.items(picked))


class _Near:
    """Nearest items through the index of a space, for large collections. Items of one picture share a row."""

    def __init__(self, view: View, chosen: Selection) -> None:
        self._space = view.spaces[chosen.field]
        self._chosen = chosen
        self._order = np.argsort(chosen.of_space, kind="stable").astype(np.int64)
        self._rows = chosen.of_space[self._order]

    def __call__(self, positions: Keys) -> list[tuple[Keys, Vectors]]:
        answers = []
        for neighbors in self._space.search(self._chosen.rows.take(positions), _VOTES + _SPARE):
            first = np.searchsorted(self._rows, neighbors.keys, side="left")
            counts = np.searchsorted(self._rows, neighbors.keys, side="right") - first
            within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
            owners = self._order[np.repeat(first, counts) + within]
            answers.append((owners, np.repeat(neighbors.scores, counts)))
        return answers
