"""Regions: several views of a picture have a say, and the best one is shown."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import ImageOps

from mmsearch import Engine, Item, Query
from mmsearch.rerank.hubness import Hubness
from mmsearch.rerank.regions import BEST_WEIGHT, CROPS_WEIGHT, FINE_WEIGHT, MIRROR_WEIGHT, WHOLE_WEIGHT, Regions, blend
from mmsearch.views import BOXES, CROP, views

CORNERS = {
    "top left": (0.0, 0.0, CROP, CROP),
    "top right": (1 - CROP, 0.0, 1.0, CROP),
    "bottom left": (0.0, 1 - CROP, CROP, 1.0),
    "bottom right": (1 - CROP, 1 - CROP, 1.0, 1.0),
}
MOSAICS = {
    "top left": "red blue green yellow",
    "top right": "blue red green yellow",
    "bottom left": "blue green red yellow",
    "bottom right": "blue green yellow red",
}


@pytest.fixture(params=[True, False], ids=["closer", "not closer"])
def world(request, quadrants):
    """An encoder that reads pictures more closely for cells, or not."""
    return quadrants.QuadrantEncoder(closer=request.param)


@pytest.fixture
def pictures(quadrants, world, tmp_path):
    """Four pictures of the same colours, with red in another corner each."""
    with Engine.open(tmp_path / "store", world, spaces=["picture", "text", "regions"]) as engine:
        engine.add([Item(id=corner, image=quadrants.mosaic(kind)) for corner, kind in MOSAICS.items()])
        yield engine


def by_hand(world, quadrants, image, vector):
    """The blend of the cosines of a picture's views less that of the whole."""
    rows = world.encode_images(views(image))
    weights = [WHOLE_WEIGHT, MIRROR_WEIGHT, *[CROPS_WEIGHT / 5] * 5]
    if world.cell_size > world.image_size:
        rows = np.concatenate([rows, world.encode_images([world.prepare_cells(image)])])
        weights.append(FINE_WEIGHT)
    cosines = rows @ vector
    mean = float(np.dot(cosines, weights)) / sum(weights)
    return (mean + BEST_WEIGHT * float(cosines.max())) / (1 + BEST_WEIGHT) - float(cosines[0])


@pytest.mark.parametrize("query", ["red", Query(vector=np.eye(16)[0]), 2 * Query(text="red") - Query(text="blue")])
def test_the_best_region_is_the_corner_where_it_lies(pictures, query):
    hits = pictures.search(query, rerank=[Regions()])
    assert {hit.item.id: hit.region for hit in hits} == CORNERS
    assert all(not hit.notes for hit in hits)


def test_a_hits_value_is_what_its_views_gain_over_the_whole(pictures, world, quadrants):
    (vector,) = world.encode_texts(["red"])
    hits = pictures.search("red", rerank=[Regions()])
    plain = {hit.item.id: hit.score for hit in pictures.search("red", rerank=False)}
    for hit in hits:
        value = by_hand(world, quadrants, quadrants.mosaic(MOSAICS[hit.item.id]), vector)
        assert hit.scores["regions"] == pytest.approx(value, abs=2e-3)
        assert hit.score == pytest.approx(plain[hit.item.id] + value, abs=3e-3)


def test_what_fills_a_region_beats_what_is_spread_thin(quadrants, world, tmp_path):
    with Engine.open(tmp_path / "store", world, spaces=["picture", "regions"]) as engine:
        engine.add(
            [
                Item(id="one spot", image=quadrants.mosaic("red blue blue blue")),
                Item(id="none", image=quadrants.mosaic("green blue blue blue")),
            ]
        )
        best, other = engine.search("red", rerank=[Regions()])
        assert (best.item.id, best.region) == ("one spot", CORNERS["top left"])
        assert best.scores["regions"] > other.scores["regions"]


def test_a_mirrored_picture_has_its_best_region_on_the_other_side(quadrants, world, tmp_path):
    with Engine.open(tmp_path / "store", world, spaces=["picture", "regions"]) as engine:
        image = quadrants.mosaic("red blue green yellow")
        engine.add([Item(id="as it is", image=image), Item(id="mirrored", image=ImageOps.mirror(image))])
        regions = {hit.item.id: hit.region for hit in engine.search("red", rerank=[Regions()])}
        assert regions == {"as it is": CORNERS["top left"], "mirrored": CORNERS["top right"]}


