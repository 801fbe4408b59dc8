"""Late interaction: each word looks for its cell; and where it is found, as a map."""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mmsearch import Engine, Item, Query
from mmsearch.errors import InvalidInput, ItemNotFound
from mmsearch.protocols import CellEncoder
from mmsearch.rerank.late import LateInteraction, by_word, heat
from mmsearch.types import Words

GALLERY = Path(__file__).parents[1] / "assets" / "gallery" / "images.zip"


@pytest.fixture
def world(quadrants):
    return quadrants.QuadrantEncoder()


@pytest.fixture
def store(quadrants, world, tmp_path):
    with Engine.open(tmp_path / "store", world, spaces=["picture", "text", "cells"]) as engine:
        yield engine


@pytest.fixture
def pictures(quadrants, store):
    """Pictures with one colour, two, four, and none."""
    kinds = {
        "red": "red white white white",
        "red and blue": "white red blue white",
        "all": "red green blue yellow",
        "none": "white white white white",
    }
    store.add([Item(id=name, image=quadrants.mosaic(kind)) for name, kind in kinds.items()])
    return store


def test_the_toy_world_has_cells(world):
    assert isinstance(world, CellEncoder)


def test_a_picture_counts_for_what_each_word_finds_in_it(pictures):
    hits = {hit.item.id: hit for hit in pictures.search("red blue", rerank=[LateInteraction()])}
    assert max(hits, key=lambda id: hits[id].scores["late"]) in ("red and blue", "all")
    assert hits["red and blue"].scores["late"] == pytest.approx(hits["all"].scores["late"], abs=0.02)
    assert hits["all"].scores["late"] > hits["red"].scores["late"] > hits["none"].scores["late"]


def test_each_word_says_how_well_it_was_found(pictures):
    hits = {hit.item.id: hit.words for hit in pictures.search("a red blue", rerank=[LateInteraction()])}
    assert all(list(words) == ["a", "red", "blue"] for words in hits.values())
    assert hits["red"]["red"] > 0.9 > 0.2 > hits["red"]["blue"]
    assert min(hits["all"]["red"], hits["all"]["blue"]) > 0.9
    assert max(hits["none"]["red"], hits["none"]["blue"]) < 0.2


def test_the_values_are_means_of_best_cosines_around_their_mean(pictures, world, quadrants):
    (words,) = world.encode_words(["red blue"])
    hits = pictures.search("red blue", rerank=[LateInteraction()])
    kinds = {"red": "red white white white", "red and blue": "white red blue white", "all": "red green blue yellow"}
    kinds["none"] = "white white white white"
    _, cells = world.encode_cells([quadrants.mosaic(kinds[hit.item.id]) for hit in hits])
    right = (cells @ words.rows.T).max(axis=1).mean(axis=1)
    found = np.array([hit.scores["late"] for hit in hits])
    np.testing.assert_allclose(found, right - right.mean(), atol=0.01)
    assert found.mean() == pytest.approx(0, abs=1e-5)


def test_a_word_that_comes_twice_is_said_once(pictures):
    (best, *_) = pictures.search("red red blue", rerank=[LateInteraction()])
    assert list(best.words) == ["red", "blue"]


def test_a_words_score_is_the_mean_of_its_pieces():
    words = Words(("dog", "sled", "dog"), np.array([0, 0, 1, 2]), np.eye(4, dtype=np.float32))
    scores = np.array([[0.2, 0.4, 0.5, 0.9], [np.nan] * 4], dtype=np.float32)
    assert by_word(words, scores) == ({"dog": 0.5, "sled": 0.5}, {})


def test_cosines_do_not_depend_on_the_scale_of_codes(world):
    (words,) = world.encode_words(["red blue"])
    codes = np.random.default_rng(0).integers(-127, 128, (3, 4, 8)).astype(np.int8)
    rows = codes / np.linalg.norm(codes, axis=2, keepdims=True)
    np.testing.assert_allclose(heat(words, codes), rows @ words.rows.T, atol=1e-5)
    assert np.isfinite(heat(words, np.zeros((1, 4, 8), dtype=np.int8))).all()


@pytest.mark.parametrize("text", ["...?", "!!!", "日本語"])
def test_a_text_without_words_changes_nothing_and_says_so(pictures, text):
    plain = pictures.search(text, rerank=False)
    hits = pictures.search(text, rerank=[LateInteraction()])
    assert [(hit.item.id, hit.score, hit.words) for hit in hits] == [(hit.item.id, hit.score, {}) for hit in plain]
    assert hits[0].notes == ("late: the text has no words",)


