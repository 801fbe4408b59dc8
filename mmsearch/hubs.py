"""``Hubs``: the bias of each row of a store's spaces, computed once."""

from __future__ import annotations

import json
import threading
import zlib
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmsearch.bank import Bank
from mmsearch.bias import biases
from mmsearch.files import atomic_write
from mmsearch.index.halves import widen
from mmsearch.searchspace import SearchSpace
from mmsearch.types import Progress, Report

_CHUNK = 512
KEPT_ROWS = 500
"""Biases of spaces with at least this many rows are written beside the index: a bank of 20,000 takes 0.5 ms a row."""
KEPT_SPACES = 8
"""Spaces by bank whose biases are held: those of two banks, and of files before and after they were compacted."""


@dataclass(frozen=True, slots=True)
class Biases:
    """The bias of each row of a space, (rows,) float32, and their mean."""

    rows: NDArray[np.float32]
    mean: float

    @classmethod
    def of(cls, rows: NDArray[np.float32]) -> Biases:
        """With their mean, which is 0 for none."""
        return cls(rows, float(rows.mean(dtype=np.float64)) if len(rows) else 0.0)


class Hubs:
    """The biases of a store's rows by bank; what was computed is kept while the rows only grow.

    Parameters
    ----------
    folder
        Where those of large spaces are kept: a cache, which may vanish. None: nowhere.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._known: OrderedDict[tuple[str, str], Biases] = OrderedDict()
        self._locks: dict[tuple[str, str], threading.Lock] = {}
        self._lock = threading.Lock()

    def of(self, space: SearchSpace, bank: Bank, report: Report | None = None) -> Biases:
        """The bias of each row of a space; only rows that came since the last call cost something.

        Searches that need what another thread computes wait for it; those with another bank do not.
        """
        key, n_rows = (space.record.file, bank.digest), space.record.rows
        known = self._known.get(key)
        if known is None or len(known.rows) < n_rows:
            with self._lock:
                lock = self._locks.setdefault(key, threading.Lock())
            with lock:
                known = self._known.get(key)
                if known is None or len(known.rows) < n_rows:
                    known = Biases.of(self._grown(space, bank, None if known is None else known.rows, report))
                    self._keep(key, known)
        # A reader of an earlier state sees as many rows as that had.
        return known if len(known.rows) == n_rows else Biases.of(known.rows[:n_rows])

    def _grown(
        self, space: SearchSpace, bank: Bank, known: NDArray[np.float32] | None, report: Report | None
    ) -> NDArray[np.float32]:
        """The biases of all rows, of which some may be known, and others be kept in a file."""
        known, n_rows = self._read(space, bank) if known is None else known, space.record.rows
        parts = [known]
        for first in range(len(known), n_rows, 8 * _CHUNK):
            if report is not None:
                report(Progress("bank", first, n_rows))
            parts.append(biases(widen(space.matrix[first : min(first + 8 * _CHUNK, n_rows)]), bank.vectors))
        if len(parts) > 1:
            known = np.concatenate(parts)
            self._write(space, bank, known)
        return known

    def _keep(self, key: tuple[str, str], known: Biases) -> None:
        with self._lock:
            self._known[key] = known
            self._known.move_to_end(key)
            while len(self._known) > KEPT_SPACES:
                old, _ = self._known.popitem(last=False)
                self._locks.pop(old, None)

    def _file(self, space: SearchSpace) -> Path:
        return (self._folder or Path()) / f"{space.record.file.removesuffix('.vectors')}.hubs"

    def _read(self, space: SearchSpace, bank: Bank) -> NDArray[np.float32]:
        """What was written of these very rows for this very bank; else nothing."""
        if self._folder is None:
            return np.zeros(0, dtype=np.float32)
        try:
            with np.load(BytesIO(self._file(space).read_bytes()), allow_pickle=False) as stored:
                facts, found = json.loads(str(stored["facts"])), np.asarray(stored["biases"], dtype=np.float32)
            if found.shape == (facts["rows"],) and facts == self._facts(space, bank, found):
                return found
        except Exception:  # it is a cache: whatever is in that file, it can be made again
            pass
        return np.zeros(0, dtype=np.float32)

    def _write(self, space: SearchSpace, bank: Bank, found: NDArray[np.float32]) -> None:
        if self._folder is None or len(found) < KEPT_ROWS:
            return
        with suppress(OSError):  # a store that cannot be written to computes them again next time
            buffer = BytesIO()
            np.savez(buffer, biases=found, facts=np.array(json.dumps(self._facts(space, bank, found))))
            atomic_write(self._file(space), buffer.getvalue())

    def _facts(self, space: SearchSpace, bank: Bank, found: NDArray[np.float32]) -> dict[str, Any]:
        return {"bank": bank.digest, "crc": zlib.crc32(found.tobytes()), **space.identity(len(found))}
