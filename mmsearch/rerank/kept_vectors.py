"""Vectors of a second model: what it reads of hits, queries and banks, and ``KeptVectors``, which keeps them."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from mmsearch.errors import InvalidInput, MMSearchError, ModelBroken
from mmsearch.files import content_hash
from mmsearch.images import open_picture
from mmsearch.overlap import ahead, batches
from mmsearch.protocols import Encoder
from mmsearch.rerank.lru import Lru
from mmsearch.rerank.pairs import has_picture, item_key, read_picture
from mmsearch.types import Hit, Item, Picture, Query, Vectors
from mmsearch.vectors import as_unit_vectors

Halves: TypeAlias = NDArray[np.float16]
"""(dim,) float16, a unit row."""

TEXT_READ = 4_000
"""Characters that are read of an item's text, a dozen windows: one vector says little of more."""
_BETA, _SHRINK, _CHUNK = 20.0, 250, 512
"""As in ``mmsearch.hubs``."""
_BANK_BATCH = 64

_PATIENCE = 0.2
"""Seconds to wait for another writer: a search is waiting, and what is not kept now is encoded again later."""
_ASKED = 500
"""Keys of one SELECT; SQLite before 3.32 takes 999."""
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_NORM_SLACK = 0.01
"""How far from 1 the length of a unit row in float16 may be."""
_TABLE = "CREATE TABLE IF NOT EXISTS vectors (content BLOB PRIMARY KEY, vector BLOB NOT NULL)"


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
        """The bias of each row, (n,), as ``mmsearch.hubs.biases`` has it."""
        known = {key: self._known.get(key) for key in rows}
        for keys in batches([key for key, bias in known.items() if bias is None], _CHUNK):
            cosines = as_unit_vectors([rows[key] for key in keys]) @ self._vectors.T
            np.exp(_BETA * cosines, out=cosines)
            found = np.log(cosines.mean(axis=1, dtype=np.float64)) / _BETA
            found *= len(self._vectors) / (len(self._vectors) + _SHRINK)
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


class KeptVectors:
    """Unit rows by key in one SQLite file: a cache. No error leaves it: what cannot be read is missing.

    A damaged file is deleted and begun anew; a folder that cannot be written is only read. Each call opens the file
    and closes it again (0.3 ms): so threads, forked processes and other writers need no care, and nothing of a store
    is held open that its owner wants to delete. For the same reason it has a rollback journal and no write-ahead log,
    whose helper files a reader of a read-only folder could not make.

    Parameters
    ----------
    dim
        The rows' width: rows of another are missing.
    """

    def __init__(self, file: Path, dim: int) -> None:
        self.file = file
        self.dim = dim

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Halves]:
        """The rows that are kept of these keys, each checked: its checksum, its width, and that its length is 1."""
        found: dict[bytes, Halves] = {}
        if not keys:
            return found
        try:
            with closing(self._open("ro")) as db:
                for first in range(0, len(keys), _ASKED):
                    some = list(keys[first : first + _ASKED])
                    marks = ",".join("?" * len(some))
                    for key, data in db.execute(
                        f"SELECT content, vector FROM vectors WHERE content IN ({marks})", some
                    ):
                        row = self._unpacked(key, data)
                        if row is not None:
                            found[key] = row
        except sqlite3.Error as error:
            self._mend(error)
        except OSError:
            pass  # a folder that is not there, or not for us
        return found

    def put(self, rows: Mapping[bytes, Halves]) -> None:
        """Keep rows, in one transaction; those of keys that are there replace what may be damaged."""
        packed = [(key, _packed(key, row)) for key, row in rows.items()]
        for _ in range(2 if packed else 0):
            try:
                self.file.parent.mkdir(exist_ok=True)  # without parents: a store that is gone stays gone
                with closing(self._open("rwc")) as db:
                    # Without waiting for the disk: after a power cut the checksums tell what was lost.
                    db.execute("PRAGMA synchronous = OFF")
                    with db:
                        db.execute(_TABLE)
                        db.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?)", packed)
                return
            except sqlite3.Error as error:
                if not self._mend(error):
                    return
            except OSError:
                return

    def _open(self, mode: str) -> sqlite3.Connection:
        db = sqlite3.connect(f"{self.file.resolve().as_uri()}?mode={mode}", uri=True, timeout=_PATIENCE)
        db.text_factory = bytes  # so that a text in a row's place is no error of its own
        try:
            # A store may come from elsewhere: what its schema says is not to be trusted (sqlite.org/security.html).
            db.execute("PRAGMA trusted_schema = OFF")
        except sqlite3.Error:
            db.close()
            raise
        return db

    def _mend(self, error: sqlite3.Error) -> bool:
        """Delete the file if the error says that it is damaged or no cache of ours; whether it did."""
        # The low byte is the code, the others say more about it.
        damaged = getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGE
        if not damaged and "column" not in str(error):
            return False
        with suppress(OSError):
            self.file.unlink(missing_ok=True)
            self.file.with_name(f"{self.file.name}-journal").unlink(missing_ok=True)
            return True
        return False

    def _unpacked(self, key: bytes, data: object) -> Halves | None:
        """The row of what ``_packed`` made; None if it is anything else."""
        if not isinstance(data, bytes) or len(data) != 2 * self.dim + 4:
            return None
        if zlib.crc32(data[:-4], zlib.crc32(key)).to_bytes(4, "little") != data[-4:]:
            return None
        row = np.frombuffer(data[:-4], dtype="<f2").astype(np.float16)
        length = float(np.linalg.norm(row.astype(np.float32)))
        return row if abs(length - 1) < _NORM_SLACK else None  # false for NaN


def _packed(key: bytes, row: Halves) -> bytes:
    data = row.astype("<f2").tobytes()
    return data + zlib.crc32(data, zlib.crc32(key)).to_bytes(4, "little")
