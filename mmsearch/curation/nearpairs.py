"""Couples of pictures that are alike, and what they are grouped into."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmsearch.errors import InvalidInput
from mmsearch.types import Keys

SAME, NEAR, CROP, MIRRORED = range(4)
KINDS = ("same", "near", "crop", "mirrored")
"""What the codes of `Pairs.kind` stand for.

``same``: equal shape bits and next to the same colours; ``near``: other copies of the whole; ``crop``: one shows a part
of the other; ``mirrored``: left is right.
"""


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pictures that are alike, two and two, each couple once.

    ``first`` and ``second`` are (m,) int64 positions, ``first`` the smaller; ``score`` is (m,) float32, from 0 to 1,
    higher is more alike; ``kind`` is (m,) int8, see ``KINDS``. Sorted by ``first``, then ``second``. Pictures that are
    ``same`` are paired with one of them only, and that one alone with others.
    """

    first: Keys
    second: Keys
    score: NDArray[np.float32]
    kind: NDArray[np.int8]

    def __len__(self) -> int:
        """How many couples."""
        return len(self.first)

    def taken(self, chosen: NDArray[np.bool_] | Keys) -> Pairs:
        """Some of them, chosen as arrays are indexed."""
        return Pairs(self.first[chosen], self.second[chosen], self.score[chosen], self.kind[chosen])


def joined(parts: Sequence[Pairs]) -> Pairs:
    """All pairs of some parts, in order."""
    none = Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros(0, np.int8))
    parts = [none, *parts]
    return Pairs(
        np.concatenate([part.first for part in parts]),
        np.concatenate([part.second for part in parts]),
        np.concatenate([part.score for part in parts]),
        np.concatenate([part.kind for part in parts]),
    )


def tidied(parts: Sequence[Pairs], most: int) -> Pairs:
    """Each couple once, with its best score, and only those that are among the best ``most`` of either of the two."""
    pairs = joined(parts)
    order = np.lexsort((pairs.kind, -pairs.score, pairs.second, pairs.first))
    pairs = pairs.taken(order)
    fresh = np.ones(len(pairs), dtype=np.bool_)
    fresh[1:] = (np.diff(pairs.first) != 0) | (np.diff(pairs.second) != 0)
    pairs = pairs.taken(fresh)
    ranks = np.minimum(_ranks(pairs.first, pairs), _ranks(pairs.second, pairs))
    return pairs.taken(ranks < most)


def _ranks(ends: Keys, pairs: Pairs) -> Keys:
    """The rank of each couple among all those of one of its ends, from 0 for the most alike."""
    both = np.concatenate([pairs.first, pairs.second])
    order = np.lexsort((np.concatenate([pairs.second, pairs.first]), -np.tile(pairs.score, 2), both))
    new = np.ones(len(both), dtype=np.bool_)
    new[1:] = np.diff(both[order]) != 0
    begins = np.maximum.accumulate(np.where(new, np.arange(len(both)), 0))
    ranks = np.empty(len(both), dtype=np.int64)
    ranks[order] = np.arange(len(both)) - begins
    return ranks[: len(pairs)] if ends is pairs.first else ranks[len(pairs) :]


def ordered(pairs: Pairs) -> Pairs:
    """The same with the smaller position first, sorted."""
    first, second = np.minimum(pairs.first, pairs.second), np.maximum(pairs.first, pairs.second)
    return Pairs(first, second, pairs.score, pairs.kind).taken(np.lexsort((second, first)))


def groups_of(n: int, pairs: Pairs) -> list[Keys]:
    """Group pictures that are alike, so that each of a group is alike to one of them.

    Parts of a chain, each like the next and the last unlike the first, do not make one group: pictures that are
    ``same`` count as one, and then stars are taken instead of connected components (Aslam, Pelekhov & Rus, JGAA 2004,
    the offline star algorithm): the picture with the largest sum of scores (of equals the earlier) becomes a centre,
    all those paired with it that are free yet are its group, and so on. Groups that are mirror images of each other are
    joined afterwards, in the same way. Its cost is that of sorting the pairs.

    Parameters
    ----------
    n
        How many pictures there are.
    pairs
        What `near_pairs` found; any part of it, such as those of some kinds, will do.

    Returns
    -------
    list of (m,) int64
        Positions, sorted, of at least two; the groups are sorted by their first and have nothing in common.

    Raises
    ------
    InvalidInput
        If a position is not below ``n``.
    """
    if len(pairs) and not 0 <= int(pairs.first.min()) <= int(pairs.second.max()) < n:
        raise InvalidInput(f"expected positions below {n}, got {pairs.first.min()} to {pairs.second.max()}")
    leader = _merged(n, pairs)
    one, other = leader[pairs.first], leader[pairs.second]
    apart = one != other
    score, mirrored = pairs.score.astype(np.float64), pairs.kind == MIRRORED
    plain = apart & ~mirrored
    centre = _stars(n, one[plain], other[plain], score[plain])[leader]
    # Then groups that are mirror images of each other are joined, so that no plain copy is lost to a mirrored one.
    one, other = centre[pairs.first], centre[pairs.second]
    apart = (one != other) & mirrored
    centre = _stars(n, one[apart], other[apart], score[apart])[centre]
    order = np.argsort(centre, kind="stable")
    cuts = np.flatnonzero(np.diff(centre[order])) + 1
    groups = [np.asarray(group, dtype=np.int64) for group in np.split(order, cuts) if len(group) > 1]
    return sorted(groups, key=lambda group: int(group[0]))


def _merged(n: int, pairs: Pairs) -> Keys:
    """Whom each picture is the same as: one that all of them are paired with, or itself."""
    same = pairs.kind == SAME
    one, other = pairs.first[same], pairs.second[same]
    # The couples are stars: what has several partners, or is the earlier of two, is the middle of one.
    degrees = np.bincount(one, minlength=n) + np.bincount(other, minlength=n)
    middle = degrees[one] >= degrees[other]
    leader = np.arange(n)
    leader[np.where(middle, other, one)] = np.where(middle, one, other)
    return leader


def _stars(n: int, one: Keys, other: Keys, score: NDArray[np.float64]) -> Keys:
    """Give each of n nodes the centre of its star; its own for centres and for those that are alone."""
    weights = np.bincount(one, score, n) + np.bincount(other, score, n)
    ends, partners = np.concatenate([one, other]), np.concatenate([other, one])
    partners = partners[np.argsort(ends, kind="stable")]
    bounds = np.concatenate([[0], np.cumsum(np.bincount(ends, minlength=n))])
    centre = np.arange(n)
    free = np.ones(n, dtype=np.bool_)
    for node in np.argsort(-np.round(weights, 5), kind="stable"):
        if weights[node] == 0:
            break
        if free[node]:
            near = partners[bounds[node] : bounds[node + 1]]
            near = near[free[near]]
            centre[near] = node
            free[near] = False
            free[node] = False
    return centre
