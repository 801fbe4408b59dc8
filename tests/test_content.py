"""What content says: items' vectors and labels, people's interests, the content recommender and the bridge."""

import numpy as np
import pytest

from mmsearch.behaviour import Behaviour
from mmsearch.errors import InvalidInput
from mmsearch.recommenders import itemvectors
from mmsearch.recommenders.bridge import Bridge
from mmsearch.recommenders.content import Content
from mmsearch.recommenders.details import Details
from mmsearch.recommenders.histories import recency, says
from mmsearch.recommenders.itemvectors import ItemVectors
from mmsearch.recommenders.profiles import best_score, interests


def history(items, weights=None, n_items=4):
    return Behaviour.of(np.zeros(len(items), int), items, weights, n_users=1, n_items=n_items)


def unit(rows):
    rows = np.asarray(rows, dtype=np.float64)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def plain(vectors, rows=None):
    """Vectors as they are, so that cosines can be told by hand."""
    return ItemVectors(np.asarray(vectors, dtype=np.float32), rows, centred=False)


def some_rows(n=50, dim=8, seed=0):
    return np.random.default_rng(seed).normal(size=(n, dim)) + 1.0


def some_people(n_items=50, n_users=12, seed=0):
    random = np.random.default_rng(seed)
    users = np.repeat(np.arange(n_users), 6)
    items, weights = random.integers(0, n_items, len(users)), random.choice([1.0, 2.0, 0.0, -1.0], len(users))
    return Behaviour.of(users, items, weights, random.random(len(users)), n_users=n_users, n_items=n_items)


# Vectors of items ----------------------------------------------------------------------------------------------------


def test_vectors_are_unit_rows_less_their_mean():
    rows = some_rows() * np.arange(1, 51)[:, None]  # of any length
    expected = unit(unit(rows) - unit(rows).mean(axis=0))
    vectors = ItemVectors(rows)
    assert (len(vectors), vectors.dim, vectors.take(np.arange(50)).dtype) == (50, 8, np.float32)
    np.testing.assert_allclose(vectors.take(np.arange(50)), expected, atol=1e-5)
    np.testing.assert_allclose(vectors.take(np.array([7, 3, 7])), expected[[7, 3, 7]], atol=1e-5)
    np.testing.assert_allclose(plain(rows).take(np.arange(50)), unit(rows), atol=1e-6)


def test_items_without_a_vector_have_zeros_and_do_not_shift_the_mean():
    rows = some_rows(6)
    vectors = ItemVectors(rows, np.array([2, -1, 0, 5, -1]))
    its = unit(rows)[[2, 0, 5]]
    np.testing.assert_allclose(vectors.take(np.array([0, 2, 3])), unit(its - its.mean(axis=0)), atol=1e-5)
    assert not vectors.take(np.array([1, 4])).any()
    assert vectors.there.tolist() == [True, False, True, True, False]


def test_rows_that_say_nothing_stay_zeros():
    rows = np.array([[0, 0], [1, 0], [0, 1], [np.nan, 1], [np.inf, 1]], dtype=np.float32)
    taken = ItemVectors(rows).take(np.arange(5))
    assert np.isfinite(taken).all()
    np.testing.assert_array_equal(np.linalg.norm(taken, axis=1) > 0.5, [False, True, True, False, False])


def test_a_single_vector_is_not_its_own_mean_and_equal_ones_are():
    np.testing.assert_allclose(ItemVectors(np.array([[3.0, 4.0]])).take(np.array([0])), [[0.6, 0.8]])
    assert not ItemVectors(np.array([[3.0, 4.0]] * 3)).take(np.arange(3)).any()


