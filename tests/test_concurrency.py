"""One writer and many readers, in threads and in processes: refused clearly, never torn, never in each other's way.

This file is also the child: run as a script, it is the other process.
"""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mmsearch import Engine, Item, Query, searchspace
from mmsearch.doctor import _STORE_CHECKS, BAD, examine
from mmsearch.errors import MMSearchError, StoreBusy
from mmsearch.store import Store

BATCH = 10


class ToyEncoder:
    """Vectors from a hash of the text: equal texts, equal vectors, and nothing else."""

    name = "toy"
    licence = "none"
    runtime = "numpy"
    fingerprint = "toy-1"
    image_size = 8
    dim = 24

    def encode_texts(self, texts):
        rows = np.empty((len(texts), self.dim), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            seed = hashlib.blake2b(text.encode(), digest_size=8).digest()
            row[:] = np.random.default_rng(int.from_bytes(seed, "big")).standard_normal(self.dim)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def encode_images(self, images):
        return self.encode_texts([hashlib.sha256(np.asarray(image).tobytes()).hexdigest() for image in images])

    def prepare(self, image):
        return np.asarray(image.convert("RGB"))

    def split_text(self, text):
        return [text]


def batch(number: int) -> list[Item]:
    return [
        Item(id=f"{number}-{n}", text=f"text {number} {n}", metadata={"batch": number, "n": n}) for n in range(BATCH)
    ]


def picture(number: int):
    from PIL import Image

    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8))


# The child ----------------------------------------------------------------------------------------------------------


def say(**facts: object) -> None:
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def hold(store: Path) -> None:
    """Write until told to stop."""

    def wait(now):
        say(stage=now.stage)
        sys.stdin.readline()

    with Engine.open(store, ToyEncoder()) as engine:
        engine.add(["held"], progress=wait)


def read(store: Path, stop: Path) -> None:
    """Ask for everything until told to stop; say what was wrong."""
    wrong: list[str] = []
    before, rounds, most = 0, 0, 0
    with Engine.open(store, ToyEncoder()) as engine:
        say(ready=True)
        last = False
        while not last:
            last = stop.exists() and rounds > 3
            rounds += 1
            try:
                hits = engine.search("text 1 1", 10_000)
                if len(hits) % BATCH or len(hits) < before:
                    wrong.append(f"{before} items, then {len(hits)}")
                torn = [hit.item.id for hit in hits if hit.item.text != "text " + hit.item.id.replace("-", " ")]
                if torn:
                    wrong.append(f"{torn[:3]} are not whole")
                ids, rows = engine.vectors()
                own = engine.encoder.encode_texts(["text " + id.replace("-", " ") for id in ids])
                if len(ids) % BATCH or (len(ids) and np.einsum("ij,ij->i", rows, own).min() < 0.999):
                    wrong.append(f"{len(ids)} vectors, or those of others")
                before = most = len(hits)
            except Exception as error:
                wrong.append(repr(error))
    say(wrong=wrong[:5], rounds=rounds, most=most)


def compact_reader(store: Path, stop: Path) -> None:
    """Open anew each time, as the command line does."""
    wrong: list[str] = []
    rounds = 0
    say(ready=True)
    while not (stop.exists() and rounds > 3):
        rounds += 1
        try:
            with Engine.open(store, ToyEncoder()) as engine:
                hits = engine.search("text 1 1", 10_000)
                if not hits or hits[0].item.id != "1-1":
                    wrong.append(f"{len(hits)} hits")
        except Exception as error:
            wrong.append(repr(error))
    say(wrong=wrong[:5], rounds=rounds)


def make(store: Path, start: Path) -> None:
    """Open a store that does not exist yet, at the same moment as others."""
    say(ready=True)
    sys.stdin.readline()
    try:
        with Engine.open(store, ToyEncoder()) as engine:
            say(error=None, items=len(engine))
    except Exception as error:
        say(error=repr(error))


