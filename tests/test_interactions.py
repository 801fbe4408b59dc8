"""Who had to do with what: told from any table, kept once, told again, and forgotten."""

import datetime as dt
import json
import math
import os
import sqlite3
import sys
import threading
from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from mmsearch import Engine, Interaction, InvalidInput, Item, StoreBusy, StoreError
from mmsearch.catalog import FILE, Catalog, EventBook
from mmsearch.recording import BATCH

IDS = ("a", "b", "c", "31", "ünï")
EVENTS = [
    Interaction("ann", "a", "view", 1.0, 30.0),
    Interaction("bob", "b", "buy", 3.5, 10.0),
    Interaction("ann", "b", "view", -1.0, 20.0),
    Interaction("ann", "c", "view", 0.0),
]
MAY_WRITE_ANYWHERE = os.name == "nt" or (hasattr(os, "geteuid") and os.geteuid() == 0)


@pytest.fixture
def shop(engine):
    """A store of five items, known by ids and by codes."""
    engine.add([Item(id=id, text=f"thing {id}", metadata={"code": n, "shared": n % 2}) for n, id in enumerate(IDS)])
    return engine


@pytest.fixture
def book(shop):
    return book_of(shop)


@pytest.fixture
def table(tmp_path):
    """Writes a table of these bytes or this text."""

    def write(content, name="table.csv"):
        file = tmp_path / name
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return file

    return write


def book_of(engine):
    return EventBook(Catalog(engine.path))


def counts(report):
    """Added, changed, unchanged."""
    return report.added, report.changed, report.unchanged


def told(engine, user=None):
    return list(engine.interactions(user))


# What is told is kept once ------------------------------------------------------------------------------------------


def test_interactions_come_back_by_user_and_time_with_unknown_times_first(shop):
    report = shop.add_interactions(EVENTS)
    assert (counts(report), report.users) == ((4, 0, 0), 2)
    assert told(shop) == [EVENTS[3], EVENTS[2], EVENTS[0], EVENTS[1]]
    assert told(shop, "bob") == [EVENTS[1]]
    assert told(shop, "nobody") == []
    assert shop.users() == ["ann", "bob"]


def test_interactions_of_one_time_or_of_none_stay_in_the_order_told(shop):
    events = [Interaction("ann", item, kind) for item in "cab" for kind in ("view", "buy")]
    later = [Interaction("ann", item, time=5.0) for item in "bca"]
    shop.add_interactions(later + events)
    assert told(shop) == events + later


def test_telling_twice_changes_nothing(shop, book):
    shop.add_interactions(EVENTS)
    stamp = book.stamp()
    assert counts(shop.add_interactions(EVENTS)) == (0, 0, 4)
    assert len(told(shop)) == 4
    assert book.stamp() == stamp


def test_told_with_another_weight_an_interaction_gets_it_and_keeps_its_place(shop):
    shop.add_interactions([Interaction("ann", "a"), Interaction("ann", "b")])
    report = shop.add_interactions([Interaction("ann", "a", weight=5.0), Interaction("ann", "b")])
    assert counts(report) == (0, 1, 1)
    assert told(shop) == [Interaction("ann", "a", weight=5.0), Interaction("ann", "b")]


@pytest.mark.parametrize("other", [{"user": "bob"}, {"item": "b"}, {"kind": "buy"}, {"time": 1.0}])
def test_another_user_item_kind_or_time_is_another_interaction(shop, other):
    whole = {"user": "ann", "item": "a", "kind": "view", "time": 0.0}
    assert counts(shop.add_interactions([whole, whole | other])) == (2, 0, 0)


def test_within_one_table_the_last_weight_counts_and_every_row_is_counted(shop):
    weights = [1.0, 2.0, 2.0, 1.0]
    rows = [Interaction("ann", "a", weight=weight) for weight in weights]
    assert counts(shop.add_interactions(rows)) == (1, 2, 1)
    assert [event.weight for event in told(shop)] == [1.0]
    assert counts(shop.add_interactions(rows[1:3])) == (0, 1, 1)
    assert [event.weight for event in told(shop)] == [2.0]


