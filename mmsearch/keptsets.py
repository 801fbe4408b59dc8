"""``KeptSets``: sets of arrays with facts, the latest of each name, kept in a store."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from numpy.typing import NDArray

from mmsearch.errors import StoreDamaged
from mmsearch.shelf import Shelf
from mmsearch.store import Store


class KeptSets:
    """What analyses leave behind for the next one, such as clusters and maps.

    Parameters
    ----------
    name
        The setting of the catalog, and the folder in the store.
    most
        How many sets are kept; the one that was put first goes first.
    lasting
        Which names are never given up for others.
    """

    def __init__(self, store: Store, name: str, most: int, lasting: Callable[[str], bool] = lambda name: False) -> None:
        self._store, self._setting, self._most, self._lasting = store, name, most, lasting
        self._shelf = Shelf(store.path / name)

    def get(self, name: str) -> tuple[dict[str, NDArray[Any]], dict[str, Any]] | None:
        """The arrays of a name, memory-mapped, and its facts; None if there are none that can be read."""
        one = self._all().get(name)
        if one is None:
            return None
        try:
            return self._shelf.get(str(one["shelf"])), dict(one["facts"])
        except (StoreDamaged, LookupError, ValueError, TypeError):
            return None

    def put(self, name: str, arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]) -> None:
        """Keep arrays and facts (what JSON can hold) under a name.

        Raises
        ------
        StoreError, StoreBusy
            If the store cannot be written now.
        """
        with self._store.writing():
            shelf = self._shelf.put(arrays)
            try:
                every = self._all()
                every.pop(name, None)
                every[name] = {"shelf": shelf, "facts": dict(facts)}
                brief = [one for one in every if not self._lasting(one)]
                gone = set(brief[: max(0, len(brief) - self._most)]) - {name}
                kept = {one: told for one, told in every.items() if one not in gone}
                with self._store.catalog.transaction():
                    self._store.catalog.set_setting(self._setting, json.dumps(kept))
            except BaseException:
                self._shelf.drop(shelf)
                raise
            self._shelf.keep(*(str(one["shelf"]) for one in kept.values()))

    def facts(self) -> dict[str, dict[str, Any]]:
        """The facts of all names, the latest last."""
        return {name: one["facts"] for name, one in self._all().items() if isinstance(one.get("facts"), dict)}

    def _all(self) -> dict[str, dict[str, Any]]:
        try:
            told = json.loads(self._store.catalog.setting(self._setting) or "{}")
        except ValueError:
            return {}
        if not isinstance(told, dict):
            return {}
        return {name: one for name, one in told.items() if isinstance(one, dict) and isinstance(one.get("shelf"), str)}
