"""Where things are kept when nobody says: the default store and the cache."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def default_store() -> Path:
    """``MMSEARCH_STORE``, else ``mmsearch/default`` in the user's data directory."""
    return _place("MMSEARCH_STORE", "XDG_DATA_HOME", "~/.local/share", "~/Library/Application Support", "default")


def default_cache() -> Path:
    """``MMSEARCH_CACHE``, else ``mmsearch`` in the user's cache directory."""
    return _place("MMSEARCH_CACHE", "XDG_CACHE_HOME", "~/.cache", "~/Library/Caches", "")


def _place(own: str, xdg: str, linux: str, mac: str, name: str) -> Path:
    chosen = os.environ.get(own)
    if chosen:
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        base = mac
    else:
        base = os.environ.get(xdg) or linux
    return Path(base).expanduser() / "mmsearch" / name
