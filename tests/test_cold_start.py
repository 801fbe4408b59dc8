"""Starting costs little: what is not needed is not imported. Each test looks at a process of its own."""

import json
import os
import re
import subprocess
import sys

import pytest
from PIL import Image

from mmsearch import Engine, load_encoder
from mmsearch.types import Item

HEAVY = {"numpy", "torch", "usearch", "PIL", "open_clip", "onnxruntime", "sklearn", "timm", "tokenizers", "ftfy"}
SLOW = {"torch", "torchvision", "open_clip", "timm", "transformers", "sklearn", "scipy", "pyarrow", "pandas"}


def run(*arguments, **environment):
    """Run Python and say what came out and which top-level packages were imported."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "COLUMNS": "120"} | environment,
    )
    timing = re.compile(r"^import time:\s+\d+ \|\s+\d+ \|\s*(\S+)$")
    lines = done.stderr.splitlines()
    imported = {match[1].partition(".")[0] for line in lines if (match := timing.match(line))}
    messages = [line for line in lines if not line.startswith("import time:")]
    assert done.returncode == 0, "\n".join(messages)
    assert "mmsearch" in imported
    return done.stdout, imported


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A small store made with the embedded model, whose export is cached now."""
    place = tmp_path_factory.mktemp("cold") / "store"
    colours = ("red", "green", "blue", "white", "black")
    with Engine.open(place, load_encoder("mini")) as engine:
        report = engine.add(
            [Item(id=name, text=f"a {name} wall", image=Image.new("RGB", (60, 40), name)) for name in colours]
        )
        assert report.added == len(colours)
    return place


def test_importing_mmsearch_loads_nothing_heavy():
    _, imported = run("-c", "import mmsearch; mmsearch.__version__; dir(mmsearch)")
    assert imported & HEAVY == set()


def test_the_errors_and_the_names_of_encoders_load_nothing_slow():
    _, imported = run("-c", "from mmsearch import InvalidInput, load_encoder; from mmsearch.encoders import MODELS")
    assert imported & (SLOW | {"usearch", "onnxruntime", "PIL"}) == set()


@pytest.mark.parametrize("arguments", [["--help"], ["search", "--help"], ["index", "--help"], ["--version"]])
def test_help_loads_nothing_heavy(arguments):
    shown, imported = run("-m", "mmsearch", *arguments)
    assert shown.strip()
    assert imported & HEAVY == set()


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_listing_the_models_loads_nothing_slow(arguments):
    shown, imported = run("-m", "mmsearch", "models", *arguments)
    assert "mini" in shown
    assert "non-commercial" in shown
    assert "ViT-B-16-SigLIP2/webli" in shown
    assert imported & SLOW == set()


def test_searching_by_words_imports_neither_torch_nor_open_clip(store):
    shown, imported = run("-m", "mmsearch", "search", "a red wall", "--store", store, "--json")
    assert {hit["id"] for hit in json.loads(shown)["hits"]} == {"red", "green", "blue", "white", "black"}
    assert imported & SLOW == set()
    assert "onnxruntime" in imported


def test_searching_by_a_picture_imports_neither_torch_nor_open_clip(store, tmp_path):
    picture = tmp_path / "query.png"
    Image.new("RGB", (50, 50), "blue").save(picture)
    shown, imported = run("-m", "mmsearch", "search", "--image", picture, "--store", store, "--json", "-k", "1")
    assert [hit["id"] for hit in json.loads(shown)["hits"]] == ["blue"]
    assert imported & SLOW == set()


def test_similar_items_need_no_model_at_all(store):
    shown, imported = run("-m", "mmsearch", "similar", "red", "--store", store, "--json")
    assert json.loads(shown)["hits"]
    assert imported & (SLOW | {"onnxruntime", "tokenizers"}) == set()


def test_a_search_in_python_imports_neither_torch_nor_open_clip(store):
    script = (
        "import sys; from mmsearch import Engine\n"
        "with Engine.open(sys.argv[1]) as engine: print([hit.item.id for hit in engine.search('a red wall', k=3)])"
    )
    shown, imported = run("-c", script, store)
    assert shown.count("'") == 6
    assert imported & SLOW == set()