def test_how_rows_fall_into_batches_does_not_show(shop, open_engine, monkeypatch):
    drawn = np.random.default_rng(0).integers(3, size=(60, 3)).tolist()
    rows = [Interaction(f"u{user}", IDS[item], weight=weight) for user, item, weight in drawn]
    other = open_engine("other")
    other.add(shop.items())
    whole = shop.add_interactions(rows)
    monkeypatch.setattr("mmsearch.recording.BATCH", 7)
    assert other.add_interactions(rows) == whole
    assert told(other) == told(shop)


def test_many_users_come_back_whole_and_in_order(shop, monkeypatch):
    monkeypatch.setattr("mmsearch.catalog.events._USERS_AT_ONCE", 7)
    monkeypatch.setattr("mmsearch.catalog.events._EVENTS_AT_ONCE", 5)
    events = [Interaction(f"user {n}", item, time=1.0) for n in range(40) for item in IDS[: n % 4 + 1]]
    shop.add_interactions(events)
    assert told(shop) == events


def test_an_iteration_may_be_interleaved_with_writing(shop):
    shop.add_interactions(EVENTS)
    for event in shop.interactions():
        shop.add_interactions([Interaction(event.user, "ünï", kind="again")])
    assert len(told(shop)) == 6


def test_replaced_items_keep_their_interactions_and_removed_ones_take_them_along(shop, book):
    shop.add_interactions(EVENTS)
    shop.add([Item(id="a", text="another thing")])
    assert len(told(shop)) == 4
    stamp = book.stamp()
    shop.remove(["b"])
    assert [event.item for event in told(shop)] == ["c", "a"]
    assert shop.users() == ["ann"]
    assert book.stamp() != stamp
    shop.add([Item(id="b", text="it is back")])
    assert len(told(shop)) == 2


def test_removing_an_item_without_interactions_leaves_the_stamp(shop, book):
    shop.add_interactions(EVENTS)
    stamp = book.stamp()
    shop.remove(["31"])
    assert book.stamp() == stamp


def test_a_user_is_forgotten_without_a_trace(shop):
    shop.add_interactions([*EVENTS, Interaction("somebody quite private", "a")])
    assert shop.forget_interactions("somebody quite private") == 1
    assert shop.forget_interactions("somebody quite private") == 0
    assert shop.users() == ["ann", "bob"]
    shop.close()
    assert all(b"quite private" not in file.read_bytes() for file in shop.path.rglob("*") if file.is_file())


def test_everybody_can_be_forgotten(shop, book):
    shop.add_interactions(EVENTS)
    stamp = book.stamp()
    assert shop.forget_interactions() == 4
    assert (told(shop), shop.users(), book.counts()) == ([], [], (0, 0))
    assert book.stamp() != stamp
    assert counts(shop.add_interactions(EVENTS)) == (4, 0, 0)


def test_info_tells_how_many_users_and_interactions_there_are(shop):
    assert (shop.info().users, shop.info().interactions) == (0, 0)
    shop.add_interactions(EVENTS)
    assert (shop.info().users, shop.info().interactions) == (2, 4)


@pytest.mark.parametrize("user", [3, b"ann", ["ann"]])
def test_a_user_is_a_str(shop, user):
    for call in (shop.interactions, shop.forget_interactions):
        with pytest.raises(InvalidInput, match="expected a str as user"):
            call(user)


# For recommenders ---------------------------------------------------------------------------------------------------


def test_events_are_arrays_in_the_order_told(shop, book):
    shop.add_interactions(EVENTS)
    keys = dict(zip(IDS, (key for key, _ in Catalog(shop.path).items()), strict=True))
    found = book.events()
    assert found.user_ids == ["ann", "bob"]
    assert found.users.tolist() == [0, 1, 0, 0]
    assert found.items.tolist() == [keys[event.item] for event in EVENTS]
    assert found.weights.tolist() == [1.0, 3.5, -1.0, 0.0]
    np.testing.assert_array_equal(found.times, [30.0, 10.0, 20.0, np.nan])
    assert [column.dtype for column in found[:4]] == [np.int64, np.int64, np.float32, np.float64]


def test_user_positions_have_no_gaps_after_somebody_was_forgotten(shop, book):
    shop.add_interactions([Interaction(user, "a") for user in ("ann", "bob", "cem")])
    shop.forget_interactions("bob")
    assert book.events().users.tolist() == [0, 1]
    assert book.events().user_ids == ["ann", "cem"]


