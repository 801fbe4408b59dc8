"""Measure recommendation at scale: all people of a factor model, through the vector index, and one person at a time.

    python benchmarks/recommend_scale.py --items 1000000 --users 100000 --factors 64

Everything is timed in one run on the same data, which is drawn with a fixed seed. Ratios are against the library
``implicit`` and against plain NumPy (a matrix product and ``argpartition``), which get the same vectors of people and
items and leave out the same seen items. The index gets its sample from people who are not searched for.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from mmsearch.behaviour import Behaviour
from mmsearch.factorindex import FactorIndex
from mmsearch.index import HNSWIndex
from mmsearch.index.ranking import recall_of
from mmsearch.overlap import n_cores
from mmsearch.protocols import Recommender
from mmsearch.recommenders.factors import Factors
from mmsearch.recommenders.neighbors import ItemNeighbors
from mmsearch.recommenders.popularity import Popular
from mmsearch.recommenders.sessions import Transitions
from mmsearch.recommenders.top import ByLength, best_columns, best_products
from mmsearch.types import Keys, Neighbors, Vectors

K = 10
TASTES = 500
EACH = 50
"""Events a person, on the mean."""
ITERATIONS = 10
SAMPLE = 1_000
EFFORTS = (64, 256, 1024)
CANDIDATES = 500
"""Asked of each model for one person."""
EVENTS = 100
ONE_BY_ONE = 200
TARGET_EXACT, TARGET_INDEX, TARGET_RECALL, TARGET_MS = 200, 2_000, 0.95, 20
Answer = TypeVar("Answer")


@dataclass(frozen=True, eq=False)
class World:
    """Vectors of items and of people, and what these have seen; the last ``SAMPLE`` people are the index's sample."""

    name: str
    items: Vectors
    people: Vectors
    seen: Behaviour

    @property
    def n(self) -> int:
        """How many people are searched for."""
        return len(self.people) - SAMPLE


@dataclass
class Figures:
    """What was measured, by name, and whether targets were met."""

    values: dict[str, float] = field(default_factory=dict)

    def say(self, name: str, value: float, note: str = "") -> None:
        """Print and keep one figure."""
        self.values[name] = round(value, 4)
        shown = f"{value:12,.0f}" if value >= 100 else f"{value:12.3f}"
        print(f"  {name:58}{shown}   {note}", flush=True)


