"""Measure the indexes of mmsearch beside other libraries, on clustered unit vectors.

    python benchmarks/index.py --n 100000 --dim 256 --seed 0

Everything is timed in one run on the same vectors and queries. Peers that are not installed are left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmsearch.index import ExactIndex, HNSWIndex
from mmsearch.index.audit import repair
from mmsearch.index.graph import Graph, StoredAs
from mmsearch.index.halves import Halves, as_unit_halves, widen
from mmsearch.overlap import n_cores
from mmsearch.types import Vectors

K = 10
BATCH = 100
N_QUERIES = 1000
CONNECTIVITY = 16
EXPANSION_ADD = 128
EFFORT = 64
CROSSOVER_SIZES = (5_000, 10_000, 20_000, 50_000, 100_000)


@dataclass(frozen=True)
class Contender:
    """A built index: how to ask it, and how large it is in a file or, without one, in memory."""

    search: Callable[[Vectors], list[list[int]]]
    size: int


@dataclass(frozen=True, eq=False)
class World:
    """What every contender gets."""

    rows: Vectors
    halves: Halves
    queries: Vectors
    truth: list[set[int]]


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=100_000, help="how many vectors (default: 100000)")
    parser.add_argument("--dim", type=int, default=256, help="their width (default: 256)")
    parser.add_argument("--seed", type=int, default=0, help="of the vectors (default: 0)")
    options = parser.parse_args()
    world = make_world(options.n, options.dim, options.seed)
    print(f"{options.n} x {options.dim}, k={K}, effort {EFFORT}, {n_cores()} cores\n")
    print_contenders(world)
    print_overhead(world)
    print_builds(world)
    print_crossover(world)


def make_world(n: int, dim: int, seed: int) -> World:
    """Draw vectors around 1,000 centres: isotropic ones would be harder than real embeddings are."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((1000, dim))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    chosen = centres[rng.integers(1000, size=n + N_QUERIES)].astype(np.float32)
    noise = rng.standard_normal(chosen.shape, dtype=np.float32) / np.float32(np.sqrt(dim))
    rows = chosen + noise
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    halves = as_unit_halves(rows[:n], dim)
    truth = ExactIndex.over(halves).search(rows[n:], K)
    return World(rows[:n], halves, rows[n:], [set(found.keys.tolist()) for found in truth])


def print_contenders(world: World) -> None:
    """Print build rate, latency, recall and size of each index."""
    print(f"{'':24}{'build /s':>10}{'single ms':>11}{'batch ms':>10}{'recall@10':>11}{'MB':>8}")
    for name, module, build in contenders():
        if importlib.util.find_spec(module) is None:
            print(f"{name:24}  not installed")
            continue
        start = time.perf_counter()
        contender = build(world)
        rate = len(world.rows) / (time.perf_counter() - start)
        single = median_ms(contender.search, batches(world.queries, 1))
        batch = median_ms(contender.search, batches(world.queries, BATCH)) / BATCH
        answers = contender.search(world.queries)
        hits = sum(len(true & set(found)) for true, found in zip(world.truth, answers, strict=True))
        recall = hits / (K * len(world.queries))
        print(f"{name:24}{rate:10.0f}{single:11.3f}{batch:10.4f}{recall:11.4f}{contender.size / 1e6:8.1f}")
    print()


def contenders() -> Iterator[tuple[str, str, Callable[[World], Contender]]]:
    """Name, the module it needs, and how to build it."""
    yield "ExactIndex", "mmsearch", exact
    yield "HNSWIndex f16", "usearch", lambda world: hnsw(world, "f16", served=False)
    yield "HNSWIndex f16, served", "usearch", lambda world: hnsw(world, "f16", served=True)
    yield "HNSWIndex i8, served", "usearch", lambda world: hnsw(world, "i8", served=True)
    yield "USearch ip f16", "usearch", usearch
    yield "faiss HNSW f32", "faiss", faiss_hnsw
    yield "hnswlib ip f32", "hnswlib", hnswlib_ip


def exact(world: World) -> Contender:
    """Brute force over the float16 rows."""
    index = ExactIndex.over(world.halves)
    return Contender(lambda queries: [found.keys.tolist() for found in index.search(queries, K)], world.halves.nbytes)


def hnsw(world: World, stored_as: StoredAs, served: bool) -> Contender:
    """Build ours; ``served`` means that it fetches the originals from outside, as an engine's store gives them."""
    index = make_hnsw(world, stored_as, served)
    with tempfile.TemporaryDirectory() as folder:
        index.save(Path(folder) / "index", {})
        size = sum(file.stat().st_size for file in Path(folder).iterdir())
    return Contender(lambda queries: [found.keys.tolist() for found in index.search(queries, K)], size)


@cache
def make_hnsw(world: World, stored_as: StoredAs, served: bool) -> HNSWIndex:
    """Build an ``HNSWIndex`` of all rows."""
    index = HNSWIndex(
        world.rows.shape[1],
        dtype=stored_as,
        connectivity=CONNECTIVITY,
        expansion_add=EXPANSION_ADD,
        expansion_search=EFFORT,
        originals=(lambda keys: widen(world.halves[keys])) if served else None,
    )
    index.add(np.arange(len(world.rows)), world.rows)
    return index


def usearch(world: World) -> Contender:
    """Build what is under ours, with the same parameters."""
    index = make_usearch(world)
    return Contender(lambda queries: search_usearch(index, queries).tolist(), index.serialized_length)


