"""``Engine.search`` by vector, with hydrated hits, beside Chroma and LanceDB on the same vectors in one run.

::

    python benchmarks/engine.py --n 100000 --dim 256 --seed 0

Each answers one query at a time with the ten nearest items, their texts and metadata, from a store on disk. The effort
of each peer is raised until its recall@10 against the exact scan is at least 0.999 (or its ladder ends); ours is what
the engine tunes by itself. A peer that is not installed is left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmsearch import Engine, Item, Query
from mmsearch.types import Picture, Vectors

K, N_QUERIES, RECALL = 10, 300, 0.999
Search = Callable[[Vectors], list[str]]


class Preset:
    """An encoder whose vectors are given: the text "7" has row 7."""

    name, fingerprint, licence, runtime, image_size = "preset", "preset", "none", "none", 1

    def __init__(self, rows: Vectors) -> None:
        self.rows, self.dim = rows, rows.shape[1]

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """Look rows up."""
        return self.rows[[int(text) for text in texts]]

    def encode_images(self, images: Sequence[Picture]) -> Vectors:
        """There are none."""
        return np.zeros((0, self.dim), dtype=np.float32)

    def prepare(self, image: Picture) -> Picture:
        """Nothing to do."""
        return image

    def split_text(self, text: str) -> list[str]:
        """Every text fits."""
        return [text]


def main() -> None:
    """Fill each, raise its effort to the recall asked for, print p50 and the ratio."""
    parser = argparse.ArgumentParser(description="Engine.search by vector against Chroma and LanceDB")
    parser.add_argument("--n", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rows, queries = make_rows(options.n, options.dim, options.seed)
    right = [set(map(str, np.argpartition(-(rows @ query), K)[:K])) for query in queries]
    print(f"{options.n} x {options.dim}, k={K}, one query at a time, hydrated hits")
    medians = {}
    for name, make in {"mmsearch": mmsearch, "Chroma": chroma, "LanceDB": lancedb}.items():
        with tempfile.TemporaryDirectory() as folder:
            if name != "mmsearch" and importlib.util.find_spec(name.lower().replace("chroma", "chromadb")) is None:
                print(f"  {name:9} not installed")
                continue
            start = time.perf_counter()
            efforts = make(rows, Path(folder))
            built = time.perf_counter() - start
            recall, p50, effort = raise_effort(efforts, queries, right)
            medians[name] = p50
            print(f"  {name:9} p50 {p50:6.3f} ms, recall@{K} {recall:.4f}, {effort}, filled in {built:.0f} s")
    peers = [median for name, median in medians.items() if name != "mmsearch"]
    if peers:
        print(f"  ratio to the faster peer {medians['mmsearch'] / min(peers):.2f}   (target: 0.5 or less)")


def make_rows(n: int, dim: int, seed: int) -> tuple[Vectors, Vectors]:
    """Clustered unit rows, (n, dim), and queries from the same mixture, float16-exact so that all store the same."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((1_000, dim))
    both = centres[rng.integers(0, 1_000, n + N_QUERIES)] + 0.6 * rng.standard_normal((n + N_QUERIES, dim))
    unit = (both / np.linalg.norm(both, axis=1, keepdims=True)).astype(np.float16).astype(np.float32)
    return unit[:n], unit[n:]


def raise_effort(
    efforts: Sequence[tuple[str, Search]], queries: Vectors, right: Sequence[set[str]]
) -> tuple[float, float, str]:
    """Take the first effort that reaches the recall: recall, p50 in milliseconds and its name."""
    reached = (0.0, 0.0, "")
    for name, search in efforts:
        for query in queries[:20]:
            search(query)
        times, found = [], 0
        for query, ids in zip(queries, right, strict=True):
            start = time.perf_counter()
            answer = search(query)
            times.append(time.perf_counter() - start)
            found += len(ids.intersection(answer))
        reached = (found / (K * len(queries)), 1_000 * statistics.median(times), name)
        if reached[0] >= RECALL:
            break
    return reached


def mmsearch(rows: Vectors, folder: Path) -> list[tuple[str, Search]]:
    """Our engine; its effort is tuned when the index is built."""
    engine = Engine.open(folder / "store", Preset(rows), spaces=["text"])
    engine.add(Item(id=str(n), text=str(n), metadata={"year": 2000 + n % 25}) for n in range(len(rows)))
    return [("effort tuned by itself", lambda query: [hit.item.id for hit in engine.search(Query(vector=query), K)])]


def chroma(rows: Vectors, folder: Path) -> list[tuple[str, Search]]:
    """Chroma's persistent client, cosine space, its own connectivity."""
    import chromadb

    client = chromadb.PersistentClient(str(folder), chromadb.Settings(anonymized_telemetry=False))

    def collection(effort: int) -> Any:  # noqa: ANN401 Chroma's types need its package
        return client.get_or_create_collection(
            "all", configuration={"hnsw": {"space": "cosine", "ef_search": effort, "ef_construction": 128}}
        )

    made = collection(128)
    for first in range(0, len(rows), 5_000):
        ids = [str(n) for n in range(first, min(first + 5_000, len(rows)))]
        made.add(
            ids=ids,
            embeddings=rows[first : first + 5_000],
            documents=ids,
            metadatas=[{"year": 2000 + int(id) % 25} for id in ids],
        )

    def search(query: Vectors) -> list[str]:
        found: list[str] = made.query(query_embeddings=[query], n_results=K)["ids"][0]
        return found

    return [("ef_search 128", search)]


def lancedb(rows: Vectors, folder: Path) -> list[tuple[str, Search]]:
    """LanceDB with its HNSW_SQ index, refined from the original vectors."""
    import lancedb as lance
    import pyarrow as pa

    vectors = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), rows.shape[1])
    ids = [str(n) for n in range(len(rows))]
    columns = {"id": ids, "text": ids, "year": [2000 + n % 25 for n in range(len(rows))], "vector": vectors}
    table = lance.connect(str(folder)).create_table("all", pa.table(columns))
    table.create_index("vector", config=lance.index.HnswSq(distance_type="cosine", num_partitions=1))

    def at(effort: int, refine: int) -> Search:
        def search(query: Vectors) -> list[str]:
            request = table.search(query).distance_type("cosine").limit(K).ef(effort).refine_factor(refine)
            return [row["id"] for row in request.to_list()]

        return search

    return [
        (f"ef {effort}, refine {refine}", at(effort, refine))
        for effort, refine in ((32, 2), (64, 4), (128, 8), (256, 16))
    ]


if __name__ == "__main__":
    main()