@pytest.mark.parametrize("kept", [0, 10**9], ids=["made each time", "kept ready"])
@pytest.mark.parametrize("kind", ["dense", "mapped", "sparse"])
def test_how_vectors_are_stored_does_not_matter(kept, kind, tmp_path, monkeypatch):
    from scipy.sparse import csr_matrix

    monkeypatch.setattr(itemvectors, "_KEPT", kept)
    rows = np.where(some_rows() > 1, some_rows(), 0).astype(np.float16)
    np.save(tmp_path / "rows.npy", rows)
    stored = {
        "dense": lambda: rows,
        "mapped": lambda: np.load(tmp_path / "rows.npy", mmap_mode="r"),
        "sparse": lambda: csr_matrix(rows.astype(np.float32)),
    }[kind]()
    where = np.where(np.arange(50) % 5 == 0, -1, np.arange(50)[::-1])
    taken = ItemVectors(stored, where).take(np.array([0, 1, 49, 1, 20]))
    full = unit(np.where(rows.any(axis=1, keepdims=True), rows, 1).astype(np.float64))
    its = np.where(rows.any(axis=1, keepdims=True), full, 0)[where[where >= 0]]
    expected = [np.zeros(8) if where[n] < 0 else unit(full[where[n]] - its.mean(axis=0)) for n in (0, 1, 49, 1, 20)]
    np.testing.assert_allclose(taken, expected, atol=1e-5)


def test_the_mean_of_many_is_that_of_a_sample(monkeypatch):
    monkeypatch.setattr(itemvectors, "_SAMPLE", 10)
    rows = some_rows(2000)
    np.testing.assert_allclose(
        ItemVectors(rows).take(np.array([3])), unit(unit(rows) - unit(rows)[::200].mean(axis=0))[[3]], atol=1e-5
    )


def test_others_may_follow_and_are_made_alike():
    rows = some_rows()
    vectors = ItemVectors(rows[:40])
    both = vectors.followed_by(rows[[3, 41]]).followed_by(np.zeros((1, 8))).followed_by(rows[:0])
    assert (len(vectors), len(both)) == (40, 43)
    taken = both.take(np.array([42, 40, 3, 41]))
    np.testing.assert_allclose(taken[1], taken[2], atol=1e-6)
    assert not taken[0].any()
    np.testing.assert_allclose(taken[3], vectors.prepare(rows[[41]])[0], atol=1e-6)
    assert both.there[40:].tolist() == [True, True, False]
    with pytest.raises(InvalidInput, match=r"\(n, 8\)"):
        vectors.followed_by(np.ones((2, 9)))


@pytest.mark.parametrize("row", [-2, 3])
def test_rows_that_are_not_there_are_refused(row):
    with pytest.raises(InvalidInput, match="from -1 to 2"):
        ItemVectors(np.eye(3), np.array([0, row]))


def test_no_items_have_no_vectors():
    assert ItemVectors(np.zeros((0, 3))).take(np.arange(0)).shape == (0, 3)
    assert ItemVectors(np.zeros((0, 3)), np.array([-1, -1])).take(np.arange(2)).tolist() == [[0, 0, 0]] * 2


# Labels --------------------------------------------------------------------------------------------------------------

FILMS = [
    {"title": "a", "genres": ["Drama", "War"], "year": 1990, "colour": True, "land": "FR"},
    {"title": "b", "genres": ["Drama"], "year": 1990, "colour": True, "land": "FR"},
    {"title": "c", "genres": ["War", "War", ""], "year": 1990, "colour": True, "land": "FR"},
    {"title": "d", "genres": "Drama", "year": 1990, "colour": True, "land": None, "odd": {"Drama": "War"}},
    {"title": "e", "year": 1990, "colour": True, "land": "", "more": [1, 2, True, None]},
    {"title": "f", "genres": [], "year": 1990, "colour": True},
]


def test_only_words_that_items_share_count_and_at_most_half_of_them():
    assert set(Details().fit(FILMS).labels) == {("genres", "Drama"), ("genres", "War"), ("land", "FR")}
    assert set(Details().fit(FILMS[:4]).labels) == {("genres", "War")}  # three of four have the others


