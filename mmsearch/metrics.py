"""How good rankings are: measures over judgements, their uncertainty, and comparisons of two systems.

``R@k`` is what cross-modal retrieval calls recall: 1 for a query if *any* relevant answer is among the first k
(success@k, hit rate). The share of the relevant answers that were found is ``recall@k``. Means over queries are
ordinary means.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmsearch.errors import InvalidInput
from mmsearch.vectors import check_k

Qrels: TypeAlias = Mapping[str, Mapping[str, float]]
"""Query -> document -> grade; a document is relevant if its grade is above 0."""
Run: TypeAlias = Mapping[str, Sequence[str]]
"""Query -> ids of the answers, best first."""

_Values: TypeAlias = NDArray[np.float64]

_DRAWS = 1_000_000
"""Random draws held at once: 8 MB of them, and as much again for what they pick."""
_ROUNDING = 1e-9
"""Sums of the same numbers in another order differ by less than this part of them."""
_ALPHA = 0.05


@dataclass(frozen=True, slots=True)
class Measure:
    """One measure of one ranking, from 0 to 1, higher is better; ``k`` cuts the ranking off, None does not.

    - ``R@k``: 1 if any relevant document is among the first k, else 0 (success@k).
    - ``recall@k``: share of the relevant documents that are among the first k.
    - ``P@k``: share of the first k that are relevant; missing answers count as not relevant.
    - ``MRR``, ``MRR@k``: 1 / rank of the first relevant document, 0 without one (Voorhees, TREC-8 1999).
    - ``MAP``, ``MAP@k``: precision at the rank of each relevant document that was found, summed and divided by the
      number of all relevant ones (trec_eval's ``map`` and ``map_cut``).
    - ``nDCG``, ``nDCG@k``: sum of grade / log2(rank + 1), divided by that of the best order (Järvelin & Kekäläinen,
      TOIS 2002, with the gains and the discount of trec_eval's ``ndcg`` and ``ndcg_cut``).

    A query without a relevant document has 0 in all of them and counts in the means, as in trec_eval.

    >>> Measure("MRR", 10)(["d1", "d2"], {"d2": 1})
    0.5
    >>> str(Measure("nDCG", 10)), str(Measure("MAP"))
    ('nDCG@10', 'MAP')
    """

    name: str
    k: int | None = None

    def __post_init__(self) -> None:
        if self.name not in _FORMULAS:
            raise InvalidInput(f"expected a measure like {KNOWN_MEASURES}, got {self.name!r}")
        if self.k is not None:
            check_k(self.k)
        elif self.name in _NEED_K:
            raise InvalidInput(f"expected a cutoff for {self.name}, got none: write {self.name}@10, for example")

    def __str__(self) -> str:
        return self.name if self.k is None else f"{self.name}@{self.k}"

    def __call__(self, ranking: Sequence[str], grades: Mapping[str, float]) -> float:
        """Measure one query's ranking, best first, by the grades of its documents; others have grade 0.

        Raises
        ------
        InvalidInput
            If an id is twice in the ranking, or a grade is not finite.
        """
        return self._of(*_judge(ranking, grades, "the ranking"))

    def _of(self, gains: _Values, ideal: _Values) -> float:
        return float(_FORMULAS[self.name](gains, ideal, sys.maxsize if self.k is None else self.k))


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """What ``evaluate`` found: ``values[measure]`` is (n_queries,) float64 in the order of ``queries``."""

    queries: tuple[str, ...]
    values: Mapping[Measure, NDArray[np.float64]]

    def __getitem__(self, measure: Measure | str) -> NDArray[np.float64]:
        """The values by query, (n_queries,) float64, of a measure or of its name, as ``"R@10"``.

        Raises
        ------
        InvalidInput
            If that measure was not evaluated.
        """
        wanted = parse_measure(measure) if isinstance(measure, str) else measure
        if wanted not in self.values:
            there = ", ".join(map(str, self.values)) or "none"
            raise InvalidInput(f"expected one of the measures that were evaluated ({there}), got {wanted}")
        return self.values[wanted]

    def means(self) -> dict[str, float]:
        """Each measure's mean over the queries, by its name."""
        return {str(measure): float(values.mean()) for measure, values in self.values.items()}


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over queries and its confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Difference:
    """A mean difference over queries, its 95% interval, and the p value of there being none."""

    value: float
    low: float
    high: float
    p: float

    @property
    def significant(self) -> bool:
        """Whether p is below 0.05 and the interval excludes 0."""
        return self.p < _ALPHA and (self.low > 0 or self.high < 0)


def parse_measure(text: str) -> Measure:
    """Read a measure as people write it; upper and lower case are the same.

    Raises
    ------
    InvalidInput
        If there is no such measure, its cutoff is no whole number from 1, or it needs one and has none.

    >>> parse_measure("ndcg@10")
    Measure(name='nDCG', k=10)
    """
    name, at, cutoff = text.strip().partition("@")
    known = {each.lower(): each for each in _FORMULAS}
    if name.lower() not in known or (at and not (cutoff.isascii() and cutoff.isdigit())):
        raise InvalidInput(f"expected a measure like {KNOWN_MEASURES}, with a whole number as k, got {text!r}")
    return Measure(known[name.lower()], int(cutoff) if at else None)


def evaluate(qrels: Qrels, run: Run, measures: Iterable[Measure | str]) -> Scores:
    """Measure each judged query's ranking.

    A judged query that the run does not answer counts as 0; queries of the run that nobody judged are passed over. A
    query whose judgements name no relevant document counts as 0 too, as in trec_eval and ir-measures: drop such
    queries from the judgements to leave them out.

    Raises
    ------
    InvalidInput
        If there are no judgements, an id is twice in a ranking, a grade is not finite, or a measure is unknown.

    >>> qrels = {"a red car": {"car.jpg": 1}, "a dog": {"dog.jpg": 1}}
    >>> evaluate(qrels, {"a red car": ["bus.jpg", "car.jpg"]}, ["R@1", "R@5", "MRR"]).means()
    {'R@1': 0.0, 'R@5': 0.5, 'MRR': 0.25}
    """
    if not qrels:
        raise InvalidInput("expected judgements of at least one query, got none")
    chosen = [parse_measure(measure) if isinstance(measure, str) else measure for measure in measures]
    rows = np.zeros((len(chosen), len(qrels)))
    for column, (query, grades) in enumerate(qrels.items()):
        judged = _judge(run.get(query, ()), grades, f"the ranking of query {query!r}")
        for row, measure in enumerate(chosen):
            rows[row, column] = measure._of(*judged)
    return Scores(tuple(qrels), dict(zip(chosen, rows, strict=True)))


def interval(
    values: ArrayLike,
    *,
    level: float = 0.95,
    groups: Sequence[Hashable] | None = None,
    n: int = 2000,
    seed: int = 0,
) -> Interval:
    """Mean of per-query values and its percentile bootstrap interval (Efron & Tibshirani 1993, ch. 13).

    Parameters
    ----------
    values
        (n_queries,) finite numbers.
    level
        Share of intervals made so that hold the true mean, between 0 and 1.
    groups
        (n_queries,) which queries belong together, as the five captions of one picture: whole groups are drawn then
        (cluster bootstrap; Davison & Hinkley 1997, sec. 3.8). A single group, or a single query, has width 0: there
        is nothing to go by.
    n
        Number of resamples.
    seed
        Equal seeds give equal intervals.

    Raises
    ------
    InvalidInput
        If there are no values, one is not finite, the lengths differ, or ``level`` or ``n`` is out of range.

    >>> interval([1, 1, 1, 1])
    Interval(value=1.0, low=1.0, high=1.0)
    """
    if not 0 < level < 1:
        raise InvalidInput(f"expected level between 0 and 1, got {level!r}")
    checked = _check_values(values, "values")
    sums, sizes = _clusters(checked, groups)
    low, high = _percentiles(sums, sizes, level, _check_n(n), np.random.default_rng(seed))
    return Interval(float(checked.mean()), low, high)


def compare(
    a: ArrayLike, b: ArrayLike, *, groups: Sequence[Hashable] | None = None, n: int = 10_000, seed: int = 0
) -> Difference:
    """Mean of b - a over the same queries, its 95% bootstrap interval, and a two-sided paired randomisation test.

    The test asks how often a difference as large comes about if, for each query, a toss of a coin decides which system
    gets which of the two values (Smucker, Allan & Carterette, CIKM 2007). The observed assignment counts as one of
    them, so p is at least 1 / (n + 1) (Phipson & Smyth 2010).

    Parameters
    ----------
    a, b
        (n_queries,) finite numbers, in the same order of queries.
    groups
        (n_queries,) which queries belong together: whole groups are drawn and swapped then; see ``interval``.
    n
        Number of resamples, and of random assignments.
    seed
        Equal seeds give equal answers.

    Raises
    ------
    InvalidInput
        If there are no values, one is not finite, the lengths differ, or ``n`` is out of range.

    >>> compare([0, 0, 1, 0], [0, 0, 1, 0])
    Difference(value=0.0, low=0.0, high=0.0, p=1.0)
    """
    before, after = _check_values(a, "a"), _check_values(b, "b")
    if len(before) != len(after):
        raise InvalidInput(f"expected a and b over the same queries, got {len(before)} and {len(after)} values")
    sums, sizes = _clusters(after - before, groups)
    rng = np.random.default_rng(seed)
    low, high = _percentiles(sums, sizes, 1 - _ALPHA, _check_n(n), rng)
    return Difference(float((after - before).mean()), low, high, _p_value(sums, n, rng))


def _judge(ranking: Sequence[str], grades: Mapping[str, float], where: str) -> tuple[_Values, _Values]:
    """Gains of the ranked documents, (n,), and those of all relevant ones, best first; float64, at least 0."""
    if isinstance(ranking, str | Mapping):
        # The order of a mapping need not be that of its scores, and a str is a sequence of letters.
        raise InvalidInput(f"expected {where} as a list of ids, best first, got {type(ranking).__name__}")
    if len(set(ranking)) != len(ranking):
        twice = next(each for each, times in Counter(ranking).items() if times > 1)
        raise InvalidInput(f"expected each id once, got {twice!r} twice in {where}: keep its best place only")
    all_grades = np.array(list(grades.values()), dtype=np.float64)
    if not np.isfinite(all_grades).all():
        raise InvalidInput(f"expected finite grades, got NaN or infinity in the judgements for {where}")
    gains = np.array([grades.get(each, 0.0) for each in ranking], dtype=np.float64)
    return np.maximum(gains, 0.0), np.sort(all_grades[all_grades > 0])[::-1]


def _reciprocal_rank(gains: _Values, ideal: _Values, k: int) -> float:
    found = np.flatnonzero(gains[:k])
    return 1.0 / (found[0] + 1) if len(found) else 0.0


def _average_precision(gains: _Values, ideal: _Values, k: int) -> float:
    ranks = np.flatnonzero(gains[:k]) + 1
    return float((np.arange(1, len(ranks) + 1) / ranks).sum()) / max(1, len(ideal))


def _ndcg(gains: _Values, ideal: _Values, k: int) -> float:
    return _dcg(gains[:k]) / _dcg(ideal[:k]) if len(ideal) else 0.0


def _dcg(gains: _Values) -> float:
    return float((gains / np.log2(np.arange(2, len(gains) + 2))).sum())


_FORMULAS: dict[str, Callable[[_Values, _Values, int], float]] = {
    "R": lambda gains, ideal, k: float(gains[:k].any()),
    "recall": lambda gains, ideal, k: np.count_nonzero(gains[:k]) / max(1, len(ideal)),
    "P": lambda gains, ideal, k: np.count_nonzero(gains[:k]) / k,
    "MRR": _reciprocal_rank,
    "MAP": _average_precision,
    "nDCG": _ndcg,
}
_NEED_K = ("R", "recall", "P")
KNOWN_MEASURES = ", ".join(f"{name}@k" if name in _NEED_K else f"{name}, {name}@k" for name in _FORMULAS)
"""The names of all measures, for messages and help."""


def _check_values(values: ArrayLike, name: str) -> _Values:
    checked = np.asarray(values, dtype=np.float64)
    if checked.ndim != 1 or not len(checked):
        raise InvalidInput(f"expected {name} as one number per query, for at least one, got shape {checked.shape}")
    if not np.isfinite(checked).all():
        at = int(np.argmin(np.isfinite(checked)))
        raise InvalidInput(f"expected finite {name}, got {checked[at]} at {at}: an unanswered query counts as 0")
    return checked


def _check_n(n: int) -> int:
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
        raise InvalidInput(f"expected n as a whole number from 1, got {n!r}")
    return int(n)


def _clusters(values: _Values, groups: Sequence[Hashable] | None) -> tuple[_Values, _Values]:
    """Sum and number of the values of each group; each value is a group of its own without groups."""
    if groups is None:
        return values, np.ones(len(values))
    if len(groups) != len(values):
        raise InvalidInput(f"expected one group per query, got {len(groups)} groups for {len(values)} queries")
    numbers: dict[Hashable, int] = {}
    group_of = np.array([numbers.setdefault(group, len(numbers)) for group in groups])
    return np.bincount(group_of, weights=values).astype(np.float64), np.bincount(group_of).astype(np.float64)


def _percentiles(sums: _Values, sizes: _Values, level: float, n: int, rng: np.random.Generator) -> tuple[float, float]:
    """Bounds of the middle ``level`` of the means over n resamples of the groups."""
    means = np.empty(n)
    step = max(1, _DRAWS // len(sums))
    for start in range(0, n, step):
        drawn = rng.integers(len(sums), size=(min(step, n - start), len(sums)))
        means[start : start + step] = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _p_value(sums: _Values, n: int, rng: np.random.Generator) -> float:
    sums = sums[sums != 0]  # swapping equal values changes nothing
    at_least = abs(float(sums.sum())) - _ROUNDING * float(np.abs(sums).sum())
    step = max(1, _DRAWS // max(1, len(sums)))
    as_large = 0
    for start in range(0, n, step):
        swapped = rng.integers(2, size=(min(step, n - start), len(sums)), dtype=np.int8)
        as_large += int(np.count_nonzero(np.abs(sums.sum() - 2 * (swapped @ sums)) >= at_least))
    return (as_large + 1) / (n + 1)
