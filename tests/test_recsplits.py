"""Splits of behaviour: nothing that is to be foretold can be learnt."""

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmsearch.behaviour import Behaviour
from mmsearch.errors import InvalidInput
from mmsearch.recsplits import cold_items, inner, last_share, leave_last_out, split_at

EVENTS = st.lists(
    st.tuples(
        st.integers(0, 5), st.integers(0, 6), st.sampled_from([-1.0, 0.0, 1.0, 2.0]), st.sampled_from([np.nan, 1, 2, 3])
    ),
    max_size=40,
)


def of(events, n_users=6, n_items=7):
    """Behaviour of (user, item, weight, time)."""
    users, items, weights, times = zip(*events, strict=True) if events else ([], [], [], [])
    return Behaviour.of(users, items, weights, times, n_users=n_users, n_items=n_items)


def liked(*who_what_when):
    return of([(user, item, 1.0, time) for user, item, time in who_what_when])


def told(behaviour):
    """Each user's items in order."""
    return [behaviour.items[a:b].tolist() for a, b in zip(behaviour.starts, behaviour.starts[1:], strict=False)]


def answers(split):
    return {int(user): items.tolist() for user, items in zip(split.users, split.answers, strict=True)}


def pairs(behaviour):
    return set(zip(behaviour.users.tolist(), behaviour.items.tolist(), strict=True))


def splits(behaviour):
    """Every split that this behaviour allows."""
    makers = [
        lambda: leave_last_out(behaviour),
        lambda: leave_last_out(behaviour, n=2, min_history=0),
        lambda: split_at(behaviour, 2),
        lambda: cold_items(behaviour, share=0.4),
    ]
    for make in makers:
        with suppress(InvalidInput):  # too few events for this one
            yield make()


# What holds for all -------------------------------------------------------------------------------------------------


@given(EVENTS)
def test_no_pair_to_be_foretold_has_an_event_in_training(events):
    behaviour = of(events)
    for split in splits(behaviour):
        held = {(user, item) for user, items in answers(split).items() for item in items}
        assert held
        assert not held & pairs(split.train)
        assert held <= pairs(behaviour)


@given(EVENTS)
def test_a_split_of_the_training_part_holds_out_nothing_that_was_held_out_already(events):
    for split in splits(of(events)):
        held = {(user, item) for user, items in answers(split).items() for item in items}
        try:
            within = inner(split)
        except InvalidInput:
            continue
        assert within.name == split.name
        assert pairs(within.train) < pairs(split.train)
        assert {(user, item) for user, items in answers(within).items() for item in items} <= pairs(split.train) - held


@given(EVENTS)
def test_histories_are_what_training_knows_of_the_tested(events):
    for split in splits(of(events)):
        assert told(split.histories) == [told(split.train)[user] for user in split.users]
        assert split.n_empty == told(split.histories).count([])
        assert len(split) == len(split.answers) == split.histories.n_users > 0


@given(EVENTS)
def test_only_what_people_like_on_the_whole_is_to_be_foretold(events):
    behaviour = of(events)
    for split in splits(behaviour):
        if split.name != "time":  # there, what was before does not count
            sums = behaviour.liked().toarray()
            assert all(sums[user, item] > 0 for user, items in answers(split).items() for item in items)


@given(EVENTS)
def test_people_and_items_keep_their_positions(events):
    behaviour = of(events)
    for split in splits(behaviour):
        assert (split.train.n_users, split.train.n_items) == (6, 7)
        assert pairs(split.train) <= pairs(behaviour)
        assert (np.diff(split.users) > 0).all()


# The last of each person ---------------------------------------------------------------------------------------------


def test_what_each_person_liked_last_is_held_out():
    split = leave_last_out(liked((0, 1, 30), (0, 2, 10), (0, 3, 20), (1, 4, 5), (1, 5, 6)))
    assert answers(split) == {0: [1], 1: [5]}
    assert told(split.train)[:2] == [[2, 3], [4]]
    assert split.name == "warm"
    assert not split.cold.any()
    assert split.n_empty == 0


def test_several_can_be_held_out():
    split = leave_last_out(liked((0, 5, 1), (0, 4, 2), (0, 3, 3), (1, 0, 1), (1, 1, 2)), n=2)
    assert answers(split) == {0: [3, 4]}
    assert told(split.train)[:2] == [[5], [0, 1]]


def test_people_with_too_short_a_history_are_for_training_only():
    behaviour = liked((0, 1, 1), (1, 1, 1), (1, 2, 2), (2, 1, 1), (2, 2, 2), (2, 3, 3))
    split = leave_last_out(behaviour, min_history=2)
    assert answers(split) == {2: [3]}
    assert told(split.train)[:3] == [[1], [1, 2], [1, 2]]


def test_somebody_with_a_single_like_can_be_tested_with_an_empty_history():
    split = leave_last_out(liked((0, 1, 1), (1, 1, 1), (1, 2, 2)), min_history=0)
    assert answers(split) == {0: [1], 1: [2]}
    assert split.n_empty == 1


def test_at_equal_times_the_event_given_last_is_the_last():
    assert answers(leave_last_out(liked((0, 4, 1), (0, 2, 1), (0, 3, 1)))) == {0: [3]}


def test_without_times_the_order_given_decides():
    assert answers(leave_last_out(liked((0, 4, np.nan), (0, 2, np.nan)))) == {0: [2]}


def test_earlier_events_with_what_is_held_out_are_left_out_too():
    split = leave_last_out(liked((0, 1, 1), (0, 2, 2), (0, 1, 3)))
    assert answers(split) == {0: [1]}
    assert told(split.train)[0] == [2]


