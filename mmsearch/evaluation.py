"""Run a store over judged queries: quality with intervals, and time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from mmsearch.bank import Bank, distinct, encode_bank
from mmsearch.engine import Engine
from mmsearch.errors import InvalidInput
from mmsearch.images import open_picture
from mmsearch.judged import TEXT_TO_IMAGE, Judged, captions_of
from mmsearch.metrics import Interval, Scores, evaluate, interval
from mmsearch.overlap import ahead, batches
from mmsearch.profile import DEFAULT
from mmsearch.ranking import Rerank
from mmsearch.sources import open_source
from mmsearch.types import AddReport, Hit, Picture, Progress, Report

MEASURES = ("R@1", "R@5", "R@10", "MRR@10", "nDCG@10")
DEPTH = 10
_BATCH = 64
MAX_PICTURE_BANK = 2_000
"""Pictures of a bank for queries that are pictures; more take minutes to encode."""


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

    Only the field that the task searches is looked in, and a query's own item is no answer to it.
    """
    cascade = engine.ranker.cascade(rerank, kind="text" if judged.task == TEXT_TO_IMAGE else "picture")
    answers: dict[str, list[str]] = {}
    notes: dict[str, int] = {}
    seconds = 0.0
    for places in batches(range(len(judged.queries)), _BATCH):
        if report is not None:
            report(Progress("queries", places[0], len(judged.queries)))
        start = time.perf_counter()
        found = engine.search_many([judged.queries[n] for n in places], DEPTH + 1, field=judged.field, rerank=cascade)
        seconds += time.perf_counter() - start
        for n, hits in zip(places, found, strict=True):
            answers[judged.ids[n]] = _answers(hits, judged.qrels[judged.ids[n]], judged.about[n])
            for note in {note for hit in hits for note in hit.notes}:
                notes[note] = notes.get(note, 0) + 1
    scores = evaluate({id: judged.qrels[id] for id in judged.ids}, answers, MEASURES)
    return Evaluation(
        judged.task,
        len(engine),
        scores,
        judged.groups,
        cascade.names,
        1000 * seconds / max(1, len(judged.queries)),
        answers,
        tuple(f"{note} ({count} queries)" for note, count in sorted(notes.items(), key=lambda its: -its[1])[:10]),
    )


def _answers(hits: Sequence[Hit], grades: Mapping[str, float], about: str | None) -> list[str]:
    """The ids of hits; identical pictures are one hit, and whichever of them is right is the answer."""
    ids = []
    for hit in hits:
        same = [hit.item.id, *(copy.id for copy in hit.copies)]
        if about not in same:
            ids.append(next((id for id in same if grades.get(id, 0) > 0), hit.item.id))
    return ids[:DEPTH]


# The place where a dataset is searched ------------------------------------------------------------------------------


@contextmanager
def place(
    judged: Judged,
    store: Path | None,
    *,
    encoder: str | None = None,
    stages: Sequence[str] = DEFAULT,
    report: Report | None = None,
) -> Iterator[tuple[Engine, AddReport]]:
    """An engine over the items of judged queries, with the spaces that the stages need.

    Without a store, in a temporary one. A store that is given gets the items and the spaces that it lacks.
    """
    with TemporaryDirectory(prefix="mmsearch-") if store is None else nullcontext(str(store)) as folder:
        needed = {judged.field} | _spaces(stages if judged.field == "picture" else ())
        with Engine.open(Path(folder), encoder, spaces=sorted(needed) if store is None else None) as engine:
            yield engine, _fill(engine, judged, needed, report)


def _spaces(stages: Sequence[str]) -> set[str]:
    needs = {"regions": "regions", "late": "cells", "cross": "joint"}
    return {needs[name] for name in stages if name in needs}


def _fill(engine: Engine, judged: Judged, needed: set[str], report: Report | None) -> AddReport:
    there = {item.id: item for item in engine.items()}
    missing = [item for item in judged.items if item.id not in there]
    if missing and there and len(missing) == len(judged.items):
        raise InvalidInput(
            f"expected a store of this dataset's items or an empty one, got {engine.path} with {len(there)} others: "
            "index the dataset into it, or leave --store out"
        )
    spaces = set(engine.info().spaces) if there else set()
    if not missing and needed <= spaces:
        return AddReport()
    with Engine.open(engine.path, engine.encoder, spaces=sorted(needed | spaces)) as fuller:
        return fuller.add(missing, progress=report)


def read_bank(source: Path) -> list[str]:
    """The texts of a bank: a text file's lines, or the captions of a dataset folder or table.

    Raises
    ------
    InvalidInput
        If there are none.
    """
    if source.is_file() and source.suffix.lower() in (".txt", ".log", ""):
        try:
            return distinct(source.read_text("utf-8").splitlines())
        except UnicodeDecodeError as error:
            raise InvalidInput(f"expected a bank as UTF-8 text, one query a line, got {source}: {error}") from error
    return distinct([text for entry in open_source(source).entries() for text in captions_of(entry)])


def bank_for(judged: Judged, source: Path, engine: Engine, report: Report | None = None) -> dict[str, Bank]:
    """A bank for judged queries, by their kind; never the evaluated queries themselves.

    Texts for queries that are texts; for queries that are pictures the pictures of a dataset.

    Raises
    ------
    InvalidInput
        If nothing is left of the bank, or texts are offered to queries that are pictures.
    """
    if judged.task == TEXT_TO_IMAGE:
        texts = without(read_bank(source), judged)
        return {"text": encode_bank(texts, engine.encoder, str(source), report)}
    asked = {path.name for path in judged.queries if isinstance(path, Path)} | {str(path) for path in judged.queries}
    entries = [entry for entry in open_source(source).entries() if entry.path is not None]
    paths = [entry.path for entry in entries if entry.path and str(entry.path) not in asked]
    if not paths:
        raise InvalidInput(f"expected other pictures than the evaluated ones in the bank {source}, got none")
    chosen = [
        paths[n] for n in np.unique(np.linspace(0, len(paths) - 1, min(MAX_PICTURE_BANK, len(paths))).astype(int))
    ]
    return {"picture": _encode_pictures(chosen, engine, str(source), report)}


def without(texts: Sequence[str], judged: Judged) -> list[str]:
    """The texts that are none of the judged queries, whatever their case and spacing.

    Raises
    ------
    InvalidInput
        If none is left.
    """
    asked = {" ".join(query.lower().split()) for query in judged.queries if isinstance(query, str)}
    kept = [text for text in texts if " ".join(text.lower().split()) not in asked]
    if not kept:
        raise InvalidInput("expected a bank of other queries than the evaluated ones, got only those")
    return kept


def _encode_pictures(paths: Sequence[Path], engine: Engine, source: str, report: Report | None) -> Bank:
    encoder, rows = engine.encoder, []

    def load(path: Path) -> Picture:
        return encoder.prepare(open_picture(path, min_side=encoder.image_size).image)

    for batch in batches(ahead(load, paths, 2 * _BATCH), _BATCH):
        rows.append(encoder.encode_images(batch))
        if report is not None:
            report(Progress("bank", sum(map(len, rows)), len(paths)))
    return Bank.of(np.concatenate(rows), source)
