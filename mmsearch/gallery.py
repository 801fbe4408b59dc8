"""The demo gallery: openly licensed pictures that come with the package, and the demo's queries."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from mmsearch.errors import MissingDependency

TEXT_QUERIES = (
    "a panda eating",
    "a red and blue parrot",
    "windmill",
    "solar panels on a roof",
    "pyramid in the desert",
    "polar bear on ice",
    "Taj Mahal",
    "measuring tape",
    "slice of pizza",
    "red sports car",
)
"""The demo's words: those with photographs first, then those that clip art answers."""

PICTURE_QUERIES = (
    "gcompris-photos-categorization-images-renewable-windmill3.webp",
    "gcompris-photos-explore-monuments-egypt-redpyramid.webp",
    "gcompris-photos-categorization-images-fishes-fish9.webp",
)
"""Ids of the pictures that the demo looks for more of."""


def gallery_folder() -> Path:
    """The gallery's dataset folder: inside an installed package, or in ``assets/`` of a checkout.

    Raises
    ------
    MissingDependency
        If neither is there.
    """
    package = Path(str(files("mmsearch")))
    for folder in (package / "demo_gallery", package.parent / "assets" / "gallery"):
        if (folder / "items.jsonl").is_file():
            return folder
    raise MissingDependency("the demo gallery is not part of this installation: install mmsearch from its wheel")
