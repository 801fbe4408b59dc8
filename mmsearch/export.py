"""Take everything out again: items as Parquet, vectors as ``.npy``."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np

from mmsearch.engine import Engine
from mmsearch.errors import MissingDependency
from mmsearch.files import display_path
from mmsearch.types import FIELDS

ITEMS_FILE = "items.parquet"


def export(engine: Engine, folder: Path) -> dict[str, int]:
    """Write ``items.parquet`` and, for each field that has vectors, ``<field>.npy``, (n, dim) float32 unit rows.

    The table has ``id``, ``path``, ``text``, ``metadata`` (JSON) and for each field ``<field>_row``, the item's row in
    that field's file (null where it has none). Returns rows written, by file.

    Raises
    ------
    MissingDependency
        Without pyarrow.
    """
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise MissingDependency("exporting needs an extra: pip install 'mmsearch[parquet]'") from error
    folder.mkdir(parents=True, exist_ok=True)
    items = list(engine.items())
    written, columns = {}, {}
    for field in FIELDS:
        ids, rows = engine.vectors(field=field)
        if ids:
            np.save(folder / f"{field}.npy", rows)
            place = {id: n for n, id in enumerate(ids)}
            columns[f"{field}_row"] = pa.array([place.get(item.id) for item in items], pa.int64())
            written[f"{field}.npy"] = len(rows)
        else:  # an earlier export's vectors would not fit the new table
            (folder / f"{field}.npy").unlink(missing_ok=True)
    table = pa.table(
        {
            "id": pa.array([item.id for item in items], pa.string()),
            "path": pa.array([display_path(item.path) if item.path else None for item in items], pa.string()),
            "text": pa.array([item.text for item in items], pa.string()),
            "metadata": pa.array([json.dumps(dict(item.metadata)) for item in items], pa.string()),
            **columns,
        }
    )
    draft = folder / f".{ITEMS_FILE}.{os.getpid()}"
    parquet.write_table(table, draft)
    os.replace(draft, folder / ITEMS_FILE)
    return {ITEMS_FILE: len(items)} | written
