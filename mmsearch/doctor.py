"""``mmsearch doctor``: every checksum and every invariant, and what to do where one does not hold."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mmsearch.catalog import path_of
from mmsearch.encoders.builtin import mini_checksums, mini_folder, mini_spec
from mmsearch.encoders.cache import export_folder
from mmsearch.encoders.onnx import OnnxEncoder, file_digest
from mmsearch.errors import MMSearchError, StoreDamaged
from mmsearch.files import display_path, split_member
from mmsearch.places import default_cache
from mmsearch.store import Store
from mmsearch.types import FIELDS

_ATTEMPTS = 3
GOOD, NOTE, BAD = "ok", "note", "bad"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked: ``level`` is ok, note (works, but look at it) or bad; ``advice`` says what to do."""

    level: str
    subject: str
    message: str
    advice: str = ""


def examine(store: Path | None) -> Iterator[Finding]:
    """Check the installation, and a store if there is one."""
    yield from _guard("embedded model", _check_weights)
    yield from _guard("encoder cache", _check_cache)
    if store is None or not store.exists():
        yield Finding(NOTE, "store", f"there is none at {store}", "make one with `mmsearch index FOLDER`")
        return
    try:
        opened = Store(store, create=False, follow_move=False)
    except MMSearchError as error:
        yield Finding(BAD, "store", str(error), "see the message")
        return
    try:
        for subject, check in _STORE_CHECKS.items():
            yield from _settled(subject, partial(check, opened))
    finally:
        opened.close()


def _settled(subject: str, check: Callable[[], Iterator[Finding]]) -> list[Finding]:
    """A check's findings about one state of the store: what is wrong only because somebody is writing is not told."""
    findings: list[Finding] = []
    for _ in range(_ATTEMPTS):
        findings = list(_guard(subject, check))
        if all(finding.level != BAD for finding in findings):
            break
    return findings


def _guard(subject: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """A check's findings; its failure is a finding, and silence means that all is well."""
    found = False
    try:
        for finding in check():
            found = True
            yield finding
    except (MMSearchError, OSError) as error:
        found = True
        yield Finding(BAD, subject, str(error), "see the message")
    if not found:
        yield Finding(GOOD, subject, "as it should be")


def _check_weights() -> Iterator[Finding]:
    for name, digest in mini_checksums().items():
        file = mini_folder() / name
        if not file.is_file() or file_digest(file) != digest:
            yield Finding(BAD, "embedded model", f"{name} is missing or altered", "reinstall mmsearch")


def _check_cache() -> Iterator[Finding]:
    folder = export_folder(default_cache(), mini_spec().fingerprint)
    if not folder.is_dir():
        yield Finding(NOTE, "encoder cache", "the embedded model was not exported yet", "the first use does it")
        return
    for name, digest in OnnxEncoder(folder).card["sha256"].items():
        if file_digest(folder / name) != digest:
            yield Finding(
                BAD, "encoder cache", f"{folder / name} is damaged", f"delete the folder {folder}: it is made again"
            )


Check = Callable[[Store], Iterator[Finding]]


def _of_one_state(check: Check) -> Check:
    """The check, looking at one state of the catalog throughout, whatever is written meanwhile."""

    def checked(store: Store) -> Iterator[Finding]:
        with store.catalog.snapshot():
            yield from check(store)

    return checked


@_of_one_state
def _check_catalog(store: Store) -> Iterator[Finding]:
    db = store.catalog.database.reader
    (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        yield Finding(BAD, "catalog", f"SQLite finds it damaged: {verdict}", "restore it from a backup, or index again")
    if db.execute("PRAGMA foreign_key_check").fetchone() is not None:
        yield Finding(BAD, "catalog", "it names items that are not there", "restore it from a backup, or index again")


@_of_one_state
def _check_vectors(store: Store) -> Iterator[Finding]:
    advice = "restore the file from a backup, or encode anew: `mmsearch reindex --encoder NAME`"
    for record in store.catalog.spaces():
        try:
            damaged = store.file(record).damaged_blocks(record.rows, store.book.block_crcs(record.space))
        except StoreDamaged as error:
            yield Finding(BAD, "vectors", str(error), advice)
            continue
        if damaged:
            yield Finding(BAD, "vectors", f"{record.file}: the checksums of blocks {damaged[:5]} do not hold", advice)
        beyond = store.book.beyond(record.space, record.rows)
        if beyond:
            yield Finding(BAD, "vectors", f"{record.file}: {beyond} items point behind its end", advice)


@_of_one_state
def _check_items(store: Store) -> Iterator[Finding]:
    encoder = store.encoder()
    for record in store.catalog.spaces(encoder.encoder) if encoder else ():
        field = record.field
        lacking = len(store.book.without(record.space, "text" if field == "text" else "content"))
        if lacking:
            yield Finding(NOTE, "items", f"{lacking} items have no {field} vectors yet", "run `mmsearch sync`")
    missing = [path for path in _places(store) if not path.exists()]
    if missing:
        shown = f"{len(missing)} files are not where they were, for example {display_path(missing[0])}"
        yield Finding(NOTE, "items", shown, "connect their disk, or run `mmsearch sync` if they have moved or are gone")


def _places(store: Store) -> Iterator[Path]:
    """The files that hold pictures; a zip file once, not once a member."""
    seen = set()
    for _, item in store.catalog.items():
        if item.path is not None:
            member = None if os.path.lexists(item.path) else split_member(item.path)
            place = member[0] if member else item.path
            if place not in seen:
                seen.add(place)
                yield place


@_of_one_state
def _check_index(store: Store) -> Iterator[Finding]:
    for field, space in store.view().spaces.items():
        if field in FIELDS and space.needs_graph and space.graph() is None:
            yield Finding(
                NOTE, "index", f"{field}: there is no usable graph, searches scan everything", "run `mmsearch sync`"
            )
        elif field in FIELDS:
            recall = space.recall(store.book.live(space.record.space))
            if recall < space.recall_target:
                message = f"{field}: it finds {recall:.1%} of the nearest ten, expected {space.recall_target:.0%}"
                yield Finding(NOTE, "index", message, "build it anew: Engine.rebuild()")


@_of_one_state
def _check_failures(store: Store) -> Iterator[Finding]:
    failures = list(store.catalog.failures().values())
    if failures:
        _, path, reason = failures[0]
        message = f"{len(failures)} files could not be added, for example {path}: {reason}"
        yield Finding(NOTE, "failures", message, "mend or delete the files, then run `mmsearch sync`")
    roots = [path_of(path) for _, _, path in store.catalog.roots() if path]
    for root in roots:
        if not root.exists():
            yield Finding(NOTE, "folders", f"{root} is not there", "connect its disk; its items stay until then")


_STORE_CHECKS: dict[str, Check] = {
    "catalog": _check_catalog,
    "vectors": _check_vectors,
    "items": _check_items,
    "index": _check_index,
    "failures": _check_failures,
}
