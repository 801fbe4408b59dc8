"""Kill -9 and full disks: what was acknowledged is there, once, with its own vector; and the next run completes.

This file is also the child: run as a script, it does one piece of work and is killed by itself or by its parent.
"""

import hashlib
import io
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmsearch import Engine, Item, ingest, reencode, searchspace
from mmsearch.errors import StoreError
from mmsearch.store import Store

N_PICTURES = 8


class ToyEncoder:
    """Vectors from a hash of the text or the pixels: equal content, equal vector, and nothing else."""

    name = "toy"
    licence = "none"
    runtime = "numpy"
    image_size = 8

    def __init__(self, fingerprint: str = "toy-1", dim: int = 24, seconds: float = 0.0) -> None:
        self.fingerprint, self.dim, self.seconds = fingerprint, dim, seconds

    def encode_texts(self, texts):
        return self._rows([text.encode() for text in texts])

    def encode_images(self, images):
        time.sleep(self.seconds * len(images))
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


def paint(folder: Path, n: int, start: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(start, start + n):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:04}.png")


def own_vector(encoder: ToyEncoder, item: Item) -> np.ndarray:
    if item.path is None:
        return encoder.encode_texts([item.text])[0]
    with Image.open(item.path) as image:
        return encoder.encode_images([encoder.prepare(image)])[0]


def check(engine: Engine, expected: set[str], fingerprint: str = "toy-1") -> None:
    """Exactly these items, each found by its own vector; every checksum holds."""
    items = list(engine.items())
    assert sorted(item.id for item in items) == sorted(expected)
    assert engine.info().fingerprint == (fingerprint if items else engine.info().fingerprint)
    encoder = ToyEncoder(fingerprint)
    for field in ("picture", "text"):
        ids = [item.id for item in items if (item.path is None) == (field == "text")]
        found, rows = engine.vectors(ids, field=field) if ids else ([], [])
        by_id = {item.id: item for item in items}
        for id, row in zip(found, rows, strict=True):
            assert row @ own_vector(encoder, by_id[id]) > 0.999, f"{id} has the vector of another"
    assert damage(engine.path) == {}


def damage(path: Path) -> dict[str, list[int]]:
    """Blocks of vectors files whose checksum does not hold."""
    store = Store(path, create=False)
    try:
        blocks = {
            record.file: store.file(record).damaged_blocks(record.rows, store.book.block_crcs(record.space))
            for record in store.catalog.spaces()
        }
        return {file: numbers for file, numbers in blocks.items() if numbers}
    finally:
        store.close()


# The child ---------------------------------------------------------------------------------------------------------


def open_toy(store: Path, **options) -> Engine:
    return Engine.open(store, ToyEncoder(**options))


def do_ingest(store: Path, pictures: Path, acknowledge: Callable[[int], None], seconds: float = 0.0) -> None:
    with open_toy(store, seconds=seconds) as engine:
        engine.add_folder(pictures, progress=lambda now: acknowledge(now.done) if now.stage == "encode" else None)


def do_create(store: Path, pictures: Path, acknowledge: Callable[[int], None]) -> None:
    open_toy(store).close()
    acknowledge(1)


def do_remove(store: Path, pictures: Path, acknowledge: Callable[[int], None]) -> None:
    with open_toy(store) as engine:
        engine.remove(REMOVED)
        acknowledge(1)


def do_rebuild(store: Path, pictures: Path, acknowledge: Callable[[int], None]) -> None:
    with open_toy(store) as engine:
        engine.rebuild()
        acknowledge(1)


def do_reindex(store: Path, pictures: Path, acknowledge: Callable[[int], None]) -> None:
    with Engine.open(store) as engine:
        engine.reindex(ToyEncoder("toy-2"))
        acknowledge(1)


def do_index(store: Path, pictures: Path, acknowledge: Callable[[int], None]) -> None:
    searchspace.CROSSOVER = 10
    do_rebuild(store, pictures, acknowledge)


REMOVED = ["0001.png", "0004.png", "t1"]
WORK = {
    "create": do_create, "ingest": do_ingest, "remove": do_remove, "rebuild": do_rebuild, "reindex": do_reindex,
    "index": do_index,
}  # fmt: skip
FATAL = {
    "posix": {"fsync", "replace", "unlink", "mkdir"},
    "file": {"write", "truncate"},
    "sqlite": {"execute", "executemany"},
}


def tell(descriptor: int, *values: object) -> None:
    os.write(descriptor, (" ".join(map(str, values)) + "\n").encode())


def kill_at(step: int) -> None:
    """Die by SIGKILL before or after the step-th write, fsync, rename, unlink or SQL statement of this thread."""
    passed = count()

    def watch(frame, event, function):
        if event in ("c_call", "c_return"):
            owner = getattr(function, "__self__", None)
            kind = (
                "posix" if getattr(owner, "__name__", "") == "posix"
                else "sqlite" if isinstance(owner, sqlite3.Connection | sqlite3.Cursor)
                else "file" if isinstance(owner, io.IOBase)
                else ""
            )  # fmt: skip
            if function.__name__ in FATAL.get(kind, ()) and next(passed) == step:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(watch)


