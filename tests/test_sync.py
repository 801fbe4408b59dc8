"""Folders that change: what is new, changed, moved or gone is noticed, everything else costs nothing."""

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mmsearch import Engine, Item
from mmsearch.errors import InvalidInput
from mmsearch.types import AddReport


def counts(report):
    return {name: getattr(report, name) for name in ("added", "changed", "unchanged", "moved", "removed")}


def only(**expected):
    """Counts of a report that are these, and 0 for the others."""
    return {"added": 0, "changed": 0, "unchanged": 0, "moved": 0, "removed": 0} | expected


def move(source: Path, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    return source.rename(target)


# One folder ---------------------------------------------------------------------------------------------------------


def test_a_new_folder_is_added_whole(engine, toy_folder, encoder, toy):
    report = engine.add_folder(toy_folder)
    assert counts(report) == only(added=60)
    assert report.failed == ()
    toy.check_against_files(engine, encoder, list(toy_folder.iterdir()))


def test_a_folder_that_did_not_change_is_not_read_again(engine, toy_folder, encoder):
    engine.add_folder(toy_folder)
    for again in (engine.add_folder(toy_folder), engine.add_folder(str(toy_folder)), engine.sync()):
        assert counts(again) == only(unchanged=60)
    assert encoder.pictures_read == 60


def test_new_changed_moved_and_removed_files_are_counted(engine, toy_folder, encoder, toy):
    engine.add_folder(toy_folder)
    toy.draw(toy_folder / "new.png", "red disc", 90)
    toy.draw(toy_folder / "red disc 0.png", "blue square", 91)
    move(toy_folder / "red disc 1.png", toy_folder / "moved.png")
    (toy_folder / "red disc 2.png").unlink()
    assert counts(engine.sync()) == only(added=2, changed=1, moved=1, removed=1, unchanged=57)
    assert encoder.pictures_read == 62
    toy.check_against_files(engine, encoder, list(toy_folder.iterdir()))


def test_a_changed_file_keeps_its_id_and_is_found_by_what_it_shows_now(engine, toy_folder, toy):
    engine.add_folder(toy_folder)
    toy.draw(toy_folder / "red disc 0.png", "blue square", 91)
    engine.sync()
    assert "red disc 0.png" in toy.ids(engine.search("blue square", k=6))
    assert set(toy.ids(engine.search("red disc", k=4))) == {f"red disc {n}.png" for n in range(1, 5)}


def test_a_file_that_was_only_touched_is_unchanged(engine, toy_folder, encoder, toy):
    engine.add_folder(toy_folder)
    toy.touch(toy_folder / "red disc 0.png")
    assert counts(engine.sync()) == only(unchanged=60)
    assert encoder.pictures_read == 60


def test_a_removed_file_is_found_no_more_and_comes_back(engine, toy_folder, toy):
    engine.add_folder(toy_folder)
    (toy_folder / "red disc 0.png").unlink()
    assert engine.sync().removed == 1
    assert "red disc 0.png" not in toy.ids(engine.search("red disc", k=60))
    toy.draw(toy_folder / "red disc 0.png", "red disc", 0)
    assert engine.sync().added == 1
    assert "red disc 0.png" in toy.ids(engine.search("red disc", k=5))


def test_an_item_that_was_removed_by_hand_comes_back_with_its_folder(engine, toy_folder):
    engine.add_folder(toy_folder)
    engine.remove(["red disc 0.png"])
    assert engine.sync().added == 1
    assert engine.get("red disc 0.png").path == toy_folder / "red disc 0.png"


def test_two_files_that_trade_names_are_found_by_what_they_show_now(engine, folder, encoder, toy):
    one, other = toy.draw(folder / "a.png", "red disc"), toy.draw(folder / "b.png", "blue square")
    engine.add_folder(folder)
    one.rename(folder / "c")
    other.rename(one)
    (folder / "c").rename(other)
    engine.sync()
    toy.check_against_files(engine, encoder, [one, other])


def test_a_file_whose_old_name_is_taken_at_once_is_found_by_what_it_shows(engine, folder, encoder, toy):
    one = toy.draw(folder / "a.png", "red disc")
    engine.add_folder(folder)
    other = one.rename(folder / "b.png")
    toy.draw(one, "blue square")
    engine.sync()
    toy.check_against_files(engine, encoder, [one, other])


# Moves --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["z.png", "deep/er/red disc 0.png", "deep/z.PNG"])
def test_a_moved_file_keeps_its_id(engine, toy_folder, encoder, target):
    engine.add_folder(toy_folder)
    moved = move(toy_folder / "red disc 0.png", toy_folder / target)
    assert counts(engine.sync()) == only(moved=1, unchanged=59)
    item = engine.get("red disc 0.png")
    assert item.path == moved
    assert item.metadata["name"] == moved.name
    assert item.metadata["folder"] == ("" if moved.parent == toy_folder else str(moved.parent.relative_to(toy_folder)))
    assert encoder.pictures_read == 60
    assert engine.search(moved, k=1)[0].item == item
    assert counts(engine.sync()) == only(unchanged=60)


def test_a_renamed_folder_keeps_all_ids(engine, folder, toy):
    toy.draw_all(folder / "old")
    engine.add_folder(folder)
    before = {item.id for item in engine.items()}
    move(folder / "old", folder / "new")
    assert counts(engine.sync()) == only(moved=60)
    assert {item.id for item in engine.items()} == before
    assert engine.get("old/red disc 0.png").path == folder / "new" / "red disc 0.png"


def test_copies_that_move_together_keep_their_own_ids(engine, folder, toy):
    for name in "abc":
        toy.draw(folder / "old" / f"{name}.png", "red disc", 0)
    engine.add_folder(folder)
    move(folder / "old", folder / "new")
    assert counts(engine.sync()) == only(moved=3)
    for name in "abc":
        assert engine.get(f"old/{name}.png").path == folder / "new" / f"{name}.png"


@pytest.mark.parametrize("how", ["sync", "add_folder"])
def test_a_file_that_moves_to_another_root_keeps_its_id(engine, tmp_path, encoder, toy, how):
    one, other = toy.draw_all(tmp_path / "one"), toy.draw_all(tmp_path / "other", ["red disc"], 1)
    toy.draw(other / "red disc 0.png", "yellow disc", 70)
    engine.add_folder(one)
    engine.add_folder(other)
    moved = move(one / "blue disc 3.png", other / "came here.png")
    report = engine.sync() if how == "sync" else engine.add_folder(other)
    assert (report.moved, report.added, report.removed) == (1, 0, 0)
    assert engine.get("blue disc 3.png").path == moved
    engine.sync()
    assert len(engine) == 61
    assert encoder.pictures_read == 61


def test_a_folder_that_moves_to_another_root_keeps_all_ids(engine, tmp_path, toy):
    one, other = tmp_path / "one", tmp_path / "other"
    toy.draw_all(one / "sub", ["red disc"], 5)
    toy.draw(one / "stays.png", "blue disc")
    toy.draw(other / "there.png", "green disc")
    engine.add_folder(one)
    engine.add_folder(other)
    move(one / "sub", other / "sub")
    report = engine.sync()
    assert (report.moved, report.added, report.removed) == (5, 0, 0)
    assert engine.get("sub/red disc 0.png").path == other / "sub" / "red disc 0.png"


def test_a_picture_of_an_absent_disk_is_not_taken_for_moved(engine, tmp_path, toy):
    disk, copies = toy.draw_all(tmp_path / "disk", ["red disc"], 3), tmp_path / "copies"
    engine.add_folder(disk)
    shutil.copytree(disk, copies)
    disk.rename(tmp_path / "unplugged")
    report = engine.add_folder(copies)
    assert (report.added, report.moved) == (3, 0)
    assert engine.get("red disc 0.png").path == disk / "red disc 0.png"
    assert len(engine) == 6


def test_a_copy_is_a_new_item_and_one_hit_lists_it(engine, toy_folder, encoder):
    engine.add_folder(toy_folder)
    shutil.copy(toy_folder / "red disc 0.png", toy_folder / "a copy.png")
    assert counts(engine.sync()) == only(added=1, unchanged=60)
    assert encoder.pictures_read == 60
    hits = engine.search(toy_folder / "red disc 0.png", k=60)
    assert (hits[0].item.id, [copy.id for copy in hits[0].copies]) == ("a copy.png", ["red disc 0.png"])
    assert len(hits) == 60


def test_a_file_that_is_renamed_and_copied_at_once_is_two_items(engine, folder, encoder, toy):
    file = toy.draw(folder / "b.png", "red disc")
    engine.add_folder(folder)
    moved = file.rename(folder / "a.png")
    copy = Path(shutil.copy(moved, folder / "c.png"))
    report = engine.sync()
    assert (report.moved, report.added, report.removed) == (1, 1, 0)
    assert "b.png" in {item.id for item in engine.items()}
    toy.check_against_files(engine, encoder, [moved, copy])


def test_a_file_that_moves_to_another_root_and_is_copied_there_is_two_items(engine, tmp_path, encoder, toy):
    one, other = tmp_path / "one", tmp_path / "other"
    toy.draw_all(one, ["red disc", "blue disc"], 1)
    other.mkdir()
    engine.add_folder(one)
    moved = move(one / "red disc 0.png", other / "a.png")
    shutil.copy(moved, other / "b.png")
    report = engine.add_folder(other)
    assert (report.moved, report.added) == (1, 1)
    toy.check_against_files(engine, encoder, [one / "blue disc 0.png", moved, other / "b.png"])


# Several roots ------------------------------------------------------------------------------------------------------


def test_ids_are_relative_to_their_root_and_made_unique_where_two_roots_collide(engine, tmp_path, toy):
    one, other = tmp_path / "one" / "pics", tmp_path / "other" / "pics"
    toy.draw(one / "sub" / "a.png", "red disc")
    toy.draw(other / "sub" / "a.png", "blue disc")
    toy.draw(tmp_path / "third" / "pics" / "sub" / "a.png", "green disc")
    for root in (one, other, tmp_path / "third" / "pics"):
        assert engine.add_folder(root).added == 1
    paths = {item.id: item.path for item in engine.items()}
    assert len(paths) == 3
    assert paths["sub/a.png"] == one / "sub" / "a.png"
    assert paths["pics/sub/a.png"] == other / "sub" / "a.png"
    assert counts(engine.sync()) == only(unchanged=3)


@pytest.mark.parametrize("first", ["outer", "inner"])
def test_nested_roots_do_not_double_their_pictures(engine, folder, encoder, toy, first):
    toy.draw_all(folder / "inner", ["red disc"], 5)
    toy.draw_all(folder, ["blue disc"], 5)
    roots = [folder, folder / "inner"]
    for root in roots if first == "outer" else roots[::-1]:
        engine.add_folder(root)
    assert len(engine) == 10
    assert engine.search("red disc", k=1)[0].copies == ()
    toy.draw(folder / "inner" / "new.png", "red disc", 50)
    (folder / "inner" / "red disc 0.png").unlink()
    moved = move(folder / "inner" / "red disc 1.png", folder / "up.png")
    report = engine.sync()
    assert (report.added, report.moved, report.removed) == (1, 1, 1)
    assert moved in {item.path for item in engine.items()}
    toy.check_against_files(engine, encoder, [file for file in folder.rglob("*.png")])


@pytest.mark.parametrize("first", ["outer", "inner"])
def test_a_change_is_seen_through_either_of_two_nested_roots(engine, folder, encoder, toy, first):
    file = toy.draw(folder / "inner" / "a.png", "red disc")
    roots = {"outer": folder, "inner": folder / "inner"}
    engine.add_folder(roots.pop(first))
    (second,) = roots.values()
    engine.add_folder(second)
    toy.draw(file, "blue square")
    engine.add_folder(second)
    toy.check_against_files(engine, encoder, [file])


# Folders that are not there, or cannot be read ----------------------------------------------------------------------


def test_an_emptied_folder_is_taken_for_an_absent_disk(engine, toy_folder, toy):
    engine.add_folder(toy_folder)
    for file in list(toy_folder.iterdir())[:-20]:
        file.unlink()
    assert engine.sync().removed == 40
    for file in toy_folder.iterdir():
        file.unlink()
    with pytest.raises(InvalidInput, match="is empty and held 20 items: is its disk connected"):
        engine.add_folder(toy_folder)
    report = engine.sync()
    assert [name for name, _ in report.failed] == [str(toy_folder)]
    assert len(engine) == len(engine.search("red disc", k=60)) == 20


def test_a_small_folder_may_be_emptied(engine, folder, toy):
    toy.draw_all(folder, ["red disc"], 19)
    engine.add_folder(folder)
    for file in folder.iterdir():
        file.unlink()
    assert engine.sync().removed == 19
    assert engine.search("red disc") == []


def test_a_missing_folder_is_reported_by_sync_and_keeps_its_items(engine, tmp_path, toy):
    here, away = toy.draw_all(tmp_path / "here", ["red disc"], 3), toy.draw_all(tmp_path / "away", ["blue disc"], 3)
    engine.add_folder(here)
    engine.add_folder(away)
    away.rename(tmp_path / "unplugged")
    toy.draw(here / "new.png", "red disc", 50)
    report = engine.sync()
    assert counts(report) == only(added=1, unchanged=3)
    ((name, reason),) = report.failed
    assert name == str(away)
    assert "not there" in reason
    assert len(engine) == 7
    (tmp_path / "unplugged").rename(away)
    assert counts(engine.sync()) == only(unchanged=7)


def test_a_subfolder_that_cannot_be_read_is_reported_and_keeps_its_items(engine, folder, toy, monkeypatch):
    toy.draw_all(folder / "locked", ["red disc"], 3)
    toy.draw(folder / "open.png", "blue disc")
    engine.add_folder(folder)
    listing = os.scandir

    def refuse(path):
        if os.path.basename(path) == b"locked":
            raise PermissionError(13, "Permission denied")
        return listing(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", refuse)
        report = engine.sync()
    assert [name for name, _ in report.failed] == [str(folder / "locked")]
    assert report.removed == 0
    assert len(engine) == 4
    assert engine.sync().failed == ()


@pytest.mark.parametrize("name", ["nowhere", "text.txt"])
def test_what_is_no_folder_table_or_picture_is_refused(engine, tmp_path, name):
    (tmp_path / "text.txt").write_text("hello")
    with pytest.raises(InvalidInput, match="expected a folder, a picture, or a table"):
        engine.add_folder(tmp_path / name)


def test_a_home_folder_may_be_written_with_a_tilde(engine, toy_folder, monkeypatch):
    monkeypatch.setenv("HOME", str(toy_folder.parent))
    assert engine.add_folder("~/photos").added == 60


# What lies in folders -----------------------------------------------------------------------------------------------


def test_hidden_files_links_pipes_and_other_files_are_passed_over(engine, folder, toy):
    toy.draw(folder / "seen.png", "red disc")
    toy.draw(folder / ".hidden.png", "red disc", 1)
    toy.draw(folder / ".hidden" / "inside.png", "red disc", 2)
    toy.write(folder / "notes.txt", b"no picture")
    (folder / "link.png").symlink_to(folder / "seen.png")
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    (folder / "folder.png").mkdir()
    os.mkfifo(folder / "pipe.png")
    report = engine.add_folder(folder)
    assert counts(report) == only(added=1)
    assert report.failed == ()
    assert [item.id for item in engine.items()] == ["seen.png"]


@pytest.mark.parametrize(
    ("name", "id"),
    [
        ("🚲 été.png", "🚲 été.png"),
        ("two\nlines.png", r"two\nlines.png"),
        ("\x1b[31mred.png", r"\x1b[31mred.png"),
        (os.fsdecode(b"\xff.png"), r"\xff.png"),
        ("with 'quotes\" and % signs.png", "with 'quotes\" and % signs.png"),
        ("-k.png", "-k.png"),
        ("a" * 250 + ".png", "a" * 250 + ".png"),
    ],
    ids=["emoji", "newline", "escape", "undecodable", "quotes", "dash", "long"],
)
def test_a_file_of_any_name_is_found_and_followed(engine, folder, toy, name, id):
    file = toy.draw(folder / name, "red disc")
    report = engine.add_folder(folder)
    assert (report.added, report.failed) == (1, ())
    (hit,) = engine.search("red disc")
    assert (hit.item.id, hit.item.path) == (id, file)
    assert hit.item.path.read_bytes() == file.read_bytes()
    assert engine.get(id) == hit.item
    move(file, folder / "sub" / name)
    assert counts(engine.sync()) == only(moved=1)
    assert engine.get(id).path == folder / "sub" / name


def test_names_that_look_the_same_on_screen_get_ids_of_their_own(engine, folder, toy):
    toy.draw(folder / os.fsdecode(b"\xff.png"), "red disc")
    toy.draw(folder / r"\xff.png", "blue disc")
    assert engine.add_folder(folder).added == 2
    assert len({item.id for item in engine.items()}) == 2


def test_a_damaged_file_of_any_name_is_reported_on_one_printable_line(engine, folder, toy):
    toy.write(folder / os.fsdecode(b"\xff\n.png"), b"no picture")
    ((name, reason),) = engine.add_folder(folder).failed
    assert name == f"{folder}/" + r"\xff\n.png"
    assert reason.isprintable()


def test_folder_pictures_say_where_they_are_how_large_and_when_they_were_taken(engine, folder, toy):
    image = toy.image_of("red disc").resize((120, 80))
    exif = image.getexif()
    exif[306] = "2021:06:05 04:03:02"
    (folder / "trip").mkdir()
    image.save(folder / "trip" / "a.jpg", exif=exif)
    toy.draw(folder / "b.png", "red disc")
    engine.add_folder(folder)
    assert engine.get("trip/a.jpg").metadata == {
        "folder": "trip", "name": "a.jpg", "width": 120, "height": 80, "taken": "2021-06-05T04:03:02", "year": 2021,
    }  # fmt: skip
    assert engine.get("b.png").metadata == {"folder": "", "name": "b.png", "width": 64, "height": 64}
    for where in ({"year": 2021}, "width > 100", {"folder": "trip"}, "taken >= 2021-06"):
        assert toy.ids(engine.search("red", where=where)) == ["trip/a.jpg"]


@pytest.mark.parametrize("metadata", [{}, {"taken": "a while ago"}, {"taken": 2024}, {"taken": ["x"]}], ids=repr)
def test_what_other_items_say_of_the_same_picture_does_not_change_when_it_was_taken(
    engine, tmp_path, folder, toy, metadata
):
    image = toy.image_of("red disc")
    exif = image.getexif()
    exif[306] = "2021:06:05 04:03:02"
    image.save(folder / "a.jpg", exif=exif)
    shutil.copy(folder / "a.jpg", tmp_path / "mine.jpg")
    engine.add([Item(id="mine", path=tmp_path / "mine.jpg", metadata=metadata)])
    engine.add_folder(folder)
    assert engine.get("a.jpg").metadata.get("taken") == "2021-06-05T04:03:02"
    assert engine.get("a.jpg").metadata.get("year") == 2021
    assert engine.get("mine").metadata == metadata


# Failures -----------------------------------------------------------------------------------------------------------


def test_a_corrupt_file_is_reported_each_time_and_read_again_only_when_it_changes(engine, folder, toy):
    bad = toy.write(folder / "bad.png", toy.png_of("red disc")[:-40])
    toy.draw(folder / "good.png", "red disc")
    first = engine.add_folder(folder)
    assert counts(first) == only(added=1)
    ((name, reason),) = first.failed
    assert name == str(bad)
    assert reason
    steps = []
    again = engine.add_folder(folder, progress=steps.append)
    assert again.failed == first.failed
    assert {step.total for step in steps} == {0}
    toy.draw(bad, "blue disc")
    assert counts(engine.sync()) == only(added=1, unchanged=1)
    assert engine.sync().failed == ()
    assert engine.info().failures == 0
    assert toy.ids(engine.search("blue disc", k=1)) == ["bad.png"]


def test_a_corrupt_file_that_is_deleted_is_forgotten(engine, folder, toy):
    bad = toy.write(folder / "bad.png", b"no picture")
    toy.draw(folder / "good.png", "red disc")
    assert len(engine.add_folder(folder).failed) == 1
    bad.unlink()
    assert engine.sync().failed == ()
    assert engine.info().failures == 0


def test_a_file_that_was_corrupt_for_a_while_is_not_counted_as_failed_for_ever(engine, folder, toy):
    file = toy.draw(folder / "a.png", "red disc")
    engine.add_folder(folder)
    good = file.rename(folder / "aside")
    toy.write(file, b"no picture")
    assert len(engine.sync().failed) == 1
    good.rename(file)  # the same size and time as before
    assert engine.sync().failed == ()
    assert engine.info().failures == 0


def test_a_good_file_that_became_corrupt_keeps_its_item_and_is_reported(engine, folder, toy):
    file = toy.draw(folder / "a.png", "red disc")
    engine.add_folder(folder)
    toy.write(file, b"no picture")
    report = engine.sync()
    assert [name for name, _ in report.failed] == [str(file)]
    assert report.removed == 0
    assert toy.ids(engine.search("red disc")) == ["a.png"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0])
def test_a_picture_of_which_the_encoder_makes_no_vector_fails_and_the_rest_is_kept(open_engine, folder, toy, value):
    toy.draw_all(folder, ["red disc", "blue disc"], 5)
    bad = toy.png_of("red disc", 3)
    pixels = toy.ToyEncoder().prepare(toy.image_of("red disc", 3))

    def spoil(kind, inputs, rows):
        for row, seen in zip(rows, inputs, strict=True):
            if kind == "picture" and (seen == pixels).all():
                row[:] = value

    assert bad == (folder / "red disc 3.png").read_bytes()
    engine = open_engine(its_encoder=toy.ToyEncoder(hook=spoil))
    report = engine.add_folder(folder)
    assert counts(report) == only(added=9)
    ((name, reason),) = report.failed
    assert name == str(folder / "red disc 3.png")
    assert "no usable vector" in reason
    assert len(engine.search("red disc", k=20)) == 9
    assert engine.add_folder(folder).failed == report.failed


def test_unusable_vectors_do_not_spoil_the_search_among_the_others(open_engine, folder, toy):
    toy.draw_all(folder, ["red disc", "blue disc"], 40)

    def spoil(kind, inputs, rows):
        if kind == "picture":
            rows[rows[:, 0] > 0.3] = toy.np.nan  # whatever is red

    engine = open_engine(its_encoder=toy.ToyEncoder(hook=spoil))
    engine.add([Item(id=f"text {n}", text=f"a blue disc, {n}") for n in range(5)])
    assert len(engine.add_folder(folder).failed) == 40
    for k in (1, 10, 40):
        hits = engine.search("blue disc", k=k, field="picture")
        assert len(hits) == k
        assert {toy.kind_of(hit.item) for hit in hits} == {"blue disc"}
    hits = engine.search("blue disc", k=45)
    assert len(hits) == 45
    assert all(hit.score == hit.score for hit in hits)


# Interruptions ------------------------------------------------------------------------------------------------------


def test_an_interrupted_add_folder_keeps_what_it_stored_and_the_next_one_goes_on(open_engine, folder, toy):
    toy.draw_all(folder, each=20)  # 240 pictures: four batches

    def interrupt(kind, inputs, rows):
        if kind == "picture" and stopped.pictures_read > 150:
            raise KeyboardInterrupt

    stopped = toy.ToyEncoder(hook=interrupt)
    engine = open_engine(its_encoder=stopped)
    with pytest.raises(KeyboardInterrupt):
        engine.add_folder(folder)
    assert len(engine) == len(engine.search("red disc", k=300)) == 128
    engine.close()

    encoder = toy.ToyEncoder()
    again = open_engine(its_encoder=encoder)
    assert len(again.search("red disc", k=300)) == 128
    assert counts(again.add_folder(folder)) == only(added=112, unchanged=128)
    assert encoder.pictures_read == 112
    toy.check_against_files(again, encoder, list(folder.iterdir()))


def test_an_engine_that_was_interrupted_goes_on_itself(engine, folder, encoder, toy):
    toy.draw_all(folder, each=10)

    def interrupt(kind, inputs, rows):
        raise KeyboardInterrupt

    encoder.hook = interrupt
    with pytest.raises(KeyboardInterrupt):
        engine.add_folder(folder)
    assert len(engine) == 0
    encoder.hook = None
    assert counts(engine.add_folder(folder)) == only(added=120)


def test_an_interrupted_move_loses_no_id(engine, folder, encoder, toy):
    toy.draw_all(folder / "old", each=10)
    engine.add_folder(folder)
    before = {item.id for item in engine.items()}
    move(folder / "old", folder / "new")
    toy.draw_all(folder / "zzz", ["red disc"], 1)
    toy.draw(folder / "zzz" / "red disc 0.png", "red disc", 77)

    def interrupt(kind, inputs, rows):
        raise KeyboardInterrupt

    encoder.hook = interrupt
    with pytest.raises(KeyboardInterrupt):
        engine.sync()
    encoder.hook = None
    engine.sync()
    assert {item.id for item in engine.items()} == before | {"zzz/red disc 0.png"}
    toy.check_against_files(engine, encoder, list(folder.rglob("*.png")))


# Anything may happen to a folder ------------------------------------------------------------------------------------

NAMES = ["a.png", "b.png", "sub/a.png", "sub/c.png", "z.png"]
PICTURES = [("red disc", 0), ("red disc", 1), ("blue square", 0), ("green triangle", 0), None]
name, picture = st.sampled_from(NAMES), st.sampled_from(PICTURES)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), name, picture),
        st.tuples(st.just("write"), name, picture),
        st.tuples(st.just("rename"), name, name),
        st.tuples(st.just("trade"), name, name),
        st.tuples(st.just("copy"), name, name),
        st.tuples(st.just("delete"), name),
        st.tuples(st.just("remove"), name),
        st.tuples(st.just("sync")),
        st.tuples(st.just("sync")),
    ),
    min_size=4,
    max_size=16,
)


