"""The front door: open, fill, ask, remove, reindex; what comes back, and what is refused."""

import threading
from dataclasses import replace
from functools import reduce
from operator import add

import numpy as np
import pytest
from PIL import Image

from mmsearch import Engine, Hit, Item, Query
from mmsearch.errors import EncoderMismatch, InvalidInput, ItemNotFound, PictureError, StoreBusy, StoreError
from mmsearch.protocols import Encoder


def test_the_toy_encoder_is_an_encoder(encoder):
    assert isinstance(encoder, Encoder)


def test_the_toy_encoder_is_a_clip_in_small(toy, encoder):
    texts = encoder.encode_texts(["a red disc", "the red disc", "a blue square"])
    pictures = encoder.encode_images([toy.image_of("red disc", 0), toy.image_of("blue square", 0)])
    assert texts[0] @ texts[1] > 0.9
    assert texts[0] @ texts[2] > 0.4
    assert 0.4 < texts[0] @ pictures[0] < 0.6
    assert abs(texts[0] @ pictures[1]) < 0.1


# Text finds pictures ------------------------------------------------------------------------------------------------


def test_a_text_finds_exactly_its_pictures(engine, toy_folder, toy):
    assert engine.add_folder(toy_folder).added == 60
    for kind in toy.KINDS:
        assert set(toy.ids(engine.search(f"a {kind}", k=5))) == {f"{kind} {n}.png" for n in range(5)}


def test_a_picture_finds_its_kind_and_itself_first(engine, toy_folder, toy):
    engine.add_folder(toy_folder)
    hits = engine.search(toy_folder / "blue square 3.png", k=5)
    assert hits[0].item.id == "blue square 3.png"
    assert hits[0].score == pytest.approx(1.0, abs=2e-3)
    assert {toy.kind_of(hit.item) for hit in hits} == {"blue square"}


def test_a_picture_may_be_asked_as_path_bytes_or_pil_image(engine, toy_folder, toy):
    engine.add_folder(toy_folder)
    file = toy_folder / "green disc 1.png"
    by_path = engine.search(file, k=7)
    assert engine.search(file.read_bytes(), k=7) == by_path
    assert engine.search(Image.open(file), k=7) == by_path
    assert engine.search(Query(image=file), k=7) == by_path


def test_a_str_is_a_text_and_never_a_path(engine, toy_folder, toy, monkeypatch):
    engine.add_folder(toy_folder)
    monkeypatch.chdir(toy_folder)
    toy.draw(toy_folder / "blue disc.png", "red square")
    assert {toy.kind_of(hit.item) for hit in engine.search("blue disc.png", k=5)} == {"blue disc"}


def test_hits_carry_item_score_and_rank(engine, toy_folder):
    engine.add_folder(toy_folder)
    hits = engine.search("a yellow triangle", k=3)
    assert all(isinstance(hit, Hit) for hit in hits)
    assert [hit.rank for hit in hits] == [1, 2, 3]
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert hits[0].item.path == toy_folder / hits[0].item.id
    assert hits[0].item.text is None
    assert hits[0].field == "picture"
    assert hits[0].copies == ()


def test_a_store_with_one_field_returns_plain_cosines(engine, toy_folder, encoder):
    engine.add_folder(toy_folder)
    (query,) = encoder.encode_texts(["a red disc"])
    ids, rows = engine.vectors()
    cosines = dict(zip(ids, rows @ query, strict=True))
    for hit in engine.search("a red disc", k=60):
        assert hit.score == pytest.approx(float(cosines[hit.item.id]), abs=1e-3)


def test_scores_are_rounded_to_five_decimals(engine, toy_folder):
    engine.add_folder(toy_folder)
    assert all(hit.score == round(hit.score, 5) for hit in engine.search("a red disc", k=60))


def test_an_empty_store_answers_with_nothing(engine):
    assert engine.search("a red disc") == []
    assert engine.search_many(["a", "b"]) == [[], []]
    assert engine.vectors()[0] == []
    assert len(engine) == 0


def test_fewer_items_than_k_give_fewer_hits(engine):
    engine.add(["a red disc", "a blue square"])
    assert len(engine.search("red", k=10)) == 2


# k and bad queries --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [0, -1, 1_000_001, 2.0, True, "3", None])
def test_a_bad_k_is_refused_with_what_was_expected(engine, k):
    engine.add(["a red disc"])
    with pytest.raises(InvalidInput, match="expected k as a whole number from 1 to 1000000"):
        engine.search("red", k=k)


@pytest.mark.parametrize("k", [1, 2, 1_000_000, np.int64(2)])
def test_every_k_from_one_to_a_million_works(engine, k):
    engine.add(["a red disc", "a blue disc", "a green disc"])
    assert len(engine.search("red", k=k)) == min(k, 3)


