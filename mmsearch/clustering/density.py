"""HDBSCAN over vectors: dense groups, and noise between them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmsearch.clustering.blocks import blocks, distinct, drawn, nearest, summed, unit
from mmsearch.clusters import NOISE
from mmsearch.protocols import VectorRows
from mmsearch.types import Keys, Vectors

_SAMPLE = 10_000
_DIMS = 30
"""Distances in many more dimensions are all alike, and trees of neighbours are slow."""
_FEWEST, _SHARE = 5, 0.003
"""A cluster has at least so many members, and this share of them all."""
_NEIGHBORS = 3
"""What is dense has so many neighbours near."""
_NEARER = 0.3
"""Of the way from the mean cosine of any two vectors to 1, a member is at least so near to the others of its cluster.

Groups that HDBSCAN finds in random directions of 64 dimensions and more are below this, those of real pictures above.
"""
_MEAN_OF = 10
_COSINES = 4_000_000
"""Cosines held at once: 16 MB."""
_EDGE = 0.05
"""The share of a cluster's own members that are farther from its centre than what is still assigned to it."""


def dense(rows: VectorRows, positions: Keys, seed: int) -> tuple[Keys, Vectors]:
    """Dense groups: labels, (n,) int64, -1 for noise, and centres, (k, dim) unit rows.

    HDBSCAN (Campello, Moulavi & Sander, PAKDD 2013) on the 30 principal components of at most 10,000 vectors, each
    moved to its neighbours first. The others are in the cluster with the nearest centre, if they are as near to it as
    95% of its members. The settings were chosen on half of 9,583 labelled pictures of clothes. Groups
    of fewer than 5 are noise, and members that are hardly nearer to the others of theirs than any two vectors are.
    """
    sample = drawn(positions, _SAMPLE, seed)
    vectors = rows.take(sample)
    found = _dense(vectors, seed)
    k = int(found.max(initial=NOISE)) + 1
    centres = unit(summed(vectors, found, k)) if k else np.zeros((0, rows.dim), dtype=np.float32)
    if len(sample) == len(positions):
        return found, centres
    labels = np.full(len(positions), NOISE, dtype=np.int64)
    if k:
        edges = _edges(vectors, found, centres)
        for place, some in blocks(rows, positions, k):
            near, cosines = nearest(some, centres)
            labels[place] = np.where(cosines < edges[near], NOISE, near)
        labels[np.searchsorted(positions, sample)] = found
    return labels, centres


def _edges(vectors: Vectors, labels: Keys, centres: Vectors) -> NDArray[np.float32]:
    """The cosine to each centre, (k,), that all but the farthest members have."""
    own = (vectors * centres[labels]).sum(axis=1)
    return np.array([np.quantile(own[labels == label], _EDGE) for label in range(len(centres))], dtype=np.float32)


def _dense(vectors: Vectors, seed: int) -> Keys:
    """HDBSCAN's label of each vector, (n,)."""
    from sklearn.cluster import HDBSCAN
    from sklearn.decomposition import PCA

    least = max(_FEWEST, round(_SHARE * len(vectors)))
    if len(vectors) < least:
        return np.full(len(vectors), NOISE, dtype=np.int64)
    if len(distinct(vectors)) == 1:  # there is nothing to compare its density with
        return np.zeros(len(vectors), dtype=np.int64)
    reduced = _smoothed(vectors)
    if vectors.shape[1] > _DIMS < len(vectors):
        reduced = PCA(_DIMS, svd_solver="full", random_state=seed).fit_transform(reduced)
    model = HDBSCAN(min_cluster_size=least, min_samples=_NEIGHBORS, copy=True)
    return _without_loose(vectors, model.fit_predict(reduced).astype(np.int64), least)


def _without_loose(vectors: Vectors, labels: Keys, least: int) -> Keys:
    """Labels without members that are not near enough to the others of their cluster, nor clusters with few others."""
    k = int(labels.max(initial=NOISE)) + 1
    if not k:
        return labels
    sizes = np.bincount(labels[labels > NOISE], minlength=k)
    others = (vectors * summed(vectors, labels, k)[labels]).sum(axis=1) - 1
    mean = float((vectors.mean(axis=0, dtype=np.float64) ** 2).sum())
    near = (labels > NOISE) & (others / (sizes[labels] - 1) - mean >= _NEARER * (1 - mean))
    keep = np.bincount(labels[near], minlength=k) >= least
    new = np.append(np.where(keep, np.cumsum(keep) - 1, NOISE), NOISE)  # the last one is that of label -1
    return new[np.where(near, labels, NOISE)].astype(np.int64)


def _smoothed(vectors: Vectors) -> Vectors:
    """Each vector, (n, dim) unit rows, halfway to the mean of its 10 nearest, itself among them; unit rows again.

    What is between two groups moves to one of them.
    """
    n = min(_MEAN_OF, len(vectors))
    found = np.empty_like(vectors)
    step = max(1, _COSINES // max(1, len(vectors)))
    for start in range(0, len(vectors), step):
        some = vectors[start : start + step]
        near = np.argpartition(some @ vectors.T, len(vectors) - n, axis=1)[:, len(vectors) - n :]
        total = np.zeros_like(some)
        for column in near.T:  # one neighbour at a time: all at once would be n times the memory
            total += vectors[column]
        found[start : start + step] = some + total / n
    return unit(found)
