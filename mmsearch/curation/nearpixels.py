"""A closer look at two pictures that may be copies: whether the edges in their thumbnails are in the same places."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmsearch.types import Keys

SIDE = 64
"""Pixels a side of a thumbnail, whatever the shape of the picture."""

Thumbnails: TypeAlias = NDArray[np.uint8]
"""(m, 64, 64) uint8, lumas."""
Look: TypeAlias = Callable[[Keys], Thumbnails]
"""The thumbnails of the pictures at some positions."""
Slopes: TypeAlias = NDArray[np.float32]
"""(m, 2, side, side) float32, how steep the luma is down and across."""

_SIDES = range(52, 63)
"""Pixels of the whole's thumbnail that a side of the part may have kept: 80% to 97%."""
_PROMISING, _AROUND = 0.86, 2
"""What the coarse search must find, and how far from its best size the fine one looks, in pixels. It found 0.87 or more
in 99 of 100 crops of photos (of 250 of Flickr8k dev); one in five of 1,486 pairs of like products passes."""
_FLAT = 1.0
"""Mean squared slope, in levels a pixel, that rounding and noise reach; below it there is nothing to compare."""


def thumbnail(image: Image.Image) -> Thumbnails:
    """Shrink a picture of any mode that Pillow can turn into grey, to (64, 64) uint8."""
    small = image.resize((SIDE, SIDE), Image.Resampling.BOX, reducing_gap=2.0)
    return np.asarray(small.convert("L"), dtype=np.uint8)


def same_edges(first: Thumbnails, second: Thumbnails) -> NDArray[np.float32]:
    """How well the edges of two thumbnails agree, (m,) float32 from 0 to 1: the correlation of their slopes.

    Slopes do not depend on the brightness, and hardly on the contrast, of the whole; and where two products lie on
    the same white, the white counts for nothing. Two that are flat are the same (1), one that is flat is not (0).
    """
    return _correlation(_slopes(first), _slopes(second))


def part_edges(first: Thumbnails, second: Thumbnails) -> NDArray[np.float32]:
    """The same, where one of the two may be cut out of the other: the best over places and sizes, (m,) float32.

    The part may keep 80% to 97% of each side, at any place. It is found by the normalised cross-correlation of slopes
    (Lewis, Vision Interface 1995), computed by fast Fourier transforms: at half the size first, and where that is
    promising, at full size near the best size found. Thumbnails are blurred a little first, since the part rarely
    begins where a pixel does; so scores are higher than those of `same_edges`, of unlike ones too.
    """
    blurred = _blurred(first), _blurred(second)
    small = [lumas.reshape(-1, SIDE // 2, 2, SIDE // 2, 2).mean(axis=(2, 4)) for lumas in blurred]
    ways = [_searched(small[0], small[1], _SIDES[::2]), _searched(small[1], small[0], _SIDES[::2])]
    coarse = np.stack(ways, axis=1)  # (m, 2, n_sides)
    best: NDArray[np.float32] = coarse.reshape(len(first), -1).max(axis=1, initial=0.0)
    # Which of the two is the part, and how large, where it may be one.
    where = np.where(best >= _PROMISING, coarse.reshape(len(first), -1).argmax(axis=1), -1)
    for place in np.unique(where[where >= 0]).tolist():
        at = np.flatnonzero(where == place)
        turned, size = divmod(place, len(_SIDES[::2]))
        near = [side for side in _SIDES if abs(side - _SIDES[::2][size]) <= _AROUND]
        whole, part = blurred[::-1] if turned else blurred
        best[at] = _searched(whole[at], part[at], near).max(axis=1)
    return best


def _searched(whole: NDArray[np.float32], part: NDArray[np.float32], sides: Sequence[int]) -> NDArray[np.float32]:
    """The best correlation of each part, shrunk to each side (in pixels of 64), with its whole, (m, n_sides)."""
    slopes = _slopes(whole)
    waves = np.fft.rfft2(slopes)
    energies = _summed((slopes.astype(np.float64) ** 2).sum(axis=1))
    size = whole.shape[-1]
    return np.stack([_found(part, side * size // SIDE, waves, energies) for side in sides], axis=1)


def _blurred(lumas: Thumbnails) -> NDArray[np.float32]:
    """Binomial weights, 1, 2, 1, down and across."""
    wide = np.pad(lumas.astype(np.float32), ((0, 0), (1, 1), (1, 1)), mode="edge")
    wide = wide[:, :-2] + 2 * wide[:, 1:-1] + wide[:, 2:]
    return np.asarray((wide[:, :, :-2] + 2 * wide[:, :, 1:-1] + wide[:, :, 2:]) / 16, dtype=np.float32)


def _found(
    part: NDArray[np.float32], side: int, waves: NDArray[np.complexfloating], energies: NDArray[np.float64]
) -> NDArray[np.float32]:
    """The best correlation of parts, shrunk to a side, with any place of the wholes."""
    size = part.shape[-1]
    shrink = _shrinking(side, size)
    slopes = _slopes(np.asarray(shrink @ part @ shrink.T, dtype=np.float32))
    padded = np.zeros((len(part), 2, size, size), dtype=np.float32)
    padded[:, :, :side, :side] = slopes
    room = size - side + 1
    crossed = np.fft.irfft2((waves * np.conj(np.fft.rfft2(padded))).sum(axis=1), s=(size, size))[:, :room, :room]
    upper, lower = energies[:, :-side], energies[:, side:]
    windows = lower[:, :, side:] - lower[:, :, :-side] - upper[:, :, side:] + upper[:, :, :-side]
    own = (slopes**2).sum(axis=(1, 2, 3))[:, None, None]
    edged = (windows > _FLAT * side * side) & (own > _FLAT * side * side)
    scores = np.where(edged, crossed / np.sqrt(np.where(edged, windows * own, 1.0)), 0.0)
    return np.asarray(np.clip(scores.max(axis=(1, 2)), 0.0, 1.0), dtype=np.float32)


def _shrinking(side: int, size: int) -> NDArray[np.float32]:
    """Weights that shrink pixels to fewer by area, (side, size)."""
    edges = np.arange(side + 1) * (size / side)
    pixels = np.arange(size)
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    weights: NDArray[np.float32] = (np.maximum(covered, 0.0) * (side / size)).astype(np.float32)
    return weights


def _summed(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums over all rectangles from the corner, (m, size + 1, size + 1)."""
    return np.pad(values.cumsum(axis=1).cumsum(axis=2), ((0, 0), (1, 0), (1, 0)))


def _slopes(lumas: NDArray[np.float32] | Thumbnails) -> Slopes:
    down, across = np.gradient(lumas.astype(np.float32), axis=(1, 2))
    return np.stack([down, across], axis=1)


def _correlation(first: Slopes, second: Slopes) -> NDArray[np.float32]:
    axes = (1, 2, 3)
    energies = [(slopes**2).sum(axis=axes, dtype=np.float64) for slopes in (first, second)]
    flat = [energy <= _FLAT * SIDE * SIDE for energy in energies]
    size = np.sqrt(np.where(flat[0] | flat[1], 1.0, energies[0] * energies[1]))
    scores = (first * second).sum(axis=axes, dtype=np.float64) / size
    scores = np.where(flat[0] | flat[1], flat[0] & flat[1], scores)
    return np.asarray(np.clip(scores, 0.0, 1.0), dtype=np.float32)
