"""Metadata filters: read a filter once, then ask SQLite.

A filter is a mapping in the style of MongoDB, Chroma and Pinecone, or a line of text for people:

>>> parse({"year": {"$gte": 2024}, "group": "photo"}) == parse("year >= 2024 and group = photo")
True

The store keeps metadata as facts (`facts_of`) and `to_sql` asks about them; both live here because they must
agree on what a value's text and number are:

* A list matches if any of its members does; ``$ne``, ``$nin`` and ``$not`` are exact complements, so an item
  without the field matches them, as in MongoDB. Null, an empty list and an empty mapping count as no value.
* A string that reads as a number is that number: ``"2011"``, ``2011`` and ``"2011.0"`` are equal. Whole numbers
  from 2**53 on are equal if their digits are, because a double cannot tell such neighbours apart.
* A range over a text, such as a date, looks only at values that are not numbers. ``True`` is the text ``"true"``.
* Texts are kept and compared up to their first 512 characters. The field ``id`` is the item's own id, as text.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from numbers import Integral, Real
from typing import Any, NoReturn, TypeAlias

from mmsearch.errors import InvalidInput

Filter: TypeAlias = str | Mapping[str, Any]

# SQLite's parser has a stack of 100, and takes expressions 1,000 levels deep and 32,766 parameters.
MAX_DEPTH, MAX_COMPARISONS, MAX_PARAMETERS = 50, 500, 30_000

_TEXT_LENGTH = 512
_LAST = "\U0010ffff"  # the last character there is
_EXACT = 2.0**53  # below this every whole number is a double of its own
_NUMBER = re.compile(r"\s*[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?\s*", re.ASCII)
_OPS = {"$eq": "=", "$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<=", "$prefix": "prefix"}
_ARITIES = [("exists", 0), *((op, 1) for op in _OPS.values())]
_WORDS = {"=": "$eq", "==": "$eq", "!=": "$ne", ">": "$gt", ">=": "$gte", "<": "$lt", "<=": "$lte"}
_WORDS |= {"in": "$in", "not": "$nin", "prefix": "$prefix", "exists": "$exists", "is": "$exists"}
_KEYWORDS = {"and", "or", *_WORDS}
_TOKEN = re.compile(
    r"""(?s)\s*(?:(?P<quoted>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')"""
    r"""|(?P<word>[\w./:@+-]+)|(?P<mark>[<>!=]=|[<>=(),])|(?P<end>\Z)|(?P<wrong>.))""",
)
_ITEMS = "i.key IN (SELECT item FROM facts WHERE field = (SELECT field FROM fields WHERE name = ?) AND {})"


@dataclass(frozen=True, slots=True)
class And:
    """All parts hold; with no parts: everything."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """At least one part holds."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The part does not hold."""

    part: Condition


@dataclass(frozen=True, slots=True)
class Compare:
    """The field holds a value that compares so: ``=`` any of these values; one ``> >= < <= prefix``; or ``exists``.

    Values that compare as numbers become floats, so that what means the same is equal and one key of a cache.
    """

    field: str
    op: str
    values: Collection[str | float] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.field, str) or not self.field:
            raise InvalidInput(f"expected a non-empty str as a field name, got {_shown(self.field)}")
        if not isinstance(self.values, list | tuple | set | frozenset):
            raise InvalidInput(f"expected a list of values for {self.field!r}, got {_shown(self.values)}")
        if self.op != "=" and (self.op, len(self.values)) not in _ARITIES:
            got = f"{self.op!r} with {len(self.values)}"
            raise InvalidInput(f"expected =, one value with > >= < <= prefix, or exists with none, got {got}")
        object.__setattr__(self, "values", frozenset(_operand(self.field, self.op, value) for value in self.values))
        object.__setattr__(self, "field", _clean(self.field))


Condition: TypeAlias = And | Or | Not | Compare


