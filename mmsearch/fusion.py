"""One ranking out of several, by their ranks or by their scores."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mmsearch.errors import InvalidInput

RRF_K = 60
"""How much the first places count for more than the next ones (Cormack, Clarke & Buettcher, SIGIR 2009, sec. 3)."""


def reciprocal_ranks(
    rankings: Sequence[Sequence[str]], weights: Sequence[float] | None = None, k: float = RRF_K
) -> list[tuple[str, float]]:
    """Fuse rankings by reciprocal ranks: a document's score is the sum of weight / (k + rank), rank from 1.

    From Cormack, Clarke & Buettcher, SIGIR 2009; the weights, 1 if not given, are ours. A ranking that does not hold a
    document adds nothing to it.

    Parameters
    ----------
    rankings
        Ids, best first, of each source.
    weights
        One finite number per ranking; a negative one pushes down what the ranking holds.
    k
        At least 0; the larger, the less the first places stand out.

    Returns
    -------
    list of (id, score)
        Best first, equal scores by id; the order of the sources makes no difference.

    Raises
    ------
    InvalidInput
        If an id is twice in one ranking, the lengths differ, a weight is not finite, or k is negative or not finite.

    >>> [id for id, _ in reciprocal_ranks([["a", "b", "c"], ["b", "c"]])]
    ['b', 'c', 'a']
    """
    if not (math.isfinite(k) and k >= 0):
        raise InvalidInput(f"expected k as a finite number of at least 0, got {k!r}")
    checked = _check_weights([1.0] * len(rankings) if weights is None else weights, len(rankings))
    parts: dict[str, list[float]] = {}
    for number, (ranking, weight) in enumerate(zip(rankings, checked, strict=True)):
        if len(set(ranking)) != len(ranking):
            raise InvalidInput(f"expected each id once per ranking, got one twice in ranking {number}")
        for rank, document in enumerate(ranking, start=1):
            parts.setdefault(document, []).append(weight / (k + rank))
    return _best_first(parts)


def weighted_sum(scores: Sequence[Mapping[str, float]], weights: Sequence[float]) -> list[tuple[str, float]]:
    """Fuse scores by their weighted sum, over all documents that any source holds.

    A source that does not hold a document gives it the source's lowest score: a source lists its best ones only, so
    what is not listed is no better than the last that is. An empty source gives nothing to anybody. Bring the sources
    to one scale first, by ``standardised``, for example.

    Parameters
    ----------
    scores
        Finite score by id, higher is better, of each source.
    weights
        One finite number per source.

    Returns
    -------
    list of (id, score)
        Best first, equal scores by id; the order of the sources makes no difference.

    Raises
    ------
    InvalidInput
        If the lengths differ, or a weight or a score is not finite.

    >>> weighted_sum([{"a": 1.0, "b": 0.5}, {"b": 1.0, "c": 0.25}], [1.0, 2.0])
    [('b', 2.5), ('a', 1.5), ('c', 1.0)]
    """
    checked = _check_weights(weights, len(scores))
    documents = dict.fromkeys(document for source in scores for document in source)
    parts: dict[str, list[float]] = {document: [] for document in documents}
    for number, (source, weight) in enumerate(zip(scores, checked, strict=True)):
        if not all(map(math.isfinite, source.values())):
            raise InvalidInput(f"expected finite scores, got NaN or infinity in source {number}: leave such ones out")
        lowest = min(source.values(), default=0.0)
        for document in documents:
            parts[document].append(weight * source.get(document, lowest))
    return _best_first(parts)


def standardised(values: NDArray[np.floating] | NDArray[np.integer]) -> NDArray[np.float64]:
    """Values, any shape, shifted and scaled to zero mean and unit variance over the finite ones, as float64.

    Equal values become zeros; NaN stays NaN and infinities stay what they are. The variance is that of the values
    themselves (divided by n, not n - 1).

    >>> standardised(np.array([1.0, np.nan, 3.0]))
    array([-1., nan, 1.])
    """
    result = np.array(values, dtype=np.float64)
    finite = np.isfinite(result)
    # Halved so that the span of huge values stays finite; the span first so that tiny differences do not drown.
    halves = result[finite] / 2
    if not len(halves):
        return result
    halves -= halves.min()
    span = halves.max()
    if span > 0:
        halves /= span
        halves = (halves - halves.mean()) / halves.std()
    result[finite] = halves
    return result


def _check_weights(weights: Sequence[float], n: int) -> list[float]:
    if len(weights) != n:
        raise InvalidInput(f"expected one weight per source, got {len(weights)} weights for {n} sources")
    if not all(map(math.isfinite, weights)):
        raise InvalidInput(f"expected finite weights, got {list(weights)}")
    return [float(weight) for weight in weights]


def _best_first(parts: Mapping[str, Sequence[float]]) -> list[tuple[str, float]]:
    # fsum rounds once, so that documents with the same parts in another order are equal and the id decides.
    sums = ((document, math.fsum(each)) for document, each in parts.items())
    return sorted(sums, key=lambda pair: (-pair[1], pair[0]))
