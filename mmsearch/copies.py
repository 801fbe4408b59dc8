"""``Copies``: items of a store that show the same picture, or say the same."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from pathlib import Path

import numpy as np

from mmsearch.catalog import LookBook, PictureRow
from mmsearch.curation.near import Pairs, groups_of, near_pairs
from mmsearch.curation.nearpairs import joined, ordered
from mmsearch.curation.nearpixels import SIDE, Thumbnails, thumbnail
from mmsearch.errors import MMSearchError
from mmsearch.files import read_bytes
from mmsearch.filters import Filter
from mmsearch.findings import DuplicateGroup, Leak
from mmsearch.images import MAX_BYTES
from mmsearch.looking import Looker, first_opened
from mmsearch.overlap import ahead
from mmsearch.perceptual import split
from mmsearch.recommenders.itemvectors import ItemVectors
from mmsearch.retrieval import condition_of
from mmsearch.selection import check_field, items_of, labels_of
from mmsearch.store import Store, View
from mmsearch.types import Item, Keys, Report

_NEIGHBOURS = 10
"""Nearest pictures by vector that are looked at beside those with like hashes."""
_SOFT = 0.75
"""A copy with less than this share of the sharpness, times contrast, of another one of its size is not the one to keep.
Compression makes a difference of some per cent; blur, and loss of light, a larger one."""
_REMEMBERED = 20_000
"""Thumbnails that are kept ready: 80 MB."""


@dataclass(frozen=True, slots=True)
class _Group:
    """Keys of copies, the best first, and how alike each is to it; those with equal ``contents`` are the same file."""

    keys: tuple[int, ...]
    scores: tuple[float, ...]
    contents: tuple[int, ...]

    @property
    def exact(self) -> bool:
        """Whether all have the same content."""
        return len(set(self.contents)) == 1


class Copies:
    """Answers ``Engine.duplicates`` and ``Engine.leaks``."""

    def __init__(self, store: Store, looker: Looker) -> None:
        self._store, self._looker = store, looker
        self._book = LookBook(store.catalog)

    def duplicates(
        self, *, where: Filter | None = None, mirrored: bool = False, report: Report | None = None
    ) -> list[DuplicateGroup]:
        """Groups of copies. See ``Engine.duplicates``."""
        with self._store.reading() as view:
            found = self._groups(view, where, mirrored, report)
            items = self._items(found)
        told = [
            DuplicateGroup(tuple(items[key] for key in one.keys), "exact" if one.exact else "near", one.scores)
            for one in found
        ]
        return sorted(told, key=lambda group: (-len(group.items), group.kind, group.best.id))

    def leaks(self, field: str, *, where: Filter | None = None, report: Report | None = None) -> list[Leak]:
        """Copies across splits. See ``Engine.leaks``."""
        with self._store.reading() as view:
            check_field(self._store, field)
            found = self._groups(view, where, False, report)
            items = self._items(found)
            ids = sorted(item.id for item in items.values())
            labels = dict(zip(ids, labels_of(self._store, ids, field), strict=True))
        leaks = [leak for one in found for leak in _leaks(one, items, labels)]
        return sorted(leaks, key=lambda leak: (-leak.score, leak.items[0].id, leak.items[1].id))

    def _items(self, groups: Sequence[_Group]) -> dict[int, Item]:
        keys = np.array(sorted({key for one in groups for key in one.keys}), dtype=np.int64)
        return dict(zip(keys.tolist(), items_of(self._store, keys), strict=True))

    def _groups(self, view: View, where: Filter | None, mirrored: bool, report: Report | None) -> list[_Group]:
        condition = condition_of(where)
        keys = None if condition is None else self._store.catalog.passing(condition)
        owners: dict[bytes, list[PictureRow]] = defaultdict(list)
        for picture in self._book.pictures(keys):
            owners[picture.content].append(picture)
        hashed = [its[0] for its in owners.values() if its[0].perceptual]
        pairs = self._pairs(view, hashed, owners, mirrored, report)
        near = groups_of(len(hashed), pairs)
        alike = _links(pairs)
        members = [{n: hashed[n] for n in group.tolist()} for group in near]
        soft = self._soft(members)
        groups = [_ordered(one, owners, alike, soft) for one in members]
        joined = {hashed[n].content for group in near for n in group.tolist()}
        for content, its in owners.items():
            if content not in joined and len(its) > 1:
                groups.append(_same([one.key for one in its]))
        return groups + [_same(its) for its in self._book.same_texts(keys)]

    def _pairs(
        self,
        view: View,
        pictures: Sequence[PictureRow],
        owners: Mapping[bytes, list[PictureRow]],
        mirrored: bool,
        report: Report | None,
    ) -> Pairs:
        """Pairs of different pictures, by position, that show the same."""
        shapes, colours = split([one.perceptual or b"" for one in pictures])
        vectors, neighbours = self._nearest(view, pictures) if "picture" in view.held else (None, None)
        seen = _Seen([owners[one.content] for one in pictures])
        found = near_pairs(shapes, colours, vectors, neighbours, look=seen.thumbnails, mirrored=mirrored, report=report)
        if not seen.lost:
            return found
        # Pictures that cannot be opened now are judged by what was stored of them.
        blind = near_pairs(shapes, colours, vectors, neighbours, mirrored=mirrored)
        lost = np.array(sorted(seen.lost), dtype=np.int64)
        of_lost = np.isin(blind.first, lost) | np.isin(blind.second, lost)
        return ordered(joined([found, blind.taken(of_lost)]))

    def _nearest(self, view: View, pictures: Sequence[PictureRow]) -> tuple[ItemVectors, Callable[[Keys], list[Keys]]]:
        """The vectors of pictures, and what finds the nearest by them."""
        space = view.spaces["picture"]
        items, rows = self._store.book.of_items(space.record.space)
        row_of = dict(zip(items.tolist(), rows.tolist(), strict=True))
        own = np.array([row_of.get(one.key, -1) for one in pictures], dtype=np.int64)
        vectors = ItemVectors(space.matrix, own, centred=False)
        owner = np.full(space.record.rows + 1, -1, dtype=np.int64)
        owner[own] = np.arange(len(own))
        owner[-1] = -1  # where pictures without a vector went

        def neighbours(positions: Keys) -> list[Keys]:
            found = space.search(vectors.take(positions), _NEIGHBOURS + 1)
            places = [owner[neighbors.keys] for neighbors in found]
            return [place[place >= 0] for place in places]

        return vectors, neighbours

    def _soft(self, groups: Sequence[Mapping[int, PictureRow]]) -> set[bytes]:
        """Pictures that show clearly less than another one of their group that has their size."""
        rivals = [_of_a_size(members.values()) for members in groups]
        every = [one for its in rivals for same in its for one in same]
        looks = self._looker.looks(every) if every else {}
        # Sharpness does not depend on contrast, but a picture that has lost its contrast shows less.
        shows = {content: its.sharpness * its.contrast for content, its in looks.items()}
        soft: set[bytes] = set()
        for its in rivals:
            for same in its:
                best = max(shows.get(one.content, 0.0) for one in same)
                soft |= {one.content for one in same if shows.get(one.content, 0.0) < _SOFT * best}
        return soft


def _of_a_size(pictures: Collection[PictureRow]) -> list[list[PictureRow]]:
    """The pictures that are not the only one of their size, together with those of the same."""
    sizes: dict[tuple[int, int], list[PictureRow]] = defaultdict(list)
    for one in pictures:
        sizes[one.width, one.height].append(one)
    return [same for same in sizes.values() if len(same) > 1]


def _ordered(
    members: Mapping[int, PictureRow], owners: Mapping[bytes, list[PictureRow]], alike: _Alike, soft: Collection[bytes]
) -> _Group:
    """A group of near copies, the best one first; identical files follow each other."""
    # Bytes tell how much of a picture was kept only among files of one format and size.
    rivals = {one.key for same in _of_a_size(members.values()) for one in same if len(_formats(same)) == 1}
    bytes_of = {one.key: _bytes(one.path) for one in members.values() if one.key in rivals}

    def worth(number: int) -> tuple[float, ...]:
        one = members[number]
        return (-one.width * one.height, one.content in soft, -bytes_of.get(one.key, 0), one.key)

    best = min(members, key=worth)
    scores = _from(best, members, alike)
    keys, told, contents = [], [], []
    for number in sorted(members, key=lambda number: (number != best, -scores[number], *worth(number))):
        for copy in owners[members[number].content]:
            keys.append(copy.key)
            told.append(scores[number])
            contents.append(number)
    return _Group(tuple(keys), tuple(told), tuple(contents))


def _formats(pictures: Sequence[PictureRow]) -> set[str]:
    return {one.path.suffix.lower() if one.path is not None else "" for one in pictures}


def _bytes(path: Path | None) -> int:
    """The size of a picture's file, also inside of a zip file; 0 if it cannot be read."""
    try:
        return 0 if path is None else len(read_bytes(path, MAX_BYTES))
    except MMSearchError:
        return 0


