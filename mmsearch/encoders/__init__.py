"""Encoders: ``load_encoder(name)`` gives one; torch is imported only if it must be."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from mmsearch.encoders.cache import Choice, choice, export_folder, remember_choice
from mmsearch.encoders.registry import MODELS, ModelCard, card_of
from mmsearch.errors import InvalidInput, LicenceRefused, ModelBroken
from mmsearch.places import default_cache

if TYPE_CHECKING:
    from mmsearch.encoders.onnx import OnnxEncoder
    from mmsearch.encoders.openclip import OpenClipEncoder
    from mmsearch.encoders.towers import TowerEncoder

__all__ = ["MODELS", "ModelCard", "card_of", "load_encoder"]

RUNTIMES = ("auto", "onnx", "torch")


def load_encoder(
    name: str = "mini",
    *,
    runtime: str = "auto",
    device: str | None = None,
    precision: str | None = None,
    accept_research: bool = False,
    cache: Path | None = None,
) -> TowerEncoder:
    """Load an encoder by name.

    Parameters
    ----------
    name
        ``mini`` (embedded), ``architecture/tag`` of open_clip, ``hf-hub:org/repo`` or ``local-dir:/path``.
    runtime
        ``auto`` takes what is fastest: on a CPU the quicker of ONNX Runtime and torch, measured once and
        remembered; a GPU if there is one, except for ``mini``, whose export starts faster than a GPU does. ``onnx``
        makes an export if there is none yet.
    device, precision
        For torch: see ``mmsearch.encoders.openclip.load_openclip``. Naming either means torch.
    accept_research
        Agree to research-only weights. ``MMSEARCH_ACCEPT_RESEARCH=1`` does the same.
    cache
        Where exports are kept; ``MMSEARCH_CACHE``, else the user's cache directory.

    Raises
    ------
    LicenceRefused
        For research-only weights without consent.
    ModelUnavailable
        If the weights are not here and cannot be fetched.
    MissingDependency
        If the model needs a package that is not installed.
    ModelBroken
        If the model or its export does not answer as it should. Exports load when first used, and so may raise it
        then; the one of ``mini`` is made again instead.
    InvalidInput
        For a name, runtime, device or precision that does not exist.
    """
    if not isinstance(name, str) or not name.strip():
        raise InvalidInput(f"expected the name of an encoder as a str, got {name!r}")
    if runtime not in RUNTIMES:
        raise InvalidInput(f"expected a runtime of {', '.join(RUNTIMES)}, got {runtime!r}")
    card = card_of(name)
    if card.research_only and not (accept_research or os.environ.get("MMSEARCH_ACCEPT_RESEARCH") == "1"):
        raise LicenceRefused(
            f"the weights of {name!r} are for research only ({card.licence}): "
            "if that is your use, pass accept_research=True or set MMSEARCH_ACCEPT_RESEARCH=1"
        )
    if runtime == "torch" or device is not None or precision is not None:
        return _torch(card, device, precision)
    cache = cache or default_cache()
    return _exported_mini(card, cache) if card.built_in else _quickest(card, runtime, cache)


def _torch(card: ModelCard, device: str | None, precision: str | None) -> OpenClipEncoder:
    from mmsearch.encoders.openclip import load_openclip

    if not card.built_in:
        return load_openclip(card.name, card.licence, device=device, precision=precision)
    from mmsearch.encoders.builtin import mini_check_vectors, mini_folder

    return load_openclip(
        card.name,
        card.licence,
        device=device,
        precision=precision,
        source=f"local-dir:{mini_folder()}",
        reference=mini_check_vectors(),
    )


def _exported_mini(card: ModelCard, cache: Path) -> TowerEncoder:
    """``mini`` from its export, made first if it is missing or damaged; in torch where nothing can be written."""
    from mmsearch.encoders.builtin import mini_spec
    from mmsearch.encoders.export import export
    from mmsearch.encoders.onnx import OnnxEncoder

    folder = export_folder(cache, mini_spec().fingerprint)

    def remake() -> None:
        export(_torch(card, "cpu", "fp32"), folder)

    with suppress(ModelBroken):
        encoder = OnnxEncoder(folder, remake)
        if encoder.spec == mini_spec():
            return encoder
    original = _torch(card, "cpu", "fp32")
    try:
        export(original, folder)
        return OnnxEncoder(folder, remake)
    except ModelBroken:
        return original


def _quickest(card: ModelCard, runtime: str, cache: Path) -> TowerEncoder:
    """Any other model: what was found before, else export and measure."""
    from mmsearch.encoders.export import export, faster_export

    known = choice(cache, card.name)
    if known.export and (known.quicker or runtime == "onnx"):
        with suppress(ModelBroken):
            return _exported(card, known.export)
        known = Choice()
    encoder = _torch(card, "cpu" if runtime == "onnx" else None, None)
    folder = export_folder(cache, encoder.fingerprint, _label(card, encoder))
    if runtime == "onnx":
        if not encoder.has_clip_tokenizer:
            raise InvalidInput(
                f"{card.name!r} cannot run through ONNX Runtime, since its tokenizer needs torch: use runtime='auto'"
            )
        exported = export(encoder, folder)
        remember_choice(cache, card.name, Choice(folder, known.quicker))
        return exported
    if known.quicker is False or not encoder.exportable:
        return encoder
    faster = faster_export(encoder, folder)
    remember_choice(cache, card.name, Choice(folder if faster else known.export, faster is not None))
    return faster or encoder


def _exported(card: ModelCard, folder: Path) -> OnnxEncoder:
    """The export that was remembered for a name.

    Raises
    ------
    ModelBroken
        If it is not what the folder is named after, so that its facts were changed, or its terms have.
    """
    from mmsearch.encoders.onnx import OnnxEncoder

    encoder = OnnxEncoder(folder)
    if export_folder(folder.parent.parent, encoder.fingerprint, _label(card, encoder)) != folder:
        raise ModelBroken(f"the exported encoder in {folder} is not the one of {card.name!r}: delete the folder")
    return encoder


def _label(card: ModelCard, encoder: TowerEncoder) -> str:
    return f" {card.name} {card.licence} {encoder.spec.cells} {encoder.spec.reranker}"
