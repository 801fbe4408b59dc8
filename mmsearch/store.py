"""``Store``: the directory on disk that an engine owns: catalog, vectors, indexes and kept pictures.

::

    store/
      catalog.sqlite      the truth: items, metadata, which row of which space is whose
      spaces/             vectors, one append-only file a space
      indexes/            HNSW graphs: a cache, rebuilt from the two above whenever it does not fit them
      pictures/           copies of pictures that were given in memory
      bank/               queries of the kind that people ask, for reranking
      recommender/        what was learnt from interactions
      clusters/           the latest clusters, by which new ones are known again
      maps/               maps of the items
      writer.lock         who writes
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmsearch.catalog import FILE, Catalog, EncoderRecord, RowBook, SpaceRecord
from mmsearch.errors import EncoderMismatch, InvalidInput, StoreDamaged, StoreError
from mmsearch.files import size_of
from mmsearch.kept import KeptPictures
from mmsearch.locks import WriterLock
from mmsearch.protocols import Encoder
from mmsearch.searchspace import SearchSpace
from mmsearch.spaces import BLOCK, SpaceFile
from mmsearch.types import FIELDS, SPACES, Report

DEFAULT_FIELDS = ("picture", "text")
_ATTEMPTS = 3
_OWN_FILE = re.compile(r"(\d+-[a-z]+-\d+)\.(vectors|usearch|hubs)")
_FOLDERS = ("spaces", "indexes", "pictures", "bank", "recommender", "clusters", "maps")
_ENCODER, _NEXT, _FIELDS = "encoder", "next_encoder", "fields"


@dataclass(frozen=True, slots=True)
class View:
    """One state of a store: its encoder and its searchable spaces by field."""

    generation: int
    encoder: EncoderRecord | None
    spaces: Mapping[str, SearchSpace]
    held: tuple[str, ...]
    """The searchable fields in which at least one item has a vector."""


def check_fields(fields: Sequence[str]) -> None:
    """See that these are spaces, and that one of them can be searched.

    Raises
    ------
    InvalidInput
        Otherwise.
    """
    if any(name not in SPACES for name in fields) or not set(fields) & set(FIELDS):
        got = ", ".join(fields) or "none"
        raise InvalidInput(f"expected spaces of {', '.join(SPACES)}, at least picture or text; got {got}")


class Store:
    """Opens or makes a store.

    Raises
    ------
    StoreError
        If the path is something else, or cannot be written or read.
    StoreDamaged
        If the catalog is damaged, or gone from a store that has vectors.
    """

    def __init__(self, path: Path, *, create: bool = True, follow_move: bool = True) -> None:
        self.path = path
        self._prepare(create)
        self.catalog = Catalog(path)
        if self._has_vectors() and not self.catalog.spaces():  # in this order: another process may be filling it
            self.catalog.close()
            raise StoreDamaged(f"the store {path} has vectors but its {FILE} is empty: restore that file from a backup")
        self.book = RowBook(self.catalog)
        self.kept = KeptPictures(path / "pictures", self.catalog)
        self.lock = WriterLock(path)
        if follow_move and not self.catalog.database.read_only:
            self.kept.follow_move()
        self._view: View | None = None
        self._view_lock = threading.Lock()
        self._reading = threading.local()

    def _prepare(self, create: bool) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise StoreError(f"expected a folder for the store, got the file {self.path}")
        if (self.path / FILE).exists():
            return
        reason = self._reason_against(create)
        if (self.path / FILE).exists():  # asked again: another process may be making the store, and fill it
            return
        if reason is not None:
            raise reason
        try:
            for name in _FOLDERS:
                (self.path / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"the store {self.path} cannot be made: {error.strerror}") from error

    def _reason_against(self, create: bool) -> StoreError | None:
        """Why no store can be made here."""
        if self._has_vectors():
            return StoreDamaged(f"the store {self.path} has vectors but no {FILE}: restore that file from a backup")
        if not create:
            return StoreError(f"there is no store at {self.path}: make one with `mmsearch index FOLDER`")
        if self._has_others():
            got = "a folder with other files in it"
            return StoreError(f"expected a store or an empty folder at {self.path}, got {got}")
        return None

    def _has_others(self) -> bool:
        """Whether there is anything in the folder that no store makes."""
        there = self.path.iterdir() if self.path.exists() else ()
        return any(child.name not in _FOLDERS and child.name[0] != "." for child in there)

    def _has_vectors(self) -> bool:
        return any(size_of(file) for file in (self.path / "spaces").glob("*.vectors"))

    def close(self) -> None:
        """Close the catalog; mapped vectors are let go."""
        self._view = None
        self.catalog.close()

    # Reading ----------------------------------------------------------------------------------------------------

    @contextmanager
    def reading(self) -> Iterator[View]:
        """One state of catalog and vectors for everything read inside, by this thread; inside it, the same again."""
        outer: View | None = getattr(self._reading, "view", None)
        if outer is not None:
            yield outer
            return
        for attempt in range(_ATTEMPTS):
            with self.catalog.snapshot():
                try:
                    view = self.view()
                except StoreDamaged:
                    # A writer may have replaced a file after this snapshot was taken; a new one names the new file.
                    if attempt == _ATTEMPTS - 1:
                        raise
                    continue
                self._reading.view = view
                try:
                    yield view
                finally:
                    self._reading.view = None
                return

    def view(self) -> View:
        """The spaces as the catalog has them now; what has not changed since the last view is kept."""
        generation = self.catalog.generation()
        view = self._view
        if view is not None and view.generation == generation:
            return view
        with self._view_lock:
            encoder = self.encoder()
            old = {space.record.space: space for space in (self._view.spaces.values() if self._view else ())}
            spaces = {}
            for record in self.catalog.spaces(encoder.encoder) if encoder else ():
                kept = old.get(record.space)
                same = kept is not None and kept.record == record and not kept.lacks_graph
                spaces[record.field] = kept if kept and same else self._search_space(record, kept)
            held = tuple(name for name in FIELDS if name in spaces and self.book.any(spaces[name].record.space))
            view = self._view = View(generation, encoder, spaces, held)
            return view

    def _search_space(self, record: SpaceRecord, old: SearchSpace | None) -> SearchSpace:
        crcs = partial(self.book.block_crcs, record.space)
        return SearchSpace(record, self.file(record).rows(record.rows), self.path / "indexes", crcs, old)

    def file(self, record: SpaceRecord) -> SpaceFile:
        """The file that holds a space's rows."""
        return SpaceFile(self.path / "spaces" / record.file, record.width, record.dtype)

    def encoder(self) -> EncoderRecord | None:
        """The encoder whose spaces are searched; None while nothing was stored."""
        return self._encoder_of(_ENCODER)

    def next_encoder(self) -> EncoderRecord | None:
        """The encoder that an unfinished reindexing is going to switch to."""
        return self._encoder_of(_NEXT)

    def _encoder_of(self, setting: str) -> EncoderRecord | None:
        number, encoders = self.catalog.setting(setting), self.catalog.encoders()
        if number is None and (setting == _NEXT or not encoders or self.catalog.setting(_NEXT) is not None):
            return None
        for record in encoders:
            if str(record.encoder) == number:
                return record
        raise StoreDamaged(
            f"the catalog of {self.path} names an encoder that it does not know: restore it from a backup"
        )

    def fields(self) -> tuple[str, ...]:
        """What is encoded of each item."""
        stored = self.catalog.setting(_FIELDS)
        return tuple(stored.split(",")) if stored else DEFAULT_FIELDS

    # Writing ----------------------------------------------------------------------------------------------------

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Be the only writer.

        Raises
        ------
        StoreBusy
            If another engine or process is.
        """
        if self.catalog.database.read_only:
            raise StoreError(f"the store {self.path} cannot be written: its folder is read-only for you")
        with self.lock.hold():
            yield

    def check_encoder(self, encoder: Encoder) -> None:
        """See that this store may be used with an encoder.

        Raises
        ------
        EncoderMismatch
            If its vectors came from another one, same width or not.
        """
        record = self.encoder()
        if record is not None and record.fingerprint != encoder.fingerprint:
            raise EncoderMismatch(
                f"the store {self.path} was made with {record.name!r} ({record.fingerprint}), the encoder here is "
                f"{encoder.name!r} ({encoder.fingerprint}): open it with encoder={record.name!r}, "
                "or encode everything anew with `mmsearch reindex --encoder …` (Engine.reindex)"
            )

    def set_fields(self, fields: Sequence[str]) -> None:
        """Choose what is encoded of each item; what is there already stays. Raises as ``check_fields`` does."""
        check_fields(fields)
        with self.catalog.transaction():
            self.catalog.set_setting(_FIELDS, ",".join(name for name in SPACES if name in fields))

    def adopt(
        self, encoder: Encoder, widths: Mapping[str, tuple[int, str]], *, following: bool = False
    ) -> dict[str, SpaceRecord]:
        """Make the spaces of an encoder, (width, dtype) by field; ``following``: it takes over later.

        Returns the spaces by field.
        """
        with self.catalog.transaction():
            number = self.catalog.add_encoder(
                encoder.fingerprint, encoder.name, encoder.dim, encoder.licence, encoder.runtime
            )
            for field, (width, dtype) in widths.items():
                self.catalog.add_space(number, field, width, dtype)
            self.catalog.set_setting(_NEXT if following else _ENCODER, str(number))
        return {record.field: record for record in self.catalog.spaces(number) if record.field in widths}

    def switch(self) -> None:
        """Let the following encoder take over, and forget every other one and its vectors."""
        new = self.next_encoder()
        if new is None:
            return
        with self.catalog.transaction():
            self.catalog.set_setting(_ENCODER, str(new.encoder))
            self.catalog.set_setting(_NEXT, None)
            for other in self.catalog.encoders():  # the one before, and those of reindexings that were given up
                if other != new:
                    self.catalog.delete_spaces(other.encoder)
        self.clean()

    def append(self, record: SpaceRecord, values: NDArray[Any]) -> int:
        """Write rows behind the committed ones; return the number of the first. Inside a transaction."""
        db = self.catalog.database.writer
        (rows,) = db.execute("SELECT rows FROM spaces WHERE space = ?", (record.space,)).fetchone()
        last = db.execute("SELECT block, crc FROM blocks WHERE space = ? AND block = ?", (record.space, rows // BLOCK))
        crcs = self.file(record).append(rows, dict(last.fetchall()), values)
        self.book.committed(record.space, rows + len(values), crcs)
        return int(rows)

    def tidy(self, report: Report | None = None) -> None:
        """After writing: drop the rows of removed items where they are many, bring the indexes up to date."""
        for space in self.view().spaces.values():
            live = self.book.count_live(space.record.space)
            if space.record.rows - live > max(1_000, live):
                self._compact(space.record)
        self.clean()
        view = self.view()
        for field in view.held:
            space = view.spaces[field]
            others = [view.spaces[other].matrix for other in view.held if other != field]
            if space.update_index(partial(self.book.live, space.record.space), others, report):
                with self.catalog.transaction():
                    pass  # a new generation, so that every reader looks for the new graph

    def rebuild(self, report: Report | None = None) -> None:
        """Make vectors files and indexes anew, from the stored vectors, without what was removed."""
        for space in self.view().spaces.values():
            if self.book.count_live(space.record.space) < space.record.rows:
                self._compact(space.record)
        for space in self.view().spaces.values():
            space.forget_index()
        self.kept.drop_unused()
        self.tidy(report)

    def _compact(self, record: SpaceRecord) -> None:
        """Copy the rows that somebody owns into a new file and switch to it in one transaction."""
        live = self.book.live(record.space)
        stem, number = record.file.removesuffix(".vectors").rsplit("-", 1)
        name = f"{stem}-{int(number) + 1}.vectors"
        crcs = self.file(record).copy(live, record.rows, self.path / "spaces" / name)
        with self.catalog.transaction():
            self.book.renumber(record.space, live, name, crcs)

    def clean(self) -> None:
        """Remove files that no commit names: vectors of compacted or replaced spaces, and their indexes."""
        (self.path / "indexes").mkdir(exist_ok=True)
        stems = {record.file.removesuffix(".vectors") for record in self.catalog.spaces()}
        for folder in ("spaces", "indexes"):
            for file in (self.path / folder).iterdir():
                stem = _OWN_FILE.match(file.name.removeprefix("."))
                if stem is not None and stem[1] not in stems and file.is_file():
                    file.unlink(missing_ok=True)

    def sample(self, view: View, field: str, n: int) -> NDArray[np.float32]:
        """Evenly spaced vectors of a field that are in use, (at most n, dim); the same for the same state."""
        space = view.spaces.get(field)
        if space is None or space.record.rows == 0:
            return np.zeros((0, 0), dtype=np.float32)
        rows = np.unique(np.linspace(0, space.record.rows - 1, num=min(4 * n, space.record.rows)).astype(np.int64))
        rows = self.book.in_use(space.record.space, rows)
        rows = rows[np.unique(np.linspace(0, len(rows) - 1, num=min(n, len(rows))).astype(np.int64))]
        return space.matrix[rows].astype(np.float32)
