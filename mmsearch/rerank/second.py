"""``SecondEncoder``: what another model of the same kind thinks of the candidates, which errs elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mmsearch.encoders import load_encoder
from mmsearch.encoders.spec import digest
from mmsearch.errors import InvalidInput, MMSearchError, ModelUnavailable
from mmsearch.protocols import Collection, Encoder
from mmsearch.rerank.kept_vectors import Halves, KeptVectors
from mmsearch.rerank.lru import Lru
from mmsearch.rerank.pace import Clock, Pace
from mmsearch.rerank.pairs import one_line, query_key
from mmsearch.rerank.second_rows import ReadBank, Subject, query_row, read, read_bank, subject_of
from mmsearch.rerank.stage import StoreStage, text_of, unscored
from mmsearch.types import Hit, Query, Signal, Vectors
from mmsearch.vectors import as_unit_vectors, dots

CACHE_SIZE = 200_000
"""Vectors kept in memory, two bytes a number: 300 MB at a width of 768."""
FOLDER = "seconds"
"""Where vectors are kept in a store's folder: a file a model, which may vanish."""
_BATCH = 8
_QUERIES_KEPT = 1_000
_PATIENCE = 60.0
"""Seconds after which a model that did not load is tried again."""


class SecondEncoder(StoreStage):
    """The cosine of query and hit by a second, independent model, such as a larger one of open_clip.

    Pictures are scored by their vectors, hits without one by those of their texts; where all hits were found by their
    texts, the texts count. A hit's value is its cosine less the mean over the hits scored, pictures and texts each
    around their own, since texts lie nearer to each other than to pictures. Queries may be texts, pictures and blends
    of them. Vectors are kept as they are met, in memory and in the store's folder, so that a collection is encoded
    bit by bit by its searches, and never twice.

    Independent opinions add up: two models of the embedded one's size, each with hubness and regions, reached R@1/5/10
    of 38.0/68.4/79.3 on Flickr8k test where one alone had 34.5/65.7/76.8. Only one is embedded, so that no benchmark
    here can repeat it.

    No error leaves ``score``: what was scored stays, the rest is NaN, and a note says why. Safe to call from many
    threads.

    Parameters
    ----------
    encoder
        The second model, or its name (see ``mmsearch.load_encoder``), loaded when first needed; one that does not load
        is tried again after a minute.
    corrected
        For a query that is one text, take each vector's bias off (see ``Hubness``) where the store has a bank of
        texts. The second model reads the bank in the first search without a budget, which may take minutes; searches
        with a budget before that are uncorrected, and say so.
    cache_size
        Vectors kept in memory; those on the disk are as many as were met.

    Raises
    ------
    InvalidInput
        For what is no encoder, an empty name, or a negative cache size.
    """

    name = "second"
    weight = 1.0
    """Values are cosines: at 1 the two models count alike."""

    def __init__(self, encoder: str | Encoder, *, corrected: bool = True, cache_size: int = CACHE_SIZE) -> None:
        super().__init__()
        self.corrected = corrected
        self._model = _Model(encoder)
        self._rows: Lru[Halves] = Lru(cache_size)
        self._queries: Lru[Vectors] = Lru(_QUERIES_KEPT)
        self._bank: ReadBank | None = None
        self._bank_lock = threading.Lock()
        self._pace = Pace(_BATCH)

    def prepare(self, collection: Collection) -> None:
        """Load the model before anybody waits for it; if that fails, ``score`` says so in a note."""
        super().prepare(collection)
        try:
            self._model.load()
        except MMSearchError:
            return  # `score` tries again or remembers, and its caller is the one who can be told

    def score(self, query: Query, hits: Sequence[Hit], deadline: float | None = None) -> Signal:
        """Each hit's cosine, around zero; NaN for what cannot be read or was not come to.

        Hits whose vectors are kept are answered even with no time left, if the query was asked before. No batch is
        begun past the deadline, nor one that would end past it at the mean time a hit has taken so far. Only the first
        batch of a call is always tried, with one hit at least.
        """
        if any(term.text is None and term.image is None for term in query.terms()):
            return unscored(len(hits), f"{self.name}: reads texts and pictures, not a query with an id or a vector")
        for_texts = all(hit.field == "text" for hit in hits)
        run = _Run(Clock(self._pace, deadline), [subject_of(hit, for_texts) for hit in hits])
        if not any(run.subjects):
            return unscored(len(hits), f"{self.name}: no hit has a picture or a text" if hits else "")
        order = sorted(range(len(hits)), key=lambda n: (hits[n].rank, n))
        run.waiting = list(dict.fromkeys(subject for n in order if (subject := run.subjects[n])))
        try:
            values = self._values(query, run, self.collection)
        except Exception as error:  # whatever a model does, the search has an answer
            run.failure = one_line(error)
            values = np.full(len(hits), np.nan, dtype=np.float32)
        return Signal(values, notes=tuple(f"{self.name}: {note}" for note in run.all_notes()))

    def _values(self, query: Query, run: _Run, collection: Collection | None) -> NDArray[np.float32]:
        encoder = self._model.loaded if run.clock.is_late() else self._model.load()
        asked = self._asked(query, encoder, run)
        values = np.full(len(run.subjects), np.nan, dtype=np.float32)
        if encoder is None or asked is None:
            return values
        kept = None
        if collection is not None:
            kept = KeptVectors(collection.folder / FOLDER / f"{digest(encoder.fingerprint)}.sqlite", encoder.dim)
        bank = self._bank_for(query, encoder, collection, kept, run)
        self._recall(run, kept)
        self._read_on(run, encoder, kept, bank)
        if not run.rows:
            return values
        places = {key: n for n, key in enumerate(run.rows)}
        cosines = dots(as_unit_vectors(list(run.rows.values())), asked)
        if bank is not None:
            cosines = cosines - bank.biases(run.rows)
        for n, subject in enumerate(run.subjects):
            if subject is not None and subject.key in places:
                values[n] = cosines[places[subject.key]]
        return run.around_zero(values)

    def _asked(self, query: Query, encoder: Encoder | None, run: _Run) -> Vectors | None:
        """The query by the second model, (dim,); None if it would have to be encoded and the time is up."""
        key = query_key(query)
        known = None if key is None else self._queries.get(key)
        if known is None and encoder is not None and not run.clock.is_late():
            known = query_row(query, encoder)
            if key is not None:
                self._queries.put(key, known)
        return known

    # Vectors ----------------------------------------------------------------------------------------------------

    def _recall(self, run: _Run, kept: KeptVectors | None) -> None:
        """Take what is kept."""
        for subject in run.waiting:
            if (row := self._rows.get(subject.key)) is not None:
                run.rows[subject.key] = row
        missing = [subject.key for subject in run.waiting if subject.key not in run.rows]
        if kept is not None:
            for key, row in kept.get(missing).items():
                self._rows.put(key, row)
                run.rows[key] = row
        run.waiting = [subject for subject in run.waiting if subject.key not in run.rows]

    def _read_on(self, run: _Run, encoder: Encoder, kept: KeptVectors | None, bank: ReadBank | None) -> None:
        """Encode what waits, batch by batch, for as long as there is time, and keep it."""
        fresh: dict[bytes, Halves] = {}
        try:
            while run.waiting and (size := run.clock.room()):
                found = self._attempt(run, run.waiting[:size], encoder, bank)
                for key, row in found.items():
                    self._rows.put(key, row)
                fresh |= found
        except Exception as error:
            run.failure = one_line(error)
        if kept is not None:
            kept.put(fresh)

    def _attempt(
        self, run: _Run, batch: list[Subject], encoder: Encoder, bank: ReadBank | None
    ) -> Mapping[bytes, Halves]:
        """Encode one batch; nothing if it did not fit into memory, and half of it is to be tried."""

        def work() -> tuple[dict[bytes, Halves], dict[bytes, str]]:
            found, unread = read(batch, encoder)
            if bank is not None:
                bank.biases(found)  # now, so that the pace knows of it
            return found, unread

        done = run.clock.attempt(len(batch), work)
        if done is None:
            return {}
        run.rows |= done[0]
        run.unread |= done[1]
        run.waiting = run.waiting[len(batch) :]
        return done[0]

    # The bank ---------------------------------------------------------------------------------------------------

    def _bank_for(
        self, query: Query, encoder: Encoder, collection: Collection | None, kept: KeptVectors | None, run: _Run
    ) -> ReadBank | None:
        """The bank by which to correct; None if there is none for such a query, or, with a note, if it is not ready."""
        if collection is None or kept is None or not self.corrected or text_of(query) is None:
            return None
        hurried = run.clock.deadline is not None
        try:
            texts = collection.bank_texts()
            if not texts:
                return None
            bank = self._bank
            if (bank is None or bank.texts != texts) and self._bank_lock.acquire(blocking=not hurried):
                try:
                    bank = self._bank
                    if bank is None or bank.texts != texts:
                        bank = self._bank = read_bank(texts, encoder, kept, hurried, self._rows.limit)
                finally:
                    self._bank_lock.release()
        except Exception as error:
            run.notes.append(f"not corrected, the bank cannot be read: {one_line(error)}")
            return None
        if bank is None or bank.texts != texts:
            run.notes.append("not corrected, this model has not read the bank yet: search once without a budget")
            return None
        return bank


