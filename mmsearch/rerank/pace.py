"""``Pace``: how much fits into memory and into the time that is left, learned from what was done."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from mmsearch.encoders.towers import is_out_of_memory

Done = TypeVar("Done")

_FIRST_TRY = 4
"""Things in the first batch under a deadline while nobody knows yet how long one takes."""


class Pace:
    """What a model can do: things that fit into memory at once, and seconds that each took in the last call."""

    def __init__(self, batch_size: int) -> None:
        self.fitting = batch_size
        self.seconds_each = 0.0


@dataclass(slots=True)
class Clock:
    """One call's time, up to its deadline (of ``time.perf_counter``; None: without end)."""

    pace: Pace
    deadline: float | None
    seconds: float = 0.0
    n_done: int = 0

    def is_late(self) -> bool:
        """Whether the time is up."""
        return self.deadline is not None and time.perf_counter() > self.deadline

    def room(self) -> int:
        """Things that fit into memory and into the time that is left.

        The first batch of a call always begins, with one thing at least: a pace that was once measured badly would
        otherwise never be measured again.
        """
        if self.deadline is None:
            return self.pace.fitting
        if self.is_late():
            return 0
        each = self.seconds / self.n_done if self.n_done else self.pace.seconds_each
        if not each:
            return min(self.pace.fitting, _FIRST_TRY)
        left = int((self.deadline - time.perf_counter()) / each)
        return min(self.pace.fitting, max(left, 0 if self.n_done else 1))

    def attempt(self, n: int, work: Callable[[], Done]) -> Done | None:
        """Do a batch of n things and learn from it; None if it did not fit into memory: half of it is to be tried."""
        start = time.perf_counter()
        try:
            done = work()
        except Exception as error:
            if n == 1 or not is_out_of_memory(error):
                raise
            self.pace.fitting = max(1, min(self.pace.fitting, n // 2))
            return None
        self.seconds += time.perf_counter() - start
        self.n_done += n
        self.pace.seconds_each = self.seconds / self.n_done
        return done
