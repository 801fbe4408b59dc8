"""Rows of tables: JSON lines, CSV, TSV and Parquet, as mappings of plain values."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmsearch.errors import InvalidInput, MissingDependency

MAX_CELL = 16_000_000
"""Characters of one field of a CSV table."""
TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")


def read_rows(file: Path) -> Iterator[Mapping[str, Any] | str]:
    """The rows of a JSON-lines, CSV, TSV or Parquet file; a row that cannot be read comes as a sentence saying why."""
    match file.suffix.lower():
        case ".jsonl":
            yield from _json_rows(file)
        case ".csv" | ".tsv":
            with file.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
                delimiter = "\t" if file.suffix.lower() == ".tsv" else ","
                csv.field_size_limit(MAX_CELL)
                try:
                    for row in csv.DictReader(stream, delimiter=delimiter):
                        yield {name: value for name, value in row.items() if name and value not in (None, "")}
                except csv.Error as error:
                    raise InvalidInput(f"{file} cannot be read as a table: {error}") from error
        case ".parquet":
            yield from _parquet_rows(file)
        case _:
            raise InvalidInput(f"expected a table as {', '.join(TABLE_SUFFIXES)}, got {file}")


def _json_rows(file: Path) -> Iterator[Mapping[str, Any] | str]:
    with file.open("rb") as stream:
        for line in stream:
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield f"expected a JSON object, got {line[:60]!r} ({error})"
                continue
            yield row if isinstance(row, dict) else f"expected a JSON object, got {type(row).__name__}"


def _parquet_rows(file: Path) -> Iterator[Mapping[str, Any]]:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise MissingDependency("reading Parquet needs an extra: pip install 'mmsearch[parquet]'") from error
    try:
        with parquet.ParquetFile(file) as table:
            for batch in table.iter_batches():
                for row in batch.to_pylist():
                    plain = {name: _plain(value) for name, value in row.items()}
                    yield {name: value for name, value in plain.items() if value is not None}
    except (OSError, ValueError) as error:  # ArrowInvalid is a ValueError
        raise InvalidInput(f"{file} cannot be read as Parquet: {error}") from error


def _plain(value: object) -> object:
    """What JSON can hold of a value of a Parquet column: dates become ISO text, missing numbers nothing."""
    match value:
        case float():
            return value if math.isfinite(value) else None
        case None | str() | int():
            return value
        case list() | tuple():
            return [_plain(member) for member in value]
        case dict():
            return {str(name): _plain(member) for name, member in value.items()}
        case bytes():
            return value.decode("utf-8", "backslashreplace")
    isoformat = getattr(value, "isoformat", None)
    return isoformat() if callable(isoformat) else str(value)
