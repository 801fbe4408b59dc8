"""Clusters against labels: how well groups of pictures go with what people called them.

::

    python benchmarks/clusters.py --data ../shared/data/fashion [--store DIR]

The pictures at odd places of the collection, in the order of their ids, are clustered and reported on; those at even
places are the half to choose by (``--half even``), on which, and on the demo gallery, all settings of the package were
chosen; so were the prompts, and the weight of relatives, by which names are found. The named alternative is
scikit-learn's k-means with its default settings on the same vectors with the same number of clusters, the mean of five
seeds. Noise counts as one cluster, so that leaving hard pictures out gains nothing. A cluster's name is right if it is
the type that most of its members have, or one of the names that ``fashion_synonyms.tsv`` accepts for it. HDBSCAN
implementations find their own number; those not installed are passed over.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeAlias

import numpy as np

from mmsearch import Engine
from mmsearch.clustering import agreement, group, hierarchy, quality
from mmsearch.clustering.blocks import Held
from mmsearch.lexicon import Lexicon, lexicon_of
from mmsearch.naming import name_clusters, relatives
from mmsearch.types import Keys, Vectors
from mmsearch.vocabulary import general_nouns

SEEDS = 5
MEASURES = ("nmi", "purity", "ari")
ALLOWED = 0.005
"""How far below plain k-means the default may be."""
NAMED = {"types given": 0.6, "general": 0.4}
"""The share of clusters that should be called by their majority label, by vocabulary."""
SYNONYMS = Path(__file__).with_name("fashion_synonyms.tsv")
FIELDS = ("articleType", "gender", "baseColour")
Labelled: TypeAlias = Mapping[str, Sequence[str | None]]
"""The given labels of each picture, by metadata field."""


@dataclass(frozen=True, eq=False)
class Half:
    """The pictures that are clustered: ids, vectors, (n, dim), and given labels."""

    ids: Sequence[str]
    vectors: Vectors
    truth: Labelled


def main() -> None:
    """Print the tables and one line of JSON."""
    parser = argparse.ArgumentParser(description="clusters against labels, on labelled pictures")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--store", type=Path, help="keep the items' store here, and use it again")
    parser.add_argument("--labels", nargs="+", default=list(FIELDS), metavar="FIELD", help="the first one is judged")
    parser.add_argument("--numbers", nargs="+", type=int, default=[20, 50, 100], help="numbers of clusters to compare")
    parser.add_argument("--half", choices=["odd", "even", "all"], default="odd", help="which pictures (default: odd)")
    options = parser.parse_args()
    place = TemporaryDirectory() if options.store is None else nullcontext(str(options.store))
    with place as store, Engine.open(store, spaces=["picture", "text"]) as engine:
        engine.add_folder(options.data)
        half = half_of(engine, options.labels, options.half)
        first = sorted({value for value in half.truth[options.labels[0]] if value is not None})
        lexicons = {
            "types given": lexicon_of([name.lower() for name in first], lambda: engine.encoder, pictures=True),
            "general": lexicon_of(general_nouns(), lambda: engine.encoder, pictures=True),
        }
    print(f"{options.data.name}: {len(half.ids)} pictures ({options.half}), " + said(half.truth), flush=True)
    results = {
        "given number": against_plain(half, options.numbers),
        "own number": own_number(half),
        "others": others(half),
        "levels": levels(half),
        "names": names(half, lexicons, options.numbers),
    }
    print(json.dumps({"data": options.data.name, "half": options.half, "pictures": len(half.ids), **results}))


def half_of(engine: Engine, fields: Sequence[str], which: str) -> Half:
    """Pictures at odd or even places, or all."""
    ids, vectors = engine.vectors(field="picture")
    order = np.argsort(ids)
    order = {"odd": order[1::2], "even": order[::2], "all": order}[which]
    metadata = {item.id: item.metadata for item in engine.items()}
    chosen = [ids[place] for place in order]
    found = {field: [metadata[id].get(field) for id in chosen] for field in fields}
    truth = {field: [None if value is None else str(value) for value in values] for field, values in found.items()}
    return Half(chosen, vectors[order], truth)


def said(truth: Labelled) -> str:
    """How many different labels there are."""
    return ", ".join(f"{len(set(values) - {None})} {field}" for field, values in truth.items())


# Given numbers --------------------------------------------------------------------------------------------------------


def against_plain(half: Half, numbers: Sequence[int]) -> dict[str, dict[str, float]]:
    """The default clustering and plain k-means with the same numbers of clusters."""
    results: dict[str, dict[str, float]] = {}
    for n in numbers:
        results.update(compared(half, n, f"{n} clusters"))
    return results


def own_number(half: Half) -> dict[str, dict[str, float]]:
    """The default clustering with the number it finds with each seed, and plain k-means with the same."""
    tried = group(Held(half.vectors)).tried
    print("\nscores of the numbers tried: " + ", ".join(f"{n}: {score:.3f}" for n, score in tried.items()))
    return compared(half, None, "its own number")


def compared(half: Half, n: int | None, title: str) -> dict[str, dict[str, float]]:
    """Print and return both ways' measures for one number, and whether the default is near enough or above."""
    print(f"\n{title:30}" + "".join(f"{field:>26}" for field in half.truth) + "        s")
    print(f"{'':30}" + f"{' / '.join(MEASURES):>26}" * len(half.truth))
    rows = Held(half.vectors)
    numbers = [n or len(group(rows, seed=seed).centres) for seed in range(SEEDS)]
    ours = measured(half, lambda seed: group(rows, n, seed=seed).labels)
    plain = measured(half, lambda seed: plain_kmeans(half.vectors, numbers[seed], seed))
    if n is None:
        print(f"  clusters found, by seed: {', '.join(str(number) for number in numbers)}")
    show("mmsearch, default", ours, half.truth)
    show(f"scikit-learn KMeans, {SEEDS} seeds", plain, half.truth)
    first = next(iter(half.truth))
    for name in MEASURES[:2]:
        gain = ours[f"{first} {name}"] - plain[f"{first} {name}"]
        verdict = "met" if gain >= -ALLOWED else "MISSED"
        print(f"  {first} {name}: {gain:+.4f}; target at least {-ALLOWED}: {verdict}", flush=True)
    return {f"{title}: mmsearch": ours, f"{title}: KMeans": plain}