def test_without_events_the_arrays_are_empty(book):
    found = book.events()
    assert [len(column) for column in found] == [0] * 5
    assert [column.dtype for column in found[:4]] == [np.int64, np.int64, np.float32, np.float64]
    assert [len(column) for column in book.of_user("ann")] == [0] * 3
    assert (book.seen("ann"), book.stamp()) == ([], 0)


def test_one_users_events_are_by_time_and_what_they_have_seen_is_told_once(shop, book):
    shop.add_interactions([*EVENTS, Interaction("ann", "a", time=5.0)])
    items, weights, times = book.of_user("ann")
    a, b, c = (key for key, _ in list(Catalog(shop.path).items())[:3])
    assert items.tolist() == [c, a, b, a]
    assert weights.tolist() == [0.0, 1.0, -1.0, 1.0]
    np.testing.assert_array_equal(times, [np.nan, 5.0, 20.0, 30.0])
    assert book.seen("ann") == [c, a, b]


def test_the_stamp_is_another_after_each_change(shop, book):
    stamps = [book.stamp()]
    for change in (
        lambda: shop.add_interactions(EVENTS),
        lambda: shop.add_interactions([Interaction("ann", "a", "view", 2.0, 30.0)]),
        lambda: shop.forget_interactions("bob"),
        lambda: shop.remove(["a"]),
    ):
        change()
        stamps.append(book.stamp())
    assert len(set(stamps)) == len(stamps)


# Tables of all kinds ------------------------------------------------------------------------------------------------


class Column:
    """A column as pandas has it."""

    def __init__(self, values):
        self._values = values

    def tolist(self):
        return list(self._values)


class Frame:
    """The part of a pandas data frame that counts here."""

    def __init__(self, columns):
        self._columns = columns
        self.columns = tuple(columns)

    def __getitem__(self, name):
        return Column(self._columns[name])

    def __iter__(self):
        return iter(self.columns)


COLUMNS = {"user": ["ann", "bob"], "item": ["a", "b"], "weight": [1.0, 2.0], "time": [10.0, None]}
ROWS = [Interaction("ann", "a", weight=1.0, time=10.0), Interaction("bob", "b", weight=2.0)]
DICTS = [{name: values[n] for name, values in COLUMNS.items()} for n in range(2)]


@pytest.mark.parametrize(
    "given_as",
    [
        pytest.param(lambda: ROWS, id="interactions"),
        pytest.param(lambda: iter(ROWS), id="generator"),
        pytest.param(lambda: DICTS, id="mappings"),
        pytest.param(lambda: [ROWS[0], DICTS[1]], id="both"),
        pytest.param(lambda: COLUMNS, id="columns"),
        pytest.param(lambda: {name: np.array(values, object) for name, values in COLUMNS.items()}, id="arrays"),
        pytest.param(lambda: pa.table(COLUMNS), id="arrow table"),
        pytest.param(lambda: pa.RecordBatch.from_pydict(COLUMNS), id="arrow batch"),
        pytest.param(lambda: Frame(COLUMNS | {"time": [10.0, math.nan]}), id="like pandas"),
    ],
)
def test_every_kind_of_table_is_read_alike_without_pandas_or_polars(shop, given_as, monkeypatch):
    for name in ("pandas", "polars"):
        monkeypatch.setitem(sys.modules, name, None)
    report = shop.add_interactions(given_as())
    assert (counts(report), report.failed) == ((2, 0, 0), ())
    assert told(shop) == ROWS


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet", ".CSV"])
def test_every_kind_of_file_is_read_alike(shop, table, tmp_path, suffix):
    rows = [{"user": "ann", "item": "a", "weight": 1.0, "time": 10}, {"user": "bob", "item": "b", "weight": 2.0}]
    match suffix.lower():
        case ".jsonl":
            file = table("\n".join(json.dumps(row) for row in rows), "table.jsonl")
        case ".parquet":
            file = tmp_path / "table.parquet"
            parquet.write_table(pa.Table.from_pylist(rows), file)
        case _:
            text = "user,item,weight,time\nann,a,1.0,10\n\nbob,b,2.0\n"
            file = table(text.replace(",", "\t") if suffix == ".tsv" else text, f"table{suffix}")
    assert counts(shop.add_interactions(file)) == (2, 0, 0)
    assert told(shop) == ROWS


