"""What every model that reads a query and an item together shares: batches, deadlines, failures, a cache of pairs."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from mmsearch.errors import InvalidInput, ModelBroken, PictureError
from mmsearch.files import content_hash, split_member
from mmsearch.images import Source, open_picture
from mmsearch.rerank.lru import Lru
from mmsearch.rerank.pace import Clock, Pace
from mmsearch.rerank.stage import ALONE, Stage, text_of
from mmsearch.types import Hit, Item, Query, Signal

if TYPE_CHECKING:
    from mmsearch.protocols import Collection

CACHE_SIZE = 100_000
"""Pairs whose score is kept: some 20 MB."""


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What a model says of a batch: ``values``, (n,), and by position why a picture cannot be read: NaN there."""

    values: ArrayLike
    unread: Mapping[int, str] = field(default_factory=dict)


class PairScorer(Stage):
    """A stage over a model that reads query and item together; a subclass gives ``fingerprint`` and ``_score_batch``.

    Hits are scored best first, batch by batch, until all are or the time is up; a score is kept in memory for as long
    as the query, the item and its picture stay the same. No error leaves ``score``: what was scored stays, the rest is
    NaN, and a note says why. Safe to call from many threads.

    Parameters
    ----------
    name
        What people call the stage.
    batch_size
        Pairs that are scored at once. A batch that does not fit into memory is halved, and later ones stay smaller.
    cache_size
        Pairs whose score is kept, the ones used last; 0 keeps none.

    Raises
    ------
    InvalidInput
        For an empty name, a batch size below 1 or a negative cache size.
    """

    fingerprint: str
    """Which model: a score is kept under it."""
    weight = ALONE

    def __init__(self, name: str, *, batch_size: int = 32, cache_size: int = CACHE_SIZE) -> None:
        if not isinstance(name, str) or not name.strip():
            raise InvalidInput(f"expected the name of a stage as a str, got {name!r}")
        if batch_size < 1:
            raise InvalidInput(f"expected a batch_size of at least 1, got {batch_size}")
        self.name = name
        self._cache: Lru[float] = Lru(cache_size)
        self._pace = Pace(batch_size)

    @abstractmethod
    def _score_batch(self, query: Query, hits: Sequence[Hit]) -> ArrayLike | Verdicts:
        """One number a hit, (n,), higher is better; may raise, and give NaN for what it cannot say."""

    def can_judge(self, query: Query, hit: Hit) -> bool:
        """Whether the model can read this pair; here, whether the query is one text."""
        return text_of(query) is not None

    def why_not(self, query: Query) -> str:
        """Why the model can read no hit of a query, for a note."""
        return "reads only queries that are one text" if text_of(query) is None else "can read none of the hits"

    def item_key(self, item: Item) -> bytes:
        """A digest of what the model reads of an item: when it changes, the item is scored again."""
        return item_key(item)

    def load(self) -> None:
        """Load what scoring needs, if that was not done yet; may raise what loading raises."""

    def prepare(self, collection: Collection) -> None:
        """Load the model before anybody waits for it; if that fails, ``score`` says so in a note."""
        try:
            self.load()
        except Exception:
            return  # `score` tries again or remembers, and its caller is the one who can be told

    def forget(self) -> None:
        """Drop all kept scores."""
        self._cache.clear()

    def score(self, query: Query, hits: Sequence[Hit], deadline: float | None = None) -> Signal:
        """One number a hit, in the hits' order; NaN for what cannot be judged or was not come to.

        A pair that was scored before is answered even with no time left. No batch is begun past the deadline, nor
        one that would end past it at the mean time a pair has taken so far; the time to load the model is not
        counted in that mean. Only the first batch of a call is always tried, with one pair at least.
        """
        run = _Run(Clock(self._pace, deadline), np.full(len(hits), np.nan, dtype=np.float32))
        try:
            if hits:
                self._score(query, hits, run)
        except Exception as error:
            run.failure = one_line(error)
        return Signal(run.values, notes=tuple(f"{self.name}: {note}" for note in run.notes()))

    def _score(self, query: Query, hits: Sequence[Hit], run: _Run) -> None:
        best_first = sorted(range(len(hits)), key=lambda n: (hits[n].rank, n))
        run.judged = run.waiting = [n for n in best_first if self.can_judge(query, hits[n])]
        if not run.judged:
            run.reason = self.why_not(query)
            return
        keys = self._keys(query, hits, run.judged)
        for n, key in keys.items():
            run.values[n] = np.nan if (known := self._cache.get(key)) is None else known
        run.waiting = [n for n in run.judged if np.isnan(run.values[n])]
        if not run.waiting or run.clock.is_late():
            return
        self.load()
        while run.waiting and (size := run.clock.room()):
            batch = run.waiting[:size]
            if not self._attempt(query, [hits[n] for n in batch], batch, run):
                continue
            for n in batch:
                if n in keys and np.isfinite(run.values[n]):
                    self._cache.put(keys[n], float(run.values[n]))
            run.waiting = run.waiting[size:]

    def _keys(self, query: Query, hits: Sequence[Hit], judged: Sequence[int]) -> dict[int, bytes]:
        asked = query_key(query) if self._cache.limit else None
        if asked is None:
            return {}
        prefix = self.fingerprint.encode("utf-8", "backslashreplace") + b"\0" + asked
        return {n: content_hash(prefix + self.item_key(hits[n].item)) for n in judged}

    def _attempt(self, query: Query, batch: list[Hit], places: list[int], run: _Run) -> bool:
        """Score one batch; False if it did not fit into memory, and half of it is to be tried."""
        said = run.clock.attempt(len(batch), lambda: _judged(self._score_batch(query, batch), len(batch)))
        if said is None:
            return False
        numbers, unread = said
        run.values[places] = numbers
        run.unread.extend(unread)
        return True