@pytest.mark.parametrize("text", ["", "   ", "\n\t"])
def test_an_empty_text_is_refused(engine, text):
    engine.add(["a red disc"])
    with pytest.raises(InvalidInput, match="expected a text to search for"):
        engine.search(text)


def test_an_endless_text_is_refused_and_says_the_limit(engine):
    engine.add(["a red disc"])
    assert engine.search("red " * 500)
    with pytest.raises(InvalidInput, match="at most 2000 characters, got 4000"):
        engine.search("red " * 1000)


@pytest.mark.parametrize("query", [None, 7, ["red"], {"text": "red"}])
def test_a_query_of_another_type_is_refused(engine, query):
    engine.add(["a red disc"])
    with pytest.raises(InvalidInput, match="expected a query as str, Path, PIL image, bytes or Query"):
        engine.search(query)


@pytest.mark.parametrize("query", [Query(), Query(weight=2), Query(others=(Query(), Query()))])
def test_a_query_without_terms_is_refused(engine, query):
    engine.add(["a red disc"])
    with pytest.raises(InvalidInput, match="empty Query"):
        engine.search(query)


def test_a_query_picture_that_cannot_be_opened_names_itself(engine, tmp_path, toy):
    engine.add(["a red disc"])
    with pytest.raises(PictureError, match=r"not there\.png"):
        engine.search(tmp_path / "not there.png")
    with pytest.raises(PictureError, match=r"bad\.png"):
        engine.search(toy.write(tmp_path / "bad.png", b"no picture"))
    with pytest.raises(PictureError):
        engine.search(b"no picture")


@pytest.mark.parametrize("queries", ["red disc", b"png", Query(text="red")])
def test_search_many_refuses_a_single_query(engine, queries):
    with pytest.raises(InvalidInput, match="expected a list of queries"):
        engine.search_many(queries)


def test_search_many_refuses_a_single_picture(engine, toy):
    engine.add(["a red disc"])
    with pytest.raises(InvalidInput, match="expected a list of queries"):
        engine.search_many(toy.image_of("red disc"))


def test_an_unknown_field_is_refused(engine):
    engine.add(["a red disc"])
    for field in ("regions", "caption", ""):
        with pytest.raises(InvalidInput, match="expected a field of picture, text"):
            engine.search("red", field=field)
        with pytest.raises(InvalidInput, match="expected a field of picture, text"):
            engine.vectors(field=field)


# Blends -------------------------------------------------------------------------------------------------------------


def test_a_blend_of_texts_finds_what_has_both(engine, toy_folder, toy):
    engine.add_folder(toy_folder)
    hits = engine.search(Query(text="something red") + Query(text="a triangle"), k=5)
    assert {toy.kind_of(hit.item) for hit in hits} == {"red triangle"}


def test_a_negative_weight_pushes_away(engine, toy_folder, toy):
    engine.add_folder(toy_folder)
    hits = engine.search(Query(text="red") - 0.5 * Query(text="disc"), k=10)
    assert {toy.kind_of(hit.item) for hit in hits} == {"red square", "red triangle"}


def test_a_weight_shifts_the_balance(engine, toy_folder, toy):
    engine.add_folder(toy_folder)
    mostly_red = engine.search(3 * Query(text="red disc") + Query(text="blue disc"), k=5)
    mostly_blue = engine.search(Query(text="red disc") + 3 * Query(text="blue disc"), k=5)
    assert {toy.kind_of(hit.item) for hit in mostly_red} == {"red disc"}
    assert {toy.kind_of(hit.item) for hit in mostly_blue} == {"blue disc"}


def test_text_and_image_in_one_query_are_blended(engine, toy_folder, toy):
    engine.add_folder(toy_folder)
    both = Query(text="a square", image=toy_folder / "green square 0.png")
    added = Query(text="a square") + Query(image=toy_folder / "green square 0.png")
    assert engine.search(both, k=8) == engine.search(added, k=8)
    assert {toy.kind_of(hit.item) for hit in engine.search(both, k=5)} == {"green square"}


def test_an_id_and_a_vector_are_queries_too(engine, toy_folder):
    engine.add_folder(toy_folder)
    _, (row,) = engine.vectors(["red disc 2.png"])
    by_id = engine.search(Query(id="red disc 2.png"), k=9)
    assert by_id[0].item.id == "red disc 2.png"
    assert engine.search(Query(vector=row), k=9) == by_id
    assert engine.search(Query(vector=(7 * row).tolist()), k=9) == by_id


def test_liking_and_disliking_items_is_one_query(engine, toy_folder, toy):
    engine.add_folder(toy_folder)
    taste = Query(id="blue disc 0.png") + Query(id="blue disc 1.png") - 0.7 * Query(id="red disc 0.png")
    assert {toy.kind_of(hit.item) for hit in engine.search(taste, k=3)} == {"blue disc"}


