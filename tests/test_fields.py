"""Items of several parts: pictures, texts, windows of long texts, and the spaces that hold their vectors."""

import numpy as np
import pytest

from mmsearch import Item, Query
from mmsearch.errors import InvalidInput


@pytest.fixture
def products(engine, toy):
    """A captioned picture whose caption says something else, a bare picture and a bare text."""
    engine.add(
        [
            Item(id="both", image=toy.image_of("red disc"), text="a blue square"),
            Item(id="picture", image=toy.image_of("green triangle")),
            Item(id="text", text="a yellow disc"),
        ]
    )
    return engine


def test_an_item_is_found_by_its_picture_and_by_its_text(products, toy):
    assert toy.ids(products.search("a red disc", k=1, field="picture")) == ["both"]
    assert toy.ids(products.search("a blue square", k=1, field="text")) == ["both"]


def test_a_field_is_searched_alone_and_says_so(products, toy):
    pictures = products.search("anything", field="picture")
    texts = products.search("anything", field="text")
    assert (set(toy.ids(pictures)), {hit.field for hit in pictures}) == ({"both", "picture"}, {"picture"})
    assert (set(toy.ids(texts)), {hit.field for hit in texts}) == ({"both", "text"}, {"text"})


def test_an_item_with_two_fields_is_one_hit(products, toy):
    assert sorted(toy.ids(products.search("a blue square"))) == ["both", "picture", "text"]


def test_scores_of_one_field_are_plain_cosines(products, encoder, toy):
    (query,) = encoder.encode_texts(["a red disc"])
    (picture,) = encoder.encode_images([toy.image_of("red disc")])
    hit = products.search("a red disc", k=1, field="picture")[0]
    assert hit.score == pytest.approx(float(query @ picture), abs=1e-3)


def test_each_field_has_its_own_vector(products, encoder, toy):
    np.testing.assert_allclose(
        products.vectors(["both"], field="picture")[1], encoder.encode_images([toy.image_of("red disc")]), atol=2e-3
    )
    np.testing.assert_allclose(
        products.vectors(["both"], field="text")[1], encoder.encode_texts(["a blue square"]), atol=2e-3
    )


def test_a_query_by_id_goes_by_the_picture_where_there_is_one(products, toy):
    assert toy.ids(products.search(Query(id="both"), k=1, field="picture")) == ["both"]
    assert products.search(Query(id="both"), k=1, field="picture")[0].score == pytest.approx(1, abs=1e-3)
    assert products.search(Query(id="text"), k=1, field="text")[0].score == pytest.approx(1, abs=1e-3)


def test_a_store_of_texts_alone_has_no_pictures_to_find(engine):
    engine.add(["a red disc"])
    assert engine.search("red", field="picture") == []
    assert len(engine.search("red", field="text")) == 1


# Long texts ---------------------------------------------------------------------------------------------------------


def test_the_best_window_of_a_long_text_counts(engine, toy, encoder):
    filler = ["once", "upon", "a", "time", "there", "was", "nothing", "here"]
    long = " ".join([*filler * 5, *["and", "then", "we", "saw", "a", "red", "disc", "today"], *filler * 5])
    engine.add(
        [Item(id="long", text=long), Item(id="short", text="a red square"), Item(id="filler", text="nothing here")]
    )
    hits = engine.search("a red disc", k=3)
    assert toy.ids(hits) == ["long", "short", "filler"]
    windows = encoder.encode_texts(encoder.split_text(long))
    best = float((windows @ encoder.encode_texts(["a red disc"])[0]).max())
    assert hits[0].score == pytest.approx(best, abs=1e-3)
    assert hits[0].item.text == long


def test_a_long_text_is_one_hit_and_takes_one_place(engine, toy):
    engine.add([Item(id=f"long {n}", text=f"a red disc and more of it {n} " * 100) for n in range(5)])
    engine.add([Item(id="short", text="a blue square")])
    assert sorted(toy.ids(engine.search("a red disc", k=6))) == [f"long {n}" for n in range(5)] + ["short"]


def test_a_shortened_text_leaves_no_window_behind(engine, toy):
    engine.add([Item(id="a", text="nothing " * 8 + "here is a red disc to see today")])
    assert engine.search("a red disc")[0].score > 0.9
    engine.add([Item(id="a", text="nothing")])
    assert engine.search("a red disc")[0].score < 0.7


def test_the_vector_of_a_long_text_is_the_mean_of_its_windows(engine, encoder):
    text = "a red disc one two three four five six a blue square"
    engine.add([Item(id="a", text=text)])
    mean = encoder.encode_texts(encoder.split_text(text)).mean(axis=0)
    np.testing.assert_allclose(engine.vectors()[1][0], mean / np.linalg.norm(mean), atol=2e-3)


