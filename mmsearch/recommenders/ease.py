"""``Ease``: the linear model with a closed form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from mmsearch.behaviour import Behaviour
from mmsearch.errors import InvalidInput
from mmsearch.recommenders.histories import as_plain, check_learnt, check_number, likes, says
from mmsearch.recommenders.linear import Linear, gram_blocks
from mmsearch.recommenders.top import best_columns
from mmsearch.types import Keys

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


class Ease(Linear):
    """EASE, the linear autoencoder of Steck (WWW 2019, equation 8), with one number for each pair of items.

    B = I - P diag(1 / diag(P)) with P = (XᵀX + l2 I)⁻¹, where X are the likes, 1 or 0. A score is the sum of the rows
    of B of what a person likes, less ``dislike`` times those of what they dislike; what they have only seen has no
    say. Items that nobody likes have zeros. It takes about n_items³ multiplications and 8 n_items² bytes to fit, and 4
    n_items² to keep.

    The defaults had the highest nDCG@10, or within its noise of it, on a validation split: MovieLens ratings of 671
    people and 3,872 films, the last but one event of each person sought among all unseen films, learnt from those
    before.
    From 100 to 400 ``l2`` made no difference; a ``dislike`` of 0 was a little better than 0.25.

    Parameters
    ----------
    l2
        Regularisation: how many people it takes for a pattern to count.
    dislike
        How much a dislike takes away, as a share of what a like adds.
    max_items
        More items than this are refused: 20,000 take 3.2 GB and minutes.

    Raises
    ------
    InvalidInput
        For a setting out of range.
    """

    name = "ease"

    def __init__(self, *, l2: float = 200.0, dislike: float = 0.25, max_items: int = 20_000) -> None:
        self.l2 = check_number("l2", l2, 1e-3)
        self.dislike = check_number("dislike", dislike, 0)
        self.max_items = max_items

    def fit(self, behaviour: Behaviour) -> Self:
        """Solve for B with the Cholesky factor, in float32 and in place.

        Raises
        ------
        InvalidInput
            For more than ``max_items`` items.
        """
        if behaviour.n_items > self.max_items:
            raise InvalidInput(
                f"expected at most {self.max_items} items for a dense model, got {behaviour.n_items}: "
                "use item neighbours, or raise max_items if there is memory for it"
            )
        liked = likes(behaviour)
        had = np.unique(liked.indices)
        matrix = np.zeros((behaviour.n_items, behaviour.n_items), np.float32)
        if len(had):
            matrix[np.ix_(had, had)] = self._solve(liked[:, had])
        self._matrix, self.n_items = matrix, behaviour.n_items
        return self

    def _solve(self, liked: csr_matrix) -> NDArray[np.float32]:
        """B of the likes, (n_users, n) csr, as (n, n)."""
        from scipy.linalg.lapack import spotrf, spotri  # whose import takes long

        n = liked.shape[1]
        gram = np.empty((n, n), np.float32, order="F")
        for start, block in gram_blocks(liked.T.tocsr(), liked):
            gram[start : start + block.shape[0]] = block.toarray()
        gram[np.diag_indices(n)] += np.float32(self.l2)
        factor, failed = spotrf(gram, lower=True, overwrite_a=True)
        if failed:
            raise InvalidInput(f"expected an l2 that makes the items' counts invertible, got {self.l2:g}: raise it")
        inverse, _ = spotri(factor, lower=True, overwrite_c=True)
        for column in range(n):  # in place: the other triangle is not filled in
            inverse[column, column + 1 :] = inverse[column + 1 :, column]
        inverse /= -np.diag(inverse).copy()
        np.fill_diagonal(inverse, 0.0)
        return np.asarray(inverse, dtype=np.float32)

    def candidates(self, histories: Behaviour, k: int) -> list[Keys]:
        """The best k of all unseen items, for each person; see ``Recommender``.

        Raises
        ------
        InvalidInput
            If nothing was learnt, the histories do not go with it, or k is not from 1 to 1,000,000.
        """
        return [best.keys for best in best_columns(self, histories, k)]

    def state(self) -> dict[str, NDArray[Any]]:
        """``matrix``: B, (n_items, n_items) float32; ``settings``, (1,) float64: dislike."""
        check_learnt(self.n_items)
        return {"matrix": self._matrix, **self._told()}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> Self:
        """Take back what ``state`` gave; nothing is copied."""
        self._matrix = as_plain(state["matrix"])
        self._take(state)
        self.n_items = len(self._matrix)
        return self

    def _says(self, histories: Behaviour) -> NDArray[np.float32]:
        return says(histories, self.dislike)

    def _sums(self, items: Keys, says: NDArray[np.float32], columns: Keys | None) -> NDArray[np.float64]:
        rows = self._matrix[items] if columns is None else self._matrix[items[:, None], columns]
        return np.asarray(says @ rows, dtype=np.float64)

    def _entries(self, items: Keys, column: int) -> NDArray[np.float32]:
        return np.asarray(self._matrix[items, column])
