"""The catalog: one SQLite file that is the truth about a store."""

from mmsearch.catalog.catalog import FILE, Catalog
from mmsearch.catalog.database import Database
from mmsearch.catalog.events import AMBIGUOUS, UNKNOWN_TIME, EventBook, Events, comparable
from mmsearch.catalog.lookbook import LookBook, PictureRow
from mmsearch.catalog.records import (
    ITEM_COLUMNS,
    EncoderRecord,
    Known,
    NewItem,
    PictureFacts,
    SpaceRecord,
    bytes_of,
    item_of,
    metadata_json,
    path_of,
)
from mmsearch.catalog.rows import RowBook

__all__ = [
    "AMBIGUOUS",
    "FILE",
    "ITEM_COLUMNS",
    "UNKNOWN_TIME",
    "Catalog",
    "Database",
    "EncoderRecord",
    "EventBook",
    "Events",
    "Known",
    "LookBook",
    "NewItem",
    "PictureFacts",
    "PictureRow",
    "RowBook",
    "SpaceRecord",
    "bytes_of",
    "comparable",
    "item_of",
    "metadata_json",
    "path_of",
]