def test_a_query_of_thousands_of_terms_works(engine, toy_folder, toy):
    engine.add_folder(toy_folder)
    liked = [Query(id=f"blue disc {n % 5}.png") for n in range(2_000)]
    assert {toy.kind_of(hit.item) for hit in engine.search(reduce(add, liked), k=5)} == {"blue disc"}


def test_terms_that_cancel_each_other_out_are_refused(engine):
    engine.add(["a red disc"])
    with pytest.raises(InvalidInput, match="cancel each other out"):
        engine.search(Query(text="red") - Query(text="red"))
    with pytest.raises(InvalidInput, match="cancel each other out"):
        engine.search(0 * Query(text="red"))


@pytest.mark.parametrize("weight", [1e-9, 1e-3, 1e9, 1e200])
def test_a_common_factor_of_all_weights_changes_nothing(engine, toy_folder, weight):
    engine.add_folder(toy_folder)
    plain = Query(text="red") + Query(text="square")
    assert engine.search(weight * plain, k=5) == engine.search(plain, k=5)


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), -float("inf")])
def test_a_weight_that_is_no_number_is_refused(engine, weight):
    engine.add(["a red disc"])
    with pytest.raises(InvalidInput, match="finite weights"):
        engine.search(Query(text="red", weight=weight))


@pytest.mark.parametrize(
    "vector",
    [[1.0, 2.0], [0.0] * 32, [float("nan")] * 32, "red", np.ones((2, 32)), np.ones((0, 32)), 3.0],
    ids=["narrow", "zero", "nan", "str", "two rows", "no rows", "scalar"],
)
def test_a_bad_query_vector_is_refused(engine, vector):
    engine.add(["a red disc"])
    with pytest.raises(InvalidInput, match="expected"):
        engine.search(Query(vector=vector))


def test_an_unknown_id_in_a_query_is_not_found(engine):
    engine.add(["a red disc"])
    with pytest.raises(ItemNotFound, match="no item 'nobody' in this store of 1 items"):
        engine.search(Query(id="nobody"))


# similar ------------------------------------------------------------------------------------------------------------


def test_similar_leaves_out_the_item_and_its_copies(engine, toy_folder, toy):
    toy.draw(toy_folder / "a copy of red disc 0.png", "red disc", 0)
    engine.add_folder(toy_folder)
    hits = engine.similar("red disc 0.png", k=4)
    assert set(toy.ids(hits)) == {f"red disc {n}.png" for n in range(1, 5)}
    assert engine.similar("a copy of red disc 0.png", k=4) == hits


def test_similar_gives_k_items_however_many_copies_there_are(engine, folder, toy):
    for n in range(30):
        toy.draw(folder / f"copy {n}.png", "red disc", 0)
    toy.draw_all(folder, ["blue square"], 3)
    engine.add_folder(folder)
    assert set(toy.ids(engine.similar("copy 3.png", k=3))) == {f"blue square {n}.png" for n in range(3)}


def test_similar_filters_and_looks_in_one_field(engine, toy):
    engine.add(
        [Item(id=f"{kind} {n}", text=f"a {kind}, take {n}", metadata={"n": n}) for kind in toy.KINDS for n in range(3)]
    )
    hits = engine.similar("red disc 0", k=2, where={"n": {"$gt": 0}}, field="text")
    assert set(toy.ids(hits)) == {"red disc 1", "red disc 2"}


def test_an_empty_store_refuses_what_others_refuse(engine):
    with pytest.raises(ItemNotFound):
        engine.similar("nobody")
    with pytest.raises(ItemNotFound):
        engine.search(Query(id="nobody"))
    with pytest.raises(InvalidInput):
        engine.search("")


def test_similar_to_an_unknown_item_is_not_found(engine):
    engine.add(["a red disc"])
    with pytest.raises(ItemNotFound):
        engine.similar("nobody")


# get, items, vectors ------------------------------------------------------------------------------------------------


def test_an_item_comes_back_as_it_was_given(engine):
    metadata = {"price": 120, "tags": ["old", "dear"], "at": {"city": "Bonn"}, "sold": False, "by": None}
    given = Item(id="b1", text="a red bicycle", metadata=metadata)
    engine.add([given])
    assert engine.get("b1") == given
    assert list(engine.items()) == [given]
    assert engine.search("bicycle")[0].item == given


def test_an_unknown_id_is_not_found_and_the_message_reads_well(engine):
    engine.add(["a red disc"])
    with pytest.raises(ItemNotFound) as caught:
        engine.get("nobody")
    assert str(caught.value) == "no item 'nobody' in this store of 1 items"
    assert isinstance(caught.value, KeyError)


