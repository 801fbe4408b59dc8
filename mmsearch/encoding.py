"""What an encoder makes of an item's parts: rows for each field's space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmsearch.errors import InvalidInput
from mmsearch.protocols import CellEncoder, Encoder
from mmsearch.types import Picture, Vectors
from mmsearch.views import BOXES, views

BATCH = 64
"""Items that are encoded and committed together."""
MAX_TEXT = 1_000_000
"""Characters of one item's text; longer ones are refused, not cut."""

Prepared = dict[str, list[Picture]]
"""The pictures to encode for each field."""


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
        If ``cells`` are wanted of an encoder that has none.
    """

    def __init__(self, encoder: Encoder, fields: Sequence[str]) -> None:
        self.encoder = encoder
        self.fields = tuple(fields)
        if "cells" in fields and not (isinstance(encoder, CellEncoder) and encoder.n_cells):
            raise InvalidInput(f"the encoder {encoder.name!r} has no cells: leave 'cells' out of the spaces")

    def widths(self) -> dict[str, tuple[int, str]]:
        """Numbers a row and their dtype, by field."""
        widths = {name: (self.encoder.dim, "float16") for name in self.fields}
        if "cells" in widths and isinstance(self.encoder, CellEncoder):
            widths["cells"] = (self.encoder.n_cells * self.encoder.cell_dim, "int8")
        return widths

    def prepare(self, image: Image.Image) -> Prepared:
        """Shrink a picture to what each field's tower reads; runs in many threads."""
        prepared: Prepared = {}
        if "picture" in self.fields or "cells" in self.fields:
            whole = [self.encoder.prepare(image)]
            prepared |= {name: whole for name in ("picture", "cells") if name in self.fields}
        if "regions" in self.fields:
            prepared["regions"] = [self.encoder.prepare(view) for view in views(image)]
        return prepared

    def encode(self, pictures: Mapping[int, Prepared], texts: Mapping[int, str]) -> Encoded:
        """Rows for pictures and texts, by the caller's index; an index whose vectors are unusable is a fault."""
        encoded = Encoded()
        for name in self.fields:
            if name == "text":
                parts = {i: self._windows(text, i, encoded) for i, text in texts.items()}
                self._add(encoded, name, parts)
            else:
                self._add(encoded, name, {i: prepared[name] for i, prepared in pictures.items() if name in prepared})
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

    def _add(self, encoded: Encoded, name: str, parts: Mapping[int, Sequence[Any]]) -> None:
        flat = [part for its in parts.values() for part in its]
        encoded.spans[name] = {}
        if not flat:
            return
        rows = self._run(name, flat)
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

    def _run(self, name: str, parts: list[Any]) -> NDArray[Any]:
        if name == "text":
            unique = list(dict.fromkeys(parts))
            rows = self._checked(self.encoder.encode_texts(unique), len(unique))
            place = {text: i for i, text in enumerate(unique)}
            return rows[[place[text] for text in parts]]
        if name == "cells":
            assert isinstance(self.encoder, CellEncoder)
            return quantise_cells(self.encoder.encode_cells(parts))
        return self._checked(self.encoder.encode_images(parts), len(parts))

    def _checked(self, rows: Vectors, n: int) -> Vectors:
        rows = np.asarray(rows, dtype=np.float32)
        if rows.shape != (n, self.encoder.dim):
            expected = (n, self.encoder.dim)
            raise InvalidInput(f"expected {expected} vectors of the encoder {self.encoder.name!r}, got {rows.shape}")
        return rows


def n_parts(name: str) -> int | None:
    """How many rows a picture has in a field's space; None for texts, which have as many as they have windows."""
    return {"picture": 1, "cells": 1, "regions": len(BOXES)}.get(name)


def quantise_cells(cells: NDArray[np.float32]) -> NDArray[np.int8]:
    """Cells, (n, n_cells, cell_dim) unit rows, to (n, n_cells * cell_dim) int8.

    Each cell is scaled to use all of int8; only its direction counts, which a cosine gives back.
    """
    largest = np.maximum(np.abs(cells).max(axis=2, keepdims=True), 1e-12)
    codes = np.rint(cells * (127.0 / largest)).astype(np.int8)
    return np.asarray(codes.reshape(len(cells), -1))
