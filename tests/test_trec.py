"""TREC files: what is written is what is read, and what is malformed is named."""

import math
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmsearch.errors import InvalidInput
from mmsearch.metrics import evaluate
from mmsearch.trec import read_qrels, read_run, write_qrels, write_run

IDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(
    lambda text: text.split() == [text] and not text.startswith("\ufeff")
)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
TABLES = st.dictionaries(IDS, st.dictionaries(IDS, NUMBERS, min_size=1, max_size=5), max_size=4)


@pytest.fixture
def file(tmp_path):
    """Writes a file and says where it is."""

    def write(content, name="file.txt"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
        return path

    return write


# Round trips --------------------------------------------------------------------------------------------------------


@given(TABLES)
def test_judgements_are_read_as_they_were_written(qrels):
    with tempfile.TemporaryDirectory() as folder:
        write_qrels(Path(folder) / "qrels", qrels)
        assert read_qrels(Path(folder) / "qrels") == qrels


@given(TABLES, IDS)
def test_runs_are_read_as_they_were_written_and_ranked(run, tag):
    with tempfile.TemporaryDirectory() as folder:
        write_run(Path(folder) / "run", run, tag)
        back = read_run(Path(folder) / "run")
    assert back == run
    assert list(back) == list(run)
    for query, scores in back.items():
        assert list(scores) == sorted(run[query], key=lambda each: (-run[query][each], each))


def test_the_files_are_those_that_trec_describes(tmp_path):
    write_qrels(tmp_path / "qrels", {"q1": {"d1": 1, "d2": 0.0}, "q2": {"d1": 0.5}, "q3": {}})
    assert (tmp_path / "qrels").read_bytes() == b"q1 0 d1 1\nq1 0 d2 0\nq2 0 d1 0.5\n"
    write_run(tmp_path / "run", {"q1": {"low": 0.25, "b": np.float32(0.5), "a": 0.5}}, tag="clip")
    assert (tmp_path / "run").read_bytes() == b"q1 Q0 a 1 0.5 clip\nq1 Q0 b 2 0.5 clip\nq1 Q0 low 3 0.25 clip\n"


def test_ir_measures_reads_what_we_write(tmp_path):
    ir = pytest.importorskip("ir_measures")
    qrels = {"q1": {"é/1.jpg": 1, "2.jpg": 0}, "q2": {"2.jpg": 2}}
    run = {"q1": {"2.jpg": 0.9, "é/1.jpg": 0.8}, "q2": {"2.jpg": -1.5}}
    write_qrels(tmp_path / "qrels", qrels)
    write_run(tmp_path / "run", run)
    theirs = ir.calc_aggregate(
        [ir.AP], list(ir.read_trec_qrels(str(tmp_path / "qrels"))), list(ir.read_trec_run(str(tmp_path / "run")))
    )
    back = {query: list(scores) for query, scores in read_run(tmp_path / "run").items()}
    ours = evaluate(read_qrels(tmp_path / "qrels"), back, ["MAP"]).means()
    assert ours["MAP"] == theirs[ir.AP] == 0.75


# Reading ------------------------------------------------------------------------------------------------------------


def test_judgements_may_be_separated_by_any_white_space_and_have_blank_lines(file):
    path = file("q1 0 d1 1\n\n  q1   0  d2   2.5 \r\nq2\t0\td1\t0")
    assert read_qrels(path) == {"q1": {"d1": 1, "d2": 2.5}, "q2": {"d1": 0}}
    assert read_qrels(str(path)) == read_qrels(path)


def test_a_line_with_tabs_may_have_a_sentence_as_its_query_and_a_path_with_spaces(file):
    path = file("a red car\tmy photos/car 1.jpg\na red car\tb.jpg\t2\na red car\t0\tc.jpg\t0\n# not a comment\td\n")
    assert read_qrels(path) == {
        "a red car": {"my photos/car 1.jpg": 1, "b.jpg": 2, "c.jpg": 0},
        "# not a comment": {"d": 1},
    }


def test_a_byte_order_mark_is_no_part_of_the_first_query(file):
    assert read_qrels(file("\ufeffq1\td1\n")) == {"q1": {"d1": 1}}


def test_a_run_is_ordered_by_score_and_not_by_its_rank_column_or_place(file):
    run = read_run(file("q Q0 c 1 0.1 t\nq Q0 b 2 7 t\np Q0 x 1 1e-3 t\nq Q0 a 9 7.0 t\n"))
    assert [(query, list(scores.items())) for query, scores in run.items()] == [
        ("q", [("a", 7.0), ("b", 7.0), ("c", 0.1)]),
        ("p", [("x", 0.001)]),
    ]


def test_a_run_with_tabs_may_have_sentences_as_queries(file):
    assert read_run(file("a red car\tQ0\tcar 1.jpg\t1\t0.5\tmy run\n")) == {"a red car": {"car 1.jpg": 0.5}}


def test_an_empty_file_holds_nothing(file):
    assert read_qrels(file("")) == read_run(file("\n \n")) == {}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("q 0 d", "got 3 columns"),
        ("q d", "got 2 columns"),
        ("q 0 d 1 1", "got 5 columns"),
        ("q\t0\td\t1\t1", "got 5 columns"),
        ("q 0 d one", "finite number as grade, got 'one'"),
        ("q 0 d nan", "finite number as grade, got 'nan'"),
        ("q\td\tinf", "finite number as grade, got 'inf'"),
        ("q\t", "empty column"),
        ("first 0 d 1", "'d' again for 'first'"),
    ],
)
def test_a_malformed_judgement_is_named_by_file_and_line(file, line, reason):
    path = file(f"first 0 d 1\n\n{line}\n")
    with pytest.raises(InvalidInput) as caught:
        read_qrels(path)
    assert str(caught.value).startswith(f"{path}, line 3: expected")
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("q Q0 d 1 0.5", "got 5 columns"),
        ("a red car Q0 d 1 0.5 t", "got 8 columns"),
        ("q Q0 d 1 high t", "finite number as score, got 'high'"),
        ("q Q0 d 1 nan t", "finite number as score"),
        ("first Q0 d 2 0.4 t", "'d' again for 'first'"),
    ],
)
def test_a_malformed_line_of_a_run_is_named_by_file_and_line(file, line, reason):
    path = file(f"first Q0 d 1 0.5 t\n{line}\n")
    with pytest.raises(InvalidInput) as caught:
        read_run(path)
    assert str(caught.value).startswith(f"{path}, line 2: expected")
    assert reason in str(caught.value)


