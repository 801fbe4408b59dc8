"""Measures of recommendation lists beyond accuracy: coverage, novelty, diversity, popularity bias and exposure.

A run is an (n_users, k) array of item positions, best first; -1 stands for no item, anywhere. No item is in a list
twice. Measures by user are (n_users,) float64, so that ``metrics.interval`` and ``metrics.compare`` take them. An empty
list has 0, as an unanswered query has in ``metrics.evaluate``: leave such users out of the run to leave them out.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmsearch.behaviour import Behaviour
from mmsearch.errors import InvalidInput
from mmsearch.types import Keys
from mmsearch.vectors import as_unit_vectors

_Values: TypeAlias = NDArray[np.float64]

_NONE = -1
_NUMBERS = 4_000_000
"""Sums of vectors held at once: 32 MB of them."""


def coverage(run: ArrayLike, catalogue_size: int) -> float:
    """Share of the catalogue that is recommended to anybody (Ge, Delgado-Battenfeld & Jannach, RecSys 2010).

    Raises
    ------
    InvalidInput
        If the run is no such array, or ``catalogue_size`` is no whole number from 1.

    >>> coverage([[0, 1], [1, -1]], catalogue_size=4)
    0.5
    """
    return float(np.count_nonzero(_exposure(run, catalogue_size))) / catalogue_size


def gini(run: ArrayLike, catalogue_size: int) -> float:
    """How unequally the catalogue's items are recommended: 0 all equally often, 1 one item alone.

    ``sum((2 j - n - 1) * share_j) / (n - 1)`` over the n items from the rarest to the most frequent (Shani &
    Gunawardana, "Evaluating Recommendation Systems", Recommender Systems Handbook 2011, on item space coverage). 0 for
    a catalogue of one item, and where nothing is recommended.

    Raises
    ------
    InvalidInput
        If the run is no such array, or ``catalogue_size`` is no whole number from 1.

    >>> gini([[0], [0]], catalogue_size=3), gini([[0], [1], [2]], catalogue_size=3)
    (1.0, 0.0)
    """
    times = np.sort(_exposure(run, catalogue_size)).astype(np.float64)
    if not times.any() or catalogue_size == 1:
        return 0.0
    ranks = 2 * np.arange(1, catalogue_size + 1) - catalogue_size - 1
    return float(ranks @ times / times.sum() / (catalogue_size - 1))


def novelty(run: ArrayLike, popularity: ArrayLike, n_users: int) -> NDArray[np.float64]:
    """How surprising each list is: the mean self-information of its items in bits, (n_lists,) float64.

    -log2 of the share of people who had an item (Zhou et al., PNAS 2010; the popularity-based novelty of Vargas &
    Castells, RecSys 2011, section 3.1). The share is estimated as (popularity + 1) / (n_users + 2), Laplace's rule of
    succession: what nobody had is no infinite surprise, and what everybody had is a small one.

    Parameters
    ----------
    run
        (n_lists, k) item positions, -1 for none.
    popularity
        (n_items,) how many people had each item.
    n_users
        How many people there are, from 1.

    Raises
    ------
    InvalidInput
        If the run is no such array, or an item was had by fewer than 0 or more than ``n_users``.

    >>> novelty([[0, 1], [1, -1]], popularity=[0, 15], n_users=30)
    array([3., 1.])
    """
    people, known = _check_size(n_users, "n_users"), _check_popularity(popularity)
    if known.max(initial=0) > people:
        raise InvalidInput(f"expected popularity as people, at most n_users = {people}, got {known.max():g}")
    return _means(_as_run(run, len(known)), -np.log2((known + 1) / (people + 2)))


def popularity_bias(run: ArrayLike, popularity: ArrayLike) -> NDArray[np.float64]:
    """The mean popularity of each list's items, (n_users,) float64.

    Its mean over the users is the average recommendation popularity (ARP) of Abdollahpouri, Burke & Mobasher (FLAIRS
    2019).

    Parameters
    ----------
    run
        (n_users, k) item positions, -1 for none.
    popularity
        (n_items,) numbers from 0, as how many people had each item.

    Raises
    ------
    InvalidInput
        If the run is no such array, or a popularity is below 0 or not finite.

    >>> popularity_bias([[0, 1], [1, -1]], popularity=[10, 2])
    array([6., 2.])
    """
    known = _check_popularity(popularity)
    return _means(_as_run(run, len(known)), known)


def popularity_lift(
    run: ArrayLike, popularity: ArrayLike, histories: Behaviour, groups: Sequence[Hashable] | None = None
) -> dict[Hashable, float]:
    """How much more popular than what a group of people had is what they are recommended.

    (q - p) / p, where q is the mean over the people of the mean popularity of their lists, and p the same for their
    histories (Abdollahpouri, Mansoury, Burke & Mobasher, "The Connection Between Popularity Bias, Calibration, and
    Fairness in Recommendation", RecSys 2020). 0 is as popular as before, 1 twice as popular, -0.5 half as popular.

    Parameters
    ----------
    run
        (n_users, k) item positions, -1 for none.
    popularity
        (n_items,) numbers from 0, as how many people had each item.
    histories
        What each of them had; an item counts once however often they had it, and whatever its weight. For liked items
        only, pass ``histories.where(histories.weights > 0)``.
    groups
        (n_users,) the group of each; without it, all are in one, called ``"everybody"``.

    Returns
    -------
    dict
        Group -> lift, in the order of first appearance. People without a list or without a history are left out; NaN
        for a group in which nobody is left, or whose histories have a popularity of 0.

    Raises
    ------
    InvalidInput
        If the lengths differ, the run is no such array, or a popularity is below 0 or not finite.

    >>> histories = Behaviour.of([0, 1], [1, 1], n_users=2, n_items=2)
    >>> popularity_lift([[0], [1]], [10, 2], histories)
    {'everybody': 2.0}
    """
    known = _check_popularity(popularity)
    lists = _as_run(run, len(known))
    if histories.n_items != len(known) or histories.n_users != len(lists):
        raise InvalidInput(
            f"expected histories of the run's {len(lists)} users with {len(known)} items, got {histories.n_users} "
            f"users and {histories.n_items} items"
        )
    names = ["everybody"] * len(lists) if groups is None else groups
    if len(names) != len(lists):
        raise InvalidInput(f"expected one group per user, got {len(names)} for {len(lists)} users")
    recommended, had, counts = _means(lists, known), *_history_means(histories, known)
    usable = (counts > 0) & (lists != _NONE).any(axis=1)
    numbers: dict[Hashable, int] = {}
    group_of = np.array([numbers.setdefault(name, len(numbers)) for name in names], dtype=np.int64)
    after, before = (
        np.bincount(group_of[usable], weights=values[usable], minlength=len(numbers)) for values in (recommended, had)
    )
    lifts = np.divide(after - before, before, out=np.full(len(numbers), np.nan), where=before > 0)
    return dict(zip(numbers, lifts.tolist(), strict=True))


def intra_list_diversity(run: ArrayLike, vectors: ArrayLike) -> NDArray[np.float64]:
    """How unlike each other the items of each list are, (n_users,) float64 from 0 to 2.

    The mean of 1 - cosine over the pairs of a list: the dissimilarity form of the intra-list similarity of Ziegler et
    al. (WWW 2005). A list of one item, which has no pair, has 0.

    Parameters
    ----------
    run
        (n_users, k) item positions, -1 for none.
    vectors
        (n_items, dim) rows, made unit rows here.

    Raises
    ------
    InvalidInput
        If the run is no such array, or a vector is zero or not finite.

    >>> intra_list_diversity([[0, 1], [1, 2]], [[1, 0], [0, 1], [0, 2]])
    array([1., 0.])
    """
    rows = as_unit_vectors(vectors)
    lists = _as_run(run, len(rows))
    # The squared length of the sum of n unit vectors is n and twice the sum of the cosines of all pairs.
    squares = np.empty(len(lists))
    step = max(1, _NUMBERS // max(1, rows.shape[1]))
    for start in range(0, len(lists), step):
        block = lists[start : start + step]
        sums = np.zeros((len(block), rows.shape[1]))
        for column in block.T:
            there = np.flatnonzero(column != _NONE)
            sums[there] += rows[column[there]]
        squares[start : start + step] = (sums * sums).sum(axis=1)
    n = np.count_nonzero(lists != _NONE, axis=1)
    cosines = (squares - n) / np.maximum(n * (n - 1), 1)
    # Rounding may take copies a hair below 0.
    return np.where(n > 1, np.clip(1 - cosines, 0.0, 2.0), 0.0)


def _as_run(run: ArrayLike, n_items: int) -> Keys:
    """Check a run: (n_users, k) positions of n_items items or -1, none twice in a row; int64 out."""
    try:
        lists = np.asarray(run)
    except ValueError as error:
        raise InvalidInput(
            f"expected a run as an array (n_users, k), short lists filled up with -1: {error}"
        ) from error
    if lists.size == 0 and lists.ndim in (1, 2):
        return np.zeros((len(lists), 0), dtype=np.int64)
    if lists.ndim != 2 or not np.issubdtype(lists.dtype, np.integer):
        raise InvalidInput(f"expected a run as whole numbers (n_users, k), got shape {lists.shape} of {lists.dtype}")
    if lists.min() < _NONE or lists.max() >= n_items:
        raise InvalidInput(
            f"expected item positions from 0 to {n_items - 1}, or -1 for none, got {lists.min()} to {lists.max()}"
        )
    ordered = np.sort(lists, axis=1)
    twice = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] != _NONE)
    if twice.any():
        user, at = np.argwhere(twice)[0]
        raise InvalidInput(
            f"expected each item once in a list, got {ordered[user, at]} twice in the list of user {user}"
        )
    return lists.astype(np.int64)


def _exposure(run: ArrayLike, catalogue_size: int) -> Keys:
    """How often each item is recommended, (catalogue_size,)."""
    lists = _as_run(run, _check_size(catalogue_size, "catalogue_size"))
    return np.bincount(lists[lists != _NONE], minlength=catalogue_size).astype(np.int64)


def _means(lists: Keys, values: _Values) -> _Values:
    """Each list's mean of its items' values, (n_users,); 0 for an empty list."""
    there = lists != _NONE
    found = np.zeros(lists.shape)
    found[there] = values[lists[there]]
    return np.asarray(found.sum(axis=1) / np.maximum(there.sum(axis=1), 1), dtype=np.float64)


def _history_means(histories: Behaviour, values: _Values) -> tuple[_Values, Keys]:
    """Each user's mean value of the items they had, 0 without any, and the number of these; (n_users,) each."""
    seen = histories.seen()  # one entry a pair
    counts = np.diff(seen.indptr).astype(np.int64)
    return np.asarray(seen @ values / np.maximum(counts, 1), dtype=np.float64), counts


def _check_popularity(popularity: ArrayLike) -> _Values:
    known = np.asarray(popularity, dtype=np.float64)
    if known.ndim != 1:
        raise InvalidInput(f"expected popularity as one number per item, got shape {known.shape}")
    good = np.isfinite(known) & (known >= 0)
    if not good.all():
        at = int(np.argmin(good))
        raise InvalidInput(f"expected finite popularity from 0, got {known[at]} for item {at}")
    return known


def _check_size(size: int, name: str) -> int:
    if isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 1:
        raise InvalidInput(f"expected {name} as a whole number from 1, got {size!r}")
    return int(size)
