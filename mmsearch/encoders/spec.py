"""What an encoder is, apart from where it runs: its name, width, preprocessing and fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmsearch.encoders.preprocess import Preprocess
from mmsearch.types import Pixels

PROBE_TEXTS = (
    "a photo of a dog",
    "Två röda cyklar (2 st.) vid havet, 1.50 €!",
    "ONE two-three 'four' don't 12345 @#% 日本語 🙂",
)
"""Texts whose tokens and vectors tell encoders apart and check that they work."""


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    """The facts of an encoder that its runtimes share; saved as JSON beside an export."""

    name: str
    dim: int
    context: int
    licence: str
    weights: str
    tokenizer: str
    preprocess: Preprocess
    activation: str = "gelu"
    architecture: str = ""
    """Digest of what the weights do not show: heads, activations, pooling."""
    cells: tuple[int, int] = (0, 0)
    """Cells of a picture and numbers a cell, for late interaction; none for some models."""
    cell_size: int = 0
    """Pixels a side that are read for cells."""
    joint: tuple[int, int] = (0, 0)
    """Cells of a picture and numbers a cell, for the joint model; none for most models."""
    reranker: str = ""
    """Digest of the heads and the joint model that lie beside the weights."""

    @property
    def fingerprint(self) -> str:
        """Which space: equal fingerprints may share a store. The name is no part of it, nor the runtime.

        Nor are the cells and the joint model: they change no vector of a text or a picture.
        """
        shape = digest(json.dumps([asdict(self.preprocess), self.activation, self.architecture], sort_keys=True))
        return f"dim={self.dim} weights={self.weights} preprocess={shape} tokenizer={self.tokenizer}"

    def to_json(self) -> dict[str, Any]:
        """A dict that ``from_json`` reads back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> EncoderSpec:
        """Read what ``to_json`` made, after a trip through JSON."""
        pairs = {name: tuple(data[name]) for name in ("cells", "joint")}
        return cls(**{**data, **pairs, "preprocess": Preprocess.from_config(data["preprocess"])})


def digest(data: str | bytes) -> str:
    """Sixteen hexadecimal digits of SHA-256, enough to tell things apart."""
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()[:16]


def tokenizer_digest(tokenize: Callable[[Sequence[str]], NDArray[np.int64]]) -> str:
    """A tokenizer's fingerprint: what it makes of the probe texts."""
    return digest(np.ascontiguousarray(tokenize(PROBE_TEXTS), dtype=np.int64).tobytes())


def probe_pixels(height: int, width: int) -> Pixels:
    """A picture of this size that is the same everywhere: gradients and a few blocks, (height, width, 3) uint8."""
    rows, columns = np.mgrid[0:height, 0:width]
    red = rows * 255 // max(height - 1, 1)
    green = columns * 255 // max(width - 1, 1)
    blue = (rows * 8 // height + columns * 8 // width) % 2 * 255
    return np.stack([red, green, blue], axis=2).astype(np.uint8)
