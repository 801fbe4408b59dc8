"""What the catalog keeps of an item, on its way in and on its way out."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmsearch.errors import InvalidInput
from mmsearch.types import Item

ITEM_COLUMNS = "i.key, i.id, i.path, i.text, i.metadata, i.content"
"""What ``item_of`` reads, in its order."""


@dataclass(frozen=True, slots=True)
class PictureFacts:
    """What was found out about a picture when it was first read: its size, hash and date."""

    width: int
    height: int
    perceptual: bytes
    taken: str | None
    rows: Mapping[int, Sequence[int]]
    """Its rows, by space. They stay valid until the store is tidied, whatever becomes of the item."""


@dataclass(frozen=True, slots=True)
class NewItem:
    """An item to store. ``entry`` names it in its root, ``stamp`` changes when its source does."""

    root: int
    entry: bytes
    stamp: str
    id: str
    path: Path | None
    text: str | None
    metadata: Mapping[str, Any]
    content: bytes | None = None
    facts: PictureFacts | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """What tells whether an item has changed, and what moves with it."""

    key: int
    id: str
    stamp: str
    path: bytes | None
    content: bytes | None
    text: str | None


@dataclass(frozen=True, slots=True)
class SpaceRecord:
    """One space as committed: its file holds at least ``rows`` rows of ``width`` numbers of ``dtype``."""

    space: int
    encoder: int
    field: str
    file: str
    width: int
    dtype: str
    rows: int


@dataclass(frozen=True, slots=True)
class EncoderRecord:
    """An encoder that has written into the store."""

    encoder: int
    fingerprint: str
    name: str
    dim: int
    licence: str
    runtime: str


def item_of(row: sqlite3.Row | tuple[Any, ...]) -> Item:
    """Make an ``Item`` of a row of ``ITEM_COLUMNS``."""
    _, id, path, text, metadata, _ = row
    return Item(id, None if path is None else path_of(path), text, json.loads(metadata))


def path_of(raw: bytes) -> Path:
    """A path from the bytes that the catalog keeps, undecodable names included."""
    return Path(os.fsdecode(raw))


def bytes_of(path: Path | None) -> bytes | None:
    """The bytes that the catalog keeps of a path."""
    return None if path is None else os.fsencode(path)


def metadata_json(metadata: Mapping[str, Any]) -> str:
    """Metadata as JSON.

    Raises
    ------
    InvalidInput
        For values that JSON cannot hold (NaN and infinity included) and names that are not str.
    """
    wrong = [name for name in metadata if not isinstance(name, str)]
    if wrong:
        raise InvalidInput(f"expected str as names of metadata, got {wrong[0]!r}")
    try:
        return json.dumps(dict(metadata), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(f"expected metadata that JSON can hold: {error}") from error
