"""Queries to vectors: texts and pictures are encoded, items looked up, and several terms blended."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmsearch.errors import InvalidInput
from mmsearch.images import open_picture
from mmsearch.protocols import Encoder
from mmsearch.store import Store, View
from mmsearch.types import FIELDS, Query, Vectors
from mmsearch.vectors import as_unit_vectors

MAX_QUERY = 2_000
"""Characters of a text query. Longer texts are documents: they can be added and then searched with."""

QueryLike = str | Path | Image.Image | bytes | Query


@dataclass(frozen=True, slots=True)
class Resolved:
    """Query vectors, (n, dim) unit rows, and for each which field's items it resembles."""

    vectors: Vectors
    kinds: tuple[str, ...]

    def of(self, places: Sequence[int]) -> Resolved:
        """Those at these places."""
        return Resolved(self.vectors[list(places)], tuple(self.kinds[n] for n in places))


def as_query(query: QueryLike) -> Query:
    """Make a ``Query``: a str is a text, a Path, PIL image or bytes a picture. Nothing is guessed.

    Raises
    ------
    InvalidInput
        For another type, or a query without any term.
    """
    match query:
        case str():
            query = Query(text=query)
        case Path() | bytes() | Image.Image():
            query = Query(image=query)
        case Query():
            pass
        case _:
            raise InvalidInput(f"expected a query as str, Path, PIL image, bytes or Query, got {type(query).__name__}")
    if next(query.terms(), None) is None:
        raise InvalidInput("expected a query with a text, image, id or vector, got an empty Query")
    return query


def resolve(queries: Sequence[Query], encoder: Callable[[], Encoder], store: Store, view: View) -> Resolved:
    """Vectors of queries; each kind of term is encoded in one batch over all queries.

    Raises
    ------
    InvalidInput
        For an empty or endless text, a vector of the wrong width, or terms that cancel each other out.
    PictureError
        For a picture that cannot be opened.
    ItemNotFound
        For an unknown id.
    """
    terms = [(i, term) for i, query in enumerate(queries) for term in query.terms()]
    texts = _text_vectors([term.text for _, term in terms if term.text is not None], encoder)
    images = _image_vectors([term.image for _, term in terms if term.image is not None], encoder)
    stored = _item_vectors([term.id for _, term in terms if term.id is not None], store, view)
    scales = [_largest_weight(query) for query in queries]
    sums: dict[int, NDArray[np.float64]] = {}
    kinds: dict[int, str] = {}
    for i, term in terms:
        if term.text is not None:
            kind, vector = "text", next(texts)
        elif term.image is not None:
            kind, vector = "picture", next(images)
        elif term.id is not None:
            kind, vector = next(stored)
        else:
            kind, vector = "picture", _given_vector(term, view)
        weight = term.weight / scales[i]
        sums[i] = sums.get(i, np.zeros(len(vector))) + weight * vector.astype(np.float64)
        kinds.setdefault(i, kind)
    rows = np.stack([sums[i] for i in range(len(queries))])
    empty = np.linalg.norm(rows, axis=1) < 1e-6
    if empty.any():
        raise InvalidInput(f"the terms of query {int(np.argmax(empty))} cancel each other out: change their weights")
    return Resolved(as_unit_vectors(rows), tuple(kinds[i] for i in range(len(queries))))


def _largest_weight(query: Query) -> float:
    """What the weights of a query are divided by: a common factor changes nothing."""
    weights = [term.weight for term in query.terms()]
    if not np.isfinite(weights).all():
        raise InvalidInput(f"expected finite weights in a query, got {weights}")
    return max(map(abs, weights)) or 1.0


def _text_vectors(texts: Sequence[str], encoder: Callable[[], Encoder]) -> Iterator[Vectors]:
    for text in texts:
        if not isinstance(text, str) or not text.strip():
            raise InvalidInput(f"expected a text to search for, got {text!r}")
        if len(text) > MAX_QUERY:
            raise InvalidInput(f"expected a query of at most {MAX_QUERY} characters, got {len(text)}: use fewer words")
    return iter(text_vectors(texts, encoder))


