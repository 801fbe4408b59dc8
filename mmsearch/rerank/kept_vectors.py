"""``KeptVectors``: vectors of a second model, kept in one SQLite file."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Halves: TypeAlias = NDArray[np.float16]
"""(dim,) float16, a unit row."""

_PATIENCE = 0.2
"""Seconds to wait for another writer: a search is waiting, and what is not kept now is encoded again later."""
_ASKED = 500
"""Keys of one SELECT; SQLite before 3.32 takes 999."""
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_NORM_SLACK = 0.01
"""How far from 1 the length of a unit row in float16 may be."""
_TABLE = "CREATE TABLE IF NOT EXISTS vectors (content BLOB PRIMARY KEY, vector BLOB NOT NULL)"


class KeptVectors:
    """Unit rows by key in one SQLite file: a cache. No error leaves it: what cannot be read is missing.

    A damaged file is deleted and begun anew; a folder that cannot be written is only read. Each call opens the file
    and closes it again (0.3 ms): so threads, forked processes and other writers need no care, and nothing of a store
    is held open that its owner wants to delete. For the same reason it has a rollback journal and no write-ahead log,
    whose helper files a reader of a read-only folder could not make.

    Parameters
    ----------
    dim
        The rows' width: rows of another are missing.
    """

    def __init__(self, file: Path, dim: int) -> None:
        self.file = file
        self.dim = dim

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Halves]:
        """The rows that are kept of these keys, each checked: its checksum, its width, and that its length is 1."""
        found: dict[bytes, Halves] = {}
        if not keys:
            return found
        try:
            with closing(self._open("ro")) as db:
                for first in range(0, len(keys), _ASKED):
                    some = list(keys[first : first + _ASKED])
                    marks = ",".join("?" * len(some))
                    for key, data in db.execute(
                        f"SELECT content, vector FROM vectors WHERE content IN ({marks})", some
                    ):
                        row = self._unpacked(key, data)
                        if row is not None:
                            found[key] = row
        except sqlite3.Error as error:
            self._mend(error)
        except OSError:
            pass  # a folder that is not there, or not for us
        return found

    def put(self, rows: Mapping[bytes, Halves]) -> None:
        """Keep rows, in one transaction; those of keys that are there replace what may be damaged."""
        packed = [(key, _packed(key, row)) for key, row in rows.items()]
        for _ in range(2 if packed else 0):
            try:
                self.file.parent.mkdir(exist_ok=True)  # without parents: a store that is gone stays gone
                with closing(self._open("rwc")) as db:
                    # Without waiting for the disk: after a power cut the checksums tell what was lost.
                    db.execute("PRAGMA synchronous = OFF")
                    with db:
                        db.execute(_TABLE)
                        db.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?)", packed)
                return
            except sqlite3.Error as error:
                if not self._mend(error):
                    return
            except OSError:
                return

    def _open(self, mode: str) -> sqlite3.Connection:
        db = sqlite3.connect(f"{self.file.resolve().as_uri()}?mode={mode}", uri=True, timeout=_PATIENCE)
        db.text_factory = bytes  # so that a text in a row's place is no error of its own
        try:
            # A store may come from elsewhere: what its schema says is not to be trusted (sqlite.org/security.html).
            db.execute("PRAGMA trusted_schema = OFF")
        except sqlite3.Error:
            db.close()
            raise
        return db

    def _mend(self, error: sqlite3.Error) -> bool:
        """Delete the file if the error says that it is damaged or no cache of ours; whether it did."""
        # The low byte is the code, the others say more about it.
        damaged = getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGE
        if not damaged and "column" not in str(error):
            return False
        with suppress(OSError):
            self.file.unlink(missing_ok=True)
            self.file.with_name(f"{self.file.name}-journal").unlink(missing_ok=True)
            return True
        return False

    def _unpacked(self, key: bytes, data: object) -> Halves | None:
        """The row of what ``_packed`` made; None if it is anything else."""
        if not isinstance(data, bytes) or len(data) != 2 * self.dim + 4:
            return None
        if zlib.crc32(data[:-4], zlib.crc32(key)).to_bytes(4, "little") != data[-4:]:
            return None
        row = np.frombuffer(data[:-4], dtype="<f2").astype(np.float16)
        length = float(np.linalg.norm(row.astype(np.float32)))
        return row if abs(length - 1) < _NORM_SLACK else None  # false for NaN


def _packed(key: bytes, row: Halves) -> bytes:
    data = row.astype("<f2").tobytes()
    return data + zlib.crc32(data, zlib.crc32(key)).to_bytes(4, "little")
