"""Spherical k-means: centres of unit length, every vector with the centre that it has the highest cosine to."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmsearch.clustering.blocks import blocks, nearest, summed, unit
from mmsearch.protocols import VectorRows
from mmsearch.types import Keys, Progress, Report, Vectors

_ROUNDS = 30
_STAGE = "clusters"


def settled(
    rows: VectorRows, positions: Keys, centres: Vectors, *, rounds: int = _ROUNDS, report: Report | None = None
) -> tuple[Keys, Vectors]:
    """Rounds of spherical k-means (Dhillon & Modha, Machine Learning 42, 2001) until no label changes.

    Parameters
    ----------
    positions
        (n,) int64 in ``rows``.
    centres
        (k, dim) unit rows to start from.
    rounds
        At most so many; with 0 every vector goes to its nearest centre and stays there.

    Returns
    -------
    labels, centres
        (n,) int64, and (k, dim) unit rows, the directions of the members' means. A centre without members stays where
        it was.
    """
    labels, total = _round(rows, positions, centres)
    for done in range(rounds):
        if report is not None:
            report(Progress(_STAGE, done, rounds))
        before, centres = labels, _moved(centres, total)
        labels, total = _round(rows, positions, centres)
        if np.array_equal(before, labels):
            break
    return labels, _moved(centres, total)


def streamed(
    rows: VectorRows, positions: Keys, centres: Vectors, weights: Keys, report: Report | None = None
) -> tuple[Keys, Vectors]:
    """What ``settled`` gives, nearly, for large collections: mini-batch k-means in one pass, labels in another.

    Centres move after each block to the mean direction of what was nearest to them so far (Sculley, WWW 2010, section
    3, where the rate of learning is 1 / count). ``weights``, (k,), say for how many vectors the first centres count.
    """
    total = centres.astype(np.float64) * weights[:, None]
    for place, vectors in blocks(rows, positions, len(centres)):
        labels, _ = nearest(vectors, centres)
        total += summed(vectors, labels, len(centres))
        centres = _moved(centres, total)
        if report is not None:
            report(Progress(_STAGE, place.stop, len(positions)))
    labels, total = _round(rows, positions, centres)
    return labels, _moved(centres, total)


def _round(rows: VectorRows, positions: Keys, centres: Vectors) -> tuple[Keys, NDArray[np.float64]]:
    """The nearest centre of each vector, (n,), and for each centre the sum of the vectors nearest to it, (k, dim)."""
    labels = np.zeros(len(positions), dtype=np.int64)
    total = np.zeros((len(centres), rows.dim))
    for place, vectors in blocks(rows, positions, len(centres)):
        labels[place], _ = nearest(vectors, centres)
        total += summed(vectors, labels[place], len(centres))
    return labels, total


def _moved(centres: Vectors, total: NDArray[np.float64]) -> Vectors:
    new = unit(total)
    return np.where(new.any(axis=1, keepdims=True), new, centres)
