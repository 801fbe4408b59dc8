"""Clustering arithmetic: groups of vectors, their hierarchy, quality, exemplars, and identities that last."""

from mmsearch.clustering.exemplars import border, central, odd
from mmsearch.clustering.group import METHODS, Grouping, group
from mmsearch.clustering.matching import Matching, match
from mmsearch.clustering.quality import agreement, quality
from mmsearch.clustering.tree import hierarchy

__all__ = [
    "METHODS",
    "Grouping",
    "Matching",
    "agreement",
    "border",
    "central",
    "group",
    "hierarchy",
    "match",
    "odd",
    "quality",
]
