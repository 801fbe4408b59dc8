"""Full-text search as a stage: items that say the words of the query gain, the best match most."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmsearch.rerank.stage import StoreStage, text_of, unscored
from mmsearch.types import Hit, Query, Signal

DAMPING = 60
"""The constant of reciprocal rank fusion (Cormack et al., SIGIR 2009): how slowly a worse rank loses."""


class WordMatch(StoreStage):
    """Reciprocal rank among the hits by BM25 of titles and texts, scaled so that the best match has 1.

    For queries that are one text. With this stage in its cascade a search also finds items by their words alone, such
    as a product code that no vector knows (see ``mmsearch.ranking``). Unlike the other stages it costs by the items
    that have any of the words: a word that half of 100,000 items have takes some 0.3 s.
    """

    name = "words"
    n = 200
    weight = 0.05
    """In units of cosine: a choice, not a measurement. The stage is off by default, and ``mmsearch tune`` fits it."""

    def score(self, query: Query, hits: Sequence[Hit], deadline: float | None = None) -> Signal:
        """61 / (60 + rank), 0 for a hit without any of the words; no values where no hit has any.

        A hit has the words of its copies too: which of them it shows is chance.
        """
        collection, text = self.collection, text_of(query)
        if collection is None:
            return unscored(len(hits), "words: not prepared for a collection")
        if text is None:
            return unscored(len(hits), "words: reads only queries that are one text")
        ids = [[hit.item.id, *(copy.id for copy in hit.copies)] for hit in hits]
        ranks = collection.word_ranks(text, [id for its in ids for id in its])
        if not ranks:
            return unscored(len(hits), "words: no hit has any word of the query in its titles or text")
        best = [min((ranks[id] for id in its if id in ranks), default=0) for its in ids]
        place = {rank: n for n, rank in enumerate(sorted({*best} - {0}), start=1)}  # copies take one rank together
        values = [(DAMPING + 1) / (DAMPING + place[rank]) if rank else 0.0 for rank in best]
        return Signal(np.array(values, dtype=np.float32))
