"""``Details``: what items are labelled with, such as genres, brands and colours, as vectors."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mmsearch.recommenders.itemvectors import ItemVectors

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Label: TypeAlias = tuple[str, str]
"""A metadata field and one of its values."""
MOST_LABELS = 256


class Details:
    """Vectors of strings, and lists of strings, in metadata: one direction for each field and value.

    A value counts that more than one item, and at most half of those learnt from, have; so ids and titles do not.
    Its weight is log(n_items / n_items_with_it) (Spärck Jones 1972). The 256 most frequent values are kept.
    """

    def __init__(self) -> None:
        self.labels: dict[Label, int] = {}
        self._rarity = np.zeros(0, dtype=np.float32)
        self._items: list[NDArray[np.int64]] = []

    def fit(self, metadata: Iterable[Mapping[str, Any]]) -> Self:
        """Learn which values matter, from one mapping an item, and keep the vectors of these items."""
        kept = [_labels(one) for one in metadata]
        counts: dict[Label, int] = {}
        for its in kept:
            for label in its:
                counts[label] = counts.get(label, 0) + 1
        shared = [label for label, n in counts.items() if 1 < n <= len(kept) / 2]
        shared = sorted(shared, key=lambda label: (-counts[label], label))[:MOST_LABELS]
        self.labels = {label: n for n, label in enumerate(shared)}
        self._rarity = np.log(len(kept) / np.array([counts[label] for label in shared], dtype=np.float32))
        self._items = [self._known(its) for its in kept]
        return self

    def add(self, metadata: Iterable[Mapping[str, Any]]) -> Self:
        """Take items in that have come since."""
        self._items += [self._known(_labels(one)) for one in metadata]
        return self

    def __len__(self) -> int:
        """How many items were taken in."""
        return len(self._items)

    def vectors(self) -> ItemVectors | None:
        """The vectors of all items taken in, in their order; None if no value matters."""
        if not self.labels:
            return None
        matrix = self._matrix()
        return ItemVectors(matrix, np.where(np.diff(matrix.indptr) > 0, np.arange(len(self)), -1))

    def state(self) -> dict[str, NDArray[Any]]:
        """Labels, weights and the items' labels, as plain arrays."""
        names = json.dumps(list(self.labels)).encode()
        lengths = [len(its) for its in self._items]
        return {
            "labels": np.frombuffer(names, dtype=np.uint8),
            "rarity": self._rarity,
            "starts": np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            "of_items": np.concatenate([np.zeros(0, np.int64), *self._items]),
        }

    def restore(self, state: Mapping[str, NDArray[Any]]) -> Self:
        """Take back what ``state`` gave."""
        names = json.loads(bytes(np.asarray(state["labels"])))
        self.labels = {(field, value): n for n, (field, value) in enumerate(names)}
        self._rarity = np.array(state["rarity"], dtype=np.float32)
        self._items = np.split(np.array(state["of_items"]), np.asarray(state["starts"])[1:-1])
        if len(state["starts"]) == 1:
            self._items = []
        return self

    def _known(self, labels: set[Label]) -> NDArray[np.int64]:
        return np.array(sorted(self.labels[label] for label in labels if label in self.labels), dtype=np.int64)

    def _matrix(self) -> csr_matrix:
        from scipy.sparse import csr_matrix  # whose import takes long

        state = self.state()
        values = self._rarity[state["of_items"]]
        return csr_matrix((values, state["of_items"], state["starts"]), shape=(len(self), len(self.labels)))


def _labels(metadata: Mapping[str, Any]) -> set[Label]:
    found = set()
    for name, value in metadata.items():
        members = value if isinstance(value, list | tuple) else [value]
        found |= {(name, member) for member in members if isinstance(member, str) and member}
    return found
