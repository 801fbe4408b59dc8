"""Export an open_clip model to ONNX once, check it against the original, and keep what is fastest here."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmsearch.encoders.onnx import CARD, CELL_TOWER, IMAGE_TOWER, TEXT_TOWER, TOKENIZER, OnnxEncoder, file_digest
from mmsearch.encoders.openclip import OpenClipEncoder
from mmsearch.encoders.tokenizer import write_tokenizer
from mmsearch.errors import MMSearchError, ModelBroken

if TYPE_CHECKING:
    import torch

LEAST_COSINE = 0.999
OPSET = 17
"""The oldest operator set that has LayerNormalization, so that every ONNX Runtime we accept reads it."""


def export(encoder: OpenClipEncoder, folder: Path) -> OnnxEncoder:
    """Write both towers, the tokenizer and the check vectors into ``folder``, all or nothing.

    Raises
    ------
    ModelBroken
        If the exported towers' vectors are not the original's (cosine below 0.999).
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".draft-"))
    try:
        _write_towers(encoder, draft)
        write_tokenizer(draft / TOKENIZER)
        _write_card(encoder, draft)
        _compare(encoder, OnnxEncoder(draft))
        shutil.rmtree(folder, ignore_errors=True)
        try:
            os.replace(draft, folder)
        except OSError:
            if not folder.is_dir():  # else another process has just finished the same export
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return OnnxEncoder(folder)


def faster_export(encoder: OpenClipEncoder, folder: Path) -> OnnxEncoder | None:
    """Export, and return the export if it is quicker for pictures on this CPU than torch; else remove it.

    A model that cannot be exported, or not faithfully, gives None.
    """
    try:
        exported = export(encoder, folder)
    except (MMSearchError, RuntimeError, OSError, ValueError):
        return None
    if _pictures_a_second(exported) >= _pictures_a_second(encoder):
        return exported
    shutil.rmtree(folder, ignore_errors=True)
    return None


def _write_towers(encoder: OpenClipEncoder, folder: Path) -> None:
    import torch

    class TextTower(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = encoder.model

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.normalize(self.model.encode_text(ids), dim=-1)  # type: ignore[operator]

    class ImageTower(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = encoder.model

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            features = self.model.encode_image(encoder.normalised(pixels))  # type: ignore[operator]
            return torch.nn.functional.normalize(features, dim=-1)

    class CellTower(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model, self.head = encoder.model, encoder.cell_head

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.normalize(encoder.cells(encoder.normalised(pixels)), dim=-1)

    height, width = encoder.spec.preprocess.size
    ids = torch.from_numpy(encoder.tokenize(["a dog", "two dogs"]))
    pixels = torch.zeros((2, height, width, 3), dtype=torch.uint8)
    _export(TextTower(), ids, folder / TEXT_TOWER)
    _export(ImageTower(), pixels, folder / IMAGE_TOWER)
    if encoder.n_cells:
        _export(CellTower(), pixels, folder / CELL_TOWER)


def _export(tower: torch.nn.Module, example: torch.Tensor, file: Path) -> None:
    import torch

    tower.eval()  # the exporter puts modules back into the mode that it found them in
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            tower,
            (example,),
            str(file),
            input_names=["rows"],
            output_names=["vectors"],
            dynamic_axes={"rows": {0: "n"}, "vectors": {0: "n"}},
            opset_version=OPSET,
            dynamo=False,  # the other exporter needs packages that we do not
        )


def _write_card(encoder: OpenClipEncoder, folder: Path) -> None:
    texts, images = encoder.check_vectors()
    files = sorted(folder.iterdir())
    card: dict[str, Any] = {
        "spec": encoder.spec.to_json(),
        "check_texts": texts.tolist(),
        "check_images": images.tolist(),
        "sizes": {file.name: file.stat().st_size for file in files},
        "sha256": {file.name: file_digest(file) for file in files},
    }
    (folder / CARD).write_text(json.dumps(card), "utf-8")


def _compare(original: OpenClipEncoder, exported: OnnxEncoder) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (4, *original.spec.preprocess.size, 3), dtype=np.uint8)
    cosine = float((original.run_images(noise) * exported.run_images(noise)).sum(axis=1).min())
    if original.n_cells:
        cells = (original.run_cells(noise) * exported.run_cells(noise)).sum(axis=2)
        cosine = min(cosine, float(cells.min()))
    if cosine < LEAST_COSINE:
        raise ModelBroken(f"the ONNX export of {original.name!r} differs from it: cosine {cosine:.4f}")


def _pictures_a_second(encoder: OpenClipEncoder | OnnxEncoder) -> float:
    pixels = np.zeros((encoder.batch_size, *encoder.spec.preprocess.size, 3), dtype=np.uint8)
    encoder.run_images(pixels)
    start = time.perf_counter()
    encoder.run_images(pixels)
    encoder.run_images(pixels)
    return 2 * len(pixels) / (time.perf_counter() - start)
