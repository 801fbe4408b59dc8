"""What each stage of the cascade is worth, and what it costs, on a captioned dataset folder.

::

    python benchmarks/cascade.py --data ../shared/data/flickr8k-dev --bank ../shared/data/flickr8k-train

Two-fold: the collection is always all pictures; weights are fitted on the captions of one random half of the pictures
and judged on those of the other, and the reverse, pooled. The named alternative is the same retrieval without any
stage. The constants inside the stages (shares of the views, beta, the bank's shrinking) were chosen on Flickr8k dev as
a whole; the last table shows how little the shares matter.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from mmsearch import Engine
from mmsearch.bank import Bank, encode_bank
from mmsearch.cascade import N_CANDIDATES
from mmsearch.judged import IMAGE_TO_TEXT, Judged, read_judged
from mmsearch.judgedbanks import bank_for, read_bank, without
from mmsearch.metrics import compare, interval
from mmsearch.pool import Pool, reciprocal
from mmsearch.profile import build
from mmsearch.rerank import regions
from mmsearch.rerank.stage import Stage
from mmsearch.testbed import place
from mmsearch.tuning import collect, folds_of, held_out, score
from mmsearch.types import Hit

FLOOR, GOAL = {"R@1": 34.3, "R@10": 76.4}, {"R@1": 35.0, "R@10": 77.0}
DEPTHS = (1, 5, 10)
Ranks = NDArray[np.int64]


def main() -> None:
    """Print the tables and one line of JSON."""
    parser = argparse.ArgumentParser(description="the cascade's stages: gains and costs")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--bank", type=Path, required=True)
    parser.add_argument("--queries", type=int, help="at most so many queries: for a quick look")
    parser.add_argument("--cross", action="store_true", help="the joint model too (over the best 16)")
    parser.add_argument("--store", type=Path, help="keep the pictures' store here, and use it again")
    options = parser.parse_args()
    names = ["hubness", "regions", "late", *(["cross"] if options.cross else [])]
    results: dict[str, object] = {"data": options.data.name, "bank": options.bank.name}
    judged = read_judged(options.data).sampled(options.queries)
    with place(judged, options.store, stages=names) as (engine, _):
        texts = without(read_bank(options.bank), judged)
        n_bank = engine.set_bank(texts, source=options.bank.name)
        asked = f"{len(judged.queries)} captions, bank of {n_bank}"
        print(f"{options.data.name}: {len(engine)} pictures, {asked}", flush=True)
        results["text to picture"] = quality(engine, judged, names)
        results["cost"] = cost(engine, judged, names)
        views_alone(engine, judged)
        banks(engine, judged, texts)
    with tempfile.TemporaryDirectory() as folder:
        judged = read_judged(options.data, IMAGE_TO_TEXT)
        with place(judged, Path(folder), stages=()) as (engine, _):
            engine.ranker.use_banks(bank_for(judged, options.bank, engine))
            print(f"\npicture to text: {len(judged.queries)} pictures ask for {len(engine)} captions")
            results["picture to text"] = quality(engine, judged, ["hubness", "regions", "late"])
    targets(results["text to picture"])
    print(json.dumps(results))


# Quality ------------------------------------------------------------------------------------------------------------


def quality(engine: Engine, judged: Judged, names: Sequence[str]) -> dict[str, object]:
    """Held-out recalls of the stages one after the other, alone, and each left out."""
    pool, folds = Values(engine, collect(engine, judged)), folds_of(judged)
    usual = {stage.name: stage.weight for stage in build(names)}
    found: dict[str, Ranks] = {"vectors": pool.ranks([], usual, folds)}
    for n in range(1, len(names) + 1):
        found["+ " + names[n - 1]] = pool.ranks(names[:n], usual, folds)
    full = found["+ late"]
    header("the stages one after the other", "R@1 / R@5 / R@10", "gain in R@1 over the row before", "p")
    rows = list(found.items())
    for (name, ranks), (_, before) in zip(rows, [rows[0], *rows], strict=False):
        row(name, ranks, before, judged.groups)
    header("one stage alone", "R@1 / R@5 / R@10", "gain in R@1 over vectors", "p")
    for name in names:
        row(name, pool.ranks([name], usual, folds), found["vectors"], judged.groups)
    header("all three but one", "R@1 / R@5 / R@10", "what it adds to the others in R@1", "p")
    for name in [name for name in names if name != "cross"]:
        others = pool.ranks([other for other in names[:3] if other != name], usual, folds)
        row("without " + name, others, full, judged.groups, turned=True)
    if judged.field == "picture":
        sensitivity(pool, names[:3], usual, folds)
    untuned = pool.of(names).ranks(usual, np.arange(len(judged.queries)))
    print(f"\nthe default weights, unfitted: {recalls(untuned)}")
    return {name: numbers(ranks, judged.groups) for name, ranks in {**found, "default weights": untuned}.items()}


class Values:
    """Stages' values for a pool; those that depend on nothing else are computed once."""

    def __init__(self, engine: Engine, pool: Pool) -> None:
        self.engine, self.pool = engine, pool
        self.known: dict[tuple[object, ...], NDArray[np.float64]] = {}
        self.built: dict[tuple[str, object], Stage] = {}  # so that the joint model reads a pair once

    def of(self, names: Sequence[str]) -> Pool:
        """The pool with these stages' values; stages for a few hits see the best by the usual weights."""
        filled = replace(self.pool, values={})
        for fresh in build(names):
            stage = self.built.setdefault((fresh.name, getattr(fresh, "corrected", None)), fresh)
            for_few = stage.n < N_CANDIDATES
            weights = {one.name: one.weight for one in build(names) if one.name in filled.values} if for_few else {}
            shares = (regions.CROPS_WEIGHT, regions.FINE_WEIGHT, regions.BEST_WEIGHT) if stage.name == "regions" else ()
            key = (stage.name, getattr(stage, "corrected", None), *shares, *weights)
            if key not in self.known:
                self.known[key] = score(self.engine, filled, stage, weights)
            filled.values[stage.name] = self.known[key]
        return filled

    def ranks(self, names: Sequence[str], usual: Mapping[str, float], folds: Sequence[Ranks]) -> Ranks:
        """Held-out ranks of the first right answers with these stages."""
        return held_out(self.of(names), names, usual, folds)


