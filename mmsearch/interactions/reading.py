"""Rows of tables as events: what cells may hold, and what it means."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from numbers import Integral, Real
from typing import Any, TypeAlias

from mmsearch.errors import InvalidInput
from mmsearch.interactions.tables import Table

DEFAULT_KIND = "view"
MAX_ID = 5_000
"""Characters of an id or kind."""
MAX_WEIGHT = 3.4e38
"""The largest weight: recommenders reckon in float32."""
_SHOWN = 60
_UNITS = ((1e17, 1e9), (1e14, 1e6), (1e11, 1e3))

Event: TypeAlias = tuple[str, str, float, float | None, str]
"""User, item (or what its metadata field has), weight, time, kind."""


@dataclass(frozen=True, slots=True)
class InteractionReport:
    """What recording interactions did. Nothing vanishes: each row is counted once, here or there.

    ``added`` counts new events, ``changed`` those that were there with another weight, ``unchanged`` those that were
    there with the same. ``users`` is how many distinct people they belong to. ``unknown`` counts the rows of each
    item that the store does not have, ``ambiguous`` those of each value that several items share, and ``failed``
    says of each other row why it cannot be recorded; ``row 1`` is the first after the header. ``columns`` names the
    column that was taken for each of user, item, weight, time and kind.
    """

    added: int = 0
    unchanged: int = 0
    changed: int = 0
    users: int = 0
    unknown: Mapping[str, int] = field(default_factory=dict)
    ambiguous: Mapping[str, int] = field(default_factory=dict)
    failed: tuple[tuple[str, str], ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)


def read_events(table: Table, columns: Mapping[str, str]) -> Iterator[tuple[int, Event | str]]:
    """Each row's number, from 1, and its event, or why it has none. Columns that are not there have their defaults."""
    read = [_READERS[role] for role in columns]
    at = {role: place for place, role in enumerate(columns)}
    weight, time, kind = (at.get(role, len(at) + n) for n, role in enumerate(("weight", "time", "kind")))
    defaults = (1.0, None, DEFAULT_KIND)
    for number, row in enumerate(table.rows(list(columns.values())) if columns else (), start=1):
        if isinstance(row, str):
            yield number, row
            continue
        try:
            cells = [read_one(cell) for read_one, cell in zip(read, row, strict=True)]
        except ValueError as error:  # InvalidInput, or a whole number of more digits than Python writes
            yield number, str(error)
            continue
        cells += defaults
        yield number, (cells[0], cells[1], cells[weight], cells[time], cells[kind])


def id_of(value: object) -> str:
    """An id as text: a str as it is, whole numbers without decimals."""
    match value:
        case str():
            text = value
        case Integral() if not isinstance(value, bool):
            text = str(int(value))
        case Real() if not isinstance(value, bool) and math.isfinite(value):
            number = float(value)
            text = str(int(number) if number.is_integer() else number)
        case _:
            raise InvalidInput(f"expected a str or a number as id, got {_shown(value)}")
    if not text or len(text) > MAX_ID:
        raise InvalidInput(f"expected 1 to {MAX_ID} characters as id, got {len(text)}: {_shown(text)}")
    if not text.isascii():
        _check_utf8(text)
    return text


def kind_of(value: object) -> str:
    """A kind as text; an empty cell is the default kind."""
    return DEFAULT_KIND if _missing(value) else id_of(value)


def weight_of(value: object) -> float:
    """A weight: a finite number, or true and false for 1 and 0."""
    if isinstance(value, str):
        value = {"true": "1", "false": "0"}.get(value.strip().lower(), value)
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not abs(number) <= MAX_WEIGHT:  # not so of NaN either
        raise InvalidInput(f"expected a finite number as weight, got {_shown(value)}")
    return number


def time_of(value: object) -> float | None:
    """A time in seconds since 1970 (UTC); None for an empty cell.

    Numbers are seconds, from 1e11 on milliseconds, from 1e14 on microseconds, from 1e17 on nanoseconds: seconds would
    be after the year 5138. Dates are ISO 8601, or ``datetime`` and ``date``; without a time zone they are UTC.
    """
    if _missing(value):
        return None
    try:
        if isinstance(value, str):
            value = _number_or_date(value.strip())
        if isinstance(value, date):
            value = value if isinstance(value, datetime) else datetime(value.year, value.month, value.day)
            return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
        seconds = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        seconds = math.nan
    for beyond, unit in _UNITS:
        if abs(seconds) > beyond:
            seconds /= unit
            break
    if not abs(seconds) <= _UNITS[-1][0]:
        raise InvalidInput(f"expected seconds since 1970 or an ISO date as time, got {_shown(value)}")
    return seconds


def _number_or_date(text: str) -> float | datetime:
    try:
        return float(text)
    except ValueError:
        return datetime.fromisoformat(text)


def _missing(value: object) -> bool:
    """Whether a cell is empty, in one of the many ways of saying so: None, an empty str, NaN, NaT, pandas' NA."""
    if value is None or value == "":
        return True
    try:
        return bool(value != value)
    except TypeError:  # NA is neither equal to itself nor not
        return True
    except ValueError:  # an array
        return False


def _check_utf8(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(f"expected UTF-8 text, got {_shown(text)}") from error


def _shown(value: object) -> str:
    return "nothing" if _missing(value) else f"{value!a:.{_SHOWN}}"


_READERS: Mapping[str, Callable[[object], Any]] = {
    "user": id_of, "item": id_of, "weight": weight_of, "time": time_of, "kind": kind_of,
}  # fmt: skip
