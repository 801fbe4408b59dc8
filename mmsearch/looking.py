"""``Looker``: what the pictures of a store look like, measured once and kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, fields
from typing import TypeVar

import numpy as np

from mmsearch.catalog import LookBook, PictureRow, item_of
from mmsearch.curation.looks import SIDE, Looks, flaws, measure
from mmsearch.errors import InvalidInput, MMSearchError, StoreError
from mmsearch.filters import Filter
from mmsearch.findings import Flaw
from mmsearch.images import OpenedPicture, open_picture
from mmsearch.overlap import ahead, batches
from mmsearch.retrieval import condition_of
from mmsearch.store import Store
from mmsearch.types import Progress, Report
from mmsearch.visioncheck import SIDE as CHECKED_SIDE
from mmsearch.visioncheck import Measured, VisionCheck

METHODS = ("own", "cleanvision")
"""What can tell flaws: our own measures, or those of the package cleanvision."""
_BATCH = 256
"""Pictures that are kept together: what an interruption costs at most."""
_FIELDS = {one.name for one in fields(Looks)}

_Told = TypeVar("_Told")
_Found = list[tuple[int, str, float, float]]
"""The key of an item, and the kind, value and limit of a flaw of its picture."""


class Looker:
    """Measures pictures."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._book = LookBook(store.catalog)

    def flaws(self, where: Filter | None = None, report: Report | None = None, method: str = "own") -> list[Flaw]:
        """What is wrong with pictures. See ``Engine.flaws``."""
        if method not in METHODS:
            raise InvalidInput(f"expected a method of {', '.join(METHODS)}, got {method!r}")
        check = VisionCheck() if method == "cleanvision" else None
        with self._store.reading():
            condition = condition_of(where)
            keys = None if condition is None else self._store.catalog.passing(condition)
            pictures = self._book.pictures(keys)
        found = self._own_flaws(pictures, report) if check is None else _checked(check, pictures, report)
        with self._store.reading():
            rows = self._store.catalog.rows_by_key({key for key, *_ in found})
        ordered = sorted(found, key=lambda flaw: (flaw[1], abs(np.log(max(flaw[2], 1e-9) / flaw[3])) * -1, flaw[0]))
        return [Flaw(item_of(rows[key]), kind, value, limit) for key, kind, value, limit in ordered if key in rows]

    def _own_flaws(self, pictures: Sequence[PictureRow], report: Report | None) -> _Found:
        measured = self.looks(pictures, report)
        there = [one for one in pictures if one.content in measured]
        return [(one.key, *flaw) for one in there for flaw in flaws(measured[one.content])]

    def looks(self, pictures: Sequence[PictureRow], report: Report | None = None) -> dict[bytes, Looks]:
        """What pictures look like, by content; those that cannot be opened any more are left out.

        What was measured is kept in the store, where it can be written, so that an interrupted call goes on.
        """
        known = self._known(list({one.content for one in pictures}))
        left = [one for one in pictures if one.content not in known]
        for fresh in _each_once(left, _measured, report):
            known |= fresh
            self._keep({content: asdict(looks) for content, looks in fresh.items()})
        return known

    def _known(self, contents: Sequence[bytes]) -> dict[bytes, Looks]:
        found: dict[bytes, Looks] = {}
        for content, told in self._book.measured(contents).items():
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


def _checked(check: VisionCheck, pictures: Sequence[PictureRow], report: Report | None) -> _Found:
    """What cleanvision finds; pictures that cannot be opened any more are left out."""

    def measured(copies: Sequence[PictureRow]) -> Measured | None:
        opened = first_opened(copies, CHECKED_SIDE)
        return None if opened is None else check.measure(opened.image, opened.width, opened.height)

    known: dict[bytes, Measured] = {}
    for fresh in _each_once(pictures, measured, report):
        known |= fresh
    there = [one for one in pictures if one.content in known]
    told = check.flaws(np.array([known[one.content] for one in there]))
    return [(there[at].key, kind, value, limit) for at, kind, value, limit in told]


def _each_once(
    pictures: Sequence[PictureRow], measure: Callable[[Sequence[PictureRow]], _Told | None], report: Report | None
) -> Iterator[dict[bytes, _Told]]:
    """What ``measure`` tells of pictures by content, in batches; it gets the items that have one, in threads.

    Those of which it tells None are left out.
    """
    copies: dict[bytes, list[PictureRow]] = {}
    for one in pictures:
        copies.setdefault(one.content, []).append(one)
    done = 0
    for batch in batches(zip(copies, ahead(measure, copies.values(), 32), strict=True), _BATCH):
        if report is not None:
            report(Progress("pictures", done, len(copies)))
        done += len(batch)
        yield {content: told for content, told in batch if told is not None}


def _measured(copies: Sequence[PictureRow]) -> Looks | None:
    """The looks of a picture; ``copies`` are the items that have it."""
    opened = first_opened(copies, SIDE)
    return None if opened is None else measure(opened.image, opened.width, opened.height)


def first_opened(copies: Sequence[PictureRow], min_side: int) -> OpenedPicture | None:
    """A picture opened through the first of its items whose file is still there; None if none is."""
    for one in copies:
        if one.path is not None:
            with suppress(MMSearchError):
                return open_picture(one.path, min_side=min_side)
    return None
