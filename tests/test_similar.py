"""Item to item by content: what others are compared with, by which fields, and what is said of the answers."""

from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from mmsearch import Engine, Item, Query, searchspace
from mmsearch.errors import InvalidInput, ItemNotFound, PictureError
from mmsearch.rerank.function import FunctionReranker
from mmsearch.rerank.regions import Regions

BOTH = {"picture": 0.7, "text": 0.3}


@pytest.fixture
def likeness():
    """Answers of an engine's store."""
    return lambda engine: engine


@pytest.fixture
def shop(engine, folder, toy):
    """Sixty pictures, each with a text that says another colour for every second one; four texts; a picture."""
    toy.draw_all(folder)
    colours = list(toy.COLOURS)
    items = []
    for kind in toy.KINDS:
        for n in range(5):
            colour, shape = kind.split()
            said = colour if n % 2 == 0 else colours[(colours.index(colour) + n) % 4]
            file = folder / f"{kind} {n}.png"
            items.append(Item(id=f"{kind} {n}", path=file, text=f"a {said} {shape}, model {n}", metadata={"n": n}))
    items += [Item(id=f"text {n}", text=f"a red disc of {n}") for n in range(4)]
    items.append(Item(id="bare", image=toy.png_of("red disc", 70)))
    engine.add(items)
    return engine


@pytest.fixture
def by_hand(toy):
    """The weighted mean of the cosines of one item with each other, from all vectors of a store, by id."""

    def score(engine, id, weights):
        sums = {}
        for field, weight in weights.items():
            ids, rows = engine.vectors(field=field)
            own = rows[ids.index(id)].astype(np.float64)
            for other, cosine in zip(ids, rows @ own, strict=True):
                sums[other] = sums.get(other, 0.0) + weight * cosine / sum(weights.values())
        sums.pop(id)
        return sums

    return score


