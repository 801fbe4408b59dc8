"""Odd items are found, and nothing else is made of them."""

import numpy as np
import pytest

from mmsearch.curation import outliers
from mmsearch.curation.outliers import METHODS, outlier_scores
from mmsearch.errors import InvalidInput
from mmsearch.vectors import as_unit_vectors


class Rows:
    """Vectors by position."""

    def __init__(self, vectors):
        self.vectors, self.dim = np.asarray(vectors, dtype=np.float32), np.shape(vectors)[1]
        self.most = 0

    def __len__(self):
        return len(self.vectors)

    def take(self, columns):
        self.most = max(self.most, len(columns))
        return self.vectors[columns]


def groups(n=300, n_groups=3, dim=16, seed=0):
    """Unit rows around a few directions, and the directions."""
    random = np.random.default_rng(seed)
    centres = np.eye(dim)[:n_groups]
    return as_unit_vectors(centres[np.arange(n) % n_groups] + 0.1 * random.normal(size=(n, dim))), centres


def with_odd_ones(n_odd=4, **options):
    """The odd ones come last, each in a direction of its own."""
    rows, centres = groups(**options)
    odd = as_unit_vectors(-np.eye(rows.shape[1])[-n_odd:] + 0.01)
    return np.concatenate([rows, odd]), as_unit_vectors(centres), np.arange(len(rows), len(rows) + n_odd)


@pytest.mark.parametrize("centred", [True, False], ids=["centres given", "centres of its own"])
@pytest.mark.parametrize("method", [*METHODS, "score"])
def test_each_method_puts_the_odd_items_first(method, centred):
    rows, centres, odd = with_odd_ones()
    scores = outlier_scores(Rows(rows), centres if centred else None)[method]
    assert set(np.argsort(-scores)[: len(odd)]) == set(odd)


def test_scores_are_the_share_of_the_others_that_are_less_odd():
    rows, centres, _ = with_odd_ones(n=20, n_odd=1)
    shares = outlier_scores(Rows(rows), centres, methods=["distance"])["distance"]
    apart = 1 - (rows @ centres.T).max(axis=1)
    assert shares == pytest.approx([(apart < one - 1e-5).sum() / 20 for one in apart])
    assert (shares.min(), shares.max()) == (0.0, 1.0)


def test_only_what_is_asked_for_is_computed():
    rows, centres, _ = with_odd_ones()
    scores = outlier_scores(Rows(rows), centres, methods=["distance"])
    assert list(scores) == ["distance", "score"]
    np.testing.assert_array_equal(scores["distance"], scores["score"])


@pytest.mark.parametrize("n", [0, 1, 2])
def test_few_items_have_defined_scores(n):
    scores = outlier_scores(Rows(groups(n=n)[0]))
    assert list(scores) == [*METHODS, "score"]
    assert all(shares.shape == (n,) and np.isfinite(shares).all() for shares in scores.values())
    assert n == 2 or all((shares == 0).all() for shares in scores.values())


@pytest.mark.parametrize("n", [2, 3, 50])
def test_where_all_are_the_same_nothing_is_odd(n):
    rows = np.repeat(as_unit_vectors([[0.3, 0.5, 0.1]]), n, axis=0)
    assert all((shares == 0).all() for shares in outlier_scores(Rows(rows)).values())


def test_an_item_without_a_vector_is_not_odd_and_makes_no_other_so():
    rows, centres, _ = with_odd_ones()
    alone = outlier_scores(Rows(rows), centres)
    gaps = np.insert(rows, [0, 7, len(rows)], 0, axis=0)
    there = gaps.any(axis=1)
    for method, shares in outlier_scores(Rows(gaps), centres).items():
        np.testing.assert_allclose(shares[there], alone[method])
        assert (shares[~there] == 0).all()
    assert all((shares == 0).all() for shares in outlier_scores(Rows(np.zeros((5, 3)))).values())


def test_copies_have_equal_scores_and_do_not_make_their_neighbours_odd():
    rows, centres, odd = with_odd_ones()
    heap = np.concatenate([rows, np.repeat(rows[:1], 60, axis=0)])
    for shares in outlier_scores(Rows(heap), centres).values():
        assert len(set(shares[[0, *range(len(rows), len(heap))]])) == 1
        assert set(np.argsort(-shares)[: len(odd)]) == set(odd)


def test_a_large_collection_is_judged_by_a_sample_in_blocks(monkeypatch):
    rows, centres, odd = with_odd_ones(n=3000)
    monkeypatch.setattr(outliers, "N_SAMPLE", 400)
    monkeypatch.setattr(outliers, "_BLOCK", 500)
    world, seen = Rows(rows), []
    for method, shares in outlier_scores(world, centres, report=seen.append).items():
        assert set(odd) <= set(np.argsort(-shares)[:8]), method
    assert world.most == 500
    assert [progress.done for progress in seen] == list(range(0, 3004, 500))


def test_the_same_seed_gives_the_same_scores():
    rows, _, _ = with_odd_ones()
    first, second = outlier_scores(Rows(rows), seed=3), outlier_scores(Rows(rows), seed=3)
    for method, shares in first.items():
        np.testing.assert_array_equal(shares, second[method])


def test_what_cannot_be_computed_is_refused():
    rows, _ = groups()
    with pytest.raises(InvalidInput, match="nearest"):
        outlier_scores(Rows(rows), methods=["nearest"])
    with pytest.raises(InvalidInput, match="none"):
        outlier_scores(Rows(rows), methods=[])
    with pytest.raises(InvalidInput, match=r"\(m, 16\)"):
        outlier_scores(Rows(rows), np.eye(3, dtype=np.float32))
