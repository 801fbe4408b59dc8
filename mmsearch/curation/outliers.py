"""Odd items: unlike their neighbours, easily set apart, or far from every centre."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from mmsearch.errors import InvalidInput
from mmsearch.protocols import VectorRows
from mmsearch.types import Keys, Progress, Report, Vectors

METHODS = ("lof", "isolation", "distance")

N_SAMPLE = 10_000
"""Items against which all are judged: a random sample of a larger collection."""
N_NEIGHBORS = 50
"""Neighbours of LOF: more than there are of one odd kind, else those are dense by themselves (Breunig et al., section
6.2)."""
N_AXES = 64
"""Principal axes that LOF and the forest look at."""
N_TREES = 200
N_GROUPS = 32
"""Groups whose centres stand in where none are given; those with less than half of the usual size are left out, for
they may be what is odd."""
_MEMBERS = 10
"""A group has so many members on average, or the odd ones of a small collection would be groups of their own."""
_BLOCK = 16_384
_SAME = 0.01
_DIGITS = 5

Shares = NDArray[np.float64]


def outlier_scores(
    rows: VectorRows,
    centres: Vectors | None = None,
    *,
    methods: Sequence[str] = METHODS,
    seed: int = 0,
    report: Report | None = None,
) -> dict[str, Shares]:
    """How odd each item is, by each method and by all of them together.

    ``lof`` is the local outlier factor (Breunig et al., SIGMOD 2000): how much thinner the surroundings of an item are
    than those of its neighbours. ``isolation`` is the isolation forest (Liu, Ting & Zhou, ICDM 2008): how few random
    cuts set it apart. ``distance`` is 1 less the cosine to the nearest centre.

    Parameters
    ----------
    rows
        n vectors, best as the encoder made them: less their mean, pictures of another kind are found worse. A row of
        zeros stands for an item without a vector: it is not odd and makes no other item so.
    centres
        (m, dim) unit rows: those of clusters. None: those of a k-means of the sample.
    methods
        Which of ``lof``, ``isolation`` and ``distance``.
    seed
        Of the sample and of all chance in the methods.
    report
        Called as the work proceeds.

    Returns
    -------
    dict
        By method, and by ``score`` for all of them, (n,) float64: the share of the other items that are less odd, 0 to
        1. Equally odd items have equal shares, so all are 0 where no item differs from another. Never NaN. ``score``
        is such a share too, of the sum of -log(1 - share) over the methods (Fisher, Statistical Methods for Research
        Workers, 1932, section 21.1): being very odd by one method counts for more than being a bit odd by all.

    Raises
    ------
    InvalidInput
        For an unknown method, none at all, or centres of another width.

    Notes
    -----
    Fits on at most 10,000 items and then judges all by them in blocks, so a million vectors need no more memory than
    the answer and some 100 MB. Copies of one vector count once among the neighbours of LOF, else the inside of a heap
    of copies would be infinitely dense (Breunig et al., the remark on definition 6). Takes O(n m) time for m sampled.
    """
    _check(rows, centres, methods)
    there = with_vector(rows)
    judges = _judges(rows, there, centres, methods, seed)
    raw = {method: np.zeros(len(there)) for method in judges}
    for start, block in blocks(rows, there):
        if report is not None:
            report(Progress("outliers", start, len(there)))
        for method, judge in judges.items():
            raw[method][start : start + len(block)] = judge(block)
    shares = {method: _shares(values) for method, values in raw.items()}
    rarity = [-np.log1p(1.0 / max(1, len(there)) - values) for values in shares.values()]
    shares["score"] = _shares(np.sum(rarity, axis=0))
    return {method: _spread(values, there, len(rows)) for method, values in shares.items()}


def _check(rows: VectorRows, centres: Vectors | None, methods: Sequence[str]) -> None:
    unknown = [method for method in methods if method not in METHODS]
    if unknown or not methods:
        raise InvalidInput(f"expected methods among {', '.join(METHODS)}, got {unknown or 'none'}")
    if centres is not None and (centres.ndim != 2 or centres.shape[1] != rows.dim):
        raise InvalidInput(f"expected centres (m, {rows.dim}), got shape {centres.shape}")


def blocks(rows: VectorRows, positions: Keys) -> Iterator[tuple[int, Vectors]]:
    """The vectors at positions, piece by piece: where the piece starts, and its (m, dim) rows."""
    for start in range(0, len(positions), _BLOCK):
        yield start, rows.take(positions[start : start + _BLOCK])


def with_vector(rows: VectorRows) -> Keys:
    """Positions of the items that have a vector: one that is not all zeros."""
    everything = np.arange(len(rows), dtype=np.int64)
    there = [np.flatnonzero(block.any(axis=1)) + start for start, block in blocks(rows, everything)]
    return np.concatenate([np.zeros(0, dtype=np.int64), *there])


def some(positions: Keys, n: int, seed: int) -> Keys:
    """At most n of the positions, drawn without replacement, in ascending order."""
    if len(positions) <= n:
        return positions
    return np.sort(np.random.default_rng(seed).choice(positions, size=n, replace=False))


def _judges(
    rows: VectorRows, there: Keys, centres: Vectors | None, methods: Sequence[str], seed: int
) -> dict[str, Callable[[Vectors], Shares]]:
    """What tells the raw oddness of (m, dim) rows, by method; higher is odder."""
    sample = rows.take(some(there, N_SAMPLE, seed))
    axes = _axes(sample)
    found: dict[str, Callable[[Vectors], Shares]] = {}
    for method in methods:
        if not len(sample):
            found[method] = lambda block: np.zeros(len(block))
        elif method == "lof":
            found[method] = _lof(sample @ axes, axes)
        elif method == "isolation":
            found[method] = _isolation(sample @ axes, axes, seed)
        else:
            found[method] = _distance(centres if centres is not None and len(centres) else _groups(sample, seed))
    return found


def _axes(sample: Vectors) -> Vectors:
    """The principal axes of rows, (dim, at most ``N_AXES``)."""
    spread = sample - sample.mean(axis=0) if len(sample) else sample
    _, vectors = np.linalg.eigh(spread.T.astype(np.float64) @ spread)
    return np.asarray(vectors[:, ::-1][:, :N_AXES], dtype=np.float32)


def _lof(sample: Vectors, axes: Vectors) -> Callable[[Vectors], Shares]:
    """The local outlier factor against a sample: definitions 3 to 7 of Breunig et al. (2000)."""
    from sklearn.neighbors import NearestNeighbors

    # Copies of one vector count once: see the notes above.
    distinct = sample[np.unique(np.round(sample, 3), axis=0, return_index=True)[1]]
    if len(distinct) < 3:
        return lambda block: np.ones(len(block))
    k = min(N_NEIGHBORS, len(distinct) - 2)
    search = NearestNeighbors(n_neighbors=k + 1, algorithm="brute").fit(distinct)

    def others(points: Vectors) -> tuple[Shares, Keys]:
        """The k nearest that are not the point itself or its copy: their distances and their places."""
        apart, places = search.kneighbors(points)
        itself = apart[:, :1] < _SAME
        return np.where(itself, apart[:, 1:], apart[:, :-1]), np.where(itself, places[:, 1:], places[:, :-1])

    apart, places = others(distinct)
    reach = apart[:, -1]

    def density(apart: Shares, places: Keys) -> Shares:
        return np.asarray(1.0 / np.maximum(np.maximum(reach[places], apart).mean(axis=1), 1e-9))

    dense = density(apart, places)

    def judge(block: Vectors) -> Shares:
        apart, places = others(block @ axes)
        return np.asarray(dense[places].mean(axis=1) / density(apart, places))

    return judge


def _isolation(sample: Vectors, axes: Vectors, seed: int) -> Callable[[Vectors], Shares]:
    from sklearn.ensemble import IsolationForest

    forest = IsolationForest(n_estimators=N_TREES, random_state=seed).fit(sample)
    return lambda block: np.asarray(-forest.score_samples(block @ axes), dtype=np.float64)


def _distance(centres: Vectors) -> Callable[[Vectors], Shares]:
    return lambda block: np.asarray(1.0 - (block @ centres.T).max(axis=1), dtype=np.float64)


def _groups(sample: Vectors, seed: int) -> Vectors:
    """Centres of a k-means of a sample, as unit rows, of the groups that are not small."""
    from sklearn.cluster import KMeans

    n_groups = max(1, min(N_GROUPS, len(sample) // _MEMBERS, len(np.unique(sample, axis=0))))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fewer distinct points than groups, where some are nearly equal
        fitted = KMeans(n_groups, n_init=1, random_state=seed, max_iter=30).fit(sample)
    sizes = np.bincount(fitted.labels_, minlength=n_groups)
    centres = np.asarray(fitted.cluster_centers_[2 * n_groups * sizes >= len(sample)], dtype=np.float32)
    return np.asarray(centres / np.maximum(np.linalg.norm(centres, axis=1, keepdims=True), 1e-9), dtype=np.float32)


def _shares(raw: Shares) -> Shares:
    """Oddness as the share of the others that are less odd."""
    values = np.round(raw, _DIGITS)
    return np.searchsorted(np.sort(values), values) / max(1, len(values) - 1)


def _spread(values: Shares, there: Keys, n: int) -> Shares:
    everywhere = np.zeros(n)
    everywhere[there] = values
    return everywhere
