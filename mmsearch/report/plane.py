"""The map in a report: to explore where Plotly is installed, else as a picture, else not at all."""

from __future__ import annotations

import base64
from dataclasses import dataclass, replace

from mmsearch.atlas import Map, map_figure_html
from mmsearch.atlas.drawing import draw_map
from mmsearch.atlas.look import caption, colours, evenly, line
from mmsearch.errors import MissingDependency

_ITEMS = 12_000
"""The most items on the map: with an id and the beginning of a text each, some 1 MB."""
_TEXT = 60
"""Characters of an id and of a text that the mouse shows."""
_THUMBNAILS = 500
"""Pictures that the mouse shows, some 3 KB each."""
_HOW = (
    "Like items lie near each other; of far ones it does not tell how unlike they are. The mouse shows an item, the "
    "wheel zooms, and a click in the legend hides a cluster."
)


@dataclass(frozen=True, slots=True)
class Plane:
    """A map for the page: safe HTML (empty if there is none), what is said of it, and a colour by cluster."""

    html: str
    words: str
    colours: dict[int, str]


def plane(shown: Map | None) -> Plane:
    """What the page shows of a map."""
    if shown is None or not len(shown):
        return Plane("", "", {})
    small = _small(shown)
    colour = colours(small.clusters())
    left_out = f"; {len(small):,} of them are shown, chosen evenly from all clusters" if len(small) < len(shown) else ""
    words = f"{shown.heading()}{left_out}."
    try:
        return Plane(map_figure_html(small, thumbnails=_THUMBNAILS, id="plane"), f"{words} {_HOW}", colour)
    except MissingDependency as error:
        reason = str(error)
    try:
        data = base64.b64encode(draw_map(small, ".png", title="")).decode()
    except MissingDependency:
        return Plane("", f"{words} It is not drawn: {reason}.", colour)
    drawn = f'<img class="drawn" alt="The map" src="data:image/png;base64,{data}">'
    return Plane(drawn, f"{words} To explore it, {reason}.", colour)


def _small(shown: Map) -> Map:
    """The same map with few enough items, and short texts."""
    positions = evenly(shown.labels, shown.points, _ITEMS)
    items = shown.items if len(positions) == len(shown) else [shown.items[int(position)] for position in positions]
    return replace(
        shown,
        items=[replace(item, id=line(item.id, _TEXT), text=caption(item, _TEXT), metadata={}) for item in items],
        points=shown.points[positions],
        labels=shown.labels[positions],
    )
