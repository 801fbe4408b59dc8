"""``Lineup``: every recommender that there is, made for the items of one store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np

from mmsearch.behaviour import Behaviour
from mmsearch.catalog import EventBook
from mmsearch.protocols import Recommender
from mmsearch.recommenders.bridge import Bridge
from mmsearch.recommenders.content import Content
from mmsearch.recommenders.ease import Ease
from mmsearch.recommenders.factors import Factors
from mmsearch.recommenders.hybrid import Hybrid
from mmsearch.recommenders.neighbors import ItemNeighbors
from mmsearch.recommenders.parts import Part
from mmsearch.recommenders.popularity import Popular, Random
from mmsearch.recommenders.profiles import NEAREST
from mmsearch.recommenders.sessions import Transitions
from mmsearch.stock import DETAILS, Stock
from mmsearch.types import Vectors

if TYPE_CHECKING:
    from mmsearch.store import Store

LOOKS, TEXT, LABELS, TOGETHER, NEXT, TASTE, POPULAR, LEARNT = (
    "looks", "text", "details", "had together", "had next", "taste", "popular", "would go together",
)  # fmt: skip
REASONS = {"picture": LOOKS, "text": TEXT, DETAILS: LABELS}
"""What speaks for an item, by the field in which it is like what somebody had."""
_EASE_ITEMS = 8_000
"""Up to so many items the hybrid has EASE in it: it takes memory with the square of their number, 256 MB here."""
_LATELY_EASE, _LATELY_ITEMS = 0.8, 0.5
"""What a step back counts: the best of 1, .99, .97, .95, .9, .8 and .5 on a validation split of MovieLens."""
_TRENDING = 30.0
"""Days after which an event counts half for what is trending."""
_NO_FACTORS = "als and bpr need an extra: pip install 'mmsearch[factors]'"


@dataclass(frozen=True, slots=True, eq=False)
class Lineup:
    """What is needed to judge recommenders on a store: its behaviour, and what makes each model.

    ``ids`` are the items' ids by position; ``vectors``, (n_items, dim) float32, those that lists are judged for
    diversity by, zeros where an item has none; ``missing`` says why a model cannot be had.
    """

    behaviour: Behaviour
    ids: list[str]
    vectors: Vectors
    factories: Mapping[str, Callable[[], Recommender]]
    missing: Mapping[str, str]


def open_lineup(store: Store) -> Lineup:
    """The line-up of a store's items and interactions, as they are now."""
    with store.reading() as view:
        stock = Stock.of(store, view)
        behaviour, _ = stock.behaviour(EventBook(store.catalog))
        rows = store.catalog.rows_by_key(stock.keys.tolist())
    vectors = [stock.fields[name].take(np.arange(len(stock))) for name in REASONS if name in stock.fields]
    shown = vectors[0] if vectors else np.zeros((len(stock), 1), dtype=np.float32)
    missing = {} if _has_factors() else dict.fromkeys(("als", "bpr"), _NO_FACTORS)
    if len(stock) > Ease().max_items:
        missing["ease"] = (
            f"ease takes at most {Ease().max_items} items: its memory grows with the square of their number"
        )
    return Lineup(behaviour, [rows[key][1] for key in stock.keys.tolist()], shown, models(stock), missing)


def models(stock: Stock) -> dict[str, Callable[[], Recommender]]:
    """What makes each recommender, by its name."""
    by_content: dict[str, Callable[[], Recommender]] = {}
    if stock.fields:
        by_content["content"] = partial(Content, stock.fields, profile=NEAREST, near=stock.near)
        for name in stock.fields if len(stock.fields) > 1 else ():
            by_content[name] = partial(_of_field, stock, name)
        by_content["bridge"] = partial(Bridge, stock.fields)
    return {
        "random": Random,
        "popular": Popular,
        "trending": partial(Popular, half_life=_TRENDING),
        "items": ItemNeighbors,
        "bm25": partial(ItemNeighbors, "bm25"),
        "ease": Ease,
        "als": partial(Factors, "als"),
        "bpr": partial(Factors, "bpr"),
        "sessions": Transitions,
        **by_content,
        "hybrid": partial(hybrid, stock),
    }


def hybrid(stock: Stock, names: Sequence[str] | None = None, *, fresh: float = 0.1) -> Hybrid:
    """The blend of what suits these items: by content, with a part for each field, and by behaviour.

    Parameters
    ----------
    names
        The parts, by name, for one that is taken back from a file; None: all that can be had.
    """
    fields = {name: vectors for name, vectors in stock.fields.items() if names is None or name in names}
    few = not stock.near  # few enough that all may be looked at for each person
    parts = [
        Part("items", ItemNeighbors, TOGETHER, fading=_LATELY_ITEMS),
        Part("sessions", Transitions, NEXT),
        Part("popular", Popular, POPULAR),
        Part("ease", Ease, TOGETHER, fading=_LATELY_EASE),
        Part("als", partial(Factors, "als"), TASTE, nominates=few),
    ]
    for name in fields:
        nominates = few or name in stock.near
        parts.append(Part(name, partial(_of_field, stock, name), REASONS[name], cold=True, nominates=nominates))
    if fields:
        parts.append(Part("bridge", partial(Bridge, fields), LEARNT, cold=True, nominates=few))
    if names is None:
        left_out = {"als"} if not _has_factors() else set()
        left_out |= {"ease"} if len(stock) > _EASE_ITEMS else set()
        names = [part.name for part in parts if part.name not in left_out]
    return Hybrid([part for part in parts if part.name in names], fresh=fresh)


def _of_field(stock: Stock, name: str) -> Content:
    near = {name: stock.near[name]} if name in stock.near else None
    return Content({name: stock.fields[name]}, profile=NEAREST, near=near)


def _has_factors() -> bool:
    try:
        return find_spec("implicit") is not None
    except ValueError:  # it was put aside in sys.modules
        return False
