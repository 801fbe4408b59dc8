"""What a comparison found, and what follows from it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from mmsearch.errors import InvalidInput
from mmsearch.metrics import Difference, Interval

EMBEDDING, CASCADE, JOINT = "embedding", "cascade", "joint"
FAR = (100_000, 1_000_000)
"""Collection sizes for which times are foretold."""
MEASURE = "R@1"
"""What arms are compared by."""
_T = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45)
"""Student's t at 97.5%, by degrees of freedom from 1 on."""
_NAMES = {EMBEDDING: "vectors alone", CASCADE: "the cascade", JOINT: "the joint model alone"}


@dataclass(frozen=True, slots=True)
class Growth:
    """Milliseconds a query at several collection sizes, and the line through them: ``start + per_item * n``.

    ``low`` and ``high`` bound the slope, with 95% confidence; they are 0 and infinity where too few sizes were
    measured to tell. ``exponent`` is the slope on logarithmic axes: 0 is no growth, 1 growth in proportion.
    """

    sizes: tuple[int, ...]
    ms: tuple[float, ...]
    start: float
    per_item: float
    low: float
    high: float
    exponent: float

    @classmethod
    def of(cls, sizes: Sequence[int], ms: Sequence[float]) -> Growth:
        """Fit a line by least squares; neither its start nor its slope is below 0, which only noise could bring about.

        Raises
        ------
        InvalidInput
            If there is no size, or not one time for each.

        >>> round(Growth.of([100, 200, 400], [2.0, 3.0, 5.0]).at(1_000), 6)
        11.0
        """
        if not sizes or len(sizes) != len(ms):
            raise InvalidInput(f"expected one time for each of at least one size, got {len(ms)} for {len(sizes)}")
        x, y = np.asarray(sizes, dtype=np.float64), np.asarray(ms, dtype=np.float64)
        slope, start, exponent = 0.0, float(y.mean()), 0.0
        if len(set(sizes)) > 1:
            slope, start = (float(value) for value in np.polyfit(x, y, 1))
            exponent = float(np.polyfit(np.log(x), np.log(np.maximum(y, 1e-6)), 1)[0])
        off = math.inf
        if len(sizes) > 2:
            rest = float(((y - start - slope * x) ** 2).sum()) / (len(x) - 2)
            off = _T[min(len(x) - 2, len(_T)) - 1] * math.sqrt(rest / float(((x - x.mean()) ** 2).sum()))
        low, high = max(slope - off, 0.0), max(slope + off, 0.0)
        if slope < 0:
            slope, start = 0.0, float(y.mean())
        elif start < 0:
            slope, start = float((x * y).sum() / (x * x).sum()), 0.0
        return cls(tuple(sizes), tuple(ms), start, slope, min(low, slope), max(high, slope), exponent)

    def at(self, n: float) -> float:
        """Milliseconds a query over n items, by the line."""
        return self.start + self.per_item * n

    def between(self, n: float) -> tuple[float, float]:
        """Bounds of ``at``, by those of the slope; infinity where that is not known."""
        middle = sum(self.sizes) / len(self.sizes)
        low, high = (self.at(middle) + slope * (n - middle) for slope in (self.low, self.high))
        return max(low, 0.0), high


@dataclass(frozen=True, slots=True)
class Row:
    """One arm with one encoder, over ``items`` of ``total``.

    ``against`` has the paired differences in R@1 from other rows over the same queries and items, by their names. The
    costs are None where another row of the same arm has them; ``ms_per_query`` is over ``items``, ``one_time_ms`` and
    ``bytes_per_item`` are for each item.
    """

    encoder: str
    arm: str
    stages: tuple[str, ...]
    queries: int
    items: int
    total: int
    sample: bool
    measures: Mapping[str, Interval]
    against: Mapping[str, Difference] = field(default_factory=dict)
    ms_per_query: float | None = None
    one_time_ms: float | None = None
    bytes_per_item: float | None = None
    growth: Growth | None = None

    @property
    def extent(self) -> str:
        """How many queries were asked among how many items, in words."""
        among = f"{self.items:,}" if self.items == self.total else f"{self.items:,} of {self.total:,}"
        return f"{self.queries:,} queries over {among} items"

    def to_json(self) -> dict[str, Any]:
        """Plain values, None for what is not known; ``extrapolated_ms`` has times at sizes that were not measured."""
        plain = asdict(self)
        if self.growth is not None:
            plain["growth"]["high"] = _known(self.growth.high)
            plain["growth"]["extrapolated_ms"] = {str(n): _foretold(self.growth, n) for n in FAR}
        return plain


