"""Any open_clip model as an encoder: built-in name and tag, ``hf-hub:…`` or ``local-dir:…``, through torch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mmsearch.encoders.cells import CellHeads, heads_file, heads_of, read_texts
from mmsearch.encoders.create import Created, create
from mmsearch.encoders.foreign import ForeignTokenizer
from mmsearch.encoders.preprocess import Preprocess
from mmsearch.encoders.spec import EncoderSpec, digest, tokenizer_digest
from mmsearch.encoders.tokenizer import ClipTokenizer
from mmsearch.encoders.towers import CHECK_COSINE, TowerEncoder, check_tower
from mmsearch.errors import InvalidInput, ModelBroken
from mmsearch.types import Cells, Pixels, Vectors

if TYPE_CHECKING:
    import torch

    from mmsearch.encoders.joint import JointModel

PRECISIONS = ("fp32", "bf16", "fp16")
BF16_COSINE = 0.99
"""Least cosine of a check vector in bf16, whose eight bits round far more than fp16's eleven."""


class OpenClipEncoder(TowerEncoder):
    """An ``Encoder`` that runs an open_clip model in torch.

    Parameters
    ----------
    model
        The model in evaluation mode, in fp32, on the CPU; it is moved and cast here.
    joint_model
        Only with heads; it stays in fp32.
    """

    def __init__(
        self,
        spec: EncoderSpec,
        model: torch.nn.Module,
        tokenizer: ClipTokenizer | ForeignTokenizer,
        device: str,
        precision: str,
        heads: CellHeads | None = None,
        joint_model: JointModel | None = None,
    ) -> None:
        import torch

        super().__init__(spec, runtime=f"torch {device} {precision}")
        self.device = torch.device(device)
        self.dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
        self.batch_size = 8 if device == "cpu" else 256
        self.model = model.to(device=self.device, dtype=self.dtype)
        visual = self.model.visual
        if isinstance(visual, torch.nn.Module):
            visual.to(memory_format=torch.channels_last)
        self._tokenizer = tokenizer
        self.heads = None if heads is None else heads.to(self.model)
        self.joint_model = None if joint_model is None else joint_model.to(self.device)
        self.scale = [
            torch.tensor(values).mul(255).view(1, 3, 1, 1) for values in (spec.preprocess.mean, spec.preprocess.std)
        ]

    @property
    def exportable(self) -> bool:
        """Whether an ONNX export could replace this: on the CPU, in fp32, with a tokenizer that needs no torch."""
        import torch

        return self.device.type == "cpu" and self.dtype == torch.float32 and self.has_clip_tokenizer

    @property
    def has_clip_tokenizer(self) -> bool:
        """Whether texts are read by the tokenizer that an export can hold."""
        return isinstance(self._tokenizer, ClipTokenizer)

    def tokenize(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Texts to token ids, (n, context) int64."""
        return self._tokenizer(texts)

    def split_text(self, text: str) -> list[str]:
        """Pieces of a text that each fit the context, in order; one piece if it fits whole."""
        return self._tokenizer.split(text)

    def run_texts(self, ids: NDArray[np.int64]) -> Vectors:
        """Token ids, (n, context), to (n, dim) float32 unit rows."""
        import torch

        with torch.inference_mode():
            return self._unit(self.model.encode_text(torch.from_numpy(ids).to(self.device)))  # type: ignore[operator]

    def run_images(self, pixels: Pixels) -> Vectors:
        """Pixels, (n, height, width, 3) uint8, to (n, dim) float32 unit rows."""
        import torch

        with torch.inference_mode():
            batch = self.normalised(torch.from_numpy(np.ascontiguousarray(pixels)))
            return self._unit(self.model.encode_image(batch))  # type: ignore[operator]

    def run_cells(self, pixels: Pixels) -> tuple[Vectors, Cells]:
        """Pixels, (n, size, size, 3) uint8, to (n, dim) and (n, n_cells, cell_dim) float32 unit rows."""
        import torch

        with torch.inference_mode():
            vectors, cells = self.cells(self.normalised(torch.from_numpy(np.ascontiguousarray(pixels))))
            return self._unit(vectors), self._unit(cells)

    def normalised(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pixels, (n, height, width, 3) of 0 to 255, to what the image tower takes, (n, 3, height, width)."""
        mean, std = (value.to(self.device) for value in self.scale)
        return ((pixels.to(self.device).permute(0, 3, 1, 2).float() - mean) / std).to(self.dtype)

    def run_words(self, ids: NDArray[np.int64]) -> Sequence[NDArray[np.float32]]:
        """Token ids, (n, context), to float32 rows: see ``TowerEncoder``."""
        import torch

        with torch.inference_mode():
            vectors, words, *states = self.words(torch.from_numpy(ids).to(self.device))
            return [self._unit(vectors), self._unit(words), *map(_float32, states)]

    def run_joint(self, pixels: Pixels) -> NDArray[np.float32]:
        """Pixels, (n, height, width, 3) uint8, to the joint model's (n, n_cells, width) float32."""
        import torch

        with torch.inference_mode():
            return _float32(self.joint_cells(self.normalised(torch.from_numpy(np.ascontiguousarray(pixels)))))

    def run_match(self, states: NDArray[np.float32], cells: NDArray[np.float32]) -> NDArray[np.float32]:
        """States of a text, (1, n_tokens, width), and cells, (n, n_cells, width), to (n,) float32 logits."""
        import torch

        assert self.joint_model is not None
        with torch.inference_mode():
            inputs = (torch.from_numpy(np.ascontiguousarray(rows)).to(self.device) for rows in (states, cells))
            return _float32(self.joint_model.match(*inputs))

    def word_pieces(self, ids: NDArray[np.int64]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
        """The words of token ids, (context,), and of which word each token is a piece; -1 for what is no word."""
        assert isinstance(self._tokenizer, ClipTokenizer)  # no other model has heads
        return self._tokenizer.pieces(ids)

    def cells(self, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """A normalised batch to (n, dim) and (n, n_cells, cell_dim), rows not yet of unit length."""
        assert self.heads is not None
        return self.heads.cells(self.model, batch)

    def words(self, ids: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Token ids, (n, context), to rows as ``run_words`` gives them, but not yet of unit length."""
        assert self.heads is not None
        vectors, states = read_texts(self.model, ids)
        return vectors, self.heads.words(self.model, states), *([states] if self.joint_model else [])

    def joint_cells(self, batch: torch.Tensor) -> torch.Tensor:
        """A normalised batch to the joint model's cells, (n, n_cells, width)."""
        assert self.joint_model is not None
        visual: Any = self.model.visual
        return self.joint_model.cells(visual.trunk.forward_features(batch))

    def _unit(self, features: torch.Tensor) -> Vectors:
        import torch

        return _float32(torch.nn.functional.normalize(features.float(), dim=-1))


def load_openclip(
    name: str,
    licence: str,
    *,
    device: str | None = None,
    precision: str | None = None,
    source: str | None = None,
    reference: tuple[Vectors, Vectors] | None = None,
) -> OpenClipEncoder:
    """Load ``architecture/tag``, ``hf-hub:org/repo`` or ``local-dir:/path`` with its own preprocessing.

    Parameters
    ----------
    source
        What to ask open_clip for, if that is not the name.
    reference
        Check vectors of texts and pictures that the loaded model must reproduce.
    device
        ``cpu``, ``cuda``, ``cuda:1``, ``mps``; None takes the fastest that is there.
    precision
        ``fp32``, ``bf16`` or ``fp16``; None takes what suits the device.

    Raises
    ------
    ModelUnavailable
        If the weights are not here and cannot be fetched. Never a random model instead.
    MissingDependency
        If the model needs a package that is not installed.
    ModelBroken
        If the model does not give finite, differing unit vectors.
    InvalidInput
        For a name, device or precision that does not exist.
    """
    chosen = pick_device(device, precision)
    try:
        return _load(name, licence, *chosen, source, reference)
    except ModelBroken:
        if precision is not None or chosen[1] == "fp32":
            raise
        # Half precision was our choice, and a few models overflow in it.
        return _load(name, licence, chosen[0], "fp32", source, reference)


def _load(
    name: str,
    licence: str,
    device: str,
    precision: str,
    source: str | None,
    reference: tuple[Vectors, Vectors] | None,
) -> OpenClipEncoder:
    created = create(source or name)
    spec = _spec(name, licence, created)
    heads = heads_of(created.model, source, spec.dim) if isinstance(created.tokenizer, ClipTokenizer) else None
    joint = None
    if heads is not None:
        size = round(max(spec.preprocess.size) * heads.scale)
        spec = replace(spec, cells=(_n_cells(created.model, heads, size), heads.dim), cell_size=size)
        file = heads_file(source)
        if file is not None:
            joint = _joint_model(file)
            spec = replace(spec, joint=joint.shape if joint else (0, 0), reranker=digest(file.read_bytes()))
    encoder = OpenClipEncoder(spec, created.model, created.tokenizer, device, precision, heads, joint)
    least = BF16_COSINE if precision == "bf16" else CHECK_COSINE
    towers = zip(("text", "image"), encoder.check_vectors(), reference or (None, None), strict=True)
    for tower, vectors, expected in towers:
        check_tower(name, tower, vectors, expected, least)
    return encoder


def _joint_model(file: Path) -> JointModel | None:
    from mmsearch.encoders.joint import JointModel

    return JointModel.load(file)


def _spec(name: str, licence: str, created: Created) -> EncoderSpec:
    return EncoderSpec(
        name=name,
        dim=_width(created.model, created.tokenizer.context),
        context=created.tokenizer.context,
        licence=licence,
        weights=weights_digest(created.model),
        tokenizer=tokenizer_digest(created.tokenizer),
        preprocess=Preprocess.from_config(created.preprocess),
        activation=_activation(created.model),
        architecture=created.architecture,
    )


def pick_device(device: str | None, precision: str | None) -> tuple[str, str]:
    """Choose where and how precisely to compute: CUDA in fp16, Apple's GPU and the CPU in fp32.

    fp16 and not bf16: as fast, and its vectors stay within a cosine of 0.999 of fp32's, where those of bf16 may lie
    beyond 0.998 (``mini``'s pictures). ``load_openclip`` takes fp32 for a model that overflows in fp16.

    Raises
    ------
    InvalidInput
        For a device that is not there or a precision that does not exist.
    """
    import torch

    mps = torch.backends.mps.is_available()
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "mps" if mps else "cpu"
    kind, _, number = device.partition(":")
    here = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(mps)}.get(kind, 0)
    if not here or (number and not (number.isdecimal() and int(number) < here)):
        raise InvalidInput(f"expected a device that is here, got {device!r}: try device='cpu'")
    if precision is None:
        precision = "fp16" if kind == "cuda" else "fp32"
    if precision not in PRECISIONS:
        raise InvalidInput(f"expected a precision of {', '.join(PRECISIONS)}, got {precision!r}")
    return device, precision


def weights_digest(model: torch.nn.Module) -> str:
    """Sixteen hexadecimal digits over all weights as fp32, by name: the same from whatever file they came."""
    hasher = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        hasher.update(key.encode())
        hasher.update(np.ascontiguousarray(value.detach().cpu().float().numpy()).tobytes())
    return hasher.hexdigest()[:16]


def _float32(rows: torch.Tensor) -> NDArray[np.float32]:
    return np.asarray(rows.float().cpu().numpy(), dtype=np.float32)


def _n_cells(model: torch.nn.Module, heads: CellHeads, size: int) -> int:
    import torch

    with torch.inference_mode():
        return int(heads.cells(model, torch.zeros((1, 3, size, size)))[1].shape[1])


def _width(model: torch.nn.Module, context: int) -> int:
    import torch

    with torch.inference_mode():
        return int(model.encode_text(torch.zeros((1, context), dtype=torch.long)).shape[-1])  # type: ignore[operator]


def _activation(model: torch.nn.Module) -> str:
    names = {type(module).__name__ for module in model.modules()}
    return "quickgelu" if "QuickGELU" in names else "gelu"
