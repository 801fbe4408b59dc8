"""``Looker``: what the pictures of a store look like, measured once and kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, fields

import numpy as np

from mmsearch.catalog import LookBook, PictureRow, item_of
from mmsearch.curation.looks import SIDE, Looks, flaws, measure
from mmsearch.errors import MMSearchError, StoreError
from mmsearch.filters import Filter
from mmsearch.findings import Flaw
from mmsearch.images import OpenedPicture, open_picture
from mmsearch.overlap import ahead, batches
from mmsearch.retrieval import condition_of
from mmsearch.store import Store
from mmsearch.types import Progress, Report

_BATCH = 256
"""Pictures that are kept together: what an interruption costs at most."""
_FIELDS = {one.name for one in fields(Looks)}


class Looker:
    """Measures pictures."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._book = LookBook(store.catalog)

    def flaws(self, where: Filter | None = None, report: Report | None = None) -> list[Flaw]:
        """What is wrong with pictures. See ``Engine.flaws``."""
        with self._store.reading():
            condition = condition_of(where)
            keys = None if condition is None else self._store.catalog.passing(condition)
            pictures = self._book.pictures(keys)
        measured = self.looks(pictures, report)
        found: list[tuple[int, str, float, float]] = []
        for one in pictures:
            looks = measured.get(one.content)
            found += [(one.key, *flaw) for flaw in flaws(looks)] if looks is not None else []
        with self._store.reading():
            rows = self._store.catalog.rows_by_key({key for key, *_ in found})
        ordered = sorted(found, key=lambda flaw: (flaw[1], abs(np.log(max(flaw[2], 1e-9) / flaw[3])) * -1, flaw[0]))
        return [Flaw(item_of(rows[key]), kind, value, limit) for key, kind, value, limit in ordered if key in rows]

    def looks(self, pictures: Sequence[PictureRow], report: Report | None = None) -> dict[bytes, Looks]:
        """What pictures look like, by content; those that cannot be opened any more are left out.

        What was measured is kept in the store, where it can be written, so that an interrupted call goes on.
        """
        known = self._known()
        left: dict[bytes, list[PictureRow]] = {}
        for one in pictures:
            if one.content not in known:
                left.setdefault(one.content, []).append(one)
        done = 0
        for batch in batches(ahead(_measured, left.values(), 32), _BATCH):
            if report is not None:
                report(Progress("pictures", done, len(left)))
            done += len(batch)
            fresh = {content: looks for content, looks in batch if looks is not None}
            known |= fresh
            self._keep({content: asdict(looks) for content, looks in fresh.items()})
        return known

    def _known(self) -> dict[bytes, Looks]:
        found: dict[bytes, Looks] = {}
        for content, told in self._book.measured().items():
            # What another version measured, or somebody spoilt, is measured anew.
            if told.keys() == _FIELDS and all(isinstance(one, int | float) for one in told.values()):
                looks = Looks(**told)  # type: ignore[arg-type]
                if np.isfinite(list(told.values())).all():
                    found[content] = looks
        return found

    def _keep(self, measured: Mapping[bytes, Mapping[str, float]]) -> None:
        try:
            with self._store.writing(), self._store.catalog.transaction():
                self._book.put(measured)
        except StoreError:
            return  # a store that cannot be written now is measured again the next time


def _measured(copies: Sequence[PictureRow]) -> tuple[bytes, Looks | None]:
    """A picture's content and looks; ``copies`` are the items that have it."""
    opened = first_opened(copies, SIDE)
    looks = None if opened is None else measure(opened.image, opened.width, opened.height)
    return copies[0].content, looks


def first_opened(copies: Sequence[PictureRow], min_side: int) -> OpenedPicture | None:
    """A picture opened through the first of its items whose file is still there; None if none is."""
    for one in copies:
        if one.path is not None:
            with suppress(MMSearchError):
                return open_picture(one.path, min_side=min_side)
    return None