def test_vectors_come_in_the_order_of_adding_or_of_the_ids(engine, encoder):
    texts = {"c": "a red disc", "a": "a blue disc", "b": "a green square"}
    engine.add([Item(id=id, text=text) for id, text in texts.items()])
    ids, rows = engine.vectors()
    assert ids == ["c", "a", "b"]
    np.testing.assert_allclose(rows, encoder.encode_texts(list(texts.values())), atol=2e-3)
    some, picked = engine.vectors(["b", "c", "b"])
    assert some == ["b", "c", "b"]
    np.testing.assert_array_equal(picked, rows[[2, 0, 2]])


def test_vectors_are_float32_unit_rows(engine, toy_folder):
    engine.add_folder(toy_folder)
    ids, rows = engine.vectors()
    assert rows.shape == (60, 32)
    assert rows.dtype == np.float32
    assert sorted(ids) == sorted(item.id for item in engine.items())
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)


def test_vectors_of_no_ids_are_no_rows(engine):
    engine.add(["a red disc"])
    ids, rows = engine.vectors([])
    assert ids == []
    assert rows.shape == (0, 32)


def test_vectors_are_of_pictures_where_there_are_any_else_of_texts(engine, toy):
    engine.add([Item(id="text", text="a red disc")])
    assert engine.vectors()[0] == ["text"]
    engine.add([Item(id="picture", image=toy.image_of("red disc"))])
    assert engine.vectors()[0] == ["picture"]
    assert engine.vectors(field="text")[0] == ["text"]


def test_vectors_are_of_texts_again_once_the_last_picture_is_removed(engine, toy):
    engine.add([Item(id="text", text="a red disc"), Item(id="picture", image=toy.image_of("red disc"))])
    engine.remove(["picture"])
    assert engine.vectors()[0] == ["text"]


def test_vectors_of_an_item_without_one_in_the_field_are_refused(engine, toy):
    engine.add([Item(id="text", text="a red disc"), Item(id="picture", image=toy.image_of("red disc"))])
    with pytest.raises(InvalidInput, match="'text' has no picture vector"):
        engine.vectors(["text"], field="picture")
    with pytest.raises(ItemNotFound):
        engine.vectors(["nobody"])


def test_vectors_need_no_model(open_engine, encoder):
    open_engine().add([Item(id="a", text="a red disc")])
    ids, rows = open_engine(its_encoder=None).vectors()
    assert ids == ["a"]
    np.testing.assert_allclose(rows, encoder.encode_texts(["a red disc"]), atol=2e-3)


# add ----------------------------------------------------------------------------------------------------------------


def test_a_bare_path_is_a_picture_and_a_bare_str_a_text(engine, folder, toy):
    file = toy.draw(folder / "one.png", "red disc")
    report = engine.add([file, "one.png", "a blue square"])
    assert (report.added, report.failed) == (3, ())
    picture, *texts = engine.items()
    assert (picture.id, picture.path, picture.text) == ("one.png", file, None)
    assert [(item.path, item.text) for item in texts] == [(None, "one.png"), (None, "a blue square")]


@pytest.mark.parametrize("single", ["a red disc", Item(text="a red disc")])
def test_a_single_item_in_place_of_a_list_is_refused(engine, single):
    with pytest.raises(InvalidInput, match="expected a list of items"):
        engine.add(single)
    assert len(engine) == 0


def test_things_that_are_no_items_are_refused_before_anything_is_added(engine):
    with pytest.raises(InvalidInput, match="got int at 1"):
        engine.add(["a red disc", 7])
    assert len(engine) == 0


def test_items_may_come_from_a_generator(engine):
    assert engine.add(f"text number {n}" for n in range(100)).added == 100
    assert len(engine) == 100


def test_an_item_that_is_added_again_is_unchanged(engine, encoder, folder, toy):
    items = [
        Item(id="t", text="a red disc", metadata={"n": 1}),
        Item(id="p", path=toy.draw(folder / "p.png", "red disc")),
        Item(id="m", image=toy.image_of("blue disc")),
    ]
    assert engine.add(items).added == 3
    before = (encoder.texts_read, encoder.pictures_read)
    report = engine.add(items)
    assert (report.added, report.unchanged, report.changed) == (0, 3, 0)
    assert (encoder.texts_read, encoder.pictures_read) == before


def test_an_id_that_is_there_is_replaced(engine, toy):
    engine.add([Item(id="a", text="a red disc", metadata={"n": 1}), Item(id="b", text="a green disc")])
    report = engine.add([Item(id="a", text="a blue square", metadata={"n": 2})])
    assert (report.added, report.changed) == (1, 1)
    assert engine.get("a") == Item(id="a", text="a blue square", metadata={"n": 2})
    assert len(engine) == 2
    assert toy.ids(engine.search("blue square", k=1)) == ["a"]
    assert toy.ids(engine.search("red disc", k=2)) == ["b", "a"]
    assert toy.ids(engine.search("disc", where={"n": 1})) == []


