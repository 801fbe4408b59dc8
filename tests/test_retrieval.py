"""What a search gives back: always k where k exist, the same each time, copies in one hit, filters and sorting."""

import random

import numpy as np
import pytest
from PIL import Image

from mmsearch import Engine, Item, Query, retrieval, searchspace
from mmsearch.errors import InvalidInput


@pytest.fixture(scope="module", params=["exact", "hnsw"])
def index(request):
    """The kind of index; ``hnsw``: spaces of 500 rows get a graph, and filters that keep 50 are walked through it."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "hnsw":
            patch.setattr(searchspace, "CROSSOVER", 500)
            patch.setattr(retrieval, "SCAN_ALLOWED", 50)
        yield request.param


def fill(engine, toy, n_items):
    """Add numbered texts of all kinds in turn; ``rare`` marks every thousandth."""
    engine.add(
        Item(id=f"{n:04}", text=f"{toy.KINDS[n % 12]} number {n}", metadata={"n": n, "rare": n % 1000 == 7})
        for n in range(n_items)
    )
    return engine


@pytest.fixture(scope="module")
def thousands(index, toy, tmp_path_factory):
    """3,000 texts, 250 of each kind, which no test changes."""
    with Engine.open(tmp_path_factory.mktemp("thousands") / "store", toy.ToyEncoder()) as engine:
        yield fill(engine, toy, 3_000)


@pytest.fixture
def hundreds(index, engine, toy):
    """720 texts, 60 of each kind, for tests that change them."""
    return fill(engine, toy, 720)


# Always k -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "n_all"),
    [
        (None, 3000),
        ({"rare": True}, 3),
        ("n < 100", 100),
        ("n >= 1500", 1500),
        ("n != 5", 2999),
        ({"n": {"$in": [3, 33, 333]}}, 3),
    ],
)
def test_a_search_gives_k_hits_whenever_k_exist(thousands, index, where, n_all):
    assert thousands.info().spaces["text"].index == index
    for k in (1, 10, 200, 5_000):
        hits = thousands.search("a red disc", k=k, where=where)
        assert len(hits) == min(k, n_all)
        assert len({hit.item.id for hit in hits}) == len(hits)
        assert [hit.rank for hit in hits] == list(range(1, len(hits) + 1))


def test_an_index_finds_what_a_scan_finds(thousands, toy):
    queries = [*toy.KINDS, *toy.COLOURS, *toy.SHAPES, "something else"]
    for where in (None, "n >= 1500", "n < 100", {"rare": False}):
        found = thousands.search_many(queries, k=20, where=where)
        scanned = thousands.search_many(queries, k=20, where=where, exact=True)
        same = [len({*toy.ids(one)} & {*toy.ids(other)}) for one, other in zip(found, scanned, strict=True)]
        assert sum(same) >= 0.98 * 20 * len(queries)


def test_every_stored_item_finds_itself(thousands):
    ids, rows = thousands.vectors()
    hits = thousands.search_many([Query(vector=row) for row in rows], k=1)
    assert [hit.item.id for (hit,) in hits] == ids


def test_items_that_were_removed_take_no_places(hundreds, toy):
    reds = [item.id for item in hundreds.items() if item.text.startswith("red disc")]
    hundreds.remove(reds[:-7])
    assert set(toy.ids(hundreds.search("a red disc", k=7))) == set(reds[-7:])
    assert len(hundreds.search("a red disc", k=720)) == 720 - len(reds) + 7


def test_what_was_added_after_the_index_was_built_is_found(hundreds, index, toy):
    hundreds.add([Item(id="late", text="a yellow disc and more of it")])
    assert hundreds.info().spaces["text"].index == index
    assert toy.ids(hundreds.search("a yellow disc and more of it", k=1)) == ["late"]
    assert "late" in toy.ids(hundreds.search("a yellow disc", k=61))


def test_damaged_index_files_change_no_answer(hundreds, index, open_engine):
    before = hundreds.search("a red disc", k=50, exact=True)
    hundreds.close()
    for file in (hundreds.path / "indexes").glob("*.usearch"):
        file.write_bytes(file.read_bytes()[:-1000])
    again = open_engine()
    assert again.search("a red disc", k=50) == before
    again.add(["one more"])
    assert again.info().spaces["text"].index == index


# The same call, the same answer -------------------------------------------------------------------------------------


def test_the_same_call_gives_the_same_answer(engine, toy_folder):
    engine.add_folder(toy_folder)
    first = engine.search("a red disc", k=60)
    assert all(engine.search("a red disc", k=60) == first for _ in range(5))


def test_a_batch_answers_like_single_queries(thousands):
    _, rows = thousands.vectors(["0005", "1003"])
    queries = [
        "a red disc", "blue", Query(text="square") - Query(text="red"), Query(id="0001"), *map(Query, ["x", "y z"]),
        Query(vector=rows[0]), Query(vector=rows.mean(axis=0)), "a red disc",
    ]  # fmt: skip
    for options in ({}, {"where": "n > 2000"}, {"where": {"rare": True}}, {"sort": "-n"}, {"exact": True}):
        together = thousands.search_many(queries, 25, **options)
        assert together == [thousands.search(query, 25, **options) for query in queries]
        assert together[0] == together[-1]


def test_a_mixed_batch_answers_like_single_queries(engine, toy_folder):
    engine.add_folder(toy_folder)
    engine.add([Item(id=f"text {n}", text=f"a red thing, {n}") for n in range(9)])
    blend = Query(text="red") + Query(id="blue disc 0.png")
    queries = ["red", toy_folder / "red disc 0.png", Query(id="text 3"), blend]
    assert engine.search_many(queries, 30) == [engine.search(query, 30) for query in queries]


def test_more_hits_begin_with_the_same_hits(thousands):
    longest = thousands.search("a red disc", k=500)
    for k in (1, 7, 20, 250, 251):
        assert thousands.search("a red disc", k=k) == longest[:k]


def test_equal_scores_are_settled_by_id(engine, toy):
    names = [f"item {n:03}" for n in range(200)]
    shuffled = random.Random(0).sample(names, 200)
    engine.add(Item(id=name, text="a red disc") for name in shuffled)
    for k in (1, 10, 199, 200):
        assert toy.ids(engine.search("a red disc", k=k)) == names[:k]
    engine.remove(names[:5])
    assert toy.ids(engine.search("red", k=10)) == names[5:15]


def test_no_queries_give_no_answers(thousands):
    assert thousands.search_many([]) == []


# Copies -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def copied(engine, folder, toy):
    """Three copies of one red disc in three folders, and another picture."""
    for name in ("b/x.png", "a/x.png", "c/x.png"):
        toy.draw(folder / name, "red disc")
    toy.draw(folder / "other.png", "red square")
    engine.add_folder(folder)
    return engine


def test_identical_pictures_are_one_hit_that_lists_its_copies(copied, toy):
    first, second = copied.search("red disc")
    assert (first.item.id, [copy.id for copy in first.copies]) == ("a/x.png", ["b/x.png", "c/x.png"])
    assert (second.item.id, second.copies) == ("other.png", ())
    assert first.copies[0] == copied.get("b/x.png")


def test_a_filter_chooses_among_copies(copied, toy):
    (hit,) = copied.search("red disc", where={"folder": "b"})
    assert hit.item.id == "b/x.png"
    (hit,) = copied.search("red disc", where={"folder": {"$in": ["c", "b"]}})
    assert (hit.item.id, "c/x.png" in [copy.id for copy in hit.copies]) == ("b/x.png", True)


def test_hundreds_of_copies_take_one_place(engine, folder, toy):
    for n in range(300):
        toy.draw(folder / f"copy {n:03}.png", "red disc", 0)
    toy.draw_all(folder, ["red disc", "blue disc"], 5)
    engine.add_folder(folder)
    hits = engine.search("red disc", k=10)
    assert len(hits) == 10
    assert sorted(len(hit.copies) for hit in hits) == [0] * 9 + [300]


def test_pictures_that_look_alike_are_not_copies(engine, folder, toy):
    toy.draw(folder / "a.png", "red disc")
    with Image.open(folder / "a.png") as image:
        image.save(folder / "b.bmp")
    engine.add_folder(folder)
    assert [hit.copies for hit in engine.search("red disc")] == [(), ()]


def test_products_that_share_a_picture_are_found_by_their_own_texts(engine, toy):
    picture = toy.png_of("red disc")
    engine.add([Item(id=f"{size}", image=picture, text=f"size {size}") for size in ("small", "large")])
    assert toy.ids(engine.search("size large", k=1, field="text")) == ["large"]
    assert toy.ids(engine.search("size small", k=1, field="text")) == ["small"]


# where --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def shop(engine):
    """Five texts with prices (one as a string, one missing), tags and nested facts."""
    engine.add(
        [
            Item(id="a", text="red one", metadata={"price": 9, "tags": ["old", "dear"], "by": {"name": "Ada"}}),
            Item(id="b", text="red two", metadata={"price": "10", "tags": ["new"], "by": {"name": "Bo"}}),
            Item(id="c", text="red three", metadata={"price": 100.5, "tags": [], "group": "photo album"}),
            Item(id="d", text="red four", metadata={"price": "cheap", "group": "photo"}),
            Item(id="e", text="red five", metadata={"group": None}),
        ]
    )
    return engine


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (None, "abcde"),
        ({}, "abcde"),
        ("", "abcde"),
        ({"price": 10}, "b"),
        ({"price": "10"}, "b"),
        ("price = 10.0", "b"),
        ("price > 9.5", "bc"),
        ({"price": {"$gte": 9, "$lt": 100}}, "ab"),
        ({"price": {"$ne": 10}}, "acde"),
        ({"price": {"$exists": False}}, "e"),
        ("price exists and not price > 50", "abd"),
        ({"tags": "old"}, "a"),
        ({"tags": {"$in": ["new", "old"]}}, "ab"),
        ("tags in (new, dear)", "ab"),
        ({"tags": {"$nin": ["new"]}}, "acde"),
        ("by.name = Ada or group prefix 'photo a'", "ac"),
        ({"$or": [{"group": "photo"}, {"$not": {"price": {"$exists": True}}}]}, "de"),
        ({"group": {"$prefix": "photo"}, "price": 100.5}, "c"),
        ({"id": {"$in": ["a", "e", "z"]}}, "ae"),
        ("nothing = 1", ""),
    ],
    ids=str,
)
def test_a_filter_lets_through_what_it_says(shop, toy, where, expected):
    assert sorted(toy.ids(shop.search("red", where=where))) == list(expected)


@pytest.mark.parametrize("where", ["price >", "price = = 3", {"price": {"$near": 3}}, {"$or": []}, 7, "(price = 3"])
def test_a_filter_that_cannot_be_read_is_refused(shop, where):
    with pytest.raises(InvalidInput):
        shop.search("red", where=where)


def test_a_filter_sees_metadata_as_it_is_now(shop, toy):
    assert toy.ids(shop.search("red", where="price = 9")) == ["a"]
    shop.add([Item(id="a", text="red one", metadata={"price": 8}), Item(id="b", text="red two", metadata={"price": 9})])
    assert toy.ids(shop.search("red", where="price = 9")) == ["b"]
    shop.remove(["b"])
    assert shop.search("red", where="price = 9") == []


# sort ---------------------------------------------------------------------------------------------------------------


def test_hits_are_sorted_by_a_field_and_those_without_it_come_last(shop, toy):
    assert toy.ids(shop.search("red", sort="price"))[:4] == ["a", "b", "c", "d"]
    assert toy.ids(shop.search("red", sort="-price"))[:4] == ["d", "c", "b", "a"]
    for sort in ("price", "-price"):
        hits = shop.search("red", sort=sort)
        assert hits[-1].item.id == "e"
        assert [hit.rank for hit in hits] == [1, 2, 3, 4, 5]


def test_sorting_reorders_the_best_k_and_keeps_their_scores(thousands):
    plain = thousands.search("a red disc", k=30)
    by_number = thousands.search("a red disc", k=30, sort="n")
    assert [hit.item.metadata["n"] for hit in by_number] == sorted(hit.item.metadata["n"] for hit in plain)
    assert {(hit.item.id, hit.score) for hit in by_number} == {(hit.item.id, hit.score) for hit in plain}


def test_sorting_by_a_field_that_nobody_has_changes_nothing(thousands):
    assert thousands.search("a red disc", sort="nothing") == thousands.search("a red disc")


def test_equal_values_keep_the_order_of_the_scores(thousands):
    plain = thousands.search("a red disc", k=20)
    assert thousands.search("a red disc", k=20, sort="rare") == plain
    assert thousands.search("a red disc", k=20, sort="-rare") == plain


def test_a_value_that_is_not_a_number_does_not_disturb_the_order_of_numbers(engine):
    prices = [3, "nan", 1, "inf", 2, "nan", 0]
    engine.add([Item(id=str(n), text=f"red {n}", metadata={"price": price}) for n, price in enumerate(prices)])
    values = [hit.item.metadata["price"] for hit in engine.search("red", sort="price")]
    assert [value for value in values if isinstance(value, int)] == [0, 1, 2, 3]


# Scores -------------------------------------------------------------------------------------------------------------


def test_no_score_exceeds_one(engine, toy_folder):
    engine.add_folder(toy_folder)
    ids, rows = engine.vectors()
    assert all(hit.score <= 1.0 for hits in engine.search_many([Query(id=id) for id in ids], k=3) for hit in hits)
    np.testing.assert_allclose(
        [engine.search(Query(vector=row), k=1)[0].score for row in rows[:5]], np.ones(5), atol=1e-3
    )
