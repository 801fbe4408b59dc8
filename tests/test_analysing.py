"""A store as a whole: its map, what is odd, flawed or wrongly labelled in it, and what stands for the rest."""

import csv
import json
import shutil
import threading

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter

from mmsearch import Engine, InvalidInput, Item, ItemNotFound
from mmsearch.clusters import NOISE

KINDS = ("red disc", "blue square", "green triangle")
"""Kinds that have neither colour nor shape in common: two principal components tell them apart."""


def pictures(toy, kinds=KINDS, each=4, start=0):
    """Items named for what they show, with their kind and number as metadata."""
    for kind in kinds:
        for n in range(start, start + each):
            yield Item(f"{kind} {n}", image=toy.png_of(kind, n), metadata={"kind": kind, "n": n})


@pytest.fixture(scope="module")
def made(toy, tmp_path_factory):
    """A store with twelve pictures, four of each of three kinds: maps of so few are made by principal components."""
    path = tmp_path_factory.mktemp("made") / "store"
    with Engine.open(path, toy.ToyEncoder()) as engine:
        engine.add(pictures(toy))
    return path


@pytest.fixture
def filled(made, open_engine, tmp_path):
    """An engine over a copy of that store."""
    shutil.copytree(made, tmp_path / "store")
    return open_engine()


def places(drawn):
    """Where items lie, by id."""
    return dict(zip((item.id for item in drawn.items), map(tuple, drawn.points.tolist()), strict=True))


def check_map(drawn, engine):
    """What holds of every map of all items."""
    assert list(places(drawn)) == [item.id for item in engine.items()]
    assert len(drawn) == len(engine)
    assert drawn.points.dtype == np.float32
    assert np.isfinite(drawn.points).all()
    assert np.abs(drawn.points).max(initial=0) <= 1.5  # what comes later may lie somewhat beyond 1
    assert 0 <= drawn.trust <= 1


def nearest_kind(toy, drawn, id):
    """The kind whose other members lie nearest to an item, on the average."""
    at = places(drawn)
    kinds = {}
    for item in drawn.items:
        if item.id != id:
            kinds.setdefault(toy.kind_of(item), []).append(at[item.id])
    return min(kinds, key=lambda kind: np.linalg.norm(np.mean(kinds[kind], axis=0) - at[id]))


def stop(progress):
    raise KeyboardInterrupt


# Maps -------------------------------------------------------------------------------------------------------------


def test_like_items_lie_together(filled, toy):
    drawn = filled.map()
    check_map(drawn, filled)
    for item in drawn.items:
        assert nearest_kind(toy, drawn, item.id) == toy.kind_of(item)


@pytest.mark.parametrize("count", [0, 1, 2])
@pytest.mark.parametrize("method", ["auto", "pca", "umap", "pacmap"])
def test_next_to_nothing_has_a_map_too(engine, toy, count, method):
    engine.add(pictures(toy, KINDS[:count], each=1))
    for _ in range(2):
        drawn = engine.map(method=method)
        check_map(drawn, engine)
        assert set(drawn.labels.tolist()) <= {NOISE}


def test_identical_items_lie_at_one_place(engine, toy):
    engine.add(Item(str(n), image=toy.png_of("red disc")) for n in range(20))
    drawn = engine.map(method="pca")
    check_map(drawn, engine)
    assert len(set(places(drawn).values())) == 1


def test_a_map_is_kept_and_costs_nothing_the_next_time(filled, open_engine):
    before = places(filled.map())
    told = []
    assert places(filled.map(progress=told.append)) == before
    filled.close()
    assert places(open_engine().map(seed=5, progress=told.append)) == before
    assert told == []


def test_new_items_lie_near_their_kind_and_the_old_ones_stay(filled, toy):
    before = places(filled.map())
    filled.add(pictures(toy, each=2, start=10))
    drawn = filled.map()
    check_map(drawn, filled)
    after = places(drawn)
    assert {id: after[id] for id in before} == before
    for item in drawn.items:
        if item.id not in before:
            assert nearest_kind(toy, drawn, item.id) == toy.kind_of(item)
    assert places(filled.map()) == after


def test_new_items_keep_their_places_while_more_come(filled, toy):
    filled.map()
    filled.add(pictures(toy, each=1, start=10))
    before = places(filled.map())
    filled.add(pictures(toy, each=1, start=20))
    after = places(filled.map())
    for id, place in before.items():
        assert after[id] == pytest.approx(place, abs=1e-5)


