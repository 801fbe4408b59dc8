"""Float16 originals in memory, for graphs that keep their vectors too coarsely to score with."""

from __future__ import annotations

import numpy as np

from mmsearch.index.halves import Halves, widen
from mmsearch.types import Keys, Vectors


class KeptRows:
    """Float16 rows, (n, dim), by number; found by bisection, appended without moving the others."""

    def __init__(self, dim: int) -> None:
        self._rows: Halves = np.empty((0, dim), np.float16)  # with room behind the end
        self._end = 0
        self._nodes: Keys = np.empty(0, np.int64)  # ascending
        self._at: Keys = np.empty(0, np.int64)  # where the row of each node is

    @property
    def memory(self) -> int:
        """Bytes in memory."""
        return self._rows.nbytes + self._nodes.nbytes + self._at.nbytes

    def rows(self, nodes: Keys) -> Vectors:
        """Rows, (n, dim) float32, of nodes that are here."""
        return widen(self._rows[self._at[np.searchsorted(self._nodes, nodes)]])

    def add(self, nodes: Keys, halves: Halves) -> None:
        """Keep rows under new numbers."""
        end = self._end + len(nodes)
        if end > len(self._rows):
            roomier = np.empty((max(end, 2 * self._end), self._rows.shape[1]), np.float16)
            roomier[: self._end] = self._rows[: self._end]
            self._rows = roomier
        self._rows[self._end : end] = halves
        self._order(np.append(self._nodes, nodes), np.append(self._at, np.arange(self._end, end)))
        self._end = end

    def remove(self, nodes: Keys) -> None:
        """Forget nodes; their memory comes back once half of the rows are unused."""
        stays = ~np.isin(self._nodes, nodes)
        self._nodes, self._at = self._nodes[stays], self._at[stays]
        if 2 * len(self._nodes) < self._end:
            self._rows = self._rows[self._at]
            self._end = len(self._nodes)
            self._at = np.arange(self._end)

    def rename(self, old: Keys, new: Keys) -> None:
        """Give nodes other numbers."""
        if len(old):
            nodes = self._nodes.copy()
            nodes[np.searchsorted(self._nodes, old)] = new
            self._order(nodes, self._at)

    def arrays(self) -> dict[str, Keys | Halves]:
        """Everything as plain arrays, for a file."""
        return {"kept_nodes": self._nodes, "kept_rows": self._rows[self._at]}

    def _order(self, nodes: Keys, at: Keys) -> None:
        order = np.argsort(nodes)
        self._nodes, self._at = nodes[order], at[order]
