"""``Tastes``: what was learnt from a store's interactions, kept in the store and taken back."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmsearch.catalog import EventBook
from mmsearch.errors import InvalidInput, MMSearchError, StoreDamaged
from mmsearch.lineup import hybrid
from mmsearch.recommenders.details import Details
from mmsearch.recommenders.hybrid import Hybrid
from mmsearch.shelf import Shelf
from mmsearch.stock import Stock
from mmsearch.store import Store, View
from mmsearch.types import Progress, Report

_SETTING, _FORGOTTEN = "recommender", "recommender knows forgotten users"
_DETAILS = "details:"


@dataclass(frozen=True, slots=True, eq=False)
class Learnt:
    """What a store's recommendations are made of.

    ``blend`` is None where nothing was learnt, or what was learnt no longer fits, as ``notes`` say. ``had``,
    (n_items,), is how many people had to do with each item when it was learnt.
    """

    stock: Stock
    blend: Hybrid | None
    had: NDArray[np.int64]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class _Known:
    """What was learnt, as it is in one generation of the catalog; ``state`` is all that it depends on."""

    generation: int
    state: tuple[Any, ...]
    learnt: Learnt


class Tastes:
    """Learns from the interactions of one store, and remembers."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._book = EventBook(store.catalog)
        self._shelf = Shelf(store.path / "recommender")
        self._known: _Known | None = None
        self._lock = threading.Lock()

    def fit(self, report: Report | None = None, *, fresh: float = 0.1) -> Learnt:
        """Learn from all interactions, and keep it in the store, which others may write until that is done.

        Raises
        ------
        InvalidInput
            If there are none, or no items.
        StoreBusy
            If another engine or process is writing at the end.
        """
        with self._store.reading() as view:
            if report is not None:
                report(Progress("learn", 0, 1))
            stock = Stock.of(self._store, view)
            behaviour, people = stock.behaviour(self._book)
            if not len(behaviour):
                raise InvalidInput(
                    "expected interactions to learn from, got none: add some with add_interactions, or "
                    "`mmsearch interactions import FILE`"
                )
            blend = hybrid(stock, fresh=fresh).fit(behaviour)
            had = np.bincount(behaviour.seen().indices, minlength=len(stock))
            arrays = {
                "keys": stock.keys,
                "had": had,
                "people": np.array([len(people), self._book.stamp()]),
                "encoder": np.frombuffer(_fingerprint(view).encode(), dtype=np.uint8),
                **{_DETAILS + name: array for name, array in stock.details.state().items()},
                **blend.state(),
            }
        name = self._shelf.put(arrays)
        try:
            with self._store.writing():
                before, forgotten = self._store.catalog.setting(_SETTING), self._store.catalog.setting(_FORGOTTEN)
                with self._store.catalog.transaction():
                    self._store.catalog.set_setting(_SETTING, name)
                    self._store.catalog.set_setting(_FORGOTTEN, None)
                # Somebody may still be reading the state before; but not if it tells of somebody who is forgotten.
                self._shelf.keep(name, None if forgotten else before)
        except BaseException:
            self._shelf.drop(name)
            raise
        if report is not None:
            report(Progress("learn", 1, 1))
        with self._store.reading() as view:
            return self.learnt(view)

    def forget(self, everything: bool) -> None:
        """Forget what was learnt, or see that the next fit leaves nothing of it. Inside ``store.writing()``."""
        with self._store.catalog.transaction():
            self._store.catalog.set_setting(*(_SETTING, None) if everything else (_FORGOTTEN, "1"))
        if everything:
            self._shelf.keep()

    def learnt(self, view: View) -> Learnt:
        """What is known in this state, which is being read; not made anew where only interactions have changed."""
        with self._lock:
            known = self._known
            if known is not None and known.generation == view.generation:
                return known.learnt
            name = self._store.catalog.setting(_SETTING)
            state = self._state(view, name)
            learnt = known.learnt if known is not None and known.state == state else self._load(view, name)
            if known is None or known.generation < view.generation:  # else this thread still reads an old state
                self._known = _Known(view.generation, state, learnt)
            return learnt

    def _state(self, view: View, name: str | None) -> tuple[Any, ...]:
        """What is another one whenever anything but interactions has changed."""
        records = tuple(space.record for space in view.spaces.values())
        # Each change of interactions alone adds 1 to both numbers; all other changes add 1 to the first.
        others = view.generation - self._book.stamp()
        return name, _fingerprint(view), view.held, records, self._store.catalog.extent(), others

    def is_behind(self) -> bool:
        """Whether there are interactions that nothing was learnt from yet, or what was learnt cannot be read."""
        name = self._store.catalog.setting(_SETTING)
        if name is None:
            return self._book.counts()[1] > 0
        try:
            return int(self._shelf.get(name)["people"][1]) != self._book.stamp()
        except (StoreDamaged, LookupError):
            return True

    def _load(self, view: View, name: str | None) -> Learnt:
        if name is None:
            stock = Stock.of(self._store, view)
            return Learnt(stock, None, np.zeros(len(stock), dtype=np.int64))
        try:
            return self._restored(view, self._shelf.get(name))
        except (StoreDamaged, ValueError, TypeError, LookupError, ArithmeticError) as error:
            # A file that was written by somebody else may hold any arrays.
            told = isinstance(error, MMSearchError)
            why = error if told else f"it is damaged ({error}); call fit_recommender again"
            stock = Stock.of(self._store, view)
            notes = (f"nothing is used of what was learnt from interactions: {why}",)
            return Learnt(stock, None, np.zeros(len(stock), dtype=np.int64), notes)

    def _restored(self, view: View, arrays: Mapping[str, NDArray[Any]]) -> Learnt:
        if bytes(np.asarray(arrays["encoder"])).decode() != _fingerprint(view):
            raise InvalidInput("it was learnt with another encoder; call fit_recommender again")
        details = Details().restore(
            {key.removeprefix(_DETAILS): array for key, array in arrays.items() if key.startswith(_DETAILS)}
        )
        names = Hybrid.names_in(arrays)
        stock = Stock.of(self._store, view, np.array(arrays["keys"]), details, names)
        blend = hybrid(stock, names).restore(arrays)
        had = np.zeros(len(stock), dtype=np.int64)
        had[: len(arrays["had"])] = arrays["had"]
        return Learnt(stock, blend, had)


def _fingerprint(view: View) -> str:
    return view.encoder.fingerprint if view.encoder else ""