def _from(best: int, members: Collection[int], alike: _Alike) -> dict[int, float]:
    """How alike each member is to the best one: what is joined through others is as alike as the weakest link.

    The path whose weakest link is strongest, as Dijkstra's algorithm finds it.
    """
    found: dict[int, float] = {}
    waiting = [(-1.0, best)]
    while waiting:
        score, number = heappop(waiting)
        if number not in found:
            found[number] = -score
            for other, link in alike.get(number, ()):
                if other in members and other not in found:
                    heappush(waiting, (max(score, -link), other))
    return {number: found.get(number, 0.0) for number in members}


class _Seen:
    """The thumbnails of pictures by position, read when they are asked for; each picture is given by its items."""

    def __init__(self, pictures: Sequence[Sequence[PictureRow]]) -> None:
        self._pictures = pictures
        self._known: dict[int, Thumbnails] = {}
        self.lost: set[int] = set()

    def thumbnails(self, positions: Keys) -> Thumbnails:
        """(m, 64, 64); noise for a picture that cannot be opened, which then is like no other."""
        if len(self._known) > _REMEMBERED:
            self._known.clear()
        wanted = [int(position) for position in positions if int(position) not in self._known]
        for position, small in zip(wanted, ahead(self._read, wanted, 64), strict=True):
            if small is None:
                self.lost.add(position)
                small = np.random.default_rng(position).integers(0, 256, (SIDE, SIDE), dtype=np.uint8)
            self._known[position] = small
        return np.stack([self._known[int(position)] for position in positions])

    def _read(self, position: int) -> Thumbnails | None:
        opened = first_opened(self._pictures[position], SIDE)
        return None if opened is None else thumbnail(opened.image)


