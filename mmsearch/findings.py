"""What curation finds: duplicates, leaks, outliers, flawed pictures, labels that look wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mmsearch.types import Item


@dataclass(frozen=True, slots=True)
class DuplicateGroup:
    """Items that show the same picture; the copy that is best kept comes first.

    ``kind`` is ``exact`` where all files have the same content, else ``near``. ``scores`` say how alike each is to the
    first one, from 0 to 1 in the order of ``items``; the first has 1.
    """

    items: tuple[Item, ...]
    kind: str
    scores: tuple[float, ...]

    @property
    def best(self) -> Item:
        """The copy to keep: the most pixels, then not clearly less sharp or rich in contrast, then the largest file."""
        return self.items[0]

    @property
    def others(self) -> tuple[Item, ...]:
        """The copies that could go."""
        return self.items[1:]


@dataclass(frozen=True, slots=True)
class Leak:
    """Two items that show the same picture and are in different splits; ``splits`` are those of ``items``."""

    items: tuple[Item, Item]
    splits: tuple[str, str]
    score: float


@dataclass(frozen=True, slots=True)
class Outlier:
    """An item that is unlike the others. ``score`` is the share of the items that are less odd, 0 to 1.

    ``scores`` are the same by method: ``lof``, ``isolation``, ``distance``.
    """

    item: Item
    score: float
    scores: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Flaw:
    """What is wrong with a picture. ``value`` is what was measured, ``limit`` from where on it counts as a flaw.

    ``kind`` is ``dark``, ``bright``, ``blurred``, ``empty`` (next to no information), ``aspect`` or ``small``; by
    cleanvision also ``large``, and then the values are its scores, 0 for the worst.
    """

    item: Item
    kind: str
    value: float
    limit: float


@dataclass(frozen=True, slots=True)
class Suspect:
    """An item whose label looks wrong: its nearest neighbours have another one.

    ``score`` is the weighted share of the neighbours that disagree with its own label, 0 to 1; ``suggested`` is what
    most of them have, ``agreement`` their weighted share.
    """

    item: Item
    label: str
    suggested: str
    score: float
    agreement: float
