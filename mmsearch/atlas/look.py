"""What pages and pictures share: colours, captions, medians and thumbnails."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mmsearch.clusters import NOISE
from mmsearch.errors import MMSearchError
from mmsearch.images import thumbnail
from mmsearch.types import Item, Keys

if TYPE_CHECKING:
    from PIL import Image

    from mmsearch.atlas.maps import Map

GREY = "#c4c4c8"
"""Of items in no cluster."""
_PALETTE = (
    "#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#b07aa1", "#76b7b2", "#9c755f", "#edc948", "#d37295", "#499894",
    "#8cd17d", "#79706e",
)  # fmt: skip
"""Told apart well: the first clusters'. After Tableau 10 and 20."""
_GOLDEN = 0.618034
"""Steps of the golden section around the circle of hues never come close to an earlier one soon."""
_THREADS = 4


def colours(clusters: Sequence[int]) -> dict[int, str]:
    """One colour a cluster, as ``#rrggbb``, in the clusters' order; grey for -1."""
    chosen: dict[int, str] = {}
    for n, id in enumerate(id for id in clusters if id != NOISE):
        chosen[id] = _PALETTE[n] if n < len(_PALETTE) else _hue(n)
    return chosen | {NOISE: GREY}


def _hue(n: int) -> str:
    red, green, blue = colorsys.hsv_to_rgb(n * _GOLDEN % 1, (0.75, 0.5)[n % 2], (0.85, 0.65, 0.95)[n % 3])
    return f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"


def caption(item: Item, length: int) -> str:
    """An item's text, or else its metadata, as one line of at most so many characters, all of them valid."""
    text = item.text or ", ".join(f"{key}: {value}" for key, value in item.metadata.items())
    return line(text, length)


def line(text: str, length: int) -> str:
    """The beginning of a text as one line of valid characters."""
    whole = " ".join(text[: 4 * length].encode("utf-8", "backslashreplace").decode().split())
    return whole if len(whole) <= length else whole[: max(0, length - 1)] + "…"


def medians(shown: Map) -> dict[int, tuple[float, float]]:
    """The middle of each cluster, where its name goes: the member that is nearest to the median of both axes.

    The median itself may lie where nothing is, amid a ring or between two halves.
    """
    middles = {}
    for id in shown.clusters():
        if id != NOISE:
            points = shown.points[shown.labels == id]
            nearest = int(np.abs(points - np.median(points, axis=0).astype(np.float32)).sum(axis=1).argmin())
            middles[id] = (float(points[nearest, 0]), float(points[nearest, 1]))
    return middles


def evenly(labels: Keys, points: NDArray[np.float32], n: int) -> Keys:
    """Choose at most n positions so that each label gets its share and, while there are enough, at least one.

    Within a label they are spread over the map from left to right. In ascending order.
    """
    if len(labels) <= n:
        return np.arange(len(labels))
    ids, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    shares = np.zeros(len(ids), dtype=np.int64)
    shares[order[:n]] = 1
    # What is left is handed out by size, rounded down, and its rest one by one to the largest.
    left = n - int(shares.sum())
    shares += (left * (counts - shares)) // max(1, int((counts - shares).sum()))
    for place in order:
        if shares.sum() >= n:
            break
        shares[place] += shares[place] < counts[place]
    chosen = []
    for place, share in enumerate(shares.tolist()):
        members = np.flatnonzero(inverse == place)
        members = members[np.argsort(points[members, 0], kind="stable")]
        chosen.append(members[((np.arange(share) + 0.5) * len(members) / max(1, share)).astype(np.int64)])
    return np.sort(np.concatenate(chosen))


def thumbnails(items: Sequence[Item], positions: Sequence[int], side: int) -> dict[int, Image.Image]:
    """Thumbnails by position; none of an item without a picture, or whose picture cannot be opened any more."""
    # The items are fetched here since where they come from need not be safe for threads.
    picked = [items[position] for position in positions]
    with ThreadPoolExecutor(_THREADS) as pool:
        made = pool.map(lambda item: _thumbnail(item, side), picked)
        return {position: small for position, small in zip(positions, made, strict=True) if small is not None}


def _thumbnail(item: Item, side: int) -> Image.Image | None:
    source = item.path or item.image
    if source is None:
        return None
    try:
        return thumbnail(source, side)
    except MMSearchError:
        return None
