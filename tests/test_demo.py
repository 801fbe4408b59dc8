"""The demo: real pictures and the embedded model agree, and the gallery is what it says."""

import json
import zipfile

import pytest

from mmsearch import Engine
from mmsearch.gallery import PICTURE_QUERIES, TEXT_QUERIES, gallery_folder

TELLING = ("windmill", "solar panels", "pyramid")


@pytest.fixture(scope="module")
def rows():
    """The rows of the whole gallery."""
    return [json.loads(line) for line in (gallery_folder() / "items.jsonl").read_text("utf-8").splitlines()]


@pytest.fixture(scope="module")
def members():
    """The members of its zip file."""
    with zipfile.ZipFile(gallery_folder() / "images.zip") as archive:
        return {member.filename: archive.read(member) for member in archive.infolist()}


@pytest.fixture(scope="module")
def sample(rows, members, tmp_path_factory):
    """A dataset folder of some eighty gallery pictures: all of the telling ones and a spread of others."""
    photos = [row for row in rows if row["kind"] == "photo"]
    telling = [row for row in photos if any(word in row["title"].lower() for word in TELLING)]
    asked = [row for row in rows if row["title"].lower() in ("panda", "polar bear", "taj mahal", "measuring tape")]
    others = [row for row in photos[::9] + rows[226::60] if row not in telling + asked]
    chosen = telling + asked + others[:45]
    folder = tmp_path_factory.mktemp("sample")
    (folder / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chosen), "utf-8")
    with zipfile.ZipFile(folder / "images.zip", "w") as archive:
        for row in chosen:
            archive.writestr(row["image"], members[row["image"]])
    return folder


@pytest.fixture(scope="module")
def engine(sample, tmp_path_factory):
    """A store of the sample, made with the embedded model."""
    with Engine.open(tmp_path_factory.mktemp("demo") / "store") as engine:
        report = engine.add_folder(sample)
        assert report.failed == ()
        assert report.added == len(engine) >= 75
        yield engine


@pytest.mark.parametrize(
    ("words", "title"),
    [
        ("windmill", "windmill"),
        ("solar panels", "solar panels"),
        ("a pyramid in the desert", "pyramid"),
        ("a panda", "panda"),
        ("polar bear on ice", "polar bear"),
        ("Taj Mahal", "taj mahal"),
    ],
)
@pytest.mark.parametrize("field", ["picture", None])
def test_words_put_a_picture_of_it_first(engine, words, title, field):
    assert title in engine.search(words, k=1, field=field)[0].item.text.lower()


def test_similar_to_a_windmill_are_windmills(engine):
    hits = engine.similar(PICTURE_QUERIES[0], k=5, field="picture")
    assert [hit.item.text for hit in hits[:3]] == ["windmill"] * 3


def test_similar_to_a_pyramid_are_pyramids(engine):
    hits = engine.similar(PICTURE_QUERIES[1], k=3, field="picture")
    assert sum("pyramid" in hit.item.text.lower() for hit in hits) >= 2


def test_each_picture_of_the_sample_finds_itself_first(engine):
    items = list(engine.items())[::6]
    for item, hits in zip(items, engine.search_many([i.path for i in items], k=1, field="picture"), strict=True):
        assert item.id in {hits[0].item.id, *(copy.id for copy in hits[0].copies)}
        assert hits[0].score > 0.99


def test_pictures_are_read_in_place_from_the_zip_file(engine, sample):
    for item in engine.items():
        assert item.path.parent == sample / "images.zip"
    assert sorted(path.name for path in sample.iterdir()) == ["images.zip", "items.jsonl"]
    assert engine.search(item.path, k=1, field="picture")[0].item.id == item.id


def test_the_fields_of_the_rows_filter_the_answers(engine):
    hits = engine.search("a bright colour", k=200, where="kind = photo and not group prefix explore", field="picture")
    assert hits
    assert {hit.item.metadata["kind"] for hit in hits} == {"photo"}
    assert not any(hit.item.metadata["group"].startswith("explore") for hit in hits)


def test_the_gallery_is_large_enough_and_small_enough_to_ship(rows):
    assert 1000 <= len(rows) <= 1500
    assert sum(path.stat().st_size for path in gallery_folder().iterdir()) < 12_000_000


def test_all_photographs_come_first(rows):
    kinds = [row["kind"] for row in rows]
    assert kinds[:226] == ["photo"] * 226
    assert "photo" not in kinds[226:]


def test_every_picture_of_the_gallery_says_its_terms_and_where_it_is_from(rows):
    attribution = (gallery_folder() / "ATTRIBUTION.md").read_text("utf-8").lower()
    for row in rows:
        assert row["title"]
        assert row["source"]
        assert any(terms in row["license"].lower() for terms in ("public domain", "cc0", "mit", "apache-2.0")), row
    for terms in {row["license"].split(" (")[0].lower() for row in rows}:
        assert terms in attribution


def test_the_zip_file_holds_every_picture_of_the_gallery_and_no_other(rows, members):
    assert sorted(row["image"] for row in rows) == sorted(members)
    assert all(members.values())


def test_the_demo_asks_for_pictures_that_are_in_the_gallery(rows):
    assert set(PICTURE_QUERIES) <= {row["image"] for row in rows}
    assert len(set(TEXT_QUERIES)) == len(TEXT_QUERIES) >= 5