def test_an_item_that_was_added_by_path_can_be_replaced_by_its_id(engine, folder, toy):
    engine.add([toy.draw(folder / "a.png", "red disc")])
    report = engine.add([replace(engine.get("a.png"), metadata={"stars": 5})])
    assert report.failed == ()
    assert len(engine) == 1
    assert engine.get("a.png").metadata == {"stars": 5}


def test_a_part_that_is_replaced_by_nothing_is_found_no_more(engine, toy):
    engine.add([Item(id="a", text="a red disc", image=toy.image_of("blue square")), Item(id="b", text="a green disc")])
    engine.add([Item(id="a", text="a red disc")])
    assert engine.search("blue square", field="picture") == []
    assert engine.get("a").path is None
    engine.add([Item(id="a", image=toy.image_of("blue square"))])
    assert toy.ids(engine.search("red disc", field="text")) == ["b"]


def test_an_equal_text_twice_in_one_call_is_one_item(engine):
    engine.add(["a red disc", "a blue disc", "a red disc"])
    assert sorted(item.text for item in engine.items()) == ["a blue disc", "a red disc"]


def test_an_equal_path_twice_in_one_call_is_one_item(engine, folder, toy):
    file = toy.draw(folder / "a.png", "red disc")
    engine.add([file, file])
    assert [item.path for item in engine.items()] == [file]


def test_an_own_id_twice_in_one_call_loses_nothing_silently(engine):
    report = engine.add([Item(id="a", text="a red disc"), Item(id="a", text="a blue disc")])
    assert len(engine) == 1
    assert report.added + len(report.failed) == 2


def test_equal_names_in_two_folders_become_two_ids(engine, folder, toy):
    one, other = toy.draw(folder / "1" / "a.png", "red disc"), toy.draw(folder / "2" / "a.png", "blue disc")
    assert engine.add([one, other]).added == 2
    assert {item.path for item in engine.items()} == {one, other}
    assert toy.ids(engine.search("red disc", k=1)) == ["a.png"]


def test_an_own_id_that_exists_elsewhere_is_refused_in_failed(engine, toy_folder):
    engine.add_folder(toy_folder)
    report = engine.add([Item(id="red disc 0.png", text="mine"), Item(id="other", text="also mine")])
    assert report.added == 1
    ((name, reason),) = report.failed
    assert name == "red disc 0.png"
    assert "'red disc 0.png' belongs to an item" in reason
    assert engine.get("red disc 0.png").path == toy_folder / "red disc 0.png"
    assert engine.get("other").text == "also mine"


def test_an_item_with_neither_picture_nor_text_fails_and_the_rest_is_added(engine):
    report = engine.add([Item(id="nothing"), Item(id="blank", text="  \n"), Item(id="good", text="a red disc")])
    assert report.added == 1
    assert {name for name, _ in report.failed} == {"nothing", "blank"}
    assert all("expected a picture or a text" in reason for _, reason in report.failed)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1, 2}, b"bytes"], ids=repr)
def test_metadata_that_json_cannot_hold_fails_and_the_rest_is_added(engine, value):
    report = engine.add([Item(id="a", text="one"), Item(id="b", text="two", metadata={"x": value})])
    assert report.added == 1
    assert [name for name, _ in report.failed] == ["b"]
    assert [item.id for item in engine.items()] == ["a"]


def test_a_picture_that_is_missing_or_broken_fails_and_the_rest_is_added(engine, folder, toy):
    bad, gone = toy.write(folder / "bad.png", b"no picture"), folder / "gone.png"
    report = engine.add([bad, toy.draw(folder / "good.png", "red disc"), gone, Item(id="bytes", image=b"no picture")])
    assert report.added == 1
    failed = dict(report.failed)
    assert set(failed) == {str(bad), str(gone), "bytes"}
    assert all(failed.values())


def test_a_text_beyond_a_million_characters_fails_and_the_rest_is_added(engine):
    report = engine.add([Item(id="long", text="red " * 300_000), Item(id="short", text="red")])
    assert report.added == 1
    ((name, reason),) = report.failed
    assert name == "long"
    assert "at most 1,000,000 characters" in reason


def test_a_picture_from_memory_can_be_read_again(engine, toy):
    image = toy.image_of("red disc")
    engine.add([Item(id="pil", image=image), Item(id="bytes", image=toy.png_of("blue disc", 4))])
    assert np.array_equal(np.asarray(Image.open(engine.get("pil").path)), np.asarray(image))
    assert engine.get("bytes").path.read_bytes() == toy.png_of("blue disc", 4)
    assert toy.ids(engine.search(engine.get("pil").path, k=1)) == ["pil"]


