"""``Part``: one recommender of a blend, and what it adds to a score."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from mmsearch.errors import InvalidInput
from mmsearch.protocols import Recommender
from mmsearch.recommenders.linear import Linear


@dataclass(frozen=True, slots=True)
class Part:
    """One recommender of a blend.

    ``make`` makes it anew, for fitting on a part of the behaviour; ``name`` is its own among the parts, ``reason`` the
    word for it in explanations. ``cold``: whether it has something to say of items without behaviour. ``fading``, above
    0 to 1: a second opinion of the same model with more regard to what a person did last (see ``Linear.lately``, which
    the model must have); None: none. ``nominates``: whether its candidates are asked for; not where they cost a look
    at each of very many items.
    """

    name: str
    make: Callable[[], Recommender]
    reason: str
    cold: bool = False
    fading: float | None = None
    nominates: bool = True


Voice: TypeAlias = tuple[Part, float | None]
"""A part, and how its opinion fades; None: as it is."""


@dataclass(frozen=True, slots=True)
class Say:
    """What one part adds to a score: ``amount`` in all, and (n_events,) ``by_event`` of the person's history."""

    part: Part
    amount: float
    by_event: NDArray[np.float32]


def checked(part: Part, model: Recommender) -> Recommender:
    """The model, if it can do what the part needs.

    Raises
    ------
    InvalidInput
        If it should fade and cannot.
    """
    if part.fading and not isinstance(model, Linear):
        raise InvalidInput(f"expected a model that can fade as {part.name}, got {type(model).__name__}")
    return model
