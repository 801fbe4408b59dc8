"""SQLite connections of one catalog: a reader a thread, one writer, and whole transactions."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmsearch.catalog.schema import migrate
from mmsearch.errors import StoreDamaged, StoreError

_NEXT_GENERATION = (
    "INSERT INTO settings VALUES ('generation', '1')"
    " ON CONFLICT (name) DO UPDATE SET value = CAST(CAST(value AS INTEGER) + 1 AS TEXT)"
)


class Database:
    """One SQLite file in WAL mode. Readers see whole transactions and never wait for the writer.

    Raises
    ------
    StoreDamaged
        If the file is not a database or its pages contradict each other.
    StoreError
        If it cannot be opened, or belongs to a newer mmsearch.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._local = threading.local()
        self._all: list[sqlite3.Connection] = []
        self._guard = threading.Lock()
        self._write_lock = threading.RLock()
        self._writer: sqlite3.Connection | None = None
        self.read_only = file.exists() and not (os.access(file, os.W_OK) and os.access(file.parent, os.W_OK))
        with self._named_errors():
            if self.read_only:
                self.reader.execute("SELECT count(*) FROM items").fetchone()
            else:
                migrate(self.writer)

    @property
    def reader(self) -> sqlite3.Connection:
        """The connection of this thread for reading."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = self._connect()
            if not self.read_only:
                connection.execute("PRAGMA query_only = ON")
        return connection

    @property
    def writer(self) -> sqlite3.Connection:
        """The one connection for writing; use it inside ``transaction`` only."""
        if self._writer is None:
            if self.read_only:
                raise StoreError(f"the store at {self.file.parent} cannot be written: its folder is read-only for you")
            self._writer = self._connect()
            self._writer.execute("PRAGMA journal_mode = WAL")
            self._writer.execute("PRAGMA synchronous = FULL")  # what was acknowledged survives a power cut
            self._writer.execute("PRAGMA foreign_keys = ON")
        return self._writer

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing: commit at the end, roll back on any exception."""
        with self._write_lock, self._named_errors():
            self.writer.execute("BEGIN IMMEDIATE")
            try:
                yield self.writer
                self.writer.execute(_NEXT_GENERATION)
            except BaseException:
                self.writer.execute("ROLLBACK")
                raise
            self.writer.execute("COMMIT")

    @contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """Read one state of the catalog throughout, whatever is written meanwhile."""
        db = self.reader
        if db.in_transaction:  # already inside a snapshot of this thread
            yield db
            return
        with self._named_errors():
            db.execute("BEGIN")
            try:
                yield db
            finally:
                db.execute("COMMIT")

    def close(self) -> None:
        """Close every connection of every thread."""
        with self._guard:
            for connection in self._all:
                connection.close()
            self._all.clear()
            self._writer = None
            self._local = threading.local()

    def _connect(self) -> sqlite3.Connection:
        mode = "?immutable=1" if self.read_only else ""
        connection = sqlite3.connect(
            f"{self.file.resolve().as_uri()}{mode}", uri=True, timeout=30, isolation_level=None, check_same_thread=False
        )
        # A catalog may come from elsewhere: what its schema says is not to be trusted (sqlite.org/security.html).
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA cell_size_check = ON")
        connection.execute("PRAGMA mmap_size = 268435456")
        with self._guard:
            self._all.append(connection)
        return connection

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            text = str(error)
            if isinstance(error, sqlite3.IntegrityError | sqlite3.ProgrammingError | sqlite3.InterfaceError):
                raise
            if "malformed" in text or "not a database" in text or "disk image" in text:
                raise StoreDamaged(
                    f"the catalog {self.file} is damaged ({text}): restore it from a backup, "
                    "or move the store away and index the pictures again"
                ) from error
            raise StoreError(f"the catalog {self.file} cannot be used: {text}") from error