def test_a_picture_from_memory_is_kept_until_its_last_item_goes(engine, toy):
    engine.add([Item(id=id, image=toy.png_of("red disc")) for id in ("a", "b")])
    path = engine.get("a").path
    engine.remove(["a"])
    assert path.exists()
    engine.remove(["b"])
    assert not path.exists()


def test_a_replaced_picture_from_memory_leaves_nothing_behind(engine, toy):
    engine.add([Item(id="a", image=toy.png_of("red disc"))])
    before = engine.get("a").path
    engine.add([Item(id="a", image=toy.png_of("blue disc"))])
    assert not before.exists()
    assert engine.get("a").path.exists()
    assert engine.search("blue disc")[0].score > 0.4


def test_a_file_that_was_added_by_path_is_never_deleted(engine, folder, toy):
    file = toy.draw(folder / "a.png", "red disc")
    engine.add([Item(id="a", path=file)])
    engine.add([Item(id="a", text="no picture any more")])
    engine.remove(["a"])
    assert file.exists()


# remove -------------------------------------------------------------------------------------------------------------


def test_a_removed_item_is_found_no_more(engine, toy):
    engine.add([Item(id=id, text=f"a red disc, {id}") for id in "abc"])
    assert engine.remove(["b", "b"]) == 1
    assert set(toy.ids(engine.search("red disc"))) == {"a", "c"}
    assert len(engine) == 2
    with pytest.raises(ItemNotFound):
        engine.get("b")


def test_removing_an_unknown_id_removes_nothing(engine):
    engine.add([Item(id=id, text=id) for id in "abc"])
    with pytest.raises(ItemNotFound, match="'nobody'"):
        engine.remove(["a", "nobody", "b"])
    assert [item.id for item in engine.items()] == ["a", "b", "c"]


def test_removing_a_str_is_refused(engine):
    engine.add([Item(id="a", text="a")])
    with pytest.raises(InvalidInput, match="expected a list of ids"):
        engine.remove("a")
    assert len(engine) == 1


def test_removing_one_of_two_copies_keeps_the_other(engine, toy):
    engine.add([Item(id=id, image=toy.png_of("red disc")) for id in "ab"])
    engine.remove(["a"])
    (hit,) = engine.search("red disc")
    assert (hit.item.id, hit.copies) == ("b", ())


def test_rebuild_drops_what_was_removed_and_answers_the_same(engine, toy_folder):
    engine.add_folder(toy_folder)
    engine.remove([f"red disc {n}.png" for n in range(5)])
    before = engine.search("a red square", k=55)
    engine.rebuild()
    assert engine.search("a red square", k=55) == before
    assert engine.info().spaces["picture"].rows == engine.info().spaces["picture"].live == 55


# Opening ------------------------------------------------------------------------------------------------------------


def test_what_was_stored_is_there_after_reopening(open_engine, toy_folder):
    with open_engine() as engine:
        engine.add_folder(toy_folder)
        before = engine.search("a red disc", k=60)
    again = open_engine()
    assert again.search("a red disc", k=60) == before
    assert again.add_folder(toy_folder).unchanged == 60


def test_another_encoder_of_the_same_width_is_refused_with_both_fingerprints_and_the_way_out(open_engine, toy):
    open_engine().add(["a red disc"])
    with pytest.raises(EncoderMismatch) as caught:
        open_engine(its_encoder=toy.ToyEncoder(seed=1))
    message = str(caught.value)
    assert "toy-0-32" in message
    assert "toy-1-32" in message
    assert "reindex" in message


def test_an_encoder_that_runs_elsewhere_is_the_same_encoder(open_engine, toy):
    open_engine().add(["a red disc"])
    elsewhere = toy.ToyEncoder(name="toy-on-gpu")
    elsewhere.runtime = "gpu, half precision"
    assert open_engine(its_encoder=elsewhere).search("red")[0].item.text == "a red disc"


def test_a_store_whose_encoder_has_no_known_name_asks_for_it(open_engine):
    open_engine().add(["a red disc"])
    bare = open_engine(its_encoder=None)
    assert len(bare) == 1
    with pytest.raises(EncoderMismatch, match=r"'toy' \(toy-0-32\).*pass the encoder itself"):
        bare.search("red")


def test_a_missing_store_is_refused_unless_it_may_be_made(tmp_path, encoder):
    with pytest.raises(StoreError, match="there is no store at"):
        Engine.open(tmp_path / "nowhere", encoder, create=False)
    assert not (tmp_path / "nowhere").exists()


def test_a_folder_of_other_files_is_not_taken_for_a_store(toy_folder, encoder):
    before = sorted(toy_folder.iterdir())
    with pytest.raises(StoreError, match="a folder with other files in it"):
        Engine.open(toy_folder, encoder)
    assert sorted(toy_folder.iterdir()) == before


