"""Judged queries: what a dataset folder or a file of judgements asks, and what would be right."""

import json
import zipfile

import pytest

from mmsearch import InvalidInput
from mmsearch.judged import IMAGE_TO_IMAGE, IMAGE_TO_TEXT, TEXT_TO_IMAGE, read_judged


@pytest.fixture
def make(toy, folder):
    """Writes a dataset folder of these rows; ``image`` names what a picture shows and is drawn."""

    def write(*rows):
        for row in rows:
            if isinstance(row, dict) and "image" in row and "://" not in row["image"]:
                toy.draw(folder / row["image"], " ".join(row["image"].split("/")[-1].split()[:2]))
        return toy.dataset(folder, rows)

    return write


def asked(judged):
    """What is asked, with the right answers."""
    return {query: dict(judged.qrels[id]) for query, id in zip(judged.queries, judged.ids, strict=True)}


# Captions -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"captions": ["a red disc", " something round "]}, ["a red disc", "something round"]),
        ({"captions": "a red disc"}, ["a red disc"]),
        ({"caption": "a red disc"}, ["a red disc"]),
        ({"text": "a red disc"}, ["a red disc"]),
        ({"title": "a red disc"}, ["a red disc"]),
        ({"captions": ["one"], "caption": "two", "text": "three", "title": "four"}, ["one"]),
        ({"captions": [], "caption": "two"}, ["two"]),
        ({"captions": ["", "  "], "text": "three", "title": "four"}, ["three"]),
        ({"captions": [None, 7, "a red disc", ["x"]]}, ["a red disc"]),
        ({"captions": None, "title": "four"}, ["four"]),
        ({"captions": {"en": "x"}, "title": "four"}, ["four"]),
        ({"captions": ["half \ud800 a letter"]}, ["half ? a letter"]),
        ({"captions": ["twice", "twice"]}, ["twice", "twice"]),
    ],
)
def test_each_caption_asks_for_its_own_picture(make, fields, expected):
    judged = read_judged(make({"id": "a", "image": "red disc.png", **fields}, {"id": "b", "image": "blue disc.png"}))
    assert list(judged.queries) == expected
    assert [dict(judged.qrels[id]) for id in judged.ids] == [{"a": 1.0}] * len(expected)
    assert len(set(judged.ids)) == len(expected)
    assert judged.groups == ("a",) * len(expected)
    assert [item.id for item in judged.items] == ["a", "b"]
    assert judged.field == "picture"


def test_pictures_that_are_looked_for_say_nothing_of_their_captions(make):
    row = {"id": "a", "image": "red disc.png", "text": "a red disc", "captions": ["a red disc"], "title": "a red disc"}
    (item,) = read_judged(make(row)).items
    assert (item.text, dict(item.metadata)) == (None, {})


def test_each_picture_asks_for_its_captions(make, folder):
    judged = read_judged(
        make({"id": "a", "image": "red disc.png", "captions": ["one", "two"]}, {"id": "b", "image": "blue disc.png"}),
        IMAGE_TO_TEXT,
    )
    assert asked(judged) == {folder / "red disc.png": {"a#0": 1.0, "a#1": 1.0}}
    assert {item.id: item.text for item in judged.items} == {"a#0": "one", "a#1": "two"}
    assert all(item.path is None for item in judged.items)


def test_ids_may_hold_anything_and_stay_apart(make):
    names = ["a", "a#0", "a#0#0", "with two spaces", "żółw", "100%"]
    rows = [{"id": id, "image": f"red disc {n}.png", "captions": ["x", "y"]} for n, id in enumerate(names)]
    for task in (TEXT_TO_IMAGE, IMAGE_TO_TEXT):
        judged = read_judged(make(*rows), task)
        assert len(set(judged.ids)) == len(judged.queries)
        assert len({item.id for item in judged.items}) == len(judged.items)
        assert {id for grades in judged.qrels.values() for id in grades} <= {item.id for item in judged.items}


def test_pictures_may_be_in_a_zip_file(toy, folder):
    with zipfile.ZipFile(folder / "images.zip", "w") as archive:
        archive.writestr("in/red disc.png", toy.png_of("red disc"))
    toy.dataset(folder, [{"image": "in/red disc.png", "caption": "a red disc"}])
    judged = read_judged(folder)
    assert judged.items[0].path == folder / "images.zip/in/red disc.png"
    assert asked(judged) == {"a red disc": {"in/red disc.png": 1.0}}


def test_lines_that_cannot_be_used_are_left_out_and_it_is_said(make):
    good = {"id": "a", "image": "red disc.png", "caption": "a red disc"}
    far = {"id": "b", "image": "https://example.org/b.png", "caption": "far away"}
    judged = read_judged(make(good, "no json", far, {**good, "caption": "again"}))
    assert list(judged.queries) == ["a red disc"]
    (note,) = judged.notes
    assert note.startswith("3 entries of the dataset were left out")


