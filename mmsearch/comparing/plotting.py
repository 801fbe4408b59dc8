"""A comparison as one picture: quality against time, and time against the size of the collection."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmsearch.comparing.values import CASCADE, EMBEDDING, JOINT, MEASURE, Comparison, Growth, Row, duration
from mmsearch.errors import InvalidInput, MissingDependency

_COLOURS = {EMBEDDING: "#33669a", CASCADE: "#d1603d", JOINT: "#3a7d44"}
_MARKERS = "osD^vPX*"
"""By encoder."""
_GAP = 0.085
"""Between the middles of two labels, as a part of the height."""
_ASIDE = 1.07
_BEYOND = 10
"""Fitted lines go on to so many times the largest size that was measured."""


def check_plot(file: Path) -> None:
    """See that a plot can be written here, before hours are spent on what it is to show.

    Raises
    ------
    InvalidInput
        If the file is no .png, or its folder is not there.
    MissingDependency
        Without matplotlib.
    """
    if file.suffix.lower() != ".png" or not file.absolute().parent.is_dir():
        raise InvalidInput(f"expected a .png file in a folder that exists for the plot, got {file}")
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise MissingDependency("plots need an extra: pip install 'mmsearch[plot]'") from error


def plot(comparison: Comparison, file: Path) -> None:
    """Write a PNG: R@1 with intervals against ms a query, and ms a query against items with the fitted lines.

    Raises
    ------
    InvalidInput, MissingDependency
        As ``check_plot``.
    """
    check_plot(file)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 5.6), dpi=120, layout="constrained")
    quality, growth = figure.subplots(1, 2)
    for axes in (quality, growth):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.set_xscale("log")
    _draw_quality(quality, comparison)
    _draw_growth(growth, comparison)
    figure.suptitle(f"{comparison.task}: {comparison.queries:,} queries, {comparison.items:,} items", fontsize=12)
    figure.savefig(file, format="png")


def _draw_quality(axes: Any, comparison: Comparison) -> None:  # noqa: ANN401 matplotlib has no types
    rows = comparison.rows
    # Beside each other, the intervals of an arm over everything and over a sample can be told apart.
    points = [(_ms(row, rows) * (_ASIDE if row.sample else 1), 100 * row.measures[MEASURE].value) for row in rows]
    for row, (x, y) in zip(rows, points, strict=True):
        found, colour = row.measures[MEASURE], _COLOURS[row.arm]
        axes.errorbar(
            x, y, [[y - 100 * found.low], [100 * found.high - y]],
            marker=_marker(row, rows), markersize=8, color=colour, capsize=3, elinewidth=1.2,
            markerfacecolor="white" if row.sample else colour,
        )  # fmt: skip
    ends = [100 * end for row in rows for end in (row.measures[MEASURE].low, row.measures[MEASURE].high)]
    spare = max(0.12 * (max(ends) - min(ends)), 1.0)
    axes.set_ylim(max(min(ends) - spare, -2), min(max(ends) + spare, 102))
    first, last = min(x for x, _ in points), max(x for x, _ in points)
    room = max(last / first, 4) ** 0.75  # three tenths of the width on either side, for labels
    axes.set_xlim(first / room, last * room)
    texts = [
        f"{_name(row, rows)}\n{y:.1f}%, {duration(_ms(row, rows))}" for row, (_, y) in zip(rows, points, strict=True)
    ]
    _label(axes, points, texts, rows, left=(EMBEDDING,))
    axes.set_ylabel(f"{MEASURE}, % with 95% interval")
    axes.set_title("Quality against time", fontsize=11, loc="left")
    sample = next((row for row in rows if row.sample), None)
    hollow = f"\nhollow: a sample, {sample.extent} (time: over all)" if sample else ""
    axes.set_xlabel(f"ms a query over {comparison.items:,} items (log){hollow}")


def _draw_growth(axes: Any, comparison: Comparison) -> None:  # noqa: ANN401
    rows = [row for row in comparison.rows if row.growth is not None]
    growths = [(row, row.growth) for row in rows if row.growth is not None]
    far = _BEYOND * max(growth.sizes[-1] for _, growth in growths)
    axes.set_yscale("log")
    for row, growth in growths:
        colour = _COLOURS[row.arm]
        axes.plot(growth.sizes, growth.ms, _marker(row, comparison.rows), color=colour, markersize=6)
        for start, end, style in ((growth.sizes[0], growth.sizes[-1], "-"), (growth.sizes[-1], far, ":")):
            x = [start * (end / start) ** (n / 40) for n in range(41)]
            axes.plot(x, [max(growth.at(n), 1e-4) for n in x], style, color=colour, linewidth=1.4)
    least = min(growth.sizes[0] for _, growth in growths)
    axes.set_xlim(least / 1.4, far * (far / least) ** 0.6)
    low, high = axes.get_ylim()
    axes.set_ylim(low / 1.3, high * 1.3)
    points = [(far, max(growth.at(far), 1e-4)) for _, growth in growths]
    texts = [f"{_name(row, comparison.rows)}\n{formula(growth)}" for row, growth in growths]
    _label(axes, points, texts, rows)
    axes.set_xlabel("items (log)\ndotted: extrapolated")
    axes.set_ylabel("ms a query (log)")
    axes.set_title("Time against the size of the collection", fontsize=11, loc="left")


def formula(growth: Growth) -> str:
    """The fitted line in words.

    >>> formula(Growth.of([1_000, 2_000], [3.5, 3.9]))
    '3.1 ms + 0.40 ms per 1,000 items'
    """
    return f"{duration(growth.start)} + {duration(1000 * growth.per_item)} per 1,000 items"


def _label(
    axes: Any,  # noqa: ANN401
    points: Sequence[tuple[float, float]],
    texts: Sequence[str],
    rows: Sequence[Row],
    left: Sequence[str] = (),
) -> None:
    """Write beside each point, moved up where two labels would touch; arms in ``left`` have theirs on that side."""
    places = [axes.transAxes.inverted().transform(axes.transData.transform(point)) for point in points]
    taken: list[tuple[bool, float, float]] = []
    for n in sorted(range(len(points)), key=lambda n: float(places[n][1])):
        x, y = (float(value) for value in places[n])
        on_left = rows[n].arm in left
        near = [height for side, at, height in taken if side == on_left and abs(at - x) < 0.3]
        height = min(max([y, *(other + _GAP for other in near)]), 1.0)
        taken.append((on_left, x, height))
        moved = height - y > _GAP / 2
        axes.annotate(
            texts[n], points[n], (x - 0.025 if on_left else x + 0.025, height), textcoords="axes fraction",
            ha="right" if on_left else "left", va="center", fontsize=8.5, color=_COLOURS[rows[n].arm],
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": _COLOURS[rows[n].arm], "linewidth": 0.5} if moved else None,
        )  # fmt: skip


def _ms(row: Row, rows: Sequence[Row]) -> float:
    """A row's time over all items, by its arm's line where that was measured over fewer."""
    arm = next(one for one in rows if (one.encoder, one.arm) == (row.encoder, row.arm) and one.growth is not None)
    assert arm.growth is not None
    over_all = arm.ms_per_query if arm.items == arm.total else arm.growth.at(arm.total)
    return max(over_all or 0.0, 1e-4)


def _name(row: Row, rows: Sequence[Row]) -> str:
    several = len({one.encoder for one in rows}) > 1
    return f"{row.encoder}: {row.arm}" if several else row.arm


def _marker(row: Row, rows: Sequence[Row]) -> str:
    names = list(dict.fromkeys(one.encoder for one in rows))
    return _MARKERS[names.index(row.encoder) % len(_MARKERS)]
