"""The command line: what it prints, what it promises to scripts, and how it refuses."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image

from mmsearch import Engine, InvalidInput
from mmsearch.cli.app import app
from mmsearch.gallery import gallery_folder

PICTURES = {
    "mills/one.webp": "gcompris-photos-categorization-images-renewable-windmill3.webp",
    "mills/two.webp": "gcompris-photos-categorization-images-renewable-windmill5.webp",
    "roof.webp": "gcompris-photos-categorization-images-renewable-solar1.webp",
    "desert.webp": "gcompris-photos-explore-monuments-egypt-redpyramid.webp",
    "black and white.webp": "gcompris-photos-explore-world-animals-animals-panda.webp",
    "white.webp": "gcompris-photos-explore-world-animals-animals-polar-bear.webp",
    "marble.webp": "gcompris-photos-categorization-images-monuments-tajmahal.webp",
    "swimmer.webp": "gcompris-photos-categorization-images-fishes-fish9.webp",
    "bike.webp": "openclipart-transportation-bicycle-philippe-colin-01.webp",
    "lunch.webp": "openclipart-food-pizza-pepperoni.webp",
    "bird.webp": "fluent-emoji-flat-parrot.webp",
}
ROWS = [
    {"id": "recipe", "text": "how to bake bread with rye flour", "year": 2020, "price": 3},
    {"id": "manual", "text": "repairing the brakes of a bicycle", "year": 2024, "price": 9},
]
HIT_KEYS = {"rank", "score", "id", "path", "text", "metadata", "copies"} | {
    "scores",
    "ranks",
    "region",
    "words",
    "notes",
    "reasons",
}
REPORT_KEYS = {"added", "changed", "unchanged", "moved", "removed", "failed", "items"}
COMMANDS = sorted(typer.main.get_command(app).commands)


def environment(**changes):
    """What a process of its own gets: no colours, a width that breaks nothing, and no network."""
    there = {key: value for key, value in os.environ.items() if key not in {"FORCE_COLOR", "MMSEARCH_STORE"}}
    return there | {"COLUMNS": "200", "TERM": "dumb", "HF_HUB_OFFLINE": "1"} | changes


def process(*arguments, program=(sys.executable, "-m", "mmsearch"), **changes):
    """Run mmsearch as people do, in a process of its own."""
    done = subprocess.run([*program, *arguments], capture_output=True, env=environment(**changes))
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    return done


def one_object(text):
    """The single JSON object that a text is, and nothing around it."""
    data, end = json.JSONDecoder().raw_decode(text)
    assert text[end:] == "\n"
    assert isinstance(data, dict)
    return data


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder of pictures, one of them broken and one of them twice, and a tiny dataset folder."""
    home = tmp_path_factory.mktemp("home")
    with zipfile.ZipFile(gallery_folder() / "images.zip") as archive:
        for name, member in PICTURES.items():
            target = home / "pictures" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(archive.read(member))
    shutil.copy(home / "pictures/lunch.webp", home / "pictures/lunch copy.webp")
    (home / "pictures/broken [1].jpg").write_bytes(b"\xff\xd8\xff\xe0 not a picture")
    (home / "notes").mkdir()
    (home / "notes/items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return home


@pytest.fixture(scope="module")
def indexed(home):
    """What one ``mmsearch index … --json`` in a process of its own printed."""
    return process("index", home / "pictures", home / "notes", "--store", home / "store", "--json")


@pytest.fixture(scope="module")
def store(home, indexed):
    """The store that it made."""
    assert indexed.returncode == 0, indexed.stderr.decode()
    return home / "store"


@pytest.fixture
def own_store(store, tmp_path):
    """A copy of the store that a test may change."""
    return shutil.copytree(store, tmp_path / "own store")


# Finding --------------------------------------------------------------------------------------------------------


def test_index_prints_one_object_that_says_what_was_added_and_what_failed(indexed, home):
    report = one_object(indexed.stdout.decode())
    assert report.keys() == REPORT_KEYS
    assert report["added"] == report["items"] == len(PICTURES) + 1 + len(ROWS)
    (failed,) = report["failed"]
    assert failed.keys() == {"path", "reason"}
    assert failed["path"] == str(home / "pictures/broken [1].jpg")
    assert indexed.stderr == b""


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["windmill"], {"mills/one.webp", "mills/two.webp"}),
        (["a", "panda"], {"black and white.webp"}),
        (["pyramid in the desert"], {"desert.webp"}),
        (["a red bicycle"], {"bike.webp"}),
    ],
)
def test_what_was_indexed_is_found_by_words(ask, store, words, found):
    code, shown, _ = ask("search", *words, "--store", store, "--json", "--field", "picture", "-k", "1")
    assert code == 0
    assert {hit["id"] for hit in one_object(shown)["hits"]} <= found


