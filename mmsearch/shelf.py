"""``Shelf``: arrays that belong together, kept in a folder and read again as memory maps."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmsearch.errors import StoreDamaged, StoreError
from mmsearch.files import atomic_write, fsync_folder

_OWN = re.compile(r"[0-9a-f]{16}")
_CONTENTS = "contents.json"


class Shelf:
    """Sets of named arrays in a folder; each is on disk, whole, before its name is given out."""

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
                _save(place / f"{n}.npy", array)
            told = [(key, *_form(array)) for key, array in arrays.items()]
            atomic_write(place / _CONTENTS, json.dumps(told).encode())
            fsync_folder(self.folder)
        except OSError as error:
            shutil.rmtree(place, ignore_errors=True)
            raise StoreError(f"what was learnt cannot be kept in {place}: {error.strerror}") from error
        except BaseException:
            shutil.rmtree(place, ignore_errors=True)
            raise
        return name

    def get(self, name: str) -> dict[str, NDArray[Any]]:
        """The arrays of a name, memory-mapped and read-only.

        Raises
        ------
        StoreDamaged
            If they are not there, or are not what was put there.
        """
        place = self.folder / name
        try:
            told = json.loads((place / _CONTENTS).read_text("utf-8"))
            return {key: _load(place / f"{n}.npy", dtype, shape) for n, (key, dtype, shape) in enumerate(told)}
        except (OSError, ValueError, TypeError, EOFError) as error:
            raise StoreDamaged(
                f"what was kept cannot be read from {place} ({error}): make it anew (of interactions: call "
                "fit_recommender, or run `mmsearch interactions fit`)"
            ) from error

    def drop(self, name: str) -> None:
        """Forget a set that nobody knows of."""
        shutil.rmtree(self.folder / name, ignore_errors=True)

    def keep(self, *names: str | None) -> None:
        """Forget every set but these."""
        for place in self.folder.iterdir() if self.folder.is_dir() else ():
            if place.name not in names and _OWN.fullmatch(place.name):
                shutil.rmtree(place, ignore_errors=True)  # what is left over takes room and does no harm


def _save(file: Path, array: NDArray[Any]) -> None:
    with open(file, "xb") as stream:
        np.save(stream, array, allow_pickle=False)
        stream.flush()
        os.fsync(stream.fileno())


def _load(file: Path, dtype: str, shape: list[int]) -> NDArray[Any]:
    array: NDArray[Any] = np.load(file, mmap_mode="r", allow_pickle=False)
    if _form(array) != (dtype, shape):
        raise ValueError(f"{file.name} holds other numbers than were put there")
    return array


def _form(array: NDArray[Any]) -> tuple[str, list[int]]:
    return array.dtype.str, list(array.shape)
