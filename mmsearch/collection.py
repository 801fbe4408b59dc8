"""``StoreCollection``: what the stages of a cascade may ask of a store."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmsearch.bank import Bank, KeptBanks, distinct
from mmsearch.filters import Compare
from mmsearch.hubs import Biases, Hubs
from mmsearch.index.halves import widen
from mmsearch.protocols import Encoder
from mmsearch.queries import Resolved, resolve
from mmsearch.rerank.lru import Lru
from mmsearch.store import Store
from mmsearch.types import Hit, Keys, Query, Report, Vectors

BANK = "bank"
"""The setting that names a store's bank."""
REMEMBERED = 64_000_000
"""Bytes of queries that are kept with their vectors, those of an evaluation to be asked of every stage in turn: some
30,000 texts, or a few pictures."""
SPANS_KEPT = 100_000
"""Items of a space whose rows are kept for the next search of the same state: some 20 MB."""


@dataclass(frozen=True, slots=True)
class _Known:
    """A query, what its vector depends on, its vector, and the field whose items it resembles."""

    query: Query
    state: tuple[str, int]
    vector: Vectors
    kind: str


def _key(query: Query) -> bytes:
    return id(query).to_bytes(8, "little")


def _weight(known: _Known) -> int:
    """Bytes, roughly."""
    weight = 1_000 + known.vector.nbytes
    for term in known.query.terms():
        match term.image:
            case Image.Image():
                weight += term.image.width * term.image.height * len(term.image.getbands())
            case bytes():
                weight += len(term.image)
    return min(weight, REMEMBERED // 2)  # the query that is being answered is remembered, however large


class StoreCollection:
    """A store as the stages see it. Inside ``store.reading()`` every answer is of that one state.

    Parameters
    ----------
    encoder
        Gives the encoder; called only if something has to be encoded.
    banks
        Banks by kind of query, instead of the store's own, which is of texts.
    """

    def __init__(self, store: Store, encoder: Callable[[], Encoder], banks: Mapping[str, Bank] | None = None) -> None:
        self._store, self._encoder = store, encoder
        self._given = banks
        self._kept = KeptBanks(store.path / "bank")
        # Only for the store's own bank, so that an evaluation by another one does not undo what it holds.
        self._hubs = {"text": Hubs(store.path / "indexes" if banks is None else None), "picture": Hubs(None)}
        self._queries: Lru[_Known] = Lru(REMEMBERED, _weight)
        self._spans: dict[int, tuple[int, dict[str, tuple[int, int]]]] = {}
        self._banks: dict[tuple[str, str], Bank] = {}
        self._loading = threading.Lock()

    @property
    def encoder(self) -> Encoder:
        """The store's encoder, loaded when first needed."""
        return self._encoder()

    @property
    def fields(self) -> frozenset[str]:
        """The spaces that hold rows."""
        with self._store.reading() as view:
            return frozenset(name for name, space in view.spaces.items() if space.record.rows)

    @property
    def encoder_name(self) -> str:
        """The encoder's name, known without loading it."""
        with self._store.reading() as view:
            return view.encoder.name if view.encoder else ""

    # Queries ----------------------------------------------------------------------------------------------------

    def remember(self, queries: Sequence[Query], resolved: Resolved) -> None:
        """Keep what queries were resolved to, so that no stage encodes them again."""
        for query, vector, kind in zip(queries, resolved.vectors, resolved.kinds, strict=True):
            # The query is held, since its id names it.
            self._queries.put(_key(query), _Known(query, self._state(query), vector, kind))

    def query_vector(self, query: Query) -> tuple[Vectors, str]:
        """A query as one unit vector, (dim,), and the field whose items it resembles."""
        known = self._queries.get(_key(query))
        if known is not None and known.state == self._state(query):
            return known.vector, known.kind
        with self._store.reading() as view:
            resolved = resolve([query], self._encoder, self._store, view)
        self.remember([query], resolved)
        return resolved.vectors[0], resolved.kinds[0]

    def _state(self, query: Query) -> tuple[str, int]:
        """What a query's vector depends on: the encoder, and the store's state if it names an item."""
        names_item = any(term.id is not None for term in query.terms())
        with self._store.reading() as view:
            return view.encoder.fingerprint if view.encoder else "", view.generation if names_item else -1

    def word_ranks(self, text: str, ids: Sequence[str]) -> dict[str, int]:
        """Those of these items that have any of a text's words, each with its full-text rank among them, from 1."""
        with self._store.reading():
            found = self._store.catalog.find_words(text, len(ids), Compare("id", "=", ids))
        return {id: rank for rank, (_, id) in enumerate(found, start=1)}

    # Stored rows ------------------------------------------------------------------------------------------------

    def rows(self, field: str, hits: Sequence[Hit]) -> tuple[Keys, Keys]:
        """For each hit the number of its first row in a space and how many it has, (n,) each; 0 of them if none."""
        with self._store.reading() as view:
            space = view.spaces.get(field)
            if space is None:
                return np.zeros(len(hits), dtype=np.int64), np.zeros(len(hits), dtype=np.int64)
            found = self._found_spans(view.generation, space.record.space, [hit.item.id for hit in hits])
        spans = np.array(found, dtype=np.int64).reshape(-1, 2)
        return spans[:, 0], spans[:, 1]

    def _found_spans(self, generation: int, space: int, ids: Sequence[str]) -> list[tuple[int, int]]:
        """First row and number of rows by item; asked of the catalog once for each item of one state."""
        of, known = self._spans.get(space, (-1, {}))
        if of != generation or len(known) > SPANS_KEPT:
            known = {}
            self._spans[space] = (generation, known)
        missing = [id for id in ids if id not in known]
        if missing:
            known.update(dict.fromkeys(missing, (0, 0)) | self._store.book.spans(space, missing))
        return [known[id] for id in ids]

    def stored(self, field: str, rows: Keys) -> NDArray[Any]:
        """Stored rows of a space, (n, width): float32, or the int8 codes of cells."""
        with self._store.reading() as view:
            values: NDArray[Any] = view.spaces[field].matrix[rows]
        return widen(values) if values.dtype == np.float16 else values

    # The bank ---------------------------------------------------------------------------------------------------

    def set_bank(self, texts: Sequence[str] | None, source: str, report: Report | None = None) -> int:
        """Keep a bank of texts in the store, or none; return how many were kept. Inside ``store.writing()``.

        Everything is computed before the bank counts, so that searches go on with the one before in the meantime.
        """
        kept = [] if texts is None else distinct(texts)
        name = None if texts is None else self._kept.put(kept, source)
        if name is not None:
            self._prepare(self._named(name, report), report)
        with self._store.catalog.transaction():
            self._store.catalog.set_setting(BANK, name)
        self._kept.drop_others(name)
        return len(kept)

    def bank(self, kind: str) -> Bank | None:
        """The bank for queries of a kind, ``text`` or ``picture``; None if there is none."""
        if self._given is not None:
            return self._given.get(kind)
        name = self._store.catalog.setting(BANK) if kind == "text" else None
        return None if name is None else self._named(name)

    def _named(self, name: str, report: Report | None = None) -> Bank:
        """A bank of the store by its name, for the encoder of the state that is read."""
        with self._store.reading() as view:
            fingerprint = view.encoder.fingerprint if view.encoder else self.encoder.fingerprint
        known = self._banks.get((name, fingerprint))
        if known is not None:
            return known
        with self._loading:
            known = self._banks.get((name, fingerprint))
            if known is None:
                known = self._kept.load(name, self._encoder, fingerprint, report)
                # The one before is kept too: others may still be reading a state in which it was the bank.
                self._banks = {**dict(list(self._banks.items())[-1:]), (name, fingerprint): known}
        return known

    @property
    def folder(self) -> Path:
        """The store's folder, where a stage may keep what it has computed: a cache, which may vanish."""
        return self._store.path

    def bank_texts(self) -> list[str]:
        """The bank's queries that are texts; none without a bank."""
        bank = self.bank("text")
        return [] if bank is None else list(bank.texts)

    def has_bank(self, kind: str) -> bool:
        """Whether there is a bank of queries of a kind, ``text`` or ``picture``."""
        if self._given is not None:
            return kind in self._given
        return kind == "text" and self._store.catalog.setting(BANK) is not None

    def prepare(self, report: Report | None = None) -> None:
        """Compute the biases of all rows, so that no search has to."""
        bank = self.bank("text")
        if bank is not None:
            self._prepare(bank, report)

    def _prepare(self, bank: Bank, report: Report | None) -> None:
        with self._store.reading() as view:
            for field in ("picture", "text", "regions"):
                if field in view.spaces:
                    self._hubs["text"].of(view.spaces[field], bank, report)

    def biases(self, field: str, rows: Keys, kind: str) -> NDArray[np.float32] | None:
        """The bias of rows of a space for queries of a kind, (n,) float32; None without a bank of such queries."""
        known = self._biases(field, kind)
        return None if known is None else known.rows[rows]

    def centre(self, field: str, kind: str) -> float:
        """The mean bias of a space's rows, so that taking biases off leaves scores where they were on the whole."""
        known = self._biases(field, kind)
        return 0.0 if known is None else known.mean

    def _biases(self, field: str, kind: str) -> Biases | None:
        bank = self.bank(kind)
        if bank is None:
            return None
        with self._store.reading() as view:
            return self._hubs[kind].of(view.spaces[field], bank) if field in view.spaces else None
