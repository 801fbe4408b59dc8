"""Arithmetic on vectors: check, normalise, and take the best k with stable ties."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from mmsearch.errors import InvalidInput
from mmsearch.types import Keys, Vectors

SCORE_DECIMALS = 5
"""Scores are rounded to this before ties settle, so that noise of 1e-7 never decides an order."""


MAX_K = 1_000_000
_PLAIN = 1e-100
"""Between this and its inverse a norm can be computed without a thought to under- and overflow."""


def as_unit_vectors(values: ArrayLike, dim: int | None = None) -> Vectors:
    """Check and normalise vectors: (n, dim) of any float in, (n, dim) unit float32 rows out, C order.

    Raises
    ------
    InvalidInput
        If the width is not ``dim``, or a row is zero or not finite; the message names the first such row.

    >>> as_unit_vectors([[3.0, 4.0]])
    array([[0.6, 0.8]], dtype=float32)
    """
    try:
        rows = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"expected vectors of numbers, got {type(values).__name__}: {error}") from error
    if rows.ndim != 2:
        raise InvalidInput(f"expected vectors as a 2-D array (n, dim), got shape {rows.shape}")
    if dim is not None and rows.shape[1] != dim:
        raise InvalidInput(f"expected vectors of width {dim}, got width {rows.shape[1]}")
    with np.errstate(over="ignore", invalid="ignore"):
        norms = np.sqrt((rows * rows).sum(axis=1))
    if len(norms) and norms.min() > _PLAIN and norms.max() < 1.0 / _PLAIN:  # false for NaN
        return np.ascontiguousarray(rows / norms[:, None], dtype=np.float32)
    bad = ~np.isfinite(rows).all(axis=1)
    if bad.any():
        raise InvalidInput(f"expected finite vectors, got NaN or infinity in row {int(np.argmax(bad))}")
    # Scaling by the largest component first keeps tiny and huge vectors from under- and overflowing the norm.
    largest = np.abs(rows).max(axis=1, initial=0.0, keepdims=True)
    if len(rows) and not largest.all():
        raise InvalidInput(f"expected vectors with a direction, got zeros in row {int(np.argmin(largest))}")
    rows = rows / largest
    return np.ascontiguousarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def as_keys(values: ArrayLike) -> Keys:
    """Check keys: (n,) integers of at least 0 in, int64 out.

    Raises
    ------
    InvalidInput
        For anything that is not a whole number from 0 to 2**63 - 1, or not one-dimensional.

    >>> as_keys([3, 1])
    array([3, 1])
    """
    keys = np.asarray(values)
    if keys.ndim != 1:
        raise InvalidInput(f"expected keys as a 1-D array, got shape {keys.shape}")
    if keys.size == 0:
        return keys.astype(np.int64)
    if not np.issubdtype(keys.dtype, np.integer):
        raise InvalidInput(f"expected whole numbers as keys, got {keys.dtype}")
    if (keys < 0).any() or (keys.dtype == np.uint64 and (keys > np.iinfo(np.int64).max).any()):
        raise InvalidInput("expected keys from 0 to 2**63 - 1")
    return keys.astype(np.int64)


def check_k(k: int) -> int:
    """Return k if it is a whole number from 1 to 1,000,000.

    Raises
    ------
    InvalidInput
        Otherwise.
    """
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or not 1 <= k <= MAX_K:
        raise InvalidInput(f"expected k as a whole number from 1 to {MAX_K}, got {k!r}")
    return int(k)


def check_seed(seed: int) -> int:
    """Give back a seed.

    Raises
    ------
    InvalidInput
        If it is not a whole number from 0 to 4,294,967,295, which is what NumPy and scikit-learn take.
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**32:
        raise InvalidInput(f"expected a seed from 0 to {2**32 - 1}, got {seed!r}")
    return int(seed)


def dots(rows: Vectors, query: Vectors) -> Vectors:
    """Inner products of rows, (n, dim), with one query, (dim,), as (n,) float32.

    Summed row by row in a fixed order, so a row's product does not depend on which rows it is computed with:
    BLAS does not promise that.
    """
    return np.asarray((rows * query).sum(axis=1, dtype=np.float32), dtype=np.float32)


def best_first(keys: Keys, scores: Vectors, k: int) -> tuple[Keys, Vectors]:
    """Return the k highest scores and their keys, best first, equal scores by key."""
    if len(scores) > 4 * k + 64:
        at_least = np.partition(scores, len(scores) - k)[len(scores) - k]
        keep = np.flatnonzero(scores >= at_least)
        keys, scores = keys[keep], scores[keep]
    order = np.lexsort((keys, -scores))[:k]
    return keys[order], scores[order]
