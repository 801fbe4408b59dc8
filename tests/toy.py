"""A toy world whose answers are known: four colours, three shapes, and an encoder that sees both.

Tests get this module as the fixture ``toy``: with ``--import-mode=importlib`` they cannot import it by name.
"""

import hashlib
import itertools
import json
import os
import random
import re
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

COLOURS = {"red": (255, 0, 0), "green": (0, 160, 0), "blue": (0, 0, 255), "yellow": (255, 255, 0)}
SHAPES = ("disc", "square", "triangle")
KINDS = tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)
DIM = 32
WINDOW = 8
"""Words that the toy encoder reads of a text; longer texts are split."""

_TEXT_AXIS, _PICTURE_AXIS, _FREE = 7, 8, 9
_MINUTES = itertools.count()


def image_of(kind, n=0):
    """A filled shape on white; every ``n`` is another picture of its kind."""
    colour, shape = kind.split()
    chance = random.Random(f"{kind} {n}")
    side, shade = chance.randrange(30, 46), chance.randrange(30)
    left, top = chance.randrange(2, 62 - side), chance.randrange(2, 62 - side)
    right, bottom = left + side, top + side
    fill = tuple(abs(level - shade) for level in COLOURS[colour])
    image = Image.new("RGB", (64, 64), "white")
    draw = ImageDraw.Draw(image)
    if shape == "disc":
        draw.ellipse((left, top, right, bottom), fill=fill)
    elif shape == "square":
        draw.rectangle((left, top, right, bottom), fill=fill)
    else:
        draw.polygon([(left, bottom), (right, bottom), ((left + right) // 2, top)], fill=fill)
    image.putpixel((0, 0), (255, 255 - n % 100, 255 - n // 100))
    return image


def png_of(kind, n=0):
    """The bytes of a PNG file of ``image_of``."""
    buffer = BytesIO()
    image_of(kind, n).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def write(path, data):
    """Write a file, each later than the one before, as if a person had: no two writes share an mtime."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    touch(path)
    return path


def touch(path):
    """Give a file a new time of change."""
    when = 1_700_000_000 + 60 * next(_MINUTES)
    os.utime(path, (when, when))


def draw(path, kind, n=0):
    """Write a picture file."""
    return write(path, png_of(kind, n))


def draw_all(folder, kinds=KINDS, each=5):
    """Write ``each`` pictures of each kind, named for what they show: ``red disc 0.png``."""
    for kind in kinds:
        for n in range(each):
            draw(folder / f"{kind} {n}.png", kind, n)
    return folder


def dataset(folder, rows):
    """Write the ``items.jsonl`` of a dataset folder."""
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    return write(folder / "items.jsonl", "\n".join(lines).encode()).parent


def ids(hits):
    """The ids of hits, in their order."""
    return [hit.item.id for hit in hits]


def kind_of(item):
    """What an item that is named for its kind shows: ``red disc 0.png`` -> ``red disc``."""
    return " ".join(item.id.rpartition("/")[2].split()[:2])


class ToyEncoder:
    """Reads colour and shape words, and sees colours and shapes in pixels.

    Texts lie nearer to each other than to pictures, as in CLIP: each kind of input has an axis of its own. A little
    of each vector is a hash of the input, so that two pictures of a kind are close but not the same.

    Parameters
    ----------
    seed
        Another seed is another space of the same width, with another fingerprint.
    hook
        Called with ``text`` or ``picture``, the inputs and their rows, which it may spoil; or it may raise.
    """

    def __init__(self, seed: int = 0, hook: Callable | None = None, name: str = "toy") -> None:
        self.name = name
        self.dim = DIM
        self.fingerprint = f"toy-{seed}-{DIM}"
        self.licence = "Apache-2.0"
        self.runtime = "python"
        self.image_size = 32
        self.seed = seed
        self.hook = hook
        self.texts_read = 0
        self.pictures_read = 0

    def encode_texts(self, texts):
        self.texts_read += len(texts)
        return self._rows("text", texts, [self._text(text) for text in texts])

    def encode_images(self, images):
        self.pictures_read += len(images)
        return self._rows("picture", images, [self._picture(self.prepare(image)) for image in images])

    def prepare(self, image):
        return np.asarray(image)

    def split_text(self, text):
        words = text.split()
        return [" ".join(words[start : start + WINDOW]) for start in range(0, len(words), WINDOW)] or [text]

    def _rows(self, kind, inputs, vectors):
        rows = np.stack(vectors).astype(np.float32)
        if self.hook is not None:
            self.hook(kind, inputs, rows)
        return rows

    def _text(self, text):
        words = re.findall("[a-z]+", text.lower())
        meaning = np.zeros(DIM)
        for number, word in enumerate((*COLOURS, *SHAPES)):
            meaning[number] = word in words
        if not meaning.any():  # texts about other things are near to those that share words
            meaning = sum((_noise(word.encode()) for word in words), _noise(b"about"))
        return self._vector(meaning, _TEXT_AXIS, text.encode("utf-8", "replace"))

    def _picture(self, pixels):
        meaning = np.zeros(DIM)
        filled = (pixels < 128).any(axis=2)
        if filled.any():
            colour = pixels[filled].mean(axis=0)
            distances = [np.abs(colour - other).sum() for other in COLOURS.values()]
            rows, columns = np.flatnonzero(filled.any(axis=1)), np.flatnonzero(filled.any(axis=0))
            share = filled.sum() / ((rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1))
            meaning[int(np.argmin(distances))] = 1
            meaning[4 + (1 if share > 0.89 else 0 if share > 0.64 else 2)] = 1
        else:
            meaning = _noise(pixels.tobytes())
        return self._vector(meaning, _PICTURE_AXIS, pixels.tobytes())

    def _vector(self, meaning, axis, data):
        vector = meaning / np.linalg.norm(meaning)
        vector[axis] += 1
        vector += 0.15 * _noise(data)
        return np.roll(vector / np.linalg.norm(vector), self.seed)


def _noise(data):
    digest = hashlib.blake2b(data, digest_size=8).digest()
    vector = np.zeros(DIM)
    vector[_FREE:] = np.random.default_rng(int.from_bytes(digest, "big")).normal(size=DIM - _FREE)
    return vector / np.linalg.norm(vector)


def vector_of(file: Path, encoder):
    """What an encoder makes of a picture file."""
    with Image.open(file) as image:
        return encoder.encode_images([image.convert("RGB")])[0]


def check_against_files(engine, encoder, files):
    """Assert that a store holds exactly these picture files, each with the vector of what it shows now."""
    items = {item.path: item for item in engine.items()}
    assert sorted(items) == sorted(files)
    assert len(engine) == len(files)
    ids, rows = engine.vectors(field="picture")
    stored = dict(zip(ids, rows, strict=True))
    assert len(stored) == len(files)
    for file in files:
        np.testing.assert_allclose(stored[items[file].id], vector_of(file, encoder), atol=2e-3, err_msg=str(file))
