"""The public face: names, signatures, errors, and what the package ships. Others build on these."""

import dataclasses
import importlib.metadata
import inspect
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import mmsearch
from mmsearch import (
    AddReport,
    Cluster,
    Clustering,
    DuplicateGroup,
    Engine,
    Flaw,
    Hit,
    Interaction,
    Item,
    Leak,
    Outlier,
    Query,
    Reason,
    Suspect,
    errors,
)
from mmsearch.clusters import Exemplars, Quality
from mmsearch.ranking import SearchOptions

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
ERRORS = {name: kind for name, kind in vars(errors).items() if inspect.isclass(kind)}


def test_all_is_sorted_and_is_what_dir_offers():
    assert mmsearch.__all__ == sorted(set(mmsearch.__all__))
    assert dir(mmsearch) == sorted([*mmsearch.__all__, "__version__"])


@pytest.mark.parametrize("name", mmsearch.__all__)
def test_every_public_name_can_be_imported_and_says_what_it_is(name):
    thing = getattr(mmsearch, name)
    assert thing.__name__ == name
    assert inspect.getdoc(thing)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'mmsearch' has no attribute 'nonsense'"):
        _ = mmsearch.nonsense


def test_the_version_is_that_of_the_project():
    assert mmsearch.__version__ == PROJECT["project"]["version"]
    assert importlib.metadata.version("mmsearch") == mmsearch.__version__


@pytest.mark.parametrize("name", sorted(ERRORS))
def test_each_error_is_the_builtin_one_that_the_tree_shows(name):
    kind = ERRORS[name]
    assert issubclass(kind, mmsearch.MMSearchError)
    assert kind.__doc__
    shown = re.search(rf"\b{name}\b(?: \((\w+)\))?", errors.__doc__)
    assert shown is not None
    if shown[1]:
        assert issubclass(kind, getattr(__builtins__, shown[1], None) or __builtins__[shown[1]])
    assert str(kind("what was expected, and what came")) == "what was expected, and what came"


def test_troubles_of_the_store_are_one_family():
    assert issubclass(errors.StoreBusy, errors.StoreError)
    assert issubclass(errors.StoreDamaged, errors.StoreError)
    assert issubclass(errors.StoreError, OSError)


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("open", ["path", "encoder", "*spaces", "*create"]),
        ("add_folder", ["folder", "*progress"]),
        ("add", ["items", "*progress"]),
        ("remove", ["ids"]),
        ("sync", ["*progress"]),
        (
            "search",
            [
                *("query", "k", "*where", "*field", "*sort", "*exact", "*rerank", "*budget_ms"),
                *("*n_candidates", "*diversity", "*collapse"),
            ],
        ),
        ("search_many", ["queries", "k", "options"]),
        (
            "similar",
            ["id", "k", "*where", "*field", "*fields", "*diversity", "*exact", "*rerank", "*complementary"],
        ),
        ("similar_many", ["ids", "k", "options"]),
        (
            "recommend",
            [
                *("*liked", "*disliked", "*user", "*k", "*where", "*exclude_seen", "*diversity", "*method"),
                *("*popularity", "*novelty", "*most_per", "*fields", "*profile", "*half_life"),
            ],
        ),
        ("next", ["session", "k", "*user", "*where", "*exclude_seen", "*diversity"]),
        ("fit_recommender", ["*fresh", "*progress"]),
        (
            "add_interactions",
            ["table", "*user", "*item", "*item_field", "*weight", "*time", "*kind", "*progress"],
        ),
        ("clusters", ["n", "*method", "*where", "*vocabulary", "*seed", "*progress"]),
        ("cluster_agreement", ["clusters", "field"]),
        ("map", ["*method", "*where", "*clusters", "*refit", "*seed", "*progress"]),
        ("duplicates", ["*where", "*mirrored", "*progress"]),
        ("leaks", ["field", "*where", "*progress"]),
        ("outliers", ["k", "*where", "*methods", "*seed", "*progress"]),
        ("flaws", ["*where", "*method", "*progress"]),
        ("suspects", ["field", "k", "*where", "*progress"]),
        ("sample", ["n", "*method", "*where", "*chosen", "*seed"]),
        ("report", ["file", "*n", "*labels", "*where", "*vocabulary", "*seed", "*progress"]),
        ("get", ["id"]),
        ("vectors", ["ids", "*field"]),
        ("info", []),
        ("rebuild", ["*progress"]),
        ("reindex", ["encoder", "*progress"]),
        ("close", []),
    ],
)
def test_the_engine_has_the_methods_that_others_build_on(method, parameters):
    signature = inspect.signature(getattr(Engine, method))
    given = [
        ("*" if parameter.kind is parameter.KEYWORD_ONLY else "") + parameter.name
        for parameter in signature.parameters.values()
        if parameter.name != "self"
    ]
    assert given == parameters
    assert signature.return_annotation is not signature.empty
    assert all(
        parameter.default is not parameter.empty
        for parameter in signature.parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY
    )


def test_searching_for_many_takes_the_options_of_searching_for_one():
    options = inspect.signature(Engine.search).parameters.values()
    assert {one.name for one in options if one.kind is one.KEYWORD_ONLY} == set(SearchOptions.__annotations__)


