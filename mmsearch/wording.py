"""``Wording``: what the clusters of a store are called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mmsearch.clustering import Grouping
from mmsearch.clusters import Branch
from mmsearch.collection import StoreCollection
from mmsearch.lexicon import Lexicon, Vocabulary, choose_words, lexicon_of
from mmsearch.naming import means, name_clusters, relatives, titles
from mmsearch.selection import Selection
from mmsearch.types import Keys, Progress, Report, Vectors

SAMPLED = 40_000
"""Members by which clusters are named."""
_SAID = 3
"""Names of clusters that a group of them is called by."""


@dataclass(frozen=True, slots=True, eq=False)
class Wording:
    """Words by label: ``names``, ``titles`` (no two alike), ``keywords`` and ``confidence``.

    ``vectors``, (m, dim), are sampled members, ``labels``, (m,), theirs, and ``kin`` the words' relatives: by these,
    groups of clusters are named too.
    """

    names: Sequence[str]
    titles: Sequence[str]
    keywords: Sequence[tuple[str, ...]]
    confidence: Sequence[float]
    lexicon: Lexicon
    vectors: Vectors
    labels: Keys
    kin: Keys | None = None

    def branches(self, levels: Sequence[Keys], ids: Mapping[int, int]) -> tuple[Branch, ...]:
        """The hierarchy, named: ``levels`` as of ``clustering.hierarchy``, ``ids`` of the clusters by label."""
        words = [self._words(level) for level in levels]
        return self._branches(levels, words, ids, np.arange(len(ids), dtype=np.int64)) if levels else ()

    def _branches(
        self, levels: Sequence[Keys], words: Sequence[Sequence[tuple[str, ...]]], ids: Mapping[int, int], among: Keys
    ) -> tuple[Branch, ...]:
        """Branches of one level over some of the labels, the largest first."""
        found = []
        for group in np.unique(levels[0][among]).tolist():
            labels = among[levels[0][among] == group]
            below = self._branches(levels[1:], words[1:], ids, labels) if len(levels) > 1 else ()
            clusters = tuple(ids[label] for label in labels.tolist())
            found.append(Branch(self._called(labels), words[0][group], clusters, below))
        return tuple(found)

    def _called(self, labels: Keys) -> str:
        """A group of clusters by the names of the largest: one word rarely says what many kinds have in common."""
        names = list(dict.fromkeys(self.names[label] for label in labels.tolist()))
        return ", ".join(names[:_SAID]) + (", …" if len(names) > _SAID else "")

    def _words(self, level: Keys) -> list[tuple[str, ...]]:
        """The keywords of each group of a level: of those of its clusters, what sets it apart from other groups."""
        n = int(level.max()) + 1
        place = {word: number for number, word in enumerate(self.lexicon.words)}
        allowed = np.zeros((n, len(place)), dtype=np.bool_)
        for label, words in enumerate(self.keywords):
            allowed[level[label], [place[word] for word in words]] = True
        named = name_clusters(self.vectors, level[self.labels], n, self.lexicon.vectors, allowed, kin=self.kin)
        return [tuple(self.lexicon.words[word] for word in one.keywords) for one in named]


def worded(
    chosen: Selection,
    grouping: Grouping,
    vocabulary: Vocabulary,
    former: Mapping[int, str],
    collection: StoreCollection,
    seed: int,
    report: Report | None = None,
) -> Wording:
    """Find words for clusters.

    Parameters
    ----------
    former
        What clusters were called before, by label.
    collection
        Knows the encoder.
    """
    k = len(grouping.centres)
    positions = np.flatnonzero(grouping.labels >= 0)
    if len(positions) > SAMPLED:
        positions = np.sort(np.random.default_rng(seed).choice(positions, SAMPLED, replace=False))
    vectors, labels = chosen.rows.take(positions), grouping.labels[positions]
    if not k:
        return Wording((), (), (), (), Lexicon((), vectors[:0]), vectors, labels)
    if report is not None:
        report(Progress("names", 0, k))
    words, allowed = choose_words(vocabulary, chosen, positions, labels, k)
    lexicon = lexicon_of(words, lambda: collection.encoder, pictures=chosen.field != "text", report=report)
    place = {word: n for n, word in enumerate(lexicon.words)}
    before = {label: place[word] for label, word in former.items() if word in place}
    kin = relatives(lexicon.vectors)
    named = name_clusters(vectors, labels, k, lexicon.vectors, allowed, before, kin)
    told = titles(named, means(vectors, labels, k), lexicon.vectors)
    return Wording(
        names=[lexicon.words[one.name] for one in named],
        titles=_unlike([", ".join(lexicon.words[word] for word in words) for words in told]),
        keywords=[tuple(lexicon.words[word] for word in one.keywords) for one in named],
        confidence=[one.confidence for one in named],
        lexicon=lexicon,
        vectors=vectors,
        labels=labels,
        kin=kin,
    )


def _unlike(told: Sequence[str]) -> list[str]:
    """Titles of which no two are alike: those after the first have a number."""
    taken = set(told)
    seen: set[str] = set()
    found = []
    for title in told:
        unlike, number = title, 1
        while unlike in seen or (number > 1 and unlike in taken):
            number += 1
            unlike = f"{title} {number}"
        seen.add(unlike)
        found.append(unlike)
    return found