class Angles:
    """An encoder of the plane: a text is its number of degrees, a picture its red and green levels (a 256th each)."""

    name, dim, fingerprint, licence, runtime, image_size = "angles", 2, "angles", "Apache-2.0", "python", 8

    def encode_texts(self, texts):
        return self._rows([float(text) for text in texts])

    def encode_images(self, images):
        return self._rows([pixels[0, 0, 0] + pixels[0, 0, 1] / 256 for pixels in map(np.asarray, images)])

    def prepare(self, image):
        return np.asarray(image)

    def split_text(self, text):
        return text.split()

    def _rows(self, degrees):
        angles = np.radians(degrees)
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def square(degrees):
    """A picture of so many degrees, as the bytes of a file."""
    whole, rest = divmod(round(degrees * 256), 256)
    buffer = BytesIO()
    Image.new("RGB", (8, 8), (whole, rest, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def plain(hits):
    return [(hit.item.id, hit.score) for hit in hits]


# What is compared with ----------------------------------------------------------------------------------------------


def test_by_default_an_item_is_searched_for_as_a_query_of_its_id_is(shop, likeness):
    hits = likeness(shop).similar("red disc 0", 20)
    found = [hit for hit in shop.search(Query(id="red disc 0"), 21, rerank=False) if hit.item.id != "red disc 0"]
    assert hits == [replace(hit, rank=rank) for rank, hit in enumerate(found, start=1)]
    assert not any(hit.ranks or hit.reasons for hit in hits)


@pytest.mark.parametrize("options", [{}, {"field": "picture"}, {"field": "text"}, {"fields": BOTH}])
def test_an_item_of_the_store_may_be_named_by_id_or_handed_over(shop, likeness, options):
    alike = likeness(shop)
    expected = alike.similar("red disc 0", **options)
    item = shop.get("red disc 0")
    (hit,) = (hit for hit in shop.search(item.path, rerank=False, field="picture") if hit.item.id == item.id)
    assert len(expected) == 10
    assert alike.similar(item, **options) == expected
    assert alike.similar(Item(id="red disc 0"), **options) == expected
    assert alike.similar(hit, **options) == expected


def test_a_file_that_is_in_the_store_does_not_answer_with_itself(shop, likeness, folder, toy):
    alike = likeness(shop)
    shop.add([Item(id="a copy", path=toy.write(folder / "copy.png", (folder / "red disc 0.png").read_bytes()))])
    for fields in (None, "picture"):
        by_file = alike.similar(folder / "copy.png", 5, fields=fields)
        assert toy.ids(by_file) == toy.ids(alike.similar("red disc 0", 5, fields=fields))
        assert not {"red disc 0", "a copy"} & set(toy.ids(by_file))


def test_a_picture_on_disk_need_not_be_in_the_store(shop, likeness, tmp_path, toy):
    file = toy.draw(tmp_path / "new.png", "blue square", 99)
    hits = likeness(shop).similar(file, 5, fields="picture")
    assert {toy.kind_of(hit.item) for hit in hits} == {"blue square"}
    assert all(reason.because == () for hit in hits for reason in hit.reasons)
    assert toy.ids(likeness(shop).similar(Item(path=file), 5, fields="picture")) == toy.ids(hits)
    assert len(shop) == 65


def test_an_item_that_is_not_in_the_store_is_compared_by_what_it_has(shop, likeness, toy):
    alike = likeness(shop)
    image, text = toy.image_of("blue square", 99), "a yellow disc"
    by_picture = alike.similar(Item(image=image), 5, fields=BOTH)
    by_text = alike.similar(Item(id="new", text=text), 5, fields=BOTH)
    by_both = alike.similar(Item(image=image, text=text), 5, fields=BOTH)
    assert {toy.kind_of(hit.item) for hit in by_picture} == {"blue square"}
    assert all("yellow disc" in hit.item.text for hit in by_text)
    assert [set(hits[0].scores) for hits in (by_picture, by_text, by_both)] == [{"picture"}, {"text"}, set(BOTH)]
    assert toy.ids(alike.similar(Item(text=text), 5, field="text")) == toy.ids(shop.search(text, 5, field="text"))


def test_a_text_may_be_longer_than_a_query(shop, likeness, toy):
    hits = likeness(shop).similar(Item(text="a red disc " * 400), 4, fields="text")
    assert all("red disc" in hit.item.text for hit in hits)


def test_what_cannot_be_compared_is_one_clear_error(shop, likeness, tmp_path):
    alike = likeness(shop)
    for id in ("nobody", Item(id="nobody")):
        with pytest.raises(ItemNotFound, match="no item 'nobody'"):
            alike.similar(id)
    with pytest.raises(PictureError):
        alike.similar(tmp_path / "absent.png")
    for nothing in (Item(), Item(text="  ")):
        with pytest.raises(InvalidInput, match="a picture or a text to compare"):
            alike.similar(nothing)
    with pytest.raises(InvalidInput, match="expected an id, a Path, an Item or a Hit, got int"):
        alike.similar(7)


# Fields and weights -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [BOTH, {"picture": 1, "text": 5}, {"picture": 1.0}, {"text": 2.0}])
@pytest.mark.parametrize("exact", [False, True])
def test_the_score_is_the_weighted_mean_of_the_fields_cosines(shop, likeness, by_hand, weights, exact):
    for id in ("red disc 0", "green square 3", "yellow triangle 4"):
        hits = likeness(shop).similar(id, 60, fields=weights, exact=exact)
        expected = by_hand(shop, id, weights)
        # Stored rows are of half precision, so that their length is 1 to four digits.
        assert [hit.score for hit in hits] == pytest.approx([expected[hit.item.id] for hit in hits], abs=2e-4)
        assert [hit.score for hit in hits] == pytest.approx(sorted(expected.values(), reverse=True)[:60], abs=2e-4)


def test_an_item_that_is_best_in_no_field_is_found_all_the_same(open_engine, likeness):
    engine = open_engine("plane", Angles())
    engine.add(Item(id=f"looks {n:03}", image=square(n / 8), text="60") for n in range(1, 201))
    engine.add(Item(id=f"reads {n:03}", image=square(60 + n / 256), text=str(n / 8)) for n in range(200))
    engine.add([Item(id="anchor", image=square(0), text="0"), Item(id="between", image=square(30), text="30")])
    hits = likeness(engine).similar("anchor", 3, fields=["picture", "text"])
    assert hits[0].item.id == "between"
    assert hits[0].score == pytest.approx(np.cos(np.radians(30)), abs=1e-3)
    assert [hit.score for hit in hits[1:]] == pytest.approx([0.75, 0.75], abs=1e-2)


def test_who_lacks_a_field_counts_nothing_there(shop, likeness):
    hits = {hit.item.id: hit for hit in likeness(shop).similar("red disc 0", 100, fields=BOTH)}
    assert len(hits) == 64
    assert set(hits["bare"].scores) == {"picture"}
    assert hits["bare"].score == pytest.approx(0.7 * hits["bare"].scores["picture"], abs=1e-5)
    assert hits["text 0"].score == pytest.approx(0.3 * hits["text 0"].scores["text"], abs=1e-5)
    assert (hits["bare"].field, hits["text 0"].field) == ("picture", "text")


def test_an_anchor_is_compared_by_the_fields_that_it_has(shop, likeness):
    alike = likeness(shop)
    assert plain(alike.similar("bare", fields=BOTH)) == plain(alike.similar("bare", fields="picture"))
    with pytest.raises(InvalidInput, match="expected the item 'bare' to have a vector for text, it has one for pict"):
        alike.similar("bare", fields="text")


def test_only_the_proportions_of_weights_matter_and_a_weight_of_zero_leaves_a_field_out(shop, likeness):
    alike = likeness(shop)
    expected = alike.similar("red disc 0", fields=["picture", "text"])
    assert alike.similar("red disc 0", fields={"text": 1e300, "picture": 1e300}) == expected
    assert alike.similar("red disc 0", fields={"text": 1e-300, "picture": np.float32(0)}) == alike.similar(
        "red disc 0", fields="text"
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"picture": 1, "text": -0.1}, "a finite weight of at least 0 for text, got -0.1"),
        ({"picture": float("nan")}, "a finite weight of at least 0 for picture, got nan"),
        ({"picture": float("inf")}, "a finite weight"),
        ({"picture": "much"}, "a finite weight"),
        ({"picture": True}, "a finite weight"),
        ({"picture": 0, "text": 0}, "at least one field with a weight above 0"),
        ({}, "at least one field"),
        ([], "at least one field"),
        ("regions", "expected fields of picture, text"),
        (["picture", "price"], "expected fields of picture, text"),
        (3, "expected fields of picture, text"),
    ],
)
def test_bad_fields_are_refused_whether_or_not_there_is_anything_to_compare(shop, likeness, fields, message):
    for ids in (["red disc 0"], []):
        with pytest.raises(InvalidInput, match=message):
            likeness(shop).similar_many(ids, fields=fields)


