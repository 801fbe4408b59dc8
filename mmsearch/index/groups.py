"""Which keys share one vector: a graph holds each distinct vector once, as a node named by its first key.

Many equal vectors in one graph link only to each other and cut the rest off.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmsearch.errors import StoreDamaged
from mmsearch.index.halves import Halves, hash_rows
from mmsearch.index.ranking import blocks
from mmsearch.types import Keys


class Groups:
    """Nodes by the hash of their vector, and the keys behind each node that has more than its own."""

    def __init__(self) -> None:
        self._hashes: NDArray[np.uint64] = np.empty(0, np.uint64)  # ascending
        self._nodes: Keys = np.empty(0, np.int64)  # the node of each hash
        self._members: dict[int, Keys] = {}  # node -> its keys, ascending, only where there is more than one
        self._node_of: dict[int, int] = {}  # key -> node, for those members

    def __len__(self) -> int:
        return len(self._nodes) + len(self._node_of) - len(self._members)

    @property
    def nodes(self) -> Keys:
        """All nodes, ascending."""
        return np.sort(self._nodes)

    @property
    def any_shared(self) -> bool:
        """Whether some node has more than one key."""
        return bool(self._members)

    def shared(self, keys: Keys) -> NDArray[np.bool_]:
        """Which of these keys share their vector, (n,)."""
        if not self._node_of:
            return np.zeros(len(keys), dtype=np.bool_)
        return np.fromiter((key in self._node_of for key in keys.tolist()), np.bool_, len(keys))

    def place(self, keys: Keys, halves: Halves, stored: Callable[[Keys], Halves]) -> tuple[Keys, NDArray[np.uint64]]:
        """Find the node, (n,), that each new vector belongs to: a stored one, or the key of its first equal.

        Equal hashes are only a hint: the vectors are compared, those of the nodes as ``stored`` gives them. Vectors
        that differ under one hash become nodes of their own.
        """
        hashes = hash_rows(halves)
        _, first, which = np.unique(hashes, return_index=True, return_inverse=True)
        first = first[which]
        later = np.flatnonzero(first != np.arange(len(keys)))
        bits = halves.view(np.uint16)
        for part in blocks(len(later), halves.shape[1]):
            these = later[part]
            unlike = these[(bits[these] != bits[first[these]]).any(axis=1)]
            first[unlike] = unlike
        places = keys[first]
        if len(self._hashes):
            at = np.minimum(np.searchsorted(self._hashes, hashes), len(self._hashes) - 1)
            known = np.flatnonzero(self._hashes[at] == hashes)
            for part in blocks(len(known), halves.shape[1]):
                these = known[part]
                nodes = self._nodes[at[these]]
                same = (stored(nodes) == halves[these]).all(axis=1)
                places[these[same]] = nodes[same]
        return places, hashes

    def add(self, keys: Keys, places: Keys, hashes: NDArray[np.uint64]) -> None:
        """Record keys at the nodes that ``place`` found."""
        new = places == keys
        self._insert(hashes[new], keys[new])
        joining = np.flatnonzero(~new)
        if not len(joining):
            return
        order = joining[np.argsort(places[joining], kind="stable")]
        nodes, starts = np.unique(places[order], return_index=True)
        for node, members in zip(nodes.tolist(), np.split(keys[order], starts[1:]), strict=True):
            before = self._members.get(node, np.array([node]))
            self._set(node, np.union1d(before, members))

    def remove(self, keys: Keys) -> tuple[Keys, Keys, Keys]:
        """Forget keys that are here. Says which nodes are left without a key, and old and new names of others."""
        alone = ~self.shared(keys)
        empty = keys[alone].tolist()
        renamed: dict[int, int] = {}
        touched: dict[int, list[int]] = {}
        for key in keys[~alone].tolist():
            touched.setdefault(self._node_of.pop(key), []).append(key)
        for node, gone in touched.items():
            rest = np.setdiff1d(self._members.pop(node), gone)
            if not len(rest):
                empty.append(node)
                continue
            name = node if node in rest else int(rest[0])
            if name != node:
                renamed[node] = name
            self._set(name, rest)
        dropped = np.array(empty, dtype=np.int64)
        old, new = (np.array(list(names), dtype=np.int64) for names in (renamed.keys(), renamed.values()))
        stays = ~np.isin(self._nodes, dropped)
        self._hashes, self._nodes = self._hashes[stays], self._nodes[stays]
        if len(old):
            moved = np.flatnonzero(np.isin(self._nodes, old))
            self._nodes[moved] = [renamed[node] for node in self._nodes[moved].tolist()]
        return dropped, old, new

    def expand(self, nodes: Keys, k: int) -> tuple[Keys, Keys]:
        """Keys behind nodes, (n,), at most k for each, and for each key the position of its node."""
        if not self._members:
            return np.arange(len(nodes)), nodes
        parts = [self._members.get(node) for node in nodes.tolist()]
        sizes = np.array([1 if part is None else min(k, len(part)) for part in parts], dtype=np.int64)
        keys = np.repeat(nodes, sizes)
        ends = np.cumsum(sizes)
        for part, size, end in zip(parts, sizes.tolist(), ends.tolist(), strict=True):
            if part is not None:
                keys[end - size : end] = part[:size]
        return np.repeat(np.arange(len(nodes)), sizes), keys

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything as plain arrays, for a file."""
        parts = list(self._members.values())
        return {
            "hashes": self._hashes,
            "nodes": self._nodes,
            "shared_nodes": np.array(list(self._members), dtype=np.int64),
            "shared_sizes": np.array([len(part) for part in parts], dtype=np.int64),
            "shared_keys": np.concatenate(parts) if parts else np.empty(0, np.int64),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Groups:
        """Undo ``arrays``.

        Raises
        ------
        StoreDamaged
            If the arrays do not fit together.
        """
        groups = cls()
        groups._hashes, groups._nodes = arrays["hashes"], arrays["nodes"]
        nodes, sizes, keys = arrays["shared_nodes"], arrays["shared_sizes"], arrays["shared_keys"]
        if len(groups._hashes) != len(groups._nodes) or len(nodes) != len(sizes) or int(sizes.sum()) != len(keys):
            raise StoreDamaged("expected groups of keys that fit their vectors; rebuild the index")
        for node, members in zip(nodes.tolist(), np.split(keys, np.cumsum(sizes)[:-1]), strict=False):
            groups._set(node, members)
        return groups

    def _set(self, node: int, members: Keys) -> None:
        for key in members.tolist():
            self._node_of[key] = node
        if len(members) > 1:
            self._members[node] = members
        else:
            self._node_of.pop(int(members[0]), None)

    def _insert(self, hashes: NDArray[np.uint64], nodes: Keys) -> None:
        order = np.argsort(hashes, kind="stable")
        at = np.searchsorted(self._hashes, hashes[order])
        self._hashes = np.insert(self._hashes, at, hashes[order])
        self._nodes = np.insert(self._nodes, at, nodes[order])
