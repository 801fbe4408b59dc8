"""Item to item by content: what texts and views add to the vectors of pictures, on a dataset folder with labels.

::

    python benchmarks/item_to_item.py --data ../shared/data/fashion [--store DIR]

An item is relevant to another if both have the same labels (``--same``). Items that have a relevant other one are
queries. The weight of texts is chosen on the items of one half, split by a hash of their ids, and everything is
reported on the other half; the collection is always all items. The named alternative is the plain ranking by the
cosines of picture vectors. Queries of the same labels share their right answers, so that whole labels are drawn for the
intervals.
"""

from __future__ import annotations

import argparse
import json
import time
import zlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from mmsearch import Engine, Item
from mmsearch.files import content_hash, read_bytes
from mmsearch.images import MAX_BYTES
from mmsearch.metrics import Scores, compare, evaluate, interval
from mmsearch.rerank.regions import Regions
from mmsearch.types import Hit

K = 10
MEASURES = (f"P@{K}", f"nDCG@{K}")
TEXT_WEIGHTS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
RAW, EQUAL, VIEWS = "pictures: raw vectors", "pictures 0.5, texts 0.5 (not chosen)", " + views"
Answer: TypeAlias = Callable[[Sequence[str]], list[list[Hit]]]


@dataclass(frozen=True)
class Labelled:
    """Items with labels; identical pictures are one answer, whose name is that of the first of them."""

    labels: Mapping[str, tuple[str, ...]]
    picture: Mapping[str, str]
    alike: Mapping[tuple[str, ...], frozenset[str]]

    @classmethod
    def of(cls, items: Sequence[Item], fields: Sequence[str]) -> Labelled:
        """Read labels from metadata, and tell identical pictures by their files."""
        labels = {it.id: tuple(str(it.metadata[field]) for field in fields) for it in items if _has(it, fields)}
        first: dict[bytes, str] = {}
        picture = {
            it.id: first.setdefault(content_hash(read_bytes(it.path, MAX_BYTES)), it.id) for it in items if it.path
        }
        alike: dict[tuple[str, ...], set[str]] = {}
        for id, label in labels.items():
            alike.setdefault(label, set()).add(picture[id])
        return cls(labels, picture, {label: frozenset(ids) for label, ids in alike.items()})

    def right(self, id: str) -> dict[str, float]:
        """The relevant pictures of an item: those of items with its labels, other than its own."""
        return dict.fromkeys(sorted(self.alike[self.labels[id]] - {self.picture[id]}), 1.0)

    def halves(self) -> tuple[list[str], list[str]]:
        """Items that have a relevant other one: those to choose by and those to report on."""
        parts: tuple[list[str], list[str]] = ([], [])
        for id in sorted(self.labels):
            if self.right(id):
                parts[zlib.crc32(id.encode()) % 2].append(id)
        return parts


def _has(item: Item, fields: Sequence[str]) -> bool:
    return item.path is not None and all(item.metadata.get(field) is not None for field in fields)


def main() -> None:
    """Print the tables and one line of JSON."""
    parser = argparse.ArgumentParser(description="item to item by content, on labelled items")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--same", nargs="+", default=["articleType", "baseColour", "gender"], metavar="FIELD")
    parser.add_argument("--store", type=Path, help="keep the items' store here, and use it again")
    parser.add_argument("--queries", type=int, help="at most so many queries are reported on: for a quick look")
    parser.add_argument("--tuning-queries", type=int, default=1_500)
    options = parser.parse_args()
    place = TemporaryDirectory() if options.store is None else nullcontext(str(options.store))
    with place as store, Engine.open(store, spaces=["picture", "text", "regions"]) as engine:
        engine.add_folder(options.data)
        labelled = Labelled.of(list(engine.items()), options.same)
        tuning, reported = labelled.halves()
        tuning, reported = sampled(tuning, options.tuning_queries), sampled(reported, options.queries)
        print(f"{options.data.name}: {len(engine)} items, {len(labelled.alike)} different {' + '.join(options.same)}")
        print(f"{len(tuning)} queries to choose by, {len(reported)} others reported on")
        print(said(engine, labelled), flush=True)
        weight = chosen(engine, labelled, tuning)
        results = report(engine, labelled, reported, weight)
    print(json.dumps({"data": options.data.name, "queries": len(reported), "text weight": weight, "results": results}))


def sampled(ids: Sequence[str], n: int | None) -> list[str]:
    """At most n of these, drawn with a fixed seed."""
    if n is None or n >= len(ids):
        return list(ids)
    return [ids[place] for place in np.sort(np.random.default_rng(0).choice(len(ids), n, replace=False))]