def test_an_id_that_is_also_the_name_of_another_picture_is_used_once(make):
    judged = read_judged(
        make(
            {"id": "red disc.png", "image": "blue disc.png", "caption": "x"}, {"image": "red disc.png", "caption": "y"}
        )
    )
    assert list(judged.queries) == ["x"]
    assert "the id or picture of two entries" in judged.notes[0]


def test_a_dataset_without_captions_is_refused_with_its_fields(make):
    with pytest.raises(InvalidInput, match=r"captions, caption, text or title.*the fields colour.*--qrels"):
        read_judged(make({"image": "red disc.png", "colour": "red"}))


def test_texts_without_pictures_ask_for_nothing(make):
    with pytest.raises(InvalidInput, match="expected pictures with a field captions"):
        read_judged(make({"text": "only words"}))


def test_an_empty_dataset_a_missing_one_and_an_unknown_task_are_refused(make, folder):
    with pytest.raises(InvalidInput, match="which has none that can be read"):
        read_judged(make())
    with pytest.raises(InvalidInput, match="does not exist"):
        read_judged(folder / "nowhere")
    with pytest.raises(InvalidInput, match="expected a task of text-to-image, image-to-text, image-to-image"):
        read_judged(folder, "image-to-music")


# Labels -------------------------------------------------------------------------------------------------------------


def rows_of(field, values):
    return [{"id": str(n), "image": f"red disc {n}.png", field: value} for n, value in enumerate(values)]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["x", "x", "y"], {"0": ["1"], "1": ["0"]}),
        ([1, "1", 1.0, 2], {"0": ["1", "2"], "1": ["0", "2"], "2": ["0", "1"]}),
        ([True, True, False, False], {"0": ["1"], "1": ["0"], "2": ["3"], "3": ["2"]}),
        ([0, 0, "", None, float("nan"), float("nan"), " "], {"0": ["1"], "1": ["0"]}),
        (["x", " x "], {"0": ["1"], "1": ["0"]}),
        ([1.5, 1.5, 1.6], {"0": ["1"], "1": ["0"]}),
    ],
)
def test_a_picture_asks_for_the_others_with_its_label(make, values, expected):
    judged = read_judged(make(*rows_of("label", values)), IMAGE_TO_IMAGE)
    assert {id: sorted(judged.qrels[id]) for id in judged.ids} == expected
    assert judged.about == judged.ids
    assert len(judged.items) == len(values)


def test_several_fields_must_all_be_equal(make):
    rows = [
        {"id": f"{colour}{n}", "image": f"{colour} disc {n}.png", "colour": colour, "n": n}
        for colour in ("red", "blue")
        for n in (0, 1, 1)
    ]
    rows = [{**row, "id": f"{row['id']} {place}"} for place, row in enumerate(rows)]
    judged = read_judged(make(*rows), IMAGE_TO_IMAGE, label="colour, n")
    assert {id: list(judged.qrels[id]) for id in judged.ids} == {
        "red1 1": ["red1 2"], "red1 2": ["red1 1"], "blue1 4": ["blue1 5"], "blue1 5": ["blue1 4"],
    }  # fmt: skip


@pytest.mark.parametrize("label", ["nothing", "label,nothing", "", ","])
def test_a_label_that_no_picture_has_is_refused_with_the_fields_there_are(make, label):
    with pytest.raises(InvalidInput, match=r"expected a field that says what a picture shows.*label.*--label"):
        read_judged(make(*rows_of("label", ["x", "x"])), IMAGE_TO_IMAGE, label=label)


def test_classes_of_one_picture_alone_are_refused(make):
    with pytest.raises(InvalidInput, match="expected labels that two pictures share"):
        read_judged(make(*rows_of("label", "xyz")), IMAGE_TO_IMAGE)


def test_a_label_is_for_pictures_that_ask_for_pictures(make):
    data = make({"image": "red disc.png", "caption": "x", "label": "y"})
    with pytest.raises(InvalidInput, match="expected a label only for image-to-image"):
        read_judged(data, TEXT_TO_IMAGE, label="label")


def test_judgements_by_label_take_no_more_room_than_the_labels(make):
    judged = read_judged(make(*rows_of("label", ["x"] * 60)), IMAGE_TO_IMAGE).sampled(20)
    assert [len(judged.qrels[id]) for id in judged.ids] == [59] * 20
    assert list(judged.qrels) == list(judged.ids)
    with pytest.raises(KeyError):
        judged.qrels[next(iter({str(n) for n in range(60)} - set(judged.ids)))]


# Judgements of a file -----------------------------------------------------------------------------------------------


@pytest.fixture
def data(make):
    return make(
        {"id": "a", "image": "red disc.png", "title": "First"},
        {"id": "b b", "image": "blue disc.png", "text": "second"},
        {"id": "t", "text": "words alone"},
    )


