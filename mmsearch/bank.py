"""``Bank``: queries of the kind that people ask, from which each item's bias is told (query-bank normalisation).

The texts are kept in the store; their vectors are a cache beside them, made again for another encoder.
"""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from mmsearch.encoders.spec import digest
from mmsearch.errors import InvalidInput, StoreDamaged
from mmsearch.files import atomic_write
from mmsearch.protocols import Encoder
from mmsearch.types import Progress, Report, Vectors
from mmsearch.vectors import as_unit_vectors

MAX_BANK = 20_000
"""Queries that are kept; of more, every nth. ``benchmarks/cascade.py`` prints quality by the size of the bank; more
would mostly take longer to read."""
_CHUNK = 1_024
_OWN_FILE = re.compile(r"([0-9a-f]{16})(-[0-9a-f]{16})?\.(json|npy)")
_CRC_BYTES = 4

Halves: TypeAlias = NDArray[np.float16]


@dataclass(frozen=True, slots=True)
class Bank:
    """Vectors of queries, (n, dim) unit rows; ``digest`` names them, ``source`` says where they are from."""

    digest: str
    vectors: Vectors
    source: str = ""
    texts: tuple[str, ...] = ()
    """The queries, if they are texts, for stages that read them with another model."""

    @classmethod
    def of(cls, vectors: Vectors, source: str = "", texts: Sequence[str] = ()) -> Bank:
        """A bank of these vectors, (n, dim), which are made unit rows.

        Raises
        ------
        InvalidInput
            For no vectors, or such without a direction.
        """
        rows = as_unit_vectors(vectors)
        if not len(rows):
            raise InvalidInput("expected a bank of at least one query, got none")
        return cls(hashlib.sha256(rows.tobytes()).hexdigest()[:16], rows, source, tuple(texts))


def distinct(texts: Sequence[str]) -> list[str]:
    """The texts of a bank: without blanks and repeats, at most ``MAX_BANK``, evenly chosen.

    Raises
    ------
    InvalidInput
        If nothing is left, or one is no str.
    """
    if isinstance(texts, str):
        raise InvalidInput(f"expected a list of queries, got one str: put it into a list, [{texts[:40]!r}]")
    for text in texts:
        if not isinstance(text, str):
            raise InvalidInput(f"expected queries of a bank as str, got {type(text).__name__}")
    kept = list(dict.fromkeys(text.strip() for text in texts if text.strip()))
    if not kept:
        raise InvalidInput("expected a bank of at least one query, got none: give a file with one query a line")
    if len(kept) <= MAX_BANK:
        return kept
    return [kept[place] for place in np.linspace(0, len(kept) - 1, MAX_BANK).astype(np.int64)]


def encode_bank(texts: Sequence[str], encoder: Encoder, source: str = "", report: Report | None = None) -> Bank:
    """Encode queries, chunk by chunk."""
    parts = []
    for first in range(0, len(texts), _CHUNK):
        if report is not None:
            report(Progress("bank", first, len(texts)))
        parts.append(encoder.encode_texts(texts[first : first + _CHUNK]))
    return Bank.of(np.concatenate(parts), source, texts)


class KeptBanks:
    """The banks of a store, as files in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, texts: Sequence[str], source: str) -> str:
        """Keep a bank's texts; return the name by which they are found again."""
        data = json.dumps({"source": source, "texts": list(texts)}, ensure_ascii=False).encode("utf-8", "replace")
        name = digest(data)
        self.folder.mkdir(exist_ok=True)
        atomic_write(self.folder / f"{name}.json", data)
        return name

    def texts(self, name: str) -> tuple[list[str], str]:
        """A bank's texts, and where they came from.

        Raises
        ------
        StoreDamaged
            If they are not what was put there.
        """
        file = self.folder / f"{name}.json"
        try:
            data = file.read_bytes()
            if digest(data) != name:
                raise ValueError("its checksum does not hold")
            found = json.loads(data)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else error
            raise StoreDamaged(
                f"the query bank {file} cannot be read ({reason}): set it again with `mmsearch bank`"
            ) from error
        return [str(text) for text in found["texts"]], str(found["source"])

    def load(self, name: str, encoder: Callable[[], Encoder], fingerprint: str, report: Report | None = None) -> Bank:
        """A bank's vectors by an encoder: those that are kept, else made anew, and kept if that can be done."""
        file = self.folder / f"{name}-{digest(fingerprint)}.npy"
        texts, source = self.texts(name)
        rows = _read_rows(file, len(texts))
        if rows is None:
            rows = encode_bank(texts, encoder(), source, report).vectors.astype(np.float16)
            with suppress(OSError):
                _write_rows(file, rows)
                for other in self.folder.glob(f"{name}-*.npy"):  # of an encoder before
                    if other != file:
                        other.unlink(missing_ok=True)
        return Bank.of(rows.astype(np.float32), source, texts)

    def drop_others(self, name: str | None) -> None:
        """Forget every bank but this."""
        for file in self.folder.glob("*") if self.folder.is_dir() else ():
            its = _OWN_FILE.fullmatch(file.name)
            if its is not None and its[1] != name:
                with suppress(OSError):  # what is left over takes room and does no harm
                    file.unlink()


def _write_rows(file: Path, rows: Halves) -> None:
    buffer = BytesIO()
    np.save(buffer, rows, allow_pickle=False)
    data = buffer.getvalue()
    atomic_write(file, data + zlib.crc32(data).to_bytes(_CRC_BYTES, "little"))


def _read_rows(file: Path, n: int) -> Halves | None:
    """What was written there if it is whole: n rows."""
    try:
        data = file.read_bytes()
        data, crc = data[:-_CRC_BYTES], data[-_CRC_BYTES:]
        if zlib.crc32(data).to_bytes(_CRC_BYTES, "little") != crc:
            return None
        rows = np.load(BytesIO(data), allow_pickle=False)
    except Exception:  # it is a cache: whatever is in that file, it can be made again
        return None
    return rows if isinstance(rows, np.ndarray) and rows.dtype == np.float16 and len(rows) == n else None