def test_rare_labels_weigh_more():
    vectors = Details().fit(FILMS).vectors()
    drama, war, france = np.log(6 / 3), np.log(6 / 2), np.log(6 / 3)
    rows = np.array([[drama, france, war], [drama, france, 0], [0, france, war], [drama, 0, 0]])
    expected = unit(unit(rows) - unit(rows).mean(axis=0))
    np.testing.assert_allclose(vectors.take(np.arange(4)), expected, atol=1e-5)
    assert not vectors.take(np.array([4, 5])).any()
    assert vectors.there.tolist() == [True] * 4 + [False] * 2


def test_the_same_word_in_another_field_is_another_label():
    details = Details().fit([{"a": "x"}, {"a": "x"}, {"b": "x"}, {"b": "x"}])
    assert list(details.labels) == [("a", "x"), ("b", "x")]


def test_the_most_frequent_labels_are_kept():
    many = [{"tags": [f"{n:03d}" for n in range(300)]}] * 2 + [{"tags": ["299"]}] + [{}] * 5
    labels = Details().fit(many).labels
    assert len(labels) == 256
    assert next(iter(labels)) == ("tags", "299")
    assert ("tags", "254") in labels
    assert ("tags", "255") not in labels


def test_later_items_are_taken_in_by_the_labels_that_are_known():
    details = Details().fit(FILMS).add([{"genres": ["War", "New"]}, {"genres": ["New"]}])
    assert len(details) == 8
    assert ("genres", "New") not in details.labels
    vectors = details.vectors()
    assert vectors.there.tolist() == [True] * 4 + [False] * 2 + [True, False]


def test_labels_come_back_from_files(tmp_path):
    details = Details().fit([*FILMS, {"land": 'é"\n,', "genres": ["War"]}, {"land": 'é"\n,'}]).add([{"land": "FR"}])
    for name, array in details.state().items():
        np.save(tmp_path / f"{name}.npy", array)
    again = Details().restore({name: np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in details.state()})
    assert (again.labels, len(again)) == (details.labels, 9)
    for both in (details, again):
        both.add([{"genres": "Drama"}])
    np.testing.assert_array_equal(again.vectors().take(np.arange(10)), details.vectors().take(np.arange(10)))


@pytest.mark.parametrize("metadata", [[], [{}], [{"a": "x"}], [{}, {}]])
def test_where_no_label_matters_there_are_no_vectors(metadata):
    details = Details().fit(metadata)
    again = Details().restore(details.state())
    assert details.vectors() is again.vectors() is None
    assert len(details) == len(again) == len(metadata)
    assert len(again.add([{"a": "x"}])) == len(metadata) + 1


# Interests -----------------------------------------------------------------------------------------------------------


def two_clusters():
    """Five things around one direction and three around another; the first of each is in the middle."""
    steps = [0.0, 0.1, -0.1, 0.2, -0.2]
    return unit([[1, step, 0] for step in steps] + [[0, step, 1] for step in steps[:3]]).astype(np.float32)


def test_each_cluster_is_stood_for_by_its_middle_thing_and_matters_as_its_members_do():
    its, importances = interests(two_clusters(), np.ones(8, np.float32))
    assert its.tolist() == [0, 5]
    np.testing.assert_allclose(importances, [5 / 8, 3 / 8])


def test_what_weighs_more_matters_more_and_draws_the_medoid():
    weights = np.array([1, 1, 1, 1, 20, 30, 1, 1], dtype=np.float32)
    its, importances = interests(two_clusters(), weights)
    assert its.tolist() == [5, 4]
    np.testing.assert_allclose(importances, [32 / 56, 24 / 56])


def test_how_large_weights_are_as_a_whole_does_not_matter():
    weights = np.array([1, 1, 1, 1, 20, 30, 1, 1], dtype=np.float32)
    its, importances = interests(two_clusters(), weights)
    for factor in (1e-8, 1e8):
        again, same = interests(two_clusters(), np.float32(factor) * weights)
        assert again.tolist() == its.tolist()
        np.testing.assert_allclose(same, importances, rtol=1e-5)