def test_well_known_columns_are_found_in_any_spelling_and_told(shop, table):
    file = table("User ID,movie_id,Rating,timestamp,event,\nann,a,2.5,10,buy,\n")
    report = shop.add_interactions(file)
    assert report.columns == {
        "user": "User ID",
        "item": "movie_id",
        "weight": "Rating",
        "time": "timestamp",
        "kind": "event",
    }
    assert told(shop) == [Interaction("ann", "a", "buy", 2.5, 10.0)]


def test_the_roles_own_names_win_over_well_known_ones(shop):
    rows = [{"user": "ann", "user_id": "x", "ITEM": "a", "productId": "x", "weight": 2, "rating": 9}]
    assert shop.add_interactions(rows).columns == {"user": "user", "item": "ITEM", "weight": "weight"}
    assert told(shop) == [Interaction("ann", "a", weight=2.0)]


def test_columns_can_be_named_or_done_without(shop):
    rows = [{"who": "ann", "what": "a", "rating": 9, "stars": 4, "type": "film", "date": "soon"}]
    report = shop.add_interactions(rows, user="who", item="what", weight="stars", kind="", time="")
    assert report.columns == {"user": "who", "item": "what", "weight": "stars"}
    assert told(shop) == [Interaction("ann", "a", weight=4.0)]


@pytest.mark.parametrize(
    ("columns", "options", "said"),
    [
        ("person,item", {}, "expected one column with the user, got none: .* columns are 'person', 'item'"),
        ("user,thing", {}, "expected one column with the item, got none"),
        ("user,item", {"user": "who"}, "got none called 'who'"),
        ("user,item", {"weight": "stars"}, "expected one column with the weight, got none called 'stars'"),
        ("user_id,username,item", {}, "got 'user_id' and 'username'"),
        ("user,movieId,productId", {}, "got 'movieId' and 'productId'"),
        ("user,item,timestamp,date", {}, "with the time, got 'timestamp' and 'date'"),
        ("user,item,item", {}, "got 'item' and 'item'"),
        ("user,,item", {"user": ""}, "with the user, got"),
        ("", {}, "columns are none|columns are ''"),
    ],
)
def test_a_column_that_is_missing_or_could_be_several_is_an_error_that_lists_the_columns(
    shop, table, columns, options, said
):
    with pytest.raises(InvalidInput, match=said):
        shop.add_interactions(table(f"{columns}\n1,2,3\n"), **options)


@pytest.mark.parametrize(
    ("given_as", "said"),
    [
        ("ratings.csv", "give a file as a Path"),
        (b"ann,a", "give a file as a Path"),
        (EVENTS[0], "put it in brackets"),
        ({"user": "ann", "item": "a"}, "put a single row in brackets"),
        (3, "expected a Path, a data frame"),
        ([("ann", "a")], "row 1: expected an Interaction or a mapping, got tuple"),
        ([{}], "it has no column"),
        ({"user": ["ann"], "item": ["a", "b"]}, "expected columns of one length, got 1, 2"),
        (Path("absent.csv"), "is not a file"),
        (Path(__file__), "expected a table as .csv"),
    ],
)
def test_what_is_no_table_is_refused_with_one_clear_error(shop, given_as, said):
    with pytest.raises(InvalidInput, match=said):
        shop.add_interactions(given_as)
    assert told(shop) == []


@pytest.mark.parametrize(
    "given_as", [[], iter(()), {"user": [], "item": []}, pa.table({"user": pa.array([]), "item": pa.array([])})]
)
def test_a_table_without_rows_adds_nothing(shop, given_as):
    assert counts(shop.add_interactions(given_as)) == (0, 0, 0)


@pytest.mark.parametrize("name", ["table.jsonl", "table.csv"])
def test_a_file_without_rows_adds_nothing(shop, table, name):
    file = table("user,item\n" if name.endswith("csv") else "", name)
    assert counts(shop.add_interactions(file)) == (0, 0, 0)


@pytest.mark.parametrize("name", ["table.csv", "table.tsv", "table.parquet"])
def test_an_empty_file_has_no_header(shop, table, name):
    with pytest.raises(InvalidInput, match=r"empty file|cannot be read as Parquet"):
        shop.add_interactions(table(b"", name))


def test_a_byte_order_mark_and_other_line_ends_do_no_harm(shop, table):
    assert counts(shop.add_interactions(table(b"\xef\xbb\xbfuser,item\r\nann,a\r\n"))) == (1, 0, 0)


