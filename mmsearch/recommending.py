"""``Recommending``: what an ``Engine`` says of tastes: similar items, recommendations, what comes next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Unpack

from mmsearch.anchors import Like
from mmsearch.errors import InvalidInput
from mmsearch.filters import Filter
from mmsearch.interacting import Interacting
from mmsearch.likeness import Fields, Similar, SimilarOptions, check_weights
from mmsearch.lineup import Lineup, open_lineup
from mmsearch.people import Liked
from mmsearch.picking import Wishes
from mmsearch.ranking import Ranker, Rerank
from mmsearch.recommend import Asked, Desk
from mmsearch.recommenders.profiles import MEAN
from mmsearch.stock import DETAILS
from mmsearch.store import Store
from mmsearch.tastes import Tastes
from mmsearch.types import FIELDS, Hit, Item, Report

SESSION_DECAY = 0.7
"""What a step back in a session counts where nothing was learnt: the best for transitions on a validation split of
MovieLens."""


class Recommending(Interacting):
    """Recommends. A part of ``Engine``."""

    def __init__(self, store: Store, ranker: Ranker) -> None:
        self._store, self._ranker = store, ranker
        self._alike = Similar(store, ranker)
        self._tastes = Tastes(store)
        self._desk = Desk(store, ranker, self._tastes)

    def similar(
        self,
        id: Like,
        k: int = 10,
        *,
        where: Filter | None = None,
        field: str | None = None,
        fields: Fields | None = None,
        diversity: float = 0.0,
        exact: bool = False,
        rerank: Rerank = False,
        complementary: bool = False,
    ) -> list[Hit]:
        """The k items most like one; neither itself nor exact copies of its picture are among them.

        Parameters
        ----------
        id
            The id of an item; a ``Path`` to a picture, which need not be in the store; an ``Item``, looked up by its
            id where it is there, else encoded; or a ``Hit``.
        where, diversity, exact
            As in ``search``.
        field
            Look in one field only.
        fields
            What to compare: None compares its picture, or else its text, with both fields. A name, a list of names or
            weights by name (``{"picture": 0.3, "text": 0.7}``) compare each field with the same field; the score is
            the weighted mean of the cosines then, an item without a field counts 0 there, and the item itself is
            compared by those that it has. ``scores`` and ``reasons`` of the hits tell the parts.
        rerank
            True compares all views of both pictures, in a store with the space ``regions``.
        complementary
            True: not what is like it, but what people had together with it, learnt by ``fit_recommender``; best first,
            and none that nobody had together with it. ``fields``, ``field``, ``exact`` and ``rerank`` are not for this.

        Raises
        ------
        InvalidInput
            For a bad option, something that cannot be compared, or ``complementary`` where nothing was learnt.
        ItemNotFound
            For an unknown id.
        PictureError
            For a picture that cannot be opened.
        """
        if complementary:
            if fields is not None or field is not None or exact or rerank is not False:
                raise InvalidInput(
                    "expected complementary without field, fields, exact and rerank, which go by content"
                )
            wishes = Wishes(diversity=diversity)
            return self._desk.complementary(_stored_id(id), Asked(k, where, wishes=wishes))
        (hits,) = self.similar_many(
            [id], k, where=where, field=field, fields=fields, diversity=diversity, exact=exact, rerank=rerank
        )
        return hits

    def similar_many(self, ids: Sequence[Like], k: int = 10, **options: Unpack[SimilarOptions]) -> list[list[Hit]]:
        """``similar`` for many at once: the same options and answers, faster; not ``complementary``."""
        return self._alike.similar_many(ids, k, **options)

    def recommend(
        self,
        *,
        liked: Liked = (),
        disliked: Liked = (),
        user: str | None = None,
        k: int = 10,
        where: Filter | None = None,
        exclude_seen: bool = True,
        diversity: float = 0.0,
        method: str = "mmr",
        popularity: float = 0.0,
        novelty: float = 0.0,
        most_per: Mapping[str, int] | None = None,
        fields: Fields | None = None,
        profile: str | None = None,
        half_life: float | None = None,
    ) -> list[Hit]:
        """What somebody would like, best first, with ``reasons``; fewer than k only if there are no more.

        After ``fit_recommender``, behaviour and content are blended as was learnt; before it, and for what is not in
        the store, content alone decides. Somebody of whom nothing is known gets what most people like, or, where
        nothing was learnt, the newest items; ``notes`` of the hits say so. Equal items are in the order of their ids.

        Parameters
        ----------
        liked, disliked
            What is liked and what is not: ids, ``Path``s to pictures, ``Item``s, ``Hit``s, or weights by id. The last
            ones count as the latest. What is both liked and disliked has no say. A picture that an item of the store
            has stands for that item.
        user
            Whose interactions in the store count too, before what is liked here.
        k, where
            As in ``search``.
        exclude_seen
            Leave out what they had to do with, whether they liked it or not, and exact copies of its picture.
        diversity
            From 0, the best, to 1, variety alone, by the ``method`` ``mmr`` (maximal marginal relevance) or ``dpp``
            (determinantal point process; see ``mmsearch.diversify``).
        popularity
            From -1, what few know, over 0 to 1, what many know, as it was when ``fit_recommender`` learnt it.
        novelty
            From 0 to 1: unlike everything they have had.
        most_per
            The largest number of items with one value of a metadata field: ``{"brand": 2}``.
        fields
            Go by content alone, with these weights of ``picture``, ``text`` and ``details`` (what is in the metadata).
        profile
            Go by content alone, compared with: ``mean``, the mean of what is liked less that of what is not;
            ``nearest``, the nearest liked thing, unless a disliked one is nearer; ``interests``, as nearest, but with
            one representative of each group of like things. None: ``nearest``. How much something is liked counts for
            ``mean`` and ``interests``.
        half_life
            Go by content alone, with the profile ``mean`` unless another is named: days after which what the user had
            to do with counts half, from their last interaction.

        Raises
        ------
        InvalidInput
            For a bad option.
        ItemNotFound
            For an unknown id in ``liked`` or ``disliked``; an unknown user is somebody of whom nothing is known.
        PictureError
            For a picture that cannot be opened.
        """
        wishes = Wishes(diversity, method, popularity, novelty, {} if most_per is None else most_per)
        weights = None if fields is None else check_weights(fields, (*FIELDS, DETAILS))
        profile = MEAN if profile is None and half_life is not None else profile
        asked = Asked(k, where, exclude_seen, weights, profile, wishes=wishes)
        return self._desk.recommend(asked, liked=liked, disliked=disliked, user=user, half_life=half_life)

    def next(
        self,
        session: Liked,
        k: int = 10,
        *,
        user: str | None = None,
        where: Filter | None = None,
        exclude_seen: bool = True,
        diversity: float = 0.0,
    ) -> list[Hit]:
        """What comes next after the items of a session, the last of which say most.

        After ``fit_recommender`` it goes by what followed what in people's histories, blended with all else that was
        learnt; before it, by content, where a step back counts 0.7.

        Parameters
        ----------
        session
            What somebody had to do with, in order: as ``liked`` in ``recommend``.
        user, k, where, exclude_seen, diversity
            As in ``recommend``.

        Raises
        ------
        InvalidInput, ItemNotFound, PictureError
            As ``recommend``.
        """
        asked = Asked(k, where, exclude_seen, decay=SESSION_DECAY, wishes=Wishes(diversity=diversity))
        return self._desk.recommend(asked, liked=session, user=user)

    def fit_recommender(self, *, fresh: float = 0.1, progress: Report | None = None) -> None:
        """Learn from all interactions: which models to trust how much, then the models; the store keeps it.

        Interactions that come later count for the person whose they are at once, for others after the next fit; items
        that come later are recommended by their content; metadata that changes later counts after the next fit. Others
        may write to the store meanwhile. See ``mmsearch.recommenders.hybrid.Hybrid``.

        Parameters
        ----------
        fresh
            The share of the first ten places, on average, for items that nobody has had yet, where they are a fifth of
            all or more; in proportion where they are fewer.

        Raises
        ------
        InvalidInput
            If there are no interactions, or ``fresh`` is out of range.
        StoreBusy
            If another engine or process is writing at the end.
        """
        self._tastes.fit(progress, fresh=fresh)

    def forget_interactions(self, user: str | None = None) -> int:
        """Delete a user and all their interactions, or everybody's (None); return how many interactions.

        What was deleted is overwritten in the store's files as soon as the store is closed. With everybody's, all that
        was learnt of them goes too. What was learnt of many people together holds a user's part, and answers show it,
        until the next ``fit_recommender``, which leaves nothing of it.
        """
        with self._store.writing():
            n = super().forget_interactions(user)
            self._tastes.forget(everything=user is None)
        return n

    def needs_fit(self) -> bool:
        """Whether there are interactions that nothing was learnt from yet, by ``fit_recommender``."""
        return self._tastes.is_behind()

    def lineup(self) -> Lineup:
        """The store's interactions and all recommenders for its items, as ``mmsearch eval-recommend`` compares them."""
        return open_lineup(self._store)


def _stored_id(like: Like) -> str:
    id = like.item.id if isinstance(like, Hit) else like.id if isinstance(like, Item) else like
    if not isinstance(id, str) or not id:
        raise InvalidInput(f"expected an item of the store for what goes together with it, got {like!r:.60}")
    return id