def test_one_thing_is_one_interest_and_so_are_copies_of_it():
    for n in (1, 2, 30):
        its, importances = interests(np.repeat(two_clusters()[:1], n, axis=0), np.ones(n, np.float32))
        assert (its.tolist(), importances.tolist()) == ([0], [1.0])


def test_nothing_has_no_interest():
    its, importances = interests(np.zeros((0, 3), np.float32), np.zeros(0, np.float32))
    assert (its.tolist(), importances.tolist()) == ([], [])


def test_of_many_interests_the_ten_most_important_are_kept():
    weights = np.arange(1, 31, dtype=np.float32)
    its, importances = interests(np.eye(30, dtype=np.float32), weights)
    assert its.tolist() == list(range(29, 19, -1))
    np.testing.assert_allclose(importances, np.arange(30, 20, -1) / np.arange(21, 31).sum(), rtol=1e-6)


def test_the_best_score_is_that_of_the_nearest_like_unless_a_dislike_is_as_near():
    cosines = np.array(
        [[0.9, 0.1, 0.5, -0.8, 0.3], [0.2, 0.3, 0.5, -0.2, 0.3], [0.5, 0.6, 0.5, -0.1, 0.1]], dtype=np.float32
    )
    scores, decided = best_score(cosines, np.array([True, True, False]))
    np.testing.assert_allclose(scores, [0.9, -0.36, -0.25, 0.01, 0.3], atol=1e-6)
    assert decided.tolist() == [0, 2, 2, 2, 0]  # of equally near likes the first


def test_without_likes_dislikes_decide_and_without_either_nothing_does():
    cosines = np.array([[0.5, -0.5], [0.2, 0.1]], dtype=np.float32)
    np.testing.assert_allclose(best_score(cosines, np.array([False, False]))[0], [-0.25, -0.01])
    np.testing.assert_allclose(best_score(cosines, np.array([True, True]))[0], [0.5, 0.1])
    scores, decided = best_score(np.zeros((0, 3), np.float32), np.zeros(0, bool))
    assert (scores.tolist(), decided.tolist()) == ([0, 0, 0], [-1, -1, -1])
    assert best_score(np.zeros((2, 0), np.float32), np.array([True, False]))[0].shape == (0,)


# Content -------------------------------------------------------------------------------------------------------------

CORNERS = [[1, 0], [0, 1], [3, 4], [-1, 0]]


def test_scores_by_the_mean_are_those_by_hand():
    content = Content({"picture": plain(CORNERS)}, dislike=0.5)
    # The mean of two likes less half of the mean of one dislike.
    scores = content.scores(history([0, 1, 3, 2], [2, 2, -2, 0]))[0]
    np.testing.assert_allclose(scores, [1.0, 0.5, 1.0 * 0.6 + 0.5 * 0.8, -1.0], atol=1e-6)


def test_what_is_liked_three_times_as_much_has_three_times_the_say():
    content = Content({"picture": plain(CORNERS)})
    np.testing.assert_allclose(content.scores(history([0, 1], [1, 3]))[0][:2], [1 / 4, 3 / 4], atol=1e-6)


def test_what_is_longer_ago_has_less_say():
    content = Content({"picture": plain(CORNERS)}, decay=0.5)
    np.testing.assert_allclose(content.scores(history([0, 1]))[0][:2], [1 / 3, 2 / 3], atol=1e-6)


def test_a_like_of_long_ago_is_all_there_is_if_nothing_else_was_liked_since():
    told = [history([0] + [1] * n, [1.0] + [0.0] * n) for n in (0, 60)]
    content = Content({"picture": plain(CORNERS)}, decay=0.5)
    np.testing.assert_allclose(content.scores(told[1]), content.scores(told[0]), atol=1e-6)