def measured(half: Half, cluster: Callable[[int], Keys], seeds: int = SEEDS) -> dict[str, float]:
    """The mean measures over seeds, and seconds a clustering."""
    total: dict[str, list[float]] = {}
    start = time.perf_counter()
    labelled = [cluster(seed) for seed in range(seeds)]
    took = (time.perf_counter() - start) / seeds
    for labels in labelled:
        for field, truth in half.truth.items():
            for name, value in agreement(labels, truth).items():
                total.setdefault(f"{field} {name}", []).append(value)
        total.setdefault("clusters", []).append(float(labels.max(initial=-1) + 1))
        total.setdefault("noise", []).append(float((labels < 0).mean()))
    return {name: float(np.mean(values)) for name, values in total.items()} | {"seconds": took}


def plain_kmeans(vectors: Vectors, n: int, seed: int) -> Keys:
    """The named alternative."""
    from sklearn.cluster import KMeans

    labels: Keys = KMeans(n, random_state=seed).fit_predict(vectors).astype(np.int64)
    return labels


def show(name: str, values: Mapping[str, float], fields: Labelled) -> None:
    """Print one row."""
    cells = (" / ".join(f"{values[f'{field} {measure}']:.3f}" for measure in MEASURES) for field in fields)
    print(f"  {name:28}" + "".join(f"{cell:>26}" for cell in cells) + f"{values['seconds']:9.1f}", flush=True)


# Other methods --------------------------------------------------------------------------------------------------------


def others(half: Half) -> dict[str, dict[str, float]]:
    """Methods that find their own number and leave noise, once each; and agglomerative clustering."""
    rows = Held(half.vectors)
    ways: dict[str, Callable[[int], Keys]] = {
        "mmsearch, hdbscan": lambda seed: group(rows, method="hdbscan", seed=seed).labels,
        "mmsearch, agglomerative, 50": lambda seed: group(rows, 50, method="agglomerative", seed=seed).labels,
        "mmsearch, minibatch, 50": lambda seed: group(rows, 50, method="minibatch", seed=seed).labels,
    }
    for module, name in (("fast_hdbscan", "HDBSCAN"), ("evoc", "EVoC")):
        if find_spec(module):
            ways[module] = lambda _seed, module=module, name=name: foreign(half.vectors, module, name)  # type: ignore[misc]
    print("\nother methods")
    results = {}
    for name, way in ways.items():
        results[name] = measured(half, way, seeds=1)
        shown = f"{name} ({results[name]['clusters']:.0f})"
        show(shown, results[name], half.truth)
        print(f"{'':4}{100 * results[name]['noise']:.0f}% noise", flush=True)
    return results