def test_search_prints_one_object_with_the_keys_of_the_contract_and_nothing_else(store, home):
    done = process("search", "a windmill", "--store", store, "--json")
    assert done.returncode == 0
    assert done.stderr == b""
    answer = one_object(done.stdout.decode())
    assert answer.keys() == {"query", "hits"}
    assert answer["query"] == "a windmill"
    assert len(answer["hits"]) == 10
    for rank, hit in enumerate(answer["hits"], 1):
        assert hit.keys() == HIT_KEYS
        assert hit["rank"] == rank
        assert isinstance(hit["score"], float)
        assert hit["path"] is None or Path(hit["path"]).is_file()
    scores = [hit["score"] for hit in answer["hits"]]
    assert scores == sorted(scores, reverse=True)
    assert answer["hits"][0]["path"].startswith(str(home / "pictures/mills"))


def test_words_without_quotes_are_one_query(ask, store):
    apart, together = (
        one_object(ask("search", *words, "--store", store, "--json")[1])
        for words in (["a", "red", "bicycle"], ["a red bicycle"])
    )
    assert apart == together
    assert apart["query"] == "a red bicycle"


def test_a_picture_finds_itself_and_what_looks_like_it(ask, store, home):
    picture = home / "pictures/mills/one.webp"
    code, shown, _ = ask("search", "--image", picture, "--store", store, "--json", "--field", "picture")
    first, second = one_object(shown)["hits"][:2]
    assert code == 0
    assert (first["id"], second["id"]) == ("mills/one.webp", "mills/two.webp")
    assert first["score"] > 0.99


def test_words_and_a_picture_together_are_one_blended_query(ask, store, home):
    picture = home / "pictures/bike.webp"
    blend = one_object(
        ask("search", "a panda", "--image", picture, "--store", store, "--json", "--field", "picture")[1]
    )
    assert blend["query"] == f"a panda + {picture}"
    assert {hit["id"] for hit in blend["hits"][:2]} == {"bike.webp", "black and white.webp"}


def test_similar_gives_other_items_in_the_same_form(ask, store):
    code, shown, _ = ask("similar", "mills/one.webp", "--store", store, "--json", "-k", "3", "--field", "picture")
    answer = one_object(shown)
    assert code == 0
    assert answer.keys() == {"query", "hits"}
    assert answer["query"] == "mills/one.webp"
    assert [hit["rank"] for hit in answer["hits"]] == [1, 2, 3]
    assert all(hit.keys() == HIT_KEYS for hit in answer["hits"])
    assert answer["hits"][0]["id"] == "mills/two.webp"


def test_identical_pictures_are_one_hit_that_lists_the_copy(ask, store):
    _, shown, _ = ask("search", "pizza", "--store", store, "--json", "-k", "1", "--field", "picture")
    (hit,) = one_object(shown)["hits"]
    assert {hit["id"], *hit["copies"]} == {"lunch.webp", "lunch copy.webp"}
    assert "1 identical" in ask("search", "pizza", "--store", store, "-k", "1", "--field", "picture")[1]


@pytest.mark.parametrize("k", [1, 4, 100])
def test_k_says_how_many(ask, store, k):
    _, shown, _ = ask("search", "something", "-k", k, "--store", store, "--json")
    assert len(one_object(shown)["hits"]) == min(k, len(PICTURES) + len(ROWS))


def test_where_keeps_only_what_it_describes(ask, store):
    found = {}
    for where in ("folder = mills", "year >= 2024", "price in (3, 9)", "not folder = mills and width exists"):
        found[where] = {
            hit["id"] for hit in one_object(ask("search", "x", "--where", where, "--store", store, "--json")[1])["hits"]
        }
    assert found["folder = mills"] == {"mills/one.webp", "mills/two.webp"}
    assert found["year >= 2024"] == {"manual"}
    assert found["price in (3, 9)"] == {"recipe", "manual"}
    # The copy of lunch.webp is part of its hit.
    assert len(found["not folder = mills and width exists"]) == len(PICTURES) - 2


