"""Clusters of a store: named, known again the next time, and defined for every collection."""

import json
import math

import numpy as np
import pytest

from mmsearch import Engine, InvalidInput, Item, ItemNotFound
from mmsearch.clusters import NOISE, Clustering


@pytest.fixture
def filled(engine, toy_folder):
    """An engine with sixty pictures: five of each of twelve kinds."""
    engine.add_folder(toy_folder)
    return engine


def numbers_of(found):
    """Every number that a clustering tells."""
    for quality in (found.quality, *(cluster.quality for cluster in found)):
        yield from (quality.silhouette, quality.cohesion, quality.separation, quality.stability)
    yield from (cluster.confidence for cluster in found)
    yield from found.tried.values()


def check(found, engine):
    """What holds of every clustering."""
    assert set(found.labels) == {item.id for item in engine.items()}
    assert all(math.isfinite(number) for number in numbers_of(found))
    assert all(0 <= cluster.confidence <= 1 for cluster in found)
    assert len({cluster.id for cluster in found}) == len({cluster.title for cluster in found}) == len(found)
    for cluster in found:
        members = {id for id, label in found.labels.items() if label == cluster.id}
        assert {item.id for item in cluster.items} == members
        assert len(cluster) == len(cluster.items) == len(members) > 0
        assert {item.id for item in (*cluster.exemplars, *cluster.exemplars.border, *cluster.exemplars.odd)} <= members
        assert cluster.exemplars.medoid == cluster.items[0]
        assert cluster.name == cluster.keywords[0]
        assert found[cluster.id] is cluster
    assert [len(cluster) for cluster in found] == sorted((len(cluster) for cluster in found), reverse=True)
    assert sum(len(cluster) for cluster in found) + found.n_noise == len(engine)


@pytest.mark.parametrize("method", ["auto", "kmeans", "minibatch", "agglomerative"])
def test_each_kind_is_a_cluster_that_is_called_by_its_name(filled, toy, method):
    found = filled.clusters(12, method=method, vocabulary=toy.KINDS)
    check(found, filled)
    assert {cluster.name for cluster in found} == set(toy.KINDS)
    for cluster in found:
        assert {toy.kind_of(item) for item in cluster.items} == {cluster.name}
        assert cluster.confidence == 1
        assert cluster.title == cluster.name


def test_the_number_of_clusters_is_found_where_it_is_not_given(filled, toy):
    found = filled.clusters(vocabulary=toy.KINDS)
    check(found, filled)
    assert len(found) == 12
    assert max(found.tried, key=found.tried.get) == 12


def test_dense_groups_are_clusters_and_the_rest_is_noise(filled, toy):
    found = filled.clusters(method="hdbscan", vocabulary=toy.KINDS)
    check(found, filled)
    assert len(found) > 1
    for cluster in found:
        assert {toy.kind_of(item) for item in cluster.items} == {cluster.name}


def test_the_same_seed_gives_the_same_answer(filled, toy):
    first, second = (filled.clusters(5, vocabulary=toy.KINDS, seed=3) for _ in range(2))
    assert first.labels == second.labels
    assert [one.name for one in first] == [one.name for one in second]


def test_only_what_passes_the_filter_is_clustered(engine, toy):
    pictures = [(kind, n) for kind in toy.KINDS[:4] for n in range(4)]
    engine.add(Item(f"{kind} {n}", image=toy.png_of(kind, n), metadata={"n": n}) for kind, n in pictures)
    found = engine.clusters(4, where={"n": {"$lt": 2}}, vocabulary=toy.KINDS)
    assert set(found.labels) == {f"{kind} {n}" for kind, n in pictures if n < 2}
    assert {cluster.name for cluster in found} == set(toy.KINDS[:4])


# Identity ---------------------------------------------------------------------------------------------------------


def test_a_cluster_keeps_its_id_and_name_while_the_collection_grows(engine, toy, folder):
    engine.add_folder(toy.draw_all(folder, toy.KINDS[:4], each=5))
    before = {cluster.name: cluster.id for cluster in engine.clusters(4, vocabulary=toy.KINDS)}
    toy.draw_all(folder, toy.KINDS[4:6], each=9)
    engine.add_folder(folder)
    found = engine.clusters(6, vocabulary=toy.KINDS)
    after = {cluster.name: cluster.id for cluster in found}
    assert set(after) == set(toy.KINDS[:6])
    assert {name: after[name] for name in before} == before
    assert {(change.kind, change.name) for change in found.changes} == {("new", kind) for kind in toy.KINDS[4:6]}


def test_ids_outlive_the_engine(open_engine, toy, toy_folder):
    engine = open_engine()
    engine.add_folder(toy_folder)
    before = engine.clusters(12, vocabulary=toy.KINDS).labels
    engine.close()
    assert open_engine().clusters(12, vocabulary=toy.KINDS, seed=7).labels == before


