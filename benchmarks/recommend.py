"""Recommendation on rated films with posters: every model beside each other, new films, and what pictures are worth.

::

    python benchmarks/recommend.py --data ../shared/data/movielens-posters [--store DIR] [--quick] [--json]

The folder holds ``items.jsonl`` with ``image``, ``movie_id``, ``title`` and ``genres``, the pictures, and
``ratings.csv``. Every rating is above 0 and so counts as a like, as ``add_interactions`` has it: what is foretold is
what people watch and rate, not whether they rate it high. All films that are new to a person are ranked. Intervals are
95%, over people: they say nothing on other training data, for which further draws of new films are there.

Nothing is chosen here. All settings (neighbours, shrinkage, l2, factors, what a step back counts, the profile, the
ridge of the bridge, ``fresh``) were chosen on the inner splits ``inner(leave_last_out(...))`` and
``inner(cold_items(...))`` with seed 0, whose answers are in the training part of the first two tables. So they were not
chosen on these tables' answers; but films of the seeds 1 and 2 and events of the split by time were among what they
were chosen on. The weights of the hybrid are fitted on what it holds out of its own training part.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import combinations, product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mmsearch import Engine
from mmsearch.behaviour import Behaviour
from mmsearch.lineup import Lineup, hybrid
from mmsearch.metrics import Interval
from mmsearch.protocols import Recommender
from mmsearch.receval import HYBRID, RecEvaluation, evaluate_recommenders
from mmsearch.recommenders.bridge import Bridge
from mmsearch.recommenders.content import Content
from mmsearch.recommenders.ease import Ease
from mmsearch.recommenders.neighbors import ItemNeighbors
from mmsearch.recommenders.popularity import Popular, Random
from mmsearch.recommenders.profiles import NEAREST
from mmsearch.recsplits import Split, cold_items, inner, last_share, leave_last_out, split_at
from mmsearch.stock import DETAILS, Stock
from mmsearch.store import Store
from mmsearch.types import Keys

K = 10
MEASURES = (f"nDCG@{K}", f"recall@{K}", f"MRR@{K}")
COLUMNS = (MEASURES, (f"coverage@{K}", f"novelty@{K}", f"ILD@{K}", f"ARP@{K}"))
PICTURE = "picture"
SHOWN = {PICTURE: "posters", "text": "titles", DETAILS: "genres"}
SHARE, SEEDS = 0.2, (0, 1, 2)
FRESH = (0.0, 0.2)  # beside the hybrid's own 0.1
BARE = "hybrid, no posters"
FEW = ("random", "popular", "items", "ease", "als", "sessions", "content", HYBRID)
"""The models of the split by time, and of all tables if it is to be quick."""
NOT_BELOW, ABOVE = "the interval does not lie below 0", "the interval lies above 0"
Names: TypeAlias = Sequence[str]
Models: TypeAlias = Mapping[str, Callable[[], Recommender]]


# Models that are not in the line-up -----------------------------------------------------------------------------------


class EaseLately(Ease):
    """EASE with more regard to what a person did last: each step back counts 0.8, as in the hybrid."""

    def fit(self, behaviour: Behaviour) -> Self:
        """Learn as ``Ease``."""
        return super().fit(behaviour).lately(0.8)


class ItemsLately(ItemNeighbors):
    """Item neighbours with more regard to what a person did last: each step back counts 0.5, as in the hybrid."""

    def fit(self, behaviour: Behaviour) -> Self:
        """Learn as ``ItemNeighbors``."""
        return super().fit(behaviour).lately(0.5)


LATELY: Models = {"ease lately": EaseLately, "items lately": ItemsLately}


class GenrePopularity(Popular):
    """Films of genres whose films are liked most, the same for everybody: a baseline that can tell new films apart.

    A genre is worth the mean number of people who like a film of it, over its films that anybody had in training; a
    film is worth the mean of its genres, 0 without one. Many films have the same genres: they follow by chance, in
    another order for each person, so that none gains by its position.

    Parameters
    ----------
    genres
        The genres of each film, by position.
    """

    name = "genre popularity"

    def __init__(self, genres: Sequence[Names]) -> None:
        super().__init__()
        self.genres = genres

    def fit(self, behaviour: Behaviour) -> Self:
        """Count likes."""
        likes = np.bincount(behaviour.liked().indices, minlength=behaviour.n_items)
        had = np.bincount(behaviour.items, minlength=behaviour.n_items) > 0
        counts: dict[str, list[int]] = {}
        for film in np.flatnonzero(had):
            for genre in self.genres[int(film)]:
                counts.setdefault(genre, []).append(int(likes[film]))
        worth = {genre: float(np.mean(of_films)) for genre, of_films in counts.items()}
        of_films = [[worth.get(genre, 0.0) for genre in its] for its in self.genres]
        means = np.array([math.fsum(its) / len(its) if its else 0.0 for its in of_films])
        # Whole numbers, one for each different mean: chance, which is below 1, decides only where means are equal.
        ranks = np.unique(means, return_inverse=True)[1].astype(np.float32)
        return self.restore({"scores": ranks, "order": np.argsort(-ranks, kind="stable")})

    def scores(self, histories: Behaviour, columns: Keys | None = None) -> NDArray[np.float32]:
        """(n_users, n_items) or (n_users, m) float32; see ``Recommender``."""
        return super().scores(histories, columns) + Random().fit(histories).scores(histories, columns)


class Alike(Content):
    """``Content`` where films that are equally like what somebody had, to four digits, follow by chance.

    Hundreds of films have the very same genres. Without this, rounding and position would tell which of them everybody
    is shown, and the figures of genres alone would be those of a few films.
    """

    def scores(self, histories: Behaviour, columns: Keys | None = None) -> NDArray[np.float32]:
        """(n_users, n_items) or (n_users, m) float32; see ``Recommender``."""
        chance = Random().fit(histories).scores(histories, columns)
        return np.round(super().scores(histories, columns), 4) + np.float32(1e-4) * chance


# The benchmark --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Films:
    """The films of a store, what people had, and what makes each model."""

    lineup: Lineup
    stock: Stock
    genres: Sequence[Names]

    def judged(self, split: Split, models: Models, before: RecEvaluation | None = None) -> RecEvaluation:
        """Models on a split, after those that were judged ``before`` on the same split."""
        found = evaluate_recommenders(split, models, MEASURES, k=K, vectors=self.lineup.vectors)
        for name, reason in found.left_out.items():
            print(f"left out {name}: {reason}")
        if before is None:
            return found
        return replace(found, lists={**before.lists, **found.lists}, values={**before.values, **found.values})

    def without_posters(self) -> Models:
        """The hybrid that knows no posters: neither by its own part for them nor by the bridge."""
        fields = {name: vectors for name, vectors in self.stock.fields.items() if name != PICTURE}
        return {BARE: partial(hybrid, replace(self.stock, fields=fields))}

    def by_fields(self, make: Callable[..., Recommender], **settings: object) -> Models:
        """A model for each field, each two and so on, by the fields' names as they are shown."""
        sets = [chosen for n in range(len(SHOWN)) for chosen in combinations(SHOWN, n + 1)]
        return {shown(s): partial(make, {name: self.stock.fields[name] for name in s}, **settings) for s in sets}


