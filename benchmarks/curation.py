"""What curation finds, on datasets in which what is to be found is known.

::

    python benchmarks/curation.py --data ../shared/data --store stores --part labels outliers coverage looks

- ``labels``: 5% of a label's values are changed, by seed; the first half of the pictures was used to choose the
  settings, the second is reported. Baseline: the share of the 15 nearest neighbours with another label.
- ``outliers``: pictures of another kind, or of classes that are not there otherwise, among pictures of fashion.
- ``coverage``: the label of the nearest chosen picture, for all others; baseline: a random choice.
- ``looks``: degraded versions of photographs, and false alarms on originals of four kinds.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from mmsearch import Engine
from mmsearch.curation.coverage import METHODS, sample
from mmsearch.curation.looks import flaws, measure
from mmsearch.curation.mislabels import suspects
from mmsearch.curation.outliers import outlier_scores
from mmsearch.gallery import gallery_folder
from mmsearch.images import open_picture
from mmsearch.types import Keys, Vectors

Marks = NDArray[np.bool_]
Labels = NDArray[np.str_]
FLIPS = ("any class", "by frequency", "look-alike")


class Rows:
    """Vectors by position, all in memory."""

    def __init__(self, vectors: Vectors) -> None:
        self.vectors, self.dim = vectors, vectors.shape[1]

    def __len__(self) -> int:
        return len(self.vectors)

    def take(self, columns: Keys) -> Vectors:
        """The vectors at positions."""
        return self.vectors[columns]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description="curation: how much of what is wrong is found")
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds the dataset folders")
    parser.add_argument("--store", type=Path, help="keep the stores of the pictures here, and use them again")
    parser.add_argument("--part", nargs="+", choices=("labels", "outliers", "coverage", "looks"), default=["looks"])
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = options.store or Path(folder)
        if set(options.part) - {"looks"}:
            fashion, items = vectors_of(options.data / "fashion", place)
        if "labels" in options.part:
            for key in ("articleType", "gender"):
                labels(fashion, np.array([str(item[key]) for item in items]), key, options.seeds)
        if "coverage" in options.part:
            coverage(fashion, np.array([str(item["articleType"]) for item in items]), options.seeds)
        if "outliers" in options.part:
            posters, _ = vectors_of(options.data / "movielens-posters", place)
            types = np.array([str(item["articleType"]) for item in items])
            outliers(fashion, types, posters, options.seeds)
    if "looks" in options.part:
        looks(options.data)


def vectors_of(folder: Path, place: Path) -> tuple[Vectors, list[dict[str, object]]]:
    """The pictures' vectors, and what ``items.jsonl`` says of each."""
    with Engine.open(place / folder.name) as engine:
        if not len(engine):
            engine.add_folder(folder)
        ids, vectors = engine.vectors(field="picture")
    said = {item["image"]: item for item in map(json.loads, (folder / "items.jsonl").read_text().splitlines())}
    return np.asarray(vectors, dtype=np.float32), [said[id] for id in ids]


# Labels -------------------------------------------------------------------------------------------------------------


