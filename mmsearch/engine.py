"""``Engine``: the front door. It owns one store and one encoder, and everything else is reached through it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self, Unpack

import numpy as np
from numpy.typing import NDArray

from mmsearch.analysing import Analysing
from mmsearch.catalog import EncoderRecord, path_of
from mmsearch.errors import EncoderMismatch, InvalidInput, MMSearchError
from mmsearch.filling import ingest_all, reindex
from mmsearch.filters import Filter
from mmsearch.info import Info, collect
from mmsearch.profile import SETTINGS, Profile
from mmsearch.protocols import Encoder
from mmsearch.queries import QueryLike, stored_vectors
from mmsearch.ranking import Ranker, Rerank, SearchOptions
from mmsearch.sources import Given, Source, open_source, source_of_root
from mmsearch.store import Store, check_fields
from mmsearch.types import AddReport, Hit, Item, Query, Report, Vectors


class Engine(Analysing):
    """Search over one store. Make one with ``Engine.open``.

    An engine may be used from many threads; searches see whole states of the store, whoever writes meanwhile.
    """

    def __init__(self, store: Store, encoder: Encoder | None) -> None:
        super().__init__(store, Ranker(store, lambda: self.encoder))
        self._given = encoder
        self._encoder = encoder

    @classmethod
    def open(
        cls,
        path: str | Path,
        encoder: str | Encoder | None = None,
        *,
        spaces: Sequence[str] | None = None,
        create: bool = True,
    ) -> Engine:
        """Open a store, or make one.

        Parameters
        ----------
        path
            The store's folder.
        encoder
            The name of an encoder (see ``mmsearch.load_encoder``) or any object that satisfies
            ``mmsearch.protocols.Encoder``. None: the store's own; ``mini`` for a new store.
        spaces
            What to encode of each item, of ``picture``, ``text``, ``regions``, ``cells`` and ``joint``. None: as the
            store has it; picture and text for a new store. New ones are filled by the next ``sync`` or ``add_folder``.
        create
            False: refuse a path where there is no store yet.

        Raises
        ------
        EncoderMismatch
            If the store was made with another encoder.
        StoreError, StoreDamaged
            If the store cannot be opened.
        """
        loaded = _load(encoder) if isinstance(encoder, str) else encoder
        if spaces is not None:
            check_fields(spaces)
        store = Store(Path(path).expanduser(), create=create)
        try:
            if loaded is not None:
                store.check_encoder(loaded)
            if spaces is not None and set(spaces) != set(store.fields()):
                with store.writing():
                    store.set_fields(spaces)
        except BaseException:
            store.close()
            raise
        return cls(store, loaded)

    @property
    def encoder(self) -> Encoder:
        """The encoder, loaded when first needed."""
        record = self._store.encoder()
        if self._encoder is None or (record is not None and record.fingerprint != self._encoder.fingerprint):
            if self._given is not None and record is not None:
                self._store.check_encoder(self._given)
            self._encoder = _encoder_of(record)
            self._store.check_encoder(self._encoder)
        return self._encoder

    @property
    def ranker(self) -> Ranker:
        """What answers searches: its retriever, its collection, its cascades."""
        return self._ranker

    @property
    def path(self) -> Path:
        """The store's folder."""
        return self._store.path

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the store's files."""
        self._store.close()

    def __len__(self) -> int:
        """How many items there are."""
        return len(self._store.catalog)

    # Filling ----------------------------------------------------------------------------------------------------

    def add_folder(self, folder: str | Path, *, progress: Report | None = None) -> AddReport:
        """Index a folder of pictures, a dataset folder, a CSV, TSV, JSON-lines or Parquet table, or one picture.

        Called again it costs something only for what is new, changed, moved or deleted. A file that was moved or
        renamed keeps its id. It may be interrupted at any time: what was stored stays, the next call goes on.

        Parameters
        ----------
        progress
            Called now and then with where the work is.

        Raises
        ------
        InvalidInput
            If the path is none of these, or is empty now and held many items before (an absent disk).
        StoreBusy
            If another engine or process is writing.
        """
        return self._ingest([open_source(Path(folder))], progress)

    def add(self, items: Iterable[Item | Path | str], *, progress: Report | None = None) -> AddReport:
        """Add items; a bare ``Path`` is a picture, a bare ``str`` a text. An id that is there is replaced.

        What cannot be added is in the report's ``failed``; the rest is added all the same.
        """
        if isinstance(items, str | Path | Item):
            raise InvalidInput("expected a list of items, got a single one: put it in brackets")
        return self._ingest([Given(items)], progress)

    def sync(self, *, progress: Report | None = None) -> AddReport:
        """Look at every folder and table again that was ever added.

        A place that is not there at present (a disk that is not connected) is reported in ``failed``; its items stay.
        """
        roots = [(kind, path_of(path)) for _, kind, path in self._store.catalog.roots() if path]
        sources = [source_of_root(kind, path) for kind, path in roots]
        return self._ingest(sources, progress, absent_is_failure=True)

    def _ingest(self, sources: Sequence[Source], progress: Report | None, absent_is_failure: bool = False) -> AddReport:
        report = ingest_all(self._store, lambda: self.encoder, sources, progress, absent_is_failure=absent_is_failure)
        self._settle(progress)
        return report

    def _settle(self, progress: Report | None) -> None:
        """After a change: compute what searches need of new rows, so that none has to wait for it."""
        with suppress(MMSearchError):  # a search says in a note what is wrong
            self._ranker.collection.prepare(progress)

    def remove(self, ids: Iterable[str]) -> int:
        """Forget items. Their files stay where they are, and come back if their folder is indexed again.

        Raises
        ------
        ItemNotFound
            For an unknown id; nothing is removed then.
        """
        if isinstance(ids, str):
            raise InvalidInput(f"expected a list of ids, got the str {ids!r}: put it in brackets")
        with self._store.writing():
            wanted = list(dict.fromkeys(ids))
            rows = self._store.catalog.rows_by_id(wanted)
            with self._store.catalog.transaction():
                self._store.catalog.delete(row[0] for row in rows)
            self._store.kept.drop([path_of(row[2]) for row in rows if row[2]])
            self._store.tidy()
        return len(rows)

    def rebuild(self, *, progress: Report | None = None) -> None:
        """Make the index anew from the stored vectors, and drop the vectors of removed items."""
        with self._store.writing():
            self._store.rebuild(progress)

    def reindex(self, encoder: str | Encoder, *, progress: Report | None = None) -> AddReport:
        """Encode everything anew with another encoder, and switch to it at the end; ids stay.

        Until then the store answers with the old one. Interrupted, it goes on when called again. Items that cannot
        be read are in the report's ``failed``; they stay in the store without vectors of the new encoder.
        """
        new = _load(encoder) if isinstance(encoder, str) else encoder
        report = reindex(self._store, new, progress)
        self._given = self._encoder = new
        self._settle(progress)
        return report

    # Asking -----------------------------------------------------------------------------------------------------

    def search(
        self,
        query: QueryLike,
        k: int = 10,
        *,
        where: Filter | None = None,
        field: str | None = None,
        sort: str | None = None,
        exact: bool = False,
        rerank: Rerank = True,
        budget_ms: float | None = None,
        n_candidates: int | None = None,
        diversity: float = 0.0,
        collapse: float | None = None,
    ) -> list[Hit]:
        """The best k hits, best first; fewer only if there are no more.

        Parameters
        ----------
        query
            A str is a text; a ``Path``, PIL image or the bytes of a file a picture; a ``Query`` anything else.
        k
            How many, from 1 to 1,000,000.
        where
            A metadata filter: ``{"year": {"$gte": 2024}, "group": "photo"}`` or ``"year >= 2024 and group = photo"``.
        field
            ``picture`` or ``text`` to look in one field; None looks in both, and then scores are calibrated: 0 is a
            random item, 1 a typical best match. In one field, and without reranking, scores are cosines.
        sort
            A metadata field to order the k hits by, ``-field`` for the largest first; scores stay as they are.
        exact
            Scan everything instead of using the index.
        rerank
            True: by the store's tuned profile (``mmsearch tune``), else by the stages that the store has what they
            need for: hubness with a bank of queries, regions and late with the spaces ``regions`` and ``cells``.
            False: not at all. Or a ``Cascade``, or a list of stages. Whatever a stage fails at, there is an answer,
            and the hits' ``notes`` say what was left undone.
        budget_ms
            Milliseconds for reranking; later stages score as many hits as fit, best first.
        n_candidates
            How many hits are retrieved for reranking; None: as many as the stages want to see.
        diversity
            0 for relevance alone to 1 for variety alone (maximal marginal relevance).
        collapse
            Leave out hits whose vector has this cosine or more with that of a better one: 0.95 for near copies.

        Raises
        ------
        InvalidInput
            For a bad query, k, filter, field, stage, budget, diversity or collapse.
        PictureError
            For a picture that cannot be opened.
        ItemNotFound
            For an unknown id in the query.
        """
        (hits,) = self.search_many(
            [query], k, where=where, field=field, sort=sort, exact=exact, rerank=rerank, budget_ms=budget_ms,
            n_candidates=n_candidates, diversity=diversity, collapse=collapse,
        )  # fmt: skip
        return hits

    def search_many(
        self, queries: Sequence[QueryLike], k: int = 10, **options: Unpack[SearchOptions]
    ) -> list[list[Hit]]:
        """``search`` for many queries at once: the same options and answers, faster. ``budget_ms`` is for each."""
        if isinstance(queries, str | bytes | Path | Query) or not isinstance(queries, Iterable):
            raise InvalidInput("expected a list of queries, got a single one: use search, or put it in brackets")
        return self._ranker.search_many(list(queries), k, **options)

    def set_bank(self, queries: Iterable[str] | None, *, source: str = "", progress: Report | None = None) -> int:
        """Tell the store what people ask: a thousand queries or more, from a log or from captions of like pictures.

        Items that are near to all of them lose what they gain by that (see ``mmsearch.rerank.hubness.Hubness``); with
        the embedded model and 20,000 captions this alone took R@1 on Flickr8k dev from 29.9 to 32.3. Queries of
        another kind than people's own make answers worse. None forgets the bank.

        Returns
        -------
        int
            How many distinct queries are kept, at most 20,000.

        Raises
        ------
        InvalidInput
            If there is no query, or one that is no str.
        """
        if queries is not None and (isinstance(queries, str | bytes) or not isinstance(queries, Iterable)):
            raise InvalidInput(f"expected a list of queries as a bank, got {queries!r:.60}: put it in brackets")
        with self._store.writing():
            texts = None if queries is None else list(queries)
            return self._ranker.collection.set_bank(texts, source, progress)

    def set_profile(self, profile: Profile | None) -> None:
        """Rerank queries of the profile's kind by it from now on, as ``mmsearch tune`` does; None: forget them all."""
        kinds = tuple(SETTINGS) if profile is None else (profile.kind,)
        with self._store.writing(), self._store.catalog.transaction():
            for kind in kinds:
                self._store.catalog.set_setting(SETTINGS[kind], None if profile is None else profile.to_json())

    def heat_map(self, text: str, id: str | Item | Hit) -> dict[str, NDArray[np.float32]]:
        """Where each word of a text is found in an item's picture: (rows, columns) cosines by word.

        Raises
        ------
        ItemNotFound
            For an unknown id.
        InvalidInput
            If the encoder has no cells, or the store has none of this picture (space ``cells``).
        """
        from mmsearch.rerank.late import heat_map

        its = id.item.id if isinstance(id, Hit) else id.id if isinstance(id, Item) else id
        with self._store.reading():
            return heat_map(self._ranker.collection, text, Hit(self.get(its), score=0.0, rank=1))

    def get(self, id: str) -> Item:
        """One item.

        Raises
        ------
        ItemNotFound
            For an unknown id.
        """
        return self._store.catalog.get([id])[0]

    def items(self) -> Iterator[Item]:
        """Every item, in the order in which they came."""
        return (item for _, item in self._store.catalog.items())

    def vectors(self, ids: Sequence[str] | None = None, *, field: str | None = None) -> tuple[list[str], Vectors]:
        """Stored vectors: ids and (n, dim) float32 unit rows, in the order of ``ids`` or of adding.

        Parameters
        ----------
        field
            ``picture`` or ``text``; None: pictures where there are any, else texts. A text of several windows gives
            their mean.

        Raises
        ------
        ItemNotFound
            For an unknown id.
        InvalidInput
            For an id that has no vector in the field.
        """
        return stored_vectors(self._store, ids, field)

    def info(self) -> Info:
        """What is in the store, how it was made and how well the index finds it."""
        return collect(self._store)


def _load(name: str) -> Encoder:
    from mmsearch.encoders import load_encoder

    return load_encoder(name)


def _encoder_of(record: EncoderRecord | None) -> Encoder:
    if record is None:
        return _load("mini")
    try:
        return _load(record.name)
    except InvalidInput as error:
        raise EncoderMismatch(
            f"the store was made with the encoder {record.name!r} ({record.fingerprint}), which mmsearch cannot load "
            "by that name: pass the encoder itself, Engine.open(path, encoder=…)"
        ) from error