def parse(where: Filter) -> Condition:
    """Read a filter in either form and check it.

    >>> parse("not (year >= 2024 or title prefix 'red ')")
    Not(part=Or(parts=(Compare(field='year', op='>=', ...), Compare(field='title', op='prefix', ...))))
    """
    return _Reader(where).whole() if isinstance(where, str) else _from_mapping(where, 0)


def facts_of(metadata: Mapping[str, Any]) -> list[tuple[str, str, float | None]]:
    """Flatten metadata to facts, (field name, text, number or None), one per scalar and per member of a list.

    >>> facts_of({"year": 2011, "tags": ["red", "7"], "author": {"name": "Ada", "born": None}})
    [('year', '2011', 2011.0), ('tags', 'red', None), ('tags', '7', 7.0), ('author.name', 'Ada', None)]
    """
    facts = []
    waiting: list[tuple[str, Any]] = [("", metadata)]  # deep metadata would exhaust Python's own stack
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, Mapping):
            waiting += [(f"{name}.{key}" if name else str(key), member) for key, member in value.items()][::-1]
        elif isinstance(value, list | tuple | set | frozenset):
            waiting += [(name, member) for member in value][::-1]
        elif value is not None:
            text = _text(value)
            facts.append((_clean(name), _clean(text)[:_TEXT_LENGTH], _number(text)))
    return facts


def _text(value: object) -> str:
    if isinstance(value, Real) and not isinstance(value, Integral):
        number = float(value)
        value = int(number) if number.is_integer() else number
    return str(value).lower() if isinstance(value, bool) else str(value)


def _number(text: str) -> float | None:
    number = float(text) if len(text) <= _TEXT_LENGTH and _NUMBER.fullmatch(text) else math.inf
    return number if math.isfinite(number) else None


def _clean(text: str) -> str:
    # SQLite's JSON functions end a text at NUL, and lone surrogates are not UTF-8.
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")


def _operand(field: str, op: str, value: object) -> str | float:
    if not isinstance(value, str | Real | date) or (isinstance(value, float) and not math.isfinite(value)):
        hint = ": for any of several values use $in" if isinstance(value, list | tuple) else ""
        raise InvalidInput(f"expected a str, finite number, bool or date for {field!r}, got {_shown(value)}{hint}")
    text = _text(value)
    if field == "id":
        return _clean(text)
    number = None if op == "prefix" else _number(text)
    # A float shows more digits than it has: 1e20 should equal the string "1e20".
    whole = not isinstance(value, float) and re.fullmatch("-?[0-9]+", text)
    if number is None or (op == "=" and abs(number) >= _EXACT and whole):
        return _clean(text)[:_TEXT_LENGTH]
    return number


def _shown(value: object) -> str:
    return f"{type(value).__name__}: {value!r:.80}"


def _from_mapping(where: object, depth: int) -> Condition:
    if not isinstance(where, Mapping):
        raise InvalidInput(f"expected a filter like {{'year': {{'$gte': 2024}}}}, got {_shown(where)}")
    _check_depth(depth)
    return _joined(And, [_from_entry(key, value, depth) for key, value in where.items()])


def _from_entry(key: str, value: object, depth: int) -> Condition:
    if key in ("$and", "$or"):
        if not isinstance(value, list | tuple) or not value:
            raise InvalidInput(f"expected a non-empty list of filters after {key}, got {_shown(value)}")
        return _joined(And if key == "$and" else Or, [_from_mapping(part, depth + 1) for part in value])
    if key == "$not":
        return Not(_from_mapping(value, depth + 1))
    if str(key).startswith("$"):
        raise InvalidInput(f"expected a field name, $and, $or or $not, got {key!r}: write {{field: {{{key!r}: ...}}}}")
    operators = value if isinstance(value, Mapping) else {"$eq": value}
    if not operators:
        raise InvalidInput(f"expected a value or operators for {key!r}, got an empty mapping: use $exists, $eq, ...")
    return _joined(And, [_from_operator(key, *pair, depth) for pair in operators.items()])


