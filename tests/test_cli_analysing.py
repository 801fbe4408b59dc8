"""The commands that look at a collection as a whole: what scripts rely on, exit codes, sheets and pages."""

import csv
import json
import os
import shutil

import pytest
from PIL import Image

from mmsearch import Engine, Item

KINDS = ("red disc", "blue square", "green triangle")


@pytest.fixture(autouse=True)
def _toy_encoder(toy, monkeypatch):
    """Commands open stores with the toy encoder."""
    monkeypatch.setattr("mmsearch.engine._load", lambda name: toy.ToyEncoder())


@pytest.fixture
def words(toy, tmp_path):
    """A vocabulary file."""
    file = tmp_path / "words.txt"
    file.write_text("\n".join(toy.KINDS))
    return file


@pytest.fixture(scope="module")
def made(toy, tmp_path_factory):
    """A store: twelve pictures of three kinds, one with a wrong label; a copy in another split; a dark one."""
    path = tmp_path_factory.mktemp("made") / "store"
    with Engine.open(path, toy.ToyEncoder()) as engine:
        engine.add(
            Item(
                f"{kind} {n}",
                image=toy.png_of(kind, n),
                metadata={"kind": "red disc" if (kind, n) == ("blue square", 2) else kind, "split": "train", "n": n},
            )
            for kind in KINDS
            for n in range(4)
        )
        engine.add([Item("copy", image=toy.png_of("red disc", 1), metadata={"kind": "red disc", "split": "test"})])
        engine.add([Item("dark", image=Image.new("RGB", (80, 80), (9, 9, 9)))])
    return path


@pytest.fixture
def filled(made, open_engine, tmp_path):
    """An engine over a copy of that store."""
    shutil.copytree(made, tmp_path / "store")
    return open_engine()


@pytest.fixture
def told(filled, ask):
    """Runs a command with ``--json`` over the store: exit code and what it printed."""

    def run(*arguments):
        code, shown, error = ask(*arguments, "--json", "--store", filled.path)
        assert "NaN" not in shown
        assert "Infinity" not in shown
        assert error == ""
        return code, json.loads(shown)

    return run


COMMANDS = {
    "duplicates": ("duplicates", "groups"),
    "leaks": ("leaks", "leaks"),
    "outliers": ("outliers", "outliers"),
    "flaws": ("flaws", "flaws"),
    "suspects": ("suspects kind", "suspects"),
    "sample": ("sample 3", "ids"),
}
lists = pytest.mark.parametrize(("command", "key"), COMMANDS.values(), ids=COMMANDS)


# What scripts rely on ---------------------------------------------------------------------------------------------


def test_duplicates_are_told_with_the_one_to_keep(told):
    code, found = told("duplicates")
    assert code == 0
    assert found == {
        "groups": [{"kind": "exact", "best": "red disc 1", "ids": ["red disc 1", "copy"], "scores": [1.0, 1.0]}]
    }
    assert told("duplicates", "--mirrored")[0] == 0


def test_leaks_are_told_with_their_splits(told):
    code, found = told("leaks")
    assert code == 0
    (leak,) = found["leaks"]
    assert dict(zip(leak["ids"], leak["splits"], strict=True)) == {"red disc 1": "train", "copy": "test"}
    assert leak["score"] == 1
    assert told("leaks", "split") == (code, found)
    assert told("leaks", "kind") == (1, {"leaks": []})


def test_outliers_are_told_with_their_scores(told):
    code, found = told("outliers", "-k", 2)
    assert code == 0
    assert len(found["outliers"]) == 2
    for one in found["outliers"]:
        assert one.keys() == {"id", "score", "scores"}
        assert one["scores"].keys() == {"lof", "isolation", "distance"}
        assert 0 <= one["score"] <= 1


def test_flaws_are_told_with_what_was_measured(told):
    code, found = told("flaws")
    assert code == 0
    assert {(one["kind"], one["id"]) for one in found["flaws"]} >= {("dark", "dark"), ("empty", "dark")}
    assert all(one.keys() == {"id", "kind", "value", "limit"} for one in found["flaws"])


