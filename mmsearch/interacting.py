"""``Interacting``: what an ``Engine`` does with interactions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mmsearch.catalog import EventBook
from mmsearch.errors import InvalidInput
from mmsearch.recording import export, record, recorded

if TYPE_CHECKING:
    from mmsearch.interactions import InteractionReport
    from mmsearch.store import Store
    from mmsearch.types import Interaction, Report


class Interacting:
    """Records who had to do with which item, and tells it again. A part of ``Engine``."""

    _store: Store

    def add_interactions(
        self,
        table: object,
        *,
        user: str = "user",
        item: str = "item",
        item_field: str | None = None,
        weight: str | None = None,
        time: str | None = None,
        kind: str | None = None,
        progress: Report | None = None,
    ) -> InteractionReport:
        """Record interactions. Told again, they change nothing; with another weight, they get it.

        The same user, item, kind and time are one interaction. Rows are stored in batches of 50,000, each whole or not
        at all; interrupted, what was stored stays, and the same call goes on from there. Items that are removed from
        the store take their interactions with them; items that are replaced keep them.

        Parameters
        ----------
        table
            A ``Path`` to a CSV, TSV, JSON-lines or Parquet file; a data frame of pandas, polars or pyarrow, or a
            mapping of columns; or an iterable of ``Interaction`` or of mappings.
        user, item, weight, time, kind
            The columns. Where there is no ``user`` or ``item``, and where a name is None, well-known names are looked
            for, such as ``userId``, ``movie_id``, ``rating``, ``timestamp`` and ``event``; the report's ``columns``
            say what was taken. An empty name does without: weights are then 1, kinds ``view`` and times unknown.
        item_field
            A metadata field of the items that the item column holds, instead of their ids. Numbers match text that
            reads as the same number. What several items share is not recorded, but counted in ``ambiguous``.
        progress
            Called after each batch.

        Notes
        -----
        Weights are finite numbers, or true and false for 1 and 0: above 0 is liking, 0 mere seeing, below 0 disliking.
        Times are ISO 8601 dates, UTC unless they say otherwise, or numbers: seconds since 1970, above 1e11
        milliseconds, above 1e14 microseconds, above 1e17 nanoseconds. An empty time is unknown, an empty kind is
        ``view``; an empty user, item or weight fails its row.

        Raises
        ------
        InvalidInput
            If the table cannot be read, or a column is missing or could be several.
        StoreBusy
            If another engine or process is writing.
        """
        named = {"user": user, "item": item, "weight": weight, "time": time, "kind": kind}
        return record(self._store, table, named, item_field, progress)

    def interactions(self, user: str | None = None) -> Iterator[Interaction]:
        """Every interaction, or one user's: user by user, each user's by time, unknown times first.

        There are none of a user who is not known. Those that come meanwhile may be among them.
        """
        return recorded(self._store, _checked(user))

    def users(self) -> list[str]:
        """Everybody who has interactions, in the order in which they were first heard of."""
        return EventBook(self._store.catalog).users()

    def export_interactions(self, file: Path, *, overwrite: bool = False) -> int:
        """Write every interaction to a CSV, TSV, JSON-lines or Parquet table, by its suffix; return how many.

        Its columns are user, item, kind, weight and time, which is empty where it is unknown. ``add_interactions``
        gives the same again. The file is there whole or not at all.

        Raises
        ------
        InvalidInput
            For another suffix, a folder that is not there, or a file that is, unless it may be overwritten.
        MissingDependency
            For Parquet without pyarrow.
        """
        return export(self._store, Path(file).expanduser(), overwrite=overwrite)

    def forget_interactions(self, user: str | None = None) -> int:
        """Delete a user and all their interactions, or everybody's (None); return how many interactions.

        What was deleted is overwritten in the store's files as soon as the store is closed.
        """
        with self._store.writing(), self._store.catalog.transaction():
            return EventBook(self._store.catalog).forget(_checked(user))


def _checked(user: str | None) -> str | None:
    if user is not None and not isinstance(user, str):
        raise InvalidInput(f"expected a str as user, got {type(user).__name__}: {user!r:.60}")
    return user
