"""Dataset folders and tables: which rows become which items, and what is said of those that do not."""

import csv
import json
import zipfile
from datetime import date, datetime

import pyarrow as pa
import pytest
from pyarrow import parquet

from mmsearch import Item
from mmsearch.errors import InvalidInput, MMSearchError
from mmsearch.sources import open_source, read_rows, text_of

ROWS = [
    {"id": "p1", "image": "img/disc.png", "text": "a red disc", "price": 12, "colour": "red"},
    {"image": "img/square.png", "title": "a blue square", "price": 7.5},
    {"id": "t1", "text": "a green triangle", "price": 3},
]


@pytest.fixture
def pictures(folder, toy):
    """A folder with two pictures in ``img``."""
    toy.draw(folder / "img" / "disc.png", "red disc")
    toy.draw(folder / "img" / "square.png", "blue square")
    return folder


def write_table(file, rows):
    """Write rows as the kind of table that the file's suffix says."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    if file.suffix == ".parquet":
        parquet.write_table(pa.table({name: [row.get(name) for row in rows] for name in names}), file)
    elif file.suffix == ".jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    else:
        with file.open("w", encoding="utf-8", newline="") as stream:
            table = csv.DictWriter(stream, names, delimiter="\t" if file.suffix == ".tsv" else ",")
            table.writeheader()
            table.writerows(rows)
    return file


# The same rows in every form ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["items.jsonl", "shop.jsonl", "shop.csv", "shop.tsv", "shop.parquet"])
def test_a_table_of_any_kind_gives_the_same_items(engine, pictures, toy, name):
    file = write_table(pictures / name, ROWS)
    report = engine.add_folder(pictures if name == "items.jsonl" else file)
    assert (report.added, report.failed) == (3, ())
    disc, square, triangle = engine.items()
    assert (disc.id, disc.path, disc.text) == ("p1", pictures / "img" / "disc.png", "a red disc")
    assert (square.id, square.path, square.text) == ("img/square.png", pictures / "img" / "square.png", "a blue square")
    assert (triangle.id, triangle.path, triangle.text) == ("t1", None, "a green triangle")
    assert float(disc.metadata["price"]) == 12
    assert disc.metadata["colour"] == "red"
    assert set(disc.metadata) == {"price", "colour"}
    assert set(square.metadata) == {"title", "price"}
    assert set(toy.ids(engine.search("red", where="price > 7 and price < 13"))) == {"p1", "img/square.png"}
    assert toy.ids(engine.search("red", where="colour = red")) == ["p1"]
    assert toy.ids(engine.search("green triangle", k=1)) == ["t1"]
    assert toy.ids(engine.search("blue square", k=1, field="picture")) == ["img/square.png"]
    assert engine.sync().unchanged == 3


def test_a_dataset_folder_reads_its_pictures_out_of_a_zip(engine, folder, toy):
    with zipfile.ZipFile(folder / "images.zip", "w") as archive:
        archive.writestr("img/disc.png", toy.png_of("red disc"))
        archive.writestr("img/square.png", toy.png_of("blue square"))
    toy.dataset(folder, ROWS)
    assert engine.add_folder(folder).added == 3
    path = engine.get("p1").path
    assert path == folder / "images.zip" / "img" / "disc.png"
    assert toy.ids(engine.search(path, k=1, field="picture")) == ["p1"]
    assert engine.reindex(toy.ToyEncoder(seed=3)).failed == ()
    assert toy.ids(engine.search("red disc", k=1, field="picture")) == ["p1"]


def test_a_picture_that_changes_inside_the_zip_is_encoded_again(engine, folder, encoder, toy):
    for name, kinds in (("first", ("red disc", "blue square")), ("second", ("red disc", "green triangle"))):
        with zipfile.ZipFile(folder / "images.zip", "w") as archive:
            for file, kind in zip(("disc.png", "other.png"), kinds, strict=True):
                archive.writestr(file, toy.png_of(kind))
        toy.dataset(folder, [{"image": "disc.png"}, {"image": "other.png"}])
        assert engine.add_folder(folder).added == (2 if name == "first" else 1)
    assert encoder.pictures_read == 3
    assert toy.ids(engine.search("green triangle", k=1)) == ["other.png"]


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"text": "a", "title": "b", "captions": ["c"]}, "a"),
        ({"title": "b", "captions": ["c"]}, "b"),
        ({"captions": ["c", "d"]}, "c"),
        ({"captions": "c"}, "c"),
        ({"text": "", "title": "  ", "captions": ["c"]}, "c"),
        ({"text": None, "title": "b"}, "b"),
        ({"captions": []}, None),
        ({"captions": [None]}, None),
        ({"caption": "c"}, None),
        ({"text": 7}, "7"),
        ({}, None),
    ],
)
def test_a_text_is_the_text_else_the_title_else_the_first_caption(row, text):
    assert text_of(row) == text


def test_every_field_but_id_image_and_text_is_metadata(engine, folder, toy):
    row = {
        "id": "a",
        "text": "t",
        "title": "T",
        "captions": ["x", "y"],
        "n": 1,
        "nested": {"deep": [1, 2]},
        "none": None,
    }
    toy.dataset(folder, [row])
    engine.add_folder(folder)
    assert engine.get("a").metadata == {"title": "T", "captions": ["x", "y"], "n": 1, "nested": {"deep": [1, 2]}}


def test_captions_are_found_with_their_pictures(engine, pictures, toy):
    toy.dataset(pictures, [{"image": "img/disc.png", "captions": ["a yellow square", "another"]}])
    engine.add_folder(pictures)
    (hit,) = engine.search("yellow square", field="text")
    assert hit.item.path == pictures / "img" / "disc.png"
    (hit,) = engine.search("red disc", field="picture")
    assert hit.item.text == "a yellow square"


# Rows that cannot be added ------------------------------------------------------------------------------------------


def test_bad_lines_are_reported_by_number_and_the_rest_is_added(engine, folder, toy):
    lines = ["{broken", '{"id": "a", "text": "good"}', "[1, 2]", '{"id": "b"}', '"text"', '{"text": "\xff"}']
    toy.write(folder / "items.jsonl", "\n".join(lines).encode("latin-1"))
    report = engine.add_folder(folder)
    assert report.added == 1
    assert all(name == str(folder / "items.jsonl") for name, _ in report.failed)
    reasons = dict(zip((1, 3, 4, 5, 6), (reason for _, reason in report.failed), strict=True))
    assert all(reason.startswith(f"items.jsonl line {number}: ") for number, reason in reasons.items())
    assert "expected a JSON object" in reasons[1]
    assert "expected an image or a text, got neither" in reasons[4]
    assert engine.add_folder(folder).failed == report.failed


def test_a_bad_line_that_is_mended_is_added(engine, folder, toy):
    toy.dataset(folder, [{"id": "a", "text": "good"}, "{broken"])
    assert len(engine.add_folder(folder).failed) == 1
    toy.dataset(folder, [{"id": "a", "text": "good"}, {"id": "b", "text": "mended"}])
    report = engine.sync()
    assert (report.added, report.unchanged, report.failed) == (1, 1, ())
    assert engine.info().failures == 0


@pytest.mark.parametrize(
    "line", ["[" * 100_000, '{"text": "t", "n": NaN}', '{"text": "t", "n": 1e999}', '{"id": "a\\ud800", "x": 1}']
)
def test_a_line_that_no_store_can_hold_does_not_stop_the_others(engine, folder, toy, line):
    toy.dataset(folder, [{"id": "a", "text": "good"}, line, {"id": "z", "text": "good too"}])
    report = engine.add_folder(folder)
    assert report.added >= 2
    assert report.added + len(report.failed) == 3
    assert {"a", "z"} <= {item.id for item in engine.items()}


@pytest.mark.parametrize(
    "row", [{"id": "a", "text": "again"}, {"id": "a", "image": "img/disc.png"}], ids=["text", "image"]
)
def test_an_id_twice_in_one_file_is_reported_with_file_and_line(engine, pictures, toy, row):
    toy.dataset(pictures, [{"id": "a", "text": "first"}, {"id": "b", "text": "b"}, row])
    report = engine.add_folder(pictures)
    assert report.added == 2
    ((name, reason),) = report.failed
    assert name.startswith(str(pictures))
    assert "line 3 has the same id or picture as a line before it" in reason
    assert engine.get("a").text == "first"


def test_missing_and_damaged_pictures_are_reported_by_name(engine, pictures, toy):
    toy.write(pictures / "img" / "bad.png", b"no picture")
    toy.dataset(pictures, [{"image": "img/gone.png", "text": "x"}, {"image": "img/bad.png"}, {"image": "img/disc.png"}])
    report = engine.add_folder(pictures)
    assert report.added == 1
    assert {name for name, _ in report.failed} == {
        str(pictures / "img" / "gone.png"),
        str(pictures / "img" / "bad.png"),
    }
    toy.draw(pictures / "img" / "gone.png", "green disc")
    report = engine.sync()
    assert (report.added, len(report.failed)) == (1, 1)


@pytest.mark.parametrize("address", ["https://example.org/a.png", "http://x/y.jpg", "s3://bucket/a.png"])
def test_web_addresses_are_refused_with_a_clear_reason(engine, folder, toy, address):
    toy.dataset(folder, [{"id": "a", "image": address}, {"id": "b", "text": "good"}])
    report = engine.add_folder(folder)
    assert report.added == 1
    ((_, reason),) = report.failed
    assert "web addresses are not fetched: download the picture first" in reason


def complaints(engine, path):
    """What adding a path has to complain of, raised or reported."""
    try:
        return [f"{name}: {reason}" for name, reason in engine.add_folder(path).failed]
    except MMSearchError as error:
        return [str(error)]


@pytest.mark.parametrize("name", ["shop.parquet", "items.jsonl", "images.zip"])
def test_a_damaged_file_is_named_in_a_sentence_and_adds_nothing(engine, folder, toy, name):
    if name == "images.zip":
        toy.dataset(folder, [{"id": "a", "image": "inside.png"}])
    toy.write(folder / name, b"PAR1 PK this is not what its name says")
    (complaint,) = complaints(engine, folder / name if name == "shop.parquet" else folder)
    assert name in complaint
    assert len(engine) == 0


def test_a_damaged_table_does_not_keep_sync_from_the_other_roots(engine, pictures, tmp_path, toy):
    table = write_table(tmp_path / "shop.parquet", ROWS[2:])
    engine.add_folder(table)
    engine.add_folder(pictures)
    toy.write(table, b"no table")
    toy.draw(pictures / "new.png", "green disc")
    report = engine.sync()
    assert report.added == 1
    assert [name for name, _ in report.failed] == [str(table)]
    assert engine.get("t1").text == "a green triangle"


# Tables that change -------------------------------------------------------------------------------------------------


def test_only_what_changes_in_a_table_is_done_again(engine, pictures, encoder, toy):
    toy.dataset(pictures, ROWS)
    engine.add_folder(pictures)
    read = (encoder.texts_read, encoder.pictures_read)
    rows = [ROWS[0] | {"price": 99}, ROWS[1], {"id": "t2", "text": "a yellow disc"}]
    toy.dataset(pictures, rows)
    report = engine.sync()
    assert (report.added, report.changed, report.unchanged, report.removed) == (2, 1, 1, 1)
    assert engine.get("p1").metadata["price"] == 99
    assert (encoder.texts_read, encoder.pictures_read) == (read[0] + 1, read[1])
    assert toy.ids(engine.search("red", where="price = 99")) == ["p1"]
    assert {item.id for item in engine.items()} == {"p1", "img/square.png", "t2"}


def test_a_changed_text_is_found_and_the_old_one_is_not(engine, pictures, toy):
    toy.dataset(pictures, ROWS)
    engine.add_folder(pictures)
    toy.dataset(pictures, [ROWS[0] | {"text": "a yellow disc"}, *ROWS[1:]])
    assert engine.sync().changed == 1
    assert toy.ids(engine.search("yellow disc", k=1, field="text")) == ["p1"]
    scores = {hit.item.id: hit.score for hit in engine.search("a red disc", field="text")}
    assert scores["p1"] < 0.9


def test_a_text_or_picture_that_is_taken_away_is_found_no_more(engine, pictures, toy):
    toy.dataset(pictures, [ROWS[0]])
    engine.add_folder(pictures)
    toy.dataset(pictures, [{"id": "p1", "text": "a red disc"}])
    engine.sync()
    assert engine.search("red disc", field="picture") == []
    toy.dataset(pictures, [{"id": "p1", "image": "img/disc.png"}])
    engine.sync()
    assert engine.search("red disc", field="text") == []
    assert toy.ids(engine.search("red disc", field="picture")) == ["p1"]
    assert engine.get("p1").text is None


def test_an_id_that_changes_in_the_table_changes_in_the_store(engine, pictures, toy):
    toy.dataset(pictures, ROWS)
    engine.add_folder(pictures)
    toy.dataset(pictures, [ROWS[0] | {"id": "p9"}, *ROWS[1:]])
    engine.sync()
    assert {item.id for item in engine.items()} == {"p9", "img/square.png", "t1"}


def test_a_picture_without_an_id_that_moves_keeps_its_first_id(engine, pictures, toy):
    toy.dataset(pictures, ROWS)
    engine.add_folder(pictures)
    (pictures / "img" / "square.png").rename(pictures / "moved.png")
    toy.dataset(pictures, [ROWS[0], ROWS[1] | {"image": "moved.png"}, ROWS[2]])
    report = engine.sync()
    assert (report.moved, report.added, report.removed) == (1, 0, 0)
    assert engine.get("img/square.png").path == pictures / "moved.png"


def test_a_table_that_loses_all_its_many_rows_is_taken_for_a_mistake(engine, folder, toy):
    toy.dataset(folder, [{"id": str(n), "text": f"red {n}"} for n in range(20)])
    engine.add_folder(folder)
    toy.dataset(folder, [])
    report = engine.sync()
    assert len(report.failed) == 1
    assert len(engine) == 20


def test_two_tables_with_the_same_ids_both_keep_their_items(engine, tmp_path, toy):
    one, other = write_table(tmp_path / "one.csv", ROWS[2:]), write_table(tmp_path / "other.csv", ROWS[2:])
    engine.add_folder(one)
    engine.add_folder(other)
    assert {item.id for item in engine.items()} == {"t1", "other.csv/t1"}


def test_a_dataset_inside_a_folder_of_pictures_does_not_double_them(engine, pictures, tmp_path, toy):
    toy.dataset(pictures, ROWS)
    engine.add_folder(pictures)
    toy.draw(tmp_path / "more.png", "green disc")
    (tmp_path / "all").mkdir()
    pictures.rename(tmp_path / "all" / "photos")
    engine.add_folder(tmp_path / "all" / "photos")
    report = engine.add_folder(tmp_path / "all")
    assert (report.added, report.failed) == (0, ())


# CSV and Parquet ----------------------------------------------------------------------------------------------------


def test_a_csv_from_a_spreadsheet_is_read(engine, folder, toy):
    text = (
        '\ufeffid;x,text,price\r\n"a",'.replace(";x", "")
        + '"a red disc, ""large""\r\nand round",\r\nb,a blue disc,"12,5"\r\n'
    )
    toy.write(folder / "a.csv", text.encode())
    assert engine.add_folder(folder / "a.csv").added == 2
    assert engine.get("a").text == 'a red disc, "large"\r\nand round'
    assert engine.get("a").metadata == {}
    assert engine.get("b").metadata == {"price": "12,5"}


def test_a_csv_with_long_texts_is_read(engine, folder):
    file = write_table(folder / "a.csv", [{"id": "long", "text": "red disc " * 30_000}])
    assert engine.add_folder(file).added == 1
    assert len(engine.get("long").text) == 270_000


def test_numbers_in_a_csv_are_filtered_as_numbers(engine, folder, toy):
    write_table(folder / "a.csv", [{"id": f"{n}", "text": f"red {n}", "n": str(n)} for n in (9, 10, 100)])
    engine.add_folder(folder / "a.csv")
    assert set(toy.ids(engine.search("red", where="n > 9"))) == {"10", "100"}
    assert toy.ids(engine.search("red", sort="n")) == ["9", "10", "100"]


def test_parquet_values_become_what_json_can_hold(engine, folder):
    row = {
        "id": "a", "text": "t", "day": date(2024, 5, 3), "at": datetime(2024, 5, 3, 12), "n": 3, "x": 1.5, "ok": True,
        "tags": ["x", "y"], "nested": {"k": 1}, "none": None,
    }  # fmt: skip
    assert engine.add_folder(write_table(folder / "a.parquet", [row])).failed == ()
    assert engine.get("a").metadata == {
        "day": "2024-05-03", "at": "2024-05-03T12:00:00", "n": 3, "x": 1.5, "ok": True, "tags": ["x", "y"],
        "nested": {"k": 1},
    }  # fmt: skip


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), [float("nan"), 1.0], [date(2024, 5, 3)], {"bytes": b"\xff", "path": "a"}, b"\xff"],
    ids=str,
)
def test_a_parquet_value_that_json_cannot_hold_stops_nothing(engine, folder, value):
    rows = [{"id": "a", "text": "t", "x": value}, {"id": "b", "text": "u", "x": None}]
    report = engine.add_folder(write_table(folder / "a.parquet", rows))
    assert report.added + len(report.failed) == 2
    assert engine.get("b").text == "u"


def test_a_parquet_column_of_missing_numbers_fails_no_row(engine, folder):
    rows = [{"id": "a", "text": "t", "x": float("nan")}, {"id": "b", "text": "u", "x": 2.0}]
    report = engine.add_folder(write_table(folder / "a.parquet", rows))
    assert (report.added, report.failed) == (2, ())
    assert engine.get("a").metadata == {}


# Single pictures, and what else there is ----------------------------------------------------------------------------


def test_a_single_picture_can_be_indexed(engine, folder, toy):
    file = toy.draw(folder / "a.png", "red disc")
    assert engine.add_folder(file).added == 1
    assert engine.get("a.png").path == file
    assert engine.add_folder(file).unchanged == 1


def test_two_single_pictures_of_the_same_name_are_two_items(engine, folder, toy):
    files = [toy.draw(folder / "1" / "a.png", "red disc"), toy.draw(folder / "2" / "a.png", "blue disc")]
    for file in files:
        assert engine.add_folder(file).failed == ()
    assert sorted(item.path for item in engine.items()) == files


def test_a_folder_that_becomes_a_dataset_keeps_the_ids_of_its_pictures(engine, pictures, toy):
    engine.add_folder(pictures)
    before = {item.id for item in engine.items()}
    toy.dataset(pictures, [{"image": "img/disc.png", "text": "a red disc"}, {"image": "img/square.png"}])
    engine.add_folder(pictures)
    assert {item.id for item in engine.items()} == before
    assert engine.get("img/disc.png").text == "a red disc"


def test_other_files_are_refused_as_tables(folder, toy):
    with pytest.raises(InvalidInput, match="expected a table as"):
        list(read_rows(toy.write(folder / "a.xlsx", b"")))
    with pytest.raises(InvalidInput, match="which does not exist"):
        open_source(folder / "nothing")


def test_items_in_a_zip_can_be_added_by_path(engine, folder, toy):
    with zipfile.ZipFile(folder / "all.zip", "w") as archive:
        archive.writestr("in/a.png", toy.png_of("red disc"))
    report = engine.add([Item(id="a", path=folder / "all.zip" / "in" / "a.png")])
    assert (report.added, report.failed) == (1, ())
    assert toy.ids(engine.search("red disc")) == ["a"]
