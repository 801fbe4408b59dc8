"""One ranking out of several, by their ranks. By their scores: ``mmsearch.rerank.stage.fuse``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

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
