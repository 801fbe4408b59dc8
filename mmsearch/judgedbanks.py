"""Banks for judged queries: texts or pictures of the same kind, and never the judged ones themselves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmsearch.bank import Bank, distinct, encode_bank
from mmsearch.engine import Engine
from mmsearch.errors import InvalidInput, PictureError
from mmsearch.files import content_hash, read_bytes
from mmsearch.images import MAX_BYTES, open_picture
from mmsearch.judged import TEXT_TO_IMAGE, Judged, captions_of, plain
from mmsearch.overlap import ahead, batches
from mmsearch.sources import open_source
from mmsearch.types import Picture, Progress, Report

MAX_PICTURE_BANK = 2_000
"""Pictures of a bank for queries that are pictures; more take minutes to encode."""
_BATCH = 64


def read_bank(source: Path) -> list[str]:
    """The texts of a bank: a text file's lines, or the captions of a dataset folder or table.

    Raises
    ------
    InvalidInput
        If there are none.
    """
    source = source.expanduser()
    if not source.exists():
        raise InvalidInput(f"expected a bank as a text file or a dataset folder, got {source}, which does not exist")
    if _is_text_file(source):
        try:
            return distinct(source.read_text("utf-8-sig").splitlines())
        except UnicodeDecodeError as error:
            raise InvalidInput(f"expected a bank as UTF-8 text, one query a line, got {source}: {error}") from error
    return distinct([text for entry in open_source(source).entries() for text in captions_of(entry)])


def _is_text_file(source: Path) -> bool:
    return source.is_file() and source.suffix.lower() in (".txt", ".log", "")


def bank_for(judged: Judged, source: Path, engine: Engine, report: Report | None = None) -> dict[str, Bank]:
    """A bank for judged queries, by their kind; never the evaluated queries themselves.

    Texts for queries that are texts; for queries that are pictures the pictures of a dataset.

    Raises
    ------
    InvalidInput
        If nothing is left of the bank, or texts are offered to queries that are pictures.
    """
    if judged.task == TEXT_TO_IMAGE:
        return encode_for(engine, without(read_bank(source), judged), source, report)
    return encode_for(engine, bank_pictures(judged, source), source, report)


def encode_for(
    engine: Engine, bank: Sequence[str] | Sequence[Path], source: Path, report: Report | None = None
) -> dict[str, Bank]:
    """A bank of these texts or pictures, by the kind of queries that it is for."""
    texts = [one for one in bank if isinstance(one, str)]
    if texts:
        return {"text": encode_bank(texts, engine.encoder, str(source), report)}
    return {"picture": _encode_pictures([one for one in bank if isinstance(one, Path)], engine, str(source), report)}


def bank_pictures(judged: Judged, source: Path) -> list[Path]:
    """The pictures of a bank that are none of the evaluated dataset, by what is in the files.

    Raises
    ------
    InvalidInput
        If none is left, or the bank is of texts.
    """
    source = source.expanduser()
    if not source.exists():
        raise InvalidInput(f"expected a bank as a text file or a dataset folder, got {source}, which does not exist")
    if _is_text_file(source):
        raise InvalidInput(
            f"expected a dataset folder with pictures as bank for queries that are pictures, got {source}"
        )
    entries = [entry for entry in open_source(source).entries() if entry.fault is None]
    paths = [entry.path for entry in entries if entry.path is not None]
    places = np.unique(np.linspace(0, len(paths) - 1, min(MAX_PICTURE_BANK, len(paths))).astype(np.int64))
    chosen = [path for path in (paths[n] for n in places) if path not in judged.pictures]
    ours = set(ahead(_content, judged.pictures if chosen else (), 2 * _BATCH))
    contents = ahead(_content, chosen, 2 * _BATCH)
    kept = [path for path, content in zip(chosen, contents, strict=True) if content and content not in ours]
    if not kept:
        raise InvalidInput(f"expected other pictures than the evaluated ones in the bank {source}, got none")
    return kept


def _content(path: Path) -> bytes:
    """A digest of a file; nothing of one that cannot be read."""
    try:
        return content_hash(read_bytes(path, MAX_BYTES))
    except PictureError:
        return b""


def without(texts: Sequence[str], judged: Judged) -> list[str]:
    """The texts that are neither judged queries nor others of the evaluated dataset, whatever their case and spacing.

    Raises
    ------
    InvalidInput
        If none is left.
    """
    kept = left_of(texts, judged)
    if not kept:
        raise InvalidInput("expected a bank of other queries than the evaluated ones, got only those")
    return kept


def left_of(texts: Sequence[str], judged: Judged) -> list[str]:
    """The same without raising."""
    asked = {plain(query) for query in judged.queries if isinstance(query, str)} | judged.texts
    return [text for text in texts if plain(text) not in asked]


def _encode_pictures(paths: Sequence[Path], engine: Engine, source: str, report: Report | None) -> Bank:
    """A bank of pictures, without those that cannot be read."""
    encoder, rows = engine.encoder, []

    def load(path: Path) -> Picture | None:
        try:
            return encoder.prepare(open_picture(path, min_side=encoder.image_size).image)
        except PictureError:
            return None

    for done, batch in enumerate(batches(ahead(load, paths, 2 * _BATCH), _BATCH)):
        read = [picture for picture in batch if picture is not None]
        rows += [encoder.encode_images(read)] if read else []
        if report is not None:
            report(Progress("bank", min((done + 1) * _BATCH, len(paths)), len(paths)))
    if not rows:
        raise InvalidInput(f"expected pictures that can be read in the bank {source}, got none")
    return Bank.of(np.concatenate(rows), source)