def test_one_field_to_search_and_several_to_compare_cannot_both_be_asked_for(shop, likeness):
    with pytest.raises(InvalidInput, match="field or fields, got both"):
        likeness(shop).similar("red disc 0", field="text", fields="text")


# What is said of the answers ----------------------------------------------------------------------------------------


def test_scores_and_reasons_say_what_each_field_gave(shop, likeness):
    for hit in likeness(shop).similar("red disc 0", 64, fields=BOTH):
        parts = {name: BOTH[name] * max(cosine, 0.0) for name, cosine in hit.scores.items()}
        assert hit.score == pytest.approx(sum(BOTH[name] * cosine for name, cosine in hit.scores.items()), abs=2e-5)
        assert {reason.kind: reason.share for reason in hit.reasons} == pytest.approx(
            {{"picture": "looks", "text": "text"}[name]: part / sum(parts.values()) for name, part in parts.items()},
            abs=1e-3,
        )
        assert {reason.because for reason in hit.reasons} == {("red disc 0",)}
        assert [reason.share for reason in hit.reasons] == sorted((it.share for it in hit.reasons), reverse=True)
    assert likeness(shop).similar("red disc 0", 1, fields=BOTH)[0].because().startswith("because of red disc 0: looks")


def test_identical_pictures_are_one_answer_which_names_its_copies(shop, likeness, toy):
    shop.add([Item(id="a twin", image=toy.png_of("red disc", 1), text="a red disc, model 0")])
    hits = likeness(shop).similar("red disc 0", 64, fields=BOTH)
    (twin,) = (hit for hit in hits if hit.item.id == "a twin")
    assert [copy.id for copy in twin.copies] == ["red disc 1"]
    assert "red disc 1" not in toy.ids(hits)
    assert "a twin" not in toy.ids(likeness(shop).similar("red disc 1", 64, fields=BOTH))


