"""Vectors into clusters: groups that are there are found, and every collection has a defined answer."""

import math
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import silhouette_samples
from threadpoolctl import threadpool_limits

from mmsearch.clustering import METHODS, agreement, border, central, group, hierarchy, odd, quality
from mmsearch.clustering.blocks import Held, blocks
from mmsearch.clusters import Quality
from mmsearch.errors import InvalidInput
from mmsearch.vectors import as_unit_vectors

PARTITIONS = ("auto", "kmeans", "minibatch", "agglomerative")
DIM = 64


def directions(n, dim=DIM, seed=0):
    return as_unit_vectors(np.random.default_rng(seed).normal(size=(n, dim)))


def blobs(n_blobs, each, noise=0.05, dim=DIM, seed=0):
    """Vectors around random directions, and which each is around; ``each`` is one size or a size for each."""
    rng = np.random.default_rng(seed + 1_000)
    truth = np.repeat(np.arange(n_blobs), each)
    rows = directions(n_blobs, dim, seed)[truth] + noise * rng.normal(size=(len(truth), dim))
    order = rng.permutation(len(truth))
    return as_unit_vectors(rows)[order], truth[order]


def grouped(vectors, n=None, **options):
    return group(Held(np.asarray(vectors, dtype=np.float32)), n, **options)


def sizes(grouping):
    return np.bincount(grouping.labels[grouping.labels >= 0], minlength=len(grouping.centres))


def same_groups(labels, truth):
    return (
        len(set(zip(labels.tolist(), truth.tolist(), strict=True)))
        == len(set(truth.tolist()))
        == len(set(labels.tolist()))
    )


def assert_sound(grouping, vectors):
    """What is promised of every grouping."""
    k = len(grouping.centres)
    assert grouping.labels.shape == (len(vectors),)
    assert grouping.labels.dtype == np.int64
    assert grouping.centres.dtype == np.float32
    assert grouping.centres.shape == (k, vectors.shape[1])
    assert set(grouping.labels.tolist()) - {-1} == set(range(k))
    assert (np.diff(sizes(grouping)) <= 0).all()
    assert np.allclose(np.linalg.norm(grouping.centres, axis=1), 1, atol=1e-5)
    overall, each = quality(Held(vectors), grouping)
    assert len(each) == k
    for one in (overall, *each):
        numbers = [one.silhouette, one.cohesion, one.separation, one.stability]
        assert all(math.isfinite(number) for number in numbers)
        assert -1 <= one.silhouette <= 1
        assert 0 <= one.stability <= 1


# Groups that are there ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n_blobs", [3, 12, 40])
def test_separate_groups_are_found_and_counted(method, n_blobs):
    vectors, truth = blobs(n_blobs, 20)
    found = grouped(vectors, method=method)
    kept = found.labels >= 0
    assert kept.mean() > 0.9
    assert same_groups(found.labels[kept], truth[kept])
    assert_sound(found, vectors)


@pytest.mark.parametrize(("n_blobs", "each"), [(2, 3), (3, 3), (12, 5), (7, 11), (70, 15)])
@pytest.mark.parametrize("noise", [0.0, 0.02, 0.08])
def test_the_number_of_groups_is_found_whatever_their_number_size_and_spread(n_blobs, each, noise):
    vectors, truth = blobs(n_blobs, each, noise, dim=256)
    assert same_groups(grouped(vectors).labels, truth)


def test_groups_of_very_different_sizes_are_found():
    vectors, truth = blobs(4, [300, 60, 12, 4])
    found = grouped(vectors, 4)
    assert same_groups(found.labels, truth)
    assert sizes(found).tolist() == [300, 60, 12, 4]


@pytest.mark.parametrize("method", PARTITIONS)
def test_as_many_clusters_come_back_as_were_asked_for(method):
    vectors = directions(50)
    for n in (1, 2, 7, 49, 50):
        assert len(grouped(vectors, n, method=method).centres) == n


