"""Labels that look wrong: the nearest neighbours have another one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mmsearch.curation.outliers import blocks, with_vector
from mmsearch.errors import InvalidInput
from mmsearch.protocols import VectorRows
from mmsearch.types import Keys, Progress, Report, Vectors
from mmsearch.vectors import best_first, check_k

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Neighbours: TypeAlias = Callable[[Keys], Sequence[tuple[Keys, Vectors]]]
"""Positions (m,) in; for each one the positions of its nearest items and their cosines, best first."""
Shares: TypeAlias = NDArray[np.float64]

COPY = 0.9999
"""Two vectors of at least this cosine are copies."""
_FALL = 0.05
"""A neighbour whose cosine is so much lower than the best one's has 1/e of its weight. Half of this is worse on the
article types and genders of 4,791 pictures of fashion with 5% of the labels changed, twice this the same."""
_FEW = 2.0
"""The mean of a class of m items is shrunk by m / (m + this): the mean of few says little."""
_STEP = 512
_DIGITS = 5


@dataclass(frozen=True, slots=True)
class Suspects:
    """Labelled items, the most suspect first, as arrays of one length.

    Attributes
    ----------
    positions
        (m,) int64.
    scores
        (m,) float64, the weighted share of the neighbours that have another label: 0 to 1. 0 without neighbours.
    suggested
        The other label that most neighbours have; the item's own where none has another.
    agreement
        (m,) float64, the weighted share of the neighbours that have the suggested label: 0 to 1.
    likely
        (m,) bool: whether the suggestion is more convincing than the label: more neighbours have it, and at least as
        many as is usual for items that do have it.
    """

    positions: Keys
    scores: Shares
    suggested: tuple[str, ...]
    agreement: Shares
    likely: NDArray[np.bool_]

    def __len__(self) -> int:
        """How many items were judged."""
        return len(self.positions)


def suspects(
    rows: VectorRows,
    labels: Sequence[str | None],
    neighbours: Neighbours | None = None,
    *,
    k: int = 30,
    report: Report | None = None,
) -> Suspects:
    """Judge each label by those of the nearest labelled items.

    A neighbour votes for its label with weight exp((cosine - cosine of the nearest) / 0.05). Copies of the item
    (cosine of at least 0.9999) share one vote: a picture that is there twice with the same wrong label must not speak
    for itself, but one whose copies are labelled otherwise is suspect.

    The order goes by ``agreement - (1 - scores) + gap``. The first part is the margin of confident learning (Northcutt,
    Jiang & Chuang, JAIR 70, 2021, section 3.2) with the neighbours as the model. ``gap`` is how much nearer the item is
    to the mean of the suggested class than to that of its own without it, by cosine less what all items have in common;
    it tells apart the many items that not one neighbour agrees with. What is in ``likely`` goes by that paper's
    threshold of each class (equation 2), the mean share for their label among its items: classes that are hard in
    general ask for less.

    Parameters
    ----------
    rows
        n vectors. Items without one (a row of zeros) are not judged.
    labels
        (n,), None for items without a label: they are not judged and do not vote.
    neighbours
        Finds nearest items; it may hand back the item itself and unlabelled ones, which are passed over, so ask for
        more than ``k``. None: an exact search, which takes O(n n dim) time for n labelled items.
    k
        How many labelled neighbours have a vote.
    report
        Called as the work proceeds.

    Raises
    ------
    InvalidInput
        If there are more or fewer labels than vectors, a label is not a str, or ``k`` is out of range.
    """
    check_k(k)
    judged, names, own = _labelled(rows, labels)
    nearest = neighbours or _exact(rows, judged, k)
    agrees, suggested, agreement = _votes(len(rows), judged, own, nearest, k, report)
    usual = np.bincount(own, agrees, len(names)) / np.maximum(np.bincount(own, minlength=len(names)), 1)
    likely = (agreement > agrees) & (agreement >= usual[suggested])
    # Rounded so that noise in the last bits never decides an order.
    doubt = np.round(agreement - agrees + _gap(rows, judged, own, suggested, len(names)), 6)
    order = np.lexsort((judged, -doubt))
    return Suspects(
        positions=judged[order],
        scores=1.0 - agrees[order],
        suggested=tuple(names[one] for one in suggested[order]),
        agreement=agreement[order],
        likely=likely[order],
    )


def _labelled(rows: VectorRows, labels: Sequence[str | None]) -> tuple[Keys, list[str], Keys]:
    """The positions with a label and a vector, (m,), the labels there are, and which one each has, (m,)."""
    if len(labels) != len(rows):
        raise InvalidInput(f"expected one label per vector, got {len(labels)} labels for {len(rows)} vectors")
    for position, label in enumerate(labels):
        if label is not None and not isinstance(label, str):
            raise InvalidInput(f"expected each label as a str or None, got {label!r} at position {position}")
    judged = np.array([one for one in with_vector(rows).tolist() if labels[one] is not None], dtype=np.int64)
    here = [str(labels[one]) for one in judged]
    names = sorted(set(here))
    place = {name: n for n, name in enumerate(names)}
    return judged, names, np.array([place[label] for label in here], dtype=np.int64)


def _votes(
    n: int, judged: Keys, own: Keys, nearest: Neighbours, k: int, report: Report | None
) -> tuple[Shares, Keys, Shares]:
    """For each judged item the share of its own label, the other label with the most votes, and that one's share."""
    label = np.full(n, -1, dtype=np.int64)
    label[judged] = own
    agrees, suggested, agreement = np.ones(len(judged)), own.copy(), np.zeros(len(judged))
    for start in range(0, len(judged), _STEP):
        if report is not None:
            report(Progress("labels", start, len(judged)))
        asked = judged[start : start + _STEP]
        for at, (keys, cosines) in enumerate(nearest(asked), start=start):
            votes = (keys != judged[at]) & (label[keys] >= 0)
            if votes.any():
                counted = _count(label[keys[votes][:k]], cosines[votes][:k], int(own[at]))
                agrees[at], suggested[at], agreement[at] = counted
    return agrees, suggested, agreement


