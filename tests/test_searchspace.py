"""The graph over a space: the exact answers, whatever happened to the file; a lowered crossover makes it small."""

import hashlib
import os
import shutil
import threading

import numpy as np
import pytest

from mmsearch import Engine, Item, Query, searchspace
from mmsearch.doctor import BAD, NOTE, examine

CLUSTERS = 30


class ClusterEncoder:
    """Texts "cluster member" to vectors around the cluster's centre; "same …" always to the same vector."""

    name = "clusters"
    licence = "none"
    runtime = "numpy"
    image_size = 8
    dim = 32
    fingerprint = "clusters-1"

    def encode_texts(self, texts):
        rows = np.empty((len(texts), self.dim), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            cluster, _, member = text.partition(" ")
            row[:] = self._noise(cluster) + (0 if cluster == "same" else 0.6) * self._noise(member)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def encode_images(self, images):
        raise NotImplementedError

    def prepare(self, image):
        return image

    def split_text(self, text):
        return [text]

    def _noise(self, word):
        seed = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "big")
        return np.random.default_rng(seed).standard_normal(self.dim)


def items(first: int, last: int) -> list[Item]:
    return [
        Item(id=f"{n:05}", text=f"c{n % CLUSTERS} {n}", metadata={"n": n, "third": n % 3}) for n in range(first, last)
    ]


QUERIES = [Query(text=f"c{n % CLUSTERS} query {n}") for n in range(60)]


def overlap(engine: Engine, k: int = 10, **options) -> float:
    """Share of the exact top k, by score, that the index finds."""
    found = engine.search_many(QUERIES, k, **options)
    right = engine.search_many(QUERIES, k, exact=True, **options)
    assert [len(hits) for hits in found] == [len(hits) for hits in right]
    good = [hit.score >= its[-1].score for hits, its in zip(found, right, strict=True) for hit in hits]
    return sum(good) / len(good)


def answers(engine: Engine, k: int = 10, **options) -> list[list[tuple[str, float]]]:
    return [[(hit.item.id, hit.score) for hit in hits] for hits in engine.search_many(QUERIES, k, **options)]


@pytest.fixture(autouse=True)
def low_crossover(monkeypatch):
    monkeypatch.setattr(searchspace, "CROSSOVER", 500)
    monkeypatch.setattr("mmsearch.retrieval.SCAN_ALLOWED", 50)


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A store of 900 items with a graph over all."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(searchspace, "CROSSOVER", 500)
        path = tmp_path_factory.mktemp("template") / "store"
        with Engine.open(path, ClusterEncoder()) as engine:
            engine.add(items(0, 900))
    return path


@pytest.fixture
def store(template, tmp_path):
    return shutil.copytree(template, tmp_path / "store")


@pytest.fixture
def engine(store):
    with Engine.open(store, ClusterEncoder()) as engine:
        yield engine


def graph_file(engine: Engine):
    return engine.path / "indexes" / "1-text-0.usearch"


def kind(engine: Engine) -> str:
    return engine.info().spaces["text"].index


# Answers ------------------------------------------------------------------------------------------------------------


def test_below_the_crossover_there_is_no_graph(tmp_path):
    with Engine.open(tmp_path / "small", ClusterEncoder()) as engine:
        engine.add(items(0, 499))
        assert kind(engine) == "exact"
        assert list((engine.path / "indexes").iterdir()) == []
        engine.add(items(499, 500))
        assert kind(engine) == "hnsw"


def test_the_graph_finds_what_the_scan_finds(engine):
    assert kind(engine) == "hnsw"
    assert overlap(engine) >= 0.99
    assert engine.info().spaces["text"].recall >= 0.99


def test_every_item_is_found_by_its_own_text(engine):
    hits = engine.search_many([Query(id=f"{n:05}") for n in range(900)], 1)
    assert [found[0].item.id for found in hits] == [f"{n:05}" for n in range(900)]


