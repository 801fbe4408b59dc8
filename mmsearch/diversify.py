"""Rankings that do not say the same thing twice."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmsearch.errors import InvalidInput
from mmsearch.types import Vectors
from mmsearch.vectors import SCORE_DECIMALS, as_unit_vectors, check_k

_NOISE = 1e-6
"""Cosines of float32 unit vectors are this exact; a vector and its copy may be as far below 1."""
_COSINES = 4_000_000
"""Cosines held at once: 16 MB."""


def mmr(vectors: ArrayLike, scores: ArrayLike, k: int, diversity: float) -> list[int]:
    """Choose k rows by maximal marginal relevance (Carbonell & Goldstein, SIGIR 1998).

    The first is the one with the highest score. Then, again and again, the one with the highest ``(1 - diversity) *
    relevance - diversity * (largest cosine to a chosen one)``. The relevance is the score, scaled so that the lowest
    candidate has 0 and the highest 1: cosines of different encoders and fused scores have ranges of their own, and
    ``diversity`` should mean the same for all. So it depends on the candidates: pass those that are worth showing.

    Parameters
    ----------
    vectors
        (n, dim) rows, made unit rows here.
    scores
        (n,) finite numbers, higher is better.
    k
        How many to choose; all n if there are fewer.
    diversity
        0 gives the order of the scores, 1 goes by the cosines alone after the first.

    Returns
    -------
    list of int
        Positions in the order chosen. Where two are equally good (cosines are rounded to 5 decimals), the higher score
        and then the earlier position decides. Takes O(n k dim) time.

    Raises
    ------
    InvalidInput
        If the lengths differ, a vector is zero or not finite, a score is not finite, or k or ``diversity`` is out of
        range.

    >>> pictures = [[1.0, 0.0], [0.99, 0.1], [0.0, 1.0]]
    >>> mmr(pictures, [0.9, 0.8, 0.5], 2, diversity=0.0), mmr(pictures, [0.9, 0.8, 0.5], 2, diversity=0.6)
    ([0, 1], [0, 2])
    """
    order, rows, relevance = _by_score(vectors, scores, k, diversity)
    worth = (1 - diversity) * relevance
    nearest = np.full(len(rows), -1.0)
    chosen: list[int] = []
    while len(chosen) < min(k, len(rows)):
        best = int(np.argmax(worth - diversity * nearest))
        chosen.append(best)
        worth[best] = -np.inf
        # Rounded since BLAS may give equal rows cosines that differ in the last bit.
        np.maximum(nearest, np.round((rows @ rows[best]).astype(np.float64), SCORE_DECIMALS), out=nearest)
    return [int(position) for position in order[chosen]]


def dpp(vectors: ArrayLike, scores: ArrayLike, k: int, diversity: float) -> list[int]:
    """Choose k rows by greedy MAP inference of a determinantal point process (Chen, Zhang & Zhou, NeurIPS 2018).

    Where ``mmr`` looks at the nearest chosen row alone, this looks at all of them: what several chosen ones cover
    together adds little. The kernel is L_ij = q_i q_j S_ij with S_ij = (1 + cosine) / 2 and q_i = exp(alpha *
    relevance_i), as in section 5 of the paper, whose theta is 1 - ``diversity``, so that alpha = (1 - diversity) /
    (2 * diversity). Cosines alone would be positive semidefinite as well, but by them a row and its opposite count as
    copies; by S, opposites are the most unlike. Each step takes the row that makes the determinant of L over the chosen
    ones largest, which is the one with the highest ``(1 - diversity) * relevance + diversity * log(what S leaves of
    it)``, so no power of e can overflow. The relevance is scaled as in ``mmr``: pass candidates that are worth showing.

    Parameters
    ----------
    vectors
        (n, dim) rows, made unit rows here.
    scores
        (n,) finite numbers, higher is better.
    k
        How many to choose; all n if there are fewer.
    diversity
        0 gives the order of the scores, 1 goes by the cosines alone after the first.

    Returns
    -------
    list of int
        Positions in the order chosen. Where two are equally good (what is left of a row is rounded to 5 decimals), the
        higher score and then the earlier position decides. Rows of which nothing is left make the determinant 0,
        however small ``diversity`` is above 0: copies of chosen rows, and all rows once dim + 1 are chosen. They come
        last, in the order of the scores. Takes O(n k (k + dim)) time.

    Raises
    ------
    InvalidInput
        If the lengths differ, a vector is zero or not finite, a score is not finite, or k or ``diversity`` is out of
        range.

    >>> pictures = [[1.0, 0.0], [0.99, 0.1], [0.0, 1.0]]
    >>> dpp(pictures, [0.9, 0.8, 0.5], 2, diversity=0.0), dpp(pictures, [0.9, 0.8, 0.5], 2, diversity=0.6)
    ([0, 1], [0, 2])
    """
    order, rows, relevance = _by_score(vectors, scores, k, diversity)
    # By definition the order of the scores, where a copy is as welcome as anything.
    chosen = _greedy_map(rows, relevance, min(k, len(rows)), diversity) if diversity else []
    rest = np.setdiff1d(np.arange(len(rows)), chosen)
    return [int(position) for position in order[[*chosen, *rest]][:k]]


def near_duplicates(vectors: ArrayLike, threshold: float) -> list[int]:
    """Collapse near copies in ranked order: whose copy each row is.

    Going down the ranking, each row that is not yet a copy claims all later unclaimed rows whose cosine to it is at
    least ``threshold`` (less 1e-6, which float32 cannot tell). So copies always point to a row that stands for itself.

    Parameters
    ----------
    vectors
        (n, dim) rows, best first, made unit rows here.
    threshold
        A cosine, from -1 to 1.

    Returns
    -------
    list of int
        For each row the position of the row that it is a copy of, or its own.

    Raises
    ------
    InvalidInput
        If a vector is zero or not finite, or ``threshold`` is out of range.

    >>> near_duplicates([[1.0, 0.0], [0.0, 1.0], [0.999, 0.01]], threshold=0.95)
    [0, 1, 0]
    """
    if not -1 <= threshold <= 1:
        raise InvalidInput(f"expected threshold as a cosine from -1 to 1, got {threshold!r}")
    rows = as_unit_vectors(vectors)
    owner = np.arange(len(rows))
    step = max(1, _COSINES // max(1, len(rows)))
    for start in range(0, len(rows), step):
        alike = rows[start : start + step] @ rows[start:].T >= threshold - _NOISE
        for position, row in enumerate(alike, start=start):
            if owner[position] == position:
                copies = start + np.flatnonzero(row)
                owner[copies[(copies > position) & (owner[copies] == copies)]] = position
    return [int(position) for position in owner]


def _by_score(
    vectors: ArrayLike, scores: ArrayLike, k: int, diversity: float
) -> tuple[NDArray[np.intp], Vectors, NDArray[np.float64]]:
    """Check the input; the order of the scores, and the unit rows and the relevances in that order.

    In it, the first of equals is the one that ties should go to.
    """
    check_k(k)
    if not 0 <= diversity <= 1:
        raise InvalidInput(f"expected diversity from 0 to 1, got {diversity!r}")
    rows, values = _check(vectors, scores)
    order = np.argsort(-values, kind="stable")
    return order, rows[order], _relevance(values[order])


def _greedy_map(rows: Vectors, relevance: NDArray[np.float64], n: int, diversity: float) -> list[int]:
    """Choose up to n rows, by Algorithm 1 of Chen, Zhang & Zhou (2018) with logarithms; fewer if no more is left.

    ``left`` is the paper's d squared for S: the part of each row that the chosen ones do not explain. ``parts`` are its
    vectors c: the rows of the Cholesky factor of S over the chosen ones and each other row.
    """
    exact = rows.astype(np.float64)
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    left = np.ones(len(rows))
    most = min(n, exact.shape[1] + 1)  # the rank of S
    parts = np.zeros((len(rows), most))
    chosen: list[int] = []
    while len(chosen) < most:
        with np.errstate(divide="ignore"):  # nothing left is worth -infinity
            worth = (1 - diversity) * relevance + diversity * np.log(np.round(left, SCORE_DECIMALS))
        worth[chosen] = -np.inf
        best = int(np.argmax(worth))
        if worth[best] == -np.inf:
            break
        at = len(chosen)
        alike = (1 + exact @ exact[best]) / 2
        parts[:, at] = (alike - parts[:, :at] @ parts[best, :at]) / np.sqrt(left[best])
        left = np.maximum(left - parts[:, at] ** 2, 0)
        chosen.append(best)
    return chosen


def _check(vectors: ArrayLike, scores: ArrayLike) -> tuple[Vectors, NDArray[np.float64]]:
    rows, values = as_unit_vectors(vectors), np.asarray(scores, dtype=np.float64)
    if values.shape != (len(rows),):
        raise InvalidInput(f"expected one score per vector, got shape {values.shape} for {len(rows)} vectors")
    if not np.isfinite(values).all():
        at = int(np.argmin(np.isfinite(values)))
        raise InvalidInput(f"expected finite scores, got {values[at]} at position {at}")
    return rows, values


def _relevance(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scores scaled to 0 to 1; zeros where all are equal."""
    if not len(values):
        return values
    halves = values / 2  # the span of huge values stays finite
    halves -= halves.min()
    halves /= halves.max() or 1.0
    return halves
