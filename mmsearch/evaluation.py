"""Run a store over judged queries: quality with intervals, and time."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from mmsearch.bank import Bank, distinct, encode_bank
from mmsearch.cascade import Cascade
from mmsearch.catalog import path_of
from mmsearch.encoding import FieldEncoder
from mmsearch.engine import Engine
from mmsearch.errors import InvalidInput, PictureError
from mmsearch.files import content_hash, display_path, read_bytes
from mmsearch.images import MAX_BYTES, open_picture
from mmsearch.judged import TEXT_TO_IMAGE, Judged, JudgedQuery, captions_of, plain
from mmsearch.metrics import Interval, Scores, evaluate, interval
from mmsearch.overlap import ahead, batches
from mmsearch.profile import DEFAULT
from mmsearch.protocols import Encoder
from mmsearch.queries import as_query
from mmsearch.ranking import Rerank
from mmsearch.rerank.words import WordMatch
from mmsearch.sources import open_source
from mmsearch.store import Store
from mmsearch.types import AddReport, Hit, Item, Picture, Progress, Query, Report

MEASURES = ("R@1", "R@5", "R@10", "MRR@10", "nDCG@10")
DEPTH = 10
_BATCH = 64
MAX_PICTURE_BANK = 2_000
"""Pictures of a bank for queries that are pictures; more take minutes to encode."""
_SPACES = {"regions": "regions", "late": "cells", "cross": "joint"}
"""What stages need a store to have of its pictures."""
_COMPARED = 32
"""Pictures of a dataset that are compared with those that a store has under the same ids."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How well a store answered judged queries. ``scores`` has every query's measures; an unanswered one has 0."""

    task: str
    n_items: int
    scores: Scores
    groups: tuple[str, ...]
    stages: tuple[str, ...]
    ms_per_query: float
    run: Mapping[str, Sequence[str]]
    notes: tuple[str, ...] = ()

    def intervals(self) -> dict[str, Interval]:
        """Each measure's mean with its 95% bootstrap interval, over the pictures that the queries are about."""
        return {str(one): interval(values, groups=self.groups) for one, values in self.scores.values.items()}

    def to_json(self) -> dict[str, Any]:
        """What ``mmsearch eval --json`` prints."""
        return {
            "task": self.task,
            "items": self.n_items,
            "queries": len(self.scores.queries),
            "measures": {
                name: {"value": found.value, "low": found.low, "high": found.high}
                for name, found in self.intervals().items()
            },
            "stages": list(self.stages),
            "ms_per_query": self.ms_per_query,
            "notes": list(self.notes),
        }


def run(engine: Engine, judged: Judged, rerank: Rerank = True, *, report: Report | None = None) -> Evaluation:
    """Ask every judged query and score the answers.

    Only the field that the task searches is looked in, and a query's own picture is no answer to it. A query that
    cannot be asked, as a picture that cannot be opened, has no answer, and a note says so.

    Raises
    ------
    InvalidInput
        If the stage ``words`` would read the texts that the queries were made from, or no query can be asked.
    """
    cascade, notes = _fair(engine, judged, rerank)
    known = Answers(engine, judged)
    # Once before the clock starts: it loads models, and computes what is computed once for a collection.
    ask(engine, ["a picture" if judged.task == TEXT_TO_IMAGE else judged.queries[0]], DEPTH, judged.field, cascade)
    answers: dict[str, list[str]] = {}
    grades: dict[str, Mapping[str, float]] = {}
    said: Counter[str] = Counter()
    failed: dict[str, str] = {}
    seconds = 0.0
    for places in batches(range(len(judged.queries)), _BATCH):
        if report is not None:
            report(Progress("queries", places[0], len(judged.queries)))
        start = time.perf_counter()
        found = ask(engine, [judged.queries[n] for n in places], DEPTH + 1, judged.field, cascade)
        seconds += time.perf_counter() - start
        for n, hits in zip(places, found, strict=True):
            id = judged.ids[n]
            if isinstance(hits, str):
                failed[id] = hits
            given = [] if isinstance(hits, str) else hits
            answers[id], grades[id] = known.of(n, given)
            said.update({note for hit in given for note in hit.notes})
    check_any(failed, judged)
    notes += [f"{note} ({count} queries)" for note, count in said.most_common(10)]
    return Evaluation(
        judged.task,
        known.n_items,
        evaluate(grades, answers, MEASURES),
        judged.groups,
        cascade.names,
        1000 * seconds / max(1, len(judged.queries)),
        answers,
        (*judged.notes, *known.notes(), *_unasked(failed, judged), *notes),
    )


