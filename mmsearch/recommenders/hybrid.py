"""``Hybrid``: behaviour and content blended by weights that are fitted on what people did next."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mmsearch.behaviour import Behaviour
from mmsearch.errors import InvalidInput
from mmsearch.protocols import Recommender
from mmsearch.recommenders.blend import Cases, fit_weights, offset_for_share
from mmsearch.recommenders.histories import check_fit, check_one
from mmsearch.recommenders.linear import Linear
from mmsearch.recsplits import Split, cold_items, leave_last_out
from mmsearch.types import Keys
from mmsearch.vectors import best_first, check_k

_MOST_PEOPLE = 2_000
"""People on whom the weights are fitted, at most."""
_N_CANDIDATES = 200
"""Candidates of each part among which the weights are fitted, and of which answers are made."""


@dataclass(frozen=True, slots=True)
class Part:
    """One recommender of a blend.

    ``make`` makes it anew, for fitting on a part of the behaviour; ``name`` is its own among the parts, ``reason`` the
    word for it in explanations. ``cold``: whether it has something to say of items without behaviour. ``fading``: a
    second opinion of the same model with more regard to what a person did last (see ``Linear.lately``); None: none.
    """

    name: str
    make: Callable[[], Recommender]
    reason: str
    cold: bool = False
    fading: float | None = None


@dataclass(frozen=True, slots=True)
class Say:
    """What one part adds to a score: ``amount`` in all, and (n_events,) ``by_event`` of the person's history."""

    part: Part
    amount: float
    by_event: NDArray[np.float32]