def test_scores_by_the_nearest_are_those_by_hand():
    content = Content({"picture": plain(CORNERS)}, profile="nearest")
    np.testing.assert_allclose(content.scores(history([0, 1]))[0], [1, 1, 0.8, 0], atol=1e-6)
    np.testing.assert_allclose(content.scores(history([0, 1], [1, -1]))[0], [1, -1, -0.64, 0], atol=1e-6)


def test_scores_by_interests_are_those_by_the_nearest_medoid():
    rows = two_clusters()
    told, n_items = history(np.arange(8), n_items=8), 8
    content = Content({"picture": plain(rows)}, profile="interests")
    np.testing.assert_allclose(content.scores(told)[0], np.maximum(rows @ rows[0], rows @ rows[5]), atol=1e-6)
    told = history([*range(8), 6], [1] * 8 + [-9], n_items)
    assert content.scores(told)[0][6] == pytest.approx(-1)


def test_fields_count_by_their_weights_in_proportion():
    fields = {"picture": plain(CORNERS), "text": plain(np.roll(CORNERS, 1, axis=0)), "details": plain(CORNERS)}
    told = history([0, 1], [1, 2])
    each = {name: Content({name: vectors}).scores(told) for name, vectors in fields.items()}
    both = Content(fields, weights={"picture": 6, "text": 2}).scores(told)
    np.testing.assert_allclose(both, 0.75 * each["picture"] + 0.25 * each["text"], atol=1e-6)
    np.testing.assert_allclose(Content(fields).scores(told), sum(each.values()) / 3, atol=1e-6)
    assert not Content(fields, weights={"picture": 0}).scores(told).any()


@pytest.mark.parametrize("profile", ["mean", "nearest", "interests"])
def test_a_field_that_an_item_lacks_adds_nothing(profile):
    fields = {"picture": plain(CORNERS), "text": plain(CORNERS, np.array([0, 1, -1, -1]))}
    content, told = Content(fields, profile=profile), history([0, 3])
    parts = content.by_field(told, 2)
    assert content.scores(told)[0, 2] == pytest.approx(parts["picture"].sum())
    assert not parts["text"].any()
    assert content.by_field(told, 0)["text"][1] == 0
    assert not content.scores(history([]))[0].any()


@pytest.mark.parametrize("profile", ["mean", "nearest", "interests"])
def test_what_each_field_adds_by_event_is_the_score(profile):
    fields = {"picture": ItemVectors(some_rows()), "text": ItemVectors(some_rows(seed=1), np.arange(50) % 7 - 1)}
    content = Content(fields, profile=profile, decay=0.8, weights={"picture": 1, "text": 3})
    people = some_people()
    scores = content.scores(people)
    assert np.abs(scores).max() > 0.1
    for user in range(people.n_users):
        told = people.of_users([user])
        for column in (0, 7, 49):
            sums = sum(parts.sum() for parts in content.by_field(told, column).values())
            assert sums == pytest.approx(scores[user, column], abs=1e-5)


def test_many_items_are_scored_in_blocks_as_they_are_at_once(monkeypatch):
    from mmsearch.recommenders import content as module

    fields = {"picture": ItemVectors(some_rows()), "text": ItemVectors(some_rows(seed=1))}
    for profile in ("mean", "nearest"):
        new = Content(fields, profile=profile)
        with monkeypatch.context() as patch:
            at_once = new.scores(some_people())
            patch.setattr(module, "_COSINES", 40)
            np.testing.assert_allclose(new.scores(some_people()), at_once, atol=1e-6)


def finds(vectors, asked=None):
    """An exact index over vectors, that notes what it is asked."""

    def near(wanted, k):
        if asked is not None:
            asked.append((len(wanted), k))
        return [np.argsort(-row, kind="stable")[:k] for row in wanted @ vectors.take(np.arange(len(vectors))).T]

    return near