# Options ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"fields": BOTH}, {"fields": "text", "diversity": 0.4}])
def test_a_batch_answers_like_single_questions(shop, likeness, folder, toy, options):
    alike = likeness(shop)
    asked = ["red disc 0", folder / "blue square 1.png", Item(text="a green disc"), "text 1", "red disc 0"]
    asked += [Item(image=toy.image_of("red square", 60), text="a red square")]
    asked = [one for one in asked if options.get("fields") != "text" or not hasattr(one, "suffix")]
    asked += [f"{kind} {n}" for kind in toy.KINDS for n in range(5)]
    assert alike.similar_many(asked, 7, **options) == [alike.similar(one, 7, **options) for one in asked]
    assert alike.similar_many([], **options) == []


def test_a_single_one_is_no_batch(shop, likeness):
    for single in ("red disc 0", Item(text="a disc"), 3):
        with pytest.raises(InvalidInput, match="expected a list of ids"):
            likeness(shop).similar_many(single)


@pytest.mark.parametrize("fields", [None, BOTH])
def test_filters_k_and_exactness_are_as_in_a_search(shop, likeness, fields):
    alike = likeness(shop)
    hits = alike.similar("red disc 0", 100, where="n >= 3", fields=fields)
    assert {hit.item.metadata["n"] for hit in hits} == {3, 4}
    assert len(hits) == 24
    assert alike.similar("red disc 0", 5, where="n >= 3", fields=fields, exact=True) == hits[:5]
    assert [hit.rank for hit in hits] == list(range(1, 25))
    assert alike.similar("red disc 0", where="n > 100", fields=fields) == []
    for bad in ({"k": 0}, {"where": "n >"}, {"diversity": 2}, {"rerank": "regions"}):
        with pytest.raises(InvalidInput):
            alike.similar("red disc 0", fields=fields, **bad)


def test_by_graphs_the_answers_are_those_of_a_full_scan(open_engine, likeness, toy, monkeypatch):
    monkeypatch.setattr(searchspace, "CROSSOVER", 200)
    engine = open_engine("large")
    engine.add(
        Item(id=f"{kind} {n}", image=toy.png_of(kind, n), text=f"a {toy.KINDS[n % 12]}, model {n}")
        for kind in toy.KINDS
        for n in range(25)
    )
    assert {space.index for space in engine.info().spaces.values()} == {"hnsw"}
    asked = [f"{kind} 0" for kind in toy.KINDS]
    by_graph, scanned = (likeness(engine).similar_many(asked, 10, fields=BOTH, exact=how) for how in (False, True))
    same = sum(plain(hits) == plain(others) for hits, others in zip(by_graph, scanned, strict=True))
    assert same >= 11


def test_equal_scores_are_ordered_by_id(open_engine, likeness, toy):
    engine = open_engine("plane", Angles())
    engine.add(Item(id=id, text="10", image=square(20)) for id in ("d", "a"))
    engine.add(Item(id=id, text="10") for id in ("c", "e", "b"))
    engine.add([Item(id="anchor", text="0", image=square(10))])
    assert toy.ids(likeness(engine).similar("anchor", fields="text")) == ["a", "b", "c", "e"]


def test_diversity_brings_other_things_behind_the_same_best(shop, likeness, toy):
    alike = likeness(shop)
    usual, varied = (alike.similar("red disc 0", 8, fields=BOTH, diversity=how) for how in (0.0, 0.7))
    assert varied[0] == usual[0]
    assert len({toy.kind_of(hit.item) for hit in varied}) > len({toy.kind_of(hit.item) for hit in usual})
    assert [hit.rank for hit in varied] == list(range(1, 9))


