"""A few items that stand for many."""

import numpy as np
import pytest

from mmsearch.curation import coverage
from mmsearch.curation.coverage import METHODS, sample
from mmsearch.errors import InvalidInput
from mmsearch.vectors import as_unit_vectors

CHOOSING = ("k-center", "density")


class Rows:
    """Vectors by position."""

    def __init__(self, vectors):
        self.vectors, self.dim = np.asarray(vectors, dtype=np.float32), np.shape(vectors)[1]

    def __len__(self):
        return len(self.vectors)

    def take(self, columns):
        return self.vectors[columns]


def groups(sizes=(60, 30, 10, 5), dim=12, seed=0):
    """Unit rows around as many directions, and which group each is in."""
    random = np.random.default_rng(seed)
    group = random.permutation(np.repeat(np.arange(len(sizes)), sizes))
    return as_unit_vectors(np.eye(dim)[group] + 0.05 * random.normal(size=(len(group), dim))), group


@pytest.mark.parametrize("method", CHOOSING)
def test_as_many_as_there_are_groups_are_one_of_each(method):
    rows, group = groups()
    assert sorted(group[sample(Rows(rows), 4, method=method)]) == [0, 1, 2, 3]


def test_density_takes_the_largest_groups_first():
    rows, group = groups()
    assert group[sample(Rows(rows), 4, method="density")].tolist() == [0, 1, 2, 3]


def test_density_takes_typical_items_and_k_center_odd_ones():
    rows, _ = groups(sizes=(60, 30))
    odd = as_unit_vectors(-np.eye(12)[-1:])
    world = Rows(np.concatenate([rows, odd]))
    assert 90 in sample(world, 3, method="k-center")
    assert 90 not in sample(world, 3, method="density")


def test_k_center_takes_the_farthest_one():
    angles = np.radians([0, 10, 50, 180, 90])
    rows = Rows(np.stack([np.cos(angles), np.sin(angles)], axis=1))
    assert sample(rows, 4, method="k-center", chosen=[0]).tolist() == [3, 4, 2, 1]


@pytest.mark.parametrize("method", METHODS)
def test_the_first_of_more_are_the_choice_of_fewer(method):
    rows, _ = groups()
    many = sample(Rows(rows), 40, method=method)
    np.testing.assert_array_equal(many[:7], sample(Rows(rows), 7, method=method))


@pytest.mark.parametrize("method", METHODS)
def test_more_than_there_are_gives_all_once(method):
    rows, _ = groups()
    assert sorted(sample(Rows(rows), 1000, method=method)) == list(range(105))
    assert sample(Rows(rows[:1]), 5, method=method).tolist() == [0]
    assert sample(Rows(np.zeros((0, 3))), 5, method=method).tolist() == []


@pytest.mark.parametrize("method", CHOOSING)
def test_what_is_chosen_already_counts_as_covered_and_is_not_chosen_again(method):
    rows, group = groups()
    (first,), (second,) = np.flatnonzero(group == 0)[:1], np.flatnonzero(group == 2)[:1]
    picked = sample(Rows(rows), 2, method=method, chosen=[first, second])
    assert sorted(group[picked]) == [1, 3]
    assert sorted(sample(Rows(rows), 500, method=method, chosen=[first])) == sorted(set(range(105)) - {first})


@pytest.mark.parametrize("method", METHODS)
def test_copies_wait_until_all_distinct_ones_are_chosen(method):
    rows, _ = groups(sizes=(6, 4))
    world = Rows(np.repeat(rows, 5, axis=0))
    picked = sample(world, 50, method=method)
    assert sorted(picked) == list(range(50))
    assert sorted(picked[:10] // 5) == list(range(10))
    assert len(set(sample(world, 9, method=method, chosen=[0]) // 5) - {0}) == 9


@pytest.mark.parametrize("method", METHODS)
def test_items_without_a_vector_come_last(method):
    rows, _ = groups(sizes=(5, 4))
    rows = np.insert(rows, [0, 3], 0, axis=0)
    picked = sample(Rows(rows), 11, method=method)
    assert picked[-2:].tolist() == [0, 4]
    assert sorted(picked) == list(range(11))
    assert sorted(sample(Rows(np.zeros((3, 2))), 2, method=method)) == [0, 1]


@pytest.mark.parametrize("method", CHOOSING)
def test_a_large_collection_is_chosen_from_a_sample_and_filled_up(method, monkeypatch):
    rows, group = groups(sizes=(400, 300, 300))
    monkeypatch.setattr(coverage, "_POOL", 50)
    monkeypatch.setattr(coverage, "_NUMBERS", 50 * 12)
    assert len(set(group[sample(Rows(rows), 3, method=method)])) == 3
    assert len(set(sample(Rows(rows), 200, method=method).tolist())) == 200


def test_the_seed_decides_the_random_order():
    rows, _ = groups()
    first, again, other = (sample(Rows(rows), 20, method="random", seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert first.tolist() != other.tolist()


def test_what_makes_no_sense_is_refused():
    rows, _ = groups()
    with pytest.raises(InvalidInput, match="farthest"):
        sample(Rows(rows), 3, method="farthest")
    with pytest.raises(InvalidInput, match="below 105, got 105"):
        sample(Rows(rows), 3, chosen=[105])
    with pytest.raises(InvalidInput, match="0 to"):
        sample(Rows(rows), 3, chosen=[-1])
    with pytest.raises(InvalidInput, match="got 0"):
        sample(Rows(rows), 0)
