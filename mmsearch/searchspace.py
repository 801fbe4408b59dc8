"""``SearchSpace``: nearest rows of one space, by exact scan while it is small and by HNSW when it is large.

The HNSW graph covers the rows up to the time when it was last saved; later rows are scanned exactly and merged in,
so that a reader never builds anything and a small addition costs a small addition.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mmsearch.catalog import SpaceRecord
from mmsearch.errors import StoreDamaged
from mmsearch.index import ExactIndex
from mmsearch.index.halves import widen
from mmsearch.types import Keys, Neighbors, Progress, Report, Vectors

if TYPE_CHECKING:
    from mmsearch.index import HNSWIndex

CROSSOVER = 20_000
"""Rows from which the graph pays. An exact scan of 20,000 x 256 takes about 1.5 ms on two cores, half of what
encoding the query takes; `benchmarks/index.py` prints both sides at several sizes."""

RECALL_TARGET = 0.99
TAIL_SHARE = 0.1
"""Rows that the graph does not cover yet are scanned; beyond this share of all rows they are added to it."""
DEAD_SHARE = 0.3
"""The graph is built anew when more than this share of its rows belongs to removed items."""
_CHUNK = 20_000


class SearchSpace:
    """The committed rows of one space and the fastest index there is over them.

    Parameters
    ----------
    matrix
        (rows, width) float16, memory-mapped.
    folder
        Where the graph is kept.
    old
        The same space before it grew: a loaded graph is taken over.
    """

    def __init__(self, record: SpaceRecord, matrix: NDArray[np.float16], folder: Path, old: SearchSpace | None) -> None:
        self.record = record
        self.matrix = matrix
        self._file = folder / f"{record.file.removesuffix('.vectors')}.usearch"
        self._lock = threading.Lock()
        self._exact: ExactIndex | None = None
        self._tail: ExactIndex | None = None
        self._graph: HNSWIndex | None = None
        self._looked = False
        self._covered = 0
        if old is not None and old._graph is not None and self._still_covers(old):
            self._graph, self._covered, self._looked = old._graph, old._covered, True

    recall_target = RECALL_TARGET

    @property
    def needs_graph(self) -> bool:
        """Whether it is large enough for a graph to pay."""
        return self.record.rows >= CROSSOVER

    @property
    def kind(self) -> str:
        """``hnsw`` or ``exact``."""
        return "hnsw" if self.graph() is not None else "exact"

    def search(self, queries: Vectors, k: int, *, among: Keys | None = None, exact: bool = False) -> list[Neighbors]:
        """For each query, (q, dim) unit rows, the k nearest rows; ``among``: of these rows only, exactly."""
        graph = None if exact or among is not None else self.graph()
        if graph is None:
            return self.exact().search(queries, k, among=among)
        near = graph.search(queries, k)
        if self._covered >= self.record.rows:
            return near
        if self._tail is None:
            keys = np.arange(self._covered, self.record.rows)
            self._tail = ExactIndex.over(self.matrix[self._covered :], keys)
        return [_merge(one, other, k) for one, other in zip(near, self._tail.search(queries, k), strict=True)]

    def exact(self) -> ExactIndex:
        """Brute force over all rows."""
        with self._lock:
            if self._exact is None:
                self._exact = ExactIndex.over(self.matrix)
            return self._exact

    def graph(self) -> HNSWIndex | None:
        """The HNSW graph, loaded when first needed; None if the space is small or the graph does not fit it."""
        if self._looked or self.record.rows < CROSSOVER:
            return self._graph
        with self._lock:
            if not self._looked:
                self._load()
        return self._graph

    def _load(self) -> None:
        from mmsearch.index import HNSWIndex, read_meta

        self._looked = True
        meta = {"space": self.record.file}
        try:
            self._graph = HNSWIndex.load(
                self._file, dim=self.record.width, dtype="f16", meta_must_equal=meta, originals=self._originals
            )
            self._covered = int(read_meta(self._file)["rows"])
        except StoreDamaged:
            self._graph = None

    def _originals(self, keys: Keys) -> Vectors:
        return widen(self.matrix[keys])

    def _still_covers(self, old: SearchSpace) -> bool:
        """Whether a loaded graph may serve on; where much is missing, another process has saved a newer one."""
        return old.record.file == self.record.file and self.record.rows - old._covered <= self._tail_limit()

    def _tail_limit(self) -> int:
        return max(CROSSOVER // 4, int(TAIL_SHARE * self.record.rows))

    def update_index(
        self,
        live: Callable[[], Keys],
        others: Sequence[NDArray[np.float16]] = (),
        progress: Report | None = None,
    ) -> None:
        """Build, extend, or build anew the graph, if that is due, and save it.

        Parameters
        ----------
        live
            Gives the rows that belong to somebody, ascending.
        others
            Matrices of other fields of the same encoder: the search effort is tuned for queries from there too,
            because texts lie elsewhere than pictures do.
        """
        if self.record.rows < CROSSOVER:
            return
        graph = self.graph()
        if graph is not None and self.record.rows - self._covered <= self._tail_limit():
            return
        from mmsearch.index import HNSWIndex, quarantine

        if graph is None:
            quarantine(self._file)
        alive = live()
        if graph is None or len(graph) - np.count_nonzero(alive < self._covered) > DEAD_SHARE * len(graph):
            graph, missing = HNSWIndex(self.record.width, originals=self._originals), alive
        else:
            graph.remove(np.setdiff1d(np.arange(self._covered), alive, assume_unique=True))
            missing = alive[alive >= self._covered]
        for first in range(0, len(missing), _CHUNK):
            if progress is not None:
                progress(Progress("index", first, len(missing)))
            keys = missing[first : first + _CHUNK]
            graph.add(keys, self._originals(keys))
        graph.tune(self.sample_queries(others), k=10, target=RECALL_TARGET)
        graph.save(self._file, {"space": self.record.file, "rows": self.record.rows})
        with self._lock:
            self._graph, self._covered, self._looked, self._tail = graph, self.record.rows, True, None

    def sample_queries(self, others: Sequence[NDArray[np.float16]] = (), n: int = 200) -> Vectors:
        """Vectors to audit the index with, (up to n, dim) unit rows: stored ones, blurred, and other fields' own."""
        rng = np.random.default_rng(0)
        matrices = [self.matrix, *(other for other in others if other.shape[1:] == self.matrix.shape[1:])]
        parts = []
        for matrix in matrices:
            rows = np.sort(rng.choice(len(matrix), size=min(len(matrix), n // len(matrices)), replace=False))
            picked = matrix[rows].astype(np.float32)
            parts.append(picked + rng.normal(0, 0.5 / picked.shape[1] ** 0.5, picked.shape).astype(np.float32))
        queries = np.concatenate(parts)
        return np.asarray(queries / np.linalg.norm(queries, axis=1, keepdims=True), dtype=np.float32)

    def recall(self, others: Sequence[NDArray[np.float16]] = (), k: int = 10) -> float:
        """Recall@k of ``search`` against the exact scan over sampled queries; 1.0 where the scan is exact anyway."""
        queries = self.sample_queries(others)
        if self.graph() is None or not len(queries):
            return 1.0
        found, right = self.search(queries, k), self.search(queries, k, exact=True)
        # By score, not by key: of equally near rows any will do.
        hits = [
            np.count_nonzero(one.scores >= other.scores[-1] - 1e-6) for one, other in zip(found, right, strict=True)
        ]
        return float(sum(hits)) / sum(len(other) for other in right)

    def forget_index(self) -> None:
        """Drop the graph, saved and loaded."""
        with self._lock:
            self._graph, self._covered, self._looked = None, 0, True
            for file in self._file.parent.glob(f"{self._file.name}*"):
                file.unlink(missing_ok=True)


def _merge(one: Neighbors, other: Neighbors, k: int) -> Neighbors:
    keys, scores = np.concatenate([one.keys, other.keys]), np.concatenate([one.scores, other.scores])
    keys, first = np.unique(keys, return_index=True)
    order = np.lexsort((keys, -scores[first]))[:k]
    return Neighbors(keys[order], scores[first][order])
