"""``PastClusters``: the clusterings that were made before, by which a new one knows its clusters again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mmsearch.clusters import NOISE
from mmsearch.filters import Filter
from mmsearch.keptsets import KeptSets
from mmsearch.store import Store
from mmsearch.types import Keys

_MOST = 32
"""Clusterings of parts of a store that are remembered; those of the whole are never given up for them."""
_OF = " of "
_UNFILTERED = "null" + _OF


@dataclass(frozen=True, slots=True, eq=False)
class Past:
    """A clustering as it was kept.

    ``keys``, (n,) int64 ascending, are the items, ``labels``, (n,), the ids of their clusters, -1 for none; ``names``
    and ``titles`` are those of the clusters by id, and ``next_id`` is larger than any id that was ever given out for
    this filter.
    """

    keys: Keys
    labels: Keys
    names: Mapping[int, str]
    titles: Mapping[int, str]
    next_id: int

    def labels_of(self, keys: Keys) -> Keys:
        """The cluster of each of these items, (m,); -1 for those that it did not know."""
        place = place_of(keys, self.keys)
        return np.where(place >= 0, self.labels[place] if len(self.labels) else NOISE, NOISE).astype(np.int64)


class PastClusters:
    """Keeps the latest clustering of a store for each filter and number of clusters that was asked for."""

    def __init__(self, store: Store) -> None:
        self._sets = KeptSets(store, "clusters", _MOST, lambda name: name.startswith(_UNFILTERED))

    def get(self, where: Filter | None, asked: str | None = None) -> Past | None:
        """The latest clustering with this filter, if there is one that can be read.

        ``asked``: the latest of those that were asked for in this way, rather than of all.
        """
        names = [name for name in self._sets.facts() if name.startswith(name_of(where) + _OF)]
        wanted = f"{name_of(where)}{_OF}{asked}"
        order = [*([wanted] if wanted in names else []), *reversed(names)]
        return next((past for past in map(self._read, order) if past is not None), None)

    def next_id(self) -> int:
        """A number that is larger than any id that was given out in this store and is remembered."""
        told = [facts.get("next_id") for facts in self._sets.facts().values()]
        return max((one for one in told if isinstance(one, int)), default=0)

    def _read(self, name: str) -> Past | None:
        found = self._sets.get(name)
        if found is None:
            return None
        arrays, facts = found
        try:
            keys, labels = np.array(arrays["keys"]), np.array(arrays["labels"])
            if keys.ndim != 1 or keys.shape != labels.shape or keys.dtype != np.int64 or labels.dtype != np.int64:
                return None
            names, titles = ({int(id): str(name) for id, name in facts[part].items()} for part in ("names", "titles"))
            return Past(keys, labels, names, titles, int(facts["next_id"]))
        except (LookupError, ValueError, TypeError, AttributeError):
            return None  # it says only what clusters were called; without it they are new

    def put(self, where: Filter | None, asked: str, past: Past) -> None:
        """Keep a clustering as the latest with this filter that was so asked for; raises as ``KeptSets.put`` does."""
        facts = {"names": past.names, "titles": past.titles, "next_id": past.next_id}
        arrays = {"keys": past.keys, "labels": past.labels}
        self._sets.put(f"{name_of(where)}{_OF}{asked}", arrays, facts)


def name_of(where: Filter | None) -> str:
    """The name of a filter."""
    return json.dumps(where, sort_keys=True, default=str)


def place_of(keys: Keys, among: Keys) -> Keys:
    """Where keys, (m,), are among ascending ones; -1 for those that are not there."""
    if not len(among):
        return np.full(len(keys), NOISE, dtype=np.int64)
    place = np.minimum(np.searchsorted(among, keys), len(among) - 1)
    return np.where(among[place] == keys, place, NOISE).astype(np.int64)
