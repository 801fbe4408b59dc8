"""A store keeps what it was given, says what is wrong with it, and never poses as an empty one.

This file is also the child of the tests that need another user or another process.
"""

import hashlib
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmsearch import Engine, Item, Query
from mmsearch.errors import EncoderMismatch, MMSearchError, StoreDamaged, StoreError


class ToyEncoder:
    """Vectors from a hash of the text or the pixels: equal content, equal vector, and nothing else."""

    name = "toy"
    licence = "none"
    runtime = "numpy"
    image_size = 8
    dim = 24

    def __init__(self, fingerprint: str = "toy-1") -> None:
        self.fingerprint = fingerprint

    def encode_texts(self, texts):
        return self._rows([text.encode() for text in texts])

    def encode_images(self, images):
        return self._rows([np.asarray(image).tobytes() for image in images])

    def prepare(self, image):
        return np.asarray(image.convert("RGB"))

    def split_text(self, text):
        return [text]

    def _rows(self, contents):
        rows = np.empty((len(contents), self.dim), dtype=np.float32)
        for row, content in zip(rows, contents, strict=True):
            seed = hashlib.blake2b(self.fingerprint.encode() + content, digest_size=8).digest()
            row[:] = np.random.default_rng(int.from_bytes(seed, "big")).standard_normal(self.dim)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


class StopsLater(ToyEncoder):
    """Stops with its second batch of pictures, when those of the first are stored."""

    def __init__(self, fingerprint: str) -> None:
        super().__init__(fingerprint)
        self.batches = 0

    def encode_images(self, images):
        self.batches += 1
        if self.batches > 1:
            raise KeyboardInterrupt
        return super().encode_images(images)


def paint(file: Path, number: int) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(file)
    return file


def strangers(engine: Engine, encoder: ToyEncoder) -> list[str]:
    """Items with a picture whose stored vector is not that of their picture."""
    ids, rows = engine.vectors(field="picture")
    wrong = []
    for id, row in zip(ids, rows, strict=True):
        with Image.open(engine.get(id).path) as image:
            if row @ encoder.encode_images([encoder.prepare(image)])[0] < 0.999:
                wrong.append(id)
    return wrong


@pytest.fixture
def toy():
    return ToyEncoder()


@pytest.fixture
def pictures(tmp_path):
    for number in range(6):
        paint(tmp_path / "pictures" / f"{number}.png", number)
    return tmp_path / "pictures"


@pytest.fixture
def store(tmp_path, toy, pictures):
    with Engine.open(tmp_path / "store", toy) as engine:
        engine.add_folder(pictures)
        engine.add([Item(id=f"t{n}", text=f"text {n}", metadata={"n": n}) for n in range(4)])
    return tmp_path / "store"


IDS = [f"{number}.png" for number in range(6)] + [f"t{n}" for n in range(4)]


# Each item has its own vector -----------------------------------------------------------------------------------


def test_two_pictures_that_swap_their_contents_swap_their_vectors(store, toy, pictures):
    one, other = pictures / "0.png", pictures / "1.png"
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)
    with Engine.open(store, toy) as engine:
        engine.add_folder(pictures)
        assert strangers(engine, toy) == []


def test_a_picture_that_was_edited_and_its_backup_copy_each_have_their_own_vector(store, toy, pictures):
    shutil.copy(pictures / "0.png", pictures / "0_original.png")
    paint(pictures / "0.png", 77)
    with Engine.open(store, toy) as engine:
        report = engine.add_folder(pictures)
        assert report.failed == ()
        assert strangers(engine, toy) == []


def test_a_picture_that_changed_while_reindexing_was_interrupted_has_the_vector_of_what_it_is_now(store, toy, pictures):
    for number in range(100):
        paint(pictures / f"more {number}.png", 1000 + number)
    with Engine.open(store, toy) as engine:
        engine.add_folder(pictures)
        with pytest.raises(KeyboardInterrupt):
            engine.reindex(StopsLater("toy-2"))
        assert engine.info().reindexing_to == "toy"
        paint(pictures / "0.png", 77)
        assert engine.add_folder(pictures).changed == 1
        engine.reindex(ToyEncoder("toy-2"))
        assert strangers(engine, ToyEncoder("toy-2")) == []


