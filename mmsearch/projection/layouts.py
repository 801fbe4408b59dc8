"""UMAP and PaCMAP: maps that keep neighbours together."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from mmsearch.errors import MissingDependency
from mmsearch.types import Vectors

PACKAGES = {"umap": "umap", "pacmap": "pacmap"}
"""The package of each method that needs one."""
_NEIGHBORS = 15
"""UMAP's own number of neighbours."""
_MIN_DIST = 0.5
"""UMAP's least distance between points. By its own 0.1, 5,000 fashion pictures covered 6% of a grid of 100 x 100 on the
map, with much space between crowded islands; by 0.5, 14%, for a trust of 0.987 instead of 0.989."""
_FIRST_REACH = 0.01
"""How far UMAP's first layout reaches: a small one leaves the groups free to sort themselves out."""


def installed(method: str) -> bool:
    """Whether a method can be had here."""
    return method not in PACKAGES or find_spec(PACKAGES[method]) is not None


def lay_out(method: str, vectors: Vectors, first: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """Lay out unit rows that all differ, (n, dim), n at least 15, with UMAP or PaCMAP: (n, 2) float32.

    Both start from ``first``, (n, 2), the principal components, which keeps what is far apart in its place (Kobak &
    Linderman, Nature Biotechnology 39, 2021). The same seed gives the same layout on the same machine.

    Raises
    ------
    MissingDependency
        Without the package.
    """
    with _quiet():
        try:
            points = _umap(vectors, first, seed) if method == "umap" else _pacmap(vectors, first, seed)
        except ImportError as error:
            name = {"umap": "UMAP", "pacmap": "PaCMAP"}[method]
            raise MissingDependency(f"{name} maps need an extra: pip install 'mmsearch[analysis]'") from error
    # An item that the optimiser lost goes to the middle of the others.
    lost = ~np.isfinite(points).all(axis=1)
    points[lost] = points[~lost].mean(axis=0) if not lost.all() else 0.0
    return points


def _umap(vectors: Vectors, first: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """UMAP by cosine (McInnes, Healy & Melville, arXiv:1802.03426). With a seed it uses one thread."""
    import umap

    start = first * (_FIRST_REACH / max(float(np.abs(first).max()), 1e-12))
    near = min(_NEIGHBORS, len(vectors) - 1)
    model = umap.UMAP(
        n_neighbors=near, min_dist=_MIN_DIST, metric="cosine", init=start, random_state=int(seed), n_jobs=1
    )
    return np.asarray(model.fit_transform(vectors), dtype=np.float32)


def _pacmap(vectors: Vectors, first: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """PaCMAP (Wang et al., JMLR 22, 2021). Its euclidean distance of unit rows orders neighbours as the cosine does.

    Its own angular distance would be taken after it subtracts the mean.
    """
    import faiss
    import pacmap

    # Without a number of neighbours it takes 10, and from 10,000 items on more.
    model = pacmap.PaCMAP(n_neighbors=None, distance="euclidean", random_state=int(seed))
    threads = faiss.omp_get_max_threads()
    try:
        return np.asarray(model.fit_transform(vectors, init=first, save_pairs=False), dtype=np.float32)
    finally:
        faiss.omp_set_num_threads(threads)  # with a seed it sets one thread for the whole process


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep both from warning of what is meant: one thread for a seed, fewer pairs for few items, numba's advice."""
    logger = logging.getLogger("pacmap.pacmap")
    before, logger.disabled = logger.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = before