def test_rows_that_the_graph_does_not_cover_yet_are_found_at_once(engine):
    before = graph_file(engine).read_bytes()
    engine.add(items(900, 950))
    assert graph_file(engine).read_bytes() == before
    hits = engine.search_many([Query(id=f"{n:05}") for n in range(900, 950)], 1)
    assert [found[0].item.id for found in hits] == [f"{n:05}" for n in range(900, 950)]
    assert overlap(engine) >= 0.99


def test_growth_beyond_the_tail_extends_the_graph(engine):
    for first in range(900, 1300, 100):
        engine.add(items(first, first + 100))
        assert overlap(engine) >= 0.99
        own = engine.search_many([Query(id=f"{n:05}") for n in range(first, first + 100)], 1)
        assert [found[0].item.id for found in own] == [f"{n:05}" for n in range(first, first + 100)]
    space = engine._store.view().spaces["text"]
    assert len(space.graph()) > 1100
    assert engine.info().spaces["text"].recall >= 0.99


def test_the_grown_graph_serves_after_reopening_too(store):
    with Engine.open(store, ClusterEncoder()) as engine:
        engine.add(items(900, 1200))
        right = answers(engine)
    with Engine.open(store, ClusterEncoder()) as engine:
        assert kind(engine) == "hnsw"
        assert answers(engine) == right


def test_answers_do_not_depend_on_the_batch(engine):
    together = answers(engine)
    alone = [[(hit.item.id, hit.score) for hit in engine.search(query, 10)] for query in QUERIES]
    assert alone == together


@pytest.mark.parametrize("where", ["n < 8", "n < 40", "n < 60", "third = 1", "n >= 10", "n < 899", "n >= 0"])
def test_a_filter_gives_k_answers_if_k_exist_and_the_right_ones(engine, where):
    passing = {"n < 8": 8, "n < 40": 40, "n < 60": 60, "third = 1": 300}.get(where, 800)
    hits = engine.search_many(QUERIES, 20, where=where)
    assert [len(found) for found in hits] == [min(20, passing)] * len(QUERIES)
    assert overlap(engine, 20, where=where) >= 0.99


def test_a_filter_that_fits_only_far_away_items_gives_them(engine):
    """Everything that passes lies in another cluster than the query: the graph alone would not get there."""
    where = {"n": {"$in": [7 + CLUSTERS * member for member in range(30)]}}
    hits = engine.search("c19 query", 25, where=where)
    assert len(hits) == 25
    assert hits == engine.search("c19 query", 25, where=where, exact=True)


def test_asking_for_all_gives_all(engine):
    assert len(engine.search("c1 query", 2000)) == 900


def test_200_copies_of_one_text_hide_nothing_and_are_all_found(engine):
    engine.add([Item(id=f"copy {n}", text=f"same {n}", metadata={"n": -1}) for n in range(200)])
    assert kind(engine) == "hnsw"
    hits = engine.search("same again", 200)
    assert {hit.item.id for hit in hits} == {f"copy {n}" for n in range(200)}
    assert overlap(engine) >= 0.99
    own = engine.search_many([Query(id=f"{n:05}") for n in range(0, 900, 7)], 1)
    assert [found[0].item.id for found in own] == [f"{n:05}" for n in range(0, 900, 7)]


# Removing -----------------------------------------------------------------------------------------------------------


def test_removed_items_are_never_found_and_never_missed(engine):
    engine.remove([f"{n:05}" for n in range(0, 900, 2)])
    hits = engine.search_many(QUERIES, 50)
    assert {len(found) for found in hits} == {50}
    assert all(hit.item.metadata["n"] % 2 for found in hits for hit in found)
    assert overlap(engine, 50) >= 0.99


def test_after_many_removals_the_graph_is_built_anew_at_the_next_growth(engine):
    engine.remove([f"{n:05}" for n in range(0, 900, 2)])
    engine.add(items(900, 1100))
    space = engine._store.view().spaces["text"]
    assert len(space.graph()) == 450 + 200
    assert overlap(engine) >= 0.99


