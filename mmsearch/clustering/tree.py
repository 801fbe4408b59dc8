"""The hierarchy over clusters: groups of them, and groups of groups."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mmsearch.clustering.joining import Tree
from mmsearch.errors import InvalidInput
from mmsearch.types import Keys, Vectors

FEWEST = 6
"""Fewer clusters than this can be seen at a glance."""
_NEARBY = 1.6
_COARSEST = 3
"""Fewer branches than this say nothing."""
_TWO, _THREE = 16, 200
"""From so many clusters on there are two levels above them, and three."""


def hierarchy(centres: Vectors, sizes: Sequence[int] | Keys) -> list[Keys]:
    """Group clusters, and groups of them, by how alike their centres are.

    The centres are joined two at a time by Ward's criterion (J. Am. Stat. Assoc. 58, 1963), and the tree is cut where
    a level has about the same number of branches in each group as the other levels: with k clusters and m levels above
    them there are about k ** (i / (m + 1)) groups in the i-th, at least 3, and exactly there where, within a factor of
    1.6, the next join costs the most times what the last one did.

    Parameters
    ----------
    centres
        (k, dim) unit rows.
    sizes
        (k,) how many members each has: groups are numbered from the one with the most members down.

    Returns
    -------
    list of ndarray of shape (k,), int64
        The levels, coarsest first, each as the group of each cluster; a group of one level is within one group of the
        level before. Empty for fewer than 6 clusters; one level for fewer than 16, two for fewer than 200, else three.

    Raises
    ------
    InvalidInput
        If there is not one size a centre.
    """
    counts = np.asarray(sizes, dtype=np.int64)
    if counts.shape != (len(centres),):
        raise InvalidInput(f"expected one size for each of {len(centres)} centres, got shape {counts.shape}")
    k = len(centres)
    if k < FEWEST:
        return []
    tree = Tree(centres)
    n_levels = 1 + (k >= _TWO) + (k >= _THREE)
    levels: list[Keys] = []
    n = _COARSEST - 1
    for level in range(1, n_levels + 1):
        n = _near(tree.heights, k ** (level / (n_levels + 1)), n + 1)
        levels.append(_numbered(tree.cut(n), counts))
    return levels


def _near(heights: NDArray[np.float64], about: float, least: int) -> int:
    """A number of groups near a wished one, where one join more costs the most times what the last one did."""
    k = len(heights) + 1
    low, high = max(least, round(about / _NEARBY)), min(k - 1, round(about * _NEARBY))
    # With n groups left, k - n joins were made; the next one is at position k - n.
    return max(range(low, max(low, high) + 1), key=lambda n: heights[k - n] / max(heights[k - n - 1], 1e-6))


def _numbered(groups: NDArray[np.integer], sizes: Keys) -> Keys:
    """Groups numbered from 0, the one with the most members first."""
    _, first, of = np.unique(groups, return_index=True, return_inverse=True)
    order = np.lexsort((first, -np.bincount(of, weights=sizes)))
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return rank[of]