def test_bytes_that_are_not_utf_8_fail_their_row_if_they_are_in_an_id(shop, table):
    report = shop.add_interactions(table(b"user,item,note\ncaf\xe9,a,\nann,b,caf\xe9\n"))
    assert counts(report) == (1, 0, 0)
    ((row, reason),) = report.failed
    assert row == "row 1"
    assert "expected UTF-8 text" in reason


def test_a_table_in_utf_16_is_refused_as_a_whole(shop, table):
    with pytest.raises(InvalidInput, match="save it as UTF-8"):
        shop.add_interactions(table("user,item\nann,a\n".encode("utf-16")))


def test_a_quote_that_is_never_closed_does_not_swallow_rows_in_silence(shop, table):
    with pytest.raises(InvalidInput, match="line 4: unexpected end of data"):
        shop.add_interactions(table('user,item\nann,"a\nbob,b\ncem,c\n'))


def test_a_row_with_more_cells_than_the_header_fails_since_its_columns_may_have_slipped(shop, table):
    report = shop.add_interactions(table("user,item\nann,a\nsmith, john,a\n"))
    assert counts(report) == (1, 0, 0)
    assert report.failed == (("row 2", "expected 2 cells as in the header, got 3"),)


def test_lines_that_are_no_json_objects_fail_alone(shop, table):
    lines = ['{"user": "ann", "item": "a"}', "{", "[1]", '{"user": "bob", "item": "b"}']
    report = shop.add_interactions(table("\n".join(lines), "table.jsonl"))
    assert counts(report) == (2, 0, 0)
    assert [row for row, _ in report.failed] == ["row 2", "row 3"]


def test_a_million_characters_in_a_cell_fail_their_row_only(shop, table):
    long = "x" * 1_000_000
    report = shop.add_interactions(
        table(f"user,item,kind,note\n{long},a,,\nann,{long},,\nann,a,{long},\nann,b,,{long}\n")
    )
    assert counts(report) == (1, 0, 0)
    assert [row for row, _ in report.failed] == ["row 1", "row 2", "row 3"]
    assert all(len(reason) < 200 for _, reason in report.failed)
    assert report.unknown == {}


# Items --------------------------------------------------------------------------------------------------------------


def test_unknown_items_are_counted_and_nothing_else_is_lost(shop):
    rows = [Interaction("ann", item) for item in ("a", "x", "y", "x")]
    report = shop.add_interactions(rows)
    assert (counts(report), report.unknown) == ((1, 0, 0), {"x": 2, "y": 1})


def test_a_table_of_unknown_items_only_adds_nothing_and_nobody(shop, book):
    report = shop.add_interactions([Interaction("ann", "x")])
    assert (counts(report), report.users, report.unknown) == ((0, 0, 0), 0, {"x": 1})
    assert (shop.users(), book.stamp()) == ([], 0)


def test_more_distinct_ids_than_one_statement_takes(shop):
    rows = ({"user": f"u{n}", "item": "a" if n % 2 else f"x{n}"} for n in range(70_000))
    report = shop.add_interactions(rows)
    assert (report.added, report.users, len(report.unknown)) == (35_000, 35_000, 35_000)


@pytest.mark.parametrize("value", [1, 1.0, "1", "1.0", " 1", np.int64(1), np.float32(1), "1e0"])
def test_a_metadata_field_matches_numbers_and_texts_that_read_as_the_same_number(shop, value):
    report = shop.add_interactions([{"user": "ann", "code": value}], item_field="code")
    assert (counts(report), report.columns["item"]) == ((1, 0, 0), "code")
    assert [event.item for event in told(shop)] == ["b"]


def test_a_text_field_and_the_members_of_a_list_match(shop):
    shop.add([Item(id="book", text="x", metadata={"isbn": ["978-3", "x 1"]})])
    rows = [{"user": "ann", "isbn": isbn} for isbn in ("978-3", "x 1", "978-4")]
    report = shop.add_interactions(rows, item_field="isbn")
    assert (counts(report), report.unknown) == ((1, 0, 1), {"978-4": 1})


def test_large_whole_numbers_are_told_apart(shop):
    codes = {"even": 2**60, "odd": 2**60 + 1}
    shop.add([Item(id=id, text=id, metadata={"big": code}) for id, code in codes.items()])
    shop.add_interactions({"user": ["ann"], "item": [str(2**60 + 1)]}, item_field="big")
    assert [event.item for event in told(shop)] == ["odd"]


