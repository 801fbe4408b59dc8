"""``Mapper``: the map of a store's items, kept and extended to new ones."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmsearch.atlas import Map
from mmsearch.clusters import NOISE, Clustering
from mmsearch.errors import InvalidInput, StoreError
from mmsearch.filters import Filter
from mmsearch.keptsets import KeptSets
from mmsearch.pastclusters import PastClusters, name_of, place_of
from mmsearch.projection import METHODS, Projection, project
from mmsearch.selection import Selection
from mmsearch.store import Store, View
from mmsearch.types import Keys, Report, Vectors
from mmsearch.vectors import check_seed

_MOST = 8
"""Maps of parts of a store that are kept, the latest for each filter and method; those of the whole stay."""
_BY = " by "
_MARKS, _SAME = 16, 0.001
"""Numbers of a vector by which it is known again, and what rounding makes of them."""
_BLOCK = 20_000
"""Items that are looked at at once."""
_KNOWN = 0.5
"""A map is made anew when it knows less than this share of the items."""


@dataclass(frozen=True, slots=True, eq=False)
class _Kept:
    """A map as it was kept: the keys of the mapped items, (n,) ascending, and where they lie.

    ``places`` are the positions on it of the items that are asked about; -1 for new ones.
    """

    keys: Keys
    projection: Projection
    places: Keys


class _Mapped:
    """The vectors of mapped items, some of which may be gone: zeros for these."""

    def __init__(self, chosen: Selection, positions: Keys) -> None:
        self._rows, self._positions = chosen.rows, positions

    def __len__(self) -> int:
        return len(self._positions)

    @property
    def dim(self) -> int:
        return self._rows.dim

    def take(self, columns: Keys) -> Vectors:
        positions = self._positions[columns]
        vectors = np.zeros((len(positions), self.dim), dtype=np.float32)
        there = positions >= 0
        vectors[there] = self._rows.take(positions[there])
        return vectors


class Mapper:
    """Answers ``Engine.map``."""

    def __init__(self, store: Store, past: PastClusters) -> None:
        self._store, self._past = store, past
        self._sets = KeptSets(store, "maps", _MOST, lambda name: name.startswith(name_of(None) + _BY))

    def map(
        self,
        *,
        method: str = "auto",
        where: Filter | None = None,
        clusters: Clustering | None = None,
        refit: bool = False,
        seed: int = 0,
        report: Report | None = None,
    ) -> Map:
        """Items in the plane. See ``Engine.map``."""
        if method not in METHODS:
            raise InvalidInput(f"expected a method of {', '.join(METHODS)}, got {method!r}")
        if clusters is not None and not isinstance(clusters, Clustering):
            raise InvalidInput(f"expected clusters as engine.clusters gives them, got {type(clusters).__name__}")
        check_seed(seed)
        with self._store.reading() as view:
            chosen = Selection.of(self._store, view, where)
            kept = None if refit else self._kept(where, method, view, chosen)
            if kept is None:
                projection = project(chosen.rows, method=method, seed=seed, report=report)
                points = projection.points
            else:
                projection, points = kept.projection, _extended(kept, chosen)
            labels, names = self._coloured(chosen, where, clusters)
            found = Map(
                items=chosen.items(np.arange(len(chosen))),
                points=points,
                labels=labels,
                names=names,
                method=projection.method,
                trust=projection.trust,
            )
        if kept is None:
            facts = {"of": _origin(view, chosen)}
            arrays: dict[str, NDArray[Any]] = {"keys": chosen.keys, "marks": _marks(chosen), **projection.state()}
            with suppress(StoreError):  # a store that cannot be written costs another fit the next time
                self._sets.put(f"{name_of(where)}{_BY}{method}", arrays, facts)
        return found

    def _coloured(
        self, chosen: Selection, where: Filter | None, clusters: Clustering | None
    ) -> tuple[Keys, Mapping[int, str]]:
        """The cluster of each item, and the clusters' titles."""
        if clusters is not None:
            labels = [clusters.labels.get(id, NOISE) for id in chosen.ids()]
            return np.array(labels, dtype=np.int64), {one.id: one.title for one in clusters}
        past = self._past.get(where)
        if past is None:
            return np.full(len(chosen), NOISE, dtype=np.int64), {}
        return past.labels_of(chosen.keys), past.titles

    def _kept(self, where: Filter | None, method: str, view: View, chosen: Selection) -> _Kept | None:
        """The map that was kept for this filter, if it may be used and knows enough of the items."""
        name = f"{name_of(where)}{_BY}{method}"
        names = [one for one in self._sets.facts() if one.startswith(name_of(where) + _BY)]
        if name not in names and method == "auto" and names:
            name = names[-1]  # the latest that was asked for by its method
        found = self._sets.get(name)
        if found is None:
            return None
        arrays, facts = found
        if facts.get("of") != _origin(view, chosen):
            return None
        try:
            keys, marks, projection = np.array(arrays["keys"]), arrays["marks"], Projection.from_state(arrays)
        except (InvalidInput, LookupError, ValueError, TypeError):
            return None
        n = len(projection)
        if keys.shape != (n,) or keys.dtype != np.int64 or marks.shape != (n, min(_MARKS, chosen.rows.dim)):
            return None
        places = place_of(chosen.keys, keys)
        there = np.flatnonzero(places >= 0)
        same = np.abs(_marks(chosen)[there] - marks[places[there]]).max(axis=1, initial=0.0) <= _SAME
        places[there[~same]] = -1  # it shows something else by now: it is new
        known = int((places >= 0).sum())
        return _Kept(keys, projection, places) if known and known >= _KNOWN * len(chosen) else None


def _origin(view: View, chosen: Selection) -> list[str]:
    """What the vectors are: a map of others says nothing of these."""
    return [view.encoder.fingerprint if view.encoder else "", chosen.field]


def _marks(chosen: Selection) -> NDArray[np.float32]:
    """The beginning of each vector, (n, at most 16), by which an item that was replaced is known."""
    marks = np.zeros((len(chosen), min(_MARKS, chosen.stored.dim)), dtype=np.float32)
    for start in range(0, len(chosen), _BLOCK):
        block = np.arange(start, min(start + _BLOCK, len(chosen)))
        marks[block] = chosen.stored.take(block)[:, :_MARKS]
    return marks


def _extended(kept: _Kept, chosen: Selection) -> NDArray[np.float32]:
    """Where all chosen items lie, (n, 2): new ones beside those that are mapped."""
    place = kept.places
    points = np.zeros((len(chosen), 2), dtype=np.float32)
    points[place >= 0] = kept.projection.points[place[place >= 0]]
    new = np.flatnonzero(place < 0)
    now = np.full(len(kept.keys), -1, dtype=np.int64)
    now[place[place >= 0]] = np.flatnonzero(place >= 0)
    mapped = _Mapped(chosen, now)
    for start in range(0, len(new), _BLOCK):
        block = new[start : start + _BLOCK]
        points[block] = kept.projection.extend(mapped, chosen.rows.take(block))
    return points
