"""Hubness correction: items that are near to all queries lose what they gain by that."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmsearch.protocols import Collection
from mmsearch.rerank.stage import StoreStage, all_rows, by_field, unscored
from mmsearch.types import Hit, Keys, Query, Signal, Vectors


class Hubness(StoreStage):
    """Query-bank normalisation (Bogolin et al., CVPR 2022); see ``mmsearch.bias`` for the formula.

    A hit's value is minus the bias of the vector by which it was found, its picture's or that of the nearest window of
    its text, in units of cosines, around the mean of the collection's pictures or texts.
    """

    name = "hubness"
    needs = ("picture",)

    def score(self, query: Query, hits: Sequence[Hit], deadline: float | None = None) -> Signal:
        """Minus each hit's bias; no value without a bank of queries of this kind."""
        collection = self.collection
        if collection is None:
            return unscored(len(hits), "hubness: not prepared for a collection")
        vector, kind = collection.query_vector(query)
        values = np.full(len(hits), np.nan, dtype=np.float32)
        for field, places in by_field(hits):
            first, count = collection.rows(field, [hits[place] for place in places])
            there = count > 0
            rows = _nearest(collection, field, vector, first[there], count[there])
            biases = collection.biases(field, rows, kind)
            if biases is None:
                return unscored(len(hits), f"hubness: there is no bank of {kind} queries: set one with `mmsearch bank`")
            values[places[there]] = collection.centre(field, kind) - biases
        return Signal(values)


def _nearest(collection: Collection, field: str, vector: Vectors, first: Keys, count: Keys) -> Keys:
    """Of each hit's rows, (n,), the one nearest to the query; pictures have only one."""
    if not len(count) or count.max() == 1:
        return first
    rows, starts = all_rows(first, count)
    cosines = collection.stored(field, rows) @ vector
    its = np.split(cosines, starts[1:])
    return first + np.array([int(np.argmax(one)) for one in its], dtype=np.int64)
