"""Approximate search in a graph of neighbours, for stores too large to compare with every row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mmsearch.errors import InvalidInput, StoreDamaged
from mmsearch.index.audit import exact_answers, repair
from mmsearch.index.exact import new_keys
from mmsearch.index.files import GROUPS, Meta, array_writer, read_arrays, save_generation, verify
from mmsearch.index.graph import Graph, StoredAs
from mmsearch.index.groups import Groups
from mmsearch.index.halves import Halves, as_unit_halves
from mmsearch.index.kept import KeptRows
from mmsearch.index.locks import ReadWriteLock
from mmsearch.index.ranking import FEW, blocks, nothing_for, pair_scores, rank_one, ranked, recall_of
from mmsearch.types import Keys, Neighbors, Vectors
from mmsearch.vectors import as_keys, as_unit_vectors, check_k

Originals: TypeAlias = Callable[[Keys], Vectors]
"""Gives float32 vectors, (n, dim), by key."""

REBUILD_AT = 0.3
"""The share of removed nodes at which the graph is built anew: searches wade through them."""
HIGHEST_TUNED = 2048


class HNSWIndex:
    """Nearest neighbours through a navigable graph (USearch), nearly exact and much faster on large stores.

    Vectors are rounded to float16; scores are exact inner products of the query with these. Equal vectors share one
    node of the graph. After each addition every new item is searched for and, if it cannot be found, inserted again.
    Searches may run in many threads; additions, removals and ``self_check`` wait for them and hold off new ones.

    Parameters
    ----------
    dim
        Width of the vectors.
    dtype
        What the graph keeps: "f16", "f32", "bf16" or "i8". Whatever it is, the best candidates are scored again with
        the float16 originals.
    connectivity, expansion_add
        Links per node, and how many candidates are considered for them.
    expansion_search
        The effort of a search: how many candidates it keeps. ``tune`` finds the right one; hard data raise it.
    originals
        Gives the vectors by key, so that the index need not keep them beside "i8" or "bf16" codes. They must be there
        before their keys are added and stay until these are removed, and it must not call the index.

    Examples
    --------
    >>> index = HNSWIndex(2)
    >>> index.add(np.array([7, 8]), np.array([[1, 0], [0, 1]], dtype=np.float32))
    >>> index.search(np.array([[0, 1]], dtype=np.float32), k=5)[0].keys
    array([8, 7])
    """

    def __init__(
        self,
        dim: int,
        *,
        dtype: StoredAs = "f16",
        connectivity: int = 16,
        expansion_add: int = 128,
        expansion_search: int = 64,
        originals: Originals | None = None,
    ) -> None:
        self.dim = dim
        self.dtype = dtype
        self.effort = _check_effort(expansion_search)
        self._audited_effort = self.effort
        self._unaudited = 0
        self._lock = ReadWriteLock()
        self._graph = Graph(dim, dtype, connectivity, expansion_add)
        self._groups = Groups()
        self._originals = originals
        self._kept = KeptRows(dim) if originals is None and not self._graph.exact_rows else None

    def __len__(self) -> int:
        return len(self._groups)

    @property
    def memory(self) -> int:
        """Bytes that the graph and the kept vectors occupy."""
        return self._graph.memory + (self._kept.memory if self._kept else 0)

    def add(self, keys: Keys, vectors: Vectors) -> None:
        """Store vectors, (n, dim), under new keys, (n,) integers of at least 0. Large batches are much faster.

        Raises
        ------
        InvalidInput
            For a key that is taken or repeated, a wrong width, NaN, infinity or a zero vector; nothing is
            stored then.
        """
        halves = as_unit_halves(vectors, self.dim)
        keys = new_keys(keys, len(halves))
        with self._lock.writing():
            taken = self._present(keys)
            if taken.any():
                key = int(keys[np.argmax(taken)])
                raise InvalidInput(f"expected new keys, got {key} which is stored; remove it first")
            places, hashes = self._groups.place(keys, halves, self._halves)
            new = places == keys
            self._insert(keys[new], halves[new])
            self._groups.add(keys, places, hashes)
            self._audit(keys[new])

    def remove(self, keys: Keys) -> int:
        """Forget these keys; unknown ones are passed over. Says how many were there."""
        keys = np.unique(as_keys(keys))
        with self._lock.writing():
            keys = keys[self._present(keys)]
            dropped, old, new = self._groups.remove(keys)
            for store in (self._graph, self._kept):
                if store is not None:
                    store.remove(dropped)
                    store.rename(old, new)
            if self._graph.holes > REBUILD_AT * (len(self._graph) + self._graph.holes):
                self._rebuild()
        return len(keys)

    def search(self, queries: Vectors, k: int, *, effort: int | None = None) -> list[Neighbors]:
        """For each query row, (q, dim), about the k nearest, best first, equal scores by key.

        Parameters
        ----------
        queries
            (q, dim) float32.
        k
            How many to return; fewer come back where fewer are stored.
        effort
            For this call only; a higher one misses less and takes longer.

        Raises
        ------
        InvalidInput
            For a wrong width, NaN, infinity or a zero query, k outside 1 to 1,000,000, or an effort below 1.
        """
        k = check_k(k)
        effort = self.effort if effort is None else _check_effort(effort)
        rows = as_unit_vectors(queries, self.dim)
        with self._lock.reading():
            if k >= len(self):  # each has to come, and a graph may know no way to the last of them
                return exact_answers(self._groups, self._rows, rows, k)
            return self._nearest(rows, k, effort)

    def recall(self, queries: Vectors, k: int) -> float:
        """Share of the true k nearest of these queries, (q, dim), that ``search`` finds; 1 for no query."""
        truth = self._exact(queries, k)
        return recall_of(truth, self.search(queries, k))

    def tune(self, queries: Vectors, k: int = 10, target: float = 0.99) -> float:
        """Set the least effort whose recall for these queries, (q, dim), reaches the target; return that recall.

        Efforts are doubled up to 2,048, which is kept if none suffices. None is tried at which some stored vector
        was not found.

        Raises
        ------
        InvalidInput
            For a target outside 0 to 1, and whatever ``search`` refuses.
        """
        if not 0.0 <= target <= 1.0:
            raise InvalidInput(f"expected a target from 0 to 1, got {target!r}")
        truth = self._exact(queries, k)
        effort = self._audited_effort
        recall = recall_of(truth, self.search(queries, k, effort=effort))
        while recall < target and effort < HIGHEST_TUNED:
            effort *= 2
            recall = recall_of(truth, self.search(queries, k, effort=effort))
        self.effort = effort
        return recall

    def self_check(self) -> int:
        """Search every item by its own vector and repair what is not found. Says how many are lost even so."""
        with self._lock.writing():
            lost = self._repair(self._groups.nodes)
            return len(self._groups.expand(lost, len(self))[1])

    def save(self, path: Path, meta: Meta) -> None:
        """Write the index to ``path``, with its manifest and groups beside it. Searches go on meanwhile.

        A failure or a crash leaves the old files or ones that ``load`` refuses.

        Parameters
        ----------
        path
            Its folder must exist.
        meta
            What ``read_meta`` is to give back, and ``load`` may insist on: the encoder, the state of the store.

        Raises
        ------
        StoreError
            If a file cannot be written whole.
        """
        with self._lock.reading():
            facts = {
                "dim": self.dim,
                "dtype": self.dtype,
                "connectivity": self._graph.connectivity,
                "expansion_add": self._graph.expansion_add,
                "expansion_search": self.effort,
                "audited_effort": self._audited_effort,
                "nodes": len(self._graph),
                "keys": len(self),
                "meta": dict(meta),
            }
            groups = array_writer(self._arrays())
            save_generation(path, {"": self._graph.save, GROUPS: groups}, facts)

    @classmethod
    def load(
        cls,
        path: Path,
        *,
        dim: int,
        dtype: StoredAs,
        meta_must_equal: Mapping[str, str | int | float] | None = None,
        originals: Originals | None = None,
    ) -> HNSWIndex:
        """Read what ``save`` wrote, after checking every byte of it.

        Raises
        ------
        StoreDamaged
            If a file is missing, damaged, from another generation, or made with another ``dim``, ``dtype`` or meta
            (of which only the names in ``meta_must_equal`` are compared). Build the index anew then.
        """
        facts = verify(path)
        found = {**facts["meta"], "dim": facts["dim"], "dtype": facts["dtype"]}
        for name, value in {**(meta_must_equal or {}), "dim": dim, "dtype": dtype}.items():
            if found.get(name) != value:
                raise StoreDamaged(f"expected {name} {value!r} in {path}, found {found.get(name)!r}; rebuild the index")
        index = cls(
            dim,
            dtype=dtype,
            connectivity=facts["connectivity"],
            expansion_add=facts["expansion_add"],
            expansion_search=facts["expansion_search"],
            originals=originals,
        )
        index._audited_effort = facts["audited_effort"]
        try:
            index._graph.load(path, facts["nodes"])
            arrays = read_arrays(path.with_name(path.name + GROUPS))
            index._groups = Groups.from_arrays(arrays)
            if index._kept is not None:
                index._kept.add(arrays["kept_nodes"], arrays["kept_rows"])
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            raise StoreDamaged(f"could not load the index {path}: {error}; rebuild it") from error
        if len(index) != facts["keys"]:
            raise StoreDamaged(f"expected {facts['keys']} keys in {path}, found {len(index)}; rebuild the index")
        return index

    def _nearest(self, queries: Vectors, k: int, effort: int) -> list[Neighbors]:
        count = min(k + k // 2 + 8, len(self._graph))
        if not count:
            return nothing_for(len(queries))
        if len(queries) == 1 and count <= FEW and not self._groups.any_shared:
            nodes, guesses = self._graph.nearest(queries, count, effort)
            found = nodes[0][guesses[0] > -np.inf]
            return [rank_one(self._rows(found), queries[0], found, k)]
        answers: list[Neighbors] = []
        for part in blocks(len(queries), count):
            block = queries[part]
            nodes, guesses = self._graph.nearest(block, count, effort)
            kth = guesses[:, k - 1 : k] if count >= k else np.float32(-np.inf)
            worth = (guesses >= kth - np.float32(self._graph.slack)) & (guesses > -np.inf)
            owner = np.nonzero(worth)[0]
            nodes = nodes[worth]
            scores = self._scores(nodes, block, owner)
            if self._groups.any_shared:
                at, nodes = self._groups.expand(nodes, k)
                owner, scores = owner[at], scores[at]
            answers += ranked(owner, nodes, scores, k, len(block))
        return answers

    def _exact(self, queries: Vectors, k: int) -> list[Neighbors]:
        with self._lock.reading():
            return exact_answers(self._groups, self._rows, queries, k)

    def _scores(self, nodes: Keys, queries: Vectors, owner: Keys) -> NDArray[np.float32]:
        parts = [pair_scores(self._rows(nodes[part]), queries, owner[part]) for part in blocks(len(nodes), self.dim)]
        return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, np.float32), *parts])

    def _rows(self, nodes: Keys) -> Vectors:
        if self._originals is None:
            return self._graph.rows(nodes) if self._kept is None else self._kept.rows(nodes)
        rows = self._originals(nodes)
        if rows.shape != (len(nodes), self.dim):
            raise InvalidInput(f"expected originals of shape {(len(nodes), self.dim)}, got {rows.shape}")
        return rows

    def _halves(self, nodes: Keys) -> Halves:
        halves = np.empty((len(nodes), self.dim), np.float16)
        for part in blocks(len(nodes), self.dim):
            halves[part] = self._rows(nodes[part])
        return halves

    def _present(self, keys: Keys) -> NDArray[np.bool_]:
        return self._graph.contains(keys) | self._groups.shared(keys)

    def _insert(self, nodes: Keys, halves: Halves) -> None:
        """Store all of the nodes or, should the graph fail half-way, none."""
        try:
            self._graph.add(nodes, halves)
            if self._kept is not None:
                self._kept.add(nodes, halves)
        except BaseException:
            self._graph.remove(nodes[self._graph.contains(nodes)])
            raise

    def _audit(self, new: Keys) -> None:
        """Look for the new nodes; and for all, each time their number has doubled."""
        self._unaudited += len(new)
        if 2 * self._unaudited >= len(self._graph):
            self._unaudited = 0
            new = self._groups.nodes
        self._repair(new)

    def _repair(self, nodes: Keys) -> Keys:
        self._audited_effort, lost = repair(self._graph, nodes, self._halves, self._audited_effort)
        self.effort = max(self.effort, self._audited_effort)
        return lost

    def _rebuild(self) -> None:
        nodes = self._groups.nodes
        halves = self._halves(nodes)
        graph = Graph(self.dim, self.dtype, self._graph.connectivity, self._graph.expansion_add)
        graph.add(nodes, halves)
        self._graph = graph
        self._repair(nodes)

    def _arrays(self) -> dict[str, NDArray[Any]]:
        return {**self._groups.arrays(), **(self._kept.arrays() if self._kept else {})}


def _check_effort(effort: int) -> int:
    if isinstance(effort, bool) or not isinstance(effort, int | np.integer) or not 1 <= effort <= 1_000_000:
        raise InvalidInput(f"expected an effort from 1 to 1000000, got {effort!r}")
    return int(effort)
