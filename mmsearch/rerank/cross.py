"""``EmbeddedCross``: the joint model of the embedded encoder, over rows that are made at indexing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mmsearch.encoding import dequantise_joint
from mmsearch.files import content_hash
from mmsearch.protocols import Collection, JointEncoder
from mmsearch.rerank.pairs import CACHE_SIZE, PairScorer, one_line, query_key
from mmsearch.rerank.stage import StoreStage, text_of, unscored
from mmsearch.types import Hit, Query, Signal


class EmbeddedCross(PairScorer, StoreStage):
    """Logits of a model that reads the query and a picture's cells together; no torch once the model is exported.

    Reads queries that are one text, and hits whose picture has a row in the space ``joint``. A logit is kept for as
    long as that row stays the same.

    Parameters
    ----------
    batch_size, cache_size
        As for ``PairScorer``: pairs that are scored at once, and numbers that are kept.

    Raises
    ------
    InvalidInput
        What ``PairScorer`` refuses.
    """

    needs = ("joint",)
    n = 16
    weight = 0.005
    """Of a logit. On Flickr8k dev, after hubness, regions and late interaction, what it brought cannot be told from
    zero (``benchmarks/cascade.py``: R@1 -0.6 to +0.6), and larger weights lose: it is off unless asked for."""

    def __init__(self, *, batch_size: int = 32, cache_size: int = CACHE_SIZE) -> None:
        super().__init__("cross", batch_size=batch_size, cache_size=cache_size)
        StoreStage.__init__(self)
        self.fingerprint = ""

    def prepare(self, collection: Collection) -> None:
        """Remember the collection; its encoder loads when the first text is to be matched."""
        StoreStage.prepare(self, collection)

    def score(self, query: Query, hits: Sequence[Hit], deadline: float | None = None) -> Signal:
        """Each hit's logit; no value for hits without a row in ``joint``."""
        try:
            found = self._scorable(query, hits)
        except Exception as error:  # as for any ``PairScorer``, none leaves ``score``
            return replace(unscored(len(hits)), notes=(f"cross: failed: {one_line(error)}",))
        if isinstance(found, str):
            return unscored(len(hits), f"cross: {found}")
        signal = super().score(query, [hits[n] for n in found], deadline)
        values = np.full(len(hits), np.nan, dtype=np.float32)
        values[found] = signal.values
        return replace(signal, values=values)

    def _scorable(self, query: Query, hits: Sequence[Hit]) -> list[int] | str:
        """Which hits have a row, or why none can be scored."""
        if self.collection is None:
            return "not prepared for a collection"
        if text_of(query) is None:
            return "reads only queries that are one text"
        _, count = self.collection.rows("joint", hits)
        if not (count > 0).any():
            how = "index it with --spaces …,joint (in Python Engine.open(spaces=[…, 'joint']), then sync)"
            return f"no hit has a row in the space 'joint': {how}"
        if self._joint_encoder() is None:
            return f"the encoder {self.collection.encoder.name!r} has no joint model"
        return [int(n) for n in np.flatnonzero(count > 0)]

    def _joint_encoder(self) -> JointEncoder | None:
        encoder = self.collection.encoder if self.collection is not None else None
        return encoder if isinstance(encoder, JointEncoder) and encoder.joint[0] else None

    def _keys(self, query: Query, hits: Sequence[Hit], judged: Sequence[int]) -> dict[int, bytes]:
        """By the rows, which are all that is read of an item: what its file holds by now changes no logit."""
        asked, encoder = query_key(query), self._joint_encoder()
        if not self._cache.limit or asked is None or encoder is None or self.collection is None:
            return {}
        self.fingerprint = f"{self.collection.encoder.fingerprint} joint={encoder.joint_fingerprint}"
        prefix = self.fingerprint.encode("utf-8", "backslashreplace") + b"\0" + asked
        rows = self._rows([hits[n] for n in judged])
        return {n: content_hash(prefix + row.tobytes()) for n, row in zip(judged, rows, strict=True)}

    def _rows(self, hits: Sequence[Hit]) -> NDArray[np.int8]:
        """The hits' rows of ``joint``, (n, width) int8."""
        assert self.collection is not None
        first, _ = self.collection.rows("joint", hits)
        return np.asarray(self.collection.stored("joint", first), dtype=np.int8)

    def _score_batch(self, query: Query, hits: Sequence[Hit]) -> NDArray[np.float32]:
        encoder, text = self._joint_encoder(), text_of(query)
        assert encoder is not None
        assert text is not None
        logits: NDArray[np.float32] = encoder.match(text, dequantise_joint(self._rows(hits), encoder.joint))
        return logits
