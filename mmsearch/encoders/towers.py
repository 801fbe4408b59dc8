"""What every two-tower encoder does, whatever runs the towers: batches, memory, checks, splitting of texts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from mmsearch.encoders.spec import PROBE_TEXTS, EncoderSpec, probe_pixels
from mmsearch.encoders.tokenizer import check_text
from mmsearch.errors import InvalidInput, ModelBroken
from mmsearch.types import Cells, Picture, Pixels, Vectors

Input = TypeVar("Input", NDArray[np.int64], Pixels)

CHECK_COSINE = 0.999
"""Least cosine of a check vector to its reference; runtimes and devices differ by less than this."""


class TowerEncoder(ABC):
    """An ``Encoder`` over a text tower and an image tower that a subclass runs."""

    batch_size = 8

    def __init__(self, spec: EncoderSpec, runtime: str) -> None:
        self.spec = spec
        self.name = spec.name
        self.dim = spec.dim
        self.licence = spec.licence
        self.fingerprint = spec.fingerprint
        self.runtime = runtime
        self.image_size = max(spec.preprocess.size)
        self.n_cells, self.cell_dim = spec.cells

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """Texts to unit rows, (n, dim) float32; what exceeds the context is cut off."""
        ids = self.tokenize([check_text(text) for text in texts])
        return self._in_batches(self.run_texts, ids, self.batch_size * 4)

    def encode_images(self, images: Sequence[Picture]) -> Vectors:
        """Pictures, or the pixels that ``prepare`` made of them, to unit rows, (n, dim) float32."""
        if not images:
            return np.zeros((0, self.dim), dtype=np.float32)
        return self._in_batches(self.run_images, np.stack([self.prepare(image) for image in images]), self.batch_size)

    def encode_cells(self, images: Sequence[Picture]) -> Cells:
        """Pictures to unit rows per cell, (n, n_cells, cell_dim) float32, row by row from the top left.

        Raises
        ------
        InvalidInput
            If the model has no cells (``n_cells`` is 0).
        """
        if not self.n_cells:
            raise InvalidInput(f"the encoder {self.name!r} has no cells")
        pixels = np.stack([self.prepare(image) for image in images])
        return self._in_batches(self.run_cells, pixels, self.batch_size)

    def prepare(self, image: Picture) -> Pixels:
        """Resize and crop to what the image tower reads, (height, width, 3) uint8."""
        return self.spec.preprocess(image)

    @abstractmethod
    def tokenize(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Texts to token ids, (n, context) int64."""

    @abstractmethod
    def split_text(self, text: str) -> list[str]:
        """Pieces of a text that each fit the context, in order; one piece if it fits whole."""

    @abstractmethod
    def run_texts(self, ids: NDArray[np.int64]) -> Vectors:
        """Token ids, (n, context), through the text tower to (n, dim) float32 unit rows."""

    @abstractmethod
    def run_images(self, pixels: Pixels) -> Vectors:
        """Pixels, (n, height, width, 3) uint8, through the image tower to (n, dim) float32 unit rows."""

    @abstractmethod
    def run_cells(self, pixels: Pixels) -> Cells:
        """Pixels, (n, height, width, 3) uint8, to (n, n_cells, cell_dim) float32 unit rows."""

    def check_vectors(self) -> tuple[Vectors, Vectors]:
        """What the towers make of the probe texts and the probe picture: (3, dim) and (1, dim)."""
        pixels = probe_pixels(*self.spec.preprocess.size)
        return self.run_texts(self.tokenize(PROBE_TEXTS)), self.run_images(pixels[None])

    def _in_batches(self, run: Callable[[Input], Vectors], rows: Input, size: int) -> Vectors:
        """Run batch by batch; a batch that does not fit into memory is halved, and the smaller size is kept."""
        parts, first = [], 0
        while first < len(rows):
            try:
                parts.append(run(rows[first : first + size]))
                first += size
            except Exception as error:
                if size == 1 or not is_out_of_memory(error):
                    raise
                size = self.batch_size = max(1, size // 2)
        return np.concatenate(parts) if parts else np.zeros((0, self.dim), dtype=np.float32)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of NumPy, torch or ONNX Runtime says that memory ran out."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "failed to allocate" in text


def check_tower(name: str, tower: str, vectors: Vectors, reference: Vectors | None) -> None:
    """See that a tower gives finite unit rows that differ, and the reference's where there is one.

    Raises
    ------
    ModelBroken
        Otherwise, naming what is wrong and what to do.
    """
    fault = _fault(vectors, reference)
    if fault:
        raise ModelBroken(
            f"the {tower} tower of {name!r} {fault}: its weights or its cached export are damaged; "
            "run `mmsearch doctor`, or fetch the model again"
        )


def _fault(vectors: Vectors, reference: Vectors | None) -> str | None:
    if not np.isfinite(vectors).all():
        return "gives NaN or infinity"
    if np.abs(np.linalg.norm(vectors, axis=1) - 1.0).max() > 1e-2:
        return "does not give unit vectors"
    if len(vectors) > 1 and np.ptp(vectors, axis=0).max() < 1e-4:
        return "gives the same vector for different inputs"
    if reference is not None:
        cosine = float((vectors * reference).sum(axis=1).min())
        if cosine < CHECK_COSINE:
            return f"answers differently from when it was stored (cosine {cosine:.4f}, expected {CHECK_COSINE})"
    return None