def _judged(said: ArrayLike | Verdicts, n: int) -> tuple[NDArray[np.float32], list[str]]:
    """A batch's scores, NaN for what is no number, and what could not be read."""
    judged = said if isinstance(said, Verdicts) else Verdicts(said)
    with np.errstate(over="ignore"):
        numbers = np.asarray(judged.values).astype(np.float32)
    if numbers.shape != (n,):
        raise ModelBroken(f"expected {n} scores in one row, got the shape {numbers.shape}")
    numbers[~np.isfinite(numbers)] = np.nan
    return numbers, list(judged.unread.values())


@dataclass(slots=True)
class _Run:
    """What one call of ``score`` has come to. ``judged`` and ``waiting`` are positions of hits, best first."""

    clock: Clock
    values: NDArray[np.float32]
    judged: list[int] = field(default_factory=list)
    waiting: list[int] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    reason: str = ""
    failure: str = ""

    def notes(self) -> list[str]:
        total, done = len(self.judged), len(self.judged) - len(self.waiting)
        notes = [self.reason] if self.reason else []
        if self.failure:
            notes.append((f"scored {done} of {total}, then " if total else "") + f"failed: {self.failure}")
        elif self.waiting:
            notes.append(f"scored {done} of {total}, the time was up")
        silent = int(np.isnan(self.values[self.judged]).sum()) - len(self.waiting) - len(self.unread)
        if silent > 0:
            notes.append(f"gave no number for {silent} of {done} hits")
        if self.unread:
            notes.append(f"{len(self.unread)} of {done} pictures cannot be read, the first: {self.unread[0]}")
        return notes


def query_key(query: Query) -> bytes | None:
    """A digest of what a query asks; None where that can change unseen, as with an item's id or a missing file."""
    parts: list[object] = []
    for term in query.terms():
        picture = None if term.image is None else _picture_key(term.image)
        if term.id is not None or (term.image is not None and picture is None):
            return None
        vector = None if term.vector is None else np.asarray(term.vector, dtype=np.float64)
        parts.append((term.text, picture, None if vector is None else (vector.shape, vector.tobytes()), term.weight))
    return content_hash(repr(parts).encode())


def item_key(item: Item) -> bytes:
    """A digest of an item's id, text and picture; of a file its path, size and time, the zip file's for a member."""
    pictures = [None if source is None else _picture_key(source) for source in (item.path, item.image)]
    return content_hash(repr((item.id, item.text, item.path, pictures)).encode())


def read_picture(item: Item, min_side: int | None = None) -> Image.Image:
    """An item's picture, RGB and upright; ``min_side`` and errors are those of ``open_picture``.

    Raises
    ------
    PictureError
        Also if the item has no picture.
    """
    source: Source | None = item.path if item.image is None else item.image
    if source is None:
        raise PictureError(f"the item {item.id!r} has no picture")
    return open_picture(source, min_side=min_side).image


def has_picture(item: Item) -> bool:
    """Whether an item has a picture, readable or not."""
    return item.path is not None or item.image is not None


def one_line(error: BaseException) -> str:
    """An error's type and message, short enough for a note."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _picture_key(source: Source) -> object:
    match source:
        case bytes():
            return content_hash(source)
        case Image.Image():
            return source.mode, source.size, content_hash(source.tobytes())
    try:
        inside = split_member(source)
        status = os.stat(source if inside is None else inside[0])
    except (OSError, ValueError):  # not there, or no name that a file can have
        return None
    return str(source), status.st_mtime_ns, status.st_size


def folder_stamp(model: str) -> list[tuple[str, int, int]]:
    """Names, sizes and times of the files of a model in a folder; empty for a model that is none."""
    folder = Path(model)
    files = sorted(file for file in folder.rglob("*") if file.is_file()) if folder.is_dir() else []
    return [(str(file.relative_to(folder)), file.stat().st_mtime_ns, file.stat().st_size) for file in files]
