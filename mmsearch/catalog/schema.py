"""The catalog's tables, as an append-only list of migrations."""

from __future__ import annotations

import sqlite3

from mmsearch.errors import StoreError


def titles_sql(metadata: str) -> str:
    """An SQL expression for the titles in the metadata (JSON) that another expression gives; NULL if it has none.

    Titles are what people call an item: the strings and whole numbers, and lists of them, under a few names.
    """
    return f"""(SELECT nullif(group_concat(said, ' '), '') FROM (
            SELECT CASE f.type WHEN 'array' THEN (
                SELECT group_concat(m.value, ' ') FROM json_each(f.value) m WHERE m.type IN ('text', 'integer')
            ) ELSE f.value END AS said
            FROM json_each(CASE WHEN json_valid({metadata}) THEN {metadata} ELSE '{{}}' END) f
            WHERE f.key IN ('title', 'name', 'sku', 'code', 'keywords', 'brand')
                AND f.type IN ('text', 'integer', 'array')
        ))"""  # json_valid: SQLite takes JSON of fewer levels than Python may write


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
            taken TEXT,
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
            encoder INTEGER PRIMARY KEY AUTOINCREMENT,
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
    (
        # The full-text index reads its texts from items, so that they are stored once, and anything in it can be made
        # again from there ('rebuild'). Its old values must be there when an entry is taken out: Catalog.put and
        # Catalog.delete see to that. Triggers cannot, because trusted_schema = OFF keeps them from virtual tables;
        # and that is why titles are a column, where a view over the JSON functions would have done.
        "ALTER TABLE items ADD COLUMN titles TEXT",
        f"UPDATE items SET titles = {titles_sql('metadata')}",
        "CREATE VIEW worded AS SELECT key, titles, text FROM items WHERE titles <> '' OR text <> ''",
        "CREATE VIRTUAL TABLE words USING fts5 (titles, text, content = 'worded', content_rowid = 'key',"
        " tokenize = 'unicode61 remove_diacritics 2')",
        "INSERT INTO words (words) VALUES ('rebuild')",
    ),
    (
        "CREATE TABLE users (user INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE)",
        # event counts up in the order of telling. A time of minus infinity is unknown: NULLs would never be the same
        # event, and like this unknown times come first.
        """CREATE TABLE events (
            event INTEGER PRIMARY KEY,
            user INTEGER NOT NULL REFERENCES users,
            item INTEGER NOT NULL REFERENCES items ON DELETE CASCADE,
            kind TEXT NOT NULL,
            weight REAL NOT NULL,
            time REAL NOT NULL,
            UNIQUE (user, item, kind, time)
        )""",
        "CREATE INDEX events_item ON events (item)",
        # Whoever has learnt from events can tell by this setting that they have changed since; EventBook counts too.
        """CREATE TRIGGER events_gone BEFORE DELETE ON items
            WHEN EXISTS (SELECT 1 FROM events WHERE item = OLD.key)
        BEGIN
            UPDATE settings SET value = CAST(CAST(value AS INTEGER) + 1 AS TEXT) WHERE name = 'events';
        END""",
    ),
    # What was measured of a picture's pixels, as JSON, by its content. IF NOT EXISTS: nothing is lost if it is there.
    ("CREATE TABLE IF NOT EXISTS looks (content BLOB PRIMARY KEY, measured TEXT NOT NULL) WITHOUT ROWID",),
)


def check_version(db: sqlite3.Connection, *, exactly: bool = False) -> int:
    """The version of a catalog; ``exactly``: it must be ours, because nothing can be migrated.

    Raises
    ------
    StoreError
        If the catalog was written by a newer mmsearch, or has to be migrated and cannot be.
    """
    (done,) = db.execute("PRAGMA user_version").fetchone()
    if done > len(MIGRATIONS):
        raise StoreError(
            f"this store was written by a newer mmsearch (its version is {done}, ours {len(MIGRATIONS)}): upgrade"
        )
    if exactly and done < len(MIGRATIONS):
        raise StoreError("this store was written by an older mmsearch: open it once where it can be written")
    return int(done)


def migrate(db: sqlite3.Connection) -> None:
    """Bring a catalog to the newest version, each step in a transaction of its own.

    Raises
    ------
    StoreError
        If the catalog was written by a newer mmsearch.
    """
    while check_version(db) < len(MIGRATIONS):
        db.execute("BEGIN IMMEDIATE")
        try:
            done = check_version(db)  # another process may have been quicker
            for statement in MIGRATIONS[done] if done < len(MIGRATIONS) else ():
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {min(done + 1, len(MIGRATIONS))}")
        except BaseException:
            db.execute("ROLLBACK")
            raise
        db.execute("COMMIT")
