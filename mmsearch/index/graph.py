"""The USearch graph and everything about USearch that the rest of the program should not have to know."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mmsearch.errors import InvalidInput, StoreDamaged
from mmsearch.index.halves import Halves, widen
from mmsearch.overlap import n_cores
from mmsearch.types import Keys, Vectors

StoredAs: TypeAlias = Literal["f16", "f32", "bf16", "i8"]
"""How the graph keeps vectors."""
STORED_AS = ("f16", "f32", "bf16", "i8")

_PARALLEL_FROM = 1000
"""Smaller additions are made by one thread: that loses nothing, and gives the same graph every time."""
_LOOK_AROUND = 16
"""How many nodes a vector may be hidden behind by equal or better scores and still count as found."""
_KEPT_EXACTLY = ("f16", "f32")
_SCORE_ERROR = {"f16": 1e-3, "f32": 1e-5}
"""How far two of the graph's own scores may be out of order: it rounds the query to the type of its vectors."""


class Graph:
    """Nodes, each a float16 unit vector under a number, and the approximate search for the nearest.

    USearch serialises searches and additions of one index, but protects nothing else: whoever calls ``remove``,
    ``rename``, ``rows`` or ``save`` must keep other writers away. ``nearest`` may be called by many threads.
    """

    def __init__(self, dim: int, stored_as: StoredAs, connectivity: int, expansion_add: int) -> None:
        if stored_as not in STORED_AS:
            raise InvalidInput(f"expected one of {', '.join(STORED_AS)} as dtype, got {stored_as!r}")
        self.dim = dim
        self.stored_as = stored_as
        self.connectivity = connectivity
        self.expansion_add = expansion_add
        self.holes = 0
        self._turn = threading.Lock()
        self._index = _usearch_index(
            ndim=dim,
            # i8 scores depend on how a vector was scaled with every metric but the cosine.
            metric="cos" if stored_as == "i8" else "ip",
            dtype=stored_as,
            connectivity=connectivity,
            expansion_add=expansion_add,
            enable_key_lookups=True,
        )

    def __len__(self) -> int:
        return len(self._index)

    @property
    def exact_rows(self) -> bool:
        """Whether ``rows`` gives back what was added."""
        return self.stored_as in _KEPT_EXACTLY

    @property
    def slack(self) -> float:
        """By how much a node's score here may fall short and it still be the better one; infinite if unknown."""
        return _SCORE_ERROR.get(self.stored_as, np.inf)

    @property
    def memory(self) -> int:
        """Bytes that the graph occupies in memory."""
        return int(self._index.memory_usage)

    def contains(self, nodes: Keys) -> NDArray[np.bool_]:
        """Which of these are nodes, (n,)."""
        if not len(nodes):
            return np.zeros(0, dtype=np.bool_)
        return np.asarray(self._index.contains(_numbers(nodes)), dtype=np.bool_).reshape(len(nodes))

    def add(self, nodes: Keys, halves: Halves, *, threads: int | None = None) -> None:
        """Insert new nodes. In parallel, some may end up unreachable: audit them."""
        if not len(nodes):
            return
        if threads is None:
            threads = n_cores() if len(nodes) >= _PARALLEL_FROM else 1
        self._index.add(_numbers(nodes), self._codes(halves), threads=threads)
        self.holes = max(0, self.holes - len(nodes))

    def remove(self, nodes: Keys) -> None:
        """Take nodes out; each leaves a hole that costs search time until an addition fills it."""
        if len(nodes):
            # `compact=True` would cut links that other nodes are reached by.
            self._index.remove(_numbers(nodes), compact=False, threads=1)
            self.holes += len(nodes)

    def rename(self, old: Keys, new: Keys) -> None:
        """Give nodes other numbers."""
        if len(old):
            self._index.rename(_numbers(old), _numbers(new))

    def rows(self, nodes: Keys) -> Vectors:
        """Vectors, (n, dim) float32, of nodes that are here."""
        if not len(nodes):
            return np.empty((0, self.dim), dtype=np.float32)
        stored = np.array(self._index.get(_numbers(nodes)))
        return widen(stored) if stored.dtype == np.float16 else stored.astype(np.float32, copy=False)

    def nearest(self, queries: Vectors | Halves, count: int, effort: int) -> tuple[Keys, Vectors]:
        """Nodes and their approximate scores, (q, count) each, best first; where none is left the score is -inf."""
        q = len(queries)
        codes = self._codes(queries)
        # The effort is a setting of the whole index. Nothing is lost by taking turns: USearch does the same.
        with self._turn:
            self._index.expansion_search = effort
            found = self._index.search(codes, count, threads=min(q, n_cores()))
        if q == 1:
            nodes, distances = found.keys.astype(np.int64), np.asarray(found.distances)
            if len(nodes) < count:
                nodes = np.append(nodes, np.zeros(count - len(nodes), np.int64))
                distances = np.append(distances, np.full(count - len(distances), np.float32(np.inf)))
            return nodes[None], _scores(distances[None])
        # What follows the counted matches of a row is not a match: key 0, and a distance of NaN.
        missing = np.arange(count) >= np.asarray(found.counts)[:, None]
        distances = np.where(missing, np.float32(np.inf), found.distances)
        return found.keys.astype(np.int64), _scores(distances)

    def missed(self, nodes: Keys, halves: Halves, effort: int) -> Keys:
        """Those of the nodes that a search for their own vector does not find.

        A node that at least as good ones crowd out of the first places counts as found.
        """
        if not len(nodes):
            return nodes
        first, _ = self.nearest(halves, 1, effort)
        doubtful = first[:, 0] != nodes
        nodes, halves = nodes[doubtful], halves[doubtful]
        if not len(nodes):
            return nodes
        found, scores = self.nearest(halves, _LOOK_AROUND, effort)
        numbers = _numbers(nodes)
        own = 1.0 - np.asarray(self._index.pairwise_distance(numbers, numbers)).reshape(len(nodes))
        crowded_out = scores[:, -1] >= own - 1e-6
        lost: NDArray[np.bool_] = ~(crowded_out | (found == nodes[:, None]).any(axis=1))
        return nodes[lost]

    def save(self, path: Path) -> int:
        """Write a file and say how long it must be: USearch does not notice when its last bytes do not fit."""
        self._index.save(path)
        return int(self._index.serialized_length)

    def load(self, path: Path, count: int) -> None:
        """Fill a fresh graph from a file whose checksum has been verified.

        Raises
        ------
        StoreDamaged
            If the file is of another kind than this graph, which USearch would silently adopt.
        """
        header = type(self._index).metadata(path) or {}
        expected = {"dimensions": self.dim, "kind_scalar": self._index.dtype, "kind_metric": self._index.metric_kind}
        found = {name: header.get(name) for name in expected}
        if found != expected or header.get("count_present") != count:
            raise StoreDamaged(f"expected {count} vectors of {expected} in {path}, found {header}")
        self._index.load(path)
        self.holes = int(header["count_deleted"])
        if len(self._index) != count:
            raise StoreDamaged(f"expected {count} vectors in {path}, found {len(self._index)}")

    def _codes(self, rows: Vectors | Halves) -> NDArray[Any]:
        if self.stored_as == "f16":
            return np.ascontiguousarray(rows, dtype=np.float16)
        wide = (
            widen(rows.astype(np.float16, copy=False))
            if rows.dtype == np.float16
            else rows.astype(np.float32, copy=False)
        )
        if self.stored_as != "i8":
            return np.ascontiguousarray(wide, dtype=np.float32)
        # USearch would scale by the length, which leaves most of the 255 values unused.
        largest = np.abs(wide).max(axis=1, keepdims=True)
        codes: NDArray[np.int8] = np.rint(wide * (np.float32(127.0) / largest)).astype(np.int8)
        return codes


def _usearch_index(**options: object) -> Any:  # noqa: ANN401 - USearch has no types
    # Imported on first use: small stores search exactly and never need it.
    from usearch.index import Index

    return Index(**options)


def _scores(distances: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.float32(1.0) - distances


def _numbers(nodes: Keys) -> NDArray[np.uint64]:
    return nodes.astype(np.uint64)
