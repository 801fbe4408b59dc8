"""Hubness correction: items that are near to all queries lose what they gain by that."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmsearch.protocols import Collection
from mmsearch.rerank.stage import Stage, unscored
from mmsearch.types import Hit, Query, Signal


class Hubness(Stage):
    """Query-bank normalisation (Bogolin et al., CVPR 2022); see ``mmsearch.hubs`` for the formula.

    A hit's value is minus the bias of its picture's vector, in units of cosines, around the collection's mean.
    """

    name = "hubness"
    needs = ("picture",)

    def __init__(self) -> None:
        self._collection: Collection | None = None

    def prepare(self, collection: Collection) -> None:
        """Biases are computed when they are first asked for, or beforehand by the store."""
        self._collection = collection

    def score(self, query: Query, hits: Sequence[Hit], deadline: float | None = None) -> Signal:
        """Minus each hit's bias; no value without a bank of queries of this kind, or for hits without a picture."""
        collection = self._collection
        if collection is None:
            return unscored(len(hits), "hubness: not prepared for a collection")
        _, kind = collection.query_vector(query)
        field = "text" if hits and all(hit.field == "text" for hit in hits) else "picture"
        first, count = collection.rows(field, hits)
        biases = collection.biases(field, first[count > 0], kind)
        if biases is None:
            return unscored(len(hits), f"hubness: there is no bank of {kind} queries: set one with `mmsearch bank`")
        values = np.full(len(hits), np.nan, dtype=np.float32)
        values[count > 0] = collection.centre(field, kind) - biases
        return Signal(values)