def test_a_filter_that_cannot_be_read_is_shown_with_a_caret_under_the_trouble(ask, store):
    code, shown, said = ask("search", "x", "--where", "year >= and group = photo", "--store", store, "--json")
    assert (code, shown) == (2, "")
    *_, text, caret = said.splitlines()
    assert text.strip() == "year >= and group = photo"
    assert caret.strip() == "^"
    assert text[caret.index("^")] == "a"


def test_sort_orders_the_hits_by_metadata(ask, store):
    for sort, expected in (("price", ["recipe", "manual"]), ("-price", ["manual", "recipe"])):
        _, shown, _ = ask("search", "x", "--sort", sort, "--field", "text", "--store", store, "--json")
        assert [hit["id"] for hit in one_object(shown)["hits"]] == expected


def test_field_looks_in_texts_or_in_pictures_only(ask, store):
    _, texts, _ = ask("search", "bicycle", "--field", "text", "--store", store, "--json")
    _, pictures, _ = ask("search", "bicycle", "--field", "picture", "--store", store, "--json")
    assert [hit["id"] for hit in one_object(texts)["hits"]] == ["manual", "recipe"]
    assert {hit["path"] is None for hit in one_object(pictures)["hits"]} == {False}


@pytest.mark.parametrize("ending", ["png", "html"])
def test_a_sheet_is_written_beside_the_answer(ask, store, tmp_path, ending):
    sheet = tmp_path / "new folder" / f"found.{ending}"
    code, shown, _ = ask("search", "windmill", "--store", store, "--sheet", sheet, "--json")
    assert code == 0
    assert one_object(shown)["hits"]
    if ending == "png":
        with Image.open(sheet) as image:
            assert image.format == "PNG"
    else:
        assert sheet.read_text().startswith("<!doctype html>")


def test_people_see_rank_score_and_id(ask, store):
    code, shown, _ = ask("search", "windmill", "--store", store, "--field", "picture", "-k", "2")
    assert code == 0
    header, first, second = shown.splitlines()
    assert header.split() == ["rank", "score", "what"]
    assert first.split()[0] == "1"
    assert second.split()[0] == "2"
    assert {first.split()[2], second.split()[2]} == {"mills/one.webp", "mills/two.webp"}


# The other commands ---------------------------------------------------------------------------------------------


def test_info_prints_one_object(ask, store):
    code, shown, said = ask("info", "--store", store, "--json")
    facts = one_object(shown)
    assert (code, said) == (0, "")
    assert facts["items"] == len(PICTURES) + 1 + len(ROWS)
    assert facts["encoder"] == "mini"
    assert "non-commercial" in facts["licence"]
    assert facts["failures"] == 1
    assert facts["spaces"]["picture"]["recall"] == 1.0
    assert {root["kind"] for root in facts["roots"]} == {"folder", "dataset"}
    assert facts["stages"] == {"text": [], "picture": [], "picture for texts": ["regions"]}
    assert facts["bank"] == 0


def test_info_tells_people_the_terms_of_the_encoder(ask, store):
    code, shown, _ = ask("info", "--store", store)
    assert code == 0
    assert "mini" in shown
    assert "non-commercial" in shown
    assert str(store) in shown


def test_models_prints_one_object_with_each_model_and_its_terms(ask):
    code, shown, _ = ask("models", "--json")
    models = one_object(shown)["models"]
    assert code == 0
    assert {"mini", "ViT-B-16-SigLIP2/webli"} <= {card["name"] for card in models}
    assert all(card["licence"] and card["use"] for card in models)


def test_index_again_finds_everything_unchanged_and_says_the_broken_file_by_name(ask, own_store, home):
    code, shown, said = ask("index", home / "pictures", "--store", own_store)
    assert code == 0
    assert shown.startswith("0 added, 12 unchanged, 0 moved, 0 removed, 1 failed")
    assert "pictures/broken [1].jpg: " in said
    assert "non-commercial" in said


def test_sync_and_remove_print_one_object(ask, own_store):
    code, shown, said = ask("remove", "recipe", "bird.webp", "--store", own_store, "--json")
    assert (code, said) == (0, "")
    assert one_object(shown) == {"removed": 2, "items": 12}
    code, shown, said = ask("sync", "--store", own_store, "--json")
    assert (code, said) == (0, "")
    report = one_object(shown)
    assert report.keys() == REPORT_KEYS
    assert report["unchanged"] + report["added"] == 14
    assert len(report["failed"]) == 1


