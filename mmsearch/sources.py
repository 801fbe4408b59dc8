"""Where items come from: a folder of pictures, a dataset folder, a table, or what the caller hands over."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from mmsearch.errors import InvalidInput
from mmsearch.files import display_name, display_path
from mmsearch.images import PICTURE_SUFFIXES
from mmsearch.tables import TABLE_SUFFIXES, read_rows
from mmsearch.types import Item

ITEMS_FILE, ZIP_FILE = "items.jsonl", "images.zip"


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that a source offers. ``name`` is its identity there; ``stamp`` changes when it does."""

    name: bytes
    stamp: str
    id: str
    path: Path | None = None
    text: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    image: Any = None
    fault: str | None = None
    """Why it cannot be added, found out before anything was read."""
    own_id: bool = False
    """Whether somebody has chosen the id, so that the item is known by it, whatever its picture."""
    closed_folder: bool = False
    """Whether it stands for a folder that cannot be read: what was found there before is not gone."""


class Source(Protocol):
    """A root of the store: its kind, its place, and what it holds now."""

    kind: str
    path: Path | None
    complete: bool
    """Whether what is not offered any more is gone (a folder), or just not mentioned (``Engine.add``)."""

    def entries(self) -> Iterator[Entry]:
        """Everything it holds, in a fixed order."""
        ...


def open_source(path: Path) -> Source:
    """Find out what a path is: a dataset folder, a folder of pictures, a table or a single picture.

    Raises
    ------
    InvalidInput
        If it is none of these, or not there.
    """
    path = Path(os.path.abspath(path.expanduser()))
    if path.is_dir():
        return Table(path / ITEMS_FILE, "dataset") if (path / ITEMS_FILE).is_file() else Folder(path)
    if path.is_file() and path.suffix.lower() in TABLE_SUFFIXES:
        return Table(path, "table")
    if path.is_file() and path.suffix.lower() in PICTURE_SUFFIXES:
        return Given([path])
    expected = f"a folder, a picture, or a table ({', '.join(TABLE_SUFFIXES)})"
    raise InvalidInput(f"expected {expected}, got {path}" + ("" if path.exists() else ", which does not exist"))


def source_of_root(kind: str, path: Path) -> Source:
    """The source that a root of the store was made from, to look at it again."""
    match kind:
        case "dataset":
            return Table(path / ITEMS_FILE, "dataset")
        case "table":
            return Table(path, "table")
        case _:
            return Folder(path)


class Folder:
    """Every picture below a folder; hidden files and folders and symbolic links are passed over.

    Links are not followed because they make loops and name one picture twice.
    """

    kind = "folder"
    complete = True

    def __init__(self, path: Path) -> None:
        self.path: Path | None = path
        self._path = path

    def entries(self) -> Iterator[Entry]:
        """Every picture, folder by folder, by name."""
        if not self._path.is_dir():
            raise InvalidInput(f"expected a folder, got {self._path}, which is not there: is its disk connected?")
        return self._walk(os.fsencode(self._path), b"")

    def _walk(self, folder: bytes, inside: bytes) -> Iterator[Entry]:
        try:
            with os.scandir(folder) as listing:
                children = sorted(listing, key=lambda child: child.name)
        except OSError as error:
            name = inside or b"."
            reason = f"the folder cannot be read: {error.strerror}"
            yield Entry(name, "", display_name(name), Path(os.fsdecode(folder)), fault=reason, closed_folder=True)
            return
        for child in children:
            if child.name.startswith(b"."):
                continue
            name = inside + b"/" + child.name if inside else child.name
            if child.is_dir(follow_symlinks=False):
                yield from self._walk(child.path, name)
            elif os.path.splitext(child.name)[1].lower().decode("ascii", "replace") in PICTURE_SUFFIXES:
                entry = self._entry(child, name)
                if entry is not None:
                    yield entry

    def _entry(self, child: os.DirEntry[bytes], name: bytes) -> Entry | None:
        try:
            status = child.stat(follow_symlinks=False)
        except OSError:
            return None  # gone since it was listed
        if not stat.S_ISREG(status.st_mode):
            return None
        shown = display_name(name)
        folder, _, file = shown.rpartition("/")
        stamp = f"{status.st_size} {status.st_mtime_ns}"
        return Entry(name, stamp, shown, Path(os.fsdecode(child.path)), metadata={"folder": folder, "name": file})


