"""The embedded default model, ``mini``: shipped weights, their card and their terms."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from mmsearch.encoders.spec import EncoderSpec
from mmsearch.types import Vectors

NAME = "mini"
SPEC_FILE = "spec.json"
WEIGHTS_FILE = "open_clip_model.safetensors"
RERANKER_FILE = "reranker.safetensors"


def mini_folder() -> Path:
    """The folder of the package that holds the weights, in open_clip's ``local-dir`` format."""
    return Path(str(files("mmsearch.encoders").joinpath("weights", "mini")))


@cache
def mini_spec() -> EncoderSpec:
    """The stored facts of ``mini``, so that its fingerprint is known without loading it."""
    return EncoderSpec.from_json(_stored()["spec"])


def mini_checksums() -> dict[str, str]:
    """SHA-256 of each shipped file, by name."""
    return dict(_stored()["sha256"])


def mini_check_vectors() -> tuple[Vectors, Vectors]:
    """What the reference towers made of the probe texts, (3, dim), and the probe picture, (1, dim)."""
    stored = _stored()
    texts, images = (np.asarray(stored[key], dtype=np.float32) for key in ("check_texts", "check_images"))
    return texts, images


@cache
def _stored() -> dict[str, Any]:
    return dict(json.loads((mini_folder() / SPEC_FILE).read_text("utf-8")))
