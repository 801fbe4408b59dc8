"""What every index promises, tested on each of them; then what only the exact one offers."""

from functools import partial

import numpy as np
import pytest

from mmsearch.errors import InvalidInput
from mmsearch.index import ExactIndex, HNSWIndex
from mmsearch.vectors import dots

DIM = 48
INDEXES = {
    "exact": ExactIndex,
    "hnsw-f16": HNSWIndex,
    "hnsw-f32": partial(HNSWIndex, dtype="f32"),
    "hnsw-i8": partial(HNSWIndex, dtype="i8"),
}


def clustered(n, dim=DIM, seed=0, centres=60):
    """Unit rows in clumps, as real embeddings are, exactly as float16 holds them."""
    rng = np.random.default_rng(seed)
    middles = np.random.default_rng(99).standard_normal((centres, dim))
    rows = middles[rng.integers(centres, size=n)] + 0.7 * rng.standard_normal((n, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16).astype(np.float32)


def true_scores(queries, rows):
    queries = np.float64(queries) / np.linalg.norm(np.float64(queries), axis=1, keepdims=True)
    return queries @ np.float64(rows).T


@pytest.fixture(params=INDEXES.values(), ids=INDEXES.keys())
def new_index(request):
    return request.param


@pytest.fixture
def full(new_index):
    index = new_index(DIM)
    index.add(np.arange(2000) * 3, clustered(2000))
    return index


def test_answers_agree_with_brute_force_in_double_precision(full):
    rows, queries = clustered(2000), clustered(100, seed=1)
    true = true_scores(queries, rows)
    hits = 0
    for found, scores in zip(full.search(queries, k=10), true, strict=True):
        assert np.allclose(found.scores, scores[found.keys // 3], atol=3e-4)
        hits += len(set(found.keys // 3) & set(np.argsort(-scores)[:10]))
    assert hits >= 990


def test_answers_are_best_first_and_equal_scores_by_key(full):
    for found in full.search(clustered(50, seed=1), k=30):
        order = np.lexsort((found.keys, -found.scores))
        assert len(set(found.keys.tolist())) == len(found) == 30
        assert (order == np.arange(30)).all()


def test_equal_vectors_come_by_key_whatever_order_they_were_added_in(new_index):
    index = new_index(DIM)
    rows = clustered(50)
    index.add(np.arange(100, 150), rows)
    index.add(np.array([9, 2, 77]), rows[[5, 5, 5]])
    (found,) = index.search(rows[5:6], k=4)
    assert found.keys.tolist() == [2, 9, 77, 105]
    assert len(set(found.scores.tolist())) == 1
    assert index.search(rows[5:6], k=2)[0].keys.tolist() == [2, 9]


def test_keys_and_scores_have_the_promised_types(full):
    (found,) = full.search(clustered(1), k=3)
    assert (found.keys.dtype, found.scores.dtype) == (np.int64, np.float32)


def test_fewer_items_than_k_gives_fewer_neighbors_and_no_padding(new_index):
    index = new_index(DIM)
    rows = clustered(3)
    index.add(np.array([5, 6, 7]), rows)
    for n_queries in (1, 3):
        assert [sorted(found.keys) for found in index.search(rows[:n_queries], k=10)] == [[5, 6, 7]] * n_queries


def test_k_far_above_the_size_finds_every_item(full):
    for found in full.search(clustered(2, seed=1), k=100_000):
        assert np.array_equal(np.sort(found.keys), np.arange(2000) * 3)


def test_an_empty_index_answers_every_query_with_nothing(new_index):
    index = new_index(DIM)
    assert len(index) == 0
    assert [len(found) for found in index.search(clustered(3), k=5)] == [0, 0, 0]
    assert [len(found) for found in index.search(clustered(1), k=5)] == [0]
    index.add(np.empty(0, np.int64), np.empty((0, DIM), np.float32))
    assert len(index) == 0
    assert index.remove(np.array([1, 2])) == 0


def test_no_queries_give_no_answers(full):
    assert full.search(np.empty((0, DIM), np.float32), k=5) == []


def test_a_batch_answers_like_single_queries_to_the_last_bit(full):
    queries = clustered(150, seed=1)
    for number, together in enumerate(full.search(queries, k=10)):
        (alone,) = full.search(queries[number : number + 1], k=10)
        assert np.array_equal(alone.keys, together.keys)
        assert alone.scores.tobytes() == together.scores.tobytes()


def test_removed_items_are_gone_and_may_come_back(full):
    rows = clustered(2000)
    assert full.remove(np.array([0, 3, 3, 4, 999_999])) == 2
    assert len(full) == 1998
    (found,) = full.search(rows[:1], k=2000)
    assert len(found) == 1998
    assert not {0, 3} & set(found.keys.tolist())
    full.add(np.array([0, 3]), rows[[1, 0]])
    assert len(full) == 2000
    first, second = full.search(rows[:2], k=1)
    assert (first.keys.tolist(), second.keys.tolist()) == ([3], [0])


def test_everything_can_be_removed_and_added_again(full):
    rows = clustered(2000)
    assert full.remove(np.arange(6000)) == 2000
    assert len(full) == 0
    assert [len(found) for found in full.search(rows[:2], k=5)] == [0, 0]
    full.add(np.arange(2000), rows)
    assert [found.keys[0] for found in full.search(rows[:50], k=1)] == list(range(50))


def test_many_copies_of_some_vectors_hide_nothing_and_are_all_listed(new_index):
    index = new_index(DIM)
    rows = clustered(2000)
    copied = np.repeat(np.arange(33), 100)
    index.add(np.arange(2000), rows)
    index.add(10_000 + np.arange(3300), rows[copied])
    assert len(index) == 5300
    own = index.search(rows, k=1)
    assert [found.keys[0] for found in own] == list(range(2000))
    for number, found in enumerate(index.search(rows[:33], k=101)):
        copies = 10_000 + np.flatnonzero(copied == number)
        assert found.keys.tolist() == [number, *copies.tolist()]


def test_copies_can_be_removed_one_by_one_in_any_order(new_index):
    index = new_index(DIM)
    rows = clustered(20)
    index.add(np.arange(20), rows)
    index.add(np.array([30, 31, 32]), rows[[4, 4, 4]])
    assert index.remove(np.array([4, 31])) == 2
    assert index.search(rows[4:5], k=2)[0].keys.tolist() == [30, 32]
    index.add(np.array([4]), rows[5:6])
    assert index.search(rows[5:6], k=2)[0].keys.tolist() == [4, 5]
    assert index.remove(np.array([30])) == 1
    assert index.search(rows[4:5], k=1)[0].keys.tolist() == [32]
    assert index.remove(np.array([32])) == 1
    assert len(index) == 20
    assert 32 not in index.search(rows[4:5], k=20)[0].keys


BAD_ROWS = {
    "nan": lambda rows: np.where(np.arange(DIM) == 3, np.nan, rows),
    "infinity": lambda rows: np.where(np.arange(DIM) == 3, np.inf, rows),
    "zero": lambda rows: rows * 0,
    "narrow": lambda rows: rows[:, :-1],
    "wide": lambda rows: np.hstack([rows, rows]),
    "flat": lambda rows: rows[0],
    "words": lambda rows: [["a"] * DIM],
}


@pytest.mark.parametrize("spoil", BAD_ROWS.values(), ids=BAD_ROWS.keys())
def test_bad_vectors_are_refused_with_nothing_stored(new_index, spoil):
    index = new_index(DIM)
    rows = clustered(20)
    with pytest.raises(InvalidInput):
        index.add(np.arange(1), spoil(rows[:1]))
    if np.ndim(spoil(rows)) == 2 and np.shape(spoil(rows)) == rows.shape:
        with pytest.raises(InvalidInput):
            index.add(np.arange(20), np.vstack([rows[:19], spoil(rows[19:])]))
    with pytest.raises(InvalidInput):
        index.search(spoil(rows[:1]), k=1)
    assert len(index) == 0
    index.add(np.arange(20), rows)
    assert index.search(rows[:1], k=1)[0].keys.tolist() == [0]


BAD_KEYS = {
    "taken": [0, 5],
    "repeated": [8, 8],
    "negative": [8, -1],
    "fractions": [1.5, 2.5],
    "words": ["7", "8"],
    "beyond int64": np.array([8, 2**64 - 1], dtype=np.uint64),
    "too few": [8],
    "too many": [8, 9, 10],
    "nested": [[8, 9]],
}


@pytest.mark.parametrize("keys", BAD_KEYS.values(), ids=BAD_KEYS.keys())
def test_bad_keys_are_refused_with_nothing_stored(new_index, keys):
    index = new_index(DIM)
    rows = clustered(7)
    index.add(np.arange(5), rows[:5])
    with pytest.raises(InvalidInput):
        index.add(np.array(keys), rows[5:])
    assert len(index) == 5
    assert sorted(index.search(rows[6:], k=10)[0].keys) == [0, 1, 2, 3, 4]
    index.add(np.array([8, 9]), rows[5:])
    assert index.search(rows[6:], k=1)[0].keys.tolist() == [9]


def test_a_key_that_shares_its_vector_is_taken_too(new_index):
    index = new_index(DIM)
    rows = clustered(3)
    index.add(np.array([1, 2, 3]), rows[[0, 0, 1]])
    for key in (1, 2, 3):
        with pytest.raises(InvalidInput, match=str(key)):
            index.add(np.array([key]), rows[2:])
    assert len(index) == 3


@pytest.mark.parametrize("k", [0, -1, 1.5, True, 10**9])
def test_a_senseless_k_is_refused(full, k):
    with pytest.raises(InvalidInput):
        full.search(clustered(1), k)


def test_the_largest_keys_keep_their_value(new_index):
    index = new_index(DIM)
    keys = np.array([2**53, 2**53 + 1, 2**63 - 2, 2**63 - 1])
    index.add(keys, clustered(4))
    assert [found.keys[0] for found in index.search(clustered(4), k=1)] == keys.tolist()


def test_bytes_are_numbers_and_not_bits(new_index):
    index = new_index(DIM)
    rows = np.random.default_rng(0).integers(0, 255, size=(200, DIM), dtype=np.uint8)
    index.add(np.arange(200), rows)
    units = rows / np.linalg.norm(np.float64(rows), axis=1, keepdims=True)
    (found,) = index.search(rows[7:8], k=1)
    assert found.keys.tolist() == [7]
    (found,) = index.search(rows[7:8], k=200)
    assert np.allclose(found.scores, (units @ units[7])[found.keys], atol=1e-3)


def test_length_does_not_matter(new_index):
    index = new_index(DIM)
    rows = clustered(100)
    index.add(np.arange(100), rows * np.logspace(-30, 30, 100)[:, None])
    scaled = np.float64(rows[:20]) * 1e-200
    assert [found.keys[0] for found in index.search(scaled, k=1)] == list(range(20))
    assert all(abs(found.scores[0] - 1) < 1e-3 for found in index.search(scaled, k=1))


def test_a_read_only_memory_map_can_be_added(new_index, tmp_path):
    np.save(tmp_path / "rows.npy", clustered(300).astype(np.float16))
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    index = new_index(DIM)
    index.add(np.arange(300), mapped)
    assert [found.keys[0] for found in index.search(mapped[:9], k=1)] == list(range(9))


def test_what_is_passed_in_is_neither_changed_nor_kept(new_index):
    index = new_index(DIM)
    keys, rows, queries = np.arange(50), clustered(50), clustered(5, seed=1)
    keys_before, rows_before, queries_before = keys.copy(), rows.copy(), queries.copy()
    index.add(keys, rows)
    before = index.search(queries, k=5)
    assert np.array_equal(keys, keys_before)
    assert np.array_equal(rows, rows_before)
    assert np.array_equal(queries, queries_before)
    keys[:], rows[:] = 0, 0
    after = index.search(queries, k=5)
    assert all(np.array_equal(a.keys, b.keys) for a, b in zip(before, after, strict=True))


def test_items_added_in_pieces_are_found_like_items_added_at_once(new_index):
    pieces, whole = new_index(DIM), new_index(DIM)
    rows, queries = clustered(600), clustered(20, seed=1)
    whole.add(np.arange(600), rows)
    for start in range(0, 600, 7):
        pieces.add(np.arange(start, min(600, start + 7)), rows[start : start + 7])
    for a, b in zip(pieces.search(queries, k=5), whole.search(queries, k=5), strict=True):
        assert a.scores.tobytes() == b.scores.tobytes()


# Only of the exact index


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_exact_scores_are_inner_products_with_the_rows_as_they_are(tmp_path, dtype):
    rows = clustered(5000).astype(dtype)
    np.save(tmp_path / "rows.npy", rows)
    index = ExactIndex.over(np.load(tmp_path / "rows.npy", mmap_mode="r"))
    query = clustered(1, seed=1)
    query /= np.linalg.norm(query)
    for _ in range(3):  # the second search keeps a float32 copy, which must change nothing
        (found,) = index.search(query, k=7)
        assert np.allclose(found.scores, dots(np.float32(rows[found.keys]), query[0]), atol=1e-7)
        assert set(found.keys) == set(np.argsort(-np.float64(rows) @ query[0])[:7])


def test_exact_serves_keys_of_the_callers_choice():
    index = ExactIndex.over(clustered(4), keys=np.array([40, 10, 30, 20]))
    assert index.search(clustered(4)[1:2], k=1)[0].keys.tolist() == [10]
    assert index.search(clustered(4)[1:2], k=4, among=np.array([20, 40, 7]))[0].keys.tolist() in ([20, 40], [40, 20])


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_exact_search_among_some_keys_finds_the_best_of_these(dtype):
    rows, queries = clustered(3000).astype(dtype), clustered(20, seed=1)
    keys = np.random.default_rng(3).permutation(9000)[:3000]
    index = ExactIndex.over(rows, keys)
    picked = np.random.default_rng(4).permutation(3000)[:500]
    among = np.concatenate([keys[picked], keys[picked[:9]], [10**9]])
    true = true_scores(queries, rows)[:, picked]
    for found, scores in zip(index.search(queries, k=10, among=among), true, strict=True):
        assert set(found.keys) == set(keys[picked][np.argsort(-scores)[:10]])
    assert [len(found) for found in index.search(queries, k=10, among=np.array([10**9]))] == [0] * 20
    assert [len(found) for found in index.search(queries, k=10, among=np.empty(0, np.int64))] == [0] * 20


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_exact_search_of_ten_thousand_equal_rows_gives_the_lowest_keys(dtype):
    rows = np.vstack([np.repeat(clustered(1), 10_000, axis=0), clustered(10_000, seed=2)]).astype(dtype)
    keys = np.random.default_rng(3).permutation(20_000)
    index = ExactIndex.over(rows, keys)
    for found in index.search(np.repeat(clustered(1), 40, axis=0), k=25):
        assert found.keys.tolist() == np.sort(keys[:10_000])[:25].tolist()


def test_exact_refuses_a_matrix_it_cannot_serve():
    for matrix in (clustered(3).astype(np.float64), clustered(3)[0], np.zeros((3, DIM), np.uint8)):
        with pytest.raises(InvalidInput):
            ExactIndex.over(matrix)
    for keys in ([1, 2], [1, 1, 2], [-1, 0, 1]):
        with pytest.raises(InvalidInput):
            ExactIndex.over(clustered(3), np.array(keys))


def test_exact_over_a_matrix_can_grow_without_touching_the_matrix():
    matrix = clustered(10).astype(np.float16)
    before = matrix.copy()
    index = ExactIndex.over(matrix)
    index.add(np.array([10]), clustered(1, seed=5))
    assert index.remove(np.array([0])) == 1
    assert index.search(clustered(1, seed=5), k=1)[0].keys.tolist() == [10]
    assert np.array_equal(matrix, before)
