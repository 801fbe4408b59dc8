"""Maps of vectors: what is alike lies together, whatever the method, and new vectors find their place."""

import builtins
import io

import numpy as np
import pytest

from mmsearch.errors import InvalidInput, MissingDependency
from mmsearch.projection import FEWEST, METHODS, PACMAP_FROM, Projection, project
from mmsearch.projection.layouts import installed
from mmsearch.projection.placing import nearest
from mmsearch.recommenders.itemvectors import ItemVectors

DIM, BLOBS, EACH = 16, 5, 40
COPY, NOTHING = BLOBS * EACH, BLOBS * EACH + 1
"""Position of a copy of item 0, and of an item without a vector."""


def blob(number, n, seed):
    """Vectors about one of the first axes."""
    rng = np.random.default_rng(seed)
    return np.eye(DIM)[number] + 0.12 * rng.standard_normal((n, DIM))


def as_rows(matrix):
    return ItemVectors(np.asarray(matrix, dtype=np.float32), centred=False)


@pytest.fixture(scope="module")
def world():
    """Five blobs of 40, a copy of the first item, and an item without a vector."""
    matrix = np.concatenate([blob(number, EACH, number) for number in range(BLOBS)])
    return as_rows(np.concatenate([matrix, matrix[:1], np.zeros((1, DIM))]))


@pytest.fixture(scope="module", params=["pca", "umap", "pacmap"])
def method(request):
    return request.param


@pytest.fixture(scope="module")
def made(world, method):
    return project(world, method=method)


