"""Run recommenders over a split: how good their lists are, with intervals over people, and paired differences.

Every item that is new to a person is ranked, never a sample of them: measures over sampled items can put models in
another order (Krichene & Rendle, KDD 2020).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmsearch.behaviour import Behaviour
from mmsearch.errors import InvalidInput, MissingDependency
from mmsearch.listmeasures import coverage, intra_list_diversity, novelty, popularity_bias
from mmsearch.metrics import Difference, Interval, Measure, compare, evaluate, interval, parse_measure
from mmsearch.protocols import Recommender
from mmsearch.recsplits import Split
from mmsearch.types import Progress, Report
from mmsearch.vectors import check_k

HYBRID = "hybrid"
"""The model that the best of the others is compared with."""
ACCURACY = ("nDCG", "recall", "MRR", "R")
"""What is measured at k unless told otherwise; ``R@k`` is the hit rate."""

_SCORES = 4_000_000
"""Scores held at once: 16 MB, and a few times that while the best are picked."""
_NORMAL_95 = 1.959964
"""Half the width of the middle 95% of the normal distribution."""

_Lists: TypeAlias = NDArray[np.int64]
"""(n_users, k) item positions, best first, -1 where there are no more."""
_Values: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class RecEvaluation:
    """How well recommenders did on a split.

    Intervals and differences take the people who were tested for a sample of all people: whole people are resampled,
    each with all of their answers. Nothing is said on how models would vary with other training data.
    """

    split: Split
    k: int
    lists: Mapping[str, _Lists]
    """What each model put first, (n_users, depth), by the model's name."""
    values: Mapping[str, Mapping[str, _Values]]
    """Each model's measures, (n_users,) float64; NaN where one is not defined, as the diversity of a single item."""
    left_out: Mapping[str, str]
    """Models that need a package which is not installed, and the reason."""

    def interval(self, model: str, measure: str) -> Interval:
        """The mean over people, and its 95% interval: by the bootstrap, for the coverage by the jackknife.

        Coverage is no mean over people. Resampled people would cover less than they do, since some are drawn twice, so
        its interval is the value and 1.96 jackknife standard errors to each side (Efron & Tibshirani 1993, ch. 11).
        NaN if the measure is not defined for anybody.
        """
        if measure == f"coverage@{self.k}" and model in self.lists:
            return _coverage(self.lists[model][:, : self.k], self.split.train.n_items)
        values = self._defined(model, measure)
        return interval(values) if len(values) else Interval(math.nan, math.nan, math.nan)

    def intervals(self) -> dict[str, dict[str, Interval]]:
        """Model -> measure -> mean and interval, in the order in which they were asked for."""
        names = (*self.measures, f"coverage@{self.k}")
        return {model: {name: self.interval(model, name) for name in names} for model in self.values}

    @property
    def measures(self) -> tuple[str, ...]:
        """The measures that each person has a value of."""
        return tuple(next(iter(self.values.values()), {}))

    def best(self, measure: str, without: Sequence[str] = (HYBRID,)) -> str:
        """The model with the highest mean among those not in ``without``; the first of equals.

        Raises
        ------
        InvalidInput
            If no model is left, or the measure is unknown.
        """
        left = [name for name in self.values if name not in without]
        if not left:
            raise InvalidInput(f"expected a model beside {', '.join(without) or 'none'}, got none")
        values = {name: self._defined(name, measure) for name in left}
        return max(left, key=lambda name: float(values[name].mean()) if len(values[name]) else -math.inf)

    def difference(self, model: str, other: str, measure: str) -> Difference:
        """``model`` less ``other``, paired by person: mean, 95% interval and p; see ``metrics.compare``.

        Where ``other`` is the best of several on the same people, it has had the luck of the draw on its side.

        Raises
        ------
        InvalidInput
            If a name is unknown, or the measure is defined for nobody.
        """
        ours, theirs = self._of(model, measure), self._of(other, measure)
        both = np.isfinite(ours) & np.isfinite(theirs)
        return compare(theirs[both], ours[both])

    @property
    def headline(self) -> str:
        """The measure that models are compared by: nDCG@k, or the first one where that was not asked for."""
        return f"nDCG@{self.k}" if f"nDCG@{self.k}" in self.measures else self.measures[0]

    def verdict(self) -> tuple[str, Difference] | None:
        """The best model beside the hybrid, and what the hybrid has more than it; None without either."""
        if HYBRID not in self.values or len(self.values) == 1:
            return None
        best = self.best(self.headline)
        return best, self.difference(HYBRID, best, self.headline)

    def notes(self) -> list[str]:
        """What people should know before they believe the numbers."""
        empty = self.split.n_empty
        return (
            [f"{empty} of {len(self.split)} people have no history left: models know nothing of them"] if empty else []
        )

    def to_json(self) -> dict[str, Any]:
        """What ``mmsearch eval-recommend --json`` prints of a split; a measure that is not defined is null."""
        verdict = self.verdict()
        return {
            "split": self.split.name,
            "users": len(self.split),
            "empty_histories": self.split.n_empty,
            "cold_items": int(self.split.cold.sum()),
            "models": {
                model: {name: asdict(one) if math.isfinite(one.value) else None for name, one in row.items()}
                for model, row in self.intervals().items()
            },
            "best_single": self.best(self.headline) if set(self.values) - {HYBRID} else None,
            "difference": None if verdict is None else asdict(verdict[1]),
            "measure": self.headline if self.values else None,
            "notes": self.notes(),
        }

    def _defined(self, model: str, measure: str) -> _Values:
        values = self._of(model, measure)
        return values[np.isfinite(values)]

    def _of(self, model: str, measure: str) -> _Values:
        if model not in self.values:
            raise InvalidInput(
                f"expected a model that was evaluated ({', '.join(self.values) or 'none'}), got {model!r}"
            )
        if measure not in self.values[model]:
            raise InvalidInput(f"expected one of the measures {', '.join(self.values[model])}, got {measure!r}")
        return self.values[model][measure]