RED = ("red disc", 0)


@settings(
    max_examples=80,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps=STEPS)
@example([("write", "a.png", RED), ("write", "b.png", None), ("sync",), ("trade", "a.png", "b.png")])
@example([("write", "a.png", RED), ("sync",), ("rename", "a.png", "b.png"), ("write", "a.png", ("red disc", 1))])
@example([("write", "b.png", RED), ("sync",), ("write", "sub/a.png", RED), ("rename", "b.png", "a.png")])
def test_after_a_sync_the_items_are_the_files_whatever_happened_to_them(tmp_path_factory, toy, steps):
    place = tmp_path_factory.mktemp("any")
    folder, encoder = place / "photos", toy.ToyEncoder()
    folder.mkdir()
    shows = {}
    with Engine.open(place / "store", encoder) as engine:
        for step in [*steps, ("sync",)]:
            do(step, folder, shows, engine, toy)
            if step == ("sync",):
                good = [folder / name for name, picture in shows.items() if picture]
                bad = [str(folder / name) for name, picture in shows.items() if not picture]
                report = engine.add_folder(folder)
                assert sorted(name for name, _ in report.failed) == sorted(bad)
                for name in shows:  # a file that was good and is now damaged may keep its item, but need not
                    if not shows[name]:
                        engine.remove([item.id for item in engine.items() if item.path == folder / name])
                toy.check_against_files(engine, encoder, good)
                again = engine.add_folder(folder)
                assert counts(again) == only(unchanged=len(good))
    shutil.rmtree(place)


