"""The catalog's tables, as an append-only list of migrations."""

from __future__ import annotations

import sqlite3

from mmsearch.errors import StoreError

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
        # Where items come from: kind is folder, dataset, table or added; path is empty for what was added by hand.
        "CREATE TABLE roots (root INTEGER PRIMARY KEY, kind TEXT NOT NULL, path BLOB NOT NULL UNIQUE)",
        # entry names an item inside its root; stamp is what tells without reading whether it has changed.
        # Keys are never used twice: AUTOINCREMENT.
        """CREATE TABLE items (
            key INTEGER PRIMARY KEY AUTOINCREMENT,
            id TEXT NOT NULL UNIQUE,
            root INTEGER NOT NULL REFERENCES roots,
            entry BLOB NOT NULL,
            stamp TEXT NOT NULL,
            path BLOB,
            content BLOB,
            width INTEGER,
            height INTEGER,
            perceptual BLOB,
            text TEXT,
            metadata TEXT NOT NULL,
            added REAL NOT NULL,
            UNIQUE (root, entry)
        )""",
        "CREATE INDEX items_path ON items (path)",
        "CREATE INDEX items_content ON items (content) WHERE content IS NOT NULL",
        "CREATE TABLE fields (field INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE)",
        """CREATE TABLE facts (
            item INTEGER NOT NULL REFERENCES items ON DELETE CASCADE,
            field INTEGER NOT NULL REFERENCES fields,
            text TEXT NOT NULL,
            num REAL
        )""",
        "CREATE INDEX facts_text ON facts (field, text, item)",
        "CREATE INDEX facts_num ON facts (field, num, item) WHERE num IS NOT NULL",
        "CREATE INDEX facts_item ON facts (item)",
        """CREATE TABLE encoders (
            encoder INTEGER PRIMARY KEY,
            fingerprint TEXT NOT NULL UNIQUE,
            name TEXT NOT NULL,
            dim INTEGER NOT NULL,
            licence TEXT NOT NULL,
            runtime TEXT NOT NULL
        )""",
        # A space is one encoder x one field; rows are those that a commit has named, whatever the file's length.
        """CREATE TABLE spaces (
            space INTEGER PRIMARY KEY AUTOINCREMENT,
            encoder INTEGER NOT NULL REFERENCES encoders,
            field TEXT NOT NULL,
            file TEXT NOT NULL UNIQUE,
            width INTEGER NOT NULL,
            dtype TEXT NOT NULL,
            rows INTEGER NOT NULL DEFAULT 0,
            UNIQUE (encoder, field)
        )""",
        "CREATE TABLE blocks (space INTEGER NOT NULL REFERENCES spaces ON DELETE CASCADE, block INTEGER NOT NULL,"
        " crc INTEGER NOT NULL, PRIMARY KEY (space, block)) WITHOUT ROWID",
        """CREATE TABLE vectors (
            space INTEGER NOT NULL REFERENCES spaces ON DELETE CASCADE,
            item INTEGER NOT NULL REFERENCES items ON DELETE CASCADE,
            part INTEGER NOT NULL,
            row INTEGER NOT NULL,
            PRIMARY KEY (space, item, part)
        ) WITHOUT ROWID""",
        "CREATE INDEX vectors_row ON vectors (space, row)",
        "CREATE INDEX vectors_item ON vectors (item)",
        """CREATE TABLE failures (
            root INTEGER NOT NULL REFERENCES roots ON DELETE CASCADE,
            entry BLOB NOT NULL,
            stamp TEXT NOT NULL,
            path TEXT NOT NULL,
            reason TEXT NOT NULL,
            at REAL NOT NULL,
            PRIMARY KEY (root, entry)
        ) WITHOUT ROWID""",
    ),
)


def migrate(db: sqlite3.Connection) -> None:
    """Bring a catalog to the newest version, each step in a transaction of its own.

    Raises
    ------
    StoreError
        If the catalog was written by a newer mmsearch.
    """
    (done,) = db.execute("PRAGMA user_version").fetchone()
    if done > len(MIGRATIONS):
        raise StoreError(
            f"this store was written by a newer mmsearch (its version is {done}, ours {len(MIGRATIONS)}): upgrade"
        )
    for number, statements in enumerate(MIGRATIONS[done:], start=done + 1):
        db.execute("BEGIN IMMEDIATE")
        try:
            for statement in statements:
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {number}")
        except BaseException:
            db.execute("ROLLBACK")
            raise
        db.execute("COMMIT")
