"""Near duplicates: planted copies among photos, against imagededup and imagehash, and 100,000 items.

::

    python benchmarks/duplicates.py --data ../shared/data/flickr8k-train [--half tuning] [--sheet wrong.png]

The pictures of a dataset folder are shuffled with a fixed seed. The first half of them served to choose thresholds
(with the demo gallery and a catalogue of fashion, where photos say too little), and 3,000 of the other half are
reported on. For each kind of copy, 300 of them, others for each kind, have one planted among them:

- ``half size``: Lanczos, kept as PNG;
- ``JPEG 40``: JPEG of quality 40;
- ``crop 90%``: 90% of each side, at a place drawn at random, kept as PNG;
- ``mirrored``: left to right, kept as PNG;
- ``colour shift``: brightness + 10%, then red + 6% and blue - 6%, kept as PNG.

Recall is the share of planted copies that are paired with their original. Each pair that was not planted counts as
wrong, though photos have real near duplicates: ``--sheet`` draws those that were found. The precision of a kind is that
of the pairs among the originals and the copies of this kind. The alternatives get the same files, imagehash with a
distance of 5, and both also with the threshold that has the best F1 for half size and JPEG 40 on the reported pictures
themselves, which favours them. Times include reading all files; ours are also given for a store, which has hashes and
vectors already.

The scale part makes 100,000 items from these hashes and vectors with noise and says what finding their pairs takes, in
a process of its own. The graph of vectors is there before, as in a store.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from mmsearch.curation.near import KINDS, Pairs, near_pairs, thumbnail
from mmsearch.encoders import load_encoder
from mmsearch.files import read_bytes
from mmsearch.images import MAX_BYTES, OpenedPicture, open_picture
from mmsearch.index import ExactIndex, HNSWIndex
from mmsearch.overlap import ahead, batches, n_cores
from mmsearch.perceptual import ColourGrids, ShapeHashes, hamming, split
from mmsearch.recommenders.itemvectors import ItemVectors
from mmsearch.sources import open_source
from mmsearch.types import Keys, Picture, Vectors

ORIGINALS, COPIES, QUALITY, NEIGHBOURS = 3_000, 300, 40, 10
MOST_BITS = 14
"""Above it, unrelated photos are paired by the ten thousand."""
IMAGEHASH_BITS = 5
"""Bits that its documentation takes for alike in its example."""
TARGET_PRECISION, TARGET_RECALL, TARGET_SECONDS, TARGET_GB = 0.98, 0.95, 60.0, 2.0
Couple: TypeAlias = frozenset[str]
Found = dict[Couple, str]
"""Pairs of file names, with the kind that was found."""


def main() -> None:
    """Print the tables and one line of JSON."""
    parser = argparse.ArgumentParser(description="near duplicates: planted copies, alternatives, scale")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--half", choices=("tuning", "report"), default="report")
    parser.add_argument("--items", type=int, default=100_000, help="of the scale part; 0 leaves it out")
    parser.add_argument("--sheet", type=Path, help="draw what was found by all we have and was not planted")
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        world = World.made(options.data, Path(folder), options.half)
        print(f"{options.data.name}, {options.half}: {len(world.names)} pictures, {len(world.planted)} planted copies")
        hashed = Hashed.of(world)
        results = {}
        for name, found, taken in chain(ours(world, hashed), theirs(world)):
            results[name] = row(world, name, found, taken)
            if options.sheet and name == LOOK:
                draw(world, found, options.sheet)
        if options.items:
            results["scale"] = scale(hashed, options.items)
    print(json.dumps({"data": options.data.name, "half": options.half, "results": results}))


# Pictures -----------------------------------------------------------------------------------------------------------


def half_size(image: Image.Image, _random: np.random.Generator) -> Image.Image:
    """Half of each side."""
    return image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS)


def cropped(image: Image.Image, random: np.random.Generator) -> Image.Image:
    """Nine tenths of each side, anywhere."""
    wide, high = round(0.9 * image.width), round(0.9 * image.height)
    left, top = (int(random.integers(room + 1)) for room in (image.width - wide, image.height - high))
    return image.crop((left, top, left + wide, top + high))


def mirror(image: Image.Image, _random: np.random.Generator) -> Image.Image:
    """Left to right."""
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def shifted(image: Image.Image, _random: np.random.Generator) -> Image.Image:
    """Brighter and warmer."""
    levels = np.asarray(image, dtype=np.float64) * 1.1 * (1.06, 1.0, 0.94)
    return Image.fromarray(np.rint(levels).clip(0, 255).astype(np.uint8))


def unchanged(image: Image.Image, _random: np.random.Generator) -> Image.Image:
    """The change is in how it is kept."""
    return image


Change: TypeAlias = Callable[[Image.Image, np.random.Generator], Image.Image]
CHANGES: Mapping[str, Change] = {
    "half size": half_size,
    f"JPEG {QUALITY}": unchanged,
    "crop 90%": cropped,
    "mirrored": mirror,
    "colour shift": shifted,
}
MUST = ("half size", f"JPEG {QUALITY}")


@dataclass(frozen=True)
class World:
    """Files in a folder: originals and planted copies of some."""

    folder: Path
    names: Sequence[str]
    kinds: Mapping[str, str]
    """Of each planted copy, by its name."""
    planted: Mapping[Couple, str]
    """Of each original with its copy."""

    @classmethod
    def copy_name(cls, number: int, kind: str) -> str:
        """How a copy's file is called."""
        return f"{number:05d} {kind.split()[0]}.{'jpg' if kind.startswith('JPEG') else 'png'}"

    @classmethod
    def made(cls, data: Path, folder: Path, half: str) -> World:
        """Write the files."""
        paths = [entry.path for entry in open_source(data).entries() if entry.path]
        order = np.random.default_rng(0).permutation(len(paths))
        middle = len(paths) // 2
        chosen = (order[:middle] if half == "tuning" else order[middle:])[:ORIGINALS]
        names, kinds, planted = [], {}, {}
        for number, place in enumerate(chosen):
            path = paths[place]
            name = f"{number:05d}{path.suffix}"
            (folder / name).write_bytes(read_bytes(path, MAX_BYTES))
            names.append(name)
            if number < COPIES * len(CHANGES):
                kind = list(CHANGES)[number // COPIES]
                copy = cls.copy_name(number, kind)
                image = CHANGES[kind](open_picture(path).image, np.random.default_rng(number))
                image.save(folder / copy, quality=QUALITY)
                kinds[copy], planted[frozenset((name, copy))] = kind, kind
        return cls(folder, [*names, *kinds], kinds, planted)


@dataclass(frozen=True)
class Hashed:
    """What a store knows of the pictures, in the order of their names."""

    shapes: ShapeHashes
    colours: ColourGrids
    rows: ItemVectors
    seconds: float
    """For reading and hashing, without the vectors."""

    @classmethod
    def of(cls, world: World) -> Hashed:
        """Read the files twice: once timed for the hashes alone, then for the vectors."""
        encoder = load_encoder("mini")
        paths = [world.folder / name for name in world.names]
        start = time.perf_counter()
        shapes, colours = split([picture.perceptual for picture in ahead(open_picture, paths, 64)])
        taken = time.perf_counter() - start

        def prepared(path: Path) -> Picture:
            return encoder.prepare(open_picture(path).image)

        parts = [encoder.encode_images(batch) for batch in batches(ahead(prepared, paths, 64), 64)]
        return cls(shapes, colours, ItemVectors(np.concatenate(parts).astype(np.float16), centred=False), taken)

    def neighbours(self) -> Callable[[Keys], list[Keys]]:
        """The exact nearest."""
        every = np.arange(len(self.rows))
        index = ExactIndex(self.rows.dim)
        index.add(every, self.rows.take(every))
        return lambda asked: [one.keys for one in index.search(self.rows.take(asked), NEIGHBOURS + 1)]


# Ways ---------------------------------------------------------------------------------------------------------------

LOOK = "ours: hashes, vectors, pixels"


def ours(world: World, hashed: Hashed) -> Iterator[tuple[str, Found, str]]:
    """Four ways to ask, by what is at hand; all look for mirrored copies too."""

    def look(asked: Keys) -> NDArray[np.uint8]:
        paths = [world.folder / world.names[position] for position in asked]
        return np.stack([thumbnail(picture.image) for picture in ahead(open_picture, paths, 64)])

    find = partial(near_pairs, hashed.shapes, hashed.colours, mirrored=True)
    with_vectors = partial(find, hashed.rows, hashed.neighbours())
    ways: dict[str, Callable[[], Pairs]] = {
        "ours: hashes": find,
        "ours: hashes, vectors": with_vectors,
        "ours: hashes, pixels": partial(find, look=look),
        LOOK: partial(with_vectors, look=look),
    }
    for name, way in ways.items():
        start = time.perf_counter()
        pairs = way()
        taken = time.perf_counter() - start
        yield name, named(world, pairs), f"{taken:.1f} s of a store; {hashed.seconds + taken:.1f} s with hashing"


def named(world: World, pairs: Pairs) -> Found:
    """Pairs by file names."""
    couples = zip(pairs.first.tolist(), pairs.second.tolist(), pairs.kind.tolist(), strict=True)
    return {frozenset((world.names[one], world.names[other])): KINDS[kind] for one, other, kind in couples}


def theirs(world: World) -> Iterator[tuple[str, Found, str]]:
    """The alternatives, by default and at their best."""
    for name, hasher, default in (("imagededup", dedup_hashes, 10), ("imagehash", image_hashes, IMAGEHASH_BITS)):
        start = time.perf_counter()
        hashes = hasher(world)
        pairs = dedup_pairs(world, hashes, default) if hasher is dedup_hashes else close(world, hashes, default)
        yield f"{name} PHash, at {default}", pairs, f"{time.perf_counter() - start:.1f} s with hashing"
        by_threshold = [close(world, hashes, bits) for bits in range(MOST_BITS + 1)]
        best = int(np.argmax([f1(world, pairs) for pairs in by_threshold]))
        yield f"{name} PHash, best: at {best}", by_threshold[best], ""


def dedup_hashes(world: World) -> ShapeHashes:
    """The hashes of imagededup, with as many processes as there are cores."""
    from imagededup.methods import PHash

    found = PHash(verbose=False).encode_images(world.folder, num_enc_workers=n_cores())
    return np.array([int(found[name], 16) for name in world.names], dtype=np.uint64)


def image_hashes(world: World) -> ShapeHashes:
    """The hashes of imagehash, one after the other: it has no other way."""
    import imagehash

    found = []
    for name in world.names:
        with Image.open(world.folder / name) as image:
            found.append(int(str(imagehash.phash(image)), 16))
    return np.array(found, dtype=np.uint64)


def dedup_pairs(world: World, hashes: ShapeHashes, bits: int) -> Found:
    """What its own search finds."""
    from imagededup.methods import PHash

    codes = {one: f"{int(value):016x}" for one, value in zip(world.names, hashes, strict=True)}
    told = PHash(verbose=False).find_duplicates(encoding_map=codes, max_distance_threshold=bits, num_enc_workers=0)
    return {frozenset((one, other)): "near" for one, others in told.items() for other in others}


def close(world: World, hashes: ShapeHashes, bits: int) -> Found:
    """Every pair of hashes that differ in at most so many bits."""
    names, found = np.array(world.names), Found()
    for place, own in enumerate(hashes):
        others = names[place + 1 :][hamming(hashes[place + 1 :], own) <= bits].tolist()
        found |= {frozenset((names[place].item(), other)): "near" for other in others}
    return found


# Figures ------------------------------------------------------------------------------------------------------------


def f1(world: World, found: Found) -> float:
    """F1 among the originals and the copies of the kinds that must be found."""
    mine = among(world, found, MUST)
    right = sum(couple in world.planted for couple in mine)
    return 2 * right / (len(mine) + len(MUST) * COPIES)


def among(world: World, found: Found, kinds: Sequence[str]) -> list[Couple]:
    """The pairs found without those that copies of other kinds are in."""
    return [couple for couple in found if all(world.kinds.get(name, kinds[0]) in kinds for name in couple)]


def row(world: World, name: str, found: Found, taken: str) -> dict[str, float]:
    """Print and return recall and precision, for each kind and in all."""
    right = [world.planted[couple] for couple in found if couple in world.planted]
    wrong = len(found) - len(right)
    figures = {"pairs": float(len(found)), "wrong": float(wrong), "precision": len(right) / max(1, len(found))}
    print(f"\n{name}: {len(found)} pairs, {wrong} not planted, precision {figures['precision']:.4f}   {taken}")
    for kind in CHANGES:
        n_right, n_found = right.count(kind), len(among(world, found, [kind]))
        recall, precision = n_right / COPIES, n_right / max(1, n_found)
        figures |= {f"{kind}, recall": recall, f"{kind}, precision": precision}
        target = f"   target {TARGET_RECALL} and {TARGET_PRECISION}" if kind in MUST else ""
        print(f"  {kind:14} recall {recall:.3f}   precision {precision:.3f}{target}", flush=True)
    return figures


def draw(world: World, found: Found, file: Path, side: int = 160) -> None:
    """Draw up to 60 pairs that were not planted, for people to judge."""
    wrong = sorted(sorted(couple) for couple in found if couple not in world.planted)[:60]
    sheet = Image.new("RGB", (4 * (2 * side + 10), (len(wrong) + 3) // 4 * (side + 14) or 1), "white")
    for place, couple in enumerate(wrong):
        left, top = place % 4 * (2 * side + 10), place // 4 * (side + 14)
        told = f"{', '.join(couple)}: {found[frozenset(couple)]}"
        ImageDraw.Draw(sheet).text((left, top), told, fill="black")
        for at, name in enumerate(couple):
            picture: OpenedPicture = open_picture(world.folder / name)
            sheet.paste(picture.image.resize((side, side)), (left + at * side, top + 14))
    sheet.save(file)
    print(f"\n{len(wrong)} pairs that were not planted are drawn in {file}")


# Scale --------------------------------------------------------------------------------------------------------------


def scale(hashed: Hashed, n: int) -> dict[str, float]:
    """Time and memory for many items, in a process of its own, whose peak is all theirs."""
    vectors = hashed.rows.take(np.arange(len(hashed.rows)))
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        figures = pool.submit(measured, hashed.shapes, hashed.colours, vectors, n).result()
    print(f"\n{n} items made of {len(vectors)}, on {n_cores()} cores (targets: {TARGET_SECONDS} s, {TARGET_GB} GB)")
    for name, value in figures.items():
        print(f"  {name:44} {value:10.2f}")
    return figures


def measured(shapes: ShapeHashes, colours: ColourGrids, vectors: Vectors, n: int) -> dict[str, float]:
    """Make the items and find their pairs, first without vectors.

    One in ten is a copy of the item before it, with up to 4 bits, 2 levels and some noise in its vector off; the
    others have 12 bits of a real picture flipped and a vector as far from it as other pictures are.
    """
    random = np.random.default_rng(0)
    source = random.integers(len(shapes), size=n)
    many, grids = shapes[source].copy(), colours[source].astype(np.int64) + random.integers(-20, 21, (n, 32))
    copies = np.arange(9, n, 10)
    for _ in range(12):
        many ^= np.uint64(1) << random.integers(64, size=n, dtype=np.uint64)
    rows = vectors[source] + random.normal(scale=1.0 / np.sqrt(vectors.shape[1]), size=(n, vectors.shape[1]))
    many[copies], grids[copies] = many[copies - 1], grids[copies - 1] + random.integers(-2, 3, (len(copies), 32))
    for _ in range(4):
        many[copies] ^= np.uint64(1) << random.integers(64, size=len(copies), dtype=np.uint64)
    rows[copies] = rows[copies - 1] + random.normal(scale=0.02, size=(len(copies), vectors.shape[1]))
    return timed(many, grids.clip(0, 255).astype(np.uint8), ItemVectors(rows.astype(np.float16), centred=False), copies)


def timed(shapes: ShapeHashes, colours: ColourGrids, rows: ItemVectors, copies: Keys) -> dict[str, float]:
    """Seconds and gigabytes, and the share of the copies that were paired."""
    figures: dict[str, float] = {}

    def run(name: str, find: Callable[[], Pairs]) -> None:
        start = time.perf_counter()
        pairs = find()
        figures[f"{name}: seconds"] = time.perf_counter() - start
        figures[f"{name}: copies found"] = float(np.isin(copies, pairs.second[pairs.second - pairs.first == 1]).mean())
        figures[f"{name}: pairs"] = float(len(pairs))
        figures[f"{name}: peak GB so far"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20

    run("hashes", partial(near_pairs, shapes, colours))
    run("hashes, mirrored too", partial(near_pairs, shapes, colours, mirrored=True))
    index = HNSWIndex(rows.dim)
    start = time.perf_counter()
    index.add(np.arange(len(rows)), rows.take(np.arange(len(rows))))
    figures["making the graph, not counted: seconds"] = time.perf_counter() - start

    def neighbours(asked: Keys) -> list[Keys]:
        return [one.keys for one in index.search(rows.take(asked), NEIGHBOURS + 1)]

    run("hashes, vectors", partial(near_pairs, shapes, colours, rows, neighbours))
    return figures


if __name__ == "__main__":
    main()
