"""Fit a cascade to a collection: which stages help on judged queries, and by what weights.

Stages' values are collected once; then weights are tried on the numbers alone. A stage is kept only if it makes the
answers better on queries that its weights were not fitted on: weights of one half of the pictures are judged on the
other half, both ways round.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mmsearch.cascade import N_CANDIDATES, Cascade, Step
from mmsearch.engine import Engine
from mmsearch.errors import InvalidInput
from mmsearch.evaluation import Answers, ask, check_any, check_fair
from mmsearch.judged import Judged
from mmsearch.metrics import Difference, compare
from mmsearch.overlap import batches
from mmsearch.pool import Floats, Pool, Ranks, reciprocal
from mmsearch.profile import Profile, build, check_names
from mmsearch.queries import as_query
from mmsearch.ranking import N_NAMED
from mmsearch.rerank.stage import ALONE, Stage, unscored
from mmsearch.rerank.words import WordMatch
from mmsearch.types import Hit, Progress, Query, Report, Signal

STEPS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0)
"""Weights that are tried, as multiples of a stage's own."""
_SWEEPS = 3
_BATCH = 64


class _Silent(Stage):
    """Changes nothing; but queries that are reranked are remembered with their vectors, for all stages to come."""

    name = "silent"
    n = 1

    def score(self, query: Query, hits: Sequence[Hit], deadline: float | None = None) -> Signal:
        """No value for any hit."""
        return unscored(len(hits), "silent")


def collect(
    engine: Engine,
    judged: Judged,
    n: int = N_CANDIDATES,
    report: Report | None = None,
    *,
    named: bool = False,
) -> Pool:
    """Retrieve the candidates of judged queries, without any reranking.

    Parameters
    ----------
    named
        Also those that full-text search finds, as a search with the stage ``words`` does.

    Raises
    ------
    InvalidInput
        If no query can be asked, or none has candidates.
    """
    rerank = Cascade([Step(WordMatch() if named else _Silent(), weight=0.0)], quiet=True)
    n = max(n, WordMatch.n) + N_NAMED if named else n
    known = Answers(engine, judged)
    queries, found = [], []
    failed: dict[str, str] = {}
    for places in batches(range(len(judged.queries)), _BATCH):
        if report is not None:
            report(Progress("queries", places[0], len(judged.queries)))
        asked = [as_query(judged.queries[at]) for at in places]
        queries += asked
        for at, hits in zip(places, ask(engine, asked, n + 1, judged.field, rerank), strict=True):
            if isinstance(hits, str):
                failed[judged.ids[at]] = hits
            its = [] if isinstance(hits, str) else hits
            found.append([hit for hit in its if judged.about[at] not in known.same(hit)][:n])
    check_any(failed, judged)
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
        pool.base[row, : len(hits)] = [hit.score for hit in hits]
        pool.relevant[row, : len(hits)] = [any(grades.get(id, 0) > 0 for id in known.same(hit)) for hit in hits]
        place = {id: at for at, id in enumerate(sorted(hit.item.id for hit in hits))}
        pool.place[row, : len(hits)] = [place[hit.item.id] for hit in hits]
    return pool


def score(
    engine: Engine, pool: Pool, stage: Stage, weights: Mapping[str, float], report: Report | None = None
) -> Floats:
    """A stage's values for each query's candidates, (q, n); NaN where it has none.

    A stage for the best few is asked about those that the other stages by their weights put first, as in a search; the
    pool keeps in mind how many that are.

    Raises
    ------
    InvalidInput
        If the stage fails for every query.
    """
    stage.prepare(engine.ranker.collection)
    values = np.full_like(pool.base, np.nan)
    pool.seen[stage.name] = max(stage.n, pool.base.shape[1]) if stage.name == WordMatch.name else stage.n
    at = pool.order(weights, np.arange(len(pool.queries)))
    said: Counter[str] = Counter()
    failed = 0
    for row, (query, hits) in enumerate(zip(pool.queries, pool.hits, strict=True)):
        if report is not None and row % _BATCH == 0:
            report(Progress(stage.name, row, len(pool.queries)))
        chosen = np.argsort(at[row, : len(hits)])[: pool.seen[stage.name]]
        if not len(chosen):
            continue
        try:
            signal = stage.score(query, [hits[place] for place in chosen])
        except Exception as error:  # in a search the order before it would stand
            failed += 1
            said[f"{type(error).__name__}: {error}"] += 1
            continue
        found = np.asarray(signal.values).astype(np.float32)
        values[row, chosen] = np.where(np.isfinite(found), found, np.nan)
        said.update([*signal.notes, *([signal.skipped] if signal.skipped else [])])
    if failed == sum(map(bool, pool.hits)):
        ((why, _),) = said.most_common(1)
        raise InvalidInput(f"expected a stage that works, got {stage.name}, which failed for every query: {why}")
    if said:
        ((why, times),) = said.most_common(1)
        pool.said[stage.name] = f"{why} ({times} queries)"
    return values