def do(step, folder, shows, engine, toy):
    """Do one step to the files, to the model of them (name -> picture, None if damaged), or to the store."""
    match step:
        case ("write", name, picture):
            toy.write(folder / name, toy.png_of(*picture) if picture else b"no picture")
            shows[name] = picture
        case ("delete", name) if name in shows:
            (folder / name).unlink()
            del shows[name]
        case ("rename", name, target) if name in shows and name != target:
            move(folder / name, folder / target)
            shows[target] = shows.pop(name)
        case ("trade", name, target) if name in shows and target in shows and name != target:
            move(folder / name, folder / "aside")
            move(folder / target, folder / name)
            move(folder / "aside", folder / target)
            shows[name], shows[target] = shows[target], shows[name]
        case ("copy", name, target) if name in shows and name != target:
            (folder / target).parent.mkdir(exist_ok=True)
            shutil.copy(folder / name, folder / target)
            toy.touch(folder / target)
            shows[target] = shows[name]
        case ("remove", name):
            engine.remove([item.id for item in engine.items() if item.path == folder / name])


def test_reports_add_up(engine, toy_folder):
    one, other = AddReport(1, 2, 3, 4, (("a", "b"),), 5), AddReport(10, 20, 30, 40, (("c", "d"),), 50)
    assert one + other == AddReport(11, 22, 33, 44, (("a", "b"), ("c", "d")), 55)
