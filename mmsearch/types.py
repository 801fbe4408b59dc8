"""The nouns of mmsearch: items, queries, hits and reports, as frozen values."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmsearch.errors import InvalidInput

if TYPE_CHECKING:
    from PIL import Image

Vectors: TypeAlias = NDArray[np.float32]
"""(n, dim) float32, unit rows."""
Keys: TypeAlias = NDArray[np.int64]
"""(n,) int64 row numbers."""
Cells: TypeAlias = NDArray[np.float32]
"""(n, n_cells, cell_dim) float32, unit rows per cell."""
Pixels: TypeAlias = NDArray[np.uint8]
"""(height, width, 3) uint8 RGB."""
Picture: TypeAlias = "Image.Image | Pixels"
"""A decoded RGB picture."""

Box: TypeAlias = tuple[float, float, float, float]
"""Left, top, right, bottom as fractions of an upright picture."""

FIELDS = ("picture", "text")
"""The fields that are searched; ``regions``, ``cells`` and ``joint`` serve reranking."""
TEXT, PICTURE, PICTURE_FOR_TEXTS = KINDS = ("text", "picture", "picture for texts")
"""What is asked with: words, a picture, or a picture where only texts are searched."""
SPACES = ("picture", "text", "regions", "cells", "joint")


@dataclass(frozen=True, slots=True)
class Item:
    """One findable thing: a picture, a text, or both, and metadata.

    ``path`` may name a member of a zip file: ``photos.zip/beach.jpg``. ``image`` is a picture in memory (a PIL
    image or the bytes of a file) for ``Engine.add``; the store keeps a copy and hands back its path. An empty
    ``id`` lets the store choose one.

    >>> Item(id="b1", text="a red bicycle", metadata={"price": 120}).text
    'a red bicycle'
    """

    id: str = ""
    path: Path | None = None
    text: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    image: Image.Image | bytes | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.id, str):
            raise InvalidInput(f"expected a str as id, got {type(self.id).__name__}: {self.id!r}")
        if self.path is not None and not isinstance(self.path, Path):
            raise InvalidInput(f"expected a pathlib.Path as path, got {type(self.path).__name__}: {self.path!r}")
        if self.text is not None and not isinstance(self.text, str):
            raise InvalidInput(f"expected a str as text, got {type(self.text).__name__}")
        if not isinstance(self.metadata, Mapping):
            raise InvalidInput(f"expected a mapping as metadata, got {type(self.metadata).__name__}")


@dataclass(frozen=True, slots=True)
class Query:
    """What to look for: a text, a picture, an item or a vector, or several of them blended.

    Each term has a weight; a negative weight pushes away. Weights scale unit vectors, which are added and made a
    unit vector again. ``Query(text=…, image=…)`` blends the two with equal weights; for more, add queries:

    >>> blend = 2 * Query(text="dog") + Query(image=Path("pool.jpg")) - Query(text="fruit")
    >>> [(term.text or term.image, term.weight) for term in blend.terms()]
    [('dog', 2.0), (PosixPath('pool.jpg'), 1.0), ('fruit', -1.0)]
    """

    text: str | None = None
    image: Path | Image.Image | bytes | None = None
    id: str | None = None
    vector: ArrayLike | None = None
    weight: float = 1.0
    others: tuple[Query, ...] = ()

    def terms(self) -> Iterator[Query]:
        """The single terms, each with exactly one of text, image, id and vector, and its own weight."""
        for name in ("text", "image", "id", "vector"):
            value = getattr(self, name)
            if value is not None:
                yield Query(**{name: value}, weight=float(self.weight))
        for other in self.others:
            for term in other.terms():
                yield term * self.weight

    def __mul__(self, factor: float) -> Query:
        return Query(self.text, self.image, self.id, self.vector, float(self.weight * factor), self.others)

    __rmul__ = __mul__

    def __neg__(self) -> Query:
        return self * -1.0

    def __add__(self, other: Query) -> Query:
        return Query(others=(*self.terms(), *other.terms()))

    def __sub__(self, other: Query) -> Query:
        return self + -other


@dataclass(frozen=True, slots=True)
class Interaction:
    """One event: a person had to do with an item.

    ``weight`` above 0 is liking, and more of it more (for mean profiles and ALS; others count a liked thing once);
    0 says only that they have seen it; below 0 is disliking. ``time`` is in seconds since 1970 (UTC); None where it is
    not known. ``kind`` is a word of one's own, such as ``view`` or ``buy``. The same person, item, kind and time are
    one event, however often it is told.

    >>> Interaction("ann", "b1", kind="buy", weight=3.0).weight
    3.0
    """

    user: str
    item: str
    kind: str = "view"
    weight: float = 1.0
    time: float | None = None

    def __post_init__(self) -> None:
        for name in ("user", "item", "kind"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value:
                raise InvalidInput(f"expected a str that is not empty as {name}, got {value!r}")
        for name in ("weight", "time"):
            value = getattr(self, name)
            if name == "time" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise InvalidInput(f"expected a finite number as {name}, got {value!r}")


@dataclass(frozen=True, slots=True)
class Reason:
    """One part of why an item was recommended.

    ``kind`` is what speaks for it (``looks``, ``text``, ``details``, ``had together``, ``had next``, ``taste``,
    ``popular``, ``would go together``), ``share`` how much of the positive score that is, from 0 to 1, and ``because``
    the ids of the person's items that it rests on, the strongest first; none where it rests on no item, as popularity.
    """

    kind: str
    share: float
    because: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Hit:
    """One ranked answer. ``rank`` starts at 1; a higher ``score`` is better.

    ``field`` says where it was found, and ``copies`` are the other items whose picture is identical. What reranking
    adds: the score and the rank by stage in the order of the stages (``vectors`` is the retrieval before them), the
    ``region`` of the picture that answers best, how well each of the query's ``words`` is found in it (cosines), and
    ``notes`` on what could not be done for it. ``reasons`` say why it was recommended, the strongest first.
    """

    item: Item
    score: float
    rank: int
    copies: tuple[Item, ...] = ()
    field: str = "picture"
    scores: Mapping[str, float] = dataclasses.field(default_factory=dict)
    ranks: Mapping[str, int] = dataclasses.field(default_factory=dict)
    region: Box | None = None
    words: Mapping[str, float] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    reasons: tuple[Reason, ...] = ()

    def explain(self) -> str:
        """Why it is where it is, for people: each stage's score and the rank after it, region, words, notes."""
        lines = [f"rank {self.rank}, score {self.score:.4f}, found by its {self.field}"]
        for stage, rank in self.ranks.items():
            missing = "not scored" if self.field == "picture" else f"not scored, since it was found by its {self.field}"
            score = f"score {self.scores[stage]:.4f}" if stage in self.scores else missing
            lines.append(f"  {stage}: {score}, rank {rank}")
        if self.region is not None:
            left, top, right, bottom = (f"{100 * side:.0f}%" for side in self.region)
            lines.append(f"  best region: {left} to {right} from the left, {top} to {bottom} from the top")
        if self.words:
            lines.append("  words: " + ", ".join(f"{word} {score:.2f}" for word, score in self.words.items()))
        if self.reasons:
            lines.append(f"  {self.because()}")
        return "\n".join(lines + [f"  note: {note}" for note in self.notes])

    def because(self) -> str:
        """The reasons that are a twentieth or more as a sentence; empty without any.

        >>> reasons = (Reason("looks", 0.7, ("a", "b")), Reason("had together", 0.3, ("b",)))
        >>> Hit(Item(id="c"), score=1.0, rank=1, reasons=reasons).because()
        'because of a and b: looks 0.7, had together 0.3'
        """
        shown = [reason for reason in self.reasons if reason.share >= 0.05]
        ids = list(dict.fromkeys(id for reason in shown for id in reason.because))[:3]
        named = " and ".join([", ".join(ids[:-1]), ids[-1]] if len(ids) > 1 else ids)
        kinds = ", ".join(f"{reason.kind} {reason.share:.1f}" for reason in shown)
        return f"because of {named}: {kinds}" if named else kinds


