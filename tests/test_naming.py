"""Naming of clusters by vectors alone: what sets one apart, known names, and words that may not be used."""

import numpy as np
import pytest

from mmsearch import InvalidInput
from mmsearch.naming import KEYWORDS, contrast, means, name_clusters, relatives, titles

DIM = 8


def unit(*rows):
    """Rows as unit vectors, filled up with zeros."""
    table = np.zeros((len(rows), DIM), dtype=np.float32)
    for n, row in enumerate(rows):
        table[n, : len(row)] = row
    return table / np.linalg.norm(table, axis=1, keepdims=True)


# What all share lies along the first axis, what three groups are along the next three.
GROUPS = ((1, 1), (1, 0, 1), (1, 0, 0, 1))
TERMS = unit((1,), (0, 1), (0, 0, 1), (0, 0, 0, 1))
SHARED, FIRST, SECOND, THIRD = range(4)


def members(*groups, each=4):
    """``each`` equal vectors of some groups, and which group each is of."""
    return np.repeat(unit(*groups), each, axis=0), np.repeat(np.arange(len(groups)), each)


def named(*groups, terms=TERMS, **options):
    vectors, labels = members(*groups)
    return name_clusters(vectors, labels, len(groups), terms, **options)


def test_many_clusters_are_called_by_what_sets_each_apart():
    assert [one.name for one in named(*GROUPS)] == [FIRST, SECOND, THIRD]


def test_two_clusters_are_not_called_by_what_both_share():
    vectors, labels = members((0.9, 1), (0.9, 0, 1))
    assert [one.name for one in name_clusters(vectors, labels, 2, TERMS)] == [FIRST, SECOND]


def test_a_single_cluster_is_called_by_what_all_its_members_share():
    vectors = np.concatenate([members(group)[0] for group in GROUPS])
    (one,) = name_clusters(vectors, np.zeros(len(vectors), dtype=np.int64), 1, TERMS)
    assert one.name == SHARED


def test_nothing_is_taken_off_a_single_centre_and_all_but_a_share_off_many():
    centres = unit(*GROUPS)
    np.testing.assert_allclose(contrast(centres[:1]), centres[:1])
    np.testing.assert_allclose(contrast(centres), centres - 2 / 3 * centres.mean(axis=0), atol=1e-6)
    assert contrast(centres[:0]).shape == (0, DIM)


def test_a_word_near_to_everything_gains_nothing_by_that():
    hub = unit((3, 1, 1, 1))
    assert all(one.name != 4 for one in named(*GROUPS, terms=np.concatenate([TERMS, hub])))


def test_the_former_name_stays_while_it_is_still_a_keyword():
    alike = np.concatenate([TERMS, unit((0, 0.8, 0, 0, 0.6))])
    assert [one.name for one in named(*GROUPS, terms=alike)] == [FIRST, SECOND, THIRD]
    again = named(*GROUPS, terms=alike, former={0: 4})
    assert again[0].keywords[:2] == (4, FIRST)
    assert len(set(again[0].keywords)) == len(again[0].keywords)


def test_a_former_name_that_does_not_fit_any_more_goes():
    words = np.concatenate([TERMS, np.eye(DIM, dtype=np.float32)[4:7], -TERMS[:2]])
    assert named(*GROUPS, terms=words, former={0: 8})[0].name == FIRST


def test_words_that_say_the_same_are_not_both_keywords():
    twins = np.concatenate([TERMS, unit((0, 1, 0.01))])
    for one in named(*GROUPS, terms=twins):
        assert not {FIRST, 4} <= set(one.keywords)


def test_there_are_at_most_five_keywords_and_as_many_as_words():
    many = np.random.default_rng(0).normal(size=(40, DIM)).astype(np.float32)
    many /= np.linalg.norm(many, axis=1, keepdims=True)
    assert {len(one.keywords) for one in named(*GROUPS, terms=many)} == {KEYWORDS}
    assert [one.keywords for one in named(*GROUPS, terms=TERMS[:1])] == [(0,)] * 3


def test_only_allowed_words_name_a_cluster():
    allowed = np.ones((3, 4), dtype=np.bool_)
    allowed[0, FIRST] = False
    found = named(*GROUPS, allowed=allowed)
    assert FIRST not in found[0].keywords
    assert [one.name for one in found[1:]] == [SECOND, THIRD]


def test_a_cluster_that_no_word_is_allowed_for_may_have_any():
    allowed = np.zeros((3, 4), dtype=np.bool_)
    allowed[2, THIRD] = True
    assert [one.name for one in named(*GROUPS, allowed=allowed)] == [FIRST, SECOND, THIRD]


