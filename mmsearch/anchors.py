"""``Anchor``: what others are compared with: an item of the store, or a picture or text that need not be there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image

from mmsearch.errors import InvalidInput, ItemNotFound
from mmsearch.images import open_picture
from mmsearch.protocols import Encoder
from mmsearch.queries import Resolved, field_vectors, text_vectors
from mmsearch.retrieval import Groups
from mmsearch.store import Store, View
from mmsearch.types import Hit, Item, Query, Vectors

Like: TypeAlias = str | Path | Item | Hit
"""What others are to be like: the id of an item, a picture on disk, an item that need not be in the store, a hit."""


@dataclass(frozen=True, slots=True)
class Anchor:
    """What others are compared with.

    ``vectors`` are its unit vectors, (dim,) each, by field, pictures first; ``query`` is what stages are asked with,
    which the first of them stands for; ``barred`` is itself and its copies; ``id`` is empty for what is not stored.
    """

    query: Query
    vectors: Mapping[str, Vectors]
    barred: Groups
    id: str = ""

    @property
    def kind(self) -> str:
        """The field of the vector that it is searched with."""
        return next(iter(self.vectors))


def anchors_of(likes: Sequence[Like], encoder: Callable[[], Encoder], store: Store, view: View) -> list[Anchor]:
    """What each of these stands for; pictures and texts that are not stored are encoded in one batch each.

    Raises
    ------
    InvalidInput
        For another type, or an item with nothing to compare.
    ItemNotFound
        For an unknown id.
    PictureError
        For a picture that cannot be opened.
    """
    meant = [meant_by(like, store) for like in likes]
    ids = [one for one in meant if isinstance(one, str)]
    rows = store.catalog.rows_by_id(ids)
    stored = iter(
        [
            Anchor(Query(id=id), vectors, frozenset([row[5] or row[0]]), id)
            for id, row, vectors in zip(ids, rows, field_vectors(ids, store, view), strict=True)
        ]
    )
    given = iter(encoded([one for one in meant if isinstance(one, Item)], encoder))
    return [next(stored) if isinstance(one, str) else next(given) for one in meant]


def meant_by(like: Like, store: Store) -> str | Item:
    """The id of a stored item, which may be unknown, or an item to encode.

    Raises
    ------
    InvalidInput
        For another type.
    ItemNotFound
        For an item that is not stored and has nothing to encode.
    """
    item = like.item if isinstance(like, Hit) else Item(path=like) if isinstance(like, Path) else like
    if isinstance(item, str):
        return item
    if not isinstance(item, Item):
        got = type(item).__name__
        raise InvalidInput(f"expected an id, a Path, an Item or a Hit, got {got}: a picture in memory is Item(image=…)")
    try:
        return store.catalog.get([item.id])[0].id
    except ItemNotFound:
        if item.id and _source(item) is None and item.text is None:
            raise
        return item


def encoded(items: Sequence[Item], encoder: Callable[[], Encoder]) -> list[Anchor]:
    """Anchors of items that are not stored; their pictures and texts are encoded in one batch each.

    Raises
    ------
    InvalidInput
        For an item with nothing to compare.
    PictureError
        For a picture that cannot be opened.
    """
    vectors: list[dict[str, Vectors]] = [{} for _ in items]
    queries = [Query(text=item.text) if _source(item) is None else Query(image=_source(item)) for item in items]
    pictures = [(n, source) for n, item in enumerate(items) if (source := _source(item)) is not None]
    size = encoder().image_size if pictures else None
    opened = {n: open_picture(source, min_side=size) for n, source in pictures}
    rows = encoder().encode_images([picture.image for picture in opened.values()]) if opened else ()
    for n, row in zip(opened, rows, strict=True):
        vectors[n]["picture"] = row
    texts = {n: item.text for n, item in enumerate(items) if item.text is not None and item.text.strip()}
    for n, row in zip(texts, text_vectors(list(texts.values()), encoder), strict=True):
        vectors[n]["text"] = row
    for item, own in zip(items, vectors, strict=True):
        if not own:
            raise InvalidInput(f"expected an item with a picture or a text to compare, got {item!r:.80}")
    barred = [frozenset([opened[n].content_hash] if n in opened else ()) for n in range(len(items))]
    return [Anchor(*one) for one in zip(queries, vectors, barred, strict=True)]


def _source(item: Item) -> Path | Image.Image | bytes | None:
    return item.path if item.image is None else item.image


def resolved(anchors: Sequence[Anchor], kinds: Sequence[str]) -> Resolved:
    """The vector of each anchor in the field named for it."""
    rows = [anchor.vectors[kind] for anchor, kind in zip(anchors, kinds, strict=True)]
    return Resolved(np.stack(rows), tuple(kinds))
