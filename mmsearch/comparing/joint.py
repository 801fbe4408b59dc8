"""A joint model alone: what a pair costs, how many can be afforded, and the order of all items by its scores."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmsearch.comparing.values import Growth
from mmsearch.engine import Engine
from mmsearch.evaluation import ask, check_any
from mmsearch.judged import Judged
from mmsearch.overlap import batches
from mmsearch.queries import as_query
from mmsearch.rerank.stage import ALONE, Stage, unscored
from mmsearch.types import Hit, Item, Progress, Query, Report, Signal

LEAST = 100
"""With fewer queries than this, items become fewer first: intervals are too wide otherwise."""
MAX_ITEMS, MAX_PAIRS = 20_000, 20_000_000
"""However quick the model is: hits of 64 queries and numbers of all pairs are held in memory."""
PART = 64
"""Items that all queries are asked of before the next ones, so that what the model keeps of them is still there."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds that a joint model takes for a pair, and once for an item (such as the features of its picture)."""

    pair: float
    item: float

    def of(self, n_queries: int, n_items: int) -> float:
        """Seconds for all pairs of so many queries and items."""
        return n_items * (self.item + n_queries * self.pair)


@dataclass(frozen=True, slots=True)
class Plan:
    """Which queries a joint model is asked, and how many items: the first ones of ``order``, which are all.

    ``seconds`` is what that should take, ``whole_seconds`` what all queries over all items would.
    """

    judged: Judged
    order: tuple[Item, ...]
    n_items: int
    seconds: float
    whole_seconds: float
    whole: bool


def measure_cost(engine: Engine, stage: Stage, judged: Judged, seconds: float) -> Cost | str:
    """What a pair costs, by a few of an engine's items, in about so much time; or why the model judges none."""
    hits = everything(engine, judged)
    stage.prepare(engine.ranker.collection)
    asked = [as_query(judged.queries[n]) for n in np.linspace(0, len(judged.queries) - 1, 3).astype(int)]
    signal = stage.score(asked[0], hits[:1])  # loads the model
    paces = []
    for query in asked[1:]:
        start = time.perf_counter()
        signal = stage.score(query, hits, start + seconds / 2)
        hits = [hit for hit, value in zip(hits, signal.values, strict=True) if np.isfinite(value)]
        if not hits:
            return signal.skipped or next(iter(signal.notes), f"{stage.name}: gave no number for any item")
        paces.append((time.perf_counter() - start) / len(hits))
    return Cost(paces[1], max(paces[0] - paces[1], 0.0))


def plan(judged: Judged, cost: Cost, seconds: float, seed: int = 0) -> Plan:
    """The largest sample that can be afforded; right answers of its queries are always in it.

    First the queries become fewer, not below ``LEAST``, then the items.
    """
    total, n_items = len(judged.queries), min(len(judged.items), MAX_ITEMS)
    affordable = min((seconds / n_items - cost.item) / max(cost.pair, 1e-9), MAX_PAIRS / n_items)
    n_queries = int(min(max(affordable, LEAST), total))
    sample = judged.sampled(n_queries, seed)
    right = {id for asked in sample.ids for id, grade in sample.qrels[asked].items() if grade > 0}
    mixed = [judged.items[n] for n in np.random.default_rng(seed).permutation(len(judged.items))]
    first = [item for item in mixed if item.id in right]
    if affordable < n_queries:
        n_items = min(n_items, int(seconds / cost.of(n_queries, 1)))
    n_items = max(n_items, len(first), 1)
    return Plan(
        sample,
        (*first, *(item for item in mixed if item.id not in right)),
        n_items,
        cost.of(n_queries, n_items),
        cost.of(total, len(mixed)),
        whole=n_queries == total and n_items == len(mixed),
    )


def everything(engine: Engine, judged: Judged) -> list[Hit]:
    """All items that can be found, as hits; identical pictures are one.

    Raises
    ------
    InvalidInput
        If no query can be asked.
    """
    failed = {}
    for id, query in zip(judged.ids, judged.queries, strict=True):
        (found,) = ask(engine, [query], max(1, len(engine)), judged.field, False)
        if not isinstance(found, str):
            return found
        failed[id] = found
    check_any(failed, judged)
    return []


class Exhausted(Stage):
    """What a joint model says of every pair, computed beforehand: as a stage it gives those numbers and none else.

    ``growth`` is of the model's own times, ``item_ms`` what it took once for an item, ``unjudged`` the pairs without
    a number.
    """

    weight = ALONE

    def __init__(
        self, name: str, judged: Judged, hits: Sequence[Hit], values: NDArray[np.float32], seconds: NDArray[np.float64]
    ) -> None:
        """Take (n_queries, n_hits) values, and (n_queries, n_parts) seconds that equal parts of the hits took."""
        self.name, self.n, self._values = name, len(hits), values
        self._rows = {query: n for n, query in enumerate(judged.queries)}
        self._columns = {hit.item.id: n for n, hit in enumerate(hits)}
        self.unjudged = int(np.isnan(values).sum())
        # The first query of a part pays for what is kept of its items.
        usual = np.median(seconds[1:] if len(seconds) > 1 else seconds, axis=0)
        self.item_ms = 1000 * float(np.maximum(seconds[0] - usual, 0.0).sum()) / len(hits)
        parts = len(usual)
        shown = np.unique(np.ceil(parts * np.array([1 / 8, 1 / 4, 1 / 2, 1])).astype(int))
        sizes = np.minimum(shown * _part_of(len(hits)), len(hits))
        self.growth = Growth.of(sizes.tolist(), (1000 * np.cumsum(usual)[shown - 1]).tolist())

    def score(self, query: Query, hits: Sequence[Hit], deadline: float | None = None) -> Signal:
        """The numbers of these pairs."""
        asked = query.text if query.text is not None else query.image
        row = self._rows.get(asked) if isinstance(asked, str | Path) else None
        if row is None:
            return unscored(len(hits), f"{self.name}: was not asked this")
        return Signal(self._values[row, [self._columns[hit.item.id] for hit in hits]])


def exhaust(engine: Engine, stage: Stage, judged: Judged, report: Report | None = None) -> Exhausted:
    """Ask the model for every pair of a query and an item.

    A time over n items is the sum of those of their parts: pairs are scored one by one or in batches, whose cost does
    not depend on how many there are.
    """
    hits = everything(engine, judged)
    stage.prepare(engine.ranker.collection)
    asked = [as_query(query) for query in judged.queries]
    parts = list(batches(range(len(hits)), _part_of(len(hits))))
    values = np.full((len(asked), len(hits)), np.nan, dtype=np.float32)
    seconds = np.zeros((len(asked), len(parts)))
    for column, places in enumerate(parts):
        if report is not None:
            report(Progress(f"pairs of {stage.name}", places[0] * len(asked), values.size))
        its = [hits[n] for n in places]
        for row, query in enumerate(asked):
            start = time.perf_counter()
            values[row, places] = stage.score(query, its).values
            seconds[row, column] = time.perf_counter() - start
    return Exhausted(stage.name, judged, hits, values, seconds)


def _part_of(n: int) -> int:
    return min(PART, math.ceil(n / 8))
