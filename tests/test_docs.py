"""What the documents say is there, and what is there is in the documents."""

import ast
import re
import tomllib
from pathlib import Path

import pytest
import typer

import mmsearch
from mmsearch import Engine, Hit, Item, Query
from mmsearch.cli.app import app
from mmsearch.encoders.registry import MODELS
from mmsearch.profile import STAGES

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "mmsearch"
README = (ROOT / "README.md").read_text("utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
TOP = typer.main.get_command(app).commands
COMMANDS = TOP | {
    f"{group} {name}": command for group, its in TOP.items() for name, command in getattr(its, "commands", {}).items()
}
MODULES = sorted(PACKAGE.rglob("*.py"))
TOP_LEVEL = sorted(
    {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in MODULES} - {"__init__", "__pycache__"}
)


def command_lines():
    """Each ``mmsearch …`` of the README, in fences and between backticks, as (command, flags)."""
    found = []
    for line in re.findall(r"(?:^|`)mmsearch ([a-z][^`\n#]*)", README, re.MULTILINE):
        bare = re.sub(r"\"[^\"]*\"", "", line)
        for part in re.split(r"&&", bare):
            words = part.split()
            nested = " ".join(words[:2])
            found.append(
                (nested if nested in COMMANDS else words[0], re.findall(r"(?<![\w-])--?[a-z]+(?:-[a-z]+)*", part))
            )
    return found


def test_every_command_and_flag_of_the_readme_exists():
    lines = command_lines()
    assert len(lines) > len(COMMANDS)
    for command, flags in lines:
        assert command in COMMANDS, command
        known = {flag for one in COMMANDS[command].params for flag in (*one.opts, *one.secondary_opts)}
        # After --sort a field may be written with a minus.
        assert set(flags) - {"-taken"} <= known | {"--help"}, (command, flags)


def test_every_command_is_in_the_readme():
    table = set(re.findall(r"^\| `mmsearch ([a-z-]+)", README, re.MULTILINE))
    assert table == set(TOP)


def test_every_exit_code_of_the_readme_is_the_programs():
    from mmsearch import cli

    assert "1 nothing found" in README
    for number, words in ((cli.FOUND_NOTHING, "nothing found"), (cli.WRONG_INPUT, "wrong input")):
        assert f"{number} {words}" in README
    for number, word in ((cli.STORE_FAILED, "store"), (cli.MISSING, "model"), (cli.INTERRUPTED, "interrupted")):
        assert re.search(rf"{number} (the |a )?{word}", README)


def test_every_stage_is_in_the_readme():
    assert re.findall(r"^\| `([a-z]+)` \|[^|]*\|[^|]*\|$", README, re.MULTILINE)[: len(STAGES)] == list(STAGES)


def test_every_encoder_that_the_readme_recommends_is_in_the_registry_with_those_terms():
    rows = re.findall(r"^\| `([^`]+)`([^|]*)\|([^|]*)\|([^|]*)\|$", README, re.MULTILINE)
    encoders = {name: terms for name, _, _, terms in rows if not name.startswith("mmsearch") and name not in STAGES}
    assert len(encoders) >= 3
    assert set(encoders) <= set(MODELS)
    for name, terms in encoders.items():
        assert any(word in terms for word in re.findall(r"Apache|MIT|non-commercial", MODELS[name].licence)), name


def test_the_python_of_the_readme_uses_only_what_exists():
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert blocks
    kinds = {"engine": Engine, "hit": Hit, "Engine": Engine}
    for block in blocks:
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module == "mmsearch":
                assert {alias.name for alias in node.names} <= set(mmsearch.__all__)
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in kinds:
                assert hasattr(kinds[node.value.id], node.attr), node.attr
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("Query", "Item"):
                kind = {"Query": Query, "Item": Item}[node.func.id]
                assert {keyword.arg for keyword in node.keywords} <= set(kind.__dataclass_fields__)


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_every_file_that_a_document_links_to_is_there(name):
    for target in re.findall(r"\]\(([^)#\s]+)", (ROOT / name).read_text("utf-8")):
        assert target.startswith("https://") or (ROOT / target).exists(), target


def test_every_make_target_that_a_document_names_exists():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    for text in (README, CONTRIBUTING):
        assert set(re.findall(r"(?:`|^)make ([a-z]+)", text, re.MULTILINE)) <= targets


def test_the_changelog_has_a_place_for_what_comes():
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert re.search(r"^## \[Unreleased\]$", changelog, re.MULTILINE)


def test_the_map_of_layers_and_the_checked_layers_hold_the_same_modules():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    (layers,) = [rule["layers"] for rule in project["tool"]["importlinter"]["contracts"] if rule["type"] == "layers"]
    checked = [name.strip() for layer in layers for name in layer.split("|")]
    rows = re.findall(r"^\|[^|]*\| (`[^|]*) \|[^|]*\|$", CONTRIBUTING, re.MULTILINE)
    mapped = [name.rstrip("/") for row in rows for name in re.findall(r"`([^`]+)`", row)]
    assert sorted(checked) == TOP_LEVEL
    assert sorted(mapped) == TOP_LEVEL


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_everything_public_has_a_docstring(path):
    tree = ast.parse(path.read_text("utf-8"))
    assert ast.get_docstring(tree), "the module"
    for owner in (tree, *(node for node in tree.body if isinstance(node, ast.ClassDef))):
        if getattr(owner, "name", "").startswith("_"):
            continue
        for node in owner.body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{node.name} at line {node.lineno}"
