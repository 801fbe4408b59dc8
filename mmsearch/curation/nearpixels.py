"""A closer look at two pictures that may be copies: whether the edges in their thumbnails are in the same places."""

from __future__ import annotations

from collections.abc import Callable
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

_SIDES = range(51, 63)
"""Pixels of the whole's thumbnail that a side of the part may have kept: 80% to 97%."""
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
    (Lewis, Vision Interface 1995), computed by fast Fourier transforms. Thumbnails are blurred a little first, since
    the part rarely begins where a pixel does; so scores are higher than those of `same_edges`, of unlike ones too.
    """
    best = np.zeros(len(first), dtype=np.float32)
    one, other = _blurred(first), _blurred(second)
    for whole, part in ((one, other), (other, one)):
        slopes = _slopes(whole)
        waves = np.fft.rfft2(slopes)
        energies = _summed((slopes.astype(np.float64) ** 2).sum(axis=1))
        for side in _SIDES:
            np.maximum(best, _found(part, side, waves, energies), out=best)
    return best


def _blurred(lumas: Thumbnails) -> NDArray[np.float32]:
    """Binomial weights, 1, 2, 1, down and across."""
    wide = np.pad(lumas.astype(np.float32), ((0, 0), (1, 1), (1, 1)), mode="edge")
    wide = wide[:, :-2] + 2 * wide[:, 1:-1] + wide[:, 2:]
    return np.asarray((wide[:, :, :-2] + 2 * wide[:, :, 1:-1] + wide[:, :, 2:]) / 16, dtype=np.float32)


def _found(
    part: NDArray[np.float32], side: int, waves: NDArray[np.complexfloating], energies: NDArray[np.float64]
) -> NDArray[np.float32]:
    """The best correlation of parts, shrunk to a side, with any place of the wholes."""
    shrink = _shrinking(side)
    slopes = _slopes(np.asarray(shrink @ part @ shrink.T, dtype=np.float32))
    padded = np.zeros((len(part), 2, SIDE, SIDE), dtype=np.float32)
    padded[:, :, :side, :side] = slopes
    room = SIDE - side + 1
    crossed = np.fft.irfft2((waves * np.conj(np.fft.rfft2(padded))).sum(axis=1), s=(SIDE, SIDE))[:, :room, :room]
    upper, lower = energies[:, :-side], energies[:, side:]
    windows = lower[:, :, side:] - lower[:, :, :-side] - upper[:, :, side:] + upper[:, :, :-side]
    own = (slopes**2).sum(axis=(1, 2, 3))[:, None, None]
    edged = (windows > _FLAT * side * side) & (own > _FLAT * side * side)
    scores = np.where(edged, crossed / np.sqrt(np.where(edged, windows * own, 1.0)), 0.0)
    return np.asarray(np.clip(scores.max(axis=(1, 2)), 0.0, 1.0), dtype=np.float32)


def _shrinking(side: int) -> NDArray[np.float32]:
    """Weights that shrink 64 pixels to fewer by area, (side, 64)."""
    edges = np.arange(side + 1) * (SIDE / side)
    pixels = np.arange(SIDE)
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    weights: NDArray[np.float32] = (np.maximum(covered, 0.0) * (side / SIDE)).astype(np.float32)
    return weights


def _summed(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums over all rectangles from the corner, (m, 65, 65)."""
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
