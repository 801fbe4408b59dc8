"""``search`` and ``similar``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmsearch.cli import FOUND_NOTHING, options

if TYPE_CHECKING:
    from mmsearch.types import Hit


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
    with options.open_engine(store) as engine:
        picture = image.expanduser() if image else None
        hits = engine.search(Query(text=words, image=picture), k, where=where, field=field, sort=sort)
        shown = " + ".join(str(part) for part in (words, image) if part)
        _answer(shown, hits, json, sheet, picture)


def similar(
    id: Annotated[str, typer.Argument(help="The id of an item, as search shows it.")],
    k: options.K = 10,
    where: options.Where = None,
    field: options.Field = None,
    json: options.Json = False,
    sheet: options.Sheet = None,
    store: options.Store = None,
) -> None:
    """Find the items most like one of the store."""
    with options.open_engine(store) as engine:
        path = engine.get(id).path
        _answer(id, engine.similar(id, k, where=where, field=field), json, sheet, path)


def _answer(query: str, hits: list[Hit], json: bool, sheet: Path | None, picture: Path | None) -> None:
    from mmsearch.cli.output import err, hits_json, print_hits, print_json

    if sheet is not None:
        from mmsearch.sheet import Section, write_sheet

        write_sheet(sheet.expanduser(), [Section(query, hits, picture)])
    if json:
        print_json(hits_json(query, hits))
    elif hits:
        print_hits(hits)
    else:
        err.print("nothing found: the store is empty, or the filter lets nothing through")
    if not hits:
        raise typer.Exit(FOUND_NOTHING)
