"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from mmsearch.engine import Engine
    from mmsearch.ranking import Rerank

Store = Annotated[
    Path | None,
    typer.Option(
        "--store",
        help="The store's folder; without it MMSEARCH_STORE, else one in your data directory.",
        show_default=False,
    ),
]
K = Annotated[int, typer.Option("-k", "--k", min=1, help="How many hits.")]
Where = Annotated[
    str | None,
    typer.Option("--where", help="A metadata filter, e.g. 'year >= 2024 and group = photo'.", show_default=False),
]
Field = Annotated[str | None, typer.Option("--field", help="Look in 'picture' or in 'text' only.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


def _sheet(file: Path | None) -> Path | None:
    """The contact sheet's file, whose ending is checked before any work is done."""
    if file is None:
        return None
    from mmsearch.sheet import check_sheet

    check_sheet(file)
    return file.expanduser()


Sheet = Annotated[
    Path | None,
    typer.Option(
        "--sheet", help="Write a contact sheet of the hits (.png or .html).", show_default=False, callback=_sheet
    ),
]
Fields = Annotated[
    str | None,
    typer.Option(
        "--fields", help="Compare field with field: picture,text or picture=0.3,text=0.7.", show_default=False
    ),
]
Encoder = Annotated[
    str | None,
    typer.Option(
        "--encoder", help="mini, architecture/tag, hf-hub:… or local-dir:…; see `mmsearch models`.", show_default=False
    ),
]
Stages = Annotated[
    str | None,
    typer.Option(
        "--stages", help="hubness, regions, late, cross, second, words; separated by commas.", show_default=False
    ),
]


Second = Annotated[
    str | None,
    typer.Option("--second", help="The encoder of the stage `second`; see `mmsearch models`.", show_default=False),
]


def place_of(store: Path | None) -> Path:
    """The store that is meant."""
    from mmsearch.places import default_store

    return store.expanduser() if store is not None else default_store()


def open_engine(
    store: Path | None, encoder: str | None = None, *, create: bool = False, spaces: str | None = None
) -> Engine:
    """Open the store that is meant."""
    from mmsearch.engine import Engine

    names = [name.strip() for name in spaces.split(",") if name.strip()] if spaces else None
    return Engine.open(place_of(store), encoder, create=create, spaces=names)


def weights_of(fields: str | None) -> dict[str, float] | None:
    """The weights after ``--fields``: 1 for a field without one."""
    from mmsearch.errors import InvalidInput

    if fields is None:
        return None
    weights = {}
    for part in fields.split(","):
        name, _, weight = part.partition("=")
        try:
            weights[name.strip()] = float(weight) if weight else 1.0
        except ValueError:
            raise InvalidInput(f"expected --fields as picture,text or picture=0.3,text=0.7; got {part!r}") from None
    return weights


def names_of(no_rerank: bool, stages: str | None) -> list[str]:
    """The names after ``--stages``, in the order in which stages run; none without it."""
    from mmsearch.errors import InvalidInput
    from mmsearch.profile import check_names

    if no_rerank and stages is not None:
        raise InvalidInput("expected --no-rerank or --stages, got both")
    names = [name.strip() for name in (stages or "").split(",") if name.strip()]
    if stages is not None and not names:
        raise InvalidInput("expected names of stages after --stages, got none: leave it out, or use --no-rerank")
    return list(check_names(names))


def rerank_of(no_rerank: bool, stages: str | None, second: str | None = None) -> Rerank:
    """What ``--no-rerank`` or ``--stages`` mean to a search; True where neither is given."""
    from mmsearch.errors import InvalidInput
    from mmsearch.profile import build

    names = names_of(no_rerank, stages)
    if second is not None and "second" not in names:
        raise InvalidInput(f"expected --second with the stage that uses it, got --second {second!r} without --stages …")
    if not names:
        return not no_rerank
    return build(names, {"second": second} if second else {})