def test_a_whole_picture_of_one_colour_has_the_whole_as_its_best_region(quadrants, world, tmp_path):
    with Engine.open(tmp_path / "store", world, spaces=["picture", "regions"]) as engine:
        engine.add([Item(id="a", image=quadrants.mosaic("red red red red")), Item(id="b", text="no")])
        (hit,) = engine.search("red", field="picture", rerank=[Regions()])
        assert hit.region in BOXES


def test_items_without_regions_keep_their_scores_among_those_with(quadrants, world, tmp_path):
    names = {
        f"{n:02}": f"{colour} white white blue" for n, colour in enumerate(["red", "red", "green", "red", "green"])
    }
    with Engine.open(tmp_path / "store", world, spaces=["picture"]) as engine:
        engine.add([Item(id=id, image=quadrants.mosaic(kind, int(id))) for id, kind in list(names.items())[:3]])
    with Engine.open(tmp_path / "store", world, spaces=["picture", "regions"]) as engine:
        spaces = {"picture", "regions"}
        later = [Item(id=id, image=quadrants.mosaic(kind, int(id))) for id, kind in list(names.items())[3:]]
        # The rows of the first three are filled in by adding: take them away, as if that had been interrupted.
        engine.add(later)
        store = engine._store
        with store.writing(), store.catalog.transaction():
            space = store.view().spaces["regions"].record.space
            store.book.release(space, store.catalog.keys(["00", "01", "02"]))
        hits = {hit.item.id: hit for hit in engine.search("red", rerank=[Regions()])}
        plain = {hit.item.id: hit for hit in engine.search("red", rerank=False)}
        assert spaces == set(engine.info().spaces)
        for id in ("00", "01", "02"):
            assert "regions" not in hits[id].scores
            assert hits[id].region is None
        for id in ("03", "04"):
            assert "regions" in hits[id].scores
            assert hits[id].region in BOXES
        assert set(hits) == set(plain)


def test_identical_pictures_share_their_regions(quadrants, world, tmp_path):
    with Engine.open(tmp_path / "store", world, spaces=["picture", "regions"]) as engine:
        engine.add([Item(id=id, image=quadrants.mosaic("white red white blue")) for id in "abc"])
        engine.remove(["a"])
        engine.rebuild()
        (hit,) = engine.search("red", rerank=[Regions()])
        assert (hit.item.id, hit.region, [item.id for item in hit.copies]) == ("b", CORNERS["top right"], ["c"])


def test_regions_follow_what_is_replaced_removed_and_rebuilt(pictures, quadrants):
    pictures.add([Item(id="top left", image=quadrants.mosaic(MOSAICS["bottom right"], 5))])
    pictures.remove(["top right"])
    for _ in range(2):
        hits = pictures.search("red", rerank=[Regions()])
        assert {hit.item.id: hit.region for hit in hits} == {
            "top left": CORNERS["bottom right"],
            "bottom left": CORNERS["bottom left"],
            "bottom right": CORNERS["bottom right"],
        }
        pictures.rebuild()


def test_corrected_each_view_loses_its_bias(pictures, world, quadrants):
    plain = {hit.item.id: hit.scores["regions"] for hit in pictures.search("red", rerank=[Regions()])}
    without = pictures.search("red", rerank=[Regions(corrected=True)])
    assert {hit.item.id: hit.scores["regions"] for hit in without} == plain
    pictures.set_bank(["blue", "blue thing", "a blue one"])
    corrected = pictures.search("red", rerank=[Hubness(), Regions(corrected=True)])
    assert any(abs(hit.scores["regions"] - plain[hit.item.id]) > 1e-4 for hit in corrected)
    assert {hit.item.id: hit.region for hit in corrected} == CORNERS


# A picture asks for texts -------------------------------------------------------------------------------------------


@pytest.fixture
def texts(world, tmp_path):
    with Engine.open(tmp_path / "texts", world, spaces=["text"]) as engine:
        long = "first of all there is something quite dull here and then at last comes red and red again"
        engine.add([Item(id=text, text=text) for text in ("red", "green", "blue", "nothing")])
        engine.add([Item(id="long", text=long)])
        yield engine


