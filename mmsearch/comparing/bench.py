"""One encoder's arms, measured in a store that grows."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np

from mmsearch.bank import Bank
from mmsearch.cascade import N_CANDIDATES
from mmsearch.comparing.joint import Exhausted, Plan, exhaust, measure_cost, plan
from mmsearch.comparing.values import CASCADE, EMBEDDING, JOINT, MEASURE, Growth, Row, duration
from mmsearch.encoding import FieldEncoder
from mmsearch.engine import Engine
from mmsearch.errors import InvalidInput
from mmsearch.evaluation import DEPTH, Evaluation, ask, run
from mmsearch.judged import Judged
from mmsearch.judgedbanks import bank_for
from mmsearch.metrics import Difference
from mmsearch.metrics import compare as difference
from mmsearch.profile import build
from mmsearch.protocols import CellEncoder, Encoder, JointEncoder
from mmsearch.ranking import Rerank
from mmsearch.rerank.stage import Stage
from mmsearch.types import AddReport, Item, Report

TIMED = 50
"""Queries whose median is the time of one."""
_WARM = 3
PROBED = 64
"""Items on which the costs of pairs and of indexing are measured."""
_SMALLEST = 4
_PARTS = (8, 4, 2, 1)
"""The store is measured at these parts of the items: an eighth and so on."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What is the same for every encoder. ``joint`` is True for the encoder's own joint model, False for none."""

    judged: Judged
    bank: Path | None
    joint: Stage | bool
    seconds: float
    seed: int
    report: Report | None

    @property
    def kind(self) -> str:
        """What is asked with."""
        return self.judged.kind


