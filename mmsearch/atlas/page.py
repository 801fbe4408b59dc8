"""A map as a page to explore, drawn by Plotly, in one file that loads nothing from anywhere."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Sequence
from importlib.resources import files
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mmsearch.atlas.look import caption, colours, evenly, line, medians, thumbnails
from mmsearch.errors import InvalidInput, MissingDependency

if TYPE_CHECKING:
    from PIL import Image

    from mmsearch.atlas.maps import Map

_SIDE, _QUALITY = 96, 60
"""Thumbnails: pixels a side, and the quality of WebP, which make some 2 KB each."""
_LONGEST, _SHORTEST, _CHARACTERS = 200, 20, 10_000_000
"""Characters of a text that are shown, at most and at least, and of all texts together."""
_NAMES = 60
"""The most names that are written on the map; the mouse and the legend tell the others."""
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; img-src data: blob:; "
    "font-src data:"
)
"""Browsers load nothing into the page from outside. Plotly compiles its shaders' code, hence eval."""
_STYLE = (
    ".map{position:relative;height:100%;min-height:320px}.map-plot{position:absolute;inset:0}"
    ".map .annotation{pointer-events:none!important}"
    ".map-card{position:fixed;z-index:9;max-width:260px;padding:8px;background:#fff;border:1px solid #d6d6da;"
    "border-radius:6px;box-shadow:0 2px 10px #0003;font:13px system-ui;overflow-wrap:anywhere;pointer-events:none}"
    ".map-card[hidden],.map-card img[hidden]{display:none}.map-card img{display:block;margin:0 auto 6px}"
    ".map-id{font-weight:600}.map-cluster{color:#6e6e78}"
)
_PAGE_STYLE = (
    "html,body{height:100%;margin:0}body{display:flex;flex-direction:column;font:14px system-ui;color:#18181c}"
    "header{padding:10px 16px}h1{font-size:18px;margin:0}p{margin:2px 0 0;color:#6e6e78}main{flex:1;min-height:0}"
)


def map_page(shown: Map, *, title: str = "mmsearch", thumbnails: int = 3_000) -> str:
    """The whole page.

    Raises
    ------
    MissingDependency
        Without plotly.
    """
    heading = html.escape(line(title, _LONGEST))
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{html.escape(_POLICY)}">'
        f'<meta name="viewport" content="width=device-width"><title>{heading}</title><style>{_PAGE_STYLE}</style>'
        f"<header><h1>{heading}</h1><p>{html.escape(shown.heading())}</p></header>"
        f"<main>{map_figure_html(shown, thumbnails=thumbnails)}</main></html>\n"
    )


def map_figure_html(shown: Map, *, library: bool = True, thumbnails: int = 3_000, id: str = "map") -> str:
    """The map as a ``<div>`` with its data and scripts, for a page of one's own.

    It fills its parent, which needs a height.

    Parameters
    ----------
    library
        Whether Plotly itself, 4 to 5 MB of JavaScript, comes along: a page needs it once, before the first map.
    thumbnails
        How many pictures to embed at most, some 2 KB each.
    id
        The div's, which no other in the page may have.

    Raises
    ------
    InvalidInput
        If ``id`` is not made of letters, digits, ``-`` and ``_``, a letter first.
    MissingDependency
        Without plotly, if it is to come along.
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", id):
        raise InvalidInput(f"expected an id of letters, digits, - and _, a letter first, got {id!r}")
    plotly = f"<script>{_plotly()}</script>" if library else ""
    data = json.dumps(_content(shown, thumbnails), ensure_ascii=False, separators=(",", ":"))
    # In JSON, these stand in strings alone. So no text can end the script or begin a comment or an entity.
    for char in "<>&\u2028\u2029":
        data = data.replace(char, f"\\u{ord(char):04x}")
    draw = files("mmsearch.atlas").joinpath("map.js").read_text(encoding="utf-8")
    return (
        f'<style>{_STYLE}</style><div class="map" id="{id}"><div class="map-plot"></div><div class="map-card" hidden>'
        '<img alt=""><div class="map-id"></div><div class="map-text"></div><div class="map-cluster"></div></div></div>'
        f'{plotly}<script type="application/json" id="{id}-data">{data}</script><script>({draw})("{id}")</script>'
    )


def _plotly() -> str:
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise MissingDependency("maps as pages need an extra: pip install 'mmsearch[analysis]'") from error
    return str(get_plotlyjs())


def _content(shown: Map, n_thumbnails: int) -> dict[str, Any]:
    """What the script reads: clusters, ids, texts, thumbnails by position and, as base64, little-endian numbers.

    These are the coordinates and ``group``, the place of an item's cluster among ``clusters``.
    """
    clusters = shown.clusters()
    named = set(clusters[:_NAMES])
    middles = {id: at for id, at in medians(shown).items() if id in named}
    colour = colours(clusters)
    length = int(np.clip(_CHARACTERS // max(1, len(shown)), _SHORTEST, _LONGEST))
    ids, texts, pictured = [], [], np.zeros(len(shown), dtype=np.bool_)
    for n, item in enumerate(shown.items):
        ids.append(line(item.id, _LONGEST))
        texts.append(caption(item, length))
        pictured[n] = item.path is not None or item.image is not None
    places = {id: n for n, id in enumerate(clusters)}
    group = np.array([places[label] for label in shown.labels.tolist()], dtype="<i4")
    return {
        "clusters": [
            {"id": id, "name": line(shown.name(id), _LONGEST), "colour": colour[id], "middle": middles.get(id)}
            for id in clusters
        ],
        "x": _base64(shown.points[:, 0].astype("<f4")),
        "y": _base64(shown.points[:, 1].astype("<f4")),
        "group": _base64(group),
        "ids": ids,
        "texts": texts,
        "thumbnails": _embedded(shown, np.flatnonzero(pictured), n_thumbnails),
    }


def _embedded(shown: Map, pictured: NDArray[np.intp], n: int) -> dict[str, str]:
    chosen = pictured[evenly(shown.labels[pictured], shown.points[pictured], n)]
    made = thumbnails(shown.items, _ints(chosen), _SIDE)
    return {str(position): f"data:image/webp;base64,{_base64(_webp(small))}" for position, small in made.items()}


def _ints(positions: NDArray[np.intp]) -> Sequence[int]:
    return [int(position) for position in positions]


def _webp(image: Image.Image) -> bytes:
    buffer = BytesIO()
    image.save(buffer, "WEBP", quality=_QUALITY)
    return buffer.getvalue()


def _base64(data: bytes | NDArray[Any]) -> str:
    return base64.b64encode(data if isinstance(data, bytes) else data.tobytes()).decode()
