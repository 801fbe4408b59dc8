"""The seams: what an encoder and an index must offer. Nobody has to inherit from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mmsearch.behaviour import Behaviour
from mmsearch.types import Cells, Hit, Keys, Neighbors, Picture, Query, Signal, Vectors, Words


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
    """0: it has none after all."""
    cell_dim: int
    cell_size: int
    """Pixels a side that are read for cells; where that is more than ``image_size``, the vector gains too."""

    def prepare_cells(self, image: Picture) -> Picture:
        """Shrink a picture to what ``encode_cells`` reads; runs in many threads while the model works."""
        ...

    def encode_cells(self, images: Sequence[Picture]) -> tuple[Vectors, Cells]:
        """Pictures, read closely, to (n, dim) unit rows of the wholes and (n, n_cells, cell_dim) of their cells."""
        ...

    def encode_words(self, texts: Sequence[str]) -> list[Words]:
        """The words of each text, with a unit row a token in the space of the cells."""
        ...


@runtime_checkable
class JointEncoder(Protocol):
    """An encoder with a model that reads a text and a picture together."""

    joint: tuple[int, int]
    """Cells of a picture and numbers a cell; (0, 0): it has no such model after all."""
    joint_fingerprint: str
    """Which model: beside the encoder's own fingerprint, which does not cover it."""

    def encode_joint(self, images: Sequence[Picture]) -> NDArray[np.float32]:
        """Pictures, or what ``prepare`` made of them, to (n, n_cells, width) cells."""
        ...

    def match(self, text: str, cells: NDArray[np.float32]) -> NDArray[np.float32]:
        """How well a text goes with each of n pictures, given their cells, (n, n_cells, width), as logits, (n,)."""
        ...


class VectorRows(Protocol):
    """Vectors by position, handed out in pieces: there may be more of them than fit into memory."""

    def __len__(self) -> int:
        """How many positions there are."""
        ...

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        ...

    def take(self, columns: Keys) -> Vectors:
        """The vectors at positions, (m, dim) float32 unit rows, in the order asked for."""
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


@runtime_checkable
class Reranker(Protocol):
    """Reorders a short list of hits with a slower, more exact opinion."""

    name: str

    def rerank(self, query: Query, hits: Sequence[Hit]) -> list[Hit]:
        """The same hits, best first, with ``rank`` and ``score`` to match."""
        ...


@runtime_checkable
class Scorer(Protocol):
    """A stage that gives each hit a number, which a cascade weighs against the numbers of the other stages."""

    name: str

    def score(self, query: Query, hits: Sequence[Hit], deadline: float | None = None) -> Signal:
        """One number a hit, in the hits' order; what ``time.perf_counter() > deadline`` leaves no time for is NaN."""
        ...


class Collection(Protocol):
    """What stages may ask of the store whose hits they reorder."""

    @property
    def encoder(self) -> Encoder:
        """The store's encoder, loaded when first needed."""
        ...

    @property
    def fields(self) -> frozenset[str]:
        """The spaces that hold rows: of picture, text, regions, cells and joint."""
        ...

    @property
    def encoder_name(self) -> str:
        """The encoder's name, known without loading it."""
        ...

    @property
    def folder(self) -> Path:
        """The store's folder, where a stage may keep what it has computed: a cache, which may vanish."""
        ...

    def bank_texts(self) -> list[str]:
        """The bank's queries that are texts; none without a bank."""
        ...

    def has_bank(self, kind: str) -> bool:
        """Whether there is a bank of queries of a kind, ``text`` or ``picture``."""
        ...

    def query_vector(self, query: Query) -> tuple[Vectors, str]:
        """A query as one unit vector, (dim,), and the field whose items it resembles."""
        ...

    def word_ranks(self, text: str, ids: Sequence[str]) -> dict[str, int]:
        """Those of these items that have any of a text's words, each with its full-text rank among them, from 1."""
        ...

    def rows(self, field: str, hits: Sequence[Hit]) -> tuple[Keys, Keys]:
        """For each hit the number of its first row in a space and how many it has, (n,) each; 0 of them if none."""
        ...

    def stored(self, field: str, rows: Keys) -> NDArray[Any]:
        """Stored rows of a space, (n, width): float32, or the int8 codes of cells."""
        ...

    def biases(self, field: str, rows: Keys, kind: str) -> NDArray[np.float32] | None:
        """The bias of rows of a space for queries of a kind, (n,) float32; None without a bank of such queries."""
        ...

    def centre(self, field: str, kind: str) -> float:
        """The mean bias of a space's rows, so that taking biases off leaves scores where they were on the whole."""
        ...


@runtime_checkable
class Recommender(Protocol):
    """Says from what people had what else they would like. It knows items by position, and people by their history.

    A person need not have been there when it was fitted: whoever has a history can be served (folding in). Scores of
    one recommender can be compared with each other only.
    """

    name: str
    n_items: int
    """How many items it knows; below 0 before it has learnt anything."""

    def fit(self, behaviour: Behaviour) -> Self:
        """Learn from everybody's events. Nothing of it is kept but what is needed for answers."""
        ...

    def scores(self, histories: Behaviour, columns: Keys | None = None) -> NDArray[np.float32]:
        """How well each item suits each person of ``histories``: (n_users, n_items) finite float32.

        With ``columns``, (m,) item positions, (n_users, m) for these alone. What was seen is scored as well. An empty
        history has the scores of somebody of whom nothing is known, which may be all 0.
        """
        ...

    def candidates(self, histories: Behaviour, k: int) -> list[Keys]:
        """For each person the positions of about k items that may suit them best, best first, by the cheapest way.

        Seen ones may be among them. Fewer than k, down to none, where it has nothing to say on the others.
        """
        ...

    def contributions(self, history: Behaviour, column: int) -> NDArray[np.float32]:
        """How much each event of one person adds to an item's score, (n_events,); zeros where it cannot be told."""
        ...

    def state(self) -> dict[str, NDArray[Any]]:
        """What was learnt, as arrays that can be written to a file; ``restore`` takes them back."""
        ...

    def restore(self, state: Mapping[str, NDArray[Any]]) -> Self:
        """Take back what ``state`` gave, which may be memory-mapped and read-only."""
        ...
