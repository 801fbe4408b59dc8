"""Pictures that were given in memory: the store keeps their files, so that they can be shown and encoded again."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from mmsearch.catalog import Catalog, bytes_of
from mmsearch.errors import StoreError
from mmsearch.files import atomic_write

_PLACE = "place"


class KeptPictures:
    """A folder of pictures, each under the name of its content, for the items of a catalog."""

    def __init__(self, folder: Path, catalog: Catalog) -> None:
        self._path = folder
        self._catalog = catalog

    @property
    def folder(self) -> Path:
        """Where they are, as an absolute path."""
        self._path.mkdir(exist_ok=True)
        return self._path.resolve()

    def keep(self, name: str, data: bytes) -> Path:
        """Keep a picture's file under a name; return where.

        Raises
        ------
        StoreError
            If it cannot be written.
        """
        path = self.folder / name
        if not path.exists():
            try:
                atomic_write(path, data)
            except OSError as error:
                raise StoreError(f"{path} cannot be written: {error.strerror}; what was stored stays") from error
        return path

    def drop(self, paths: Iterable[Path]) -> None:
        """Remove those of these paths that are kept here and that no item names any more."""
        folder = self.folder
        for path in paths:
            if path.parent == folder and not self._catalog.names_path(bytes_of(path) or b""):
                path.unlink(missing_ok=True)

    def drop_unused(self) -> None:
        """Remove every picture that no item names, such as those of a batch that was never committed."""
        self.drop(sorted(self.folder.iterdir()))

    def follow_move(self) -> None:
        """If the store itself was moved, its pictures are where it is now."""
        here, before = str(self.folder), self._catalog.setting(_PLACE)
        if before == here:
            return
        with self._catalog.transaction():
            if before is not None:
                self._catalog.move_paths(os.fsencode(before), os.fsencode(here))
            self._catalog.set_setting(_PLACE, here)
