"""A map as a table: Parquet and CSV."""

from __future__ import annotations

import csv
import itertools
from io import BytesIO, StringIO
from typing import TYPE_CHECKING

from mmsearch.errors import MissingDependency

if TYPE_CHECKING:
    from mmsearch.atlas.maps import Map

COLUMNS = ("id", "x", "y", "cluster", "name", "text", "path")
_BATCH = 50_000


def map_parquet(shown: Map) -> bytes:
    """The map's rows as a Parquet file: x and y are float32, cluster int64, the others text.

    Raises
    ------
    MissingDependency
        Without pyarrow.
    """
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise MissingDependency("writing Parquet needs an extra: pip install 'mmsearch[analysis]'") from error
    kinds = (pa.string(), pa.float32(), pa.float32(), pa.int64(), pa.string(), pa.string(), pa.string())
    schema = pa.schema(list(zip(COLUMNS, kinds, strict=True)))
    buffer, rows = BytesIO(), shown.rows()
    with parquet.ParquetWriter(buffer, schema) as writer:
        while batch := list(itertools.islice(rows, _BATCH)):
            writer.write_table(pa.Table.from_pylist(batch, schema))
    return buffer.getvalue()


def map_csv(shown: Map) -> bytes:
    """The map's rows as CSV in UTF-8; what is missing is empty."""
    stream = StringIO(newline="")
    writer = csv.DictWriter(stream, COLUMNS)
    writer.writeheader()
    writer.writerows(shown.rows())
    return stream.getvalue().encode("utf-8", "backslashreplace")
