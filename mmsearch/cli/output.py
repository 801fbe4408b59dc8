"""What people and scripts see: JSON, tables, progress, thumbnails."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from mmsearch.engine import Engine
    from mmsearch.evaluation import Evaluation
    from mmsearch.info import Info
    from mmsearch.tuning import Tuned
    from mmsearch.types import AddReport, Hit, Progress, Report

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

SHOWN_FAILURES = 20
_STAGES = {"encode": "encoding", "index": "building the index", "bank": "reading the bank", "queries": "asking"}


def print_json(data: object) -> None:
    """One JSON object on stdout."""
    sys.stdout.write(json.dumps(data, indent=2, default=str) + "\n")


def hits_json(query: str, hits: Sequence[Hit]) -> dict[str, Any]:
    """What ``--json`` prints of a search."""
    from mmsearch.files import display_path

    return {
        "query": query,
        "hits": [
            {
                "rank": hit.rank,
                "score": hit.score,
                "id": hit.item.id,
                "path": display_path(hit.item.path) if hit.item.path else None,
                "text": hit.item.text,
                "metadata": dict(hit.item.metadata),
                "copies": [copy.id for copy in hit.copies],
                "scores": dict(hit.scores),
                "ranks": dict(hit.ranks),
                "region": hit.region,
                "words": dict(hit.words),
                "notes": list(hit.notes),
                "reasons": [
                    {"kind": one.kind, "share": one.share, "because": list(one.because)} for one in hit.reasons
                ],
            }
            for hit in hits
        ],
    }


def print_hits(hits: Sequence[Hit]) -> None:
    """A table of hits, with thumbnails where the terminal shows colours."""
    pictures = out.is_terminal and out.color_system == "truecolor" and os.environ.get("MMSEARCH_THUMBNAILS") != "0"
    table = Table(box=None, pad_edge=False, show_header=not pictures)
    table.add_column("rank", justify="right")
    table.add_column("score", justify="right")
    if pictures:
        table.add_column("")
    table.add_column("what", overflow="fold")
    for hit in hits:
        copies = (
            f"\n[dim]and {len(hit.copies)} identical: {escape(', '.join(copy.id for copy in hit.copies[:3]))}[/dim]"
        )
        text = f"\n[dim]{escape(hit.item.text[:200])}[/dim]" if hit.item.text else ""
        why = f"\n[dim]{escape(hit.because())}[/dim]" if hit.reasons else ""
        what = f"{escape(hit.item.id)}{text}{why}{copies if hit.copies else ''}"
        cells: list[str | Text] = [str(hit.rank), f"{hit.score:.3f}"]
        if pictures:
            cells.append(_blocks(hit.item.path))
        table.add_row(*cells, what)
    out.print(table)


def _blocks(path: Path | None) -> Text:
    """A thumbnail of half-block letters, two pixels a letter."""
    from mmsearch.errors import MMSearchError
    from mmsearch.images import thumbnail

    text = Text()
    if path is None:
        return text
    try:
        small = thumbnail(path, 24)
    except MMSearchError:
        return Text("?")
    rows = [[small.getpixel((x, y)) for x in range(small.width)] for y in range(small.height)]
    for upper, lower in zip(rows[::2], rows[1::2], strict=False):
        for top, bottom in zip(upper, lower, strict=True):
            text.append("▀", style=f"{_hex(top)} on {_hex(bottom)}")
        text.append("\n")
    return text


def _hex(pixel: Any) -> str:  # noqa: ANN401 Pillow says float, a tuple or None; of an RGB picture it is a tuple
    red, green, blue = pixel
    return f"#{red:02x}{green:02x}{blue:02x}"


@contextmanager
def progress(quiet: bool = False) -> Iterator[Report]:
    """A progress bar on stderr with rate and time left; nothing where stderr is not a terminal."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=err, transient=True, disable=quiet or not err.is_terminal) as bar:
        tasks: dict[str, Any] = {}

        def report(state: Progress) -> None:
            if state.stage not in tasks:
                tasks[state.stage] = bar.add_task(_STAGES.get(state.stage, state.stage), total=None, rate="")
            task = bar.tasks[tasks[state.stage]]
            rate = f"{task.speed:.0f}/s" if task.speed else ""
            bar.update(tasks[state.stage], completed=state.done, total=state.total, rate=rate)

        yield report


def show_report(report: AddReport, engine: Engine, json: bool) -> None:
    """What adding did, for people or as JSON; and the terms of an encoder that has special ones."""
    from mmsearch.encoders.registry import card_of

    if json:
        print_json(report_json(report, len(engine)))
        return
    print_report(report)
    if card_of(engine.encoder.name).built_in:
        terms = f"encoder {engine.encoder.name}: {engine.encoder.licence}"
        err.print(f"[dim]{terms}; for production choose another, see `mmsearch models`[/dim]", soft_wrap=True)


