"""Taking everything out: the table and the vectors agree with the store and with each other."""

import json

import numpy as np
import pytest
from pyarrow import parquet

from mmsearch import Item
from mmsearch.export import export


@pytest.fixture
def filled(engine, toy, folder, tmp_path):
    """A store of pictures, texts, and items that are both."""
    toy.draw_all(folder, toy.KINDS[:3], each=2)
    engine.add_folder(folder)
    picture = toy.draw(tmp_path / "both.png", "red square", 9)
    engine.add(
        [
            Item(id="text", text="a blue disc", metadata={"price": 3, "tags": ["ä", "b"]}),
            Item(id="both", path=picture, text="a red square", metadata={"année": 2024}),
        ]
    )
    engine.remove(["text"])
    engine.add([Item(id="text", text="a blue disc", metadata={"price": 3, "tags": ["ä", "b"]})])
    return engine


def test_the_table_has_every_item_with_all_its_parts(filled, tmp_path):
    written = export(filled, tmp_path / "out" / "deep")
    assert written == {"items.parquet": 8, "picture.npy": 7, "text.npy": 2}
    rows = parquet.read_table(tmp_path / "out/deep/items.parquet").to_pylist()
    items = list(filled.items())
    assert [row["id"] for row in rows] == [item.id for item in items]
    assert [row["text"] for row in rows] == [item.text for item in items]
    assert [row["path"] for row in rows] == [str(item.path) if item.path else None for item in items]
    assert [json.loads(row["metadata"]) for row in rows] == [dict(item.metadata) for item in items]
    assert sorted(path.name for path in (tmp_path / "out/deep").iterdir()) == sorted(written)


@pytest.mark.parametrize("field", ["picture", "text"])
def test_the_vectors_are_those_of_the_items_that_point_at_them(filled, tmp_path, field):
    export(filled, tmp_path / "out")
    vectors = np.load(tmp_path / f"out/{field}.npy")
    place = {row["id"]: row[f"{field}_row"] for row in parquet.read_table(tmp_path / "out/items.parquet").to_pylist()}
    ids, expected = filled.vectors(field=field)
    assert {id for id, row in place.items() if row is not None} == set(ids)
    assert sorted(row for row in place.values() if row is not None) == list(range(len(vectors)))
    np.testing.assert_array_equal(vectors[[place[id] for id in ids]], expected)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_a_second_export_replaces_the_first(filled, tmp_path):
    export(filled, tmp_path / "out")
    filled.remove([item.id for item in filled.items() if item.id not in ("text", "both")])
    assert export(filled, tmp_path / "out") == {"items.parquet": 2, "picture.npy": 1, "text.npy": 2}
    assert len(np.load(tmp_path / "out/picture.npy")) == 1
    assert parquet.read_table(tmp_path / "out/items.parquet").num_rows == 2


def test_vectors_of_a_field_that_is_empty_now_do_not_stay_behind(filled, tmp_path):
    export(filled, tmp_path / "out")
    filled.remove(["text", "both"])
    assert export(filled, tmp_path / "out") == {"items.parquet": 6, "picture.npy": 6}
    assert not (tmp_path / "out/text.npy").exists()


def test_an_empty_store_gives_an_empty_table(engine, tmp_path):
    assert export(engine, tmp_path / "out") == {"items.parquet": 0}
    assert parquet.read_table(tmp_path / "out/items.parquet").column_names[:4] == ["id", "path", "text", "metadata"]
