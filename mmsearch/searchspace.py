"""``SearchSpace``: nearest rows of one space, by exact scan while it is small and by HNSW when it is large.

The HNSW graph covers the rows up to the time when it was last saved; later rows are scanned exactly and merged in,
so that a reader never builds anything and a small addition costs a small addition.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mmsearch.catalog import SpaceRecord
from mmsearch.errors import StoreDamaged
from mmsearch.index import ExactIndex
from mmsearch.index.halves import widen
from mmsearch.spaces import BLOCK
from mmsearch.types import Keys, Neighbors, Progress, Report, Vectors

if TYPE_CHECKING:
    from mmsearch.index import HNSWIndex

CROSSOVER = 20_000
"""Rows from which the graph pays. An exact scan of 20,000 x 256 takes about 1.5 ms on two cores, half of what
encoding the query takes; `benchmarks/index.py` prints both sides at several sizes."""

RECALL_TARGET = 0.99
TUNED_K = 16
"""The effort is tuned for ten hits and some spare rows; for more rows it grows in proportion."""
TAIL_SHARE = 0.1
"""Rows that the graph does not cover yet are scanned; beyond this share of all rows they are added to it."""
DEAD_SHARE = 0.3
"""The graph is built anew when more than this share of its rows belongs to removed items."""
_BUILD_CHUNK = 20_000
_EXTEND_CHUNK = 2_000
"""A graph that is searched meanwhile is locked for one chunk at a time."""


class SearchSpace:
    """The committed rows of one space and the fastest index there is over them.

    Parameters
    ----------
    matrix
        (rows, width) float16, memory-mapped.
    folder
        Where the graph is kept.
    crcs
        Gives the checksum of each block of rows, by which a graph is known to be of these very rows.
    old
        The same space before it grew: a loaded graph is taken over.
    """

    def __init__(
        self,
        record: SpaceRecord,
        matrix: NDArray[np.float16],
        folder: Path,
        crcs: Callable[[], dict[int, int]],
        old: SearchSpace | None,
    ) -> None:
        self.record = record
        self.matrix = matrix
        self._file = folder / f"{record.file.removesuffix('.vectors')}.usearch"
        self._crcs = crcs
        self._lock = threading.Lock()
        self._exact: ExactIndex | None = None
        self._covering: Covering | None = None
        self._looked = False
        if old is not None and old._covering is not None and self._still_covers(old.record, old._covering):
            self._covering, self._looked = old._covering, True

    recall_target = RECALL_TARGET

    @property
    def needs_graph(self) -> bool:
        """Whether it is large enough for a graph to pay."""
        return self.record.rows >= CROSSOVER

    @property
    def kind(self) -> str:
        """``hnsw`` or ``exact``."""
        return "hnsw" if self.graph() is not None else "exact"

    @property
    def lacks_graph(self) -> bool:
        """Whether it looked for a graph in vain although it is large: somebody may have saved one since."""
        return self.needs_graph and self._looked and self._covering is None

    def search(self, queries: Vectors, k: int, *, among: Keys | None = None, exact: bool = False) -> list[Neighbors]:
        """For each query, (q, dim) unit rows, the k nearest rows; ``among``: of these rows only, exactly."""
        covering = None if exact or among is not None else self._look()
        if covering is None:
            return self.exact().search(queries, k, among=among)
        effort = max(covering.graph.effort, covering.graph.effort * k // TUNED_K)
        near = covering.graph.search(queries, k, effort=effort)
        tail = covering.tail(self.matrix)
        if tail is None:
            return near
        return [_merge(one, other, k) for one, other in zip(near, tail.search(queries, k), strict=True)]

    def exact(self) -> ExactIndex:
        """Brute force over all rows."""
        with self._lock:
            if self._exact is None:
                self._exact = ExactIndex.over(self.matrix)
            return self._exact

    def graph(self) -> HNSWIndex | None:
        """The HNSW graph, loaded when first needed; None if the space is small or the graph does not fit it."""
        covering = self._look()
        return covering.graph if covering else None

    def _look(self) -> Covering | None:
        if self._covering is None and not self._looked and self.needs_graph:
            with self._lock:
                if not self._looked:
                    self._covering, self._looked = self._load(), True
        return self._covering

    def _load(self) -> Covering | None:
        from mmsearch.index import HNSWIndex, read_meta

        try:
            rows = int(read_meta(self._file)["rows"])
            if rows > self.record.rows:  # the graph of a later state, or of a catalog that was replaced by an older one
                return None
            meta = self.identity(rows)
            originals = Originals(self.matrix)
            graph = HNSWIndex.load(
                self._file, dim=self.record.width, dtype="f16", meta_must_equal=meta, originals=originals
            )
        except (StoreDamaged, KeyError, ValueError):
            return None
        return Covering(graph, rows, originals)

    def identity(self, rows: int) -> dict[str, str | int]:
        """What anything made from the first rows must say of itself: which rows, by their checksums."""
        crcs, whole = self._crcs(), rows // BLOCK
        checksum = zlib.crc32(np.array([crcs.get(block, -1) for block in range(whole)], dtype=np.int64).tobytes())
        checksum = zlib.crc32(self.matrix[whole * BLOCK : rows].tobytes(), checksum)
        return {"space": self.record.file, "rows": rows, "checksum": checksum}

    def _still_covers(self, record: SpaceRecord, covering: Covering) -> bool:
        """Whether a loaded graph may serve on; where much is missing, another process has saved a newer one."""
        return record.file == self.record.file and 0 <= self.record.rows - covering.rows <= self._tail_limit()

    def _tail_limit(self) -> int:
        return max(CROSSOVER // 4, int(TAIL_SHARE * self.record.rows))

    def update_index(
        self, live: Callable[[], Keys], others: Sequence[NDArray[np.float16]] = (), report: Report | None = None
    ) -> bool:
        """Build, extend, or build anew the graph, if that is due, and save it. Say whether it was.

        Parameters
        ----------
        live
            Gives the rows that belong to somebody, ascending.
        others
            Matrices of other fields of the same encoder: the search effort is tuned for queries from there too,
            because texts lie elsewhere than pictures do.
        """
        if not self.needs_graph:
            return False
        covering, alive = self._look(), live()
        dead = 0 if covering is None else len(covering.graph) - int(np.searchsorted(alive, covering.rows))
        anew = covering is None or dead > DEAD_SHARE * len(covering.graph)
        if covering is not None and not anew and self.record.rows - covering.rows <= self._tail_limit():
            return False
        from mmsearch.index import HNSWIndex, quarantine

        if covering is None or anew:
            quarantine(self._file)
            originals = Originals(self.matrix)
            graph, missing, chunk = HNSWIndex(self.record.width, originals=originals), alive, _BUILD_CHUNK
        else:
            graph, originals, chunk = covering.graph, covering.originals, _EXTEND_CHUNK
            originals.matrix = self.matrix  # it holds the rows of the one before, and more
            graph.remove(np.setdiff1d(np.arange(covering.rows), alive, assume_unique=True))
            missing = alive[alive >= covering.rows]
        for first in range(0, len(missing), chunk):
            if report is not None:
                report(Progress("index", first, len(missing)))
            keys = missing[first : first + chunk]
            graph.add(keys, widen(self.matrix[keys]))
        if len(graph):
            graph.tune(self.sample_queries(others), k=10, target=RECALL_TARGET)
        graph.save(self._file, self.identity(self.record.rows))
        with self._lock:
            self._covering, self._looked = Covering(graph, self.record.rows, originals), True
        return True

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

    def recall(self, live: Keys, others: Sequence[NDArray[np.float16]] = (), k: int = 10) -> float:
        """Recall@k of ``search`` against the exact scan of the live rows, over sampled queries; 1.0 where it scans."""
        queries = self.sample_queries(others)
        if self.graph() is None or not len(queries) or not len(live):
            return 1.0
        right = self.exact().search(queries, k, among=live)
        # Removed rows stand in the way as they do in a search, which asks for more where they do.
        n = min(k * -(-self.record.rows // len(live)) + k, self.record.rows)
        hits = 0
        for one, other in zip(self.search(queries, n), right, strict=True):
            scores = one.scores[np.isin(one.keys, live, assume_unique=True)][:k]
            hits += int(np.count_nonzero(scores >= other.scores[-1] - 1e-6))  # of equally near rows any will do
        return hits / sum(len(other) for other in right)

    def forget_index(self) -> None:
        """Drop the graph, saved and loaded."""
        with self._lock:
            self._covering, self._looked = None, True
            for file in self._file.parent.glob(f"{self._file.name}*"):
                file.unlink(missing_ok=True)


class Originals:
    """Gives a graph the stored vectors of its rows; holds the matrix and nothing else."""

    def __init__(self, matrix: NDArray[np.float16]) -> None:
        self.matrix = matrix

    def __call__(self, keys: Keys) -> Vectors:
        """The rows of these numbers, (n, width) float32."""
        return widen(self.matrix[keys])


class Covering:
    """A graph and the number of rows, from the first, that it covers; they change together or not at all."""

    def __init__(self, graph: HNSWIndex, rows: int, originals: Originals) -> None:
        self.graph = graph
        self.rows = rows
        self.originals = originals
        self._tail: tuple[int, ExactIndex] | None = None

    def tail(self, matrix: NDArray[np.float16]) -> ExactIndex | None:
        """The exact index of the rows that came later, or None."""
        if self.rows >= len(matrix):
            return None
        tail = self._tail
        if tail is None or tail[0] != len(matrix):
            tail = (len(matrix), ExactIndex.over(matrix[self.rows :], np.arange(self.rows, len(matrix))))
            self._tail = tail
        return tail[1]


def _merge(one: Neighbors, other: Neighbors, k: int) -> Neighbors:
    keys, scores = np.concatenate([one.keys, other.keys]), np.concatenate([one.scores, other.scores])
    keys, first = np.unique(keys, return_index=True)
    order = np.lexsort((keys, -scores[first]))[:k]
    return Neighbors(keys[order], scores[first][order])