class _Model:
    """The encoder, loaded when it is first needed."""

    def __init__(self, encoder: str | Encoder) -> None:
        if not isinstance(encoder, str | Encoder) or (isinstance(encoder, str) and not encoder.strip()):
            raise InvalidInput(f"expected an encoder or the name of one, got {encoder!r}: see mmsearch.load_encoder")
        self._name = encoder if isinstance(encoder, str) else encoder.name
        self.loaded: Encoder | None = None if isinstance(encoder, str) else encoder
        self._lock = threading.Lock()
        self._failure: MMSearchError | None = None
        self._retry_at = 0.0

    def load(self) -> Encoder:
        """The encoder.

        Raises
        ------
        MMSearchError
            If it does not load, or did not less than a minute ago.
        """
        with self._lock:
            if self.loaded is not None:
                return self.loaded
            if self._failure is None or time.monotonic() >= self._retry_at:
                try:
                    self.loaded = load_encoder(self._name)
                    return self.loaded
                except MMSearchError as error:
                    # A copy: the error itself would keep alive all that its frames hold, such as half a model.
                    self._failure = type(error)(str(error))
                except Exception as error:
                    self._failure = ModelUnavailable(f"the encoder {self._name!r} cannot be loaded: {one_line(error)}")
                self._retry_at = time.monotonic() + _PATIENCE
            raise self._failure.with_traceback(None)


