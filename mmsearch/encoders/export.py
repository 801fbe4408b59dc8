"""Export an open_clip model to ONNX once, check it against the original, and keep what is fastest here."""

from __future__ import annotations

import io
import json
import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from mmsearch.encoders.onnx import (
    CARD,
    CELL_TOWER,
    IMAGE_TOWER,
    JOINT_TOWER,
    MATCH_MODEL,
    TEXT_TOWER,
    TOKENIZER,
    OnnxEncoder,
    file_digest,
)
from mmsearch.encoders.openclip import OpenClipEncoder
from mmsearch.encoders.spec import PROBE_TEXTS
from mmsearch.encoders.tokenizer import write_tokenizer
from mmsearch.errors import ModelBroken

if TYPE_CHECKING:
    import torch

    from mmsearch.encoders.joint import JointModel

LEAST_COSINE = 0.999
MOST_LOGITS = 0.01
"""How far logits of the joint model may lie from the original's."""
TEXTS = ("", "a cat", "two red bicycles lean on the wall of a bakery " * 12)
"""Compared besides the probe texts: the shortest, a short one, and one that fills any context."""
OPSET = 17
"""The oldest operator set that has LayerNormalization, so that every ONNX Runtime we accept reads it."""


def export(encoder: OpenClipEncoder, folder: Path) -> OnnxEncoder:
    """Write both towers, the tokenizer and the check vectors into ``folder``, all or nothing.

    A sound export that is there already is taken as it is, a damaged one is replaced.

    Raises
    ------
    ModelBroken
        If the model cannot be exported, the export cannot be written, or the exported towers' vectors are not the
        original's (cosine below 0.999).
    """
    return _sound(encoder, folder) or _made(encoder, folder)


def faster_export(encoder: OpenClipEncoder, folder: Path) -> OnnxEncoder | None:
    """Export, and return the export if it is quicker for pictures on this CPU than torch; else remove what was made.

    A model that cannot be exported, or not faithfully, gives None.
    """
    found = _sound(encoder, folder)
    try:
        exported = found or _made(encoder, folder)
        if _pictures_a_second(exported) >= _pictures_a_second(encoder):
            return exported
    except Exception:  # ONNX Runtime's errors have no class of their own, and torch answers in any case
        return None
    if found is None:
        shutil.rmtree(folder, ignore_errors=True)
    return None


def _sound(encoder: OpenClipEncoder, folder: Path) -> OnnxEncoder | None:
    """The export in a folder if it is whole and this encoder's."""
    try:
        found = OnnxEncoder(folder)
        if found.spec != encoder.spec:
            return None
        found.verify()
        found.check_vectors()  # loads the towers, which compare themselves with what is stored
    except ModelBroken:
        return None
    return found


def _made(encoder: OpenClipEncoder, folder: Path) -> OnnxEncoder:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder.parent, prefix=".draft-", ignore_cleanup_errors=True) as scratch:
            draft = Path(scratch) / "export"
            draft.mkdir()
            _write_towers(encoder, draft)
            write_tokenizer(draft / TOKENIZER)
            _write_card(encoder, draft)
            _compare(encoder, OnnxEncoder(draft))
            _put(encoder, draft, folder)
    except ModelBroken:
        raise
    except Exception as error:  # of torch, ONNX Runtime, tokenizers and the disk, many of no class of their own
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise ModelBroken(
            f"{encoder.name!r} cannot be exported to ONNX ({reason}): "
            "use runtime='torch', or, if it is the disk, make room or set MMSEARCH_CACHE to another folder"
        ) from error
    return OnnxEncoder(folder)


def _put(encoder: OpenClipEncoder, draft: Path, folder: Path) -> None:
    """Move a finished export to its place; what is there gives way only if it is damaged."""
    try:
        os.replace(draft, folder)
    except OSError:
        if _sound(encoder, folder):  # another process has just finished the same export
            return
        with suppress(FileNotFoundError):  # another process may have moved it away already
            os.replace(folder, draft.with_name("damaged"))  # it goes with the scratch folder
        os.replace(draft, folder)


