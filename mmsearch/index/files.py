"""Save several files as one generation, and refuse anything that is not whole.

A generation is the index file, its parts beside it under further suffixes, and a manifest, ``<path>.json``, with the
length and SHA-256 of each and of itself. Everything is written to temporary files first; the manifest goes last. A
crash in between leaves files that contradict their manifest, which ``verify`` refuses.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from mmsearch.errors import StoreDamaged, StoreError

Writer: TypeAlias = Callable[[Path], int | None]
"""Writes a file and says how long it must have become, if it knows."""
Meta: TypeAlias = Mapping[str, str | int | float]

MANIFEST = ".json"
GROUPS = ".groups"
SUFFIXES = (MANIFEST, "", GROUPS)
"""The files of a generation; in ``quarantine`` the manifest goes first, without which the others are refused."""
TEMPORARY = ".tmp"
DAMAGED = ".damaged-"
FORMAT = 1


def save_generation(path: Path, parts: Mapping[str, Writer], facts: Mapping[str, object]) -> None:
    """Write ``path`` + suffix for each part, and the manifest with these facts. A failure leaves the old files.

    Raises
    ------
    StoreError
        If a file cannot be written whole.
    """
    try:
        _remove_leftovers(path)
        written = {suffix: _write_aside(path, suffix, writer) for suffix, writer in parts.items()}
        files = {suffix: {"bytes": aside.stat().st_size, "sha256": _sha256(aside)} for suffix, aside in written.items()}
        manifest = {"format": FORMAT, "files": files, **facts}
        manifest["sha256"] = _manifest_sum(manifest)
        text = json.dumps(manifest, indent=1)
        aside = _write_aside(path, MANIFEST, lambda temporary: temporary.write_bytes(text.encode()))
        for suffix, finished in written.items():
            os.replace(finished, _beside(path, suffix))
        _sync_folder(path.parent)
        os.replace(aside, _beside(path, MANIFEST))
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as error:
        raise StoreError(f"could not save the index {path}: {error}; free space or check the permissions") from error
    finally:
        _remove_leftovers(path)


def verify(path: Path) -> dict[str, Any]:
    """Check all files of a generation against the manifest, and return it.

    Raises
    ------
    StoreDamaged
        If anything is missing, cut short, changed or from another generation.
    """
    manifest = read_manifest(path)
    for suffix, expected in manifest["files"].items():
        file = _beside(path, suffix)
        try:
            found = {"bytes": file.stat().st_size, "sha256": _sha256(file)}
        except OSError as error:
            raise StoreDamaged(f"expected an index file {file}, cannot read it: {error}; rebuild the index") from error
        if found != expected:
            raise StoreDamaged(f"expected {file} as its manifest describes it, found other contents; rebuild the index")
    return manifest


def read_manifest(path: Path) -> dict[str, Any]:
    """Return the manifest of the index at ``path``, checked against its own checksum; the files are not read.

    Raises
    ------
    StoreDamaged
        If it is missing, damaged or of another format.
    """
    file = _beside(path, MANIFEST)
    try:
        manifest = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise StoreDamaged(f"expected an index manifest {file}: {error}; rebuild the index") from error
    if not isinstance(manifest, dict) or manifest.pop("sha256", None) != _manifest_sum(manifest):
        raise StoreDamaged(f"expected the manifest {file} unchanged, its checksum differs; rebuild the index")
    if manifest.get("format") != FORMAT:
        raise StoreDamaged(f"expected index format {FORMAT}, found {manifest.get('format')!r}; rebuild the index")
    return manifest


def read_meta(path: Path) -> dict[str, Any]:
    """Return what the caller of ``save`` had recorded with the index at ``path``.

    Raises
    ------
    StoreDamaged
        If there is no whole manifest.
    """
    return dict(read_manifest(path)["meta"])


def array_writer(arrays: Mapping[str, Any]) -> Writer:
    """Make a part of a generation out of named arrays."""

    def write(path: Path) -> None:
        with open(path, "wb") as file:
            np.savez(file, **arrays)

    return write


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Read what ``array_writer`` wrote.

    Raises
    ------
    ValueError
        If it is something else.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except BadZipFile as error:
        raise ValueError(str(error)) from error


def quarantine(path: Path) -> Path | None:
    """Move the files of an index aside, so that nothing loads them again. The latest damaged set is kept.

    Returns the new path of the index file, ``<path>.damaged-<n>``, or None if there was nothing to move. The other
    files keep their suffixes behind that name.
    """
    names = _siblings(path)
    present = [suffix for suffix in SUFFIXES if path.name + suffix in names]
    if not present:
        return None
    earlier = [name for name in names if name.startswith(path.name + DAMAGED)]
    numbers = [name.removeprefix(path.name + DAMAGED).split(".")[0] for name in earlier]
    number = max((int(text) for text in numbers if text.isdecimal()), default=0) + 1
    aside = path.with_name(f"{path.name}{DAMAGED}{number}")
    for suffix in present:
        os.replace(_beside(path, suffix), _beside(aside, suffix))
    for name in earlier:
        path.with_name(name).unlink(missing_ok=True)
    _sync_folder(path.parent)
    return aside


def _siblings(path: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(path.parent)) if path.parent.is_dir() else []


def _write_aside(path: Path, suffix: str, writer: Writer) -> Path:
    aside = path.with_name(f".{path.name}{suffix}{TEMPORARY}")
    expected = writer(aside)
    with open(aside, "rb+") as file:
        os.fsync(file.fileno())
    length = aside.stat().st_size
    if expected is not None and length != expected:
        raise OSError(f"{length} of {expected} bytes were written")
    return aside


def _remove_leftovers(path: Path) -> None:
    for name in _siblings(path):
        if name.startswith(f".{path.name}") and name.endswith(TEMPORARY):
            path.with_name(name).unlink(missing_ok=True)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _sha256(file: Path) -> str:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _manifest_sum(manifest: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":  # Windows cannot open folders
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
