"""Cross-encoders of sentence-transformers, over texts, pictures or both."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
from PIL import Image

from mmsearch.errors import InvalidInput, LicenceRefused, MissingDependency, ModelBroken, ModelUnavailable, PictureError
from mmsearch.rerank.loading import ModelScorer, dtype_of
from mmsearch.rerank.pairs import CACHE_SIZE, Verdicts, has_picture, read_picture
from mmsearch.rerank.stage import text_of
from mmsearch.types import Hit, Item, Query

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

READS = ("text", "picture", "both")

# From the models' own pages on huggingface.co; whatever follows the name (a size, a date, a quantisation) counts too.
RESEARCH_ONLY: Final[Mapping[str, str]] = {
    "jina-reranker-m0": "CC BY-NC 4.0",
    "jina-reranker-v2-base-multilingual": "CC BY-NC 4.0",
    "jina-reranker-v3": "CC BY-NC 4.0",
}
"""Rerankers whose weights are for research only, by the start of their repository's name, and their licence."""

Part: TypeAlias = "str | dict[str, str | Image.Image]"


class SentenceCrossEncoder(ModelScorer["CrossEncoder"]):
    """Any ``CrossEncoder`` of sentence-transformers, 5.4 or later for pictures: its score before an activation.

    Not after it: a sigmoid makes equals of all that match well. The model must give one number a pair, as rerankers
    do. With ``both``, an item is read by what it has of picture and text; where its picture cannot be read, it is
    not judged. The batch is padded to its longest pair, and the padding masked: a score depends on the batch by
    rounding only, 1e-5 in fp32 and more in half precision.

    Checked on tiny random models, a BERT over texts and a Qwen3-VL over pictures, against sentence-transformers' own
    answers. Not checked, for want of the weights: Qwen3-VL-Reranker and jina-reranker-m0 themselves, whose chat
    templates and settings come from their repositories.

    Parameters
    ----------
    model
        A folder or ``organisation/repository``, such as ``Qwen/Qwen3-VL-Reranker-2B`` (Apache-2.0).
    reads
        What the model is shown of an item: its ``text``, its ``picture`` or ``both``.
    max_length
        Tokens of a pair, longer texts are cut; None takes the model's own limit.
    max_side
        Pictures are shrunk to fit a square of so many pixels, since such models take the longer the more there are.
    prompt
        An instruction in place of the model's own.
    trust_remote_code
        Run Python code from the model's repository. Only for those whose code you have read.
    accept_research
        Agree to research-only weights. ``MMSEARCH_ACCEPT_RESEARCH=1`` does the same.

    Raises
    ------
    LicenceRefused
        For research-only weights without consent.
    InvalidInput
        For a ``reads``, ``max_length`` or ``max_side`` out of range.

    The other parameters and errors are those of ``ModelScorer``.
    """

    packages = ("torch", "sentence_transformers")

    def __init__(
        self,
        model: str | Path,
        *,
        reads: str = "text",
        name: str = "cross",
        device: str | None = None,
        precision: str | None = None,
        revision: str | None = None,
        max_length: int | None = None,
        max_side: int = 1024,
        prompt: str | None = None,
        trust_remote_code: bool = False,
        accept_research: bool = False,
        batch_size: int = 16,
        cache_size: int = CACHE_SIZE,
    ) -> None:
        if reads not in READS:
            raise InvalidInput(f"expected reads as one of {', '.join(READS)}, got {reads!r}")
        if max_side < 1 or (max_length is not None and max_length < 1):
            raise InvalidInput(f"expected a max_side and a max_length of at least 1, got {max_side} and {max_length}")
        _check_licence(str(model), accept_research)
        self.reads = reads
        self._max_length, self._max_side, self._prompt = max_length, max_side, prompt
        self._trusted = trust_remote_code
        self._running = threading.Lock()
        super().__init__(
            model,
            name=name,
            device=device,
            precision=precision,
            revision=revision,
            batch_size=batch_size,
            cache_size=cache_size,
        )

    def _fingerprint(self, *settings: object) -> str:
        return super()._fingerprint(self.reads, self._max_length, self._max_side, self._prompt, *settings)

    def can_judge(self, query: Query, hit: Hit) -> bool:
        """Whether the query is one text and the item has what the model is to read."""
        return text_of(query) is not None and (self._shows_text(hit.item) or self._shows_picture(hit.item))

    def why_not(self, query: Query) -> str:
        """Why no hit can be read."""
        if text_of(query) is None:
            return super().why_not(query)
        return f"no hit has a {'picture or a text' if self.reads == 'both' else self.reads}"

    def _shows_text(self, item: Item) -> bool:
        return self.reads != "picture" and bool((item.text or "").strip())

    def _shows_picture(self, item: Item) -> bool:
        return self.reads != "text" and has_picture(item)

    def _load(self, device: str, precision: str, local: bool) -> CrossEncoder:
        try:
            encoder = self._create(device, precision, local, "sdpa")
        except ValueError as error:
            if not self._trusted and "trust_remote_code" in str(error):
                raise ModelUnavailable(
                    f"the model {self.model!r} needs Python code from its repository: read that code, and pass "
                    "trust_remote_code=True if you want it to run"
                ) from error
            if "scaled_dot_product" not in str(error) and "attn_implementation" not in str(error):
                raise
            encoder = self._create(device, precision, local, "eager")
        self._check(encoder)
        return encoder

    def _create(self, device: str, precision: str, local: bool, attention: str) -> CrossEncoder:
        from sentence_transformers import CrossEncoder

        return CrossEncoder(
            self.model,
            device=device,
            revision=self.revision,
            local_files_only=local,
            trust_remote_code=self._trusted,
            max_length=self._max_length,
            model_kwargs={"dtype": dtype_of(precision), "attn_implementation": attention},
        )

    def _check(self, encoder: CrossEncoder) -> None:
        """See that the model is a reranker.

        Raises
        ------
        ModelBroken
            If it gives several numbers a pair, has weights that no file gave, or cannot read pictures but is to.
        """
        if encoder.num_labels != 1:
            raise ModelBroken(
                f"the model {self.model!r} gives {encoder.num_labels} numbers a pair: expected a reranker, with one"
            )
        missing = _made_up(encoder)
        if missing:
            raise ModelBroken(
                f"the model {self.model!r} lacks {len(missing)} weights, such as {missing[0]}: expected a trained "
                "reranker and not the model that one is made from"
            )
        if self.reads != "text" and "image" not in encoder.modalities:
            raise ModelBroken(f"the model {self.model!r} reads no pictures: use reads='text' or another model")

    def _score_batch(self, query: Query, hits: Sequence[Hit]) -> Verdicts:
        import torch

        encoder = self._loaded()
        parts, unread = self._parts(hits, plain=set(encoder.modalities) <= {"text", "message"})
        values = np.full(len(hits), np.nan, dtype=np.float32)
        if parts:
            text = text_of(query) or ""
            pairs: list[Any] = [(text if isinstance(part, str) else {"text": text}, part) for part in parts.values()]
            with self._running:  # its tokenizer cannot be used by two threads at once
                values[list(parts)] = encoder.predict(
                    pairs,
                    prompt=self._prompt,
                    batch_size=len(pairs),
                    show_progress_bar=False,
                    activation_fn=torch.nn.Identity(),
                )
        return Verdicts(values, unread)

    def _parts(self, hits: Sequence[Hit], plain: bool) -> tuple[dict[int, Part], Mapping[int, str]]:
        """By position what the model is shown of an item, or why its picture cannot be read.

        A model that reads more than texts gets them as ``{"text": …}``: a bare str that looks like the address or the
        path of a picture would be fetched from there, whoever wrote it. Others (``plain``) get bare ones.
        """
        parts: dict[int, Part] = {}
        unread: dict[int, str] = {}
        for n, hit in enumerate(hits):
            part: dict[str, str | Image.Image] = {"text": hit.item.text or ""} if self._shows_text(hit.item) else {}
            try:
                if self._shows_picture(hit.item):
                    part["image"] = self._picture(hit.item)
                parts[n] = (hit.item.text or "") if plain else part
            except (PictureError, MissingDependency) as error:
                unread[n] = str(error)
        return parts, unread

    def _picture(self, item: Item) -> Image.Image:
        picture = read_picture(item, self._max_side)
        picture.thumbnail((self._max_side, self._max_side), Image.Resampling.LANCZOS)
        return picture


def _made_up(encoder: CrossEncoder) -> list[str]:
    """Names of weights that transformers made up at random, as it does with a warning only; none if it cannot be told.

    From version 5 on it marks those that it read from a file.
    """
    network = encoder.transformers_model
    weights = {} if network is None else dict(network.named_parameters())
    unmarked = [name for name, weight in weights.items() if not getattr(weight, "_is_hf_initialized", False)]
    return unmarked if len(unmarked) < len(weights) else []


def _check_licence(model: str, accepted: bool) -> None:
    name = model.rstrip("/\\").replace("\\", "/").rpartition("/")[2].lower()
    licence = next((terms for start, terms in RESEARCH_ONLY.items() if name.startswith(start)), None)
    if licence and not (accepted or os.environ.get("MMSEARCH_ACCEPT_RESEARCH") == "1"):
        raise LicenceRefused(
            f"the weights of {model!r} are for research only ({licence}): "
            "if that is your use, pass accept_research=True or set MMSEARCH_ACCEPT_RESEARCH=1"
        )