@pytest.mark.parametrize("query", [-Query(text="red") + Query(id="all"), Query(id="red"), Query(vector=np.ones(16))])
def test_queries_that_are_not_one_text_change_nothing_and_say_so(pictures, query):
    plain = pictures.search(query, rerank=False)
    hits = pictures.search(query, rerank=[LateInteraction()])
    assert [(hit.item.id, hit.score) for hit in hits] == [(hit.item.id, hit.score) for hit in plain]
    assert "reads only queries that are one text" in hits[0].notes[0]


def test_items_without_cells_keep_their_scores_among_those_with(pictures, store, quadrants):
    with store._store.writing(), store._store.catalog.transaction():
        space = store._store.view().spaces["cells"].record.space
        store._store.book.release(space, store._store.catalog.keys(["red and blue"]))
    hits = {hit.item.id: hit for hit in store.search("red blue", rerank=[LateInteraction()])}
    assert len(hits) == 4
    assert "late" not in hits["red and blue"].scores
    assert hits["red and blue"].words == {}
    assert all("late" in hits[id].scores for id in ("red", "all", "none"))


def test_cells_of_another_version_of_the_model_are_refused_in_a_note(pictures, world):
    world.cell_dim = 4
    hits = pictures.search("red", rerank=[LateInteraction()])
    assert len(hits) == 4
    assert "the stored cells have 32 numbers a picture, the encoder's 16: run `mmsearch reindex`" in hits[0].notes[0]


def test_cells_follow_what_is_replaced_removed_and_rebuilt(pictures, quadrants):
    pictures.add([Item(id="none", image=quadrants.mosaic("red red red red"))])
    pictures.remove(["all"])
    for _ in range(2):
        words = {hit.item.id: hit.words["red"] for hit in pictures.search("red", rerank=[LateInteraction()])}
        assert {id for id, score in words.items() if score > 0.9} == {"red", "red and blue", "none"}
        pictures.rebuild()


def test_what_does_not_fit_into_the_time_is_left_and_noted(store, quadrants):
    store.add([Item(id=f"{n:03}", image=quadrants.mosaic("red white blue white", n)) for n in range(90)])
    stage = LateInteraction()
    stage.prepare(store._ranker.collection)
    hits = store.search("red", k=90, rerank=False)
    signal = stage.score(Query(text="red"), hits, time.perf_counter() - 1)
    assert np.isnan(signal.values).all()
    assert signal.notes == ("late: scored 0 of 90, the time was up",)
    assert np.isfinite(stage.score(Query(text="red"), hits, time.perf_counter() + 600).values).all()


# A picture asks for texts -------------------------------------------------------------------------------------------


def test_a_picture_asks_texts_for_their_words(store, quadrants, world):
    texts = ["red and blue", "red", "green", "yellow green", "!!!"]
    store.add([Item(id=text, text=text) for text in texts])
    image = quadrants.mosaic("red white white blue")
    hits = {hit.item.id: hit for hit in store.search(image, rerank=[LateInteraction()])}
    _, (cells,) = world.encode_cells([image])
    right = [float((words.rows @ cells.T).max(axis=1).mean()) for words in world.encode_words(texts[:4])]
    for text, value in zip(texts[:4], right, strict=True):
        assert hits[text].scores["late"] == pytest.approx(value - np.mean(right), abs=1e-4)
    assert "late" not in hits["!!!"].scores


def test_one_stage_does_not_mix_up_the_words_of_two_encoders(quadrants, tmp_path):
    stage, image = LateInteraction(), quadrants.mosaic("red white white blue")
    answers = []
    for seed in (0, 2):
        with Engine.open(tmp_path / str(seed), quadrants.QuadrantEncoder(seed=seed), spaces=["text"]) as engine:
            engine.add([Item(id=text, text=text) for text in ("red", "green", "blue")])
            answers.append({hit.item.id: hit.scores["late"] for hit in engine.search(image, rerank=[stage])})
    assert answers[0] == pytest.approx(answers[1], abs=1e-5)


