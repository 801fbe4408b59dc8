"""Files to pictures to vectors to the catalog: overlapped, resumable, and nothing vanishes.

Threads read, check and shrink pictures while the model encodes those before. Every batch is committed whole: its
vectors are on disk before the catalog names them, so that whatever was committed is found again after a kill. The
next run looks at every entry's stamp and goes on with what is missing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path

from PIL import Image

from mmsearch.catalog import Known, NewItem, PictureFacts, metadata_json, path_of
from mmsearch.encoding import BATCH, FieldEncoder, Prepared
from mmsearch.errors import InvalidInput, MissingDependency, PictureError
from mmsearch.files import content_hash, display_path, read_bytes
from mmsearch.images import MAX_BYTES, open_picture
from mmsearch.overlap import ahead, batches
from mmsearch.protocols import Encoder
from mmsearch.sources import Entry, Source
from mmsearch.store import Store
from mmsearch.types import AddReport, Progress, Report

EMPTIED = 20
"""A folder that held at least this many items and now holds none is taken for an absent disk."""


@dataclass(slots=True)
class Loaded:
    """An entry after a worker has looked at it.

    ``old`` is the item that it was before, at this entry or (moved) at another. ``prepared`` is None where a picture
    with this content is stored already, and ``facts`` then has its rows.
    """

    entry: Entry
    old: Known | None
    moved: bool = False
    content: bytes | None = None
    data: bytes | None = None
    prepared: Prepared | None = None
    facts: PictureFacts | None = None
    fault: str | None = None
    again: bool = False
    """Whether a fault is worth another try although the entry has not changed."""

    @property
    def new_picture(self) -> bool:
        """Whether its picture is not the one that is stored."""
        return self.content is not None and (self.old is None or self.old.content != self.content)

    @property
    def same(self) -> bool:
        """Whether it was there before with this picture and this text, at this entry."""
        return self.old is not None and not (self.moved or self.new_picture) and self.old.text == self.entry.text

    @property
    def new_text(self) -> bool:
        """Whether its text is not the one that is stored."""
        return bool(self.entry.text) and (self.old is None or self.old.text != self.entry.text)


@dataclass(slots=True)
class Tally:
    """Counts of one run."""

    added: int = 0
    changed: int = 0
    unchanged: int = 0
    moved: int = 0
    removed: int = 0
    failed: dict[bytes, tuple[str, str, str]] = field(default_factory=dict)


class Ingest:
    """Brings one source into a store; use it inside ``store.writing()``. First ``add``, then ``remove``."""

    def __init__(self, store: Store, encoder: Encoder, source: Source, report: Report | None = None) -> None:
        self.store, self.catalog, self.book = store, store.catalog, store.book
        self.source = source
        self.report = report or (lambda progress: None)
        self.fields = FieldEncoder(encoder, store.fields())
        self.records = store.adopt(encoder, self.fields.widths())
        self.picture_spaces = [record.space for name, record in self.records.items() if name != "text"]
        self.tally = Tally()
        with self.catalog.transaction():
            self.root = self.catalog.root(source.kind, source.path)

    def add(self) -> None:
        """Add what is new, replace what has changed, follow what was moved."""
        known = self.catalog.known(self.root)
        entries = list(self._distinct(known))
        self.failed_before = self.catalog.failures(self.root)
        self.gone = self._gone(entries, known)
        self.followed: set[int] = set()
        jobs = list(self._to_look_at(entries, known))
        done = 0
        self.report(Progress("encode", 0, len(jobs)))
        for batch in batches(ahead(self._load, jobs, 3 * BATCH), BATCH):
            self._commit(batch)
            done += len(batch)
            self.report(Progress("encode", done, len(jobs)))
        offered = {entry.name for entry in entries}
        over = [name for name in self.failed_before if name not in self.tally.failed]
        with self.catalog.transaction():
            over = over if self.source.complete else [name for name in over if name in offered]
            self.catalog.set_failures(self.root, {}, over)

    def remove(self) -> None:
        """Forget what the source no longer holds and nobody has found elsewhere."""
        gone = {item.key for items in self.gone.values() for _, item in items}
        keys = self.catalog.keys_of_root(self.root, gone - self.followed)
        with self.catalog.transaction():
            self.catalog.delete(keys)
        self.tally.removed += len(keys)

    def result(self) -> AddReport:
        """What was done."""
        tally = self.tally
        failed = tuple((path, reason) for _, path, reason in tally.failed.values())
        return AddReport(tally.added, tally.unchanged, tally.moved, tally.removed, failed, tally.changed)

    # What has to be done ----------------------------------------------------------------------------------------

    def _distinct(self, known: Mapping[bytes, Known]) -> Iterator[Entry]:
        """The source's entries, each name once; an item that was added before is known by its id too."""
        by_id = {} if self.source.complete else {item.id: name for name, item in known.items()}
        seen: set[bytes] = set()
        for entry in self.source.entries():
            if entry.own_id and entry.name not in known:
                entry = replace(entry, name=by_id.get(entry.id, entry.name))
            if entry.name not in seen:
                yield entry
            elif entry.own_id:
                fault = "the same id was given twice in one call: give each item its own"
                yield replace(entry, name=entry.name + b" again %d" % len(seen), fault=fault)
            else:
                self.tally.unchanged += 1  # the same picture or text, named twice
            seen.add(entry.name)

    def _gone(self, entries: Sequence[Entry], known: Mapping[bytes, Known]) -> dict[bytes, list[tuple[bytes, Known]]]:
        """Items that the source no longer offers, by content: they have moved, or are gone."""
        if not self.source.complete:
            return {}
        if not entries and len(known) >= EMPTIED:
            raise InvalidInput(
                f"{self.source.path} is empty and held {len(known)} items: is its disk connected? Nothing was changed; "
                "if they are really gone, remove them with `mmsearch remove` (Engine.remove)"
            )
        gone: dict[bytes, list[tuple[bytes, Known]]] = {}
        offered = {entry.name for entry in entries}
        closed = tuple(entry.name + b"/" for entry in entries if entry.closed_folder)
        for name, item in known.items():
            if name not in offered and not name.startswith(closed) and b"./" not in closed:
                gone.setdefault(item.content or b"", []).append((name, item))
        return gone

    def _to_look_at(self, entries: Iterable[Entry], known: Mapping[bytes, Known]) -> Iterator[Loaded]:
        elsewhere: dict[bytes, tuple[str, Known]] = {}
        if self.source.kind == "folder" and self.source.path is not None:
            # One of the two folders lies inside the other.
            elsewhere = self.catalog.paths_under(os.fsencode(self.source.path), self.root)
        for entry in entries:
            item, before = known.get(entry.name), self.failed_before.get(entry.name)
            kind = self.source.kind
            if item is None and elsewhere and entry.path is not None:
                kind, item = elsewhere.get(os.fsencode(entry.path), (kind, None))
            # What a table says of a picture counts more than that it lies in this folder.
            if item is not None and (kind != self.source.kind or (entry.stamp and item.stamp == entry.stamp)):
                self.tally.unchanged += 1
            elif before is not None and entry.stamp and before[0] == entry.stamp:
                self.tally.failed[entry.name] = before
            else:
                yield Loaded(entry, item)

    # In worker threads ------------------------------------------------------------------------------------------

    def _load(self, loaded: Loaded) -> Loaded:
        """Read, compare with what is known, decode, shrink. A bad picture becomes a fault, never an exception."""
        loaded.fault = loaded.entry.fault
        if loaded.fault is None:
            try:
                metadata_json(loaded.entry.metadata)
                self._read(loaded)
            except MemoryError:
                loaded.fault, loaded.again = "there was not enough memory to open it", True
            except (PictureError, MissingDependency, InvalidInput) as error:
                loaded.fault = str(error)
                loaded.again |= isinstance(error, MissingDependency)
        return loaded

    def _read(self, loaded: Loaded) -> None:
        entry = loaded.entry
        if entry.image is not None:
            data = loaded.data = entry.image if isinstance(entry.image, bytes) else _png(entry.image)
        elif entry.path is not None:
            loaded.again = True  # what cannot be read today may be readable tomorrow
            data = read_bytes(entry.path, MAX_BYTES)
            loaded.again = False
        else:
            return
        loaded.content = content_hash(data)
        with self.catalog.snapshot():
            loaded.facts = self.catalog.picture_facts(loaded.content, self.picture_spaces)
        if loaded.facts is None:
            opened = open_picture(data, min_side=self.fields.encoder.image_size)
            loaded.prepared = self.fields.prepare(opened.image)
            # The decoded picture is large and has served; a whole batch of them is held.
            loaded.facts = PictureFacts(opened.width, opened.height, opened.perceptual, opened.taken, {})

    # Committing -------------------------------------------------------------------------------------------------

    def _commit(self, batch: Sequence[Loaded]) -> None:
        """Encode what is new in a batch, then store the batch in one transaction."""
        good = [loaded for loaded in batch if loaded.fault is None]
        for loaded in good:
            self._follow(loaded)
        # Identical pictures of one batch are encoded once and share their rows.
        first_of = {loaded.content: i for i, loaded in reversed(list(enumerate(good))) if loaded.prepared}
        encoded = self.fields.encode(
            {i: prepared for i in first_of.values() if (prepared := good[i].prepared) is not None},
            {i: loaded.entry.text or "" for i, loaded in enumerate(good) if loaded.new_text},
        )
        stale: list[Path] = []
        with self.catalog.transaction():
            start = {name: self.store.append(self.records[name], rows) for name, rows in encoded.rows.items()}
            for i, loaded in enumerate(good):
                source = first_of.get(loaded.content, i) if loaded.prepared else i
                loaded.fault = encoded.faults.get(source) or encoded.faults.get(i) or self._id_fault(loaded)
                if loaded.fault is None:
                    self._put(loaded, encoded.rows_of(i, source, start), stale)
            self._note_failures(batch)
        self.store.kept.drop(stale)

    def _follow(self, loaded: Loaded) -> None:
        """If the picture is that of an item whose file is no longer where it was, it is that item."""
        if loaded.old is not None or loaded.content is None or loaded.entry.own_id:
            return
        name = os.path.basename(loaded.entry.name)
        here = [pair for pair in self.gone.get(loaded.content, []) if pair[1].key not in self.followed]
        here.sort(key=lambda pair: os.path.basename(pair[0]) == name)
        candidates = [item for _, item in reversed(here)]
        if not candidates and self.source.kind == "folder":
            candidates = [item for item in self.catalog.strays(loaded.content) if item.key not in self.followed]
        for item in candidates:
            if item.path and not os.path.lexists(item.path):
                loaded.old, loaded.moved = item, True
                self.followed.add(item.key)
                return

    def _put(self, loaded: Loaded, rows: Mapping[str, Sequence[int]], stale: list[Path]) -> None:
        """Store one item and say which rows are its own."""
        old, item = loaded.old, self._item(loaded)
        if old and loaded.same and self.catalog.is_stored_as(old.key, item.path, item.metadata):
            self.catalog.restamp(old.key, item.stamp)
            self.tally.unchanged += 1
            return
        key = self.catalog.put(item, old.key if old else None)
        self._assign(key, loaded, rows)
        if old and old.path and item.path != path_of(old.path):
            stale.append(path_of(old.path))
        self.tally.moved += loaded.moved
        self.tally.added += not loaded.moved
        self.tally.changed += bool(old) and not loaded.moved

    def _assign(self, key: int, loaded: Loaded, rows: Mapping[str, Sequence[int]]) -> None:
        """Give an item its rows, take from it those of what it no longer has, in every space there is."""
        known = loaded.facts.rows if loaded.facts else {}
        for name, record in self.records.items():
            if name in rows and (name == "text" or loaded.new_picture):
                self.book.assign(record.space, {key: rows[name]})
            elif name != "text" and loaded.new_picture and record.space in known:
                self.book.assign(record.space, {key: known[record.space]})
            elif (loaded.entry.text if name == "text" else loaded.content) is None:
                self.book.release(record.space, [key])
        spaces = [record.space for record in self.records.values()]
        for text, changed in ((True, loaded.new_text), (False, loaded.new_picture)):
            if changed and loaded.old:
                self.book.forget_others(key, spaces, text=text)

    def _item(self, loaded: Loaded) -> NewItem:
        entry, old, facts = loaded.entry, loaded.old, loaded.facts
        metadata, path = dict(entry.metadata), entry.path
        if loaded.data is not None and loaded.content is not None:
            path = self.store.kept.keep(loaded.content.hex(), loaded.data)
        if self.source.kind == "folder" and facts is not None:
            metadata |= {"width": facts.width, "height": facts.height}
            metadata |= {"taken": facts.taken, "year": int(facts.taken[:4])} if facts.taken else {}
        return NewItem(
            root=self.root, entry=entry.name, stamp=entry.stamp, id=old.id if old else self._free_id(entry),
            path=path, text=entry.text, metadata=metadata, content=loaded.content, facts=facts,
        )  # fmt: skip

    def _id_fault(self, loaded: Loaded) -> str | None:
        given = loaded.entry.own_id and self.source.kind == "added"
        if loaded.old is None and given and self.catalog.id_taken(loaded.entry.id):
            return f"the id {loaded.entry.id!r} belongs to an item that was added from elsewhere: choose another"
        return None

    def _free_id(self, entry: Entry) -> str:
        """The entry's id, made unique where another root has taken it."""
        if not self.catalog.id_taken(entry.id):
            return entry.id
        named = f"{display_path(self.source.path).rpartition('/')[2]}/{entry.id}" if self.source.path else entry.id
        candidates = (named if n == 1 else f"{named} ({n})" for n in range(1, 1_000_000))
        return next(id for id in candidates if not self.catalog.id_taken(id))

    def _note_failures(self, batch: Sequence[Loaded]) -> None:
        failed = {}
        for loaded in batch:
            if loaded.fault is not None:
                shown = display_path(loaded.entry.path) if loaded.entry.path else loaded.entry.id
                stamp = "" if loaded.again or loaded.entry.fault else loaded.entry.stamp
                failed[loaded.entry.name] = (stamp, shown, loaded.fault.removeprefix(f"{shown}: "))
        self.tally.failed |= failed
        self.catalog.set_failures(self.root, failed, [loaded.entry.name for loaded in batch if loaded.fault is None])


def _png(image: object) -> bytes:
    """A picture in memory as the bytes of a file."""
    if not isinstance(image, Image.Image):
        raise InvalidInput(f"expected a picture as a PIL image or bytes, got {type(image).__name__}")
    buffer = BytesIO()
    mode = image.mode if image.mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16") else "RGBA"
    converted = image if mode == image.mode else image.convert(mode)
    converted.save(buffer, "PNG", exif=image.getexif().tobytes(), compress_level=1)
    return buffer.getvalue()