def evaluate_recommenders(
    split: Split,
    models: Mapping[str, Callable[[], Recommender]],
    measures: Sequence[str | Measure] | None = None,
    *,
    k: int = 10,
    vectors: ArrayLike | None = None,
    report: Report | None = None,
) -> RecEvaluation:
    """Fit each model on the training part, rank all items that are new to each person, and measure the lists.

    Parameters
    ----------
    split
        See ``mmsearch.recsplits``. Models get ``train`` and ``histories`` of it and nothing else.
    models
        What makes each model anew, by its name: a model that was fitted elsewhere might have seen the answers.
    measures
        Measures of ``mmsearch.metrics`` with a cutoff; nDCG, recall, MRR and R (the hit rate) at k without them. All
        answers have the grade 1.
    k
        The length of the lists whose novelty, diversity, coverage and popularity are measured; see
        ``mmsearch.listmeasures``. How many had an item in the training part counts as its popularity.
    vectors
        (n_items, dim), for the diversity within a list, which is not measured without them.

    Raises
    ------
    InvalidInput
        If there is no model, a measure has no cutoff, or a model's scores are of another shape or not finite.
    """
    check_k(k)
    if not models:
        raise InvalidInput("expected at least one model to evaluate, got none")
    chosen = [parse_measure(str(one)) for one in measures or [f"{name}@{k}" for name in ACCURACY]]
    cutoffs = [one.k for one in chosen if one.k is not None]
    if len(cutoffs) < len(chosen):
        raise InvalidInput(f"expected measures with a cutoff, such as MRR@{k}, got {', '.join(map(str, chosen))}")
    rows = None if vectors is None else _check_vectors(vectors, split.train.n_items)
    qrels = {str(n): dict.fromkeys(map(str, answers), 1.0) for n, answers in enumerate(split.answers)}
    lists: dict[str, _Lists] = {}
    values: dict[str, dict[str, _Values]] = {}
    left_out: dict[str, str] = {}
    for name, make in models.items():
        stage = f"{split.name}: {name}"
        if report is not None:
            report(Progress(stage, 0, len(split)))
        try:
            model = make().fit(split.train)
        except MissingDependency as error:
            left_out[name] = str(error)
            continue
        lists[name] = rank_all(model, split.histories, max(k, *cutoffs), stage=stage, report=report)
        scores = evaluate(qrels, _run(lists[name]), chosen)
        of_lists = _of_lists(lists[name][:, :k], split.train, rows)
        values[name] = {str(one): scores[one] for one in chosen}
        values[name] |= {f"{measure}@{k}": found for measure, found in of_lists.items()}
    return RecEvaluation(split, k, lists, values, left_out)


