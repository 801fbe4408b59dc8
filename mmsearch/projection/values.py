"""``Projection``: a map of vectors, and where new ones lie on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmsearch.errors import InvalidInput
from mmsearch.projection.linear import Plane
from mmsearch.projection.placing import Landmarks, unit_rows
from mmsearch.protocols import VectorRows
from mmsearch.types import Keys

Points = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Projection:
    """Where each position lies on the map.

    Attributes
    ----------
    method
        How it was made: ``pca``, ``umap`` or ``pacmap``. It is ``pca`` where there was too little for what was asked.
    points
        (n, 2) float32, finite, within -1 to 1 on both axes, and about 0 on both. What has no vector is at (0, 0).
    trust
        How far to trust that neighbours on the map are neighbours: 0 to 1. It is the trustworthiness of Venna & Kaski
        (ICANN 2001) for 10 neighbours, by cosine, on at most 1,000 positions that have different vectors. 1 where there
        are too few to be wrong about.
    landmarks
        (l,) int64 positions beside which new vectors are placed; none of ``pca``.
    matrix, offset
        Of ``pca``, a point is ``row @ matrix + offset``: (dim, 2) and (2,) float32. Of the others they are (0, 2) and
        zeros.
    """

    method: str
    points: Points
    trust: float
    landmarks: Keys
    matrix: NDArray[np.float32]
    offset: NDArray[np.float32]

    def __len__(self) -> int:
        """How many positions it maps."""
        return len(self.points)

    def extend(self, rows: VectorRows, new: ArrayLike) -> Points:
        """Place new vectors on the map as it is.

        ``pca`` places them by its matrix, where they may lie somewhat outside of -1 to 1. The others place them amid
        those of up to 50,000 mapped vectors that are nearest by cosine, nearer ones counting more; the vector of such
        a landmark lies on its point.

        Parameters
        ----------
        rows
            What the map was made of. There may be more by now, and zeros for those that are gone.
        new
            (m, dim) vectors, made unit rows here.

        Returns
        -------
        ndarray
            (m, 2) float32, finite. A vector without direction (zero or not finite) is at (0, 0), and so is everything
            on the map of nothing.

        Raises
        ------
        InvalidInput
            If the vectors are of another width, or ``rows`` has fewer positions than the map.
        """
        vectors = unit_rows(new, rows.dim)
        if len(rows) < len(self.points):
            raise InvalidInput(f"expected the {len(self.points)} rows that were mapped, got {len(rows)}")
        if self.method == "pca":
            placed = Plane(self.matrix, self.offset).place(vectors) if len(self.matrix) else None
        else:
            beside = rows.take(self.landmarks)
            there = beside.any(axis=1)
            placed = Landmarks(beside[there], self.points[self.landmarks[there]]).place(vectors)
        return np.zeros((len(vectors), 2), dtype=np.float32) if placed is None else placed

    def state(self) -> dict[str, NDArray[Any]]:
        """Everything as plain arrays, for ``numpy.savez``: no pickle is needed."""
        return {
            "method": np.array(self.method),
            "points": self.points,
            "trust": np.array(self.trust),
            "landmarks": self.landmarks,
            "matrix": self.matrix,
            "offset": self.offset,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, NDArray[Any]]) -> Self:
        """The projection of a state.

        Raises
        ------
        InvalidInput
            If something is missing or of another shape.
        """
        try:
            made = cls(
                str(state["method"]),
                np.asarray(state["points"], dtype=np.float32),
                float(state["trust"]),
                np.asarray(state["landmarks"], dtype=np.int64),
                np.asarray(state["matrix"], dtype=np.float32),
                np.asarray(state["offset"], dtype=np.float32),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidInput(f"expected the state of a projection: {error}") from error
        flat = made.points.ndim == 2 and made.points.shape[1] == 2
        if not flat or made.matrix.shape[1:] != (2,) or made.offset.shape != (2,):
            raise InvalidInput(f"expected the state of a projection, got points of shape {made.points.shape}")
        if len(made.landmarks) and not 0 <= made.landmarks.min() <= made.landmarks.max() < len(made.points):
            raise InvalidInput(f"expected landmarks among the {len(made.points)} points")
        return made
