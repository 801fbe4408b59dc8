"""``Wishes``: what a list of recommendations should be like beside good, and the picking of such a list."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmsearch.diversify import dpp, mmr
from mmsearch.errors import InvalidInput
from mmsearch.exposure import capped, novelty_shift, popularity_shift
from mmsearch.types import Vectors

_METHODS = {"mmr": mmr, "dpp": dpp}


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a list should be like.

    ``diversity`` from 0 (the best) to 1 (variety alone) by the ``method`` ``mmr`` or ``dpp``; ``popularity`` from -1
    (what few know) to 1 (what many know); ``novelty`` from 0 to 1 (unlike all that they have had); ``most_per`` the
    largest number of items with one value of a metadata field.

    Raises
    ------
    InvalidInput
        If one is out of range.
    """

    diversity: float = 0.0
    method: str = "mmr"
    popularity: float = 0.0
    novelty: float = 0.0
    most_per: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.method, str) or self.method not in _METHODS:
            raise InvalidInput(f"expected method as {' or '.join(_METHODS)}, got {self.method!r:.60}")
        for name, low in (("diversity", 0), ("popularity", -1), ("novelty", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, Real) or not low <= float(value) <= 1:
                raise InvalidInput(f"expected {name} as a number from {low} to 1, got {value!r:.60}")
        if not isinstance(self.most_per, Mapping):
            raise InvalidInput(f"expected most_per as numbers by metadata field, got {self.most_per!r:.60}")
        for name, limit in self.most_per.items():
            if isinstance(limit, bool) or not isinstance(limit, Integral) or limit < 1:
                raise InvalidInput(f"expected most_per of {name!r} as a whole number from 1, got {limit!r:.60}")

    def shifted(
        self, scores: NDArray[np.float64], had: NDArray[np.int64], items: Vectors, known: Vectors
    ) -> NDArray[np.float64]:
        """Scores with regard to ``popularity`` and ``novelty``, (n,).

        Parameters
        ----------
        had
            (n,) how many people had to do with each.
        items, known
            (n, dim) and (m, dim) unit rows of the candidates and of what somebody has had.
        """
        values = popularity_shift(scores, had, self.popularity)
        if self.novelty and len(known) and len(items):
            values = novelty_shift(values, (items @ known.T).max(axis=1), self.novelty)
        return values

    def pick(
        self, scores: NDArray[np.float64], vectors: Vectors, metadata: Sequence[Mapping[str, Any]], k: int
    ) -> list[int]:
        """Positions of k candidates, given best first; fewer if the caps leave no more.

        Parameters
        ----------
        vectors
            (n, dim) unit rows; zeros for what has none.
        """
        kept = np.array(self._within_limits(metadata), dtype=np.int64) if self.most_per else np.arange(len(scores))
        if not self.diversity or len(kept) < 2:
            return [int(n) for n in kept[:k]]
        # What has no vector is like nothing but what has none either.
        blank = (np.abs(vectors).max(axis=1, initial=0) == 0).astype(np.float32)
        rows = np.column_stack([vectors, blank])[kept]
        chosen = _METHODS[self.method](rows, scores[kept], min(k, len(kept)), self.diversity)
        return [int(n) for n in kept[chosen]]

    def _within_limits(self, metadata: Sequence[Mapping[str, Any]]) -> list[int]:
        """What ``most_per`` leaves of a ranking: what is passed over for one field does not count for another."""
        named = [{(name, value) for name in self.most_per for value in _values(its, name)} for its in metadata]
        limits: dict[Hashable, int] = {one: int(self.most_per[one[0]]) for its in named for one in its}
        return capped(named, limits.__getitem__)


def _values(metadata: Mapping[str, Any], name: str) -> set[Hashable]:
    value = metadata.get(name)
    members = value if isinstance(value, list | tuple) else [value]
    return {member for member in members if isinstance(member, str | int | float)}
