"""Judgements and rankings in the formats of TREC, which all evaluation tools read.

A file of judgements (qrels) has the columns ``query 0 document grade``, a run file ``query Q0 document rank score
tag`` (trec_eval's README). Columns are separated by white space; but a line that holds a tab is split at its tabs only,
so that a query may be a whole sentence there. Files are UTF-8, blank lines are passed over, and nothing is a comment.
"""

from __future__ import annotations

import math
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

from mmsearch.errors import InvalidInput

_Table: TypeAlias = dict[str, dict[str, float]]

_MARK = "\ufeff"
"""The byte order mark with which some editors begin a UTF-8 file."""


def read_qrels(path: str | Path) -> dict[str, dict[str, float]]:
    """Read judgements: query -> document -> grade, in the order of the file.

    With tabs, a line may also be ``query<TAB>document`` (grade 1) or ``query<TAB>document<TAB>grade``. The second of
    four columns is not used.

    Raises
    ------
    InvalidInput
        If a line has other columns, a grade is no finite number, or a document is judged twice for a query; the message
        names the file and the line.
    OSError
        If the file cannot be read.
    """
    table: _Table = {}
    for where, columns, tabs in _lines(path):
        if not (len(columns) == 4 or (tabs and len(columns) in (2, 3))):
            raise InvalidInput(
                f"{where}: expected the columns query, 0, document, grade, or query and document (and grade) "
                f"separated by tabs, got {len(columns)} columns"
            )
        document, grade = (columns[1], "1") if len(columns) == 2 else (columns[-2], columns[-1])
        _put(table, columns[0], document, _number(grade, "grade", where), where)
    return table


def read_run(path: str | Path) -> dict[str, dict[str, float]]:
    """Read rankings: query -> document -> score, the documents of a query in ranked order.

    The order is that of the scores, highest first, and of the ids where scores are equal; the rank column is not used.
    trec_eval too goes by the scores alone, but takes equal ones in the reverse order of the ids: give documents
    different scores where that matters. ``{query: list(scores) for query, scores in run.items()}`` is what
    ``mmsearch.metrics.evaluate`` takes.

    Raises
    ------
    InvalidInput
        If a line has not six columns, a score is no finite number, or a document comes twice for a query; the message
        names the file and the line.
    OSError
        If the file cannot be read.
    """
    table: _Table = {}
    for where, columns, _ in _lines(path):
        if len(columns) != 6:
            raise InvalidInput(
                f"{where}: expected the columns query, Q0, document, rank, score, tag, got {len(columns)} columns"
            )
        _put(table, columns[0], columns[2], _number(columns[4], "score", where), where)
    return {query: dict(_ranked(scores)) for query, scores in table.items()}


def write_qrels(path: str | Path, qrels: Mapping[str, Mapping[str, float]]) -> None:
    """Write judgements, query -> document -> grade, so that ``read_qrels`` gives back the same.

    A query without documents has no line, so it is not in the file. The file is replaced as a whole or not at all.

    Raises
    ------
    InvalidInput
        If an id is empty or holds white space, or a grade is not finite.
    OSError
        If the file cannot be written.
    """
    _replace(
        Path(path),
        (
            f"{_id(query, 'query')} 0 {_id(document, 'document')} {_plain(grade, 'grade')}\n"
            for query, grades in qrels.items()
            for document, grade in grades.items()
        ),
    )


def write_run(path: str | Path, run: Mapping[str, Mapping[str, float]], tag: str = "mmsearch") -> None:
    """Write rankings, query -> document -> score, in the order of ``read_run``, which gives back the same.

    A query without documents has no line, so it is not in the file. The file is replaced as a whole or not at all.

    Raises
    ------
    InvalidInput
        If an id or the tag is empty or holds white space, or a score is not finite.
    OSError
        If the file cannot be written.
    """
    end = _id(tag, "tag")
    _replace(
        Path(path),
        (
            f"{_id(query, 'query')} Q0 {_id(document, 'document')} {rank} {_plain(score, 'score')} {end}\n"
            for query, scores in run.items()
            for rank, (document, score) in enumerate(_ranked(scores), start=1)
        ),
    )


def _lines(path: str | Path) -> Iterator[tuple[str, list[str], bool]]:
    """Each line that is not blank: where it is, its columns, and whether tabs separate them."""
    with open(path, "rb") as file:
        for number, raw in enumerate(file, start=1):
            where = f"{path}, line {number}"
            try:
                line = raw.decode("utf-8").removeprefix(_MARK if number == 1 else "")
            except UnicodeDecodeError as error:
                raise InvalidInput(f"{where}: expected UTF-8, got other bytes: save the file as UTF-8") from error
            if not line.strip():
                continue
            tabs = "\t" in line
            columns = [column.strip() for column in line.split("\t")] if tabs else line.split()
            if not all(columns):
                raise InvalidInput(f"{where}: expected something in each column, got an empty column between tabs")
            yield where, columns, tabs


def _put(table: _Table, query: str, document: str, value: float, where: str) -> None:
    row = table.setdefault(query, {})
    if document in row:
        raise InvalidInput(f"{where}: expected each document once per query, got {document!r} again for {query!r}")
    row[document] = value


def _number(text: str, name: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InvalidInput(f"{where}: expected a finite number as {name}, got {text!r}")
    return value


def _ranked(scores: Mapping[str, float]) -> list[tuple[str, float]]:
    return sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))


def _id(text: str, name: str) -> str:
    if text.split() != [text]:
        raise InvalidInput(
            f"expected a {name} without white space, got {text!r}: TREC files separate columns by it, so give short ids"
        )
    if text.startswith(_MARK) or not _fits_utf8(text):
        raise InvalidInput(f"expected a {name} that UTF-8 can hold and that no byte order mark begins, got {text!r}")
    return text


def _fits_utf8(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _plain(value: float, name: str) -> str:
    """The shortest text that reads back as the same number; whole numbers as such, since tools expect whole grades."""
    number = float(value)
    if not math.isfinite(number):
        raise InvalidInput(f"expected a finite {name}, got {value!r}")
    return str(int(number)) if number.is_integer() and abs(number) < 1e15 else repr(number)


def _replace(path: Path, lines: Iterable[str]) -> None:
    temporary = path.with_name(f".mmsearch-{os.getpid()}-{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "x", encoding="utf-8", newline="\n") as file:
            file.writelines(lines)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