class Hybrid:
    """A weighted sum of the scores of other recommenders.

    Items that somebody likes have one set of weights, fitted so that what people did last comes before what else the
    parts had in mind (softmax over the candidates of all parts; weights are not negative, so that each part's share
    can be told). Items without behaviour have another set, over the parts that go by content, fitted on items whose
    behaviour is hidden for the purpose; what is added to their scores is chosen such that they take ``fresh`` of the
    first ten places, were a fifth of all items hidden. After that all parts are fitted again on everything.

    Items may come after it was fitted: they are items without behaviour.

    Parameters
    ----------
    parts
        The recommenders; at least one.
    fresh
        The share of the first ten places, on average, for items without behaviour where a fifth of all are. They would
        hardly be seen otherwise, and nobody could find out whether they are liked.
    seed
        Chooses the items that are hidden, and people where there are more than 2,000.

    Raises
    ------
    InvalidInput
        If there is no part, two have one name, or ``fresh`` is not from 0 to 1.
    """

    name = "hybrid"

    def __init__(self, parts: Sequence[Part], *, fresh: float = 0.1, seed: int = 0) -> None:
        if not parts or len({part.name for part in parts}) < len(parts):
            raise InvalidInput("expected parts with names of their own, at least one")
        if not 0 <= fresh <= 1:
            raise InvalidInput(f"expected fresh as a share from 0 to 1, got {fresh!r}")
        self.parts, self.fresh, self.seed = tuple(parts), fresh, seed
        self.models: dict[str, Recommender] = {}
        self.n_items = -1
        # Whoever has a say: each part, and those that fade once more.
        self.voices = [(part, None) for part in parts] + [(part, part.fading) for part in parts if part.fading]
        self._reset()

    def _reset(self) -> None:
        self.warm_weights = np.ones(len(self.voices))
        self.cold_weights = np.array([float(part.cold and not fading) for part, fading in self.voices])
        self.offset = 0.0
        self._cold = np.zeros(0, dtype=bool)

    # Learning ---------------------------------------------------------------------------------------------------

    def fit(self, behaviour: Behaviour) -> Self:
        """Fit the weights on what is held out of ``behaviour``, then the parts on all of it.

        Where too little is there to hold anything out, all parts weigh the same.
        """
        self._reset()
        last = _split_or_none(lambda: leave_last_out(behaviour, min_history=2))
        if last is not None:
            self._fit_parts(last.train)
            cases = self._cases(last, range(len(self.voices)))
            weights = fit_weights(cases)
            usual = [case.said @ weights for case in cases]
            hidden = _split_or_none(lambda: cold_items(last.train, 0.2, self.seed))
            if hidden is not None:
                self._fit_cold(hidden, usual)
            self.warm_weights = weights
        self._fit_parts(behaviour)
        return self

    def _fit_cold(self, hidden: Split, usual: Sequence[NDArray[np.float64]]) -> None:
        """Weights for items without behaviour, on hidden ones; ``usual`` are scores of the others."""
        by_content = [n for n, (part, fading) in enumerate(self.voices) if part.cold and not fading]
        if not by_content:
            return
        self._fit_parts(hidden.train)
        cases = self._cases(hidden, by_content, np.flatnonzero(hidden.cold))
        self.cold_weights = np.zeros(len(self.voices))
        self.cold_weights[by_content] = fit_weights(cases)
        others = [case.said @ self.cold_weights[by_content] for case in cases]
        self.offset = offset_for_share(usual, others, self.fresh)

    def _fit_parts(self, behaviour: Behaviour) -> None:
        self.n_items = behaviour.n_items
        self.models = {part.name: part.make().fit(behaviour) for part in self.parts}
        self._cold = np.asarray(behaviour.liked().sum(axis=0)).ravel() == 0

    def _cases(self, split: Split, voices: Sequence[int], columns: Keys | None = None) -> list[Cases]:
        """For each person what voices say of unseen candidates (or ``columns``), and which of these are answers."""
        people = np.sort(np.random.default_rng(self.seed).permutation(len(split))[:_MOST_PEOPLE])
        histories = split.histories.of_users(people)
        in_mind = self._candidates(histories, _N_CANDIDATES) if columns is None else [columns] * len(people)
        cases = []
        for n, person in enumerate(people):
            history, right = histories.of_users([n]), split.answers[person]
            among = np.union1d(in_mind[n], right) if columns is None else columns
            among = np.setdiff1d(among, history.items)
            said = np.stack([self._said(self.voices[n], history, among)[0] for n in voices], axis=1)
            cases.append(Cases(said.astype(np.float64), np.isin(among, right)))
        return cases

    # Answering --------------------------------------------------------------------------------------------------

    def scores(self, histories: Behaviour, columns: Keys | None = None) -> NDArray[np.float32]:
        """The blended scores, (n_users, n_items) or (n_users, m) float32; see ``Recommender``."""
        asked = check_fit(histories, self.n_items, columns)
        cold = self._cold[asked]
        answer = np.zeros((histories.n_users, len(asked)), dtype=np.float32)
        answer[:, cold] = self.offset
        for voice, warm_weight, cold_weight in zip(self.voices, self.warm_weights, self.cold_weights, strict=True):
            if warm_weight or cold_weight:
                weights = np.where(cold, cold_weight, warm_weight).astype(np.float32)
                answer += weights * self._said(voice, histories, asked)
        return answer

    def _said(self, voice: tuple[Part, float | None], histories: Behaviour, columns: Keys) -> NDArray[np.float32]:
        """What a voice says, (n_users, m): 0 of items that came after its model was fitted."""
        model = self._model(voice)
        known = columns < model.n_items
        if model.n_items == self.n_items:
            return model.scores(histories, columns)
        answer = np.zeros((histories.n_users, len(columns)), dtype=np.float32)
        answer[:, known] = model.scores(histories.over(model.n_items), columns[known])
        return answer

    def _model(self, voice: tuple[Part, float | None]) -> Recommender:
        part, fading = voice
        model = self.models[part.name]
        return model.lately(fading or 1.0) if isinstance(model, Linear) else model

    def candidates(self, histories: Behaviour, k: int) -> list[Keys]:
        """The best k of what the parts have in mind, at least 200 of each; see ``Recommender``."""
        check_k(k)
        check_fit(histories, self.n_items, ())
        found = []
        for person, among in enumerate(self._candidates(histories, max(k, _N_CANDIDATES))):
            scores = self.scores(histories.of_users([person]), among)[0]
            found.append(best_first(among, scores, k)[0])
        return found

    def _candidates(self, histories: Behaviour, k: int) -> list[Keys]:
        """What the voices have in mind for each person, together and ascending."""
        models = [self._model(voice) for voice in self.voices]
        lists = [model.candidates(histories.over(model.n_items), k) for model in models]
        return [np.unique(np.concatenate(its)).astype(np.int64) for its in zip(*lists, strict=True)]

    def says(self, history: Behaviour, column: int) -> list[Say]:
        """What each part adds to an item's score, those that add something, the largest first."""
        check_fit(history, self.n_items)
        check_one(history, column)
        weights = self.cold_weights if self._cold[column] else self.warm_weights
        found: dict[str, Say] = {}
        for voice, weight in zip(self.voices, weights, strict=True):
            part, model = voice[0], self._model(voice)
            if not weight or column >= model.n_items:
                continue
            amount = float(weight * self._said(voice, history, np.array([column]))[0, 0])
            by_event = np.zeros(len(history), dtype=np.float32)
            by_event[history.items < model.n_items] = weight * model.contributions(history.over(model.n_items), column)
            before = found.get(part.name)
            if before is not None:
                amount, by_event = amount + before.amount, by_event + before.by_event
            found[part.name] = Say(part, amount, by_event)
        return sorted((say for say in found.values() if say.amount), key=lambda say: -say.amount)

    def contributions(self, history: Behaviour, column: int) -> NDArray[np.float32]:
        """How much each event adds to an item's score, (n_events,) float32, where that can be told."""
        return sum((say.by_event for say in self.says(history, column)), np.zeros(len(history), np.float32))

    # Keeping ----------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, NDArray[Any]]:
        """The weights, and each part's own state under its name."""
        arrays: dict[str, NDArray[Any]] = {
            "parts": np.frombuffer("\n".join(part.name for part in self.parts).encode(), dtype=np.uint8),
            "warm_weights": self.warm_weights,
            "cold_weights": self.cold_weights,
            "offset": np.array([self.offset]),
            "cold": self._cold,
        }
        for name, model in self.models.items():
            arrays |= {f"{name}.{key}": value for key, value in model.state().items()}
        return arrays

    @staticmethod
    def names_in(state: Mapping[str, NDArray[Any]]) -> list[str]:
        """The names of the parts of which ``state`` is."""
        return bytes(np.asarray(state["parts"])).decode().split("\n")

    def restore(self, state: Mapping[str, NDArray[Any]]) -> Self:
        """Take back what ``state`` gave; items that its parts have come to know since are without behaviour.

        Raises
        ------
        InvalidInput
            If it was made of other parts.
        """
        names = self.names_in(state)
        if names != [part.name for part in self.parts]:
            raise InvalidInput(f"expected a blend of {', '.join(p.name for p in self.parts)}, got {', '.join(names)}")
        for part in self.parts:
            own = {key.removeprefix(f"{part.name}."): v for key, v in state.items() if key.startswith(f"{part.name}.")}
            self.models[part.name] = part.make().restore(own)
        self.warm_weights, self.cold_weights = np.array(state["warm_weights"]), np.array(state["cold_weights"])
        self.offset = float(state["offset"][0])
        self.n_items = max(model.n_items for model in self.models.values())
        self._cold = np.ones(self.n_items, dtype=bool)
        self._cold[: len(state["cold"])] = state["cold"]
        return self


def _split_or_none(make: Callable[[], Split]) -> Split | None:
    """None where nobody has enough behaviour to hold anything out."""
    try:
        return make()
    except InvalidInput:
        return None
