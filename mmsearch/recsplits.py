"""Splits of behaviour for judging recommenders: what may be learnt from, and what is to be foretold.

In all of them no pair of a person and an item that is to be foretold has any event in the training part. What a
person had to do with before is no answer: recommenders are judged by what is new to somebody.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from mmsearch.behaviour import Behaviour
from mmsearch.errors import InvalidInput
from mmsearch.types import Keys


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """A training part, and some people's answers that were held out of it."""

    name: str
    """``warm``, ``time`` or ``cold``."""
    train: Behaviour
    """What models may learn from. All people and items keep their positions, also those without an event left."""
    histories: Behaviour
    """What models are told of the people who are tested: the events of theirs in ``train``, one row each."""
    users: Keys
    """(n_tested,) int64, ascending: the positions in ``train`` of the people who are tested."""
    answers: tuple[Keys, ...]
    """For each of them the item positions that are to be foretold, ascending, at least one."""
    cold: NDArray[np.bool_]
    """(n_items,): the items that were held out with all their events; none except by ``cold_items``."""
    again: Callable[[Behaviour], Split] = field(repr=False)
    """Splits other behaviour by the same rule; see ``inner``."""

    def __len__(self) -> int:
        """How many people are tested."""
        return len(self.users)

    @property
    def n_empty(self) -> int:
        """How many of them have no history left, so that a model is told nothing of them."""
        return int(np.count_nonzero(np.diff(self.histories.starts) == 0))


def leave_last_out(behaviour: Behaviour, n: int = 1, min_history: int = 1) -> Split:
    """Hold out the n items that each person liked last; what they did before is their history.

    An item is liked if its events with a person sum to a weight above 0, as in ``Behaviour.liked``, and when is told
    by the last of these events with a weight above 0. Whatever a person did from the first of the held-out likes on
    is left out of training, and so are earlier events with the items held out.

    This is leave-one-out (Rendle et al., UAI 2009, sec. 6.2) in the order of time: training does contain later events
    of other people, which a service would not have had yet. ``split_at`` is stricter.

    Parameters
    ----------
    behaviour
        All events. Where times are equal or unknown, the order in which events were given decides.
    n
        How many items to hold out a person, at least 1.
    min_history
        Whoever would have fewer events left, or likes fewer than n items, is not tested: all of theirs is training.

    Raises
    ------
    InvalidInput
        If nobody can be tested, or a number is out of range.

    >>> split = leave_last_out(Behaviour.of([0, 0, 0, 1], [2, 0, 1, 1], times=[1, 2, 3, 4], n_users=2, n_items=3))
    >>> split.users.tolist(), split.answers[0].tolist(), split.train.items.tolist()
    ([0], [1], [2, 0, 1])
    """
    _check_count("n", n, 1)
    _check_count("min_history", min_history, 0)
    pairs, users = _Pairs.of(behaviour), behaviour.users
    # Events are sorted by person, so that in the order of their last events pairs are as well.
    liked = np.flatnonzero(pairs.liked)
    liked = liked[np.argsort(pairs.last[liked], kind="stable")]
    counts = np.bincount(pairs.users[liked], minlength=behaviour.n_users)
    from_end = np.cumsum(counts)[pairs.users[liked]] - np.arange(len(liked))
    held = liked[(from_end <= n) & (counts >= n)[pairs.users[liked]]]
    first = np.full(behaviour.n_users, len(behaviour))
    np.minimum.at(first, pairs.users[held], pairs.last[held])
    is_held = np.zeros(len(pairs.users), dtype=bool)
    is_held[held] = True
    before = (np.arange(len(behaviour)) < first[users]) & ~is_held[pairs.of_event]
    tested = (counts >= n) & (np.bincount(users[before], minlength=behaviour.n_users) >= min_history)
    held = held[tested[pairs.users[held]]]
    if not len(held):
        raise InvalidInput(
            f"expected people with {n} liked and {min_history} earlier events to test on, got none among "
            f"{behaviour.n_users} people with {len(behaviour)} events"
        )
    again = partial(leave_last_out, n=n, min_history=min_history)
    return _split("warm", behaviour.where(before | ~tested[users]), pairs.users[held], pairs.items[held], None, again)


def split_at(behaviour: Behaviour, time: float) -> Split:
    """Learn from what was before a moment, and foretell what each person liked from then on.

    One cut for all people, so that nothing is learnt from the future. People of whom there is nothing before it are
    tested with an empty history. Events of unknown time count as earlier ones. An item is liked if its events with a
    person from then on sum to a weight above 0; those that the person knew before are no answers.

    Parameters
    ----------
    behaviour
        All events.
    time
        In seconds since 1970, as in ``behaviour.times``; see ``last_share``. Events at this very time come after it.

    Raises
    ------
    InvalidInput
        If nothing is before, or nobody likes anything new afterwards.
    """
    after = behaviour.times >= time  # false for NaN
    train, later = behaviour.where(~after), behaviour.where(after)
    pairs = _Pairs.of(later)
    new = pairs.liked & ~np.isin(pairs.numbers, _Pairs.of(train).numbers)
    if not (len(train) and new.any()):
        raise InvalidInput(
            f"expected events before the time {time!r} and new likes after it, got {len(train)} events before and "
            f"{int(new.sum())} new likes in {len(later)} events after"
        )
    share = len(later) / max(1, int(np.isfinite(behaviour.times).sum()))

    def again(other: Behaviour) -> Split:
        return split_at(other, last_share(other, share))

    return _split("time", train, pairs.users[new], pairs.items[new], None, again)


