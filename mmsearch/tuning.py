"""Fit a cascade to a collection: which stages help on judged queries, and by what weights.

Stages' values are collected once; then weights are tried on the numbers alone. A stage is kept only if it makes the
answers better on queries that its weights were not fitted on: weights of one half of the pictures are judged on the
other half, both ways round.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mmsearch.cascade import N_CANDIDATES
from mmsearch.engine import Engine
from mmsearch.errors import InvalidInput
from mmsearch.judged import TEXT_TO_IMAGE, Judged
from mmsearch.metrics import Difference, compare
from mmsearch.overlap import batches
from mmsearch.profile import Profile, build, check_names
from mmsearch.queries import as_query
from mmsearch.rerank.stage import ALONE, Stage
from mmsearch.types import Hit, Progress, Query, Report
from mmsearch.vectors import SCORE_DECIMALS

DEPTH = 10
STEPS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0)
"""Weights that are tried, as multiples of a stage's own."""
_SWEEPS = 3
_BATCH = 64

Floats = NDArray[np.float64]


@dataclass(slots=True)
class Pool:
    """Judged queries with their candidates, (q, n) arrays; what is padding has a base of minus infinity.

    ``place`` orders the ids of a row, by which ties settle; ``groups`` say which queries are about one picture.
    """

    queries: list[Query]
    hits: list[list[Hit]]
    base: Floats
    relevant: NDArray[np.bool_]
    place: NDArray[np.int64]
    groups: tuple[str, ...]
    values: dict[str, Floats] = field(default_factory=dict)

    def ranks(self, weights: Mapping[str, float], chosen: NDArray[np.int64]) -> NDArray[np.int64]:
        """The rank of each chosen query's first right answer, from 1; beyond all candidates if there is none."""
        scores = self.scores(weights, chosen)
        relevant, place = self.relevant[chosen], self.place[chosen]
        best = np.where(relevant, scores, -np.inf).max(axis=1, keepdims=True)
        first = np.where(relevant & (scores == best), place, np.iinfo(np.int64).max).min(axis=1, keepdims=True)
        ahead = (scores > best) | ((scores == best) & (place < first))
        found = np.isfinite(best[:, 0])
        return np.asarray(np.where(found, ahead.sum(axis=1) + 1, scores.shape[1] + 1), dtype=np.int64)

    def scores(self, weights: Mapping[str, float], chosen: NDArray[np.int64]) -> Floats:
        """The fused scores of the chosen queries' candidates."""
        scores = self.base[chosen].copy()
        for name, weight in weights.items():
            scores += weight * self.values[name][chosen]
        return np.round(scores, SCORE_DECIMALS)


def reciprocal(ranks: NDArray[np.int64]) -> Floats:
    """MRR@10 of each query."""
    return np.where(ranks <= DEPTH, 1.0 / ranks, 0.0)


def collect(engine: Engine, judged: Judged, n: int = N_CANDIDATES, report: Report | None = None) -> Pool:
    """Retrieve the candidates of judged queries, without any reranking."""
    queries, found = [], []
    for places in batches(range(len(judged.queries)), _BATCH):
        if report is not None:
            report(Progress("queries", places[0], len(judged.queries)))
        asked = [as_query(judged.queries[at]) for at in places]
        queries += asked
        answers = engine.search_many(asked, n + 1, field=judged.field, rerank=False)
        found += [_others(hits, judged.about[at])[:n] for at, hits in zip(places, answers, strict=True)]
    width = max((len(hits) for hits in found), default=0)
    if not width:
        raise InvalidInput("expected candidates for the judged queries, got none: is the dataset in the store?")
    pool = Pool(
        queries,
        found,
        np.full((len(found), width), -np.inf),
        np.zeros((len(found), width), dtype=np.bool_),
        np.zeros((len(found), width), dtype=np.int64),
        judged.groups,
    )
    for row, hits in enumerate(found):
        grades = judged.qrels[judged.ids[row]]
        ids = [[hit.item.id, *(copy.id for copy in hit.copies)] for hit in hits]
        pool.base[row, : len(hits)] = [hit.score for hit in hits]
        pool.relevant[row, : len(hits)] = [any(grades.get(id, 0) > 0 for id in its) for its in ids]
        pool.place[row, : len(hits)] = np.argsort(np.argsort([its[0] for its in ids]))
    return pool


def _others(hits: Sequence[Hit], about: str | None) -> list[Hit]:
    return [hit for hit in hits if about not in (hit.item.id, *(copy.id for copy in hit.copies))]


def score(
    engine: Engine, pool: Pool, stage: Stage, weights: Mapping[str, float], report: Report | None = None
) -> Floats:
    """A stage's values for each query's candidates, (q, n); 0 where it has none.

    A stage for the best few is asked about those that the other stages by their weights put first.
    """
    stage.prepare(engine.ranker.collection)
    values = np.zeros_like(pool.base)
    everything = np.arange(len(pool.queries))
    order = np.argsort(-pool.scores(weights, everything), axis=1, kind="stable")
    for row, (query, hits) in enumerate(zip(pool.queries, pool.hits, strict=True)):
        if report is not None and row % _BATCH == 0:
            report(Progress(stage.name, row, len(pool.queries)))
        chosen = [at for at in order[row].tolist() if at < len(hits)][: stage.n]
        if chosen:
            signal = stage.score(query, [hits[at] for at in chosen])
            values[row, chosen] = np.nan_to_num(signal.values, nan=0.0)
            rest = np.setdiff1d(np.arange(len(hits)), chosen)
            if len(rest) and np.isfinite(signal.values).any():
                # Those that it does not see stay behind those that it sees, whatever it says of them.
                values[row, rest] = values[row, chosen].min()
    return values


