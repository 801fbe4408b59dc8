"""Copies in a store: exact ones, resized and recompressed ones, and those that are in two splits of a dataset."""

import functools
import os
import shutil
import zipfile
from io import BytesIO

import pytest
from PIL import Image, ImageFilter, ImageOps

from mmsearch import InvalidInput, Item
from mmsearch.gallery import gallery_folder


@functools.cache
def photo(n):
    """A photograph of the gallery, some 320 pixels wide."""
    with zipfile.ZipFile(gallery_folder() / "images.zip") as archive:
        names = [name for name in archive.namelist() if "-photos-" in name]
        return Image.open(BytesIO(archive.read(names[11 * n]))).convert("RGB")


def saved(folder, name, image, **options):
    image.save(folder / name, **options)
    return folder / name


def half(image):
    return image.resize((image.width // 2, image.height // 2))


def told(groups):
    """Kind and ids of each group, the best copy first and the others as a set."""
    return [(group.kind, group.best.id, {item.id for item in group.others}) for group in groups]


def check(groups):
    """What holds of all groups."""
    ids = [item.id for group in groups for item in group.items]
    assert len(ids) == len(set(ids))  # no item is in two groups
    for group in groups:
        assert len(group.items) == len(group.scores) > 1
        assert group.scores[0] == 1
        assert all(0 < score <= 1 for score in group.scores)
        assert group.items == (group.best, *group.others)
        assert (group.kind == "exact") <= (set(group.scores) == {1})
    assert [len(group.items) for group in groups] == sorted((len(group.items) for group in groups), reverse=True)


# Exact copies -----------------------------------------------------------------------------------------------------


def test_files_of_the_same_content_are_exact_copies(engine, folder, toy):
    for name in ("b.png", "a.png", "deep/c.png"):
        toy.draw(folder / name, "red disc")
    toy.draw(folder / "other.png", "blue square")
    engine.add_folder(folder)
    groups = engine.duplicates()
    check(groups)
    assert [(group.kind, {item.id for item in group.items}) for group in groups] == [
        ("exact", {"a.png", "b.png", "deep/c.png"})
    ]


def test_pictures_given_in_memory_are_copies_too(engine, toy):
    engine.add(Item(name, image=toy.png_of("red disc", n)) for name, n in (("one", 0), ("two", 0), ("three", 1)))
    assert told(engine.duplicates()) == [("exact", "one", {"two"})]


def test_many_copies_of_one_picture_are_one_group(engine, toy):
    engine.add(Item(f"copy {n}", image=toy.png_of("red disc")) for n in range(150))
    (group,) = engine.duplicates()
    assert len(group.items) == 150


def test_pictures_of_two_kinds_are_never_copies(engine, toy, toy_folder):
    engine.add_folder(toy_folder)
    for mirrored in (False, True):
        for group in engine.duplicates(mirrored=mirrored):
            assert len({toy.kind_of(item) for item in group.items}) == 1


def test_one_shape_in_two_colours_is_no_copy(engine, folder):
    for colour in ("blue", "yellow", "red"):
        drawn = Image.new("RGB", (200, 200), "white")
        drawn.paste(colour, (50, 50, 150, 150), mask=Image.effect_noise((100, 100), 80).convert("L"))
        saved(folder, f"{colour}.png", drawn)
    engine.add_folder(folder)
    assert engine.duplicates() == []
    shutil.rmtree(folder)
    assert engine.duplicates() == []  # nor by what was stored of them


def test_texts_are_copies_only_if_they_are_the_same_and_have_no_picture(engine, toy):
    engine.add(
        [
            Item("a", text="red disc"),
            Item("b", text="red disc"),
            Item("c", text="red discs"),
            Item("d", text="red disc", image=toy.png_of("blue square")),
            Item("e", text="red disc", image=toy.png_of("green triangle")),
        ]
    )
    assert told(engine.duplicates()) == [("exact", "a", {"b"})]


def test_texts_of_half_characters_are_compared_as_well(engine):
    engine.add([Item("a", text="\ud800 x"), Item("b", text="\ud800 x"), Item("c", text="\ud800 y")])
    assert told(engine.duplicates()) == [("exact", "a", {"b"})]


def test_nothing_and_single_items_have_no_copies(engine, toy):
    assert engine.duplicates() == []
    engine.add([Item("a", image=toy.png_of("red disc"))])
    assert engine.duplicates(mirrored=True) == []
    engine.add([Item("t", text="red disc")])
    assert engine.duplicates() == []


# Near copies ------------------------------------------------------------------------------------------------------


@pytest.fixture
def photos(engine, folder):
    """Three photographs, each as it is, recompressed twice and at half the size, and another one alone."""
    for n in range(3):
        saved(folder, f"{n} whole.png", photo(n))
        saved(folder, f"{n} fine.jpg", photo(n), quality=85)
        saved(folder, f"{n} coarse.jpg", photo(n), quality=40)
        saved(folder, f"{n} half.jpg", half(photo(n)), quality=90)
    saved(folder, "alone.png", photo(3))
    engine.add_folder(folder)
    return engine


def test_resized_and_recompressed_copies_are_found_and_nothing_else(photos):
    groups = photos.duplicates()
    check(groups)
    assert {frozenset(item.id for item in group.items) for group in groups} == {
        frozenset(f"{n} {name}" for name in ("whole.png", "fine.jpg", "coarse.jpg", "half.jpg")) for n in range(3)
    }
    assert {group.kind for group in groups} == {"near"}
    for group in groups:
        assert group.best.id.split()[1] in ("whole.png", "fine.jpg", "coarse.jpg")  # the ones with all pixels
        assert all(score > 0.8 for score in group.scores)


def test_the_same_question_has_the_same_answer(photos):
    assert photos.duplicates() == photos.duplicates()


def test_the_largest_copy_is_the_one_to_keep(engine, folder):
    saved(folder, "1 small.png", half(photo(0)))
    saved(folder, "2 large.jpg", photo(0), quality=60)
    engine.add_folder(folder)
    assert told(engine.duplicates()) == [("near", "2 large.jpg", {"1 small.png"})]


def test_of_equally_large_copies_the_sharpest_is_the_one_to_keep(engine, folder):
    saved(folder, "1 soft.png", photo(0).filter(ImageFilter.GaussianBlur(1.5)))
    saved(folder, "2 sharp.png", photo(0))
    engine.add_folder(folder)
    assert told(engine.duplicates()) == [("near", "2 sharp.png", {"1 soft.png"})]


def test_copies_of_copies_have_a_score_too(engine, folder):
    texture = Image.effect_noise((12, 12), 90).convert("RGB").resize((200, 200), Image.Resampling.BICUBIC)
    saved(folder, "a.png", photo(1))
    saved(folder, "b.jpg", photo(1), quality=30)
    saved(folder, "c.png", photo(1).resize((90, 90)))
    saved(folder, "d.png", photo(1).filter(ImageFilter.GaussianBlur(2)))
    saved(folder, "e.png", photo(1).resize((60, 60)))
    for name, other in (("a", texture), ("b", texture.resize((100, 100)))):
        saved(folder, f"texture {name}.png", other)
    saved(folder, "texture c.jpg", texture, quality=60)
    saved(folder, "texture d.png", texture.filter(ImageFilter.GaussianBlur(2)))
    engine.add_folder(folder)
    check(engine.duplicates())


def test_exact_copies_among_near_ones_follow_each_other(engine, folder):
    saved(folder, "a.png", photo(0))
    shutil.copy(folder / "a.png", folder / "z.png")
    saved(folder, "m.jpg", half(photo(0)), quality=80)
    engine.add_folder(folder)
    (group,) = engine.duplicates()
    assert (group.kind, [item.id for item in group.items]) == ("near", ["a.png", "z.png", "m.jpg"])
    assert group.scores[:2] == (1, 1)


def test_mirrored_copies_count_only_when_they_are_asked_for(engine, folder):
    saved(folder, "a.png", photo(0))
    saved(folder, "b.png", ImageOps.mirror(photo(0)))
    engine.add_folder(folder)
    assert engine.duplicates() == []
    groups = engine.duplicates(mirrored=True)
    check(groups)
    assert [{item.id for item in group.items} for group in groups] == [{"a.png", "b.png"}]


def test_only_what_passes_the_filter_is_compared(engine):
    engine.add(
        Item(f"{name} {n}", image=image, metadata={"n": n})
        for name, image in (("whole", photo(0)), ("half", half(photo(0))))
        for n in range(2)
    )
    engine.add(Item(f"text {n}", text="the same", metadata={"n": n}) for n in range(2))
    assert told(engine.duplicates(where={"n": 1})) == [("near", "whole 1", {"half 1"})]
    assert engine.duplicates(where="n > 5") == []
    assert len(engine.duplicates()) == 2
    with pytest.raises(InvalidInput):
        engine.duplicates(where="((")


def test_copies_whose_files_are_gone_are_judged_by_what_was_stored(photos, folder):
    whole = photos.duplicates()
    (folder / "0 fine.jpg").unlink()
    assert {frozenset(item.id for item in group.items) for group in photos.duplicates()} == {
        frozenset(item.id for item in group.items) for group in whole
    }
    shutil.rmtree(folder)
    blind = photos.duplicates()
    check(blind)
    for group in blind:
        assert len({item.id[0] for item in group.items}) == 1  # copies of one photograph
    assert len(blind) == 3


def test_a_copy_whose_twin_is_gone_is_looked_at_by_the_file_that_is_left(engine, folder):
    saved(folder, "a.png", photo(0))
    shutil.copy(folder / "a.png", folder / "b.png")
    saved(folder, "c.png", half(photo(0)))
    engine.add_folder(folder)
    scores = engine.duplicates()[0].scores
    (folder / "a.png").unlink()
    assert engine.duplicates()[0].scores == scores


def test_pictures_in_a_zip_file_are_compared_and_judged_too(engine, folder, toy):
    with zipfile.ZipFile(folder / "images.zip", "w") as archive:
        for name, image in (("whole", photo(0)), ("half", half(photo(0))), ("other", photo(1))):
            buffer = BytesIO()
            image.save(buffer, "PNG")
            archive.writestr(f"{name}.png", buffer.getvalue())
    names = ("whole", "half", "other")
    toy.dataset(folder, [{"id": name, "image": f"images.zip/{name}.png", "split": name} for name in names])
    engine.add_folder(folder)
    assert told(engine.duplicates()) == [("near", "whole", {"half"})]
    assert [set(leak.splits) for leak in engine.leaks()] == [{"whole", "half"}]
    (folder / "images.zip").unlink()
    assert told(engine.duplicates()) == [("near", "whole", {"half"})]


def test_removed_items_are_in_no_group(photos):
    photos.remove(["0 fine.jpg", "0 coarse.jpg", "0 half.jpg"])
    assert {item.id[0] for group in photos.duplicates() for item in group.items} == {"1", "2"}


def test_names_of_any_bytes_are_found(engine, folder, toy):
    os.mkdir(os.fsencode(folder) + b"/\xff\xfe")
    for name in (b"/\xff\xfe/a \xe9.png", "/ünï <b>\"'&.png".encode()):
        with open(os.fsencode(folder) + name, "wb") as file:
            file.write(toy.png_of("red disc"))
    engine.add_folder(folder)
    (group,) = engine.duplicates()
    assert len(group.items) == 2


def test_an_interruption_costs_nothing_but_time(photos):
    def stop(progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        photos.duplicates(progress=stop)
    assert len(photos.duplicates()) == 3


def test_a_store_that_somebody_else_writes_to_answers_all_the_same(photos, open_engine):
    with open_engine()._store.writing():
        groups = photos.duplicates()
    assert groups == photos.duplicates()


def test_a_store_of_texts_alone_needs_no_pictures(open_engine, toy):
    engine = open_engine("texts", spaces=["text"])
    engine.add([Item("a", text="x"), Item("b", text="x"), Item("c", image=toy.png_of("red disc"), text="y")])
    engine.add([Item("d", image=toy.png_of("red disc"), text="z")])
    assert {frozenset(item.id for item in group.items) for group in engine.duplicates()} == {
        frozenset("ab"), frozenset("cd"),
    }  # fmt: skip


# Leaks ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def splits(engine):
    """One photograph whole in train, exactly the same in test, at half the size in val; others without a leak."""
    engine.add(
        [
            Item("train", image=photo(0), metadata={"split": "train"}),
            Item("test", image=photo(0), metadata={"split": "test"}),
            Item("val", image=half(photo(0)), metadata={"split": "val"}),
            Item("none", image=photo(0)),
            Item("within 1", image=photo(1), metadata={"split": "train"}),
            Item("within 2", image=photo(1), metadata={"split": "train"}),
            Item("alone", image=photo(2), metadata={"split": "test"}),
        ]
    )
    return engine


def test_copies_across_splits_are_leaks_the_surest_first(splits):
    leaks = splits.leaks()
    assert {frozenset(item.id for item in leak.items) for leak in leaks} >= {frozenset(("train", "test"))}
    assert {item.id for leak in leaks for item in leak.items} == {"train", "test", "val"}
    assert leaks[0].score == 1
    assert [leak.score for leak in leaks] == sorted((leak.score for leak in leaks), reverse=True)
    for leak in leaks:
        assert leak.splits == tuple(item.metadata["split"] for item in leak.items)
        assert leak.splits[0] != leak.splits[1]
        assert 0 < leak.score <= 1


def test_the_same_bytes_in_two_splits_leak_for_sure_whatever_else_is_like_them(engine):
    engine.add(
        [
            Item("large", image=photo(0), metadata={"split": "a"}),
            Item("small", image=half(photo(0)), metadata={"split": "b"}),
            Item("same", image=half(photo(0)), metadata={"split": "c"}),
        ]
    )
    first = engine.leaks()[0]
    assert ({item.id for item in first.items}, first.score) == ({"small", "same"}, 1)


def test_each_couple_is_told_once(splits):
    couples = [frozenset(item.id for item in leak.items) for leak in splits.leaks()]
    assert len(couples) == len(set(couples))


def test_leaks_go_by_any_field_and_by_numbers_too(engine, toy):
    engine.add(Item(str(n), image=toy.png_of("red disc"), metadata={"fold": n}) for n in range(2))
    (leak,) = engine.leaks("fold")
    assert set(leak.splits) == {"0", "1"}


def test_texts_leak_too(engine):
    engine.add(Item(str(n), text="the same", metadata={"split": split}) for n, split in enumerate(("a", "b")))
    assert [set(leak.splits) for leak in engine.leaks()] == [{"a", "b"}]


def test_only_what_passes_the_filter_leaks(splits):
    found = splits.leaks(where={"split": {"$in": ["train", "val"]}})
    assert {item.id for leak in found for item in leak.items} == {"train", "val"}


def test_an_unknown_field_is_refused_with_those_there_are_before_any_work(splits):
    told = []
    with pytest.raises(InvalidInput, match=r"'part'.*split"):
        splits.leaks("part", progress=told.append)
    assert told == []


@pytest.mark.parametrize("field", [None, 3, ["split"], ""])
def test_a_field_that_is_no_name_is_refused(splits, field):
    with pytest.raises(InvalidInput, match="field"):
        splits.leaks(field)


def test_an_empty_store_has_no_leaks(engine):
    assert engine.leaks() == []