def step_through(work: str, base: Path, pictures: Path, out: Path, stride: int) -> None:
    """Do the work in forked children, killed at every stride-th step, each with a copy of the store of its own."""
    for step in count(0, stride):
        store = out / str(step)
        if base.exists():
            shutil.copytree(base, store)
        child = os.fork()
        if child == 0:
            ingest.BATCH = reencode.BATCH = 3
            acknowledged = os.open(out / f"{step}.done", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
            kill_at(step)
            WORK[work](store, pictures, partial(tell, acknowledged))
            sys.setprofile(None)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        tell(1, step, os.waitstatus_to_exitcode(status))
        if status != signal.SIGKILL:
            return


def ingest_slowly(store: Path, pictures: Path) -> None:
    ingest.BATCH = 4
    do_ingest(store, pictures, partial(tell, 1), seconds=0.002)


def fill_the_disk(store: Path, pictures: Path, dim: int, limit: int) -> None:
    """Add while no file may grow beyond the limit; then lift it and go on with the same engine."""
    ingest.BATCH = 16
    with open_toy(store, dim=dim) as engine:
        before = {item.id for item in engine.items()}
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        try:
            engine.add_folder(pictures)
            failure = "none"
        except OSError as error:
            failure = f"{type(error).__name__}: {error}"
        readable = before <= {item.id for item in engine.items()} and len(engine.search("anything", 3)) == 3
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        report = engine.add_folder(pictures)
        tell(1, failure.splitlines()[0])
        tell(1, readable, len(report.failed), len(engine))


# The tests ---------------------------------------------------------------------------------------------------------


def child(*arguments: object) -> list[str]:
    return [sys.executable, __file__, *map(str, arguments)]


def stepped(work: str, base: Path, pictures: Path, out: Path, stride: int) -> Iterator[tuple[Path, list[int]]]:
    """The stores that were left behind, each with what had been acknowledged; the last was not killed."""
    out.mkdir()
    with subprocess.Popen(
        child("step", work, base, pictures, out, stride), stdout=subprocess.PIPE, text=True
    ) as process:
        code = None
        for line in process.stdout:
            step, code = map(int, line.split())
            yield out / str(step), [int(done) for done in (out / f"{step}.done").read_text().split()]
            shutil.rmtree(out / str(step), ignore_errors=True)
    assert (process.returncode, code) == (0, 0)


@pytest.fixture
def pictures(tmp_path):
    paint(tmp_path / "pictures", N_PICTURES)
    return tmp_path / "pictures"


@pytest.fixture
def base(tmp_path, pictures):
    """A store with pictures and texts, and rows that nobody owns any more."""
    with open_toy(tmp_path / "base") as engine:
        engine.add_folder(pictures)
        engine.add([Item(id=f"t{n}", text=f"text {n}") for n in range(6)])
        engine.remove(["t5"])
    return tmp_path / "base"


NAMES = {f"{number:04}.png" for number in range(N_PICTURES)}
ALL = NAMES | {f"t{n}" for n in range(5)}


def test_killed_at_any_step_of_making_a_store_it_can_be_made(tmp_path, pictures):
    refused = {}
    for store, _ in stepped("create", tmp_path / "none", pictures, tmp_path / "out", 2):
        try:
            with open_toy(store) as engine:
                assert len(engine) == 0
        except StoreError as error:
            refused[store.name] = str(error)
    assert refused == {}


def test_killed_at_any_step_of_ingest_everything_acknowledged_is_there_once_and_the_next_run_completes(
    tmp_path, pictures
):
    open_toy(tmp_path / "empty").close()
    stores = 0
    for store, done in stepped("ingest", tmp_path / "empty", pictures, tmp_path / "out", 17):
        stores += 1
        with open_toy(store) as engine:
            stored = {item.id for item in engine.items()}
            assert sorted(NAMES)[: max(done, default=0)] == sorted(stored)[: max(done, default=0)]
            check(engine, stored)
            report = engine.add_folder(pictures)
            assert (report.added, report.unchanged, report.failed) == (len(NAMES - stored), len(stored), ())
            check(engine, NAMES)
            assert sorted(file.name for file in (store / "spaces").iterdir()) == ["1-picture-0.vectors"]
    assert stores > 15


def test_killed_at_any_step_of_remove_all_or_none_are_gone(tmp_path, base, pictures):
    outcomes = set()
    for store, done in stepped("remove", base, pictures, tmp_path / "out", 3):
        with open_toy(store) as engine:
            stored = {item.id for item in engine.items()}
            assert stored == ALL - set(REMOVED) if done else stored in (ALL, ALL - set(REMOVED))
            check(engine, stored)
            outcomes.add(len(stored))
            engine.remove(set(REMOVED) & stored)
            check(engine, ALL - set(REMOVED))
    assert outcomes == {len(ALL), len(ALL) - 3}


def test_killed_at_any_step_of_compaction_every_item_keeps_its_vector(tmp_path, base, pictures):
    files = set()
    for store, _ in stepped("rebuild", base, pictures, tmp_path / "out", 5):
        with open_toy(store) as engine:
            check(engine, ALL)
            engine.rebuild()
            check(engine, ALL)
            assert engine.info().spaces["text"].rows == 5
        files.add(tuple(sorted(file.name for file in (store / "spaces").iterdir())))
    assert files == {("1-picture-0.vectors", "1-text-1.vectors")}


def test_killed_at_any_step_of_reindexing_the_store_answers_with_one_encoder_and_goes_on(tmp_path, base, pictures):
    outcomes = set()
    for store, done in stepped("reindex", base, pictures, tmp_path / "out", 17):
        with Engine.open(store) as engine:
            fingerprint = engine.info().fingerprint
            assert fingerprint == "toy-2" or not done
            outcomes.add(fingerprint)
            check(engine, ALL, fingerprint)
            engine.reindex(ToyEncoder("toy-2"))
            check(engine, ALL, "toy-2")
            assert sorted(file.name for file in (store / "spaces").iterdir()) == [
                "2-picture-0.vectors", "2-text-0.vectors",
            ]  # fmt: skip
    assert outcomes == {"toy-1", "toy-2"}


def test_killed_at_any_step_of_building_the_graph_the_answers_stay_the_same(tmp_path, base, pictures, monkeypatch):
    monkeypatch.setattr(searchspace, "CROSSOVER", 10)
    with open_toy(base) as engine:
        engine.add([Item(id=f"more {n}", text=f"more text {n}") for n in range(30)])
        engine.rebuild()
        right = [(hit.item.id, hit.score) for hit in engine.search("text 3", 9, field="text", exact=True)]
        assert engine.info().spaces["text"].index == "hnsw"
    for store, _ in stepped("index", base, pictures, tmp_path / "out", 11):
        with open_toy(store) as engine:
            assert [(hit.item.id, hit.score) for hit in engine.search("text 3", 9, field="text")] == right
            engine.remove([right[-1][0]])
            assert engine.info().spaces["text"].index == "hnsw"
            assert [(hit.item.id, hit.score) for hit in engine.search("text 3", 8, field="text")] == right[:-1]
        assert not [file.name for file in (store / "indexes").iterdir() if file.name.endswith(".tmp")]


def test_killed_at_random_times_ingest_goes_on_until_it_is_done(tmp_path):
    paint(tmp_path / "pictures", 80)
    wanted = {f"{number:04}.png" for number in range(80)}
    moment = random.Random(7)
    kills = 0
    for _ in range(40):
        with subprocess.Popen(
            child("slow", tmp_path / "store", tmp_path / "pictures"), stdout=subprocess.PIPE, text=True
        ) as process:
            acknowledged = []
            for line in process.stdout:
                acknowledged.append(int(line))
                if len(acknowledged) == 2:  # it has begun to work
                    time.sleep(moment.random() * 0.08)
                    process.kill()
        kills += process.returncode == -signal.SIGKILL
        assert process.returncode in (0, -signal.SIGKILL)
        with open_toy(tmp_path / "store") as engine:
            stored = {item.id for item in engine.items()}
            assert len(stored) >= max(acknowledged)
            assert stored <= wanted
            check(engine, stored)
        if process.returncode == 0:
            break
    assert stored == wanted
    assert kills >= 3


@pytest.mark.parametrize(("dim", "limit"), [(24, 8_000), (24, 80_000), (24, 200_000), (8192, 200_000)])
def test_a_full_disk_is_an_error_that_leaves_the_old_state_and_the_same_engine_goes_on(tmp_path, dim, limit):
    with open_toy(tmp_path / "store", dim=dim) as engine:
        engine.add(["one", "two", "three"])
    paint(tmp_path / "pictures", 150)
    done = subprocess.run(
        child("full", tmp_path / "store", tmp_path / "pictures", dim, limit), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    failure, rest = done.stdout.splitlines()
    assert failure.startswith("StoreError: "), failure
    assert "cannot rollback" not in failure
    assert rest == "True 0 153"
    with open_toy(tmp_path / "store", dim=dim) as engine:
        assert len(engine) == 153
        assert damage(engine.path) == {}
        ids, rows = engine.vectors(field="picture")
        encoder = ToyEncoder(dim=dim)
        own = np.stack([own_vector(encoder, engine.get(id)) for id in ids])
        assert np.einsum("ij,ij->i", rows, own).min() > 0.999


def main(work: str, *arguments: str) -> None:
    match work:
        case "step":
            step_through(arguments[0], *map(Path, arguments[1:4]), stride=int(arguments[4]))
        case "slow":
            ingest_slowly(*map(Path, arguments))
        case "full":
            fill_the_disk(*map(Path, arguments[:2]), dim=int(arguments[2]), limit=int(arguments[3]))


if __name__ == "__main__":
    main(*sys.argv[1:])
