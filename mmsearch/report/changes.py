"""What became of clusters since the time before, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mmsearch.clusters import Change, Clustering
from mmsearch.report.words import counted, short

_OTHERS = 8
"""The most clusters that are named in a sentence."""


def change_words(clustering: Clustering) -> list[tuple[str, str]]:
    """Each change as the name of its cluster and what happened to it.

    >>> from mmsearch.clusters import Quality
    >>> grown = Change("grew", 3, "boats", 10, 14)
    >>> change_words(Clustering((), {}, "kmeans", Quality(), changes=(grown,)))
    [('boats', 'grew from 10 to 14 items')]
    """
    names = {change.id: change.name for change in clustering.changes}
    names |= {cluster.id: cluster.title or cluster.name for cluster in clustering}
    here = {cluster.id for cluster in clustering}
    return [(_name(change.id, names), _happened(change, names, change.id in here)) for change in clustering.changes]


def _happened(change: Change, names: Mapping[int, str], is_here: bool) -> str:
    others = _list([_name(id, names) for id in change.others])
    sizes = f"from {change.before:,} to {counted(change.after, 'item')}"
    match change.kind:
        case "new":
            return f"is new, with {counted(change.after, 'item')}"
        case "vanished":
            return f"is gone; it had {counted(change.before, 'item')}"
        case "split":
            return f"was split: the rest of its {counted(change.before, 'item')} is now in {others}"
        case "merged" if is_here:
            return f"took in {others}, {sizes}"
        case "merged":
            return f"went into {others}; it had {counted(change.before, 'item')}"
    return f"{change.kind} {sizes}"


def _name(id: int, names: Mapping[int, str]) -> str:
    return short(names.get(id, "")) or f"cluster {id}"


def _list(names: Sequence[str]) -> str:
    shown = [*names[:_OTHERS], *([f"{len(names) - _OTHERS:,} more"] if len(names) > _OTHERS else [])]
    return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else "".join(shown)
