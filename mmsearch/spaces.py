"""The vectors of one space: an append-only, checksummed, memory-mapped matrix in a file.

The file holds rows and nothing else. What counts is what the catalog says: how many rows are committed and the
CRC-32 of each block of them. Rows beyond that are the torn tail of an append that was never acknowledged; the next
append writes over them. Opening maps the file and reads none of it.
"""

from __future__ import annotations

import mmap
import os
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmsearch.errors import InvalidInput, StoreDamaged, StoreError
from mmsearch.files import fsync_folder

BLOCK = 4096
"""Rows that share a checksum."""
_COPY = 16_384


class SpaceFile:
    """Rows of ``width`` numbers of ``dtype`` (float16 for vectors, int8 for cells) in one file."""

    def __init__(self, file: Path, width: int, dtype: str) -> None:
        self.file = file
        self.width = width
        self.dtype = np.dtype(dtype)
        self.row_bytes = width * self.dtype.itemsize

    def rows(self, count: int) -> NDArray[Any]:
        """The first ``count`` rows, (count, width), read-only and memory-mapped.

        Raises
        ------
        StoreDamaged
            If the file is missing or shorter than that.
        """
        if count == 0:
            return np.zeros((0, self.width), dtype=self.dtype)
        need = count * self.row_bytes
        try:
            with self.file.open("rb") as stream:
                size = os.fstat(stream.fileno()).st_size
                if size < need:
                    raise StoreDamaged(
                        f"{self.file} is cut short: expected at least {need} bytes, got {size}; "
                        "restore it from a backup or run `mmsearch reindex`"
                    )
                data = mmap.mmap(stream.fileno(), need, access=mmap.ACCESS_READ)
        except FileNotFoundError as error:
            raise StoreDamaged(
                f"the vectors {self.file} are missing: restore them from a backup or run `mmsearch reindex`"
            ) from error
        return np.frombuffer(data, dtype=self.dtype).reshape(count, self.width)

    def append(self, committed: int, crcs: Mapping[int, int], values: NDArray[Any]) -> dict[int, int]:
        """Write rows after the committed ones and fsync them; they count once the catalog says so.

        Parameters
        ----------
        crcs
            The checksum of the last, perhaps half-full block, by block number.
        values
            (n, width) of any number type; converted to ``dtype``.

        Returns
        -------
        dict
            The checksums of the blocks that changed.

        Raises
        ------
        InvalidInput
            For another width.
        StoreDamaged
            If committed rows are missing.
        StoreError
            If the disk is full or fails; nothing that was committed is touched.
        """
        if values.ndim != 2 or values.shape[1] != self.width:
            raise InvalidInput(f"expected rows of width {self.width}, got shape {values.shape}")
        data = np.ascontiguousarray(values, dtype=self.dtype)
        new = not self.file.exists()
        if committed:
            self.rows(committed)
        try:
            with self.file.open("w+b" if new else "r+b") as stream:
                stream.truncate(committed * self.row_bytes)
                stream.seek(committed * self.row_bytes)
                stream.write(data.tobytes())
                stream.flush()
                os.fsync(stream.fileno())
            if new:
                fsync_folder(self.file.parent)
        except OSError as error:
            raise StoreError(f"{self.file} cannot be written: {error.strerror}; what was stored stays") from error
        return dict(self._crcs(committed, crcs.get(committed // BLOCK, 0) if committed % BLOCK else 0, data))

    def damaged_blocks(self, count: int, crcs: Mapping[int, int]) -> list[int]:
        """Numbers of the blocks of the first ``count`` rows whose checksum is not the catalog's."""
        rows = self.rows(count)
        found = dict(self._crcs(0, 0, rows))
        return [block for block in sorted({*found, *crcs}) if found.get(block) != crcs.get(block)]

    def copy(self, keep: NDArray[np.int64], count: int, target: Path) -> dict[int, int]:
        """Write these rows of the first ``count`` into a new file, fsynced; return its checksums."""
        rows, copy, crcs = self.rows(count), SpaceFile(target, self.width, self.dtype.name), dict[int, int]()
        target.unlink(missing_ok=True)
        copy.append(0, {}, rows[:0])
        for first in range(0, len(keep), _COPY):
            crcs |= copy.append(first, crcs, rows[keep[first : first + _COPY]])
        return crcs

    def _crcs(self, first_row: int, crc: int, data: NDArray[Any]) -> Iterator[tuple[int, int]]:
        """Checksums of the blocks that ``data`` fills from ``first_row`` on; ``crc`` is the first block's so far."""
        done = 0
        while done < len(data):
            block = (first_row + done) // BLOCK
            n = min((block + 1) * BLOCK - first_row - done, len(data) - done)
            crc = zlib.crc32(data[done : done + n].tobytes(), crc)
            yield block, crc
            done, crc = done + n, 0