def test_a_cluster_that_is_gone_is_reported_and_its_id_is_not_used_again(engine, toy, folder):
    engine.add_folder(toy.draw_all(folder, toy.KINDS[:3], each=6))
    before = {cluster.name: cluster.id for cluster in engine.clusters(3, vocabulary=toy.KINDS)}
    gone = toy.KINDS[0]
    engine.remove([item.id for item in engine.items() if toy.kind_of(item) == gone])
    engine.add(Item(f"new {n}", image=toy.png_of(toy.KINDS[3], n)) for n in range(6))
    found = engine.clusters(3, vocabulary=toy.KINDS)
    after = {cluster.name: cluster.id for cluster in found}
    assert after[toy.KINDS[3]] > max(before.values())
    assert {("vanished", before[gone], gone, 6, 0)} <= {
        (one.kind, one.id, one.name, one.before, one.after) for one in found.changes
    }


def test_clusters_of_another_filter_are_others(engine, toy):
    engine.add(
        Item(f"{kind} {n}", image=toy.png_of(kind, n), metadata={"n": n}) for kind in toy.KINDS[:2] for n in range(6)
    )
    whole = engine.clusters(2, vocabulary=toy.KINDS)
    found = engine.clusters(2, where="n < 3", vocabulary=toy.KINDS)
    assert found.changes == ()
    assert not {cluster.id for cluster in found} & {cluster.id for cluster in whole}
    assert {cluster.id for cluster in engine.clusters(2, vocabulary=toy.KINDS)} == {cluster.id for cluster in whole}


def test_other_numbers_of_clusters_do_not_cost_clusters_their_ids(filled, toy):
    before = filled.clusters(12, vocabulary=toy.KINDS)
    fewer = filled.clusters(3, vocabulary=toy.KINDS)
    filled.clusters(method="hdbscan", vocabulary=toy.KINDS)
    assert max(cluster.id for cluster in fewer) < 12 + 3
    after = filled.clusters(12, vocabulary=toy.KINDS)
    assert after.labels == before.labels
    assert [(one.id, one.name) for one in after] == [(one.id, one.name) for one in before]


def test_many_filters_do_not_cost_the_whole_collection_its_ids(engine, toy):
    engine.add(Item(f"{n}", image=toy.png_of(toy.KINDS[n % 2], n), metadata={"n": n}) for n in range(40))
    before = engine.clusters(2, vocabulary=toy.KINDS).labels
    for n in range(1, 40):
        engine.clusters(1, where=f"n <= {n}", vocabulary=toy.KINDS)
    assert engine.clusters(2, vocabulary=toy.KINDS).labels == before


def test_a_clustering_that_is_lost_does_not_give_its_ids_to_others(filled, toy):
    before = filled.clusters(12, vocabulary=toy.KINDS)
    for file in (filled.path / "clusters").glob("*/*"):
        file.unlink()
    found = filled.clusters(12, vocabulary=toy.KINDS)
    check(found, filled)
    assert not {cluster.id for cluster in found} & {cluster.id for cluster in before}


def test_a_store_that_cannot_be_written_is_clustered_all_the_same(open_engine, toy_folder, toy, tmp_path):
    engine = open_engine()
    engine.add_folder(toy_folder)
    with open_engine()._store.writing():  # somebody else is writing
        found = engine.clusters(12, vocabulary=toy.KINDS)
    check(found, engine)
    assert any("ids may be others" in note for note in found.notes)


@pytest.mark.parametrize(
    "spoilt", ["not json", "[]", '{"null": 7}', '{"null": {"shelf": "0"}}', '{"null": {"shelf": 1, "facts": []}}']
)
def test_a_memory_that_cannot_be_read_is_no_obstacle(filled, toy, spoilt):
    filled.clusters(12, vocabulary=toy.KINDS)
    with filled._store.writing(), filled._store.catalog.transaction():
        filled._store.catalog.set_setting("clusters", spoilt)
    found = filled.clusters(12, vocabulary=toy.KINDS)
    assert found.changes == ()
    check(found, filled)


# Names ------------------------------------------------------------------------------------------------------------


def test_names_say_what_sets_clusters_apart_and_not_what_all_share(engine, toy, folder):
    engine.add_folder(toy.draw_all(folder, ("red disc", "red square", "red triangle"), each=6))
    found = engine.clusters(3, vocabulary=["red", "disc", "square", "triangle"])
    assert {cluster.name for cluster in found} == {"disc", "square", "triangle"}


def test_clusters_of_one_name_have_titles_that_tell_them_apart(engine, toy, folder):
    engine.add_folder(toy.draw_all(folder, ("red disc", "blue disc", "green square"), each=6))
    found = engine.clusters(3, vocabulary=["disc", "red", "blue", "square"])
    check(found, engine)
    for cluster in found:
        assert cluster.title.startswith(cluster.name)