def test_search_gives_ten_by_default_and_a_new_store_gets_the_embedded_model_by_default():
    for method in (Engine.search, Engine.search_many, Engine.similar):
        assert inspect.signature(method).parameters["k"].default == 10
    assert inspect.signature(Engine.open).parameters["encoder"].default is None


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (Item, ["id", "path", "text", "metadata", "image"]),
        (Hit, ["item", "score", "rank", "copies", "field", "scores", "ranks", "region", "words", "notes", "reasons"]),
        (Reason, ["kind", "share", "because"]),
        (Interaction, ["user", "item", "kind", "weight", "time"]),
        (AddReport, ["added", "unchanged", "moved", "removed", "failed", "changed"]),
        (Query, ["text", "image", "id", "vector", "weight", "others"]),
        (Cluster, ["id", "name", "keywords", "confidence", "items", "exemplars", "quality", "title"]),
        (Clustering, ["clusters", "labels", "method", "quality", "hierarchy", "changes", "tried", "notes"]),
        (DuplicateGroup, ["items", "kind", "scores"]),
        (Leak, ["items", "splits", "score"]),
        (Outlier, ["item", "score", "scores"]),
        (Flaw, ["item", "kind", "value", "limit"]),
        (Suspect, ["item", "label", "suggested", "score", "agreement"]),
    ],
)
def test_the_nouns_are_frozen_values_with_these_fields(kind, fields):
    assert [field.name for field in dataclasses.fields(kind)] == fields
    needed = {
        Hit: (Item(), 0.5, 1),
        Reason: ("looks", 0.7),
        Interaction: ("ann", "b1"),
        Cluster: (0, "beach", ("beach",), 0.9, (Item(),), Exemplars((Item(),)), Quality()),
        Clustering: ((), {}, "kmeans", Quality()),
        DuplicateGroup: ((Item(), Item()), "exact", (1.0, 1.0)),
        Leak: ((Item(), Item()), ("train", "test"), 0.9),
        Outlier: (Item(), 0.9),
        Flaw: (Item(), "dark", 0.1, 0.2),
        Suspect: (Item(), "cat", "dog", 0.9, 0.8),
    }
    value = kind(*needed.get(kind, ()))
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, fields[0], None)


def test_reports_add_up():
    total = AddReport(1, 2, 3, 4, (("a", "why"),), 1) + AddReport(10, 20, 30, 40, (("b", "why"),), 5)
    assert total == AddReport(11, 22, 33, 44, (("a", "why"), ("b", "why")), 6)


# What is shipped ------------------------------------------------------------------------------------------------


def test_the_wheel_has_the_package_the_weights_the_gallery_and_the_mark_of_types():
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["packages"] == ["mmsearch"]
    gallery = wheel["force-include"]["assets/gallery"]
    # The folder where the program looks for it, which must not be the name of a module.
    assert f'package / "{gallery.removeprefix("mmsearch/")}"' in (ROOT / "mmsearch/gallery.py").read_text("utf-8")
    assert not (ROOT / f"{gallery}.py").exists()
    assert not {"exclude", "only-include", "include"} & wheel.keys()
    shipped = {f"mmsearch/{file.relative_to(ROOT / 'mmsearch').as_posix()}" for file in _files(ROOT / "mmsearch")}
    for source, target in wheel["force-include"].items():
        shipped |= {f"{target}/{file.relative_to(ROOT / source).as_posix()}" for file in _files(ROOT / source)}
    assert {
        "mmsearch/py.typed",
        "mmsearch/encoders/weights/mini/open_clip_model.safetensors",
        "mmsearch/encoders/weights/mini/open_clip_config.json",
        "mmsearch/encoders/weights/mini/README.md",
        f"{gallery}/items.jsonl",
        f"{gallery}/images.zip",
        f"{gallery}/ATTRIBUTION.md",
    } <= shipped


def test_nothing_that_is_shipped_is_ignored_by_git():
    ignore = ROOT / ".gitignore"  # hatchling leaves out what git ignores
    patterns = [line.strip() for line in ignore.read_text("utf-8").splitlines() if line.strip()]
    for pattern in patterns:
        assert not re.search(r"weights|gallery|safetensors|\.zip|\.json|^\*$|assets", pattern), pattern


def _files(folder):
    return [file for file in folder.rglob("*") if file.is_file()]


def test_the_licence_is_apache_and_the_weights_carry_their_own_terms():
    licence = (ROOT / "LICENSE").read_text("utf-8")
    assert "Apache License" in licence
    assert "Version 2.0, January 2004" in licence
    assert "END OF TERMS AND CONDITIONS" in licence
    assert PROJECT["project"]["license"] == "Apache-2.0"
    assert all((ROOT / file).is_file() for file in PROJECT["project"]["license-files"])
    assert "non-commercial" in (ROOT / "mmsearch/encoders/weights/mini/README.md").read_text("utf-8")


def test_the_script_calls_what_the_module_calls():
    assert PROJECT["project"]["scripts"] == {"mmsearch": "mmsearch.__main__:main"}
    from mmsearch.__main__ import main

    assert callable(main)


def test_a_search_leaves_nothing_in_the_home_folder(tmp_path):
    script = (
        "import sys; from mmsearch import Engine\n"
        "with Engine.open(sys.argv[1]) as engine: engine.add(['a red wall']); print(len(engine.search('red')))"
    )
    places = {"HOME": str(tmp_path / "home")} | {f"XDG_{kind}_HOME": "" for kind in ("DATA", "CACHE", "CONFIG")}
    environment = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"} | places
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "store"], capture_output=True, text=True, env=environment
    )
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
    assert not (tmp_path / "home").exists(), list((tmp_path / "home").rglob("*"))
