"""Encoders worth knowing: what each is for, and the terms of its weights."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ModelCard:
    """A recommended encoder. ``research_only`` weights need the user's explicit consent."""

    name: str
    licence: str
    use: str
    params_m: float
    flickr_r1: float | None = None
    coco_r1: float | None = None
    research_only: bool = False
    built_in: bool = False


# Recall@1, text to image, zero-shot, in percent: open_clip's docs/openclip_retrieval_results.csv (2023-11);
# big_vision's SigLIP2 README for SigLIP2; apple/ml-mobileclip's results for MobileCLIP2; perception_models' README.
MODELS: dict[str, ModelCard] = {
    card.name: card
    for card in (
        ModelCard(
            "mini",
            "non-commercial (trained on Flickr8k photographs)",
            "demos, tests and offline trials; comes with the package, needs no download",
            21,
            built_in=True,
        ),
        ModelCard(
            "ViT-B-16-SigLIP2/webli",
            "Apache-2.0",
            "recommended for real use, on a CPU or a small GPU",
            375,
            coco_r1=52.1,
        ),
        ModelCard("ViT-B-16-SigLIP/webli", "Apache-2.0", "real use in about 1 GB of memory", 203, 74.7, 47.8),
        ModelCard(
            "ViT-B-32-256/datacomp_s34b_b86k", "MIT", "the fastest permissive model of good quality", 151, 64.9, 39.9
        ),
        ModelCard("ViT-B-32-SigLIP2-256/webli", "Apache-2.0", "fast, and better than ViT-B-32-256", 377, coco_r1=47.2),
        ModelCard("ViT-L-16-SigLIP2-256/webli", "Apache-2.0", "higher quality on a GPU", 882, coco_r1=54.7),
        ModelCard(
            "ViT-SO400M-16-SigLIP2-384/webli",
            "Apache-2.0",
            "the best of the SigLIP2 family for one GPU",
            1136,
            coco_r1=56.0,
        ),
        ModelCard(
            "PE-Core-L-14-336/meta", "Apache-2.0", "the best photographs-to-words quality on a GPU", 671, coco_r1=57.1
        ),
        ModelCard("hf-hub:Marqo/marqo-ecommerce-embeddings-B", "Apache-2.0", "products and shops", 203),
        ModelCard(
            "MobileCLIP2-S0/dfndr2b",
            "Apple research only",
            "the best quality for its size, for research",
            54,
            69.2,
            43.7,
            research_only=True,
        ),
        ModelCard("MobileCLIP2-S2/dfndr2b", "Apple research only", "as S0, larger", 99, 74.8, 48.8, research_only=True),
    )
}

RESEARCH_ONLY_FAMILIES = ("mobileclip",)
"""Families whose every weight is for research only, listed above or not, wherever it lies; in lower case."""


def card_of(name: str) -> ModelCard:
    """The card of an encoder; one that is not listed gets a card that says so."""
    if name in MODELS:
        return MODELS[name]
    research = _model_of(name).lower().startswith(RESEARCH_ONLY_FAMILIES)
    licence = "Apple research only" if research else "not known to mmsearch: see the model's own page"
    return ModelCard(name, licence, "not among the recommended encoders", 0.0, research_only=research)


def _model_of(name: str) -> str:
    """The architecture in a name: before the tag, or the last part of a repository's or a folder's name."""
    if name.startswith(("hf-hub:", "local-dir:")):
        return name.rstrip("/\\").replace("\\", "/").partition(":")[2].rpartition("/")[2]
    return name.partition("/")[0]