def test_removing_leaves_the_files(ask, own_store, home):
    assert ask("remove", "bird.webp", "--store", own_store)[1] == "1 removed, 13 left\n"
    assert (home / "pictures/bird.webp").is_file()
    assert ask("similar", "bird.webp", "--store", own_store)[0] == 2


def test_reindexing_to_the_embedded_model_keeps_every_id(ask, own_store):
    with Engine.open(own_store) as engine:
        before = [item.id for item in engine.items()]
    code, shown, _ = ask("reindex", "--encoder", "mini", "--store", own_store, "--json")
    report = one_object(shown)
    assert code == 0
    assert report.keys() == REPORT_KEYS
    assert report["items"] == len(before)
    with Engine.open(own_store) as engine:
        assert [item.id for item in engine.items()] == before


def test_doctor_is_content_with_a_healthy_store(ask, store):
    code, shown, said = ask("doctor", "--store", store, "--json")
    assert (code, said) == (0, "")
    findings = one_object(shown)["findings"]
    assert all(finding.keys() == {"level", "subject", "message", "advice"} for finding in findings)
    assert {finding["level"] for finding in findings} <= {"ok", "note"}
    assert ask("doctor", "--store", store)[0] == 0


def test_doctor_fails_on_a_damaged_store_and_says_what_to_do(ask, own_store):
    (vectors,) = [file for file in own_store.rglob("*") if "picture" in file.name and file.stat().st_size > 4096]
    data = bytearray(vectors.read_bytes())
    data[-700:] = bytes(700)
    vectors.write_bytes(data)
    code, shown, _ = ask("doctor", "--store", own_store)
    assert code == 1
    (bad,) = [line for line in shown.splitlines() if line.startswith("bad")]
    assert "vectors" in bad
    assert "-> " in shown
    code, shown, _ = ask("doctor", "--store", own_store, "--json")
    assert code == 1
    assert "bad" in {finding["level"] for finding in one_object(shown)["findings"]}


def test_export_writes_a_table_and_vectors(ask, store, tmp_path):
    code, shown, _ = ask("export", tmp_path / "out", "--store", store, "--json")
    assert code == 0
    assert one_object(shown) == {
        "folder": str(tmp_path / "out"),
        "rows": {"items.parquet": 14, "picture.npy": 12, "text.npy": 2},
    }
    assert np.load(tmp_path / "out/text.npy").shape[0] == 2
    assert ask("export", tmp_path / "out", "--store", store)[1].splitlines()[0].endswith("items.parquet: 14 rows")


# Where the store is ---------------------------------------------------------------------------------------------


def test_without_an_option_the_store_is_the_one_of_the_environment(ask, store, monkeypatch):
    monkeypatch.setenv("MMSEARCH_STORE", str(store))
    assert one_object(ask("info", "--json")[1])["path"] == str(store)


def test_without_any_choice_the_store_is_in_the_data_directory(home, tmp_path):
    places = {"XDG_DATA_HOME": str(tmp_path / "data"), "HOME": str(tmp_path / "home")}
    assert process("index", home / "notes", **places).returncode == 0
    assert (tmp_path / "data/mmsearch/default").is_dir()
    assert not (tmp_path / "home").exists()
    facts = one_object(process("info", "--json", **places).stdout.decode())
    assert facts["items"] == len(ROWS)
    assert facts["path"] == str(tmp_path / "data/mmsearch/default")


