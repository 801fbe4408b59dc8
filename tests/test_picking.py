"""Lists of recommendations as they are wished for: varied, known or unknown, new, and not too much of one kind."""

import math

import numpy as np
import pytest

from mmsearch.errors import InvalidInput
from mmsearch.picking import Wishes

CORNERS = np.eye(4, dtype=np.float32)


def pick(wishes, scores, vectors=None, metadata=None, k=10):
    n = len(scores)
    vectors = np.zeros((n, 4), np.float32) if vectors is None else vectors
    return wishes.pick(np.asarray(scores, dtype=np.float64), vectors, metadata or [{}] * n, k)


def test_without_a_wish_the_first_come_first():
    assert pick(Wishes(), [0.9, 0.8, 0.7], k=2) == [0, 1]
    assert pick(Wishes(), [], k=2) == []


@pytest.mark.parametrize("method", ["mmr", "dpp"])
def test_variety_passes_over_copies(method):
    vectors = CORNERS[[0, 0, 1, 0, 2]]
    assert pick(Wishes(diversity=0.7, method=method), [0.9, 0.89, 0.8, 0.79, 0.78], vectors, k=3) == [0, 2, 4]


@pytest.mark.parametrize("method", ["mmr", "dpp"])
def test_what_has_no_vector_is_like_nothing_but_what_has_none_either(method):
    vectors = CORNERS[[0, 0, 0, 0]] * np.array([[1], [0], [0], [1]], np.float32)
    assert pick(Wishes(diversity=0.7, method=method), [0.9, 0.8, 0.79, 0.78], vectors, k=2) == [0, 1]
    assert sorted(pick(Wishes(diversity=1.0, method=method), [0.9] * 4, vectors)) == [0, 1, 2, 3]


def test_limits_count_values_of_a_field():
    metadata = [{"brand": "a"}, {"brand": "a"}, {"brand": "b"}, {}, {"brand": None}, {"brand": ["a", "c"]}]
    assert pick(Wishes(most_per={"brand": 1}), range(6, 0, -1), metadata=metadata) == [0, 2, 3, 4]
    assert pick(Wishes(most_per={"brand": 2}), range(6, 0, -1), metadata=metadata) == [0, 1, 2, 3, 4]
    assert pick(Wishes(most_per={"brand": np.int64(1)}), range(6, 0, -1), metadata=metadata, k=2) == [0, 2]


def test_limits_of_several_fields_all_hold():
    metadata = [{"a": 1, "b": 1}, {"a": 1, "b": 2}, {"a": 2, "b": 1}, {"a": 2, "b": 2}, {"a": 3, "b": 3}]
    assert pick(Wishes(most_per={"a": 1, "b": 1}), range(5, 0, -1), metadata=metadata) == [0, 3, 4]


def test_values_that_cannot_be_told_apart_are_passed_over():
    metadata = [{"a": {"deep": 1}}, {"a": {"deep": 1}}, {"a": [["x"], "y"]}, {"a": "y"}]
    assert pick(Wishes(most_per={"a": 1}), range(4, 0, -1), metadata=metadata) == [0, 1, 2]


def test_variety_is_sought_within_the_limits():
    metadata = [{"brand": "a"}] * 3 + [{"brand": "b"}]
    vectors = CORNERS[[0, 1, 2, 0]]
    wishes = Wishes(diversity=1.0, most_per={"brand": 1})
    assert pick(wishes, [0.9, 0.8, 0.7, 0.6], vectors, metadata) == [0, 3]


def test_no_knob_leaves_the_scores_as_they_are():
    scores = np.array([0.3, 0.9, 0.1])
    shifted = Wishes().shifted(scores, np.array([5, 0, 9]), CORNERS[:3], CORNERS[:1])
    np.testing.assert_array_equal(shifted, scores)
    nothing = Wishes(novelty=1.0).shifted(scores, np.array([5, 0, 9]), CORNERS[:3], CORNERS[:0])
    np.testing.assert_array_equal(nothing, scores)


def test_knobs_decide_when_fully_turned():
    scores, had = np.array([0.3, 0.9, 0.1]), np.array([5, 0, 9])
    assert Wishes(popularity=1).shifted(scores, had, CORNERS[:3], CORNERS[:1]).argmax() == 2
    assert Wishes(popularity=-1).shifted(scores, had, CORNERS[:3], CORNERS[:1]).argmax() == 1
    assert Wishes(novelty=1).shifted(scores, had, CORNERS[:3], CORNERS[1:3]).argmax() == 0


@pytest.mark.parametrize(
    "bad",
    [
        {"method": "best"},
        {"method": ["mmr"]},
        *(
            {name: value}
            for name in ("diversity", "popularity", "novelty")
            for value in (1.1, -1.1, math.nan, True, "1")
        ),
        {"diversity": -0.1},
        {"novelty": -0.1},
        {"most_per": 3},
        {"most_per": [("a", 1)]},
        *({"most_per": {"a": value}} for value in (0, -1, True, 1.5, "2", None)),
    ],
    ids=repr,
)
def test_a_wish_out_of_range_is_refused(bad):
    with pytest.raises(InvalidInput, match=next(iter(bad))):
        Wishes(**bad)
