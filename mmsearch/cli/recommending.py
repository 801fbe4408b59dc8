"""``recommend``: what somebody would like, by what they had and what they say."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmsearch.cli import options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mmsearch.engine import Engine
    from mmsearch.types import Hit


def recommend(
    ids: Annotated[list[str] | None, typer.Argument(help="More ids that are liked.", show_default=False)] = None,
    user: Annotated[
        str | None, typer.Option("--user", help="Whose interactions in the store count.", show_default=False)
    ] = None,
    liked: Annotated[
        list[str] | None,
        typer.Option("--liked", help="The id of an item that is liked; several times for several.", show_default=False),
    ] = None,
    disliked: Annotated[
        list[str] | None, typer.Option("--disliked", help="The id of one that is not liked.", show_default=False)
    ] = None,
    image: Annotated[
        list[Path] | None,
        typer.Option("--image", help="A picture that is liked, which need not be in the store.", show_default=False),
    ] = None,
    session: Annotated[
        bool, typer.Option("--session", help="What is liked is a session, in order: say what comes next.")
    ] = False,
    k: options.K = 10,
    where: options.Where = None,
    seen: Annotated[bool, typer.Option("--seen", help="Show also what they have had.")] = False,
    diversity: Annotated[
        float, typer.Option("--diversity", min=0, max=1, help="0 for the best to 1 for variety alone.")
    ] = 0.0,
    method: Annotated[str, typer.Option("--method", help="How to vary: mmr or dpp.")] = "mmr",
    popularity: Annotated[
        float, typer.Option("--popularity", min=-1, max=1, help="-1 for what few know to 1 for what many know.")
    ] = 0.0,
    novelty: Annotated[
        float, typer.Option("--novelty", min=0, max=1, help="1 for what is unlike all that they have had.")
    ] = 0.0,
    most_per: Annotated[
        list[str] | None,
        typer.Option("--most-per", help="FIELD=N: at most N with the same value of this metadata.", show_default=False),
    ] = None,
    fields: options.Fields = None,
    profile: Annotated[
        str | None,
        typer.Option("--profile", help="Go by content alone: mean, nearest or interests.", show_default=False),
    ] = None,
    half_life: Annotated[
        float | None,
        typer.Option(
            "--half-life", help="Go by content alone; days after which history counts half.", show_default=False
        ),
    ] = None,
    json: options.Json = False,
    sheet: options.Sheet = None,
    store: options.Store = None,
) -> None:
    """Recommend items: to a user, or to whoever likes these.

    What comes of interactions is learnt by `mmsearch interactions import` or `fit`; before that, content alone decides.
    """
    from mmsearch.cli.searching import answer
    from mmsearch.errors import InvalidInput

    likes: list[str | Path] = [*(liked or ()), *(ids or ()), *(one.expanduser() for one in image or ())]
    if user is None and not likes and not disliked:
        raise InvalidInput("expected --user U, or what is liked: --liked ID, --image FILE")
    if session and (disliked or method != "mmr" or popularity or novelty or most_per or fields or profile or half_life):
        raise InvalidInput("expected --session with --user, --where, --seen and --diversity only")
    with options.open_engine(store) as engine:
        if session:
            hits = engine.next(likes, k, user=user, where=where, exclude_seen=not seen, diversity=diversity)
        else:
            hits = engine.recommend(
                liked=likes, disliked=disliked or (), user=user, k=k, where=where, exclude_seen=not seen,
                diversity=diversity, method=method, popularity=popularity, novelty=novelty,
                most_per=_numbers(most_per or ()), fields=options.weights_of(fields), profile=profile,
                half_life=half_life,
            )  # fmt: skip
        asked = user or ", ".join(map(str, likes)) or "not " + ", ".join(disliked or ())
        nothing = "nothing left to recommend: they have had it all, or the filter lets nothing through"
        answer(asked, hits if json else named(engine, hits), json, sheet, None, nothing=nothing)


def named(engine: Engine, hits: Sequence[Hit]) -> list[Hit]:
    """Hits whose reasons name items as people know them: by their title or name, where they have one."""
    from dataclasses import replace

    from mmsearch.errors import ItemNotFound

    names: dict[str, str] = {}
    for id in {id for hit in hits for reason in hit.reasons for id in reason.because}:
        try:
            metadata = engine.get(id).metadata
        except ItemNotFound:  # a picture on disk, or removed meanwhile
            metadata = {}
        title = metadata.get("title", metadata.get("name"))
        names[id] = title if isinstance(title, str) and title else id
    return [
        replace(
            hit,
            reasons=tuple(replace(one, because=tuple(names[id] for id in one.because)) for one in hit.reasons),
        )
        for hit in hits
    ]


def _numbers(given: Sequence[str]) -> dict[str, int]:
    from mmsearch.errors import InvalidInput

    limits = {}
    for one in given:
        name, equals, number = one.rpartition("=")
        if not (name and equals and number.isascii() and number.isdigit()):
            raise InvalidInput(f"expected --most-per FIELD=N, got {one!r}")
        limits[name] = int(number)
    return limits
