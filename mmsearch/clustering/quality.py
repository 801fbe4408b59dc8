"""How good clusters are, and how well they go with given labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mmsearch.clustering.blocks import Held, blocks, drawn, sums
from mmsearch.clustering.group import Grouping, group
from mmsearch.clustering.number import silhouettes
from mmsearch.clusters import NOISE, Quality
from mmsearch.errors import InvalidInput
from mmsearch.protocols import VectorRows
from mmsearch.types import Keys, Vectors

_SAMPLE, _EACH, _MOST = 5_000, 20, 20_000
"""Items of which halves are clustered anew: so many, or so many a cluster if that is more, but never over the last."""
_DRAWS = 4


def quality(
    rows: VectorRows, grouping: Grouping, *, seed: int = 0, sample: int | None = None
) -> tuple[Quality, list[Quality]]:
    """How good a clustering of vectors is, and each of its clusters: see ``Quality``. No number is NaN.

    Silhouettes, by cosine distance, are exact and of all vectors: those of a cluster's only member are 0. Stability is
    the mean over four random halves of a sample, each clustered anew with the same method and number; a cluster none of
    whose members is in a half does not come back in it.

    Parameters
    ----------
    rows
        The vectors that were grouped.
    seed
        Draws the halves.
    sample
        How many vectors to draw halves of. None: 5,000, or 20 a cluster, but at most 20,000.

    Returns
    -------
    overall, each
        The means over all clustered vectors, and one for each cluster, in the order of the labels. Zeros and an empty
        list if there is no cluster.
    """
    k = len(grouping.centres)
    where = np.flatnonzero(grouping.labels > NOISE)
    if not k:
        return Quality(), []
    labels = grouping.labels[where]
    sizes = np.bincount(labels, minlength=k)
    total = sums(rows, where, labels, k)
    apart, near = np.zeros(len(where)), np.zeros(len(where))
    for place, vectors in blocks(rows, where, 4 * k):
        apart[place] = silhouettes(vectors, labels[place], total, sizes)
        near[place] = (vectors * grouping.centres[labels[place]]).sum(axis=1)
    some = drawn(where, min(_MOST, max(_SAMPLE, _EACH * k)) if sample is None else sample, seed)
    columns = [
        np.bincount(labels, apart, k) / sizes,
        np.clip(np.bincount(labels, near, k) / sizes, -1.0, 1.0),
        _separation(grouping.centres),
        _stability(rows, grouping, some, seed),
    ]
    each = [Quality(*(float(column[label]) for column in columns)) for label in range(k)]
    return Quality(*(float(np.average(column, weights=sizes)) for column in columns)), each


def _separation(centres: Vectors) -> NDArray[np.float64]:
    """1 less the cosine of each centre to the nearest other one, (k,); 0 if there is no other."""
    k = len(centres)
    if k < 2:
        return np.zeros(k)
    found = np.zeros(k)
    for start in range(0, k, 1_000):
        alike = centres[start : start + 1_000] @ centres.T
        place = np.arange(len(alike))
        alike[place, start + place] = -np.inf
        found[start : start + 1_000] = 1 - np.clip(alike.max(axis=1), -1, 1)
    return found


def _stability(rows: VectorRows, grouping: Grouping, some: Keys, seed: int) -> NDArray[np.float64]:
    """Each cluster's mean Jaccard overlap with the best cluster of random halves that are clustered anew, (k,)."""
    k = len(grouping.centres)
    if k == 1:  # the whole of what is clustered, whichever half is taken
        return np.ones(1)
    n = None if grouping.method == "hdbscan" else k
    total = np.zeros(k)
    for draw in range(seed + 1, seed + 1 + _DRAWS):
        half = drawn(some, (len(some) + 1) // 2, draw)
        anew = group(Held(rows.take(half)), n, method=grouping.method, seed=draw).labels
        total += _overlaps(grouping.labels[half], anew, k).max(axis=1, initial=0.0)
    return total / _DRAWS


def _overlaps(first: Keys, second: Keys, k: int) -> NDArray[np.float64]:
    """Jaccard overlaps of k clusters with others, (k, others)."""
    n = int(second.max(initial=-1)) + 1
    shared = np.zeros((k, n))
    both = second >= 0
    np.add.at(shared, (first[both], second[both]), 1)
    united = np.bincount(first, minlength=k)[:, None] + np.bincount(second[both], minlength=n) - shared
    return shared / np.maximum(united, 1)


def agreement(labels: Keys, truth: Sequence[str | None]) -> dict[str, float]:
    """How well clusters go with given labels; higher is better, 1 is the most.

    ``nmi`` is the mutual information over the arithmetic mean of the entropies, ``ari`` the adjusted Rand index (Hubert
    & Arabie, J. Classif. 2, 1985), ``purity`` the share of items that have the given label which is the most frequent
    in their cluster (Manning, Raghavan & Schuetze, Introduction to Information Retrieval, 2008, section 16.3).

    Parameters
    ----------
    labels
        (n,) whole numbers. Noise, -1, counts as one cluster.
    truth
        The given label of each item; those with None are left out. Without any, all three are 0.

    Raises
    ------
    InvalidInput
        If the lengths differ.

    >>> agreement(np.array([0, 0, 1, 1]), ["cat", "cat", "dog", None])
    {'nmi': 1.0, 'ari': 1.0, 'purity': 1.0}
    """
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
    from sklearn.metrics.cluster import contingency_matrix

    if len(labels) != len(truth):
        raise InvalidInput(f"expected a true label or None for each of {len(labels)} items, got {len(truth)}")
    there = [place for place, label in enumerate(truth) if label is not None]
    if not there:
        return {"nmi": 0.0, "ari": 0.0, "purity": 0.0}
    found, true = np.asarray(labels)[there], [str(truth[place]) for place in there]
    return {
        "nmi": float(normalized_mutual_info_score(true, found)),
        "ari": float(adjusted_rand_score(true, found)),
        "purity": float(contingency_matrix(true, found).max(axis=0).sum() / len(true)),
    }
