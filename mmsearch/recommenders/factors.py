"""``Factors``: people and items as vectors whose inner product says how well they suit (with the library implicit)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from mmsearch.behaviour import Behaviour
from mmsearch.errors import InvalidInput, MissingDependency
from mmsearch.recommenders.histories import (
    as_plain,
    check_fit,
    check_learnt,
    check_number,
    check_one,
    likes,
    opinions,
    shares,
)
from mmsearch.recommenders.top import ByLength, best_columns
from mmsearch.types import Keys, Vectors

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

_MOST = 10_000.0
"""A larger weight says no more: the solver would not hold."""
_ALS = {"factors": 64, "iterations": 15}
_PENALTY = 0.1
"""ALS's penalty for each item that people have an opinion of on the mean: 10 was chosen where they have
100 (MovieLens), and with few events as large a penalty would leave popularity alone."""
_BPR = {"factors": 64, "regularization": 0.01, "iterations": 100}


class Factors:
    """Matrix factors: the score is the inner product of a person's and an item's vector.

    ``als`` (Hu, Koren & Volinsky, ICDM 2008): least squares with the confidence 1 + ``alpha`` * abs(weight) in what a
    person likes or dislikes (preference 1 or 0) and 1 in all else (preference 0). Weights of one person and item are
    summed, and count up to 10,000; where the sum is 0, nothing is known. A person's vector solves equation 4 given the
    items' vectors, the same for those who were there at fitting and those who were not.

    ``bpr`` (Rendle et al., UAI 2009): what people like ranks above what they do not; weights do not count, dislikes
    and what was only seen have no say. The last dimension of the items' vectors is their bias, and 1 in people's. BPR
    has no closed form, so a person's vector is a linear function of the sum of the vectors of the items they like,
    divided by the square root of how many: the ridge regression of fitted people's vectors on it, without intercept.
    Those who like nothing have only the biases.

    The defaults had the highest nDCG@10, or within its noise of it, on a validation split: MovieLens ratings of 671
    people and 3,872 films, the last but one event of each person sought among all unseen films, learnt from those
    before.

    Parameters
    ----------
    method
        ``als`` or ``bpr``.
    factors, regularization, iterations
        Width of the vectors, L2 penalty and passes over the data; None takes the method's default. ALS's penalty is a
        tenth of the number of items that people have an opinion of on the mean.
    alpha
        ALS: confidence a unit of weight.
    learning_rate
        BPR: step of the stochastic gradient.
    seed
        Where the factors start from, and for BPR what is drawn.
    num_threads
        Threads to fit with; 0 takes all processors. ALS gives the same with any number of them. BPR is repeatable
        with 1 only, which is the default for it.

    Raises
    ------
    InvalidInput
        For a setting out of range.
    """

    n_items = -1
    _by_length: ByLength | None = None

    def __init__(
        self,
        method: Literal["als", "bpr"] = "als",
        *,
        factors: int | None = None,
        regularization: float | None = None,
        iterations: int | None = None,
        alpha: float = 1.0,
        learning_rate: float = 0.05,
        seed: int = 0,
        num_threads: int | None = None,
    ) -> None:
        if method not in ("als", "bpr"):
            raise InvalidInput(f"expected method as als or bpr, got {method!r}")
        preset = _ALS if method == "als" else _BPR
        self.name: str = method
        self.factors = int(check_number("factors", preset["factors"] if factors is None else factors, 1))
        given = preset.get("regularization") if regularization is None else regularization
        self._given = given if given is None else check_number("regularization", given, 1e-6)
        self.regularization = _PENALTY if self._given is None else self._given
        self.iterations = int(check_number("iterations", preset["iterations"] if iterations is None else iterations, 1))
        self.alpha = check_number("alpha", alpha, 0)
        self.learning_rate = check_number("learning_rate", learning_rate, 1e-6)
        self.seed = seed
        self.num_threads = (method == "bpr") * 1 if num_threads is None else num_threads

    @property
    def item_vectors(self) -> Vectors:
        """(n_items, dim) float32; the dimension is ``factors``, and one more for the biases of BPR."""
        return self._items

    @property
    def by_length(self) -> ByLength:
        """The items' vectors sorted by length, which is done once."""
        if self._by_length is None:
            self._by_length = ByLength.of(self._items)
        return self._by_length

    def fit(self, behaviour: Behaviour) -> Self:
        """Learn the factors.

        Raises
        ------
        MissingDependency
            Without the library implicit.
        """
        known = self._confidences(behaviour) if self.name == "als" else likes(behaviour)
        if self._given is None:
            self.regularization = max(_PENALTY, _PENALTY * known.nnz / max(1, np.count_nonzero(np.diff(known.indptr))))
        wide = self.factors + (self.name == "bpr")
        self._items, people = np.zeros((behaviour.n_items, wide), np.float32), np.zeros((0, wide), np.float32)
        library = _implicit()
        if (known.data > 0).any():
            people, self._items = self._factorise(library, known)
        self._solver = self._gram() if self.name == "als" else self._encoder(known, people)
        self.n_items, self._by_length = behaviour.n_items, None
        return self

    def user_vectors(self, histories: Behaviour) -> Vectors:
        """People's vectors from their histories, (n_users, dim) float32, without fitting anew.

        Raises
        ------
        InvalidInput
            If nothing was learnt, or the histories do not go with it.
        """
        check_fit(histories, self.n_items, ())
        if self.name == "bpr":
            return self._encode(likes(histories))
        known = self._confidences(histories)
        answer = np.zeros((histories.n_users, self._items.shape[1]), np.float32)
        for user in np.flatnonzero(np.diff(known.indptr)):
            vectors, confidence, wanted = self._row(known, int(user))
            answer[user] = np.linalg.solve(self._normal(vectors, confidence), vectors.T @ (confidence * wanted))
        return answer

    def scores(self, histories: Behaviour, columns: Keys | None = None) -> NDArray[np.float32]:
        """How well each item suits each person, (n_users, n_items) or (n_users, m) float32; see ``Recommender``.

        Raises
        ------
        InvalidInput
            If nothing was learnt, or the histories or columns do not go with it.
        """
        asked = check_fit(histories, self.n_items, columns)
        items = self._items if columns is None else self._items[asked]
        return np.asarray(self.user_vectors(histories) @ items.T, dtype=np.float32)

    def candidates(self, histories: Behaviour, k: int) -> list[Keys]:
        """The best k of all unseen items, for each person; see ``Recommender``.

        Raises
        ------
        InvalidInput
            If nothing was learnt, the histories do not go with it, or k is not from 1 to 1,000,000.
        """
        return [best.keys for best in best_columns(self, histories, k)]

    def contributions(self, history: Behaviour, column: int) -> NDArray[np.float32]:
        """How much each event adds to the score of an item, (n_events,) float32.

        For ALS those of Hu et al. (2008, section 5), whose sum is the score; dislikes and what was only seen add
        nothing by themselves. For BPR zeros.

        Raises
        ------
        InvalidInput
            If nothing was learnt, it is not the history of one person, or the position is out of range.
        """
        check_fit(history, self.n_items, ())
        check_one(history, column)
        answer = np.zeros(len(history), np.float32)
        known = self._confidences(history)
        if self.name == "bpr" or not known.nnz:
            return answer
        vectors, confidence, wanted = self._row(known, 0)
        item = self._items[column].astype(np.float64)
        parts = (vectors @ np.linalg.solve(self._normal(vectors, confidence), item)) * confidence * wanted
        part = np.maximum(shares(history), 0.0)
        told = np.flatnonzero(part)
        answer[told] = part[told] * parts[np.searchsorted(known.indices, history.items[told])]
        return answer

    def state(self) -> dict[str, NDArray[Any]]:
        """``items``, (n_items, dim) float32; ``solver``, (dim, dim) float64; ``settings``, (2,) float64.

        ``solver`` is what people's vectors are solved with: the items' inner products for ALS, the regression for BPR.
        ``settings`` are alpha and the regularisation.
        """
        check_learnt(self.n_items)
        return {
            "items": self._items,
            "solver": self._solver,
            "settings": np.array([self.alpha, self.regularization]),
        }

    def restore(self, state: Mapping[str, NDArray[Any]]) -> Self:
        """Take back what ``state`` gave; nothing is copied."""
        self._items, self._solver = as_plain(state["items"]), as_plain(state["solver"])
        self.alpha, self.regularization = (float(value) for value in state["settings"])
        self.n_items, self._by_length = len(self._items), None
        return self

    def _factorise(self, library: ModuleType, known: csr_matrix) -> tuple[Vectors, Vectors]:
        """People's and items' vectors, as the library implicit learns them."""
        from threadpoolctl import threadpool_limits  # comes with scikit-learn

        common: dict[str, Any] = {
            "factors": self.factors,
            "regularization": self.regularization,
            "iterations": self.iterations,
            "num_threads": self.num_threads,
            "random_state": self.seed,
            "use_gpu": False,
        }
        # implicit has threads of its own, which those of BLAS would only slow down.
        with threadpool_limits(1, "blas"):
            if self.name == "als":
                model = library.als.AlternatingLeastSquares(alpha=1.0, **common)
            else:
                model = library.bpr.BayesianPersonalizedRanking(learning_rate=self.learning_rate, **common)
            model.fit(known, show_progress=False)
        return np.asarray(model.user_factors), np.asarray(model.item_factors)

    def _confidences(self, behaviour: Behaviour) -> csr_matrix:
        """(n_users, n_items) csr matrix of confidences where weights are not 0; below 0 for dislikes."""
        known = opinions(behaviour)
        known.sort_indices()
        known.data = (np.sign(known.data) * (1.0 + self.alpha * np.minimum(np.abs(known.data), _MOST))).astype(
            np.float32
        )
        return known

    def _row(self, known: csr_matrix, user: int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
        """Of what is known of a person: the items' vectors, the confidences, and whether they like them."""
        own = slice(known.indptr[user], known.indptr[user + 1])
        signed = known.data[own].astype(np.float64)
        return self._items[known.indices[own]].astype(np.float64), np.abs(signed), signed > 0

    def _normal(self, vectors: NDArray[np.float64], confidence: NDArray[np.float64]) -> NDArray[np.float64]:
        """The matrix of the normal equations of one person, (dim, dim)."""
        penalty = self.regularization * np.eye(len(self._solver))
        return np.asarray(self._solver + penalty + (vectors.T * (confidence - 1.0)) @ vectors)

    def _gram(self) -> NDArray[np.float64]:
        return (self._items.T @ self._items).astype(np.float64)

    def _sums(self, liked: csr_matrix) -> NDArray[np.float64]:
        """What BPR's people are predicted from, (n_users, factors)."""
        had, place = np.unique(liked.indices, return_inverse=True)  # so that few people do not read all items
        near = type(liked)((liked.data, place, liked.indptr), shape=(liked.shape[0], len(had)))
        count = np.maximum(np.diff(liked.indptr), 1)
        return np.asarray((near @ self._items[had, :-1]) / np.sqrt(count)[:, None], dtype=np.float64)

    def _encoder(self, liked: csr_matrix, people: Vectors) -> NDArray[np.float64]:
        """The ridge regression of people's vectors on ``_sums``, (factors, factors)."""
        if not len(people):
            return np.zeros((self.factors, self.factors))
        sums = self._sums(liked)
        gram = sums.T @ sums
        penalty = 1e-2 * np.trace(gram) / self.factors + 1e-12
        return np.asarray(np.linalg.solve(gram + penalty * np.eye(self.factors), sums.T @ people[:, :-1]))

    def _encode(self, liked: csr_matrix) -> Vectors:
        known = self._sums(liked) @ self._solver
        return np.concatenate([known, np.ones((len(known), 1))], axis=1).astype(np.float32)


def _implicit() -> ModuleType:
    try:
        with warnings.catch_warnings():  # its progress bars would like a package that notebooks need not have
            warnings.simplefilter("ignore")
            import implicit.als
            import implicit.bpr
    except ImportError as error:
        raise MissingDependency("matrix factors need an extra: pip install 'mmsearch[factors]'") from error
    module: ModuleType = implicit
    return module
