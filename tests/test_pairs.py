"""Stages over joint models: batches, deadlines, failures, kept scores; mostly through ``FunctionReranker``."""

import math
import os
import threading
import time
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmsearch.errors import InvalidInput, PictureError
from mmsearch.protocols import Reranker, Scorer
from mmsearch.rerank.function import FunctionReranker
from mmsearch.rerank.pairs import Lru, PairScorer, item_key, query_key, read_picture, text_of
from mmsearch.types import Hit, Item, Query

QUERY = Query(text="a red bicycle")


def hits_of(n, **facts):
    return [Hit(Item(f"i{i}", text=f"text {i}", **facts), score=1 - i / 1000, rank=i + 1) for i in range(n)]


def number_of(item):
    return float(item.id[1:]) / 7


class Counting:
    """A function that remembers the ids it was asked about, call by call."""

    def __init__(self, answer=number_of, seconds=0.0):
        self.calls = []
        self.answer = answer
        self.seconds = seconds

    def __call__(self, query, items):
        self.calls.append([item.id for item in items])
        time.sleep(self.seconds * len(items))
        return [self.answer(item) for item in items]

    @property
    def asked(self):
        return [id for call in self.calls for id in call]


def expected(n):
    return np.array([i / 7 for i in range(n)], dtype=np.float32)


class TestScores:
    def test_are_fp32_in_the_order_of_the_hits(self):
        signal = FunctionReranker(Counting(), batch_size=3).score(QUERY, hits_of(10))
        assert signal.values.dtype == np.float32
        np.testing.assert_array_equal(signal.values, expected(10))
        assert signal.notes == ()

    def test_come_best_first_whatever_the_order_of_the_hits(self):
        counting = Counting()
        signal = FunctionReranker(counting, batch_size=4).score(QUERY, hits_of(10)[::-1])
        assert counting.calls == [["i0", "i1", "i2", "i3"], ["i4", "i5", "i6", "i7"], ["i8", "i9"]]
        np.testing.assert_array_equal(signal.values, expected(10)[::-1])

    @settings(deadline=None)
    @given(st.integers(0, 40), st.integers(1, 50))
    def test_do_not_depend_on_the_batch_size(self, n, batch_size):
        signal = FunctionReranker(Counting(), batch_size=batch_size).score(QUERY, hits_of(n))
        np.testing.assert_array_equal(signal.values, expected(n))

    def test_of_no_hits_are_none(self):
        counting = Counting()
        signal = FunctionReranker(counting).score(QUERY, [])
        assert signal.values.shape == (0,)
        assert (signal.notes, counting.calls) == ((), [])

    def test_reorder_hits(self):
        ranked = FunctionReranker(Counting(), "mine").rerank(QUERY, hits_of(5))
        assert [hit.item.id for hit in ranked] == ["i4", "i3", "i2", "i1", "i0"]
        assert ranked[0].scores["mine"] == pytest.approx(4 / 7, abs=1e-5)

    def test_make_a_scorer_and_a_reranker(self):
        stage = FunctionReranker(Counting())
        assert isinstance(stage, Scorer)
        assert isinstance(stage, Reranker)

    def test_of_any_query_are_the_functions_affair(self):
        query = Query(text="dog") + Query(id="i1")
        signal = FunctionReranker(Counting()).score(query, hits_of(2))
        assert np.isfinite(signal.values).all()