def test_an_abandoned_reindexing_leaves_no_vectors_behind_once_another_is_done(store, toy, pictures):
    for number in range(100):
        paint(pictures / f"more {number}.png", 1000 + number)
    with Engine.open(store, toy) as engine:
        engine.add_folder(pictures)
        with pytest.raises(KeyboardInterrupt):
            engine.reindex(StopsLater("toy-2"))
        engine.reindex(ToyEncoder("toy-3"))
        assert engine.info().reindexing_to is None
        engine.rebuild()
        assert strangers(engine, ToyEncoder("toy-3")) == []
    files = sorted(file.name for file in (store / "spaces").iterdir())
    assert [file.split("-")[1] for file in files] == ["picture", "text"], files


# What one sees ----------------------------------------------------------------------------------------------------


def test_what_was_added_is_found_although_somebody_still_goes_through_the_items(store, toy):
    with Engine.open(store, toy) as engine:
        unfinished = engine.items()
        next(unfinished)
        engine.add([Item(id="new", text="something new")])
        assert engine.search("something new", 1, field="text")[0].item.id == "new"
        assert len(list(unfinished)) >= 9


def test_items_can_be_replaced_and_removed_while_going_through_them(store, toy):
    with Engine.open(store, toy) as engine:
        for item in engine.items():
            if item.id.startswith("t"):
                assert engine.add([Item(id="last seen", text=f"last seen {item.id}")]).failed == ()
                engine.remove([item.id])
        assert sorted(item.id for item in engine.items()) == [*IDS[:6], "last seen"]
        assert engine.search("last seen t3", 1, field="text")[0].item.id == "last seen"


def test_two_engines_over_one_store_see_each_others_writes(store, toy):
    with Engine.open(store, toy) as one, Engine.open(store, toy) as other:
        assert len(other.search("text 1", 20)) == 10
        one.add([Item(id="new", text="something new")])
        assert other.search("something new", 1, field="text")[0].item.id == "new"
        other.remove(["t1"])
        assert "t1" not in [hit.item.id for hit in one.search("text 1", 20)]


def test_adding_again_and_again_does_not_use_up_file_handles(store, toy, tmp_path):
    with Engine.open(store, toy) as engine:
        engine.add([Item(id="first", path=paint(tmp_path / "first.png", 500))])
        before = len(os.listdir("/proc/self/fd"))
        for number in range(12):
            engine.add([Item(id=f"p{number}", path=paint(tmp_path / f"p{number}.png", 501 + number))])
        assert len(os.listdir("/proc/self/fd")) <= before + 4


def test_closing_lets_go_of_every_file(store, toy):
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with Engine.open(store, toy) as engine:
            engine.search("text 1")
            engine.add(["one more"])
    assert len(os.listdir("/proc/self/fd")) == before
    assert not (store / "catalog.sqlite-wal").exists()


# Encoders -----------------------------------------------------------------------------------------------------------


def test_another_encoder_of_the_same_width_is_refused_with_both_fingerprints_and_the_way_out(store):
    with pytest.raises(EncoderMismatch, match=r"toy-1(.|\n)*toy-2(.|\n)*reindex"):
        Engine.open(store, ToyEncoder("toy-2"))


def test_an_engine_opened_before_another_reindexed_does_not_mix_vectors(store, toy):
    with Engine.open(store, toy) as early, Engine.open(store, toy) as other:
        assert early.search("text 1", 1, field="text")[0].item.id == "t1"
        other.reindex(ToyEncoder("toy-2"))
        with pytest.raises(EncoderMismatch):
            early.search("text 1")
        with pytest.raises(EncoderMismatch):
            early.add(["text 9"])
        assert len(early.search(Query(id="t1"), 20)) == 10  # asks for no encoder
    with Engine.open(store, ToyEncoder("toy-2")) as engine:
        assert len(engine) == 10
        assert strangers(engine, ToyEncoder("toy-2")) == []
        assert engine.search("text 1", 1, field="text")[0].item.id == "t1"


def test_reindexing_with_the_same_encoder_changes_nothing(store, toy):
    with Engine.open(store, toy) as engine:
        before = engine.vectors()
        engine.reindex(toy)
        ids, rows = engine.vectors()
        assert ids == before[0]
        assert np.array_equal(rows, before[1])
        assert engine.info().reindexing_to is None


# Damage -------------------------------------------------------------------------------------------------------------


def test_a_catalog_that_is_missing_beside_vectors_is_refused(store, toy):
    (store / "catalog.sqlite").unlink()
    with pytest.raises(StoreDamaged, match="backup"):
        Engine.open(store, toy)
    assert len(list((store / "spaces").iterdir())) == 2


