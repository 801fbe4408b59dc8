"""What an encoder makes of an item's parts: rows for each field's space."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmsearch.errors import InvalidInput
from mmsearch.protocols import CellEncoder, Encoder, JointEncoder
from mmsearch.types import Picture, Vectors
from mmsearch.views import views

BATCH = 64
"""Items that are encoded and committed together."""
_SCALE = np.dtype("<f2")
"""Of the scale that a row of ``joint`` keeps for each of its cells."""
MAX_TEXT = 1_000_000
"""Characters of one item's text; longer ones are refused, not cut."""

Prepared = dict[str, list[Picture]]
"""The pictures to encode for each field; what several fields need is one and the same object. The last picture of
``regions``, and that of ``cells``, may be one that ``prepare_cells`` made."""


@dataclass(slots=True)
class Encoded:
    """Rows by field, which of them are whose (first and number, by the caller's index), and what failed."""

    rows: dict[str, NDArray[Any]] = field(default_factory=dict)
    spans: dict[str, dict[int, range]] = field(default_factory=dict)
    faults: dict[int, str] = field(default_factory=dict)

    def rows_of(self, text: int, picture: int, start: Mapping[str, int]) -> dict[str, range]:
        """Row numbers by field of an item whose text and picture have these indices, if fields start at ``start``."""
        rows = {}
        for name, spans in self.spans.items():
            span = spans.get(text if name == "text" else picture)
            if span is not None:
                rows[name] = range(start[name] + span.start, start[name] + span.stop)
        return rows