def main() -> None:
    """Print all tables and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--factors", type=int, default=64)
    parser.add_argument("--sample", type=int, default=10_000, help="people searched for (default: 10000)")
    parser.add_argument("--slow-sample", type=int, default=400, help="of them, by the alternatives (default: 400)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--plain", action="store_true", help="also a graph of all items of the fitted model: takes long"
    )
    parser.add_argument("--parts", default="abc", help="which parts to run: abc")
    options = parser.parse_args()
    figures = Figures()
    print(
        f"{options.items:,} items, {options.users:,} people, {options.factors} factors, k={K}; {n_cores()} cores, ",
        end="",
    )
    print(f"{options.threads} threads, load {os.getloadavg()[0]:.1f}")
    with threadpool_limits(options.threads, "blas"):
        behaviour = made(options.items, options.users)
        print(said(behaviour))
        model, took = timed(lambda: fitted(behaviour, options.factors, options.threads))
        figures.say("fitting als, s", took, f"{ITERATIONS} iterations")
        if "a" in options.parts or "b" in options.parts:
            for world in worlds(behaviour, model, options):
                report(figures, world, model, options)
        if "c" in options.parts:
            one_by_one(figures, behaviour, model)
    print(f"load {os.getloadavg()[0]:.1f}")
    print(json.dumps({"items": options.items, "users": options.users, "threads": options.threads, **figures.values}))


def timed(work: Callable[[], Answer]) -> tuple[Answer, float]:
    """An answer and the seconds that it took."""
    start = time.perf_counter()
    return work(), time.perf_counter() - start


# Data ---------------------------------------------------------------------------------------------------------------


def made(n_items: int, n_users: int) -> Behaviour:
    """Draw events: see ``said``."""
    rng = np.random.default_rng(0)
    size = rng.dirichlet(np.ones(TASTES))
    taste = rng.choice(TASTES, n_items, p=0.5 * size + 0.5 / TASTES)
    order = np.argsort(taste, kind="stable")
    ends = np.cumsum(((1.0 + rng.permutation(n_items)) ** -0.8)[order])
    first = np.concatenate([[0.0], ends])[np.searchsorted(taste[order], np.arange(TASTES + 1))]
    counts = rng.lognormal(size=n_users)
    counts = np.maximum(3, counts * EACH * n_users / counts.sum()).astype(np.int64)
    users = np.repeat(np.arange(n_users), counts)
    own = rng.choice(TASTES, (n_users, 4), p=size)
    shares = np.cumsum(rng.dirichlet([1.0, 0.7, 0.5, 0.3], n_users), axis=1)
    tastes = own[users, (rng.random(len(users))[:, None] > shares[users]).sum(axis=1).clip(0, 3)]
    anything = rng.random(len(users)) < 0.15
    low, high = np.where(anything, 0.0, first[tastes]), np.where(anything, ends[-1], first[tastes + 1])
    at = np.searchsorted(ends, low + (high - low) * rng.random(len(users))).clip(0, n_items - 1)
    times = np.arange(len(users), dtype=np.float64)
    return Behaviour.of(users, order[at], None, times, n_users=n_users, n_items=n_items)


def said(behaviour: Behaviour) -> str:
    """What was drawn, in words."""
    counts = np.sort(np.bincount(behaviour.items, minlength=behaviour.n_items))[::-1]
    return (
        f"drawn: {len(behaviour):,} events. Items are of {TASTES} tastes of Dirichlet sizes and have Zipf weights\n"
        "(exponent 0.8); a person's number of events is log-normal (sigma 1), each of an item of one of up to 4 own\n"
        "tastes by weight, 15% of any item. Events of the 1st, 1,000th and middle item: "
        f"{counts[0]:,}, {counts[min(999, len(counts) - 1)]:,} and {counts[len(counts) // 2]:,}"
    )


def fitted(behaviour: Behaviour, factors: int, threads: int) -> Factors:
    """Fit the factors."""
    return Factors("als", factors=factors, iterations=ITERATIONS, num_threads=threads).fit(behaviour)


def worlds(behaviour: Behaviour, model: Factors, options: argparse.Namespace) -> list[World]:
    """The fitted model; and vectors of nearly equal lengths, where no few items win."""
    rng = np.random.default_rng(1)
    n = min(options.sample, options.users - SAMPLE) + SAMPLE
    some = behaviour.of_users(rng.permutation(behaviour.n_users)[:n])
    decay = (1.0 + np.arange(options.factors)) ** -0.5
    centres = rng.normal(size=(300, options.factors))

    def drawn(count: int) -> Vectors:
        near = centres[rng.integers(300, size=count)] + rng.normal(size=(count, options.factors))
        return np.asarray(near * decay * np.exp(0.3 * rng.normal(size=(count, 1))), dtype=np.float32)

    fitted = World("fitted als", model.item_vectors, model.user_vectors(some), some)
    return [fitted, World("even lengths", drawn(options.items), drawn(n), some)]


# All people ---------------------------------------------------------------------------------------------------------


def report(figures: Figures, world: World, model: Factors, options: argparse.Namespace) -> None:
    """Parts a and b for one world."""
    by_length = ByLength.of(world.items)
    spread = by_length.lengths[by_length.order[[0, min(999, len(by_length.order) - 1), len(by_length.order) // 2]]]
    print(f"\n{world.name}: lengths of the 1st, 1,000th and middle item: " + ", ".join(f"{one:.3f}" for one in spread))
    if world.name == "even lengths":
        print(
            "  drawn: items and people around the same 300 centres, deviations falling as rank ** -0.5, lengths varied"
        )
        print("  log-normally (sigma 0.3)")
    people, seen = world.people[: world.n], world.seen.of_users(range(world.n))
    truth, took = timed(lambda: best_products(people, by_length, K, seen))
    exact = world.n / took
    figures.say(f"{world.name}: exact, people/s", exact, f"{world.n:,} people; target {TARGET_EXACT:,}")
    if "a" in options.parts:
        alternatives(figures, world, truth, exact, options)
        if world.name == "fitted als":
            _, took = timed(lambda: best_columns(model, seen, K))
            figures.say(f"{world.name}: exact from histories, people/s", world.n / took, "vectors of people included")
    if "b" in options.parts:
        through_index(figures, world, by_length, truth, exact)
        if options.plain and world.name == "fitted als":
            plain_graph(figures, world, truth)


def alternatives(
    figures: Figures, world: World, truth: list[Neighbors], exact: float, options: argparse.Namespace
) -> None:
    """``implicit`` and NumPy on the same vectors."""
    n = min(options.slow_sample, world.n)
    people, seen = world.people[:n], world.seen.of_users(range(n)).seen().astype(np.float32)
    for name, work in (("implicit", by_implicit), ("NumPy", by_numpy)):
        found, took = timed(partial(work, world.items, people, seen, options.threads))
        same = np.mean([len(np.intersect1d(mine.keys, row)) / K for mine, row in zip(truth, found, strict=False)])
        ratio = f"{n} people; ours is {exact * took / n:.1f} times as fast; {100 * same:.2f}% the same items"
        figures.say(f"{world.name}: {name}, people/s", n / took, ratio)


def by_implicit(items: Vectors, people: Vectors, seen: Any, threads: int) -> NDArray[Any]:  # noqa: ANN401 - a scipy matrix
    """The library's own way."""
    from implicit.cpu.als import AlternatingLeastSquares

    with threadpool_limits(1, "blas"):  # as it asks for: it has threads of its own
        model = AlternatingLeastSquares(factors=items.shape[1], num_threads=threads)
        model.user_factors, model.item_factors = people, items
        ids, _ = model.recommend(np.arange(len(people)), seen, N=K, filter_already_liked_items=True)
    return np.asarray(ids)