class TestDeadlines:
    def test_that_have_passed_leave_all_nan_and_a_note(self):
        counting = Counting()
        signal = FunctionReranker(counting, "cross").score(QUERY, hits_of(5), deadline=0)
        assert np.isnan(signal.values).all()
        assert signal.notes == ("cross: scored 0 of 5, the time was up",)
        assert counting.calls == []

    def test_stop_between_batches_and_keep_the_best(self):
        stage = FunctionReranker(Counting(seconds=0.01), "cross", batch_size=8)
        signal = stage.score(QUERY, hits_of(200), time.perf_counter() + 0.3)
        done = int(np.isfinite(signal.values).sum())
        assert 0 < done < 200
        assert np.isfinite(signal.values[:done]).all()
        assert signal.notes == (f"cross: scored {done} of 200, the time was up",)

    def test_begin_no_batch_that_would_end_late(self):
        stage = FunctionReranker(Counting(seconds=0.02), batch_size=16)
        end = time.perf_counter() + 0.4
        stage.score(QUERY, hits_of(200), end)
        assert time.perf_counter() < end + 0.2  # a whole batch takes 0.32 s

    def test_begin_with_no_more_than_the_last_call_had_time_for(self):
        counting = Counting(seconds=0.05)
        stage = FunctionReranker(counting, batch_size=16, cache_size=0)
        stage.score(QUERY, hits_of(4))
        stage.score(QUERY, hits_of(16), time.perf_counter() + 0.12)
        assert 1 <= len(counting.calls[1]) <= 2

    def test_that_are_far_away_change_nothing(self):
        signal = FunctionReranker(Counting(), batch_size=3).score(QUERY, hits_of(20), time.perf_counter() + 60)
        np.testing.assert_array_equal(signal.values, expected(20))
        assert signal.notes == ()

    def test_do_not_keep_a_slow_stage_from_being_measured_again(self):
        counting = Counting(seconds=0.2)
        stage = FunctionReranker(counting, cache_size=0)
        stage.score(QUERY, hits_of(1))
        counting.seconds = 0.0
        signal = stage.score(QUERY, hits_of(30), time.perf_counter() + 0.1)
        assert np.isfinite(signal.values).all()


class TestFailures:
    def test_halfway_keep_what_was_scored(self):
        def fail_at_six(query, items):
            if any(item.id == "i6" for item in items):
                raise RuntimeError("the service\n is gone" + "!" * 1000)
            return [number_of(item) for item in items]

        signal = FunctionReranker(fail_at_six, "cross", batch_size=2).score(QUERY, hits_of(10))
        np.testing.assert_array_equal(signal.values[:6], expected(6))
        assert np.isnan(signal.values[6:]).all()
        (note,) = signal.notes
        assert note.startswith("cross: scored 6 of 10, then failed: RuntimeError: the service is gone!")
        assert len(note) < 400

    @pytest.mark.parametrize("answer", [[1.0], [[1.0], [2.0]], 3.0, ["good", "bad"], None, [1.0, 2.0, 3.0]])
    def test_to_answer_with_a_number_each_are_noted(self, answer):
        signal = FunctionReranker(lambda query, items: answer).score(QUERY, hits_of(2))
        assert np.isnan(signal.values).all()
        assert "failed" in signal.notes[0]

    def test_name_the_wrong_shape(self):
        signal = FunctionReranker(lambda query, items: [1.0]).score(QUERY, hits_of(2))
        assert "expected 2 scores in one row, got the shape (1,)" in signal.notes[0]

    def test_are_tried_again_by_the_next_call(self):
        answers = iter([RuntimeError("not yet"), [1.0]])

        def second_time(query, items):
            answer = next(answers)
            if isinstance(answer, Exception):
                raise answer
            return answer

        stage = FunctionReranker(second_time)
        assert np.isnan(stage.score(QUERY, hits_of(1)).values[0])
        assert stage.score(QUERY, hits_of(1)).values[0] == 1.0

    def test_are_no_excuse_to_swallow_an_interrupt(self):
        def interrupted(query, items):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            FunctionReranker(interrupted).score(QUERY, hits_of(1))

    def test_to_give_a_number_are_counted(self):
        odd = {"i1": math.nan, "i2": math.inf, "i3": 1e300}
        signal = FunctionReranker(lambda query, items: [odd.get(i.id, 0.5) for i in items], "cross").score(
            QUERY, hits_of(5)
        )
        np.testing.assert_array_equal(np.isnan(signal.values), [False, True, True, True, False])
        assert signal.notes == ("cross: gave no number for 3 of 5 hits",)


class TestMemory:
    @pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")])
    def test_that_runs_out_halves_the_batch_for_good(self, error):
        counting = Counting()

        def small(query, items):
            numbers = counting(query, items)
            if len(items) > 3:
                raise error
            return numbers

        stage = FunctionReranker(small, batch_size=16, cache_size=0)
        np.testing.assert_array_equal(stage.score(QUERY, hits_of(16)).values, expected(16))
        assert [len(call) for call in counting.calls] == [16, 8, 4, *[2] * 8]
        counting.calls.clear()
        assert stage.score(QUERY, hits_of(16)).notes == ()
        assert [len(call) for call in counting.calls] == [2] * 8

    def test_that_does_not_hold_one_pair_is_a_failure(self):
        def never(query, items):
            raise MemoryError("out of memory")

        signal = FunctionReranker(never, "cross", batch_size=4).score(QUERY, hits_of(4))
        assert signal.notes == ("cross: scored 0 of 4, then failed: MemoryError: out of memory",)


