"""Tables of interactions: their columns found by name, their rows read as events, and what recording them did."""

from mmsearch.interactions.columns import KNOWN, ROLES, choose_columns
from mmsearch.interactions.reading import DEFAULT_KIND, Event, InteractionReport, read_events
from mmsearch.interactions.tables import Row, Table, open_table

__all__ = [
    "DEFAULT_KIND",
    "KNOWN",
    "ROLES",
    "Event",
    "InteractionReport",
    "Row",
    "Table",
    "choose_columns",
    "open_table",
    "read_events",
]