def test_a_long_query_is_read_to_its_end(engine, toy):
    engine.add([Item(id=kind, text=f"a {kind}") for kind in toy.KINDS])
    query = "red disc " * 4 + "green square " * 40
    assert toy.ids(engine.search(query, k=1)) == ["green square"]


# Spaces -------------------------------------------------------------------------------------------------------------


def test_only_the_wanted_spaces_are_filled(open_engine, encoder, toy):
    engine = open_engine(spaces=["text"])
    engine.add([Item(id="a", image=toy.image_of("red disc"), text="a red disc")])
    assert set(engine.info().spaces) == {"text"}
    assert encoder.pictures_read == 0
    assert engine.search("red disc", field="picture") == []


@pytest.mark.parametrize("how", ["sync", "add_folder"])
def test_regions_that_are_wanted_later_are_filled_for_old_items(open_engine, toy_folder, toy, how):
    toy.draw(toy_folder / "a copy.png", "red disc", 0)
    first = open_engine()
    first.add_folder(toy_folder)
    first.add(["a red disc"])
    before = first.search("a red disc", k=60, rerank=False)
    first.close()
    engine = open_engine(spaces=["picture", "text", "regions"])
    report = engine.sync() if how == "sync" else engine.add_folder(toy_folder)
    assert (report.added, report.failed) == (0, ())
    regions = engine.info().spaces["regions"]
    assert (regions.rows, regions.live) == (7 * 60, 7 * 60)
    assert engine.search("a red disc", k=60, rerank=False) == before
    toy.draw(toy_folder / "new.png", "red disc", 70)
    engine.sync()
    assert engine.info().spaces["regions"].live == 7 * 61


def test_an_interrupted_filling_goes_on(open_engine, folder, toy):
    toy.draw_all(folder, each=15)
    with open_engine() as engine:
        engine.add_folder(folder)
    batches = iter(range(10))

    def interrupt(kind, inputs, rows):
        if next(batches) == 2:
            raise KeyboardInterrupt

    with open_engine(its_encoder=toy.ToyEncoder(hook=interrupt), spaces=["picture", "text", "regions"]) as engine:
        with pytest.raises(KeyboardInterrupt):
            engine.sync()
        assert engine.info().spaces["regions"].live == 7 * 128
    encoder = toy.ToyEncoder()
    engine = open_engine(its_encoder=encoder)
    engine.sync()
    assert engine.info().spaces["regions"].live == 7 * 180
    assert encoder.pictures_read == 7 * 52


def test_a_picture_that_cannot_be_read_at_filling_is_reported_each_time(open_engine, toy_folder):
    with open_engine() as engine:
        engine.add_folder(toy_folder)
    engine = open_engine(spaces=["picture", "text", "regions"])
    toy_folder.rename(toy_folder.with_name("unplugged"))
    assert len(engine.sync().failed) == 61  # the folder, and each picture
    toy_folder.with_name("unplugged").rename(toy_folder)
    assert engine.sync().failed == ()
    assert engine.info().spaces["regions"].live == 7 * 60


def test_a_space_that_was_left_out_for_a_while_is_brought_up_to_date(open_engine, folder, encoder, toy):
    file = toy.draw(folder / "a.png", "red disc")
    toy.dataset(folder, [{"id": "a", "image": "a.png", "text": "something"}])
    with open_engine() as engine:
        engine.add_folder(folder)
    toy.draw(file, "blue square")
    with open_engine(spaces=["text"]) as engine:
        engine.sync()
    engine = open_engine(spaces=["picture", "text"])
    engine.sync()
    toy.check_against_files(engine, encoder, [file])


def test_spaces_stay_as_they_were_chosen(open_engine, toy):
    open_engine(spaces=["picture", "regions"]).close()
    engine = open_engine()
    engine.add([Item(id="a", image=toy.image_of("red disc"), text="a red disc")])
    assert {name for name, space in engine.info().spaces.items() if space.live} == {"picture", "regions"}


def test_reindexing_fills_every_wanted_space(open_engine, toy_folder, toy):
    engine = open_engine(spaces=["picture", "text", "regions"])
    engine.add_folder(toy_folder)
    engine.reindex(toy.ToyEncoder(seed=4))
    spaces = engine.info().spaces
    assert (spaces["picture"].live, spaces["regions"].live) == (60, 420)


def test_a_bad_space_leaves_the_store_as_it_was(open_engine, toy_folder):
    with open_engine() as engine:
        engine.add_folder(toy_folder)
    with pytest.raises(InvalidInput):
        open_engine(spaces=["picture", "colours"])
    assert len(open_engine().search("red", k=60)) == 60