def ask(
    engine: Engine, queries: Sequence[JudgedQuery | Query], k: int, field: str, rerank: Rerank
) -> list[list[Hit] | str]:
    """The hits of each query, or why it cannot be asked: one bad query is no reason to lose the others."""
    asked = [as_query(query) for query in queries]
    try:
        return list(engine.search_many(asked, k, field=field, rerank=rerank))
    except (PictureError, InvalidInput) as error:
        if len(asked) == 1:
            return [str(error)]
    return [answer for query in asked for answer in ask(engine, [query], k, field, rerank)]


def check_any(failed: Mapping[str, str], judged: Judged) -> None:
    """See that at least one query could be asked.

    Raises
    ------
    InvalidInput
        Otherwise, with the reason of the first.
    """
    if len(failed) == len(judged.queries):
        why = next(iter(failed.values()), "there is none")
        raise InvalidInput(f"expected queries that can be asked, got {len(judged.queries)} that cannot: {why}")


def _unasked(failed: Mapping[str, str], judged: Judged) -> list[str]:
    if not failed:
        return []
    id, why = next(iter(failed.items()))
    return [f"{len(failed)} of {len(judged.queries)} queries cannot be asked and count as 0, such as {id!r}: {why}"]


def _fair(engine: Engine, judged: Judged, rerank: Rerank) -> tuple[Cascade, list[str]]:
    """The cascade for judged queries, without a stage that would find the queries' own texts."""
    cascade = engine.ranker.cascade(rerank, kind="text" if judged.task == TEXT_TO_IMAGE else "picture")
    if WordMatch.name not in cascade.names or not judged.says_answers:
        return cascade, []
    if rerank is not True:
        check_fair(cascade.names, judged)
    steps = [step for step in cascade.steps if step.stage.name != WordMatch.name]
    cascade = Cascade(steps, budget_ms=cascade.budget_ms, quiet=cascade.quiet)
    cascade.prepare(engine.ranker.collection)
    return cascade, ["the stage words was left out: the queries were made from the texts that it reads"]


def check_fair(names: Sequence[str], judged: Judged) -> None:
    """See that no stage reads the texts that the queries were made from.

    Raises
    ------
    InvalidInput
        If ``words`` would.
    """
    if WordMatch.name in names and judged.says_answers:
        raise InvalidInput(
            "the stage words reads the very texts that these queries were made from: leave it out, or name judgements "
            "of queries that people wrote with --qrels"
        )


