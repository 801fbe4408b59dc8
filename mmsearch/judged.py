"""Judged queries: what people ask of a collection, and what would be right, from captions, labels or a qrels file."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from mmsearch.errors import InvalidInput
from mmsearch.metrics import Qrels
from mmsearch.sources import Entry, open_source
from mmsearch.trec import read_qrels
from mmsearch.types import PICTURE, PICTURE_FOR_TEXTS, TEXT, Item

TEXT_TO_IMAGE, IMAGE_TO_TEXT, IMAGE_TO_IMAGE = TASKS = ("text-to-image", "image-to-text", "image-to-image")
CAPTION_FIELDS = ("captions", "caption")
LABEL_FIELDS = ("label", "class", "category", "articleType", "species", "group", "kind")
"""Metadata that says what a picture shows; the first that a dataset has is taken where nobody names one."""
MAX_LABEL_QUERIES = 1_000
TITLE_FIELDS = ("title", "name", "sku", "code", "keywords", "brand")
"""Metadata that full-text search reads beside the text."""
_ID_LIKE = re.compile(r"[A-Za-z]{0,3}[-_]?\d+")
"""Queries of judgements that are no texts but numbers of topics, as in TREC's files."""

JudgedQuery: TypeAlias = str | Path


@dataclass(frozen=True, slots=True)
class Judged:
    """Queries with their right answers, and the items among which they are looked for.

    ``ids`` name the queries; ``groups`` say which of them are about the same picture and so not independent;
    ``about`` is the item that a query was made from, which is no answer to it. ``field`` is the only field that is
    searched.
    """

    task: str
    items: tuple[Item, ...]
    field: str
    queries: tuple[JudgedQuery, ...]
    ids: tuple[str, ...]
    groups: tuple[str, ...]
    qrels: Qrels
    about: tuple[str | None, ...]
    source: Path | None = None
    """The dataset."""
    texts: frozenset[str] = frozenset()
    """All texts of the dataset as ``plain`` has them, asked or not: no bank may hold any of them."""
    pictures: frozenset[Path] = frozenset()
    """All its pictures, likewise."""
    says_answers: bool = False
    """Whether the queries are texts of the very items that are their answers: nothing may search those texts."""
    notes: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """What is asked with, one of ``mmsearch.types.KINDS``."""
        return dict(zip(TASKS, (TEXT, PICTURE_FOR_TEXTS, PICTURE), strict=True))[self.task]

    def part(self, chosen: Sequence[int]) -> Judged:
        """Some of the queries, by their positions; all the items."""
        ids = tuple(self.ids[n] for n in chosen)
        return replace(
            self,
            queries=tuple(self.queries[n] for n in chosen),
            ids=ids,
            groups=tuple(self.groups[n] for n in chosen),
            about=tuple(self.about[n] for n in chosen),
            qrels=_Some(self.qrels, ids),
        )

    def halves(self, seed: int = 0) -> tuple[Judged, Judged]:
        """Two parts with all queries about a picture in the same one, drawn at random; both keep all the items.

        Raises
        ------
        InvalidInput
            If the queries are about fewer than two pictures.
        """
        groups = sorted(set(self.groups))
        if len(groups) < 2:
            raise InvalidInput(f"expected queries about at least two pictures, to tell two halves; got {len(groups)}")
        first = {groups[n] for n in np.random.default_rng(seed).permutation(len(groups))[: len(groups) // 2]}
        inside = [n for n, group in enumerate(self.groups) if group in first]
        outside = [n for n, group in enumerate(self.groups) if group not in first]
        return self.part(inside), self.part(outside)

    def sampled(self, n: int | None, seed: int = 0) -> Judged:
        """At most n of the queries, drawn at random, in their order."""
        if n is None or n >= len(self.queries):
            return self
        return self.part(sorted(np.random.default_rng(seed).permutation(len(self.queries))[:n].tolist()))


def read_judged(
    dataset: Path, task: str = TEXT_TO_IMAGE, *, qrels: Path | None = None, label: str | None = None
) -> Judged:
    """Judged queries of a dataset folder.

    Parameters
    ----------
    dataset
        A dataset folder or table (see ``mmsearch index``).
    task
        ``text-to-image``: each caption asks for its own picture. ``image-to-text``: each picture asks for its captions.
        ``image-to-image``: each picture asks for the others with the same label.
    qrels
        A file of judgements instead: query, item id, grade. The queries are texts for ``text-to-image`` and ids of
        pictures else.
    label
        For ``image-to-image``: the metadata field, or several separated by commas, that must be equal.

    Raises
    ------
    InvalidInput
        For an unknown task, or a dataset or file without what the task needs.
    """
    if task not in TASKS:
        raise InvalidInput(f"expected a task of {', '.join(TASKS)}, got {task!r}")
    if label is not None and (task != IMAGE_TO_IMAGE or qrels is not None):
        how = "with judgements of a file" if task == IMAGE_TO_IMAGE else f"for {task}"
        raise InvalidInput(f"expected a label only for {IMAGE_TO_IMAGE} without judgements, got {label!r} {how}")
    entries, notes = _entries(dataset)
    if qrels is not None:
        judged = _from_qrels(entries, task, qrels)
    elif task == IMAGE_TO_IMAGE:
        judged = _from_labels(entries, label, dataset)
    elif task == TEXT_TO_IMAGE:
        judged = _captions_to_pictures(entries, _captioned(entries, dataset))
    else:
        judged = _pictures_to_captions(_captioned(entries, dataset))
    texts = frozenset(plain(text) for entry in entries for text in (*captions_of(entry), entry.text or ""))
    taken = sum(isinstance(query, str) and plain(query) in texts for query in judged.queries)
    says_answers = 2 * taken > len(judged.queries)  # of questions that people wrote, some are titles by chance
    pictures = frozenset(entry.path for entry in entries if entry.path is not None)
    notes = (*notes, *judged.notes)
    return replace(judged, source=dataset, texts=texts, pictures=pictures, says_answers=says_answers, notes=notes)


def plain(text: str) -> str:
    """A text without what tells two ways of writing it apart: case and spacing."""
    return " ".join(text.casefold().split())


def _entries(dataset: Path) -> tuple[list[Entry], tuple[str, ...]]:
    """What a dataset holds, each id once; and a note on what was left out."""
    kept: dict[str, Entry] = {}
    faults = []
    for entry in open_source(dataset).entries():
        if entry.fault is not None:
            faults.append(entry.fault)
        elif entry.id in kept:
            faults.append(f"{entry.id!r} is the id or picture of two entries")
        else:
            kept[entry.id] = entry
    if not kept:
        why = f": {faults[0]}" if faults else ""
        raise InvalidInput(f"expected a dataset with items, got {dataset}, which has none that can be read{why}")
    notes = (f"{len(faults)} entries of the dataset were left out, such as this: {faults[0]}",) if faults else ()
    return list(kept.values()), notes


def captions_of(entry: Entry) -> list[str]:
    """The captions of an entry; else its text; else its title."""
    for name in CAPTION_FIELDS:
        found = entry.metadata.get(name)
        texts = [found] if isinstance(found, str) else found if isinstance(found, list) else []
        if kept := [_encodable(text.strip()) for text in texts if isinstance(text, str) and text.strip()]:
            return kept
    title = entry.text or entry.metadata.get("title")
    return [_encodable(title.strip())] if isinstance(title, str) and title.strip() else []


def _encodable(text: str) -> str:
    """Without lone surrogates, which JSON can write and neither SQLite nor a tokenizer can read."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _captioned(entries: Sequence[Entry], dataset: Path) -> list[tuple[Entry, list[str]]]:
    captioned = [(entry, captions) for entry in entries if entry.path is not None and (captions := captions_of(entry))]
    if not captioned:
        there = sorted({name for entry in entries for name in entry.metadata})
        raise InvalidInput(
            f"expected pictures with a field captions, caption, text or title in {dataset}, got the fields "
            f"{', '.join(there) or 'none'}: name judgements with --qrels"
        )
    return captioned


def _captions_to_pictures(entries: Sequence[Entry], captioned: Sequence[tuple[Entry, list[str]]]) -> Judged:
    asked = [(f"{entry.id}#{n}", text, entry) for entry, texts in captioned for n, text in enumerate(texts)]
    return Judged(
        TEXT_TO_IMAGE,
        items=_pictures(entries),
        field="picture",
        queries=tuple(text for _, text, _ in asked),
        ids=tuple(id for id, _, _ in asked),
        groups=_pictures_of([entry for _, _, entry in asked]),
        qrels={id: {entry.id: 1.0} for id, _, entry in asked},
        about=(None,) * len(asked),
    )


def _pictures_to_captions(captioned: Sequence[tuple[Entry, list[str]]]) -> Judged:
    texts = [(f"{entry.id}#{n}", text) for entry, its in captioned for n, text in enumerate(its)]
    ids = tuple(entry.id for entry, _ in captioned)
    return Judged(
        IMAGE_TO_TEXT,
        items=tuple(Item(id=id, text=text) for id, text in texts),
        field="text",
        queries=tuple(entry.path for entry, _ in captioned if entry.path is not None),
        ids=ids,
        groups=_pictures_of([entry for entry, _ in captioned]),
        qrels={entry.id: {f"{entry.id}#{n}": 1.0 for n in range(len(its))} for entry, its in captioned},
        about=(None,) * len(ids),
    )


def _from_labels(entries: Sequence[Entry], label: str | None, dataset: Path) -> Judged:
    there = {name for entry in entries for name in entry.metadata}
    named = [name.strip() for name in (label or "").split(",")]
    names = named if label is not None else [name for name in LABEL_FIELDS if name in there][:1]
    if not names or not set(names) <= there:
        raise InvalidInput(
            f"expected a field that says what a picture shows ({label or ', '.join(LABEL_FIELDS)}) in {dataset}, got "
            f"the fields {', '.join(sorted(there)) or 'none'}: name one with --label"
        )
    pictures = [entry for entry in entries if entry.path is not None]
    classes: dict[tuple[str, ...], list[str]] = {}
    label_of = {entry.id: _label(entry.metadata, names) for entry in pictures}
    for id, its in label_of.items():
        if its is not None:
            classes.setdefault(its, []).append(id)
    asking = [entry for entry in pictures if (its := label_of[entry.id]) is not None and len(classes[its]) > 1]
    if not asking:
        raise InvalidInput(f"expected labels that two pictures share, got none by {', '.join(names)} in {dataset}")
    ids = tuple(entry.id for entry in asking)
    judged = Judged(
        IMAGE_TO_IMAGE,
        items=_pictures(entries),
        field="picture",
        queries=tuple(entry.path for entry in asking if entry.path is not None),
        ids=ids,
        groups=_pictures_of(asking),
        qrels=_SameLabel(label_of, classes, ids),
        about=ids,
    )
    return judged.sampled(MAX_LABEL_QUERIES)


class _SameLabel(Mapping[str, Mapping[str, float]]):
    """Judgements by label, made when asked for: written out, they are the square of the items."""

    def __init__(self, label_of: Mapping[str, Any], classes: Mapping[Any, Sequence[str]], ids: Sequence[str]) -> None:
        self._label_of, self._classes, self._ids = label_of, classes, ids

    def __getitem__(self, id: str) -> Mapping[str, float]:
        return {other: 1.0 for other in self._classes[self._label_of[id]] if other != id}

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids)

    def __len__(self) -> int:
        return len(self._ids)


class _Some(Mapping[str, Mapping[str, float]]):
    """The judgements of some queries, in their order."""

    def __init__(self, qrels: Qrels, ids: Sequence[str]) -> None:
        self._qrels: Qrels = qrels._qrels if isinstance(qrels, _Some) else qrels
        self._ids = dict.fromkeys(ids)

    def __getitem__(self, id: str) -> Mapping[str, float]:
        if id not in self._ids:
            raise KeyError(id)
        return self._qrels[id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids)

    def __len__(self) -> int:
        return len(self._ids)


def _label(metadata: Mapping[str, Any], names: Sequence[str]) -> tuple[str, ...] | None:
    """What a picture shows, as text, so that a CSV table and JSON say the same; None if a part of it is not said."""
    said = tuple(_said(metadata.get(name)) for name in names)
    return said if all(said) else None


def _said(value: object) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else str(int(value) if value.is_integer() else value)
    return "" if value is None else str(value).strip()


def _from_qrels(entries: Sequence[Entry], task: str, file: Path) -> Judged:
    qrels = read_qrels(file)
    if not qrels:
        raise InvalidInput(f"expected judgements in {file}, got none")
    by_id = {entry.id: entry for entry in entries}
    pictures = {id: entry.path for id, entry in by_id.items() if entry.path is not None}
    texts = tuple(Item(id=id, text=entry.text) for id, entry in by_id.items() if entry.text)
    asked = list(qrels)
    _check_asked(asked, pictures, task, file)
    if task == IMAGE_TO_IMAGE:
        qrels = {id: {other: grade for other, grade in grades.items() if other != id} for id, grades in qrels.items()}
    answers = {item.id for item in texts} if task == IMAGE_TO_TEXT else set(pictures)
    judged = {id for grades in qrels.values() for id in grades}
    if not judged & answers:
        raise InvalidInput(f"expected ids of items of the dataset in {file}, got such as {next(iter(judged), '')!r}")
    strange = sorted(judged - answers)
    note = f"{len(strange)} judged ids are not in the dataset and cannot be found, such as {next(iter(strange), '')!r}"
    return Judged(
        task,
        items=texts if task == IMAGE_TO_TEXT else tuple(_titled(entry) for entry in entries if entry.path is not None),
        field="text" if task == IMAGE_TO_TEXT else "picture",
        queries=tuple(asked) if task == TEXT_TO_IMAGE else tuple(pictures[id] for id in asked),
        ids=tuple(asked),
        groups=tuple(_best(qrels[id], id) for id in asked) if task == TEXT_TO_IMAGE else tuple(asked),
        qrels=qrels,
        about=tuple(asked) if task == IMAGE_TO_IMAGE else (None,) * len(asked),
        notes=(note,) if strange else (),
    )


def _check_asked(asked: Sequence[str], pictures: Mapping[str, Path], task: str, file: Path) -> None:
    """See that queries of judgements are what the task asks with."""
    unknown = [id for id in asked if id not in pictures]
    if task != TEXT_TO_IMAGE and unknown:
        raise InvalidInput(f"expected ids of pictures as queries in {file}, got {unknown[0]!r}, which is none")
    if task == TEXT_TO_IMAGE and all(_ID_LIKE.fullmatch(id) for id in asked):
        raise InvalidInput(
            f"expected texts as queries in {file}, got numbers of queries such as {asked[0]!r}: write the texts in "
            "their place, and tabs between the columns"
        )


def _best(grades: Mapping[str, float], id: str) -> str:
    """The best answer's id, by which queries about one picture are told; a query without any stands for itself."""
    right = [other for other, grade in grades.items() if grade > 0]
    return min(right, key=lambda other: (-grades[other], other)) if right else id


def _titled(entry: Entry) -> Item:
    """A picture with what full-text search reads: queries that people wrote may be found by it."""
    titles = {name: value for name in TITLE_FIELDS if isinstance(value := entry.metadata.get(name), str | int | list)}
    return Item(id=entry.id, path=entry.path, text=entry.text, metadata=titles)


def _pictures(entries: Sequence[Entry]) -> tuple[Item, ...]:
    """Pictures alone: what queries are made from must not be found by them."""
    return tuple(Item(id=entry.id, path=entry.path) for entry in entries if entry.path is not None)


def _pictures_of(entries: Sequence[Entry]) -> tuple[str, ...]:
    """For each entry the id of the first that has the same picture: datasets may have an entry for each caption."""
    first: dict[Path | None, str] = {}
    return tuple(first.setdefault(entry.path, entry.id) for entry in entries)
