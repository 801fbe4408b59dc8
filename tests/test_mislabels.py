"""Labels that disagree with the neighbourhood are found."""

import numpy as np
import pytest

from mmsearch.curation.mislabels import suspects
from mmsearch.errors import InvalidInput
from mmsearch.vectors import as_unit_vectors


class Rows:
    """Vectors by position."""

    def __init__(self, vectors):
        self.vectors, self.dim = np.asarray(vectors, dtype=np.float32), np.shape(vectors)[1]

    def __len__(self):
        return len(self.vectors)

    def take(self, columns):
        return self.vectors[columns]


def world(n=120, wrong=6, spread=0.15, seed=0):
    """Items of three classes in three directions, and labels of which the first few are wrong."""
    random = np.random.default_rng(seed)
    classes = np.arange(n) % 3
    rows = as_unit_vectors(np.eye(8)[classes] + spread * random.normal(size=(n, 8)))
    right = [("cup", "fork", "plate")[one] for one in classes]
    labels = list(right)
    for one in range(wrong):
        labels[one] = ("fork", "plate", "cup")[classes[one]]
    return rows, labels, right


def test_wrong_labels_come_first_with_what_they_should_be():
    rows, labels, right = world()
    found = suspects(Rows(rows), labels)
    assert set(found.positions[:6]) == set(range(6))
    assert [found.suggested[n] for n in range(6)] == [right[position] for position in found.positions[:6]]
    assert set(found.positions[found.likely]) == set(range(6))
    assert len(found) == len(labels) == len(set(found.positions.tolist()))


def test_scores_and_agreement_are_shares_of_the_neighbours():
    rows = as_unit_vectors([[1, 0, 0], [1, 0, 0.01], [1, 0.01, 0], [1, -0.01, 0], [1, 0, -0.01]])
    found = suspects(Rows(rows), ["a", "b", "b", "b", "a"], k=4)
    at = found.positions.tolist().index(0)
    assert found.scores[at] == pytest.approx(0.75, abs=0.01)
    assert (found.suggested[at], found.agreement[at]) == ("b", pytest.approx(0.75, abs=0.01))


def test_nearer_neighbours_weigh_more():
    rows = as_unit_vectors([[1, 0, 0], [1, 0.1, 0], [0.6, 0.8, 0], [0.6, 0, 0.8]])
    found = suspects(Rows(rows), ["a", "a", "b", "b"], k=3)
    assert found.scores[found.positions.tolist().index(0)] < 0.01


def test_items_without_a_label_or_a_vector_are_not_judged_and_do_not_vote():
    rows, labels, _ = world()
    alone = suspects(Rows(rows), labels)
    more = np.concatenate([rows, rows[:30], np.zeros((2, 8))])
    found = suspects(Rows(more), [*labels, *[None] * 30, "cup", "fork"])
    np.testing.assert_array_equal(found.positions, alone.positions)
    np.testing.assert_allclose(found.scores, alone.scores, atol=1e-9)


def test_a_picture_that_is_there_many_times_with_a_wrong_label_is_still_found():
    rows, labels, _ = world(wrong=1)
    copies = np.concatenate([rows, np.repeat(rows[:1], 5, axis=0)])
    found = suspects(Rows(copies), [*labels, *[labels[0]] * 5])
    assert set(found.positions[:6]) == {0, *range(120, 125)}


def test_a_copy_with_another_label_makes_both_suspect():
    rows, labels, _ = world(wrong=0)
    found = suspects(Rows(np.concatenate([rows, rows[:1]])), [*labels, "plate"])
    scores = dict(zip(found.positions.tolist(), found.scores, strict=True))
    assert found.positions[0] == 120
    assert scores[0] > np.median(found.scores)


def test_neighbours_may_be_found_by_somebody_else():
    rows, labels, _ = world()

    def find(positions):
        cosines = rows[positions] @ rows.T
        order = np.argsort(-cosines, axis=1)[:, :50]
        return [(keys, row[keys]) for keys, row in zip(order, cosines, strict=True)]

    ours, theirs = suspects(Rows(rows), labels, k=10), suspects(Rows(rows), labels, find, k=10)
    np.testing.assert_array_equal(ours.positions, theirs.positions)
    np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-3)
    assert ours.suggested == theirs.suggested


@pytest.mark.parametrize("labels", [[], ["a"], [None, None], ["a", None], ["a", "a"]])
def test_where_nobody_disagrees_nothing_is_likely(labels):
    found = suspects(Rows(np.eye(4)[: len(labels)].reshape(-1, 4)), labels)
    assert found.positions.tolist() == [n for n, label in enumerate(labels) if label is not None]
    assert found.suggested == tuple(label for label in labels if label is not None)
    assert (found.scores == 0).all()
    assert not found.likely.any()
    assert np.isfinite(found.agreement).all()


def test_a_label_that_only_one_item_has_is_suspect():
    rows, labels, right = world(wrong=0)
    labels[5] = "plaet"
    found = suspects(Rows(rows), labels)
    assert found.positions[0] == 5
    assert (found.scores[0], found.suggested[0]) == (1.0, right[5])


def test_the_order_of_the_items_does_not_matter():
    rows, labels, _ = world()
    order = np.random.default_rng(1).permutation(len(rows))
    plain, mixed = suspects(Rows(rows), labels), suspects(Rows(rows[order]), [labels[n] for n in order])
    np.testing.assert_array_equal(order[mixed.positions][:20], plain.positions[:20])


def test_work_is_reported():
    rows, labels, _ = world()
    seen = []
    suspects(Rows(rows), labels, report=seen.append)
    assert [(progress.stage, progress.done, progress.total) for progress in seen] == [("labels", 0, 120)]


def test_what_makes_no_sense_is_refused():
    rows, labels, _ = world()
    with pytest.raises(InvalidInput, match="119 labels for 120 vectors"):
        suspects(Rows(rows), labels[1:])
    with pytest.raises(InvalidInput, match="7 at position 0"):
        suspects(Rows(rows), [7, *labels[1:]])
    with pytest.raises(InvalidInput, match="k as a whole number"):
        suspects(Rows(rows), labels, k=0)