def said(engine: Engine, labelled: Labelled) -> str:
    """How much of the labels the texts give away."""
    texts = {item.id: words(item.text or "") for item in engine.items()}
    told = [
        np.mean([words(value) <= texts[id] for id, value in zip(labelled.labels, values, strict=True)])
        for values in zip(*labelled.labels.values(), strict=True)
    ]
    return (
        "the texts are titles, which state the answer: the labels are among their words in "
        + ", ".join(f"{100 * share:.0f}%" for share in told)
        + "\n(in this order); where texts say less, they will add less"
    )


def words(text: str) -> set[str]:
    """The words of a text, without the s of a plural."""
    return {word.rstrip("s") for word in text.lower().split()}


# Answers ------------------------------------------------------------------------------------------------------------


def scored(labelled: Labelled, ids: Sequence[str], answer: Answer) -> tuple[Scores, float]:
    """The measures of each query's answers, and milliseconds a query."""
    start = time.perf_counter()
    answers = answer(ids)
    taken = 1000 * (time.perf_counter() - start) / len(ids)
    run = {id: [labelled.picture[hit.item.id] for hit in hits] for id, hits in zip(ids, answers, strict=True)}
    return evaluate({id: labelled.right(id) for id in ids}, run, MEASURES), taken


def chosen(engine: Engine, labelled: Labelled, ids: Sequence[str]) -> float:
    """The weight of texts with the best nDCG on the half that is not reported."""
    print(f"\nweight of texts, pictures have the rest: {' / '.join(MEASURES)} on the half to choose by")
    found: dict[float, float] = {}
    for weight in TEXT_WEIGHTS:
        answer = partial(similar_many(engine), k=K, fields={"picture": 1 - weight, "text": weight})
        means = scored(labelled, ids, answer)[0].means()
        print(f"  {weight:.1f}   " + " / ".join(f"{100 * means[name]:.1f}" for name in MEASURES), flush=True)
        found[weight] = means[MEASURES[-1]]
    return max(found, key=lambda weight: found[weight])


def ways(engine: Engine, weight: float) -> dict[str, Answer]:
    """What is compared, by name; ``weight`` is that of texts."""
    ask = partial(similar_many(engine), k=K)
    both, equal = {"picture": 1 - weight, "text": weight}, {"picture": 0.5, "text": 0.5}
    name = f"pictures {1 - weight:.1f}, texts {weight:.1f}"
    return {
        RAW: partial(ask, fields="picture"),
        "pictures + regions": partial(ask, fields="picture", rerank=[Regions()]),
        "pictures + views": partial(ask, fields="picture", rerank=True),
        "similar(id) as it is by default": ask,
        "texts alone": partial(ask, fields="text"),
        EQUAL: partial(ask, fields=equal),
        EQUAL + VIEWS: partial(ask, fields=equal, rerank=True),
        name: partial(ask, fields=both),
        name + " + regions": partial(ask, fields=both, rerank=[Regions()]),
        name + VIEWS: partial(ask, fields=both, rerank=True),
    }


def similar_many(engine: Engine) -> Callable[..., list[list[Hit]]]:
    """The method that is measured."""
    return engine.similar_many


def report(engine: Engine, labelled: Labelled, ids: Sequence[str], weight: float) -> dict[str, dict[str, float]]:
    """Every way on the reported half, with intervals, and what it gains over raw vectors."""
    groups = [labelled.labels[id] for id in ids]
    found = {name: scored(labelled, ids, answer) for name, answer in ways(engine, weight).items()}
    results = {}
    for measure in MEASURES:
        print(f"\n{measure:44} {'95% interval':>18} {'against raw vectors':>28}      ms a query")
        for name, (scores, taken) in found.items():
            results[f"{name}, {measure}"] = row(name, scores[measure], found[RAW][0][measure], groups, taken)
    print("\nviews on top of both fields:")
    for before in (name for name in found if name + VIEWS in found and name != RAW):
        after = before + VIEWS
        for measure in MEASURES:
            its = compare(found[before][0][measure], found[after][0][measure], groups=groups)
            span = f"{100 * its.low:+.2f} to {100 * its.high:+.2f}"
            print(f"  {after}, {measure}: {100 * its.value:+.2f} ({span}), p {its.p:.4f}")
    return results


def row(
    name: str, values: NDArray[np.float64], raw: NDArray[np.float64], groups: Sequence[Hashable], taken: float
) -> dict[str, float]:
    """Print one way's mean with its interval and its paired difference from raw vectors."""
    mean, gain = interval(values, groups=groups), compare(raw, values, groups=groups)
    own = f"{100 * mean.value:5.1f}  ({100 * mean.low:.1f} to {100 * mean.high:.1f})"
    than = f"{100 * gain.value:+6.2f} ({100 * gain.low:+.2f} to {100 * gain.high:+.2f}), p {gain.p:.4f}"
    print(f"  {name:40} {own:>22}   {'' if name == RAW else than:36} {taken:5.1f}", flush=True)
    return {"mean": mean.value, "low": mean.low, "high": mean.high, "gain": gain.value, "p": gain.p}


if __name__ == "__main__":
    main()
