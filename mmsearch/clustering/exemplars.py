"""Members to show: central and varied ones, those on the border, odd ones."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmsearch.clustering.blocks import blocks
from mmsearch.protocols import VectorRows
from mmsearch.types import Keys, Vectors
from mmsearch.vectors import SCORE_DECIMALS

_POOL = 500
"""The most central members, of which varied ones are chosen."""
_SHARE = 0.6
"""No more than this share of the members is called central."""


def central(rows: VectorRows, members: Keys, centre: Vectors, n: int) -> Keys:
    """Positions of up to n members: the medoid, then central ones that are unlike those before.

    The member with the highest cosine to the centre has the highest mean cosine to all members, if the centre is the
    direction of their mean: it is the medoid. The others are chosen from the more central 60% of the members, at most
    500 (n, if that is more): again and again the one whose largest cosine to a chosen one is the smallest (Gonzalez,
    Theor. Comput. Sci. 38, 1985).

    Parameters
    ----------
    members
        (m,) int64 positions in ``rows``.
    centre
        (dim,) unit row.

    Returns
    -------
    ndarray of shape (min(n, m),), int64
        Equally good ones are ordered by their position.
    """
    alike = _cosines(rows, members, centre[None, :])[:, 0]
    order = np.lexsort((members, -alike))
    pool = order[: max(n, min(_POOL, int(np.ceil(_SHARE * len(order)))))]
    vectors = rows.take(members[pool])
    nearest = np.full(len(pool), -1.0)
    chosen: list[int] = []
    while len(chosen) < min(n, len(pool)):
        best = int(np.argmin(nearest)) if chosen else 0
        chosen.append(best)
        np.maximum(nearest, np.round(vectors @ vectors[best], SCORE_DECIMALS), out=nearest)
        nearest[best] = np.inf
    return members[pool[chosen]]


def border(rows: VectorRows, members: Keys, centres: Vectors, own: int, n: int) -> Keys:
    """Positions of up to n members that are almost as near to another centre, the nearest to it first.

    Parameters
    ----------
    members
        (m,) int64 positions in ``rows``.
    centres
        (k, dim) unit rows of all clusters; ``own`` is the members'. With one cluster there is no border.

    Returns
    -------
    ndarray of shape (min(n, m),), int64
    """
    if len(centres) < 2:
        return members[:0]
    alike = _cosines(rows, members, centres, own)
    return members[np.lexsort((members, alike[:, 0] - alike[:, 1]))[:n]]


def odd(rows: VectorRows, members: Keys, centre: Vectors, n: int) -> Keys:
    """Positions of up to n members, (min(n, m),) int64, that are farthest from their centre, the farthest first.

    ``members`` are (m,) int64 positions in ``rows``, ``centre`` is a (dim,) unit row.
    """
    alike = _cosines(rows, members, centre[None, :])[:, 0]
    return members[np.lexsort((members, alike))[:n]]


def _cosines(rows: VectorRows, members: Keys, centres: Vectors, own: int = 0) -> NDArray[np.float32]:
    """Cosines of members to their own centre and to the nearest other one (0 if there is none), (m, 2), rounded."""
    found = np.zeros((len(members), 2), dtype=np.float32)
    for place, vectors in blocks(rows, members, len(centres)):
        alike = vectors @ centres.T
        found[place, 0] = alike[:, own]
        if len(centres) > 1:
            alike[:, own] = -np.inf
            found[place, 1] = alike.max(axis=1)
    return np.round(found, SCORE_DECIMALS)