def test_old_places_stay_where_pictures_and_texts_are_mixed(filled, toy):
    filled.add(Item(f"{kind} text {n}", text=f"{kind} {n}") for kind in KINDS for n in range(4))
    before = places(filled.map(method="pca"))
    for item in (Item("red disc words", text="red disc 77"), Item("red disc 77", image=toy.png_of("red disc", 77))):
        filled.add([item])
        drawn = filled.map()
        check_map(drawn, filled)
        after = places(drawn)
        assert {id: after[id] for id in before} == before
        assert nearest_kind(toy, drawn, item.id) == "red disc"


def test_places_stay_when_the_store_is_rebuilt(filled):
    filled.map()
    filled.remove(["red disc 0", "blue square 1"])
    before = places(filled.map())
    filled.rebuild()
    assert places(filled.map()) == before


def test_an_item_whose_picture_was_replaced_lies_where_its_new_kind_is(filled, toy):
    filled.map()
    filled.add([Item("red disc 0", image=toy.png_of("blue square", 50), metadata={"kind": "blue square"})])
    drawn = filled.map()
    check_map(drawn, filled)
    assert nearest_kind(toy, drawn, "red disc 0") == "blue square"
    filled.add(pictures(toy, KINDS[:1], each=2, start=30))  # the replaced one draws no red disc towards blue squares
    drawn = filled.map()
    assert nearest_kind(toy, drawn, "red disc 30") == "red disc"


def test_a_map_that_knows_less_than_half_is_made_anew(filled, toy):
    before = places(filled.map())
    filled.add(pictures(toy, ("yellow disc", "yellow square"), each=8))
    drawn = filled.map(method="pca")
    check_map(drawn, filled)
    after = places(drawn)
    assert {id: after[id] for id in before} != before
    assert nearest_kind(toy, drawn, "yellow disc 0").startswith("yellow")


def test_a_map_is_made_anew_when_that_is_asked_for(filled, toy):
    before = places(filled.map())
    filled.add(pictures(toy, ("yellow disc",), each=3))
    kept = places(filled.map())
    anew = places(filled.map(method="pca", refit=True))
    assert {id: kept[id] for id in before} == before
    assert {id: anew[id] for id in before} != before
    assert places(filled.map(method="pca")) == anew
    assert places(filled.map()) == kept  # each method has a map of its own


def test_removed_items_vanish_from_the_map(filled):
    before = places(filled.map())
    gone = ["red disc 0", "blue square 3"]
    filled.remove(gone)
    drawn = filled.map()
    check_map(drawn, filled)
    assert places(drawn) == {id: place for id, place in before.items() if id not in gone}


def test_an_item_that_is_removed_and_added_again_is_a_new_one(filled, toy):
    filled.map()
    filled.remove(["red disc 0"])
    filled.add([Item("red disc 0", image=toy.png_of("blue square", 77))])
    drawn = filled.map()
    check_map(drawn, filled)
    assert nearest_kind(toy, drawn, "red disc 0") == "blue square"


def test_everything_may_be_removed_and_others_come(filled, toy):
    filled.map()
    filled.remove([item.id for item in filled.items()])
    assert len(filled.map()) == 0
    filled.add(pictures(toy, KINDS[:2], each=3, start=50))
    check_map(filled.map(), filled)


def test_each_filter_has_a_map_of_its_own(filled):
    whole = places(filled.map())
    few = filled.map(where="n < 2")
    assert set(places(few)) == {id for id in whole if int(id[-1]) < 2}
    assert places(few) != {id: place for id, place in whole.items() if int(id[-1]) < 2}
    assert places(filled.map()) == whole
    assert len(filled.map(where={"n": 99})) == 0


def test_another_encoder_makes_another_map(filled, toy):
    filled.map()
    filled.reindex(toy.ToyEncoder(seed=3))
    told = []
    check_map(filled.map(progress=told.append), filled)
    assert told
    told.clear()
    filled.map(progress=told.append)
    assert told == []


@pytest.mark.parametrize(
    "spoilt", ["not json", "[]", '{"null": 7}', '{"null": {"shelf": "0", "facts": {}}}', '{"null": {"facts": []}}']
)
def test_a_memory_of_maps_that_cannot_be_read_is_no_obstacle(filled, spoilt):
    filled.map()
    with filled._store.writing(), filled._store.catalog.transaction():
        filled._store.catalog.set_setting("maps", spoilt)
    before = places(filled.map())
    assert places(filled.map()) == before