class Answers:
    """What a store's hits are to judged queries: identical pictures are one hit, and whichever is right is the answer.

    A store may know a picture by another id than its dataset, where two folders have one of the same name.
    """

    def __init__(self, engine: Engine, judged: Judged) -> None:
        self.judged = judged
        items = list(engine.items())
        picture = judged.field == "picture"
        self.n_items = sum(item.path is not None if picture else bool(item.text) for item in items)
        of_path = {item.path: item.id for item in judged.items if item.path is not None}
        self._alias = {item.id: of_path[item.path] for item in items if item.path in of_path}
        taken, ours = set(self._alias.values()), {item.id for item in judged.items}
        for item in items:
            if item.id in taken and item.id not in self._alias:
                self._alias[item.id] = f"{item.id} (of another folder)"
        self._there = {self._alias.get(item.id, item.id) for item in items}
        self._others = self.n_items - len(self._there & ours)

    def of(self, n: int, hits: Sequence[Hit]) -> tuple[list[str], Mapping[str, float]]:
        """Ids of the answers to the nth query, best first, and its judgements.

        Identical pictures of what was asked with are neither answers nor missed: ``Engine.similar`` leaves them out. Of
        several right ones that are identical only one can be found, and only one is expected.
        """
        ids: list[str] = []
        passed_over: set[str] = set()
        grades, about = self.judged.qrels[self.judged.ids[n]], self.judged.about[n]
        for hit in hits:
            same = self.same(hit)
            if about in same:
                passed_over.update(same)
            else:
                ids.append(max(same, key=lambda id: grades.get(id, 0.0)))
                passed_over.update(id for id in same if id != ids[-1])
        if passed_over & grades.keys():
            grades = {id: grade for id, grade in grades.items() if id not in passed_over}
        return ids[:DEPTH], grades

    def same(self, hit: Hit) -> list[str]:
        """A hit's id and those of its copies, as the dataset has them."""
        return [self._alias.get(item.id, item.id) for item in (hit.item, *hit.copies)]

    def notes(self) -> list[str]:
        """What people should know of the store before they believe the numbers."""
        judged, notes = self.judged, []
        lost = [id for id in judged.ids if not any(grade > 0 for grade in self._found(id))]
        if lost:
            notes.append(
                f"{len(lost)} of {len(judged.ids)} queries have no right answer in the store and count as 0, such as "
                f"{lost[0]!r}"
            )
        if self._others > 0:
            notes.append(f"the store holds {self._others} items beside the dataset's, which are searched too")
        return notes

    def _found(self, id: str) -> Iterator[float]:
        return (grade for other, grade in self.judged.qrels[id].items() if other in self._there)


# The place where a dataset is searched ------------------------------------------------------------------------------


@contextmanager
def place(
    judged: Judged,
    store: Path | None,
    *,
    encoder: str | Encoder | None = None,
    stages: Sequence[str] | None = None,
    complete: bool = False,
    report: Report | None = None,
) -> Iterator[tuple[Engine, AddReport]]:
    """An engine over the items of judged queries, with the spaces that the stages need.

    Without a store, in a temporary one. A store that is given gets the items and the spaces that it lacks, as
    ``mmsearch index`` would make them.

    Parameters
    ----------
    stages
        None: a store that holds the items stays as it is, and one that is made gets what the default stages need.
    complete
        Whether without stages any store gets what the default ones need.

    Raises
    ------
    InvalidInput
        If the store holds other items, which stays as it is then, or the encoder cannot make a space.
    """
    with (
        TemporaryDirectory(prefix="mmsearch-") if store is None else nullcontext(str(store)) as folder,
        Engine.open(Path(folder), encoder) as engine,
    ):
        holds = next(engine.items(), None) is not None
        if stages is None:
            stages = () if holds and not complete else _default_stages(engine, judged)
        yield engine, _fill(engine, judged, stages, store is None, report)


def _default_stages(engine: Engine, judged: Judged) -> tuple[str, ...]:
    """The default stages that an encoder can serve in a search for pictures."""
    others = tuple(name for name in DEFAULT if name != "late")  # which is for cells that were trained
    return () if judged.field != "picture" else DEFAULT if engine.encoder.name == "mini" else others


def _fill(engine: Engine, judged: Judged, stages: Sequence[str], temporary: bool, report: Report | None) -> AddReport:
    there = list(engine.items())
    missing = _missing(engine, judged, there)
    needed = {judged.field} | {_SPACES[name] for name in stages if name in _SPACES and judged.field == "picture"}
    unread: tuple[tuple[str, str], ...] = ()
    if there:  # what cannot be read was told when the store was made, and need not be written into it again
        missing, unread = _readable(missing)
    if not missing and not _lacking(engine, there, needed):
        return AddReport(failed=unread)
    with closing(Store(engine.path, create=False)) as store:
        fields = sorted(needed if temporary else needed | set(store.fields()))
        is_root = _is_root(store, judged)
    FieldEncoder(engine.encoder, fields)  # refuses what the encoder lacks, before the store is told to have it
    with Engine.open(engine.path, engine.encoder, spaces=fields) as fuller:
        if judged.source is not None and judged.field == "picture" and not temporary and (is_root or not there):
            return fuller.add_folder(judged.source, progress=report)
        return fuller.add(missing, progress=report) + AddReport(failed=unread)


