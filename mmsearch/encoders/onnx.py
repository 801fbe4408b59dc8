"""The towers through ONNX Runtime: no torch, a fraction of a second to start, the fastest on most CPUs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mmsearch.encoders.spec import PROBE_TEXTS, EncoderSpec, probe_pixels
from mmsearch.encoders.tokenizer import ClipTokenizer
from mmsearch.encoders.towers import TowerEncoder, check_tower
from mmsearch.errors import ModelBroken
from mmsearch.overlap import n_cores
from mmsearch.types import Cells, Pixels, Vectors

CARD = "export.json"
TEXT_TOWER, IMAGE_TOWER, CELL_TOWER, TOKENIZER = "text.onnx", "image.onnx", "cells.onnx", "tokenizer.json"
JOINT_TOWER, MATCH_MODEL = "joint.onnx", "match.onnx"
PART = 4
"""Pictures that a core takes at a time: their activations stay in its cache."""
_TOWERS = (TEXT_TOWER, IMAGE_TOWER, CELL_TOWER, JOINT_TOWER, MATCH_MODEL)

Opened = TypeVar("Opened")


class OnnxEncoder(TowerEncoder):
    """An ``Encoder`` over an export made by ``mmsearch.encoders.export``; each tower loads when first used.

    Each file's SHA-256 is checked before the first use of what it holds: one flipped byte may change the vectors of a
    few words only, which no check vector shows. Vectors do not depend on the batch size or the number of threads,
    bit for bit.

    Parameters
    ----------
    remake
        Makes the export again in the same folder, when a file proves damaged or lost after the start; without it that
        raises.

    Raises
    ------
    ModelBroken
        If the export is damaged, at once or when a tower is first used.
    """

    def __init__(self, folder: Path, remake: Callable[[], object] | None = None) -> None:
        self.folder = folder
        self.card, spec = _read_card(folder)
        self._remake = remake
        super().__init__(spec, runtime="onnxruntime cpu fp32")
        self.batch_size = PART * max(2, n_cores())

    @cached_property
    def _tokenizer(self) -> ClipTokenizer:
        return self._open(TOKENIZER, lambda file: ClipTokenizer(file, self.spec.context))

    @cached_property
    def _text_session(self) -> Any:  # noqa: ANN401 onnxruntime has no types
        return self._open(TEXT_TOWER, lambda file: self._checked("text", file, self.tokenize(PROBE_TEXTS)))

    @cached_property
    def _image_session(self) -> Any:  # noqa: ANN401 onnxruntime has no types
        pixels = probe_pixels(*self.spec.preprocess.size)[None]
        return self._open(IMAGE_TOWER, lambda file: self._checked("image", file, pixels, threads=1))

    @cached_property
    def _cell_session(self) -> Any:  # noqa: ANN401 onnxruntime has no types
        return self._open(CELL_TOWER, partial(open_session, threads=1))

    @cached_property
    def _joint_session(self) -> Any:  # noqa: ANN401 onnxruntime has no types
        return self._open(JOINT_TOWER, partial(open_session, threads=1))

    @cached_property
    def _match_session(self) -> Any:  # noqa: ANN401 onnxruntime has no types
        return self._open(MATCH_MODEL, partial(open_session, threads=1))

    def verify(self) -> None:
        """Check every file's SHA-256.

        Raises
        ------
        ModelBroken
            If one does not hold.
        """
        for name in self.card["sha256"]:
            self._verify(name)

    def _open(self, name: str, reader: Callable[[Path], Opened]) -> Opened:
        """Open a file of the export that is what it was when written; where need be after making all again."""
        remake = self._remake
        try:
            return self._open_checked(name, reader)
        except ModelBroken:
            if remake is None:
                raise
        remake()
        self.card, _ = _read_card(self.folder)
        return self._open_checked(name, reader)

    def _open_checked(self, name: str, reader: Callable[[Path], Opened]) -> Opened:
        # Both the checksum and the reading let other threads run, so that together they take as long as one of them.
        with ThreadPoolExecutor(1) as pool:
            sound = pool.submit(self._verify, name)
            try:
                opened = reader(self.folder / name)
            except ModelBroken:
                raise
            except Exception as error:  # ONNX Runtime's errors have no class of their own
                raise ModelBroken(f"{self.folder / name} does not run: {error}; {_advice(self.folder)}") from error
            sound.result()
        return opened

    def _verify(self, name: str) -> None:
        # A model too large for one file lies in further ones, which any tower may need.
        further = [other for other in self.card["sha256"] if other not in (*_TOWERS, TOKENIZER)]
        for file in {name, *further}:
            try:
                sound = file_digest(self.folder / file) == self.card["sha256"].get(file)
            except OSError as error:
                raise ModelBroken(f"{self.folder / file} cannot be read: {error}; {_advice(self.folder)}") from error
            if not sound:
                raise ModelBroken(f"{self.folder / file} is damaged; {_advice(self.folder)}")

    def _checked(self, tower: str, file: Path, probe: NDArray[Any], threads: int = 0) -> Any:  # noqa: ANN401 as above
        session = open_session(file, threads)
        expected = np.asarray(self.card[f"check_{tower}s"], dtype=np.float32)
        check_tower(self.name, tower, _run(session, probe), expected)
        return session

    def tokenize(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Texts to token ids, (n, context) int64."""
        return self._tokenizer(texts)

    def split_text(self, text: str) -> list[str]:
        """Pieces of a text that each fit the context, in order; one piece if it fits whole."""
        return self._tokenizer.split(text)

    def run_texts(self, ids: NDArray[np.int64]) -> Vectors:
        """Token ids, (n, context), to (n, dim) float32 unit rows."""
        return _run(self._text_session, ids)

    def run_words(self, ids: NDArray[np.int64]) -> Sequence[NDArray[np.float32]]:
        """Token ids, (n, context), to float32 rows: see ``TowerEncoder``."""
        return _run_all(self._text_session, ids)

    def word_pieces(self, ids: NDArray[np.int64]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
        """The words of token ids, (context,), and of which word each token is a piece; -1 for what is no word."""
        return self._tokenizer.pieces(ids)

    def run_images(self, pixels: Pixels) -> Vectors:
        """Pixels, (n, height, width, 3) uint8, to (n, dim) float32 unit rows."""
        return self._spread(self._image_session, pixels)[0]

    def run_cells(self, pixels: Pixels) -> tuple[Vectors, Cells]:
        """Pixels, (n, size, size, 3) uint8, to (n, dim) and (n, n_cells, cell_dim) float32 unit rows."""
        vectors, cells = self._spread(self._cell_session, pixels)
        return vectors, cells

    def run_joint(self, pixels: Pixels) -> NDArray[np.float32]:
        """Pixels, (n, height, width, 3) uint8, to the joint model's (n, n_cells, width) float32."""
        return self._spread(self._joint_session, pixels)[0]

    def run_match(self, states: NDArray[np.float32], cells: NDArray[np.float32]) -> NDArray[np.float32]:
        """States of a text, (1, n_tokens, width), and cells, (n, n_cells, width), to (n,) float32 logits."""
        return self._spread(self._match_session, cells, 2 * PART, states=states)[0]

    def _spread(
        self,
        session: Any,  # noqa: ANN401 onnxruntime has no types
        rows: NDArray[Any],
        size: int = PART,
        **shared: NDArray[Any],
    ) -> list[Vectors]:
        """Run a few pictures a core at a time: cores that share one picture spend their time waiting for each other."""
        parts = [rows[first : first + size] for first in range(0, len(rows), size)]
        if len(parts) < 2:
            return _run_all(session, rows, shared)
        done = self._pool.map(partial(_run_all, session, shared=shared), parts)
        return [np.concatenate(outputs) for outputs in zip(*done, strict=True)]

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(n_cores(), thread_name_prefix="mmsearch-onnx")


def _read_card(folder: Path) -> tuple[dict[str, Any], EncoderSpec]:
    try:
        card: dict[str, Any] = json.loads((folder / CARD).read_text("utf-8"))
        spec = EncoderSpec.from_json(card["spec"])
        cut = [name for name, size in card["sizes"].items() if (folder / name).stat().st_size != size]
        lacking = {"sha256", "check_texts", "check_images"} - set(card)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelBroken(f"the exported encoder in {folder} cannot be read: {error}; {_advice(folder)}") from error
    if cut or lacking:
        raise ModelBroken(
            f"the exported encoder in {folder} is damaged: {', '.join(cut) or CARD} is not as it was; {_advice(folder)}"
        )
    return card, spec


def _advice(folder: Path) -> str:
    return f"delete the folder {folder}, and it is made again at the next start"


def open_session(file: Path, threads: int = 0) -> Any:  # noqa: ANN401 onnxruntime has no types
    """Open an exported tower for the CPU; each run uses so many threads (0: one a core).

    Raises
    ------
    ModelBroken
        If the file is missing or not a model.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # a library does not log; failures are raised
    # Threads that spin while they wait take the cores from those that decode the next pictures.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ModelBroken(f"the exported tower {file} cannot be loaded: {error}; {_advice(file.parent)}") from error


def file_digest(file: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _run(session: Any, rows: NDArray[Any]) -> Vectors:  # noqa: ANN401 onnxruntime has no types
    return _run_all(session, rows)[0]


def _run_all(
    session: Any,  # noqa: ANN401 onnxruntime has no types
    rows: NDArray[Any],
    shared: Mapping[str, NDArray[Any]] | None = None,
) -> list[Vectors]:
    outputs = session.run(None, {session.get_inputs()[0].name: rows, **(shared or {})})
    return [np.asarray(output, dtype=np.float32) for output in outputs]
