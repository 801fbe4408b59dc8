"""``duplicates``, ``leaks``, ``outliers``, ``flaws``, ``suspects``, ``sample``: what to look at in a collection."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmsearch.cli import FOUND_NOTHING, options

if TYPE_CHECKING:
    from mmsearch.sheet import Section
    from mmsearch.types import Item

Row = tuple[str, ...]
_DRAWN = 200
"""Groups that a contact sheet shows; thousands would be a picture of gigabytes."""


def duplicates(
    where: options.Where = None,
    mirrored: Annotated[bool, typer.Option("--mirrored", help="Mirrored copies count too.")] = False,
    json: options.Json = False,
    sheet: options.Sheet = None,
    store: options.Store = None,
) -> None:
    """Find items that show the same picture: exact, resized, recompressed copies; the one to keep comes first."""
    from mmsearch.cli.output import progress

    with options.open_engine(store) as engine:
        with progress(quiet=json) as bar:
            groups = engine.duplicates(where=where, mirrored=mirrored, progress=bar)
        told = [
            {"kind": group.kind, "best": group.best.id, "ids": [item.id for item in group.items],
             "scores": list(group.scores)}
            for group in groups
        ]  # fmt: skip
        rows = [(group.kind, group.best.id, ", ".join(item.id for item in group.others)) for group in groups]
        sections = [section(f"{group.kind} copies", zip(group.items, group.scores, strict=True)) for group in groups]
        _answer("groups", told, ("kind", "keep", "copies"), rows, sections, json, sheet, "no duplicates were found")


def leaks(
    field: Annotated[str, typer.Argument(help="The metadata field that says in which split an item is.")] = "split",
    where: options.Where = None,
    json: options.Json = False,
    sheet: options.Sheet = None,
    store: options.Store = None,
) -> None:
    """Find pictures that are in more than one split of a dataset."""
    from mmsearch.cli.output import progress

    with options.open_engine(store) as engine:
        with progress(quiet=json) as bar:
            found = engine.leaks(field, where=where, progress=bar)
        told = [
            {"ids": [item.id for item in leak.items], "splits": list(leak.splits), "score": leak.score}
            for leak in found
        ]
        rows = [
            (f"{one.score:.3f}", *(f"{s}: {i.id}" for i, s in zip(one.items, one.splits, strict=True))) for one in found
        ]
        sections = [section(" and ".join(leak.splits), [(item, leak.score) for item in leak.items]) for leak in found]
        _answer("leaks", told, ("score", "one", "other"), rows, sections, json, sheet, "no picture is in two splits")


def outliers(
    k: options.K = 20,
    where: options.Where = None,
    json: options.Json = False,
    sheet: options.Sheet = None,
    store: options.Store = None,
) -> None:
    """Show the items that are least like the others."""
    from mmsearch.cli.output import progress

    with options.open_engine(store) as engine:
        with progress(quiet=json) as bar:
            found = engine.outliers(k, where=where, progress=bar)
        told = [{"id": one.item.id, "score": one.score, "scores": dict(one.scores)} for one in found]
        rows = [(f"{one.score:.3f}", one.item.id, _scores(one.scores)) for one in found]
        sections = [section("outliers", [(one.item, one.score) for one in found])]
        _answer("outliers", told, ("score", "id", "by"), rows, sections, json, sheet, "there are no items")


def flaws(
    where: options.Where = None,
    method: Annotated[str, typer.Option("--method", help="own, or cleanvision with that package.")] = "own",
    json: options.Json = False,
    sheet: options.Sheet = None,
    store: options.Store = None,
) -> None:
    """Find dark, bright, blurred, empty, elongated and small pictures. Each is opened once, and never again."""
    from mmsearch.cli.output import progress

    with options.open_engine(store) as engine:
        with progress(quiet=json) as bar:
            found = engine.flaws(where=where, method=method, progress=bar)
        told = [{"id": one.item.id, "kind": one.kind, "value": one.value, "limit": one.limit} for one in found]
        rows = [(one.kind, f"{one.value:.3g}", one.item.id) for one in found]
        kinds = dict.fromkeys(one.kind for one in found)
        sections = [section(kind, [(one.item, one.value) for one in found if one.kind == kind]) for kind in kinds]
        _answer("flaws", told, ("flaw", "measured", "id"), rows, sections, json, sheet, "no flaws were found")


def suspects(
    field: Annotated[str, typer.Argument(help="The metadata field with the labels.")],
    k: Annotated[int | None, typer.Option("-k", "--k", min=1, help="At most so many.", show_default=False)] = None,
    where: options.Where = None,
    json: options.Json = False,
    sheet: options.Sheet = None,
    store: options.Store = None,
) -> None:
    """Find labels that look wrong, by those of the nearest neighbours; the most suspect first."""
    from mmsearch.cli.output import progress

    with options.open_engine(store) as engine:
        with progress(quiet=json) as bar:
            found = engine.suspects(field, k, where=where, progress=bar)
        told = [
            {"id": one.item.id, "label": one.label, "suggested": one.suggested, "score": one.score,
             "agreement": one.agreement}
            for one in found
        ]  # fmt: skip
        rows = [(f"{one.score:.2f}", one.item.id, one.label, one.suggested) for one in found]
        sections = [section(f"{one.label} or {one.suggested}?", [(one.item, one.score)]) for one in found]
        heads = ("score", "id", "label", "rather")
        _answer("suspects", told, heads, rows, sections, json, sheet, "no label looks wrong")


def sample(
    n: Annotated[int, typer.Argument(min=1, help="How many items.")],
    method: Annotated[str, typer.Option("--method", help="density, k-center or random.")] = "density",
    where: options.Where = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The same seed gives the same answer.")] = 0,
    json: options.Json = False,
    sheet: options.Sheet = None,
    store: options.Store = None,
) -> None:
    """Choose items that stand for the rest: what to look at, or to label, first."""
    with options.open_engine(store) as engine:
        items = engine.sample(n, method=method, where=where, seed=seed)
        sections = [section(f"{len(items)} by {method}", [(item, 0.0) for item in items])]
        rows = [(item.id,) for item in items]
        _answer("ids", [item.id for item in items], ("id",), rows, sections, json, sheet, "there are no items")


def section(title: str, items: Iterable[tuple[Item, float]]) -> Section:
    """Items with what a sheet shows below them, as a section of it."""
    from mmsearch.sheet import Section
    from mmsearch.types import Hit

    return Section(title, [Hit(item, score, rank) for rank, (item, score) in enumerate(items, start=1)])


def _answer(
    name: str,
    told: Sequence[Any],
    heads: Row,
    rows: Sequence[Row],
    sections: list[Section],
    json: bool,
    sheet: Path | None,
    nothing: str,
) -> None:
    """Show what was found as it is wanted."""
    from rich.markup import escape
    from rich.table import Table

    from mmsearch.cli.output import err, out, print_json
    from mmsearch.sheet import write_sheet

    if json:
        print_json({name: told})
    elif rows:
        table = Table(*heads, box=None, pad_edge=False)
        for row in rows:
            table.add_row(*(escape(cell) for cell in row))
        out.print(table)
    else:
        err.print(nothing, soft_wrap=True)
    if sheet is not None:
        if len(sections) > _DRAWN:
            err.print(f"the sheet shows the first {_DRAWN} of {len(sections)}", soft_wrap=True)
        write_sheet(sheet, sections[:_DRAWN], title=name)
    if not told:
        raise typer.Exit(FOUND_NOTHING)


def _scores(scores: Any) -> str:  # noqa: ANN401 a mapping of names to numbers
    return ", ".join(f"{name} {value:.2f}" for name, value in scores.items())