class Hammer:
    """Things to do with one engine from many threads; what was not as it should be is in ``wrong``."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.wrong: list[str] = []
        self.done = threading.Event()

    def keep(self, work: Callable[[random.Random], None], seed: int) -> None:
        chance = random.Random(seed)
        while not self.done.is_set():
            try:
                work(chance)
            except Exception as error:
                self.wrong.append(f"{work.__name__}: {error!r}")

    def search(self, chance: random.Random) -> None:
        hits = self.engine.search(f"text {chance.randrange(5)} {chance.randrange(BATCH)}", 20)
        scores = [hit.score for hit in hits]
        if len(hits) != 20 or scores != sorted(scores, reverse=True):
            self.wrong.append(f"{len(hits)} hits, {scores}")

    def search_filtered(self, chance: random.Random) -> None:
        where = {"n": {"$lt": chance.randrange(1, BATCH)}, "batch": {"$lt": chance.randrange(6, 40)}}
        hits = self.engine.search("text 1 1", 5, where=where)
        if len(hits) != 5 or any(hit.item.metadata["n"] >= where["n"]["$lt"] for hit in hits):
            self.wrong.append(f"{len(hits)} hits for {where}")

    def search_in_both_fields(self, chance: random.Random) -> None:
        hits = self.engine.search(Query(id=f"picture {chance.randrange(5)}"), 7)
        if len(hits) != 7:
            self.wrong.append(f"{len(hits)} hits in two fields")

    def look(self, chance: random.Random) -> None:
        self.engine.info()
        self.engine.vectors()
        list(self.engine.items())

    def write(self) -> None:
        for number in range(10, 24):
            self.engine.add(batch(number))
            if number % 2:
                self.engine.remove([item.id for item in batch(number - 5)])
            if number % 4 == 0:
                self.engine.rebuild()


def hammer(store: Path) -> None:
    """Search, add, remove and rebuild from threads of one engine."""
    searchspace.CROSSOVER = 120
    sys.setswitchinterval(1e-5)
    with Engine.open(store, ToyEncoder()) as engine:
        for number in range(10):
            engine.add(batch(number))
        engine.add([Item(id=f"picture {n}", image=picture(n)) for n in range(5)])
        hammer = Hammer(engine)
        works = [hammer.search, hammer.search_filtered, hammer.search_in_both_fields] * 2 + [hammer.look]
        threads = [threading.Thread(target=hammer.keep, args=(work, n)) for n, work in enumerate(works)]
        for thread in threads:
            thread.start()
        hammer.write()
        hammer.done.set()
        for thread in threads:
            thread.join()
        say(wrong=sorted(set(hammer.wrong))[:8], items=len(engine))


def close_early(store: Path) -> None:
    """Close engines while other threads search in them: errors, but no crash."""
    with Engine.open(store, ToyEncoder()) as engine:
        for number in range(5):
            engine.add(batch(number))
    for _ in range(15):
        engine = Engine.open(store, ToyEncoder())
        begun = threading.Event()

        def search(engine=engine, begun=begun):
            try:
                for n in range(30):
                    engine.search(f"text 1 {n}", 20)
                    begun.set()
            except Exception:
                begun.set()

        threads = [threading.Thread(target=search) for _ in range(4)]
        for thread in threads:
            thread.start()
        begun.wait()
        engine.close()
        for thread in threads:
            thread.join()
        engine.close()
    say(crashed=False)


def fork_and_use(store: Path) -> None:
    """Use one engine in a parent and in its forked child."""
    with Engine.open(store, ToyEncoder()) as engine:
        engine.add(batch(0))
        engine.search("text 0 1")
        child = os.fork()
        if child == 0:
            code = 1
            try:
                hits = [engine.search(f"text 0 {n}", 1)[0].item.id for n in range(BATCH)]
                engine.add(batch(1))
                code = 0 if hits == [f"0-{n}" for n in range(BATCH)] else 2
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        engine.add(batch(2))
        found = sorted(item.id for item in engine.items())
    bad = [finding.message for finding in examine(store) if finding.level == BAD]
    say(child=os.waitstatus_to_exitcode(status), items=len(found), bad=bad)


def fork_while_writing(store: Path) -> None:
    """A child that is forked while its parent writes must not take itself for the writer."""
    outcome: list[int] = []

    def fork(now):
        if outcome or now.stage != "encode":
            return
        child = os.fork()
        if child == 0:
            code = 1
            try:
                engine.add(batch(7))
            except StoreBusy:
                code = 0
            finally:
                os._exit(code)
        outcome.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

    with Engine.open(store, ToyEncoder()) as engine:
        engine.add(batch(0), progress=fork)
        say(refused=outcome == [0], items=len(engine))


# The tests ----------------------------------------------------------------------------------------------------------


def start(*arguments: object) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-X", "faulthandler", __file__, *map(str, arguments)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finish(process: subprocess.Popen) -> dict[str, object]:
    """The last thing that a child said."""
    out, trace = process.communicate()
    assert process.returncode == 0, trace
    return json.loads(out.splitlines()[-1])


def finish_all(processes: list[subprocess.Popen]) -> list[dict[str, object]]:
    return [finish(process) for process in processes]


@pytest.fixture
def store(tmp_path):
    with Engine.open(tmp_path / "store", ToyEncoder()) as engine:
        engine.add(batch(0))
    return tmp_path / "store"


def test_a_second_writer_is_refused_with_who_and_since_when_while_reading_works(store):
    holder = start("hold", store)
    assert json.loads(holder.stdout.readline())["stage"] == "encode"
    with Engine.open(store, ToyEncoder()) as engine:
        for write in (
            lambda: engine.add(["x"]), lambda: engine.remove(["0-1"]), engine.rebuild, engine.sync,
            lambda: engine.reindex(ToyEncoder()),
        ):  # fmt: skip
            with pytest.raises(StoreBusy, match=rf"process {holder.pid} \(test_concurrency\.py.* since \d{{4}}-\d\d-"):
                write()
        assert engine.search("text 0 3", 1)[0].item.id == "0-3"
        assert len(engine) == BATCH
        holder.communicate("\n" * 100)
        assert holder.returncode == 0
        assert engine.add(["x"]).added == 1
        assert len(engine) == BATCH + 2


def test_the_lock_is_free_after_its_holder_was_killed(store):
    holder = start("hold", store)
    holder.stdout.readline()
    holder.kill()
    holder.communicate()
    assert holder.returncode == -signal.SIGKILL
    with Engine.open(store, ToyEncoder()) as engine:
        assert engine.add(["x"]).added == 1


def test_another_engine_of_the_same_process_is_refused_too(store):
    with Engine.open(store, ToyEncoder()) as one, Engine.open(store, ToyEncoder()) as other:
        refused = []

        def write(now):
            with pytest.raises(StoreBusy, match=f"process {os.getpid()} "):
                other.add(["y"])
            refused.append(now.stage)

        one.add(["x"], progress=write)
        assert refused
        assert other.add(["y"]).added == 1


def test_threads_of_one_engine_write_one_after_the_other(store):
    with Engine.open(store, ToyEncoder()) as engine:
        threads = [threading.Thread(target=engine.add, args=(batch(number),)) for number in range(1, 9)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(engine) == 9 * BATCH
        own = engine.search_many([Query(id=item.id) for number in range(9) for item in batch(number)], 1)
        assert [hits[0].item.id for hits in own] == [item.id for number in range(9) for item in batch(number)]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_interrupted_writer_frees_the_lock_and_the_engine_goes_on(store, error):
    def interrupt(now):
        raise error

    with Engine.open(store, ToyEncoder()) as engine:
        with pytest.raises(error):
            engine.add(["x"], progress=interrupt)
        with Engine.open(store, ToyEncoder()) as other:
            assert other.add(["y"]).added == 1
        assert engine.add(["x"]).added == 1


def test_the_same_store_made_by_four_processes_at_once_is_made_once(tmp_path):
    errors = []
    for attempt in range(2):
        store = tmp_path / f"store {attempt}"
        children = [start("make", store, store) for _ in range(4)]
        for child in children:
            child.stdout.readline()
        for child in children:
            child.stdin.write("\n")
            child.stdin.flush()
        errors += [said["error"] for said in finish_all(children) if said["error"]]
        with Engine.open(store, ToyEncoder()) as engine:
            assert engine.add(["x"]).added == 1
    assert errors == []


def test_readers_in_other_processes_see_whole_states_while_a_writer_adds_20_batches(store, tmp_path):
    children = [start("read", store, tmp_path / "stop") for _ in range(2)]
    for child in children:
        child.stdout.readline()
    with Engine.open(store, ToyEncoder()) as engine:
        for number in range(1, 21):
            engine.add(batch(number))
    (tmp_path / "stop").touch()
    for said in finish_all(children):
        assert said["wrong"] == []
        assert said["most"] == 21 * BATCH
        assert said["rounds"] > 5


def test_readers_in_other_processes_are_answered_while_a_writer_compacts(store, tmp_path):
    with Engine.open(store, ToyEncoder()) as engine:
        engine.add(batch(1))
        children = [start("compact", store, tmp_path / "stop") for _ in range(2)]
        for child in children:
            child.stdout.readline()
        for number in range(2, 42):
            engine.add(batch(number))
            engine.remove([item.id for item in batch(number)])
            engine.rebuild()
    (tmp_path / "stop").touch()
    for said in finish_all(children):
        assert said["wrong"] == []
        assert said["rounds"] > 5


def test_a_search_in_two_fields_that_began_before_a_compaction_of_the_same_engine_is_answered(tmp_path):
    asked, go = threading.Event(), threading.Event()

    class Waits(ToyEncoder):
        def encode_texts(self, texts):
            if texts == ["wait"]:
                asked.set()
                assert go.wait(60)
            return super().encode_texts(texts)

    with Engine.open(tmp_path / "store", Waits()) as engine:
        engine.add(batch(0))
        engine.add([Item(id=f"picture {n}", image=picture(n)) for n in range(5)])
        outcome: list[object] = []

        def search():
            try:
                outcome.append(len(engine.search("wait", 100)))
            except MMSearchError as error:
                outcome.append(repr(error))

        thread = threading.Thread(target=search)
        thread.start()
        assert asked.wait(60)
        engine.remove(["0-1", "picture 1"])
        engine.rebuild()
        len(engine.search("text 0 1"))
        go.set()
        thread.join()
    assert outcome == [BATCH + 5]


def test_searches_from_many_short_lived_threads_do_not_use_up_file_handles(store):
    with Engine.open(store, ToyEncoder()) as engine:
        engine.search("text 0 1")
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(20):
            thread = threading.Thread(target=engine.search, args=("text 0 1",))
            thread.start()
            thread.join()
        assert len(os.listdir("/proc/self/fd")) <= before + 4


def test_threads_that_search_add_remove_and_rebuild_at_once_break_nothing(tmp_path):
    said = finish(start("hammer", tmp_path / "store"))
    assert said == {"wrong": [], "items": 17 * BATCH + 5}
    assert [finding for finding in examine(tmp_path / "store") if finding.level == BAD] == []


def test_closing_an_engine_that_others_search_in_does_not_crash(tmp_path):
    assert finish(start("close", tmp_path / "store")) == {"crashed": False}


def test_an_engine_works_in_a_forked_child_and_in_its_parent(tmp_path):
    assert finish(start("fork", tmp_path / "store")) == {"child": 0, "items": 3 * BATCH, "bad": []}


def test_a_child_that_was_forked_while_its_parent_writes_is_not_the_writer(tmp_path):
    assert finish(start("fork-writing", tmp_path / "store")) == {"refused": True, "items": BATCH}


def test_doctor_finds_nothing_wrong_with_the_vectors_of_a_store_that_is_being_written(store):
    done = threading.Event()
    found: set[str] = set()

    def watch():
        opened = Store(store, create=False)
        while not done.is_set():
            found.update(finding.message for finding in _STORE_CHECKS["vectors"](opened))
        opened.close()

    thread = threading.Thread(target=watch)
    thread.start()
    with Engine.open(store, ToyEncoder()) as engine:
        for number in range(1, 61):
            engine.add(batch(number))
    done.set()
    thread.join()
    assert found == set()


def main(work: str, *arguments: str) -> None:
    works: dict[str, Callable[..., None]] = {
        "hold": hold, "read": read, "compact": compact_reader, "make": make, "hammer": hammer, "close": close_early,
        "fork": fork_and_use, "fork-writing": fork_while_writing,
    }  # fmt: skip
    works[work](*map(Path, arguments))


if __name__ == "__main__":
    main(*sys.argv[1:])
