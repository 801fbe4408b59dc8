"""Indexing a folder, against the plain open_clip loop on the same pictures, in one run.

The plain loop is what one writes first: ``Image.open``, open_clip's own transform, the eager model, in batches of the
same size. Ours is all of ``Engine.add_folder``: reading, checking, hashing, reduced decoding, encoding, storing and
committing. Two folders: photographs of 4000x3000 pixels, and files of 224x224::

    python benchmarks/encode.py [--large 48] [--small 600] [--batch 8]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from mmsearch import Engine, load_encoder
from mmsearch.encoders.builtin import mini_folder
from mmsearch.gallery import gallery_folder
from mmsearch.images import open_picture
from mmsearch.sources import open_source


def main() -> None:
    """Make both folders, time both ways in turn, print rates and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--large", type=int, default=48, help="pictures of 4000x3000")
    parser.add_argument("--small", type=int, default=600, help="pictures of 224x224")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    load_encoder("mini")  # the export is made once, outside the timing
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_pictures(root / "large", options.large, (4000, 3000), 90)
        make_pictures(root / "small", options.small, (224, 224), 90)
        for name in ("large", "small"):
            compare(root / name, options.batch, options.rounds)


def make_pictures(folder: Path, n: int, size: tuple[int, int], quality: int) -> None:
    """Write n different JPEGs of a size: the gallery's photographs, enlarged, with grain as a sensor gives."""
    folder.mkdir()
    photos = [entry.path for entry in open_source(gallery_folder()).entries() if entry.metadata.get("kind") == "photo"]
    rng = np.random.default_rng(0)
    grain = Image.effect_noise((1024, 1024), 24).resize(size) if size[0] > 1024 else None
    for number in range(n):
        path = photos[number % len(photos)]
        assert path is not None
        image = open_picture(path).image
        left, top = (int(rng.integers(0, max(1, side // 10))) for side in image.size)
        image = image.crop((left, top, *image.size)).resize(size, Image.Resampling.BICUBIC)
        if grain is not None:
            image = Image.blend(image.filter(ImageFilter.SHARPEN), grain.convert("RGB"), 0.06)
        buffer = BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        (folder / f"{number:05}.jpg").write_bytes(buffer.getvalue())


def compare(folder: Path, batch: int, rounds: int) -> None:
    """Time both ways in turn; the ratio is that of the medians."""
    files = sorted(folder.iterdir())
    megabytes = sum(file.stat().st_size for file in files) / 1e6
    plain, ours, cosines = [], [], np.zeros(0)
    for _ in range(rounds):
        seconds, reference = plain_loop(files, batch)
        plain.append(seconds)
        seconds, vectors = with_mmsearch(folder, batch)
        ours.append(seconds)
        cosines = (reference * vectors).sum(axis=1)
    rates = [len(files) / float(np.median(times)) for times in (plain, ours)]
    size = Image.open(files[0]).size
    print(f"{len(files)} JPEGs of {size[0]}x{size[1]}, {megabytes:.0f} MB, batches of {batch}")
    print(f"  plain open_clip loop  {rates[0]:7.1f} pictures/s")
    print(f"  mmsearch add_folder   {rates[1]:7.1f} pictures/s")
    print(f"  ratio                 {rates[1] / rates[0]:7.2f}   (target: 3 or more)")
    print(f"  cosine of the vectors {cosines.min():7.4f} at least, {np.median(cosines):.4f} median\n")


def plain_loop(files: Sequence[Path], batch: int) -> tuple[float, np.ndarray]:
    """The loop that one writes first: seconds, and (n, dim) unit rows."""
    import open_clip
    import torch

    model, transform = open_clip.create_model_from_pretrained(f"local-dir:{mini_folder()}")
    model = model.float().eval()
    rows = []
    start = time.perf_counter()
    with torch.inference_mode():
        for first in range(0, len(files), batch):
            pixels = torch.stack([transform(Image.open(file)) for file in files[first : first + batch]])
            rows.append(model.encode_image(pixels, normalize=True).numpy())
    return time.perf_counter() - start, np.concatenate(rows)


def with_mmsearch(folder: Path, batch: int) -> tuple[float, np.ndarray]:
    """``add_folder`` into a fresh store: seconds, and (n, dim) unit rows in the files' order."""
    encoder = load_encoder("mini")
    encoder.batch_size = batch
    encoder.encode_images([Image.new("RGB", (224, 224))])  # the model is loaded, as in the plain loop
    with tempfile.TemporaryDirectory() as store, Engine.open(store, encoder) as engine:
        start = time.perf_counter()
        engine.add_folder(folder)
        seconds = time.perf_counter() - start
        return seconds, engine.vectors(sorted(file.name for file in folder.iterdir()))[1]


if __name__ == "__main__":
    main()
