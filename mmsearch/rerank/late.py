"""Late interaction: each word of a text looks for its place in a picture, and what it finds is added up.

The sum of maxima of ColBERT (Khattab & Zaharia, SIGIR 2020, section 3.3) between words and cells, as FILIP (Yao et al.,
ICLR 2022, section 3.1) does for pictures; as a mean over words, so that long queries weigh no more than short ones.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mmsearch.errors import InvalidInput, MMSearchError
from mmsearch.images import open_picture
from mmsearch.protocols import CellEncoder, Collection
from mmsearch.rerank.lru import Lru
from mmsearch.rerank.stage import Stage, text_of, unscored
from mmsearch.types import Cells, Hit, Keys, Query, Signal, Words

TEXTS_KEPT = 20_000
"""Texts whose words are kept as they are met, some 5 kB each."""
_PART = 32
"""Hits between two looks at the clock."""


class LateInteraction(Stage):
    """Mean over the query's words of the best cosine among the cells of a picture; neutral around the hits' mean.

    Pictures are scored by their rows of the ``cells`` space, for a query that is one text. For a query that is one
    picture, texts are scored by the cells of the query.
    """

    name = "late"
    needs = ("cells",)
    weight = 0.25
    """On Flickr8k dev (``benchmarks/cascade.py``) 0.2 to 0.5 of a cosine gave R@1 within 0.3 of each other."""

    def __init__(self) -> None:
        self._collection: Collection | None = None
        self._texts_read: Lru[Words] = Lru(TEXTS_KEPT)

    def prepare(self, collection: Collection) -> None:
        """Cells are encoded at indexing."""
        self._collection = collection

    def score(self, query: Query, hits: Sequence[Hit], deadline: float | None = None) -> Signal:
        """Each hit's mean of maxima, less the mean over the hits; no value for hits without cells or text."""
        collection = self._collection
        if collection is None:
            return unscored(len(hits), "late: not prepared for a collection")
        text, for_texts = text_of(query), bool(hits) and all(hit.field == "text" for hit in hits)
        if text is None and not for_texts:
            return unscored(len(hits), "late: reads only queries that are one text")
        encoder = collection.encoder
        if not (isinstance(encoder, CellEncoder) and encoder.n_cells):
            return unscored(len(hits), f"late: the encoder {encoder.name!r} has no cells")
        if for_texts:
            return self._texts(encoder, query, hits)
        first, count = collection.rows("cells", hits)
        if not (count > 0).any():
            return unscored(len(hits), "late: no hit has cells; index with --spaces picture,text,cells")
        (words,) = encoder.encode_words([text or ""])
        return self._pictures(collection, words, (first, count), deadline)

    def _pictures(
        self,
        collection: Collection,
        words: Words,
        spans: tuple[Keys, Keys],
        deadline: float | None,
    ) -> Signal:
        first, count = spans
        best = np.full((len(first), len(words.rows)), np.nan, dtype=np.float32)
        there = np.flatnonzero(count > 0)
        done = 0
        for start in range(0, len(there), _PART):
            if deadline is not None and time.perf_counter() > deadline:
                break
            part = there[start : start + _PART]
            codes = collection.stored("cells", first[part]).reshape(len(part), -1, words.rows.shape[1])
            best[part] = heat(words, codes).max(axis=1)
            done += len(part)
        notes = () if done == len(there) else (f"late: scored {done} of {len(there)}, the time was up",)
        return Signal(_around_zero(_means(best)), words=tuple(by_word(words, row) for row in best), notes=notes)

    def _texts(self, encoder: CellEncoder, query: Query, hits: Sequence[Hit]) -> Signal:
        terms = list(query.terms())
        if len(terms) != 1 or terms[0].image is None or terms[0].weight <= 0:
            return unscored(len(hits), "late: texts have no cells, and the query is not one picture")
        try:
            picture = open_picture(terms[0].image, min_side=encoder.cell_size).image
        except MMSearchError as error:
            return unscored(len(hits), f"late: {error}")
        _, cells = encoder.encode_cells([encoder.prepare_cells(picture)])
        read = [n for n, hit in enumerate(hits) if hit.item.text]
        values = np.full(len(hits), np.nan, dtype=np.float32)
        texts = [hits[n].item.text or "" for n in read]
        for n, words in zip(read, self._words(encoder, texts), strict=True):
            if len(words.rows):
                values[n] = (words.rows @ cells[0].T).max(axis=1).mean()
        return Signal(_around_zero(values))

    def _words(self, encoder: CellEncoder, texts: Sequence[str]) -> list[Words]:
        known = {text: self._texts_read.get(text.encode("utf-8", "surrogatepass")) for text in texts}
        missing = [text for text, words in known.items() if words is None]
        for text, read in zip(missing, encoder.encode_words(missing), strict=True):
            self._texts_read.put(text.encode("utf-8", "surrogatepass"), read)
            known[text] = read
        return [words for text in texts if (words := known[text]) is not None]