def test_suspects_are_told_with_the_label_that_fits_better(told):
    code, found = told("suspects", "kind")
    assert code == 0
    (one,) = found["suspects"]
    assert one.keys() == {"id", "label", "suggested", "score", "agreement"}
    assert (one["id"], one["label"], one["suggested"]) == ("blue square 2", "red disc", "blue square")
    assert told("suspects", "kind", "-k", 1)[1] == found


@pytest.mark.parametrize("method", ["density", "k-center", "random"])
def test_a_sample_is_told_as_ids(told, method):
    code, found = told("sample", 5, "--method", method, "--seed", 3)
    assert code == 0
    assert len(set(found["ids"])) == 5
    assert told("sample", 3, "--method", method, "--seed", 3)[1]["ids"] == found["ids"][:3]


@lists
def test_the_same_is_shown_to_people(filled, ask, told, command, key):
    code, shown, error = ask(*command.split(), "--store", filled.path)
    assert (code, error) == (0, "")
    first = told(*command.split())[1][key][0]
    assert (first if isinstance(first, str) else first.get("id") or first["ids"][0]) in shown


@lists
def test_a_filter_chooses_what_is_looked_at(filled, ask, told, command, key):
    assert told(*command.split(), "--where", "n > 50") == (1, {key: []})
    code, shown, error = ask(*command.split(), "--where", "n > 50", "--store", filled.path)
    assert (code, shown) == (1, "")
    assert error.strip()
    code, _, error = ask(*command.split(), "--where", "((", "--store", filled.path)
    assert code == 2
    assert "filter" in error


@lists
def test_an_empty_store_is_code_1(engine, ask, command, key):
    code, shown, _ = ask(*command.split(), "--json", "--store", engine.path)
    assert (code, json.loads(shown)) == (1, {key: []})


@lists
def test_a_store_that_is_not_there_is_code_3(tmp_path, ask, command, key):
    code, shown, error = ask(*command.split(), "--store", tmp_path / "nowhere")
    assert (code, shown) == (3, "")
    assert "there is no store" in error


# Sheets -----------------------------------------------------------------------------------------------------------


@lists
def test_a_sheet_shows_what_was_found(filled, ask, tmp_path, command, key):
    sheet = tmp_path / "deep" / "sheet.html"
    code, _, error = ask(*command.split(), "--sheet", sheet, "--store", filled.path)
    assert (code, error) == (0, "")
    assert sheet.stat().st_size > 1_000
    page = sheet.read_text()
    assert 'src="data:image/jpeg' in page
    assert 'src="http' not in page


def test_a_sheet_may_be_a_picture(filled, ask, tmp_path):
    assert ask("duplicates", "--sheet", tmp_path / "sheet.png", "--store", filled.path)[0] == 0
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert min(sheet.size) > 100


@pytest.mark.parametrize("command", ["clusters", *(command for command, _ in COMMANDS.values())])
def test_a_sheet_of_another_ending_is_refused_before_the_work(filled, ask, tmp_path, monkeypatch, command):
    monkeypatch.setattr("mmsearch.engine.Engine.__enter__", lambda self: pytest.fail("the store was opened"))
    code, shown, error = ask(*command.split(), "--sheet", tmp_path / "sheet.txt", "--store", filled.path)
    assert (code, shown) == (2, "")
    assert ".html" in error
    assert not (tmp_path / "sheet.txt").exists()


# Maps and reports -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["html", "png", "csv", "parquet"])
def test_a_map_is_written_and_its_facts_told(filled, ask, told, tmp_path, words, ending):
    ask("clusters", "--n", 3, "--vocabulary", words, "--store", filled.path)
    file = tmp_path / "deep" / f"map.{ending}"
    code, facts = told("map", file, "--method", "pca")
    assert code == 0
    assert facts.keys() >= {"file", "items", "method", "trust"}
    assert (facts["file"], facts["items"], facts["method"]) == (str(file), 14, "pca")
    assert 0 <= facts["trust"] <= 1
    assert file.stat().st_size > 200
    code, shown, _ = ask("map", file, "--store", filled.path)
    assert code == 0
    assert "14 items by pca" in shown


