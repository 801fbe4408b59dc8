"""The second encoder: its cosines, what is kept of them and where, deadlines, failures, and the bank."""

import math
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing

import numpy as np
import pytest

from mmsearch.bias import biases
from mmsearch.cascade import Cascade
from mmsearch.errors import InvalidInput, LicenceRefused, ModelUnavailable, StoreDamaged
from mmsearch.protocols import Reranker, Scorer
from mmsearch.rerank import second as module
from mmsearch.rerank.kept_vectors import KeptVectors
from mmsearch.rerank.second import FOLDER, SecondEncoder
from mmsearch.rerank.second_rows import text_key
from mmsearch.types import Hit, Item, Query

QUERY = Query(text="a red disc")


class Where:
    """What a stage asks of a collection, here a folder and a bank."""

    def __init__(self, folder, texts=()):
        self.folder = folder
        self.texts = texts

    def bank_texts(self):
        if isinstance(self.texts, Exception):
            raise self.texts
        return list(self.texts)


@pytest.fixture
def model(toy):
    """The second model."""
    return toy.ToyEncoder(seed=5)


@pytest.fixture
def home(tmp_path):
    made = tmp_path / "home"
    made.mkdir()
    return made


@pytest.fixture
def pictures(toy, folder):
    """Twelve hits, each of a picture of another kind."""
    files = [toy.draw(folder / f"{kind} 0.png", kind) for kind in toy.KINDS]
    return [Hit(Item(file.name, path=file), 0.9 - n / 100, n + 1) for n, file in enumerate(files)]


def texts_of(n):
    return [Hit(Item(f"t{i}", text=f"a red thing {i}"), 1 - i / 1000, i + 1, field="text") for i in range(n)]


def stage_of(model, home=None, texts=(), **options):
    stage = SecondEncoder(model, **options)
    if home is not None:
        stage.prepare(Where(home, texts))
    return stage


def unit(vector):
    return vector / np.linalg.norm(vector)


def rows_of(toy, model, hits):
    return np.stack([toy.vector_of(hit.item.path, model) for hit in hits])


def centred(values):
    return values - values.mean()


def read(model):
    return model.texts_read, model.pictures_read


def cache_file(home):
    (file,) = (home / FOLDER).iterdir()
    return file


