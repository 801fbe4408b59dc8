"""Regions: several views of a picture have a say, and the best one shows where the answer lies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mmsearch.errors import MMSearchError
from mmsearch.images import open_picture
from mmsearch.protocols import CellEncoder, Collection
from mmsearch.rerank.stage import Stage, unscored
from mmsearch.types import Hit, Query, Signal, Vectors
from mmsearch.views import BOXES, CROPS, MIRROR, WHOLE, views

WHOLE_WEIGHT, MIRROR_WEIGHT, CROPS_WEIGHT, FINE_WEIGHT = 1.0, 1.0, 1.5, 2.0
"""Shares of the views in their mean; the five crops divide theirs. On Flickr8k dev (``benchmarks/cascade.py``) any of 1
to 2.5 for the crops and 1 to 3 for the closer look gave R@1 within 0.3; all eight alike gave 0.9 less."""
BEST_WEIGHT = 0.2
"""Weight of the best view beside the mean; 0.15 to 0.4 differ by less than 0.2."""


class Regions(Stage):
    """The weighted mean and the maximum over views of the query's cosine, in place of the whole picture's alone.

    Pictures are scored by their rows of the ``regions`` space. For a query that is one picture, texts are scored by
    the views of the query. A hit's value is what it gains over the cosine of the whole picture, in units of cosines.

    Parameters
    ----------
    corrected
        Take off each view's bias (see ``Hubness``), where there is a bank of such queries. A cascade sets it when
        hubness is one of its stages, so that each view is corrected like the whole picture is.
    """

    name = "regions"
    needs = ("regions",)

    def __init__(self, *, corrected: bool = False) -> None:
        self.corrected = corrected
        self._collection: Collection | None = None

    def prepare(self, collection: Collection) -> None:
        """Regions are encoded at indexing."""
        self._collection = collection

    def score(self, query: Query, hits: Sequence[Hit], deadline: float | None = None) -> Signal:
        """What each hit gains; no value for hits without regions."""
        if self._collection is None:
            return unscored(len(hits), "regions: not prepared for a collection")
        if hits and all(hit.field == "text" for hit in hits):
            return self._texts(self._collection, query, hits)
        return self._pictures(self._collection, query, hits)

    def _pictures(self, collection: Collection, query: Query, hits: Sequence[Hit]) -> Signal:
        first, count = collection.rows("regions", hits)
        there = count >= len(BOXES)
        if not there.any():
            return unscored(len(hits), "regions: no hit has any; index with --spaces picture,text,regions")
        n_views = int(count[there].min())
        vector, kind = collection.query_vector(query)
        rows = (first[there][:, None] + np.arange(n_views)).ravel()
        plain = (collection.stored("regions", rows) @ vector).reshape(-1, n_views)
        views = plain
        if self.corrected and (biases := collection.biases("regions", rows, kind)) is not None:
            views = plain - biases.reshape(-1, n_views) + collection.centre("regions", kind)
        values = np.full(len(hits), np.nan, dtype=np.float32)
        values[there] = blend(views) - views[:, WHOLE]
        best = np.argmax(plain[:, : len(BOXES)], axis=1)
        boxes = iter(BOXES[one] for one in best)
        return Signal(values, regions=tuple(next(boxes) if one else None for one in there))

    def _texts(self, collection: Collection, query: Query, hits: Sequence[Hit]) -> Signal:
        """Texts for a picture: the query is the side that has views."""
        terms = list(query.terms())
        if len(terms) != 1 or terms[0].image is None or terms[0].weight <= 0:
            return unscored(len(hits), "regions: texts have no regions, and the query is not one picture")
        first, count = collection.rows("text", hits)
        there = count > 0
        if not there.any():
            return unscored(len(hits))
        try:
            vectors = query_views(query, collection)
        except MMSearchError as error:
            return unscored(len(hits), f"regions: {error}")
        rows = np.concatenate([np.arange(f, f + c) for f, c in zip(first[there], count[there], strict=True)])
        cosines = collection.stored("text", rows) @ vectors.T
        starts = np.concatenate([[0], np.cumsum(count[there])[:-1]])
        values = np.full(len(hits), np.nan, dtype=np.float32)
        values[there] = np.maximum.reduceat(blend(cosines), starts) - np.maximum.reduceat(cosines[:, WHOLE], starts)
        return Signal(values)


def blend(cosines: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cosines of n pictures' views, (n, n_views), to one number each, (n,), on the scale of a cosine."""
    weights = np.full(cosines.shape[1], FINE_WEIGHT, dtype=np.float32)
    weights[WHOLE], weights[MIRROR], weights[CROPS] = WHOLE_WEIGHT, MIRROR_WEIGHT, CROPS_WEIGHT / len(BOXES[CROPS])
    mean = (cosines * (weights / weights.sum())).sum(axis=1)
    return np.asarray((mean + BEST_WEIGHT * cosines.max(axis=1)) / (1 + BEST_WEIGHT), dtype=np.float32)


def query_views(query: Query, collection: Collection) -> Vectors:
    """Vectors of the views of a query that is one picture, (n_views, dim) unit rows, the whole first."""
    (term,) = query.terms()
    encoder = collection.encoder
    assert term.image is not None
    picture = open_picture(term.image, min_side=encoder.image_size).image
    vectors = encoder.encode_images([encoder.prepare(view) for view in views(picture)])
    if isinstance(encoder, CellEncoder) and encoder.n_cells and encoder.cell_size > encoder.image_size:
        vectors = np.concatenate([vectors, encoder.encode_cells([encoder.prepare_cells(picture)])[0]])
    return vectors