def by_numpy(items: Vectors, people: Vectors, seen: Any, threads: int) -> NDArray[Any]:  # noqa: ANN401 - a scipy matrix
    """All products of 50 people, their best ten by ``argpartition``."""
    answer = []
    for start in range(0, len(people), 50):
        scores = people[start : start + 50] @ items.T
        own = seen[start : start + 50].tocoo()
        scores[own.row, own.col] = -np.inf
        answer.append(np.argpartition(-scores, K, axis=1)[:, :K])
    return np.concatenate(answer)


def through_index(figures: Figures, world: World, by_length: ByLength, truth: list[Neighbors], exact: float) -> None:
    """Part b."""
    sample, own = world.people[world.n :], world.seen.of_users(range(world.n, len(world.people)))
    index, took = timed(lambda: FactorIndex(by_length, sample, own, k=K))
    how = (
        f"{index.in_graph:,} items in the graph, effort {index.effort}" if index.in_graph else "no graph: all is exact"
    )
    figures.say(f"{world.name}: making the index, s", took, how)
    figures.say(
        f"{world.name}: memory of the index, MB", index.memory / 1e6, f"vectors: {world.items.nbytes / 1e6:.0f} MB"
    )
    people, seen = world.people[: world.n], world.seen.of_users(range(world.n))
    found, took = timed(lambda: index.search(people, K, exclude=seen))
    ratio = f"target {TARGET_INDEX:,}; {world.n / took / exact:.2f} times as fast as exact"
    figures.say(f"{world.name}: through the index, people/s", world.n / took, ratio)
    figures.say(f"{world.name}: recall@{K}", recall_of(truth, found), f"target {TARGET_RECALL}")
    for depth in (K, CANDIDATES):
        alone = [people[user : user + 1] for user in range(min(ONE_BY_ONE, world.n))]
        times = [timed(partial(index.search, one, depth))[1] for one in alone]
        figures.say(f"{world.name}: one person, k={depth}, p50 ms", *spread_of(times))