def fit(pool: Pool, names: Sequence[str], usual: Mapping[str, float], chosen: NDArray[np.int64]) -> dict[str, float]:
    """Weights that give the best MRR@10 on the chosen queries, by coordinate ascent from the usual ones."""
    weights = {name: usual[name] for name in names}
    best = float(reciprocal(pool.ranks(weights, chosen)).mean()) if names else 0.0
    for _ in range(_SWEEPS):
        before = best
        for name in names:
            for step in STEPS:
                tried = {**weights, name: step * usual[name]}
                value = float(reciprocal(pool.ranks(tried, chosen)).mean())
                if value > best + 1e-9:
                    best, weights = value, tried
        if best == before:
            break
    return weights


@dataclass(frozen=True, slots=True)
class Trial:
    """What one stage was worth on queries that it was not fitted on, over the stages kept before it, in MRR@10."""

    name: str
    gain: Difference
    kept: bool


@dataclass(frozen=True, slots=True)
class Tuned:
    """A profile, each stage's trial, and each query's rank of the first right answer, held out, before and after."""

    profile: Profile
    trials: tuple[Trial, ...]
    before: NDArray[np.int64]
    after: NDArray[np.int64]
    groups: tuple[str, ...]


def tune(
    engine: Engine,
    judged: Judged,
    names: Sequence[str],
    *,
    options: Mapping[str, object] | None = None,
    seed: int = 0,
    report: Report | None = None,
) -> Tuned:
    """Choose stages and weights on judged queries.

    Stages are tried in the order in which they run. One is kept if it raises the held-out MRR@10 over the stages kept
    before it, with a paired randomisation test at p < 0.05 and an interval above 0.

    Raises
    ------
    InvalidInput
        For unknown stages, or too few judged pictures to tell two halves.
    """
    names = check_names(names)
    pool = collect(engine, judged, report=report)
    folds = folds_of(judged, seed)
    usual: dict[str, float] = {}
    kept: list[str] = []
    trials = []
    before = ranks = held_out(pool, [], usual, folds)
    for name in names:
        (stage,) = [one for one in build((*kept, name), options) if one.name == name]
        if stage.weight == ALONE:
            raise InvalidInput(f"expected stages whose values can be weighed, got {name}")
        weights = fit(pool, kept, usual, np.arange(len(pool.queries))) if stage.n < N_CANDIDATES else {}
        pool.values[name], usual[name] = score(engine, pool, stage, weights, report), stage.weight
        tried = held_out(pool, [*kept, name], usual, folds)
        gain = compare(reciprocal(ranks), reciprocal(tried), groups=pool.groups)
        trials.append(Trial(name, gain, gain.significant and gain.value > 0))
        if trials[-1].kept:
            kept.append(name)
            ranks = tried
    weights = fit(pool, kept, usual, np.arange(len(pool.queries)))
    profile = Profile(
        tuple(kept),
        weights,
        {stage.name: stage.n for stage in build(kept, options)},
        encoder=engine.encoder.fingerprint,
        kind="text" if judged.task == TEXT_TO_IMAGE else "picture",
        options={name: value for name, value in (options or {}).items() if name in kept},
        figures=_figures(judged, trials, before, ranks),
    )
    return Tuned(profile, tuple(trials), before, ranks, pool.groups)


def folds_of(judged: Judged, seed: int = 0) -> list[NDArray[np.int64]]:
    """The positions of the queries of two random halves of the pictures."""
    place = {id: n for n, id in enumerate(judged.ids)}
    return [np.array([place[id] for id in half.ids], dtype=np.int64) for half in judged.halves(seed)]


def held_out(
    pool: Pool, names: Sequence[str], usual: Mapping[str, float], folds: Sequence[NDArray[np.int64]]
) -> NDArray[np.int64]:
    """Ranks of the first right answers, each fold's by weights that were fitted on the other."""
    ranks = np.zeros(len(pool.queries), dtype=np.int64)
    for fold, other in ((folds[0], folds[1]), (folds[1], folds[0])):
        ranks[fold] = pool.ranks(fit(pool, names, usual, other), fold)
    return ranks


def _figures(
    judged: Judged, trials: Sequence[Trial], before: NDArray[np.int64], after: NDArray[np.int64]
) -> dict[str, object]:
    def recalls(ranks: NDArray[np.int64]) -> dict[str, float]:
        return {f"R@{k}": float((ranks <= k).mean()) for k in (1, 5, 10)}

    gains = {
        trial.name: {
            "gain": trial.gain.value, "low": trial.gain.low, "high": trial.gain.high, "p": trial.gain.p,
            "kept": trial.kept,
        }
        for trial in trials
    }  # fmt: skip
    return {
        "task": judged.task,
        "queries": len(judged.queries),
        "held out": "weights of each half of the pictures, judged on the other",
        "before": recalls(before),
        "after": recalls(after),
        "MRR@10 gained": gains,
    }
