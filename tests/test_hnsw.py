"""The graph index keeps its promises where the library below it has traps: lost items, crashes, damaged files."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from usearch.index import Index

from mmsearch.errors import InvalidInput, StoreDamaged, StoreError
from mmsearch.index import ExactIndex, HNSWIndex, quarantine, read_meta
from mmsearch.index.audit import repair
from mmsearch.index.files import GROUPS, MANIFEST, array_writer, read_manifest, save_generation
from mmsearch.index.graph import Graph
from mmsearch.index.groups import Groups
from mmsearch.index.halves import as_unit_halves, widen
from mmsearch.index.locks import ReadWriteLock

DIM = 64
FILES = {"index": "", "groups": GROUPS, "manifest": MANIFEST}


def clustered(n, dim=DIM, seed=0, centres=200):
    rng = np.random.default_rng(seed)
    middles = np.random.default_rng(99).standard_normal((centres, dim))
    rows = middles[rng.integers(centres, size=n)] + 0.7 * rng.standard_normal((n, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def isotropic(n, dim=DIM, seed=0):
    rows = np.random.default_rng(seed).standard_normal((n, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def built(rows, **options):
    index = HNSWIndex(rows.shape[1], **options)
    index.add(np.arange(len(rows)), rows)
    return index


def beside(path, suffix):
    return path.with_name(path.name + suffix)


def same_answers(a, b):
    return all(
        np.array_equal(one.keys, other.keys) and one.scores.tobytes() == other.scores.tobytes()
        for one, other in zip(a, b, strict=True)
    )


def not_found(index, rows, keys):
    """Keys whose own vector does not lead to them, nor to something as good."""
    own = np.einsum("ij,ij->i", rows, widen(as_unit_halves(rows, rows.shape[1])))
    answers = index.search(rows, k=1)
    return [
        key
        for key, score, found in zip(keys, own, answers, strict=True)
        if not len(found) or (found.keys[0] != key and found.scores[0] < score - 1e-6)
    ]


@pytest.fixture(scope="module")
def rows():
    return clustered(3000)


@pytest.fixture(scope="module")
def saved(rows, tmp_path_factory):
    """A folder with one good generation; tests copy it."""
    path = tmp_path_factory.mktemp("saved") / "picture.usearch"
    built(rows).save(path, {"encoder": "toy"})
    return path


@pytest.fixture
def path(saved, tmp_path):
    for suffix in FILES.values():
        shutil.copy(beside(saved, suffix), beside(tmp_path / saved.name, suffix))
    return tmp_path / saved.name


# Every item is found


@pytest.mark.parametrize("make", [clustered, isotropic])
@pytest.mark.parametrize("n", [2000, 20_000])
def test_every_item_is_found_after_a_parallel_build(make, n):
    rows = make(n)
    index = built(rows)
    assert not_found(index, rows, np.arange(n)) == []
    assert index.self_check() == 0


@pytest.mark.parametrize("dtype", ["f32", "bf16", "i8"])
def test_every_item_is_found_whatever_the_graph_keeps(dtype):
    rows = clustered(4000)
    index = built(rows, dtype=dtype)
    assert not_found(index, rows, np.arange(4000)) == []
    assert index.self_check() == 0


def test_a_low_effort_is_raised_until_every_item_is_found():
    rows = isotropic(6000, dim=128)
    index = built(rows, connectivity=8, expansion_search=4)
    assert index.effort > 4
    assert not_found(index, rows, np.arange(6000)) == []


def test_repair_brings_back_nodes_whose_links_were_cut():
    halves = as_unit_halves(clustered(4000), DIM)
    graph = Graph(DIM, "f16", 16, 128)
    graph.add(np.arange(4000), halves)
    graph._index.remove(np.arange(3600, dtype=np.uint64), compact=True, threads=1)
    nodes = np.arange(3600, 4000)
    assert len(graph.missed(nodes, halves[nodes], effort=64)) > 20
    effort, lost = repair(graph, nodes, lambda wanted: halves[wanted], effort=64)
    assert len(lost) == 0
    assert len(graph.missed(nodes, halves[nodes], effort)) == 0


def test_recall_stays_after_nine_tenths_are_removed(rows):
    index = built(rows)
    queries = clustered(100, seed=1)
    removed = np.random.default_rng(0).permutation(3000)[:2700]
    for part in np.array_split(removed, 9):
        assert index.remove(part) == 300
    left = np.setdiff1d(np.arange(3000), removed)
    assert not_found(index, rows[left], left) == []
    assert index.recall(queries, k=10) >= 0.99
    found = np.concatenate([found.keys for found in index.search(queries, k=50)])
    assert not np.isin(found, removed).any()


def test_removed_vectors_do_not_pile_up(rows):
    index = built(rows)
    for _ in range(4):
        index.remove(np.arange(1500))
        index.add(np.arange(1500), rows[:1500])
    assert len(index) == 3000
    assert not_found(index, rows, np.arange(3000)) == []
    index.remove(np.arange(1500))
    assert index._graph.holes == 0


def test_equal_vectors_are_one_node_and_near_ones_are_not(rows, tmp_path):
    index = built(rows)
    index.add(np.arange(5000, 5400), np.repeat(rows[:4], 100, axis=0))
    index.add(np.array([6000]), rows[:1] + 0.01 * rows[1:2])
    index.save(tmp_path / "a", {})
    facts = read_manifest(tmp_path / "a")
    assert (facts["nodes"], facts["keys"]) == (3001, 3401)


def test_vectors_are_equal_whichever_sign_their_zeros_have():
    rows = np.zeros((2, DIM), np.float32)
    rows[:, 0] = 1
    rows[1, 1:] = -0.0
    index = built(rows)
    assert len(index._graph) == 1


def test_different_vectors_with_one_hash_stay_apart(rows):
    groups = Groups()
    halves = as_unit_halves(rows[:2], DIM)
    keys = np.array([1])
    places, hashes = groups.place(keys, halves[:1], stored=lambda nodes: halves[:0])
    groups.add(keys, places, hashes)
    # What is stored under the hash turns out to be another vector.
    places, hashes = groups.place(np.array([2]), halves[:1], stored=lambda nodes: halves[1:])
    groups.add(np.array([2]), places, hashes)
    assert groups.nodes.tolist() == [1, 2]
    assert not groups.any_shared


# Scores and effort


@pytest.mark.parametrize("dtype", ["f16", "f32", "bf16", "i8"])
def test_scores_are_exact_inner_products_with_the_float16_originals(rows, dtype):
    halves = as_unit_halves(rows, DIM)
    queries = clustered(40, seed=1)
    exact = ExactIndex.over(halves)
    own = built(rows, dtype=dtype)
    served = built(rows, dtype=dtype, originals=lambda keys: widen(halves[keys]))
    for index in (own, served):  # two graphs that threads have built, which need not find the same
        for number, found in enumerate(index.search(queries, k=10)):
            (truth,) = exact.search(queries[number : number + 1], k=10, among=found.keys)
            assert same_answers([found], [truth])
        assert index.recall(queries, k=10) >= 0.99


def test_originals_of_the_wrong_shape_are_refused(rows):
    index = HNSWIndex(DIM, originals=lambda keys: np.zeros((1, DIM - 1), np.float32))
    with pytest.raises(InvalidInput, match="originals"):
        index.add(np.arange(5), rows[:5])


def test_effort_trades_time_for_recall_and_tune_finds_the_least_that_suffices():
    rows, queries = isotropic(8000), isotropic(100, seed=1)
    index = built(rows)
    truth = ExactIndex.over(as_unit_halves(rows, DIM)).search(queries, k=10)

    def hits(effort):
        answers = index.search(queries, k=10, effort=effort)
        return sum(len(np.intersect1d(a.keys, b.keys)) for a, b in zip(answers, truth, strict=True))

    assert hits(1000) > hits(24)
    low = index.recall(queries, k=10)
    assert low < 0.99
    reached = index.tune(queries, k=10, target=0.99)
    assert reached >= 0.99
    assert index.recall(queries, k=10) == reached
    assert index.effort in (128, 256, 512, 1024, 2048)
    with pytest.raises(InvalidInput):
        index.tune(queries, target=1.5)
    for effort in (0, -1, 2.5, True):
        with pytest.raises(InvalidInput):
            index.search(queries, k=1, effort=effort)
    assert HNSWIndex(DIM).recall(queries, k=10) == 1.0


def test_an_unknown_dtype_is_refused():
    with pytest.raises(InvalidInput, match="f16, f32, bf16, i8"):
        HNSWIndex(DIM, dtype="u8")


# Many threads


def test_saving_while_others_add_and_search_gives_whole_files(rows, tmp_path):
    index = HNSWIndex(DIM)
    stop, broken = threading.Event(), []

    def add():
        for start in range(0, 3000, 50):
            index.add(np.arange(start, start + 50), rows[start : start + 50])
        stop.set()

    def search():
        while not stop.is_set():
            answers = index.search(rows[:20], k=5)
            broken.extend(found for found in answers if len(np.unique(found.keys)) != len(found))
            broken.extend(found for found in answers if not np.isfinite(found.scores).all())

    threads = [threading.Thread(target=work) for work in (add, search, search)]
    for thread in threads:
        thread.start()
    saves = 0
    while not stop.is_set() or saves < 3:
        path = tmp_path / "live.usearch"
        index.save(path, {})
        again = HNSWIndex.load(path, dim=DIM, dtype="f16")
        assert len(again) % 50 == 0
        assert not_found(again, rows[: len(again)], np.arange(len(again))) == []
        saves += 1
    for thread in threads:
        thread.join()
    assert not broken
    assert not_found(index, rows, np.arange(3000)) == []


def test_a_writer_is_alone_and_is_not_starved_by_readers():
    lock, inside, worst, done = ReadWriteLock(), [0, 0], [], threading.Event()
    count = threading.Lock()

    def visit(kind, enter):
        with enter():
            with count:
                inside[kind] += 1
                worst.append((inside[0], inside[1]))
            time.sleep(0.001)
            with count:
                inside[kind] -= 1

    def read():
        while not done.is_set():
            visit(0, lock.reading)

    def write():
        for _ in range(30):
            visit(1, lock.writing)
        done.set()

    threads = [threading.Thread(target=work) for work in (read, read, read, write)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert done.is_set()
    assert all(writers == 0 or (readers, writers) == (0, 1) for readers, writers in worst)
    assert max(readers for readers, _ in worst) > 1


# Files


@pytest.mark.parametrize("dtype", ["f16", "f32", "bf16", "i8"])
def test_a_loaded_index_answers_like_the_saved_one_and_goes_on(rows, tmp_path, dtype):
    index = built(rows[:2000], dtype=dtype, expansion_search=96)
    index.add(np.arange(5000, 5100), np.repeat(rows[:5], 20, axis=0))
    index.remove(np.arange(0, 200, 7))
    index.save(tmp_path / "a.usearch", {"rows": 3})
    again = HNSWIndex.load(tmp_path / "a.usearch", dim=DIM, dtype=dtype)
    queries = np.vstack([clustered(30, seed=1), rows[:5]])
    assert len(again) == len(index)
    assert again.effort == 96
    assert same_answers(index.search(queries, k=30), again.search(queries, k=30))
    for each in (index, again):
        each.add(np.arange(9000, 9010), rows[1990:2000])  # equal to stored ones: no new nodes
        each.add(np.arange(9100, 9105), rows[2000:2005])
        each.remove(np.array([0, 1, 5000, 5021]))
    assert len(again._graph) == len(index._graph)
    assert same_answers(index.search(queries, k=30), again.search(queries, k=30))
    assert again.self_check() == 0


def test_codes_saved_without_originals_cannot_be_loaded_without_them(rows, tmp_path):
    halves = as_unit_halves(rows, DIM)
    index = built(rows[:100], dtype="i8", originals=lambda keys: widen(halves[keys]))
    index.save(tmp_path / "a", {})
    again = HNSWIndex.load(tmp_path / "a", dim=DIM, dtype="i8", originals=lambda keys: widen(halves[keys]))
    assert same_answers(index.search(rows[:9], k=3), again.search(rows[:9], k=3))
    with pytest.raises(StoreDamaged):
        HNSWIndex.load(tmp_path / "a", dim=DIM, dtype="i8")


def test_an_empty_index_can_be_saved_and_loaded(tmp_path, rows):
    HNSWIndex(DIM).save(tmp_path / "a", {})
    index = HNSWIndex.load(tmp_path / "a", dim=DIM, dtype="f16")
    assert len(index) == 0
    index.add(np.arange(10), rows[:10])
    assert index.search(rows[3:4], k=1)[0].keys.tolist() == [3]


def test_meta_is_given_back_and_insisted_on(path):
    assert read_meta(path) == {"encoder": "toy"}
    assert len(HNSWIndex.load(path, dim=DIM, dtype="f16", meta_must_equal={"encoder": "toy"})) == 3000
    for wrong in ({"encoder": "other"}, {"encoder": "toy", "rows": 3}):
        with pytest.raises(StoreDamaged, match="expected"):
            HNSWIndex.load(path, dim=DIM, dtype="f16", meta_must_equal=wrong)


def test_another_dim_or_dtype_is_refused(path):
    for dim, dtype in ((DIM + 1, "f16"), (DIM, "f32"), (DIM, "i8")):
        with pytest.raises(StoreDamaged, match="expected"):
            HNSWIndex.load(path, dim=dim, dtype=dtype)


@pytest.mark.parametrize("foreign", [{"metric": "l2sq"}, {"dtype": "f32"}, {"ndim": DIM + 8}], ids=str)
def test_a_foreign_index_file_is_refused_even_if_its_checksum_is_right(path, foreign, rows):
    options = {"ndim": DIM, "metric": "ip", "dtype": "f16"} | foreign
    other = Index(**options)
    other.add(np.arange(3000), clustered(3000, dim=options["ndim"]), threads=1)
    facts = {name: value for name, value in read_manifest(path).items() if name not in ("files", "format")}
    groups = array_writer(built(rows)._arrays())
    save_generation(path, {"": lambda target: other.save(target), GROUPS: groups}, facts)
    with pytest.raises(StoreDamaged):
        HNSWIndex.load(path, dim=DIM, dtype="f16")


@pytest.mark.parametrize("suffix", FILES.values(), ids=FILES.keys())
def test_a_missing_or_truncated_file_is_refused(path, suffix):
    file = beside(path, suffix)
    content = file.read_bytes()
    for cut in (0, 1, 40, 100, len(content) // 2, len(content) - 4096, len(content) - 1):
        file.write_bytes(content[: max(0, cut)])
        with pytest.raises(StoreDamaged):
            HNSWIndex.load(path, dim=DIM, dtype="f16")
    file.unlink()
    with pytest.raises(StoreDamaged):
        HNSWIndex.load(path, dim=DIM, dtype="f16")
    file.write_bytes(content)
    assert len(HNSWIndex.load(path, dim=DIM, dtype="f16")) == 3000


@pytest.mark.parametrize("suffix", FILES.values(), ids=FILES.keys())
def test_one_flipped_bit_anywhere_is_refused(path, suffix):
    file = beside(path, suffix)
    content = bytearray(file.read_bytes())
    rng = np.random.default_rng(0)
    for place in [0, 8, 70, len(content) - 1, *rng.integers(len(content), size=40).tolist()]:
        bit = 1 << int(rng.integers(8))
        content[place] ^= bit
        file.write_bytes(content)
        with pytest.raises(StoreDamaged):
            HNSWIndex.load(path, dim=DIM, dtype="f16")
        content[place] ^= bit
    file.write_bytes(content)
    assert len(HNSWIndex.load(path, dim=DIM, dtype="f16")) == 3000


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", '{"format": 1}', "[" * 100_000, "\x00\xff"])
def test_a_manifest_of_another_make_is_refused(path, text):
    beside(path, MANIFEST).write_text(text)
    for read in (lambda: HNSWIndex.load(path, dim=DIM, dtype="f16"), lambda: read_meta(path)):
        with pytest.raises(StoreDamaged):
            read()


def test_files_of_two_generations_do_not_mix(path, rows):
    first = {suffix: beside(path, suffix).read_bytes() for suffix in FILES.values()}
    built(rows[:500]).save(path, {"encoder": "toy"})
    second = {suffix: beside(path, suffix).read_bytes() for suffix in FILES.values()}
    for suffix in FILES.values():
        for other in FILES.values():
            beside(path, other).write_bytes((first if other == suffix else second)[other])
        with pytest.raises(StoreDamaged):
            HNSWIndex.load(path, dim=DIM, dtype="f16")


def test_saving_over_a_file_that_is_in_use_disturbs_nobody(path, rows):
    loaded = HNSWIndex.load(path, dim=DIM, dtype="f16")
    mapped = Index.restore(str(path), view=True)
    before, mapped_before = loaded.search(rows[:20], k=5), mapped.search(rows[:20], 5).keys
    built(rows[:100]).save(path, {})
    assert same_answers(before, loaded.search(rows[:20], k=5))
    assert np.array_equal(mapped_before, mapped.search(rows[:20], 5).keys)
    loaded.save(path, {})
    assert len(HNSWIndex.load(path, dim=DIM, dtype="f16")) == 3000


def test_stray_temporary_files_are_passed_over_and_cleared_away(path, rows):
    strays = [path.with_name(f".{path.name}{suffix}.tmp") for suffix in FILES.values()]
    for stray in strays:
        stray.write_bytes(b"half a file")
    other = path.with_name(".other.usearch.tmp")
    other.write_bytes(b"not ours")
    index = HNSWIndex.load(path, dim=DIM, dtype="f16")
    index.save(path, {})
    assert not any(stray.exists() for stray in strays)
    assert other.exists()
    assert {file.name for file in path.parent.iterdir()} == {
        other.name,
        *(beside(path, suffix).name for suffix in FILES.values()),
    }


def test_quarantine_moves_the_files_aside_and_keeps_one_set(path, rows):
    content = path.read_bytes()
    aside = quarantine(path)
    assert aside == beside(path, ".damaged-1")
    assert aside.read_bytes() == content
    assert not any(beside(path, suffix).exists() for suffix in FILES.values())
    assert quarantine(path) is None
    with pytest.raises(StoreDamaged):
        HNSWIndex.load(path, dim=DIM, dtype="f16")
    built(rows[:9]).save(path, {})
    beside(path, MANIFEST).unlink()
    assert quarantine(path) == beside(path, ".damaged-2")
    assert not aside.exists()
    assert sorted(file.name for file in path.parent.iterdir()) == [
        f"{path.name}.damaged-2",
        f"{path.name}.damaged-2.groups",
    ]
    assert quarantine(path.parent / "nowhere" / "a") is None


# Failures while saving


@pytest.mark.parametrize("failing", [1, 2, 3, 4, 5])
def test_a_write_that_fails_leaves_the_old_files_or_refused_ones(path, rows, monkeypatch, failing):
    calls, sync = [], os.fsync

    def fsync(descriptor):
        calls.append(descriptor)
        if len(calls) == failing:
            raise OSError(28, "No space left on device")
        sync(descriptor)

    index = built(rows[:200])
    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(StoreError, match="could not save"):
        index.save(path, {"encoder": "toy"})
    monkeypatch.undo()
    if failing <= 3:  # nothing had been renamed yet
        assert len(HNSWIndex.load(path, dim=DIM, dtype="f16")) == 3000
    else:
        assert_old_new_or_refused(path, old=3000, new=200)
    assert not list(path.parent.glob(".*.tmp"))
    index.save(path, {"encoder": "toy"})
    assert len(HNSWIndex.load(path, dim=DIM, dtype="f16")) == 200


def test_saving_into_a_missing_folder_is_a_store_error(tmp_path, rows):
    with pytest.raises(StoreError, match="could not save"):
        built(rows[:9]).save(tmp_path / "nowhere" / "a", {})


def assert_old_new_or_refused(path, old, new):
    try:
        index = HNSWIndex.load(path, dim=DIM, dtype="f16")
    except StoreDamaged:
        return "refused"
    assert len(index) in (old, new)
    rows = clustered(3000)[: len(index)]
    assert not_found(index, rows, np.arange(len(index))) == []
    return "old" if len(index) == old else "new"


CHILD = """
import json, os, resource, signal, sys
from pathlib import Path
import numpy as np
from mmsearch.errors import StoreError
from mmsearch.index import HNSWIndex