def sensitivity(pool: Values, names: Sequence[str], usual: Mapping[str, float], folds: Sequence[Ranks]) -> None:
    """How much the shares of the views matter."""
    print("\nshares of the crops, of the closer look, of the best view: held-out R@1 / R@5 / R@10")
    for crops, fine, best in ((1.0, 1.0, 0.1), (1.0, 3.0, 0.4), (2.5, 1.0, 0.4), (2.5, 3.0, 0.1)):
        with patch.multiple(regions, CROPS_WEIGHT=crops, FINE_WEIGHT=fine, BEST_WEIGHT=best):
            print(f"  {crops} {fine} {best}: {recalls(pool.ranks(names, usual, folds))}")


def views_alone(engine: Engine, judged: Judged) -> None:
    """What each view of a picture is worth by itself, against all pictures."""
    ids = [item.id for item in judged.items]
    hits = [Hit(item, 0.0, 1) for item in judged.items]
    first, count = engine.ranker.collection.rows("regions", hits)
    texts = [query for query in judged.queries if isinstance(query, str)]
    queries = np.concatenate([engine.encoder.encode_texts(texts[n : n + 512]) for n in range(0, len(texts), 512)])
    place = {id: n for n, id in enumerate(ids)}
    right = np.array([place[next(iter(judged.qrels[id]))] for id in judged.ids])
    print("\neach view alone, over all pictures, by cosine: R@1 / R@5 / R@10")
    for part, name in enumerate(["whole", "mirrored", *(f"crop {n}" for n in range(1, 6)), "whole, read more closely"]):
        if part >= count.min():
            break
        cosines = queries @ engine.ranker.collection.stored("regions", first + part).T
        best = cosines[np.arange(len(right)), right][:, None]
        print(f"  {name:26} {recalls((cosines > best).sum(axis=1) + 1)}")


def banks(engine: Engine, judged: Judged, texts: Sequence[str]) -> None:
    """The default stages by their default weights, with banks of several sizes."""
    print("\nthe default stages, unfitted, by the size of the bank: R@1 / R@5 / R@10")
    vectors = encode_bank(texts, engine.encoder).vectors[np.random.default_rng(0).permutation(len(texts))]
    names = ["hubness", "regions", "late"]
    usual = {stage.name: stage.weight for stage in build(names)}
    everything, pool = np.arange(len(judged.queries)), collect(engine, judged)
    for size in (0, 50, 250, 1_000, 4_000, 12_000, len(vectors)):
        engine.ranker.use_banks({"text": Bank.of(vectors[:size])} if size else {})
        chosen = names if size else names[1:]
        weights = {name: usual[name] for name in chosen}
        print(f"  {size:6} {recalls(Values(engine, pool).of(chosen).ranks(weights, everything))}", flush=True)
    engine.ranker.use_banks(None)