def rank_all(
    model: Recommender, histories: Behaviour, k: int, *, stage: str = "people", report: Report | None = None
) -> NDArray[np.int64]:
    """The k best items for each person among all that they had nothing to do with, best first; ties by position.

    People are ranked in blocks, so that memory does not grow with their number.

    Returns
    -------
    (n_users, min(k, n_items)) int64
        Item positions; -1 where a person has no more items that are new to them.

    Raises
    ------
    InvalidInput
        If k is out of range, or the scores are of another shape than people by items, or not finite.
    """
    k = min(check_k(k), histories.n_items)
    found = np.full((histories.n_users, k), -1, dtype=np.int64)
    step = max(1, _SCORES // max(1, histories.n_items))
    for start in range(0, histories.n_users, step):
        block = histories.of_users(range(start, min(start + step, histories.n_users)))
        found[start : start + step] = _best_new(_scores(model, block), block, k)
        if report is not None:
            report(Progress(stage, min(start + step, histories.n_users), histories.n_users))
    return found


def _scores(model: Recommender, block: Behaviour) -> NDArray[np.float32]:
    """A model's scores, checked, as an array of our own."""
    scores = np.array(model.scores(block), dtype=np.float32)
    if scores.shape != (block.n_users, block.n_items):
        raise InvalidInput(
            f"expected scores of {model.name!r} for people by items, ({block.n_users}, {block.n_items}), got "
            f"{scores.shape}"
        )
    if not np.isfinite(scores).all():
        raise InvalidInput(f"expected finite scores of {model.name!r}, got NaN or infinity")
    return scores


def _best_new(scores: NDArray[np.float32], block: Behaviour, k: int) -> NDArray[np.int64]:
    """The best k of each row, k at most as many as there are; -1 in place of those that the person has seen."""
    if not k:
        return np.zeros((len(scores), 0), dtype=np.int64)
    scores[block.users, block.items] = -np.inf
    least = np.partition(scores, -k, axis=1)[:, -k, None]
    above, level = scores > least, scores == least
    # Of those at the k-th score as many as there is room for, by position; sorting all of them would take long where
    # a model has the same score for most items.
    room = k - above.sum(axis=1, keepdims=True)
    above |= level & (np.cumsum(level, axis=1, dtype=np.int32) <= room)
    best = np.nonzero(above)[1].reshape(len(scores), k)
    worth = np.take_along_axis(scores, best, axis=1)
    order = np.argsort(-worth, axis=1, kind="stable")
    best = np.where(np.isneginf(worth), -1, best)
    return np.asarray(np.take_along_axis(best, order, axis=1), dtype=np.int64)


def _run(lists: _Lists) -> dict[str, list[str]]:
    return {str(n): [str(item) for item in row if item >= 0] for n, row in enumerate(lists.tolist())}


def _of_lists(lists: _Lists, train: Behaviour, rows: NDArray[np.float64] | None) -> dict[str, _Values]:
    """Each person's measures of their list alone, (n_users,) each, by the measure's name without its k."""
    had = np.bincount(train.seen().indices, minlength=train.n_items)
    people = max(1, int(np.count_nonzero(np.diff(train.starts))))
    found = {"novelty": novelty(lists, had, people), "ARP": popularity_bias(lists, had / people)}
    if rows is None:
        return found
    blank = np.asarray(~rows.any(axis=1), dtype=np.bool_)
    # Items without a vector are like nothing and unlike nothing.
    shown = np.where((lists >= 0) & ~blank[lists], lists, -1)
    diversity = intra_list_diversity(shown, np.where(blank[:, None], 1.0, rows))
    return {"ILD": np.where((shown >= 0).sum(axis=1) > 1, diversity, np.nan), **found}


def _check_vectors(vectors: ArrayLike, n_items: int) -> NDArray[np.float64]:
    """(n_items, dim) rows, those of zeros included."""
    rows = np.asarray(vectors, dtype=np.float64)
    if rows.ndim != 2 or len(rows) != n_items or not rows.shape[1]:
        raise InvalidInput(f"expected a vector for each of {n_items} items, got shape {rows.shape}")
    return rows


def _coverage(lists: _Lists, n_items: int) -> Interval:
    """The share of all items that are in any list, and its jackknife interval."""
    there, n = lists >= 0, len(lists)
    value = coverage(lists, n_items)
    # Without one person, the items are lost that only they were shown.
    alone = np.bincount(lists[there], minlength=n_items) == 1
    lost = (there & alone[lists]).sum(axis=1) / n_items
    error = math.sqrt((n - 1) / n * float(((lost - lost.mean()) ** 2).sum()))
    return Interval(value, max(0.0, value - _NORMAL_95 * error), min(1.0, value + _NORMAL_95 * error))