@pytest.mark.parametrize(
    "command",
    [["search", "x"], ["similar", "x"], ["info"], ["sync"], ["remove", "x"], ["export", "out"]],
    ids=lambda command: command[0],
)
def test_without_a_store_the_command_that_makes_one_is_named_and_none_is_made(ask, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    code, shown, said = ask(*command, "--store", tmp_path / "none")
    assert (code, shown) == (3, "")
    assert "mmsearch index" in said
    assert len(said.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_doctor_without_a_store_looks_at_the_installation(ask, tmp_path):
    code, shown, _ = ask("doctor", "--store", tmp_path / "none")
    assert code == 0
    assert "mmsearch index" in shown
    assert not (tmp_path / "none").exists()


# Refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["search"], 2, "expected words or --image"),
        (["search", ""], 2, "expected words or --image"),
        (["search", "x", "-k", "0"], 2, "-k"),
        (["search", "x", "-k", "many"], 2, "-k"),
        (["search", "x", "--field", "smell"], 2, "smell"),
        (["search", "x", "--sheet", "sheet.txt"], 2, "sheet.txt"),
        (["search", "x", "--sheet", "a folder.png"], 2, "a folder.png"),
        (["search", "x", "--sheet", "a file/sheet.png"], 2, "a file"),
        (["search", "--image", "absent.jpg"], 2, "absent.jpg"),
        (["search", "--image", "broken.jpg"], 2, "broken.jpg"),
        (["search", "--image", "a file"], 2, "a file"),
        (["search", "x", "--unknown"], 2, "--unknown"),
        (["similar", "absent"], 2, "no item 'absent'"),
        (["remove", "bird.webp", "absent"], 2, "no item 'absent'"),
        (["reindex"], 2, "--encoder"),
        (["reindex", "--encoder", "nonsense"], 2, "nonsense"),
        (["index", "absent folder"], 2, "absent folder"),
        (["index", "a file"], 2, "a file"),
        (["export", "a file"], 2, "a file"),
        (["nonsense"], 2, "nonsense"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_wrong_input_is_one_message_and_an_exit_code(ask, store, tmp_path, monkeypatch, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MMSEARCH_STORE", str(store))
    (tmp_path / "a folder.png").mkdir()
    (tmp_path / "a file").write_text("text")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a picture")
    got, shown, said = ask(*arguments)
    assert (got, shown) == (code, "")
    assert message in said
    if said.startswith("mmsearch: "):
        assert len(said.splitlines()) == 1
    else:
        assert "Usage:" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a file", "a folder.png", "broken.jpg"]


def test_removing_an_unknown_item_removes_none(store):
    with Engine.open(store) as engine:
        assert engine.get("bird.webp").id == "bird.webp"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["absent folder"], 2, "absent folder"),
        (["PICTURES", "absent folder"], 2, "absent folder"),
        (["PICTURES", "--encoder", "nonsense"], 2, "mmsearch models"),
        (["PICTURES", "--encoder", "MobileCLIP2-S0/dfndr2b"], 4, "MMSEARCH_ACCEPT_RESEARCH"),
        (["PICTURES", "--encoder", "no-such-architecture/no-such-tag"], 2, "no-such-architecture"),
        (["PICTURES", "--encoder", "local-dir:/no/such/folder"], 4, "/no/such/folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_indexing_what_cannot_be_indexed_makes_no_store(home, tmp_path, monkeypatch, ask, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MMSEARCH_ACCEPT_RESEARCH", raising=False)
    paths = [home / "pictures" if argument == "PICTURES" else argument for argument in arguments]
    got, shown, said = ask("index", *paths, "--store", "new")
    assert (got, shown) == (code, "")
    assert message in said
    assert len(said.splitlines()) <= 3
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_place_of_the_store_is_a_trouble_of_the_store(ask, tmp_path):
    (tmp_path / "file").write_text("text")
    code, _, said = ask("search", "x", "--store", tmp_path / "file")
    assert code == 3
    assert str(tmp_path / "file") in said


def test_nothing_found_is_exit_code_1_and_still_one_object(ask, store):
    code, shown, said = ask("search", "x", "--where", "folder = nowhere", "--store", store)
    assert (code, shown) == (1, "")
    assert "nothing found" in said
    code, shown, _ = ask("search", "x", "--where", "folder = nowhere", "--store", store, "--json")
    assert code == 1
    assert one_object(shown) == {"query": "x", "hits": []}


def test_a_second_writer_is_told_who_is_writing_and_readers_go_on(ask, own_store, home):
    answers = []

    def meanwhile(_progress):
        if not answers:
            answers.append(ask("sync", "--store", own_store))
            answers.append(ask("search", "windmill", "--store", own_store, "--json", "-k", "1"))

    with Engine.open(own_store) as engine:
        engine.add_folder(home / "pictures", progress=meanwhile)
    (code, shown, said), (reading, found, _) = answers
    assert (code, shown) == (3, "")
    assert str(os.getpid()) in said
    assert "wait for it" in said
    assert reading == 0
    assert one_object(found)["hits"]


# Help and entry points ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_and_each_of_its_options(ask, command):
    code, shown, _ = ask(command, "--help")
    assert code == 0
    its = typer.main.get_command(app).commands[command]
    assert its.help
    assert its.help.split()[0] in shown
    for parameter in its.params:
        assert parameter.help, parameter.name
        for flag in parameter.opts if parameter.param_type_name == "option" else ():
            assert flag in shown


def test_help_teaches_the_first_steps_and_the_exit_codes(ask):
    code, shown, _ = ask("--help")
    assert code == 0
    assert "mmsearch index" in shown
    assert "mmsearch search" in shown
    assert "Exit codes" in shown
    assert all(command in shown for command in COMMANDS)


def test_the_script_and_the_module_are_the_same_program(store):
    script = shutil.which("mmsearch", path=str(Path(sys.executable).parent))
    assert script is not None
    arguments = ("search", "a panda", "--store", store, "--json")
    assert process(*arguments).stdout == process(*arguments, program=(script,)).stdout


# Rough weather --------------------------------------------------------------------------------------------------


def test_a_reader_that_stops_reading_is_no_error(store):
    with subprocess.Popen(
        [sys.executable, "-m", "mmsearch", "search", "x", "-k", "100", "--store", store, "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    ) as child:
        child.stdout.close()  # before anything is written
        said = child.stderr.read()
    assert said == b""


def test_an_interrupted_indexing_says_so_keeps_what_it_stored_and_goes_on(ask, tmp_path):
    folder, store = tmp_path / "many", tmp_path / "store"
    folder.mkdir()
    pixels = np.random.default_rng(7).integers(0, 255, (3000, 4, 4, 3), dtype=np.uint8)
    for number, picture in enumerate(pixels):
        Image.fromarray(picture).save(folder / f"{number:04}.png")
    with subprocess.Popen(
        [sys.executable, "-m", "mmsearch", "index", folder, "--store", store],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    ) as child:
        while child.poll() is None and not _stored(store):
            time.sleep(0.05)
        child.send_signal(signal.SIGINT)
        shown, said = child.communicate()
    assert child.returncode == 130, said.decode()
    assert shown == b""
    assert said.decode().splitlines() == [
        "mmsearch: interrupted; what was stored stays, and the same command goes on from there"
    ]
    stored = _stored(store)
    assert 0 < stored < len(pixels)
    for number in range(stored + 5, len(pixels)):
        (folder / f"{number:04}.png").unlink()
    code, out, _ = ask("index", folder, "--store", store, "--json")
    report = one_object(out)
    assert code == 0
    assert (report["unchanged"], report["added"], report["items"]) == (stored, 5, stored + 5)


def _stored(store):
    """How many items a store has that another process may be making at this moment."""
    try:
        with Engine.open(store, create=False) as engine:
            return len(engine)
    except (OSError, InvalidInput):
        return 0


def test_file_names_of_any_bytes_are_shown_on_one_line_and_fit_into_json(tmp_path):
    folder, store = tmp_path / "odd", tmp_path / "store [/x]"
    folder.mkdir()
    colours = {b"caf\xe9.png": "red", b"two\nlines.png": "green", b"[red]paint[bold].png": "blue", b"fine.png": "gray"}
    for name, colour in colours.items():
        with open(os.fsencode(folder) + b"/" + name, "wb") as file:
            Image.new("RGB", (40, 40), colour).save(file, "PNG")
    with open(os.fsencode(folder) + b"/bro\xffken\n.png", "wb") as file:
        file.write(b"nothing")
    ids = {"caf\\xe9.png", "two\\nlines.png", "[red]paint[bold].png", "fine.png"}
    done = process("index", folder, "--store", store)
    assert done.returncode == 0
    assert done.stderr.count(b"failed ") == 1
    assert rb"bro\xffken\n.png: " in done.stderr
    done = process("search", "a wall", "--store", store, PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    _header, *rows = done.stdout.decode("ascii").splitlines()
    assert {row.split()[2] for row in rows} == ids
    done = process("search", b"caf\xe9", "--store", store, "--json")
    answer = one_object(done.stdout.decode("ascii"))
    assert {hit["id"] for hit in answer["hits"]} == ids
    for command in ("info", "doctor"):
        assert process(command, "--store", store).returncode == 0
