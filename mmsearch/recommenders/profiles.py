"""What a person wants, from what they liked: one direction, several interests, or each liked thing by itself."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmsearch.types import Keys, Vectors
from mmsearch.vectors import SCORE_DECIMALS

MEAN, INTERESTS, NEAREST = PROFILES = ("mean", "interests", "nearest")
"""Rocchio's mean; medoids of clusters of what was liked; every liked thing."""
MOST_INTERESTS = 10
MOST_EVENTS = 500
"""The latest events that are clustered: clustering takes time with the square of their number."""
_APART = 1.0
"""Ward distance at which clusters of unit rows are no longer merged; two rows at a right angle are 1.41 apart."""


def interests(vectors: Vectors, weights: NDArray[np.float32]) -> tuple[Keys, NDArray[np.float32]]:
    """Several interests of one person, as PinnerSage finds them (Pal et al., KDD 2020, section 3).

    What was liked is clustered by Ward's method until clusters are 1.0 apart, so that the number of interests follows
    from the person; each is stood for by its medoid, a thing that exists, since a mean of unlike things is like
    neither (section 3.1.2); an interest matters as much as the weights of its members together (section 3.1.3).

    Parameters
    ----------
    vectors
        (n, dim) unit rows of what was liked.
    weights
        (n,) above 0, for example less for what is long ago.

    Returns
    -------
    (m,) int64 positions of the medoids, the most important first, and (m,) float32 importances that add up to 1; at
    most 10.
    """
    if not len(vectors):
        return np.zeros(0, np.int64), np.zeros(0, np.float32)
    labels = np.zeros(len(vectors), dtype=np.int64)
    if len(vectors) > 1:
        from sklearn.cluster import AgglomerativeClustering  # whose import takes long

        ward = AgglomerativeClustering(n_clusters=None, distance_threshold=_APART, linkage="ward")
        labels = ward.fit_predict(vectors)
    medoids, importances = [], []
    for label in range(int(labels.max()) + 1):
        members = np.flatnonzero(labels == label)
        # Of unit rows, the one with the least squared distance to all has the largest mean of weighted cosines.
        importances.append(float(weights[members].sum()))
        mean = (weights[members] / np.float32(importances[-1])) @ vectors[members]
        medoids.append(int(members[np.argmax(np.round(vectors[members] @ mean, SCORE_DECIMALS))]))
    order = np.argsort(-np.array(importances), kind="stable")[:MOST_INTERESTS]
    share = np.array(importances, dtype=np.float32)[order]
    return np.array(medoids, dtype=np.int64)[order], share / share.sum()


def best_score(cosines: NDArray[np.float32], liked: NDArray[np.bool_]) -> tuple[NDArray[np.float32], Keys]:
    """Score items by the nearest thing that was liked, unless something disliked is nearer.

    The rule of Qdrant's recommendation strategy ``best_score``, as its documentation gives it: the largest cosine to
    a liked thing if that is larger than the largest to a disliked one, else minus the square of the latter; the square
    keeps its sign here, so that the opposite of something disliked is better than the thing itself.

    Parameters
    ----------
    cosines
        (n_things, n_items) of each thing that was liked or disliked to each item.
    liked
        (n_things,) which were liked.

    Returns
    -------
    (n_items,) float32 scores, and (n_items,) int64 the thing that decided. 0 and -1 without any thing.
    """
    n_items = cosines.shape[1]
    columns = np.arange(n_items)
    nearest = {}
    for wanted in (True, False):
        its = np.flatnonzero(liked == wanted)
        if len(its):
            best = its[np.argmax(cosines[its], axis=0)]
            nearest[wanted] = best, cosines[best, columns]
    nothing = np.full(n_items, -1, dtype=np.int64), np.full(n_items, -np.inf, dtype=np.float32)
    like, dislike = nearest.get(True, nothing), nearest.get(False, nothing)
    if not nearest:
        return np.zeros(n_items, dtype=np.float32), nothing[0]
    wins = like[1] > dislike[1]
    against = np.where(np.isfinite(dislike[1]), dislike[1], 0)
    return np.where(wins, like[1], -against * np.abs(against)).astype(np.float32), np.where(wins, like[0], dislike[0])
