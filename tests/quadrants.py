"""A toy world with regions and cells: pictures of four coloured quadrants, and an encoder that sees which is where."""

import hashlib
import itertools
import re
from io import BytesIO

import numpy as np
from PIL import Image

from mmsearch import Item
from mmsearch.types import Words

COLOURS = {"red": (255, 0, 0), "green": (0, 160, 0), "blue": (0, 0, 255), "yellow": (255, 255, 0)}
CORNERS = ("top left", "top right", "bottom left", "bottom right")
DIM, CELL_DIM, CONTEXT = 16, 8, 8
SIDE = 60

_TEXT_AXIS, _PICTURE_AXIS, _FREE = 4, 5, 6


def mosaic(corners, n=0):
    """A picture of four quadrants, from the top left to the bottom right: ``red white white blue``."""
    image = Image.new("RGB", (SIDE, SIDE), "white")
    half = SIDE // 2
    for place, colour in enumerate(corners.split()):
        top, left = divmod(place, 2)
        image.paste(
            COLOURS.get(colour, (255, 255, 255)), (left * half, top * half, (left + 1) * half, (top + 1) * half)
        )
    image.putpixel((SIDE // 2, SIDE // 2), (250 - n % 100, 250 - n // 100, 250))
    return image


def png(image):
    """The bytes of a PNG file."""
    buffer = BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def items(n=40):
    """Pictures of many mosaics: one twice, every fourth with a text; and ten texts without a picture."""
    kinds = list(itertools.product(COLOURS, repeat=4))[:: 256 // n][:n]
    found = [
        Item(id=f"p{i:02}", image=png(mosaic(" ".join(kind))), text=f"a {kind[0]} thing {i}" if i % 4 == 0 else None)
        for i, kind in enumerate(kinds)
    ]
    texts = [Item(id=f"t{i}", text=f"{colour} paint, number {i}") for i, colour in enumerate([*COLOURS, *COLOURS])]
    long = Item(id="long", text="nothing of note is said here at all " * 3 + "until a red and blue flag")
    return [*found, Item(id="copy", image=png(mosaic(" ".join(kinds[1])))), *texts, long, Item(id="odd", text="!!!")]


class QuadrantEncoder:
    """Counts colours in pictures, and reads the names of colours; knows of each quadrant alone.

    Parameters
    ----------
    seed
        Another seed is another space, with another fingerprint.
    closer
        Whether pictures are read more closely for their cells, which gives them an eighth view.
    """

    def __init__(self, seed=0, closer=True):
        self.name, self.dim, self.licence, self.runtime = "quadrants", DIM, "Apache-2.0", "python"
        self.fingerprint = f"quadrants-{seed}-{closer}"
        self.seed = seed
        self.image_size = 32
        self.n_cells, self.cell_dim, self.cell_size = 4, CELL_DIM, 64 if closer else 32
        self.texts_read = 0

    def encode_texts(self, texts):
        self.texts_read += len(texts)
        return np.stack([self._text(text) for text in texts]).astype(np.float32)

    def encode_images(self, images):
        return np.stack([self._picture(np.asarray(image)) for image in images]).astype(np.float32)

    def prepare(self, image):
        return np.asarray(image)

    def split_text(self, text):
        words = text.split()
        return [" ".join(words[start : start + CONTEXT]) for start in range(0, len(words), CONTEXT)] or [text]

    def prepare_cells(self, image):
        return np.asarray(Image.fromarray(np.asarray(image)).resize((self.cell_size, self.cell_size), 0))

    def encode_cells(self, images):
        pictures = [self.prepare_cells(image) for image in images]
        half = self.cell_size // 2
        cells = [
            [
                unit(np.append(shares(picture[y : y + half, x : x + half]), [0, 0, 0, 0.1]))
                for y in (0, half)
                for x in (0, half)
            ]
            for picture in pictures
        ]
        cells = np.roll(np.array(cells, dtype=np.float32), self.seed, axis=2)
        return self.encode_images(pictures), cells

    def encode_words(self, texts):
        return [self._words(text) for text in texts]

    def _words(self, text):
        words = tuple(re.findall("[a-z]+", text.lower())[:CONTEXT])
        rows = np.zeros((len(words), CELL_DIM), dtype=np.float32)
        for row, word in zip(rows, words, strict=True):
            row[:] = np.roll(unit(np.array([*(word == colour for colour in COLOURS), 0, 0, 0.1, 0.0])), self.seed)
        return Words(words, np.arange(len(words)), rows)

    def _text(self, text):
        words = re.findall("[a-z]+", text.lower())
        meaning = np.array([words.count(colour) for colour in COLOURS], dtype=np.float64)
        return self._vector(meaning, _TEXT_AXIS, text.encode("utf-8", "replace"))

    def _picture(self, pixels):
        return self._vector(shares(pixels), _PICTURE_AXIS, pixels.tobytes())

    def _vector(self, meaning, axis, data):
        vector = np.zeros(DIM)
        vector[:4] = unit(meaning) if meaning.any() else 0
        vector[axis] += 0.5
        chance = np.random.default_rng(int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big"))
        vector[_FREE:] += 0.1 * unit(chance.normal(size=DIM - _FREE))
        return np.roll(unit(vector), self.seed)


def shares(pixels):
    """How much of a picture has each colour, (4,)."""
    flat = pixels.reshape(-1, 3).astype(np.int64)
    return np.array([(np.abs(flat - colour).sum(axis=1) < 60).mean() for colour in COLOURS.values()])


def unit(vector):
    """A vector of length 1."""
    return vector / np.linalg.norm(vector)