def _from_operator(name: str, operator: str, value: Any, depth: int = 0) -> Condition:  # noqa: ANN401 - checked here
    if operator == "$not":
        return Not(_from_mapping({name: value}, depth + 1))
    if operator in ("$ne", "$nin"):
        return Not(_from_operator(name, "$eq" if operator == "$ne" else "$in", value))
    if operator == "$in":
        return Compare(name, "=", value)
    if operator == "$exists" and not isinstance(value, bool):
        raise InvalidInput(f"expected True or False after $exists of {name!r}, got {_shown(value)}")
    if operator == "$exists" or (operator == "$eq" and value is None):
        return Compare(name, "exists") if value else Not(Compare(name, "exists"))
    if operator not in _OPS:
        known = ", ".join([*_OPS, "$ne", "$in", "$nin", "$exists or $not"])
        hint = "" if str(operator).startswith("$") else f": for a nested field write '{name}.{operator}'"
        raise InvalidInput(f"expected {known} for {name!r}, got {operator!r}{hint}")
    return Compare(name, _OPS[operator], (value,))


def _joined(kind: type[And | Or], parts: Sequence[Condition]) -> Condition:
    flat = [inner for part in parts for inner in (part.parts if isinstance(part, kind) else [part])]
    return flat[0] if len(flat) == 1 else kind(tuple(flat))


def _check_depth(depth: int) -> None:
    if depth > MAX_DEPTH:
        raise InvalidInput(f"expected a filter of at most {MAX_DEPTH} nested levels, got more: flatten it or use $in")


class _Reader:
    """Reads the text form by recursive descent; ``kind`` and ``token`` are what comes next."""

    def __init__(self, text: str) -> None:
        self.text, self.end = text, 0
        self.advance()

    def advance(self) -> None:
        found = next(_TOKEN.finditer(self.text, self.end))  # the last two kinds match whatever is left
        self.kind = str(found.lastgroup)
        self.token, (self.start, self.end) = found[self.kind], found.span(self.kind)

    def fail(self, expected: str) -> NoReturn:
        hint = "texts with spaces or signs, and keywords, need a pair of quotes"
        got = "the end" if self.kind == "end" else f"{self.token!r:.80}: {hint}"
        low = max(0, self.start - 60)
        shown = re.sub(r"\s", " ", self.text[low : self.start + 40]) + "\n  " + " " * (self.start - low) + "^"
        place = f"at character {self.start + 1}"
        raise InvalidInput(f"cannot read the filter {place}: expected {expected}, got {got}\n  {shown}")

    def take(self, *words: str) -> str:
        token = self.token.lower()
        if self.kind not in ("word", "mark") or token not in words:
            return ""
        self.advance()
        return token

    def expect(self, *words: str) -> str:
        return self.take(*words) or self.fail(" or ".join(words))

    def value(self, what: str) -> str:
        kind, token = self.kind, self.token
        if kind not in ("word", "quoted") or (kind == "word" and token.lower() in _KEYWORDS):
            self.fail(what)
        self.advance()
        return re.sub(r"""\\(["'\\])""", r"\1", token[1:-1]) if kind == "quoted" else token

    def whole(self) -> Condition:
        condition = And(()) if self.kind == "end" else self.any_of(0)
        return condition if self.kind == "end" else self.fail("and, or, or the end")

    def any_of(self, depth: int) -> Condition:
        parts = [[self.one(depth)]]
        while word := self.take("and", "or"):
            parts += [[]] if word == "or" else []
            parts[-1].append(self.one(depth))
        return _joined(Or, [_joined(And, part) for part in parts])

    def one(self, depth: int) -> Condition:
        _check_depth(depth)
        if self.take("not"):
            return Not(self.one(depth + 1))
        if not self.take("("):
            return self.comparison()
        inner = self.any_of(depth + 1)
        self.expect(")")
        return inner

    def comparison(self) -> Condition:
        name = self.value("a field name, not or (")
        word = self.expect(*_WORDS)
        if word in ("exists", "is"):
            return _from_operator(name, "$exists", word == "exists" or not self.expect("missing"))
        if word == "not":
            self.expect("in")
        value = self.members() if word in ("in", "not") else self.value("a value")
        return _from_operator(name, _WORDS[word], value)

    def members(self) -> list[str]:
        values: list[str] = []
        word = self.expect("(")
        while word != ")" and not self.take(")"):
            values.append(self.value("a value or )"))
            word = self.expect(",", ")")
        return values


