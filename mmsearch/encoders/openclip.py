"""Any open_clip model as an encoder: built-in name and tag, ``hf-hub:…`` or ``local-dir:…``, through torch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mmsearch.encoders.hub import hub, may_download
from mmsearch.encoders.preprocess import Preprocess
from mmsearch.encoders.spec import EncoderSpec, tokenizer_digest
from mmsearch.encoders.tokenizer import MAX_WORD, ClipTokenizer, write_tokenizer
from mmsearch.encoders.towers import TowerEncoder, check_tower
from mmsearch.errors import InvalidInput, ModelUnavailable
from mmsearch.types import Cells, Pixels, Vectors

if TYPE_CHECKING:
    import torch

PRECISIONS = ("fp32", "bf16", "fp16")
CELL_HEAD_FILE = "reranker.safetensors"


class OpenClipEncoder(TowerEncoder):
    """An ``Encoder`` that runs an open_clip model in torch.

    Parameters
    ----------
    model
        The model in evaluation mode, in fp32, on the CPU; it is moved and cast here.
    tokenizer
        open_clip's own, or None for CLIP's byte pairs, which we read ourselves.
    """

    def __init__(
        self,
        spec: EncoderSpec,
        model: torch.nn.Module,
        tokenizer: Any,  # noqa: ANN401 open_clip has no types
        device: str,
        precision: str,
        cell_head: torch.nn.Linear | None = None,
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
        self.cell_head = None if cell_head is None else cell_head.to(device=self.device, dtype=self.dtype)
        self.scale = [
            torch.tensor(values).mul(255).view(1, 3, 1, 1) for values in (spec.preprocess.mean, spec.preprocess.std)
        ]

    @property
    def exportable(self) -> bool:
        """Whether an ONNX export could replace this: on the CPU, in fp32, with a tokenizer that needs no torch."""
        import torch

        return self.device.type == "cpu" and self.dtype == torch.float32 and self._tokenizer is None

    @cached_property
    def _clip_tokenizer(self) -> ClipTokenizer:
        return clip_tokenizer(self.spec.context)

    def tokenize(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Texts to token ids, (n, context) int64."""
        if self._tokenizer is None:
            return self._clip_tokenizer(texts)
        return hf_tokenize(self._tokenizer, texts)

    def split_text(self, text: str) -> list[str]:
        """Pieces of a text that each fit the context, in order; one piece if it fits whole."""
        if self._tokenizer is None:
            return self._clip_tokenizer.split(text)
        # Other tokenizers do not say where their tokens lie in the text: three words in four tokens is the rule.
        words, room = text.split(), max(1, (self.spec.context - 2) * 3 // 4)
        step = max(1, room - room // 4)
        starts = range(0, max(1, len(words) - (room - step)), step)
        return [" ".join(words[first : first + room]) for first in starts]

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

    def run_cells(self, pixels: Pixels) -> Cells:
        """Pixels, (n, height, width, 3) uint8, to (n, n_cells, cell_dim) float32 unit rows."""
        import torch

        with torch.inference_mode():
            return self._unit(self.cells(self.normalised(torch.from_numpy(np.ascontiguousarray(pixels)))))

    def normalised(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pixels, (n, height, width, 3) of 0 to 255, to what the image tower takes, (n, 3, height, width)."""
        mean, std = (value.to(self.device) for value in self.scale)
        return ((pixels.to(self.device).permute(0, 3, 1, 2).float() - mean) / std).to(self.dtype)

    def cells(self, batch: torch.Tensor) -> torch.Tensor:
        """A normalised batch to (n, n_cells, cell_dim), rows not yet of unit length."""
        assert self.cell_head is not None
        grid = self.model.visual.trunk.forward_features(batch)  # type: ignore[operator, union-attr]  # (n, C, h, w)
        cells: torch.Tensor = self.cell_head(grid.flatten(2).transpose(1, 2))
        return cells

    def _unit(self, features: torch.Tensor) -> Vectors:
        import torch

        rows = torch.nn.functional.normalize(features.float(), dim=-1).cpu().numpy()
        return np.asarray(rows, dtype=np.float32)


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
    ModelBroken
        If the model does not give finite, differing unit vectors.
    InvalidInput
        For a name, device or precision that does not exist.
    """
    device, precision = pick_device(device, precision)
    model, config, tokenizer = _create(source or name)
    cell_head = _cell_head(source)
    context = int(getattr(model, "context_length", 77))
    spec = EncoderSpec(
        name=name,
        dim=_width(model),
        context=context,
        licence=licence,
        weights=weights_digest(model),
        tokenizer=tokenizer_digest(
            clip_tokenizer(context) if tokenizer is None else lambda texts: hf_tokenize(tokenizer, texts)
        ),
        preprocess=Preprocess.from_config(config),
        activation=_activation(model),
    )
    if cell_head is not None:
        spec = replace(spec, cells=(_n_cells(model, spec), cell_head.out_features))
    encoder = OpenClipEncoder(spec, model, tokenizer, device, precision, cell_head)
    texts, images = encoder.check_vectors()
    check_tower(name, "text", texts, reference[0] if reference else None)
    check_tower(name, "image", images, reference[1] if reference else None)
    return encoder


def pick_device(device: str | None, precision: str | None) -> tuple[str, str]:
    """Choose where and how precisely to compute: CUDA in bf16 (fp16 before Ampere), Apple's GPU or the CPU in fp32.

    Raises
    ------
    InvalidInput
        For a device that is not there or a precision that does not exist.
    """
    import torch

    mps = torch.backends.mps.is_available()
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "mps" if mps else "cpu"
    kind = device.split(":")[0]
    if not {"cpu": True, "cuda": torch.cuda.is_available(), "mps": mps}.get(kind, False):
        raise InvalidInput(f"expected a device that is here, got {device!r}: try device='cpu'")
    if precision is None:
        precision = ("bf16" if torch.cuda.is_bf16_supported() else "fp16") if kind == "cuda" else "fp32"
    if precision not in PRECISIONS:
        raise InvalidInput(f"expected a precision of {', '.join(PRECISIONS)}, got {precision!r}")
    return device, precision


def clip_tokenizer(context: int) -> ClipTokenizer:
    """Build CLIP's tokenizer from open_clip's vocabulary."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "tokenizer.json"
        write_tokenizer(file)
        return ClipTokenizer(file, context)


def hf_tokenize(tokenizer: Any, texts: Sequence[str]) -> NDArray[np.int64]:  # noqa: ANN401 open_clip has no types
    """Token ids by a Hugging Face tokenizer, its special tokens inside the texts made harmless."""
    inner = getattr(tokenizer, "tokenizer", None)
    special = [token for token in getattr(inner, "all_special_tokens", []) if len(token) > 1]
    plain = []
    for text in texts:
        for token in special:
            text = text.replace(token, " ")
        plain.append(" ".join(word[:MAX_WORD] for word in text.split()))
    return np.asarray(tokenizer(plain).numpy(), dtype=np.int64)


def weights_digest(model: torch.nn.Module) -> str:
    """Sixteen hexadecimal digits over all weights as fp32, by name: the same from whatever file they came."""
    hasher = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        hasher.update(key.encode())
        hasher.update(np.ascontiguousarray(value.detach().cpu().float().numpy()).tobytes())
    return hasher.hexdigest()[:16]


def _create(name: str) -> tuple[torch.nn.Module, dict[str, Any], Any]:
    """The model with its weights in fp32 for evaluation, its preprocessing, its tokenizer (None: CLIP's)."""
    architecture, tag = _split_name(name)
    try:
        with hub(offline=True):
            return _create_here(architecture, tag)
    except Exception as error:
        if name.startswith("local-dir:"):
            raise ModelUnavailable(_how_to_get(name, _one_line(error))) from error
        if not may_download():
            reason = "they are not in the local cache, and the model hub cannot be reached or HF_HUB_OFFLINE is set"
            raise ModelUnavailable(_how_to_get(name, reason)) from error
    try:
        with hub(offline=False):
            return _create_here(architecture, tag)
    except Exception as error:
        raise ModelUnavailable(_how_to_get(name, _one_line(error))) from error


def _create_here(architecture: str, tag: str | None) -> tuple[torch.nn.Module, dict[str, Any], Any]:
    import open_clip

    model = open_clip.create_model(
        architecture, pretrained=tag, precision="fp32", device="cpu", require_pretrained=True
    )
    tokenizer = open_clip.get_tokenizer(architecture)
    simple = isinstance(tokenizer, open_clip.SimpleTokenizer) and _reads_like_clip(tokenizer)
    return model.eval(), dict(model.visual.preprocess_cfg), None if simple else tokenizer


def _split_name(name: str) -> tuple[str, str | None]:
    import open_clip

    if name.startswith(("hf-hub:", "local-dir:")):
        if name.startswith("local-dir:") and not Path(name[10:]).is_dir():
            raise ModelUnavailable(
                f"{name}: there is no such folder; expected one with open_clip_config.json and weights"
            )
        return name, None
    architecture, _, tag = name.partition("/")
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if tag not in tags:
        known = f"its tags are {', '.join(tags)}" if tags else "`mmsearch models` lists some"
        raise InvalidInput(f"expected an encoder as architecture/tag, hf-hub:… or local-dir:…, got {name!r}: {known}")
    return architecture, tag


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _how_to_get(name: str, reason: str) -> str:
    if name.startswith("local-dir:"):
        return f"{name} does not load ({reason}); expected open_clip_config.json and open_clip_model.safetensors in it"
    return (
        f"the weights of {name!r} cannot be had: {reason}. "
        "Offline: fetch them once on a connected machine and copy its Hugging Face cache (HF_HOME), "
        "or save the model to a folder and use local-dir:FOLDER. Without them: the encoder 'mini' needs no download"
    )


def _reads_like_clip(tokenizer: Any) -> bool:  # noqa: ANN401 open_clip has no types
    """Whether open_clip's tokenizer is plain CLIP: lower case, no extra tokens, cut at the end."""
    return (
        tokenizer.vocab_size == 49408 and tokenizer.reduction_fn is None and tokenizer.clean_fn("A_b!  C") == "a_b! c"
    )


def _cell_head(source: str | None) -> torch.nn.Linear | None:
    """The late-interaction head for picture cells that lies beside the embedded model's weights."""
    file = Path((source or "").removeprefix("local-dir:")) / CELL_HEAD_FILE
    if source is None or not file.is_file():
        return None
    import torch
    from safetensors.torch import load_file

    tensors = load_file(file)
    weight, bias = tensors["late.img.weight"].float(), tensors["late.img.bias"].float()
    head = torch.nn.Linear(weight.shape[1], weight.shape[0])
    head.load_state_dict({"weight": weight, "bias": bias})
    return head.eval()


def _n_cells(model: torch.nn.Module, spec: EncoderSpec) -> int:
    import torch

    with torch.inference_mode():
        grid = model.visual.trunk.forward_features(torch.zeros((1, 3, *spec.preprocess.size)))  # type: ignore[operator, union-attr]
        return int(grid.shape[2] * grid.shape[3])


def _width(model: torch.nn.Module) -> int:
    import torch

    with torch.inference_mode():
        ids = torch.zeros((1, int(getattr(model, "context_length", 77))), dtype=torch.long)
        return int(model.encode_text(ids).shape[-1])  # type: ignore[operator]


def _activation(model: torch.nn.Module) -> str:
    names = {type(module).__name__ for module in model.modules()}
    return "quickgelu" if "QuickGELU" in names else "gelu"
