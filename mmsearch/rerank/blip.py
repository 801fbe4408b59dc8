"""BLIP's image-text matching as a stage."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from mmsearch.errors import MissingDependency, ModelBroken, PictureError
from mmsearch.rerank.loading import ModelScorer, dtype_of
from mmsearch.rerank.lru import Lru
from mmsearch.rerank.pairs import (
    CACHE_SIZE,
    Verdicts,
    has_picture,
    item_key,
    read_picture,
)
from mmsearch.rerank.stage import text_of
from mmsearch.types import Hit, Query

if TYPE_CHECKING:
    import torch


ENC: Final = 30_523
"""BLIP's token [ENC], which its own retrieval evaluation puts in the place of [CLS]."""
PICTURE_CACHE: Final = 256 * 1024 * 1024
"""Bytes of pictures' features that are kept: those of some 150 pictures of a base model in fp32."""


@dataclass(frozen=True, slots=True)
class _Blip:
    model: Any
    tokenizer: Any
    image_processor: Any
    device: torch.device
    dtype: torch.dtype
    side: int
    context: int


class BlipITM(ModelScorer[_Blip]):
    """How well a picture and a text match, by BLIP's matching head: the logit of a match minus that of none.

    The features of pictures are kept, so that further queries over the same pictures run only the text layers, about
    a seventh of a base model's arithmetic. All pairs of a batch have the same text, so nothing is padded, and a score
    does not depend on the batch beyond rounding (1e-5 in fp32).

    Checked on tiny random models against transformers' own forward pass. Not checked, for want of the weights: the
    quality of real ones, and which first token is better with them. ``None`` computes what transformers does; BLIP's
    training and retrieval evaluation (salesforce/BLIP, ``train_retrieval.py``) put the token ``ENC`` first.

    Parameters
    ----------
    model
        Of transformers' class ``BlipForImageTextRetrieval``.
    first_token
        The token id that takes the place of [CLS]; None leaves it.
    picture_cache
        Bytes of pictures' features that are kept in main memory; 0 keeps none.

    The other parameters and all errors are those of ``ModelScorer``. Source: Li et al. 2022, "BLIP: Bootstrapping
    Language-Image Pre-training", arXiv:2201.12086.
    """

    def __init__(
        self,
        model: str | Path = "Salesforce/blip-itm-base-coco",
        *,
        name: str = "cross",
        device: str | None = None,
        precision: str | None = None,
        revision: str | None = None,
        first_token: int | None = None,
        batch_size: int = 16,
        cache_size: int = CACHE_SIZE,
        picture_cache: int = PICTURE_CACHE,
    ) -> None:
        self._first_token = first_token
        self._states: Lru[torch.Tensor] = Lru(picture_cache, lambda rows: rows.numel() * rows.element_size())
        self._tokenizing = threading.Lock()
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
        return super()._fingerprint(self._first_token, *settings)

    def can_judge(self, query: Query, hit: Hit) -> bool:
        """Whether the query is one text and the item has a picture."""
        return text_of(query) is not None and has_picture(hit.item)

    def why_not(self, query: Query) -> str:
        """Why no hit can be read."""
        return "no hit has a picture" if text_of(query) is not None else super().why_not(query)

    def forget(self) -> None:
        """Drop all kept scores and features."""
        super().forget()
        self._states.clear()

    def _load(self, device: str, precision: str, local: bool) -> _Blip:
        import torch
        from transformers import BlipForImageTextRetrieval, BlipProcessor

        place = {"local_files_only": local, "revision": self.revision or "main", "trust_remote_code": False}
        processor = BlipProcessor.from_pretrained(self.model, **place)
        # Its layers multiply by themselves; "eager" keeps a configuration from asking for another attention.
        model, said = BlipForImageTextRetrieval.from_pretrained(
            self.model, attn_implementation="eager", output_loading_info=True, **place
        )
        missing = sorted(key for key in said["missing_keys"] if not key.endswith("position_ids"))
        if missing:
            raise ModelBroken(
                f"the model {self.model!r} lacks {len(missing)} weights, such as {missing[0]}: expected one of BLIP's "
                "image-text matching, such as Salesforce/blip-itm-base-coco"
            )
        dtype = dtype_of(precision)
        model = model.eval().to(device=device, dtype=dtype)
        model.itm_head.float()  # two logits from half precision would tie too often
        return _Blip(
            model,
            processor.tokenizer,
            processor.image_processor,
            torch.device(device),
            dtype,
            int(model.config.vision_config.image_size),
            int(model.config.text_config.max_position_embeddings),
        )

    def _score_batch(self, query: Query, hits: Sequence[Hit]) -> Verdicts:
        import torch

        blip = self._loaded()
        with torch.inference_mode():
            states, unread = self._pictures(blip, hits)
            values = np.full(len(hits), np.nan, dtype=np.float32)
            if states:
                values[list(states)] = self._match(blip, text_of(query) or "", list(states.values()))
        return Verdicts(values, unread)

    def _pictures(self, blip: _Blip, hits: Sequence[Hit]) -> tuple[dict[int, torch.Tensor], Mapping[int, str]]:
        """By position the vision tower's output, (patches + 1, width) on the CPU, or why there is none."""
        keys = [item_key(hit.item) for hit in hits]
        states = {n: known for n, key in enumerate(keys) if (known := self._states.get(key)) is not None}
        pictures, unread = {}, {}
        for n, hit in enumerate(hits):
            if n not in states:
                try:
                    pictures[n] = read_picture(hit.item, blip.side)
                except (PictureError, MissingDependency) as error:
                    unread[n] = str(error)
        if pictures:
            pixels = blip.image_processor(images=list(pictures.values()), return_tensors="pt")["pixel_values"]
            rows = blip.model.vision_model(pixel_values=pixels.to(blip.device, blip.dtype)).last_hidden_state.cpu()
            for n, row in zip(pictures, rows, strict=True):
                states[n] = row.clone()  # not a view, which would keep the whole batch alive
                self._states.put(keys[n], states[n])
        return dict(sorted(states.items())), unread

    def _match(self, blip: _Blip, text: str, states: list[torch.Tensor]) -> NDArray[np.float32]:
        """One text and pictures' features to logit differences, (n,)."""
        import torch

        with self._tokenizing:  # the tokenizer cannot be used by two threads at once
            tokens = blip.tokenizer(text, truncation=True, max_length=blip.context, return_tensors="pt")
        ids = tokens["input_ids"].to(blip.device)  # (1, tokens)
        if self._first_token is not None:
            ids[:, 0] = self._first_token
        said = blip.model.text_encoder(
            input_ids=ids.expand(len(states), -1),
            attention_mask=torch.ones_like(ids).expand(len(states), -1),
            encoder_hidden_states=torch.stack(states).to(blip.device),
        )
        logits = blip.model.itm_head(said.last_hidden_state[:, 0].float())  # (n, 2): no match, match
        difference: NDArray[np.float32] = (logits[:, 1] - logits[:, 0]).cpu().numpy()
        return difference
