"""``Shelf``: arrays that belong together, kept in a folder and read again as memory maps."""

from __future__ import annotations

import json
import re
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmsearch.errors import StoreDamaged, StoreError

_OWN = re.compile(r"[0-9a-f]{16}")
_NAMES = "names.json"


class Shelf:
    """Sets of named arrays in a folder; each is written whole before its name is given out."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, arrays: Mapping[str, NDArray[Any]]) -> str:
        """Keep arrays; return the name by which they are found again.

        Raises
        ------
        StoreError
            If they cannot be written, for example because the disk is full; nothing is left behind then.
        """
        name = secrets.token_hex(8)
        place = self.folder / name
        try:
            place.mkdir(parents=True)
            for n, array in enumerate(arrays.values()):
                np.save(place / f"{n}.npy", array, allow_pickle=False)
            (place / _NAMES).write_text(json.dumps(list(arrays)), "utf-8")
        except OSError as error:
            shutil.rmtree(place, ignore_errors=True)
            raise StoreError(f"what was learnt cannot be kept in {place}: {error.strerror}") from error
        except BaseException:
            shutil.rmtree(place, ignore_errors=True)
            raise
        return name

    def get(self, name: str) -> dict[str, NDArray[Any]]:
        """The arrays of a name, memory-mapped and read-only where they are not empty.

        Raises
        ------
        StoreDamaged
            If they are not there, or are not what was put there.
        """
        place = self.folder / name
        try:
            names = json.loads((place / _NAMES).read_text("utf-8"))
            return {key: _load(place / f"{n}.npy") for n, key in enumerate(names)}
        except (OSError, ValueError, TypeError, EOFError) as error:
            raise StoreDamaged(
                f"what was learnt from interactions cannot be read from {place} ({error}): call fit_recommender, or "
                "run `mmsearch interactions fit`"
            ) from error

    def drop_others(self, name: str | None) -> None:
        """Forget every set but this."""
        for place in self.folder.iterdir() if self.folder.is_dir() else ():
            if place.name != name and _OWN.fullmatch(place.name):
                shutil.rmtree(place, ignore_errors=True)  # what is left over takes room and does no harm


def _load(file: Path) -> NDArray[Any]:
    array: NDArray[Any] = np.load(file, mmap_mode="r", allow_pickle=False)
    return array