def test_stages_rerank_what_was_found_and_the_reasons_stay(quadrants, tmp_path, likeness):
    with Engine.open(tmp_path / "s", quadrants.QuadrantEncoder(), spaces=["picture", "text", "regions"]) as engine:
        engine.add(replace(item, text="one of many") for item in quadrants.items())
        usual = likeness(engine).similar("p03", 5, fields=BOTH)
        hits = likeness(engine).similar("p03", 5, fields=BOTH, rerank=[Regions()])
        assert {tuple(hit.ranks) for hit in hits} == {("vectors", "regions")}
        for hit in hits:
            assert hit.score == pytest.approx(hit.scores["vectors"] + 0.7 * hit.scores["regions"], abs=2e-5)
            assert hit.reasons
        turned = FunctionReranker(lambda query, items: [float(item.id[1:]) for item in items])
        assert likeness(engine).similar("p03", 5, rerank=[turned], fields=BOTH) != usual


@pytest.fixture
def viewed(quadrants, open_engine):
    """A store of pictures with regions, and of texts."""
    engine = open_engine("viewed", quadrants.QuadrantEncoder(), spaces=["picture", "text", "regions"])
    engine.add(replace(item, text=item.text or "one of many") for item in quadrants.items())
    return engine


def test_reranking_compares_the_mean_of_all_views_of_both_pictures(viewed, likeness):
    engine = viewed
    usual = likeness(engine).similar("p03", 39, fields="picture")
    hits = likeness(engine).similar("p03", 39, fields="picture", rerank=True)
    assert {tuple(hit.ranks) for hit in hits} == {("vectors", "views")}
    assert {hit.item.id for hit in hits} == {hit.item.id for hit in usual} != [hit.item.id for hit in usual]
    collection = engine.ranker.collection
    means = {}
    for hit in [*hits, replace(hits[0], item=engine.get("p03"))]:
        (first,), (count,) = collection.rows("regions", [hit])
        views = collection.stored("regions", first + np.arange(count))
        mean = np.average(views, axis=0, weights=[1, 1, *[1.5 / 5] * 5, 2])  # whole, mirrored, crops, read closely
        means[hit.item.id] = mean / np.linalg.norm(mean)
    by_hand = [means[hit.item.id] @ means["p03"] for hit in hits]
    assert [hit.score for hit in hits] == pytest.approx(by_hand, abs=3e-4)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_reranking_gives_a_new_picture_what_it_gives_the_same_one_stored(viewed, likeness, toy):
    path = viewed.get("p03").path
    for fields in (None, "picture"):
        stored = likeness(viewed).similar("p03", 10, field=None if fields else "picture", fields=fields, rerank=True)
        new = likeness(viewed).similar(path, 10, field=None if fields else "picture", fields=fields, rerank=True)
        assert toy.ids(new) == toy.ids(stored)
        assert [hit.score for hit in new] == pytest.approx([hit.score for hit in stored], abs=1e-3)


def test_reranking_leaves_alone_what_it_cannot_compare(viewed, shop, likeness):
    for fields in (None, BOTH):
        usual = likeness(shop).similar("red disc 0", 20, fields=fields)
        assert likeness(shop).similar("red disc 0", 20, fields=fields, rerank=True) == usual
    usual, hits = (likeness(viewed).similar("t0", 20, fields="text", rerank=rerank) for rerank in (False, True))
    assert plain(hits) == plain(usual)
    assert not any(hit.notes for hit in hits)
    mixed = likeness(viewed).similar("p03", 60, fields=BOTH, rerank=True)
    assert {"views" in hit.scores for hit in mixed if hit.field == "text"} == {False}
    assert {"views" in hit.scores for hit in mixed if hit.field == "picture"} == {True}


def test_an_empty_store_has_nothing_like_anything(engine, likeness, tmp_path, toy):
    file = toy.draw(tmp_path / "new.png", "blue square")
    for fields in (None, BOTH):
        assert likeness(engine).similar(file, fields=fields) == []
