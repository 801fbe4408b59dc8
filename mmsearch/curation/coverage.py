"""Few items that stand for many: what to look at, or to label, first."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from hashlib import blake2b

import numpy as np

from mmsearch.curation.outliers import blocks, some, with_vector
from mmsearch.errors import InvalidInput
from mmsearch.protocols import VectorRows
from mmsearch.types import Keys, Vectors
from mmsearch.vectors import SCORE_DECIMALS, as_keys

METHODS = ("k-center", "density", "random")

_NUMBERS = 50_000_000
"""Numbers of vectors that k-center looks at: 200 MB, the vectors of some 200,000 items of width 256."""
_POOL = 8_192
"""Items that density looks at: their cosines take 128 MB."""
_REACH = 0.3
"""How far an item's coverage reaches, as a share of how far apart two items are on average (by 1 less the cosine). On
9,583 pictures of fashion, 0.3 to 0.8 gave the same accuracy within 0.01."""
_STEP = 512
_COPY = 1 - 10**-SCORE_DECIMALS


def sample(
    rows: VectorRows, n: int, *, method: str = "density", seed: int = 0, chosen: Sequence[int] | Keys = ()
) -> Keys:
    """Choose n items that cover a collection.

    ``density`` chooses typical items of dense regions that nothing chosen covers yet: each choice adds most to the sum,
    over all items, of the kernel exp((cosine - 1) / reach) to the nearest chosen one (MaxHerding: Bae, Noh &
    Sutherland, ECCV 2024, algorithm 1). Best for few labels. ``k-center`` takes again and again the item that is
    farthest from all chosen ones (Gonzalez, Theor. Comput. Sci. 38, 1985), first of all the most central one. It finds
    the rare kinds, and the odd items too. ``random`` is what the others must beat.

    Parameters
    ----------
    rows
        Vectors by position.
    n
        How many to choose; fewer where there are fewer.
    method
        ``k-center``, ``density`` or ``random``.
    seed
        Of the random order, and of the items looked at in a large collection.
    chosen
        Positions that are chosen, or labelled, already. They count as covered and are not chosen again.

    Returns
    -------
    Keys
        (n,) int64 positions in the order of choice: the first m are the choice of m. Copies of something chosen come
        after all that is distinct (by ``random``, where vectors are equal to the bit), items without a vector (a row of
        zeros) at the very end.

    Raises
    ------
    InvalidInput
        For another method, an n that is not a whole number of at least 1, or positions that are not there.

    Notes
    -----
    Takes O(m n dim) time for k-center and O(m m dim) for density, of m items looked at. Those are a random sample of a
    large collection, some 200,000 for k-center and 8,192 for density; a larger n is filled up at random.
    """
    taken = _check(rows, n, method, chosen)
    there = with_vector(rows)
    free = np.setdiff1d(there, taken)
    picked = np.zeros(0, dtype=np.int64)
    if method != "random" and len(free):
        limit = _POOL if method == "density" else max(1, _NUMBERS // rows.dim)
        pool = some(free, limit, seed)
        choose = _density if method == "density" else _k_center
        picked = pool[choose(rows.take(pool), _covered(rows, pool, np.intersect1d(there, taken)), n)]
    if len(picked) < n:
        done = np.concatenate([taken, picked])
        rest = _at_random(rows, np.setdiff1d(free, picked), done, n - len(picked), seed)
        picked = np.concatenate([picked, rest])
    bare = np.setdiff1d(np.arange(len(rows)), np.concatenate([there, taken]))
    return np.concatenate([picked, bare]).astype(np.int64)[:n]


def _check(rows: VectorRows, n: int, method: str, chosen: Sequence[int] | Keys) -> Keys:
    """The positions that are chosen already."""
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
        raise InvalidInput(f"expected n as a whole number of at least 1, got {n!r}")
    if method not in METHODS:
        raise InvalidInput(f"expected a method among {', '.join(METHODS)}, got {method!r}")
    taken = as_keys(np.asarray(chosen, dtype=np.int64) if not len(chosen) else chosen)
    if len(taken) and taken.max() >= len(rows):
        raise InvalidInput(f"expected chosen positions below {len(rows)}, got {taken.max()}")
    return taken


def _covered(rows: VectorRows, pool: Keys, taken: Keys) -> Vectors:
    """The cosine of each item of the pool to the nearest item that is taken, (m,) float32; -1 where none is."""
    nearest = np.full(len(pool), -1, dtype=np.float32)
    for _, done in blocks(rows, taken):
        for start, block in blocks(rows, pool):
            part = nearest[start : start + len(block)]
            for first in range(0, len(done), _STEP):
                np.maximum(part, (block @ done[first : first + _STEP].T).max(axis=1), out=part)
    return nearest


def _k_center(vectors: Vectors, nearest: Vectors, n: int) -> Keys:
    """Farthest first; ends where only copies are left."""
    nearest = np.round(nearest, SCORE_DECIMALS)
    picked: list[int] = []
    if nearest.max() < 0:
        picked.append(int(np.argmax(np.round(vectors @ vectors.mean(axis=0), SCORE_DECIMALS))))
    while len(picked) < min(n, len(vectors)):
        if picked:
            # Rounded since BLAS may give equal rows cosines that differ in the last bit.
            np.maximum(nearest, np.round(vectors @ vectors[picked[-1]], SCORE_DECIMALS), out=nearest)
        best = int(np.argmin(nearest))
        if nearest[best] >= _COPY:
            break
        picked.append(best)
    return np.array(picked, dtype=np.int64)


def _density(vectors: Vectors, nearest: Vectors, n: int) -> Keys:
    """Greedy, with the gains that are out of date looked at again only where they lead (Minoux, 1978)."""
    mean = vectors.mean(axis=0)
    reach = max(_REACH * (1.0 - float(mean @ mean)), 1e-3)

    def kernel(cosines: Vectors) -> Vectors:
        return np.asarray(np.exp((np.round(cosines, SCORE_DECIMALS) - 1) / np.float32(reach)), dtype=np.float32)

    alike = np.empty((len(vectors), len(vectors)), dtype=np.float16)
    for start in range(0, len(vectors), _STEP):
        alike[start : start + _STEP] = kernel(vectors[start : start + _STEP] @ vectors.T)
    covered = np.where(nearest > -1, kernel(nearest), np.float32(0))
    is_copy = nearest >= _COPY

    def gain(one: int) -> float:
        return float(np.maximum(alike[one] - covered, 0).sum())

    queue = [(-gain(one), one) for one in range(len(vectors)) if not is_copy[one]]
    heapq.heapify(queue)
    picked: list[int] = []
    while queue and len(picked) < n:
        _, one = heapq.heappop(queue)
        if is_copy[one]:
            continue
        now = (-gain(one), one)
        if queue and now > queue[0]:
            heapq.heappush(queue, now)
            continue
        picked.append(one)
        np.maximum(covered, alike[one], out=covered)
        is_copy |= vectors @ vectors[one] >= _COPY
    return np.array(picked, dtype=np.int64)


def _at_random(rows: VectorRows, positions: Keys, done: Keys, n: int, seed: int) -> Keys:
    """At most n positions in random order; those whose vector is that of a former one, or of one in ``done``, last."""
    order = np.random.default_rng(seed).permutation(positions)
    seen = {_digest(row) for _, block in blocks(rows, done) for row in block}
    fresh: list[int] = []
    copies: list[int] = []
    for start, block in blocks(rows, order):
        for position, row in zip(order[start : start + len(block)].tolist(), block, strict=True):
            digest = _digest(row)
            (copies if digest in seen else fresh).append(position)
            seen.add(digest)
        if len(fresh) >= n:
            break
    return np.array([*fresh, *copies][:n], dtype=np.int64)


def _digest(row: Vectors) -> bytes:
    return blake2b(row.tobytes(), digest_size=16).digest()
