"""Who had to do with which item, and when."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mmsearch.catalog.catalog import Catalog
from mmsearch.errors import InvalidInput
from mmsearch.filters import facts_of
from mmsearch.types import Keys

UNKNOWN_TIME = -math.inf
"""What stands for a time that is not known."""
AMBIGUOUS = -1
"""What stands for the key where several items share a value."""
_COUNTER = "events"
_PARAMETERS = 30_000  # SQLite takes 32,766
_USERS_AT_ONCE, _EVENTS_AT_ONCE = 1_000, 10_000
_STORED = np.dtype([("user", np.int64), ("item", np.int64), ("weight", np.float32), ("time", np.float64)])

Told: TypeAlias = tuple[str, int, str, float, float]
"""User id, item key, kind, weight, time."""
_Event: TypeAlias = tuple[int, int, str, float]


class Events(NamedTuple):
    """All events in the order in which they were told, by user position and item key.

    ``users``, (n,) int64, are positions in ``user_ids``, in the order in which the users were first heard of;
    ``items``, (n,) int64 keys; ``weights``, (n,) float32; ``times``, (n,) float64 seconds since 1970, NaN if unknown.
    """

    users: Keys
    items: Keys
    weights: NDArray[np.float32]
    times: NDArray[np.float64]
    user_ids: list[str]


class EventBook:
    """Reads and writes the tables ``users`` and ``events`` of a catalog.

    The same user, item, kind and time are one event. Events of an item that is deleted are deleted with it; an item
    that is replaced keeps them.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._database = catalog.database

    # Writing ----------------------------------------------------------------------------------------------------

    def add(self, told: Sequence[Told]) -> tuple[int, int, int]:
        """Record events, one after the other; an event that is there gets the new weight. Inside a transaction.

        Returns
        -------
        added, changed, unchanged
            How many were new, had another weight, and had the same.
        """
        numbers = self._numbers(list(dict.fromkeys(user for user, *_ in told)))
        first: dict[_Event, float] = {}
        last: dict[_Event, float] = {}
        changed = 0
        for user, item, kind, weight, time in told:
            event = (numbers[user], item, kind, time)
            before = last.setdefault(event, weight)
            if before != weight:
                changed += 1
            last[event] = weight
            first.setdefault(event, before)
        added = self._insert(first)
        if added < len(first):
            changed += self._reweigh(first)
        self._reweigh({event: weight for event, weight in last.items() if weight != first[event]})
        if added or changed:
            self._count()
        return added, changed, len(told) - added - changed

    def _numbers(self, ids: Sequence[str]) -> dict[str, int]:
        """The numbers of users, made for those who are new, in this order."""
        db = self._database.writer
        db.executemany("INSERT INTO users (id) VALUES (?) ON CONFLICT (id) DO NOTHING", ((id,) for id in ids))
        numbers: dict[str, int] = {}
        for marks, chunk in _chunks(ids):
            numbers.update(db.execute(f"SELECT id, user FROM users WHERE id IN ({marks})", chunk).fetchall())
        return numbers

    def _insert(self, weights: Mapping[_Event, float]) -> int:
        """Record those events that are not there yet; return how many."""
        db = self._database.writer
        db.execute("PRAGMA cache_size = -65536").fetchone()  # KiB; with the default a million events take twice as long
        before = db.total_changes
        db.executemany(
            "INSERT INTO events (user, item, kind, time, weight) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            ((*event, weight) for event, weight in weights.items()),
        )
        return db.total_changes - before

    def _reweigh(self, weights: Mapping[_Event, float]) -> int:
        """Give events that are there these weights; return how many had another one."""
        db = self._database.writer
        before = db.total_changes
        db.executemany(
            "UPDATE events SET weight = ? WHERE user = ? AND item = ? AND kind = ? AND time = ? AND weight <> ?",
            ((weight, *event, weight) for event, weight in weights.items()),
        )
        return db.total_changes - before

    def forget(self, user: str | None = None) -> int:
        """Delete a user with all their events, or everybody (None); return how many events. Inside a transaction.

        What was deleted is overwritten in the file.
        """
        db = self._database.writer
        db.execute("PRAGMA secure_delete = ON").fetchone()
        if user is None:
            n = db.execute("DELETE FROM events").rowcount
            db.execute("DELETE FROM users")
        else:
            n = db.execute("DELETE FROM events WHERE user = (SELECT user FROM users WHERE id = ?)", (user,)).rowcount
            db.execute("DELETE FROM users WHERE id = ?", (user,))
        if n:
            self._count()
        return int(n)

    def _count(self) -> None:
        row = self._database.writer.execute("SELECT value FROM settings WHERE name = ?", (_COUNTER,)).fetchone()
        self._catalog.set_setting(_COUNTER, str(int(row[0] if row else 0) + 1))

    # Finding items ----------------------------------------------------------------------------------------------

    def keys_by_id(self, ids: Collection[str]) -> dict[str, int]:
        """The keys of items by id; unknown ids are left out."""
        found: dict[str, int] = {}
        for marks, chunk in _chunks(list(ids)):
            found.update(self._database.reader.execute(f"SELECT id, key FROM items WHERE id IN ({marks})", chunk))
        return found

    def keys_by_field(self, field: str) -> dict[str | float, int]:
        """The key of each item by what it has in a metadata field, in the form of ``comparable``.

        A list has each of its members. What several items share gives ``AMBIGUOUS``.

        Raises
        ------
        InvalidInput
            If no item has ever had such a field.
        """
        db = self._database.reader
        row = db.execute("SELECT field FROM fields WHERE name = ?", (field,)).fetchone()
        if row is None:
            names = ", ".join(name for (name,) in db.execute("SELECT name FROM fields ORDER BY field LIMIT 30"))
            raise InvalidInput(f"no item has a metadata field {field!r}; there are: {names or 'none'}")
        found: dict[str | float, int] = {}
        for text, num, item in db.execute("SELECT text, num, item FROM facts WHERE field = ?", row).fetchall():
            value = _comparable(text, num)
            if found.setdefault(value, item) != item:
                found[value] = AMBIGUOUS
        return found

    # Reading ----------------------------------------------------------------------------------------------------

    def stamp(self) -> int:
        """A number that is another one whenever events have changed, those included that went with their items."""
        return int(self._catalog.setting(_COUNTER) or 0)

    def counts(self) -> tuple[int, int]:
        """How many users with events there are, and how many events."""
        row = self._database.reader.execute("SELECT count(DISTINCT user), count(*) FROM events").fetchone()
        return int(row[0]), int(row[1])

    def users(self) -> list[str]:
        """The ids of the users who have events, in the order in which they were first heard of."""
        rows = self._database.reader.execute(
            "SELECT id FROM users u WHERE EXISTS (SELECT 1 FROM events WHERE user = u.user) ORDER BY user"
        )
        return [id for (id,) in rows]

    def events(self) -> Events:
        """Every event, read in one go."""
        with self._database.snapshot() as db:
            rows = db.execute("SELECT user, item, weight, time FROM events ORDER BY event").fetchall()
            ids = dict(db.execute("SELECT user, id FROM users").fetchall())
        stored = np.fromiter(rows, dtype=_STORED, count=len(rows))
        numbers, users = np.unique(stored["user"], return_inverse=True)
        user_ids = [ids[number] for number in numbers.tolist()]
        return Events(users.astype(np.int64), *_columns(stored), user_ids)

    def of_user(self, user: str) -> tuple[Keys, NDArray[np.float32], NDArray[np.float64]]:
        """Item keys, weights and times, as in ``events``, of one user, by time; none of one who is not known."""
        rows = self._database.reader.execute(
            "SELECT user, item, weight, time FROM events WHERE user = (SELECT user FROM users WHERE id = ?)"
            " ORDER BY time, event",
            (user,),
        ).fetchall()
        return _columns(np.fromiter(rows, dtype=_STORED, count=len(rows)))

    def seen(self, user: str) -> list[int]:
        """The keys of the items that a user has had to do with in any way, each once, by their first time."""
        return list(dict.fromkeys(self.of_user(user)[0].tolist()))

    def told(self, user: str | None = None) -> Iterator[tuple[str, str, str, float, float]]:
        """User id, item id, kind, weight and time of each event, user by user and each user's by time.

        An open cursor would hold this thread to the state at which it began, so they are read some users at a time.
        """
        for first, last in self._spans(user):
            yield from self._database.reader.execute(
                "SELECT u.id, i.id, e.kind, e.weight, e.time FROM events e JOIN users u ON u.user = e.user"
                " JOIN items i ON i.key = e.item WHERE e.user BETWEEN ? AND ? ORDER BY e.user, e.time, e.event",
                (first, last),
            ).fetchall()

    def _spans(self, user: str | None) -> Iterator[tuple[int, int]]:
        """First and last number of users who have about ``_EVENTS_AT_ONCE`` events together; or of this one."""
        db = self._database.reader
        if user is not None:
            numbers = db.execute("SELECT user FROM users WHERE id = ?", (user,)).fetchall()
            yield from ((number, number) for (number,) in numbers)
            return
        last = 0
        sql = "SELECT user, count(*) FROM events WHERE user > ? GROUP BY user ORDER BY user LIMIT ?"
        while counts := db.execute(sql, (last, _USERS_AT_ONCE)).fetchall():
            n, first = 0, last + 1
            for last, its in counts:
                n += its
                if n >= _EVENTS_AT_ONCE:
                    yield first, last
                    n, first = 0, last + 1
            if n:
                yield first, last


def comparable(value: str) -> str | float:
    """What ``EventBook.keys_by_field`` compares of a value: numbers are numbers, also where they are written as text.

    >>> comparable("31") == comparable("31.0") == 31.0
    True
    """
    ((_, text, num),) = facts_of({"": value})
    return _comparable(text, num)


def _comparable(text: str, num: float | None) -> str | float:
    # From here on several whole numbers share a double, but never their digits.
    return text if num is None or abs(num) >= 2.0**53 else num


def _columns(stored: NDArray[Any]) -> tuple[Keys, NDArray[np.float32], NDArray[np.float64]]:
    times = stored["time"].copy()
    times[times == UNKNOWN_TIME] = np.nan
    return stored["item"].copy(), stored["weight"].copy(), times


def _chunks(values: Sequence[str]) -> Iterator[tuple[str, Sequence[str]]]:
    """Values in numbers that one statement takes, each with its question marks."""
    for start in range(0, len(values), _PARAMETERS):
        chunk = values[start : start + _PARAMETERS]
        yield ",".join("?" * len(chunk)), chunk