def test_a_picture_asks_for_texts_by_all_its_views(texts, world, quadrants):
    image = quadrants.mosaic("red white white white")
    hits = {hit.item.id: hit for hit in texts.search(image, rerank=[Regions()])}
    vectors = world.encode_images(views(image))
    if world.cell_size > world.image_size:
        vectors = np.concatenate([vectors, world.encode_images([world.prepare_cells(image)])])
    for text in ("red", "green"):
        cosines = vectors @ world.encode_texts([text])[0]
        value = blend(cosines[None])[0] - cosines[0]
        assert hits[text].scores["regions"] == pytest.approx(float(value), abs=2e-3)
    assert hits["long"].scores["regions"] > hits["nothing"].scores["regions"]
    assert all(hit.region is None for hit in hits.values())


@pytest.mark.parametrize("query", [Query(text="red"), Query(id="red"), Query(vector=np.ones(16))])
def test_texts_asked_by_anything_else_stay_as_they_are(texts, query):
    plain = texts.search(query, rerank=False)
    hits = texts.search(query, rerank=[Regions()])
    assert [(hit.item.id, hit.score) for hit in hits] == [(hit.item.id, hit.score) for hit in plain]
    assert hits[0].notes == ("regions: texts have no regions, and the query is not one picture",)


def test_a_query_picture_that_has_gone_meanwhile_is_noted(texts, quadrants, tmp_path):
    file = tmp_path / "asked.png"
    quadrants.mosaic("red white white white").save(file)
    hits = texts.search(file, rerank=False)
    stage = Regions()
    stage.prepare(texts._ranker.collection)
    file.unlink()
    after = stage.rerank(Query(image=file), hits)
    assert [hit.item.id for hit in after] == [hit.item.id for hit in hits]
    assert "asked.png" in after[0].notes[0]


# Both ---------------------------------------------------------------------------------------------------------------


def test_among_pictures_and_texts_neither_gains_on_the_other_as_a_whole(quadrants, world, tmp_path):
    with Engine.open(tmp_path / "store", world, spaces=["picture", "text", "regions"]) as engine:
        engine.add(quadrants.items())
        hits = engine.search("red", k=100, rerank=[Regions()])
        plain = {hit.item.id: hit for hit in engine.search("red", k=100, rerank=False)}
        assert {hit.field for hit in hits} == {"picture", "text"}
        values = [hit.scores["regions"] for hit in hits if hit.field == "picture"]
        assert np.mean(values) == pytest.approx(0, abs=1e-4)
        assert all("regions" not in hit.scores for hit in hits if hit.field == "text")
        reach = max(hit.rank for hit in hits if "regions" in hit.scores)
        for hit in hits[:reach]:
            if hit.field == "text":
                assert hit.score == plain[hit.item.id].score


def test_the_blend_of_equal_views_is_their_cosine():
    for n in (7, 8):
        np.testing.assert_allclose(blend(np.full((3, n), 0.25, dtype=np.float32)), 0.25, rtol=1e-6)


def test_views_show_what_their_boxes_say(quadrants):
    image = quadrants.mosaic("red green blue yellow").resize((200, 120), 0)
    shown = views(image)
    for view, (left, top, right, bottom) in zip(shown[2:], BOXES[2:], strict=True):
        box = (round(left * 200), round(top * 120), round(right * 200), round(bottom * 120))
        assert np.array_equal(np.asarray(view), np.asarray(image.crop(box)))
    assert np.array_equal(np.asarray(shown[1])[:, ::-1], np.asarray(image))
    assert [view.size for view in views(image.resize((1, 1)))] == [(1, 1)] * 7


def test_a_stage_answers_for_hits_that_it_is_handed(pictures):
    stage = Regions()
    stage.prepare(pictures._ranker.collection)
    hits = pictures.search("red", rerank=False)
    after = stage.rerank(Query(text="red"), [replace(hit, rank=1) for hit in hits])
    assert {hit.item.id: hit.region for hit in after} == CORNERS
    assert [hit.rank for hit in after] == [1, 2, 3, 4]
