"""``Clustering`` and ``Cluster``: what is in a collection, as named groups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from mmsearch.errors import ItemNotFound
from mmsearch.types import Item

NOISE = -1
"""The label of items that are in no cluster."""


@dataclass(frozen=True, slots=True)
class Quality:
    """How good a cluster, or a clustering, is: four numbers, never NaN; higher is better.

    Attributes
    ----------
    silhouette
        How much nearer members are to their own cluster than to the next one, by cosine: -1 to 1
        (Rousseeuw, J. Comput. Appl. Math. 20, 1987). 0 where there is only one cluster.
    cohesion
        The mean cosine of members to the cluster's centre.
    separation
        1 less the cosine of the centre to the nearest other centre: 0 to 2. 0 where there is only one cluster.
    stability
        How much of it comes back when a random half of the items is clustered anew: 0 to 1, the mean Jaccard overlap
        with the best matching cluster (Hennig, Comput. Stat. Data Anal. 52, 2007).
    """

    silhouette: float = 0.0
    cohesion: float = 0.0
    separation: float = 0.0
    stability: float = 0.0


@dataclass(frozen=True, slots=True)
class Exemplars:
    """Members to show: ``central`` ones (the medoid first), those on the ``border`` to another cluster, ``odd`` ones.

    Iterating goes over the central ones.
    """

    central: tuple[Item, ...] = ()
    border: tuple[Item, ...] = ()
    odd: tuple[Item, ...] = ()

    @property
    def medoid(self) -> Item:
        """The member that is nearest to all others."""
        return self.central[0]

    def __iter__(self) -> Iterator[Item]:
        return iter(self.central)

    def __len__(self) -> int:
        return len(self.central)


@dataclass(frozen=True, slots=True)
class Cluster:
    """One named group.

    Attributes
    ----------
    id
        Stays the same when the collection is clustered again and the cluster is still there.
    name
        What sets it apart from the other clusters, in a word or two of the vocabulary.
    keywords
        The name, and what else sets it apart, best first; three to five where the vocabulary has as many.
    confidence
        The share of its members that go with this name rather than with the name of another cluster, 0 to 1.
    items
        Its members, the most central first.
    exemplars, quality
        Members to show, and how good it is.
    title
        The name, with a second word where another cluster has the same name: no two are alike.
    """

    id: int
    name: str
    keywords: tuple[str, ...]
    confidence: float
    items: Sequence[Item]
    exemplars: Exemplars
    quality: Quality
    title: str = ""

    def __len__(self) -> int:
        """How many members it has."""
        return len(self.items)


@dataclass(frozen=True, slots=True)
class Branch:
    """A group of clusters in the hierarchy, with finer ``branches`` where there are any.

    Its ``name`` is made of those of its largest clusters; ``keywords`` set it apart from the other branches of its
    level; ``clusters`` are the ids of all below it, the largest first.
    """

    name: str
    keywords: tuple[str, ...]
    clusters: tuple[int, ...]
    branches: tuple[Branch, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """What became of a cluster since the collection was clustered before.

    ``kind`` is ``new``, ``grew``, ``shrank``, ``split``, ``merged`` or ``vanished``. ``id`` and ``name`` are the
    cluster's (its former ones, if it is gone), ``others`` the clusters that it was split into or merged from or into,
    ``before`` and ``after`` how many items it had and has.
    """

    kind: str
    id: int
    name: str
    before: int
    after: int
    others: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Clustering:
    """Named groups, largest first, and what tells how far to trust them.

    Attributes
    ----------
    clusters
        The groups, largest first. Iterating over the clustering goes over them.
    labels
        The cluster's id by item id; -1 for items that are in none.
    method
        How it was made: ``kmeans``, ``minibatch``, ``hdbscan`` or ``agglomerative``.
    quality
        The mean over all clustered items.
    hierarchy
        Groups of clusters, coarsest first; empty where there are too few clusters to group them.
    changes
        What happened since the clustering before, if there was one.
    tried
        The score of each number of clusters that was tried, where the number was not given.
    notes
        What could not be done, in words.
    """

    clusters: tuple[Cluster, ...]
    labels: Mapping[str, int]
    method: str
    quality: Quality
    hierarchy: tuple[Branch, ...] = ()
    changes: tuple[Change, ...] = ()
    tried: Mapping[int, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Cluster]:
        return iter(self.clusters)

    def __len__(self) -> int:
        """How many clusters there are."""
        return len(self.clusters)

    def __getitem__(self, id: int) -> Cluster:
        """The cluster of an id.

        Raises
        ------
        ItemNotFound
            If there is none.
        """
        for cluster in self.clusters:
            if cluster.id == id:
                return cluster
        raise ItemNotFound(f"no cluster {id!r} among these {len(self.clusters)}")

    @property
    def n_noise(self) -> int:
        """How many items are in no cluster."""
        return sum(label == NOISE for label in self.labels.values())