def test_an_empty_catalog_beside_vectors_is_refused(store, toy):
    os.truncate(store / "catalog.sqlite", 0)
    with pytest.raises(StoreDamaged, match="backup"):
        Engine.open(store, toy)


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9])
def test_a_catalog_that_was_cut_short_is_refused(store, toy, share):
    file = store / "catalog.sqlite"
    os.truncate(file, int(share * file.stat().st_size))
    with pytest.raises(StoreDamaged, match=r"catalog\.sqlite"), Engine.open(store, toy) as engine:
        engine.search("text 1")


@pytest.mark.parametrize("content", [b"not a database at all" * 500, b"\0" * 8192], ids=["text", "zeros"])
def test_a_catalog_that_is_something_else_is_refused(store, toy, content):
    (store / "catalog.sqlite").write_bytes(content)
    with pytest.raises(StoreDamaged, match=r"catalog\.sqlite"):
        Engine.open(store, toy)


def test_what_sqlite_notices_of_flipped_bytes_is_a_named_error_and_nothing_is_an_empty_store(store, toy):
    """300 times a few bytes: of the header, of the schema and the settings, or anywhere.

    What contradicts itself without SQLite noticing may be any error.
    """
    file = store / "catalog.sqlite"
    whole = file.read_bytes()
    chance = random.Random(3)
    raw: dict[str, int] = {}
    empty: list[int] = []
    named = 0
    for number in range(300):
        data = bytearray(whole)
        span = (100, 8192, len(data))[number % 3]
        for _ in range(4):
            data[chance.randrange(span)] ^= chance.randrange(1, 256)
        file.write_bytes(data)
        for rest in ("-wal", "-shm"):
            Path(f"{file}{rest}").unlink(missing_ok=True)
        try:
            with Engine.open(store, toy) as engine:
                if span <= 8192 and not (len(engine) and engine.search("text 1", 20)):
                    empty.append(number)
                list(engine.items())
                engine.info()
        except MMSearchError:
            named += 1
        except (sqlite3.Error, UnicodeError) as error:
            raw[f"{type(error).__name__}: {str(error)[:40]}"] = number
        except Exception:
            continue
    assert empty == []
    assert raw == {}
    assert named > 30


def test_every_way_to_ask_a_damaged_catalog_gives_a_named_error(store, toy):
    file = store / "catalog.sqlite"
    data = bytearray(file.read_bytes())
    page = int.from_bytes(data[16:18], "big")
    for start in range(page, len(data), page):  # every page but the schema's
        data[start : start + 64] = b"\xa5" * 64
    file.write_bytes(data)
    raw = {}
    for name, ask in {
        "get": lambda engine: engine.get("t1"),
        "len": lambda engine: len(engine),
        "items": lambda engine: list(engine.items()),
        "vectors": lambda engine: engine.vectors(),
        "search": lambda engine: engine.search("text 1"),
        "info": lambda engine: engine.info(),
        "add": lambda engine: engine.add(["more"]),
        "remove": lambda engine: engine.remove(["t1"]),
        "sync": lambda engine: engine.sync(),
        "rebuild": lambda engine: engine.rebuild(),
    }.items():
        try:
            with Engine.open(store, toy) as engine:
                ask(engine)
            raw[name] = "no error"
        except StoreDamaged:
            pass
        except Exception as error:
            raw[name] = f"{type(error).__name__}: {error}"
    assert raw == {}


def test_a_catalog_of_a_newer_version_is_refused_and_left_alone(store, toy):
    with sqlite3.connect(store / "catalog.sqlite") as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    before = (store / "catalog.sqlite").read_bytes()
    with pytest.raises(StoreError, match="newer mmsearch"):
        Engine.open(store, toy)
    assert (store / "catalog.sqlite").read_bytes() == before


WRITES = {
    "add": lambda engine: engine.add(["more"]),
    "remove": lambda engine: engine.remove(["t1"]),
    "rebuild": lambda engine: engine.rebuild(),
}


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("harm", ["cut", "gone"])
def test_vectors_that_are_cut_or_gone_are_damage_that_names_the_file_whatever_is_done(store, toy, write, harm):
    file = store / "spaces" / "1-text-0.vectors"
    if harm == "cut":
        os.truncate(file, file.stat().st_size - 10)
    else:
        file.unlink()
    with Engine.open(store, toy) as engine:
        with pytest.raises(StoreDamaged, match=r"1-text-0\.vectors"):
            engine.search("text 1")
        with pytest.raises(StoreDamaged, match=r"1-text-0\.vectors"):
            WRITES[write](engine)


