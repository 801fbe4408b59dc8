"""Whether two pictures are copies, by their hashes, their vectors and their thumbnails."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmsearch.curation.candidates import MAX_BITS, Couples, mirrored_colours, mirrored_shapes
from mmsearch.curation.nearpairs import CROP, MIRRORED, NEAR, SAME, Pairs, joined
from mmsearch.curation.nearpixels import Look, part_edges, same_edges
from mmsearch.errors import InvalidInput
from mmsearch.perceptual import ColourGrids, ShapeHashes, colour_distance, hamming
from mmsearch.protocols import VectorRows
from mmsearch.types import Keys

_VECTORS, _LOOKS, _PARTS = 4096, 1024, 256
"""Couples of which vectors, thumbnails and their waves are held at once: less than 100 MB each."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How alike two pictures have to be. The defaults are those for when no pixels can be looked at.

    They were chosen on drawings and photos for which no figure is reported: see ``benchmarks/duplicates.py``.

    Attributes
    ----------
    bits
        Shape bits in which copies of a whole may differ, at most 7.
    colour
        Mean difference of their colour grids, in levels: a whole picture may have another tint.
    uneven
        Largest difference of a colour cell, in levels, once the mean difference of its plane is taken off: a thing in
        another colour changes some cells and leaves others.
    cosine
        From which cosine on vectors vouch for what the hashes cannot: crops, and mirrored ones beyond ``bits``.
    far_bits, far_uneven
        What ``bits`` and ``uneven`` are for those: a crop moves things from cell to cell.
    edges
        Correlation of the slopes of two thumbnails, where these can be looked at.
    part
        The same at the best place of one in the other, for crops.

    Raises
    ------
    InvalidInput
        If one is out of range.
    """

    bits: int = MAX_BITS
    colour: float = 9.0
    uneven: float = 10.0
    cosine: float = 0.95
    far_bits: int = 20
    far_uneven: float = 12.0
    edges: float = 0.85
    part: float = 0.93

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 0 <= self.bits <= MAX_BITS or not self.bits <= self.far_bits <= 64:
            raise InvalidInput(
                f"expected bits from 0 to {MAX_BITS} and far_bits from there to 64, got {self.bits} and {self.far_bits}"
            )
        if not (self.colour >= 0 and 0 <= self.uneven <= self.far_uneven):
            raise InvalidInput(f"expected colour and uneven of at least 0 and far_uneven from there, got {self}")
        if not all(-1 <= value <= 1 for value in (self.cosine, self.edges, self.part)):
            raise InvalidInput(f"expected cosine, edges and part from -1 to 1, got {self}")


BLIND = Limits()
"""Where nothing but hashes and vectors is at hand."""
LOOKING = Limits(cosine=0.85, far_bits=28, far_uneven=32.0)
"""Where pixels have the last word: more is let through to them."""


def scores_of(shapes: ShapeHashes, colours: ColourGrids, first: Keys, second: Keys) -> NDArray[np.float32]:
    """How alike pictures are by their hashes, (m,) float32 from 0 to 1, at any positions ``first`` and ``second``."""
    return _scores(shapes[first], shapes[second], colours[first], colours[second])


def _scores(one: ShapeHashes, other: ShapeHashes, left: ColourGrids, right: ColourGrids) -> NDArray[np.float32]:
    bits = hamming(one, other).astype(np.float32)
    levels = colour_distance(left, right)
    return np.asarray(np.maximum(1 - bits / 32, 0) * np.maximum(1 - levels / 32, 0), dtype=np.float32)


@dataclass(frozen=True)
class Check:
    """Holds candidates against limits; the arguments are those of `near_pairs`."""

    shapes: ShapeHashes
    colours: ColourGrids
    rows: VectorRows | None
    look: Look | None
    mirrored: bool
    limits: Limits

    def same(self, couples: Couples) -> Pairs:
        """Of couples with equal shape bits and next to equal colours, those that also look the same."""
        scores = scores_of(self.shapes, self.colours, *couples)
        return self._seen(Pairs(*couples, scores, np.full(len(scores), SAME, dtype=np.int8)))

    def pairs(self, couples: Couples) -> Pairs:
        """Of any couples, those within the limits; some may come twice, once as mirrored."""
        kept = self._within(couples, MIRRORED) if self.mirrored else joined([])
        return self._seen(joined([self._within(couples, NEAR), kept]))

    def _within(self, couples: Couples, kind: int) -> Pairs:
        """What the hashes and the vectors say, of the pictures as they are or with the second one mirrored."""
        first, second = couples
        shapes, grids = self.shapes[second], self.colours[second]
        if kind == MIRRORED:
            shapes, grids = mirrored_shapes(shapes), mirrored_colours(grids)
        bits = hamming(self.shapes[first], shapes)
        far_uneven = self.limits.uneven if kind == MIRRORED else self.limits.far_uneven
        near = (bits <= self.limits.bits) & self._even(self.colours[first], grids, self.limits.uneven)
        fair = (bits <= self.limits.far_bits) & self._even(self.colours[first], grids, far_uneven)
        far = self._vouched(first, second, fair & ~near)
        kinds = np.where(near | (kind == MIRRORED), kind, CROP).astype(np.int8)
        scores = _scores(self.shapes[first], shapes, self.colours[first], grids)
        return Pairs(first, second, scores, kinds).taken(near | far)

    def _even(self, one: ColourGrids, other: ColourGrids, limit: float) -> NDArray[np.bool_]:
        """Whether colours differ by no more than a tint of the whole, up to a limit."""
        gaps = (one.astype(np.float32) - other).reshape(-1, 2, 16)
        uneven = np.abs(gaps - gaps.mean(axis=2, keepdims=True)).reshape(-1, 32).max(axis=1)
        return np.asarray((uneven <= limit) & (np.abs(gaps).mean(axis=(1, 2)) <= self.limits.colour))

    def _vouched(self, first: Keys, second: Keys, asked: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which of the couples asked about have vectors that are alike."""
        good = np.zeros(len(first), dtype=np.bool_)
        if self.rows is None:
            return good
        places = np.flatnonzero(asked)
        for start in range(0, len(places), _VECTORS):
            at = places[start : start + _VECTORS]
            cosines = (self.rows.take(first[at]) * self.rows.take(second[at])).sum(axis=1)
            good[at] = cosines >= self.limits.cosine
        return good

    def _seen(self, pairs: Pairs) -> Pairs:
        """Those whose thumbnails agree, if there are any, with what these say as the score."""
        look = self.look
        if look is None:
            return pairs
        steps = range(0, len(pairs), _LOOKS)
        return joined([self._looked(pairs.taken(np.arange(len(pairs))[at : at + _LOOKS]), look) for at in steps])

    def _looked(self, pairs: Pairs, look: Look) -> Pairs:
        positions, places = np.unique(np.concatenate([pairs.first, pairs.second]), return_inverse=True)
        seen = look(positions)
        first, second = seen[places[: len(pairs)]], seen[places[len(pairs) :]]
        turned = pairs.kind == MIRRORED
        second[turned] = second[turned][..., ::-1]
        scores = same_edges(first, second)
        alike = scores >= self.limits.edges
        kinds = np.where(alike & (pairs.kind == CROP), NEAR, pairs.kind)
        cut = np.flatnonzero(~alike & ((kinds == NEAR) | (kinds == CROP)))
        cut = cut[self._vouched(pairs.first[cut], pairs.second[cut], np.ones(len(cut), dtype=np.bool_))]
        for start in range(0, len(cut), _PARTS):
            at = cut[start : start + _PARTS]
            scores[at] = part_edges(first[at], second[at])
        kinds[cut] = CROP
        # The same edges in other colours are a variant, such as a product has, and no copy.
        even = self._even(self.colours[pairs.first], self.colours[pairs.second], self.limits.uneven)
        alike &= even | (kinds != NEAR)
        alike[cut] = scores[cut] >= self.limits.part
        return Pairs(pairs.first, pairs.second, scores, kinds).taken(alike)