def _write_towers(encoder: OpenClipEncoder, folder: Path) -> None:
    import torch

    def unit(*rows: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(torch.nn.functional.normalize(one, dim=-1) for one in rows)

    model: Any = encoder.model
    height, width = encoder.spec.preprocess.size
    ids = torch.from_numpy(encoder.tokenize(["a dog", "two dogs"]))
    pixels = torch.zeros((2, height, width, 3), dtype=torch.uint8)
    image = _tower(model, lambda pixels: unit(model.encode_image(encoder.normalised(pixels))))
    _export(image, pixels, folder / IMAGE_TOWER)
    if encoder.n_cells:
        side = encoder.cell_size
        closely = torch.zeros((2, side, side, 3), dtype=torch.uint8)

        def read(ids: torch.Tensor) -> tuple[torch.Tensor, ...]:
            vectors, words, *states = encoder.words(ids)
            return *unit(vectors, words), *states

        cells = _tower(model, lambda pixels: unit(*encoder.cells(encoder.normalised(pixels))))
        _export(_tower(model, read), ids, folder / TEXT_TOWER, "words", *(["states"] if encoder.joint_model else []))
        _export(cells, closely, folder / CELL_TOWER, "cells")
    else:
        _export(_tower(model, lambda ids: unit(model.encode_text(ids))), ids, folder / TEXT_TOWER)
    if encoder.joint_model:
        joint = _tower(model, lambda pixels: (encoder.joint_cells(encoder.normalised(pixels)),))
        _export(joint, pixels, folder / JOINT_TOWER)
        _write_match(encoder.joint_model, encoder.spec.context, folder / MATCH_MODEL)


def _write_match(joint: JointModel, n_tokens: int, file: Path) -> None:
    """Write the part of the joint model that reads a text and cells together, for texts of any length."""
    import torch

    cells, states = torch.zeros((2, *joint.shape)), torch.zeros((1, n_tokens, joint.txt.in_features))

    class Match(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.joint = joint

        def forward(self, cells: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
            return joint.match(states, cells)

    axes = {"cells": {0: "n"}, "states": {1: "n_tokens"}, "logits": {0: "n"}}
    _to_file(Match(), (cells, states), file, ["logits"], axes)


def _tower(model: torch.nn.Module, run: Callable[[torch.Tensor], tuple[torch.Tensor, ...]]) -> torch.nn.Module:
    """A module that does this; the exporter takes nothing else."""
    import torch

    class Tower(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, rows: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return run(rows)

    return Tower()


def _export(tower: torch.nn.Module, example: torch.Tensor, file: Path, *more: str) -> None:
    outputs = ["vectors", *more]
    _to_file(tower, (example,), file, outputs, {name: {0: "n"} for name in ("rows", *outputs)})


def _to_file(
    tower: torch.nn.Module,
    examples: tuple[torch.Tensor, ...],
    file: Path,
    outputs: list[str],
    axes: dict[str, dict[int, str]],
) -> None:
    """``axes`` names the inputs, in order, and the outputs."""
    import torch

    tower.eval()  # the exporter puts modules back into the mode that it found them in
    with _quiet(), _no_fused_attention(), _no_onnx_package(), torch.inference_mode():
        torch.onnx.export(
            tower,
            examples,
            str(file),
            input_names=list(axes)[: len(examples)],
            output_names=outputs,
            dynamic_axes=axes,
            opset_version=OPSET,
            dynamo=False,  # the other exporter needs packages that we do not
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter prints its report of a failure; the error that it raises says the same."""
    nowhere = io.StringIO()
    with warnings.catch_warnings(), redirect_stdout(nowhere), redirect_stderr(nowhere):
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _no_onnx_package() -> Iterator[None]:
    """The exporter's last step wants the ``onnx`` package, only to add functions of onnxscript, which no tower has."""
    module = None if find_spec("onnx") else _exporter_module()
    if module is None:
        yield
        return
    before = module._add_onnxscript_fn
    module._add_onnxscript_fn = lambda model_bytes, custom_opsets: model_bytes  # type: ignore[attr-defined]
    try:
        yield
    finally:
        module._add_onnxscript_fn = before  # type: ignore[attr-defined]


def _exporter_module() -> ModuleType | None:
    """Where torch keeps that step: since 2.9 in the first place, before in the second."""
    for home in ("torch.onnx._internal.torchscript_exporter", "torch.onnx._internal"):
        with suppress(ImportError):
            return import_module(f"{home}.onnx_proto_utils")
    return None


@contextmanager
def _no_fused_attention() -> Iterator[None]:
    """Outside of training torch fuses attention into one operator, which ONNX does not have."""
    import torch

    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


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
    images = (original.run_images(noise) * exported.run_images(noise)).sum(axis=1)
    ids = original.tokenize([*PROBE_TEXTS, *TEXTS])
    texts = (original.run_texts(ids) * exported.run_texts(ids)).sum(axis=1)
    cosine = min(float(images.min()), float(texts.min()))
    if original.n_cells:
        noise = np.random.default_rng(0).integers(0, 256, (4, *[original.cell_size] * 2, 3), dtype=np.uint8)
        pairs = zip(original.run_cells(noise), exported.run_cells(noise), strict=True)
        words = zip(original.run_words(ids)[:2], exported.run_words(ids)[:2], strict=True)
        cosine = min(cosine, *(float((one * other).sum(axis=-1).min()) for one, other in (*pairs, *words)))
    if cosine < LEAST_COSINE:
        raise ModelBroken(f"the ONNX export of {original.name!r} differs from it: cosine {cosine:.4f}")
    if original.joint_model:
        _compare_joint(original, exported)


def _compare_joint(original: OpenClipEncoder, exported: OnnxEncoder) -> None:
    """The whole way from pixels and a text to logits."""
    noise = np.random.default_rng(0).integers(0, 256, (2, *original.spec.preprocess.size, 3), dtype=np.uint8)
    logits = []
    for encoder in (original, exported):
        cells = encoder.run_joint(noise)
        logits.append(np.stack([encoder.match(text, cells) for text in TEXTS]))
    apart = float(np.abs(logits[0] - logits[1]).max())
    if not apart <= MOST_LOGITS:
        raise ModelBroken(f"the ONNX export of {original.name!r} differs from it: its logits by {apart:.3f}")


def _pictures_a_second(encoder: OpenClipEncoder | OnnxEncoder) -> float:
    pixels = np.zeros((encoder.batch_size, *encoder.spec.preprocess.size, 3), dtype=np.uint8)
    encoder.run_images(pixels)
    start = time.perf_counter()
    encoder.run_images(pixels)
    encoder.run_images(pixels)
    return 2 * len(pixels) / (time.perf_counter() - start)
