"""Getting a model from open_clip: from the disk first, never one of random weights, and errors that say what to do."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmsearch.encoders.foreign import ForeignTokenizer
from mmsearch.encoders.hub import hub, may_download
from mmsearch.encoders.spec import digest
from mmsearch.encoders.tokenizer import ClipTokenizer
from mmsearch.errors import InvalidInput, MissingDependency, ModelUnavailable

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Created:
    """What open_clip gave: a model in fp32 on the CPU for evaluation, and what belongs to it."""

    model: torch.nn.Module
    tokenizer: ClipTokenizer | ForeignTokenizer
    preprocess: dict[str, Any]
    architecture: str
    """Digest of the model's configuration."""


def create(name: str) -> Created:
    """Create the model of this name, from the disk if it is there, else from the model hub.

    Raises
    ------
    InvalidInput
        For a name that open_clip does not know.
    ModelUnavailable
        If the weights or the tokenizer are not here and cannot be fetched, or cannot be read.
    MissingDependency
        If it needs the package transformers, which is not installed.
    """
    architecture, tag = _split_name(name)
    try:
        with hub(offline=True):
            return _create_here(architecture, tag)
    except Exception as error:
        _refuse_without_transformers(name, error)
        if name.startswith("local-dir:"):
            raise ModelUnavailable(_how_to_get(name, _one_line(error))) from error
        if not may_download():
            reason = "they are not in the local cache, and the model hub cannot be reached or HF_HUB_OFFLINE is set"
            raise ModelUnavailable(_how_to_get(name, reason)) from error
    try:
        with hub(offline=False):
            return _create_here(architecture, tag)
    except Exception as error:
        _refuse_without_transformers(name, error)
        raise ModelUnavailable(_how_to_get(name, _one_line(error))) from error


def _create_here(architecture: str, tag: str | None) -> Created:
    import open_clip

    # The weights last: what else is missing is said before gigabytes are fetched.
    config = open_clip.get_model_config(architecture)
    tokenizer = open_clip.get_tokenizer(architecture)
    model = open_clip.create_model(
        architecture, pretrained=tag, precision="fp32", device="cpu", require_pretrained=True
    )
    plain = isinstance(tokenizer, open_clip.SimpleTokenizer) and _reads_like_clip(tokenizer)
    return Created(
        model=model.eval(),
        tokenizer=ClipTokenizer(None, int(tokenizer.context_length)) if plain else ForeignTokenizer(tokenizer),
        preprocess=dict(model.visual.preprocess_cfg),
        architecture=digest(json.dumps(_essence(config), sort_keys=True)),
    )


def _essence(config: Any) -> Any:  # noqa: ANN401 whatever JSON holds
    """A model's configuration without what only says where its parts once came from."""
    if not isinstance(config, dict):
        return config
    sources = ("hf_model_name", "hf_tokenizer_name")
    return {key: _essence(value) for key, value in config.items() if key not in sources and "pretrained" not in key}


def _split_name(name: str) -> tuple[str, str | None]:
    import open_clip

    schema, _, place = name.partition(":")
    if schema in ("hf-hub", "local-dir"):
        if not place.strip():
            wanted = "hf-hub:organisation/repository" if schema == "hf-hub" else "local-dir:/path/to/folder"
            raise InvalidInput(f"expected {wanted}, got {name!r}")
        if schema == "local-dir" and not Path(place).is_dir():
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


def _refuse_without_transformers(name: str, error: Exception) -> None:
    if "transformers" in str(error) and importlib.util.find_spec("transformers") is None:
        raise MissingDependency(
            f"the tokenizer or the text tower of {name!r} needs the package transformers, which is not installed: "
            "pip install 'mmsearch[siglip]'"
        ) from error


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
