"""What is in a store, as one value that can be shown or turned into JSON."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmsearch.catalog import EventBook, path_of
from mmsearch.files import size_of
from mmsearch.store import Store
from mmsearch.types import FIELDS


@dataclass(frozen=True, slots=True)
class SpaceInfo:
    """One space: rows stored and in use, kind of index, and sampled recall@10 against the exact scan."""

    rows: int
    live: int
    index: str
    recall: float | None


@dataclass(frozen=True, slots=True)
class Info:
    """A store's contents, encoder, terms, spaces, roots, failures and interactions; sizes in bytes."""

    path: str
    items: int
    encoder: str | None
    fingerprint: str | None
    licence: str | None
    runtime: str | None
    dim: int | None
    spaces: dict[str, SpaceInfo] = field(default_factory=dict)
    roots: list[dict[str, str]] = field(default_factory=list)
    failures: int = 0
    bytes_on_disk: int = 0
    reindexing_to: str | None = None
    users: int = 0
    interactions: int = 0

    def to_json(self) -> dict[str, Any]:
        """Everything as a dict of plain values."""
        from dataclasses import asdict

        return asdict(self)


def collect(store: Store) -> Info:
    """Look at a store; samples the recall of each searchable space."""
    with store.reading() as view:
        following = store.next_encoder()
        users, interactions = EventBook(store.catalog).counts()
        return Info(
            path=str(store.path),
            items=len(store.catalog),
            encoder=view.encoder.name if view.encoder else None,
            fingerprint=view.encoder.fingerprint if view.encoder else None,
            licence=view.encoder.licence if view.encoder else None,
            runtime=view.encoder.runtime if view.encoder else None,
            dim=view.encoder.dim if view.encoder else None,
            spaces={
                name: SpaceInfo(
                    rows=space.record.rows,
                    live=store.book.count_live(space.record.space),
                    index=space.kind if name in FIELDS else "none",
                    recall=space.recall(store.book.live(space.record.space)) if name in view.held else None,
                )
                for name, space in view.spaces.items()
            },
            roots=[{"kind": kind, "path": str(path_of(path))} for _, kind, path in store.catalog.roots() if path],
            failures=len(store.catalog.failures()),
            bytes_on_disk=sum(size_of(Path(at) / name) for at, _, names in os.walk(store.path) for name in names),
            reindexing_to=following.name if following else None,
            users=users,
            interactions=interactions,
        )
