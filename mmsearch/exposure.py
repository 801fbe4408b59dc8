"""Who gets shown: limits by category, and scores shifted towards what is little known, much known, or new to a person.

Shifts are weighted means of the scores and a wish. Both are standardised over the candidates first (mean 0, standard
deviation 1), since scores of different recommenders, counts and cosines have nothing in common, and put back on the
scale of the scores. So a shift depends on the candidates: pass those that are worth showing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Hashable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmsearch.errors import InvalidInput
from mmsearch.vectors import SCORE_DECIMALS

_Values: TypeAlias = NDArray[np.float64]

_MOST = 0.99
"""Weight of a wish with the knob turned fully: the scores still settle the order of those that meet it equally."""
_NOISE = 1e-5
"""Cosines of float32 vectors may be this far beyond 1."""


def capped(categories: Sequence[Collection[Hashable]], limit: int | Callable[[Hashable], int]) -> list[int]:
    """Walk down a ranking and keep what does not make any category too frequent.

    An item is kept if each of its categories has been kept less often than its limit before it. Whatever is passed
    over does not count. This is the most that can be had of each category from the top; it need not be the longest
    list within the limit.

    Parameters
    ----------
    categories
        The categories of each item, best first: a set, list or tuple. A category named twice counts once, and an item
        with several counts for each of them. An item with none is always kept.
    limit
        How often each category may occur among those kept, from 1; or what tells it of a category.

    Returns
    -------
    list of int
        The positions kept, in order.

    Raises
    ------
    InvalidInput
        If ``limit`` is no whole number from 1, or the categories of an item are a str or cannot be told apart.

    >>> capped([{"shoe"}, {"shoe"}, {"hat", "red"}, set(), {"shoe", "hat"}], limit=1)
    [0, 2, 3]
    """
    if not callable(limit) and (isinstance(limit, bool) or not isinstance(limit, int | np.integer) or limit < 1):
        raise InvalidInput(f"expected limit as a whole number from 1, got {limit!r}")
    times: Counter[Hashable] = Counter()
    kept: list[int] = []
    for position, named in enumerate(categories):
        own = _check_categories(named, position)
        if all(times[category] < (limit(category) if callable(limit) else limit) for category in own):
            times.update(own)
            kept.append(position)
    return kept


def popularity_shift(scores: ArrayLike, popularity: ArrayLike, knob: float) -> NDArray[np.float64]:
    """Shift scores towards what many or few people know.

    ``(1 - w) * score + w * wish`` with the weight w = 0.99 * abs(knob): the trade-off of Abdollahpouri, Burke &
    Mobasher, "Managing Popularity Bias in Recommender Systems with Personalized Re-Ranking" (FLAIRS 2019), where the
    wish is not one of two classes (short head or long tail), but log(1 + popularity), negative for a knob below 0.
    Logarithms, since popularity is heavy-tailed: else the wish would be for the few most popular ones or for none.

    For each k, the mean of log(1 + popularity) over the best k never falls as the knob rises.

    Parameters
    ----------
    scores
        (n,) finite numbers, higher is better.
    popularity
        (n,) how many people had each candidate, or anything else from 0.
    knob
        -1 is what few know, 0 leaves the scores as they are, 1 is what many know. At -1 and 1 popularity decides, and
        the scores settle the order of those that are about equally popular.

    Returns
    -------
    (n,) float64
        Higher is better, with the mean of the scores. The scores themselves where the knob is 0; their order where all
        are equally popular; the order of popularity where all scores are equal.

    Raises
    ------
    InvalidInput
        If the lengths differ, a number is not finite, a popularity is below 0 or ``knob`` is out of range.

    >>> popularity_shift([3.0, 2.0, 1.0], [900, 10, 10], knob=0.0)
    array([3., 2., 1.])
    >>> popularity_shift([3.0, 2.0, 1.0], [900, 10, 10], knob=-0.8).argmax()
    np.int64(1)
    """
    if not -1 <= knob <= 1:
        raise InvalidInput(f"expected knob from -1 (what few know) to 1 (what many know), got {knob!r}")
    values, known = _check(scores, "scores"), _check(popularity, "popularity")
    _check_lengths(values, known, "popularity")
    if known.min(initial=0) < 0:
        raise InvalidInput(f"expected popularity from 0, got {known.min()} at position {int(np.argmin(known))}")
    return _towards(values, np.sign(knob) * np.log1p(known), abs(knob))


def novelty_shift(scores: ArrayLike, nearest: ArrayLike, novelty: float) -> NDArray[np.float64]:
    """Shift scores towards what is unlike anything that the person has had.

    ``(1 - w) * score + w * wish`` with the weight w = 0.99 * novelty. The wish is the distance to the nearest of the
    person's items, 1 - cosine: the distance-based novelty of Vargas & Castells (RecSys 2011, section 3.2), with the
    minimum over the items rather than the mean, which an item unlike most of a varied history would have anyway.

    Parameters
    ----------
    scores
        (n,) finite numbers, higher is better.
    nearest
        (n,) each candidate's largest cosine to an item that the person has had, from -1 to 1, rounded to 5 decimals
        here. Pass any one number for all where the person has had nothing: then nothing is shifted.
    novelty
        0 leaves the scores as they are; at 1 the distances decide.

    Returns
    -------
    (n,) float64
        Higher is better, with the mean of the scores. The scores themselves where ``novelty`` is 0; their order where
        all are equally near.

    Raises
    ------
    InvalidInput
        If the lengths differ, a number is not finite, or a cosine or ``novelty`` is out of range.

    >>> novelty_shift([0.9, 0.8], [0.95, 0.2], novelty=0.6).argmax()
    np.int64(1)
    """
    if not 0 <= novelty <= 1:
        raise InvalidInput(f"expected novelty from 0 to 1, got {novelty!r}")
    values, cosines = _check(scores, "scores"), _check(nearest, "nearest")
    _check_lengths(values, cosines, "nearest")
    if np.abs(cosines).max(initial=0) > 1 + _NOISE:
        at = int(np.argmax(np.abs(cosines)))
        raise InvalidInput(f"expected nearest as cosines from -1 to 1, got {cosines[at]} at position {at}")
    return _towards(values, 1 - np.round(cosines, SCORE_DECIMALS), novelty)


def _towards(scores: _Values, wish: _Values, knob: float) -> _Values:
    """The weighted mean of scores and a wish, (n,) each, the wish put on the scale of the scores."""
    if not len(scores):
        return scores
    weight = _MOST * knob
    middle, spread, _ = _standard(scores)
    # Equal scores have no spread to give to the wish, which alone should decide then.
    return (1 - weight) * scores + weight * (middle + (spread or 1.0) * _standard(wish)[2])


def _standard(values: _Values) -> tuple[float, float, _Values]:
    """Mean, standard deviation, and (n,) the values less the mean in units of it; zeros where all are equal."""
    # The computed spread of equal values need not be 0, and that of tiny ones may be.
    spread = float(values.std()) if values.min() < values.max() else 0.0
    middle = float(values.mean())
    return middle, spread, (values - middle) / spread if spread else np.zeros(len(values))


def _check(values: ArrayLike, name: str) -> _Values:
    checked = np.array(values, dtype=np.float64)
    if checked.ndim != 1:
        raise InvalidInput(f"expected {name} as one number per candidate, got shape {checked.shape}")
    usable = np.abs(checked) < np.finfo(np.float32).max
    if not usable.all():
        at = int(np.argmin(usable))
        raise InvalidInput(f"expected finite {name} of float32's range, got {checked[at]} at position {at}")
    return checked


def _check_lengths(scores: _Values, others: _Values, name: str) -> None:
    if len(scores) != len(others):
        raise InvalidInput(f"expected {name} for each score, got {len(others)} for {len(scores)} scores")


def _check_categories(named: Collection[Hashable], position: int) -> set[Hashable]:
    if isinstance(named, str):
        raise InvalidInput(f"expected the categories of item {position} as a set or list, got the str {named!r}")
    try:
        return set(named)
    except TypeError as error:
        raise InvalidInput(f"expected the categories of item {position} as hashable values: {error}") from error
