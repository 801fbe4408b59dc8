"""What every test shares: a cache and a default store of its own, and the toy world."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest

from mmsearch import Engine
from mmsearch.cli import run as run_cli


@pytest.fixture(scope="session", autouse=True)
def _own_places(tmp_path_factory):
    """No test reads or writes the user's cache or store; ``MMSEARCH_TEST_CACHE`` names a cache to use again."""
    with pytest.MonkeyPatch.context() as patch:
        cache = os.environ.get("MMSEARCH_TEST_CACHE") or str(tmp_path_factory.mktemp("cache"))
        patch.setenv("MMSEARCH_CACHE", cache)
        patch.delenv("MMSEARCH_STORE", raising=False)
        yield


@pytest.fixture(scope="session")
def toy():
    """The module ``tests/toy.py``."""
    return _module("toy")


@pytest.fixture(scope="session")
def quadrants():
    """The module ``tests/quadrants.py``."""
    return _module("quadrants")


def _module(name):
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


@pytest.fixture
def encoder(toy):
    return toy.ToyEncoder()


@pytest.fixture
def open_engine(tmp_path, encoder):
    """Opens stores below ``tmp_path``, with the toy encoder unless told otherwise, and closes them at the end."""
    opened = []

    def open_one(name="store", its_encoder=encoder, **options):
        opened.append(Engine.open(tmp_path / name, its_encoder, **options))
        return opened[-1]

    yield open_one
    for engine in opened:
        engine.close()


@pytest.fixture
def engine(open_engine):
    """An engine over a new, empty store."""
    return open_engine()


@pytest.fixture
def folder(tmp_path):
    """An empty folder."""
    made = tmp_path / "photos"
    made.mkdir()
    return made


@pytest.fixture
def toy_folder(toy, folder):
    """Sixty picture files: five of each kind, named for what they show (``red disc 0.png``)."""
    return toy.draw_all(folder)


@pytest.fixture
def ask(capsys, monkeypatch):
    """Run the same entry point in this process, which is quicker: (exit code, stdout, stderr)."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["mmsearch", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "200")
        capsys.readouterr()
        try:
            run_cli()
        except SystemExit as end:
            code = end.code or 0
        else:
            code = 0
        shown = capsys.readouterr()
        assert "Traceback" not in shown.err
        return code, shown.out, shown.err

    return run
