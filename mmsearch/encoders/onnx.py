"""The towers through ONNX Runtime: no torch, a fraction of a second to start, the fastest on most CPUs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmsearch.encoders.spec import PROBE_TEXTS, EncoderSpec, probe_pixels
from mmsearch.encoders.tokenizer import ClipTokenizer
from mmsearch.encoders.towers import TowerEncoder, check_tower
from mmsearch.errors import ModelBroken
from mmsearch.types import Cells, Pixels, Vectors

CARD = "export.json"
TEXT_TOWER, IMAGE_TOWER, CELL_TOWER, TOKENIZER = "text.onnx", "image.onnx", "cells.onnx", "tokenizer.json"


class OnnxEncoder(TowerEncoder):
    """An ``Encoder`` over an export made by ``mmsearch.encoders.export``; each tower loads when first used.

    Its vectors do not depend on the batch size or the number of threads, bit for bit.

    Raises
    ------
    ModelBroken
        If the export is damaged, at once or when a tower is first used.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self.card: dict[str, Any] = json.loads((folder / CARD).read_text("utf-8"))
            spec = EncoderSpec.from_json(self.card["spec"])
            cut = [name for name, size in self.card["sizes"].items() if (folder / name).stat().st_size != size]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelBroken(f"the exported encoder in {folder} cannot be read: {error}") from error
        if cut:
            raise ModelBroken(f"the exported encoder in {folder} is damaged: {', '.join(cut)} has another size")
        super().__init__(spec, runtime="onnxruntime cpu fp32")

    @cached_property
    def _tokenizer(self) -> ClipTokenizer:
        return ClipTokenizer(self.folder / TOKENIZER, self.spec.context)

    @cached_property
    def _text_session(self) -> Any:  # noqa: ANN401 onnxruntime has no types
        session = open_session(self.folder / TEXT_TOWER)
        vectors = _run(session, self.tokenize(PROBE_TEXTS))
        check_tower(self.name, "text", vectors, np.asarray(self.card["check_texts"], dtype=np.float32))
        return session

    @cached_property
    def _image_session(self) -> Any:  # noqa: ANN401 onnxruntime has no types
        session = open_session(self.folder / IMAGE_TOWER)
        vectors = _run(session, probe_pixels(*self.spec.preprocess.size)[None])
        check_tower(self.name, "image", vectors, np.asarray(self.card["check_images"], dtype=np.float32))
        return session

    @cached_property
    def _cell_session(self) -> Any:  # noqa: ANN401 onnxruntime has no types
        return open_session(self.folder / CELL_TOWER)

    def tokenize(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Texts to token ids, (n, context) int64."""
        return self._tokenizer(texts)

    def split_text(self, text: str) -> list[str]:
        """Pieces of a text that each fit the context, in order; one piece if it fits whole."""
        return self._tokenizer.split(text)

    def run_texts(self, ids: NDArray[np.int64]) -> Vectors:
        """Token ids, (n, context), to (n, dim) float32 unit rows."""
        return _run(self._text_session, ids)

    def run_images(self, pixels: Pixels) -> Vectors:
        """Pixels, (n, height, width, 3) uint8, to (n, dim) float32 unit rows."""
        return _run(self._image_session, pixels)

    def run_cells(self, pixels: Pixels) -> Cells:
        """Pixels, (n, height, width, 3) uint8, to (n, n_cells, cell_dim) float32 unit rows."""
        return _run(self._cell_session, pixels)


def open_session(file: Path) -> Any:  # noqa: ANN401 onnxruntime has no types
    """Open an exported tower for the CPU.

    Raises
    ------
    ModelBroken
        If the file is missing or not a model.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # a library does not log; failures are raised
    # Threads that spin while they wait take the cores from those that decode the next pictures.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ModelBroken(f"the exported tower {file} cannot be loaded: {error}") from error


def file_digest(file: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _run(session: Any, rows: NDArray[Any]) -> Vectors:  # noqa: ANN401 onnxruntime has no types
    return np.asarray(session.run(None, {session.get_inputs()[0].name: rows})[0], dtype=np.float32)
