"""``Tree``: vectors joined two at a time by Ward's criterion, which can be cut into any number of clusters."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmsearch.types import Keys, Vectors


class Tree:
    """Ward's tree (J. Am. Stat. Assoc. 58, 1963) of a few thousand vectors: memory grows with their square.

    Parameters
    ----------
    vectors
        (n, dim) unit rows.
    """

    def __init__(self, vectors: Vectors) -> None:
        from scipy.cluster.hierarchy import linkage

        self._n = len(vectors)
        joins = linkage(vectors.astype(np.float64), method="ward") if self._n > 1 else np.zeros((0, 4))
        self._pairs = joins[:, :2].astype(np.int64)
        self.heights: NDArray[np.float64] = joins[:, 2]
        """What each join cost, (n - 1,), in ascending order."""

    def cut(self, n: int) -> Keys:
        """Labels of exactly n clusters, 1 to the number of vectors, (n_vectors,) int64 from 0 on."""
        parent = np.arange(self._n + len(self._pairs))
        n_joins = self._n - n  # all but the last n - 1
        parent[self._pairs[:n_joins].ravel()] = np.repeat(self._n + np.arange(n_joins), 2)
        while not np.array_equal(parent, further := parent[parent]):
            parent = further
        return np.unique(parent[: self._n], return_inverse=True)[1].astype(np.int64)
