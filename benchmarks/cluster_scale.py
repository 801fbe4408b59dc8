"""Clustering at scale: vectors in a memory-mapped file, by the default path.

    python benchmarks/cluster_scale.py --vectors 1000000 --dim 256

The vectors are drawn with a fixed seed and written as float16 to a temporary folder: groups of sizes that vary
log-normally around random directions, and a tenth of them in random directions. The time is that of clustering alone,
the memory the peak of the whole process, which counts pages of the file that happen to be in memory.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import numpy as np

from mmsearch.clustering import Grouping, agreement, group, quality
from mmsearch.overlap import n_cores
from mmsearch.recommenders.itemvectors import ItemVectors
from mmsearch.types import Keys

GROUPS = 60
SPREAD = 0.05
NOISE = 0.1
BLOCK = 50_000
TARGET_S, TARGET_GB = 600.0, 8.0
Answer = TypeVar("Answer")


def main() -> None:
    """Print the figures and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--clusters", type=int, default=100, help="the number that is given (default: 100)")
    parser.add_argument("--quality", action="store_true", help="also measure the quality of the clusters")
    options = parser.parse_args()
    print(f"{options.vectors:,} x {options.dim}, {n_cores()} cores, load {os.getloadavg()[0]:.1f}", flush=True)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "vectors.npy"
        truth = drawn(path, options.vectors, options.dim)
        rows = ItemVectors(np.load(path, mmap_mode="r"), centred=False)
        figures: dict[str, float] = {}
        for n in (options.clusters, None):
            grouping, took = timed(lambda n=n: group(rows, n))  # type: ignore[misc]
            figures.update(told(grouping, truth, f"n={n}", took))
        if options.quality:
            (overall, _), took = timed(lambda: quality(rows, grouping))
            print(f"  quality in {took:.0f} s: {overall}")
            figures["quality, s"] = round(took, 1)
    print(json.dumps({"vectors": options.vectors, "dim": options.dim, **figures}))


def drawn(path: Path, n: int, dim: int) -> Keys:
    """Write vectors a block at a time; which group each is of, (n,), -1 for those of none."""
    rng = np.random.default_rng(0)
    shares = rng.lognormal(size=GROUPS)
    truth = rng.choice(GROUPS, n, p=shares / shares.sum())
    truth[rng.random(n) < NOISE] = -1
    directions = rng.normal(size=(GROUPS + 1, dim))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    directions[-1] = 0
    file = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=(n, dim))
    for start in range(0, n, BLOCK):
        some = truth[start : start + BLOCK]
        block = directions[some] + SPREAD * rng.normal(size=(len(some), dim))
        file[start : start + BLOCK] = block / np.linalg.norm(block, axis=1, keepdims=True)
    file.flush()
    return truth.astype(np.int64)


def timed(work: Callable[[], Answer]) -> tuple[Answer, float]:
    """An answer and the seconds that it took."""
    start = time.perf_counter()
    return work(), time.perf_counter() - start


def told(grouping: Grouping, truth: Keys, name: str, took: float) -> dict[str, float]:
    """Print one clustering's figures; peak memory is that up to now."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    nmi = agreement(grouping.labels, [str(label) if label >= 0 else None for label in truth.tolist()])["nmi"]
    print(
        f"  {name}: {len(grouping.centres)} clusters by {grouping.method} in {took:.1f} s, peak memory {peak:.2f} GB,"
        f" nmi with the {GROUPS} groups {nmi:.3f}; targets {TARGET_S:.0f} s, {TARGET_GB:.0f} GB:"
        f" {'met' if took <= TARGET_S and peak <= TARGET_GB else 'MISSED'}",
        flush=True,
    )
    return {f"{name}, s": round(took, 1), f"{name}, GB": round(peak, 2), f"{name}, clusters": len(grouping.centres)}


if __name__ == "__main__":
    main()
