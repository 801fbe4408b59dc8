"""``Analysing``: what an ``Engine`` says of a collection as a whole: clusters, a map, duplicates, outliers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmsearch.atlas import Map
from mmsearch.clusters import Clustering
from mmsearch.copies import Copies
from mmsearch.curating import Curator
from mmsearch.errors import InvalidInput
from mmsearch.filters import Filter
from mmsearch.findings import DuplicateGroup, Flaw, Leak, Outlier, Suspect
from mmsearch.grouping import Grouper
from mmsearch.info import collect
from mmsearch.lexicon import Vocabulary
from mmsearch.looking import Looker
from mmsearch.mapping import Mapper
from mmsearch.ranking import Ranker
from mmsearch.recommending import Recommending
from mmsearch.selection import check_field, labels_of
from mmsearch.store import Store
from mmsearch.types import Item, Report


class Analysing(Recommending):
    """Analyses. A part of ``Engine``."""

    def __init__(self, store: Store, ranker: Ranker) -> None:
        super().__init__(store, ranker)
        self._grouper = Grouper(store, ranker)
        self._mapper = Mapper(store, self._grouper.past)
        self._looker = Looker(store)
        self._copies = Copies(store, self._looker)
        self._curator = Curator(store)

    def clusters(
        self,
        n: int | None = None,
        *,
        method: str = "auto",
        where: Filter | None = None,
        vocabulary: Vocabulary = None,
        seed: int = 0,
        progress: Report | None = None,
    ) -> Clustering:
        """Named groups of items that look or read alike, by their stored vectors.

        Items are compared by their picture. Those with only a text are grouped with them where they are a tenth or more
        of at most 200,000; fewer, or in larger collections, are in no cluster, and a note says so.

        Parameters
        ----------
        n
            How many groups; fewer if there are not as many distinct items. None: as many as fit best, see ``tried`` of
            the answer.
        method
            ``kmeans``, ``minibatch`` (for large collections), ``hdbscan`` (dense groups; the rest is noise),
            ``agglomerative``; ``auto`` chooses by size.
        where
            Only the items that pass this filter.
        vocabulary
            What names are chosen from: ``general`` (nouns that come with the package), ``collection`` (the items' own
            titles and keywords), a list of words; None: the first two.
        seed
            The same seed gives the same groups.

        Returns
        -------
        Clustering
            The groups, largest first. A group that was there the last time (with the same filter, and if there was one
            the same n and method) has the id that it had, and the name if that is still one of its keywords;
            ``changes`` says what grew, split, merged or vanished.

        Raises
        ------
        InvalidInput
            For a bad n, method, filter or vocabulary.
        """
        return self._grouper.clusters(n, method=method, where=where, vocabulary=vocabulary, seed=seed, report=progress)

    def cluster_agreement(self, clusters: Clustering, field: str) -> dict[str, float]:
        """How well clusters go with a metadata field: ``nmi``, ``ari`` and ``purity``, each at most 1.

        Items without the field are left out; those in no cluster count as one.

        Raises
        ------
        InvalidInput
            If no item has the field.
        """
        return self._grouper.agreement(clusters, field)

    def check_field(self, field: str) -> None:
        """See that items have a metadata field, before work that needs it.

        Raises
        ------
        InvalidInput
            If no item has it, with those that there are.
        """
        check_field(self._store, field)

    def map(
        self,
        *,
        method: str = "auto",
        where: Filter | None = None,
        clusters: Clustering | None = None,
        refit: bool = False,
        seed: int = 0,
        progress: Report | None = None,
    ) -> Map:
        """Items in the plane, like ones near each other; ``map().write(Path("map.html"))`` makes a page of it.

        The map is kept in the store. Items that come later are placed on it without making it anew, so that people
        find again what they have seen; when it knows less than half of the items, it is made anew.

        Parameters
        ----------
        method
            ``pca``, ``umap`` or ``pacmap`` (the last two with ``pip install 'mmsearch[analysis]'``); ``auto``: by size
            and by what is installed, or the map that is kept.
        where
            Only the items that pass this filter; each filter, and each method, has a map of its own.
        clusters
            Whose colours and names the map shows; None: the latest clustering with this filter, if there was one.
        refit
            Make the map anew in any case.

        Raises
        ------
        InvalidInput
            For a bad method or filter.
        MissingDependency
            For a method whose package is not installed.
        """
        return self._mapper.map(method=method, where=where, clusters=clusters, refit=refit, seed=seed, report=progress)

    def duplicates(
        self, *, where: Filter | None = None, mirrored: bool = False, progress: Report | None = None
    ) -> list[DuplicateGroup]:
        """Groups of items that show the same picture, the copy to keep first; the largest groups first.

        Copies are found by what was stored when pictures were added: their content, the hash of their shapes and
        colours, and their vectors; then pictures that may be copies are opened and held against each other. Items
        without a picture are copies if they have the same text.

        Parameters
        ----------
        mirrored
            Whether mirrored copies count too.

        Raises
        ------
        InvalidInput
            For a bad filter.
        """
        return self._copies.duplicates(where=where, mirrored=mirrored, report=progress)

    def leaks(self, field: str = "split", *, where: Filter | None = None, progress: Report | None = None) -> list[Leak]:
        """Pictures that are in more than one split of a dataset, the surest first.

        Parameters
        ----------
        field
            The metadata field that says in which split an item is.

        Raises
        ------
        InvalidInput
            If no item has the field.
        """
        return self._copies.leaks(field, where=where, report=progress)

    def outliers(
        self,
        k: int = 20,
        *,
        where: Filter | None = None,
        methods: Sequence[str] = ("lof", "isolation", "distance"),
        seed: int = 0,
        progress: Report | None = None,
    ) -> list[Outlier]:
        """The k items that are least like the others, the oddest first.

        Parameters
        ----------
        methods
            ``lof`` (fewer neighbours than its neighbours have), ``isolation`` (easily set apart by random cuts),
            ``distance`` (far from every group); their ranks are averaged.

        Raises
        ------
        InvalidInput
            For a bad k, filter or method.
        """
        return self._curator.outliers(k, where=where, methods=methods, seed=seed, report=progress)

    def flaws(self, *, where: Filter | None = None, method: str = "own", progress: Report | None = None) -> list[Flaw]:
        """What is wrong with pictures: dark, bright, blurred, empty, of an odd aspect, small; by kind, worst first.

        Every picture has to be opened for it once; what was measured is kept, and an interrupted call goes on.

        Parameters
        ----------
        method
            ``own``, or ``cleanvision`` for the scores and limits of that package (``pip install
            'mmsearch[cleanvision]'``), which tells ``large`` ones too and opens every picture each time.

        Raises
        ------
        InvalidInput
            For another method or a bad filter.
        MissingDependency
            For ``cleanvision`` where that is not installed.
        """
        return self._looker.flaws(where, progress, method)

    def suspects(
        self, field: str, k: int | None = None, *, where: Filter | None = None, progress: Report | None = None
    ) -> list[Suspect]:
        """Items whose label looks wrong by those of their nearest neighbours, the most suspect first.

        Parameters
        ----------
        field
            The metadata field with the labels.
        k
            At most so many; None: all whose neighbours are more convincing than their own label.

        Raises
        ------
        InvalidInput
            If no item has the field.
        """
        return self._curator.suspects(field, k, where=where, report=progress)

    def sample(
        self,
        n: int,
        *,
        method: str = "density",
        where: Filter | None = None,
        chosen: Sequence[str] = (),
        seed: int = 0,
    ) -> list[Item]:
        """N items that stand for the rest: what to look at, or to label, first.

        Parameters
        ----------
        method
            ``density`` (typical items of what is not covered yet), ``k-center`` (the farthest from all that are
            chosen: rare kinds too), ``random``.
        chosen
            Ids of items that are labelled already: they count as covered and are not chosen again.

        Returns
        -------
        list of Item
            In the order of choice: the first m are the sample of m.

        Raises
        ------
        InvalidInput
            For a bad n, method or filter.
        ItemNotFound
            For an unknown id in ``chosen``.
        """
        return self._curator.sample(n, method=method, where=where, chosen=chosen, seed=seed)

    def report(
        self,
        file: str | Path,
        *,
        n: int | None = None,
        labels: Sequence[str] = (),
        where: Filter | None = None,
        vocabulary: Vocabulary = None,
        seed: int = 0,
        progress: Report | None = None,
    ) -> None:
        """Write one page, ``.html``, on what is in the collection: it opens in a browser, without a server.

        It shows the named groups with pictures, the map, duplicates, outliers, flawed pictures, and figures that say
        how far to trust each.

        Parameters
        ----------
        n, vocabulary, seed
            As for ``clusters``.
        labels
            Metadata fields whose labels are measured against the groups, and checked for wrong ones.

        Raises
        ------
        InvalidInput
            For another ending, a bad filter, or a field that no item has.
        MissingDependency
            Without ``pip install 'mmsearch[analysis]'``.
        """
        from mmsearch.report import Portrait, write_report

        file = Path(file)
        if file.suffix.lower() not in (".html", ".htm"):  # before the work, not after it
            raise InvalidInput(f"expected a report as .html, got {file.name!r}")
        if isinstance(labels, str):
            raise InvalidInput(f"expected a list of fields as labels, got the str {labels!r}: put it in brackets")
        for field in labels:
            labels_of(self._store, (), field)
        groups = self.clusters(n, where=where, vocabulary=vocabulary, seed=seed, progress=progress)
        portrait = Portrait(
            title=self._store.path.resolve().name,
            info=collect(self._store),
            clustering=groups,
            map=self.map(where=where, clusters=groups, seed=seed, progress=progress) if groups.labels else None,
            duplicates=self.duplicates(where=where, progress=progress),
            outliers=self.outliers(where=where, seed=seed, progress=progress),
            flaws=self.flaws(where=where, progress=progress),
            suspects={field: self.suspects(field, where=where, progress=progress) for field in labels},
            agreement={field: self.cluster_agreement(groups, field) for field in labels},
        )
        write_report(file, portrait)
