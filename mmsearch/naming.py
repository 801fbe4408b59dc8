"""Names of clusters by words: what sets each apart from the others, in the space of texts and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmsearch.errors import InvalidInput
from mmsearch.types import Keys, Vectors

KEYWORDS = 5
"""Words a cluster is described with, the name among them."""
_SAME = 0.95
"""Two words with this cosine say the same; the second is no keyword of its own."""
_LOOKED_AT = 50
"""The best words of a cluster among which keywords are chosen."""
_MANY, _TOO_MANY = 500, 20_000
"""Sizes of vocabulary in which each word has relatives, and in which finding them takes too long."""
_RELATIVES = 5
"""Words nearest in meaning that speak for a word. Chosen, with their weight of 1, on one half of the fashion pictures
that `benchmarks/clusters.py` names the other half of."""


@dataclass(frozen=True, slots=True)
class Named:
    """The words of one cluster.

    ``keywords`` are positions in the vocabulary, best first: the first is the name. ``confidence`` is the share of
    the sampled members that go with the name rather than with another cluster's.
    """

    keywords: tuple[int, ...]
    confidence: float

    @property
    def name(self) -> int:
        """The position of the name in the vocabulary."""
        return self.keywords[0]


def means(vectors: Vectors, labels: Keys, n: int) -> Vectors:
    """The mean vector of each of n clusters, (n, dim), not made unit rows: zeros for one without members here.

    ``vectors`` are (m, dim) unit rows, ``labels`` (m,) says of which cluster each is; below 0 is of none.
    """
    member = labels >= 0
    sums = np.zeros((n, vectors.shape[1]), dtype=np.float64)
    np.add.at(sums, labels[member], vectors[member])
    counts = np.bincount(labels[member], minlength=n)[:, None]
    found: Vectors = np.divide(sums, counts, out=np.zeros_like(sums), where=counts > 0).astype(np.float32)
    return found


def contrast(centres: Vectors) -> Vectors:
    """What sets each of k centres apart from all, (k, dim): the centre less (1 - 1/k) of the mean of all centres.

    Words are compared with this instead of with the centre: a word that is near to everything, because the model likes
    it or because the whole collection is about it, gains nothing by that. A collection of two clusters of dogs should
    still be called dogs, so the fewer clusters there are, the less is taken off; from a single one nothing is.
    """
    k = len(centres)
    if not k:
        return centres
    apart: Vectors = centres - np.float32(1 - 1 / k) * centres.mean(axis=0)
    return apart


def name_clusters(
    vectors: Vectors,
    labels: Keys,
    n: int,
    terms: Vectors,
    allowed: NDArray[np.bool_] | None = None,
    former: Mapping[int, int] | None = None,
    kin: Keys | None = None,
) -> list[Named]:
    """Name n clusters by a vocabulary.

    Parameters
    ----------
    vectors
        (m, dim) unit rows: members of the clusters, or a sample of them.
    labels
        (m,) the cluster of each, from 0 to n - 1; below 0 for none.
    terms
        (n_terms, dim) unit rows: the words of the vocabulary, by the encoder that made ``vectors``.
    allowed
        (n, n_terms): which words may name which cluster; None: all. A cluster for which none is allowed may have any.
    former
        By cluster, the word that it was called before: it stays the name where it is still one of the keywords.
    kin
        (n_terms, r) the relatives of each word, as of ``relatives``: the mean of their scores is added to its own. A
        word with two meanings (a compass that draws, beside watches) may score by chance; a word that is right has
        relatives that are nearly right.

    Returns
    -------
    list of Named
        One a cluster, in their order; at most ``KEYWORDS`` words each.

    Raises
    ------
    InvalidInput
        If the vocabulary is empty or of another width.
    """
    if not len(terms) or terms.shape[1] != vectors.shape[1]:
        raise InvalidInput(f"expected words as vectors (n, {vectors.shape[1]}), at least one, got shape {terms.shape}")
    centres = means(vectors, labels, n)
    scores = contrast(centres) @ terms.T  # (n, n_terms)
    if kin is not None:
        said = sum((scores[:, column] for column in kin.T[1:]), start=scores[:, kin[:, 0]])
        scores = scores + said / np.float32(kin.shape[1])
    if allowed is not None:
        usable = allowed | ~allowed.any(axis=1, keepdims=True)
        scores = np.where(usable, scores, -np.inf)
    keywords = [_former_first(_distinct(row, terms), (former or {}).get(cluster)) for cluster, row in enumerate(scores)]
    return [
        Named(words, confidence)
        for words, confidence in zip(keywords, _confidence(vectors, labels, centres, keywords, terms), strict=True)
    ]


def relatives(terms: Vectors) -> Keys | None:
    """The words nearest in meaning to each word, (n_terms, 5); None where the vocabulary is too small to have such.

    Nearness is the cosine of the words' vectors, (n_terms, dim), less the mean of all. In vocabularies of a few hundred
    words or less the nearest ones are other things; in very large ones it would take too long.
    """
    if not _MANY <= len(terms) <= _TOO_MANY:
        return None
    apart = terms - terms.mean(axis=0)
    apart /= np.maximum(np.linalg.norm(apart, axis=1, keepdims=True), np.float32(1e-6))
    found = np.zeros((len(terms), _RELATIVES), dtype=np.int64)
    step = max(1, 4_000_000 // len(terms))
    for start in range(0, len(terms), step):
        alike = apart[start : start + step] @ apart.T
        own = np.arange(len(alike))
        alike[own, start + own] = -np.inf
        found[start : start + step] = np.argpartition(-alike, _RELATIVES, axis=1)[:, :_RELATIVES]
    return found


def _distinct(scores: NDArray[np.float32], terms: Vectors) -> tuple[int, ...]:
    """The best words, without those that say the same as a better one."""
    best = np.argsort(-scores, kind="stable")[:_LOOKED_AT]
    chosen: list[int] = []
    for term in best[np.isfinite(scores[best])]:
        if len(chosen) == KEYWORDS:
            break
        if not chosen or (terms[chosen] @ terms[term]).max() < _SAME:
            chosen.append(int(term))
    return tuple(chosen)


def _former_first(keywords: tuple[int, ...], former: int | None) -> tuple[int, ...]:
    if former is None or former not in keywords:
        return keywords
    return former, *(word for word in keywords if word != former)


def titles(named: Sequence[Named], centres: Vectors, terms: Vectors) -> list[tuple[int, ...]]:
    """What tells clusters apart for people: the name, and a second word where several have the same name.

    Parameters
    ----------
    centres
        (n, dim) mean vectors, as of ``means``.
    terms
        (n_terms, dim) unit rows.

    Returns
    -------
    list of tuple of int
        For each cluster its name, alone or followed by that other keyword of its own which sets it apart most from
        the clusters of the same name.
    """
    names = np.array([one.name for one in named], dtype=np.int64)
    found: list[tuple[int, ...]] = []
    for cluster, one in enumerate(named):
        same = np.flatnonzero(names == one.name)
        others = list(one.keywords[1:])
        if len(same) < 2 or not others:
            found.append((one.name,))
            continue
        apart = (centres[cluster] - centres[same].mean(axis=0)) @ terms[others].T
        found.append((one.name, others[int(np.argmax(apart))]))
    return found


def _confidence(
    vectors: Vectors, labels: Keys, centres: Vectors, keywords: Sequence[tuple[int, ...]], terms: Vectors
) -> list[float]:
    """The share of each cluster's members that prefer its name to the other clusters' names.

    Where all clusters have the same name, or there is only one, the other keywords stand for other names.
    """
    if not len(keywords):
        return []
    names = np.array([words[0] for words in keywords], dtype=np.int64)
    rivals = np.unique(names if len(set(names.tolist())) > 1 else np.array([w for words in keywords for w in words]))
    background = centres.mean(axis=0) * np.float32(1 - 1 / max(1, len(centres)))
    shares = []
    for cluster, name in enumerate(names):
        members = vectors[labels == cluster]
        if not len(members):
            shares.append(0.0)
            continue
        liked = rivals[np.argmax((members - background) @ terms[rivals].T, axis=1)]
        shares.append(float((liked == name).mean()))
    return shares