def foreign(vectors: Vectors, module: str, name: str) -> Keys:
    """Labels of another package: HDBSCAN on 30 principal components, EVoC on the vectors as they are."""
    from sklearn.decomposition import PCA

    rows = PCA(30, random_state=0).fit_transform(vectors) if name == "HDBSCAN" else vectors
    settings = {"min_cluster_size": 14, "min_samples": 3} if name == "HDBSCAN" else {}
    return np.asarray(getattr(import_module(module), name)(**settings).fit_predict(rows), dtype=np.int64)


# What else is told ----------------------------------------------------------------------------------------------------


def levels(half: Half) -> dict[str, float]:
    """Purity of the levels of the hierarchy over the default clusters, and the quality of these."""
    rows = Held(half.vectors)
    grouping = group(rows)
    start = time.perf_counter()
    overall, _ = quality(rows, grouping)
    print(f"\nquality: {overall} in {time.perf_counter() - start:.1f} s")
    first, truth = next(iter(half.truth.items()))
    found = {"silhouette": overall.silhouette, "stability": overall.stability}
    sizes = np.bincount(grouping.labels[grouping.labels >= 0], minlength=len(grouping.centres))
    for level in hierarchy(grouping.centres, sizes):
        labels = np.append(level, -1)[grouping.labels]
        found[f"{level.max() + 1} branches, nmi"] = agreement(labels, truth)["nmi"]
        print(f"  hierarchy, {level.max() + 1} branches: {first} nmi {found[f'{level.max() + 1} branches, nmi']:.3f}")
    return found


# Names ----------------------------------------------------------------------------------------------------------------


def names(half: Half, lexicons: Mapping[str, Lexicon], numbers: Sequence[int]) -> dict[str, float]:
    """The share of clusters that are called by the label most members have, the mean of five seeds."""
    accepted = synonyms()
    field, truth = next(iter(half.truth.items()))
    rows = Held(half.vectors)
    found: dict[str, float] = {}
    print(f"\nclusters called by the {field} that most members have, mean of {SEEDS} seeds")
    for n in (*numbers, None):
        labelled = [group(rows, n, seed=seed).labels for seed in range(SEEDS)]
        for name, lexicon in lexicons.items():
            kin = relatives(lexicon.vectors)
            shares = [called_right(half.vectors, labels, truth, lexicon, kin, accepted) for labels in labelled]
            number = "own number" if n is None else f"{n} clusters"
            found[f"{number}, {name}"] = share = float(np.mean(shares))
            verdict = "met" if share >= NAMED[name] else "MISSED"
            print(f"  {number:12} {name:12} {share:.3f}; target {NAMED[name]}: {verdict}", flush=True)
    return found


def called_right(
    vectors: Vectors,
    labels: Keys,
    truth: Sequence[str | None],
    lexicon: Lexicon,
    kin: Keys | None,
    accepted: Mapping[str, set[str]],
) -> float:
    """The share of clusters whose name is accepted for the label that most of their members have."""
    n = int(labels.max()) + 1
    named = name_clusters(vectors, labels, n, lexicon.vectors, kin=kin)
    right = 0
    for cluster, one in enumerate(named):
        members = [truth[place] for place in np.flatnonzero(labels == cluster).tolist()]
        most = max(sorted({label for label in members if label is not None}), key=members.count)
        right += lexicon.words[one.name] in accepted.get(most, {most.lower()})
    return right / n


def synonyms() -> dict[str, set[str]]:
    """What each type may be called."""
    rows = (line.split("\t") for line in SYNONYMS.read_text("utf-8").splitlines() if "\t" in line)
    return {name: {name.lower(), *(one.strip().lower() for one in others.split(","))} for name, others in rows}


if __name__ == "__main__":
    main()
