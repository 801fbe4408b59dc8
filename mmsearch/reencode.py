"""Vectors for items that are stored already: for a new space, or by another encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmsearch.catalog import SpaceRecord, item_of
from mmsearch.encoding import BATCH, FieldEncoder, Prepared
from mmsearch.errors import MissingDependency, PictureError
from mmsearch.files import content_hash, display_path, read_bytes
from mmsearch.images import MAX_BYTES, open_picture
from mmsearch.overlap import ahead, batches
from mmsearch.store import Store
from mmsearch.types import Item, Progress, Report


@dataclass(slots=True)
class Task:
    """An item, the fields it lacks, and what a worker made of it."""

    key: int
    item: Item
    content: bytes | None
    missing: list[str]
    prepared: Prepared | None = None
    fault: str | None = None


def fill(
    store: Store, fields: FieldEncoder, records: dict[str, SpaceRecord], report: Report | None
) -> list[tuple[str, str]]:
    """Encode whatever has no rows yet in these spaces, in batches that are committed whole.

    Interrupted, it goes on from there when called again. Returns what could not be encoded: path or id, and reason.
    """
    lacking: dict[int, list[str]] = {}
    for name, record in records.items():
        for key in store.book.without(record.space, "text" if name == "text" else "content"):
            lacking.setdefault(key, []).append(name)
    report = report or (lambda progress: None)
    failed: list[tuple[str, str]] = []
    done = 0
    report(Progress("encode", 0, len(lacking)))
    for keys in batches(sorted(lacking), 4 * BATCH):
        rows = store.catalog.rows_by_key(keys)
        tasks = [_task(rows[key], lacking[key]) for key in keys]
        worker = _Worker(fields)
        for batch in batches(ahead(worker.load, tasks, 3 * BATCH), BATCH):
            failed += _commit(store, fields, records, batch)
            done += len(batch)
            report(Progress("encode", done, len(lacking)))
    return failed


def _task(row: tuple[object, ...], missing: list[str]) -> Task:
    content = row[5]
    return Task(int(str(row[0])), item_of(row), content if isinstance(content, bytes) else None, missing)


class _Worker:
    """Reads pictures again, in threads."""

    def __init__(self, fields: FieldEncoder) -> None:
        self.fields = fields

    def load(self, task: Task) -> Task:
        if task.missing != ["text"] and task.item.path is not None:
            try:
                data = read_bytes(task.item.path, MAX_BYTES)
                if content_hash(data) != task.content:
                    task.fault = "the picture has changed since it was indexed: run `mmsearch sync` first"
                else:
                    task.prepared = self.fields.prepare(
                        open_picture(data, min_side=self.fields.encoder.image_size).image
                    )
            except (PictureError, MissingDependency) as error:
                task.fault = str(error)
            except MemoryError:
                task.fault = "there was not enough memory to open it"
        return task


def _commit(
    store: Store, fields: FieldEncoder, records: dict[str, SpaceRecord], batch: Sequence[Task]
) -> list[tuple[str, str]]:
    good = [task for task in batch if task.fault is None]
    first = {task.content: i for i, task in reversed(list(enumerate(good))) if task.prepared}
    encoded = fields.encode(
        {i: _wanted(good[i]) for i in first.values()},
        {i: task.item.text or "" for i, task in enumerate(good) if "text" in task.missing},
    )
    with store.catalog.transaction():
        start = {name: store.append(records[name], rows) for name, rows in encoded.rows.items()}
        for i, task in enumerate(good):
            for name in task.missing:
                span = encoded.spans[name].get(i if name == "text" else first.get(task.content, -1))
                if span is not None:
                    rows = range(start[name] + span.start, start[name] + span.stop)
                    store.book.assign(records[name].space, {task.key: rows})
    return [(_shown(task.item), task.fault) for task in batch if task.fault] + [
        (_shown(good[i].item), reason) for i, reason in encoded.faults.items()
    ]


def _wanted(task: Task) -> Prepared:
    """What was prepared for the fields that it lacks."""
    return {name: pictures for name, pictures in (task.prepared or {}).items() if name in task.missing}


def _shown(item: Item) -> str:
    path: Path | None = item.path
    return display_path(path) if path is not None else item.id
