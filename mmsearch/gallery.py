"""The demo gallery: openly licensed pictures that come with the package, and the demo's queries."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from mmsearch.errors import MissingDependency

TEXT_QUERIES: tuple[str, ...] = ()
PICTURE_QUERIES: tuple[str, ...] = ()


def gallery_folder() -> Path:
    """The gallery's dataset folder: inside an installed package, or in ``assets/`` of a checkout.

    Raises
    ------
    MissingDependency
        If neither is there.
    """
    package = Path(str(files("mmsearch")))
    for folder in (package / "gallery", package.parent / "assets" / "gallery"):
        if (folder / "items.jsonl").is_file():
            return folder
    raise MissingDependency("the demo gallery is not part of this installation: install mmsearch from its wheel")