def test_a_map_has_the_names_of_the_latest_clusters(filled, ask, tmp_path, words):
    ask("clusters", "--n", 3, "--vocabulary", words, "--store", filled.path)
    ask("map", tmp_path / "map.csv", "--method", "pca", "--store", filled.path)
    with open(tmp_path / "map.csv", newline="") as file:
        names = {row["name"] for row in csv.DictReader(file)}
    assert names & set(KINDS)


def test_a_map_without_clusters_makes_them(filled, ask, tmp_path):
    code, _, _ = ask("map", tmp_path / "map.csv", "--method", "pca", "--store", filled.path)
    assert code == 0
    with open(tmp_path / "map.csv", newline="") as file:
        assert {row["name"] for row in csv.DictReader(file)} != {"in no cluster"}


@pytest.mark.parametrize(
    "arguments", [("map.txt",), ("map",), ("map.html", "--method", "tsne"), ("map.html", "--where", "((")]
)
def test_a_map_that_cannot_be_made_is_refused(filled, ask, tmp_path, arguments):
    file, *options = arguments
    code, shown, error = ask("map", tmp_path / file, *options, "--store", filled.path)
    assert (code, shown) == (2, "")
    assert error.startswith("mmsearch: ")
    assert not (tmp_path / file).exists()


def test_a_map_of_nothing_is_no_crash(engine, ask, tmp_path):
    for ending in ("html", "csv", "png"):
        code, _, error = ask("map", tmp_path / f"map.{ending}", "--store", engine.path)
        assert code in (0, 1)
        assert "Traceback" not in error


def test_a_report_is_a_page_with_every_cluster_that_loads_nothing(filled, ask, tmp_path, words):
    file = tmp_path / "deep" / "report.html"
    options = ("--n", 3, "--vocabulary", words, "--labels", "kind", "--labels", "split")
    code, shown, error = ask("report", file, *options, "--store", filled.path)
    assert (code, error) == (0, "")
    assert "report.html" in shown
    page = file.read_text()
    titles = [cluster.title for cluster in filled.clusters(3, vocabulary=words.read_text().split("\n"))]
    assert len(titles) == 3
    assert all(title in page for title in titles)
    assert "copy" in page
    for loads in ('src="http', "src='http", "src=http", "<link", "@import"):
        assert loads not in page


@pytest.mark.parametrize(
    ("file", "options"),
    [
        ("report.pdf", ()),
        ("report", ()),
        ("report.html", ("--labels", "size")),
        ("report.html", ("--labels", "kind", "--labels", "")),
        ("report.html", ("--vocabulary", "nowhere.txt")),
    ],
)
def test_a_report_that_cannot_be_made_is_refused_before_the_work(filled, ask, tmp_path, monkeypatch, file, options):
    monkeypatch.setattr(type(filled), "clusters", lambda self, *_, **__: pytest.fail("the work was done"))
    code, shown, error = ask("report", tmp_path / file, *options, "--store", filled.path)
    assert (code, shown) == (2, "")
    assert error.startswith("mmsearch: ")
    assert not (tmp_path / file).exists()


def test_a_report_on_an_empty_store_is_written(engine, ask, tmp_path):
    code, _, _ = ask("report", tmp_path / "report.html", "--store", engine.path)
    assert code in (0, 1)
    assert (tmp_path / "report.html").stat().st_size > 500


@pytest.mark.parametrize("begin", [b"", b"\xef\xbb\xbf"])
def test_a_vocabulary_file_may_come_from_any_editor(filled, ask, tmp_path, begin):
    file = tmp_path / "words.txt"
    file.write_bytes(begin + b"red disc\r\n\r\n  blue square \r\ngreen triangle")
    code, shown, _ = ask("clusters", "--n", 3, "--vocabulary", file, "--json", "--store", filled.path)
    assert code == 0
    assert {one["name"] for one in json.loads(shown)["clusters"]} <= set(KINDS)


