"""Weights for a sum of scores, fitted so that the right answers come before the other candidates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_RIDGE = 0.01
_FIRST = 10
_NOISE = 1e-6
"""Scores of float32 that vary by less than this share of the largest do not vary."""


@dataclass(frozen=True, slots=True)
class Cases:
    """One person's candidates: (n, n_parts) float64 what each part says, and (n,) bool which are right."""

    said: NDArray[np.float64]
    right: NDArray[np.bool_]


def fit_weights(cases: Sequence[Cases]) -> NDArray[np.float64]:
    """Weights from 0 up, (n_parts,), under which the right candidates are most likely.

    The likelihood of a right candidate is the softmax of its weighted sum among that person's candidates (ListNet's
    top-one probability; Cao et al., ICML 2007, section 4.2), with a ridge of 0.01 on weights of scores of variance 1.
    A person's right candidates share one vote. Scores that do not vary get 0. Without a right candidate anywhere, and
    where no part is better than none, all weights bring their part to the same variance.
    """
    from scipy.optimize import minimize  # whose import takes long

    n_parts = cases[0].said.shape[1] if cases else 0
    told = [case for case in cases if case.right.any() and not case.right.all()]
    varying = [case.said - case.said.mean(axis=0) for case in cases if len(case.said)]
    spread = (
        np.sqrt(np.mean([np.square(said).mean(axis=0) for said in varying], axis=0)) if varying else np.ones(n_parts)
    )
    size = np.max([np.abs(case.said).max(axis=0, initial=0) for case in cases], axis=0) if cases else 0.0
    scale = np.divide(1.0, spread, out=np.zeros(n_parts), where=spread > _NOISE * size)
    if not told:
        return scale
    said = np.concatenate([case.said * scale for case in told])
    starts = np.concatenate([[0], np.cumsum([len(case.right) for case in told])[:-1]]).astype(np.int64)
    person = np.repeat(np.arange(len(told)), [len(case.right) for case in told])
    votes = np.concatenate([case.right / case.right.sum() for case in told])
    wanted = votes @ said

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        logits = said @ weights
        logits -= np.maximum.reduceat(logits, starts)[person]
        odds = np.exp(logits)
        totals = np.add.reduceat(odds, starts)
        likelihood = (votes @ logits - np.log(totals).sum()) / len(told)
        slope = ((odds / totals[person]) @ said - wanted) / len(told)
        return _RIDGE * weights @ weights - likelihood, slope + 2 * _RIDGE * weights

    found = minimize(loss, np.full(n_parts, 0.1), jac=True, method="L-BFGS-B", bounds=[(0.0, None)] * n_parts)
    weights: NDArray[np.float64] = found.x * scale
    return weights if weights.any() else scale


def offset_for_share(
    usual: Sequence[NDArray[np.float64]], others: Sequence[NDArray[np.float64]], share: float
) -> float:
    """What to add to the scores of ``others`` so that they take a share of the first ten places, on average.

    Parameters
    ----------
    usual, others
        Scores of the two kinds of candidates, each for a number of people; they need not be the same people.
    share
        From 0 to 1; at 1 the offset is such that all ten are others, where there are ten.
    """
    pairs = [(np.sort(a)[::-1][:_FIRST], np.sort(b)[::-1][:_FIRST]) for a, b in zip(usual, others, strict=False)]
    pairs = [(a, b) for a, b in pairs if len(a) and len(b)]
    if not pairs:
        return 0.0
    low = min(float(a[-1] - b[0]) for a, b in pairs) - 1.0
    high = max(float(a[0] - b[-1]) for a, b in pairs) + 1.0
    for _ in range(50):
        middle = (low + high) / 2
        taken = [_places(a, b + middle) for a, b in pairs]
        low, high = (middle, high) if np.mean(taken) < share else (low, middle)
    return high


def _places(usual: NDArray[np.float64], others: NDArray[np.float64]) -> float:
    """The share of the first ten places that others take."""
    both = np.concatenate([usual, others])
    first = np.argsort(-both, kind="stable")[:_FIRST]
    return float(np.mean(first >= len(usual)))