def test_with_an_exact_index_candidates_are_those_of_the_scan():
    vectors, people, asked = ItemVectors(some_rows()), some_people(), []
    scanned = Content({"picture": vectors}).candidates(people, 7)
    found = Content({"picture": vectors}, near={"picture": finds(vectors, asked)}).candidates(people, 7)
    assert [keys.tolist() for keys in found] == [keys.tolist() for keys in scanned]
    assert len(asked) == people.n_users
    assert max(k for _, k in asked) < 50  # it did not have to look at all


@pytest.mark.parametrize("profile", ["nearest", "interests"])
def test_with_an_exact_index_what_is_nearest_to_few_things_is_found(profile):
    vectors, people = ItemVectors(some_rows()), some_people()
    people = people.where((people.weights > 0) & (np.arange(len(people)) % 6 < 4))  # four likes at most
    scanned = Content({"picture": vectors}, profile=profile).candidates(people, 7)
    found = Content({"picture": vectors}, profile=profile, near={"picture": finds(vectors)}).candidates(people, 7)
    for user, (ours, theirs) in enumerate(zip(found, scanned, strict=True)):
        if people.starts[user] < people.starts[user + 1]:
            assert ours.tolist() == theirs.tolist()
        else:
            assert not len(ours)  # there is nothing to seek by


def test_who_likes_more_than_is_asked_for_gets_what_they_have_not_seen():
    # Each thing that somebody likes is what is nearest to it.
    vectors, told = ItemVectors(some_rows(500)), history(np.arange(0, 400), n_items=500)
    for near in (None, {"picture": finds(vectors)}):
        (found,) = Content({"picture": vectors}, profile="nearest", near=near).candidates(told, 20)
        assert len(found) == 20
        assert (found >= 400).all()


def test_fields_without_an_index_do_not_nominate_beside_those_with_one():
    fields = {"picture": plain(np.eye(8)[[0, 1, 2, 3, 4, 5, 0]]), "text": plain(np.eye(8)[[0, 1, 2, 3, 4, 0, 5]])}
    content = Content(fields, near={"picture": finds(fields["picture"]), "other": finds(fields["text"])})
    assert content.candidates(history([0], n_items=7), 1)[0].tolist() == [6]


def test_wrong_settings_are_refused():
    fields = {"picture": plain(CORNERS)}
    for make in (
        lambda: Content({}),
        lambda: Content({**fields, "text": plain(np.eye(3))}),
        lambda: Content(fields, profile="median"),
        lambda: Content(fields, decay=0),
        lambda: Content(fields, decay=1.1),
        lambda: Content(fields, dislike=-1),
        lambda: Content(fields, weights={"picture": -1}),
        lambda: Content(fields, weights={"picture": np.nan}),
        lambda: Content(fields, weights={"looks": 1}),
        lambda: Content(fields).fit(history([1], n_items=5)),
        lambda: Bridge({}),
        lambda: Bridge({**fields, "text": plain(np.eye(3))}),
        lambda: Bridge(fields, l2=0),
        lambda: Bridge(fields).fit(history([1], n_items=5)),
    ):
        with pytest.raises(InvalidInput, match="expected"):
            make()


# Bridge --------------------------------------------------------------------------------------------------------------


def like_one_colour(n_colours=4, per_colour=30, n_users=120, n_cold=8, seed=0):
    """People who each like things of one colour. Vectors are a strong pattern, which nobody minds, and the colour.

    The last ``n_cold`` of each colour nobody has had. Returns the people, the vectors, and each item's colour.
    """
    random = np.random.default_rng(seed)
    colours = np.tile(np.arange(n_colours), per_colour)
    warm = np.arange(len(colours)) < n_colours * (per_colour - n_cold)
    pattern = np.eye(12)[random.integers(0, 12, len(colours))]
    rows = np.hstack([3.0 * pattern, np.eye(n_colours)[colours] + 0.2 * random.normal(size=(len(colours), n_colours))])
    users = np.repeat(np.arange(n_users), 6)
    items = [
        random.choice(np.flatnonzero(warm & (colours == user % n_colours)), 6, replace=False) for user in range(n_users)
    ]
    return Behaviour.of(users, np.concatenate(items), n_users=n_users, n_items=len(colours)), rows, colours, warm