class TestKeptScores:
    def test_are_not_asked_for_again(self):
        counting = Counting()
        stage = FunctionReranker(counting)
        first, second = stage.score(QUERY, hits_of(5)), stage.score(QUERY, hits_of(7))
        np.testing.assert_array_equal(second.values[:5], first.values)
        assert counting.calls == [[f"i{i}" for i in range(5)], ["i5", "i6"]]

    def test_are_given_with_no_time_left(self):
        stage = FunctionReranker(Counting(), "cross")
        stage.score(QUERY, hits_of(5))
        signal = stage.score(QUERY, hits_of(8), deadline=0)
        np.testing.assert_array_equal(signal.values[:5], expected(5))
        assert signal.notes == ("cross: scored 5 of 8, the time was up",)

    @pytest.mark.parametrize(
        "query",
        [Query(text="another"), 2 * QUERY, QUERY + Query(text="x"), Query(vector=[1.0, 0.0]), Query(image=b"x")],
    )
    def test_are_not_those_of_another_query(self, query):
        counting = Counting()
        stage = FunctionReranker(counting)
        for asked in (QUERY, query, query):
            stage.score(asked, hits_of(1))
        assert len(counting.calls) == 2

    @pytest.mark.parametrize(
        "other",
        [
            Item("i1", text="b"),
            Item("i0", text="a", metadata={"price": 3}),
            Item("i0", text="c"),
            Item("i0", image=b"1"),
        ],
    )
    def test_are_not_those_of_another_or_a_changed_item(self, other):
        counting = Counting()
        stage = FunctionReranker(counting)
        for item in (Item("i0", text="a"), other, other):
            stage.score(QUERY, [Hit(item, 0.5, 1)])
        assert len(counting.calls) == 2

    def test_end_with_the_bytes_of_a_file(self, tmp_path):
        path = tmp_path / "a.png"
        Image.new("RGB", (8, 8), "red").save(path)
        keys = {item_key(Item("a", path=path)), item_key(Item("a", path=path))}
        Image.new("RGB", (9, 8), "red").save(path)
        os.utime(path, ns=(1, 1))
        keys.add(item_key(Item("a", path=path)))
        path.unlink()
        keys.add(item_key(Item("a", path=path)))
        assert len(keys) == 3

    def test_end_with_the_zip_file_around_a_picture(self, tmp_path):
        whole = tmp_path / "photos.zip"
        item = Item("a", path=whole / "a.png")
        keys = set()
        for content in (b"one", b"other"):
            with zipfile.ZipFile(whole, "w") as file:
                file.writestr("a.png", content)
            keys |= {item_key(item), item_key(item)}
        assert len(keys) == 2

    def test_are_not_kept_where_the_query_may_change_unseen(self, tmp_path):
        assert query_key(Query(id="a")) is None
        assert query_key(Query(image=tmp_path / "not there.png")) is None
        counting = Counting()
        stage = FunctionReranker(counting)
        for _ in range(2):
            stage.score(Query(id="a"), hits_of(1))
        assert len(counting.calls) == 2

    def test_of_picture_queries_go_by_the_picture(self, tmp_path):
        red, blue = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
        path = tmp_path / "a.png"
        red.save(path)
        keys = [query_key(Query(image=image)) for image in (red, red.copy(), blue, path, path.read_bytes())]
        assert keys[0] == keys[1]
        assert len(set(keys)) == 4

    def test_without_a_number_are_not_kept(self):
        counting = Counting(lambda item: math.nan)
        stage = FunctionReranker(counting)
        for _ in range(2):
            stage.score(QUERY, hits_of(1))
        assert len(counting.calls) == 2

    def test_are_bounded_and_the_oldest_go_first(self):
        counting = Counting()
        stage = FunctionReranker(counting, cache_size=3)
        hits = hits_of(4)
        for one in (hits[:3], hits[:1], hits[3:]):
            stage.score(QUERY, one)
        counting.calls.clear()
        stage.score(QUERY, hits)
        assert counting.asked == ["i1"]

    def test_can_be_forgotten_or_refused(self):
        for options, forget in (({}, True), ({"cache_size": 0}, False)):
            counting = Counting()
            stage = FunctionReranker(counting, **options)
            for _ in range(2):
                stage.score(QUERY, hits_of(1))
                if forget:
                    stage.forget()
            assert len(counting.calls) == 2

    def test_hold_when_many_threads_ask(self):
        stage = FunctionReranker(Counting(), batch_size=5, cache_size=20)
        wrong = []

        def ask():
            for _ in range(20):
                values = stage.score(QUERY, hits_of(30)).values
                if not np.array_equal(values, expected(30)):
                    wrong.append(values)

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong

    @settings(deadline=None)
    @given(st.lists(st.tuples(st.binary(max_size=1), st.integers(0, 6)), max_size=40), st.integers(0, 10))
    def test_never_weigh_more_than_allowed(self, puts, limit):
        kept = Lru(limit, lambda value: value)
        for key, value in puts:
            kept.put(key, value)
            present = [kept.get(other) for other, _ in puts]
            assert sum({k: v for (k, _), v in zip(puts, present, strict=True) if v is not None}.values()) <= limit
            assert kept.get(key) in (value, None)
        kept.clear()
        assert len(kept) == 0


