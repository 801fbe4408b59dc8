"""Late interaction: each word of a text looks for its place in a picture, and what it finds is added up.

The sum of maxima of ColBERT (Khattab & Zaharia, SIGIR 2020, section 3.3) between words and cells, as FILIP (Yao et al.,
ICLR 2022, section 3.1) does for pictures; as a mean over words, so that long queries weigh no more than short ones.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mmsearch.errors import InvalidInput, MMSearchError, StoreDamaged
from mmsearch.images import open_picture
from mmsearch.protocols import CellEncoder, Collection
from mmsearch.rerank.lru import Lru
from mmsearch.rerank.stage import StoreStage, around_zero, by_field, text_of, unscored, why_skipped
from mmsearch.types import Cells, Hit, Query, Signal, Words

TEXTS_KEPT = 20_000
"""Texts whose words are kept as they are met, some 5 kB each."""
_PART = 32
"""Hits between two looks at the clock."""


class LateInteraction(StoreStage):
    """Mean over the query's words of the best cosine among the cells of a picture; neutral around the hits' mean.

    Pictures are scored by their rows of the ``cells`` space, for a query that is one text. For a query that is one
    picture, texts are scored by the cells of the query.
    """

    name = "late"
    needs = ("cells",)
    weight = 0.25
    """Of a cosine: what ``mmsearch tune`` found on Flickr8k dev lies near, at 0.31."""

    def __init__(self) -> None:
        super().__init__()
        self._texts_read: Lru[Words] = Lru(TEXTS_KEPT)

    def score(self, query: Query, hits: Sequence[Hit], deadline: float | None = None) -> Signal:
        """Each hit's mean of maxima, less the mean over the hits; no value for hits without cells or text.

        Where some hits were found in pictures and some in texts, each kind is scored by itself.
        """
        collection = self.collection
        if collection is None:
            return unscored(len(hits), "late: not prepared for a collection")
        texts = any(hit.field == "text" for hit in hits)
        if text_of(query) is None and not (texts and _one_picture(query)):  # before an encoder is loaded for it
            return unscored(len(hits), "late: reads only queries that are one text, or one picture among texts")
        encoder = collection.encoder
        if not (isinstance(encoder, CellEncoder) and encoder.n_cells):
            return unscored(len(hits), f"late: the encoder {encoder.name!r} has no cells")
        values = np.full(len(hits), np.nan, dtype=np.float32)
        words: list[Mapping[str, float]] = [{}] * len(hits)
        signals = []
        for field, places in by_field(hits):
            score = self._texts if field == "text" else self._pictures
            signals.append(score(encoder, query, [hits[place] for place in places], deadline))
            values[places] = signals[-1].values
            for place, found in zip(places.tolist(), signals[-1].words, strict=False):
                words[place] = found
        notes = tuple(note for signal in signals for note in signal.notes)
        return Signal(values, words=tuple(words), notes=notes, skipped=why_skipped(signals))

    def _pictures(self, encoder: CellEncoder, query: Query, hits: Sequence[Hit], deadline: float | None) -> Signal:
        collection, text = self.collection, text_of(query)
        if text is None or collection is None:
            return unscored(len(hits), "late: reads only queries that are one text")
        first, count = collection.rows("cells", hits)
        there = np.flatnonzero(count > 0)
        if not len(there):
            return unscored(len(hits), "late: no hit has cells; index with --spaces picture,text,cells")
        (words,) = encoder.encode_words([text])
        if not len(words.rows):
            return unscored(len(hits), "late: the text has no words")
        best = np.full((len(hits), len(words.rows)), np.nan, dtype=np.float32)
        done = 0
        for start in range(0, len(there), _PART):
            if deadline is not None and time.perf_counter() > deadline:
                break
            part = there[start : start + _PART]
            best[part] = heat(words, _cells(encoder, collection.stored("cells", first[part]))).max(axis=1)
            done += len(part)
        return Signal(around_zero(best.mean(axis=1)), words=by_word(words, best), notes=_late(done, len(there)))

    def _texts(self, encoder: CellEncoder, query: Query, hits: Sequence[Hit], deadline: float | None) -> Signal:
        """Texts for a picture: the query is the side that has cells."""
        term = next(query.terms())
        if not _one_picture(query) or term.image is None:
            return unscored(len(hits), "late: texts have no cells, and the query is not one picture")
        try:
            picture = open_picture(term.image, min_side=encoder.cell_size).image
        except MMSearchError as error:
            return unscored(len(hits), f"late: {error}")
        _, cells = encoder.encode_cells([encoder.prepare_cells(picture)])
        read = [n for n, hit in enumerate(hits) if hit.item.text]
        values = np.full(len(hits), np.nan, dtype=np.float32)
        done = 0
        for start in range(0, len(read), _PART):
            if deadline is not None and time.perf_counter() > deadline:
                break
            part = read[start : start + _PART]
            for n, words in zip(part, self._words(encoder, [hits[n].item.text or "" for n in part]), strict=True):
                if len(words.rows):
                    values[n] = (words.rows @ cells[0].T).max(axis=1).mean()
            done += len(part)
        return Signal(around_zero(values), notes=_late(done, len(read)))

    def _words(self, encoder: CellEncoder, texts: Sequence[str]) -> list[Words]:
        model = f"{getattr(encoder, 'fingerprint', '')} {encoder.n_cells} {encoder.cell_dim}\n"  # several may share us
        keys = {text: (model + text).encode("utf-8", "surrogatepass") for text in texts}
        known = {text: self._texts_read.get(key) for text, key in keys.items()}
        missing = [text for text, words in known.items() if words is None]
        for text, read in zip(missing, encoder.encode_words(missing), strict=True):
            self._texts_read.put(keys[text], read)
            known[text] = read
        return [words for text in texts if (words := known[text]) is not None]


def _one_picture(query: Query) -> bool:
    terms = list(query.terms())
    return len(terms) == 1 and terms[0].image is not None and terms[0].weight > 0


def _late(done: int, of: int) -> tuple[str, ...]:
    return () if done == of else (f"late: scored {done} of {of}, the time was up",)


def heat(words: Words, cells: NDArray[np.int8] | Cells) -> NDArray[np.float32]:
    """Cosines of cells, (n, n_cells, cell_dim) codes or rows, with words, as (n, n_cells, n_tokens) float32."""
    rows = cells.astype(np.float32).reshape(-1, cells.shape[2])
    norms = np.sqrt(np.einsum("nd,nd->n", rows, rows))
    cosines = (rows @ words.rows.T) / np.maximum(norms, 1e-6)[:, None]
    return np.asarray(cosines.reshape(*cells.shape[:2], len(words.rows)), dtype=np.float32)


def by_word(words: Words, scores: NDArray[np.float32]) -> tuple[Mapping[str, float], ...]:
    """Scores of tokens, (n, n_tokens), as one a distinct word, the mean over its tokens; {} where they are NaN."""
    share = _shares(words)
    rows = np.round((scores @ np.stack(list(share.values()), axis=1)).astype(np.float64), 4).tolist()
    return tuple(dict(zip(share, row, strict=True)) if row[0] == row[0] else {} for row in rows)


def _shares(words: Words) -> dict[str, NDArray[np.float32]]:
    """By distinct word the share that each token, (n_tokens,), has in it."""
    tokens: dict[str, list[int]] = {}
    for place, number in enumerate(words.of.tolist()):
        tokens.setdefault(words.words[number], []).append(place)
    shares = {word: np.zeros(len(words.of), dtype=np.float32) for word in tokens}
    for word, places in tokens.items():
        shares[word][places] = 1.0 / len(places)
    return shares


def _cells(encoder: CellEncoder, codes: NDArray[np.int8]) -> NDArray[np.int8]:
    """Stored rows, (n, width), as (n, n_cells, cell_dim).

    Raises
    ------
    StoreDamaged
        If another version of the model made them: its cells are no part of the fingerprint.
    """
    expected = encoder.n_cells * encoder.cell_dim
    if codes.shape[1] != expected:
        raise StoreDamaged(
            f"the stored cells have {codes.shape[1]} numbers a picture, the encoder's {expected}: "
            "run `mmsearch reindex`"
        )
    return codes.reshape(len(codes), encoder.n_cells, encoder.cell_dim)


def heat_map(collection: Collection, text: str, hit: Hit) -> dict[str, NDArray[np.float32]]:
    """Where each word of a text is found in a hit's picture: (rows, columns) cosines by word.

    Raises
    ------
    InvalidInput
        If the text is blank, the encoder has no cells, or the store has none of this picture.
    """
    if not isinstance(text, str) or not text.strip():
        raise InvalidInput(f"expected a text whose words are looked for, got {text!r}")
    encoder = collection.encoder
    if not (isinstance(encoder, CellEncoder) and encoder.n_cells):
        raise InvalidInput(f"the encoder {encoder.name!r} has no cells: choose one that has, such as mini")
    first, count = collection.rows("cells", [hit])
    if not count[0]:
        raise InvalidInput(f"the store has no cells of {hit.item.id!r}: open it with spaces=[…, 'cells'] and sync it")
    (words,) = encoder.encode_words([text])
    found = heat(words, _cells(encoder, collection.stored("cells", first)))[0]
    side = round(encoder.n_cells**0.5)
    return {word: (found @ share).reshape(side, -1) for word, share in _shares(words).items()}