def _foretold(growth: Growth, n: int) -> dict[str, float | None]:
    low, high = growth.between(n)
    return {"value": growth.at(n), "low": low, "high": _known(high)}


def _known(value: float) -> float | None:
    """JSON has no infinity."""
    return value if math.isfinite(value) else None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Rows by encoder and arm. ``notes`` say how they were measured, ``advice`` what follows from them."""

    task: str
    items: int
    queries: int
    rows: tuple[Row, ...]
    notes: tuple[str, ...]

    @property
    def advice(self) -> tuple[str, ...]:
        """A sentence for each question that the rows answer."""
        return advise(self.rows)

    def to_json(self) -> dict[str, Any]:
        """What ``mmsearch compare --json`` prints."""
        return {
            "task": self.task,
            "items": self.items,
            "queries": self.queries,
            "rows": [row.to_json() for row in self.rows],
            "notes": list(self.notes),
            "advice": list(self.advice),
        }


def advise(rows: Sequence[Row]) -> tuple[str, ...]:
    """What the differences between rows say, in sentences."""
    several = len({row.encoder for row in rows}) > 1
    said = []
    for row in rows:
        prefix = f"{row.encoder}: " if several else ""
        if row.arm == CASCADE and not row.sample:
            said.append(prefix + _on_cascade(row, rows))
        elif row.arm == JOINT:
            said.append(prefix + _on_joint(row, rows))
        elif row.arm == EMBEDDING:
            said += [_on_encoder(row, other, gain) for other, gain in row.against.items()]
    return tuple(said)


def duration(ms: float) -> str:
    """Milliseconds in the unit that people would use.

    >>> duration(0.34), duration(12.3), duration(83_000), duration(300_000), duration(7_200_000)
    ('0.34 ms', '12 ms', '83 s', '5.0 min', '2.0 h')
    """
    for size, least, unit in ((3_600_000, 7_200_000, "h"), (60_000, 180_000, "min"), (1_000, 1_000, "s")):
        if ms >= least:
            return f"{_short(ms / size)} {unit}"
    return f"{_short(ms)} ms"


def _short(value: float) -> str:
    return f"{value:.2f}" if value < 1 else f"{value:.1f}" if value < 10 else f"{value:,.0f}"


def _on_cascade(row: Row, rows: Sequence[Row]) -> str:
    gain = row.against[EMBEDDING]
    alone = next(one for one in rows if (one.encoder, one.arm, one.sample) == (row.encoder, EMBEDDING, False))
    more = max((row.ms_per_query or 0.0) - (alone.ms_per_query or 0.0), 0.0)
    if not gain.significant:
        return f"no significant gain of the cascade over vectors alone ({_interval(gain)}): leave reranking off"
    if gain.value < 0:
        return f"the cascade is worse than vectors alone by {_points(gain)}: leave reranking off"
    return f"the cascade is better than vectors alone by {_points(gain)} for {duration(more)} more a query"


def _on_joint(row: Row, rows: Sequence[Row]) -> str:
    name = CASCADE if CASCADE in row.against else EMBEDDING
    gain, other = row.against[name], _NAMES[name]
    where = f"{row.extent}, {duration(row.ms_per_query or 0.0)} a query"
    far = f"; over {FAR[0]:,} items, extrapolated, {duration(row.growth.at(FAR[0]))}" if row.growth else ""
    if not gain.significant:
        verdict = f"is not significantly different from {other} ({_interval(gain)}): leave it out"
    elif gain.value < 0:
        verdict = f"is worse than {other} by {_points(gain)}: leave it out"
    else:
        verdict = f"is better than {other} by {_points(gain)}: try it as a last stage over few candidates"
    return f"the joint model alone ({where}{far}) {verdict}"


def _on_encoder(row: Row, other: str, gain: Difference) -> str:
    if not gain.significant:
        return f"vectors alone: {row.encoder} and {other} do not differ significantly ({_interval(gain)})"
    return f"vectors alone: {row.encoder} is {'better' if gain.value > 0 else 'worse'} than {other} by {_points(gain)}"


def _points(gain: Difference) -> str:
    """The size of a difference whose direction is said in words."""
    low, high = sorted((abs(gain.low), abs(gain.high)))
    return f"{100 * abs(gain.value):.1f} points of {MEASURE} ({100 * low:.1f} to {100 * high:.1f})"


def _interval(gain: Difference) -> str:
    return f"{100 * gain.value:+.1f} points of {MEASURE}, {100 * gain.low:+.1f} to {100 * gain.high:+.1f}"