def text_vectors(texts: Sequence[str], encoder: Callable[[], Encoder]) -> list[Vectors]:
    """One unit vector a text, (dim,), however long: the mean of its windows."""
    if not texts:
        return []
    windows = [encoder().split_text(text) for text in texts]
    rows = encoder().encode_texts([window for its in windows for window in its])
    ends = np.cumsum([len(its) for its in windows])
    parts = np.split(rows, ends[:-1])
    return [as_unit_vectors(part.mean(axis=0, keepdims=True))[0] for part in parts]


def _image_vectors(images: Sequence[Path | Image.Image | bytes], encoder: Callable[[], Encoder]) -> Iterator[Vectors]:
    if not images:
        return iter(())
    opened = [open_picture(image, min_side=encoder().image_size).image for image in images]
    return iter(encoder().encode_images(opened))


def _item_vectors(ids: Sequence[str], store: Store, view: View) -> Iterator[tuple[str, Vectors]]:
    """Each item's own vector and its field: its picture's where it has one, else the mean of its text's windows."""
    return iter([next(iter(own.items())) for own in field_vectors(ids, store, view)])


def field_vectors(ids: Sequence[str], store: Store, view: View) -> list[dict[str, Vectors]]:
    """Each item's own unit vectors, (dim,) each, by the fields in which it has one, pictures first.

    Raises
    ------
    ItemNotFound
        For an unknown id.
    InvalidInput
        For an item that has none.
    """
    if not ids:
        return []
    keys = store.catalog.keys(list(ids))
    by_key: dict[int, dict[str, Vectors]] = {key: {} for key in keys}
    for field in FIELDS:
        if field in view.spaces:
            for key, vector in zip(*item_vectors(store, view, field, keys), strict=True):
                by_key[key][field] = vector
    for id, key in zip(ids, keys, strict=True):
        if not by_key[key]:
            raise InvalidInput(f"the item {id!r} has no vector yet: run `mmsearch sync`")
    return [by_key[key] for key in keys]


def item_vectors(store: Store, view: View, field: str, keys: Sequence[int] | None = None) -> tuple[list[int], Vectors]:
    """Keys of items and one unit vector each, (n, dim): the mean of an item's rows in a field's space, if several."""
    space = view.spaces[field]
    items, rows = store.book.of_items(space.record.space, keys)
    if not len(items):
        return [], np.zeros((0, space.record.width), dtype=np.float32)
    unique, first = np.unique(items, return_index=True)
    sums = np.add.reduceat(space.matrix[rows].astype(np.float32), first, axis=0)
    return [int(key) for key in unique], as_unit_vectors(sums)


def stored_vectors(store: Store, ids: Sequence[str] | None, field: str | None) -> tuple[list[str], Vectors]:
    """Ids and (n, dim) unit rows: what ``Engine.vectors`` gives.

    Raises
    ------
    ItemNotFound
        For an unknown id.
    InvalidInput
        For an unknown field, or an id that has no vector in it.
    """
    if field is not None and field not in FIELDS:
        raise InvalidInput(f"expected a field of {', '.join(FIELDS)}, got {field!r}")
    with store.reading() as view:
        keys = None if ids is None else store.catalog.keys(list(ids))
        held = view.held
        field = field or next(iter(held), None)
        found, rows = list[int](), np.zeros((0, view.encoder.dim if view.encoder else 0), dtype=np.float32)
        if field in held:
            found, rows = item_vectors(store, view, field, keys)
        if ids is None or keys is None:
            by_key = store.catalog.rows_by_key(found)
            return [by_key[key][1] for key in found], rows
        place = {key: n for n, key in enumerate(found)}
        for id, key in zip(ids, keys, strict=True):
            if key not in place:
                raise InvalidInput(f"the item {id!r} has no {field or 'stored'} vector: ask for another field")
        return list(ids), rows[[place[key] for key in keys]]


def _given_vector(term: Query, view: View) -> Vectors:
    dim = view.encoder.dim if view.encoder else None
    try:
        rows = np.asarray(term.vector, dtype=np.float64).reshape(1, -1)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"expected a query vector of numbers, got {term.vector!r:.60}") from error
    unit: Vectors = as_unit_vectors(rows, dim)[0]
    return unit
