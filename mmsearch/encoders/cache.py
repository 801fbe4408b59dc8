"""Where exported encoders are kept, so that the next start needs no torch."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from mmsearch.encoders.spec import digest

LAYOUT = 4
"""Raised when the export's files change meaning, so that an older export is made again."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What is known here of an encoder: where its export lies, if there is one, and whether that beats torch."""

    export: Path | None = None
    quicker: bool | None = None
    """None if it was never measured."""


def export_folder(cache: Path, fingerprint: str, label: str = "") -> Path:
    """Where the export of an encoder lies; another ONNX Runtime gets an export of its own.

    Parameters
    ----------
    label
        What an export states beside its fingerprint, so that encoders of equal weights and other names or terms
        have exports of their own. The embedded model's is empty.
    """
    return cache / "encoders" / digest(f"{fingerprint} onnxruntime {version('onnxruntime')} layout {LAYOUT}{label}")


def remember_choice(cache: Path, name: str, found: Choice) -> None:
    """Note what was found, for the next start; a cache that cannot be written only makes that slower."""
    with suppress(OSError):
        file = _choice_file(cache, name)
        file.parent.mkdir(parents=True, exist_ok=True)
        export = found.export.name if found.export else None
        file.write_text(json.dumps({"name": name, "export": export, "quicker": found.quicker}), "utf-8")


def choice(cache: Path, name: str) -> Choice:
    """What was remembered; nothing is known where that is missing or cannot be read."""
    try:
        found = json.loads(_choice_file(cache, name).read_text("utf-8"))
        export, quicker = found["export"], found["quicker"]
    except (OSError, ValueError, KeyError, TypeError):
        return Choice()
    folder = cache / "encoders" / export if isinstance(export, str) else None
    return Choice(folder, quicker if isinstance(quicker, bool) else None)


def _choice_file(cache: Path, name: str) -> Path:
    """One file a name; for a local folder its files' sizes and times count too, since they can change."""
    key = f"{name} onnxruntime {version('onnxruntime')} layout {LAYOUT}"
    if name.startswith("local-dir:"):
        stats = [
            (path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(Path(name[10:]).iterdir())
        ]
        key += repr(stats)
    return cache / "choices" / f"{digest(key)}.json"