class FieldEncoder:
    """An encoder and the fields that a store wants of each item.

    Raises
    ------
    InvalidInput
        If ``cells`` or ``joint`` are wanted of an encoder that has none.
    """

    def __init__(self, encoder: Encoder, fields: Sequence[str]) -> None:
        self.encoder = encoder
        self.fields = tuple(fields)
        if "cells" in fields and not (isinstance(encoder, CellEncoder) and encoder.n_cells):
            raise InvalidInput(f"the encoder {encoder.name!r} has no cells: leave 'cells' out of the spaces")
        if "joint" in fields and not (isinstance(encoder, JointEncoder) and encoder.joint[0]):
            raise InvalidInput(f"the encoder {encoder.name!r} has no joint model: leave 'joint' out of the spaces")

    def widths(self) -> dict[str, tuple[int, str]]:
        """Numbers a row and their dtype, by field."""
        widths = {name: (self.encoder.dim, "float16") for name in self.fields}
        if "cells" in widths and isinstance(self.encoder, CellEncoder):
            widths["cells"] = (self.encoder.n_cells * self.encoder.cell_dim, "int8")
        if "joint" in widths and isinstance(self.encoder, JointEncoder):
            n_cells, width = self.encoder.joint
            widths["joint"] = (n_cells * (width + _SCALE.itemsize), "int8")
        return widths

    @property
    def _closer(self) -> bool:
        """Whether the encoder reads pictures for their cells more closely than for their vectors."""
        encoder = self.encoder
        return isinstance(encoder, CellEncoder) and encoder.n_cells > 0 and encoder.cell_size > encoder.image_size

    def prepare(self, image: Image.Image) -> Prepared:
        """Shrink a picture to what each field's tower reads; runs in many threads."""
        prepared: Prepared = {}
        whole = [self.encoder.prepare(image)] if {"picture", "regions", "joint"} & set(self.fields) else []
        closely: list[Picture] = []
        if "cells" in self.fields or ("regions" in self.fields and self._closer):
            assert isinstance(self.encoder, CellEncoder)
            closely = [self.encoder.prepare_cells(image)]
        if "picture" in self.fields:
            prepared["picture"] = whole
        if "regions" in self.fields:
            others = [self.encoder.prepare(view) for view in views(image)[1:]]
            prepared["regions"] = [*whole, *others, *(closely if self._closer else [])]
        if "cells" in self.fields:
            prepared["cells"] = closely
        if "joint" in self.fields:
            prepared["joint"] = whole
        return prepared

    def encode(self, pictures: Mapping[int, Prepared], texts: Mapping[int, str]) -> Encoded:
        """Rows for pictures and texts, by the caller's index; an index whose vectors are unusable is a fault."""
        encoded = Encoded()
        seen = _Seen(self, [part for prepared in pictures.values() for its in prepared.values() for part in its])
        for name in self.fields:
            if name == "text":
                self._add_texts(encoded, {i: self._windows(text, i, encoded) for i, text in texts.items()})
            else:
                parts = {i: prepared[name] for i, prepared in pictures.items() if name in prepared}
                flat = [part for its in parts.values() for part in its]
                self._add(encoded, name, parts, seen.rows(name, flat))
        for i in encoded.faults:
            for spans in encoded.spans.values():
                spans.pop(i, None)
        return encoded

    def _windows(self, text: str, i: int, encoded: Encoded) -> list[str]:
        if len(text) > MAX_TEXT:
            encoded.faults[i] = (
                f"expected a text of at most {MAX_TEXT:,} characters, got {len(text):,}: split it into items"
            )
            return []
        return self.encoder.split_text(text)

    def _add_texts(self, encoded: Encoded, parts: Mapping[int, Sequence[str]]) -> None:
        flat = [part for its in parts.values() for part in its]
        unique = list(dict.fromkeys(flat))
        rows = self.checked(self.encoder.encode_texts(unique), len(unique)) if unique else _no_rows(self.encoder.dim)
        place = {text: i for i, text in enumerate(unique)}
        self._add(encoded, "text", parts, rows[[place[text] for text in flat]])

    def _add(self, encoded: Encoded, name: str, parts: Mapping[int, Sequence[Any]], rows: NDArray[Any]) -> None:
        """Keep the rows of each index whose rows are all good; ``rows`` has one for each part, in order."""
        encoded.spans[name] = {}
        good = np.isfinite(rows).all(axis=1) & rows.any(axis=1)
        keep = np.zeros(len(rows), dtype=np.bool_)
        at = stored = 0
        for i, its in parts.items():
            if good[at : at + len(its)].all():
                keep[at : at + len(its)] = True
                encoded.spans[name][i] = range(stored, stored + len(its))
                stored += len(its)
            else:
                encoded.faults[i] = f"the encoder {self.encoder.name!r} gave no usable vector for its {name}"
            at += len(its)
        if stored:
            encoded.rows[name] = rows[keep]

    def is_closer(self, picture: Picture) -> bool:
        """Whether ``prepare_cells`` made this, if the encoder reads more closely for cells."""
        size = getattr(self.encoder, "cell_size", 0)
        return self._closer and isinstance(picture, np.ndarray) and picture.shape[:2] == (size, size)

    def checked(self, rows: Vectors, n: int) -> Vectors:
        """The rows, if there are ``n`` of the encoder's width."""
        rows = np.asarray(rows, dtype=np.float32)
        if rows.shape != (n, self.encoder.dim):
            expected = (n, self.encoder.dim)
            raise InvalidInput(f"expected {expected} vectors of the encoder {self.encoder.name!r}, got {rows.shape}")
        return rows