def of_blob(points):
    """The blob of each position's nearest other position on the map."""
    first = points[: BLOBS * EACH]
    distances = np.linalg.norm(first[:, None] - first[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    return distances.argmin(axis=1) // EACH


def test_blobs_stay_apart_on_the_map(made, method):
    same = of_blob(made.points) == np.arange(BLOBS * EACH) // EACH
    assert same.mean() >= (0.5 if method == "pca" else 1.0)  # five blobs do not fit on two axes
    assert made.trust >= (0.7 if method == "pca" else 0.9)


def test_a_map_is_finite_and_fills_minus_one_to_one(made, method, world):
    assert made.method == method
    assert len(made) == len(world)
    assert made.points.shape == (len(world), 2)
    assert made.points.dtype == np.float32
    assert np.isfinite(made.points).all()
    assert np.abs(made.points).max() == pytest.approx(1.0, abs=1e-5)
    np.testing.assert_allclose(made.points.max(axis=0), -made.points.min(axis=0), atol=1e-5)


def test_the_same_seed_gives_the_same_map(made, method, world):
    np.testing.assert_array_equal(project(world, method=method).points, made.points)


def test_equal_vectors_share_a_point(made):
    np.testing.assert_allclose(made.points[COPY], made.points[0], atol=1e-6)


def test_what_has_no_vector_lies_in_the_middle(made, world):
    assert made.points[NOTHING].tolist() == [0, 0]
    without = np.stack([np.zeros(DIM), np.full(DIM, np.nan)])
    assert made.extend(world, without).tolist() == [[0, 0], [0, 0]]


def test_new_members_of_a_blob_are_placed_in_it(made, method, world):
    for number in range(BLOBS):
        placed = made.extend(world, blob(number, 20, 100 + number))
        middles = [made.points[at * EACH : (at + 1) * EACH].mean(axis=0) for at in range(BLOBS)]
        nearest_blob = np.linalg.norm(placed[:, None] - np.array(middles), axis=2).argmin(axis=1)
        assert (nearest_blob == number).mean() >= (0.6 if method == "pca" else 1.0)


def test_an_item_that_is_mapped_already_lands_on_its_point(made, world):
    again = made.extend(world, world.take(np.arange(len(world))))
    np.testing.assert_allclose(again, made.points, atol=1e-5)


def test_new_vectors_are_placed_one_by_one_as_together_and_of_any_length(made, world):
    new = np.concatenate([blob(1, 3, 7), blob(2, 3, 8)])
    together = made.extend(world, new)
    np.testing.assert_allclose(np.concatenate([made.extend(world, 50 * row[None]) for row in new]), together, atol=1e-5)
    assert made.extend(world, new[:0]).shape == (0, 2)


def test_a_map_comes_back_from_a_file_without_pickle(made, world):
    file = io.BytesIO()
    np.savez(file, **made.state())
    file.seek(0)
    with np.load(file, allow_pickle=False) as state:
        back = Projection.from_state(state)
    assert (back.method, back.trust) == (made.method, made.trust)
    np.testing.assert_array_equal(back.points, made.points)
    new = blob(3, 4, 9)
    np.testing.assert_array_equal(back.extend(world, new), made.extend(world, new))


def test_a_map_can_be_extended_after_more_items_came(made, world):
    new = blob(4, 3, 11)
    np.testing.assert_allclose(made.extend(world.followed_by(new), new), made.extend(world, new), atol=1e-6)


def test_items_that_are_gone_attract_nothing(world, made, method):
    """Two blobs are gone, and the new vector is unlike all that is left."""
    left = world.take(np.arange(len(world)))
    left[: 2 * EACH] = left[COPY] = 0
    opposite = -blob(3, 1, 5)
    placed = made.extend(as_rows(left), opposite)
    assert np.isfinite(placed).all()
    if method != "pca":
        kept = made.points[2 * EACH : BLOBS * EACH]
        assert (kept.min(axis=0) <= placed[0]).all()
        assert (placed[0] <= kept.max(axis=0)).all()


def test_few_items_get_a_map_by_any_method(method):
    for n in (0, 1, 2, 3, FEWEST - 1):
        rows = as_rows(blob(0, n, 1).reshape(n, DIM))
        made = project(rows, method=method)
        assert made.method == "pca"
        assert made.points.shape == (n, 2)
        assert np.isfinite(made.points).all()
        assert 0 <= made.trust <= 1
        assert np.isfinite(made.extend(rows, blob(1, 2, 2))).all()


def test_the_fewest_items_for_neighbourhoods_are_laid_out(method):
    made = project(as_rows(blob(0, FEWEST, 1)), method=method)
    assert made.method == method
    assert np.isfinite(made.points).all()
    assert len(np.unique(made.points, axis=0)) == FEWEST


def test_identical_vectors_share_the_middle(method):
    rows = as_rows(np.tile(blob(0, 1, 1), (50, 1)))
    made = project(rows, method=method)
    np.testing.assert_allclose(made.points, 0, atol=1e-5)
    assert made.trust == 1.0
    assert np.isfinite(made.extend(rows, blob(1, 2, 2))).all()


def test_vectors_of_zeros_alone_are_all_in_the_middle(method):
    rows = as_rows(np.zeros((30, DIM)))
    made = project(rows, method=method)
    assert not made.points.any()
    assert not made.extend(rows, np.zeros((2, DIM))).any()


def test_two_items_are_the_ends_and_one_is_the_middle():
    assert project(as_rows(np.eye(3)[:1])).points.tolist() == [[0, 0]]
    points = project(as_rows(np.eye(3)[:2])).points
    np.testing.assert_allclose(np.sort(points[:, 0]), [-1, 1], atol=1e-6)
    np.testing.assert_allclose(points[:, 1], 0, atol=1e-6)


def test_vectors_of_one_number_are_mapped():
    made = project(as_rows([[1.0], [-1.0], [2.0]]))
    assert np.sort(made.points[:, 0]).tolist() == [-1, 1, 1]


def test_principal_components_are_those_of_numpy(world):
    matrix = world.take(np.arange(BLOBS * EACH))
    centred = matrix - matrix.mean(axis=0)
    _, _, axes = np.linalg.svd(centred.astype(np.float64))
    expected = centred @ axes[:2].T
    found = project(as_rows(matrix), method="pca").points
    factor = np.ptp(found[:, 0]) / np.ptp(expected[:, 0])
    for axis in range(2):
        distances = [np.abs(np.subtract.outer(one, one)) for one in (found[:, axis], factor * expected[:, axis])]
        np.testing.assert_allclose(*distances, atol=1e-4)


def test_auto_takes_umap_for_some_and_pca_for_a_handful(world):
    assert project(world).method == "umap"
    assert project(as_rows(blob(0, 10, 1))).method == "pca"
    assert FEWEST < len(world) < PACMAP_FROM


def test_items_beyond_those_laid_out_lie_amid_their_like(monkeypatch, world):
    monkeypatch.setattr("mmsearch.projection.maps.FITTED", 120)
    made = project(world, method="umap")
    assert len(made.landmarks) <= 120
    assert (of_blob(made.points) == np.arange(BLOBS * EACH) // EACH).mean() > 0.97
    assert np.abs(made.points).max() <= 1


def test_progress_is_told_and_may_end_the_work(world):
    told = []
    project(world, method="pca", report=told.append)
    assert (told[0].done, told[-1].done) == (0, len(world))
    assert {progress.total for progress in told} == {len(world)}

    def stop(progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        project(world, method="pca", report=stop)


def test_a_method_that_is_not_installed_says_which_extra_brings_it(monkeypatch, world):
    monkeypatch.setattr("mmsearch.projection.layouts.find_spec", lambda name: None)
    assert not installed("umap")
    for method in ("umap", "pacmap"):
        with pytest.raises(MissingDependency, match=r"mmsearch\[analysis\]"):
            project(world, method=method)
    assert project(world).method == "pca"


def test_a_package_that_cannot_be_imported_says_so_too(monkeypatch, world):
    real = builtins.__import__

    def refuse(name, *rest, **named):
        if name == "pacmap":
            raise ImportError("broken")
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingDependency, match=r"mmsearch\[analysis\]"):
        project(world, method="pacmap")


def test_nothing_is_printed(made, method, world, capfd):
    project(world, method=method)
    assert capfd.readouterr() == ("", "")


def test_other_work_keeps_its_threads(world):
    import faiss

    before = faiss.omp_get_max_threads()
    try:
        faiss.omp_set_num_threads(2)
        project(world, method="pacmap")
        assert faiss.omp_get_max_threads() == 2
    finally:
        faiss.omp_set_num_threads(before)


@pytest.mark.parametrize("bad", [{"method": "tsne"}, {"seed": -1}, {"seed": 1.5}, {"seed": True}, {"seed": 2**32}])
def test_a_bad_argument_is_named(world, bad):
    with pytest.raises(InvalidInput, match="expected"):
        project(world, **bad)
    assert "tsne" not in METHODS


def test_vectors_of_another_width_and_other_rows_are_refused(world):
    made = project(world, method="pca")
    with pytest.raises(InvalidInput, match=f"expected vectors \\(n, {DIM}\\)"):
        made.extend(world, np.ones((2, DIM + 1)))
    with pytest.raises(InvalidInput, match="numbers"):
        made.extend(world, [["a"] * DIM])
    with pytest.raises(InvalidInput, match="that were mapped"):
        made.extend(as_rows(np.eye(DIM)), np.ones((2, DIM)))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("points", np.zeros((3, 3))),
        ("points", None),
        ("matrix", np.zeros((3, 1))),
        ("landmarks", np.array([9_999])),
        ("trust", np.array("high")),
    ],
)
def test_a_damaged_state_is_refused(world, name, value):
    state = project(world, method="pca").state()
    if value is None:
        del state[name]
    else:
        state[name] = value
    with pytest.raises(InvalidInput, match="expected"):
        Projection.from_state(state)


def test_the_nearest_are_those_of_a_full_sort():
    cosines = np.random.default_rng(0).random((20, 5_003)).astype(np.float32)
    at, values = nearest(cosines, 7)
    np.testing.assert_array_equal(at, np.argsort(-cosines, axis=1, kind="stable")[:, :7])
    np.testing.assert_array_equal(values, np.take_along_axis(cosines, at, axis=1))
    assert nearest(cosines[:, :3], 7)[0].shape == (20, 3)