_Alike = Mapping[int, Sequence[tuple[int, float]]]
"""By position, those that are like it, and how much."""


def _links(pairs: Pairs) -> _Alike:
    links: dict[int, list[tuple[int, float]]] = defaultdict(list)
    for one, other, score in zip(pairs.first.tolist(), pairs.second.tolist(), pairs.score.tolist(), strict=True):
        links[one].append((other, score))
        links[other].append((one, score))
    return links


def _same(keys: Sequence[int]) -> _Group:
    return _Group(tuple(keys), (1.0,) * len(keys), (0,) * len(keys))


def _leaks(group: _Group, items: Mapping[int, Item], labels: Mapping[str, str | None]) -> Iterator[Leak]:
    """Each item of a group beside the first one that is in another split, the same file if there is one."""
    splits = [labels[items[key].id] for key in group.keys]
    among = _firsts(splits, [0] * len(splits))
    among_same = _firsts(splits, group.contents)
    told: set[frozenset[int]] = set()
    for n, own in enumerate(splits):
        if own is None:
            continue
        others = [*among_same[group.contents[n]].items(), *among[0].items()]
        other = next((place for its, place in others if its != own), None)
        if other is None or frozenset((n, other)) in told:
            continue
        told.add(frozenset((n, other)))
        same = group.contents[n] == group.contents[other]
        score = 1.0 if same else min(group.scores[n], group.scores[other])
        yield Leak((items[group.keys[other]], items[group.keys[n]]), (splits[other] or "", own), score)


def _firsts(splits: Sequence[str | None], kinds: Sequence[int]) -> dict[int, dict[str, int]]:
    """By kind, the first places of two splits: one of them is another than any given split."""
    found: dict[int, dict[str, int]] = defaultdict(dict)
    for place, (own, kind) in enumerate(zip(splits, kinds, strict=True)):
        if own is not None and own not in found[kind] and len(found[kind]) < 2:
            found[kind][own] = place
    return found