@pytest.mark.parametrize("damage", ["gone", "empty", "cut"])
def test_files_of_maps_that_cannot_be_read_are_no_obstacle(filled, damage):
    filled.map()
    for file in (filled.path / "maps").glob("*/*"):
        if damage == "gone":
            file.unlink()
        else:
            file.write_bytes(b"" if damage == "empty" else file.read_bytes()[:-1])
    check_map(filled.map(), filled)


def test_a_store_that_somebody_else_writes_to_has_a_map_all_the_same(filled, open_engine):
    with open_engine()._store.writing():
        check_map(filled.map(), filled)


def test_a_read_only_store_has_a_map(filled, monkeypatch):
    monkeypatch.setattr(filled._store.catalog.database, "read_only", True)
    first = filled.map()
    check_map(first, filled)
    assert places(filled.map()) == places(first)


def test_the_latest_clusters_colour_the_map(filled, toy):
    assert filled.map().names == {}
    groups = filled.clusters(3, vocabulary=toy.KINDS)
    drawn = filled.map()
    assert drawn.names == {cluster.id: cluster.title for cluster in groups}
    assert dict(zip(places(drawn), drawn.labels.tolist(), strict=True)) == groups.labels
    assert filled.map(where="n < 2").names == {}


def test_clusters_that_are_given_colour_the_map(filled, toy):
    two = filled.clusters(2, vocabulary=toy.KINDS)
    three = filled.clusters(3, vocabulary=toy.KINDS)
    for groups in (two, three):
        drawn = filled.map(clusters=groups)
        assert dict(zip(places(drawn), drawn.labels.tolist(), strict=True)) == groups.labels
        assert set(drawn.names.values()) == {cluster.title for cluster in groups}


def test_items_that_came_after_the_clusters_are_in_none(filled, toy):
    filled.clusters(3, vocabulary=toy.KINDS)
    filled.add(pictures(toy, KINDS[:1], each=1, start=40))
    drawn = filled.map()
    assert drawn.labels[-1] == NOISE
    assert NOISE not in drawn.labels[:-1]