def fit(pool: Pool, names: Sequence[str], usual: Mapping[str, float], chosen: Ranks) -> dict[str, float]:
    """Weights that give the best MRR@10 on the chosen queries, by coordinate ascent from the usual ones."""
    weights = {name: usual[name] for name in names}
    best = float(reciprocal(pool.ranks(weights, chosen)).mean()) if names else 0.0
    for _ in range(_SWEEPS):
        before = best
        for name in names:
            for step in STEPS:
                tried = {**weights, name: step * usual[name]}
                value = float(reciprocal(pool.ranks(tried, chosen)).mean())
                if value > best + 1e-9:  # sums of the same numbers differ by less
                    best, weights = value, tried
        if best == before:
            break
    return weights


@dataclass(frozen=True, slots=True)
class Trial:
    """What one stage was worth on queries that it was not fitted on, over the stages kept before it, in MRR@10.

    ``note`` is what kept it from having its say, if anything did.
    """

    name: str
    gain: Difference
    kept: bool
    note: str = ""


@dataclass(frozen=True, slots=True)
class Tuned:
    """A profile, each stage's trial, and each query's rank of the first right answer, held out, before and after."""

    profile: Profile
    trials: tuple[Trial, ...]
    before: Ranks
    after: Ranks
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
    if not names:
        raise InvalidInput("expected stages to choose from, got none")
    check_fair(names, judged)
    folds = folds_of(judged, seed)
    pool = collect(engine, judged, report=report, named=WordMatch.name in names)
    usual: dict[str, float] = {}
    kept: list[str] = []
    trials = []
    before = ranks = held_out(pool, [], usual, folds)
    for name in names:
        (stage,) = [one for one in build((*kept, name), options) if one.name == name]
        if stage.weight == ALONE:
            raise InvalidInput(f"expected stages whose values can be weighed, got {name}")
        # By the usual weights, not by fitted ones, which would know the judgements of the queries held out.
        known = {one: usual[one] for one in kept} if stage.n < pool.base.shape[1] else {}
        pool.values[name], usual[name] = score(engine, pool, stage, known, report), stage.weight
        tried = held_out(pool, [*kept, name], usual, folds)
        gain = compare(reciprocal(ranks), reciprocal(tried), groups=pool.groups)
        trials.append(Trial(name, gain, gain.significant and gain.value > 0, pool.said.get(name, "")))
        if trials[-1].kept:
            kept.append(name)
            ranks = tried
    weights = fit(pool, kept, usual, np.arange(len(pool.queries)))
    # What counts nothing beside those after it costs time; but with hubness the others correct what they see.
    kept = [name for name in kept if weights[name] > 0 or name == "hubness"]
    weights = {name: weights[name] for name in kept}
    profile = Profile(
        tuple(kept),
        weights,
        {stage.name: stage.n for stage in build(kept, options) if stage.name != WordMatch.name},
        encoder=engine.encoder.fingerprint,
        kind=judged.kind,
        options={name: value for name, value in (options or {}).items() if name in kept},
        figures=_figures(judged, trials, before, ranks),
    )
    return Tuned(profile, tuple(trials), before, ranks, pool.groups)


def folds_of(judged: Judged, seed: int = 0) -> list[Ranks]:
    """The positions of the queries of two random halves of the pictures."""
    place = {id: n for n, id in enumerate(judged.ids)}
    return [np.array([place[id] for id in half.ids], dtype=np.int64) for half in judged.halves(seed)]


def held_out(pool: Pool, names: Sequence[str], usual: Mapping[str, float], folds: Sequence[Ranks]) -> Ranks:
    """Ranks of the first right answers, each fold's by weights that were fitted on the other."""
    ranks = np.zeros(len(pool.queries), dtype=np.int64)
    for fold, other in ((folds[0], folds[1]), (folds[1], folds[0])):
        ranks[fold] = pool.ranks(fit(pool, names, usual, other), fold)
    return ranks


def _figures(judged: Judged, trials: Sequence[Trial], before: Ranks, after: Ranks) -> dict[str, object]:
    def recalls(ranks: Ranks) -> dict[str, float]:
        return {f"R@{k}": float((ranks <= k).mean()) for k in (1, 5, 10)}

    gains = {
        trial.name: {
            "gain": trial.gain.value, "low": trial.gain.low, "high": trial.gain.high, "p": trial.gain.p,
            "kept": trial.kept, "note": trial.note,
        }
        for trial in trials
    }  # fmt: skip
    return {
        "task": judged.task,
        "queries": len(judged.queries),
        "held out": "weights of each half of the pictures, judged on the other; stages chosen on both",
        "before": recalls(before),
        "after": recalls(after),
        "MRR@10 gained": gains,
    }
