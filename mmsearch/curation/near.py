"""Near duplicates: the same picture in another size, compression, tint or crop, or seen in a mirror."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mmsearch.curation.candidates import Couples, Neighbours, close_shapes, close_vectors, collapse, mirrored_shapes
from mmsearch.curation.nearcheck import BLIND, LOOKING, Check, Limits, scores_of
from mmsearch.curation.nearpairs import KINDS, Pairs, groups_of, joined, ordered, tidied
from mmsearch.curation.nearpixels import Look, thumbnail
from mmsearch.errors import InvalidInput
from mmsearch.perceptual import HASH_BYTES, ColourGrids, ShapeHashes, hamming
from mmsearch.protocols import VectorRows
from mmsearch.types import Keys, Progress, Report

__all__ = [
    "BLIND",
    "KINDS",
    "LOOKING",
    "Limits",
    "Look",
    "Neighbours",
    "Pairs",
    "groups_of",
    "near_pairs",
    "scores_of",
    "thumbnail",
]

_SAME_LEVELS = 3
"""Levels that a colour cell of the same picture may be off: JPEG copies of quality 40 have no more in 95 of 100."""
_TIDY_AT = 1_000_000
"""Pairs that may pile up before the least alike of crowds are dropped: 100 MB while that is done."""


def near_pairs(
    shapes: ShapeHashes,
    colours: ColourGrids,
    rows: VectorRows | None = None,
    neighbours: Neighbours | None = None,
    *,
    look: Look | None = None,
    mirrored: bool = False,
    limits: Limits | None = None,
    most: int = 100,
    report: Report | None = None,
) -> Pairs:
    """Find the pictures that are copies of each other, though their files differ.

    Three steps. Pictures with equal shape bits and next to equal colours are collapsed: each is paired with one of
    them only, as ``same``. Of those that remain, candidates are all that differ in few shape bits and, with ``rows``
    and ``neighbours``, the nearest by vectors. These are held against the limits, and then, with ``look``, their
    thumbnails against each other. Hashes suffice for photos. They do not for a catalogue of things of one kind on
    white, such as shoes, whose hashes and vectors are alike: there ``look`` is needed.

    Parameters
    ----------
    shapes, colours
        (n,) uint64 and (n, 32) uint8, of `mmsearch.perceptual.split`.
    rows
        The vectors of the same n pictures; zeros for none.
    neighbours
        The nearest by vectors of each of some positions; 10 are enough. Without it, or ``rows``, crops are lost.
    look
        The thumbnails, of `thumbnail`, of the pictures at some positions. Only candidates are asked for.
    mirrored
        Whether to look for mirrored copies too.
    limits
        By default ``LOOKING`` with ``look``, else ``BLIND``.
    most
        How many partners, without ``same`` ones, each picture brings into the answer, the most alike first.
    report
        Told how many positions were asked for neighbours.

    Returns
    -------
    Pairs
        The ``score`` is ``(1 - bits / 32) * (1 - levels / 32)``; with ``look`` the correlation of thumbnails' slopes.

    Raises
    ------
    InvalidInput
        If lengths or types are wrong, or ``most`` is below 1.
    """
    _check(shapes, colours, rows, most)
    check = Check(shapes, colours, rows, look, mirrored, limits or (BLIND if look is None else LOOKING))
    same = check.same(collapse(shapes, colours, _SAME_LEVELS))
    # What was collapsed and looks different after all has to find its copies itself.
    leaders = np.setdiff1d(np.arange(len(shapes)), same.second)
    found: list[Pairs] = []
    for couples in _candidates(check, leaders, neighbours, report):
        found.append(check.pairs(couples))
        if sum(map(len, found)) > _TIDY_AT + 2 * most * len(leaders):
            found = [tidied(found, most)]
    return ordered(joined([same, tidied(found, most)]))


def _check(shapes: ShapeHashes, colours: ColourGrids, rows: VectorRows | None, most: int) -> None:
    if shapes.ndim != 1 or shapes.dtype != np.uint64:
        raise InvalidInput(f"expected shape hashes (n,) of uint64, got {shapes.shape} of {shapes.dtype}")
    if colours.shape != (len(shapes), HASH_BYTES - 8) or colours.dtype != np.uint8:
        raise InvalidInput(
            f"expected colour grids ({len(shapes)}, 32) of uint8, got {colours.shape} of {colours.dtype}"
        )
    if rows is not None and len(rows) != len(shapes):
        raise InvalidInput(f"expected vectors of the same {len(shapes)} pictures, got {len(rows)}")
    if most < 1:
        raise InvalidInput(f"expected most of at least 1, got {most}")


def _candidates(check: Check, leaders: Keys, neighbours: Neighbours | None, report: Report | None) -> Iterator[Couples]:
    """Couples of leaders worth holding against the limits, in blocks, each once."""
    shapes, bits = check.shapes[leaders], check.limits.bits
    for first, second in close_shapes(shapes, bits):
        yield leaders[first], leaders[second]
    if check.mirrored:
        for first, second in close_shapes(shapes, bits, mirrored=True):
            new = hamming(shapes[first], shapes[second]) > bits
            yield leaders[first[new]], leaders[second[new]]
    if check.rows is not None and neighbours is not None:
        yield _by_vectors(check, leaders, check.rows, neighbours, report)


def _by_vectors(
    check: Check, leaders: Keys, rows: VectorRows, neighbours: Neighbours, report: Report | None
) -> Couples:
    """Nearest by vectors that no band of the shape bits leads to, and that are not too far by these either."""
    bits, far_bits = check.limits.bits, check.limits.far_bits
    kept = [np.zeros((0, 2), dtype=np.int64)]
    for done, first, second in close_vectors(leaders, rows, neighbours):
        gaps = hamming(check.shapes[first], check.shapes[second])
        new, near = gaps > bits, gaps <= far_bits
        if check.mirrored:
            gaps = hamming(check.shapes[first], mirrored_shapes(check.shapes[second]))
            new, near = new & (gaps > bits), near | (gaps <= far_bits)
        kept.append(np.stack([first, second], axis=1)[new & near])
        if report is not None:
            report(Progress("near duplicates", done, len(leaders)))
    couples = np.unique(np.concatenate(kept), axis=0)
    return couples[:, 0], couples[:, 1]