def recalls(ranks: Ranks) -> str:
    """R@1 / R@5 / R@10 in percent."""
    return " / ".join(f"{100 * float((ranks <= depth).mean()):.1f}" for depth in DEPTHS)


def numbers(ranks: Ranks, groups: Sequence[str]) -> dict[str, list[float]]:
    """Value, low and high of each recall, in percent; intervals over pictures."""
    found = {f"R@{k}": interval((ranks <= k).astype(float), groups=groups) for k in DEPTHS}
    return {name: [round(100 * value, 2) for value in (one.value, one.low, one.high)] for name, one in found.items()}


def header(title: str, *columns: str) -> None:
    """The head of a table."""
    print(f"\n{title:32} {columns[0]:20} {columns[1]:34} {columns[2]:8} MRR@10 likewise")


def row(name: str, ranks: Ranks, before: Ranks, groups: Sequence[str], *, turned: bool = False) -> None:
    """A row of a table; ``turned``: what the other one has over this."""
    pair = [(one <= 1).astype(float) for one in (before, ranks)]
    gain = compare(*(reversed(pair) if turned else pair), groups=groups)
    shown = f"{100 * gain.value:+.2f} ({100 * gain.low:+.2f} to {100 * gain.high:+.2f})"
    pair = [reciprocal(one) for one in (before, ranks)]
    mrr = compare(*(reversed(pair) if turned else pair), groups=groups)
    value = 100 * float(reciprocal(ranks).mean())
    print(f"{name:32} {recalls(ranks):20} {shown:34} {gain.p:.4f}   {value:.2f} ({100 * mrr.value:+.2f}) {mrr.p:.4f}")


def targets(measured: object) -> None:
    """The floor and the goal against the three default stages, held out."""
    assert isinstance(measured, dict)
    best = measured["+ late"]
    for title, wanted in (("floor", FLOOR), ("goal", GOAL)):
        for name, least in wanted.items():
            value = best[name][0]
            print(f"{title} {name} {least}: {value:.1f} {'reached' if value >= least else 'MISSED'}")


# Cost ---------------------------------------------------------------------------------------------------------------


def cost(engine: Engine, judged: Judged, names: Sequence[str], n: int = 200) -> dict[str, float]:
    """Median milliseconds a query: encoding, retrieval, stages 1 to 3 over more and more hits, stage 4 over 16."""
    queries = [query for query in judged.queries if isinstance(query, str)][:n]
    encoder = engine.encoder
    found = {
        "encoding": median(lambda query: encoder.encode_texts([query]), queries),
        "retrieval of 100, encoding included": median(
            lambda query: engine.search(query, 100, field="picture", rerank=False), queries
        ),
    }
    stages = build([name for name in names if name != "cross"])
    for stage in stages:
        stage.prepare(engine.ranker.collection)
    for depth in (25, 50, 100, 200):
        found[f"stages 1 to 3 over {depth}"] = _stages_ms(engine, stages, queries, depth)
    if "cross" in names:
        (cross,) = build(["cross"])
        cross.prepare(engine.ranker.collection)
        found["stage 4 over 16, no pair known"] = _stages_ms(engine, [cross], queries, 16)
    print("\nmedian ms a query, and as a share of encoding it")
    for name, ms in found.items():
        print(f"  {name:40} {ms:7.2f}   {ms / found['encoding']:.2f}")
    return found


def _stages_ms(engine: Engine, stages: Sequence[object], queries: Sequence[str], depth: int) -> float:
    """What a cascade of these stages takes after the retrieval, with the query's vector and words at hand."""
    from mmsearch import Query
    from mmsearch.cascade import Cascade, Step

    cascade = Cascade([Step(stage, n=depth) for stage in stages])  # type: ignore[arg-type]
    times = []
    for text in queries:
        query = Query(text=text)
        hits = engine.search(query, depth, field="picture", rerank=False)
        engine.ranker.collection.query_vector(query)
        start = time.perf_counter()
        cascade.rerank(query, hits)
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)


def median(work: Callable[[str], object], queries: Sequence[str]) -> float:
    """Median milliseconds, after a first few that are not counted."""
    for query in queries[:5]:
        work(query)
    times = []
    for query in queries[5:]:
        start = time.perf_counter()
        work(query)
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)


if __name__ == "__main__":
    main()
