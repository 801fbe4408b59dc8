"""Float16 rows: check and round vectors to them, widen them quickly, hash them."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmsearch.errors import InvalidInput
from mmsearch.index.ranking import blocks
from mmsearch.types import Vectors
from mmsearch.vectors import as_unit_vectors

Halves: TypeAlias = NDArray[np.float16]
"""(n, dim) float16, rows of length 1 to float16 precision, no negative zeros."""

UNIT_TOLERANCE = 5e-4
"""Rounding a unit vector to float16 changes its length by at most 2**-11, which is less."""

_SIGN_EXPONENT_FRACTION = np.int32(-0x70002000)
_REBIAS = np.float32(2.0**112)


def widen(halves: NDArray[np.float16]) -> Vectors:
    """Float16 values of any shape as float32, exactly; about five times as fast as ``astype``.

    The bits move to their places in a float32, and one product corrects the exponent's bias: 127 - 15 = 112.
    Infinity and NaN are not expected and not kept.

    >>> widen(np.array([0.5, -2.0, 6e-8], dtype=np.float16)).tolist() == [0.5, -2.0, 2.0**-24]
    True
    """
    bits = np.asarray(halves).view(np.int16).astype(np.int32)
    bits <<= 13
    bits &= _SIGN_EXPONENT_FRACTION
    wide = bits.view(np.float32)
    wide *= _REBIAS
    return wide


def as_unit_halves(values: ArrayLike, dim: int) -> Halves:
    """Check vectors, (n, dim), and round their unit vectors to float16.

    Rows that are unit vectors already, to float16 precision, are rounded as they are. So float16 rows that were
    made here once come back bit for bit.

    Raises
    ------
    InvalidInput
        For a wrong width, NaN, infinity or a zero vector.
    """
    if not isinstance(values, np.ndarray) or values.ndim != 2 or values.shape[1] != dim:
        values = as_unit_vectors(values, dim)
    halves = np.empty(values.shape, dtype=np.float16)
    for part in blocks(len(values), dim):
        rows = values[part]
        try:
            units = as_unit_vectors(rows, dim)
        except InvalidInput as error:
            raise InvalidInput(f"{error}, counted from row {part.start}" if part.start else str(error)) from error
        with np.errstate(over="ignore"):  # a huge row is not a unit row; its infinite length says so
            given = rows.astype(np.float32)
            lengths = np.sqrt(np.einsum("ij,ij->i", given, given))
        is_unit = np.abs(lengths - 1.0) <= UNIT_TOLERANCE
        halves[part] = np.where(is_unit[:, None], given, units)
    bits = halves.view(np.uint16)
    bits[bits == 0x8000] = 0  # -0.0 and 0.0 are the same vector and must have the same bytes
    return halves


def hash_rows(halves: Halves) -> NDArray[np.uint64]:
    """64-bit hashes, (n,), of rows' bytes. Equal rows have equal hashes; compare the rows before trusting one."""
    n, dim = halves.shape
    lanes = -(-dim // 4)
    odd = np.random.default_rng(20_250_101).integers(0, 2**63, size=(2, lanes), dtype=np.uint64) * np.uint64(2)
    odd += np.uint64(1)
    hashes = np.empty(n, dtype=np.uint64)
    for part in blocks(n, dim):
        block = halves[part]
        padded = np.zeros((len(block), 4 * lanes), dtype=np.float16)
        padded[:, :dim] = block
        mixed = padded.view(np.uint64) * odd[0]
        mixed ^= mixed >> np.uint64(32)
        mixed *= odd[1]
        hashes[part] = mixed.sum(axis=1, dtype=np.uint64)
    return hashes ^ (hashes >> np.uint64(29))