class Bench:
    """Measures one encoder in stores below a folder; ``notes`` say what came up, ``full`` has arms over everything."""

    def __init__(self, settings: Settings, folder: Path, encoder: str | Encoder) -> None:
        self.settings, self.folder = settings, folder
        with Engine.open(folder / "probe", encoder, spaces=[settings.judged.field]) as engine:
            self.encoder = engine.encoder
        self.notes: list[str] = []
        self.full: dict[str, Evaluation] = {}
        self._banks: Mapping[str, Bank] = {}
        self._spaces = {EMBEDDING: frozenset({settings.judged.field})}
        self._times: dict[str, dict[int, float]] = {}

    def measure(self, label: str) -> list[Row]:
        """All rows of the encoder, under this label.

        Raises
        ------
        InvalidInput
            If no item can be read, or the bank is none for these queries.
        """
        judged = self.settings.judged
        joint, planned = self._probe()
        order = planned.order if planned else judged.items
        sizes = {max(ceil(len(order) / part), min(_SMALLEST, len(order))) for part in _PARTS}
        sample: dict[str, Evaluation] = {}
        exhausted: Exhausted | None = None
        done = 0
        spaces = sorted(frozenset().union(*self._spaces.values()))
        with Engine.open(self.folder / "store", self.encoder, spaces=spaces) as engine:
            engine.ranker.use_banks(self._banks or None)
            for size in sorted(sizes | ({planned.n_items} if planned else set())):
                self._add(engine, order[done:size], done)
                done = size
                self._time(engine)
                if joint is not None and planned is not None and size == planned.n_items:
                    exhausted = exhaust(engine, joint, planned.judged, self.settings.report)
                    sample = self._evaluate(engine, planned.judged, exhausted)
            whole = planned is not None and planned.whole
            self.full = sample if whole else self._evaluate(engine, judged)
            costs = self._costs(engine, exhausted)
        rows = _rows(label, self.full, costs, len(judged.items), sample=False)
        return rows if whole else rows + _rows(label, sample, costs, len(judged.items), sample=True)

    # Beforehand -------------------------------------------------------------------------------------------------

    def _probe(self) -> tuple[Stage | None, Plan | None]:
        """Find out with a few items which stages apply, what spaces they need, and what the joint model costs."""
        judged, settings = self.settings.judged, self.settings
        with Engine.open(self.folder / "probe", self.encoder, spaces=sorted(self._possible_spaces())) as engine:
            added = engine.add(self._few(), progress=settings.report)
            if not len(engine):
                raise InvalidInput(f"expected items that can be read, got none: {added.failed[0][1]}")
            if settings.bank is not None:
                start = time.perf_counter()
                self._banks = bank_for(judged, settings.bank, engine, settings.report)
                n = sum(len(bank.vectors) for bank in self._banks.values())
                took = duration(1000 * (time.perf_counter() - start))
                self.notes.append(f"the bank of {n:,} queries took {took} to encode, once for all items")
            engine.ranker.use_banks(self._banks or None)
            cascade = engine.ranker.cascade(True, kind=settings.kind)
            if cascade.names:
                fields = engine.ranker.collection.fields
                self._spaces[CASCADE] = self._spaces[EMBEDDING] | (cascade.needs & fields)
            else:
                self.notes.append(f"the cascade is left out: none of its default stages applies to {judged.task} here")
            return self._plan(engine)

    def _possible_spaces(self) -> set[str]:
        field = self.settings.judged.field
        if field != "picture":
            return {field}
        cells = {"cells"} if isinstance(self.encoder, CellEncoder) and self.encoder.n_cells else set()
        return {field, "regions"} | cells | ({"joint"} if self._has_joint() else set())

    def _has_joint(self) -> bool:
        return isinstance(self.encoder, JointEncoder) and bool(self.encoder.joint[0])

    def _few(self) -> list[Item]:
        items = self.settings.judged.items
        return [items[n] for n in np.unique(np.linspace(0, len(items) - 1, min(PROBED, len(items))).astype(int))]

    def _plan(self, engine: Engine) -> tuple[Stage | None, Plan | None]:
        """The joint model and what it is asked; None and a note where there is none."""
        settings = self.settings
        if settings.joint is False:
            return None, None
        if settings.joint is True and not self._has_joint():
            self.notes.append(f"the joint model is left out: the encoder {self.encoder.name} has none of its own")
            return None, None
        stage = build(["cross"])[0] if isinstance(settings.joint, bool) else settings.joint
        cost = measure_cost(engine, stage, settings.judged, settings.seconds / 10)
        if isinstance(cost, str):
            self.notes.append(f"the joint model is left out: {cost}")
            return None, None
        planned = plan(settings.judged, cost, settings.seconds, settings.seed)
        if not planned.whole:
            self.notes.append(_on_sample(planned, settings))
        self._spaces[JOINT] = self._spaces[EMBEDDING] | frozenset(stage.needs)
        return stage, planned

    # In the growing store ---------------------------------------------------------------------------------------

    def _add(self, engine: Engine, items: Sequence[Item], done: int) -> None:
        added = engine.add(items, progress=self.settings.report) if items else AddReport()
        if added.failed:
            name, reason = added.failed[0]
            self.notes.append(
                f"{len(added.failed)} of items {done + 1:,} to {done + len(items):,} could not be added, the first: "
                f"{name}: {reason}"
            )

    def _time(self, engine: Engine) -> None:
        """Single queries, the arms in turn, so that whatever else the machine does slows all of them."""
        judged = self.settings.judged
        chosen = np.unique(np.linspace(0, len(judged.queries) - 1, min(TIMED, len(judged.queries))).astype(int))
        taken: dict[str, list[float]] = {arm: [] for arm in (EMBEDDING, CASCADE) if arm in self._spaces}
        for n in [*chosen[:_WARM], *chosen]:
            for arm, its in taken.items():
                start = time.perf_counter()
                ask(engine, [judged.queries[n]], DEPTH, judged.field, arm == CASCADE)
                its.append(1000 * (time.perf_counter() - start))
        for arm, its in taken.items():
            self._times.setdefault(arm, {})[len(engine)] = median(its[min(_WARM, len(chosen)) :])

    def _evaluate(self, engine: Engine, judged: Judged, exhausted: Exhausted | None = None) -> dict[str, Evaluation]:
        arms: dict[str, Rerank] = {arm: arm == CASCADE for arm in (EMBEDDING, CASCADE) if arm in self._spaces}
        if exhausted is not None:
            arms[JOINT] = [exhausted]
            if exhausted.unjudged:
                pairs = len(judged.queries) * exhausted.n
                self.notes.append(f"{exhausted.name} gave no number for {exhausted.unjudged:,} of {pairs:,} pairs")
        found = {arm: run(engine, judged, rerank, report=self.settings.report) for arm, rerank in arms.items()}
        for note in found[CASCADE].notes if CASCADE in found else ():
            self.notes.append(f"cascade: {note}")
        return found

    # Afterwards -------------------------------------------------------------------------------------------------

    def _costs(self, engine: Engine, exhausted: Exhausted | None) -> dict[str, _Costs]:
        costs = {}
        widths = FieldEncoder(self.encoder, sorted(frozenset().union(*self._spaces.values()))).widths()
        rows = {name: space.rows for name, space in engine.info().spaces.items()}
        for arm, spaces in self._spaces.items():
            held = spaces - self._spaces[EMBEDDING] if arm == JOINT else spaces
            size = sum(rows[name] * widths[name][0] * np.dtype(widths[name][1]).itemsize for name in held)
            growth = self._growth(arm) if arm in self._times else None
            once = self._indexing(spaces) if held else 0.0
            if arm == JOINT and exhausted is not None:
                growth, once = exhausted.growth, once + exhausted.item_ms
            costs[arm] = _Costs(once, size / len(engine), growth)
        return costs

    def _growth(self, arm: str) -> Growth:
        """Of the cascade from that size on at which it has as many candidates as it wants, if sizes are left then."""
        times = self._times[arm]
        full = {size: ms for size, ms in times.items() if arm != CASCADE or size >= N_CANDIDATES}
        if len(full) < min(2, len(times)):
            self.notes.append(f"the cascade reranks up to {N_CANDIDATES} items: with so few, it seems to grow more")
            full = times
        return Growth.of(list(full), list(full.values()))

    def _indexing(self, spaces: frozenset[str]) -> float:
        """Milliseconds an item to index a few into a new store with these spaces."""
        items = self._few()
        with (
            TemporaryDirectory(dir=self.folder) as folder,
            Engine.open(Path(folder) / "store", self.encoder, spaces=sorted(spaces)) as engine,
        ):
            start = time.perf_counter()
            engine.add(items)
            return 1000 * (time.perf_counter() - start) / len(items)


