"""Any function of a query and items as a stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from numpy.typing import ArrayLike

from mmsearch.errors import InvalidInput
from mmsearch.files import content_hash
from mmsearch.rerank.pairs import CACHE_SIZE, PairScorer, item_key
from mmsearch.types import Hit, Item, Query

Function: TypeAlias = Callable[[Query, list[Item]], ArrayLike]


class FunctionReranker(PairScorer):
    """A stage that asks a function for a number an item: an API, a rule, a model of your own.

    Since scores are kept and time may be short, an item's number must not depend on the other items of the call.
    Whatever the query is made of is passed on. A number is asked for again when the item's id, text, picture or
    metadata change; call ``forget`` when the function itself does, or use a ``cache_size`` of 0.

    Parameters
    ----------
    function
        Takes the query and a list of items, and gives one number an item, higher is better; NaN for no opinion. What
        it raises becomes a note.
    name
        What people call the stage.
    batch_size, cache_size
        As for ``PairScorer``: items of a call, and numbers that are kept.

    Raises
    ------
    InvalidInput
        If ``function`` cannot be called, and what ``PairScorer`` refuses.

    >>> from mmsearch.types import Hit, Item, Query
    >>> shortest = FunctionReranker(lambda query, items: [-len(item.text or "") for item in items], "shortest")
    >>> hits = [Hit(Item("a", text="a long text"), 0.9, 1), Hit(Item("b", text="brief"), 0.8, 2)]
    >>> [hit.item.id for hit in shortest.rerank(Query(text="anything"), hits)]
    ['b', 'a']
    """

    def __init__(
        self, function: Function, name: str = "function", *, batch_size: int = 32, cache_size: int = CACHE_SIZE
    ) -> None:
        if not callable(function):
            raise InvalidInput(f"expected a function of a query and items, got {type(function).__name__}")
        super().__init__(name, batch_size=batch_size, cache_size=cache_size)
        self._function = function
        called = getattr(function, "__qualname__", type(function).__qualname__)
        self.fingerprint = f"function {getattr(function, '__module__', '')}.{called}"

    def can_judge(self, query: Query, hit: Hit) -> bool:
        """Always: the function decides."""
        return True

    def item_key(self, item: Item) -> bytes:
        """As for any ``PairScorer``, and the metadata, which a function may read too."""
        return content_hash(item_key(item) + repr(sorted(item.metadata.items())).encode())

    def _score_batch(self, query: Query, hits: Sequence[Hit]) -> ArrayLike:
        return self._function(query, [hit.item for hit in hits])
