"""Metadata filters: what they mean, checked against a reference that reads the same filters in plain Python."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Mapping
from datetime import date
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mmsearch.errors import InvalidInput
from mmsearch.filters import And, Compare, Not, Or, facts_of, parse, to_sql

SCHEMA = """
CREATE TABLE items (key INTEGER PRIMARY KEY, id TEXT UNIQUE);
CREATE TABLE fields (field INTEGER PRIMARY KEY, name TEXT UNIQUE);
CREATE TABLE facts (item INTEGER, field INTEGER, text TEXT, num REAL);
CREATE INDEX facts_text ON facts (field, text, item);
CREATE INDEX facts_num ON facts (field, num, item);
"""


def store(*metadata: Mapping, ids=None) -> sqlite3.Connection:
    """Items 0, 1, 2, ... with this metadata, or with these ids."""
    db = sqlite3.connect(":memory:")
    db.executescript(SCHEMA)
    for key, facts in enumerate(map(facts_of, metadata)):
        db.execute("INSERT INTO items VALUES (?, ?)", (key, ids[key] if ids else f"item {key}"))
        for name, text, num in facts:
            db.execute("INSERT OR IGNORE INTO fields (name) VALUES (?)", (name,))
            db.execute("INSERT INTO facts SELECT ?, field, ?, ? FROM fields WHERE name = ?", (key, text, num, name))
    return db


def matches(db, where) -> list[int]:
    sql, params = to_sql(parse(where))
    return [key for (key,) in db.execute(f"SELECT i.key FROM items AS i WHERE {sql} ORDER BY i.key", params)]


def found(where, *metadata) -> list[int]:
    db = store(*metadata)
    try:
        return matches(db, where)
    finally:
        db.close()


# The reference.


def values_of(metadata, field):
    found = []

    def visit(name, value):
        if isinstance(value, dict):
            for key, inner in value.items():
                visit([*name, key], inner)
        elif isinstance(value, list):
            for inner in value:
                visit(name, inner)
        elif value is not None and ".".join(name) == field:
            found.append(value)

    visit([], metadata)
    return found


def as_text(value):
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value == value and abs(value) != float("inf") and value == int(value):
        return str(int(value))
    return str(value)[:512]


def as_number(value):
    if isinstance(value, bool) or "_" in str(value) or not str(value).isascii():
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if abs(number) < float("inf") else None


def is_equal(stored, wanted):
    if as_number(wanted) is None:
        return as_text(stored) == as_text(wanted)
    digits = str(wanted).removeprefix("-").isdigit()
    if abs(as_number(wanted)) >= 2**53 and digits and not isinstance(wanted, float):
        return as_text(stored) == str(wanted)
    return as_number(stored) == as_number(wanted)


def is_ordered(stored, operator, wanted):
    if as_number(wanted) is not None:
        stored, wanted = as_number(stored), as_number(wanted)
        if stored is None:
            return False
    else:
        if as_number(stored) is not None:
            return False
        stored, wanted = as_text(stored), as_text(wanted)
    return {"$gt": stored > wanted, "$gte": stored >= wanted, "$lt": stored < wanted, "$lte": stored <= wanted}[
        operator
    ]


def holds_operator(values, operator, wanted):
    match operator:
        case "$eq":
            return any(is_equal(value, wanted) for value in values) if wanted is not None else not values
        case "$ne":
            return not holds_operator(values, "$eq", wanted)
        case "$in":
            return any(holds_operator(values, "$eq", each) for each in wanted)
        case "$nin":
            return not holds_operator(values, "$in", wanted)
        case "$exists":
            return bool(values) == wanted
        case "$prefix":
            return any(as_text(value).startswith(wanted) for value in values)
        case "$not":
            return not all(holds_operator(values, *inner) for inner in wanted.items())
        case _:
            return any(is_ordered(value, operator, wanted) for value in values)


def holds(metadata, where):
    for key, value in where.items():
        if key == "$and":
            good = all(holds(metadata, part) for part in value)
        elif key == "$or":
            good = any(holds(metadata, part) for part in value)
        elif key == "$not":
            good = not holds(metadata, value)
        else:
            operators = value if isinstance(value, dict) else {"$eq": value}
            good = all(holds_operator(values_of(metadata, key), *inner) for inner in operators.items())
        if not good:
            return False
    return True


def line(where) -> str:
    """The same filter in the text form."""
    parts = []
    for key, value in where.items():
        if key in ("$and", "$or"):
            parts.append("(" + f" {key[1:]} ".join(f"({line(part)})" for part in value) + ")")
        elif key == "$not":
            parts.append(f"not ({line(value)})")
        else:
            operators = value if isinstance(value, dict) else {"$eq": value}
            parts += [operator_line(quoted(key), *inner) for inner in operators.items()]
    return " and ".join(parts)


def operator_line(name, operator, value) -> str:
    signs = {"$eq": "=", "$ne": "!=", "$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<=", "$prefix": "prefix"}
    if operator == "$not":
        return "not (" + " and ".join(operator_line(name, *inner) for inner in value.items()) + ")"
    if operator == "$exists":
        return f"{name} exists" if value else f"{name} is missing"
    if operator in ("$in", "$nin"):
        return f"{name} {'in' if operator == '$in' else 'not in'} ({', '.join(map(quoted, value))})"
    return f"{name} {signs[operator]} {quoted(value)}"


def quoted(value) -> str:
    return '"' + str(as_text(value)).replace("\\", "\\\\").replace('"', '\\"') + '"'


NAMES = st.sampled_from(["a", "b", "a.c", "colour", "base colour"])
TEXTS = st.sampled_from(
    ["", "red", "Red", "re", "red bicycle", "2011", "2011.0", " 1.5e3 ", "1_000", "nan", "inf", "true"]
)
TEXTS |= st.sampled_from(["2024-01-01", "2024-01-02", "-3", ".5", "1e400", "é\U0001f600", "\\", 'it\'s "so"'])
TEXTS |= st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=4)
NUMBERS = st.sampled_from([0, 1, -1, 2011, 3.0, 1500, 0.1, 0.5, -0.0, 2**53, 2**53 + 1, 2**63, 10**20, 1e20, 1e300])
NUMBERS |= st.integers(-3, 3) | st.floats(allow_nan=False, allow_infinity=False)
SCALARS = TEXTS | NUMBERS | st.booleans()
METADATA = st.dictionaries(
    NAMES,
    SCALARS | st.none() | st.lists(SCALARS | st.none(), max_size=3) | st.dictionaries(st.just("c"), SCALARS),
    max_size=4,
)
OPERATORS = (
    st.tuples(st.sampled_from(["$eq", "$ne", "$gt", "$gte", "$lt", "$lte"]), SCALARS)
    | st.tuples(st.sampled_from(["$in", "$nin"]), st.lists(SCALARS, max_size=4))
    | st.tuples(st.just("$prefix"), TEXTS)
    | st.tuples(st.just("$exists"), st.booleans())
)
OPERATORS |= st.tuples(st.just("$not"), st.lists(OPERATORS, min_size=1, max_size=2).map(dict))
LEAVES = st.dictionaries(NAMES, SCALARS | st.lists(OPERATORS, min_size=1, max_size=2).map(dict), min_size=1, max_size=2)
FILTERS = st.recursive(
    LEAVES,
    lambda inner: (
        st.builds(
            lambda parts, op: {op: parts}, st.lists(inner, min_size=1, max_size=3), st.sampled_from(["$and", "$or"])
        )
        | st.builds(lambda part: {"$not": part}, inner)
    ),
    max_leaves=6,
)


@given(st.lists(METADATA, max_size=5), FILTERS)
@example([{"a": 2**53}, {"a": 2**53 + 1}, {"a": "9007199254740993"}], {"a": 2**53 + 1})
@example([{"a": "1e20"}, {"a": 10**20}], {"a": "1e20"})
def test_sql_finds_what_the_reference_finds(metadata, where):
    assert found(where, *metadata) == [key for key, item in enumerate(metadata) if holds(item, where)]


@given(FILTERS, st.lists(METADATA, max_size=4))
def test_the_text_form_means_the_same_as_the_mapping(where, metadata):
    assert found(line(where), *metadata) == found(where, *metadata)


@given(st.lists(METADATA, max_size=5), FILTERS)
def test_not_is_an_exact_complement(metadata, where):
    assert sorted(found(where, *metadata) + found({"$not": where}, *metadata)) == list(range(len(metadata)))


@given(
    st.text(max_size=30) | st.lists(st.sampled_from([*"()=<,'\"\\", "a", " and ", " not ", " in ", "=="])).map("".join)
)
def test_any_text_is_a_filter_or_an_invalid_input(text):
    try:
        to_sql(parse(text))
    except InvalidInput:
        assert text.strip()


BOTH_FORMS = [
    ("year = 2024", {"year": 2024}),
    ("year == 2024", {"year": {"$eq": 2024}}),
    ("year != 2024", {"year": {"$ne": 2024}}),
    ("year>=2020 and year<2024", {"year": {"$gte": 2020, "$lt": 2024}}),
    ("year > -1.5e3", {"year": {"$gt": -1500}}),
    ("year <= 2024", {"year": {"$lte": 2024}}),
    ("year >= 2024 and group = photo", {"year": {"$gte": 2024}, "group": "photo"}),
    ("a = 1 or b = 2 and c = 3", {"$or": [{"a": 1}, {"$and": [{"b": 2}, {"c": 3}]}]}),
    ("(a = 1 or b = 2) and c = 3", {"$and": [{"$or": [{"a": 1}, {"b": 2}]}, {"c": 3}]}),
    ("kind in (photo, 'clip art', 3)", {"kind": {"$in": ["photo", "clip art", 3]}}),
    ("kind not in (photo)", {"kind": {"$nin": ["photo"]}}),
    ("kind in (photo)", {"kind": "photo"}),
    ("kind in ()", {"kind": {"$in": []}}),
    ('title prefix "red "', {"title": {"$prefix": "red "}}),
    ("title exists", {"title": {"$exists": True}}),
    ("title is missing", {"title": {"$exists": False}}),
    ("title is missing", {"title": None}),
    ("not title exists", {"title": {"$exists": False}}),
    ("not (kind = photo)", {"$not": {"kind": "photo"}}),
    ("not kind > 3", {"kind": {"$not": {"$gt": 3}}}),
    (
        "not (kind in (photo, clipart) or title prefix 'red ')",
        {"$not": {"$or": [{"kind": {"$in": ["photo", "clipart"]}}, {"title": {"$prefix": "red "}}]}},
    ),
    ('"base colour" = Red', {"base colour": "Red"}),
    ("author.name = Ada", {"author.name": "Ada"}),
    ("ok = true AND NOT bad = TRUE", {"ok": True, "bad": {"$not": {"$eq": "TRUE"}}}),
    ("path = C:/photos/a_b-c.jpg", {"path": "C:/photos/a_b-c.jpg"}),
    ("taken >= 2024-01-01T10:00:00+02:00", {"taken": {"$gte": "2024-01-01T10:00:00+02:00"}}),
    (r'say = "a \"b\" \\ \c"', {"say": r"a " + '"b"' + r" \ \c"}),
    (r"say = 'it\'s'", {"say": "it's"}),
    ("größe = 大", {"größe": "大"}),
    ("word = 'and'", {"word": "and"}),
    ("id = 007", {"id": "007"}),
    ("", {}),
    ("  ", {}),
]


@pytest.mark.parametrize(("text", "mapping"), BOTH_FORMS)
def test_both_forms_are_read_as_the_same_condition(text, mapping):
    assert parse(text) == parse(mapping)
    assert hash(parse(text)) == hash(parse(mapping))


def test_keywords_and_true_may_be_written_in_capitals():
    assert parse("A EXISTS AND B IN (x) OR NOT C IS MISSING") == parse("A exists and B in (x) or not C is missing")


def test_conditions_are_plain_values():
    assert parse("a = 1 and not (b > 2 or c exists)") == And(
        (Compare("a", "=", (1,)), Not(Or((Compare("b", ">", (2,)), Compare("c", "exists")))))
    )


MEANINGS = [
    ("an empty filter matches everything", {}, [0, 1, 2, 3, 4, 5, 6]),
    ("a list matches if any member does", {"tags": "red"}, [0]),
    ("a range over a list looks at each member", {"sizes": {"$gt": 5, "$lt": 3}}, [1]),
    ("a number equals a numeric string", {"year": 2011}, [0, 1, 2]),
    ("a numeric string equals a number", {"year": "2011.0"}, [0, 1, 2]),
    ("a string equals itself only", {"year": "n/a"}, [3]),
    ("capitals matter", {"tags": "Red"}, []),
    ("a range over numbers skips texts", {"year": {"$gte": 0}}, [0, 1, 2]),
    ("a range over texts skips numbers", {"year": {"$gte": "a"}}, [3]),
    ("dates are ordered as texts", {"day": {"$gte": "2024-01-02", "$lt": "2024-02-01"}}, [5]),
    ("a date object is its text", {"day": {"$gte": date(2024, 1, 2)}}, [5, 6]),
    ("true is not 1", {"ok": True}, [4]),
    ("1 is not true", {"ok": 1}, [5]),
    ("a bool is the text of it", {"ok": "true"}, [4]),
    ("not equal matches an item without the field", {"year": {"$ne": 2011}}, [3, 4, 5, 6]),
    ("not in matches an item without the field", {"year": {"$nin": [2011, "n/a"]}}, [4, 5, 6]),
    ("not matches an item without the field", {"year": {"$not": {"$gt": 0}}}, [3, 4, 5, 6]),
    ("nothing is among no values", {"year": {"$in": []}}, []),
    ("everything is not among no values", {"year": {"$nin": []}}, [0, 1, 2, 3, 4, 5, 6]),
    ("in compares like equal", {"year": {"$in": ["2011", "n/a", 0.5]}}, [0, 1, 2, 3]),
    ("null means missing", {"year": None}, [4, 5, 6]),
    ("not null means present", {"year": {"$ne": None}}, [0, 1, 2, 3]),
    ("null and empty values do not exist", {"gone": {"$exists": True}}, [3]),
    ("dotted names reach inside", {"author.name": "Ada"}, [4, 5]),
    ("a prefix is case-sensitive", {"title": {"$prefix": "Re"}}, [2]),
    ("a prefix may hold wildcards, which mean themselves", {"title": {"$prefix": "100%"}}, [1]),
    ("a prefix of a number is that of its digits", {"year": {"$prefix": "20"}}, [0, 1, 2]),
    ("an empty prefix matches whatever exists", {"title": {"$prefix": ""}}, [0, 1, 2]),
    ("several operators must all hold", {"year": {"$gte": 2011, "$ne": 2011}}, []),
]


@pytest.mark.parametrize(("where", "keys"), [case[1:] for case in MEANINGS], ids=[case[0] for case in MEANINGS])
def test_a_filter_means_what_people_expect(where, keys):
    items = [
        {"year": 2011, "tags": ["red", "big"], "title": "red bicycle", "gone": None},
        {"year": "2011", "sizes": [2, 8], "title": "100% wool", "gone": []},
        {"year": 2011.0, "sizes": [4], "title": "Red", "gone": {}},
        {"year": "n/a", "gone": ""},
        {"ok": True, "author": {"name": "Ada"}},
        {"ok": 1, "author": [{"name": "Bo"}, {"name": "Ada"}], "day": "2024-01-02"},
        {"ok": False, "author.name": "Cy", "day": "2024-02-01"},
    ]
    assert found(where, *items) == keys


@pytest.mark.parametrize(
    ("where", "keys"),
    [
        ("id = 7", [1]),
        ({"id": 7}, [1]),
        ("id = 007", [0]),
        ("id != 007", [1, 2, 3]),
        ("id in (7, b/red.jpg, nobody)", [1, 3]),
        ("id not in (7, b/red.jpg)", [0, 2]),
        ("id prefix b/", [2, 3]),
        ("id >= b/b and id < c", [2, 3]),
        ("id > b/blue.jpg", [3]),
        ("not id prefix b/", [0, 1]),
        ("id exists", [0, 1, 2, 3]),
        ("id is missing", []),
        ("id in ()", []),
    ],
)
def test_id_is_the_id_of_the_item_as_text(where, keys):
    db = store({"id": "7"}, {}, {}, {}, ids=["007", "7", "b/blue.jpg", "b/red.jpg"])
    assert matches(db, where) == keys
    db.close()


def test_an_id_is_compared_in_full():
    long = "x" * 600
    db = store({}, {}, ids=[long + "a", long + "b"])
    assert matches(db, {"id": long + "b"}) == matches(db, {"id": {"$prefix": long + "b"}}) == [1]
    db.close()


@pytest.mark.parametrize(
    ("value", "facts"),
    [
        ("red", [("red", None)]),
        (True, [("true", None)]),
        (False, [("false", None)]),
        (3, [("3", 3.0)]),
        (3.0, [("3", 3.0)]),
        (-0.0, [("0", 0.0)]),
        (0.1, [("0.1", 0.1)]),
        (1e300, [(str(int(1e300)), 1e300)]),
        (Fraction(1, 2), [("0.5", 0.5)]),
        (10**400, [(str(10**400), None)]),
        (float("nan"), [("nan", None)]),
        (float("-inf"), [("-inf", None)]),
        ("2011", [("2011", 2011.0)]),
        (" 1.5e3 ", [(" 1.5e3 ", 1500.0)]),
        ("1_000", [("1_000", None)]),
        ("nan", [("nan", None)]),
        ("inf", [("inf", None)]),
        ("1e999", [("1e999", None)]),
        ("٣", [("٣", None)]),
        ("0x10", [("0x10", None)]),
        ("", [("", None)]),
        ("x" * 600, [("x" * 512, None)]),
        ("1" * 600, [("1" * 512, None)]),
        ("a\0b\ud800", [("a\ufffdb?", None)]),
        (date(2024, 1, 2), [("2024-01-02", None)]),
        (None, []),
        ([], []),
        ({}, []),
        (["a", 1, None, ["b"]], [("a", None), ("1", 1.0), ("b", None)]),
        ((1, 2), [("1", 1.0), ("2", 2.0)]),
    ],
)
def test_the_facts_of_a_value(value, facts):
    assert facts_of({"name": value}) == [("name", *fact) for fact in facts]


def test_facts_of_nested_objects_have_dotted_names():
    metadata = {"a": {"b": {"c": 1}, "d": [{"e": "x"}, {"e": "y"}]}, "f": 2, 3: 4}
    assert facts_of(metadata) == [
        ("a.b.c", "1", 1.0),
        ("a.d.e", "x", None),
        ("a.d.e", "y", None),
        ("f", "2", 2.0),
        ("3", "4", 4.0),
    ]


def test_metadata_may_be_nested_deeper_than_pythons_stack():
    deep: object = "end"
    for _ in range(5_000):
        deep = [deep]
    assert facts_of({"a": deep}) == [("a", "end", None)]


@pytest.mark.parametrize("text", ["a\0b", "a\ud800", "a'b", 'a"b', "a\\b", "a\nb", "\U0010ffff", "\ud7ff", "%", "_"])
def test_odd_characters_are_found_again(text):
    db = store({"a": text}, {"a": "other"}, {text: 1})
    for where in (
        {"a": text},
        {"a": {"$in": [text, "x"]}},
        {"a": {"$prefix": text}},
        {"a": {"$gte": text, "$lte": text}},
    ):
        assert matches(db, where) == [0]
    assert matches(db, {text: {"$exists": True}}) == [2]
    db.close()


def test_long_texts_are_compared_by_their_beginning():
    items = [{"a": "x" * 600}, {"a": "x" * 511}]
    assert found({"a": "x" * 600}, *items) == found({"a": {"$prefix": "x" * 512}}, *items) == [0]


def test_neighbouring_large_whole_numbers_are_told_apart():
    items = [{"a": 2**60 + n} for n in range(4)]
    assert found({"a": 2**60 + 2}, *items) == found(f"a = {2**60 + 2}", *items) == [2]
    assert found({"a": {"$in": [2**60 + 1, 2**60 + 3]}}, *items) == [1, 3]


def test_fractions_in_a_list_are_compared_exactly():
    numbers = [0.1 + n * 1e-17 for n in range(20)] + [5e-324, 1.7976931348623157e308, 2.0**70, 1 / 3]
    items = [{"a": number} for number in numbers]
    assert found({"a": {"$in": numbers}}, *items) == list(range(len(numbers)))


def test_a_list_of_values_may_be_very_long():
    items = [{"a": 3}, {"a": "word 99999"}, {"a": "no"}]
    values = [*range(100_000), *(f"word {n}" for n in range(100_000))]
    sql, params = to_sql(parse({"a": {"$in": values}}))
    assert len(sql) < 1_000
    assert len(params) == 4
    assert found({"a": {"$in": values}}, *items) == [0, 1]
    assert found({"a": {"$nin": values}}, *items) == [2]


def negated(depth, where):
    for _ in range(depth):
        where = {"$not": where}
    return where


def alternating(depth):
    where: dict = {"a": {"$in": [1, "x", 0.5]}}
    for level in range(depth):
        where = {"$or" if level % 2 else "$and": [{"b": {"$in": [1, "x", 0.5]}}, where, {"a": {"$ne": "y"}}]}
    return where


def test_fifty_levels_are_read_and_run():
    for where in (alternating(50), {"$not": alternating(49)}):
        assert found(where, {"a": 1, "b": 1}, {}) == [
            key for key, item in enumerate([{"a": 1, "b": 1}, {}]) if holds(item, where)
        ]
    text = "(" * 49 + "a = 1" + ")" * 49
    assert found("not " + text, {"a": 1}, {}) == [1]


def full_tree(depth, width):
    if depth == 0:
        return {"a": {"$in": [1, "x", 0.5]}}
    return {"$or" if depth % 2 else "$and": [full_tree(depth - 1, width) for _ in range(width)]}


@pytest.mark.parametrize("where", [full_tree(8, 2), full_tree(4, 4), full_tree(1, 500), full_tree(2, 22)])
def test_wide_and_bushy_filters_run(where):
    assert found(where, {"a": 1}, {"a": 2}) == found({"$not": {"$not": where}}, {"a": 1}, {"a": 2}) == [0]


def test_a_bushy_filter_under_forty_levels_runs():
    where = full_tree(7, 2)
    for level in range(40):
        where = {"$or" if level % 2 == 0 else "$and": [{"a": {"$ne": 2}}, where]}
    assert found(where, {"a": 1}, {"a": 2}) == [key for key, a in enumerate([1, 2]) if holds({"a": a}, where)]


@pytest.mark.parametrize(
    "where",
    [
        alternating(51),
        negated(2_000, {"a": 1}),
        "not " * 51 + "a = 1",
        "(" * 100_000 + "a = 1" + ")" * 100_000,
        {"a": negated(51, {"$eq": 1})},
    ],
)
def test_deeper_nesting_is_refused_with_advice(where):
    with pytest.raises(InvalidInput, match=r"at most 50 nested levels, got more: flatten it or use \$in"):
        parse(where)


def test_too_many_comparisons_are_refused_with_advice():
    with pytest.raises(InvalidInput, match=r"at most 500 comparisons .* got 501 and 1002: .* use \$in"):
        to_sql(parse({"$or": [{"a": n} for n in range(501)]}))
    with pytest.raises(InvalidInput, match=r"and 30000 parameters, got 1 and 40001: "):
        to_sql(parse({"a": {"$in": [n + 0.5 for n in range(40_000)]}}))


@pytest.mark.parametrize(
    ("where", "message"),
    [
        (5, r"expected a filter like \{'year': \{'\$gte': 2024\}\}, got int: 5"),
        (None, "expected a filter like .*, got NoneType: None"),
        ([{"a": 1}], "expected a filter like .*, got list: "),
        ({"$and": []}, r"expected a non-empty list of filters after \$and, got list: \[\]"),
        ({"$or": {"a": 1}}, r"expected a non-empty list of filters after \$or, got dict: "),
        ({"$and": [1]}, "expected a filter like .*, got int: 1"),
        ({"$not": 1}, "expected a filter like .*, got int: 1"),
        ({"$gt": 1}, r"expected a field name, \$and, \$or or \$not, got '\$gt': write \{field: \{'\$gt': ...\}\}"),
        ({3: 1}, "expected a non-empty str as a field name, got int: 3"),
        ({"": 1}, "expected a non-empty str as a field name, got str: ''"),
        ({"a": {}}, "expected a value or operators for 'a', got an empty mapping"),
        ({"a": {"$gtt": 1}}, r"expected \$eq, \$gt, .* or \$not for 'a', got '\$gtt'$"),
        ({"a": {"b": 1}}, r"for 'a', got 'b': for a nested field write 'a\.b'"),
        ({"a": {"$gt": 1, "b": 1}}, "for a nested field write"),
        ({"a": ["x", "y"]}, r"for 'a', got list: \['x', 'y'\]: for any of several values use \$in"),
        ({"a": float("nan")}, "expected a str, finite number, bool or date for 'a', got float: nan"),
        ({"a": {"$lt": float("inf")}}, "expected a str, finite number.* got float: inf"),
        ({"a": {"$gt": None}}, "expected a str, finite number, bool or date for 'a', got NoneType: None"),
        ({"a": {"$in": "red"}}, "expected a list of values for 'a', got str: 'red'"),
        ({"a": {"$in": [1, {}]}}, "expected a str, finite number.* got dict: "),
        ({"a": {"$in": [None]}}, "expected a str, finite number.* got NoneType"),
        ({"a": {"$exists": "yes"}}, r"expected True or False after \$exists of 'a', got str: 'yes'"),
        ({"a": b"x"}, "got bytes: b'x'"),
    ],
)
def test_a_bad_mapping_is_refused_with_what_was_expected(where, message):
    with pytest.raises(InvalidInput, match=message):
        parse(where)


@pytest.mark.parametrize(
    ("text", "position", "message"),
    [
        ("year >=", 8, "expected a value, got the end"),
        ("year", 5, "expected = or == or != or > .* got the end"),
        ("year 2024", 6, "expected = or .* got '2024'"),
        ("year = ", 8, "expected a value, got the end"),
        ("year => 3", 7, "expected a value, got '>'"),
        ("= 3", 1, r"expected a field name, not or \(, got '='"),
        (
            "colour = dark red",
            15,
            "expected and, or, or the end, got 'red': texts with spaces .* need a pair of quotes",
        ),
        ("a = and", 5, "expected a value, got 'and': .* keywords, need a pair of quotes"),
        ("in = 3", 1, "expected a field name, .* got 'in'"),
        ("a = 1 and", 10, "expected a field name, .* got the end"),
        ("a = 1 or )", 10, "expected a field name, .* got '\\)'"),
        ("(a = 1", 7, r"expected \), got the end"),
        ("a = 1)", 6, "expected and, or, or the end, got '\\)'"),
        ("a in 3", 6, r"expected \(, got '3'"),
        ("a in (1 2)", 9, r"expected , or \), got '2'"),
        ("a in (1", 8, r"expected , or \), got the end"),
        ("a in (,)", 7, r"expected a value or \), got ','"),
        ("a not = 3", 7, "expected in, got '='"),
        ("a is gone", 6, "expected missing, got 'gone'"),
        ('a = "red', 5, "expected a value, got '\"': .* need a pair of quotes"),
        ("a = 5#", 6, "expected and, or, or the end, got '#'"),
        ("a ! 3", 3, "expected = or .* got '!'"),
        ("a = 1; DROP TABLE items", 6, "got ';'"),
        ("a = 3\n  b", 9, "got 'b'"),
    ],
)
def test_a_bad_text_is_refused_with_the_place_and_what_was_expected(text, position, message):
    with pytest.raises(InvalidInput, match=message) as error:
        parse(text)
    first, shown, caret = str(error.value).split("\n")
    assert first.startswith(f"cannot read the filter at character {position}: ")
    assert len(caret) == position + 2
    assert shown.strip() == text.replace("\n", " ").strip()


def test_a_long_text_is_shown_around_the_place():
    with pytest.raises(InvalidInput, match="at character 3009") as error:
        parse("a = 1 and " * 300 + "b = red b " + " and a = 1" * 300)
    _, shown, caret = str(error.value).split("\n")
    assert len(shown) < 110
    assert shown[len(caret) - 1 :].startswith("b  and a = 1")


@pytest.mark.parametrize(
    ("field", "op", "values", "message"),
    [
        ("a", "> 0) OR (1", (1,), "expected =, one value with .*, got '> 0\\) OR \\(1' with 1"),
        ("a", ">", (1, 2), "got '>' with 2"),
        ("a", "exists", (1,), "got 'exists' with 1"),
        ("a", "=", "red", "expected a list of values for 'a', got str"),
        ("", "exists", (), "expected a non-empty str as a field name"),
    ],
)
def test_a_bad_comparison_cannot_exist(field, op, values, message):
    with pytest.raises(InvalidInput, match=message):
        Compare(field, op, values)


def test_equal_meanings_are_equal_conditions():
    assert Compare("a", "=", ("2011.0",)) == Compare("a", "=", [2011]) == parse("a = 2011")
    assert parse({"a": True}) == parse({"a": "true"}) != parse({"a": 1})
    assert parse({"a": {"$in": ["x", "y", "x"]}}) == parse({"a": {"$in": ["y", "x"]}})
    assert len({parse("a = 1 and b = 2"), parse({"a": 1, "b": "2"})}) == 1


ATTACKS = ["x') OR 1=1 --", "x'; DROP TABLE items; --", '" OR ""="', "?) OR (1=1", "{} {0}", "%s"]


@pytest.mark.parametrize("attack", ATTACKS)
def test_names_and_values_never_become_sql(attack):
    db = store({"a": "x"}, {"a": 1})
    operators = [{"$eq": attack}, {"$prefix": attack}, {"$in": [attack, "y"]}, {"$gte": attack, "$lte": attack}]
    for where in [{attack: "x"}, *({name: operator} for name in ("a", "id") for operator in operators)]:
        sql, params = to_sql(parse(where))
        assert attack not in sql
        assert any(attack in str(param) or json.dumps(attack) in str(param) for param in params)
        assert matches(db, where) == []
    assert db.execute("SELECT count(*) FROM items").fetchone() == (2,)
    db.close()


@pytest.mark.parametrize(
    ("where", "index"),
    [
        ("a = red", "facts_text (field=? AND text=?)"),
        ("a = 2011", "facts_num (field=? AND num=?)"),
        ("a in (red, blue)", "facts_text (field=? AND text=?)"),
        ("a in (1, 2)", "facts_num (field=? AND num=?)"),
        ("a >= 2011", "facts_num (field=? AND num>?)"),
        ("a < 2011", "facts_num (field=? AND num<?)"),
        ("a >= 2024-01-01", "facts_text (field=? AND text>?)"),
        ("a prefix red", "facts_text (field=? AND text>? AND text<?)"),
        ("a exists", "(field=?)"),
        ("id = x", "(id=?)"),
        ("id prefix x", "(id>? AND id<?)"),
    ],
)
def test_a_filter_uses_the_index(where, index):
    db = store({"a": "x"})
    sql, params = to_sql(parse(where))
    plan = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN SELECT i.key FROM items AS i WHERE {sql}", params)]
    db.close()
    assert any(index in step for step in plan), plan
    assert not any(step.startswith("SCAN facts") for step in plan), plan


def test_an_expression_can_stand_among_others():
    db = store({"a": 1}, {"b": 1}, {"c": 1})
    sql, params = to_sql(parse("a = 1 or b = 1"))
    assert db.execute(f"SELECT count(*) FROM items AS i WHERE i.key > 0 AND {sql}", params).fetchone() == (1,)
    db.close()


def test_a_hostile_text_is_refused_quickly():
    start = time.perf_counter()
    for text in ['a = "' + "\\" * 100_000, "1" * 100_000 + "x", " " * 100_000 + "#", "a = " + "1" * 100_000 + "e"]:
        try:
            to_sql(parse(text))
        except InvalidInput:
            continue
    assert time.perf_counter() - start < 2
