"""A store's tuned cascade, and the default where there is none; by the stages' names."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from mmsearch.cascade import Cascade, Step
from mmsearch.errors import InvalidInput, StoreDamaged
from mmsearch.protocols import Collection
from mmsearch.rerank.cross import EmbeddedCross
from mmsearch.rerank.hubness import Hubness
from mmsearch.rerank.late import LateInteraction
from mmsearch.rerank.regions import Regions
from mmsearch.rerank.second import SecondEncoder
from mmsearch.rerank.stage import Stage
from mmsearch.rerank.words import WordMatch
from mmsearch.types import KINDS, PICTURE, PICTURE_FOR_TEXTS, TEXT

SETTINGS = {TEXT: "profile-text", PICTURE: "profile-picture", PICTURE_FOR_TEXTS: "profile-picture-for-texts"}
"""The settings under which a store keeps its profiles, by kind of query."""
STAGES = ("hubness", "regions", "late", "cross", "second", "words")
"""In the order in which they run."""
DEFAULT = ("hubness", "regions", "late")
"""What the committed benchmark supports (``benchmarks/cascade.py``)."""


@dataclass(frozen=True, slots=True)
class Profile:
    """Stages with their weights and numbers of candidates, and what was measured when they were chosen.

    ``encoder`` is the fingerprint of the encoder they were tuned with: another one's scores have another scale.
    ``kind`` is what was asked with, one of ``mmsearch.types.KINDS``.
    """

    stages: tuple[str, ...]
    weights: Mapping[str, float]
    n: Mapping[str, int]
    encoder: str = ""
    kind: str = TEXT
    options: Mapping[str, Any] = field(default_factory=dict)
    figures: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """What ``from_json`` reads."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Profile:
        """Read a stored profile; what a later version has added to it is passed over.

        Raises
        ------
        StoreDamaged
            If it is none.
        """
        try:
            found = json.loads(text)
            names = {one.name for one in fields(cls)}
            profile = cls(**{name: value for name, value in found.items() if name in names})
            stages = check_names(profile.stages)
            weights = {str(name): float(value) for name, value in profile.weights.items()}
            n = {str(name): int(value) for name, value in profile.n.items()}
            if profile.kind not in KINDS or not all(0 <= weight < math.inf for weight in weights.values()):
                raise ValueError(f"kind {profile.kind!r}, weights {weights}")
            profile = replace(profile, stages=stages, weights=weights, n=n)
            profile.cascade()  # which refuses what no cascade can be made of
            return profile
        except (TypeError, ValueError, OverflowError, AttributeError, RecursionError) as error:
            advice = "make it again with `mmsearch tune`"
            raise StoreDamaged(f"the store's profile cannot be read ({error}): {advice}") from error

    def cascade(self, budget_ms: float | None = None) -> Cascade:
        """The stages, built."""
        stages = build(self.stages, self.options)
        steps = [Step(stage, self.weights.get(stage.name), self.n.get(stage.name)) for stage in stages]
        return Cascade(steps, budget_ms=budget_ms, quiet=True)


def check_names(names: Sequence[str]) -> tuple[str, ...]:
    """Names of stages, in the order in which they run.

    Raises
    ------
    InvalidInput
        For an unknown or repeated one.
    """
    unknown = [name for name in names if name not in STAGES]
    if unknown or len(set(names)) < len(names):
        raise InvalidInput(f"expected different stages of {', '.join(STAGES)}; got {', '.join(names) or 'none'}")
    return tuple(name for name in STAGES if name in names)


def build(names: Sequence[str], options: Mapping[str, Any] | None = None) -> list[Stage]:
    """The stages of these names, with their defaults.

    Raises
    ------
    InvalidInput
        For an unknown name, or a stage that lacks an option it cannot do without.
    """
    names = check_names(names)
    return [_build(name, names, options or {}) for name in names]


def _build(name: str, names: Sequence[str], options: Mapping[str, Any]) -> Stage:
    corrected = "hubness" in names
    match name:
        case "hubness":
            return Hubness()
        case "regions":
            return Regions(corrected=corrected)
        case "late":
            return LateInteraction()
        case "cross":
            return EmbeddedCross()
        case "second":
            if not isinstance(options.get("second"), str):
                raise InvalidInput("expected an encoder for the stage 'second', got none: name one with --second")
            return SecondEncoder(options["second"], corrected=corrected)
        case _:
            return WordMatch()


def default_cascade(collection: Collection, kind: str = TEXT) -> Cascade:
    """The stages that the benchmark supports and that this collection has what they need for.

    Parameters
    ----------
    kind
        What is asked with, one of ``mmsearch.types.KINDS``.
    """
    names = [name for name in DEFAULT if _can(name, collection, kind)]
    return Cascade(build(names), quiet=True)


def _can(name: str, collection: Collection, kind: str) -> bool:
    if name == "hubness":
        return collection.has_bank("text" if kind == TEXT else "picture")
    if kind != TEXT:
        # A picture asks for texts with views of its own. Late interaction would have to read each candidate's text, and
        # for pictures that ask for pictures nothing was measured to help.
        return name == "regions" and kind == PICTURE_FOR_TEXTS
    # Untrained projections of other encoders' patches are for an evaluation to choose.
    space = {"regions": "regions", "late": "cells"}[name]
    return space in collection.fields and (name != "late" or collection.encoder_name == "mini")
