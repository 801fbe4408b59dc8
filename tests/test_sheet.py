"""Contact sheets: they show what was found, whatever the pictures, names and texts are."""

import base64
import re
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from mmsearch import Hit, InvalidInput, Item
from mmsearch.sheet import SIDE, Section, draw_sheet, write_sheet

COLOURS = {"red": (255, 0, 0), "green": (0, 128, 0), "blue": (0, 0, 255)}


@pytest.fixture
def hits(tmp_path):
    """Three pictures, one colour each."""
    made = []
    for rank, (name, colour) in enumerate(COLOURS.items(), 1):
        path = tmp_path / f"{name}.png"
        Image.new("RGB", (SIDE, SIDE), colour).save(path)
        made.append(Hit(Item(id=name, path=path), 1 / rank, rank))
    return made


def area(sheet, colour):
    """How many pixels have exactly this colour."""
    return int((np.asarray(sheet) == colour).all(axis=2).sum())


def test_every_picture_is_shown_whole_and_in_order(hits):
    sheet = draw_sheet([Section("colours", hits)])
    assert [area(sheet, colour) for colour in COLOURS.values()] == [SIDE * SIDE] * 3
    pixels = np.asarray(sheet)
    lefts = [np.argwhere((pixels == colour).all(axis=2))[:, 1].min() for colour in COLOURS.values()]
    assert lefts == sorted(lefts)


def test_the_query_picture_stands_before_the_hits_in_a_frame(hits):
    sheet = draw_sheet([Section("like green", hits[:1], hits[1].item.path)])
    pixels = np.asarray(sheet)
    green, red = (np.argwhere((pixels == COLOURS[name]).all(axis=2)) for name in ("green", "red"))
    assert green[:, 1].max() < red[:, 1].min()
    assert len(red) == SIDE * SIDE
    assert len(green) == (SIDE - 6) ** 2


def test_each_query_has_a_row_of_its_own(hits):
    sheet = draw_sheet([Section(hit.item.id, [hit]) for hit in hits])
    pixels = np.asarray(sheet)
    tops = [np.argwhere((pixels == colour).all(axis=2))[:, 0].min() for colour in COLOURS.values()]
    assert tops == sorted(tops)
    assert np.diff(tops).min() > SIDE


def test_the_words_of_the_query_are_written(hits):
    with_words, without = (np.asarray(draw_sheet([Section(title, hits)])) for title in ("a bicycle", ""))
    assert (with_words != without).any()


def test_pictures_that_are_gone_or_broken_leave_their_place_empty(hits, tmp_path):
    hits[0].item.path.unlink()
    hits[1].item.path.write_bytes(b"nothing")
    sheet = draw_sheet([Section("colours", hits, tmp_path / "never.png")])
    assert [area(sheet, colour) for colour in COLOURS.values()] == [0, 0, SIDE * SIDE]
    for ending in ("png", "html"):
        write_sheet(tmp_path / f"sheet.{ending}", [Section("colours", hits, tmp_path / "never.png")])


def test_items_without_a_picture_show_their_text():
    shown, empty = (
        np.asarray(draw_sheet([Section("x", [Hit(Item(id="a", text=text), 0.5, 1)])])) for text in ("a tale", "")
    )
    assert (shown[30 : 30 + SIDE] != empty[30 : 30 + SIDE]).any()


@pytest.mark.parametrize("text", ["word " * 200_000, "x" * 1_000_000, "\ud800\n\t\x00", "日本語 🙂", "w" * 400])
@pytest.mark.parametrize("ending", ["png", "html"])
def test_any_text_fits(tmp_path, text, ending):
    sheet = tmp_path / f"sheet.{ending}"
    write_sheet(sheet, [Section(text, [Hit(Item(id="a", text=text), 0.5, 1), Hit(Item(id=text), 0.5, 2)])])
    assert sheet.stat().st_size < 300_000


def test_nothing_found_is_a_sheet_too(tmp_path):
    for ending in ("png", "jpg", "webp", "html"):
        write_sheet(tmp_path / f"none.{ending}", [])
        write_sheet(tmp_path / f"empty.{ending}", [Section("nothing", [])])
        assert (tmp_path / f"empty.{ending}").stat().st_size > 0


def test_many_hits_are_wrapped_into_rows(hits):
    many = [Hit(hits[0].item, 0.5, rank) for rank in range(1, 101)]
    sheet = draw_sheet([Section("many", many)])
    assert area(sheet, COLOURS["red"]) == 100 * SIDE * SIDE
    assert max(sheet.size) < 3000


def test_more_than_a_kind_of_picture_holds_is_refused_with_the_way_out(tmp_path):
    many = [Hit(Item(id="a"), 0.5, rank) for rank in range(1, 1001)]
    with pytest.raises(InvalidInput, match=r"take \.png or \.html"):
        write_sheet(tmp_path / "many.webp", [Section("many", many)])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "kind"), [("a.png", "PNG"), ("a.JPG", "JPEG"), ("a.jpeg", "JPEG"), ("new folder/a.webp", "WEBP")]
)
def test_the_ending_chooses_the_kind(tmp_path, hits, name, kind):
    write_sheet(tmp_path / name, [Section("colours", hits)])
    with Image.open(tmp_path / name) as image:
        assert image.format == kind


@pytest.mark.parametrize("name", ["sheet", "sheet.txt", "sheet.pdf", ".png"])
def test_another_ending_is_refused_and_nothing_is_written(tmp_path, hits, name):
    with pytest.raises(InvalidInput, match=re.escape(repr(name))):
        write_sheet(tmp_path / name, [Section("colours", hits)])
    assert not (tmp_path / name).exists()


def test_a_page_holds_its_pictures_and_loads_nothing(tmp_path, hits):
    write_sheet(tmp_path / "sheet.html", [Section("colours", hits)])
    page = (tmp_path / "sheet.html").read_text()
    assert not re.search(r"https?:|<script|<link", page)
    pictures = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    assert len(pictures) == 3
    for data, colour in zip(pictures, COLOURS.values(), strict=True):
        with Image.open(BytesIO(base64.b64decode(data))) as image:
            assert np.abs(np.subtract(image.getpixel((5, 5)), colour)).max() < 12


def test_markup_in_names_texts_and_queries_stays_text(tmp_path, hits):
    evil = '<script>alert("&")</script>'
    hit = Hit(Item(id=evil, path=hits[0].item.path, text=evil), 0.5, 1)
    write_sheet(tmp_path / "sheet.html", [Section(evil, [hit, Hit(Item(id=evil), 0.4, 2)])], title=evil)
    page = (tmp_path / "sheet.html").read_text()
    assert "<script" not in page
    assert page.count("&lt;script&gt;") == 5
