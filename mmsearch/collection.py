"""``StoreCollection``: what the stages of a cascade may ask of a store."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmsearch.bank import Bank, KeptBanks, distinct
from mmsearch.hubs import Hubs
from mmsearch.index.halves import widen
from mmsearch.protocols import Encoder
from mmsearch.queries import Resolved, resolve
from mmsearch.store import Store
from mmsearch.types import Hit, Keys, Query, Report, Vectors

BANK = "bank"
"""The setting that names a store's bank."""
REMEMBERED = 256
"""Queries whose vectors are kept while they are answered."""


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
        self._hubs = {kind: Hubs(store.path / "indexes") for kind in ("text", "picture")}
        self._queries: OrderedDict[int, tuple[Query, Vectors, str]] = OrderedDict()
        self._loaded: tuple[str, str, Bank] | None = None
        self._lock = threading.Lock()

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
        with self._lock:
            for query, vector, kind in zip(queries, resolved.vectors, resolved.kinds, strict=True):
                self._queries[id(query)] = (query, vector, kind)  # held, since its id names it
            while len(self._queries) > REMEMBERED:
                self._queries.popitem(last=False)

    def query_vector(self, query: Query) -> tuple[Vectors, str]:
        """A query as one unit vector, (dim,), and the field whose items it resembles."""
        known = self._queries.get(id(query))
        if known is None:
            with self._store.reading() as view:
                resolved = resolve([query], self._encoder, self._store, view)
            self.remember([query], resolved)
            known = (query, resolved.vectors[0], resolved.kinds[0])
        return known[1], known[2]

    # Stored rows ------------------------------------------------------------------------------------------------

    def rows(self, field: str, hits: Sequence[Hit]) -> tuple[Keys, Keys]:
        """For each hit the number of its first row in a space and how many it has, (n,) each; 0 of them if none."""
        with self._store.reading() as view:
            space = view.spaces.get(field)
            if space is None:
                return np.zeros(len(hits), dtype=np.int64), np.zeros(len(hits), dtype=np.int64)
            found = self._store.book.spans(space.record.space, [hit.item.id for hit in hits])
        spans = np.array([found.get(hit.item.id, (0, 0)) for hit in hits], dtype=np.int64).reshape(-1, 2)
        return spans[:, 0], spans[:, 1]

    def stored(self, field: str, rows: Keys) -> NDArray[Any]:
        """Stored rows of a space, (n, width): float32, or the int8 codes of cells."""
        with self._store.reading() as view:
            values: NDArray[Any] = view.spaces[field].matrix[rows]
        return widen(values) if values.dtype == np.float16 else values

    # The bank ---------------------------------------------------------------------------------------------------

    def set_bank(self, texts: Sequence[str] | None, source: str, report: Report | None = None) -> int:
        """Keep a bank of texts in the store, or none; return how many were kept. Inside ``store.writing()``."""
        kept = [] if texts is None else distinct(texts)
        name = None if texts is None else self._kept.put(kept, source)
        with self._store.catalog.transaction():
            self._store.catalog.set_setting(BANK, name)
        self._kept.drop_others(name)
        self.prepare(report)
        return len(kept)

    def bank(self, kind: str) -> Bank | None:
        """The bank for queries of a kind, ``text`` or ``picture``; None if there is none."""
        if self._given is not None:
            return self._given.get(kind)
        name = self._store.catalog.setting(BANK) if kind == "text" else None
        if name is None:
            return None
        with self._store.reading() as view:
            fingerprint = view.encoder.fingerprint if view.encoder else self.encoder.fingerprint
        loaded = self._loaded
        if loaded is None or loaded[:2] != (name, fingerprint):
            with self._lock:
                loaded = self._loaded = (name, fingerprint, self._kept.load(name, self._encoder, fingerprint))
        return loaded[2]

    @property
    def folder(self) -> Path:
        """The store's folder, where a stage may keep what it has computed: a cache, which may vanish."""
        return self._store.path

    def bank_texts(self) -> list[str]:
        """The bank's queries that are texts; none without a bank, or with one that was given as vectors."""
        name = None if self._given is not None else self._store.catalog.setting(BANK)
        return [] if name is None else self._kept.texts(name)[0]

    def has_bank(self, kind: str) -> bool:
        """Whether there is a bank of queries of a kind, ``text`` or ``picture``."""
        if self._given is not None:
            return kind in self._given
        return kind == "text" and self._store.catalog.setting(BANK) is not None

    def prepare(self, report: Report | None = None) -> None:
        """Compute the biases of all rows, so that no search has to."""
        bank = self.bank("text")
        with self._store.reading() as view:
            for field in ("picture", "regions"):
                if bank is not None and field in view.spaces:
                    self._hubs["text"].of(view.spaces[field], bank, report)

    def biases(self, field: str, rows: Keys, kind: str) -> NDArray[np.float32] | None:
        """The bias of rows of a space for queries of a kind, (n,) float32; None without a bank of such queries."""
        known = self._biases(field, kind)
        return None if known is None else known[rows]

    def centre(self, field: str, kind: str) -> float:
        """The mean bias of a space's rows, so that taking biases off leaves scores where they were on the whole."""
        known = self._biases(field, kind)
        return 0.0 if known is None or not len(known) else float(known.mean())

    def _biases(self, field: str, kind: str) -> NDArray[np.float32] | None:
        bank = self.bank(kind)
        if bank is None:
            return None
        with self._store.reading() as view:
            return self._hubs[kind].of(view.spaces[field], bank) if field in view.spaces else None
