"""Indexes of vectors: ``ExactIndex`` compares with every row, ``HNSWIndex`` follows a graph of neighbours.

USearch, which holds the graph, is imported when the first ``HNSWIndex`` is made: small stores never need it.
"""

from mmsearch.index.exact import ExactIndex
from mmsearch.index.files import quarantine, read_meta
from mmsearch.index.hnsw import HNSWIndex

__all__ = ["ExactIndex", "HNSWIndex", "quarantine", "read_meta"]
