"""A cold ``mmsearch search``, start to answer, against ``python -c "import open_clip"``, in turn, as whole processes.

::

    python benchmarks/cold_start.py [--runs 7]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

from mmsearch.gallery import gallery_folder

QUERY = "a dog"


def main() -> None:
    """Index the gallery, run both commands in turn, print medians, ratio and memory."""
    parser = argparse.ArgumentParser(description="cold start against import open_clip")
    parser.add_argument("--runs", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as store:
        # In a process of its own: a child's peak memory counts that of the process it was forked from.
        index = [sys.executable, "-m", "mmsearch", "index", str(gallery_folder()), "--store", store, "--json"]
        n = json.loads(subprocess.run(index, check=True, capture_output=True).stdout)["items"]
        commands = {
            "python -c 'import open_clip'": [sys.executable, "-c", "import open_clip"],
            f"mmsearch search {QUERY!r}, {n} items": [
                sys.executable,
                "-m",
                "mmsearch",
                "search",
                QUERY,
                "--store",
                store,
            ],
            "mmsearch --help": [sys.executable, "-m", "mmsearch", "--help"],
        }
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for turn in range(options.runs + 1):
            for name, command in commands.items():
                figures = run(command)
                if turn:  # the first turn warms the disk's cache for everybody
                    times[name].append(figures)
    medians = [report(name, figures) for name, figures in times.items()]
    print(f"ratio search / import open_clip: {medians[1] / medians[0]:.3f}   (target: 0.25 or less, at most 400 MB)")


def run(command: Sequence[str]) -> tuple[float, float]:
    """Wall seconds and peak megabytes of a command."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        raise SystemExit(f"{' '.join(command)} failed: {process.stderr.read().decode() if process.stderr else ''}")
    if process.stderr:
        process.stderr.close()
    process.returncode = 0
    return seconds, usage.ru_maxrss / 1024


def report(name: str, figures: Sequence[tuple[float, float]]) -> float:
    """Print the median of one command and return its seconds."""
    seconds = statistics.median(figure[0] for figure in figures)
    spread = f"{min(figure[0] for figure in figures):.2f} to {max(figure[0] for figure in figures):.2f}"
    print(f"{name:40} {seconds:6.2f} s ({spread}), {max(figure[1] for figure in figures):6.0f} MB")
    return seconds


if __name__ == "__main__":
    main()
