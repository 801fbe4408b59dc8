"""SQLite connections of one catalog: a reader a thread, one writer, and whole transactions."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from mmsearch.catalog.schema import check_version, migrate
from mmsearch.errors import StoreDamaged, StoreError

_NEXT_GENERATION = (
    "INSERT INTO settings VALUES ('generation', '1')"
    " ON CONFLICT (name) DO UPDATE SET value = CAST(CAST(value AS INTEGER) + 1 AS TEXT)"
)
_ABANDONED: list[object] = []
"""Connections that a forked child inherited: they must be neither used nor closed there (sqlite.org/howtocorrupt)."""

Answer = TypeVar("Answer")


class Database:
    """One SQLite file in WAL mode. Readers see whole transactions and never wait for the writer.

    Raises
    ------
    StoreDamaged
        If the file is not a database or its pages contradict each other; so does every later call.
    StoreError
        If it cannot be opened, or belongs to a newer mmsearch.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.read_only = file.exists() and not (os.access(file, os.W_OK) and os.access(file.parent, os.W_OK))
        self._write_lock = threading.RLock()
        self._start()
        if self.read_only:
            check_version(self.reader, exactly=True)
        else:
            migrate(self.writer)

    def _start(self) -> None:
        self._pid = os.getpid()
        self._closed = False
        self._local = threading.local()
        self._writer: sqlite3.Connection | None = None

    @property
    def reader(self) -> sqlite3.Connection:
        """The connection of this thread for reading; it is closed when the thread ends."""
        self._check()
        holder: _Holder | None = getattr(self._local, "holder", None)
        if holder is None:
            holder = self._local.holder = _Holder(self._connect())
            if not self.read_only:
                holder.connection.execute("PRAGMA query_only = ON")
        return holder.connection

    @property
    def writer(self) -> sqlite3.Connection:
        """The one connection for writing; use it inside ``transaction`` only."""
        self._check()
        if self._writer is None:
            if self.read_only:
                raise StoreError(f"the store at {self.file.parent} cannot be written: its folder is read-only for you")
            self._writer = self._connect()
            _set_wal(self._writer)
            self._writer.execute("PRAGMA synchronous = FULL")  # what was acknowledged survives a power cut
            self._writer.execute("PRAGMA foreign_keys = ON")
        return self._writer

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing: commit at the end, roll back on any exception."""
        with self._write_lock:
            db = self.writer
            try:
                db.execute("BEGIN IMMEDIATE")
                yield db
                db.execute(_NEXT_GENERATION)
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise

    @contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """Read one state of the catalog throughout, whatever is written meanwhile."""
        db = self.reader
        if db.in_transaction:  # already inside a snapshot of this thread
            yield db
            return
        db.execute("BEGIN")
        try:
            yield db
        finally:
            db.execute("COMMIT")

    def close(self) -> None:
        """Refuse further use. Other threads finish what they are reading; their connections close after that."""
        if self._pid != os.getpid():
            return
        with self._write_lock:
            self._closed = True
            self._local.holder = None
            if self._writer is not None:
                self._writer.close()
                self._writer = None

    def _check(self) -> None:
        if self._pid != os.getpid():
            _ABANDONED.extend([self._local, self._writer])
            self._write_lock = threading.RLock()
            self._start()
        if self._closed:
            raise StoreError(f"the store {self.file.parent} was closed: open it again")

    def _connect(self) -> sqlite3.Connection:
        uri = self.file.resolve().as_uri()
        if self.read_only:
            # Without a write-ahead log nothing can change under us; with one, it has to be read too.
            uri += "?mode=ro" if Path(f"{self.file}-wal").exists() else "?immutable=1"
        try:
            connection = sqlite3.connect(
                uri, uri=True, timeout=30, isolation_level=None, check_same_thread=False, factory=_Connection
            )
        except sqlite3.Error as error:
            raise StoreError(f"the catalog {self.file} cannot be opened: {error}") from error
        assert isinstance(connection, _Connection)
        connection.file = self.file
        # A catalog may come from elsewhere: what its schema says is not to be trusted (sqlite.org/security.html).
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA cell_size_check = ON")
        connection.execute("PRAGMA mmap_size = 268435456")
        return connection


class _Connection(sqlite3.Connection):
    """A connection whose errors are the store's."""

    file = Path()

    def cursor(self, factory: Any = None) -> Any:  # noqa: ANN401 as sqlite3 has it
        cursor = super().cursor(_Cursor)
        cursor.file = self.file
        return cursor

    def execute(self, *arguments: Any) -> Any:  # noqa: ANN401 as sqlite3 has it
        return self.cursor().execute(*arguments)  # sqlite3's own would pass our cursor by

    def executemany(self, *arguments: Any) -> Any:  # noqa: ANN401 as sqlite3 has it
        return self.cursor().executemany(*arguments)


class _Holder:
    """Closes a thread's connection when the thread ends, or the database is forgotten; never while it is in use.

    The connection itself is part of a cycle (its statement cache), so that it would wait for the garbage collector.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    def __del__(self) -> None:
        self.connection.close()


class _Cursor(sqlite3.Cursor):
    """A cursor whose errors are the store's."""

    file = Path()

    def execute(self, *arguments: Any) -> _Cursor:  # noqa: ANN401 as sqlite3 has it
        _named(self.file, super().execute, *arguments)
        return self

    def executemany(self, *arguments: Any) -> _Cursor:  # noqa: ANN401 as sqlite3 has it
        _named(self.file, super().executemany, *arguments)
        return self

    def fetchone(self) -> Any:  # noqa: ANN401 as sqlite3 has it
        return _named(self.file, super().fetchone)

    def fetchall(self) -> list[Any]:
        return _named(self.file, super().fetchall)

    def __next__(self) -> Any:  # noqa: ANN401 as sqlite3 has it
        return _named(self.file, super().__next__)


def _named(file: Path, call: Callable[..., Answer], *arguments: Any) -> Answer:  # noqa: ANN401 passed on
    """Call, and turn SQLite's errors about the file into the store's; programming errors stay what they are."""
    try:
        return call(*arguments)
    except (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.InterfaceError):
        raise
    except (sqlite3.DatabaseError, UnicodeError) as error:
        text = str(error)
        if isinstance(error, UnicodeError) or type(error) is sqlite3.DatabaseError or "no such" in text:
            raise StoreDamaged(
                f"the catalog {file} is damaged ({text}): restore it from a backup, "
                "or move the store away and index the pictures again"
            ) from error
        hint = ": is the disk full?" if "disk" in text else ""
        raise StoreError(f"the catalog {file} cannot be used: {text}{hint}") from error


def _set_wal(connection: sqlite3.Connection) -> None:
    """Write-ahead logging, also where several processes make the same store at once."""
    for attempt in range(100):
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except StoreError as error:  # SQLite does not wait for this lock by itself
            if "locked" not in str(error) or attempt == 99:
                raise
            time.sleep(0.05)