def test_the_reported_recall_does_not_suffer_from_removed_items(engine):
    engine.remove([f"{n:05}" for n in range(0, 900, 5)])
    engine.add(items(900, 1100))
    assert overlap(engine) >= 0.99
    assert engine.info().spaces["text"].recall >= 0.99
    notes = [finding.message for finding in examine(engine.path) if finding.subject == "index" and finding.advice]
    assert notes == []


def test_removing_99_percent_leaves_the_rest_findable(engine):
    engine.remove([f"{n:05}" for n in range(900) if n % 100])
    assert {hit.item.id for hit in engine.search("c1 query", 20)} == {f"{n:05}" for n in range(0, 900, 100)}


def test_a_store_from_which_everything_was_removed_answers_nothing(engine):
    engine.remove([f"{n:05}" for n in range(900)])
    assert engine.search("c1 query") == []
    engine.rebuild()
    assert engine.search("c1 query") == []


def test_a_graph_over_removed_items_only_answers_nothing(store):
    with Engine.open(store, ClusterEncoder()) as engine:
        engine.remove([f"{n:05}" for n in range(899)])
        graph_file(engine).unlink()
    with Engine.open(store, ClusterEncoder()) as engine:
        engine.remove(["00899"])
        assert engine.search("c1 query") == []
        assert engine.add(items(0, 1)).added == 1
        assert [hit.item.id for hit in engine.search("c1 query")] == ["00000"]


def test_compaction_renumbers_rows_and_the_answers_stay(engine):
    engine.remove([f"{n:05}" for n in range(0, 900, 4)])
    right = answers(engine, exact=True)
    engine.rebuild()
    assert (engine.path / "indexes" / "1-text-1.usearch").exists()
    assert not graph_file(engine).exists()
    assert answers(engine, exact=True) == right
    assert answers(engine) == right
    assert engine.info().spaces["text"].rows == 675


# Damage -------------------------------------------------------------------------------------------------------------


