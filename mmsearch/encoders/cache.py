"""Where exported encoders are kept, so that the next start needs no torch."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

from mmsearch.encoders.spec import digest

LAYOUT = 2
"""Raised when the export's files change meaning, so that an older export is made again."""


def export_folder(cache: Path, fingerprint: str) -> Path:
    """Where the export of an encoder lies; another ONNX Runtime gets an export of its own."""
    return cache / "encoders" / digest(f"{fingerprint} onnxruntime {version('onnxruntime')} layout {LAYOUT}")


def remember_choice(cache: Path, name: str, folder: Path | None) -> None:
    """Note that the encoder of this name runs from this export, or (None) that torch is the quicker."""
    file = _choice_file(cache, name)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"name": name, "export": folder.name if folder else None}), "utf-8")


def choice(cache: Path, name: str) -> Path | bool | None:
    """The export that was the quickest, None if torch was, False if that was never measured."""
    try:
        export = json.loads(_choice_file(cache, name).read_text("utf-8"))["export"]
    except (OSError, ValueError, KeyError):
        return False
    return cache / "encoders" / str(export) if export else None


def _choice_file(cache: Path, name: str) -> Path:
    """One file a name; for a local folder its files' sizes and times count too, since they can change."""
    key = f"{name} onnxruntime {version('onnxruntime')} layout {LAYOUT}"
    if name.startswith("local-dir:"):
        stats = [
            (path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(Path(name[10:]).iterdir())
        ]
        key += repr(stats)
    return cache / "choices" / f"{digest(key)}.json"
