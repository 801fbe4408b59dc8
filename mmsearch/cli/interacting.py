"""``interactions``: import, export and forget who had to do with what."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmsearch.cli import FOUND_NOTHING, options

if TYPE_CHECKING:
    from mmsearch.interactions import InteractionReport

SHOWN = 10

app = typer.Typer(
    no_args_is_help=True,
    help="Tell the store who had to do with which items, take that out again, or forget it.",
)


def _column(flag: str, role: str) -> Any:  # noqa: ANN401 as typer has it
    text = f"The column with the {role}; without it, well-known names are looked for."
    return typer.Option(flag, help=text, show_default=False)


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="A CSV, TSV, JSON-lines or Parquet table.")],
    user: Annotated[str, _column("--user", "user")] = "user",
    item: Annotated[str, _column("--item", "item")] = "item",
    item_field: Annotated[
        str | None,
        typer.Option(
            "--item-field", help="The metadata field that the item column holds, instead of ids.", show_default=False
        ),
    ] = None,
    weight: Annotated[str | None, _column("--weight", "weight, such as a rating")] = None,
    time: Annotated[str | None, _column("--time", "time")] = None,
    kind: Annotated[str | None, _column("--kind", "kind, such as view or buy")] = None,
    fit: Annotated[bool, typer.Option("--fit/--no-fit", help="Learn from all interactions afterwards.")] = True,
    store: options.Store = None,
    json: options.Json = False,
) -> None:
    """Record interactions from a table; what is there already stays as it is, so it may be told again.

    After that the store learns from all of them what to recommend. A weight above 0 is liking, 0 mere seeing, below 0
    disliking. Times are seconds since 1970 or ISO dates.
    """
    from mmsearch.cli.output import print_json, progress

    with options.open_engine(store) as engine, progress(quiet=json) as bar:
        report = engine.add_interactions(
            file, user=user, item=item, item_field=item_field, weight=weight, time=time, kind=kind, progress=bar
        )
        if fit and report.added + report.changed:
            engine.fit_recommender(progress=bar)
    if json:
        print_json(_as_json(report))
    else:
        _show(report, fit)
    if not report.added + report.changed + report.unchanged:
        raise typer.Exit(FOUND_NOTHING)


@app.command()
def fit(
    fresh: Annotated[
        float,
        typer.Option("--fresh", min=0, max=1, help="The share of the first ten places for what nobody has had yet."),
    ] = 0.1,
    store: options.Store = None,
    json: options.Json = False,
) -> None:
    """Learn again from all interactions what to recommend."""
    from mmsearch.cli.output import out, print_json, progress

    with options.open_engine(store) as engine:
        with progress(quiet=json) as bar:
            engine.fit_recommender(fresh=fresh, progress=bar)
        info = engine.info()
    if json:
        print_json({"users": info.users, "interactions": info.interactions})
    else:
        out.print(f"learnt from {info.interactions} interactions of {info.users} users")


@app.command()
def export(
    file: Annotated[Path, typer.Argument(help="Where to write: .csv, .tsv, .jsonl or .parquet.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
    store: options.Store = None,
    json: options.Json = False,
) -> None:
    """Write every interaction to a table: user, item, kind, weight, time."""
    from mmsearch.cli.output import out, print_json

    with options.open_engine(store) as engine:
        n = engine.export_interactions(file, overwrite=overwrite)
    if json:
        print_json({"file": str(file), "interactions": n})
    else:
        out.print(f"{file}: {n} interactions", soft_wrap=True, markup=False)


@app.command()
def forget(
    user: Annotated[str | None, typer.Option("--user", help="Whose; all of theirs.", show_default=False)] = None,
    everybody: Annotated[bool, typer.Option("--all", help="Everybody's.")] = False,
    store: options.Store = None,
    json: options.Json = False,
) -> None:
    """Delete a user with all their interactions, or everybody."""
    from mmsearch.cli.output import err, out, print_json
    from mmsearch.errors import InvalidInput

    if (user is None) is not everybody:
        raise InvalidInput("expected --user or --all")
    with options.open_engine(store) as engine:
        n = engine.forget_interactions(user)
    if json:
        print_json({"forgotten": n})
        return
    out.print(f"{n} interactions forgotten")
    if n and not everybody:
        again = "what was learnt from all users is as it was: `mmsearch interactions fit` learns again"
        err.print(again, markup=False, soft_wrap=True)


def _as_json(report: InteractionReport) -> dict[str, Any]:
    return {
        "added": report.added,
        "changed": report.changed,
        "unchanged": report.unchanged,
        "users": report.users,
        "unknown": dict(report.unknown),
        "ambiguous": dict(report.ambiguous),
        "failed": [{"row": row, "reason": reason} for row, reason in report.failed],
        "columns": dict(report.columns),
    }


def _show(report: InteractionReport, fit: bool) -> None:
    from mmsearch.cli.output import err, out

    out.print(
        f"{report.added} added, {report.changed} changed, {report.unchanged} unchanged, of {report.users} users; "
        f"{sum(report.unknown.values())} with unknown items, {sum(report.ambiguous.values())} with ambiguous ones, "
        f"{len(report.failed)} failed",
        soft_wrap=True,
    )
    columns = ", ".join(f"{role} from {column}" for role, column in report.columns.items())
    out.print(f"columns: {columns or 'none'}", soft_wrap=True, markup=False)
    if report.added + report.changed:
        said = "learnt from all interactions" if fit else "not learnt from yet: run `mmsearch interactions fit`"
        out.print(said, markup=False)
    lines = _lines("unknown", report.unknown) + _lines("ambiguous", report.ambiguous)
    lines += [f"failed {row}: {reason}" for row, reason in report.failed[:SHOWN]] + _more(len(report.failed), "rows")
    for line in lines:
        err.print(f"  {line}", soft_wrap=True, markup=False)


def _lines(what: str, counts: Mapping[str, int]) -> list[str]:
    """The first items, with how many rows each has, and how many more there are."""
    from mmsearch.files import display_name

    named = [(display_name(item.encode())[:80], n) for item, n in list(counts.items())[:SHOWN]]
    return [f"{what} {item}: {n} row{'s' * (n > 1)}" for item, n in named] + _more(len(counts), f"{what} items")


def _more(n: int, what: str) -> list[str]:
    return [f"… and {n - SHOWN} more {what}"] if n > SHOWN else []