def cut(file):
    os.truncate(file, file.stat().st_size // 2)


def flip(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(data)


def empty(file):
    os.truncate(file, 0)


def foreign(file):
    file.write_bytes(b"something else entirely" * 100)


@pytest.mark.parametrize("suffix", ["", ".json", ".groups"])
@pytest.mark.parametrize("harm", [cut, flip, empty, foreign, os.unlink])
def test_a_damaged_graph_changes_no_answer_and_is_made_again_by_the_next_write(store, harm, suffix):
    with Engine.open(store, ClusterEncoder()) as engine:
        right = answers(engine, exact=True)
        file = graph_file(engine)
        harm(file.with_name(file.name + suffix))
    with Engine.open(store, ClusterEncoder()) as engine:
        assert answers(engine) == right
        assert kind(engine) == "exact"
        engine.add([Item(id="unlike", text="elsewhere unlike")])
        assert kind(engine) == "hnsw"
        assert answers(engine) == right
        if suffix or harm is not os.unlink:
            assert [name for name in os.listdir(store / "indexes") if ".damaged-" in name]
    with Engine.open(store, ClusterEncoder()) as engine:
        assert kind(engine) == "hnsw"


def test_the_graph_of_another_store_is_not_used(store, tmp_path):
    with Engine.open(tmp_path / "other", ClusterEncoder()) as other:
        other.add([Item(id=f"{n:05}", text=f"other {n}") for n in range(900)])
    with Engine.open(store, ClusterEncoder()) as engine:
        right = answers(engine, exact=True)
    shutil.copytree(tmp_path / "other" / "indexes", store / "indexes", dirs_exist_ok=True)
    with Engine.open(store, ClusterEncoder()) as engine:
        assert overlap(engine) >= 0.99
        assert answers(engine, exact=True) == right


def test_a_catalog_restored_from_a_backup_does_not_meet_the_graph_of_later_rows(store):
    backup = (store / "catalog.sqlite").read_bytes()
    with Engine.open(store, ClusterEncoder()) as engine:
        engine.add(items(900, 1200))
    (store / "catalog.sqlite").write_bytes(backup)
    with Engine.open(store, ClusterEncoder()) as engine:
        assert overlap(engine) >= 0.99
        # As many rows as the graph knows, but others.
        engine.add([Item(id=f"late {n}", text=f"late {n}") for n in range(300)])
        own = engine.search_many([Query(id=f"late {n}") for n in range(300)], 1)
        assert [found[0].item.id for found in own] == [f"late {n}" for n in range(300)]
        assert overlap(engine) >= 0.99


# Several engines ----------------------------------------------------------------------------------------------------


class Waits(ClusterEncoder):
    """Encodes a query when it is told to."""

    def __init__(self) -> None:
        self.asked, self.go = threading.Event(), threading.Event()

    def encode_texts(self, texts):
        self.asked.set()
        assert self.go.wait(60)
        return super().encode_texts(texts)


def search_across(reader: Engine, encoder: Waits, write) -> list:
    """Search in another thread; write after the search has begun and before it looks at the index."""
    hits: list = []
    errors: list = []

    def search():
        try:
            hits.extend(reader.search("c1 query", 10))
        except Exception as error:
            errors.append(repr(error))

    thread = threading.Thread(target=search)
    thread.start()
    assert encoder.asked.wait(60)
    try:
        write()
    finally:
        encoder.go.set()
        thread.join()
    assert errors == []
    return hits


def test_a_search_that_began_before_the_graph_grew_gives_the_answers_of_its_time(store):
    encoder = Waits()
    with Engine.open(store, encoder) as reader, Engine.open(store, ClusterEncoder()) as writer:
        right = writer.search("c1 query", 10, exact=True)
        near = [Item(id=f"near {n}", text="c1 query") for n in range(200)]
        hits = search_across(reader, encoder, lambda: writer.add(near))
        assert [hit.score for hit in hits] == [hit.score for hit in right]


def test_a_search_that_began_before_a_compaction_gives_the_answers_of_its_time(store):
    encoder = Waits()
    with Engine.open(store, encoder) as reader, Engine.open(store, ClusterEncoder()) as writer:
        right = writer.search("c1 query", 10, exact=True)

        def write():
            writer.remove([f"{n:05}" for n in range(0, 900, 2)])
            writer.rebuild()

        hits = search_across(reader, encoder, write)
        assert [hit.score for hit in hits] == [hit.score for hit in right]


def test_the_folder_of_indexes_is_a_cache_that_may_be_deleted(store):
    shutil.rmtree(store / "indexes")
    with Engine.open(store, ClusterEncoder()) as engine:
        assert overlap(engine) == 1.0
        assert engine.remove(["00000"]) == 1
        assert kind(engine) == "hnsw"
        assert overlap(engine) >= 0.99


def test_a_reader_that_looked_before_the_graph_was_built_uses_it_afterwards(store):
    shutil.rmtree(store / "indexes")
    (store / "indexes").mkdir()
    with Engine.open(store, ClusterEncoder()) as reader, Engine.open(store, ClusterEncoder()) as writer:
        assert kind(reader) == "exact"
        writer.rebuild()
        assert kind(writer) == "hnsw"
        assert kind(reader) == "hnsw"


def test_doctor_says_when_there_is_no_usable_graph_and_what_to_do(store):
    flip(store / "indexes" / "1-text-0.usearch")
    (finding,) = [finding for finding in examine(store) if finding.subject == "index"]
    assert finding.level == NOTE
    assert "no usable graph" in finding.message
    assert "mmsearch sync" in finding.advice
    assert [finding for finding in examine(store) if finding.level == BAD] == []
    with Engine.open(store, ClusterEncoder()) as engine:
        engine.sync()
        assert kind(engine) == "hnsw"
