"""Which pictures may be copies of each other, found without comparing every two of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from mmsearch.errors import InvalidInput
from mmsearch.perceptual import ColourGrids, ShapeHashes, hamming
from mmsearch.protocols import VectorRows
from mmsearch.types import Keys

Couples: TypeAlias = tuple[Keys, Keys]
"""Positions (m,) and (m,) int64 of what may be alike, the smaller position first."""
Neighbours: TypeAlias = Callable[[Keys], Sequence[Keys]]
"""For each of some positions, those of its nearest by vectors, in any order; its own may be among them."""

MAX_BITS = 7
"""The most bits that two shapes may differ in and be certain to be found."""

_BANDS, _WIDTH = 4, 16
_BLOCK = 2_000_000
"""Candidates held at once: about 100 MB with what is computed of them."""
_ASKED = 8192
"""Positions whose neighbours are asked for at once."""
_MIRROR = np.uint64(0x5555555555555555)
"""The terms of odd waves along the rows: the second, fourth, ... bit of each byte, the first being the highest."""


def mirrored_shapes(shapes: ShapeHashes) -> ShapeHashes:
    """Estimate the shapes of the pictures seen in a mirror, (n,) uint64.

    An odd wave changes its sign in a mirror and an even one does not. The bits say on which side of the median a term
    is, which is near 0, so that most bits of odd waves flip.
    """
    return np.asarray(shapes ^ _MIRROR, dtype=np.uint64)


def mirrored_colours(colours: ColourGrids) -> ColourGrids:
    """The colours of the pictures seen in a mirror, (n, 32) uint8."""
    return colours.reshape(-1, 2, 4, 4)[..., ::-1].reshape(-1, 32)


def close_shapes(shapes: ShapeHashes, bits: int, *, mirrored: bool = False) -> Iterator[Couples]:
    """Find every two shapes that differ in at most ``bits`` of their 64, in blocks, each couple once.

    The 64 bits are cut into 4 bands of 16. Where at most 7 differ, some band has at most one of them (Norouzi, Punjani
    & Fleet, CVPR 2012, section 3), and where fewer differ, fewer bands need looking into (the general pigeonhole
    principle of Qin et al., ICDE 2018). So each shape is looked up in tables by its own band and by the 16 that are
    one bit off. Nothing is missed. Memory is bounded; time grows with the couples that share a band, which is the
    square of the number of shapes where all are nearly the same: collapse equal ones first.

    Parameters
    ----------
    shapes
        (n,) uint64.
    bits
        From 0 to 7.
    mirrored
        Compare each shape with the mirrored other one.

    Raises
    ------
    InvalidInput
        If ``bits`` is out of range.
    """
    if not 0 <= bits <= MAX_BITS:
        raise InvalidInput(f"expected from 0 to {MAX_BITS} bits that may differ, got {bits!r}")
    allowed = [(bits + 1 + band) // _BANDS - 1 for band in range(_BANDS)]  # they sum to bits - 3
    mask = _MIRROR if mirrored else np.uint64(0)
    for band in range(_BANDS):
        for flip in [0, *(1 << bit for bit in range(_WIDTH))][: (0, 1, 1 + _WIDTH)[allowed[band] + 1]]:
            for first, second in _same_band(shapes ^ mask, shapes, band, flip):
                near = hamming(shapes[first] ^ mask, shapes[second]) <= bits
                first, second = first[near], second[near]
                new = ~_found_before(shapes[first] ^ shapes[second] ^ mask, allowed[:band])
                yield first[new], second[new]


def _band(shapes: ShapeHashes, band: int) -> Keys:
    return (shapes >> np.uint64(_WIDTH * band) & np.uint64(0xFFFF)).astype(np.int64)


def _same_band(probes: ShapeHashes, shapes: ShapeHashes, band: int, flip: int) -> Iterator[Couples]:
    """Couples of a probe and a later shape whose bands are the same but for ``flip``."""
    keys = _band(shapes, band)
    order = np.argsort(keys, kind="stable")
    ends = np.cumsum(np.bincount(keys, minlength=1 << _WIDTH))
    wanted = _band(probes, band) ^ flip
    upper = ends[wanted]
    # Positions within a bucket rise, so that a binary search could skip the earlier ones; a comparison is as cheap.
    lower = np.where(wanted > 0, ends[wanted - 1], 0)
    for positions, places in expanded(lower, upper - lower):
        others = order[places]
        later = others > positions
        yield positions[later], others[later]


def expanded(starts: Keys, lengths: Keys) -> Iterator[Couples]:
    """Write out ranges in blocks: for each number of each range, whose it is and the number."""
    done = np.concatenate([[0], np.cumsum(lengths)])
    at = 0
    while at < len(lengths):
        to = max(at + 1, int(np.searchsorted(done, done[at] + _BLOCK, side="right")) - 1)
        owners = np.repeat(np.arange(at, to), lengths[at:to])
        yield owners, np.arange(done[at], done[to]) - np.repeat((done[:-1] - starts)[at:to], lengths[at:to])
        at = to


def _found_before(gaps: ShapeHashes, allowed: Sequence[int]) -> NDArray[np.bool_]:
    """Whether an earlier band has led to these couples already, given the bits in which they differ."""
    found = np.zeros(len(gaps), dtype=np.bool_)
    for band, limit in enumerate(allowed):
        found |= np.bitwise_count(_band(gaps, band)) <= limit
    return found


def close_vectors(positions: Keys, rows: VectorRows, neighbours: Neighbours) -> Iterator[tuple[int, Keys, Keys]]:
    """Couples of a position and one of its nearest by vectors, in blocks; a couple may come twice, from either side.

    With each block comes how many positions are done. Those without a vector, which is all zeros, are not asked for.

    Raises
    ------
    InvalidInput
        If ``neighbours`` does not answer for each position.
    """
    for start in range(0, len(positions), _ASKED):
        block = positions[start : start + _ASKED]
        asked = block[np.abs(rows.take(block)).max(axis=1) > 0]
        answers = neighbours(asked)
        if len(answers) != len(asked):
            raise InvalidInput(f"expected neighbours of {len(asked)} positions, got {len(answers)} answers")
        own = np.repeat(asked, np.array([len(answer) for answer in answers], dtype=np.int64))
        other = np.concatenate([np.zeros(0, np.int64), *(np.asarray(answer, dtype=np.int64) for answer in answers)])
        apart = own != other
        couples = np.unique(np.sort(np.stack([own[apart], other[apart]], axis=1), axis=1), axis=0)
        yield start + len(block), couples[:, 0], couples[:, 1]


def collapse(shapes: ShapeHashes, colours: ColourGrids, levels: int) -> Couples:
    """Let one picture stand for all with equal shape bits and no colour cell more than ``levels`` off its own.

    So 100,000 copies of one picture are 100,000 couples, not 5,000,000,000. Each is alike to its leader, not just to
    another one that is. Time grows with the pictures times the leaders of the same shape that are near in sum.

    Returns
    -------
    Couples
        The leaders, several times each, and those they stand for, once each. Here the first is not always the smaller.
    """
    table = np.concatenate([np.ascontiguousarray(shapes).view(np.uint8).reshape(-1, 8), colours], axis=1)
    _, first, group = np.unique(table.view("V40").ravel(), return_index=True, return_inverse=True)
    leader = first[group.ravel()].astype(np.int64)
    kept = np.unique(leader)
    order = kept[np.lexsort((colours[kept].sum(axis=1, dtype=np.int64), shapes[kept]))]
    runs = np.flatnonzero(np.diff(shapes[order])) + 1
    ends = np.concatenate([runs, [len(order)]])
    starts = np.concatenate([[0], runs])
    for start, end in zip(starts[ends - starts > 1], ends[ends - starts > 1], strict=True):
        _lead(order[start:end], colours, levels, leader)
    leader = leader[leader]
    others = np.flatnonzero(leader != np.arange(len(leader)))
    return leader[others], others


def _lead(members: Keys, colours: ColourGrids, levels: int, leader: Keys) -> None:
    """Give leaders to pictures of one shape with different colours, sorted by the sum of these; ``leader`` changes."""
    grids = colours[members]
    sums = grids.sum(axis=1, dtype=np.int64)
    ends = np.searchsorted(sums, sums + levels * grids.shape[1], side="right")
    free = np.ones(len(members), dtype=np.bool_)
    for at in range(len(members)):
        if free[at]:
            later = at + np.flatnonzero(free[at : ends[at]])
            gaps = np.maximum(grids[later], grids[at]) - np.minimum(grids[later], grids[at])
            claimed = later[gaps.max(axis=1) <= levels]
            leader[members[claimed]] = members[at]
            free[claimed] = False