def test_bytes_that_are_not_utf_8_are_named_by_line(file):
    with pytest.raises(InvalidInput, match="line 2: expected UTF-8"):
        read_qrels(file(b"q\td\ncaf\xe9\td\n"))


def test_a_missing_file_is_the_usual_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_qrels(tmp_path / "none")


# Writing ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("id", ["", "a b", "a\tb", "a\n", " a", "a\u00a0b", "a\u2028b", "\x1c", "\ufeffa", "\ud800"])
def test_ids_that_no_reader_would_give_back_are_not_written(tmp_path, id):
    for table in ({id: {"d": 1.0}}, {"q": {id: 1.0}}):
        for write in (write_qrels, write_run):
            with pytest.raises(InvalidInput, match=r"expected a (query|document)"):
                write(tmp_path / "out", table)
    with pytest.raises(InvalidInput, match="expected a tag"):
        write_run(tmp_path / "out", {"q": {"d": 1.0}}, tag=id)
    assert list(tmp_path.iterdir()) == []


def test_ids_with_white_space_say_why_not(tmp_path):
    with pytest.raises(InvalidInput, match="without white space, got 'a red car': TREC files separate columns by it"):
        write_qrels(tmp_path / "out", {"a red car": {"d": 1}})


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_numbers_that_are_not_finite_are_not_written_and_the_old_file_stays(tmp_path, number):
    for write in (write_qrels, write_run):
        write(tmp_path / "out", {"q": {"d": 1}})
        old = (tmp_path / "out").read_bytes()
        with pytest.raises(InvalidInput, match="finite"):
            write(tmp_path / "out", {"q": {"d": 1}, "r": {"d": number}})
        assert (tmp_path / "out").read_bytes() == old
        assert [path.name for path in tmp_path.iterdir()] == ["out"]
