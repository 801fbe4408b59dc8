"""What pictures look like: what was measured of their pixels, and what was found out when they were read."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mmsearch.catalog.catalog import Catalog
from mmsearch.catalog.records import path_of
from mmsearch.files import content_hash
from mmsearch.overlap import batches
from mmsearch.types import Keys

_PARAMETERS = 30_000  # SQLite takes 32,766


@dataclass(frozen=True, slots=True)
class PictureRow:
    """A picture of the catalog: its item's key, its content, where it is, its size in pixels, its perceptual hash."""

    key: int
    content: bytes
    path: Path | None
    width: int
    height: int
    perceptual: bytes | None


class LookBook:
    """Reads what the catalog knows of pictures; reads and writes the table ``looks``."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._database = catalog.database

    def pictures(self, keys: Keys | None = None) -> list[PictureRow]:
        """The pictures of all items, or of these, by ascending key; items without one are left out."""
        rows = self._database.reader.execute(
            "SELECT key, content, path, width, height, perceptual FROM items WHERE content IS NOT NULL ORDER BY key"
        )
        wanted = None if keys is None else set(keys.tolist())
        return [
            PictureRow(key, content, None if path is None else path_of(path), width or 0, height or 0, perceptual)
            for key, content, path, width, height, perceptual in rows
            if wanted is None or key in wanted
        ]

    def same_texts(self, keys: Keys | None = None) -> list[list[int]]:
        """Keys of items without a picture, of all or of these, that have the very same text; those with copies only."""
        rows = self._database.reader.execute(
            "SELECT key, text FROM items WHERE content IS NULL AND text <> '' ORDER BY key"
        )
        wanted = None if keys is None else set(keys.tolist())
        same: dict[bytes, list[int]] = {}
        for key, text in rows:
            if wanted is None or key in wanted:
                same.setdefault(content_hash(text.encode("utf-8", "surrogatepass")), []).append(key)
        return [its for its in same.values() if len(its) > 1]

    def measured(self, contents: Collection[bytes]) -> dict[bytes, dict[str, float]]:
        """What was measured of these contents; what cannot be read is left out."""
        found = {}
        for batch in batches(contents, _PARAMETERS):
            marks = ",".join("?" * len(batch))
            rows = self._database.reader.execute(
                f"SELECT content, measured FROM looks WHERE content IN ({marks})", batch
            )
            for content, told in rows:
                with suppress(ValueError):
                    found[content] = json.loads(told)
        return {content: told for content, told in found.items() if isinstance(told, dict)}

    def put(self, measured: Mapping[bytes, Mapping[str, float]]) -> None:
        """Keep what was measured. Inside a transaction."""
        self._database.writer.executemany(
            "INSERT OR REPLACE INTO looks VALUES (?, ?)",
            ((content, json.dumps(dict(told))) for content, told in measured.items()),
        )