def test_the_collections_own_titles_are_words_too(engine, toy):
    engine.add(
        Item(f"{kind} {n}", image=toy.png_of(kind, n), metadata={"title": f"{kind} no {n}"})
        for kind in ("red disc", "blue square")
        for n in range(30)
    )
    found = engine.clusters(2, vocabulary="collection")
    assert {toy.kind_of(cluster.items[0]) for cluster in found} == {"red disc", "blue square"}
    for cluster in found:
        words = set(toy.kind_of(cluster.items[0]).split())
        assert set(cluster.name.split()) <= words


def test_a_collection_without_titles_has_no_words_of_its_own(engine, toy):
    engine.add(Item(str(n), image=toy.png_of(kind)) for n, kind in enumerate(toy.KINDS))
    with pytest.raises(InvalidInput, match="titles or keywords"):
        engine.clusters(3, vocabulary="collection")


def test_the_numbers_that_cameras_give_are_no_words(engine, toy, folder):
    for n in range(12):
        toy.draw(folder / f"{'IMG' if n < 6 else 'DSCF'}_{n:04}.png", "red disc" if n < 6 else "blue square", n)
    engine.add_folder(folder)
    for cluster in engine.clusters(2):
        assert not {"img", "dscf"} & set(cluster.keywords)


def test_keywords_are_at_most_five_and_never_twice(filled, toy):
    for cluster in filled.clusters(6, vocabulary=[*toy.KINDS, *toy.KINDS]):
        assert 1 <= len(cluster.keywords) <= 5
        assert len(set(cluster.keywords)) == len(cluster.keywords)


def test_texts_are_clustered_and_named_as_well(engine, toy):
    engine.add(Item(f"{kind} {n}", text=f"a {kind} number {n}") for kind in toy.KINDS[:3] for n in range(5))
    found = engine.clusters(3, vocabulary=toy.KINDS)
    check(found, engine)
    assert {cluster.name for cluster in found} == set(toy.KINDS[:3])


def test_pictures_and_texts_of_a_kind_share_a_cluster(engine, toy):
    kinds = ("red disc", "blue square", "green triangle")
    engine.add(Item(f"{kind} {n}", image=toy.png_of(kind, n)) for kind in kinds for n in range(6))
    engine.add(Item(f"{kind} text {n}", text=f"{kind} {n}") for kind in kinds for n in range(6))
    found = engine.clusters(3, vocabulary=kinds)
    check(found, engine)
    for cluster in found:
        assert {toy.kind_of(item) for item in cluster.items} == {cluster.name}
        assert len(cluster) == 12


# Every collection has a defined answer ----------------------------------------------------------------------------


def test_nothing_gives_no_clusters(engine):
    found = engine.clusters()
    assert (len(found), dict(found.labels), found.n_noise, found.hierarchy) == (0, {}, 0, ())
    with pytest.raises(ItemNotFound, match="no cluster 0"):
        found[0]


@pytest.mark.parametrize("n", [None, 1, 2, 10])
@pytest.mark.parametrize("count", [1, 2])
def test_one_and_two_items_have_at_most_as_many_clusters(engine, toy, n, count):
    engine.add(Item(kind, image=toy.png_of(kind)) for kind in toy.KINDS[:count])
    found = engine.clusters(n, vocabulary=toy.KINDS)
    check(found, engine)
    assert 1 <= len(found) <= min(count, n or count)


@pytest.mark.parametrize("n", [None, 1, 5])
def test_identical_pictures_are_one_cluster(engine, toy, n):
    engine.add(Item(f"copy {i}", image=toy.png_of("red disc")) for i in range(7))
    found = engine.clusters(n, vocabulary=toy.KINDS)
    check(found, engine)
    assert [len(cluster) for cluster in found] == [7]
    assert found.clusters[0].name == "red disc"


def test_one_cluster_holds_everything_and_is_called_by_what_all_share(engine, toy, folder):
    engine.add_folder(toy.draw_all(folder, ("red disc", "red square"), each=5))
    found = engine.clusters(1, vocabulary=["red", "green", "blue", "yellow"])
    check(found, engine)
    assert [(cluster.name, len(cluster)) for cluster in found] == [("red", 10)]


def test_more_clusters_than_items_gives_each_its_own(engine, toy, folder):
    engine.add_folder(toy.draw_all(folder, toy.KINDS, each=1))
    found = engine.clusters(100, vocabulary=toy.KINDS)
    check(found, engine)
    assert len(found) == 12


def test_all_noise_is_no_cluster(engine, toy):
    rng = np.random.default_rng(0)
    pictures = [rng.integers(128, 256, (16, 16, 3), dtype=np.uint8) for _ in range(12)]
    from PIL import Image

    engine.add(Item(str(n), image=Image.fromarray(picture)) for n, picture in enumerate(pictures))
    found = engine.clusters(method="hdbscan")
    check(found, engine)
    assert set(found.labels.values()) <= {NOISE, 0}


