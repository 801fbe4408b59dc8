"""Default places: what the environment chooses, else where each system keeps such things."""

from pathlib import Path

import pytest

from mmsearch.places import default_cache, default_store


@pytest.fixture(autouse=True)
def _nothing_chosen(monkeypatch, tmp_path):
    for name in ("MMSEARCH_STORE", "MMSEARCH_CACHE", "XDG_DATA_HOME", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))


@pytest.mark.parametrize(
    ("system", "store", "cache"),
    [
        ("linux", ".local/share/mmsearch/default", ".cache/mmsearch"),
        ("darwin", "Library/Application Support/mmsearch/default", "Library/Caches/mmsearch"),
        ("win32", "AppData/Local/mmsearch/default", "AppData/Local/mmsearch"),
    ],
)
def test_each_system_has_its_places_below_the_home_folder(monkeypatch, tmp_path, system, store, cache):
    monkeypatch.setattr("sys.platform", system)
    assert (default_store(), default_cache()) == (tmp_path / store, tmp_path / cache)


def test_the_xdg_folders_count(monkeypatch):
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert (default_store(), default_cache()) == (Path("/data/mmsearch/default"), Path("/cache/mmsearch"))


def test_what_the_user_chooses_wins(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    monkeypatch.setenv("MMSEARCH_STORE", "~/mine")
    monkeypatch.setenv("MMSEARCH_CACHE", "/elsewhere")
    assert (default_store(), default_cache()) == (tmp_path / "mine", Path("/elsewhere"))


def test_an_empty_choice_is_none(monkeypatch, tmp_path):
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("MMSEARCH_STORE", "")
    monkeypatch.setenv("XDG_DATA_HOME", "")
    assert default_store() == tmp_path / ".local/share/mmsearch/default"


def test_asking_for_a_place_makes_nothing(tmp_path):
    default_store()
    default_cache()
    assert list(tmp_path.iterdir()) == []
