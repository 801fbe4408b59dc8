"""``Grouper``: a store's items into named clusters that keep their identity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from mmsearch.clustering import Grouping, Matching, agreement, border, central, group, hierarchy, match, odd, quality
from mmsearch.clustering.blocks import blocks
from mmsearch.clusters import NOISE, Change, Cluster, Clustering, Exemplars, Quality
from mmsearch.errors import InvalidInput, StoreError
from mmsearch.filters import Filter
from mmsearch.lexicon import Vocabulary, check_vocabulary
from mmsearch.pastclusters import Past, PastClusters
from mmsearch.ranking import Ranker
from mmsearch.selection import Selection, labels_of
from mmsearch.store import Store
from mmsearch.types import Item, Keys, Report
from mmsearch.vectors import SCORE_DECIMALS, check_seed
from mmsearch.wording import Wording, worded

_CENTRAL, _BORDER, _ODD = 8, 4, 4


class Grouper:
    """Answers ``Engine.clusters``."""

    def __init__(self, store: Store, ranker: Ranker) -> None:
        self._store, self._ranker = store, ranker
        self.past = PastClusters(store)

    def clusters(
        self,
        n: int | None = None,
        *,
        method: str = "auto",
        where: Filter | None = None,
        vocabulary: Vocabulary = None,
        seed: int = 0,
        report: Report | None = None,
    ) -> Clustering:
        """Named groups of the items that pass a filter. See ``Engine.clusters``."""
        check_vocabulary(vocabulary)
        check_seed(seed)
        with self._store.reading() as view:
            chosen = Selection.of(self._store, view, where)
            grouping = group(chosen.rows, n, method=method, seed=seed, report=report)
            asked = f"{n} {method}"
            past = self.past.get(where, asked)
            matching = _matched(past, chosen, grouping, self.past.next_id())
            former = {label: past.names[id] for label, id in matching.ids.items() if past and id in past.names}
            words = worded(chosen, grouping, vocabulary, former, self._ranker.collection, seed, report)
            overall, each = quality(chosen.rows, grouping, seed=seed)
            clusters = _clusters(chosen, grouping, matching.ids, words, each)
            labels = np.array([*matching.ids.values(), NOISE], dtype=np.int64)[grouping.labels]
            names = {cluster.id: cluster.name for cluster in clusters}
            known = Past(
                chosen.keys, labels, names, {one.id: one.title for one in clusters}, matching.next_id
            )  # fmt: skip
            found = Clustering(
                clusters=clusters,
                labels=_by_id(chosen, labels),
                method=grouping.method,
                quality=overall,
                hierarchy=words.branches(hierarchy(grouping.centres, _sizes(grouping)), matching.ids),
                changes=_changes(matching, names, past),
                tried=grouping.tried,
                notes=_notes(chosen),
            )
        try:
            self.past.put(where, asked, known)
        except StoreError as error:
            return replace(found, notes=(*found.notes, f"ids may be others the next time: {error}"))
        return found

    def agreement(self, found: Clustering, field: str) -> dict[str, float]:
        """How well clusters go with a metadata field. See ``Engine.cluster_agreement``."""
        if not isinstance(found, Clustering):
            raise InvalidInput(f"expected clusters as engine.clusters gives them, got {type(found).__name__}")
        with self._store.reading():
            by_id = labels_of(self._store, list(found.labels), field)
        return agreement(np.fromiter(found.labels.values(), dtype=np.int64), by_id)


def _sizes(grouping: Grouping) -> Keys:
    labels = grouping.labels[grouping.labels >= 0]
    return np.bincount(labels, minlength=len(grouping.centres)).astype(np.int64)


def _matched(past: Past | None, chosen: Selection, grouping: Grouping, next_id: int) -> Matching:
    """The ids of the new clusters."""
    after = dict(zip(chosen.keys.tolist(), grouping.labels.tolist(), strict=True))
    before = dict(zip(past.keys.tolist(), past.labels.tolist(), strict=True)) if past else {}
    return match(before, after, next_id=next_id)


def _clusters(
    chosen: Selection, grouping: Grouping, ids: Mapping[int, int], words: Wording, each: Sequence[Quality]
) -> tuple[Cluster, ...]:
    found = []
    order = np.argsort(grouping.labels, kind="stable")
    starts = np.searchsorted(grouping.labels[order], np.arange(len(grouping.centres) + 1))
    for label, id in ids.items():
        members = order[starts[label] : starts[label + 1]]
        found.append(
            Cluster(
                id=id,
                name=words.names[label],
                keywords=words.keywords[label],
                confidence=words.confidence[label],
                items=chosen.items(_most_central_first(chosen, members, grouping, label)),
                exemplars=_exemplars(chosen, members, grouping, label),
                quality=each[label],
                title=words.titles[label],
            )
        )
    return tuple(found)


def _most_central_first(chosen: Selection, members: Keys, grouping: Grouping, label: int) -> Keys:
    alike = np.zeros(len(members), dtype=np.float32)
    for place, vectors in blocks(chosen.rows, members):
        alike[place] = np.round(vectors @ grouping.centres[label], SCORE_DECIMALS)
    return members[np.lexsort((members, -alike))]


def _exemplars(chosen: Selection, members: Keys, grouping: Grouping, label: int) -> Exemplars:
    rows, centres = chosen.rows, grouping.centres
    shown = [central(rows, members, centres[label], _CENTRAL)]
    # What is shown as central is neither odd nor on the border; small clusters have nothing else.
    shown.append(border(rows, np.setdiff1d(members, shown[0]), centres, label, _BORDER))
    shown.append(odd(rows, np.setdiff1d(members, np.concatenate(shown)), centres[label], _ODD))
    return Exemplars(*(_tuple(chosen, positions) for positions in shown))


def _tuple(chosen: Selection, positions: Keys) -> tuple[Item, ...]:
    return tuple(chosen.items(positions))


def _by_id(chosen: Selection, labels: Keys) -> dict[str, int]:
    """The cluster of each item by its id, in the order in which they came; none for those without a vector."""
    keys = np.concatenate([chosen.keys, chosen.without])
    order = np.argsort(keys, kind="stable")
    every = np.concatenate([labels, np.full(len(chosen.without), NOISE, dtype=np.int64)])[order]
    return dict(zip(chosen.ids(keys[order]), every.tolist(), strict=True))


def _changes(matching: Matching, names: Mapping[int, str], past: Past | None) -> tuple[Change, ...]:
    """What happened, with names; nothing where there was no clustering before."""
    if past is None:
        return ()
    return tuple(replace(one, name=names.get(one.id) or past.names.get(one.id, "")) for one in matching.changes)


def _notes(chosen: Selection) -> tuple[str, ...]:
    n = len(chosen.without)
    if not n:
        return ()
    why = "no picture beside many that have one, or no vector yet (run `mmsearch sync`)"
    return (f"{n} items are in no cluster: they have {why}",)