def plain_graph(figures: Figures, world: World, truth: list[Neighbors]) -> None:
    """A graph of all items with the one dimension more, and no scan of the longest: why the index is not that."""
    lengths = np.sqrt(np.einsum("nd,nd->n", world.items, world.items))
    rest = np.sqrt(np.maximum(0.0, 1.0 - np.square(lengths / lengths.max())))
    rows = np.concatenate([world.items / lengths.max(), rest[:, None]], axis=1)
    graph = HNSWIndex(rows.shape[1])
    _, took = timed(lambda: graph.add(np.arange(len(rows)), rows))
    figures.say(f"{world.name}: a plain graph of all, building, s", took)
    # What was seen is not left out here, so the truth is another.
    asked = np.concatenate([world.people[: world.n], np.zeros((world.n, 1), np.float32)], axis=1)
    truth = best_products(world.people[: world.n], world.items, K)
    for effort in EFFORTS:
        found, took = timed(partial(graph.search, asked, K, effort=effort))
        same = np.mean([len(np.intersect1d(a.keys, b.keys)) / K for a, b in zip(truth, found, strict=True)])
        figures.say(f"{world.name}: a plain graph, effort {effort}, people/s", world.n / took, f"recall {same:.3f}")


# One person ---------------------------------------------------------------------------------------------------------


def one_by_one(figures: Figures, behaviour: Behaviour, factors: Factors) -> None:
    """Part c: what each model takes for one person's candidates and for the scores of all candidates."""
    print(f"\none person with {EVENTS} events, {ONE_BY_ONE} of them; {CANDIDATES} candidates of each model, ms:")
    models: dict[str, Recommender] = {"popular": Popular(), "items": ItemNeighbors(), "sessions": Transitions()}
    for name, model in models.items():
        figures.say(f"fitting {name}, s", timed(partial(model.fit, behaviour))[1])
    models["als"] = factors
    busy = np.flatnonzero(np.diff(behaviour.starts) >= EVENTS)[:ONE_BY_ONE]
    people = [last_of(behaviour, int(user)) for user in busy]
    index = FactorIndex.of(factors, behaviour, k=CANDIDATES)
    told = {name: [timed(partial(ask, model, one, index)) for one in people] for name, model in models.items()}
    columns = [np.unique(np.concatenate([told[name][at][0] for name in models])) for at in range(len(people))]
    print(f"  all candidates of one person: {np.mean([len(keys) for keys in columns]):,.0f} on the mean")
    total = np.zeros(len(people))
    for name, model in models.items():
        figures.say(f"{name}: candidates, p50 ms", *spread_of([took for _, took in told[name]]))
        pairs = zip(people, columns, strict=True)
        scored = [timed(partial(model.scores, one, keys))[1] for one, keys in pairs]
        figures.say(f"{name}: scores of all candidates, p50 ms", *spread_of(scored))
        total += [took for _, took in told[name]] + np.array(scored)
    p50, note = spread_of(total.tolist())
    figures.say("all models together, p50 ms", p50, f"{note}; target {TARGET_MS}")


def ask(model: Recommender, one: Behaviour, index: FactorIndex) -> Keys:
    """A model's candidates; those of factors through the index."""
    if isinstance(model, Factors):
        return index.search(model.user_vectors(one), CANDIDATES, exclude=one)[0].keys
    return model.candidates(one, CANDIDATES)[0]


def last_of(behaviour: Behaviour, user: int) -> Behaviour:
    """The history of one person, of the last ``EVENTS`` events."""
    one = behaviour.of_users([user])
    return one.where(np.arange(len(one)) >= len(one) - EVENTS)


def spread_of(seconds: list[float]) -> tuple[float, str]:
    """The median in ms, and the 95th percentile in words."""
    middle, high = 1000 * np.percentile(seconds, [50, 95])
    return float(middle), f"p95 {high:.2f} ms"


if __name__ == "__main__":
    main()