def test_the_score_of_every_number_tried_is_told_and_the_highest_was_taken():
    vectors, _ = blobs(6, 20)
    found = grouped(vectors)
    assert max(found.tried, key=found.tried.__getitem__) == len(found.centres) == 6
    assert min(found.tried) == 2
    assert not grouped(vectors, 6).tried


def test_a_collection_without_groups_is_one_cluster():
    assert len(grouped(directions(400, dim=256)).centres) == 1


def test_centres_are_the_mean_directions_of_their_members():
    vectors, _ = blobs(5, 20)
    for method in METHODS:
        found = grouped(vectors, method=method)
        for label, centre in enumerate(found.centres):
            assert np.allclose(as_unit_vectors([vectors[found.labels == label].mean(axis=0)])[0], centre, atol=1e-5)


def test_every_vector_is_in_the_cluster_with_the_nearest_centre():
    vectors = directions(600, dim=8)
    found = grouped(vectors, 10)
    assert ((vectors @ found.centres.T).argmax(axis=1) == found.labels).all()


def test_more_vectors_than_are_joined_to_a_tree_are_clustered_as_well():
    vectors, truth = blobs(5, 820)
    for method in METHODS:
        found = grouped(vectors, method=method)
        kept = found.labels >= 0
        assert kept.mean() > 0.9
        assert same_groups(found.labels[kept], truth[kept])


def test_far_more_clusters_than_a_tree_of_a_sample_can_give():
    vectors, truth = blobs(1_100, 4, noise=0.01)
    found = grouped(vectors, 1_100)
    assert agreement(found.labels, [str(label) for label in truth])["nmi"] > 0.98
    assert 950 < len(found.centres) <= 1_100


class Pieces(Held):
    """Remembers how many vectors were asked for at once."""

    most = 0

    def take(self, columns):
        self.most = max(self.most, len(columns))
        return super().take(columns)


def test_a_large_collection_is_read_in_pieces_and_clustered_the_same():
    vectors, truth = blobs(8, 7_500, dim=128)
    rows = Pieces(vectors)
    found = group(rows, 8)
    assert found.method == "minibatch"
    assert same_groups(found.labels, truth)
    assert rows.most < len(vectors)


def test_streaming_does_not_depend_on_the_order_of_the_collection():
    vectors, truth = blobs(8, 1_000)
    order = np.argsort(truth, kind="stable")  # one group after the other
    assert same_groups(grouped(vectors[order], 8, method="minibatch").labels, truth[order])


# Edges ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_no_vectors_at_all_are_no_clusters(method):
    found = grouped(np.zeros((0, DIM)), method=method)
    assert found.labels.shape == (0,)
    assert found.centres.shape == (0, DIM)


@pytest.mark.parametrize("n", [None, 1, 5])
def test_one_item_is_one_cluster(n):
    found = grouped(directions(1), n)
    assert found.labels.tolist() == [0]
    assert_sound(found, directions(1))


def test_two_items_are_one_cluster_unless_two_are_asked_for():
    assert grouped(directions(2)).labels.tolist() == [0, 0]
    assert sorted(grouped(directions(2), 2).labels) == [0, 1]
    assert sorted(grouped(directions(2), 9).labels) == [0, 1]


@pytest.mark.parametrize("method", METHODS)
def test_identical_vectors_are_one_cluster_however_many_are_asked_for(method):
    vectors = np.repeat(directions(1), 30, axis=0)
    for n in (None,) if method == "hdbscan" else (None, 1, 5):
        found = grouped(vectors, n, method=method)
        assert found.labels.tolist() == [0] * 30
        assert_sound(found, vectors)


@pytest.mark.parametrize("n_copies", [10, 3_000])
def test_there_are_at_most_as_many_clusters_as_distinct_vectors(n_copies):
    vectors = np.repeat(directions(3), n_copies, axis=0)
    for n in (None, 3, 7, 100):
        assert sizes(grouped(vectors, n)).tolist() == [n_copies] * 3