class Table:
    """The rows of ``items.jsonl``, CSV or Parquet, with their pictures beside it or in an ``images.zip`` beside it.

    A row's text is its ``text``, else its ``title``, else the first of its ``captions``; every field but ``id``,
    ``image`` and ``text`` is metadata.
    """

    complete = True

    def __init__(self, file: Path, kind: str) -> None:
        self.kind = kind
        self.file = file
        self.path: Path | None = file.parent if kind == "dataset" else file

    def entries(self) -> Iterator[Entry]:
        """Every row, in the file's order."""
        if not self.file.is_file():
            raise InvalidInput(f"expected the table {self.file}, which is not there: is its disk connected?")
        places = _Places(self.file.parent)
        seen: set[bytes] = set()
        for number, row in enumerate(read_rows(self.file), start=1):
            entry = self._entry(number, row, places)
            if entry.name in seen:
                entry = Entry(
                    b"line %d" % number, entry.stamp, "", entry.path or self.file,
                    fault=f"line {number} has the same id or picture as a line before it: give each line its own id",
                )  # fmt: skip
            seen.add(entry.name)
            yield entry

    def _entry(self, number: int, row: Mapping[str, Any] | str, places: _Places) -> Entry:
        where = f"{self.file.name} line {number}"
        if isinstance(row, str):
            return Entry(b"line %d" % number, row, "", self.file, fault=f"{where}: {row}")
        image, text = _string(row.get("image")), text_of(row)
        given = _string(row.get("id"))
        metadata = {
            name: value for name, value in row.items() if name not in ("id", "image", "text") and value is not None
        }
        digest = _short_hash(json.dumps(row, sort_keys=True, default=str).encode())
        if image is None and text is None:
            return Entry(
                b"line %d" % number, digest, "", self.file, fault=f"{where}: expected an image or a text, got neither"
            )
        path, stamp = places.find(image) if image is not None else (None, "")
        id = given or image or f"text-{_short_hash((text or '').encode())}"
        name = f"id:{id}".encode() if given else id.encode()
        fault = "web addresses are not fetched: download the picture first" if _is_address(image) else None
        return Entry(name, f"{digest} {stamp}", id, path, text, metadata, fault=fault, own_id=given is not None)


class Given:
    """Items that a caller hands over, known by their ids."""

    kind = "added"
    path: Path | None = None
    complete = False

    def __init__(self, items: Iterable[Item | Path | str]) -> None:
        self._items = items

    def entries(self) -> Iterator[Entry]:
        """Each item; a bare ``Path`` is a picture, a bare ``str`` a text."""
        for number, given in enumerate(self._items):
            match given:
                case Item():
                    item = given
                case Path():
                    item = Item(path=given)
                case str():
                    item = Item(text=given)
                case _:
                    raise InvalidInput(f"expected items as Item, Path or str, got {type(given).__name__} at {number}")
            yield self._entry(item)

    def _entry(self, item: Item) -> Entry:
        path = None if item.path is None else Path(os.path.abspath(item.path.expanduser()))
        text = _string(item.text) if item.text and item.text.strip() else None
        own_id = _string(item.id)
        id = own_id or self._chosen_id(item, path, text)
        name = f"id:{id}".encode() if own_id or path is None else b"path:" + os.fsencode(path)
        neither = path is None and item.image is None and text is None
        fault = "expected a picture or a text, got neither" if neither else None
        return Entry(name, "", id, path, text, dict(item.metadata), item.image, fault, own_id is not None)

    def _chosen_id(self, item: Item, path: Path | None, text: str | None) -> str:
        if path is not None:
            return display_path(path).rpartition("/")[2]
        if item.image is not None:
            data = item.image if isinstance(item.image, bytes) else item.image.tobytes()
            return f"picture-{_short_hash(data)}"
        return f"text-{_short_hash((text or '').encode())}"


class _Places:
    """Finds a row's picture: an absolute path, beside the table, or in the zip beside it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._zip = folder / ZIP_FILE
        self._members: dict[str, str] = {}
        if self._zip.is_file():
            try:
                with zipfile.ZipFile(self._zip) as archive:
                    self._members = {info.filename: f"{info.file_size} {info.CRC}" for info in archive.infolist()}
            except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
                raise InvalidInput(
                    f"{self._zip} cannot be read: {error}; replace it, or unpack what is left"
                ) from error

    def find(self, image: str) -> tuple[Path, str]:
        """The picture's path and a stamp that changes when the picture does."""
        if image in self._members:
            return self._zip / image, self._members[image]
        path = Path(os.path.abspath(self._folder / image))
        try:
            status = path.stat()
        except (OSError, ValueError):
            return path, "missing"
        return path, f"{status.st_size} {status.st_mtime_ns}"


def text_of(row: Mapping[str, Any]) -> str | None:
    """An item's text: ``text``, else ``title``, else the first of ``captions``; blank ones do not count."""
    captions = row.get("captions")
    first = (
        captions[0] if isinstance(captions, Sequence) and not isinstance(captions, str) and len(captions) else captions
    )
    for candidate in (row.get("text"), row.get("title"), first):
        text = None if isinstance(candidate, list | dict) else _string(candidate)
        if text is not None and text.strip():
            return text
    return None


def _string(value: object) -> str | None:
    """A field as text without lone surrogates, which SQLite cannot hold; None if there is nothing in it."""
    return None if value is None or value == "" else str(value).encode("utf-8", "replace").decode("utf-8")


def _short_hash(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def _is_address(image: str | None) -> bool:
    return image is not None and "://" in image[:12]