def main() -> None:
    """Print the tables, and one line of JSON if asked for."""
    parser = argparse.ArgumentParser(description="recommendation on rated films with posters")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--store", type=Path, help="keep the films' store here, and use it again")
    parser.add_argument("--quick", action="store_true", help="fewer models, one draw of new films, no ablations")
    parser.add_argument("--json", action="store_true", help="one line of JSON after the tables")
    options = parser.parse_args()
    with opened(options.data, options.store) as films:
        behaviour = films.lineup.behaviour
        size = {"people": behaviour.n_users, "films": behaviour.n_items, "ratings": len(behaviour)}
        print(f"{options.data.name}: " + ", ".join(f"{n:,} {name}" for name, n in size.items()))
        print("every rating counts as a like; settings were chosen on inner splits, never on those reported")
        few = {name: films.lineup.factories[name] for name in FEW if name in films.lineup.factories}
        models = few if options.quick else films.lineup.factories
        results: dict[str, Any] = {"data": options.data.name, **size}
        warm, results["warm"] = on_warm(films, models)
        colds, results["cold"] = on_cold(films, models, SEEDS[:1] if options.quick else SEEDS)
        if not options.quick:
            results["pictures"] = of_pictures(films, warm, colds)
            results["time"] = in_time(films, few)
            results["fresh"] = of_fresh(films, warm, colds[0])
    if options.json:
        print(json.dumps(results))


