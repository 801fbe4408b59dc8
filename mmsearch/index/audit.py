"""Hold a graph against the truth: what should it find, what does it miss, and how is that mended."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from mmsearch.index.exact import ExactIndex
from mmsearch.index.graph import Graph
from mmsearch.index.groups import Groups
from mmsearch.index.halves import Halves
from mmsearch.index.ranking import nothing_for, ranked
from mmsearch.types import Keys, Neighbors, Vectors

HalvesOf: TypeAlias = Callable[[Keys], Halves]
"""The float16 vectors of some nodes."""

HIGHEST_EFFORT = 4096
_ROUNDS = 4
_BLOCK = 16_384
_NEIGHBOURHOOD = 64
"""How many neighbours of a repaired node are looked at again: inserting it may have rewired them."""


def repair(graph: Graph, nodes: Keys, halves_of: HalvesOf, effort: int) -> tuple[int, Keys]:
    """Search each node's own vector, and insert those again that are not found, until all are found.

    Parallel insertion leaves a few nodes without a link to them; inserting these again, alone, mends that. On hard
    data a search of low effort misses some although they are linked: then the effort is doubled.

    Returns
    -------
    The effort at which all of the nodes are found, and those that are not found at the highest.
    """
    suspects = nodes
    for _ in range(_ROUNDS):
        missed = _missed(graph, suspects, halves_of, effort)
        if not len(missed):
            return effort, missed
        halves = halves_of(missed)
        graph.remove(missed)
        graph.add(missed, halves, threads=1)
        suspects = _around(graph, missed, halves, effort)
    missed = _missed(graph, suspects, halves_of, effort)
    while len(missed) and effort < HIGHEST_EFFORT:
        effort *= 2
        missed = _missed(graph, missed, halves_of, effort)
    return effort, missed


def exact_answers(groups: Groups, rows_of: Callable[[Keys], Vectors], queries: Vectors, k: int) -> list[Neighbors]:
    """Answer queries, (q, dim), as a perfect search would."""
    owners, keys, scores = [], [], []
    nodes = groups.nodes
    for start in range(0, len(nodes), _BLOCK):
        block = nodes[start : start + _BLOCK]
        for number, found in enumerate(ExactIndex.over(rows_of(block), block).search(queries, k)):
            at, expanded = groups.expand(found.keys, k)
            owners.append(np.full(len(at), number))
            keys.append(expanded)
            scores.append(found.scores[at])
    if not owners:
        return nothing_for(len(queries))
    return ranked(np.concatenate(owners), np.concatenate(keys), np.concatenate(scores), k, len(queries))


def _missed(graph: Graph, nodes: Keys, halves_of: HalvesOf, effort: int) -> Keys:
    blocks = [nodes[start : start + _BLOCK] for start in range(0, len(nodes), _BLOCK)]
    return np.concatenate([nodes[:0]] + [graph.missed(block, halves_of(block), effort) for block in blocks])


def _around(graph: Graph, nodes: Keys, halves: Halves, effort: int) -> Keys:
    found, scores = graph.nearest(halves, min(_NEIGHBOURHOOD, len(graph)), effort)
    return np.union1d(nodes, found[~np.isneginf(scores)])