@dataclass(slots=True)
class _Run:
    """What one call of ``score`` has come to. ``subjects`` are the hits', ``waiting`` is distinct and best first."""

    clock: Clock
    subjects: list[Subject | None]
    waiting: list[Subject] = field(default_factory=list)
    rows: dict[bytes, Halves] = field(default_factory=dict)
    unread: dict[bytes, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    failure: str = ""

    def around_zero(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Less their mean, for pictures and texts each."""
        texts = np.array([subject is not None and subject.is_text for subject in self.subjects])
        for kind in (texts, ~texts):
            scored = kind & np.isfinite(values)
            if scored.any():
                values[scored] -= values[scored].mean(dtype=np.float64)
        return values

    def all_notes(self) -> list[str]:
        keys = [subject.key for subject in self.subjects if subject is not None]
        waiting = {subject.key for subject in self.waiting}
        come_to = [key for key in keys if key not in waiting]
        scored = f"scored {len(come_to)} of {len(keys)}"
        notes = list(self.notes)
        if self.failure:
            notes.append(f"{scored}, then failed: {self.failure}")
        elif waiting:
            notes.append(f"{scored}, the time was up")
        unread = [self.unread[key] for key in come_to if key in self.unread]
        silent = sum(key not in self.rows and key not in self.unread for key in come_to)
        if silent:
            notes.append(f"the model gave no usable vector for {silent} of {len(come_to)} hits")
        if unread:
            notes.append(f"{len(unread)} of {len(come_to)} pictures cannot be read, the first: {unread[0]}")
        return notes
