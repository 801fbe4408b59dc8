"""``FactorIndex``: items with the highest inner products, by a scan of the longest and a graph of the rest."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmsearch.behaviour import Behaviour
from mmsearch.errors import InvalidInput, StoreDamaged
from mmsearch.index import HNSWIndex, read_meta
from mmsearch.index.ranking import blocks, nothing_for, ranked, recall_of
from mmsearch.recommenders.top import ByLength, Factored, best_products
from mmsearch.types import Keys, Neighbors, Vectors
from mmsearch.vectors import check_k

_PEOPLE = 4_096
"""People searched for at once."""
_SAMPLE = 1_000
"""People by whom it is settled how to search."""
_SERVED = 0.99
"""The graph is made for this share of the sample; who needs still shorter items is answered by scanning."""
_EFFORTS = (32, 64, 128, 256, 512, 1024, 2048)
_SPARE = 16
"""How many more than k the graph is asked for, since seen items may be among them."""
_WIDEST = 1_024
"""Where more than so many must be asked for, a scan is quicker."""
_NOISE = 1e-5
"""Inner products of float32 vectors are this exact, as a share of the product of their lengths."""


class FactorIndex:
    """Maximum inner product search over the items of a factor model.

    Long vectors win most inner products. So the longest items are always compared with (``best_products``), and a
    person is done when no other item is long enough to reach what was found. For the others a graph is followed
    (``HNSWIndex``) over the items that come next by length, as cosines in one more dimension: an item x of them, of
    which the longest has length M, is stored as (x, sqrt(M^2 - |x|^2)) / M, and a person u is (u, 0) / |u|
    (Bachrach et al., RecSys 2014). Without the longest apart, that dimension outweighs the others where lengths
    differ much, and the graph finds little. Whoever could still be served by the shortest items, which are in
    neither, is compared with these too.

    Where the lengths differ so much that people need to be compared with few items only, as is usual with ALS, and in
    small collections, there is no graph and the answers are exact. That is settled by a sample of people, as is the
    effort of searches in the graph. Scores are the inner products themselves, summed in a fixed order.

    Parameters
    ----------
    items
        (n_items, dim) float32, whose inner products with people's vectors are the scores, or these sorted already.
    people
        (n, dim) float32: the vectors of a sample of people, of which at most 1,000 are used. None: all is exact.
    seen
        What is left out for each of them.
    k
        How many are usually asked for. Any number can be asked for; more make a search slower.
    target
        The share of the true best k that is to be found, on the mean over the sample.
    longest
        How many of the longest items are always compared with.
    scanned
        A graph is made if people must be compared with more items than this on the mean, without one.

    Raises
    ------
    InvalidInput
        For vectors that are not (n, dim) finite float, people of another width, a target outside 0 to 1, ``longest``
        below 1 or above ``scanned``, or k outside 1 to 1,000,000.

    Examples
    --------
    >>> items = np.array([[1, 0], [0, 3], [2, 2]], dtype=np.float32)
    >>> FactorIndex(items).search(np.array([[1, 0]], dtype=np.float32), k=2)[0].keys
    array([2, 0])
    """

    def __init__(
        self,
        items: Vectors | ByLength,
        people: Vectors | None = None,
        seen: Behaviour | None = None,
        *,
        k: int = 10,
        target: float = 0.97,
        longest: int = 8_192,
        scanned: int = 49_152,
    ) -> None:
        if not 0.0 <= target <= 1.0:
            raise InvalidInput(f"expected a target from 0 to 1, got {target!r}")
        if not 1 <= longest <= scanned:
            raise InvalidInput(f"expected longest from 1 to scanned, which is {scanned}, got {longest}")
        self._by_length = items if isinstance(items, ByLength) else ByLength.of(_checked(items, None))
        self._lengths = self._by_length.lengths[self._by_length.order]
        self.longest = longest
        self._end = len(self._lengths)
        self._graph: HNSWIndex | None = None
        self.effort = 0
        """How many candidates a search in the graph keeps; 0 without a graph."""
        self.recall = 1.0
        """The share of the true best k that is found, on the mean over the sample."""
        if people is not None:
            self._settle(_checked(people, self.dim), seen, check_k(k), target, scanned)

    @classmethod
    def of(
        cls,
        model: Factored,
        histories: Behaviour,
        *,
        k: int = 10,
        target: float = 0.97,
        longest: int = 8_192,
        scanned: int = 49_152,
    ) -> Self:
        """Index the items of a fitted model, such as ``Factors``, for people like these, who get what is new to them.

        Raises
        ------
        InvalidInput
            If nothing was learnt, the histories do not go with it, or for a setting out of range.
        """
        some = histories.of_users(_sample(np.flatnonzero(np.diff(histories.starts))))
        people = model.user_vectors(some)
        return cls(model.by_length, people, some, k=k, target=target, longest=longest, scanned=scanned)

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return int(self._by_length.items.shape[1])

    @property
    def in_graph(self) -> int:
        """How many items the graph holds; 0 without one, when all answers are exact."""
        return 0 if self._graph is None else len(self._graph)

    @property
    def memory(self) -> int:
        """Bytes of the graph and of the order of the items, without the vectors themselves."""
        parts = (self._lengths, self._by_length.lengths, self._by_length.order)
        return sum(part.nbytes for part in parts) + (0 if self._graph is None else self._graph.memory)

    def __len__(self) -> int:
        """How many items there are."""
        return len(self._by_length.items)

    def search(self, users: Vectors, k: int = 10, *, exclude: Behaviour | None = None) -> list[Neighbors]:
        """For each person about the k items with the highest inner products, best first, equal scores by position.

        Parameters
        ----------
        users
            (n, dim) float32 vectors of people. A row of zeros gets the first items, at a score of 0.
        k
            How many; fewer come back only where fewer are left.
        exclude
            What each of these people must not get, in the same order; None leaves out nothing.

        Raises
        ------
        InvalidInput
            For vectors of another width or that are not finite, an ``exclude`` of other numbers of people or items,
            or k outside 1 to 1,000,000.
        """
        k = check_k(k)
        users = _checked(users, self.dim)
        if exclude is not None and (exclude.n_users, exclude.n_items) != (len(users), len(self)):
            raise InvalidInput(
                f"expected an exclude of {len(users)} people and {len(self)} items, got one of {exclude.n_users} and "
                f"{exclude.n_items}"
            )
        if self._graph is None or k > min(_WIDEST, self.in_graph // 4):
            return best_products(users, self._by_length, k, exclude)
        answer: list[Neighbors] = []
        for start in range(0, len(users), _PEOPLE):
            some = users[start : start + _PEOPLE]
            hidden = exclude.of_users(range(start, start + len(some))) if exclude is not None else None
            answer += self._best(self._graph, some, k, hidden)
        return answer

    def save(self, path: Path) -> None:
        """Write the graph to ``path``, whose folder must exist, with what else ``load`` needs beside it.

        Raises
        ------
        StoreError
            If a file cannot be written whole.
        """
        meta: dict[str, str | int | float] = {
            "vectors": _fingerprint(self._by_length.items),
            "longest": self.longest,
            "end": self._end,
            "effort": self.effort,
            "recall": self.recall,
        }
        (self._graph or HNSWIndex(self.dim + 1)).save(path, meta)

    @classmethod
    def load(cls, path: Path, items: Vectors | ByLength) -> Self:
        """Read what ``save`` wrote, given the same items.

        Raises
        ------
        StoreDamaged
            If a file is missing or damaged, or the items are others. Make the index anew then.
        InvalidInput
            For vectors that are not (n, dim) finite float.
        """
        index = cls(items)
        same = {"vectors": _fingerprint(index._by_length.items)}
        graph = HNSWIndex.load(path, dim=index.dim + 1, dtype="f16", meta_must_equal=same)
        meta = read_meta(path)
        try:
            index.longest, index._end = int(meta["longest"]), int(meta["end"])
            index.effort, index.recall = int(meta["effort"]), float(meta["recall"])
        except (KeyError, TypeError, ValueError) as error:
            raise StoreDamaged(f"expected an index of factors at {path}, found another; make it anew") from error
        index._graph = graph if len(graph) else None
        return index

    def _settle(self, people: Vectors, seen: Behaviour | None, k: int, target: float, scanned: int) -> None:
        """Make a graph if the sample needs one, and find the least effort that reaches the target."""
        chosen = _sample(np.arange(len(people)))
        people, seen = people[chosen], None if seen is None else seen.of_users(chosen)
        truth = best_products(people, self._by_length, k, seen)
        reach = self._reach(people, truth, k)
        if not len(people) or reach.mean() <= scanned:
            return
        self._end = max(self.longest + 1, int(np.quantile(reach, _SERVED)))
        self._graph = self._made(np.sort(self._by_length.order[self.longest : self._end]))
        for effort in _EFFORTS:
            self.effort = effort
            self.recall = recall_of(truth, self.search(people, k, exclude=seen))
            if self.recall >= target:
                return

    def _reach(self, people: Vectors, truth: list[Neighbors], k: int) -> Keys:
        """With how many items, the longest first, each person must be compared until no other can be among the k."""
        lengths = _norms(people)
        needed = np.divide(_last(truth, k), lengths, out=np.full(len(people), np.inf), where=lengths > 0)
        return np.asarray(np.searchsorted(-self._lengths, -needed, side="right"), dtype=np.int64)

    def _made(self, keys: Keys) -> HNSWIndex:
        """The graph over these items, (n,) sorted positions."""
        rows, lengths = self._by_length.items[keys], self._by_length.lengths[keys]
        scale = max(float(lengths.max()), float(np.finfo(np.float32).tiny))
        rest = np.sqrt(np.maximum(0.0, 1.0 - np.square(lengths / scale)))
        graph = HNSWIndex(self.dim + 1)
        graph.add(keys, np.concatenate([rows / scale, rest[:, None]], axis=1, dtype=np.float32))
        return graph

    def _best(self, graph: HNSWIndex, users: Vectors, k: int, hidden: Behaviour | None) -> list[Neighbors]:
        found = best_products(users, self._by_length.longest(self.longest), k, hidden)
        unsure = self._follow(graph, users, k, hidden, found)
        behind = ByLength(self._by_length.items, self._by_length.lengths, self._by_length.order[self._end :])
        late = np.setdiff1d(self._open(users, found, k, self._end), unsure)
        _take(found, unsure, nothing_for(len(unsure)))
        for whom, items in ((unsure, self._by_length), (late, behind)):
            if len(whom):
                own = None if hidden is None else hidden.of_users(whom)
                pool = [found[person] for person in whom.tolist()]
                more = best_products(users[whom], items, k, own, floor=_last(pool, k))
                _take(found, whom, _merged(*_flat(more), pool, k))
        return found

    def _open(self, users: Vectors, found: list[Neighbors], k: int, at: int) -> Keys:
        """Who may be better served by an item that is not among the ``at`` longest; sorted."""
        if at >= len(self._lengths):
            return np.zeros(0, np.int64)
        lengths = _norms(users)
        some = lengths * self._lengths[0] > np.finfo(np.float32).tiny  # else ``best_products`` has looked at all items
        return np.flatnonzero(some & (lengths * self._lengths[at] * (1 + _NOISE) >= _last(found, k)))

    def _follow(self, graph: HNSWIndex, users: Vectors, k: int, seen: Behaviour | None, found: list[Neighbors]) -> Keys:
        """Better what was found by what the graph has. Says who has seen nearly all that is near them in it."""
        hides = None if seen is None else seen.users * len(self) + seen.items
        people, count, scanned = self._open(users, found, k, self.longest), k + _SPARE, list(found)
        while len(people) and count <= _WIDEST + _SPARE:
            asked = np.concatenate([users[people], np.zeros((len(people), 1), np.float32)], axis=1)
            near = graph.search(asked, count, effort=self.effort)
            owner, keys, _ = _flat(near)
            scores = self._products(users[people], owner, keys)
            # What the graph did not give is about as bad as the worst that it gave, or worse.
            worst = np.full(len(people), np.inf, np.float32)
            np.minimum.at(worst, owner, scores)
            worst[np.bincount(owner, minlength=len(people)) == len(graph)] = -np.inf
            fresh = slice(None) if hides is None else ~np.isin(people[owner] * len(self) + keys, hides)
            pool = [scanned[person] for person in people.tolist()]
            merged = _merged(owner[fresh], keys[fresh], scores[fresh], pool, k)
            _take(found, people, merged)
            people, count = people[_last(merged, k) < worst], 4 * count
        return people

    def _products(self, users: Vectors, owner: Keys, keys: Keys) -> NDArray[np.float32]:
        """Inner products of people with items, pair by pair, summed as ``best_products`` sums them."""
        scores = np.empty(len(keys), np.float32)
        for part in blocks(len(keys), self.dim):
            scores[part] = np.einsum("nd,nd->n", users[owner[part]], self._by_length.items[keys[part]])
        return scores


def _flat(found: list[Neighbors]) -> tuple[Keys, Keys, NDArray[np.float32]]:
    """Whose each is, keys and scores, (m,) each, of lists of at least one person."""
    owner = np.repeat(np.arange(len(found)), [len(one) for one in found])
    return owner, np.concatenate([one.keys for one in found]), np.concatenate([one.scores for one in found])


def _merged(owner: Keys, keys: Keys, scores: NDArray[np.float32], pool: list[Neighbors], k: int) -> list[Neighbors]:
    """The best k for each person of what is new, (m,) each, and of what the pool has for them."""
    whose, had, reached = _flat(pool)
    owner, keys, scores = np.append(whose, owner), np.append(had, keys), np.append(reached, scores)
    return ranked(owner, keys, scores, k, len(pool))


def _take(found: list[Neighbors], people: Keys, better: list[Neighbors]) -> None:
    for person, best in zip(people.tolist(), better, strict=True):
        found[person] = best


def _last(found: list[Neighbors], k: int) -> NDArray[np.float32]:
    """What an item must reach to be among the k, (n,); minus infinity where fewer were found."""
    return np.array([one.scores[-1] if len(one) >= k else -np.inf for one in found], dtype=np.float32)


def _norms(rows: Vectors) -> NDArray[np.float32]:
    return np.asarray(np.sqrt(np.einsum("nd,nd->n", rows, rows)), dtype=np.float32)


def _sample(positions: Keys) -> Keys:
    """At most 1,000 of these, evenly spread."""
    return positions[:: max(1, -(-len(positions) // _SAMPLE))]


def _fingerprint(items: Vectors) -> str:
    return f"{items.shape} {hashlib.sha256(np.ascontiguousarray(items).data).hexdigest()}"


def _checked(values: ArrayLike, dim: int | None) -> Vectors:
    try:
        rows = np.asarray(values, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"expected vectors of numbers, got {type(values).__name__}: {error}") from error
    if rows.ndim != 2 or (dim is not None and rows.shape[1] != dim):
        raise InvalidInput(f"expected vectors as a 2-D array (n, {dim or 'dim'}), got shape {rows.shape}")
    if not np.isfinite(rows).all():
        raise InvalidInput("expected finite vectors, got NaN or infinity")
    return rows
