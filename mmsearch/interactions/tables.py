"""Tables of interactions, whatever they come as, read by column."""

from __future__ import annotations

import csv
import itertools
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from mmsearch.errors import InvalidInput, MissingDependency
from mmsearch.tables import MAX_CELL, TABLE_SUFFIXES, read_rows
from mmsearch.types import Interaction

_PEEK = 1_000
_FIELDS = ("user", "item", "weight", "time", "kind")

Row: TypeAlias = "tuple[Any, ...] | str"
"""The cells of the wanted columns, or why the row cannot be read."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table that is read by column. ``columns`` are None where there is no row to tell them by."""

    columns: tuple[str, ...] | None
    rows: Callable[[Sequence[str]], Iterator[Row]]
    """The rows of these columns, in that order."""
    n_rows: int | None = None


def open_table(table: object) -> Table:
    """Find out what a table is: a file, a data frame, a mapping of columns, or an iterable of interactions.

    Data frames of pandas, polars and pyarrow are known by their methods; anything that works like them will do.

    Raises
    ------
    InvalidInput
        If it is none of these or cannot be read.
    """
    match table:
        case Path():
            return _open_file(table.expanduser())
        case str() | bytes():
            raise InvalidInput(f"expected a table, got the {type(table).__name__} {table!r:.60}: give a file as a Path")
        case Interaction():
            raise InvalidInput("expected a list of interactions, got a single one: put it in brackets")
        case Mapping():
            if any(isinstance(column, str | bytes) or not isinstance(column, Iterable) for column in table.values()):
                raise InvalidInput(f"expected a mapping of columns, got {table!r:.60}: put a single row in brackets")
            return _of_columns(table, list(table))
    names = getattr(table, "column_names", None)  # pyarrow; its ``columns`` are the values
    names = getattr(table, "columns", None) if names is None else names
    if isinstance(names, Iterable) and hasattr(table, "__getitem__"):
        return _of_columns(table, list(names))
    if isinstance(table, Iterable):
        return _of_rows(_mapped(row) for row in table)
    raise InvalidInput(
        "expected a Path, a data frame, a mapping of columns or an iterable of interactions, "
        f"got {type(table).__name__}"
    )


def _open_file(file: Path) -> Table:
    if not file.is_file():
        raise InvalidInput(f"expected a table of interactions, got {file}, which is not a file")
    match file.suffix.lower():
        case ".csv" | ".tsv":
            return _of_csv(file, "\t" if file.suffix.lower() == ".tsv" else ",")
        case ".jsonl":
            return _of_rows(read_rows(file))
        case ".parquet":
            return _of_parquet(file)
    raise InvalidInput(f"expected a table as {', '.join(TABLE_SUFFIXES)}, got {file}")


def _of_csv(file: Path, delimiter: str) -> Table:
    header = next(_lines(file, delimiter), None)
    if header is None:
        raise InvalidInput(f"expected a table with a header, got the empty file {file}")
    if any("\0" in name for name in header):
        raise InvalidInput(f"expected UTF-8 text, got {file} in another encoding, such as UTF-16: save it as UTF-8")

    def rows(names: Sequence[str]) -> Iterator[Row]:
        at = [header.index(name) for name in names]
        pick, width = operator.itemgetter(*at), max(at) + 1
        for cells in itertools.islice(_lines(file, delimiter), 1, None):
            if len(cells) > len(header):
                yield f"expected {len(header)} cells as in the header, got {len(cells)}"
            elif cells:  # an empty line is no row
                yield pick(cells if len(cells) >= width else cells + [""] * (width - len(cells)))

    return Table(tuple(header), rows)


def _lines(file: Path, delimiter: str) -> Iterator[list[str]]:
    csv.field_size_limit(MAX_CELL)
    # Bytes that are not UTF-8 come as lone surrogates, which fail the row if they are in an id. Strict, because a
    # quote that is never closed would swallow the rest of the file.
    with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        reader = csv.reader(stream, delimiter=delimiter, strict=True)
        try:
            yield from reader
        except csv.Error as error:
            raise InvalidInput(f"{file} cannot be read as a table: line {reader.line_num}: {error}") from error


def _of_parquet(file: Path) -> Table:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise MissingDependency("reading Parquet needs an extra: pip install 'mmsearch[parquet]'") from error

    def rows(names: Sequence[str]) -> Iterator[Row]:
        try:
            with parquet.ParquetFile(file) as stored:
                for batch in stored.iter_batches(columns=list(dict.fromkeys(names))):
                    yield from zip(*(_listed(batch[name]) for name in names), strict=True)
        except (OSError, ValueError) as error:
            raise InvalidInput(f"{file} cannot be read as Parquet: {error}") from error

    try:
        with parquet.ParquetFile(file) as stored:
            return Table(tuple(stored.schema_arrow.names), rows, stored.metadata.num_rows)
    except (OSError, ValueError) as error:  # ArrowInvalid is a ValueError
        raise InvalidInput(f"{file} cannot be read as Parquet: {error}") from error


def _of_columns(table: Any, labels: Sequence[Any]) -> Table:  # noqa: ANN401 whatever has columns
    def rows(names: Sequence[str]) -> Iterator[Row]:
        columns = [_listed(table[labels[shown.index(name)]]) for name in names]
        lengths = {len(column) for column in columns}
        if len(lengths) > 1:
            raise InvalidInput(f"expected columns of one length, got {', '.join(map(str, sorted(lengths)))}")
        yield from zip(*columns, strict=True)

    shown = tuple(map(str, labels))
    n_rows = getattr(table, "num_rows", None)
    return Table(shown, rows, n_rows if isinstance(n_rows, int) else None)


def _listed(column: Any) -> list[Any]:  # noqa: ANN401 a column of any kind of table
    if hasattr(column, "to_pylist"):
        return list(_in_microseconds(column).to_pylist())
    for name in ("to_list", "tolist"):  # polars and pandas; NumPy
        if hasattr(column, name):
            return list(getattr(column, name)())
    return list(column)


def _in_microseconds(column: Any) -> Any:  # noqa: ANN401 an array of pyarrow
    """Arrow makes a datetime of nanoseconds only where pandas is installed, or none is lost."""
    import pyarrow as pa

    if pa.types.is_timestamp(column.type) and column.type.unit == "ns":
        return column.cast(pa.timestamp("us", column.type.tz), safe=False)
    return column


def _mapped(row: object) -> Mapping[str, Any] | str:
    match row:
        case Interaction():
            return {role: getattr(row, role) for role in _FIELDS}
        case Mapping():
            return row
    return f"expected an Interaction or a mapping, got {type(row).__name__}"


def _of_rows(given: Iterator[Mapping[str, Any] | str]) -> Table:
    first = list(itertools.islice(given, _PEEK))
    names = dict.fromkeys(name for row in first if not isinstance(row, str) for name in row if isinstance(name, str))
    if first and not names:
        why = first[0] if isinstance(first[0], str) else "it has no column"
        raise InvalidInput(f"none of the first {len(first)} rows can be read: row 1: {why}")

    def rows(wanted: Sequence[str]) -> Iterator[Row]:
        for row in itertools.chain(first, given):
            yield row if isinstance(row, str) else tuple(row.get(name) for name in wanted)

    return Table(tuple(names) if first else None, rows)