def test_confidence_is_the_share_of_members_that_go_with_the_name():
    assert [one.confidence for one in named(*GROUPS)] == [1, 1, 1]
    vectors, labels = members(*GROUPS)
    labels[0] = 1  # one of four members of the first group is counted to the second
    mixed = name_clusters(vectors, labels, 3, TERMS)
    assert [one.confidence for one in mixed] == pytest.approx([1, 4 / 5, 1])


def test_confidence_is_a_share_where_all_have_one_name():
    assert [(one.name, one.confidence) for one in named(*GROUPS, terms=TERMS[:1])] == [(0, 1.0)] * 3


def test_a_cluster_without_sampled_members_has_a_name_and_no_confidence():
    vectors, labels = members(*GROUPS[:2])
    empty = name_clusters(vectors, labels, 3, TERMS)[2]
    assert len(empty.keywords) == 4
    assert empty.confidence == 0


def test_members_of_no_cluster_have_no_say():
    vectors, labels = members(*GROUPS)
    noise = np.repeat(unit((0, -5, 1)), 50, axis=0)
    found = name_clusters(np.concatenate([vectors, noise]), np.append(labels, np.full(50, -1)), 3, TERMS)
    assert [one.name for one in found] == [FIRST, SECOND, THIRD]


def test_no_clusters_have_no_names():
    vectors, _ = members(*GROUPS)
    assert name_clusters(vectors, np.full(len(vectors), -1), 0, TERMS) == []
    assert titles([], np.zeros((0, DIM), dtype=np.float32), TERMS) == []


@pytest.mark.parametrize("terms", [TERMS[:0], TERMS[:, :3]])
def test_a_vocabulary_that_is_empty_or_of_another_width_is_refused(terms):
    with pytest.raises(InvalidInput, match="at least one"):
        named(*GROUPS, terms=terms)


def test_means_are_those_of_members_and_zeros_without_any():
    vectors, labels = members(*GROUPS[:2])
    found = means(vectors, np.where(labels == 1, -1, labels), 2)
    np.testing.assert_allclose(found, [vectors[0], np.zeros(DIM)], atol=1e-6)


# Titles -----------------------------------------------------------------------------------------------------------


def test_the_title_is_the_name_where_no_other_cluster_has_it():
    found = named(*GROUPS)
    centres = means(*members(*GROUPS), 3)
    assert titles(found, centres, TERMS) == [(FIRST,), (SECOND,), (THIRD,)]


def test_clusters_of_one_name_get_the_word_that_tells_them_apart():
    allowed = np.zeros((3, 4), dtype=np.bool_)
    allowed[:2, SHARED] = allowed[:, THIRD] = True
    allowed[0, FIRST] = allowed[1, SECOND] = True
    groups = ((3, 1), (3, 0, 1), (-1, 0, 0, 4))
    found = named(*groups, allowed=allowed)
    assert [one.name for one in found] == [SHARED, SHARED, THIRD]
    told = titles(found, means(*members(*groups), 3), TERMS)
    assert told == [(SHARED, FIRST), (SHARED, SECOND), (THIRD,)]


# Relatives --------------------------------------------------------------------------------------------------------


def test_small_vocabularies_have_no_relatives():
    assert relatives(TERMS) is None
    assert relatives(TERMS[:0]) is None


def test_relatives_are_the_nearest_words_and_never_the_word_itself():
    rng = np.random.default_rng(1)
    families = rng.normal(size=(100, 16))
    words = np.repeat(families, 6, axis=0) + 0.05 * rng.normal(size=(600, 16))
    words = (words / np.linalg.norm(words, axis=1, keepdims=True)).astype(np.float32)
    kin = relatives(words)
    assert kin.shape == (600, 5)
    for word, its in enumerate(kin):
        assert set(its.tolist()) == {other for other in range(word // 6 * 6, word // 6 * 6 + 6) if other != word}


def test_a_word_that_scores_by_chance_loses_to_one_whose_relatives_score_too():
    terms = np.concatenate([unit((0, 1, 0, 0, 0.5), (0, 1, 0, 0, 0, 0.6)), TERMS[2:]])
    assert named(*GROUPS, terms=terms)[0].name == 0
    kin = np.array([[2, 3], [0, 0], [3, 3], [2, 2]])  # the first word's relatives have nothing to do with the group
    assert named(*GROUPS, terms=terms, kin=kin)[0].name == 1
