"""A map as a picture: points, the clusters' names and, where asked for, thumbnails."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mmsearch.atlas.look import colours, line, medians, thumbnails
from mmsearch.clusters import NOISE
from mmsearch.errors import MissingDependency
from mmsearch.types import Keys

if TYPE_CHECKING:
    from mmsearch.atlas.maps import Map

_INCHES, _DPI = (12.0, 10.0), 120
_AXES = (0.02, 0.02, 0.96, 0.9)
"""Left, bottom, width and height of the map as fractions of the picture."""
_SIDE = 56
"""Pixels a side of a thumbnail on the map."""
_NAME = 40
"""Characters of a name."""
_INK, _SOFT = "#18181c", "#6e6e78"
_RING = (0.0, 1.0, 1.6, 2.4, 3.4)
"""How far from its cluster's middle a name may be moved, in its own heights and half widths."""
_KINDS = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}


def draw_map(shown: Map, ending: str, *, title: str = "mmsearch", thumbnails: int = 0) -> bytes:
    """The picture as the bytes of a file of 1440 x 1200 pixels.

    Names are written at the middles of their clusters, the largest cluster's first, or as near as there is room; those
    without any room are left out, and the line below the title says how many.

    Raises
    ------
    MissingDependency
        Without matplotlib.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependency("maps as pictures need an extra: pip install 'mmsearch[analysis]'") from error
    figure = Figure(figsize=_INCHES, dpi=_DPI)
    FigureCanvasAgg(figure)
    axes = figure.add_axes(_AXES)
    axes.set_axis_off()
    (left, right), (bottom, top) = _frame(shown.points)
    axes.set(xlim=(left, right), ylim=(bottom, top))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a box stands for what the font does not have
        _draw_points(axes, shown)
        _draw_thumbnails(figure, axes, shown, thumbnails)
        left_out = _draw_names(figure, axes, shown)
        note = f"; {left_out} name{'s' * (left_out != 1)} left out for want of room" if left_out else ""
        at: dict[str, Any] = {"ha": "left", "va": "top", "parse_math": False}
        figure.text(0.02, 0.985, line(title, 100), fontsize=15, color=_INK, **at)
        figure.text(0.02, 0.955, shown.heading() + note, fontsize=10, color=_SOFT, **at)
        buffer = BytesIO()
        figure.savefig(buffer, format=_KINDS[ending])
    return buffer.getvalue()


def _frame(points: NDArray[np.float32]) -> tuple[tuple[float, float], tuple[float, float]]:
    """Limits of both axes that hold all points, with the same units on both."""
    shape = np.array([_INCHES[0] * _AXES[2], _INCHES[1] * _AXES[3]])
    low, high = (points.min(axis=0), points.max(axis=0)) if len(points) else (np.full(2, -1.0), np.full(2, 1.0))
    half = 0.54 * float(((high - low) / shape).max()) or 1.0
    (x, y), (width, height) = (low + high) / 2, half * shape
    return (float(x - width), float(x + width)), (float(y - height), float(y + height))


def _draw_points(axes: Any, shown: Map) -> None:  # noqa: ANN401 matplotlib has no types
    colour = colours(shown.clusters())
    area = float(np.clip(30_000 / max(1, len(shown)), 1.5, 60))
    # What is in no cluster lies below the rest.
    for id in sorted(shown.clusters(), key=lambda id: id != NOISE):
        x, y = shown.points[shown.labels == id].T
        axes.scatter(x, y, s=area, c=colour[id], alpha=0.7, linewidths=0)


def _draw_thumbnails(figure: Any, axes: Any, shown: Map, n: int) -> None:  # noqa: ANN401
    """Lay pictures on the map, each on its item, framed in the colour of its cluster, none over another."""
    if not n or not len(shown):
        return
    from matplotlib.offsetbox import AnnotationBbox, OffsetImage

    figure.canvas.draw()  # settles where the axes are
    pixels = axes.transData.transform(shown.points)
    colour = colours(shown.clusters())
    chosen = [int(position) for position in _apart(pixels)[:n]]
    for position, small in thumbnails(shown.items, chosen, _SIDE).items():
        image = OffsetImage(np.asarray(small), zoom=72 / _DPI)
        x, y = (float(value) for value in shown.points[position])
        frame = {"edgecolor": colour[int(shown.labels[position])], "linewidth": 1.5}
        axes.add_artist(AnnotationBbox(image, (x, y), pad=0.05, bboxprops=frame))


def _apart(pixels: NDArray[Any]) -> Keys:
    """Positions that are a thumbnail's side apart: of each cell of a fine grid the one nearest to its middle.

    Those nearest of all come first, and keep their distance from each other.
    """
    side = 1.15 * _SIDE
    places = 2 * pixels / side
    cells = np.floor(places)
    off = np.abs(places - cells - 0.5).max(axis=1)
    order = np.argsort(off, kind="stable")
    _, first = np.unique(cells[order], axis=0, return_index=True)
    taken: list[int] = []
    for position in order[np.sort(first)]:
        if all(np.abs(pixels[position] - pixels[other]).max() >= side for other in taken):
            taken.append(int(position))
    return np.array(taken, dtype=np.int64)


def _draw_names(figure: Any, axes: Any, shown: Map) -> int:  # noqa: ANN401
    """Write the names where no other is; says how many found no room."""
    from matplotlib.patheffects import withStroke

    renderer = figure.canvas.get_renderer()
    figure.canvas.draw()
    frame, left_out = axes.get_window_extent(renderer), 0
    taken: list[Any] = []
    for id, middle in medians(shown).items():
        x, y = axes.transData.transform(middle)
        text = axes.text(
            *middle, line(shown.name(id), _NAME), fontsize=10, color=_INK, ha="center", va="center", zorder=9,
            path_effects=[withStroke(linewidth=3, foreground="white")], parse_math=False,
        )  # fmt: skip
        box = text.get_window_extent(renderer)
        for right, up in _places(box.width, box.height):
            moved = box.translated(right, up)
            inside = frame.contains(moved.x0, moved.y0) and frame.contains(moved.x1, moved.y1)
            if inside and not any(moved.overlaps(other) for other in taken):
                text.set_position(axes.transData.inverted().transform((x + right, y + up)))
                taken.append(moved)
                break
        else:
            text.remove()
            left_out += 1
    return left_out


def _places(width: float, height: float) -> Iterator[tuple[float, float]]:
    """Where a name may go, in pixels from its middle, the nearest first."""
    for far in _RING:
        for right, up in ((0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1)):
            yield right * far * width / 2, up * far * height
            if not far:
                break
