"""``Catalog``: items, their metadata, and which row of which space is whose, in one SQLite file."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmsearch.catalog.database import Database
from mmsearch.catalog.records import (
    ITEM_COLUMNS,
    EncoderRecord,
    Known,
    NewItem,
    PictureFacts,
    SpaceRecord,
    bytes_of,
    item_of,
    metadata_json,
)
from mmsearch.catalog.schema import titles_sql
from mmsearch.catalog.words import TITLE_WEIGHT, match_of
from mmsearch.errors import ItemNotFound
from mmsearch.filters import And, Condition, facts_of, to_sql
from mmsearch.types import Item

FILE = "catalog.sqlite"


class Catalog:
    """The truth about a store. Reading needs nothing; writing happens inside ``with catalog.transaction():``."""

    def __init__(self, folder: Path) -> None:
        self.database = Database(folder / FILE)

    def transaction(self) -> AbstractContextManager[sqlite3.Connection]:
        """All or nothing for everything written inside."""
        return self.database.transaction()

    def snapshot(self) -> AbstractContextManager[sqlite3.Connection]:
        """One state of the catalog for everything read inside, by this thread."""
        return self.database.snapshot()

    def close(self) -> None:
        """Close the file."""
        self.database.close()

    def generation(self) -> int:
        """A number that grows with every committed transaction."""
        return int(self.setting("generation") or 0)

    # Items ------------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return int(self.database.reader.execute("SELECT count(*) FROM items").fetchone()[0])

    def get(self, ids: Sequence[str]) -> list[Item]:
        """The items of these ids, in this order.

        Raises
        ------
        ItemNotFound
            Naming the first id that is not there.
        """
        return [item_of(row) for row in self.rows_by_id(ids)]

    def keys(self, ids: Sequence[str]) -> list[int]:
        """The keys of these ids, in this order; unknown ids raise ``ItemNotFound``."""
        return [int(row[0]) for row in self.rows_by_id(ids)]

    def rows_by_id(self, ids: Sequence[str]) -> list[tuple[Any, ...]]:
        """``ITEM_COLUMNS`` of these ids, in this order; unknown ids raise ``ItemNotFound``."""
        found = {row[1]: row for row in self._select("i.id", ids)}
        for id in ids:
            if id not in found:
                raise ItemNotFound(f"no item {id!r} in this store of {len(self)} items")
        return [found[id] for id in ids]

    def rows_by_key(self, keys: Collection[int]) -> dict[int, tuple[Any, ...]]:
        """``ITEM_COLUMNS`` by key; unknown keys are left out."""
        return {row[0]: row for row in self._select("i.key", list(keys))}

    def rows_by_content(self, contents: Collection[bytes]) -> list[tuple[Any, ...]]:
        """``ITEM_COLUMNS`` of every item with one of these contents, by id."""
        return sorted(self._select("i.content", list(contents)), key=lambda row: str(row[1]))

    def items(self) -> Iterator[tuple[int, Item]]:
        """Every item with its key, in the order in which they came; those that come meanwhile too."""
        last = 0
        query = f"SELECT {ITEM_COLUMNS} FROM items i WHERE i.key > ? ORDER BY i.key LIMIT 1000"
        # An open cursor would hold this thread to the state at which it began.
        while rows := self.database.reader.execute(query, (last,)).fetchall():
            yield from ((row[0], item_of(row)) for row in rows)
            last = rows[-1][0]

    def all_keys(self) -> NDArray[np.int64]:
        """The keys of all items, (n,) ascending."""
        rows = self.database.reader.execute("SELECT key FROM items ORDER BY key")
        return np.fromiter((key for (key,) in rows), dtype=np.int64)

    def extent(self) -> tuple[int, int]:
        """How many items there are, and the last key: together they change whenever items come or go."""
        count, last = self.database.reader.execute("SELECT count(*), max(key) FROM items").fetchone()
        return int(count), int(last or 0)

    def metadata(self, keys: Collection[int]) -> dict[int, dict[str, Any]]:
        """Metadata by key; unknown keys are left out."""
        rows = self.database.reader.execute(
            "SELECT key, metadata FROM items WHERE key IN (SELECT value FROM json_each(?))", (json.dumps(list(keys)),)
        )
        return {key: json.loads(metadata) for key, metadata in rows}

    def titles(self, keys: Collection[int]) -> dict[int, tuple[str, str]]:
        """What items are called, and their texts, by key; unknown keys are left out."""
        rows = self.database.reader.execute(
            "SELECT key, titles, text FROM items WHERE key IN (SELECT value FROM json_each(?))",
            (json.dumps(list(keys)),),
        )
        return {key: (titles or "", text or "") for key, titles, text in rows}

    def field_names(self) -> set[str]:
        """The metadata fields that at least one item has."""
        rows = self.database.reader.execute(
            "SELECT name FROM fields WHERE EXISTS (SELECT 1 FROM facts WHERE facts.field = fields.field)"
        )
        return {name for (name,) in rows}

    def passing(self, where: Condition) -> NDArray[np.int64]:
        """The keys of the items that pass a filter, (n,) ascending."""
        condition, values = to_sql(where)
        rows = self.database.reader.execute(f"SELECT i.key FROM items i WHERE {condition} ORDER BY i.key", values)
        return np.fromiter((key for (key,) in rows), dtype=np.int64)

    def known(self, root: int) -> dict[bytes, Known]:
        """What is known of each entry of a root."""
        rows = self.database.reader.execute(
            "SELECT entry, key, id, stamp, path, content, text FROM items WHERE root = ?", (root,)
        )
        return {row[0]: Known(*row[1:]) for row in rows}

    def paths_under(self, folder: bytes, other_than: int) -> dict[bytes, tuple[str, Known]]:
        """Pictures of other roots whose path lies in this folder, with their root's kind, by path."""
        rows = self.database.reader.execute(
            "SELECT i.path, r.kind, key, id, stamp, i.path, content, text FROM items i JOIN roots r USING (root)"
            " WHERE i.path >= ? AND i.path < ? AND root <> ?",
            (folder + b"/", folder + b"0", other_than),
        )
        return {row[0]: (row[1], Known(*row[2:])) for row in rows}

    def strays(self, content: bytes) -> list[Known]:
        """Pictures with this content, by id, of folders that are there: one of them may have been moved.

        Where a folder itself is missing, its disk is more likely absent than every picture moved.
        """
        rows = self.database.reader.execute(
            "SELECT r.path, key, id, stamp, i.path, content, text FROM items i JOIN roots r USING (root)"
            " WHERE content = ? AND r.kind = 'folder' ORDER BY id",
            (content,),
        ).fetchall()
        return [Known(*row[1:]) for row in rows if os.path.isdir(row[0])]

    def id_taken(self, id: str) -> bool:
        """Whether an item has this id, uncommitted ones included. Inside a transaction."""
        return self.database.writer.execute("SELECT 1 FROM items WHERE id = ?", (id,)).fetchone() is not None

    def is_stored_as(self, key: int, path: Path | None, metadata: Mapping[str, Any]) -> bool:
        """Whether the item with this key has this path and metadata already."""
        row = self.database.reader.execute("SELECT path, metadata FROM items WHERE key = ?", (key,)).fetchone()
        return row is not None and (row[0], row[1]) == (bytes_of(path), metadata_json(metadata))

    def keys_of_root(self, root: int, keys: Iterable[int]) -> list[int]:
        """Those of these keys that still belong to a root."""
        rows = self.database.reader.execute(
            "SELECT key FROM items WHERE root = ? AND key IN (SELECT value FROM json_each(?))",
            (root, json.dumps(list(keys))),
        )
        return [int(key) for (key,) in rows]

    def picture_facts(self, content: bytes, spaces: Sequence[int]) -> PictureFacts | None:
        """What is known of a picture with this content that has vectors in all these spaces."""
        row = self.database.reader.execute(
            "SELECT i.key, i.width, i.height, i.perceptual, i.taken FROM items i WHERE i.content = ? AND ? ="
            " (SELECT count(DISTINCT v.space) FROM vectors v WHERE v.item = i.key"
            " AND v.space IN (SELECT value FROM json_each(?))) ORDER BY i.key LIMIT 1",
            (content, len(spaces), json.dumps(list(spaces))),
        ).fetchone()
        if row is None:
            return None
        rows: dict[int, list[int]] = {space: [] for space in spaces}
        for space, number in self.database.reader.execute(
            "SELECT space, row FROM vectors WHERE item = ? ORDER BY space, part", (row[0],)
        ):
            if space in rows:
                rows[space].append(number)
        return PictureFacts(row[1], row[2], row[3], row[4], rows)

    def put(self, item: NewItem, key: int | None = None) -> int:
        """Insert an item, or replace the one with this key (its vectors stay). Return the key."""
        db = self.database.writer
        metadata = metadata_json(item.metadata)
        facts = item.facts
        values = {
            "id": item.id, "root": item.root, "entry": item.entry, "stamp": item.stamp,
            "path": bytes_of(item.path), "content": item.content, "text": item.text, "metadata": metadata,
            "width": facts and facts.width, "height": facts and facts.height,
            "perceptual": facts and facts.perceptual, "taken": facts and facts.taken,
        }  # fmt: skip
        if key is None:
            values["added"] = time.time()
            names, marks = ", ".join(values), ", ".join(f":{name}" for name in values)
            sql = f"INSERT INTO items ({names}, titles) VALUES ({marks}, {titles_sql(':metadata')})"
            key = int(db.execute(sql, values).lastrowid or 0)
        else:
            self._forget_words([key])
            pairs = ", ".join(f"{name} = :{name}" for name in values)
            sql = f"UPDATE items SET {pairs}, titles = {titles_sql(':metadata')} WHERE key = :key"
            db.execute(sql, {**values, "key": key})
            db.execute("DELETE FROM facts WHERE item = ?", (key,))
        db.execute("INSERT INTO words (rowid, titles, text) SELECT key, titles, text FROM worded WHERE key = ?", (key,))
        told = [(key, self._field(name), text, num) for name, text, num in facts_of(json.loads(metadata))]
        db.executemany("INSERT INTO facts (item, field, text, num) VALUES (?, ?, ?, ?)", told)
        return key

    def names_path(self, path: bytes) -> bool:
        """Whether an item has its picture at this path."""
        return self.database.reader.execute("SELECT 1 FROM items WHERE path = ?", (path,)).fetchone() is not None

    def move_paths(self, old: bytes, new: bytes) -> None:
        """Rename a folder in the paths of the items below it. Inside a transaction."""
        self.database.writer.execute(
            "UPDATE items SET path = CAST(? || substr(path, ?) AS BLOB) WHERE path >= ? AND path < ?",
            (new, len(old) + 1, old + b"/", old + b"0"),
        )

    def restamp(self, key: int, stamp: str) -> None:
        """Note that an entry was looked at again and is what it was."""
        self.database.writer.execute("UPDATE items SET stamp = ? WHERE key = ?", (stamp, key))

    def delete(self, keys: Iterable[int]) -> None:
        """Forget items, their words, their metadata and their claim to vectors."""
        keys = list(keys)
        self._forget_words(keys)
        self.database.writer.executemany("DELETE FROM items WHERE key = ?", ((key,) for key in keys))

    def find_words(self, text: str, n: int, where: Condition | None = None) -> list[tuple[int, str]]:
        """Key and id of the n items that share most words with a text, best first, equal ones by id.

        Ranked by BM25 with titles weighing more than texts. Any text will do: it is never read as a query language.
        """
        match = match_of(text)
        if not match:
            return []
        condition, values = to_sql(where or And(()))
        # The other way round, SQLite would look up and weigh every word anew for each item.
        sql = (
            "SELECT i.key, i.id FROM words CROSS JOIN items i ON i.key = words.rowid"
            f" WHERE words MATCH ? AND {condition} ORDER BY bm25(words, {TITLE_WEIGHT}, 1.0), i.id LIMIT ?"
        )
        return self.database.reader.execute(sql, [match, *values, n]).fetchall()

    # Roots, failures and settings -------------------------------------------------------------------------------

    def root(self, kind: str, path: Path | None) -> int:
        """The number of a root, made if it is new. Inside a transaction."""
        db, raw = self.database.writer, bytes_of(path) or b""
        db.execute(
            "INSERT INTO roots (kind, path) VALUES (?, ?) ON CONFLICT (path) DO UPDATE SET kind = excluded.kind",
            (kind, raw),
        )
        return int(db.execute("SELECT root FROM roots WHERE path = ?", (raw,)).fetchone()[0])

    def roots(self) -> list[tuple[int, str, bytes]]:
        """Every root: number, kind, path."""
        return self.database.reader.execute("SELECT root, kind, path FROM roots ORDER BY root").fetchall()

    def failures(self, root: int | None = None) -> dict[bytes, tuple[str, str, str]]:
        """What could not be added, of one root or of all: stamp, path and reason by entry."""
        rows = self.database.reader.execute(
            "SELECT entry, stamp, path, reason FROM failures WHERE ?1 IS NULL OR root = ?1 ORDER BY entry", (root,)
        )
        return {row[0]: (row[1], row[2], row[3]) for row in rows}

    def set_failures(self, root: int, failed: Mapping[bytes, tuple[str, str, str]], gone: Iterable[bytes]) -> None:
        """Record failures (stamp, path, reason by entry) and forget those of the entries that are ``gone``."""
        db, now = self.database.writer, time.time()
        db.executemany("DELETE FROM failures WHERE root = ? AND entry = ?", ((root, entry) for entry in gone))
        db.executemany(
            "INSERT OR REPLACE INTO failures VALUES (?, ?, ?, ?, ?, ?)",
            ((root, entry, stamp, path, reason, now) for entry, (stamp, path, reason) in failed.items()),
        )

    def setting(self, name: str) -> str | None:
        """A stored setting, or None."""
        row = self.database.reader.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def set_setting(self, name: str, value: str | None) -> None:
        """Store a setting, or forget it (None). Inside a transaction."""
        db = self.database.writer
        if value is None:
            db.execute("DELETE FROM settings WHERE name = ?", (name,))
        else:
            db.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (name, value))

    # Encoders and spaces ----------------------------------------------------------------------------------------

    def encoders(self) -> list[EncoderRecord]:
        """Every encoder that has written here."""
        rows = self.database.reader.execute("SELECT encoder, fingerprint, name, dim, licence, runtime FROM encoders")
        return [EncoderRecord(*row) for row in rows]

    def add_encoder(self, fingerprint: str, name: str, dim: int, licence: str, runtime: str) -> int:
        """The number of an encoder, made if it is new. Inside a transaction."""
        db = self.database.writer
        row = db.execute("SELECT encoder FROM encoders WHERE fingerprint = ?", (fingerprint,)).fetchone()
        if row is not None:
            db.execute("UPDATE encoders SET runtime = ? WHERE encoder = ?", (runtime, row[0]))
            return int(row[0])
        values = (fingerprint, name, dim, licence, runtime)
        sql = "INSERT INTO encoders (fingerprint, name, dim, licence, runtime) VALUES (?, ?, ?, ?, ?)"
        return int(db.execute(sql, values).lastrowid or 0)

    def spaces(self, encoder: int | None = None) -> list[SpaceRecord]:
        """The spaces of an encoder, or of all."""
        rows = self.database.reader.execute(
            "SELECT space, encoder, field, file, width, dtype, rows FROM spaces WHERE ?1 IS NULL OR encoder = ?1",
            (encoder,),
        )
        return [SpaceRecord(*row) for row in rows]

    def add_space(self, encoder: int, field: str, width: int, dtype: str) -> None:
        """Make a space if it is not there. Inside a transaction."""
        self.database.writer.execute(
            "INSERT INTO spaces (encoder, field, file, width, dtype)"
            " VALUES (?1, ?2, ?1 || '-' || ?2 || '-0.vectors', ?3, ?4) ON CONFLICT (encoder, field) DO NOTHING",
            (encoder, field, width, dtype),
        )

    def delete_spaces(self, encoder: int) -> None:
        """Forget an encoder and its spaces. Inside a transaction; the files are the caller's."""
        db = self.database.writer
        db.execute("DELETE FROM spaces WHERE encoder = ?", (encoder,))
        db.execute("DELETE FROM encoders WHERE encoder = ?", (encoder,))

    def _select(self, column: str, values: Sequence[object]) -> Iterator[tuple[Any, ...]]:
        for first in range(0, len(values), 30_000):  # SQLite takes 32,766 parameters
            chunk = values[first : first + 30_000]
            marks = ",".join("?" * len(chunk))
            yield from self.database.reader.execute(
                f"SELECT {ITEM_COLUMNS} FROM items i WHERE {column} IN ({marks})", chunk
            )

    def _forget_words(self, keys: Iterable[int]) -> None:
        """Take items out of the full-text index, before anything about them changes."""
        self.database.writer.executemany("DELETE FROM words WHERE rowid = ?", ((key,) for key in keys))

    def _field(self, name: str) -> int:
        db = self.database.writer
        row = db.execute("SELECT field FROM fields WHERE name = ?", (name,)).fetchone()
        if row is None:
            return int(db.execute("INSERT INTO fields (name) VALUES (?)", (name,)).lastrowid or 0)
        return int(row[0])