@pytest.mark.parametrize("content", [b"", b" \n\n", b"caf\xe9", b"\xff\xfer\x00"])
def test_a_vocabulary_file_without_readable_words_is_refused(filled, ask, tmp_path, content):
    file = tmp_path / "words.txt"
    file.write_bytes(content)
    code, shown, error = ask("clusters", "--vocabulary", file, "--store", filled.path)
    assert (code, shown) == (2, "")
    assert "vocabulary" in error


# Wrong fields and numbers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["leaks size", "suspects size", "clusters --labels size"])
def test_a_field_that_no_item_has_is_refused_with_those_there_are(filled, ask, command):
    code, shown, error = ask(*command.split(), "--store", filled.path)
    assert (code, shown) == (2, "")
    assert "kind, n, split" in error


def test_a_wrong_field_leaves_the_clusters_of_before_alone(filled, ask, toy):
    before = filled.clusters(3, vocabulary=toy.KINDS)
    ask("clusters", "--n", 2, "--labels", "size", "--store", filled.path)
    assert filled.map(method="pca").names == {cluster.id: cluster.title for cluster in before}


@pytest.mark.parametrize(
    "command",
    ["outliers -k 0", "suspects kind -k 0", "sample 0", "sample -3", "sample 3 --seed -1", "sample 3 --method k-centre",
     "sample", "suspects", "map", "report"],
)  # fmt: skip
def test_bad_numbers_and_missing_arguments_are_code_2(filled, ask, command):
    code, shown, error = ask(*command.split(), "--store", filled.path)
    assert (code, shown) == (2, "")
    assert error


# Names of any letters ---------------------------------------------------------------------------------------------


@pytest.fixture
def strange(engine, folder, toy):
    """A store of names and metadata with quotes, tags, half characters and brackets of the table's own markup."""
    names = (b"a \xff\xfe.png", "ünï [bold] \"'<b>&.png".encode(), b"[red] 100%.png", b"<script>alert(1)<.png")
    for name, kind in zip(names, ("red disc", "red disc", "blue square", "green triangle"), strict=True):
        with open(os.fsencode(folder) + b"/" + name, "wb") as file:
            file.write(toy.png_of(kind))
    engine.add_folder(folder)
    evil = {"title": "<script>alert(2)</script>", "kind": "[/b] \"<i>'", "split": "\ud800 [red]"}
    engine.add(
        [
            Item("text", text="<script>alert(3)</script> \ud800 {} %s", metadata=evil),
            Item("again", text="<script>alert(3)</script> \ud800 {} %s", metadata={**evil, "split": "other"}),
            Item("[/bold]", image=Image.new("RGB", (8, 90)), metadata={**evil, "kind": "x"}),
        ]
    )
    return engine


@lists
def test_names_of_any_letters_are_shown(strange, ask, tmp_path, command, key):
    sheet = tmp_path / "sheet.html"
    code, _, _ = ask(*command.split(), "--sheet", sheet, "--store", strange.path)
    assert code in (0, 1)
    assert "<script>alert" not in sheet.read_text()
    again, shown, _ = ask(*command.split(), "--json", "--store", strange.path)
    assert again == code
    assert (json.loads(shown)[key] != []) == (code == 0)


def test_pages_of_names_of_any_letters_run_no_script_of_theirs(strange, ask, tmp_path):
    store = ("--store", strange.path)
    assert ask("report", tmp_path / "report.html", "--labels", "kind", *store)[0] == 0
    assert ask("map", tmp_path / "map.html", *store)[0] == 0
    assert ask("map", tmp_path / "map.csv", *store)[0] == 0
    for page in ("report.html", "map.html"):
        assert "<script>alert" not in (tmp_path / page).read_text()
    with open(tmp_path / "map.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == len(strange)