@contextmanager
def opened(data: Path, store: Path | None) -> Iterator[Films]:
    """Index the films and import the ratings, as far as a store does not have them yet."""
    place = TemporaryDirectory() if store is None else nullcontext(str(store))
    with place as folder:
        with Engine.open(folder, spaces=["picture", "text"]) as engine:
            engine.add_folder(data)
            told = engine.add_interactions(data / "ratings.csv", item_field="movie_id")
            if told.unknown or told.failed:
                print(f"ratings of {len(told.unknown)} films that are not there, {len(told.failed)} failed rows")
            lineup = engine.lineup()
            genres = {item.id: item.metadata.get("genres", ()) for item in engine.items()}
        with closing(Store(Path(folder), create=False)) as kept, kept.reading() as view:
            yield Films(lineup, Stock.of(kept, view), [genres[id] for id in lineup.ids])


def on_warm(films: Films, models: Models) -> tuple[RecEvaluation, dict[str, Any]]:
    """What each person liked last."""
    single = {name: make for name, make in models.items() if name != HYBRID}
    behaviour = films.lineup.behaviour
    found = films.judged(leave_last_out(behaviour), {**single, **LATELY, HYBRID: models[HYBRID]})
    table("1. warm: what each person liked last", found)
    gap = difference(found, HYBRID, found.best(found.headline), NOT_BELOW)
    ends = behaviour.starts[found.split.users + 1]
    tied = float((behaviour.times[ends - 1] == behaviour.times[ends - 2]).mean())
    print(
        f"  note: {tied:.0%} of people rated their last two films in one second: the file's order tells which is last"
    )
    return found, {**found.to_json(), "gap": gap, "tied": tied}


def on_cold(films: Films, models: Models, seeds: Sequence[int]) -> tuple[list[RecEvaluation], dict[str, Any]]:
    """A fifth of all films held out of all training, ranked among all films; the first draw with all models."""
    baselines: Models = {"random": models["random"], GenrePopularity.name: partial(GenrePopularity, films.genres)}
    results: dict[str, Any] = {}
    draws: list[RecEvaluation] = []
    for seed in seeds:
        wanted = {**baselines, HYBRID: models[HYBRID]} if draws else {**baselines, **models}
        found = films.judged(cold_items(films.lineup.behaviour, SHARE, seed), wanted)
        table(f"2. cold, seed {seed}: {int(found.split.cold.sum())} films new to everybody, among all films", found)
        gaps = {other: difference(found, HYBRID, other, ABOVE) for other in baselines}
        best = found.best(found.headline)
        if best not in gaps:
            gaps[best] = difference(found, HYBRID, best)  # no target: most places are kept for films with behaviour
        results[str(seed)] = {**found.to_json(), "gaps": gaps}
        draws.append(found)
    return draws, results


def of_pictures(films: Films, warm: RecEvaluation, colds: Sequence[RecEvaluation]) -> dict[str, Any]:
    """Posters, titles and genres alone and together, and the hybrid with and without posters."""
    results: dict[str, Any] = {}
    contents = films.by_fields(Alike, profile=NEAREST, near=films.stock.near)
    of_draws = {f"cold, seed {seed}": cold for seed, cold in zip(SEEDS, colds, strict=False)}
    makers = {"content": contents, "bridge": films.by_fields(Bridge)}
    for (draw, cold), (name, models) in product(of_draws.items(), makers.items()):
        found = films.judged(cold.split, {"random": Random, **models})
        table(
            f"3. what pictures are worth: {name}, {draw}", found, columns=COLUMNS if cold is colds[0] else COLUMNS[:1]
        )
        gaps = {SHOWN[PICTURE]: difference(found, SHOWN[PICTURE], "random")}
        for rest in (["text"], [DETAILS], ["text", DETAILS]):
            both = shown([PICTURE, *rest])
            gaps[both] = difference(found, both, shown(rest))
        results[f"{name}, {draw}"] = {**found.to_json(), "gaps": gaps}
    for name, before in {"warm": warm, **of_draws}.items():
        found = films.judged(before.split, films.without_posters(), before)
        table(f"3. what pictures are worth: the hybrid, {name}", found, [HYBRID, BARE], COLUMNS[:1])
        results[f"{HYBRID}, {name}"] = {
            "without": {measure: asdict(found.interval(BARE, measure)) for measure in MEASURES},
            "gaps": {measure: difference(found, HYBRID, BARE, measure=measure) for measure in MEASURES},
        }
    return results