def _is_root(store: Store, judged: Judged) -> bool:
    """Whether a store was made from the dataset's place."""
    own = open_source(judged.source).path if judged.source is not None else None
    return own is not None and any(path and path_of(path) == own for _, _, path in store.catalog.roots())


def _missing(engine: Engine, judged: Judged, there: Sequence[Item]) -> list[Item]:
    """The items of a dataset that a store lacks.

    Raises
    ------
    InvalidInput
        If it holds items and none of these, or others under their ids.
    """
    paths, by_id = {item.path for item in there} - {None}, {item.id: item for item in there}
    missing = [item for item in judged.items if item.path not in paths and item.id not in by_id]
    if there and len(missing) == len(judged.items):
        raise InvalidInput(
            f"expected a store of this dataset's {judged.field}s or an empty one, got {engine.path} with {len(there)} "
            "other items: index the dataset into it, or leave --store out"
        )
    moved = [item for item in judged.items if item.path not in paths and item.id in by_id]
    chosen = np.unique(np.linspace(0, len(moved) - 1, min(_COMPARED, len(moved))).astype(np.int64))
    with closing(Store(engine.path, create=False)) as store:
        for item in [moved[n] for n in chosen]:
            if _differs(item, by_id[item.id], store):
                raise InvalidInput(
                    f"expected a store of this dataset's items, got {engine.path}, where {item.id!r} is something "
                    "else: index the dataset into a store of its own, or leave --store out"
                )
    return missing


def _differs(item: Item, stored: Item, store: Store) -> bool:
    """Whether a store has another picture or text under an item's id; what cannot be read is given its due."""
    if item.path is None:
        return item.text != stored.text
    try:
        content = content_hash(read_bytes(item.path, MAX_BYTES))
    except PictureError:
        return False
    return bool(store.catalog.rows_by_id([item.id])[0][5] != content)


def _readable(items: Sequence[Item]) -> tuple[list[Item], tuple[tuple[str, str], ...]]:
    """The items whose pictures can be read, and the paths of the others with the reason."""

    def fault(item: Item) -> str | None:
        try:
            if item.path is not None:
                open_picture(item.path)
        except PictureError as error:
            return str(error)
        return None

    faults = list(ahead(fault, items, 2 * _BATCH))
    failed = tuple((display_path(it.path), why) for it, why in zip(items, faults, strict=True) if why and it.path)
    return [item for item, why in zip(items, faults, strict=True) if why is None], failed


def _lacking(engine: Engine, items: Sequence[Item], needed: set[str]) -> bool:
    """Whether a picture of a store has no rows in a space that is needed."""
    hits = [Hit(item, 0.0, 1) for item in items if item.path is not None]
    collection = engine.ranker.collection
    there = collection.rows("picture", hits)[1] > 0
    return any((collection.rows(name, hits)[1][there] == 0).any() for name in needed - {"text"})


# Banks --------------------------------------------------------------------------------------------------------------


def read_bank(source: Path) -> list[str]:
    """The texts of a bank: a text file's lines, or the captions of a dataset folder or table.

    Raises
    ------
    InvalidInput
        If there are none.
    """
    source = source.expanduser()
    if _is_text_file(source):
        try:
            return distinct(source.read_text("utf-8-sig").splitlines())
        except UnicodeDecodeError as error:
            raise InvalidInput(f"expected a bank as UTF-8 text, one query a line, got {source}: {error}") from error
    return distinct([text for entry in open_source(source).entries() for text in captions_of(entry)])


