"""Regions: several views of a picture have a say, and the best one shows where the answer lies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mmsearch.errors import MMSearchError
from mmsearch.images import open_picture
from mmsearch.protocols import CellEncoder, Collection
from mmsearch.rerank.stage import StoreStage, all_rows, around_zero, by_field, unscored, why_skipped
from mmsearch.types import Box, Hit, Query, Signal, Vectors
from mmsearch.views import BOXES, CROPS, MIRROR, WHOLE, views

WHOLE_WEIGHT, MIRROR_WEIGHT, CROPS_WEIGHT, FINE_WEIGHT = 1.0, 1.0, 1.5, 2.0
"""Shares of the views in their mean; the five crops divide theirs. Chosen on Flickr8k dev,
where 1 to 2.5 for the crops and 1 to 3 for the closer look give R@1 within 0.5 (``benchmarks/cascade.py``)."""
BEST_WEIGHT = 0.4
"""Weight of the best view beside the mean, chosen on Flickr8k dev; see the same benchmark."""


class Regions(StoreStage):
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
        super().__init__()
        self.corrected = corrected

    def score(self, query: Query, hits: Sequence[Hit], deadline: float | None = None) -> Signal:
        """What each hit gains; no value for hits without regions.

        Where some hits were found in pictures and some in texts, each kind is scored by itself, and its mean taken off:
        it should not gain on the other.
        """
        collection = self.collection
        if collection is None:
            return unscored(len(hits), "regions: not prepared for a collection")
        parts = list(by_field(hits))
        values = np.full(len(hits), np.nan, dtype=np.float32)
        regions: list[Box | None] = [None] * len(hits)
        signals = []
        for field, places in parts:
            score = self._texts if field == "text" else self._pictures
            signal = score(collection, query, [hits[place] for place in places])
            values[places] = signal.values if len(parts) == 1 else around_zero(signal.values)
            for place, region in zip(places.tolist(), signal.regions, strict=False):
                regions[place] = region
            signals.append(signal)
        return Signal(values, regions=tuple(regions), skipped=why_skipped(signals))

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
        boxes = iter(np.argmax(plain[:, : len(BOXES)], axis=1).tolist())
        return Signal(values, regions=tuple(BOXES[next(boxes)] if one else None for one in there.tolist()))

    def _texts(self, collection: Collection, query: Query, hits: Sequence[Hit]) -> Signal:
        """Texts for a picture: the query is the side that has views."""
        terms = list(query.terms())
        if len(terms) != 1 or terms[0].image is None or terms[0].weight <= 0:
            return unscored(len(hits), "regions: texts have no regions, and the query is not one picture")
        first, count = collection.rows("text", hits)
        there = count > 0
        if not there.any():
            return unscored(len(hits), "regions: no hit has a text")
        try:
            vectors = query_views(query, collection)
        except MMSearchError as error:
            return unscored(len(hits), f"regions: {error}")
        rows, starts = all_rows(first[there], count[there])
        cosines = collection.stored("text", rows) @ vectors.T
        values = np.full(len(hits), np.nan, dtype=np.float32)
        values[there] = np.maximum.reduceat(blend(cosines), starts) - np.maximum.reduceat(cosines[:, WHOLE], starts)
        return Signal(values)


def blend(cosines: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cosines of n pictures' views, (n, n_views), to one number each, (n,), on the scale of a cosine."""
    mean = (cosines * view_shares(cosines.shape[1])).sum(axis=1)
    return np.asarray((mean + BEST_WEIGHT * cosines.max(axis=1)) / (1 + BEST_WEIGHT), dtype=np.float32)


def view_shares(n_views: int) -> NDArray[np.float32]:
    """The share of each view in the mean over views, (n_views,); they sum to 1."""
    weights = np.full(n_views, FINE_WEIGHT, dtype=np.float32)
    weights[WHOLE], weights[MIRROR], weights[CROPS] = WHOLE_WEIGHT, MIRROR_WEIGHT, CROPS_WEIGHT / len(BOXES[CROPS])
    return np.asarray(weights / weights.sum(), dtype=np.float32)


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
