"""One writer at a time: a lock on the store's folder that says who holds it."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmsearch.errors import StoreBusy

LOCK_FILE, HOLDER_FILE = "writer.lock", "writer.json"


class WriterLock:
    """A lock between processes, held by the operating system: it is free again when its holder dies.

    Threads of one engine wait for each other; another engine or process is refused at once.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._start()

    def _start(self) -> None:
        self._pid = os.getpid()
        self._threads = threading.RLock()
        self._depth = 0

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Hold the lock.

        Raises
        ------
        StoreBusy
            If another engine or process holds it, naming which and since when.
        """
        from filelock import FileLock, Timeout

        if self._pid != os.getpid():  # a forked child does not hold what its parent holds
            self._start()
        with self._threads:
            if self._depth:
                self._depth += 1
                try:
                    yield
                finally:
                    self._depth -= 1
                return
            lock = FileLock(self._folder / LOCK_FILE, is_singleton=False, thread_local=False)
            try:
                lock.acquire(timeout=0)
            except Timeout as error:
                raise StoreBusy(self._who()) from error
            self._depth = 1
            try:
                self._sign()
                yield
            finally:
                self._depth = 0
                try:
                    (self._folder / HOLDER_FILE).unlink(missing_ok=True)
                finally:
                    lock.release()

    def _sign(self) -> None:
        holder = {
            "pid": os.getpid(),
            "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])[:200],
            "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        }
        (self._folder / HOLDER_FILE).write_text(json.dumps(holder), "utf-8")

    def _who(self) -> str:
        try:
            holder = json.loads((self._folder / HOLDER_FILE).read_text("utf-8"))
            who = f"process {holder['pid']} ({holder['command']}) since {holder['since']}"
        except (OSError, ValueError, KeyError):
            who = "another process"
        return f"the store {self._folder} is being written by {who}: wait for it to finish, or stop it; reading works"