def test_texts_of_a_file_ask_for_pictures(data, tmp_path):
    file = tmp_path / "qrels.tsv"
    file.write_text("a round thing\ta\na round thing\tb b\t2\nsomething blue\t0\tb b\t1\nnothing\ta\t0\n")
    judged = read_judged(data, qrels=file)
    assert asked(judged) == {
        "a round thing": {"a": 1.0, "b b": 2.0}, "something blue": {"b b": 1.0}, "nothing": {"a": 0.0},
    }  # fmt: skip
    assert judged.notes == ()
    assert not judged.says_answers


def test_queries_about_one_picture_belong_together_in_a_file_too(data, tmp_path):
    file = tmp_path / "qrels.tsv"
    file.write_text("one\ta\ntwo\ta\nthree\tb b\nfour\ta\t1\nfour\tb b\t2\nnothing\ta\t0\n")
    assert read_judged(data, qrels=file).groups == ("a", "a", "b b", "b b", "nothing")


def test_words_may_be_looked_for_where_people_asked_and_not_where_the_texts_ask(data, tmp_path):
    file = tmp_path / "qrels.tsv"
    file.write_text("first\ta\nsecond\tb b\n")
    assert read_judged(data, qrels=file).says_answers
    file.write_text("first\ta\nsome thing\tb b\nanother\tb b\n")
    assert not read_judged(data, qrels=file).says_answers
    assert read_judged(data).says_answers


def test_pictures_of_a_file_ask_for_texts_and_pictures(data, tmp_path, folder):
    file = tmp_path / "run.qrels"
    file.write_text("a 0 t 1\n")
    judged = read_judged(data, IMAGE_TO_TEXT, qrels=file)
    assert asked(judged) == {folder / "red disc.png": {"t": 1.0}}
    assert {item.id for item in judged.items} == {"a", "b b", "t"}
    file.write_text("a\tb b\na\ta\n")
    judged = read_judged(data, IMAGE_TO_IMAGE, qrels=file)
    assert asked(judged) == {folder / "red disc.png": {"b b": 1.0}}


def test_judged_ids_that_the_dataset_lacks_are_named(data, tmp_path):
    file = tmp_path / "qrels.tsv"
    file.write_text("a round thing\ta\na round thing\tgone\n")
    (note,) = read_judged(data, qrels=file).notes
    assert "1 judged ids are not in the dataset" in note
    assert "'gone'" in note
    file.write_text("a round thing\tgone\n")
    with pytest.raises(InvalidInput, match=r"expected ids of items of the dataset.*'gone'"):
        read_judged(data, qrels=file)


@pytest.mark.parametrize(
    ("text", "task", "message"),
    [
        ("", TEXT_TO_IMAGE, "expected judgements"),
        ("301 0 a 1\n302 0 a 1\n", TEXT_TO_IMAGE, "expected texts as queries.*'301'"),
        ("q1 0 a 1\n", TEXT_TO_IMAGE, "expected texts as queries"),
        ("nobody\ta\n", IMAGE_TO_IMAGE, "expected ids of pictures as queries.*'nobody'"),
        ("t\ta\n", IMAGE_TO_IMAGE, "expected ids of pictures as queries.*'t'"),
        ("one two three\n", TEXT_TO_IMAGE, "expected the columns"),
        ("x\ta\tmuch\n", TEXT_TO_IMAGE, "expected a finite number as grade"),
    ],
)
def test_files_that_do_not_fit_are_refused(data, tmp_path, text, task, message):
    file = tmp_path / "qrels"
    file.write_text(text)
    with pytest.raises(InvalidInput, match=message):
        read_judged(data, task, qrels=file)


# Parts --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def many(make):
    return read_judged(
        make(*({"id": f"p{n}", "image": f"red disc {n}.png", "captions": list("abc")} for n in range(9)))
    )


@pytest.mark.parametrize("seed", range(5))
def test_halves_keep_all_captions_of_a_picture_together_and_lose_none(many, seed):
    first, second = many.halves(seed)
    assert not set(first.groups) & set(second.groups)
    assert sorted(first.ids + second.ids) == sorted(many.ids)
    assert abs(len(set(first.groups)) - len(set(second.groups))) <= 1
    assert first.items == second.items == many.items
    assert many.halves(seed) == (first, second)


def test_the_queries_of_one_picture_are_no_two_halves(many):
    with pytest.raises(InvalidInput, match="at least two pictures"):
        many.part([0, 1, 2]).halves()


def test_a_sample_is_the_same_each_time_and_never_more_than_there_is(many):
    some = many.sampled(5)
    assert some == many.sampled(5)
    assert len(some.queries) == 5
    assert [many.ids.index(id) for id in some.ids] == sorted(many.ids.index(id) for id in some.ids)
    assert many.sampled(None) is many.sampled(27) is many


def test_a_part_keeps_each_querys_judgements(many):
    part = many.sampled(20).part([3, 1])
    assert json.dumps({id: dict(part.qrels[id]) for id in part.ids}) == json.dumps(
        {id: {id.partition("#")[0]: 1.0} for id in part.ids}
    )
    assert part.about == (None, None)