def to_sql(condition: Condition) -> tuple[str, list[object]]:
    """Write a condition as an SQL expression over the table ``items`` under the name ``i``, and its parameters."""
    comparisons, _, sql, params = _sql(condition, True)
    if comparisons > MAX_COMPARISONS or len(params) > MAX_PARAMETERS:
        limits = f"{MAX_COMPARISONS} comparisons and {MAX_PARAMETERS} parameters"
        got = f"{comparisons} and {len(params)}: for many values of one field use $in"
        raise InvalidInput(f"expected a filter of at most {limits}, got {got}")
    return f"({sql})", params


def _sql(condition: Condition, wanted: bool) -> tuple[int, str, str, list[object]]:
    """How many comparisons, how they are joined, the expression for the condition or its complement, parameters."""
    if isinstance(condition, Not):
        return _sql(condition.part, not wanted)
    if isinstance(condition, Compare):
        sql, params = _comparison_sql(condition)
        return 1, "", sql if wanted else f"NOT {sql}", params
    op = "AND" if isinstance(condition, And) == wanted else "OR"
    # The largest part comes first, and nothing has needless parentheses, to keep SQLite's parser's stack low.
    parts = sorted((_sql(part, wanted) for part in condition.parts), key=lambda part: -part[0])
    sqls = [f"({sql})" if (op, inner) == ("AND", "OR") else sql for _, inner, sql, _ in parts]
    sql = f" {op} ".join(sqls) or ("1" if op == "AND" else "0")
    return sum(part[0] for part in parts), op, sql, [param for part in parts for param in part[3]]


def _comparison_sql(comparison: Compare) -> tuple[str, list[object]]:
    tests = _tests(comparison, "i.id" if comparison.field == "id" else "text")
    if comparison.field != "id":
        tests = [(_ITEMS.format(sql), [comparison.field, *params]) for sql, params in tests]
    return f"({' OR '.join(sql for sql, _ in tests) or '0'})", [param for _, params in tests for param in params]


def _tests(comparison: Compare, text: str) -> list[tuple[str, list[object]]]:
    if comparison.op == "exists":
        return [("1", [])]
    if comparison.op == "=":
        return _equal_tests(comparison, text)
    (value,) = comparison.values
    if comparison.op == "prefix":
        # Nothing that starts so is greater than the end; unlike LIKE, a range always uses the index.
        return [(f"{text} BETWEEN ? AND ?", [value, f"{value}{_LAST * _TEXT_LENGTH}"])]
    if isinstance(value, float):
        return [(f"num {comparison.op} ?", [value])]
    return [(f"{text} {comparison.op} ?" + " AND num IS NULL" * (text == "text"), [value])]


def _equal_tests(comparison: Compare, text: str) -> list[tuple[str, list[object]]]:
    texts = sorted(value for value in comparison.values if isinstance(value, str))
    numbers = sorted(value for value in comparison.values if isinstance(value, float))
    # SQLite may read a fraction in JSON a little off, so only whole numbers can travel in one parameter.
    whole = [int(number) for number in numbers if number.is_integer() and abs(number) < _EXACT]
    other = [number for number in numbers if not number.is_integer() or abs(number) >= _EXACT]
    tests: list[tuple[str, list[object]]] = []
    for column, values in ((text, texts), ("num", whole), ("num", other)):
        if len(values) > 1 and values is not other:
            tests.append((f"{column} IN (SELECT value FROM json_each(?))", [json.dumps(values)]))
        elif values:
            tests.append((f"{column} IN ({', '.join('?' * len(values))})", [*values]))
    return tests