def test_a_file_is_not_taken_for_a_store(tmp_path, encoder):
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(StoreError, match="got the file"):
        Engine.open(file, encoder)
    assert file.read_text() == "mine"


@pytest.mark.parametrize("spaces", [["picture", "nonsense"], ["regions"], [], "picture"])
def test_unknown_or_useless_spaces_are_refused(open_engine, spaces):
    with pytest.raises(InvalidInput, match="expected spaces of picture, text, regions, cells"):
        open_engine(spaces=spaces)


def test_cells_are_refused_of_an_encoder_without_them(open_engine):
    engine = open_engine(spaces=["picture", "cells"])
    with pytest.raises(InvalidInput, match="has no cells"):
        engine.add(["a red disc"])


def test_a_closed_engine_lets_another_one_write(open_engine):
    with open_engine() as engine:
        engine.add(["a red disc"])
    assert open_engine().add(["a blue disc"]).added == 1


# Writers and readers ------------------------------------------------------------------------------------------------


def test_a_second_writer_is_refused_and_readers_keep_working(open_engine, toy):
    seen = {}

    def meanwhile(kind, inputs, rows):
        if "other" not in seen:
            seen["other"] = other = open_engine()
            seen["hits"] = toy.ids(other.search("red disc"))
            with pytest.raises(StoreBusy, match="is being written by process") as caught:
                other.add(["a third thing"])
            seen["refused"] = str(caught.value)

    open_engine().add([Item(id="a", text="a red disc")])
    open_engine(its_encoder=toy.ToyEncoder(hook=meanwhile)).add([Item(id="b", text="a red disc too")])
    assert seen["hits"] == ["a"]
    assert "reading works" in seen["refused"]
    assert set(toy.ids(seen["other"].search("red disc"))) == {"a", "b"}


def watch(engine, done, seen):
    """Search again and again; note how many were found, or what went wrong."""
    try:
        while not done.is_set():
            seen.append(len(engine.search("red disc", k=100)))
    except BaseException as error:
        seen.append(error)


def test_threads_that_search_see_whole_states_while_others_write(engine):
    seen, done = [], threading.Event()
    watchers = [threading.Thread(target=watch, args=(engine, done, seen)) for _ in range(3)]
    for n in range(30):
        engine.add([Item(id=f"left {n}", text="a red disc"), Item(id=f"right {n}", text="a red disc too")])
        if n == 0:
            for watcher in watchers:
                watcher.start()
    done.set()
    for watcher in watchers:
        watcher.join()
    assert set(seen) <= set(range(2, 61, 2))
    assert len(engine.search("red disc", k=100)) == 60


def test_progress_is_reported_up_to_the_end(engine, toy_folder):
    steps = []
    engine.add_folder(toy_folder, progress=steps.append)
    encoding = [step for step in steps if step.stage == "encode" and step.total]
    assert (encoding[0].done, encoding[0].total) == (0, 60)
    assert (encoding[-1].done, encoding[-1].total) == (60, 60)
    assert [step.done for step in encoding] == sorted(step.done for step in encoding)


# reindex ------------------------------------------------------------------------------------------------------------


def test_reindexing_keeps_ids_metadata_and_answers(engine, toy_folder, toy):
    engine.add_folder(toy_folder)
    engine.add([Item(id="mine", text="a red disc", metadata={"n": 7})])
    before = list(engine.items())
    other = toy.ToyEncoder(seed=5)
    report = engine.reindex(other)
    assert (report.added, report.failed) == (61, ())
    assert list(engine.items()) == before
    assert engine.info().fingerprint == "toy-5-32"
    assert set(toy.ids(engine.search("red disc", k=5, field="picture"))) == {f"red disc {n}.png" for n in range(5)}
    np.testing.assert_allclose(engine.vectors(["mine"], field="text")[1], other.encode_texts(["a red disc"]), atol=2e-3)


def test_after_reindexing_the_old_encoder_is_refused_and_its_vectors_are_gone(open_engine, toy):
    engine = open_engine()
    engine.add(["a red disc"])
    engine.reindex(toy.ToyEncoder(seed=5))
    files = [file.name for file in (engine.path / "spaces").iterdir()]
    engine.close()
    with pytest.raises(EncoderMismatch):
        open_engine()
    assert len([name for name in files if "text" in name]) == 1
    assert open_engine(its_encoder=toy.ToyEncoder(seed=5)).search("red")[0].item.text == "a red disc"


def test_pictures_from_memory_survive_reindexing(engine, toy):
    engine.add([Item(id="pil", image=toy.image_of("red disc")), Item(id="bytes", image=toy.png_of("blue disc"))])
    assert engine.reindex(toy.ToyEncoder(seed=5)).failed == ()
    assert toy.ids(engine.search("red disc", k=1)) == ["pil"]
    assert toy.ids(engine.search("blue disc", k=1)) == ["bytes"]