def last_share(behaviour: Behaviour, share: float) -> float:
    """The moment from which on there is the last share of all events whose time is known, for ``split_at``.

    Events of one time stay together, on the later side.

    Raises
    ------
    InvalidInput
        If ``share`` is not between 0 and 1, or no time is known.
    """
    _check_share(share)
    known = np.sort(behaviour.times[np.isfinite(behaviour.times)])
    if not len(known):
        raise InvalidInput(f"expected events with times to split by, got {len(behaviour)} without one")
    return float(known[min(len(known) - 1, round(len(known) * (1 - share)))])


def cold_items(behaviour: Behaviour, share: float = 0.2, seed: int = 0) -> Split:
    """Hold out a random share of the items that have events, with all their events: items that are quite new.

    Each person's answers are what they like of these, in the sense of ``Behaviour.liked``. Their history is all the
    rest, and empty if they had to do with no other items; they are tested nevertheless (see ``Split.n_empty``).

    Parameters
    ----------
    behaviour
        All events.
    share
        Of the items that have events, between 0 and 1; at least one item is held out, and one is left.
    seed
        Equal seeds hold out equal items.

    Raises
    ------
    InvalidInput
        If fewer than two items have events, nobody likes a held-out one, or ``share`` is out of range.
    """
    _check_share(share)
    there = np.unique(behaviour.items)
    if len(there) < 2:
        raise InvalidInput(f"expected at least 2 items with events to hold some out, got {len(there)}")
    n = min(len(there) - 1, max(1, round(share * len(there))))
    cold = np.zeros(behaviour.n_items, dtype=bool)
    cold[np.random.default_rng(seed).choice(there, n, replace=False)] = True
    pairs = _Pairs.of(behaviour)
    held = pairs.liked & cold[pairs.items]
    if not held.any():
        raise InvalidInput(f"expected people who like one of the {n} items held out, got none: try another seed")
    train = behaviour.where(~cold[behaviour.items])
    # Another seed inside, so that what is left is not drawn from in the same order once more.
    return _split(
        "cold", train, pairs.users[held], pairs.items[held], cold, partial(cold_items, share=share, seed=seed + 1)
    )


def inner(split: Split) -> Split:
    """A split by the same rule of the training part alone, for choosing settings without a look at the answers.

    Raises
    ------
    InvalidInput
        If nobody is left to be tested on.
    """
    return split.again(split.train)


@dataclass(frozen=True, slots=True)
class _Pairs:
    """Who had to do with what, each pair once, by person and then by item."""

    numbers: Keys
    """(n_pairs,) user * n_items + item, ascending."""
    users: Keys
    items: Keys
    of_event: Keys
    """(n_events,): the pair of each event."""
    liked: NDArray[np.bool_]
    """(n_pairs,): the weights sum to more than 0."""
    last: Keys
    """(n_pairs,): the pair's last event with a weight above 0, -1 without one."""

    @classmethod
    def of(cls, behaviour: Behaviour) -> _Pairs:
        width = max(1, behaviour.n_items)
        numbers, of_event = np.unique(behaviour.users * width + behaviour.items, return_inverse=True)
        sums = np.bincount(of_event, weights=behaviour.weights, minlength=len(numbers))
        last = np.full(len(numbers), -1)
        likes = np.flatnonzero(behaviour.weights > 0)
        np.maximum.at(last, of_event[likes], likes)
        return cls(numbers, numbers // width, numbers % width, of_event, sums > 0, last)


def _split(
    name: str,
    train: Behaviour,
    users: Keys,
    items: Keys,
    cold: NDArray[np.bool_] | None,
    again: Callable[[Behaviour], Split],
) -> Split:
    """Put answers, given as pairs in any order, at least one, together by person."""
    order = np.lexsort((items, users))
    tested, starts = np.unique(users[order], return_index=True)
    answers = tuple(np.split(items[order], starts[1:]))
    mask = np.zeros(train.n_items, dtype=bool) if cold is None else cold
    return Split(name, train, train.of_users(tested), tested, answers, mask, again)


def _check_count(name: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise InvalidInput(f"expected {name} as a whole number from {least}, got {value!r}")


def _check_share(share: float) -> None:
    if not 0 < share < 1:
        raise InvalidInput(f"expected a share between 0 and 1, got {share!r}")