def _is_text_file(source: Path) -> bool:
    return source.is_file() and source.suffix.lower() in (".txt", ".log", "")


def bank_for(judged: Judged, source: Path, engine: Engine, report: Report | None = None) -> dict[str, Bank]:
    """A bank for judged queries, by their kind; never the evaluated queries themselves.

    Texts for queries that are texts; for queries that are pictures the pictures of a dataset.

    Raises
    ------
    InvalidInput
        If nothing is left of the bank, or texts are offered to queries that are pictures.
    """
    if judged.task == TEXT_TO_IMAGE:
        return encode_for(engine, without(read_bank(source), judged), source, report)
    return encode_for(engine, bank_pictures(judged, source), source, report)


def encode_for(
    engine: Engine, bank: Sequence[str] | Sequence[Path], source: Path, report: Report | None = None
) -> dict[str, Bank]:
    """A bank of these texts or pictures, by the kind of queries that it is for."""
    texts = [one for one in bank if isinstance(one, str)]
    if texts:
        return {"text": encode_bank(texts, engine.encoder, str(source), report)}
    return {"picture": _encode_pictures([one for one in bank if isinstance(one, Path)], engine, str(source), report)}


def bank_pictures(judged: Judged, source: Path) -> list[Path]:
    """The pictures of a bank that are none of the evaluated dataset, by what is in the files.

    Raises
    ------
    InvalidInput
        If none is left, or the bank is of texts.
    """
    source = source.expanduser()
    if _is_text_file(source):
        raise InvalidInput(
            f"expected a dataset folder with pictures as bank for queries that are pictures, got {source}"
        )
    entries = [entry for entry in open_source(source).entries() if entry.fault is None]
    paths = [entry.path for entry in entries if entry.path is not None]
    places = np.unique(np.linspace(0, len(paths) - 1, min(MAX_PICTURE_BANK, len(paths))).astype(np.int64))
    chosen = [path for path in (paths[n] for n in places) if path not in judged.pictures]
    ours = set(ahead(_content, judged.pictures if chosen else (), 2 * _BATCH))
    contents = ahead(_content, chosen, 2 * _BATCH)
    kept = [path for path, content in zip(chosen, contents, strict=True) if content and content not in ours]
    if not kept:
        raise InvalidInput(f"expected other pictures than the evaluated ones in the bank {source}, got none")
    return kept


def _content(path: Path) -> bytes:
    """A digest of a file; nothing of one that cannot be read."""
    try:
        return content_hash(read_bytes(path, MAX_BYTES))
    except PictureError:
        return b""


def without(texts: Sequence[str], judged: Judged) -> list[str]:
    """The texts that are neither judged queries nor others of the evaluated dataset, whatever their case and spacing.

    Raises
    ------
    InvalidInput
        If none is left.
    """
    kept = left_of(texts, judged)
    if not kept:
        raise InvalidInput("expected a bank of other queries than the evaluated ones, got only those")
    return kept


def left_of(texts: Sequence[str], judged: Judged) -> list[str]:
    """The same without raising."""
    asked = {plain(query) for query in judged.queries if isinstance(query, str)} | judged.texts
    return [text for text in texts if plain(text) not in asked]


def _encode_pictures(paths: Sequence[Path], engine: Engine, source: str, report: Report | None) -> Bank:
    """A bank of pictures, without those that cannot be read."""
    encoder, rows = engine.encoder, []

    def load(path: Path) -> Picture | None:
        try:
            return encoder.prepare(open_picture(path, min_side=encoder.image_size).image)
        except PictureError:
            return None

    for done, batch in enumerate(batches(ahead(load, paths, 2 * _BATCH), _BATCH)):
        read = [picture for picture in batch if picture is not None]
        rows += [encoder.encode_images(read)] if read else []
        if report is not None:
            report(Progress("bank", min((done + 1) * _BATCH, len(paths)), len(paths)))
    if not rows:
        raise InvalidInput(f"expected pictures that can be read in the bank {source}, got none")
    return Bank.of(np.concatenate(rows), source)
