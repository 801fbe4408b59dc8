"""``Hybrid``: behaviour and content blended by weights that are fitted on what people did next."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mmsearch.behaviour import Behaviour
from mmsearch.errors import InvalidInput
from mmsearch.protocols import Recommender
from mmsearch.recommenders.blend import Cases, fit_weights, offset_for_share
from mmsearch.recommenders.histories import check_fit, check_learnt, check_number, check_one
from mmsearch.recommenders.linear import Linear
from mmsearch.recommenders.parts import Part, Say, Voice, checked
from mmsearch.recsplits import Split, cold_items, leave_last_out
from mmsearch.types import Keys
from mmsearch.vectors import best_first, check_k

_MOST_PEOPLE = 2_000
"""People on whom the weights are fitted, at most."""
_N_CANDIDATES = 200
"""Candidates of each part among which the weights are fitted, and of which answers are made."""
_HIDDEN_SCORES = 20_000_000
"""Hidden items times people that the weights of items without behaviour are fitted on, at most, or a little more."""
_N_HIDDEN = 1_000
"""Hidden items of each part among which the weights for items without behaviour are fitted."""
_USUAL_SHARE = 0.2
"""Of the items, for which ``fresh`` is meant."""
_TOLD = 0.02
"""The least share of what speaks for an item that is told by event."""
_ENOUGH = 300
"""People, at least, by whom the offset of items without behaviour is chosen, where there are more."""
_SCORES = 8_000_000
"""Scores of hidden items held at once: 32 MB."""


class Hybrid:
    """A weighted sum of the scores of other recommenders.

    Items that somebody likes have one set of weights, fitted so that what people did last comes before what else the
    parts had in mind (softmax over the candidates of all parts; weights are not negative, so that each part's share
    can be told). Items without behaviour have another set, over the parts that go by content, fitted on items whose
    behaviour is hidden for the purpose. After that all parts are fitted again on everything, and what is added to the
    scores of items without behaviour is chosen such that they take ``fresh`` of the first ten places; where there are
    none yet, by the hidden ones. Without a part that goes by content, these items have the score 0.

    Items may come after it was fitted: they are items without behaviour.

    Parameters
    ----------
    parts
        The recommenders; at least one.
    fresh
        The share of the first ten places, on average over people, for items without behaviour where a fifth of all
        items or more are; in proportion where fewer are. They would hardly be seen otherwise, and nobody could find
        out whether they are liked.
    seed
        Chooses the items that are hidden, and people where there are more than 2,000.

    Raises
    ------
    InvalidInput
        If there is no part, two have one name, a name has a dot or a line break in it, or a setting is out of range.
    """

    name = "hybrid"

    def __init__(self, parts: Sequence[Part], *, fresh: float = 0.1, seed: int = 0) -> None:
        names = [part.name for part in parts]
        if not parts or len(set(names)) < len(parts) or any(set(name) & {".", "\n"} for name in names):
            raise InvalidInput(f"expected parts with names of their own without dots, at least one, got {names}")
        for part in parts:
            if part.fading is not None:
                check_number(f"the fading of {part.name}", part.fading, 1e-6, 1)
        self.parts, self.fresh, self.seed = tuple(parts), check_number("fresh", fresh, 0, 1), seed
        self.models: dict[str, Recommender] = {}
        self.n_items = -1
        # Whoever has a say: each part, and those that fade once more.
        self.voices: list[Voice] = [(part, None) for part in parts]
        self.voices += [(part, part.fading) for part in parts if part.fading]
        self._reset()

    def _reset(self) -> None:
        self.warm_weights = np.array([float(not fading) for _, fading in self.voices])
        self.cold_weights = np.array([float(part.cold and not fading) for part, fading in self.voices])
        self.offset = 0.0
        self._cold = np.zeros(0, dtype=bool)

    # Learning ---------------------------------------------------------------------------------------------------

    def fit(self, behaviour: Behaviour) -> Self:
        """Fit the weights on what is held out of ``behaviour``, then the parts on all of it.

        Where too little is there to hold anything out, all parts weigh the same.

        Raises
        ------
        InvalidInput
            If a part does not know these items, or should fade and cannot.
        """
        self._reset()
        last = _split_or_none(lambda: leave_last_out(behaviour, min_history=2))
        if last is not None:
            self._fit_parts(last.train)
            self.warm_weights = fit_weights([case for _, case in self._cases(last, self._people(last))])
            hidden = _split_or_none(lambda: cold_items(last.train, _USUAL_SHARE, self.seed))
            if hidden is not None:
                self._fit_cold(hidden)
        self._fit_parts(behaviour)
        self._fit_offset(behaviour)
        return self

    def _fit_offset(self, behaviour: Behaviour) -> None:
        """Choose the offset by the items that have no behaviour, if there are any: they may be unlike hidden ones."""
        cold = np.flatnonzero(self._cold)
        people = np.flatnonzero(np.diff(behaviour.starts))
        if not len(cold) or not len(people) or not self.cold_weights.any():
            return
        many = max(len(people) // _ENOUGH, len(people) * len(cold) // _HIDDEN_SCORES, 1)
        histories = behaviour.of_users(people[::many])
        self.offset, usual, others = 0.0, [], []
        for person, among in enumerate(self._candidates(histories, _N_CANDIDATES)):
            history = histories.of_users([person])
            among = np.setdiff1d(among, history.items)
            usual.append(self.scores(history, among[~self._cold[among]])[0].astype(np.float64))
            others.append(self.scores(history, np.setdiff1d(cold, history.items))[0].astype(np.float64))
        share = self.fresh * min(1.0, len(cold) / self.n_items / _USUAL_SHARE)
        self.offset = offset_for_share(usual, others, share)

    def _fit_cold(self, hidden: Split) -> None:
        """Weights for items without behaviour, on hidden ones, and what is added so that they are seen."""
        by_content = [n for n, (part, fading) in enumerate(self.voices) if part.cold and not fading]
        if not by_content:
            return
        self._fit_parts(hidden.train)
        people = self._people(hidden)
        # Of many hidden items, all of which are scored, for fewer people; they are spread over all.
        people = people[:: max(1, len(people) * int(hidden.cold.sum()) // _HIDDEN_SCORES)]
        cases = self._hidden_cases(hidden, people, [self.voices[n] for n in by_content])
        weights = fit_weights(cases)
        self.cold_weights = np.zeros(len(self.voices))
        self.cold_weights[by_content] = weights
        some = slice(None, None, max(1, len(people) // _ENOUGH))
        known = self._cases(hidden, people[some])
        usual = [case.said[~hidden.cold[among]] @ self.warm_weights for among, case in known]
        self.offset = offset_for_share(usual, [case.said @ weights for case in cases[some]], self.fresh)

    def _fit_parts(self, behaviour: Behaviour) -> None:
        self.n_items = behaviour.n_items
        self.models = {part.name: checked(part, part.make().fit(behaviour)) for part in self.parts}
        self._cold = np.asarray(behaviour.liked().sum(axis=0)).ravel() == 0

    def _people(self, split: Split) -> Keys:
        """Those on whom weights are fitted, as positions in the split."""
        return np.sort(np.random.default_rng(self.seed).permutation(len(split))[:_MOST_PEOPLE])

    def _cases(self, split: Split, people: Keys) -> list[tuple[Keys, Cases]]:
        """For each person the unseen candidates and answers, what the voices say of them, and which are answers."""
        histories, cases = split.histories.of_users(people), []
        for n, in_mind in enumerate(self._candidates(histories, _N_CANDIDATES)):
            history, right = histories.of_users([n]), split.answers[people[n]]
            among = np.setdiff1d(np.union1d(in_mind, right), history.items)
            said = np.stack([self._said(voice, history, among)[0] for voice in self.voices], axis=1)
            cases.append((among, Cases(said.astype(np.float64), np.isin(among, right))))
        return cases

    def _hidden_cases(self, split: Split, people: Keys, voices: Sequence[Voice]) -> list[Cases]:
        """For each person what some voices say of the best hidden items by each, and which of these are answers."""
        columns, cases = np.flatnonzero(split.cold), []
        step = max(1, _SCORES // (len(columns) * len(voices)))
        for start in range(0, len(people), step):
            some = people[start : start + step]
            histories = split.histories.of_users(some)
            said = np.stack([self._said(voice, histories, columns) for voice in voices], axis=2)
            for person, its in zip(some, said, strict=True):
                right = np.isin(columns, split.answers[person])
                kept = right.copy()
                for scores in its.T:
                    kept[best_first(np.arange(len(columns)), scores, _N_HIDDEN)[0]] = True
                cases.append(Cases(its[kept].astype(np.float64), right[kept]))
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

    def _said(self, voice: Voice, histories: Behaviour, columns: Keys) -> NDArray[np.float32]:
        """What a voice says, (n_users, m): 0 of items that came after its model was fitted."""
        model = self._model(voice)
        if model.n_items == self.n_items:
            return model.scores(histories, columns)
        known = columns < model.n_items
        answer = np.zeros((histories.n_users, len(columns)), dtype=np.float32)
        answer[:, known] = model.scores(histories.over(model.n_items), columns[known])
        return answer

    def _model(self, voice: Voice) -> Recommender:
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
        models = [self._model(voice) for voice in self.voices if voice[0].nominates]
        lists = [model.candidates(histories.over(model.n_items), k) for model in models]
        none = [np.zeros(0, np.int64)] * histories.n_users
        return [np.unique(np.concatenate(its)).astype(np.int64) for its in zip(none, *lists, strict=True)]

    def says(self, history: Behaviour, columns: Keys) -> list[list[Say]]:
        """What each part adds to the scores of items: for each, those parts that add something, the largest first.

        Parts that add less than a fiftieth of all that speaks for an item do not tell by which events.
        """
        asked = check_fit(history, self.n_items, columns)
        check_one(history, 0)
        added: dict[str, NDArray[np.float32]] = {}
        for voice, warm, cold in zip(self.voices, self.warm_weights, self.cold_weights, strict=True):
            if warm or cold:
                name = voice[0].name
                weights = np.where(self._cold[asked], cold, warm).astype(np.float32)
                added[name] = added.get(name, np.float32(0)) + weights * self._said(voice, history, asked)[0]
        found = []
        for n, column in enumerate(asked.tolist()):
            amounts = {name: float(values[n]) for name, values in added.items() if values[n]}
            least = _TOLD * sum(max(0.0, amount) for amount in amounts.values())
            its = [
                Say(part, amounts[part.name], self._by_event(part, history, column, amounts[part.name] >= least))
                for part in self.parts
                if part.name in amounts
            ]
            found.append(sorted(its, key=lambda say: -say.amount))
        return found

    def _by_event(self, part: Part, history: Behaviour, column: int, told: bool) -> NDArray[np.float32]:
        """What each event adds to an item's score through a part, (n_events,); zeros if that need not be ``told``."""
        by_event = np.zeros(len(history), dtype=np.float32)
        weights = self.cold_weights if self._cold[column] else self.warm_weights
        for voice, weight in zip(self.voices, weights, strict=True) if told else ():
            model = self._model(voice)
            if voice[0] is part and weight and column < model.n_items:
                known = history.over(model.n_items)
                by_event[history.items < model.n_items] += np.float32(weight) * model.contributions(known, column)
        return by_event

    def contributions(self, history: Behaviour, column: int) -> NDArray[np.float32]:
        """How much each event adds to an item's score, (n_events,) float32, where that can be told.

        The score is their sum, what parts add that cannot say where from, as popularity, and, for items without
        behaviour, the offset.
        """
        check_fit(history, self.n_items)
        check_one(history, column)
        nothing = np.zeros(len(history), dtype=np.float32)
        return sum((self._by_event(part, history, column, True) for part in self.parts), nothing)

    # Keeping ----------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, NDArray[Any]]:
        """The weights, and each part's own state under its name."""
        check_learnt(self.n_items)
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
            If it was made of other parts, or they know fewer items than at fitting.
        """
        names = self.names_in(state)
        if names != [part.name for part in self.parts]:
            raise InvalidInput(f"expected a blend of {', '.join(p.name for p in self.parts)}, got {', '.join(names)}")
        if len(state["warm_weights"]) != len(self.voices):
            raise InvalidInput(
                f"expected weights of {len(self.voices)} voices, got {len(state['warm_weights'])}: other parts fade"
            )
        for part in self.parts:
            own = {key.removeprefix(f"{part.name}."): v for key, v in state.items() if key.startswith(f"{part.name}.")}
            self.models[part.name] = checked(part, part.make().restore(own))
        n_items, n_fitted = max(model.n_items for model in self.models.values()), len(state["cold"])
        if n_items < n_fitted:
            raise InvalidInput(f"expected parts that know {n_fitted} items or more, got {n_items}")
        self.warm_weights, self.cold_weights = np.array(state["warm_weights"]), np.array(state["cold_weights"])
        self.offset, self.n_items = float(state["offset"][0]), n_items
        self._cold = np.concatenate([state["cold"], np.ones(n_items - n_fitted, dtype=bool)])
        return self


def _split_or_none(make: Callable[[], Split]) -> Split | None:
    """None where nobody has enough behaviour to hold anything out."""
    try:
        return make()
    except InvalidInput:
        return None