@pytest.mark.parametrize("harm", ["cut", "gone"])
def test_adding_to_a_store_whose_vectors_are_cut_or_gone_never_fills_the_gap_with_zeros(store, toy, harm):
    file = store / "spaces" / "1-text-0.vectors"
    os.truncate(file, 10) if harm == "cut" else file.unlink()
    with Engine.open(store, toy) as engine, pytest.raises(StoreDamaged, match=r"1-text-0\.vectors"):
        engine.add(["more"])
    with Engine.open(store, toy) as engine, pytest.raises(StoreDamaged, match=r"1-text-0\.vectors"):
        engine.vectors(field="text")


def test_damaged_vectors_are_mended_by_reindexing_as_the_message_says(store, toy):
    (store / "spaces" / "1-text-0.vectors").unlink()
    with Engine.open(store, toy) as engine:
        engine.reindex(ToyEncoder("toy-2"))
        assert engine.search("text 1", 1, field="text")[0].item.id == "t1"
        assert len(engine.search("text 1", 20)) == 10


# What else lies in the folder ---------------------------------------------------------------------------------------


def test_stray_and_foreign_files_disturb_nothing(store, toy):
    spaces, indexes = store / "spaces", store / "indexes"
    (spaces / "1-text-9.vectors").write_bytes(b"of a compaction that was killed")
    (spaces / "notes.txt").write_text("mine")
    (spaces / "folder").mkdir()
    (spaces / "folder.vectors").mkdir()
    (indexes / ".1-text-0.usearch.tmp").write_bytes(b"torn")
    (indexes / "1-text-0.usearch").write_bytes(b"not an index")
    (indexes / "1-text-0.usearch.json").write_text("{}")
    (indexes / "folder" / "deep").mkdir(parents=True)
    (indexes / "link").symlink_to(spaces)
    (store / ".DS_Store").write_bytes(b"")
    (store / "unknown").write_bytes(b"")
    with Engine.open(store, toy) as engine:
        assert engine.search("text 1", 1, field="text")[0].item.id == "t1"
        assert engine.add(["more"]).added == 1
        engine.rebuild()
        assert len(engine.search("text 1", 20)) == 11
    assert not (spaces / "1-text-9.vectors").exists()
    assert (spaces / "notes.txt").read_text() == "mine"
    assert (spaces / "1-text-0.vectors").exists()


def test_a_file_is_refused_as_a_store(tmp_path, toy):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StoreError, match="folder"):
        Engine.open(tmp_path / "file", toy)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_with_other_things_in_it_is_refused_and_left_alone(pictures, toy):
    before = sorted(pictures.iterdir())
    with pytest.raises(StoreError, match="other files"):
        Engine.open(pictures, toy)
    assert sorted(pictures.iterdir()) == before


def test_opening_without_create_makes_nothing(tmp_path, toy):
    with pytest.raises(StoreError, match="no store"):
        Engine.open(tmp_path / "none", toy, create=False)
    assert not (tmp_path / "none").exists()


def test_a_store_can_be_moved_with_the_pictures_that_it_keeps(tmp_path, toy):
    picture = np.random.default_rng(1).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    with Engine.open(tmp_path / "here", toy) as engine:
        engine.add([Item(id="given", image=Image.fromarray(picture))])
    (tmp_path / "here").rename(tmp_path / "there")
    with Engine.open(tmp_path / "there", toy) as engine:
        with Image.open(engine.get("given").path) as image:
            assert np.array_equal(np.asarray(image), picture)
        assert engine.reindex(ToyEncoder("toy-2")).failed == ()


def test_kept_pictures_go_with_their_last_item(tmp_path, toy):
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 256, (8, 8, 3), dtype=np.uint8))
    with Engine.open(tmp_path / "store", toy) as engine:
        engine.add([Item(id="one", image=picture), Item(id="two", image=picture)])
        assert len(list((tmp_path / "store" / "pictures").iterdir())) == 1
        engine.remove(["one"])
        assert engine.get("two").path.exists()
        engine.remove(["two"])
        assert list((tmp_path / "store" / "pictures").iterdir()) == []


# Compaction ---------------------------------------------------------------------------------------------------------


