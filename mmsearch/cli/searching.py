"""``search`` and ``similar``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmsearch.cli import FOUND_NOTHING, options

if TYPE_CHECKING:
    from mmsearch.types import Hit

NOTHING = "nothing found: the store is empty, or the filter lets nothing through"


def search(
    text: Annotated[list[str] | None, typer.Argument(help="What to look for, in words.", show_default=False)] = None,
    image: Annotated[
        Path | None, typer.Option("--image", help="Look for pictures like this one.", show_default=False)
    ] = None,
    k: options.K = 10,
    where: options.Where = None,
    field: options.Field = None,
    sort: Annotated[
        str | None,
        typer.Option(
            "--sort", help="Order the hits by this metadata, -taken for the newest first.", show_default=False
        ),
    ] = None,
    no_rerank: Annotated[bool, typer.Option("--no-rerank", help="Vectors alone.")] = False,
    stages: options.Stages = None,
    second: options.Second = None,
    budget: Annotated[
        float | None, typer.Option("--budget", min=0, help="Milliseconds for reranking.", show_default=False)
    ] = None,
    diversity: Annotated[
        float, typer.Option("--diversity", min=0, max=1, help="0 for relevance alone to 1 for variety alone.")
    ] = 0.0,
    explain: Annotated[bool, typer.Option("--explain", help="Say why each hit is where it is.")] = False,
    json: options.Json = False,
    sheet: options.Sheet = None,
    store: options.Store = None,
) -> None:
    """Search by words, by a picture (`--image`), or by both at once."""
    from mmsearch.errors import InvalidInput
    from mmsearch.types import Query

    words = " ".join(text or ()) or None
    if words is None and image is None:
        raise InvalidInput('expected words or --image FILE, got neither: mmsearch search "a red bicycle"')
    rerank = options.rerank_of(no_rerank, stages, second)
    with options.open_engine(store) as engine:
        picture = image.expanduser() if image else None
        hits = engine.search(
            Query(text=words, image=picture),
            k,
            where=where,
            field=field,
            sort=sort,
            rerank=rerank,
            budget_ms=budget,
            diversity=diversity,
        )
        shown = " + ".join(str(part) for part in (words, image) if part)
        answer(shown, hits, json, sheet, picture, explain)


def similar(
    id: Annotated[str | None, typer.Argument(help="The id of an item, as search shows it.", show_default=False)] = None,
    image: Annotated[
        Path | None,
        typer.Option("--image", help="A picture instead, which need not be in the store.", show_default=False),
    ] = None,
    k: options.K = 10,
    where: options.Where = None,
    field: options.Field = None,
    fields: options.Fields = None,
    complementary: Annotated[
        bool, typer.Option("--complementary", help="Not what is like it: what people had together with it.")
    ] = False,
    diversity: Annotated[
        float, typer.Option("--diversity", min=0, max=1, help="0 for likeness alone to 1 for variety alone.")
    ] = 0.0,
    json: options.Json = False,
    sheet: options.Sheet = None,
    store: options.Store = None,
) -> None:
    """Find the items most like one of the store, or like a picture on disk; or what goes with it."""
    from mmsearch.cli.recommending import named
    from mmsearch.errors import InvalidInput

    like = image.expanduser() if image is not None else id
    if like is None or (image is not None and id is not None):
        raise InvalidInput("expected the id of an item, or --image FILE")
    with options.open_engine(store) as engine:
        path = like if isinstance(like, Path) else engine.get(like).path
        hits = engine.similar(
            like, k, where=where, field=field, fields=options.weights_of(fields), diversity=diversity,
            complementary=complementary,
        )  # fmt: skip
        nothing = "nobody had anything together with it that the filter lets through" if complementary else NOTHING
        answer(str(like), hits if json else named(engine, hits), json, sheet, path, nothing=nothing)


def answer(
    query: str,
    hits: list[Hit],
    json: bool,
    sheet: Path | None,
    picture: Path | None,
    explain: bool = False,
    nothing: str = NOTHING,
) -> None:
    """Show hits as they are wanted."""
    from mmsearch.cli.output import err, hits_json, out, print_hits, print_json

    if sheet is not None:
        from mmsearch.sheet import Section, write_sheet

        write_sheet(sheet, [Section(query, hits, picture)])
    if json:
        print_json(hits_json(query, hits))
    elif hits:
        print_hits(hits)
        for hit in hits if explain else ():
            out.print(f"\n{hit.item.id}: {hit.explain()}", markup=False, soft_wrap=True)
        for note in dict.fromkeys(note for hit in hits for note in hit.notes):
            err.print(f"note: {note}", markup=False, soft_wrap=True)
    else:
        err.print(nothing, soft_wrap=True)
    if not hits:
        raise typer.Exit(FOUND_NOTHING)
