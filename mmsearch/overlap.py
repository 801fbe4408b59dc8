"""Work in threads ahead of its consumer, in order and bounded."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Job = TypeVar("Job")
Done = TypeVar("Done")


def ahead(work: Callable[[Job], Done], jobs: Iterable[Job], n: int) -> Iterator[Done]:
    """Do jobs in threads, at most ``n`` ahead of the consumer, and give the results in the jobs' order.

    >>> list(ahead(lambda number: number * 2, [1, 2, 3], n=2))
    [2, 4, 6]
    """
    waiting: deque[Future[Done]] = deque()
    pool = ThreadPoolExecutor(n_workers(), thread_name_prefix="mmsearch")
    try:
        for job in jobs:
            waiting.append(pool.submit(work, job))
            if len(waiting) >= n:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def n_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def n_workers() -> int:
    """Threads that read and decode: one a core, and at least two, so that reading overlaps decoding."""
    return max(2, min(8, n_cores()))


def batches(things: Iterable[Job], size: int) -> Iterator[list[Job]]:
    """Lists of ``size`` things, the last perhaps shorter.

    >>> list(batches("abc", 2))
    [['a', 'b'], ['c']]
    """
    batch: list[Job] = []
    for thing in things:
        batch.append(thing)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
