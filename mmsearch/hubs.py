"""The bias of each row of a space: how near it lies to queries in general, whatever they ask for.

Rows that are near to many queries ("hubs") turn up in answers where they do not belong. Taking the bias off a row's
scores is query-bank normalisation: Bogolin et al., "Cross Modal Retrieval with Querybank Normalisation" (CVPR 2022),
section 3, whose inverted softmax divides exp(beta * cosine) by its sum over the bank; as a logarithm, that is a
subtraction, and computed once per row.
"""

from __future__ import annotations

import json
import threading
import zlib
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmsearch.bank import Bank
from mmsearch.files import atomic_write
from mmsearch.index.halves import widen
from mmsearch.searchspace import SearchSpace
from mmsearch.types import Progress, Report, Vectors

BETA = 20.0
"""Inverse temperature, as in the paper's section 4.2; 15 and 25 gave the same R@1 within 0.1 on Flickr8k dev."""
SHRINK = 250
"""A bank of n queries counts n / (n + 250) of one without end: few queries say little about all. On Flickr8k dev a bank
of 50 hurts from a fifth of its weight on, one of 250 from three fifths on, one of 3,000 not at all."""
_CHUNK = 512
KEPT_ROWS = 20_000
"""Biases of spaces with at least this many rows are written beside the index; fewer are computed in a second."""


def biases(rows: Vectors, bank: Vectors) -> NDArray[np.float32]:
    """The bias of rows, (n, dim) unit rows, for a bank, (b, dim) unit rows: (n,) float32, in units of cosines.

    log(mean(exp(beta * cosine))) / beta over the bank, shrunk for a small bank.
    """
    found = np.empty(len(rows), dtype=np.float32)
    for first in range(0, len(rows), _CHUNK):
        cosines = rows[first : first + _CHUNK] @ bank.T
        np.exp(BETA * cosines, out=cosines)
        found[first : first + _CHUNK] = np.log(cosines.mean(axis=1, dtype=np.float64)) / BETA
    return np.asarray(found * (len(bank) / (len(bank) + SHRINK)), dtype=np.float32)


class Hubs:
    """The biases of a store's rows for one bank; what was computed is kept while the rows only grow.

    Parameters
    ----------
    folder
        Where those of large spaces are kept: a cache, which may vanish.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, tuple[str, NDArray[np.float32]]] = {}
        self._lock = threading.Lock()

    def of(self, space: SearchSpace, bank: Bank, report: Report | None = None) -> NDArray[np.float32]:
        """The bias of each row of a space, (rows,) float32; only rows that came since the last call cost something."""
        name, n_rows = space.record.file, space.record.rows
        with self._lock:
            digest, known = self._known.get(name, ("", np.zeros(0, dtype=np.float32)))
            if digest != bank.digest:
                known = self._read(space, bank)
            if len(known) < n_rows:
                parts = [known]
                for first in range(len(known), n_rows, 8 * _CHUNK):
                    if report is not None:
                        report(Progress("bank", first, n_rows))
                    parts.append(biases(widen(space.matrix[first : min(first + 8 * _CHUNK, n_rows)]), bank.vectors))
                known = np.concatenate(parts)
                self._write(space, bank, known)
            self._known[name] = (bank.digest, known)
            return known[:n_rows]

    def _file(self, space: SearchSpace) -> Path:
        return self._folder / f"{space.record.file.removesuffix('.vectors')}.hubs"

    def _read(self, space: SearchSpace, bank: Bank) -> NDArray[np.float32]:
        """What was written of these very rows for this very bank; else nothing."""
        with suppress(OSError, ValueError, KeyError, EOFError):
            with np.load(self._file(space), allow_pickle=False) as stored:
                facts, found = json.loads(str(stored["facts"])), np.asarray(stored["biases"], dtype=np.float32)
            if facts == self._facts(space, bank, found):
                return found
        return np.zeros(0, dtype=np.float32)

    def _write(self, space: SearchSpace, bank: Bank, found: NDArray[np.float32]) -> None:
        if len(found) < KEPT_ROWS:
            return
        with suppress(OSError):  # a store that cannot be written to computes them again next time
            buffer = BytesIO()
            np.savez(buffer, biases=found, facts=np.array(json.dumps(self._facts(space, bank, found))))
            atomic_write(self._file(space), buffer.getvalue())

    def _facts(self, space: SearchSpace, bank: Bank, found: NDArray[np.float32]) -> dict[str, Any]:
        return {"bank": bank.digest, "crc": zlib.crc32(found.tobytes()), **space.identity(len(found))}