def test_what_came_after_the_held_out_like_is_left_out():
    split = leave_last_out(of([(0, 1, 1.0, 1), (0, 2, 1.0, 2), (0, 3, -1.0, 3), (0, 2, 0.0, 4), (0, 4, 0.0, 5)]))
    assert answers(split) == {0: [2]}
    assert told(split.train)[0] == [1]


def test_what_was_only_seen_or_disliked_is_history_but_nothing_to_foretell():
    split = leave_last_out(of([(0, 1, 0.0, 1), (0, 2, -1.0, 2), (0, 3, 1.0, 3), (1, 1, 0.0, 1), (1, 2, 0.0, 2)]))
    assert answers(split) == {0: [3]}
    assert told(split.train)[:2] == [[1, 2], [1, 2]]


def test_a_like_that_was_taken_back_is_nothing_to_foretell():
    split = leave_last_out(of([(0, 1, 1.0, 1), (0, 2, 1.0, 2), (0, 3, 1.0, 3), (0, 3, -1.0, 4)]))
    assert answers(split) == {0: [2]}


# A moment ------------------------------------------------------------------------------------------------------------


def test_nothing_of_the_future_is_learnt():
    behaviour = liked((0, 1, 1), (0, 2, 5), (1, 2, 2), (1, 3, 4), (2, 4, 6))
    split = split_at(behaviour, 4)
    assert answers(split) == {0: [2], 1: [3], 2: [4]}
    assert told(split.train)[:3] == [[1], [2], []]
    assert (split.train.times < 4).all()
    assert split.n_empty == 1


def test_what_somebody_knew_before_is_nothing_to_foretell():
    split = split_at(of([(0, 1, 0.0, 1), (0, 1, 1.0, 5), (0, 2, 1.0, 6)]), 4)
    assert answers(split) == {0: [2]}


def test_unknown_times_count_as_earlier():
    split = split_at(liked((0, 1, np.nan), (0, 2, 5)), 4)
    assert told(split.train)[0] == [1]


def test_the_last_share_begins_where_so_many_events_are_left():
    behaviour = liked(*((0, n % 7, time) for n, time in enumerate([5, 3, 1, 4, 2, np.nan])))
    assert last_share(behaviour, 0.4) == 4
    assert (behaviour.times >= last_share(behaviour, 0.4)).sum() == 2


def test_within_a_split_at_a_moment_about_the_same_share_is_held_out():
    behaviour = liked(*((n % 6, n % 7, n) for n in range(40)))
    split = split_at(behaviour, 30)
    assert len(split.train) == 30
    assert inner(split).train.times.max() == 21  # 22 of 30 are left, the later quarter is held out


# New items -----------------------------------------------------------------------------------------------------------


@given(EVENTS, st.floats(0.05, 0.95), st.integers(0, 5))
def test_cold_items_have_no_event_in_training(events, share, seed):
    behaviour = of(events)
    try:
        split = cold_items(behaviour, share, seed)
    except InvalidInput:
        return
    assert not split.cold[split.train.items].any()
    assert all(split.cold[items].all() for items in split.answers)
    assert len(split.train) == np.count_nonzero(~split.cold[behaviour.items])


def test_the_share_counts_items_that_have_events():
    behaviour = of([(user, item, 1.0, 1) for user in range(6) for item in range(10)], n_items=100)
    split = cold_items(behaviour, share=0.3)
    assert split.cold.sum() == 3
    assert not split.cold[10:].any()
    assert all(items.tolist() == np.flatnonzero(split.cold).tolist() for items in split.answers)


def test_people_who_had_only_cold_items_are_tested_with_an_empty_history():
    split = cold_items(liked((0, 1, 1), (0, 2, 2), (1, 1, 1), (2, 2, 1)), share=0.5)
    (held,) = np.flatnonzero(split.cold).tolist()
    assert answers(split) == {0: [held], held: [held]}  # users 1 and 2 had the item of their own number only
    assert told(split.histories) == [[3 - held], []]
    assert split.n_empty == 1


def test_equal_seeds_hold_out_equal_items():
    behaviour = of([(user, item, 1.0, 1) for user in range(6) for item in range(50)], n_items=50)
    assert (cold_items(behaviour, seed=3).cold == cold_items(behaviour, seed=3).cold).all()
    assert (cold_items(behaviour, seed=3).cold != cold_items(behaviour, seed=4).cold).any()


# What cannot be ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: leave_last_out(of([])),
        lambda: leave_last_out(liked((0, 1, 1))),
        lambda: leave_last_out(of([(0, 1, 0.0, 1), (0, 2, -1.0, 2)])),
        lambda: leave_last_out(liked((0, 1, 1), (0, 2, 2)), n=0),
        lambda: leave_last_out(liked((0, 1, 1), (0, 2, 2)), min_history=-1),
        lambda: leave_last_out(liked((0, 1, 1), (0, 2, 2)), n=1.5),
        lambda: split_at(of([]), 1),
        lambda: split_at(liked((0, 1, 1), (0, 2, 2)), 1),
        lambda: split_at(liked((0, 1, 1), (0, 2, 2)), 3),
        lambda: split_at(liked((0, 1, 1), (0, 2, 2)), float("nan")),
        lambda: last_share(liked((0, 1, np.nan)), 0.5),
        lambda: last_share(liked((0, 1, 1)), 0),
        lambda: cold_items(of([])),
        lambda: cold_items(liked((0, 1, 1), (1, 1, 2))),
        lambda: cold_items(of([(0, 1, 0.0, 1), (0, 2, 0.0, 1)])),
        lambda: cold_items(liked((0, 1, 1), (0, 2, 2)), share=1),
        lambda: cold_items(liked((0, 1, 1), (0, 2, 2)), share=float("nan")),
    ],
)
def test_where_nothing_can_be_held_out_it_says_so(make):
    with pytest.raises(InvalidInput, match="expected"):
        make()
