"""``compare``: vectors, a joint model and the cascade on people's own data, as a table and a plot."""

from __future__ import annotations

from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmsearch.cli import options
from mmsearch.cli.evaluating import BankOption, Dataset, Label, Qrels, Queries, Task

if TYPE_CHECKING:
    from mmsearch.comparing import Comparison, Growth, Row
    from mmsearch.metrics import Interval
    from mmsearch.rerank.stage import Stage

TOO_WIDE = 10.0
"""An extrapolation whose bounds differ by more than this factor is not shown."""


def compare(
    dataset: Dataset,
    task: Task = "text-to-image",
    bank: BankOption = None,
    encoder: Annotated[
        list[str] | None,
        typer.Option("--encoder", help="An encoder; again for each further one.", show_default=False),
    ] = None,
    joint: Annotated[
        str | None,
        typer.Option(
            "--joint",
            help="blip:MODEL, st:MODEL (a cross-encoder of sentence-transformers) or none; without it, the encoder's "
            "own joint model.",
            show_default=False,
        ),
    ] = None,
    queries: Queries = None,
    seconds: Annotated[float, typer.Option("--seconds", help="For the joint model's pairs, with each encoder.")] = 120,
    qrels: Qrels = None,
    label: Label = None,
    out: Annotated[Path | None, typer.Option("--out", help="Write the plot here (.png).", show_default=False)] = None,
    json: options.Json = False,
) -> None:
    """Compare vectors alone, a joint model alone and the cascade on your data: quality, time, growth and memory.

    Everything is measured in a temporary store that grows in steps. A joint model reads every pair of a query and an
    item; where that takes longer than `--seconds`, it is asked a random sample, and so are the others beside it.
    """
    from mmsearch.cli.output import print_json, progress
    from mmsearch.comparing import check_plot, plot
    from mmsearch.comparing import compare as measure
    from mmsearch.judged import read_judged

    file = None if out is None else out.expanduser()
    if file is not None:
        check_plot(file)
    stage = _joint(joint)
    judged = read_judged(dataset, task, qrels=qrels, label=label)
    with progress(quiet=json) as bar:
        found = measure(
            judged, encoders=encoder or ["mini"], bank=bank, joint=stage, seconds=seconds, queries=queries, report=bar
        )
    if file is not None:
        plot(found, file)
    if json:
        print_json(found.to_json() | {"plot": None if file is None else str(file)})
    else:
        show(found, file)


def _joint(spec: str | None) -> Stage | bool:
    """The joint model that is meant: True for the encoder's own, False for none."""
    from mmsearch.errors import InvalidInput

    kind, _, model = (spec or "").partition(":")
    match kind, bool(model):
        case _ if spec is None:
            return True
        case "none", False:
            return False
        case "blip", True:
            from mmsearch.rerank.blip import BlipITM

            return BlipITM(model)
        case "st", True:
            from mmsearch.rerank.sentence import SentenceCrossEncoder

            return SentenceCrossEncoder(model, reads="picture")
    raise InvalidInput(f"expected --joint as blip:MODEL, st:MODEL or none, got {spec!r}")


def show(found: Comparison, plot: Path | None = None) -> None:
    """A table of all rows, then how they were measured and what follows."""
    from rich.table import Table

    from mmsearch.cli.output import err, out

    out.print(f"{found.task}: {found.queries:,} queries, {found.items:,} items; in % with 95% intervals", markup=False)
    quality = Table(
        "arm", "queries over items", "R@1", "R@5", "R@10", "MRR@10", "R@1 against …", box=None, pad_edge=False
    )
    costs = Table(
        "arm", "one-time ms/item", "ms/query", "growth", "100,000 items*", "1,000,000 items*", "bytes/item",
        box=None, pad_edge=False,
    )  # fmt: skip
    several = len({row.encoder for row in found.rows}) > 1
    for row in found.rows:
        name = (f"{row.encoder}: {row.arm}" if several else row.arm) + (" (sample)" if row.sample else "")
        measures = [_percent(row.measures[one]) for one in ("R@1", "R@5", "R@10", "MRR@10")]
        quality.add_row(name, row.extent.removesuffix(" items"), *measures, _against(row))
        if row.growth is not None:
            costs.add_row(name, *_costs(row))
    out.print(quality)
    out.print()
    out.print(costs)
    out.print("* extrapolated, with the 95% interval of the growth\n")
    for sentence in found.advice:
        out.print(sentence, markup=False, soft_wrap=True)
    for note in found.notes:
        err.print(f"note: {note}", markup=False, soft_wrap=True)
    if plot is not None:
        out.print(f"plot: {plot}", markup=False, soft_wrap=True)


def _percent(one: Interval) -> str:
    return f"{100 * one.value:.1f} ({100 * one.low:.1f}-{100 * one.high:.1f})"


def _against(row: Row) -> str:
    return "\n".join(f"{name} {100 * gain.value:+.1f}, p {gain.p:.4f}" for name, gain in row.against.items())


def _costs(row: Row) -> list[str]:
    from mmsearch.comparing import duration
    from mmsearch.comparing.plotting import formula

    assert row.growth is not None
    far = [_foretold(row.growth, n) for n in (100_000, 1_000_000)]
    return [
        f"{row.one_time_ms or 0.0:.1f}",
        duration(row.ms_per_query or 0.0),
        f"{formula(row.growth)} (n^{row.growth.exponent:.2f})",
        *far,
        f"{row.bytes_per_item or 0.0:,.0f}",
    ]


def _foretold(growth: Growth, n: int) -> str:
    from mmsearch.comparing import duration

    low, high = growth.between(n)
    if not isfinite(high) or high > TOO_WIDE * max(low, 1e-6):
        return "cannot tell"  # from so few items noise would foretell anything
    return f"{duration(growth.at(n))} ({duration(low)} to {duration(high)})"
