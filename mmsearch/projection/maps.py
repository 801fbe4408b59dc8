"""Making a map: which method, of which rows, and how it is scaled, turned and judged."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmsearch.errors import InvalidInput, MissingDependency
from mmsearch.projection.layouts import PACKAGES, installed, lay_out
from mmsearch.projection.linear import Plane, blocks, fit_plane
from mmsearch.projection.placing import Landmarks
from mmsearch.projection.values import Points, Projection
from mmsearch.protocols import VectorRows
from mmsearch.types import Keys, Progress, Report

METHODS = ("auto", "pca", "umap", "pacmap")
FEWEST = 15
"""Fewer different vectors than this have no neighbourhoods to keep: they get principal components."""
PACMAP_FROM = 20_000
"""From so many items on, ``auto`` takes PaCMAP."""
FITTED = 100_000
"""The most items that UMAP or PaCMAP lay out; the others are placed beside them."""
LANDMARKS = 50_000
"""The most items beside which others are placed."""
_COSINES = 10_000_000_000
"""Cosines to spend on placing: some minutes. There are fewer landmarks where there is more to place."""
_JUDGED, _NEIGHBORS = 1_000, 10
"""Positions and neighbours that the trust in a map is computed from."""
_STAGE = "map"


def project(rows: VectorRows, *, method: str = "auto", seed: int = 0, report: Report | None = None) -> Projection:
    """Lay vectors out in the plane, what is alike together.

    Cosine decides what is alike. The map is turned as the first two principal components
    are, so that maps of nearly the same collection look alike.

    Parameters
    ----------
    rows
        The vectors. Those of zeros are no part of the map and lie at (0, 0).
    method
        ``pca`` shows the two directions that differ most, needs no further package and takes seconds; most
        neighbourhoods are lost. ``umap`` and ``pacmap`` keep neighbourhoods, and say little about distances between
        groups. ``auto`` takes PaCMAP from 20,000 items on, else UMAP, or whichever of the two is installed, else PCA.
        Fewer than 15 different vectors get PCA whatever the method.
    seed
        The same seed gives the same map on the same machine.
    report
        Called now and then.

    Returns
    -------
    Projection
        UMAP and PaCMAP lay out at most 100,000 items, chosen by the seed, equal vectors at one point; the others are
        placed amid the most similar of those. Memory is bounded by that, however many rows there are.

    Raises
    ------
    InvalidInput
        For another method, or a seed that is no whole number from 0 to 2**32 - 1.
    MissingDependency
        If the method is ``umap`` or ``pacmap`` and its package is not installed.
    """
    _check(method, seed)
    tell = report or (lambda progress: None)
    tell(Progress(_STAGE, 0, len(rows)))
    there = _there(rows)
    plane = fit_plane(rows, there)
    rng = np.random.default_rng(seed)
    fitted = there if len(there) <= FITTED else np.sort(rng.choice(there, FITTED, replace=False))
    first, same_as = _distinct(rows, fitted)
    chosen = _choose(method, len(first), len(there))
    points = np.zeros((len(rows), 2), dtype=np.float32)
    landmarks = np.zeros(0, dtype=np.int64)
    if chosen == "pca":
        plane = _scale_plane(rows, there, plane)
        for block in blocks(there, rows.dim):
            points[block] = plane.place(rows.take(block))
    else:
        vectors = rows.take(first)
        points[fitted] = _turned(lay_out(chosen, vectors, plane.place(vectors), seed), plane.place(vectors))[same_as]
        landmarks = rng.permutation(first)[:LANDMARKS]
        _place_others(rows, np.setdiff1d(there, fitted), landmarks, points, tell)
        plane = Plane(np.zeros((0, 2), dtype=np.float32), np.zeros(2, dtype=np.float32))
    np.clip(points, -1, 1, out=points)  # rounding may lead a last bit beyond
    tell(Progress(_STAGE, len(rows), len(rows)))
    return Projection(chosen, points, _trust(rows, there, points, rng), landmarks, plane.matrix, plane.offset)


def _check(method: str, seed: int) -> None:
    if method not in METHODS:
        raise InvalidInput(f"expected a method of {', '.join(METHODS)}, got {method!r}")
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**32:
        raise InvalidInput(f"expected seed as a whole number from 0 to 2**32 - 1, got {seed!r}")
    if not installed(method):
        raise MissingDependency(f"maps by {method} need an extra: pip install 'mmsearch[analysis]'")


def _choose(method: str, n_distinct: int, n: int) -> str:
    """The method to use: of ``auto``, the one that is installed and suits so many items."""
    if n_distinct < FEWEST:
        return "pca"
    if method != "auto":
        return method
    suited = list(PACKAGES) if n < PACMAP_FROM else list(PACKAGES)[::-1]
    return next((one for one in suited if installed(one)), "pca")


def _there(rows: VectorRows) -> Keys:
    """Positions that have a vector."""
    everything = np.arange(len(rows))
    return np.concatenate([everything[:0], *(at[rows.take(at).any(axis=1)] for at in blocks(everything, rows.dim))])


def _distinct(rows: VectorRows, positions: Keys) -> tuple[Keys, Keys]:
    """The first position of each different vector, in order, and for each position the number of that one."""
    number: dict[bytes, int] = {}
    first, same_as = [], []
    for block in blocks(positions, rows.dim):
        for position, row in zip(block, rows.take(block), strict=True):
            digest = blake2b(row.tobytes(), digest_size=16).digest()
            if digest not in number:
                number[digest] = len(number)
                first.append(position)
            same_as.append(number[digest])
    return np.array(first, dtype=np.int64), np.array(same_as, dtype=np.int64)


def _scale_plane(rows: VectorRows, there: Keys, plane: Plane) -> Plane:
    """The plane, scaled so that what is there lies within -1 to 1."""
    low, high = np.full(2, np.inf), np.full(2, -np.inf)
    for block in blocks(there, rows.dim):
        points = plane.place(rows.take(block))
        low, high = np.minimum(low, points.min(axis=0)), np.maximum(high, points.max(axis=0))
    if not len(there):
        return plane
    middle, factor = _frame(low, high)
    return Plane(plane.matrix * factor, (plane.offset - middle) * factor)


def _frame(low: NDArray[Any], high: NDArray[Any]) -> tuple[NDArray[np.float32], np.float32]:
    """What to take off and to multiply by, so that a box fits within -1 to 1; nothing is enlarged out of one point."""
    reach = float((high - low).max()) / 2
    return ((low + high) / 2).astype(np.float32), np.float32(1 / reach if reach > 0 else 1)


def _turned(points: Points, like: Points) -> Points:
    """Points turned and mirrored to lie as much as they can like others, and scaled to -1 to 1.

    That is the orthogonal Procrustes rotation (Schönemann, Psychometrika 31, 1966).
    """
    centred, other = points - points.mean(axis=0), like - like.mean(axis=0)
    left, _, right = np.linalg.svd(centred.T.astype(np.float64) @ other)
    turned = centred @ (left @ right).astype(np.float32)
    middle, factor = _frame(turned.min(axis=0), turned.max(axis=0))
    return np.asarray((turned - middle) * factor, dtype=np.float32)


def _place_others(rows: VectorRows, others: Keys, landmarks: Keys, points: Points, tell: Report) -> None:
    """Place, in ``points``, the positions that were not laid out."""
    if not len(others):
        return
    some = landmarks[: max(FEWEST, _COSINES // len(others))]
    beside = Landmarks(rows.take(some), points[some])
    done = len(rows) - len(others)
    for block in blocks(others, rows.dim):
        tell(Progress(_STAGE, done, len(rows)))
        points[block] = beside.place(rows.take(block))
        done += len(block)


def _trust(rows: VectorRows, there: Keys, points: Points, rng: np.random.Generator) -> float:
    """Trustworthiness of a sample: see ``Projection.trust``."""
    sample = there if len(there) <= _JUDGED else np.sort(rng.choice(there, _JUDGED, replace=False))
    sample, _ = _distinct(rows, sample)
    near = min(_NEIGHBORS, (len(sample) - 1) // 2)
    if near < 1:
        return 1.0
    from sklearn.manifold import trustworthiness

    return float(np.clip(trustworthiness(rows.take(sample), points[sample], n_neighbors=near, metric="cosine"), 0, 1))
