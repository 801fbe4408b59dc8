"""``Album``: thumbnails for a page, each embedded once however often it is shown."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path

from mmsearch.errors import MMSearchError
from mmsearch.images import Source, thumbnail
from mmsearch.overlap import ahead
from mmsearch.types import Item

SIDE, _QUALITY = 128, 60
"""Thumbnails: pixels a side, and the quality of WebP, which make some 3 KB each."""
BUDGET = 4_800_000
"""Characters of all embedded pictures together: some 1,100 photographs or twice as many drawings."""
_AHEAD = 32

_Key = tuple[str, Path | None]


class Album:
    """The pictures of items as rules of a style sheet, so that they are shown without a script.

    Parameters
    ----------
    items
        Whose pictures to embed, the most important first. Items are told apart by id and path.
    budget
        How many characters the pictures may take together; those after that are left out.

    Attributes
    ----------
    gone
        How many pictures could not be opened any more.
    left_out
        How many were left out to keep the page small.
    """

    def __init__(self, items: Iterable[Item], *, budget: int = BUDGET) -> None:
        wanted: dict[_Key, Item] = {}
        for item in items:
            if _source(item) is not None:
                wanted.setdefault(_key(item), item)
        self._classes: dict[_Key, str] = {}
        self._rules: dict[str, str] = {}
        self.gone = 0
        self.left_out = 0
        self._embed(list(wanted.values()), budget)

    def _embed(self, items: Sequence[Item], budget: int) -> None:
        for n, (item, data) in enumerate(ahead(_embedded, items, _AHEAD)):
            if data is None:
                self.gone += 1
                continue
            # Copies of one file are one picture.
            if data not in self._rules:
                budget -= len(data)
                if budget < 0:
                    self.left_out = len(items) - n
                    return
            self._classes[_key(item)] = self._rules.setdefault(data, f"p{len(self._rules)}")

    def class_of(self, item: Item) -> str:
        """The class of an element that shows the item's picture; empty if it has none here."""
        return self._classes.get(_key(item), "")

    def style(self) -> str:
        """The rules; of letters, digits and signs that mean nothing in HTML."""
        return "\n".join(f".{name}{{background-image:url({data})}}" for data, name in self._rules.items())


def _key(item: Item) -> _Key:
    return item.id, item.path


def _source(item: Item) -> Source | None:
    return item.path if item.path is not None else item.image


def _embedded(item: Item) -> tuple[Item, str | None]:
    source = _source(item)
    if source is None:
        return item, None
    try:
        small = thumbnail(source, SIDE)
    except MMSearchError:
        return item, None
    buffer = BytesIO()
    small.save(buffer, "WEBP", quality=_QUALITY)
    return item, f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