class _Seen:
    """What the encoder makes of prepared pictures, each run once however many fields need it."""

    def __init__(self, fields: FieldEncoder, pictures: Sequence[Picture]) -> None:
        self._fields = fields
        self._pictures = pictures  # held, since their ids name them
        self._vectors: dict[int, Vectors] = {}
        self._cells: dict[int, NDArray[np.int8]] = {}

    def rows(self, name: str, pictures: Sequence[Picture]) -> NDArray[Any]:
        """One row of a field for each picture."""
        match name:
            case "cells":
                return self.cells(pictures)
            case "joint":
                return self.joint(pictures)
            case _:
                return self.vectors(pictures)

    def vectors(self, pictures: Sequence[Picture]) -> Vectors:
        """(n, dim) rows."""
        closely = [picture for picture in pictures if self._fields.is_closer(picture)]
        self._read_closely([picture for picture in closely if id(picture) not in self._vectors])
        missing = {id(picture): picture for picture in pictures if id(picture) not in self._vectors}
        if missing:
            rows = self._fields.encoder.encode_images(list(missing.values()))
            self._vectors.update(zip(missing, self._fields.checked(rows, len(missing)), strict=True))
        return np.stack([self._vectors[id(picture)] for picture in pictures]) if pictures else _no_rows(1)

    def cells(self, pictures: Sequence[Picture]) -> NDArray[np.int8]:
        """(n, n_cells * cell_dim) rows."""
        self._read_closely([picture for picture in pictures if id(picture) not in self._cells])
        return np.stack([self._cells[id(picture)] for picture in pictures]) if pictures else np.zeros((0, 1), np.int8)

    def joint(self, pictures: Sequence[Picture]) -> NDArray[np.int8]:
        """(n, n_cells * (width + 2)) rows. No other field reads what the joint model does, and none reads it twice."""
        if not pictures:
            return np.zeros((0, 1), np.int8)
        assert isinstance(self._fields.encoder, JointEncoder)
        return quantise_joint(self._fields.encoder.encode_joint(pictures))

    def _read_closely(self, pictures: Sequence[Picture]) -> None:
        if not pictures:
            return
        assert isinstance(self._fields.encoder, CellEncoder)
        vectors, cells = self._fields.encoder.encode_cells(pictures)
        if self._fields.is_closer(pictures[0]):  # else the vectors are those that encode_images gives
            self._vectors.update(zip(map(id, pictures), vectors, strict=True))
        self._cells.update(zip(map(id, pictures), quantise_cells(cells), strict=True))


def _no_rows(width: int) -> Vectors:
    return np.zeros((0, width), dtype=np.float32)


def quantise_cells(cells: NDArray[np.float32]) -> NDArray[np.int8]:
    """Cells, (n, n_cells, cell_dim) unit rows, to (n, n_cells * cell_dim) int8.

    Each cell is scaled to use all of int8; only its direction counts, which a cosine gives back. A row that has NaN or
    infinity becomes zeros.
    """
    finite, _ = _finite(cells)
    largest = np.maximum(np.abs(finite).max(axis=2, keepdims=True), 1e-12)
    codes = np.rint(finite * (127.0 / largest)).astype(np.int8)
    return _flat(codes)


def quantise_joint(cells: NDArray[np.float32]) -> NDArray[np.int8]:
    """Cells of the joint model, (n, n_cells, width), to (n, n_cells * (width + 2)) int8.

    A row holds the codes of all cells, then a float16 for each cell that its codes are multiplied by, since here the
    length counts. A row that has NaN or infinity becomes zeros.
    """
    finite, sound = _finite(cells)
    tiny, huge = np.finfo(_SCALE).tiny, np.finfo(_SCALE).max
    scales = np.clip(np.abs(finite).max(axis=2) / 127, tiny, huge).astype(_SCALE)
    codes = np.clip(np.rint(finite / scales[:, :, None].astype(np.float32)), -127, 127).astype(np.int8)
    rows = np.concatenate([_flat(codes), _flat(scales.view(np.int8))], axis=1)
    rows[~sound] = 0
    return rows


def dequantise_joint(rows: NDArray[np.int8], shape: tuple[int, int]) -> NDArray[np.float32]:
    """What ``quantise_joint`` made of cells back to cells, (n, n_cells, width) float32, ``shape`` being the latter two.

    Raises
    ------
    InvalidInput
        If the rows are not those of such cells.
    """
    n_cells, width = shape
    if rows.ndim != 2 or rows.shape[1] != n_cells * (width + _SCALE.itemsize):
        raise InvalidInput(f"expected rows of {n_cells} cells of {width} numbers, got the shape {rows.shape}: reindex")
    codes, scales = np.split(rows, [n_cells * width], axis=1)
    factors = np.ascontiguousarray(scales).view(_SCALE).astype(np.float32)
    return codes.reshape(-1, n_cells, width) * factors[:, :, None]


def _finite(cells: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Cells, (n, n_cells, width), with zeros for all of a picture's that has NaN or infinity; which have none, (n,)."""
    sound: NDArray[np.bool_] = np.logical_and.reduce(np.isfinite(cells), axis=(1, 2))
    return (cells if sound.all() else np.where(sound[:, None, None], cells, np.float32(0))), sound


def _flat(codes: NDArray[np.int8]) -> NDArray[np.int8]:
    """One row a picture, also of none."""
    return codes.reshape(len(codes), math.prod(codes.shape[1:]))
