"""``Map``: items as points in the plane, coloured and named by cluster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmsearch.clusters import NOISE
from mmsearch.errors import InvalidInput
from mmsearch.files import atomic_write, display_path
from mmsearch.types import Item, Keys

PAGES, PICTURES, TABLES = (".html", ".htm"), (".png", ".jpg", ".jpeg", ".webp"), (".parquet", ".csv")
ENDINGS = (*PAGES, *PICTURES, *TABLES)
"""What a map can be written as."""
PAGE_THUMBNAILS = 3_000
"""Thumbnails in a page, unless told otherwise: some 2 KB each."""
OUTSIDE = "in no cluster"
"""What the items outside of all clusters are called."""


@dataclass(frozen=True, eq=False)
class Map:
    """Items and where they lie.

    Attributes
    ----------
    items
        (n,) items by position; they may be read only when they are asked for.
    points
        (n, 2) float32, finite.
    labels
        (n,) int64 ids of clusters, -1 for items that are in none.
    names
        The clusters' names by id. A cluster without one is called by its number.
    method, trust
        How the map was made and how far to trust it: see ``mmsearch.projection.Projection``.

    Raises
    ------
    InvalidInput
        If the lengths differ, or a point is not finite.
    """

    items: Sequence[Item]
    points: NDArray[np.float32]
    labels: Keys
    names: Mapping[int, str] = field(default_factory=dict)
    method: str = ""
    trust: float = 1.0

    def __post_init__(self) -> None:
        n = len(self.items)
        if self.points.shape != (n, 2) or self.labels.shape != (n,):
            shapes = f"points {self.points.shape} and labels {self.labels.shape}"
            raise InvalidInput(f"expected points (n, 2) and labels (n,) for {n} items, got {shapes}")
        if not np.isfinite(self.points).all():
            raise InvalidInput("expected finite points")

    def __len__(self) -> int:
        """How many items it shows."""
        return len(self.items)

    def clusters(self) -> list[int]:
        """Ids of the clusters on the map, the largest first, equal ones by id; then -1, if some item is in none."""
        ids, counts = np.unique(self.labels, return_counts=True)
        order = np.lexsort((ids, -counts, ids == NOISE))
        return [int(id) for id in ids[order]]

    def name(self, id: int) -> str:
        """What a cluster is called."""
        if id == NOISE:
            return OUTSIDE
        return self.names.get(id) or f"cluster {id}"

    def heading(self) -> str:
        """How many items there are, and how they were laid out, in words."""
        n = len([id for id in self.clusters() if id != NOISE])
        parts = [f"{len(self):,} item{'s' * (len(self) != 1)}", f"{n:,} cluster{'s' * (n != 1)}"]
        return ", ".join(parts + ([f"{self.method}, trust {self.trust:.2f}"] if self.method else []))

    def rows(self) -> Iterator[dict[str, Any]]:
        """Each item as a row of a table: id, x, y, cluster, name (of the cluster), text and path."""
        for item, (x, y), label in zip(self.items, self.points.tolist(), self.labels.tolist(), strict=True):
            path = display_path(item.path) if item.path is not None else None
            yield {
                "id": item.id, "x": x, "y": y, "cluster": label, "name": self.name(label), "text": item.text,
                "path": path,
            }  # fmt: skip

    def write(self, file: Path, *, title: str = "mmsearch", thumbnails: int | None = None) -> None:
        """Write the map; the ending chooses what it becomes.

        - ``.html``: a page to explore, in one file that loads nothing from anywhere. The mouse shows an item's picture,
          id, text and cluster; the legend hides and shows clusters.
        - ``.png``, ``.jpg``, ``.webp``: a picture with the clusters' names.
        - ``.parquet``, ``.csv``: id, x, y, cluster, name, text and path. Embedding Atlas opens it by ``embedding-atlas
          map.parquet --x x --y y --text text``; where items have no text, by ``--text name``.

        Parameters
        ----------
        file
            Its folder is made if it is not there. What it held before stays until the new file is whole.
        title
            What is written above a page or picture.
        thumbnails
            How many pictures of items to show at most, chosen evenly from all clusters. None: 3,000 in a page, where
            the mouse shows them, and none in a picture, where they lie on the map as far as there is room for them.

        Raises
        ------
        InvalidInput
            For another ending, or thumbnails below 0.
        MissingDependency
            Without plotly (pages), matplotlib (pictures) or pyarrow (Parquet).
        """
        ending = file.suffix.lower()
        if ending not in ENDINGS:
            raise InvalidInput(f"expected a map as {', '.join(ENDINGS)}, got {file.name!r}")
        if thumbnails is not None and thumbnails < 0:
            raise InvalidInput(f"expected thumbnails of at least 0, got {thumbnails!r}")
        data = _encode(self, ending, title, thumbnails)
        file.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(file, data)


def _encode(shown: Map, ending: str, title: str, thumbnails: int | None) -> bytes:
    if ending in PAGES:
        from mmsearch.atlas.page import map_page

        return map_page(shown, title=title, thumbnails=PAGE_THUMBNAILS if thumbnails is None else thumbnails).encode()
    if ending in PICTURES:
        from mmsearch.atlas.drawing import draw_map

        return draw_map(shown, ending, title=title, thumbnails=thumbnails or 0)
    from mmsearch.atlas.table import map_csv, map_parquet

    return map_parquet(shown) if ending == ".parquet" else map_csv(shown)