def labels(vectors: Vectors, right: Labels, name: str, seeds: int) -> None:
    """Precision among as many as were changed, and AUROC, by half and by kind of change."""
    order = np.random.default_rng(0).permutation(len(right))
    for half, part in (("first", order[: len(order) // 2]), ("second", order[len(order) // 2 :])):
        rows, truth = Rows(vectors[part]), right[part]
        print(f"\n{name}, {half} half: {len(part)} pictures, {len(set(truth))} labels, 5% changed")
        print(
            f"{'changed to':14} {'P@n':>7} {'AUROC':>7}   baseline {'P@n':>7} {'AUROC':>7}   likely: precision recall"
        )
        for kind in FLIPS:
            found = np.mean([judge(rows, *changed(rows.vectors, truth, kind, seed)) for seed in range(seeds)], axis=0)
            values = "{:7.3f} {:7.3f}            {:7.3f} {:7.3f}            {:7.3f} {:6.3f}".format(*found)
            print(f"{kind:14} {values}", flush=True)


def changed(vectors: Vectors, right: Labels, kind: str, seed: int, share: float = 0.05) -> tuple[Labels, Marks]:
    """Labels of which a share was changed, and which."""
    random = np.random.default_rng(seed)
    at = random.choice(len(right), int(share * len(right)), replace=False)
    wrong, names = right.copy(), np.unique(right)
    for one in at:
        if kind == "any class":
            wrong[one] = random.choice(names[names != right[one]])
        elif kind == "by frequency":
            wrong[one] = random.choice(right[right != right[one]])
        else:  # that of one of the 20 nearest pictures with another label
            others = np.flatnonzero(right != right[one])
            nearest = np.argsort(-(vectors[others] @ vectors[one]))[:20]
            wrong[one] = right[random.choice(others[nearest])]
    return wrong, np.isin(np.arange(len(right)), at)


def judge(rows: Rows, given: Labels, wrong: Marks) -> tuple[float, ...]:
    """Precision and AUROC of ``suspects`` and of plain disagreement; precision and recall of the likely ones."""
    found = suspects(rows, given.tolist())
    doubt = np.zeros(len(given))
    doubt[found.positions] = -np.arange(len(found), dtype=np.float64)
    hits = wrong[found.positions[found.likely]]
    return (*quality(doubt, wrong), *quality(plain(rows.vectors, given), wrong), hits.mean(), hits.sum() / wrong.sum())


def plain(vectors: Vectors, given: Labels, k: int = 15) -> NDArray[np.float64]:
    """The baseline: the share of the k nearest that have another label."""
    shares = []
    for start in range(0, len(vectors), 512):
        cosines = vectors[start : start + 512] @ vectors.T
        cosines[np.arange(len(cosines)), start + np.arange(len(cosines))] = -2
        nearest = np.argpartition(-cosines, k, axis=1)[:, :k]
        shares.append((given[nearest] != given[start : start + 512, None]).mean(axis=1))
    return np.concatenate(shares)


def quality(scores: NDArray[np.float64], wrong: Marks) -> tuple[float, float]:
    """Precision among as many of the highest as there are to be found, and AUROC."""
    from sklearn.metrics import roc_auc_score

    best = np.argsort(-scores, kind="stable")[: wrong.sum()]
    return float(wrong[best].mean()), float(roc_auc_score(wrong, scores))


# Outliers -----------------------------------------------------------------------------------------------------------


def outliers(fashion: Vectors, types: Labels, posters: Vectors, seeds: int) -> None:
    """Precision among as many as are odd, and AUROC, by method."""
    print("\noutliers: precision among as many as are odd / AUROC")
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for seed in range(seeds):
        for name, vectors, odd in odd_worlds(fashion, types, posters, np.random.default_rng(seed)):
            for method, scores in outlier_scores(Rows(vectors), seed=seed).items():
                found.setdefault(name, {}).setdefault(method, []).append(quality(scores, odd))
    for name, methods in found.items():
        figures = (
            f"{m} {np.mean([v[0] for v in vs]):.2f} / {np.mean([v[1] for v in vs]):.3f}" for m, vs in methods.items()
        )
        print(f"{name:34} " + "   ".join(figures))


def odd_worlds(
    fashion: Vectors, types: Labels, posters: Vectors, random: np.random.Generator
) -> Iterator[tuple[str, Vectors, Marks]]:
    """Collections in which some pictures are odd, and which; those come last."""
    usual = fashion[random.choice(len(fashion), 3000, replace=False)]
    names, sizes = np.unique(types, return_counts=True)
    common = np.isin(types, random.choice(names[sizes >= 150], 12, replace=False))
    rare = fashion[random.choice(np.flatnonzero(~common), 60, replace=False)]
    few, some_posters = posters[random.choice(len(posters), 6)], posters[random.choice(len(posters), 45)]
    for name, most, odd in (
        ("6 film posters in 3,000 clothes", usual, few),
        ("45 film posters in 3,000 clothes", usual, some_posters),
        ("60 clothes in 3,872 film posters", posters, usual[:60]),
        ("60 of other kinds in 12 kinds", fashion[common], rare),
    ):
        yield name, np.concatenate([most, odd]), np.arange(len(most) + len(odd)) >= len(most)


# Coverage -----------------------------------------------------------------------------------------------------------


def coverage(vectors: Vectors, types: Labels, seeds: int) -> None:
    """How many labels are right, and how many on average by class, if each picture gets that of the nearest chosen."""
    print(f"\ncoverage: 1-NN accuracy / mean accuracy of the classes, {len(types)} pictures, {len(set(types))} classes")
    for n in (100, 200, 500):
        for method in METHODS:
            found = []
            for seed in range(seeds):
                part = np.random.default_rng(seed).permutation(len(types))[:5000]
                start = time.perf_counter()
                picked = sample(Rows(vectors[part]), n, method=method, seed=seed)
                found.append((*nearest_label(vectors[part], types[part], picked), time.perf_counter() - start))
            print(f"{n:4} {method:9} " + "{:.3f} / {:.3f}   {:.1f} s".format(*np.mean(found, axis=0)), flush=True)


def nearest_label(vectors: Vectors, truth: Labels, picked: Keys) -> tuple[float, float]:
    """Accuracy, and the mean of the classes' accuracies, of the nearest picked one's label."""
    rest = np.setdiff1d(np.arange(len(truth)), picked)
    right = truth[picked][np.argmax(vectors[rest] @ vectors[picked].T, axis=1)] == truth[rest]
    return float(right.mean()), float(np.mean([right[truth[rest] == name].mean() for name in np.unique(truth[rest])]))


# Looks --------------------------------------------------------------------------------------------------------------


def looks(data: Path) -> None:
    """The share of pictures with each flaw: of degraded ones as many as possible, of originals as few."""
    print("\nlooks: share of pictures with each flaw")
    for name, pictures in (
        ("Flickr8k dev", pictures_of(data / "flickr8k-dev", 200)),
        ("photographs of the gallery", pictures_of(gallery_folder(), 300, kinds=("photo",))),
    ):
        found: dict[str, list[list[str]]] = {}
        for picture in pictures:
            for how, image in degraded(picture):
                found.setdefault(how, []).append([kind for kind, _, _ in flaws(measure(image))])
        for how, kinds in found.items():
            table(f"{name}, {how}", kinds)
    for name, folder, n, only in (
        ("Flickr8k train", data / "flickr8k-train", 2000, ()),
        ("fashion", data / "fashion", 2000, ()),
        ("film posters", data / "movielens-posters", 1000, ()),
        ("clip art and emoji", gallery_folder(), 2000, ("clip art", "emoji")),
    ):
        kinds = [[kind for kind, _, _ in flaws(measure(image))] for image in pictures_of(folder, n, only)]
        table(f"{name}, originals", kinds)


def table(name: str, kinds: Sequence[Sequence[str]]) -> None:
    """One line: how many pictures, and the share with each flaw."""
    counts = Counter(kind for one in kinds for kind in one)
    print(f"{name:50} {len(kinds):5} " + "  ".join(f"{k} {n / len(kinds):.1%}" for k, n in counts.items()), flush=True)


def pictures_of(folder: Path, n: int, kinds: Sequence[str] = ()) -> Iterator[Image.Image]:
    """At most n pictures of a dataset folder, drawn by seed."""
    items = [json.loads(line) for line in (folder / "items.jsonl").read_text().splitlines()]
    items = [item for item in items if not kinds or item["kind"] in kinds]
    with zipfile.ZipFile(folder / "images.zip") as files:
        members = {Path(name).name: name for name in files.namelist()}
        for at in np.random.default_rng(0).permutation(len(items))[:n]:
            yield open_picture(files.read(members[items[at]["image"]])).image


def degraded(image: Image.Image) -> Iterator[tuple[str, Image.Image]]:
    """The picture, and what may go wrong with one; blurs in shares of the longer side."""
    side, pixels = max(image.size), np.asarray(image, dtype=np.float32)
    yield "original", image
    for share in (0.003, 0.005, 0.01):
        yield f"out of focus by {share}", image.filter(ImageFilter.GaussianBlur(share * side))
    for share in (0.02, 0.04):
        steps = max(3, round(share * side))
        yield f"moved by {share}", as_picture(np.mean([np.roll(pixels, n, axis=1) for n in range(steps)], axis=0))
    for factor in (0.4, 0.25, 0.15):
        yield f"darker by {factor}", as_picture(pixels * factor)
    for factor in (2.5, 4, 8):
        yield f"overexposed by {factor}", as_picture(pixels * factor)
    yield "washed out to 0.2", as_picture(pixels * 0.2 + 204)
    for name, source in (
        ("JPEG 20", image),
        ("out of focus by 0.01, JPEG 30", image.filter(ImageFilter.GaussianBlur(0.01 * side))),
    ):
        file = io.BytesIO()
        source.save(file, "JPEG", quality=int(name[-2:]))
        yield name, Image.open(file).convert("RGB")


def as_picture(pixels: NDArray[np.float32]) -> Image.Image:
    """Levels, clipped to 0 to 255, as a picture."""
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


if __name__ == "__main__":
    main()
