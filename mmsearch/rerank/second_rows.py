"""What a second model reads of hits, queries and banks, as rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mmsearch.bias import biases
from mmsearch.errors import InvalidInput, MMSearchError, ModelBroken
from mmsearch.files import content_hash
from mmsearch.images import open_picture
from mmsearch.overlap import ahead, batches
from mmsearch.protocols import Encoder
from mmsearch.rerank.kept_vectors import Halves, KeptVectors
from mmsearch.rerank.lru import Lru
from mmsearch.rerank.pairs import has_picture, item_key, read_picture
from mmsearch.types import Hit, Item, Picture, Query, Vectors
from mmsearch.vectors import as_unit_vectors

TEXT_READ = 4_000
"""Characters that are read of an item's text, a dozen windows: one vector says little of more."""
_BANK_BATCH, _BIAS_BATCH = 64, 512


@dataclass(frozen=True, slots=True)
class Subject:
    """What is read of a hit: its item's picture, or its text. ``key`` is of just that."""

    key: bytes
    item: Item = field(compare=False)
    is_text: bool


def subject_of(hit: Hit, for_texts: bool) -> Subject | None:
    """What is read of a hit: its picture, else its text; the text first if ``for_texts``; None if there is neither."""
    text = hit.item.text if (hit.item.text or "").strip() else None
    if has_picture(hit.item) and not (for_texts and text):
        return Subject(content_hash(b"picture\0" + item_key(hit.item)), hit.item, is_text=False)
    return None if text is None else Subject(text_key(text), hit.item, is_text=True)


def read(batch: Sequence[Subject], encoder: Encoder) -> tuple[dict[bytes, Halves], dict[bytes, str]]:
    """Rows of a batch by key, without those that are unusable; and why pictures cannot be read."""
    texts = [subject for subject in batch if subject.is_text]
    pictures, unread = dict[bytes, Picture](), dict[bytes, str]()

    def opened(subject: Subject) -> Picture | str:
        try:
            return encoder.prepare(read_picture(subject.item, min_side=encoder.image_size))
        except MMSearchError as error:
            return str(error)

    seen = [subject for subject in batch if not subject.is_text]
    for subject, picture in zip(seen, ahead(opened, seen, len(batch)), strict=True):
        if isinstance(picture, str):
            unread[subject.key] = picture
        else:
            pictures[subject.key] = picture
    found: dict[bytes, Halves] = {}
    if pictures:
        rows = checked(encoder.encode_images(list(pictures.values())), len(pictures), encoder)
        found |= usable(list(pictures), rows)
    if texts:
        found |= usable([subject.key for subject in texts], text_rows([s.item.text or "" for s in texts], encoder))
    return found, unread


def query_row(query: Query, encoder: Encoder) -> Vectors:
    """A query of texts and pictures as one unit vector, (dim,): unit vectors, scaled by their weights and added.

    Raises
    ------
    InvalidInput
        If its terms cancel each other out, or the model gives no usable vector for one.
    PictureError
        For a picture that cannot be opened.
    ModelBroken
        If the encoder gives something else than a row a term.
    """
    terms = list(query.terms())
    largest = max(abs(term.weight) for term in terms) or 1.0
    total = np.zeros(encoder.dim)
    for term in terms:
        if term.image is not None:
            picture = encoder.prepare(open_picture(term.image, min_side=encoder.image_size).image)
            rows = checked(encoder.encode_images([picture]), 1, encoder)
        else:
            rows = text_rows([term.text or ""], encoder)
        total += term.weight / largest * as_unit_vectors(rows)[0]
    if np.linalg.norm(total) < 1e-6:
        raise InvalidInput("the terms of the query cancel each other out: change their weights")
    unit: Vectors = as_unit_vectors(total[None])[0]
    return unit


def text_key(text: str) -> bytes:
    """A digest of what is read of a text."""
    return content_hash(b"text\0" + text[:TEXT_READ].encode("utf-8", "surrogatepass"))


def text_rows(texts: Sequence[str], encoder: Encoder) -> Vectors:
    """One row a text, (n, dim), not of unit length: the mean of its windows.

    Raises
    ------
    ModelBroken
        If the encoder gives something else than a row a window.
    """
    windows = [encoder.split_text(text[:TEXT_READ]) for text in texts]
    flat = [window for its in windows for window in its]
    ends = np.cumsum([len(its) for its in windows])
    parts = np.split(checked(encoder.encode_texts(flat), len(flat), encoder), ends[:-1])
    with np.errstate(invalid="ignore", over="ignore"):
        return np.stack([part.mean(axis=0) for part in parts])


def checked(rows: Vectors, n: int, encoder: Encoder) -> Vectors:
    """What an encoder gave, if these are n rows of its width.

    Raises
    ------
    ModelBroken
        Otherwise.
    """
    rows = np.asarray(rows, dtype=np.float32)
    if rows.shape != (n, encoder.dim):
        raise ModelBroken(f"expected {(n, encoder.dim)} vectors of the encoder {encoder.name!r}, got {rows.shape}")
    return rows


def usable(keys: Sequence[bytes], rows: Vectors) -> dict[bytes, Halves]:
    """Unit rows by key, without those that are NaN, infinite or zero.

    In float16 from the first, as they are kept: a hit scores the same whenever it was encoded.
    """
    good = np.flatnonzero(np.isfinite(rows).all(axis=1) & rows.any(axis=1)).tolist()
    halves = as_unit_vectors(rows[good]).astype(np.float16)
    return {keys[n]: row.copy() for n, row in zip(good, halves, strict=True)}


class ReadBank:
    """A bank of texts as the second model reads it: (b, dim) unit rows, and the biases computed so far.

    Parameters
    ----------
    cache_size
        Biases that are kept.
    """

    def __init__(self, texts: Sequence[str], vectors: Vectors, cache_size: int) -> None:
        self.texts = list(texts)
        self._vectors = vectors
        self._known: Lru[float] = Lru(cache_size)

    def biases(self, rows: Mapping[bytes, Halves]) -> NDArray[np.float32]:
        """The bias of each row, (n,), as ``mmsearch.bias.biases`` has it."""
        known = {key: self._known.get(key) for key in rows}
        for keys in batches([key for key, bias in known.items() if bias is None], _BIAS_BATCH):
            found = biases(as_unit_vectors([rows[key] for key in keys]), self._vectors)
            for key, bias in zip(keys, found.tolist(), strict=True):
                known[key] = bias
                self._known.put(key, bias)
        return np.array(list(known.values()), dtype=np.float32)


def read_bank(
    texts: Sequence[str], encoder: Encoder, kept: KeptVectors, hurried: bool, cache_size: int
) -> ReadBank | None:
    """A bank by its texts' rows: those that are kept, and the others made and kept; None if there is no time for that.

    Raises
    ------
    ModelBroken
        If the model gives no usable vector for any text.
    """
    # They are kept in order, so that the last one tells cheaply whether they are likely to be there.
    if hurried and not kept.get([text_key(texts[-1])]):
        return None
    keys = {text_key(text): text for text in texts}
    rows = kept.get(list(keys))
    missing = [key for key in keys if key not in rows]
    if missing and hurried:
        return None
    for some in batches(missing, _BANK_BATCH):
        found = usable(some, text_rows([keys[key] for key in some], encoder))
        kept.put(found)
        rows |= found
    if not rows:
        raise ModelBroken(f"the encoder {encoder.name!r} gave no usable vector for any of its texts")
    # In the bank's order, so that sums do not depend on what was kept.
    return ReadBank(texts, as_unit_vectors([rows[key] for key in keys if key in rows]), cache_size)