def test_items_without_a_vector_are_noise_and_a_note_says_so(engine, toy, toy_folder):
    engine.add_folder(toy_folder)
    engine.close()
    with Engine.open(engine.path, toy.ToyEncoder(), spaces=["text"]) as narrow:
        narrow.add([Item("words", text="red disc")])
        found = narrow.clusters(2, vocabulary=toy.KINDS)
    assert isinstance(found, Clustering)
    assert found.labels["words"] == NOISE  # one text among sixty pictures must not change what these are grouped by
    assert any("no cluster" in note for note in found.notes)


@pytest.mark.parametrize("n", [0, -1, 1.5, True, "3"])
def test_a_bad_number_is_refused(filled, n):
    with pytest.raises(InvalidInput, match="expected n"):
        filled.clusters(n)


def test_a_bad_method_is_refused_with_the_ones_there_are(filled):
    with pytest.raises(InvalidInput, match="kmeans"):
        filled.clusters(method="k-means")


@pytest.mark.parametrize("vocabulary", ["red disc", [], [""], ["a", 3], 7])
def test_a_bad_vocabulary_is_refused(filled, vocabulary):
    with pytest.raises(InvalidInput, match="vocabulary"):
        filled.clusters(3, vocabulary=vocabulary)


def test_items_are_read_when_they_are_looked_at(filled, toy):
    cluster = filled.clusters(12, vocabulary=toy.KINDS).clusters[0]
    assert isinstance(cluster.items[0], Item)
    assert [item.id for item in cluster.items[1:3]] == [item.id for item in cluster.items][1:3]
    filled.remove([cluster.items[4].id])
    with pytest.raises(ItemNotFound, match="removed since"):
        list(cluster.items)


# Against labels, and on the command line --------------------------------------------------------------------------


@pytest.fixture
def labelled(engine, toy):
    kinds = toy.KINDS[:4]
    engine.add(
        Item(f"{kind} {n}", image=toy.png_of(kind, n), metadata={"colour": kind.split()[0], "kind": kind, "n": n})
        for kind in kinds
        for n in range(5)
    )
    return engine


def test_clusters_that_are_the_labels_agree_with_them_wholly(labelled, toy):
    found = labelled.clusters(4, vocabulary=toy.KINDS)
    assert labelled.cluster_agreement(found, "kind") == pytest.approx({"nmi": 1, "ari": 1, "purity": 1})
    assert labelled.cluster_agreement(found, "colour")["purity"] == 1
    assert labelled.cluster_agreement(found, "colour")["nmi"] < 1


def test_a_field_that_no_item_has_is_refused_with_those_there_are(labelled):
    with pytest.raises(InvalidInput, match="colour, kind, n"):
        labelled.cluster_agreement(labelled.clusters(4), "size")


def test_the_command_line_prints_what_scripts_rely_on(labelled, ask, toy, tmp_path, monkeypatch):
    monkeypatch.setattr("mmsearch.engine._load", lambda name: toy.ToyEncoder())
    words = tmp_path / "words.txt"
    words.write_text("\n".join(toy.KINDS))
    store = ("--store", labelled.path)
    code, shown, _ = ask("clusters", "--n", 4, "--labels", "kind", "--vocabulary", words, "--json", *store)
    told = json.loads(shown)
    assert code == 0
    assert (told["n"], told["noise"]) == (4, 0)
    assert told["measures"] == pytest.approx({"nmi": 1, "ari": 1, "purity": 1})
    assert {one["name"] for one in told["clusters"]} == set(toy.KINDS[:4])
    for one in told["clusters"]:
        assert {"id", "name", "size", "keywords", "confidence"} <= one.keys()
        assert (one["size"], one["keywords"][0]) == (5, one["name"])
    code, shown, _ = ask("clusters", "--n", 4, "--vocabulary", words, "--json", *store)
    assert "measures" not in json.loads(shown)
    code, shown, _ = ask("clusters", "--n", 4, "--vocabulary", words, "--sheet", tmp_path / "sheet.png", *store)
    assert code == 0
    assert all(kind in shown for kind in toy.KINDS[:4])
    assert (tmp_path / "sheet.png").stat().st_size > 1_000


def test_a_vocabulary_file_that_is_not_there_is_one_clear_error(labelled, ask):
    code, _, error = ask("clusters", "--vocabulary", "nowhere.txt", "--store", labelled.path)
    assert code == 2
    assert "a text file with a word a line" in error


def test_an_empty_store_has_nothing_to_show(engine, ask):
    code, shown, _ = ask("clusters", "--json", "--store", engine.path)
    assert code == 1
    assert json.loads(shown)["clusters"] == []