def test_a_value_that_several_items_share_is_counted_as_ambiguous(shop):
    shop.add([Item(id="alone", text="x", metadata={"shared": 7})])
    rows = [{"user": "ann", "item": value} for value in (0, 1, 1, 7, 8)]
    report = shop.add_interactions(rows, item_field="shared")
    assert (counts(report), report.ambiguous, report.unknown) == ((1, 0, 0), {"0": 1, "1": 2}, {"8": 1})


def test_a_field_that_no_item_has_is_an_error_that_lists_the_fields(shop):
    with pytest.raises(InvalidInput, match="no item has a metadata field 'cod'; there are: code, shared"):
        shop.add_interactions([{"user": "ann", "item": 1}], item_field="cod")


@pytest.mark.parametrize(
    ("value", "id"), [("31", "31"), (31, "31"), (31.0, "31"), (np.int32(31), "31"), ("ünï", "ünï")]
)
def test_ids_may_be_numbers(shop, value, id):
    shop.add_interactions([{"user": value, "item": value}])
    assert [(event.user, event.item) for event in told(shop)] == [(id, id)]


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        math.nan,
        math.inf,
        True,
        b"a",
        ["a"],
        {"a": 1},
        "\ud800",
        "x" * 5_001,
        pytest.param(10**5_000, id="huge"),
    ],
)
def test_what_is_no_id_fails_its_row(shop, value):
    report = shop.add_interactions([{"user": "ann", "item": "a"}, {"user": value, "item": "a"}])
    assert counts(report) == (1, 0, 0)
    assert [row for row, _ in report.failed] == ["row 2"]


# Weights, kinds and times -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "weight"),
    [
        (2, 2.0), ("2.5", 2.5), (" -1e3 ", -1000.0), (0, 0.0), (True, 1.0), (False, 0.0), ("TRUE", 1.0),
        ("false", 0.0), (np.float32(0.5), 0.5),
    ],
)  # fmt: skip
def test_weights_are_finite_numbers_or_true_and_false(shop, cell, weight):
    shop.add_interactions([{"user": "ann", "item": "a", "weight": cell}])
    assert [event.weight for event in told(shop)] == [weight]


@pytest.mark.parametrize("cell", ["", None, math.nan, "nan", "inf", -math.inf, "much", 1e39, 10**400, [1], "1,5"])
def test_what_is_no_weight_fails_its_row(shop, cell):
    report = shop.add_interactions([{"user": "ann", "item": "a", "weight": w} for w in (1, cell)])
    assert counts(report) == (1, 0, 0)
    ((row, reason),) = report.failed
    assert row == "row 2"
    assert "as weight" in reason


@pytest.mark.parametrize("cell", ["", None, math.nan])
def test_an_empty_kind_is_a_view(shop, cell):
    shop.add_interactions([{"user": "ann", "item": "a", "kind": cell}])
    assert [event.kind for event in told(shop)] == ["view"]


NOON = dt.datetime(2009, 2, 13, 23, 31, 30)


@pytest.mark.parametrize(
    "cell",
    [
        1234567890, "1234567890", 1234567890.0, 1234567890_000, "1234567890000", 1234567890_000_000,
        1234567890_000_000_000, "2009-02-13T23:31:30Z", "2009-02-13 23:31:30", "2009-02-14T00:31:30+01:00", NOON,
        NOON.replace(tzinfo=dt.UTC), dt.datetime(2009, 2, 14, 0, 31, 30, tzinfo=dt.timezone(dt.timedelta(hours=1))),
        " 20090213T233130 ",
    ],
)  # fmt: skip
def test_times_are_numbers_or_iso_dates_in_utc(shop, cell):
    shop.add_interactions([{"user": "ann", "item": "a", "time": cell}])
    assert [event.time for event in told(shop)] == [1234567890.0]


@pytest.mark.parametrize(
    ("cell", "time"),
    [
        (dt.date(1970, 1, 2), 86400.0), ("1970-01-02", 86400.0), (0, 0.0), (-5.5, -5.5), (100_000_000_000, 1e11),
        (-200_000_000_000, -2e8), ("1969-12-31T23:59:59.500", -0.5),
    ],
)  # fmt: skip
def test_days_begin_at_midnight_and_times_before_1970_are_negative(shop, cell, time):
    shop.add_interactions([{"user": "ann", "item": "a", "time": cell}])
    assert [event.time for event in told(shop)] == [time]


