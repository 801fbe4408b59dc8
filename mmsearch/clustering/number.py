"""How many clusters: as many as are well apart, where people can take in some tens."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mmsearch.clustering.blocks import summed
from mmsearch.types import Keys, Vectors

MOST = 100
"""More clusters than this are made only if asked for."""
_RATIO = 1.25
_EACH = 3
"""No more clusters are tried than there are sets of so many vectors."""
_WISHED, _WISHED_SHARE, _TOLERANCE = 40.0, 1.5, 2.5
_LEAST = 0.04
"""Random directions in 256 dimensions give silhouettes below this; the lowest seen of real collections were above."""


def silhouettes(vectors: Vectors, labels: Keys, sums: NDArray[np.float64], sizes: Keys) -> NDArray[np.float64]:
    """The silhouette of vectors, (n, dim), with labels, (n,), by cosine distance: (n,), exact, without all pairs.

    The mean distance of a vector to the members of a cluster is 1 less its product with their mean, so that the
    clusters' sums, (k, dim), and sizes, (k,), are enough. 0 for the only member of a cluster, and with one cluster
    (Rousseeuw, J. Comput. Appl. Math. 20, 1987).
    """
    if len(sizes) < 2 or not len(vectors):
        return np.zeros(len(vectors))
    place = np.arange(len(vectors))
    products = vectors @ sums.T.astype(np.float32)
    apart = 1.0 - products / np.maximum(sizes, 1)
    # A vector's product with itself is 1; it is no neighbour of itself.
    within = 1.0 - (products[place, labels] - 1.0) / np.maximum(sizes[labels] - 1, 1)
    apart[:, sizes == 0] = np.inf
    apart[place, labels] = np.inf
    between = apart.min(axis=1)
    largest = np.maximum(np.maximum(within, between), 1e-6)
    return np.where(sizes[labels] > 1, np.clip((between - within) / largest, -1.0, 1.0), 0.0)


def silhouette(vectors: Vectors, labels: Keys) -> float:
    """The mean silhouette of a clustering of vectors, (n, dim), by labels from 0 on, (n,)."""
    k = int(labels.max(initial=-1)) + 1
    found = silhouettes(vectors, labels, summed(vectors, labels, k), np.bincount(labels, minlength=k))
    return float(found.mean()) if len(found) else 0.0


def number(
    vectors: Vectors, cluster: Callable[[int], Keys], n_items: int, n_different: int
) -> tuple[int, dict[int, float]]:
    """How many clusters these vectors, (m, dim), have, and the score of each number tried.

    The score of a number n is the mean silhouette times ``exp(-(ln(n / wished) / 2.5) ** 2 / 2)``, where ``wished`` is
    40, or the square root of ``n_items`` / 1.5 where this is less. Silhouettes of real collections are flat: they
    differ by a tenth from 10 clusters to 100, and then the second factor settles it. Those of separate groups are not:
    they fall by more than a tenth for one group split or two joined, and then it changes nothing. Numbers from 2 in
    steps of a quarter are tried, and then those around the best one. 1 where no silhouette reaches 0.04.

    Parameters
    ----------
    cluster
        Gives labels, (m,), for a number.
    n_items
        How many items there are, of which the vectors are a sample.
    n_different
        How many distinct ones are among the vectors.
    """
    most = min(MOST, n_different, len(vectors) // _EACH)
    wished = max(2.0, min(_WISHED, np.sqrt(n_items) / _WISHED_SHARE))
    found: dict[int, float] = {}
    tried: dict[int, float] = {}

    def score(n: int) -> float:
        if n not in tried:
            found[n] = silhouette(vectors, cluster(n))
            tried[n] = found[n] * float(np.exp(-((np.log(n / wished) / _TOLERANCE) ** 2) / 2))
        return tried[n]

    if most < 2:
        return 1, {}
    best = max(_grid(most), key=score)
    step = round(best * (_RATIO - 1) / 2)
    while step:
        best = max((n for n in (best, best - step, best + step) if 2 <= n <= most), key=score)
        step //= 2
    return (best if max(found.values()) >= _LEAST else 1), dict(sorted(tried.items()))


def _grid(most: int) -> list[int]:
    """2, 3 and so on, in steps that grow to a quarter, up to the most, which is at least 2."""
    found = [2]
    while found[-1] < most:
        found.append(min(most, max(found[-1] + 1, round(_RATIO * found[-1]))))
    return found
