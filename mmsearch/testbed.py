"""``place``: where a dataset is searched: a temporary store, or one that is filled as far as it has to be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from mmsearch.catalog import path_of
from mmsearch.encoding import FieldEncoder
from mmsearch.engine import Engine
from mmsearch.errors import InvalidInput, PictureError
from mmsearch.files import content_hash, display_path, read_bytes
from mmsearch.images import MAX_BYTES, open_picture
from mmsearch.judged import Judged
from mmsearch.overlap import ahead
from mmsearch.profile import DEFAULT
from mmsearch.protocols import Encoder
from mmsearch.sources import open_source
from mmsearch.store import Store
from mmsearch.types import AddReport, Hit, Item, Report

_SPACES = {"regions": "regions", "late": "cells", "cross": "joint"}
"""What stages need a store to have of its pictures."""
_BATCH = 64
_COMPARED = 32
"""Pictures of a dataset that are compared with those that a store has under the same ids."""


@contextmanager
def place(
    judged: Judged,
    store: Path | None,
    *,
    encoder: str | Encoder | None = None,
    stages: Sequence[str] | None = None,
    complete: bool = False,
    report: Report | None = None,
) -> Iterator[tuple[Engine, AddReport]]:
    """An engine over the items of judged queries, with the spaces that the stages need.

    Without a store, in a temporary one. A store that is given gets the items and the spaces that it lacks, as
    ``mmsearch index`` would make them.

    Parameters
    ----------
    stages
        None: a store that holds the items stays as it is, and one that is made gets what the default stages need.
    complete
        Whether without stages any store gets what the default ones need.

    Raises
    ------
    InvalidInput
        If the store holds other items, which stays as it is then, or the encoder cannot make a space.
    """
    with (
        TemporaryDirectory(prefix="mmsearch-") if store is None else nullcontext(str(store)) as folder,
        Engine.open(Path(folder), encoder) as engine,
    ):
        holds = next(engine.items(), None) is not None
        if stages is None:
            stages = () if holds and not complete else _default_stages(engine, judged)
        yield engine, _fill(engine, judged, stages, store is None, report)


def _default_stages(engine: Engine, judged: Judged) -> tuple[str, ...]:
    """The default stages that an encoder can serve in a search for pictures."""
    others = tuple(name for name in DEFAULT if name != "late")  # which is for cells that were trained
    return () if judged.field != "picture" else DEFAULT if engine.encoder.name == "mini" else others


def _fill(engine: Engine, judged: Judged, stages: Sequence[str], temporary: bool, report: Report | None) -> AddReport:
    there = list(engine.items())
    missing = _missing(engine, judged, there)
    needed = {judged.field} | {_SPACES[name] for name in stages if name in _SPACES and judged.field == "picture"}
    unread: tuple[tuple[str, str], ...] = ()
    if there:  # what cannot be read was told when the store was made, and need not be written into it again
        missing, unread = _readable(missing)
    if not missing and not _lacking(engine, there, needed):
        return AddReport(failed=unread)
    with closing(Store(engine.path, create=False)) as store:
        fields = sorted(needed if temporary else needed | set(store.fields()))
        is_root = _is_root(store, judged)
    FieldEncoder(engine.encoder, fields)  # refuses what the encoder lacks, before the store is told to have it
    with Engine.open(engine.path, engine.encoder, spaces=fields) as fuller:
        if judged.source is not None and judged.field == "picture" and not temporary and (is_root or not there):
            return fuller.add_folder(judged.source, progress=report)
        return fuller.add(missing, progress=report) + AddReport(failed=unread)


def _is_root(store: Store, judged: Judged) -> bool:
    """Whether a store was made from the dataset's place."""
    own = open_source(judged.source).path if judged.source is not None else None
    return own is not None and any(path and path_of(path) == own for _, _, path in store.catalog.roots())


def _missing(engine: Engine, judged: Judged, there: Sequence[Item]) -> list[Item]:
    """The items of a dataset that a store lacks.

    Raises
    ------
    InvalidInput
        If it holds items and none of these, or others under their ids.
    """
    paths, by_id = {item.path for item in there} - {None}, {item.id: item for item in there}
    missing = [item for item in judged.items if item.path not in paths and item.id not in by_id]
    if there and len(missing) == len(judged.items):
        raise InvalidInput(
            f"expected a store of this dataset's {judged.field}s or an empty one, got {engine.path} with {len(there)} "
            "other items: leave --store out, or name a store of its own (captions need one too)"
        )
    moved = [item for item in judged.items if item.path not in paths and item.id in by_id]
    chosen = np.unique(np.linspace(0, len(moved) - 1, min(_COMPARED, len(moved))).astype(np.int64))
    with closing(Store(engine.path, create=False)) as store:
        for item in [moved[n] for n in chosen]:
            if _differs(item, by_id[item.id], store):
                raise InvalidInput(
                    f"expected a store of this dataset's items, got {engine.path}, where {item.id!r} is something "
                    "else: index the dataset into a store of its own, or leave --store out"
                )
    return missing


def _differs(item: Item, stored: Item, store: Store) -> bool:
    """Whether a store has another picture or text under an item's id; what cannot be read is given its due."""
    if item.path is None:
        return item.text != stored.text
    try:
        content = content_hash(read_bytes(item.path, MAX_BYTES))
    except PictureError:
        return False
    return bool(store.catalog.rows_by_id([item.id])[0][5] != content)


def _readable(items: Sequence[Item]) -> tuple[list[Item], tuple[tuple[str, str], ...]]:
    """The items whose pictures can be read, and the paths of the others with the reason."""

    def fault(item: Item) -> str | None:
        try:
            if item.path is not None:
                open_picture(item.path)
        except PictureError as error:
            return str(error)
        return None

    faults = list(ahead(fault, items, 2 * _BATCH))
    failed = tuple((display_path(it.path), why) for it, why in zip(items, faults, strict=True) if why and it.path)
    return [item for item, why in zip(items, faults, strict=True) if why is None], failed


def _lacking(engine: Engine, items: Sequence[Item], needed: set[str]) -> bool:
    """Whether a picture of a store has no rows in a space that is needed."""
    hits = [Hit(item, 0.0, 1) for item in items if item.path is not None]
    collection = engine.ranker.collection
    there = collection.rows("picture", hits)[1] > 0
    return any((collection.rows(name, hits)[1][there] == 0).any() for name in needed - {"text"})