class TestScores:
    def test_are_the_second_models_cosines_around_their_mean(self, toy, model, pictures):
        signal = stage_of(model).score(QUERY, pictures)
        cosines = rows_of(toy, model, pictures) @ model.encode_texts(["a red disc"])[0]
        np.testing.assert_allclose(signal.values, centred(cosines), atol=1e-3)
        assert (signal.notes, signal.values.dtype) == ((), np.float32)

    def test_of_a_blend_are_those_of_scaled_and_added_unit_vectors(self, toy, model, pictures):
        path = pictures[3].item.path
        query = 2 * Query(text="disc") + Query(image=path) - 0.5 * Query(text="a yellow square")
        asked = 2 * model.encode_texts(["disc"])[0] + toy.vector_of(path, model)
        asked = unit(asked - 0.5 * model.encode_texts(["a yellow square"])[0])
        expected = centred(rows_of(toy, model, pictures) @ asked)
        np.testing.assert_allclose(stage_of(model).score(query, pictures).values, expected, atol=1e-3)

    def test_of_a_picture_are_those_of_the_picture(self, toy, model, pictures):
        path = pictures[5].item.path
        expected = centred(rows_of(toy, model, pictures) @ toy.vector_of(path, model))
        for image in (path, path.read_bytes()):
            np.testing.assert_allclose(stage_of(model).score(Query(image=image), pictures).values, expected, atol=1e-3)

    def test_of_long_texts_are_those_of_the_mean_of_their_windows(self, toy, model):
        long = "red disc " * 4 + "some green square " * 4
        hits = [*texts_of(3), Hit(Item("long", text=long), 0.5, 4, field="text")]
        rows = [model.encode_texts([hit.item.text])[0] for hit in hits[:3]]
        rows.append(unit(model.encode_texts(model.split_text(long)).mean(axis=0)))
        expected = centred(np.stack(rows) @ model.encode_texts(["a red disc"])[0])
        np.testing.assert_allclose(stage_of(model).score(QUERY, hits).values, expected, atol=1e-3)

    def test_of_endless_texts_read_their_beginning(self, model):
        endless = Hit(Item("e", text="red disc " * 100_000), 1.0, 1, field="text")
        assert np.isfinite(stage_of(model).score(QUERY, [endless]).values).all()
        assert model.texts_read < 200

    def test_of_pictures_and_texts_lie_around_zero_each(self, model, pictures):
        hits = pictures + [Hit(Item(f"t{n}", text=f"text {n}"), 0.5, 13 + n, field="text") for n in range(4)]
        values = stage_of(model).score(QUERY, hits).values
        assert values[:12].mean() == pytest.approx(0, abs=1e-6)
        assert values[12:].mean() == pytest.approx(0, abs=1e-6)

    def test_are_of_the_picture_unless_all_were_found_by_their_texts(self, model, pictures):
        both = [Hit(Item(hit.item.id, hit.item.path, "some words"), hit.score, hit.rank) for hit in pictures]
        stage_of(model).score(QUERY, both)
        assert read(model) == (1, 12)
        found_by_text = [Hit(hit.item, hit.score, hit.rank, field="text") for hit in both]
        stage_of(model).score(QUERY, found_by_text)
        assert read(model) == (3, 12)  # the texts are all the same one

    def test_are_nan_for_hits_with_nothing_to_read(self, model, pictures):
        hits = [*pictures, Hit(Item("v"), 0.1, 13), Hit(Item("w", text=" \n"), 0.1, 14)]
        signal = stage_of(model).score(QUERY, hits)
        assert np.isfinite(signal.values).tolist() == 12 * [True] + 2 * [False]
        assert signal.notes == ()
        assert stage_of(model).score(QUERY, hits[12:]).skipped == "second: no hit has a picture or a text"

    @pytest.mark.parametrize("other", [Query(id="red disc 0.png"), Query(vector=[1.0] * 32)])
    def test_need_a_query_of_texts_and_pictures(self, model, pictures, other):
        signal = stage_of(model).score(QUERY + other, pictures)
        assert np.isnan(signal.values).all()
        assert "texts and pictures" in signal.skipped
        assert read(model) == (0, 0)

    def test_of_no_hits_are_none(self, model):
        assert stage_of(model).score(QUERY, []).values.shape == (0,)

    def test_come_best_first_whatever_the_order_of_the_hits(self, toy, pictures):
        seen = []
        model = toy.ToyEncoder(5, lambda kind, inputs, rows: seen.extend(inputs) if kind == "text" else None)
        hits = texts_of(20)
        forth = stage_of(model).score(QUERY, hits).values
        back = stage_of(model).score(QUERY, hits[::-1]).values
        np.testing.assert_array_equal(forth, back[::-1])
        assert seen[1:21] == seen[22:] == [hit.item.text for hit in hits]

    def test_are_the_same_from_many_threads(self, model, pictures, home):
        stage, alone = stage_of(model, home), stage_of(model).score(QUERY, pictures).values
        seen, start = [], threading.Barrier(6)

        def ask():
            start.wait()
            seen.extend(stage.score(QUERY, pictures).values for _ in range(5))

        threads = [threading.Thread(target=ask) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(seen) == 30
        for values in seen:
            np.testing.assert_array_equal(values, alone)

    def test_make_a_stage(self, model):
        stage = stage_of(model)
        assert isinstance(stage, Scorer)
        assert isinstance(stage, Reranker)
        assert (stage.name, stage.needs, stage.weight, stage.n) == ("second", (), 1.0, 100)

    @pytest.mark.parametrize("bad", ["", " ", None, 3, object()])
    def test_need_an_encoder(self, bad):
        with pytest.raises(InvalidInput, match="expected an encoder"):
            SecondEncoder(bad)


class TestKept:
    def test_in_memory_a_second_search_encodes_nothing(self, model, pictures):
        stage = stage_of(model)
        first = stage.score(QUERY, pictures).values
        before = read(model)
        np.testing.assert_array_equal(stage.score(QUERY, pictures).values, first)
        assert read(model) == before == (1, 12)

    def test_on_disk_a_new_stage_encodes_the_query_alone(self, toy, model, pictures, home):
        hits = pictures + [Hit(hit.item, 0.1, 12 + hit.rank, field="text") for hit in texts_of(3)]
        first = stage_of(model, home).score(QUERY, hits).values
        fresh = toy.ToyEncoder(seed=5)
        np.testing.assert_array_equal(stage_of(fresh, home).score(QUERY, hits).values, first)
        assert read(fresh) == (1, 0)

    def test_on_disk_by_the_models_fingerprint(self, toy, model, pictures, home):
        stage_of(model, home).score(QUERY, pictures)
        other = toy.ToyEncoder(seed=6)
        stage_of(other, home).score(QUERY, pictures)
        assert other.pictures_read == 12
        assert len(list((home / FOLDER).glob("*.sqlite"))) == 2

    def test_with_nothing_in_memory_all_comes_from_the_disk(self, model, pictures, home):
        stage = stage_of(model, home, cache_size=0)
        first = stage.score(QUERY, pictures).values
        np.testing.assert_array_equal(stage.score(QUERY, pictures).values, first)
        assert model.pictures_read == 12

    def test_a_changed_picture_is_read_again(self, toy, model, pictures, home):
        stage = stage_of(model, home)
        stage.score(QUERY, pictures)
        toy.draw(pictures[2].item.path, "blue square", 7)
        again = stage.score(QUERY, pictures).values
        assert model.pictures_read == 13
        cosines = rows_of(toy, model, pictures) @ model.encode_texts(["a red disc"])[0]
        np.testing.assert_allclose(again, centred(cosines), atol=1e-3)

    def test_a_changed_query_picture_is_read_again(self, toy, model, pictures):
        stage, path = stage_of(model), pictures[0].item.path
        first = stage.score(Query(image=path), pictures[1:]).values
        toy.draw(path, "blue square", 9)
        assert not np.allclose(stage.score(Query(image=path), pictures[1:]).values, first, atol=0.01)

    def test_in_a_store_of_an_engine(self, toy, model, open_engine, toy_folder):
        engine = open_engine()
        engine.add_folder(toy_folder)
        first = engine.search("a red disc", 20, rerank=[SecondEncoder(model)])
        assert 0 < model.pictures_read <= 60
        assert (engine.path / FOLDER).is_dir()
        engine.close()
        fresh = toy.ToyEncoder(seed=5)
        again = open_engine().search("a red disc", 20, rerank=[SecondEncoder(fresh)])
        assert read(fresh) == (1, 0)
        assert [(hit.item.id, hit.score) for hit in again] == [(hit.item.id, hit.score) for hit in first]
        assert all("second" in hit.scores and not hit.notes for hit in first)

    def test_nothing_unusable(self, toy, pictures, home):
        def spoil(kind, inputs, rows):
            if kind == "picture":
                rows[0], rows[1, 3], rows[2] = np.nan, np.inf, 0

        signal = stage_of(toy.ToyEncoder(5, spoil), home).score(QUERY, pictures)
        assert int(np.isnan(signal.values).sum()) == 6  # three of each batch of 8 and 4
        assert signal.notes == ("second: the model gave no usable vector for 6 of 12 hits",)
        healthy = toy.ToyEncoder(seed=5)
        assert np.isfinite(stage_of(healthy, home).score(QUERY, pictures).values).all()
        assert healthy.pictures_read == 6

    def test_nothing_in_a_store_that_is_gone(self, model, pictures, home):
        stage = stage_of(model, home)
        shutil.rmtree(home)
        assert np.isfinite(stage.score(QUERY, pictures).values).all()
        assert not home.exists()

    def test_nothing_where_nothing_can_be_written(self, model, pictures, home):
        (home / FOLDER).write_text("in the way")
        signal = stage_of(model, home).score(QUERY, pictures)
        assert np.isfinite(signal.values).all()
        assert signal.notes == ()


class TestDamage:
    @pytest.fixture
    def first(self, model, pictures, home):
        return stage_of(model, home).score(QUERY, pictures).values

    def check(self, toy, pictures, home, first, n_read):
        """Assert that so many pictures are read again, and then none."""
        for expected in (n_read, 0):
            fresh = toy.ToyEncoder(seed=5)
            signal = stage_of(fresh, home).score(QUERY, pictures)
            np.testing.assert_array_equal(signal.values, first)
            assert (fresh.pictures_read, signal.notes) == (expected, ())

    @pytest.mark.parametrize("data", [b"no database at all" * 500, b"", b"SQLite format 3\0" + bytes(8000)])
    def test_of_the_whole_file_heals(self, toy, pictures, home, first, data):
        cache_file(home).write_bytes(data)
        self.check(toy, pictures, home, first, 12)

    def test_of_its_pages_heals(self, toy, pictures, home, first):
        file = cache_file(home)
        data = bytearray(file.read_bytes())
        data[4096:] = os.urandom(len(data) - 4096)
        file.write_bytes(data)
        self.check(toy, pictures, home, first, 12)

    @pytest.mark.parametrize(
        "change",
        [
            "vector = zeroblob(68)",
            "vector = x'00'",
            "vector = 'text'",
            "vector = 7",
            "vector = CAST(zeroblob(10) || substr(vector, 11) AS BLOB)",
            "vector = zeroblob(10) || substr(vector, 11)",  # a text, and no UTF-8
            "vector = (SELECT vector FROM vectors ORDER BY content DESC LIMIT 1)",
        ],
    )
    def test_of_a_row_heals(self, toy, pictures, home, first, change):
        with closing(sqlite3.connect(cache_file(home))) as db, db:
            db.execute(f"UPDATE vectors SET {change} WHERE content = (SELECT min(content) FROM vectors)")
        self.check(toy, pictures, home, first, 1)

    @pytest.mark.parametrize(
        "table", ["vectors (content)", "vectors (a, b)", "vectors (content, vector, more)", "others (content)"]
    )
    def test_of_the_table_heals(self, toy, pictures, home, first, table):
        file = cache_file(home)
        file.unlink()
        with closing(sqlite3.connect(file)) as db, db:
            db.execute(f"CREATE TABLE {table}")
        self.check(toy, pictures, home, first, 12)

    def test_a_folder_in_the_files_place_is_left_alone(self, toy, model, pictures, home, first):
        file = cache_file(home)
        file.unlink()
        file.mkdir()
        assert np.isfinite(stage_of(toy.ToyEncoder(5), home).score(QUERY, pictures).values).all()
        assert file.is_dir()

    def test_a_file_that_another_process_is_writing_is_passed_by(self, toy, pictures, home, first):
        with closing(sqlite3.connect(cache_file(home), isolation_level=None)) as db:
            db.execute("BEGIN EXCLUSIVE")
            fresh = toy.ToyEncoder(seed=5)
            start = time.perf_counter()
            signal = stage_of(fresh, home).score(QUERY, pictures)
            assert time.perf_counter() - start < 5
            db.execute("ROLLBACK")
        np.testing.assert_array_equal(signal.values, first)
        assert fresh.pictures_read == 12
        self.check(toy, pictures, home, first, 0)


AS_NOBODY = """
import os, sys
from pathlib import Path
import numpy as np
from mmsearch.rerank.kept_vectors import KeptVectors
file = Path(sys.argv[1])
KeptVectors(file.parent.parent / "warm" / "up.sqlite", 4).put({b"k": np.eye(4, dtype=np.float16)[0]})
if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
else:
    file.parent.chmod(0o555)
    file.chmod(0o444)
kept = KeptVectors(file, 4)
assert not os.access(file.parent, os.W_OK) and not os.access(file, os.W_OK)
found = kept.get([b"a", b"b"])
assert list(found) == [b"a"], found
kept.put({b"b": found[b"a"]})
assert list(kept.get([b"a", b"b"])) == [b"a"]
"""


class TestKeptVectors:
    def test_give_back_what_was_put(self, tmp_path):
        rows = np.eye(700, dtype=np.float16)
        mine = {bytes([n // 256, n % 256]): row for n, row in enumerate(rows)}
        kept = KeptVectors(tmp_path / "new" / "k.sqlite", 700)
        assert kept.get(list(mine)) == {}
        kept.put(mine)
        found = kept.get([*mine, b"unknown"])
        assert found.keys() == mine.keys()
        assert all(np.array_equal(found[key], mine[key]) for key in mine)
        assert KeptVectors(kept.file, 699).get(list(mine)) == {}
        assert kept.get([]) == {}

    def test_leave_no_file_open_or_behind(self, tmp_path):
        kept = KeptVectors(tmp_path / "odd #?%20 ü" / "k.sqlite", 4)
        kept.file.parent.mkdir()
        kept.put({b"k": np.eye(4, dtype=np.float16)[1]})
        assert list(kept.get([b"k"])) == [b"k"]
        assert list(kept.file.parent.iterdir()) == [kept.file]

    @pytest.mark.skipif(not hasattr(os, "setuid"), reason="permissions are POSIX's")
    def test_in_a_folder_that_cannot_be_written_are_read(self, tmp_path):
        file = tmp_path / "seconds" / "k.sqlite"
        KeptVectors(file, 4).put({b"a": np.eye(4, dtype=np.float16)[0]})
        for path in [file.parent, *file.parent.parents]:
            if path.stat().st_uid == os.getuid() and len(path.parts) > 2:
                path.chmod(path.stat().st_mode | 0o055)
        done = subprocess.run([sys.executable, "-c", AS_NOBODY, file], capture_output=True, text=True)
        file.parent.chmod(0o755)
        assert done.returncode == 0, done.stderr


class TestDeadlines:
    def test_that_have_passed_leave_all_nan_and_a_note(self, model, pictures, home):
        signal = stage_of(model, home).score(QUERY, pictures, deadline=0)
        assert np.isnan(signal.values).all()
        assert signal.notes == ("second: scored 0 of 12, the time was up",)
        assert read(model) == (0, 0)

    def test_that_have_passed_leave_what_is_kept(self, model, pictures):
        stage = stage_of(model)
        full = stage.score(QUERY, pictures).values
        signal = stage.score(QUERY, pictures, deadline=0)
        np.testing.assert_array_equal(signal.values, full)
        assert signal.notes == ()

    def test_that_have_passed_leave_what_is_on_the_disk(self, model, pictures, home):
        stage_of(model, home).score(QUERY, pictures[:7])
        stage = stage_of(model, home)
        stage.score(QUERY, texts_of(1))
        signal = stage.score(QUERY, pictures, deadline=0)
        assert np.isfinite(signal.values).tolist() == 7 * [True] + 5 * [False]
        assert signal.notes == ("second: scored 7 of 12, the time was up",)

    def test_stop_between_batches_and_keep_the_best(self, toy, home):
        model = toy.ToyEncoder(5, lambda kind, inputs, rows: time.sleep(0.01 * len(inputs)))
        stage = stage_of(model, home)
        signal = stage.score(QUERY, texts_of(200), time.perf_counter() + 0.3)
        done = int(np.isfinite(signal.values).sum())
        assert 0 < done < 200
        assert np.isfinite(signal.values[:done]).all()
        assert signal.notes == (f"second: scored {done} of 200, the time was up",)
        model.hook = None
        before = model.texts_read
        assert np.isfinite(stage.score(QUERY, texts_of(200)).values).all()
        assert model.texts_read - before == 200 - done

    def test_begin_no_batch_that_would_end_late(self, toy):
        model = toy.ToyEncoder(5, lambda kind, inputs, rows: time.sleep(0.02 * len(inputs)))
        end = time.perf_counter() + 0.4
        stage_of(model).score(QUERY, texts_of(200), end)
        assert time.perf_counter() < end + 0.15

    def test_do_not_keep_a_slow_model_from_being_measured_again(self, toy):
        model = toy.ToyEncoder(5, lambda kind, inputs, rows: time.sleep(0.2 * len(inputs)))
        stage = stage_of(model)
        stage.score(QUERY, texts_of(1))
        model.hook = None
        signal = stage.score(QUERY, texts_of(30), time.perf_counter() + 0.15)
        assert np.isfinite(signal.values).all()

    def test_that_are_far_away_change_nothing(self, model, pictures):
        signal = stage_of(model).score(QUERY, pictures, time.perf_counter() + 60)
        np.testing.assert_array_equal(signal.values, stage_of(model).score(QUERY, pictures).values)
        assert signal.notes == ()


class TestFailures:
    def test_to_read_a_picture_leave_it_nan(self, model, pictures, home):
        pictures[1].item.path.write_bytes(b"no picture")
        pictures[4].item.path.unlink()
        signal = stage_of(model, home).score(QUERY, pictures)
        assert np.flatnonzero(np.isnan(signal.values)).tolist() == [1, 4]
        (note,) = signal.notes
        assert note.startswith(f"second: 2 of 12 pictures cannot be read, the first: {pictures[1].item.path}: ")

    def test_of_the_model_halfway_keep_what_was_scored(self, toy, model, pictures, home):
        def fail(kind, inputs, rows):
            if kind == "picture" and len(inputs) == 4:
                raise RuntimeError("the model\n broke" + "!" * 1000)

        signal = stage_of(toy.ToyEncoder(5, fail), home).score(QUERY, pictures)
        assert np.isfinite(signal.values).tolist() == 8 * [True] + 4 * [False]
        (note,) = signal.notes
        assert note.startswith("second: scored 8 of 12, then failed: RuntimeError: the model broke!")
        assert len(note) < 400
        stage_of(model, home).score(QUERY, pictures)
        assert model.pictures_read == 4

    def test_of_the_model_leave_the_order_of_a_search(self, toy, engine, toy_folder):
        def fail(kind, inputs, rows):
            raise RuntimeError("no")

        engine.add_folder(toy_folder)
        plain = engine.search("a red disc", 20, field="picture", rerank=False)
        hits = engine.search("a red disc", 20, field="picture", rerank=[SecondEncoder(toy.ToyEncoder(5, fail))])
        assert toy.ids(hits) == toy.ids(plain)
        assert [hit.score for hit in hits] == pytest.approx([hit.score for hit in plain], abs=1e-5)
        assert hits[0].notes == ("second: scored 0 of 60, then failed: RuntimeError: no",)

    def test_of_memory_halve_the_batch(self, toy, pictures):
        sizes = []

        def fail(kind, inputs, rows):
            if kind == "picture":
                sizes.append(len(inputs))
                if len(inputs) > 3:
                    raise MemoryError

        signal = stage_of(toy.ToyEncoder(5, fail)).score(QUERY, pictures)
        assert np.isfinite(signal.values).all()
        assert signal.notes == ()
        assert sizes == [8, 4, 2, 2, 2, 2, 2, 2]

    def test_of_memory_for_one_hit_are_told(self, toy, pictures):
        def fail(kind, inputs, rows):
            if kind == "picture":
                raise MemoryError("out")

        signal = stage_of(toy.ToyEncoder(5, fail)).score(QUERY, pictures)
        assert signal.notes == ("second: scored 0 of 12, then failed: MemoryError: out",)

    def test_of_the_width_are_told(self, toy, pictures):
        model = toy.ToyEncoder(5)
        model.dim = 31
        (note,) = stage_of(model).score(QUERY, pictures).notes
        assert "expected (1, 31) vectors of the encoder 'toy', got (1, 32)" in note

    @pytest.mark.parametrize("query", [Query(image=b"no picture"), Query(text="disc") - Query(text="disc"), Query()])
    def test_of_the_query_are_told(self, model, pictures, query):
        signal = stage_of(model).score(query, pictures)
        assert np.isnan(signal.values).all()
        (note,) = signal.notes
        assert note.startswith("second: scored 0 of 12, then failed: ")

    @pytest.mark.parametrize("error", [ModelUnavailable("there is none"), OSError("there is none")])
    def test_to_load_are_told_and_tried_again_after_a_minute(self, monkeypatch, model, pictures, home, error):
        calls = []

        def load(name):
            calls.append(name)
            if len(calls) == 1:
                raise error
            return model

        monkeypatch.setattr(module, "load_encoder", load)
        stage = stage_of("some/model", home)
        for _ in range(2):
            signal = stage.score(QUERY, pictures)
            assert np.isnan(signal.values).all()
            (note,) = signal.notes
            assert note.startswith("second: scored 0 of 12, then failed: ModelUnavailable: ")
            assert "there is none" in note
        assert calls == ["some/model"]
        now = time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: now + 61)
        assert np.isfinite(stage.score(QUERY, pictures).values).all()
        stage.prepare(Where(home))
        assert calls == ["some/model"] * 2

    def test_to_load_leave_a_search_as_it_was(self, monkeypatch, toy, engine, toy_folder):
        def load(name):
            raise LicenceRefused(f"the weights of {name!r} are for research only")

        monkeypatch.setattr(module, "load_encoder", load)
        engine.add_folder(toy_folder)
        plain = engine.search("a red disc", 5, field="picture", rerank=False)
        hits = engine.search("a red disc", 5, field="picture", rerank=[SecondEncoder("some/model")])
        assert toy.ids(hits) == toy.ids(plain)
        note = "second: scored 0 of 60, then failed: LicenceRefused: the weights of 'some/model' are for research only"
        assert hits[0].notes == (note,)


BANK = [f"{word} {n}" for word in ("red", "a green square", "disc and triangle", "weather") for n in range(100)]


class TestBank:
    def expected(self, toy, model, pictures, texts):
        rows = rows_of(toy, model, pictures)
        bank = np.stack([unit(row) for row in model.encode_texts(texts)])
        return centred(rows @ model.encode_texts(["a red disc"])[0] - biases(rows, bank))

    def test_takes_the_bias_off(self, toy, model, pictures, home):
        signal = stage_of(model, home, BANK).score(QUERY, pictures)
        np.testing.assert_allclose(signal.values, self.expected(toy, model, pictures, BANK), atol=2e-3)
        plain = stage_of(model, home, BANK, corrected=False).score(QUERY, pictures)
        assert np.abs(plain.values - signal.values).max() > 0.01
        assert signal.notes == plain.notes == ()

    def test_of_a_store_is_read_once(self, toy, model, open_engine, toy_folder):
        engine = open_engine()
        engine.add_folder(toy_folder)
        engine.set_bank(BANK)
        stage = SecondEncoder(model)
        hits = engine.search("a red disc", 60, field="picture", rerank=[stage])
        rows = {hit.item.id: toy.vector_of(hit.item.path, toy.ToyEncoder(5)) for hit in hits}
        found = np.array([hit.scores["second"] for hit in hits])
        matrix = np.stack([rows[hit.item.id] for hit in hits])
        bank = toy.ToyEncoder(5).encode_texts(BANK)
        asked = toy.ToyEncoder(5).encode_texts(["a red disc"])[0]
        np.testing.assert_allclose(found, centred(matrix @ asked - biases(matrix, bank)), atol=2e-3)
        assert model.texts_read == len(BANK) + 1
        engine.search("a green disc", 60, field="picture", rerank=[stage])
        assert model.texts_read == len(BANK) + 2
        engine.close()
        fresh = toy.ToyEncoder(seed=5)
        open_engine().search("a red disc", 60, field="picture", rerank=[SecondEncoder(fresh)], budget_ms=60_000)
        assert fresh.texts_read == 1

    def test_is_not_read_under_a_deadline(self, model, pictures, home):
        stage = stage_of(model, home, BANK)
        hurried = stage.score(QUERY, pictures, time.perf_counter() + 60)
        assert hurried.notes == (
            "second: not corrected, this model has not read the bank yet: search once without a budget",
        )
        np.testing.assert_array_equal(hurried.values, stage_of(model).score(QUERY, pictures).values)
        calm = stage.score(QUERY, pictures)
        assert calm.notes == ()
        np.testing.assert_array_equal(stage.score(QUERY, pictures, time.perf_counter() + 60).values, calm.values)

    def test_half_read_is_read_on(self, toy, pictures, home):
        left = [3]

        def fail(kind, inputs, rows):
            is_bank = kind == "text" and len(inputs) > 1
            left[0] -= is_bank
            if is_bank and left[0] == 0:
                raise RuntimeError("power cut")

        signal = stage_of(toy.ToyEncoder(5, fail), home, BANK).score(QUERY, pictures)
        assert signal.notes == ("second: not corrected, the bank cannot be read: RuntimeError: power cut",)
        assert np.isfinite(signal.values).all()
        fresh = toy.ToyEncoder(seed=5)
        stage_of(fresh, home, BANK).score(QUERY, pictures)
        assert fresh.texts_read == 1 + len(BANK) - 2 * 64

    def test_that_changed_is_read_anew(self, toy, model, pictures, home):
        stage = stage_of(model, home, BANK)
        first = stage.score(QUERY, pictures).values
        stage.prepare(Where(home, BANK[:150]))
        second = stage.score(QUERY, pictures).values
        assert not np.allclose(first, second, atol=1e-3)
        np.testing.assert_allclose(second, self.expected(toy, model, pictures, BANK[:150]), atol=2e-3)
        stage.prepare(Where(home))
        np.testing.assert_array_equal(
            stage.score(QUERY, pictures).values, stage_of(model).score(QUERY, pictures).values
        )

    def test_is_for_queries_that_are_one_text(self, model, pictures, home):
        blend = QUERY + Query(text="square")
        corrected = stage_of(model, home, BANK).score(blend, pictures).values
        np.testing.assert_array_equal(corrected, stage_of(model).score(blend, pictures).values)

    def test_that_is_damaged_corrects_nothing(self, model, pictures, home):
        signal = stage_of(model, home, StoreDamaged("the bank is gone")).score(QUERY, pictures)
        assert signal.notes == ("second: not corrected, the bank cannot be read: StoreDamaged: the bank is gone",)
        np.testing.assert_array_equal(signal.values, stage_of(model).score(QUERY, pictures).values)

    def test_counts_the_texts_that_the_model_can_read(self, toy, pictures, home):
        def spoil(kind, inputs, rows):
            if kind == "text" and len(inputs) > 1:
                rows[[text.startswith("red") for text in inputs]] = np.nan

        signal = stage_of(toy.ToyEncoder(5, spoil), home, BANK).score(QUERY, pictures)
        expected = self.expected(toy, toy.ToyEncoder(5), pictures, BANK[100:])
        np.testing.assert_allclose(signal.values, expected, atol=2e-3)
        assert not KeptVectors(cache_file(home), toy.DIM).get([text_key("red 1")])

    def test_without_a_readable_text_corrects_nothing(self, toy, pictures, home):
        def spoil(kind, inputs, rows):
            if kind == "text" and len(inputs) > 1:
                rows[:] = np.nan

        (note,) = stage_of(toy.ToyEncoder(5, spoil), home, BANK).score(QUERY, pictures).notes
        assert "no usable vector for any of its texts" in note

    def test_is_read_once_by_many_threads(self, model, pictures, home):
        stage = stage_of(model, home, BANK)
        seen, start = [], threading.Barrier(4)

        def ask():
            start.wait()
            seen.append(stage.score(QUERY, pictures).values)

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(seen) == 4
        assert len(BANK) < model.texts_read <= len(BANK) + 4
        for values in seen:
            np.testing.assert_allclose(values, seen[0], atol=1e-6)


def test_another_opinion_changes_the_order(toy, engine, toy_folder):
    def blind_to_shapes(kind, inputs, rows):
        rows[:, 5 + 4 : 5 + 7] = 0

    engine.add_folder(toy_folder)
    model = toy.ToyEncoder(5, blind_to_shapes)
    plain = engine.search("a red disc", 60, field="picture", rerank=False)
    hits = engine.search("a red disc", 60, field="picture", rerank=Cascade([SecondEncoder(model)]))
    assert sorted(toy.ids(hits)) == sorted(toy.ids(plain))
    assert toy.ids(hits) != toy.ids(plain)
    assert all(math.isfinite(hit.score) for hit in hits)