def print_report(report: AddReport) -> None:
    """What adding did, and what failed by name."""
    changed = f" ({report.changed} of them changed)" if report.changed else ""
    out.print(
        f"{report.added} added{changed}, {report.unchanged} unchanged, {report.moved} moved, "
        f"{report.removed} removed, {len(report.failed)} failed"
    )
    for path, reason in report.failed[:SHOWN_FAILURES]:
        err.print(f"  [red]failed[/red] {escape(path)}: {escape(reason)}", soft_wrap=True)
    if len(report.failed) > SHOWN_FAILURES:
        err.print(f"  … and {len(report.failed) - SHOWN_FAILURES} more")


def report_json(report: AddReport, items: int) -> dict[str, Any]:
    """What ``--json`` prints of an indexing."""
    return {
        "added": report.added,
        "changed": report.changed,
        "unchanged": report.unchanged,
        "moved": report.moved,
        "removed": report.removed,
        "failed": [{"path": path, "reason": reason} for path, reason in report.failed],
        "items": items,
    }


def show_evaluation(found: Evaluation) -> None:
    """How good the answers were, for people."""
    stages = ", ".join(found.stages) or "vectors alone"
    out.print(f"{found.task}: {len(found.scores.queries)} queries among {found.n_items} items; {stages}", markup=False)
    table = Table("measure", "value", "95% interval", box=None, pad_edge=False)
    for name, one in found.intervals().items():
        table.add_row(name, f"{100 * one.value:.1f}%", f"{100 * one.low:.1f} to {100 * one.high:.1f}")
    out.print(table)
    out.print(f"{found.ms_per_query:.1f} ms a query")
    for note in found.notes:
        err.print(f"note: {note}", markup=False, soft_wrap=True)


def show_tuned(tuned: Tuned) -> None:
    """What tuning chose and why, for people."""
    table = Table("stage", "MRR@10 gained, held out", "95% interval", "p", "", "weight", box=None, pad_edge=False)
    for trial in tuned.trials:
        gain = trial.gain
        weight = f"{tuned.profile.weights[trial.name]:.3g}" if trial.kept else ""
        interval = f"{100 * gain.low:+.2f} to {100 * gain.high:+.2f}"
        verdict = "kept" if trial.kept else "left out"
        table.add_row(trial.name, f"{100 * gain.value:+.2f}", interval, f"{gain.p:.4f}", verdict, weight)
    out.print(table)
    chosen = ", ".join(tuned.profile.stages) or "no stage: vectors alone, since none was seen to help"
    out.print(f"searches of this store now use {chosen}; `mmsearch tune --forget` undoes it", soft_wrap=True)
    for trial in tuned.trials:
        if trial.note:
            err.print(f"{trial.name}: {trial.note}", markup=False, soft_wrap=True)
    for name, ranks in (("before", tuned.before), ("after", tuned.after)):
        recalls = " / ".join(f"{100 * float((ranks <= k).mean()):.1f}" for k in (1, 5, 10))
        out.print(f"{name:6} R@1/5/10 {recalls}, held out")


def show_info(facts: Info, stages: Mapping[str, Sequence[str]], n_bank: int, needs_fit: bool) -> None:
    """What is in a store, and what puts its answers in order, for people."""
    size = f"{facts.items} items, {facts.bytes_on_disk / 1e6:.1f} MB"
    behind = ", not all of them learnt from: run `mmsearch interactions fit`"
    known = f", {facts.interactions} interactions of {facts.users} users{behind if needs_fit else ''}"
    out.print(f"{facts.path}: {size}{known if facts.interactions else ''}", soft_wrap=True, markup=False)
    terms = f"encoder  {facts.encoder} ({facts.runtime})\nterms    {facts.licence}"
    out.print(terms, soft_wrap=True, markup=False)
    for name, space in facts.spaces.items():
        recall = f", recall@10 {space.recall:.4f} (sampled)" if space.recall is not None else ""
        out.print(f"{name:8} {space.live} of {space.rows} vectors in use, index {space.index}{recall}", soft_wrap=True)
    for kind, names in stages.items():
        if names:
            out.print(f"stages   {kind}: {', '.join(names)}", soft_wrap=True)
    if n_bank:
        out.print(f"bank     {n_bank} queries")
    for root in facts.roots:
        out.print(f"{root['kind']:8} {root['path']}", soft_wrap=True, markup=False)
    if facts.failures:
        out.print(f"failed   {facts.failures} files; `mmsearch doctor` says which")
    if facts.reindexing_to:
        out.print(f"an unfinished reindexing to {facts.reindexing_to} goes on with `mmsearch reindex`")