def test_compaction_renumbers_rows_and_the_answers_stay(store, toy):
    with Engine.open(store, toy) as engine:
        engine.remove(["t0", "t2", "3.png"])
        before = [(hit.item.id, hit.score, hit.field) for hit in engine.search("text 1", 20, field="text")]
        before += [(hit.item.id, hit.score, hit.field) for hit in engine.similar("1.png", 20, field="picture")]
        assert engine.info().spaces["text"].rows == 4
        engine.rebuild()
        assert {name: (info.rows, info.live) for name, info in engine.info().spaces.items()} == {
            "picture": (5, 5), "text": (2, 2),
        }  # fmt: skip
        after = [(hit.item.id, hit.score, hit.field) for hit in engine.search("text 1", 20, field="text")]
        after += [(hit.item.id, hit.score, hit.field) for hit in engine.similar("1.png", 20, field="picture")]
        assert after == before
        engine.add([Item(id="new", text="text new")])
        assert engine.search("text new", 1, field="text")[0].item.id == "new"
    assert sorted(file.name for file in (store / "spaces").iterdir()) == ["1-picture-1.vectors", "1-text-1.vectors"]


def test_removing_most_items_gives_their_room_back(tmp_path, toy):
    with Engine.open(tmp_path / "store", toy) as engine:
        engine.add([Item(id=f"t{n}", text=f"text {n}") for n in range(2500)])
        engine.remove([f"t{n}" for n in range(2000)])
        assert engine.info().spaces["text"].rows == 500
        assert engine.search("text 2400", 1)[0].item.id == "t2400"
        engine.remove([f"t{n}" for n in range(2000, 2500)])
        assert engine.search("text 2400") == []
        engine.add([Item(id="t1", text="text 1")])
        assert [hit.item.id for hit in engine.search("text 1")] == ["t1"]


def test_a_failed_transaction_leaves_no_trace_in_the_spaces(store, toy):
    class Fails(ToyEncoder):
        def encode_texts(self, texts):
            if "bad" in texts:
                raise RuntimeError("the model broke")
            return super().encode_texts(texts)

    with Engine.open(store, Fails()) as engine:
        with pytest.raises(RuntimeError, match="the model broke"):
            engine.add([Item(id="fine", text="fine"), Item(id="bad", text="bad")])
        assert len(engine) == 10
        assert engine.add([Item(id="fine", text="fine")]).added == 1
        assert engine.search("fine", 1, field="text")[0].item.id == "fine"
        assert engine.search("text 1", 1, field="text")[0].item.id == "t1"


# Read-only ----------------------------------------------------------------------------------------------------------


def as_nobody(store: Path, *arguments: str) -> dict[str, object]:
    """Run this file as a user who may read the store and not write it."""
    for path in [store, *store.parents]:
        if path.stat().st_uid == os.getuid() and len(path.parts) > 2:
            path.chmod(path.stat().st_mode | 0o055)
    done = subprocess.run(
        [sys.executable, __file__, str(store), *arguments], capture_output=True, text=True, cwd=store.parent
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_store_that_cannot_be_written_can_be_searched(store):
    seen = as_nobody(store)
    assert seen == {"hits": 10, "first": "t1", "items": 10, "write": "StoreError", "advice": True}


def test_a_reader_who_cannot_write_sees_what_was_committed_while_the_writer_is_still_there(store, toy):
    with Engine.open(store, toy) as writer:
        writer.add([Item(id="new", text="text new")])
        seen = as_nobody(store)
    assert seen.get("items") == 11, seen


def test_a_reader_who_cannot_write_refuses_a_catalog_of_a_newer_version(store):
    with sqlite3.connect(store / "catalog.sqlite") as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    assert "newer mmsearch" in str(as_nobody(store))


def read_as_nobody(store: Path) -> dict[str, object]:
    # The interpreter and its packages may lie where only root can read: load all before dropping the rights.
    encoder = ToyEncoder()
    with tempfile.TemporaryDirectory() as folder, Engine.open(folder, encoder) as engine:
        engine.add(["warm", "up"])
        engine.search("warm")

    modes = {path: path.stat().st_mode for path in [*store.iterdir(), store]}
    if os.getuid() == 0:
        os.setgid(65534)
        os.setuid(65534)
    else:
        for path, mode in modes.items():
            path.chmod(mode & 0o555)
    try:
        with Engine.open(store, encoder) as engine:
            hits = engine.search("text 1", 20)
            seen = {
                "hits": len(hits),
                "first": engine.search("text 1", 1, field="text")[0].item.id,
                "items": len(list(engine.items())),
            }
            try:
                engine.add(["more"])
            except StoreError as error:
                seen |= {"write": type(error).__name__, "advice": "read-only" in str(error)}
        return seen
    except StoreError as error:
        return {"error": str(error)}
    finally:
        if os.getuid() != 65534:
            for path, mode in modes.items():
                path.chmod(mode)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(read_as_nobody(Path(sys.argv[1]))))