@pytest.mark.parametrize("method", METHODS)
def test_zero_rows_are_items_without_a_vector_and_in_no_cluster(method):
    vectors, truth = blobs(3, 20)
    vectors[[4, 17]] = 0
    found = grouped(vectors, method=method)
    assert (found.labels[[4, 17]] == -1).all()
    kept = found.labels >= 0
    assert same_groups(found.labels[kept], truth[kept])
    assert_sound(found, vectors)
    nothing = grouped(np.zeros((6, DIM)), method=method)
    assert nothing.labels.tolist() == [-1] * 6
    assert_sound(nothing, np.zeros((6, DIM), dtype=np.float32))


@pytest.mark.parametrize("n", [12, 30, 500])
def test_hdbscan_finds_nothing_in_noise(n):
    vectors = directions(n)
    found = grouped(vectors, method="hdbscan")
    assert (found.labels == -1).all()
    assert found.centres.shape == (0, DIM)
    assert quality(Held(vectors), found) == (Quality(), [])


def test_hdbscan_leaves_what_is_in_no_group_out():
    vectors, truth = blobs(4, 30)
    rows = np.concatenate([vectors, directions(8, seed=7)])
    found = grouped(rows, method="hdbscan")
    assert same_groups(found.labels[:120], truth)
    assert (found.labels[120:] == -1).all()


def test_hdbscan_of_a_large_collection_leaves_out_what_is_far_from_every_group():
    vectors, truth = blobs(4, 2_600, dim=16)
    rows = np.concatenate([vectors, -vectors[:3]])
    found = grouped(rows, method="hdbscan")
    kept = found.labels >= 0
    assert kept.mean() > 0.9
    assert same_groups(found.labels[kept], truth[kept[:-3].nonzero()[0]])
    assert not kept[-3:].any()


def test_opposite_vectors_whose_mean_is_nothing_have_an_answer():
    vectors = np.concatenate([directions(1), -directions(1)])
    for n in (None, 1, 2):
        found = grouped(vectors, n)
        assert np.isfinite(found.centres).all()
        assert (found.labels >= 0).all()


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 1_000), n=st.integers(1, 25), dim=st.integers(1, 6), k=st.none() | st.integers(1, 30),
    method=st.sampled_from(PARTITIONS),
)  # fmt: skip
def test_any_small_collection_has_a_sound_answer(seed, n, dim, k, method):
    rng = np.random.default_rng(seed)
    vectors = np.round(rng.normal(size=(n, dim)), 1)  # some are zero, some alike
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0).astype(np.float32)
    found = grouped(vectors, k, method=method)
    there = vectors.any(axis=1)
    assert ((found.labels >= 0) == there).all()
    assert found.labels.max(initial=-1) < (k or n)
    assert np.isfinite(found.centres).all()
    _, each = quality(Held(vectors), found)
    assert all(np.isfinite([one.silhouette, one.cohesion, one.separation, one.stability]).all() for one in each)


@pytest.mark.parametrize("n", [0, -1, 2.5, True, "3"])
def test_a_number_that_is_none_is_refused(n):
    with pytest.raises(InvalidInput, match="whole number of at least 1"):
        grouped(directions(10), n)


def test_an_unknown_method_and_a_number_for_hdbscan_are_refused():
    with pytest.raises(InvalidInput, match="kmeans, minibatch, hdbscan"):
        grouped(directions(10), method="dbscan")
    with pytest.raises(InvalidInput, match="finds the number itself"):
        grouped(directions(10), 3, method="hdbscan")
    with pytest.raises(InvalidInput, match="at most 5000"):
        grouped(directions(5_001, dim=2), 5_001)


# The same again -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_gives_the_same_clusters_with_any_number_of_threads(method):
    vectors, _ = blobs(10, 500, noise=0.3)
    n = None if method == "hdbscan" else 10
    with threadpool_limits(1):
        one = grouped(vectors, n, method=method, seed=3)
    two = grouped(vectors, n, method=method, seed=3)
    assert (one.labels == two.labels).all()
    assert np.allclose(one.centres, two.centres, atol=1e-6)


def test_small_collections_do_not_depend_on_the_seed():
    vectors = directions(300, dim=8)
    assert (grouped(vectors, 9, seed=1).labels == grouped(vectors, 9, seed=2).labels).all()


