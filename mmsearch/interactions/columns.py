"""Which column of a table of interactions means what."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from mmsearch.errors import InvalidInput

ROLES = ("user", "item", "weight", "time", "kind")
KNOWN = {
    "user": "userid username customer customerid visitorid reviewerid memberid personid accountid",
    "item": "itemid movieid product productid article articleid bookid songid trackid videoid contentid sku asin isbn",
    "weight": "rating score count stars",
    "time": "timestamp date datetime unixtime",
    "kind": "event eventtype type action",
}
"""Columns that are taken without being named, in lower case and without marks: ``User_ID`` is ``userid``."""


def choose_columns(
    columns: Sequence[str] | None, named: Mapping[str, str | None], item_field: str | None = None
) -> dict[str, str]:
    """Which column has the user, the item, the weight, the time and the kind of each row.

    Parameters
    ----------
    columns
        Those of the table; None: it has no rows.
    named
        The column of each role as somebody has named it; None, or the name of the role itself: look for well-known
        names too (``KNOWN``); empty: do without.
    item_field
        A name by which the item's column may go as well.

    Raises
    ------
    InvalidInput
        If a column is not there, there are several, or there is none of users or items.
    """
    if columns is None:
        return {}
    found = {role: _column_of(role, named.get(role), columns, item_field) for role in ROLES}
    return {role: column for role, column in found.items() if column is not None}


def _column_of(role: str, name: str | None, columns: Sequence[str], item_field: str | None) -> str | None:
    required = role in ("user", "item")
    if name == "" and not required:
        return None
    found = [column for column in columns if column and column == (role if name is None else name)]
    if not found and name in (None, role):
        found = _by_name(role, columns, item_field)
    if len(found) == 1:
        return found[0]
    if not found and name is None and not required:
        return None
    got = " and ".join(map(repr, found)) or (f"none called {name!r}" if name not in (None, role) else "none")
    raise InvalidInput(
        f"expected one column with the {role}, got {got}: name it ({role}=… or --{role} …) and see that no other has "
        f"its name; the table's columns are {', '.join(map(repr, columns[:50])) or 'none'}"
    )


def _by_name(role: str, columns: Sequence[str], item_field: str | None) -> list[str]:
    """The columns that go by the role's own name in another spelling, else by its well-known names."""
    own = [role] if role != "item" or item_field is None else [role, item_field]
    for names in ({_bare(name) for name in own}, set(KNOWN[role].split())):
        found = [column for column in columns if _bare(column) in names]
        if found:
            return found
    return []


def _bare(name: str) -> str:
    return re.sub(r"[\W_]", "", name.lower())
