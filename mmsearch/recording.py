"""Record tables of interactions in a store, and write them out again."""

from __future__ import annotations

import csv
import itertools
import json
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from mmsearch.catalog import AMBIGUOUS, UNKNOWN_TIME, EventBook, comparable
from mmsearch.errors import InvalidInput, MissingDependency
from mmsearch.interactions import Event, InteractionReport, choose_columns, open_table, read_events
from mmsearch.store import Store
from mmsearch.tables import TABLE_SUFFIXES
from mmsearch.types import Interaction, Progress, Report

BATCH = 50_000
"""Rows of one transaction."""
EXPORTED = ("user", "item", "kind", "weight", "time")


def record(
    store: Store,
    table: object,
    named: Mapping[str, str | None],
    item_field: str | None = None,
    progress: Report | None = None,
) -> InteractionReport:
    """Record a table of interactions, a batch of rows at a time. See ``Engine.add_interactions``.

    Parameters
    ----------
    named
        The columns of user, item, weight, time and kind, as ``choose_columns`` takes them.
    """
    opened = open_table(table)
    columns = choose_columns(opened.columns, named, item_field)
    rows = read_events(opened, columns)
    done = 0
    with store.writing():
        recording = _Recording(store, item_field)
        while batch := list(itertools.islice(rows, BATCH)):
            recording.take(batch)
            done += len(batch)
            if progress is not None:
                progress(Progress("interactions", done, max(done, opened.n_rows or 0)))
    return recording.report(columns)


class _Recording:
    """Records batches of events, and counts what became of each row."""

    def __init__(self, store: Store, item_field: str | None) -> None:
        self._store = store
        self._book = EventBook(store.catalog)
        self._known: dict[str, int] = {}
        self._find = self._book.keys_by_id if item_field is None else _finder(self._book, item_field)
        self._users: set[str] = set()
        self._unknown: Counter[str] = Counter()
        self._ambiguous: Counter[str] = Counter()
        self._failed: list[tuple[str, str]] = []
        self._added = self._changed = self._unchanged = 0

    def take(self, rows: list[tuple[int, Event | str]]) -> None:
        """Record a batch: all of it or, if anything goes wrong, nothing."""
        events = [row for _, row in rows if not isinstance(row, str)]
        new = {item for _, item, *_ in events if item not in self._known and item not in self._unknown}
        self._known.update(self._find(new))
        told = []
        for user, item, weight, time, kind in events:
            key = self._known.get(item)
            if key is None:
                self._unknown[item] += 1
            elif key == AMBIGUOUS:
                self._ambiguous[item] += 1
            else:
                told.append((user, key, kind, weight, UNKNOWN_TIME if time is None else time))
        if told:
            with self._store.catalog.transaction():
                added, changed, unchanged = self._book.add(told)
            self._added += added
            self._changed += changed
            self._unchanged += unchanged
            self._users.update(user for user, *_ in told)
        self._failed += ((f"row {number}", row) for number, row in rows if isinstance(row, str))

    def report(self, columns: Mapping[str, str]) -> InteractionReport:
        """What became of all rows."""
        return InteractionReport(
            self._added, self._unchanged, self._changed, len(self._users), dict(self._unknown),
            dict(self._ambiguous), tuple(self._failed), columns,
        )  # fmt: skip


def _finder(book: EventBook, field: str) -> Callable[[Collection[str]], dict[str, int]]:
    keys = book.keys_by_field(field)

    def find(values: Collection[str]) -> dict[str, int]:
        found = {value: keys.get(comparable(value)) for value in values}
        return {value: key for value, key in found.items() if key is not None}

    return find


def recorded(store: Store, user: str | None = None) -> Iterator[Interaction]:
    """The interactions of one user or of all, user by user and each user's by time, unknown times first."""
    for who, item, kind, weight, time in EventBook(store.catalog).told(user):
        yield Interaction(who, item, kind, weight, None if time == UNKNOWN_TIME else time)


def export(store: Store, file: Path, *, overwrite: bool = False) -> int:
    """Write every interaction, of one state of the store, to a table. See ``Engine.export_interactions``."""
    write = _writer_of(file)
    if file.is_dir() or not file.parent.is_dir():
        raise InvalidInput(f"expected a file in a folder that is there, got {file}")
    if file.exists() and not overwrite:
        raise InvalidInput(f"{file} is there already: choose another name, or overwrite it")
    draft = file.with_name(f".mmsearch-{os.getpid()}.tmp")
    try:
        with store.catalog.snapshot():
            n = write(draft, recorded(store))
        os.replace(draft, file)
    finally:
        draft.unlink(missing_ok=True)
    return n


Writer = Callable[[Path, Iterator[Interaction]], int]


def _writer_of(file: Path) -> Writer:
    writers: dict[str, Writer] = {
        ".csv": lambda draft, events: _write_text(draft, events, ","),
        ".tsv": lambda draft, events: _write_text(draft, events, "\t"),
        ".jsonl": lambda draft, events: _write_text(draft, events, None),
        ".parquet": _write_parquet,
    }
    if file.suffix.lower() not in writers:
        raise InvalidInput(f"expected a table as {', '.join(TABLE_SUFFIXES)}, got {file}")
    return writers[file.suffix.lower()]


def _rows(events: Iterator[Interaction]) -> Iterator[dict[str, Any]]:
    return ({name: getattr(event, name) for name in EXPORTED} for event in events)


def _write_text(draft: Path, events: Iterator[Interaction], delimiter: str | None) -> int:
    """Write CSV, or JSON lines where there is no delimiter."""
    n = 0
    with draft.open("w", encoding="utf-8", newline="") as stream:
        write = _json_writer(stream) if delimiter is None else _csv_writer(stream, delimiter)
        for row in _rows(events):
            write(row)
            n += 1
    return n


def _json_writer(stream: IO[str]) -> Callable[[dict[str, Any]], object]:
    return lambda row: stream.write(json.dumps(row) + "\n")


def _csv_writer(stream: IO[str], delimiter: str) -> Callable[[dict[str, Any]], object]:
    writer = csv.DictWriter(stream, EXPORTED, delimiter=delimiter)
    writer.writeheader()
    return writer.writerow


def _write_parquet(draft: Path, events: Iterator[Interaction]) -> int:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise MissingDependency("writing Parquet needs an extra: pip install 'mmsearch[parquet]'") from error
    kinds = (pa.string(), pa.string(), pa.string(), pa.float64(), pa.float64())
    schema = pa.schema(list(zip(EXPORTED, kinds, strict=True)))
    n, rows = 0, _rows(events)
    with parquet.ParquetWriter(draft, schema) as writer:
        while batch := list(itertools.islice(rows, BATCH)):
            writer.write_table(pa.Table.from_pylist(batch, schema))
            n += len(batch)
    return n
