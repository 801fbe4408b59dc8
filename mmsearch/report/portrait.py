"""``Portrait``: what a report tells of a collection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mmsearch.atlas import Map
from mmsearch.clusters import Clustering
from mmsearch.findings import DuplicateGroup, Flaw, Outlier, Suspect
from mmsearch.info import Info


@dataclass(frozen=True, eq=False)
class Portrait:
    """All that was found out about a collection. What is empty or None was not found or not asked for.

    Attributes
    ----------
    title
        What is written above it.
    info
        The store and its encoder.
    clustering
        The named groups. Their exemplars are what is shown of them.
    map
        Items in the plane.
    duplicates, outliers, flaws
        What curation found, in the order in which it is to be told.
    suspects
        Items whose label looks wrong, by metadata field.
    agreement
        How well the clusters go with a metadata field, by field: ``nmi``, ``ari`` and ``purity``.
    notes
        What could not be done, in words; the clustering's own notes are told as well.
    """

    title: str
    info: Info
    clustering: Clustering
    map: Map | None = None
    duplicates: Sequence[DuplicateGroup] = ()
    outliers: Sequence[Outlier] = ()
    flaws: Sequence[Flaw] = ()
    suspects: Mapping[str, Sequence[Suspect]] = field(default_factory=dict)
    agreement: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    notes: Sequence[str] = ()