def _count(labels: Keys, cosines: Vectors, own: int) -> tuple[float, int, float]:
    """The votes of one item's neighbours: the share of its own label, the best other label and its share."""
    weights = np.exp((cosines.astype(np.float64) - cosines.max()) / _FALL)
    copies = cosines >= COPY
    weights[copies] /= max(1, copies.sum())
    found, which = np.unique(labels, return_inverse=True)
    shares = np.bincount(which, weights) / weights.sum()
    agrees = float(shares[found == own].sum())
    others = np.where(found == own, -1.0, np.round(shares, _DIGITS))
    best = int(np.argmax(others))
    return (agrees, int(found[best]), float(shares[best])) if found[best] != own else (agrees, own, agrees)


def _exact(rows: VectorRows, judged: Keys, k: int) -> Neighbours:
    """Find the nearest judged items by comparing with all of them."""

    def find(positions: Keys) -> list[tuple[Keys, Vectors]]:
        queries = rows.take(positions)
        kept = [(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32))] * len(positions)
        for start, block in blocks(rows, judged):
            columns = judged[start : start + len(block)]
            cosines = np.round(queries @ block.T, _DIGITS)
            for at, (row, (keys, best)) in enumerate(zip(cosines, kept, strict=True)):
                # One more than k: the item itself is among them.
                new_keys, new_best = best_first(columns, row, k + 1)
                kept[at] = best_first(np.concatenate([keys, new_keys]), np.concatenate([best, new_best]), k + 1)
        return kept

    return find


def _gap(rows: VectorRows, judged: Keys, own: Keys, suggested: Keys, n_labels: int) -> Shares:
    """How much nearer each item is to the mean of the suggested class than to that of its own without it, (m,)."""
    if not len(judged):
        return np.zeros(0)
    counts = np.bincount(own, minlength=n_labels)[:, None]
    sums = np.zeros((n_labels, rows.dim))
    for start, block in blocks(rows, judged):
        sums += _indicator(own[start : start + len(block)], n_labels) @ block
    mean = sums.sum(axis=0) / len(judged)
    spread = max(1.0 - float(mean @ mean), 1e-6)
    gaps = []
    for start, block in blocks(rows, judged):
        mine, other = own[start : start + len(block)], suggested[start : start + len(block)]
        without = (sums[mine] - block - (counts[mine] - 1) * mean) / (counts[mine] - 1 + _FEW)
        towards = (sums[other] - counts[other] * mean) / (counts[other] + _FEW)
        gaps.append(np.where(mine == other, 0.0, ((block - mean) * (towards - without)).sum(axis=1) / spread))
    return np.concatenate(gaps)


def _indicator(labels: Keys, n_labels: int) -> csr_matrix:
    """Which of m items has which label, (n_labels, m): times their vectors it is the sum of each class."""
    from scipy.sparse import csr_matrix

    return csr_matrix((np.ones(len(labels)), (labels, np.arange(len(labels)))), shape=(n_labels, len(labels)))