mode, path, source = sys.argv[1], Path(sys.argv[2]), np.load(sys.argv[3])
index = HNSWIndex(source.shape[1])
index.add(np.arange(len(source)), source)
if mode == "loop":
    print("ready", flush=True)
    while True:
        index.save(path, {})
if mode == "full":
    outcomes = []
    for size in json.loads(sys.argv[4]):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        try:
            index.save(path, {})
            outcomes.append("saved")
        except StoreError:
            outcomes.append("refused")
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    print(json.dumps(outcomes))
if mode == "steps":
    for step, folder in enumerate(json.loads(sys.argv[4])):
        if os.fork() == 0:
            left = [step]
            def stepped(call):
                def run(*arguments):
                    if left[0] == 0:
                        os.kill(os.getpid(), signal.SIGKILL)
                    left[0] -= 1
                    return call(*arguments)
                return run
            os.fsync, os.replace = stepped(os.fsync), stepped(os.replace)
            index.save(Path(folder) / path.name, {})
            os._exit(0)
        os.wait()
"""


def child(*arguments, **options):
    root = Path(__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": str(root)}
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        **options,
    )


@pytest.fixture
def source(rows, tmp_path):
    np.save(tmp_path / "source.npy", rows[:1000])
    return tmp_path / "source.npy"


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork and SIGKILL")
def test_a_kill_at_each_step_of_saving_leaves_old_new_or_refused_files(path, source, tmp_path):
    folders = [tmp_path / f"step{number}" for number in range(10)]
    for folder in folders:
        folder.mkdir()
        for suffix in FILES.values():
            shutil.copy(beside(path, suffix), folder)
    process = child("steps", path, source, json.dumps([str(folder) for folder in folders]))
    process.communicate()
    assert process.returncode == 0
    outcomes = [assert_old_new_or_refused(folder / path.name, old=3000, new=1000) for folder in folders]
    assert outcomes[:4] == ["old"] * 4  # until the first rename
    assert outcomes[-1] == "new"
    assert outcomes == sorted(outcomes, key=["old", "refused", "new"].index)


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_a_kill_at_any_moment_of_saving_leaves_old_new_or_refused_files(path, source):
    rng = np.random.default_rng()
    for _ in range(3):
        process = child("loop", path, source)
        assert process.stdout.readline() == "ready\n"
        time.sleep(rng.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert_old_new_or_refused(path, old=3000, new=1000)
    built(clustered(3000)[:50]).save(path, {})
    assert len(HNSWIndex.load(path, dim=DIM, dtype="f16")) == 50
    assert len(list(path.parent.glob(f"*{path.name}*"))) == 3


@pytest.mark.skipif(sys.platform == "win32", reason="needs a file size limit")
def test_a_disk_that_fills_up_anywhere_leaves_the_old_files(path, source, tmp_path):
    new = tmp_path / "new.usearch"
    built(np.load(source)).save(new, {})
    length = new.stat().st_size
    # USearch itself reports success when only its last bytes do not fit.
    limits = [0, 1000, length // 2, length - 4096, length - 100, length - 1]
    process = child("full", path, source, json.dumps(limits))
    outcomes = json.loads(process.communicate()[0])
    assert process.returncode == 0
    assert outcomes == ["refused"] * len(limits)
    assert len(HNSWIndex.load(path, dim=DIM, dtype="f16")) == 3000
    assert not list(path.parent.glob(".*.tmp"))


def test_importing_the_package_does_not_import_usearch():
    script = "import sys, mmsearch.index; sys.exit('usearch' in sys.modules)"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    assert subprocess.run([sys.executable, "-c", script], env=environment, check=False).returncode == 0