@dataclass(frozen=True, slots=True)
class Words:
    """A text for late interaction: its words, and its tokens' rows.

    ``of``, (n_tokens,) int64, says of which word each token is a piece; ``rows`` are (n_tokens, cell_dim) float32
    unit rows.
    """

    words: tuple[str, ...]
    of: Keys
    rows: Vectors


@dataclass(frozen=True, slots=True)
class Signal:
    """What one stage says of some hits.

    ``values``, (n,) float32, higher is better; NaN for a hit on which the stage has no opinion or to which it did
    not come. ``regions`` and ``words`` are by hit where the stage knows them, empty otherwise; ``notes`` say what
    could not be done.
    """

    values: NDArray[np.float32]
    regions: tuple[Box | None, ...] = ()
    words: tuple[Mapping[str, float], ...] = ()
    notes: tuple[str, ...] = ()
    skipped: str = ""
    """Why the stage has nothing to say on this query, which need not be a fault."""


@dataclass(frozen=True, slots=True)
class Neighbors:
    """Keys, (n,) int64, and scores, (n,) float32, of one query's neighbours, best first."""

    keys: Keys
    scores: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True, slots=True)
class AddReport:
    """What adding did. Nothing vanishes: each thing that could not be added is in ``failed`` with its reason.

    ``added`` counts what is new or has new content (``changed`` of them replaced an earlier content),
    ``unchanged`` what was there already, ``moved`` what was found under a new path and kept its id, ``removed``
    what is no longer in the folder.
    """

    added: int = 0
    unchanged: int = 0
    moved: int = 0
    removed: int = 0
    failed: tuple[tuple[str, str], ...] = ()
    changed: int = 0

    def __add__(self, other: AddReport) -> AddReport:
        return AddReport(
            self.added + other.added,
            self.unchanged + other.unchanged,
            self.moved + other.moved,
            self.removed + other.removed,
            self.failed + other.failed,
            self.changed + other.changed,
        )


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a long piece of work is: ``done`` of ``total`` in ``stage``."""

    stage: str
    done: int
    total: int


Report: TypeAlias = Callable[[Progress], None]
"""Called now and then by long work; what it raises ends the work, and what was stored stays."""
