"""What numbers and texts of a collection look like in words that need no training in statistics."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real

from mmsearch.atlas.look import caption, line
from mmsearch.clusters import Quality
from mmsearch.files import display_name
from mmsearch.types import Item

UNKNOWN = "n/a"
"""Stands for a number that is not known."""
_ID, _TEXT, _NAME = 200, 160, 100
"""Characters of ids, of texts and of names that are shown."""

FLAWS: Mapping[str, str] = {
    "dark": "how bright the bright parts are",
    "bright": "how dark the dark parts are",
    "blurred": "sharpness",
    "empty": "contrast",
    "aspect": "longer side by shorter side",
    "small": "pixels on the shorter side",
}
"""What was measured, by the kind of flaw."""

# From where on each is said. Stability: Hennig, Comput. Stat. Data Anal. 52, 2007, and the manual of clusterboot in his
# R package fpc: from 0.75 on valid and stable, below 0.6 not to be trusted. Silhouette: Kaufman & Rousseeuw, Finding
# Groups in Data, 1990, chapter 2 (0.5 and 0.25), with one more step since vectors of many dimensions seldom get there.
# Cohesion and separation have no scale of their own: the vectors of some encoders all lie close together.
_STABILITY = (
    (0.85, "nearly all clusters come back when half of the items is clustered anew"),
    (0.75, "most clusters come back when half of the items is clustered anew"),
    (0.6, "clusters come back in the main when half of the items is clustered anew, but their borders move"),
    (
        -math.inf,
        "many clusters change when half of the items is clustered anew: take them as one of several possible views",
    ),
)
_SILHOUETTE = (
    (0.5, "clusters are clearly set apart"),
    (0.25, "clusters are set apart, with some overlap"),
    (0.05, "clusters shade into their neighbours, as is usual for pictures and texts"),
    (-math.inf, "clusters overlap: many items could as well be in the next one"),
)
_AGREEMENT = (
    (0.8, "clusters are nearly the same thing as this field"),
    (0.5, "clusters follow this field in the main"),
    (0.2, "clusters follow this field in part"),
    (-math.inf, "clusters show something else than this field"),
)


@dataclass(frozen=True, slots=True)
class Figure:
    """A number, what it is called, and what it means."""

    name: str
    value: str
    meaning: str = ""


def quality_figures(quality: Quality) -> list[Figure]:
    """How far to trust a clustering: the four numbers, each in words."""
    return [
        Figure("stability", decimal(quality.stability), _said(_STABILITY, quality.stability)),
        Figure("silhouette", decimal(quality.silhouette), _said(_SILHOUETTE, quality.silhouette)),
        Figure(
            "cohesion", decimal(quality.cohesion), "how alike the members of a cluster are to its centre; 1 is the same"
        ),
        Figure(
            "separation",
            decimal(quality.separation),
            "how unlike the centre of a cluster and the next one are; 0 is the same",
        ),
    ]


def agreement_meaning(measures: Mapping[str, float]) -> str:
    """What the agreement with a field means, by its normalised mutual information."""
    return _said(_AGREEMENT, measures.get("nmi", math.nan))


def _said(steps: tuple[tuple[float, str], ...], value: float) -> str:
    if not math.isfinite(value):
        return "not known"
    return next(meaning for least, meaning in steps if value >= least)


def decimal(value: object, digits: int = 2) -> str:
    """A number with so many decimals; ``n/a`` if it is not known.

    >>> decimal(0.816), decimal(float("nan")), decimal(-0.001)
    ('0.82', 'n/a', '0.00')
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        return UNKNOWN
    return f"{value:.{digits}f}" if round(value, digits) else f"{0:.{digits}f}"


def percent(value: object) -> str:
    """A share as a whole percentage; ``n/a`` if it is not known.

    >>> percent(0.816), percent(float("nan"))
    ('82%', 'n/a')
    """
    number = decimal(100 * value if isinstance(value, Real) else value, 0)
    return number if number == UNKNOWN else f"{number}%"


def measured(value: float) -> str:
    """What was measured of a picture: whole numbers from 10 on, else three digits; ``n/a`` if it is not known.

    >>> measured(48.0), measured(0.01234), measured(float("inf"))
    ('48', '0.0123', 'n/a')
    """
    if not math.isfinite(value):
        return UNKNOWN
    return f"{value:,.0f}" if abs(value) >= 10 else f"{value:.3g}"


def counted(n: int, one: str, many: str = "") -> str:
    """A number of things.

    >>> counted(1, "item"), counted(1200, "item"), counted(2, "copy", "copies")
    ('1 item', '1,200 items', '2 copies')
    """
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def size(n_bytes: int) -> str:
    """Bytes in the unit that suits.

    >>> size(512), size(48_300_000)
    ('512 bytes', '48.3 MB')
    """
    for least, unit in ((10**9, "GB"), (10**6, "MB"), (10**3, "KB")):
        if n_bytes >= least:
            return f"{n_bytes / least:.1f} {unit}"
    return counted(n_bytes, "byte")


def name(text: str) -> str:
    """An id or label as one line that shows what is in it: direction marks and the like as escapes."""
    return display_name(line(text, _ID).encode()) or "(no name)"


def short(text: str) -> str:
    """A name or keyword, which may be anything that people put into a vocabulary, as one line."""
    return line(text, _NAME)


def told(item: Item) -> str:
    """The beginning of an item's text, or else of its metadata."""
    return readable(caption(item, _TEXT))


def readable(text: str) -> str:
    r"""A text without characters that are not for reading, control and direction marks among them.

    >>> readable("a\x00b\u202ec")
    'abc'
    """
    valid = text.encode("utf-8", "backslashreplace").decode()
    return valid if valid.isprintable() else "".join(filter(_is_readable, valid))


def _is_readable(char: str) -> bool:
    # Joiners hold emoji and several scripts together.
    return char.isprintable() or char.isspace() or char in "\u200c\u200d"