class NotATime(dt.datetime):
    """As pandas' NaT: a datetime that is not even equal to itself."""

    def __ne__(self, other):
        return True


@pytest.mark.parametrize("cell", [None, "", math.nan, NotATime(1, 1, 1)])
def test_an_empty_time_is_unknown(shop, cell):
    shop.add_interactions([{"user": "ann", "item": "a", "time": t} for t in (5, cell)])
    assert [event.time for event in told(shop)] == [None, 5.0]


@pytest.mark.parametrize(
    "cell", ["soon", "nan", math.inf, True, "2009-13-01", "13/02/2009", 1e30, 10**400, [1], "12:30"]
)
def test_what_is_no_time_fails_its_row(shop, cell):
    report = shop.add_interactions([{"user": "ann", "item": "a", "time": t} for t in (5, cell)])
    assert counts(report) == (1, 0, 0)
    ((row, reason),) = report.failed
    assert row == "row 2"
    assert "ISO date as time" in reason


@pytest.mark.parametrize("kind", [pa.timestamp("ns"), pa.timestamp("us", "UTC"), pa.timestamp("s", "Asia/Tokyo")])
@pytest.mark.parametrize("as_file", [True, False])
def test_dates_of_arrow_and_parquet_are_times(shop, tmp_path, kind, as_file):
    times = pa.array([1234567890 * (10**9 if kind.unit == "ns" else 10**6 if kind.unit == "us" else 1), None], kind)
    given_as = pa.table({"user": ["ann", "bob"], "item": ["a", "a"], "time": times})
    if as_file:
        parquet.write_table(given_as, tmp_path / "dates.parquet")
        given_as = tmp_path / "dates.parquet"
    shop.add_interactions(given_as)
    assert [event.time for event in told(shop)] == [1234567890.0, None]


def test_single_nanoseconds_are_no_hindrance(shop, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    times = pa.array([1234567890 * 10**9 + 1], pa.timestamp("ns"))
    shop.add_interactions(pa.table({"user": ["ann"], "item": ["a"], "time": times}))
    assert [event.time for event in told(shop)] == [1234567890.0]


def test_every_row_is_counted_once(shop, table):
    lines = ["user,item,rating", "ann,a,1", "ann,a,1", "ann,a,2", ",a,1", "bob,x,1", "bob,a,x"]
    report = shop.add_interactions(table("\n".join(lines)))
    assert (sum(counts(report)), sum(report.unknown.values()), len(report.failed)) == (3, 1, 2)


# Out and in again ---------------------------------------------------------------------------------------------------

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6)
SOME = st.lists(
    st.builds(
        Interaction,
        TEXTS,
        st.sampled_from(IDS),
        TEXTS,
        st.floats(-1e6, 1e6),
        st.none() | st.floats(-1e9, 1e9, allow_nan=False),
    ),
    max_size=8,
)


@pytest.fixture(scope="module")
def pair(tmp_path_factory, toy):
    """Two stores of the same items, and a folder."""
    home = tmp_path_factory.mktemp("pair")
    with (
        Engine.open(home / "one", toy.ToyEncoder()) as one,
        Engine.open(home / "two", toy.ToyEncoder()) as two,
    ):
        for engine in (one, two):
            engine.add([Item(id=id, text=id) for id in IDS])
        yield one, two, home


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
@given(events=SOME)
@settings(max_examples=25, deadline=None)
def test_what_is_exported_can_be_imported_elsewhere_and_is_the_same(pair, suffix, events):
    one, two, home = pair
    for engine in (one, two):
        engine.forget_interactions()
    one.add_interactions(events)
    n = one.export_interactions(home / f"out.{suffix}", overwrite=True)
    report = two.add_interactions(home / f"out.{suffix}")
    assert (counts(report), report.failed) == ((n, 0, 0), ())
    assert told(two) == told(one)
    assert n == len({(event.user, event.item, event.kind, event.time) for event in events})


def test_a_file_that_is_there_is_not_overwritten_unless_told(shop, table):
    shop.add_interactions(EVENTS)
    file = table("precious")
    with pytest.raises(InvalidInput, match="is there already"):
        shop.export_interactions(file)
    assert file.read_text() == "precious"
    assert shop.export_interactions(file, overwrite=True) == 4
    assert file.read_text().splitlines()[:2] == ["user,item,kind,weight,time", "ann,c,view,0.0,"]