def test_asking_texts_stops_when_the_time_is_up(store, quadrants):
    store.add([Item(id=f"{n}", text=f"red {n}") for n in range(50)])
    image = quadrants.mosaic("red white white blue")
    stage = LateInteraction()
    stage.prepare(store._ranker.collection)
    hits = store.search(image, k=50, rerank=False)
    signal = stage.score(Query(image=image), hits, time.perf_counter() - 1)
    assert signal.notes == ("late: scored 0 of 50, the time was up",)


# Maps ---------------------------------------------------------------------------------------------------------------


def test_a_map_shows_where_each_word_is(pictures):
    found = pictures.heat_map("a red blue", "red and blue")
    assert list(found) == ["a", "red", "blue"]
    assert np.array_equal(found["red"] > 0.9, [[False, True], [False, False]])
    assert np.array_equal(found["blue"] > 0.9, [[False, False], [True, False]])
    assert found["red"].dtype == np.float32


@pytest.mark.parametrize("text", ["", "  ", None, 7])
def test_a_map_of_no_text_is_refused(pictures, text):
    with pytest.raises(InvalidInput, match="expected a text whose words are looked for"):
        pictures.heat_map(text, "red")


def test_a_map_of_a_text_without_words_is_empty(pictures):
    assert pictures.heat_map("...", "red") == {}


def test_a_map_of_what_has_no_cells_is_refused_with_what_to_do(pictures, open_engine, toy):
    pictures.add([Item(id="text", text="red")])
    with pytest.raises(InvalidInput, match="has no cells of 'text': open it with spaces"):
        pictures.heat_map("red", "text")
    with pytest.raises(ItemNotFound):
        pictures.heat_map("red", "nobody")
    plain = open_engine("plain")
    plain.add([Item(id="a", image=toy.png_of("red disc"))])
    with pytest.raises(InvalidInput, match="the encoder 'toy' has no cells"):
        plain.heat_map("red", "a")


# The embedded model -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gallery(tmp_path_factory):
    """Twelve real pictures under the embedded model."""
    import zipfile

    folder = tmp_path_factory.mktemp("pictures")
    with zipfile.ZipFile(GALLERY) as file:
        for name in sorted(name for name in file.namelist() if not name.endswith("/"))[:12]:
            (folder / Path(name).name).write_bytes(file.read(name))
    with Engine.open(tmp_path_factory.mktemp("mini"), "mini", spaces=["picture", "text", "regions", "cells"]) as engine:
        assert engine.add_folder(folder).added == 12
        engine.set_bank(["a dog in the grass", "a man on a bicycle", "two people at the sea", "a red car"])
        yield engine


def test_the_embedded_model_tells_words_regions_and_maps(gallery):
    hits = gallery.search("a dog runs in the grass", k=12)
    assert len(hits) == 12
    for hit in hits:
        assert hit.notes == ()
        assert list(hit.scores) == ["vectors", "hubness", "regions", "late"]
        assert list(hit.words) == ["a", "dog", "runs", "in", "the", "grass"]
        assert hit.region is not None
    maps = gallery.heat_map("a dog", hits[0].item.id)
    assert {word: found.shape for word, found in maps.items()} == {"a": (9, 9), "dog": (9, 9)}
    assert float(maps["dog"].max()) == pytest.approx(hits[0].words["dog"], abs=0.2)


def test_queries_that_the_embedded_model_reads_nothing_of_are_answered(gallery):
    for text in ("🙂", "\x00", "...", "<<<>>>", "x" * 2000, "\ud800"):
        plain = gallery.search(text, k=12, rerank=False)
        hits = gallery.search(text, k=12)
        assert sorted(hit.item.id for hit in hits) == sorted(hit.item.id for hit in plain)
        assert not any("failed" in note for hit in hits for note in hit.notes)


def test_the_embedded_models_answers_do_not_depend_on_company(gallery):
    queries = ["a dog", "two people", "the sea", "a red car", Query(text="a dog") + Query(text="grass")]
    together = gallery.search_many(queries, k=12)
    for query, hits in zip(queries, together, strict=True):
        alone = gallery.search(query, k=12)
        assert [hit.item.id for hit in alone] == [hit.item.id for hit in hits]
        np.testing.assert_allclose([hit.score for hit in alone], [hit.score for hit in hits], atol=2e-5)
        assert [replace(hit, score=0, scores={}, words={}) for hit in alone] == [
            replace(hit, score=0, scores={}, words={}) for hit in hits
        ]