def test_a_map_is_written_as_a_table(filled, toy, tmp_path):
    filled.clusters(3, vocabulary=toy.KINDS)
    filled.map().write(tmp_path / "map.csv")
    with open(tmp_path / "map.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    assert all(row["name"] == " ".join(row["id"].split()[:2]) for row in rows)


@pytest.mark.parametrize(
    "options", [{"method": "tsne"}, {"where": "(("}, {"seed": -1}, {"seed": 0.5}, {"where": 3}, {"clusters": 3}]
)
def test_a_bad_question_for_a_map_is_refused(filled, options):
    with pytest.raises(InvalidInput):
        filled.map(**options)


# What is odd ------------------------------------------------------------------------------------------------------


def test_the_odd_one_comes_first(engine, toy):
    engine.add(pictures(toy, ("red disc",), each=80))
    engine.add(pictures(toy, ("blue triangle",), each=1))
    found = engine.outliers(3)
    assert len(found) == 3
    assert found[0].item.id == "blue triangle 0"
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    for one in found:
        assert set(one.scores) == {"lof", "isolation", "distance"}
        assert all(0 <= score <= 1 for score in (one.score, *one.scores.values()))


@pytest.mark.parametrize("method", ["lof", "distance"])
@pytest.mark.parametrize("count", [11, 40])
def test_a_method_alone_finds_it_in_small_collections_too(engine, toy, method, count):
    engine.add(pictures(toy, ("red disc",), each=count))
    engine.add(pictures(toy, ("blue triangle",), each=1))
    (one,) = engine.outliers(1, methods=[method])
    assert one.item.id == "blue triangle 0"
    assert set(one.scores) == {method}


@pytest.mark.parametrize("count", [0, 1, 2])
def test_next_to_nothing_has_no_odd_ones_and_an_answer(engine, toy, count):
    engine.add(pictures(toy, KINDS[:count], each=1))
    found = engine.outliers()
    assert len(found) == count
    assert all(np.isfinite([one.score, *one.scores.values()]).all() for one in found)


def test_where_none_differs_none_is_odd(engine, toy):
    engine.add(Item(str(n), image=toy.png_of("red disc")) for n in range(7))
    assert {one.score for one in engine.outliers()} == {0}


def test_what_is_odd_depends_on_the_filter(filled, toy):
    filled.add(Item(f"more {n}", image=toy.png_of("red disc", n + 9), metadata={"few": 1}) for n in range(11))
    filled.add([Item("square", image=toy.png_of("blue square", 60), metadata={"few": 1})])
    found = filled.outliers(where="few = 1", methods=["lof"])
    assert len(found) == 12
    assert found[0].item.id == "square"
    assert filled.outliers(where="few = 2") == []


def test_more_than_there_are_gives_all_of_them_once(filled):
    found = filled.outliers(1_000)
    assert sorted(one.item.id for one in found) == sorted(item.id for item in filled.items())
    assert filled.outliers(1_000) == found
    assert filled.outliers(3) == found[:3]


@pytest.mark.parametrize(
    "options",
    [
        {"k": 0},
        {"k": -1},
        {"k": 1.5},
        {"k": True},
        {"k": "3"},
        {"methods": []},
        {"methods": ["iforest"]},
        {"methods": "lof"},
        {"methods": None},
        {"methods": [["lof"]]},
        {"where": "(("},
        {"seed": -1},
        {"seed": "a"},
    ],
)
def test_a_bad_question_for_outliers_is_refused(filled, options):
    with pytest.raises(InvalidInput, match=r"expected|filter"):
        filled.outliers(**options)


# What is flawed ---------------------------------------------------------------------------------------------------


def scene(side=300):
    """A picture with edges, light and shadow, in which nothing is wrong."""
    chance = np.random.default_rng(7)
    coarse = Image.fromarray(chance.integers(0, 256, (9, 9, 3), dtype=np.uint8))
    fine = Image.fromarray(chance.integers(0, 256, (side, side, 3), dtype=np.uint8))
    return Image.blend(coarse.resize((side, side), Image.Resampling.NEAREST), fine, 0.2)


@pytest.fixture
def flawed(engine, folder):
    """A picture that is fine, and one with each flaw, named for it."""
    good = scene()
    good.save(folder / "good.png")
    ImageEnhance.Brightness(good).enhance(0.2).save(folder / "dark.png")
    Image.blend(good, Image.new("RGB", good.size, "white"), 0.85).save(folder / "bright.png")
    good.filter(ImageFilter.GaussianBlur(6)).save(folder / "blurred.png")
    good.resize((40, 40)).save(folder / "small.png")
    good.crop((0, 0, 300, 70)).save(folder / "aspect.png")
    Image.new("RGB", (100, 100), (90, 90, 90)).save(folder / "empty.png")
    engine.add_folder(folder)
    return engine


def flaws_of(found):
    return {(one.kind, one.item.id) for one in found}


def test_each_flaw_is_found_where_it_is(flawed):
    found = flawed.flaws()
    assert flaws_of(found) == {
        (kind, f"{kind}.png") for kind in ("dark", "bright", "blurred", "small", "aspect", "empty")
    }
    assert all(np.isfinite([one.value, one.limit]).all() for one in found)


def test_flaws_are_told_by_kind_the_worst_first(engine, folder):
    for shade in (60, 20, 40):
        scene().point(lambda level, shade=shade: level * shade // 255).save(folder / f"{shade}.png")
    engine.add_folder(folder)
    assert [one.item.id for one in engine.flaws() if one.kind == "dark"] == ["20.png", "40.png", "60.png"]


def test_pictures_are_measured_once(flawed, folder, open_engine):
    found = flawed.flaws()
    shutil.rmtree(folder)
    told = []
    assert flawed.flaws(progress=told.append) == found
    flawed.close()
    assert open_engine().flaws(progress=told.append) == found
    assert told == []


def test_an_interrupted_call_goes_on(engine, toy, monkeypatch):
    monkeypatch.setattr("mmsearch.looking._BATCH", 4)
    engine.add(pictures(toy))
    told = []

    def stop_at_the_third(progress):
        told.append(progress)
        if len(told) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.flaws(progress=stop_at_the_third)
    left = []
    engine.flaws(progress=left.append)
    assert left[0].total < told[0].total == 12


def test_a_changed_picture_is_measured_again(flawed, folder):
    flawed.flaws()
    scene().rotate(90).save(folder / "dark.png")
    flawed.add_folder(folder)
    assert ("dark", "dark.png") not in flaws_of(flawed.flaws())


def test_pictures_that_cannot_be_opened_any_more_are_passed_over(flawed, folder):
    (folder / "dark.png").write_bytes(b"no picture")
    (folder / "small.png").unlink()
    assert {id for _, id in flaws_of(flawed.flaws())} == {"bright.png", "blurred.png", "aspect.png", "empty.png"}


def test_flaws_are_told_of_what_passes_the_filter_alone(flawed):
    assert flaws_of(flawed.flaws(where="width < 60")) == {("small", "small.png")}
    assert flawed.flaws(where="width > 1000") == []
    with pytest.raises(InvalidInput):
        flawed.flaws(where="((")


def test_texts_and_nothing_have_no_flaws(engine):
    assert engine.flaws() == []
    engine.add([Item("a", text="dark and blurred")])
    assert engine.flaws() == []


def test_flaws_are_told_of_each_copy(engine, toy):
    engine.add(Item(name, image=Image.new("RGB", (20, 20), "black")) for name in "ab")
    assert {id for _, id in flaws_of(engine.flaws())} == {"a", "b"}


def test_a_store_that_cannot_be_written_is_measured_all_the_same(flawed, open_engine):
    with open_engine()._store.writing():
        found = flawed.flaws()
    assert len(found) == 6
    assert flawed.flaws() == found


def test_measures_that_cannot_be_read_are_made_anew(flawed):
    found = flawed.flaws()
    names = ("brightness", "darkness", "contrast", "sharpness", "entropy", "aspect", "width", "height")
    words, nothing = json.dumps(dict.fromkeys(names, "x")), json.dumps(dict.fromkeys(names, float("nan")))
    for content in ("[1", "[]", "{}", "null", "7", '"x"', words, nothing):
        with flawed._store.writing(), flawed._store.catalog.transaction():
            flawed._store.catalog.database.writer.execute("UPDATE looks SET measured = ?", (content,))
        assert flawed.flaws() == found


# What is wrongly labelled -----------------------------------------------------------------------------------------


@pytest.fixture
def labelled(engine, toy):
    """Eight pictures of each of three kinds, of which two have the label of another."""
    wrong = {"red disc 3": "blue square", "green triangle 5": "red disc"}
    engine.add(
        Item(item.id, image=item.image, metadata={**item.metadata, "kind": wrong.get(item.id, item.metadata["kind"])})
        for item in pictures(toy, each=8)
    )
    return engine


def test_wrong_labels_come_first(labelled):
    found = labelled.suspects("kind")
    assert {(one.item.id, one.label, one.suggested) for one in found[:2]} == {
        ("red disc 3", "blue square", "red disc"),
        ("green triangle 5", "red disc", "green triangle"),
    }
    for one in found:
        assert 0 <= one.score <= 1
        assert 0 <= one.agreement <= 1
        assert one.label == one.item.metadata["kind"] != one.suggested


def test_at_most_k_labels_are_told(labelled):
    found = labelled.suspects("kind")
    assert labelled.suspects("kind", 1) == found[:1]
    assert labelled.suspects("kind", 1_000) == found


def test_labels_are_judged_among_what_passes_the_filter(labelled):
    assert labelled.suspects("kind", where="n = 77") == []
    assert {one.item.id for one in labelled.suspects("kind", where="n < 5")} == {"red disc 3"}


def test_right_labels_are_no_suspects(filled):
    assert filled.suspects("kind") == []


def test_numbers_and_truths_are_labels_and_lists_are_none(engine, toy):
    engine.add(
        Item(f"{kind} {n}", image=toy.png_of(kind, n), metadata={"number": number, "list": [kind], "true": number > 1})
        for number, kind in enumerate(KINDS)
        for n in range(5)
    )
    engine.add([Item("odd", image=toy.png_of("red disc", 40), metadata={"number": 2, "true": True, "list": ["x"]})])
    assert [(one.item.id, one.label, one.suggested) for one in engine.suspects("number")] == [("odd", "2", "0")]
    assert [one.item.id for one in engine.suspects("true")] == ["odd"]
    with pytest.raises(InvalidInput, match="holds a list"):
        engine.suspects("list")


def test_items_without_the_label_are_left_out(filled, toy):
    filled.add([Item("bare", image=toy.png_of("red disc", 33)), Item("words", text="red disc")])
    assert filled.suspects("kind") == []


@pytest.mark.parametrize(("field", "k"), [("size", None), ("", None), (None, None), (["kind"], None), ("kind", 0)])
def test_a_bad_field_or_k_is_refused(filled, field, k):
    with pytest.raises(InvalidInput, match="expected"):
        filled.suspects(field, k)


def test_an_empty_store_has_no_suspects(engine):
    assert engine.suspects("kind") == []


# What stands for the rest -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["density", "k-center"])
def test_a_sample_of_three_shows_the_three_kinds(filled, toy, method):
    assert {toy.kind_of(item) for item in filled.sample(3, method=method)} == set(KINDS)


@pytest.mark.parametrize("method", ["density", "k-center", "random"])
def test_the_first_of_a_sample_are_the_smaller_sample(filled, method):
    whole = filled.sample(12, method=method, seed=4)
    assert sorted(item.id for item in whole) == sorted(item.id for item in filled.items())
    for n in (1, 5, 11):
        assert filled.sample(n, method=method, seed=4) == whole[:n]
    assert filled.sample(10**9, method=method, seed=4) == whole


@pytest.mark.parametrize("method", ["density", "k-center", "random"])
def test_chosen_items_are_not_chosen_again(filled, method):
    chosen = ["red disc 0", "blue square 1", "red disc 0"]
    found = [item.id for item in filled.sample(100, method=method, chosen=chosen)]
    assert sorted([*found, *set(chosen)]) == sorted(item.id for item in filled.items())
    assert filled.sample(3, method=method, chosen=[item.id for item in filled.items()]) == []


@pytest.mark.parametrize("method", ["density", "k-center"])
def test_chosen_items_count_as_covered(filled, toy, method):
    (one,) = filled.sample(1, method=method, chosen=["red disc 0", "blue square 0"])
    assert toy.kind_of(one) == "green triangle"


def test_chosen_items_outside_of_the_filter_are_no_obstacle(filled):
    found = filled.sample(100, where="n < 2", chosen=["red disc 0", "red disc 3"])
    assert sorted(item.id for item in found) == sorted(
        f"{kind} {n}" for kind in KINDS for n in range(2) if (kind, n) != ("red disc", 0)
    )


def test_a_sample_of_nothing_is_empty(filled):
    assert filled.sample(3, where="n > 50") == []
    filled.remove([item.id for item in filled.items()])
    assert filled.sample(3) == []


@pytest.mark.parametrize(
    "options",
    [
        {"n": 0},
        {"n": -3},
        {"n": 1.5},
        {"n": True},
        {"n": None},
        {"n": 3, "method": "k-means"},
        {"n": 3, "chosen": "red disc 0"},
        {"n": 3, "where": "(("},
        {"n": 3, "seed": -1},
        {"n": 3, "seed": "a", "method": "random"},
    ],
)
def test_a_bad_question_for_a_sample_is_refused(filled, options):
    with pytest.raises(InvalidInput, match=r"expected|filter"):
        filled.sample(**options)


def test_an_unknown_chosen_id_is_told(filled):
    with pytest.raises(ItemNotFound, match="teapot"):
        filled.sample(3, chosen=["red disc 0", "teapot"])


# Of every collection ----------------------------------------------------------------------------------------------


def analyses(engine, toy):
    """All that can be asked of a collection, by name."""
    return {
        "clusters": lambda **options: engine.clusters(3, vocabulary=toy.KINDS, **options),
        "map": lambda **options: engine.map(method="pca", **options),
        "duplicates": engine.duplicates,
        "leaks": lambda **options: engine.leaks("kind", **options),
        "outliers": engine.outliers,
        "flaws": engine.flaws,
        "suspects": lambda **options: engine.suspects("kind", **options),
    }


def test_pictures_and_texts_together_have_all_answers(filled, toy):
    filled.add(
        Item(f"{kind} text {n}", text=f"{kind} {n}", metadata={"kind": kind}) for kind in KINDS for n in range(4)
    )
    drawn = filled.map(method="pca")
    check_map(drawn, filled)
    for item in drawn.items:
        assert nearest_kind(toy, drawn, item.id) == toy.kind_of(item)
    assert len(filled.outliers(100)) == 24
    assert filled.suspects("kind") == []
    assert {toy.kind_of(item) for item in filled.sample(3)} == set(KINDS)
    assert len(filled.sample(100)) == 24
    assert filled.duplicates() == filled.leaks("kind") == filled.flaws() == []


def test_a_first_text_among_pictures_makes_the_map_anew(filled):
    filled.map()
    filled.add([Item("words", text="red disc"), Item("more words", text="blue square")])
    check_map(filled.map(method="pca"), filled)


def test_items_with_the_same_text_among_pictures_are_in_a_cluster(filled, toy):
    filled.add(Item(f"text {n}", text="red disc") for n in range(3))
    found = filled.clusters(3, vocabulary=toy.KINDS)
    assert found.n_noise == 0


def test_an_interruption_leaves_everything_as_it_was(filled, toy):
    before = {name: ask() for name, ask in analyses(filled, toy).items() if name not in ("clusters", "map")}
    for name, ask in analyses(filled, toy).items():
        if name not in ("flaws",):  # what was measured is not measured again
            with pytest.raises(KeyboardInterrupt):
                ask(progress=stop)
    assert {name: ask() for name, ask in analyses(filled, toy).items() if name in before} == before
    assert len(filled.clusters(3, vocabulary=toy.KINDS)) == 3
    filled.add([Item("later", image=toy.png_of("red disc", 90))])  # nothing is left locked
    assert len(filled.map(method="pca")) == 13


def test_threads_have_the_answers_that_one_has(filled, toy):
    asked = [*analyses(filled, toy).values()] * 2
    expected = [filled.duplicates(), filled.outliers(), filled.flaws(), filled.suspects("kind")]
    failed = []

    def run(ask):
        try:
            ask()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(ask,)) for ask in asked]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert [filled.duplicates(), filled.outliers(), filled.flaws(), filled.suspects("kind")] == expected
    check_map(filled.map(), filled)


