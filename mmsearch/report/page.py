"""The page: what is shown of a portrait, and the template that it is put into."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import chain, groupby
from pathlib import Path
from typing import TYPE_CHECKING

from mmsearch.atlas.maps import PAGES
from mmsearch.clusters import Branch, Cluster
from mmsearch.errors import InvalidInput, MissingDependency
from mmsearch.files import atomic_write
from mmsearch.findings import DuplicateGroup, Flaw, Outlier, Suspect
from mmsearch.report import words
from mmsearch.report.album import Album
from mmsearch.report.changes import change_words
from mmsearch.report.plane import plane
from mmsearch.report.portrait import Portrait
from mmsearch.report.words import Figure, counted
from mmsearch.types import Item

if TYPE_CHECKING:
    from jinja2 import Environment

_CLUSTERS, _ROWS = 60, 1_000
"""The most clusters that have a section each, and that have a row of the table after them."""
_MEMBERS, _MORE = 960, 32
"""Thumbnails of all sections together, and the most that one shows beyond its exemplars."""
_CENTRAL, _BORDER, _ODD = 8, 4, 4
_GROUPS, _COPIES = 50, 8
_OUTLIERS, _FLAWS, _SUSPECTS, _FIELDS = 60, 24, 48, 6
_LINES = 100
"""The most changes, and the most notes."""


@dataclass(frozen=True, slots=True)
class _Shown:
    """What the page shows of a cluster: its exemplars, and more members from the typical to the odd."""

    cluster: Cluster
    central: Sequence[Item]
    border: Sequence[Item]
    odd: Sequence[Item]
    more: Sequence[Item]

    @property
    def title(self) -> str:
        return _title(self.cluster)


@dataclass(frozen=True, slots=True)
class _Findings:
    """What the page shows of what curation found; each flaw's kind and each field with how many there are in all."""

    groups: Sequence[DuplicateGroup]
    outliers: Sequence[Outlier]
    flaws: Mapping[str, tuple[Sequence[Flaw], int]]
    suspects: Mapping[str, tuple[Sequence[Suspect], int]]

    def items(self) -> Iterator[Item]:
        """Whose pictures are shown."""
        yield from chain.from_iterable(group.items[:_COPIES] for group in self.groups)
        yield from (outlier.item for outlier in self.outliers)
        yield from (suspect.item for some, _ in self.suspects.values() for suspect in some)
        yield from (flaw.item for some, _ in self.flaws.values() for flaw in some)


def write_report(file: Path, portrait: Portrait) -> None:
    """Write a report as one page that is opened without a server and loads nothing from anywhere.

    It stays below some 15 MB however large the collection is: pictures are thumbnails, each embedded once, of the
    largest 60 clusters and of what was found first; the page says how much more there is. Without plotly the map is a
    picture, without matplotlib too it is left out.

    Parameters
    ----------
    file
        Ends in ``.html`` or ``.htm``. Its folder is made if it is not there. What it held before stays until the new
        page is whole.

    Raises
    ------
    InvalidInput
        For another ending.
    MissingDependency
        Without Jinja2.
    ItemNotFound
        If an item was removed from the store meanwhile.
    """
    if file.suffix.lower() not in PAGES:
        raise InvalidInput(f"expected a report as {' or '.join(PAGES)}, got {file.name!r}")
    # Names of files may hold half characters, which no encoding knows.
    data = _page(portrait).encode("utf-8", "backslashreplace")
    file.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(file, data)


def _page(portrait: Portrait) -> str:
    environment = _environment()
    clusters = portrait.clustering.clusters
    shown, rest = _shown(clusters), clusters[_CLUSTERS:][:_ROWS]
    found = _found(portrait)
    album = Album(_by_importance(shown, found))
    linked = {cluster.id for cluster in clusters[: _CLUSTERS + _ROWS]}
    titles = {cluster.id: _title(cluster) for cluster in clusters}
    notes = [*portrait.notes, *portrait.clustering.notes]
    return environment.get_template("template.html").render(
        portrait=portrait,
        info=portrait.info,
        clustering=portrait.clustering,
        figures=_figures(portrait),
        quality=words.quality_figures(portrait.clustering.quality) if clusters else [],
        plane=plane(portrait.map),
        shown=shown,
        rest=rest,
        n_unlisted=len(clusters) - len(shown) - len(rest),
        hierarchy=[_branch(branch, titles, linked) for branch in portrait.clustering.hierarchy],
        sizes={cluster.id: len(cluster) for cluster in clusters},
        titles=titles,
        changes=change_words(portrait.clustering)[:_LINES],
        found=found,
        copies_shown=_COPIES,
        album=album,
        notes=[*_album_notes(album), *notes[:_LINES]],
        n_more_notes=max(0, len(notes) - _LINES),
    )


def _title(cluster: Cluster) -> str:
    return words.short(cluster.title or cluster.name) or f"cluster {cluster.id}"