def right_colour_share(scores, people, colours, warm, k=5):
    """Of the first k new items of each person, how many are of the colour they like."""
    cold = np.flatnonzero(~warm)
    best = cold[np.argsort(-scores[:, cold], axis=1)[:, :k]]
    return np.mean(colours[best] == (np.arange(people.n_users) % 4)[:, None])


def test_what_nobody_has_had_yet_is_told_by_what_in_its_content_behaviour_follows():
    people, rows, colours, warm = like_one_colour()
    fields = {"picture": ItemVectors(rows)}
    bridged = right_colour_share(Bridge(fields).fit(people).scores(people), people, colours, warm)
    nearest = right_colour_share(Content(fields, profile="nearest").scores(people), people, colours, warm)
    assert bridged > 0.95
    assert nearest < 0.6  # it goes by the pattern


def test_the_bridge_is_its_formula():
    people, fields = some_people(), {"picture": ItemVectors(some_rows()), "text": ItemVectors(some_rows(seed=1)[:, :3])}
    liked = (people.liked().toarray() > 0).astype(float)
    counts = liked.sum(axis=0)
    cosines = liked.T @ liked / np.sqrt(np.outer(np.maximum(counts, 1), np.maximum(counts, 1)))
    np.fill_diagonal(cosines, 0)
    content = np.hstack([*(vectors.take(np.arange(50)) for vectors in fields.values()), np.ones((50, 1))])
    known = counts > 0
    assert 0 < known.sum() < 50
    solved = content[known] @ np.linalg.inv(content[known].T @ content[known] + 3.0 * np.eye(12))
    told = some_people(seed=3)
    say = says(told, 0.5) * recency(told, 0.9)
    mixed = np.zeros((told.n_users, 50))
    np.add.at(mixed, (told.users, told.items), say)
    mixed /= np.maximum(np.bincount(told.users, np.abs(say), told.n_users), 1e-12)[:, None]
    expected = mixed @ cosines[:, known] @ solved @ content.T
    bridge = Bridge(fields, l2=3.0, decay=0.9).fit(people)
    np.testing.assert_allclose(bridge.scores(told), expected, atol=1e-5)
    assert np.abs(expected).max() > 0.01


def test_the_directions_that_vary_most_are_kept_where_there_are_many():
    people, rows, colours, warm = like_one_colour()
    wide = np.hstack([rows, 0.01 * np.random.default_rng(0).normal(size=(len(rows), 30))])
    bridge = Bridge({"picture": ItemVectors(wide)}, max_features=16).fit(people)
    assert bridge.state()["axes"].shape == (46, 16)
    assert right_colour_share(bridge.scores(people), people, colours, warm) > 0.95


def test_items_that_came_since_are_told_like_those_that_were_there(tmp_path):
    people, rows, _, warm = like_one_colour()
    all_of_them, n = plain(rows), int(warm.sum())
    early = Bridge({"picture": plain(rows[:n])}).fit(people.over(n))
    for name, array in early.state().items():
        np.save(tmp_path / f"{name}.npy", array)
    state = {name: np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in early.state()}
    grown = Bridge({"picture": all_of_them}).restore(state)
    assert grown.n_items == len(rows)
    np.testing.assert_allclose(
        grown.scores(people), Bridge({"picture": all_of_them}).fit(people).scores(people), atol=1e-5
    )
    assert np.isfinite(grown.scores(history([n, 0], n_items=len(rows)))).all()
    for fields in ({"picture": plain(rows[:, 1:])}, {"picture": plain(rows[: n - 1])}):
        with pytest.raises(InvalidInput, match="wide of"):
            Bridge(fields).restore(state)
