"""What every two-tower encoder does, whatever runs the towers: batches, memory, checks, splitting of texts."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from mmsearch.encoders.spec import PROBE_TEXTS, EncoderSpec, probe_pixels
from mmsearch.encoders.tokenizer import check_text
from mmsearch.errors import InvalidInput, ModelBroken
from mmsearch.types import Cells, Picture, Pixels, Vectors, Words

Input = TypeVar("Input", NDArray[np.int64], Pixels, Cells)
Output = TypeVar("Output")

CHECK_COSINE = 0.999
"""Least cosine of a check vector to its reference; runtimes, devices and fp16 differ by less than this."""

REMEMBERED = 64
"""Texts whose words are kept four times over: those of the queries that are being answered."""


@dataclass(frozen=True, slots=True)
class Read:
    """What a text's tokens were read as.

    ``states``, (1, n_tokens, width) float32, the start and the end among them, are for the joint model; without one
    None.
    """

    words: Words
    states: NDArray[np.float32] | None


_OUT_OF_MEMORY = ("out of memory", "allocate memory", "failed to allocate", "bad allocation", "bad_alloc")
"""What CUDA and MPS, torch on the CPU, ONNX Runtime and C++ say."""


class TowerEncoder(ABC):
    """An ``Encoder`` over a text tower and an image tower that a subclass runs.

    ``batch_size`` pictures, or four times as many texts, are run at once where memory allows it.
    """

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
        self.cell_size = spec.cell_size
        self._cell_preprocess = replace(spec.preprocess, size=(spec.cell_size, spec.cell_size))
        self.joint = spec.joint
        self.joint_fingerprint = spec.reranker if spec.joint[0] else ""
        self._read: OrderedDict[str, Read] = OrderedDict()
        self._read_lock = threading.Lock()
        self._fitting: dict[str, int] = {}  # by tower: the largest batch that memory was found to hold

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """Texts to unit rows, (n, dim) float32; what exceeds the context is cut off.

        Raises
        ------
        InvalidInput
            For one str in place of a sequence, and for what is no str.
        """
        if isinstance(texts, str):  # a sequence of str too, of its letters
            raise InvalidInput(f"expected a list of texts, got one str: put it into a list, [{texts[:40]!r}]")
        ids = self.tokenize([check_text(text) for text in texts])
        if self.n_cells and 0 < len(texts) <= REMEMBERED:
            return self._read_together(texts, ids)[0]
        return self._in_batches("text", self.run_texts, ids, self.batch_size * 4)

    def encode_words(self, texts: Sequence[str]) -> list[Words]:
        """The words of each text, with a unit row a token in the space of the cells.

        Texts that were encoded a moment ago cost nothing: both come of one run.

        Raises
        ------
        InvalidInput
            If the model has no cells (``n_cells`` is 0).
        """
        if not self.n_cells:
            raise InvalidInput(f"the encoder {self.name!r} has no cells")
        return [read.words for read in self._read_texts(texts)]

    def match(self, text: str, cells: NDArray[np.float32]) -> NDArray[np.float32]:
        """How well a text goes with each of n pictures, as logits of the joint model, (n,) float32.

        A text that was encoded a moment ago is not read again.

        Parameters
        ----------
        cells
            What ``encode_joint`` gave, (n, n_cells, width) float32.

        Raises
        ------
        InvalidInput
            If there is no joint model (``joint`` is (0, 0)), or for cells of another shape.
        """
        self._check_joint()
        cells = np.asarray(cells, dtype=np.float32)
        if cells.ndim != 3 or cells.shape[1:] != self.joint:
            raise InvalidInput(f"expected cells of the shape (n, {self.joint[0]}, {self.joint[1]}), got {cells.shape}")
        (read,) = self._read_texts([text])
        assert read.states is not None
        logits = self._batches("match", partial(self.run_match, read.states), cells, self.batch_size * 4)
        return np.concatenate([np.zeros(0, dtype=np.float32), *logits])

    def _read_texts(self, texts: Sequence[str]) -> list[Read]:
        found: list[Read] = []
        for first in range(0, len(texts), REMEMBERED):
            part = [check_text(text) for text in texts[first : first + REMEMBERED]]
            known = {text: read for text in part if (read := self._read.get(text)) is not None}
            missing = list(dict.fromkeys(text for text in part if text not in known))
            if missing:
                known |= self._read_together(missing, self.tokenize(missing))[1]
            found += [known[text] for text in part]
        return found

    def _read_together(self, texts: Sequence[str], ids: NDArray[np.int64]) -> tuple[Vectors, dict[str, Read]]:
        """The texts' vectors and what their tokens were read as, which is remembered."""
        vectors, tokens, *states = self._all_in_batches("text", self.run_words, ids, self.batch_size * 4)
        found = {
            text: self._read_as(ids[n], tokens[n], states[0][n] if states else None) for n, text in enumerate(texts)
        }
        with self._read_lock:
            self._read |= found
            while len(self._read) > 4 * REMEMBERED:
                self._read.popitem(last=False)
        return vectors, found

    def _read_as(self, ids: NDArray[np.int64], tokens: Vectors, states: NDArray[np.float32] | None) -> Read:
        """Words without the padding, the start and the end; states without the padding."""
        pieces, numbers = self.word_pieces(ids)
        kept = np.flatnonzero(numbers >= 0)
        words = Words(pieces, numbers[kept], np.ascontiguousarray(tokens[kept]))
        return Read(words, None if states is None else states[None, : len(kept) + 2].copy())

    def encode_images(self, images: Sequence[Picture]) -> Vectors:
        """Pictures, or the pixels that ``prepare`` made of them, to unit rows, (n, dim) float32."""
        if len(images) == 0:
            return np.zeros((0, self.dim), dtype=np.float32)
        pixels = np.stack([self.prepare(image) for image in images])
        return self._in_batches("image", self.run_images, pixels, self.batch_size)

    def encode_cells(self, images: Sequence[Picture]) -> tuple[Vectors, Cells]:
        """Read pictures closely: (n, dim) unit rows of the wholes, and (n, n_cells, cell_dim) unit rows of their cells.

        Cells come row by row from the top left. What ``prepare_cells`` made may be given instead of pictures.

        Raises
        ------
        InvalidInput
            If the model has no cells (``n_cells`` is 0).
        """
        if not self.n_cells:
            raise InvalidInput(f"the encoder {self.name!r} has no cells")
        if len(images) == 0:
            empty = np.zeros((0, self.n_cells, self.cell_dim), dtype=np.float32)
            return np.zeros((0, self.dim), dtype=np.float32), empty
        pixels = np.stack([self.prepare_cells(image) for image in images])
        vectors, cells = self._all_in_batches("cell", self.run_cells, pixels, self.batch_size)
        return vectors, cells

    def encode_joint(self, images: Sequence[Picture]) -> NDArray[np.float32]:
        """Pictures, or what ``prepare`` made of them, to the joint model's cells, (n, n_cells, width) float32.

        Cells come row by row from the top left; they are not of unit length.

        Raises
        ------
        InvalidInput
            If there is no joint model (``joint`` is (0, 0)).
        """
        self._check_joint()
        none = np.zeros((0, *self.joint), dtype=np.float32)
        if len(images) == 0:
            return none
        pixels = np.stack([self.prepare(image) for image in images])
        return np.concatenate([none, *self._batches("joint", self.run_joint, pixels, self.batch_size)])

    def _check_joint(self) -> None:
        if not self.joint[0]:
            raise InvalidInput(f"the encoder {self.name!r} has no joint model: choose one that has, such as mini")

    def prepare(self, image: Picture) -> Pixels:
        """Resize and crop to what the image tower reads, (height, width, 3) uint8."""
        return self.spec.preprocess(image)

    def prepare_cells(self, image: Picture) -> Pixels:
        """Resize and crop to what ``encode_cells`` reads, (cell_size, cell_size, 3) uint8."""
        return self._cell_preprocess(image)

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
    def run_words(self, ids: NDArray[np.int64]) -> Sequence[NDArray[np.float32]]:
        """Token ids, (n, context), to (n, dim) unit rows and, of the tokens, (n, context, cell_dim) unit rows.

        With a joint model also to the states of the tokens, (n, context, width).
        """

    @abstractmethod
    def word_pieces(self, ids: NDArray[np.int64]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
        """The words of token ids, (context,), and of which word each token is a piece; -1 for what is no word."""

    @abstractmethod
    def run_images(self, pixels: Pixels) -> Vectors:
        """Pixels, (n, height, width, 3) uint8, through the image tower to (n, dim) float32 unit rows."""

    @abstractmethod
    def run_cells(self, pixels: Pixels) -> tuple[Vectors, Cells]:
        """Pixels, (n, size, size, 3) uint8, to (n, dim) and (n, n_cells, cell_dim) float32 unit rows."""

    @abstractmethod
    def run_joint(self, pixels: Pixels) -> NDArray[np.float32]:
        """Pixels, (n, height, width, 3) uint8, to the joint model's (n, n_cells, width) float32."""

    @abstractmethod
    def run_match(self, states: NDArray[np.float32], cells: NDArray[np.float32]) -> NDArray[np.float32]:
        """States of a text, (1, n_tokens, width), and cells, (n, n_cells, width), to (n,) float32 logits."""

    def check_vectors(self) -> tuple[Vectors, Vectors]:
        """What the towers make of the probe texts and the probe picture: (3, dim) and (1, dim)."""
        pixels = probe_pixels(*self.spec.preprocess.size)
        return self.run_texts(self.tokenize(PROBE_TEXTS)), self.run_images(pixels[None])

    def _in_batches(self, tower: str, run: Callable[[Input], Vectors], rows: Input, size: int) -> Vectors:
        return np.concatenate([np.zeros((0, self.dim), dtype=np.float32), *self._batches(tower, run, rows, size)])

    def _all_in_batches(
        self, tower: str, run: Callable[[Input], Sequence[NDArray[np.float32]]], rows: Input, size: int
    ) -> list[NDArray[np.float32]]:
        """Each of the outputs of a tower that has several."""
        return [np.concatenate(parts) for parts in zip(*self._batches(tower, run, rows, size), strict=True)]

    def _batches(self, tower: str, run: Callable[[Input], Output], rows: Input, size: int) -> Iterator[Output]:
        """Run batch by batch; one that does not fit into memory is halved, and the tower keeps the smaller size."""
        first, size = 0, min(size, self._fitting.get(tower, size))
        while first < len(rows):
            try:
                yield run(rows[first : first + size])
                first += size
            except Exception as error:
                if size == 1 or not is_out_of_memory(error):
                    raise
                size = self._fitting[tower] = max(1, size // 2)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of NumPy, torch or ONNX Runtime says that memory ran out."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(phrase in text for phrase in _OUT_OF_MEMORY)


def check_tower(
    name: str, tower: str, vectors: Vectors, reference: Vectors | None, least: float = CHECK_COSINE
) -> None:
    """See that a tower gives finite unit rows that differ, and the reference's (cosine ``least``) where there is one.

    Raises
    ------
    ModelBroken
        Otherwise, naming what is wrong and what to do.
    """
    fault = _fault(vectors, reference, least)
    if fault:
        raise ModelBroken(
            f"the {tower} tower of {name!r} {fault}: its weights or its cached export are damaged; "
            "run `mmsearch doctor`, or fetch the model again"
        )


def _fault(vectors: Vectors, reference: Vectors | None, least: float) -> str | None:
    if not np.isfinite(vectors).all():
        return "gives NaN or infinity"
    if np.abs(np.linalg.norm(vectors, axis=1) - 1.0).max() > 1e-2:
        return "does not give unit vectors"
    if len(vectors) > 1 and np.ptp(vectors, axis=0).max() < 1e-4:
        return "gives the same vector for different inputs"
    if reference is not None:
        cosine = float((vectors * reference).sum(axis=1).min())
        if cosine < least:
            return f"answers differently from when it was stored (cosine {cosine:.4f}, expected {least})"
    return None
