"""Views: how like two pictures are, all views of the one against all of the other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mmsearch.errors import MMSearchError
from mmsearch.protocols import Collection
from mmsearch.rerank.regions import query_views, view_shares
from mmsearch.rerank.stage import StoreStage, around_zero, unscored
from mmsearch.types import Hit, Item, Query, Signal, Vectors
from mmsearch.vectors import as_unit_vectors, dots
from mmsearch.views import BOXES, WHOLE


class Views(StoreStage):
    """For a query that is one picture or one item: the cosine of the mean views of its picture and of each hit's.

    Two pictures of like things seldom show them in the same place and size; means over views mind that less than whole
    pictures do. The views and their shares are those of ``Regions``, which compares a query's one vector with them. A
    hit's value is what it gains over the cosine of the whole pictures, in units of cosines; where some hits have no
    value, less the mean, since the others should not lose by that. ``benchmarks/item_to_item.py`` prints what it is
    worth.
    """

    name = "views"
    needs = ("regions",)

    def score(self, query: Query, hits: Sequence[Hit], deadline: float | None = None) -> Signal:
        """What each hit gains; no value for hits that were found in texts, or have no regions."""
        collection = self.collection
        if collection is None:
            return unscored(len(hits), "views: not prepared for a collection")
        first, count = collection.rows("regions", hits)
        there = (count >= len(BOXES)) & np.array([hit.field == "picture" for hit in hits], dtype=np.bool_)
        if not there.any():
            return unscored(len(hits), "views: no hit has any; index with --spaces picture,text,regions")
        try:
            own = _views_of(query, collection)
        except MMSearchError as error:
            return unscored(len(hits), f"views: {error}")
        if own is None:
            return unscored(len(hits), "views: the query is not one picture, or one item with regions")
        n_views = min(len(own), int(count[there].min()))
        rows = collection.stored("regions", (first[there][:, None] + np.arange(n_views)).ravel())
        its = rows.reshape(-1, n_views, rows.shape[1])
        values = np.full(len(hits), np.nan, dtype=np.float32)
        values[there] = dots(_means(its), _means(own[None, :n_views])[0]) - dots(its[:, WHOLE], own[WHOLE])
        return Signal(values if there.all() else around_zero(values))


def _views_of(query: Query, collection: Collection) -> Vectors | None:
    """Vectors of the views of a query's picture, (n_views, dim), the whole first; None if it has no picture."""
    terms = list(query.terms())
    if len(terms) != 1 or terms[0].weight <= 0:
        return None
    if terms[0].image is not None:
        return query_views(query, collection)
    if terms[0].id is None:
        return None
    first, count = collection.rows("regions", [Hit(Item(id=terms[0].id), score=0.0, rank=1)])
    if count[0] < len(BOXES):
        return None
    return np.asarray(collection.stored("regions", first[0] + np.arange(count[0])), dtype=np.float32)


def _means(views: NDArray[np.float32]) -> Vectors:
    """The weighted means of n pictures' views, (n, n_views, dim), as (n, dim) unit rows."""
    return as_unit_vectors(np.einsum("nvd,v->nd", views, view_shares(views.shape[1])))