def heat(words: Words, cells: NDArray[np.int8] | Cells) -> NDArray[np.float32]:
    """Cosines of cells, (n, n_cells, cell_dim) codes or rows, with words, as (n, n_cells, n_tokens) float32."""
    rows = cells.astype(np.float32).reshape(-1, cells.shape[2])
    norms = np.sqrt(np.einsum("nd,nd->n", rows, rows))
    cosines = (rows @ words.rows.T) / np.maximum(norms, 1e-6)[:, None]
    return np.asarray(cosines.reshape(len(cells), -1, len(words.rows)), dtype=np.float32)


def by_word(words: Words, scores: NDArray[np.float32]) -> Mapping[str, float]:
    """Scores of tokens, (n_tokens,), as one for each distinct word, the mean over its tokens; {} if they are NaN."""
    if not len(scores) or np.isnan(scores).any():
        return {}
    found: dict[str, list[float]] = {}
    for number, score in zip(words.of.tolist(), scores.tolist(), strict=True):
        found.setdefault(words.words[number], []).append(score)
    return {word: round(sum(its) / len(its), 4) for word, its in found.items()}


def heat_map(collection: Collection, text: str, hit: Hit) -> dict[str, NDArray[np.float32]]:
    """Where each word of a text is found in a hit's picture: (rows, columns) cosines by word.

    Raises
    ------
    InvalidInput
        If the encoder has no cells, or the store has none of this picture.
    """
    encoder = collection.encoder
    if not (isinstance(encoder, CellEncoder) and encoder.n_cells):
        raise InvalidInput(f"the encoder {encoder.name!r} has no cells: choose one that has, such as mini")
    first, count = collection.rows("cells", [hit])
    if not count[0]:
        raise InvalidInput(f"the store has no cells of {hit.item.id!r}: open it with spaces=[…, 'cells'] and sync it")
    (words,) = encoder.encode_words([text])
    codes = collection.stored("cells", first).reshape(1, encoder.n_cells, encoder.cell_dim)
    side = round(encoder.n_cells**0.5)
    grid = heat(words, codes)[0].reshape(side, encoder.n_cells // side, -1)
    found: dict[str, list[NDArray[np.float32]]] = {}
    for place, number in enumerate(words.of.tolist()):
        found.setdefault(words.words[number], []).append(grid[:, :, place])
    return {word: np.asarray(np.mean(its, axis=0), dtype=np.float32) for word, its in found.items()}


def _means(best: NDArray[np.float32]) -> NDArray[np.float32]:
    if not best.shape[1]:
        return np.full(len(best), np.nan, dtype=np.float32)
    return np.asarray(best.mean(axis=1), dtype=np.float32)


def _around_zero(values: NDArray[np.float32]) -> NDArray[np.float32]:
    known = np.isfinite(values)
    return np.asarray(values - values[known].mean() if known.any() else values, dtype=np.float32)