class TextLength(PairScorer):
    """The smallest joint model: reads one text and an item's text."""

    fingerprint = "text length"

    def can_judge(self, query, hit):
        return super().can_judge(query, hit) and hit.item.text is not None

    def _score_batch(self, query, hits):
        return [len(text_of(query)) + len(hit.item.text) for hit in hits]


class TestWhatCannotBeJudged:
    def test_is_nan_without_a_word(self):
        hits = [Hit(Item("a", text="abc"), 0.9, 1), Hit(Item("b"), 0.8, 2), Hit(Item("c", text="a"), 0.7, 3)]
        signal = TextLength("length").score(Query(text="xy"), hits)
        np.testing.assert_array_equal(signal.values, np.array([5, np.nan, 3], dtype=np.float32))
        assert signal.notes == ()

    def test_says_why_if_it_is_everything(self):
        assert TextLength("length").score(Query(id="a"), hits_of(2)).notes == (
            "length: reads only queries that are one text",
        )
        assert TextLength("length").score(QUERY, [Hit(Item("b"), 0.8, 1)]).notes == (
            "length: can read none of the hits",
        )

    def test_is_what_a_broken_judge_raises_over(self):
        class Broken(TextLength):
            def can_judge(self, query, hit):
                raise ValueError("cannot tell")

        signal = Broken("broken").score(QUERY, hits_of(2))
        assert np.isnan(signal.values).all()
        assert signal.notes == ("broken: failed: ValueError: cannot tell",)

    def test_is_a_model_that_does_not_load(self):
        class Unloadable(TextLength):
            def load(self):
                raise OSError("no such weights")

        stage = Unloadable("cross")
        stage.prepare(None)
        assert stage.score(QUERY, hits_of(2)).notes == ("cross: scored 0 of 2, then failed: OSError: no such weights",)


@pytest.mark.parametrize(
    ("query", "text"),
    [
        (Query(text="dog"), "dog"),
        (0.5 * Query(text="dog"), "dog"),
        (Query(others=(Query(text="dog"),)), "dog"),
        (-Query(text="dog"), None),
        (Query(text="  "), None),
        (Query(text="dog", image=b"x"), None),
        (Query(text="dog") + Query(text="cat"), None),
        (Query(id="a"), None),
        (Query(vector=[1.0]), None),
    ],
)
def test_only_a_query_of_one_text_has_a_text(query, text):
    assert text_of(query) == text


def test_a_picture_is_read_from_the_file_or_from_memory(tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGB", (8, 6), "red").save(path)
    assert read_picture(Item("a", path=path)).size == (8, 6)
    assert read_picture(Item("a", image=Image.new("L", (5, 4)))).mode == "RGB"
    with pytest.raises(PictureError, match="'a' has no picture"):
        read_picture(Item("a", text="only text"))


@pytest.mark.parametrize(
    "arguments", [{"name": " "}, {"name": None}, {"batch_size": 0}, {"cache_size": -1}, {"function": "no function"}]
)
def test_wrong_arguments_are_refused(arguments):
    with pytest.raises(InvalidInput):
        FunctionReranker(**{"function": Counting(), **arguments})
