"""The seams: what an encoder and an index must offer. Nobody has to inherit from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from mmsearch.types import Cells, Keys, Neighbors, Picture, Vectors


@runtime_checkable
class Encoder(Protocol):
    """Maps texts and pictures into one space of unit vectors.

    ``fingerprint`` says which space: two encoders with equal fingerprints may share a store.
    It covers the weights, the preprocessing, the tokenizer, the width and int8 quantisation;
    ``runtime`` (device, precision, library) is recorded but never compared.
    """

    name: str
    dim: int
    fingerprint: str
    licence: str
    runtime: str
    image_size: int
    """Pixels a side that the model reads; pictures may be decoded at any size of at least twice this."""

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """Texts to unit rows, (n, dim) float32. What exceeds the context is cut off: see ``split_text``."""
        ...

    def encode_images(self, images: Sequence[Picture]) -> Vectors:
        """Pictures, or what ``prepare`` made of them, to unit rows, (n, dim) float32."""
        ...

    def prepare(self, image: Picture) -> Picture:
        """Shrink a picture to what the model reads; runs in many threads while the model works."""
        ...

    def split_text(self, text: str) -> list[str]:
        """Pieces of a text that each fit the context, in order; one piece if it fits whole."""
        ...


@runtime_checkable
class CellEncoder(Protocol):
    """An encoder that also describes the cells of a picture, for late interaction."""

    n_cells: int
    cell_dim: int

    def encode_cells(self, images: Sequence[Picture]) -> Cells:
        """Pictures to unit rows per cell, (n, n_cells, cell_dim) float32."""
        ...


class VectorIndex(Protocol):
    """Nearest neighbours by inner product of unit vectors (their cosine)."""

    dim: int

    def __len__(self) -> int:
        """How many keys are stored."""
        ...

    def add(self, keys: Keys, vectors: Vectors) -> None:
        """Store vectors, (n, dim), under new keys, (n,) integers of at least 0.

        Raises
        ------
        InvalidInput
            For a key that is taken or repeated, a wrong width, NaN, infinity or a zero vector; nothing is
            stored then.
        """
        ...

    def remove(self, keys: Keys) -> int:
        """Forget these keys; unknown ones are passed over. Says how many were there."""
        ...

    def search(self, queries: Vectors, k: int) -> list[Neighbors]:
        """For each query row the k nearest, best first; fewer where fewer are stored, never padded."""
        ...
