"""The perceptual hash stored with every picture, by which near-duplicates are found later.

It is 40 bytes: 8 bytes for the shapes (the DCT hash of Zauner 2010, "Implementation and Benchmarking of Perceptual
Image Hash Functions", section 3.2.1) and 32 bytes for the colours, which the shapes know nothing about.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmsearch.errors import InvalidInput

HASH_BYTES = 40
"""Length of one hash: 8 bytes of shape, 16 of Cb and 16 of Cr."""

ShapeHashes: TypeAlias = NDArray[np.uint64]
"""(n,) uint64, the DCT bits of n pictures."""
ColourGrids: TypeAlias = NDArray[np.uint8]
"""(n, 32) uint8, the mean Cb of 4x4 cells, row by row, then their mean Cr; 128 is grey."""

_SIDE = 32
_GRID = 4
_LOW = 8
# Rounding pixels to 8 bits puts noise of 0.3 on each DCT term; a wave one grey level high gives 22.
_NOISE = 4.0


def _dct_rows() -> NDArray[np.float64]:
    """Make the 8 lowest waves of the orthonormal DCT-II, (8, 32) float64."""
    waves, places = np.arange(_LOW)[:, None], np.arange(_SIDE)[None, :]
    rows = np.sqrt(2.0 / _SIDE) * np.cos(np.pi * waves * (2 * places + 1) / (2 * _SIDE))
    rows[0] /= np.sqrt(2.0)
    return np.asarray(rows, dtype=np.float64)


_DCT = _dct_rows()


def perceptual_hash(image: Image.Image) -> bytes:
    """Summarise what a picture looks like in 40 bytes: 8 of shape, then 32 of colour.

    The shape is the 8x8 lowest terms of the DCT of the luma of the picture at 32x32, each one bit: above the
    median of the 63 terms that are not the mean or not. The bit of the mean is always 0, and so is each bit of a
    picture of one colour: terms too small to be more than rounding count as zero. The colour is the mean Cb and the
    mean Cr of 4x4 cells.

    Parameters
    ----------
    image
        A picture of mode RGB, upright, of any size.

    Raises
    ------
    InvalidInput
        If the picture is of another mode or has no pixels.
    """
    if image.mode != "RGB" or not all(image.size):
        raise InvalidInput(f"expected an RGB picture with pixels, got mode {image.mode!r} and size {image.size}")
    small = image.resize((_SIDE, _SIDE), Image.Resampling.BOX, reducing_gap=2.0)
    planes = np.asarray(small.convert("YCbCr"), dtype=np.float64)  # (32, 32, 3)
    return _shape_bits(planes[:, :, 0]) + _colour_grid(planes[:, :, 1:])


def _shape_bits(luma: NDArray[np.float64]) -> bytes:
    """Luma (32, 32) in, 8 bytes out."""
    terms = (_DCT @ luma @ _DCT.T).ravel()
    terms[np.abs(terms) < _NOISE] = 0.0
    bits = terms > np.median(terms[1:])
    bits[0] = False
    return np.packbits(bits).tobytes()


def _colour_grid(chroma: NDArray[np.float64]) -> bytes:
    """Cb and Cr (32, 32, 2) in, 32 bytes out: 16 of Cb, then 16 of Cr."""
    cell = _SIDE // _GRID
    means = chroma.reshape(_GRID, cell, _GRID, cell, 2).mean(axis=(1, 3))  # (4, 4, 2)
    cells: NDArray[np.uint8] = np.rint(means).astype(np.uint8)
    return cells.transpose(2, 0, 1).tobytes()


def split(hashes: Sequence[bytes]) -> tuple[ShapeHashes, ColourGrids]:
    """Take n hashes apart into their shapes, (n,) uint64, and their colours, (n, 32) uint8.

    Raises
    ------
    InvalidInput
        If a hash is not 40 bytes long; the message names the first such row.
    """
    for row, one in enumerate(hashes):
        if len(one) != HASH_BYTES:
            raise InvalidInput(f"expected perceptual hashes of {HASH_BYTES} bytes, got {len(one)} bytes in row {row}")
    table = np.frombuffer(b"".join(hashes), dtype=np.uint8).reshape(-1, HASH_BYTES)
    shapes = np.ascontiguousarray(table[:, :8]).view(">u8").ravel().astype(np.uint64)
    return shapes, table[:, 8:].copy()


def hamming(a: NDArray[np.uint64], b: NDArray[np.uint64] | np.uint64) -> NDArray[np.uint8]:
    """How many of the 64 shape bits differ: 0 for the same shapes, about 32 for unrelated ones.

    ``a`` and ``b`` are uint64 of shapes that broadcast; the counts are uint8 of the broadcast shape.

    Raises
    ------
    InvalidInput
        If either is not uint64: NumPy would turn a mixture with int64 into float64 and lose bits.

    >>> hamming(np.array([0b1011, 0], dtype=np.uint64), np.uint64(0b0010))
    array([2, 1], dtype=uint8)
    """
    for hashes in (a, b):
        if hashes.dtype != np.uint64:
            raise InvalidInput(f"expected shape hashes as uint64, got {hashes.dtype}: take them from `split`")
    return np.asarray(np.bitwise_count(np.bitwise_xor(a, b)), dtype=np.uint8)


def colour_distance(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Mean absolute difference of two colour grids, in levels: 0.0 for the same colours, at most 255.0.

    ``a`` and ``b`` are (n, 32) uint8, or any shapes that broadcast and end in 32; the answer is float32 of the
    broadcast shape without the last axis.

    Raises
    ------
    InvalidInput
        If either is not uint8 or does not end in an axis of 32.
    """
    for grids in (a, b):
        if grids.dtype != np.uint8 or grids.shape[-1:] != (HASH_BYTES - 8,):
            raise InvalidInput(f"expected colour grids (n, 32) of uint8, got {grids.shape} of {grids.dtype}")
    # The larger minus the smaller stays within uint8, which is four times less memory than int32.
    gaps = np.maximum(a, b) - np.minimum(a, b)
    return np.asarray(gaps.mean(axis=-1, dtype=np.float32), dtype=np.float32)