@cache
def make_usearch(world: World) -> Any:  # noqa: ANN401 - USearch has no types
    """Build a bare USearch index of all rows."""
    from usearch.index import Index

    index = Index(
        ndim=world.rows.shape[1],
        metric="ip",
        dtype="f16",
        connectivity=CONNECTIVITY,
        expansion_add=EXPANSION_ADD,
        expansion_search=EFFORT,
    )
    index.add(np.arange(len(world.rows)), world.rows)
    return index


def search_usearch(index: Any, queries: Vectors) -> NDArray[Any]:  # noqa: ANN401
    """Keys, (q, K)."""
    found = index.search(queries, K, threads=1 if len(queries) == 1 else 0)
    return np.atleast_2d(found.keys)


def faiss_hnsw(world: World) -> Contender:
    """Build faiss's graph, which keeps float32."""
    import faiss

    index = faiss.IndexHNSWFlat(world.rows.shape[1], CONNECTIVITY, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = EXPANSION_ADD
    index.add(world.rows)
    index.hnsw.efSearch = EFFORT
    return Contender(lambda queries: index.search(queries, K)[1].tolist(), len(faiss.serialize_index(index)))


def hnswlib_ip(world: World) -> Contender:
    """Build hnswlib's graph, which keeps float32."""
    import hnswlib

    index = hnswlib.Index(space="ip", dim=world.rows.shape[1])
    index.init_index(max_elements=len(world.rows), M=CONNECTIVITY, ef_construction=EXPANSION_ADD)
    index.add_items(world.rows, np.arange(len(world.rows)), num_threads=n_cores())
    index.set_ef(EFFORT)

    def search(queries: Vectors) -> list[list[int]]:
        found: list[list[int]] = index.knn_query(queries, K, num_threads=min(n_cores(), len(queries)))[0].tolist()
        return found

    return Contender(search, index.index_file_size())


def print_overhead(world: World) -> None:
    """Print what ours costs above bare USearch: turn by turn, so that both feel the same neighbours on the machine."""
    bare = make_usearch(world)
    for name, served in (("HNSWIndex f16", False), ("HNSWIndex f16, served", True)):
        index = make_hnsw(world, "f16", served)
        ours, theirs = paired_ms(index, bare, batches(world.queries, BATCH))
        print(f"{name}: batch overhead over raw USearch {ours / theirs:.2f}x", end=", ")
        ours, theirs = paired_ms(index, bare, batches(world.queries, 1))
        print(f"single-query overhead {ours - theirs:.3f} ms")
    print()


def paired_ms(index: HNSWIndex, bare: Any, parts: list[Vectors]) -> tuple[float, float]:  # noqa: ANN401
    """Median times of both, each on other queries in turn so that neither warms the cache for the other."""
    ours, theirs = [], []
    for number, queries in enumerate(parts * (3 if len(parts) < BATCH else 1)):
        other = parts[(number + len(parts) // 2) % len(parts)]
        ours.append(timed_ms(lambda part=queries: index.search(part, K)))  # type: ignore[misc]
        theirs.append(timed_ms(lambda part=other: search_usearch(bare, part)))  # type: ignore[misc]
    return statistics.median(ours), statistics.median(theirs)


def print_builds(world: World) -> None:
    """Compare building with one thread and with all and repair, both followed by the same audit."""
    n = len(world.rows)
    print(f"{'build with':24}{'add s':>8}{'lost':>6}{'audit and repair s':>20}{'vectors /s':>12}")
    for name, threads in (("1 thread", 1), (f"{n_cores()} threads", n_cores())):
        graph = Graph(world.rows.shape[1], "f16", CONNECTIVITY, EXPANSION_ADD)
        add = timed_ms(lambda graph=graph, threads=threads: graph.add(np.arange(n), world.halves, threads=threads))  # type: ignore[misc]
        lost = len(graph.missed(np.arange(n), world.halves, EFFORT))
        mend = timed_ms(lambda graph=graph: repair(graph, np.arange(n), lambda nodes: world.halves[nodes], EFFORT))  # type: ignore[misc]
        print(f"{name:24}{add / 1e3:8.1f}{lost:6}{mend / 1e3:20.1f}{1e3 * n / (add + mend):12.0f}")
    print()


def print_crossover(world: World) -> None:
    """Show from which size on the graph is worth it."""
    print(f"{'size':>8}{'exact single ms':>17}{'hnsw':>8}{'exact batch ms':>16}{'hnsw':>9}")
    for size in (size for size in CROSSOVER_SIZES if size <= len(world.rows)):
        whole = size == len(world.rows)
        part = world if whole else World(world.rows[:size], world.halves[:size], world.queries, [])
        searches = [exact(part).search, hnsw(part, "f16", served=True).search]
        searches[0](world.queries[:1])  # from the second search on, it uses its float32 copy
        single = [median_ms(search, batches(world.queries, 1)) for search in searches]
        batch = [median_ms(search, batches(world.queries, BATCH)) / BATCH for search in searches]
        print(f"{size:8}{single[0]:17.3f}{single[1]:8.3f}{batch[0]:16.4f}{batch[1]:9.4f}")


def batches(queries: Vectors, size: int) -> list[Vectors]:
    """Cut queries into batches, at most 300."""
    return [queries[start : start + size] for start in range(0, len(queries), size)][:300]


def median_ms(search: Callable[[Vectors], object], parts: list[Vectors]) -> float:
    """Median time of a search, after one that does not count."""
    search(parts[-1])
    return statistics.median(timed_ms(lambda part=part: search(part)) for part in parts)  # type: ignore[misc]


def timed_ms(work: Callable[[], object]) -> float:
    """Time of one call."""
    start = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - start)


if __name__ == "__main__":
    main()
