"""``Bridge``: what behaviour says of items that nobody has had yet, learnt from those that people have had."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mmsearch.behaviour import Behaviour
from mmsearch.errors import InvalidInput
from mmsearch.recommenders.histories import check_fit, check_number, check_one, likes, recency, says
from mmsearch.recommenders.itemvectors import ItemVectors
from mmsearch.types import Keys
from mmsearch.vectors import best_first, check_k

_BLOCK = 32_768


class Bridge:
    """Item-to-item cosines of behaviour, foretold from content for every item, those without behaviour included.

    Attributes are mapped to what collaborative filtering knows, as by Gantner et al. (ICDM 2010), here in closed
    form: with S the items' cosines by who likes both, A the content of the items that anybody likes and F that of
    all, the score of item i for a history h is ``h S (A (A'A + l2 I)^-1) F_i``: the person's scores of the items with
    behaviour, carried over to item i by ridge regression on content. S is never formed.

    Parameters
    ----------
    fields
        Vectors of the items by field; they are put side by side.
    l2
        The ridge. 10 was the best of 10, 30 and 100 on a validation split of MovieLens with posters.
    max_features
        Directions of most variance that are kept of the fields' vectors.
    decay, dislike
        As for ``Content``.

    Raises
    ------
    InvalidInput
        If there is no field, or a setting is out of range.
    """

    name = "bridge"
    _from: NDArray[np.float32]
    _to: NDArray[np.float32]

    def __init__(
        self,
        fields: Mapping[str, ItemVectors],
        *,
        l2: float = 10.0,
        max_features: int = 256,
        decay: float = 1.0,
        dislike: float = 0.5,
    ) -> None:
        if not fields:
            raise InvalidInput("expected vectors of at least one field")
        self.fields = dict(fields)
        self.l2, self.max_features = check_number("l2", l2, 1e-6), int(check_number("max_features", max_features, 1))
        self.decay, self.dislike = check_number("decay", decay, 1e-6, 1), check_number("dislike", dislike, 0)
        self.n_items = -1

    def fit(self, behaviour: Behaviour) -> Self:
        """Regress who likes what on content. Takes O(n_items dim^2 + n_events dim) time."""
        n_items = len(next(iter(self.fields.values())))
        if behaviour.n_items != n_items:
            raise InvalidInput(f"expected behaviour over {n_items} items, got {behaviour.n_items}")
        features = self._features(n_items)
        liked = likes(behaviour)
        popularity = np.bincount(liked.indices, minlength=n_items).astype(np.float32)
        warm = popularity > 0
        scale = 1 / np.sqrt(np.maximum(popularity, 1))
        known = features[warm].astype(np.float64)
        ridge = self.l2 * np.eye(features.shape[1])
        # (n_features, n_warm): what turns scores of the items with behaviour into weights of features
        carried = np.zeros((n_items, features.shape[1]), dtype=np.float32)
        if len(known):
            carried[warm] = np.linalg.solve(known.T @ known + ridge, known.T).T
        people = liked @ (scale[:, None] * carried)
        rows = (scale[:, None] * (liked.T @ people)) - np.where(warm[:, None], carried, 0)
        self._from, self._to, self.n_items = rows.astype(np.float32), features, n_items
        return self

    def _features(self, n_items: int) -> NDArray[np.float32]:
        """(n_items, n_features + 1) float32: the fields side by side in fewer directions, and a constant."""
        width = sum(vectors.dim for vectors in self.fields.values())
        kept = min(self.max_features, width)
        axes = None
        if kept < width:
            picked = np.arange(0, n_items, max(1, n_items // 20_000))
            sample = np.hstack([vectors.take(picked) for vectors in self.fields.values()]).astype(np.float64)
            _, vectors_ = np.linalg.eigh(sample.T @ sample)
            axes = vectors_[:, ::-1][:, :kept].astype(np.float32)
        features = np.ones((n_items, kept + 1), dtype=np.float32)
        for start in range(0, n_items, _BLOCK):
            asked = np.arange(start, min(start + _BLOCK, n_items))
            block = np.hstack([vectors.take(asked) for vectors in self.fields.values()])
            features[asked, :kept] = block if axes is None else block @ axes
        return features

    def scores(self, histories: Behaviour, columns: Keys | None = None) -> NDArray[np.float32]:
        """Foretold similarity to what each person likes, (n_users, n_items) or (n_users, m) float32."""
        asked = check_fit(histories, self.n_items, columns)
        answer: NDArray[np.float32] = self._tastes(histories) @ self._to[asked].T
        return answer

    def _tastes(self, histories: Behaviour) -> NDArray[np.float32]:
        """(n_users, n_features + 1): what each person wants of content."""
        say = says(histories, self.dislike) * recency(histories, self.decay)
        tastes = np.zeros((histories.n_users, self._to.shape[1]), dtype=np.float32)
        kept = np.flatnonzero(say)
        np.add.at(tastes, histories.users[kept], say[kept, None] * self._from[histories.items[kept]])
        return tastes

    def candidates(self, histories: Behaviour, k: int) -> list[Keys]:
        """The best k items of each person by a scan; see ``Recommender``."""
        check_k(k)
        check_fit(histories, self.n_items, ())
        return [best_first(np.arange(self.n_items), row, k)[0] for row in self.scores(histories)]

    def contributions(self, history: Behaviour, column: int) -> NDArray[np.float32]:
        """How much each event adds to an item's score, (n_events,) float32; the score is their sum."""
        check_fit(history, self.n_items)
        check_one(history, column)
        say = says(history, self.dislike) * recency(history, self.decay)
        parts: NDArray[np.float32] = (say * (self._from[history.items] @ self._to[column])).astype(np.float32)
        return parts

    def state(self) -> dict[str, NDArray[Any]]:
        """``from`` and ``to``, each (n_items, n_features + 1) float32."""
        return {"from": self._from, "to": self._to}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> Self:
        """Take back what ``state`` gave."""
        self._from, self._to = state["from"], state["to"]
        self.n_items = len(self._to)
        return self
