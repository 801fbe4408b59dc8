"""The commands, each a few lines over ``Engine``. Heavy imports happen inside them, so that ``--help`` is quick."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmsearch.cli import FOUND_NOTHING, options
from mmsearch.cli.analysing import clusters, map, report
from mmsearch.cli.comparing import compare
from mmsearch.cli.curating import duplicates, flaws, leaks, outliers, sample, suspects
from mmsearch.cli.evaluating import bank, evaluate, tune
from mmsearch.cli.interacting import app as interactions
from mmsearch.cli.judging import eval_recommend
from mmsearch.cli.recommending import recommend
from mmsearch.cli.searching import search, similar

app = typer.Typer(
    name="mmsearch",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="""Find pictures and texts by what they show and say.

    Start with `mmsearch index ~/Pictures`, then `mmsearch search "a red bicycle"`. Nothing leaves this machine.

    `mmsearch demo` shows it on pictures that come along.""",
    epilog="Exit codes: 0 done, 1 nothing found or a check failed, 2 wrong input, 3 store, 4 model or package missing.",
)
app.command()(search)
app.command()(similar)
app.command()(recommend)
app.command("eval")(evaluate)
app.command("eval-recommend")(eval_recommend)
app.command()(tune)
app.command()(compare)
app.command()(bank)
for _command in (clusters, map, report, duplicates, leaks, outliers, flaws, suspects, sample):
    app.command()(_command)
app.add_typer(interactions, name="interactions")

Spaces = Annotated[
    str | None,
    typer.Option(
        "--spaces",
        help="What to encode: picture,text by default; regions, cells and joint serve reranking.",
        show_default=False,
    ),
]


@app.callback(invoke_without_command=True)
def version(show: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Print the version if that is wanted."""
    if show:
        from mmsearch import __version__
        from mmsearch.cli.output import out

        out.print(__version__)
        raise typer.Exit


@app.command()
def index(
    paths: Annotated[
        list[Path], typer.Argument(help="Folders of pictures, dataset folders, CSV, JSON-lines or Parquet tables.")
    ],
    store: options.Store = None,
    encoder: options.Encoder = None,
    spaces: Spaces = None,
    json: options.Json = False,
) -> None:
    """Index folders; again, and only what is new or changed costs something.

    A **dataset folder** holds `items.jsonl` (fields `image`, `text`, `id` and any others) beside its pictures or an
    `images.zip`. It may be interrupted: the same command goes on.
    """
    from mmsearch.cli.output import progress, show_report
    from mmsearch.sources import open_source
    from mmsearch.types import AddReport

    for path in paths:
        open_source(path)  # a mistyped path is refused before anything is made
    with options.open_engine(store, encoder, create=True, spaces=spaces) as engine:
        report = AddReport()
        with progress(quiet=json) as bar:
            for path in paths:
                report += engine.add_folder(path, progress=bar)
        show_report(report, engine, json)


@app.command()
def sync(store: options.Store = None, json: options.Json = False) -> None:
    """Look at every indexed folder again: what is new, changed, moved or deleted."""
    from mmsearch.cli.output import progress, show_report

    with options.open_engine(store) as engine:
        with progress(quiet=json) as bar:
            report = engine.sync(progress=bar)
        show_report(report, engine, json)


@app.command()
def remove(
    ids: Annotated[list[str], typer.Argument(help="Ids of items, as search shows them.")],
    store: options.Store = None,
    json: options.Json = False,
) -> None:
    """Forget items; their files stay where they are."""
    from mmsearch.cli.output import out, print_json

    with options.open_engine(store) as engine:
        n = engine.remove(ids)
        if json:
            print_json({"removed": n, "items": len(engine)})
        else:
            out.print(f"{n} removed, {len(engine)} left")


@app.command()
def reindex(
    encoder: Annotated[str, typer.Option("--encoder", help="The encoder to switch to; see `mmsearch models`.")],
    store: options.Store = None,
    json: options.Json = False,
) -> None:
    """Encode everything anew with another encoder and switch to it at the end; ids stay."""
    from mmsearch.cli.output import progress, show_report

    with options.open_engine(store) as engine:
        with progress(quiet=json) as bar:
            report = engine.reindex(encoder, progress=bar)
        show_report(report, engine, json)


@app.command()
def info(store: options.Store = None, json: options.Json = False) -> None:
    """Show what is in the store, how it was made, how well the index finds it, and what puts answers in order."""
    from mmsearch.cli.output import print_json, show_info
    from mmsearch.types import KINDS

    with options.open_engine(store) as engine:
        facts = engine.info()
        stages = {kind: list(engine.ranker.cascade(True, kind=kind).names) for kind in KINDS}
        n_bank = len(engine.ranker.collection.bank_texts())
        needs_fit = engine.needs_fit()
    if json:
        print_json({**facts.to_json(), "stages": stages, "bank": n_bank, "needs_fit": needs_fit})
        return
    show_info(facts, stages, n_bank, needs_fit)


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(help="Where to write items.parquet, picture.npy and text.npy.")],
    store: options.Store = None,
    json: options.Json = False,
) -> None:
    """Take everything out: items as Parquet, vectors as .npy."""
    from mmsearch.cli.output import out, print_json
    from mmsearch.export import export as write

    with options.open_engine(store) as engine:
        written = write(engine, folder.expanduser())
    if json:
        print_json({"folder": str(folder), "rows": written})
    else:
        for name, rows in written.items():
            out.print(f"{folder / name}: {rows} rows", soft_wrap=True, markup=False)


@app.command()
def models(json: options.Json = False) -> None:
    """List the encoders worth knowing: what each is for, and the terms of its weights."""
    from dataclasses import asdict

    from rich.table import Column, Table

    from mmsearch.cli.output import out, print_json
    from mmsearch.encoders.registry import MODELS

    if json:
        print_json({"models": [asdict(card) for card in MODELS.values()]})
        return
    table = Table(Column("encoder", no_wrap=True), "for", "terms of the weights", "M params", box=None, pad_edge=False)
    for card in MODELS.values():
        terms = f"{card.licence} [red](needs MMSEARCH_ACCEPT_RESEARCH=1)[/red]" if card.research_only else card.licence
        table.add_row(card.name, card.use, terms, f"{card.params_m:.0f}")
    out.print(table)
    out.print("\nAlso any other open_clip model: architecture/tag, hf-hub:org/repo, local-dir:/path.")


@app.command()
def doctor(store: options.Store = None, json: options.Json = False) -> None:
    """Check every checksum and invariant, and say what to do where one does not hold."""
    from dataclasses import asdict

    from rich.markup import escape

    from mmsearch.cli.output import out, print_json
    from mmsearch.doctor import BAD, GOOD, examine

    findings = list(examine(options.place_of(store)))
    if json:
        print_json({"findings": [asdict(finding) for finding in findings]})
    else:
        for finding in findings:
            colour = {GOOD: "green", BAD: "red"}.get(finding.level, "yellow")
            advice = f"\n       -> {finding.advice}" if finding.advice else ""
            line = f"[{colour}]{finding.level:5}[/{colour}] {finding.subject}: {escape(finding.message + advice)}"
            out.print(line, soft_wrap=True)
    if any(finding.level == BAD for finding in findings):
        raise typer.Exit(FOUND_NOTHING)


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", help="Where to write the contact sheet.")] = Path("demo-output"),
    store: options.Store = None,
) -> None:
    """Index the gallery that comes along, ask it a few things, and leave a contact sheet of what was found."""
    from mmsearch.cli.demo import show

    show(out, store)
