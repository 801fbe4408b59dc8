"""``eval-recommend``: how well recommenders foretell what people liked, beside each other."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmsearch.cli import options

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rich.table import Table

    from mmsearch.behaviour import Behaviour
    from mmsearch.lineup import Lineup
    from mmsearch.metrics import Interval
    from mmsearch.protocols import Recommender
    from mmsearch.receval import RecEvaluation
    from mmsearch.recsplits import Split

ALWAYS = ("random", "popular", "items", "ease", "als", "sessions", "content", "hybrid")
"""The models that are in every table, so that a number never stands alone."""
SPLITS = ("warm", "cold", "both")
CUTS = ("last", "time")


def eval_recommend(
    store: options.Store = None,
    split: Annotated[
        str,
        typer.Option("--split", help="warm: what people liked last; cold: items new to everybody; or both."),
    ] = "both",
    models: Annotated[
        str | None,
        typer.Option(
            "--models",
            help="Models beside random, popular, items, ease, als, sessions, content and hybrid, by commas; or all.",
            show_default=False,
        ),
    ] = None,
    k: Annotated[int, typer.Option("-k", "--k", min=1, help="How long the lists are.")] = 10,
    share: Annotated[
        float, typer.Option("--share", help="Of items held out as new, or of events after --by time.")
    ] = 0.2,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Draws the items that are held out.")] = 0,
    by: Annotated[
        str,
        typer.Option("--by", help="How warm is split: last, each person's last like; time, one moment for everybody."),
    ] = "last",
    json: options.Json = False,
) -> None:
    """Measure how well recommenders foretell what people liked, on the store's own interactions, held out in part.

    Each model learns from what is left and ranks every item that is new to a person. Intervals are 95%, over people.
    """
    from mmsearch.cli.output import print_json, progress
    from mmsearch.receval import evaluate_recommenders

    _check(split, by)
    with options.open_engine(store) as engine:
        lineup = engine.lineup()
    factories, left_out = _chosen(lineup, models)
    parts = _split(lineup.behaviour, split, by, share, seed)  # refused here if it cannot be, before anything is fitted
    found: dict[str, RecEvaluation] = {}
    with progress(quiet=json) as bar:
        for name, part in parts.items():
            found[name] = evaluate_recommenders(part, factories, k=k, vectors=lineup.vectors, report=bar)
            left_out |= found[name].left_out
    if json:
        print_json(_to_json(lineup.behaviour, found, left_out))
    else:
        _show(lineup.behaviour, found, left_out)


def _check(split: str, by: str) -> None:
    from mmsearch.errors import InvalidInput

    for name, value, known in (("--split", split, SPLITS), ("--by", by, CUTS)):
        if value not in known:
            raise InvalidInput(f"expected {name} as one of {', '.join(known)}, got {value!r}")


def _chosen(lineup: Lineup, models: str | None) -> tuple[dict[str, Callable[[], Recommender]], dict[str, str]]:
    """What makes each model that is wanted, in the line-up's order, and why others cannot be had."""
    from mmsearch.errors import InvalidInput

    if not len(lineup.behaviour):
        raise InvalidInput(
            "expected a store with interactions, got none in this one: import them with `mmsearch interactions import`"
        )
    known = [*lineup.factories, *(name for name in lineup.missing if name not in lineup.factories)]
    named = [name.strip() for name in (models or "").split(",") if name.strip()]
    unknown = [name for name in named if name not in (*known, "all")]
    if unknown or (models is not None and not named):
        raise InvalidInput(f"expected models of {', '.join(known)} or all after --models, got {models!r}")
    wanted = known if "all" in named else [name for name in known if name in (*ALWAYS, *named)]
    missing = {name: lineup.missing[name] for name in wanted if name in lineup.missing}
    return {name: lineup.factories[name] for name in wanted if name not in missing}, missing


def _split(behaviour: Behaviour, split: str, by: str, share: float, seed: int) -> dict[str, Split]:
    from mmsearch.recsplits import cold_items, last_share, leave_last_out, split_at

    parts: dict[str, Split] = {}
    if split != "cold":
        at_once = by == "time"
        parts["warm"] = split_at(behaviour, last_share(behaviour, share)) if at_once else leave_last_out(behaviour)
    if split != "warm":
        parts["cold"] = cold_items(behaviour, share, seed)
    return parts


def _to_json(behaviour: Behaviour, found: Mapping[str, RecEvaluation], left_out: Mapping[str, str]) -> dict[str, Any]:
    return {
        "users": behaviour.n_users,
        "items": behaviour.n_items,
        "interactions": len(behaviour),
        "splits": {name: one.to_json() for name, one in found.items()},
        "left_out": dict(left_out),
    }


def _show(behaviour: Behaviour, found: Mapping[str, RecEvaluation], left_out: Mapping[str, str]) -> None:
    """One table a split, and what follows from it."""
    from mmsearch.cli.output import err, out

    out.print(f"{behaviour.n_users:,} people, {behaviour.n_items:,} items, {len(behaviour):,} interactions")
    for name, one in found.items():
        out.print(f"\n{name}: {_what(one.split)}; 95% intervals over people", soft_wrap=True)
        _tables(one)
        verdict = one.verdict()
        if verdict is not None:
            best, gain = verdict
            figures = f"{gain.value:+.4f} ({gain.low:+.4f} to {gain.high:+.4f})"
            out.print(f"hybrid - best single ({best}): {one.headline} {figures}", soft_wrap=True)
        for note in one.notes():
            err.print(f"note: {note}", markup=False, soft_wrap=True)
    for name, reason in left_out.items():
        err.print(f"left out {name}: {reason}", markup=False, soft_wrap=True)


def _what(split: Split) -> str:
    """What was held out, for people."""
    tested = f"{len(split):,} people tested"
    match split.name:
        case "warm":
            return f"what each person liked last, {tested}"
        case "time":
            return f"what people liked after one moment, {tested}"
    return f"{int(split.cold.sum()):,} items that are new to everybody, {tested}"


def _tables(one: RecEvaluation) -> None:
    """How right the lists are, then what is in them: side by side, all measures would fit no terminal."""
    from mmsearch.cli.output import out
    from mmsearch.receval import ACCURACY

    rows = one.intervals()
    names = list(next(iter(rows.values()), {}))
    right = [name for name in names if name.partition("@")[0] in ACCURACY]
    out.print(_table(rows, right))
    out.print()
    out.print(_table(rows, [name for name in names if name not in right]))


def _table(rows: Mapping[str, Mapping[str, Interval]], names: Sequence[str]) -> Table:
    """One row a model, one column a measure; the best of each measure in bold."""
    from rich.table import Table

    table = Table("model", *names, box=None, pad_edge=False)
    # Whether people should be shown more popular things is nothing that a number can say.
    best = {
        name: max((row[name].value for row in rows.values() if isfinite(row[name].value)), default=None)
        for name in names
        if not name.startswith("ARP")
    }
    for model, row in rows.items():
        table.add_row(model, *(_cell(row[name], best.get(name) == row[name].value) for name in names))
    return table


def _cell(found: Interval, best: bool) -> str:
    """The value, and its interval below it."""
    if not isfinite(found.value):
        return "-"
    digits = 4 if found.high <= 1 else 2
    value = f"{found.value:.{digits}f}"
    return f"{f'[bold]{value}[/bold]' if best else value}\n{found.low:.{digits}f}-{found.high:.{digits}f}"