def interrupting(after):
    """A hook that raises KeyboardInterrupt in the batch of pictures after so many."""
    left = [after]

    def hook(kind, inputs, rows):
        if kind == "picture":
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt

    return hook


def test_an_interrupted_reindexing_goes_on_and_the_old_encoder_answers_meanwhile(open_engine, folder, toy):
    toy.draw_all(folder, each=17)  # 204 pictures: four batches
    engine = open_engine()
    engine.add_folder(folder)
    before = engine.search("red disc", k=20)
    with pytest.raises(KeyboardInterrupt):
        engine.reindex(toy.ToyEncoder(seed=5, hook=interrupting(after=2)))
    assert engine.search("red disc", k=20) == before
    assert engine.info().fingerprint == "toy-0-32"
    engine.close()

    again = open_engine()
    assert again.search("red disc", k=20) == before
    assert again.info().reindexing_to == "toy"
    other = toy.ToyEncoder(seed=5)
    again.reindex(other)
    assert other.pictures_read == 204 - 2 * 64
    assert set(toy.ids(again.search("red disc", k=17))) == {f"red disc {n}.png" for n in range(17)}
    assert again.info().reindexing_to is None
    toy.check_against_files(again, other, list(folder.iterdir()))


def test_what_changes_during_an_interrupted_reindexing_is_encoded_as_it_is(engine, folder, toy):
    toy.draw_all(folder, each=17)
    engine.add_folder(folder)
    with pytest.raises(KeyboardInterrupt):
        engine.reindex(toy.ToyEncoder(seed=5, hook=interrupting(after=3)))
    toy.draw(folder / "blue disc 0.png", "yellow square", 99)
    (folder / "blue disc 1.png").unlink()
    toy.draw(folder / "new.png", "red square", 99)
    engine.sync()
    other = toy.ToyEncoder(seed=5)
    engine.reindex(other)
    toy.check_against_files(engine, other, list(folder.iterdir()))


def test_a_text_that_changes_during_an_interrupted_reindexing_is_encoded_as_it_is(engine, folder, toy):
    toy.draw_all(folder, each=17)
    engine.add([Item(id="note", text="a red disc")])
    engine.add_folder(folder)
    with pytest.raises(KeyboardInterrupt):
        engine.reindex(toy.ToyEncoder(seed=5, hook=interrupting(after=2)))
    engine.add([Item(id="note", text="a blue square")])
    other = toy.ToyEncoder(seed=5)
    engine.reindex(other)
    _, rows = engine.vectors(["note"], field="text")
    np.testing.assert_allclose(rows, other.encode_texts(["a blue square"]), atol=2e-3)


def test_items_whose_file_is_gone_fail_at_reindexing_and_stay(engine, folder, toy):
    toy.draw_all(folder, each=1)
    engine.add_folder(folder)
    (folder / "red disc 0.png").unlink()
    report = engine.reindex(toy.ToyEncoder(seed=5))
    assert [name for name, _ in report.failed] == [str(folder / "red disc 0.png")]
    assert report.added == 11
    assert engine.get("red disc 0.png").metadata["name"] == "red disc 0.png"
    assert len(engine.search("red disc", k=20)) == 11


def test_a_reindexing_in_which_nothing_can_be_read_switches_nothing(engine, folder, toy):
    toy.draw_all(folder, each=1)
    engine.add_folder(folder)
    before = engine.search("red disc")
    folder.rename(folder.with_name("elsewhere"))
    with pytest.raises(StoreError, match="nothing was switched"):
        engine.reindex(toy.ToyEncoder(seed=5))
    assert engine.search("red disc") == before


def test_reindexing_with_the_same_encoder_changes_no_answer(engine, toy_folder, toy):
    engine.add_folder(toy_folder)
    before = engine.search("red disc", k=60)
    engine.reindex(toy.ToyEncoder())
    assert engine.search("red disc", k=60) == before


def test_info_says_what_is_in_the_store(engine, toy_folder, toy):
    toy.write(toy_folder / "bad.png", b"no picture")
    engine.add_folder(toy_folder)
    info = engine.info()
    assert (info.items, info.failures, info.dim) == (60, 1, 32)
    assert (info.encoder, info.fingerprint, info.licence) == ("toy", "toy-0-32", "Apache-2.0")
    assert info.roots == [{"kind": "folder", "path": str(toy_folder)}]
    assert (info.spaces["picture"].rows, info.spaces["picture"].live, info.spaces["picture"].recall) == (60, 60, 1.0)
    assert info.bytes_on_disk > 60 * 32 * 2