def _shown(clusters: Sequence[Cluster]) -> list[_Shown]:
    first = clusters[:_CLUSTERS]
    room = _MEMBERS // max(1, len(first)) - _CENTRAL - _BORDER - _ODD
    return [
        _Shown(
            cluster,
            cluster.exemplars.central[:_CENTRAL],
            cluster.exemplars.border[:_BORDER],
            cluster.exemplars.odd[:_ODD],
            _across(cluster, min(_MORE, max(0, room))),
        )
        for cluster in first
    ]


def _across(cluster: Cluster, n: int) -> list[Item]:
    """Members that are not shown as exemplars, at even steps from the most central to the least."""
    exemplars = cluster.exemplars
    known = {item.id for item in (*exemplars.central[:_CENTRAL], *exemplars.border[:_BORDER], *exemplars.odd[:_ODD])}
    step = max(1, len(cluster.items) / max(1, n))
    places = [int(step * (place + 0.5)) for place in range(min(n, len(cluster.items)))]
    members = [cluster.items[place] for place in places]
    return [item for item in members if item.id not in known]


def _found(portrait: Portrait) -> _Findings:
    by_kind = groupby(sorted(portrait.flaws, key=lambda flaw: flaw.kind), key=lambda flaw: flaw.kind)
    kinds = {kind: list(flaws) for kind, flaws in by_kind}
    fields = {field: suspects for field, suspects in portrait.suspects.items() if suspects}
    return _Findings(
        portrait.duplicates[:_GROUPS],
        portrait.outliers[:_OUTLIERS],
        {kind: (flaws[:_FLAWS], len(flaws)) for kind, flaws in kinds.items()},
        {field: (some[: _SUSPECTS if n < _FIELDS else 0], len(some)) for n, (field, some) in enumerate(fields.items())},
    )


def _by_importance(shown: Sequence[_Shown], found: _Findings) -> Iterator[Item]:
    """Whose pictures to embed, in the order in which they may claim the room there is."""
    parts: Iterable[Iterable[Item]] = (
        *(one.central for one in shown),
        found.items(),
        *(one.odd for one in shown),
        *(one.border for one in shown),
        *(one.more for one in shown),
    )
    return chain.from_iterable(parts)


def _figures(portrait: Portrait) -> list[Figure]:
    """The header's numbers."""
    info, clustering = portrait.info, portrait.clustering
    n = len(clustering.labels)
    copies = sum(len(group.others) for group in portrait.duplicates)
    flawed = len({flaw.item.id for flaw in portrait.flaws})
    figures = [
        Figure("items", f"{info.items:,}", f"{n:,} of them are clustered here" if n != info.items else ""),
        Figure("clusters", f"{len(clustering):,}", f"made by {clustering.method}" if len(clustering) else ""),
        Figure(
            "in no cluster", f"{clustering.n_noise:,}", f"{words.percent(clustering.n_noise / n)} of them" if n else ""
        ),
        Figure("copies", f"{copies:,}", f"could go, in {counted(len(portrait.duplicates), 'group')}" if copies else ""),
        Figure("outliers", f"{len(portrait.outliers):,}", "are listed here" if portrait.outliers else ""),
        Figure("flawed pictures", f"{flawed:,}", "dark, blurred, empty, small …" if flawed else ""),
    ]
    suspects = sum(map(len, portrait.suspects.values()))
    return [*figures, *([Figure("suspect labels", f"{suspects:,}", "")] if portrait.suspects else [])]


def _branch(branch: Branch, titles: Mapping[int, str], linked: set[int]) -> dict[str, object]:
    """A branch as the template reads it: clusters of the largest id lists only as far as the page knows them."""
    leaves = [id for id in branch.clusters if id in linked] if not branch.branches else []
    return {
        "name": words.short(branch.name) or ", ".join(titles[id] for id in leaves[:3]) or "other clusters",
        "keywords": branch.keywords,
        "n": len(branch.clusters),
        "leaves": leaves,
        "branches": [_branch(one, titles, linked) for one in branch.branches],
    }


def _album_notes(album: Album) -> Iterator[str]:
    if album.gone:
        yield f"{counted(album.gone, 'picture')} could not be opened any more: the id stands in its place."
    if album.left_out:
        yield f"{counted(album.left_out, 'picture')} left out to keep this file small: the id stands in its place."


def _environment() -> Environment:
    try:
        from jinja2 import Environment, FunctionLoader, StrictUndefined
    except ImportError as error:
        raise MissingDependency("reports need an extra: pip install 'mmsearch[analysis]'") from error
    environment = Environment(
        loader=FunctionLoader(lambda name: files("mmsearch.report").joinpath(name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_safe,
    )
    helpers = (
        words.decimal,
        words.percent,
        words.measured,
        words.counted,
        words.size,
        words.name,
        words.short,
        words.told,
    )
    environment.filters.update({helper.__name__: helper for helper in helpers})
    environment.globals.update(flaw_words=words.FLAWS, agreement_meaning=words.agreement_meaning, unknown=words.UNKNOWN)
    return environment


def _safe(value: object) -> object:
    """Whatever a template puts out: no control or direction marks, no NaN. What is HTML already stays as it is."""
    if isinstance(value, str) and not hasattr(value, "__html__"):
        return words.readable(value)
    if isinstance(value, float) and not math.isfinite(value):
        return words.UNKNOWN
    return "" if value is None else value
