"""``Bridge``: what behaviour says of items that nobody has had yet, learnt from those that people have had."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mmsearch.behaviour import Behaviour
from mmsearch.errors import InvalidInput
from mmsearch.recommenders.histories import (
    as_plain,
    averaged,
    check_fit,
    check_learnt,
    check_number,
    check_one,
    likes,
    recency,
    says,
)
from mmsearch.recommenders.itemvectors import ItemVectors
from mmsearch.recommenders.top import best_columns
from mmsearch.types import Keys, Vectors

_BLOCK = 32_768
_SAMPLE = 20_000


class Bridge:
    """Item-to-item cosines of behaviour, foretold from content for every item, those without behaviour included.

    Attributes are mapped to what collaborative filtering knows, as by Gantner et al. (ICDM 2010), here in closed
    form: with S the items' cosines by who likes both (0 of an item to itself), A the content of the items that anybody
    likes and F that of all, each with a constant beside it, the score of item i for a history h is
    ``h S (A (A'A + l2 I)^-1) F_i``: the person's scores of the items with behaviour, carried over to item i by ridge
    regression on content. S is never formed.

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
        If there is no field, they are of different numbers of items, or a setting is out of range.
    """

    name = "bridge"
    _from: NDArray[np.float32]
    _to: NDArray[np.float32]
    _axes: NDArray[np.float32]

    def __init__(
        self,
        fields: Mapping[str, ItemVectors],
        *,
        l2: float = 10.0,
        max_features: int = 256,
        decay: float = 1.0,
        dislike: float = 0.5,
    ) -> None:
        if not fields or len({len(vectors) for vectors in fields.values()}) > 1:
            raise InvalidInput("expected vectors of at least one field, and as many items in each")
        self.fields = dict(fields)
        self.l2, self.max_features = check_number("l2", l2, 1e-6), int(check_number("max_features", max_features, 1))
        self.decay, self.dislike = check_number("decay", decay, 1e-6, 1), check_number("dislike", dislike, 0)
        self.n_items = -1

    def fit(self, behaviour: Behaviour) -> Self:
        """Regress who likes what on content. Takes O(n_items dim^2 + n_events dim) time.

        Raises
        ------
        InvalidInput
            If the behaviour is of another number of items than the fields.
        """
        n_items = len(next(iter(self.fields.values())))
        check_fit(behaviour, n_items, ())
        self._axes = self._find_axes(n_items)
        features = self._features(0, n_items)
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

    def _find_axes(self, n_items: int) -> NDArray[np.float32]:
        """(dim, n_features): the directions of most variance, of a sample of items; as wide as the fields at most."""
        picked = np.arange(0, n_items, max(1, n_items // _SAMPLE))
        sample = self._side_by_side(picked).astype(np.float64)
        if sample.shape[1] <= self.max_features:
            return np.eye(sample.shape[1], dtype=np.float32)
        axes = np.linalg.eigh(sample.T @ sample)[1][:, ::-1][:, : self.max_features]
        return axes.astype(np.float32)

    def _features(self, first: int, n_items: int) -> NDArray[np.float32]:
        """(n_items - first, n_features + 1) float32: the fields side by side along the axes, and a constant."""
        features = np.ones((n_items - first, self._axes.shape[1] + 1), dtype=np.float32)
        for start in range(first, n_items, _BLOCK):
            asked = np.arange(start, min(start + _BLOCK, n_items))
            features[asked - first, :-1] = self._side_by_side(asked) @ self._axes
        return features

    def _side_by_side(self, asked: Keys) -> Vectors:
        return np.hstack([vectors.take(asked) for vectors in self.fields.values()])

    def scores(self, histories: Behaviour, columns: Keys | None = None) -> NDArray[np.float32]:
        """Foretold similarity to what each person likes, (n_users, n_items) or (n_users, m) float32."""
        asked = check_fit(histories, self.n_items, columns)
        to = self._to if columns is None else self._to[asked]
        answer: NDArray[np.float32] = self._tastes(histories) @ to.T
        return answer

    def _tastes(self, histories: Behaviour) -> NDArray[np.float32]:
        """(n_users, n_features + 1): what each person wants of content."""
        say = self._says(histories)
        tastes = np.zeros((histories.n_users, self._to.shape[1]), dtype=np.float32)
        kept = np.flatnonzero(say)
        np.add.at(tastes, histories.users[kept], say[kept, None] * self._from[histories.items[kept]])
        return tastes

    def _says(self, histories: Behaviour) -> NDArray[np.float32]:
        """How much say each event has: those of a person add up to 1 in size."""
        return averaged(says(histories, self.dislike) * recency(histories, self.decay), histories)

    def candidates(self, histories: Behaviour, k: int) -> list[Keys]:
        """The best k of all unseen items, for each person; see ``Recommender``."""
        return [best.keys for best in best_columns(self, histories, k)]

    def contributions(self, history: Behaviour, column: int) -> NDArray[np.float32]:
        """How much each event adds to an item's score, (n_events,) float32; the score is their sum."""
        check_fit(history, self.n_items)
        check_one(history, column)
        say = self._says(history)
        parts: NDArray[np.float32] = (say * (self._from[history.items] @ self._to[column])).astype(np.float32)
        return parts

    def state(self) -> dict[str, NDArray[Any]]:
        """``from`` and ``to``, each (n_items, n_features + 1) float32, and ``axes``, (dim, n_features) float32."""
        check_learnt(self.n_items)
        return {"from": self._from, "to": self._to, "axes": self._axes}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> Self:
        """Take back what ``state`` gave; items that the fields have got since are foretold as well.

        Raises
        ------
        InvalidInput
            If the fields have vectors of another width than those it was learnt with, or of fewer items.
        """
        n_items = len(next(iter(self.fields.values())))
        width = sum(vectors.dim for vectors in self.fields.values())
        if width != len(state["axes"]) or n_items < len(state["to"]):
            raise InvalidInput(
                f"expected vectors {len(state['axes'])} wide of {len(state['to'])} items or more, got {width} wide of "
                f"{n_items}: fit anew"
            )
        self._from, self._to, self._axes = (as_plain(state[name]) for name in ("from", "to", "axes"))
        if n_items > len(self._to):
            later = self._features(len(self._to), n_items)
            self._to = np.concatenate([self._to, later])
            self._from = np.concatenate([self._from, np.zeros_like(later)])
        self.n_items = n_items
        return self
