"""``Lru``: values that are kept while there is room."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from mmsearch.errors import InvalidInput

Value = TypeVar("Value")


class Lru(Generic[Value]):
    """Values by key, those used last, as many as weigh ``limit`` together. Safe for threads."""

    def __init__(self, limit: int, weigh: Callable[[Value], int] = lambda _: 1) -> None:
        if limit < 0:
            raise InvalidInput(f"expected a cache of at least 0, got {limit}")
        self.limit = limit
        self._weigh = weigh
        self._lock = threading.Lock()
        self._values: OrderedDict[bytes, Value] = OrderedDict()
        self._weight = 0

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: bytes) -> Value | None:
        """The value, or None if it is not kept."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def put(self, key: bytes, value: Value) -> None:
        """Keep a value, and drop those that nobody asked for the longest."""
        with self._lock:
            old = self._values.pop(key, None)
            self._weight += self._weigh(value) - (0 if old is None else self._weigh(old))
            self._values[key] = value
            while self._weight > self.limit:
                self._weight -= self._weigh(self._values.popitem(last=False)[1])

    def clear(self) -> None:
        """Drop everything."""
        with self._lock:
            self._values.clear()
            self._weight = 0