def test_items_may_come_and_go_while_it_is_asked(filled, toy):
    failed = []

    def change():
        for n in range(6):
            filled.add(
                [Item(f"red disc {50 + n}", image=toy.png_of("red disc", 50 + n), metadata={"kind": "red disc"})]
            )
            filled.remove([f"red disc {50 + n}"])

    def watched():
        try:
            change()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=watched)
    thread.start()
    while thread.is_alive():
        found = filled.clusters(3, vocabulary=toy.KINDS)
        assert len(found.labels) in (12, 13)
        assert len(filled.outliers(100)) in (12, 13)
        assert filled.duplicates() == []
    thread.join()
    assert failed == []
    check_map(filled.map(), filled)


def test_a_report_is_one_page_that_loads_nothing(filled, toy, tmp_path):
    filled.add([Item("copy", image=toy.png_of("red disc", 0), metadata={"kind": "blue square"})])
    filled.report(tmp_path / "deep" / "report.html", n=3, labels=["kind"], vocabulary=toy.KINDS)
    page = (tmp_path / "deep" / "report.html").read_text()
    assert all(kind in page for kind in KINDS)
    for loads in ('src="http', "src='http", "src=http", "<link", "@import", "url(http"):
        assert loads not in page


@pytest.mark.parametrize("where", [None, "n > 50"])
def test_a_report_on_nothing_is_written_too(engine, tmp_path, where):
    engine.report(tmp_path / "report.html", where=where)
    assert (tmp_path / "report.html").stat().st_size > 500


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("report.pdf", {}),
        ("report", {}),
        ("report.html", {"labels": ["size"]}),
        ("report.html", {"labels": "kind"}),
        ("report.html", {"where": "(("}),
        ("report.html", {"n": 0}),
        ("report.html", {"vocabulary": []}),
        ("report.html", {"seed": -1}),
    ],
)
def test_a_report_that_cannot_be_made_is_refused_before_the_work(filled, tmp_path, name, options):
    told = []
    with pytest.raises(InvalidInput):
        filled.report(tmp_path / name, progress=told.append, **options)
    assert told == []
    assert not (tmp_path / name).exists()


def test_agreement_with_an_unknown_field_is_refused(filled, toy):
    groups = filled.clusters(3, vocabulary=toy.KINDS)
    for field in ("size", ["kind"], None):
        with pytest.raises(InvalidInput, match="metadata field"):
            filled.cluster_agreement(groups, field)
