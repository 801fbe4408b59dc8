"""The bias of a vector: how near it lies to queries in general, whatever they ask for.

Rows that are near to many queries ("hubs") turn up in answers where they do not belong. Taking the bias off a row's
scores is query-bank normalisation: Bogolin et al., "Cross Modal Retrieval with Querybank Normalisation" (CVPR 2022),
section 3, whose inverted softmax divides exp(beta * cosine) by its sum over the bank; as a logarithm, that is a
subtraction, and computed once per row.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmsearch.types import Vectors

BETA = 20.0
"""Inverse temperature, as in the paper's section 4.2."""
SHRINK = 250
"""A bank of n queries counts n / (n + 250) of one without end: few queries say little about all. So corrected, banks of
50 and 250 change R@1 on Flickr8k dev by less than 0.5 (``benchmarks/cascade.py``)."""
_CHUNK = 512


def biases(rows: Vectors, bank: Vectors) -> NDArray[np.float32]:
    """The bias of rows, (n, dim) unit rows, for a bank, (b, dim) unit rows: (n,) float32, in units of cosines.

    log(mean(exp(beta * cosine))) / beta over the bank, shrunk for a small bank.
    """
    found = np.empty(len(rows), dtype=np.float32)
    for first in range(0, len(rows), _CHUNK):
        cosines = rows[first : first + _CHUNK] @ bank.T
        np.exp(BETA * cosines, out=cosines)
        found[first : first + _CHUNK] = np.log(cosines.mean(axis=1, dtype=np.float64)) / BETA
    return np.asarray(found * (len(bank) / (len(bank) + SHRINK)), dtype=np.float32)