@dataclass(frozen=True, slots=True)
class _Costs:
    one_time_ms: float
    bytes_per_item: float
    growth: Growth | None


def _rows(
    label: str, found: Mapping[str, Evaluation], costs: Mapping[str, _Costs], total: int, sample: bool
) -> list[Row]:
    rows: list[Row] = []
    for arm, its in found.items():
        others = [other for other in found if other != arm and other in (row.arm for row in rows)]
        row = Row(
            label,
            arm,
            its.stages,
            queries=len(its.groups),
            items=its.n_items,
            total=total,
            sample=sample,
            measures=its.intervals(),
            against={other: gain(found[other], its) for other in others},
        )
        if not sample or arm == JOINT:
            cost = costs[arm]
            row = replace(
                row,
                ms_per_query=cost.growth.ms[-1] if cost.growth else its.ms_per_query,
                one_time_ms=cost.one_time_ms,
                bytes_per_item=cost.bytes_per_item,
                growth=cost.growth,
            )
        rows.append(row)
    return rows


def gain(before: Evaluation, after: Evaluation) -> Difference:
    """What a system adds to another over the same queries."""
    return difference(before.scores[MEASURE], after.scores[MEASURE], groups=after.groups)


def _on_sample(planned: Plan, settings: Settings) -> str:
    """Why a joint model saw a sample, and which."""
    said = (
        f"the joint model is asked {len(planned.judged.queries):,} queries over {planned.n_items:,} of "
        f"{len(planned.order):,} items, since all {len(settings.judged.queries):,} over all would take about "
        f"{duration(1000 * planned.whole_seconds)}; the rows marked as a sample are all over the same"
    )
    if planned.seconds > settings.seconds:
        said += f". Even that takes about {duration(1000 * planned.seconds)}: the right answers have to be in it"
    return said