def test_long_work_says_how_far_it_is_and_can_be_stopped():
    vectors, _ = blobs(3, 20)
    heard = []
    grouped(vectors, report=heard.append)
    assert {progress.stage for progress in heard} == {"number of clusters", "clusters"}
    assert all(0 <= progress.done <= progress.total for progress in heard)

    def stop(_progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        grouped(vectors, report=stop)


def test_importing_the_package_loads_neither_scipy_nor_scikit_learn():
    code = "import sys, mmsearch.clustering; print([name for name in ('scipy', 'sklearn') if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


# Quality --------------------------------------------------------------------------------------------------------------


def test_silhouettes_are_those_of_the_definition():
    vectors = directions(200, dim=6)
    found = grouped(vectors, 7)
    plain = silhouette_samples(vectors, found.labels, metric="cosine")
    overall, each = quality(Held(vectors), found)
    assert overall.silhouette == pytest.approx(plain.mean(), abs=1e-4)
    for label, one in enumerate(each):
        assert one.silhouette == pytest.approx(plain[found.labels == label].mean(), abs=1e-4)


def test_tight_groups_far_apart_are_better_in_every_way_than_loose_ones():
    tight, _ = blobs(5, 40, noise=0.03)
    loose, _ = blobs(5, 40, noise=0.25)
    (good, _), (bad, _) = (quality(Held(rows), grouped(rows, 5)) for rows in (tight, loose))
    assert good.silhouette > bad.silhouette
    assert good.cohesion > bad.cohesion
    assert good.stability == 1.0


def test_groups_cut_at_random_are_less_stable_than_those_that_are_there():
    vectors, _ = blobs(3, 40)
    whole, each = quality(Held(vectors), grouped(vectors, 3))
    cut, _ = quality(Held(vectors), grouped(vectors, 9))
    assert whole.stability == 1.0
    assert cut.stability < 0.8
    assert [one.stability for one in each] == [1.0] * 3


def test_cohesion_and_separation_are_cosines_to_centres():
    vectors, _ = blobs(4, 20)
    found = grouped(vectors, 4)
    _, each = quality(Held(vectors), found)
    between = found.centres @ found.centres.T - 2 * np.eye(4)
    for label, one in enumerate(each):
        own = vectors[found.labels == label] @ found.centres[label]
        assert one.cohesion == pytest.approx(own.mean(), abs=1e-5)
        assert one.separation == pytest.approx(1 - between[label].max(), abs=1e-5)


def test_one_cluster_has_no_silhouette_and_no_separation():
    vectors, _ = blobs(1, 20)
    overall, each = quality(Held(vectors), grouped(vectors, 1))
    assert (overall.silhouette, overall.separation, overall.stability) == (0.0, 0.0, 1.0)
    assert len(each) == 1


def test_agreement_with_given_labels():
    labels = np.array([0, 0, 0, 1, 1, 1])
    assert agreement(labels, list("aaabbb")) == {"nmi": 1.0, "ari": 1.0, "purity": 1.0}
    assert agreement(labels, list("aabbba"))["purity"] == pytest.approx(4 / 6)
    assert agreement(labels, ["a"] * 6) == {"nmi": 0.0, "ari": 0.0, "purity": 1.0}


def test_items_without_a_given_label_are_left_out_and_noise_is_one_cluster():
    labels = np.array([0, 0, 1, 1, -1, -1])
    assert agreement(labels, ["a", "a", "b", "b", None, None])["nmi"] == 1.0
    assert agreement(labels, ["a", "a", "b", "b", "c", "d"])["purity"] == pytest.approx(5 / 6)
    assert agreement(labels, [None] * 6) == {"nmi": 0.0, "ari": 0.0, "purity": 0.0}
    assert agreement(np.zeros(0, dtype=np.int64), []) == {"nmi": 0.0, "ari": 0.0, "purity": 0.0}
    with pytest.raises(InvalidInput, match="each of 6 items, got 1"):
        agreement(labels, ["a"])


# Hierarchy ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("k", "n_levels"), [(0, 0), (1, 0), (5, 0), (6, 1), (15, 1), (16, 2), (60, 2), (300, 3)])
def test_levels_nest_and_get_finer(k, n_levels):
    levels = hierarchy(directions(k), np.arange(k) + 1)
    assert len(levels) == n_levels
    counts = [len(set(level.tolist())) for level in levels]
    assert all(2 <= count < k for count in counts)
    assert counts == sorted(set(counts))
    for coarse, fine in pairwise(levels):
        assert len(set(zip(fine.tolist(), coarse.tolist(), strict=True))) == len(set(fine.tolist()))
    for level in levels:
        weights = np.bincount(level, weights=np.arange(k) + 1)
        assert (np.diff(weights) <= 0).all()


def test_clusters_that_are_alike_are_in_one_branch():
    centres, truth = blobs(4, 4, noise=0.05)
    coarse = hierarchy(centres, np.ones(16))[0]
    assert same_groups(coarse, truth)


def test_identical_centres_have_a_hierarchy_and_sizes_must_fit():
    assert len(hierarchy(np.repeat(directions(1), 20, axis=0), np.ones(20))) == 2
    with pytest.raises(InvalidInput, match="one size for each of 8 centres"):
        hierarchy(directions(8), [1, 2])


# Exemplars ------------------------------------------------------------------------------------------------------------


def test_the_medoid_comes_first_and_is_nearest_to_all_members():
    vectors = directions(80, dim=5)
    found = grouped(vectors, 4)
    for label, centre in enumerate(found.centres):
        members = np.flatnonzero(found.labels == label)
        shown = central(Held(vectors), members, centre, 5)
        assert shown[0] == members[(vectors[members] @ vectors[members].T).sum(axis=1).argmax()]
        assert len(set(shown.tolist())) == min(5, len(members))
        assert set(shown.tolist()) <= set(members.tolist())


def test_central_members_are_not_copies_of_each_other():
    tight = np.repeat(directions(1), 10, axis=0)
    around = as_unit_vectors(tight[0] + 0.05 * np.random.default_rng(1).normal(size=(10, DIM)))
    vectors = np.concatenate([tight, around])
    shown = central(Held(vectors), np.arange(20), tight[0], 3)
    assert shown[0] == 0
    assert (shown[1:] >= 10).all()


def test_the_border_is_where_another_centre_is_almost_as_near():
    angles = np.radians([0, 10, 20, 40, 44, 80, 90])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    centres = np.eye(2, dtype=np.float32)
    members = np.arange(5)
    assert border(Held(vectors), members, centres, 0, 2).tolist() == [4, 3]
    assert border(Held(vectors), np.array([5, 6]), centres, 1, 9).tolist() == [5, 6]
    assert border(Held(vectors), members, centres[:1], 0, 2).tolist() == []


def test_odd_ones_are_the_farthest_from_the_centre():
    vectors, _ = blobs(1, 30)
    vectors[7] = directions(1, seed=5)[0]
    assert odd(Held(vectors), np.arange(30), directions(1)[0], 2)[0] == 7


def test_fewer_members_than_asked_for_are_all_shown_and_none_of_none():
    vectors = directions(3)
    for shown in (central, odd):
        assert sorted(shown(Held(vectors), np.array([0, 2]), vectors[0], 8).tolist()) == [0, 2]
        assert shown(Held(vectors), np.zeros(0, dtype=np.int64), vectors[0], 8).tolist() == []
        assert shown(Held(vectors), np.array([0, 2]), vectors[0], 0).tolist() == []


def test_blocks_cover_every_position_once_and_in_order():
    vectors = directions(100)
    positions = np.arange(100)[::-1].copy()
    pieces = list(blocks(Held(vectors), positions, width=400_000))
    assert len(pieces) == 10
    assert np.concatenate([positions[place] for place, _ in pieces]).tolist() == positions.tolist()
    assert (np.concatenate([piece for _, piece in pieces]) == vectors[positions]).all()
