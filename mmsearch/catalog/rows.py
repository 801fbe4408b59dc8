"""Which row of which space belongs to which item."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mmsearch.catalog.catalog import Catalog
from mmsearch.filters import Condition, to_sql
from mmsearch.types import Keys


class RowBook:
    """Reads and writes the ``vectors`` table of a catalog: (space, item, part) -> row.

    Several items may share a row (identical pictures); an item may have several rows (windows of a long text,
    views of a picture), numbered by ``part``.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._database = catalog.database

    def assign(self, space: int, rows: Mapping[int, Sequence[int]]) -> None:
        """Give items (by key) these rows, in place of those they had. Inside a transaction."""
        db = self._database.writer
        self.release(space, rows)
        db.executemany(
            "INSERT INTO vectors (space, item, part, row) VALUES (?, ?, ?, ?)",
            ((space, item, part, int(row)) for item, its in rows.items() for part, row in enumerate(its)),
        )

    def release(self, space: int, items: Iterable[int]) -> None:
        """Take their rows from items (by key). Inside a transaction."""
        self._database.writer.executemany(
            "DELETE FROM vectors WHERE space = ? AND item = ?", ((space, item) for item in items)
        )

    def forget_others(self, item: int, spaces: Sequence[int], *, text: bool) -> None:
        """Take from an item its rows of text spaces, or of picture spaces, other than these: they are out of date."""
        self._database.writer.execute(
            "DELETE FROM vectors WHERE item = ? AND space IN (SELECT space FROM spaces WHERE (field = 'text') = ?"
            " AND space NOT IN (SELECT value FROM json_each(?)))",
            (item, text, json.dumps(list(spaces))),
        )

    def committed(self, space: int, rows: int, crcs: Mapping[int, int]) -> None:
        """Name the first ``rows`` rows of a space as stored, with the checksums of the blocks that changed."""
        db = self._database.writer
        db.execute("UPDATE spaces SET rows = ? WHERE space = ?", (rows, space))
        db.executemany(
            "INSERT OR REPLACE INTO blocks VALUES (?, ?, ?)", ((space, block, crc) for block, crc in crcs.items())
        )

    def block_crcs(self, space: int) -> dict[int, int]:
        """The checksum of each block of a space."""
        rows = self._database.reader.execute("SELECT block, crc FROM blocks WHERE space = ?", (space,))
        return {int(block): int(crc) for block, crc in rows}

    def owners(self, space: int, rows: Keys) -> list[tuple[int, int, str, bytes | None]]:
        """Who owns these rows: (row, item key, id, content)."""
        return self._database.reader.execute(
            "SELECT v.row, i.key, i.id, i.content FROM vectors v JOIN items i ON i.key = v.item"
            " WHERE v.space = ? AND v.row IN (SELECT value FROM json_each(?))",
            (space, json.dumps(rows.tolist())),
        ).fetchall()

    def allowed(self, space: int, where: Condition) -> tuple[Keys, Keys]:
        """The keys of the items that pass a filter and have rows in a space, and those rows; both ascending."""
        condition, values = to_sql(where)
        pairs = self._database.reader.execute(
            f"SELECT v.item, v.row FROM items i JOIN vectors v ON v.item = i.key AND v.space = ? WHERE {condition}",
            [space, *values],
        ).fetchall()
        both = np.array(pairs, dtype=np.int64).reshape(-1, 2)
        return np.unique(both[:, 0]), np.unique(both[:, 1])

    def live(self, space: int) -> Keys:
        """The rows of a space that belong to somebody, ascending and distinct."""
        rows = self._database.reader.execute("SELECT DISTINCT row FROM vectors WHERE space = ? ORDER BY row", (space,))
        return _column(rows)

    def any(self, space: int) -> bool:
        """Whether any row of a space belongs to somebody."""
        row = self._database.reader.execute("SELECT 1 FROM vectors WHERE space = ? LIMIT 1", (space,)).fetchone()
        return row is not None

    def in_use(self, space: int, rows: Keys) -> Keys:
        """Those of these rows that belong to somebody, ascending and distinct."""
        return _column(
            self._database.reader.execute(
                "SELECT DISTINCT row FROM vectors WHERE space = ?"
                " AND row IN (SELECT value FROM json_each(?)) ORDER BY row",
                (space, json.dumps(rows.tolist())),
            )
        )

    def count_live(self, space: int) -> int:
        """How many rows of a space belong to somebody."""
        sql = "SELECT count(DISTINCT row) FROM vectors WHERE space = ?"
        return int(self._database.reader.execute(sql, (space,)).fetchone()[0])

    def of_items(self, space: int, keys: Sequence[int] | None = None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Item keys and rows, by item and part; of these items or of all that have rows in the space."""
        sql = "SELECT item, row FROM vectors WHERE space = ?"
        parameters: list[int | str] = [space]
        if keys is not None:
            sql += " AND item IN (SELECT value FROM json_each(?))"
            parameters.append(json.dumps(list(keys)))
        pairs = np.array(
            self._database.reader.execute(sql + " ORDER BY item, part", parameters).fetchall(), dtype=np.int64
        )
        pairs = pairs.reshape(-1, 2)
        return pairs[:, 0], pairs[:, 1]

    def spans(self, space: int, ids: Sequence[str]) -> dict[str, tuple[int, int]]:
        """The first row of each item (by id) in a space and how many it has, which follow each other."""
        rows = self._database.reader.execute(
            "SELECT i.id, min(v.row), count(*) FROM items i JOIN vectors v ON v.item = i.key AND v.space = ?"
            " WHERE i.id IN (SELECT value FROM json_each(?)) GROUP BY i.key",
            (space, json.dumps(list(ids))),
        )
        return {id: (first, count) for id, first, count in rows}

    def without(self, space: int, column: str) -> list[int]:
        """Keys of the items that have a picture (column ``content``) or a ``text`` but no rows in a space yet."""
        assert column in ("content", "text")
        rows = self._database.reader.execute(
            f"SELECT i.key FROM items i WHERE i.{column} IS NOT NULL AND NOT EXISTS"
            " (SELECT 1 FROM vectors v WHERE v.space = ? AND v.item = i.key) ORDER BY i.key",
            (space,),
        )
        return [int(key) for (key,) in rows]

    def beyond(self, space: int, rows: int) -> int:
        """How many claims of items point behind the committed rows: none, unless something is damaged."""
        sql = "SELECT count(*) FROM vectors WHERE space = ? AND row >= ?"
        return int(self._database.reader.execute(sql, (space, rows)).fetchone()[0])

    def renumber(self, space: int, old: Keys, file: str, crcs: Mapping[int, int]) -> None:
        """Row old[n] becomes row n, in a new file. Inside a transaction."""
        db = self._database.writer
        db.execute("CREATE TEMP TABLE renumbered (old INTEGER PRIMARY KEY, new INTEGER NOT NULL)")
        db.executemany("INSERT INTO renumbered VALUES (?, ?)", zip(old.tolist(), range(len(old)), strict=True))
        db.execute("UPDATE vectors SET row = (SELECT new FROM renumbered WHERE old = row) WHERE space = ?", (space,))
        db.execute("DROP TABLE renumbered")
        db.execute("DELETE FROM blocks WHERE space = ?", (space,))
        db.execute("UPDATE spaces SET file = ? WHERE space = ?", (file, space))
        self.committed(space, len(old), crcs)


def _column(cursor: sqlite3.Cursor) -> Keys:
    return np.fromiter((row[0] for row in cursor), dtype=np.int64)