@pytest.mark.parametrize("name", ["out.txt", "out", "absent/out.csv", "folder.csv"])
def test_where_nothing_can_be_exported_to_is_refused(shop, tmp_path, name):
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InvalidInput, match="expected a"):
        shop.export_interactions(tmp_path / name, overwrite=True)


def test_an_export_that_fails_leaves_the_old_file_and_nothing_else(shop, tmp_path, monkeypatch):
    shop.add_interactions(EVENTS)
    out = tmp_path / "out"
    out.mkdir()
    (out / "events.csv").write_text("old")
    monkeypatch.setattr("mmsearch.recording._csv_writer", lambda *_: lambda row: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        shop.export_interactions(out / "events.csv", overwrite=True)
    assert {file.name: file.read_text() for file in out.iterdir()} == {"events.csv": "old"}


# Interruptions, other users of the store, old stores ----------------------------------------------------------------


class Stop(Exception):
    """Raised by somebody who has waited long enough."""


def test_an_interrupted_import_keeps_whole_batches_and_goes_on_when_called_again(shop):
    rows = [Interaction(f"u{n}", "a") for n in range(2 * BATCH + 10)]
    seen = []

    def progress(state):
        seen.append((state.stage, state.done))
        if state.done >= 2 * BATCH:
            raise Stop

    with pytest.raises(Stop):
        shop.add_interactions(rows, progress=progress)
    assert seen == [("interactions", BATCH), ("interactions", 2 * BATCH)]
    assert shop.info().interactions == 2 * BATCH
    assert counts(shop.add_interactions(rows)) == (10, 0, 2 * BATCH)


def test_a_table_that_breaks_off_keeps_whole_batches(shop, monkeypatch):
    monkeypatch.setattr("mmsearch.recording.BATCH", 2)

    def rows():
        yield from EVENTS[:3]
        raise Stop

    monkeypatch.setattr("mmsearch.interactions.tables._PEEK", 1)
    with pytest.raises(Stop):
        shop.add_interactions(rows())
    assert told(shop) == [EVENTS[0], EVENTS[1]]


def test_a_reader_sees_whole_batches_only(shop, encoder):
    batch, rounds = 50, 20
    problems, done = [], threading.Event()

    def read():
        with Engine.open(shop.path, encoder) as other:
            while not done.is_set():
                problems.extend(n for n in (len(told(other)), len(other.users())) if n % batch)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for turn in range(rounds):
            shop.add_interactions([Interaction(f"{turn} {n}", "a") for n in range(batch)])
    finally:
        done.set()
        reader.join()
    assert problems == []
    assert len(told(shop)) == batch * rounds


def test_while_somebody_else_writes_nothing_is_recorded(shop, open_engine):
    other = open_engine()
    with other._store.writing(), pytest.raises(StoreBusy):
        shop.add_interactions(EVENTS)
    assert told(shop) == []


@pytest.mark.skipif(MAY_WRITE_ANYWHERE, reason="this user may write anywhere")
def test_a_store_that_cannot_be_written_is_read_and_refuses_to_record(shop, encoder, tmp_path):
    shop.add_interactions(EVENTS)
    shop.close()
    places = [shop.path, *shop.path.rglob("*")]
    modes = {path: path.stat().st_mode for path in places}
    try:
        for path in places:
            path.chmod(modes[path] & 0o555)
        with Engine.open(shop.path, encoder) as engine:
            assert len(told(engine)) == 4
            for change in (lambda: engine.add_interactions(EVENTS), engine.forget_interactions):
                with pytest.raises(StoreError, match="read-only"):
                    change()
    finally:
        for path in places:
            path.chmod(modes[path])


def test_a_store_of_version_2_is_migrated_with_all_its_items(shop, encoder):
    shop.close()
    with closing(sqlite3.connect(shop.path / FILE)) as db:
        db.executescript("DROP TRIGGER events_gone; DROP TABLE events; DROP TABLE users; PRAGMA user_version = 2")
    for already in (0, 4):
        with Engine.open(shop.path, encoder) as again:
            assert [item.id for item in again.items()] == list(IDS)
            assert len(told(again)) == already
            again.add_interactions(EVENTS)
            assert len(told(again)) == 4
    with Engine.open(shop.path, encoder) as again:
        again.remove(["a"])
        assert len(told(again)) == 3
