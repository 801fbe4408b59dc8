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
_ATTEMPTS = 8
_BLOCK = 16_384
_NEIGHBOURHOOD = 64
"""How many neighbours of a repaired node are looked at again: inserting it may have rewired them."""


def repair(graph: Graph, nodes: Keys, halves_of: HalvesOf, effort: int) -> tuple[int, Keys]:
    """Search each node's own vector, and mend the graph until all are found.

    Parallel insertion leaves a few nodes without a link to them; inserting these again, alone, mends that. On hard
    data a search of low effort misses some that are linked: then the effort is doubled.

    Returns
    -------
    The effort at which the nodes are found, and those that are not found at any.
    """
    missed, lost = _link(graph, nodes, halves_of, effort)
    while len(missed) and effort < HIGHEST_EFFORT:
        effort *= 2
        missed = _missed(graph, missed, halves_of, effort)
    return effort, lost


def _link(graph: Graph, nodes: Keys, halves_of: HalvesOf, effort: int) -> tuple[Keys, Keys]:
    """Insert again what is missed. Says what this effort still misses but a higher one finds, and what none finds."""
    suspects = nodes
    missed = lost = _missed(graph, suspects, halves_of, effort)
    for _ in range(_ATTEMPTS):
        if not len(lost):
            break
        suspects = np.union1d(missed, _insert_again(graph, lost, halves_of(lost), effort))
        if 100 * len(lost) > len(nodes):  # so many that the neighbourhoods do not cover what was rewired
            suspects = np.union1d(suspects, nodes)
        missed = _missed(graph, suspects, halves_of, effort)
        lost = _missed(graph, missed, halves_of, HIGHEST_EFFORT)
    return np.setdiff1d(missed, lost), lost


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


def _insert_again(graph: Graph, nodes: Keys, halves: Halves, effort: int) -> Keys:
    """Move nodes to where a search ends, and say which nodes that may have rewired."""
    graph.remove(nodes)
    graph.add(nodes, halves, threads=1)
    found, scores = graph.nearest(halves, min(_NEIGHBOURHOOD, len(graph)), effort)
    return np.union1d(nodes, found[~np.isneginf(scores)])