def in_time(films: Films, models: Models) -> dict[str, Any]:
    """The strict split: nothing is learnt from after the moment from which on things are foretold."""
    moment = last_share(films.lineup.behaviour, SHARE)
    found = films.judged(split_at(films.lineup.behaviour, moment), {**models, **LATELY})
    table(f"4. strict: learnt before one moment, foretold the last {SHARE:.0%} of all ratings", found)
    for note in found.notes():
        print(f"  note: {note}")
    difference(found, HYBRID, found.best(found.headline))
    return found.to_json()


def of_fresh(films: Films, warm: RecEvaluation, cold: RecEvaluation) -> dict[str, Any]:
    """What the share of the first places for new films costs and brings, on the reported and on the inner splits."""
    print("\n5. fresh, the share of the first ten places for new films; the default of 0.1 was chosen on inner splits")
    results: dict[str, Any] = {}
    settings: Models = {f"hybrid, fresh {fresh:g}": partial(hybrid, films.stock, fresh=fresh) for fresh in FRESH}
    names = [HYBRID, *settings]
    for reported in (warm, cold):
        for split, before in ((reported.split, reported), (inner(reported.split), None)):
            models = settings if before else {HYBRID: films.lineup.factories[HYBRID], **settings}
            found = films.judged(split, models, before)
            name = f"{split.name}, {'reported' if before else 'inner: what it was chosen on'}"
            table(f"   {name}", found, names, COLUMNS[:1])
            for one in settings:
                difference(found, one, HYBRID)
            lists = {one: found.lists[one] for one in names}
            places = {one: float((split.cold[its] & (its >= 0)).mean()) for one, its in lists.items()}
            if split.cold.any():
                print("  places of new films: " + ", ".join(f"{one} {share:.1%}" for one, share in places.items()))
            results[name] = {
                one: {measure: asdict(found.interval(one, measure)) for measure in MEASURES} | {"new": places[one]}
                for one in names
            }
    return results


# Tables ---------------------------------------------------------------------------------------------------------------


def shown(fields: Names) -> str:
    """Fields as they are shown."""
    return " + ".join(SHOWN[name] for name in SHOWN if name in fields)


def table(title: str, found: RecEvaluation, models: Names | None = None, columns: Sequence[Names] = COLUMNS) -> None:
    """One row a model with intervals: how right the lists are, then what is in them."""
    print(f"\n{title}; {len(found.split)} people")
    for names in columns:
        print(f"  {'':28}" + "".join(f"{name:26}" for name in names).rstrip())
        for model in models or found.values:
            print(f"  {model:28}" + "".join(f"{cell(found.interval(model, name)):26}" for name in names).rstrip())
    print(end="", flush=True)


def cell(one: Interval) -> str:
    """A value and its interval."""
    if not math.isfinite(one.value):
        return "-"
    digits = 4 if one.high <= 1 else 2
    return f"{one.value:.{digits}f} ({one.low:.{digits}f} to {one.high:.{digits}f})"


def difference(
    found: RecEvaluation, model: str, other: str, target: str = "", *, measure: str | None = None
) -> dict[str, Any]:
    """Print and return what a model has more than another, paired by person, and whether a target is reached."""
    measure = measure or found.headline
    gap = found.difference(model, other, measure)
    shown = f"{measure} {gap.value:+.4f} ({gap.low:+.4f} to {gap.high:+.4f}), p {gap.p:.4f}"
    reached = {NOT_BELOW: gap.high >= 0, ABOVE: gap.low > 0, "": None}[target]
    verdict = "" if reached is None else f"   {'PASS' if reached else 'FAIL'}: {target}"
    print(f"  {model} - {other}: {shown}{verdict}", flush=True)
    return {**asdict(gap), "passed": reached}


if __name__ == "__main__":
    main()
