"""Banks of queries: what is kept of them, in which files, and what happens when those are damaged."""

import io
import threading
import zlib

import numpy as np
import pytest

from mmsearch import Item
from mmsearch.bank import MAX_BANK, Bank, KeptBanks, distinct, encode_bank
from mmsearch.errors import InvalidInput, StoreDamaged, StoreError
from mmsearch.rerank.hubness import Hubness


@pytest.fixture
def filled(engine, toy):
    engine.add([Item(id=f"{kind} {n}", image=toy.png_of(kind, n)) for kind in toy.KINDS for n in range(3)])
    return engine


def files(engine):
    return sorted(file.name for file in (engine.path / "bank").iterdir())


def scores(engine, query="a red disc"):
    hits = engine.search(query, k=50)
    return {hit.item.id: hit.scores.get("hubness") for hit in hits}


# Texts --------------------------------------------------------------------------------------------------------------


def test_blanks_and_repeats_do_not_count():
    assert distinct([" red ", "", "red", "\n", "blue", "  ", "red\t"]) == ["red", "blue"]


def test_one_query_is_a_bank(filled):
    assert filled.set_bank(["a disc"]) == 1
    assert all(np.isfinite(value) for value in scores(filled).values())


@pytest.mark.parametrize("texts", [[], ["", "  ", "\n"]])
def test_a_bank_without_a_query_is_refused_and_the_one_before_stays(filled, texts):
    filled.set_bank(["a disc"])
    before = scores(filled)
    with pytest.raises(InvalidInput, match="at least one query"):
        filled.set_bank(texts)
    assert scores(filled) == before


@pytest.mark.parametrize("texts", [["red", 7], [None], [b"red"], b"red"])
def test_queries_that_are_no_str_are_refused(filled, texts):
    with pytest.raises(InvalidInput, match=r"expected (a list of queries as a bank|queries of a bank as str)"):
        filled.set_bank(texts)


def test_one_str_is_no_list_of_queries():
    with pytest.raises(InvalidInput, match="got one str: put it into a list"):
        distinct("a red disc")


def test_of_too_many_queries_every_nth_is_kept():
    kept = distinct([f"query {n}" for n in range(40_000)])
    assert len(kept) == len(set(kept)) == MAX_BANK == 20_000
    assert (kept[0], kept[-1]) == ("query 0", "query 39999")
    steps = np.diff([int(text.split()[1]) for text in kept])
    assert set(steps.tolist()) == {2, 3}


def test_emoji_are_kept_and_half_characters_do_no_harm(filled):
    texts = ["a 🙂 disc", "half \ud83d of one", "日本語 \x00 zero", "a \u202e turn"]
    assert filled.set_bank(texts, source="log\ud800") == 4
    assert all(np.isfinite(value) for value in scores(filled).values())


def test_what_was_put_is_given_back(tmp_path):
    kept = KeptBanks(tmp_path / "bank")
    name = kept.put(["red", "🙂"], "a log")
    assert kept.texts(name) == (["red", "🙂"], "a log")
    assert kept.put(["red", "🙂"], "a log") == name


def test_long_banks_report_how_far_they_are(filled):
    steps = []
    filled.set_bank([f"query {n}" for n in range(3000)], progress=steps.append)
    assert [(step.done, step.total) for step in steps if step.total == 3000] == [(0, 3000), (1024, 3000), (2048, 3000)]


# Vectors ------------------------------------------------------------------------------------------------------------


def test_a_bank_has_unit_rows_and_a_name_that_tells_them_apart(encoder):
    bank = encode_bank(["red", "blue"], encoder)
    np.testing.assert_allclose(np.linalg.norm(bank.vectors, axis=1), 1, atol=1e-6)
    assert bank.digest == Bank.of(bank.vectors * 8).digest
    assert bank.digest != encode_bank(["red", "green"], encoder).digest


@pytest.mark.parametrize("vectors", [np.zeros((0, 4)), np.zeros((2, 4)), np.full((2, 4), np.nan)])
def test_a_bank_of_no_directions_is_refused(vectors):
    with pytest.raises(InvalidInput):
        Bank.of(vectors)


def test_a_bank_is_encoded_once(filled, open_engine, toy):
    filled.set_bank([f"query {n}" for n in range(500)])
    before = scores(filled)
    other = toy.ToyEncoder()
    assert scores(open_engine(its_encoder=other)) == before
    assert other.texts_read == 1


@pytest.mark.parametrize(
    "damage",
    {
        "gone": None,
        "empty": lambda data: b"",
        "cut": lambda data: data[: len(data) // 2],
        "a bit is wrong": lambda data: data[:-200] + bytes([data[-200] ^ 1]) + data[-199:],
        "a zip": lambda data: b"PK\x03\x04" + data,
        "a text": lambda data: b"hello",
        "as NumPy writes it": lambda data: data[:-4],
        "of another length": lambda data: sealed(np.ones((3, 32), dtype=np.float16)),
        "of other numbers": lambda data: sealed(np.ones((40, 32))),
        "a pickle": lambda data: sealed(np.array([{}] * 40, dtype=object), allow_pickle=True),
    }.items(),
    ids=lambda damage: damage[0],
)
def test_a_damaged_file_of_vectors_is_made_again(filled, open_engine, damage):
    filled.set_bank([f"query {n}" for n in range(40)])
    before = scores(filled)
    (file,) = (filled.path / "bank").glob("*.npy")
    whole = file.read_bytes()
    if damage[1] is None:
        file.unlink()
    else:
        file.write_bytes(damage[1](whole))
    assert scores(open_engine()) == before
    assert file.read_bytes() == whole


def sealed(rows, **how):
    buffer = io.BytesIO()
    np.save(buffer, rows, **how)
    return buffer.getvalue() + zlib.crc32(buffer.getvalue()).to_bytes(4, "little")


@pytest.mark.parametrize("damage", [None, b"", b"{}", b'{"source": "", "texts": ["another bank"]}'])
def test_without_the_texts_of_its_bank_a_store_answers_all_the_same_and_says_what_to_do(filled, open_engine, damage):
    plain = filled.search("a red disc", k=50)
    filled.set_bank(["a disc", "a square"])
    (file,) = (filled.path / "bank").glob("*.json")
    if damage is None:
        file.unlink()
    else:
        file.write_bytes(damage)
    again = open_engine()
    hits = again.search("a red disc", k=50)
    assert [(hit.item, hit.score) for hit in hits] == [(hit.item, hit.score) for hit in plain]
    assert all("set it again with `mmsearch bank`" in hit.notes[0] for hit in hits)
    with pytest.raises(StoreDamaged, match=r"the query bank .* cannot be read"):
        KeptBanks(filled.path / "bank").texts(file.stem)
    again.set_bank(["a disc", "a square"])
    assert again.search("a red disc")[0].notes == ()


# In a store ---------------------------------------------------------------------------------------------------------


def test_another_bank_takes_the_place_of_the_one_before(filled):
    filled.set_bank(["a red disc"])
    first, names = scores(filled), files(filled)
    filled.set_bank(["a blue square", "a yellow disc"])
    assert scores(filled) != first
    assert len(files(filled)) == len(names) == 2
    assert not set(files(filled)) & set(names)


def test_no_bank_forgets_it(filled):
    plain = filled.search("a red disc")
    filled.set_bank(["a red disc"])
    assert filled.set_bank(None) == 0
    assert filled.search("a red disc") == plain
    assert files(filled) == []
    assert filled.set_bank(None) == 0


def test_files_of_other_people_are_left_alone(filled):
    (filled.path / "bank" / "notes.txt").write_text("mine")
    (filled.path / "bank" / "folder").mkdir()
    filled.set_bank(["a red disc"])
    filled.set_bank(None)
    assert files(filled) == ["folder", "notes.txt"]


def test_a_store_without_items_may_have_a_bank(engine, toy):
    assert engine.set_bank(["a disc", "a square"]) == 2
    assert engine.search("a disc") == []
    engine.add([Item(id=kind, image=toy.png_of(kind)) for kind in toy.KINDS])
    assert all(np.isfinite(value) for value in scores(engine).values())


def test_a_store_without_a_folder_for_banks_gets_one(filled):
    (filled.path / "bank").rmdir()
    filled.set_bank(["a disc"])
    assert len(files(filled)) == 2


def test_an_encoder_that_fails_leaves_the_bank_as_it_was(filled, open_engine, toy):
    filled.set_bank(["a disc"])
    before = scores(filled)

    def fail(kind, inputs, rows):
        if len(inputs) > 1:
            raise RuntimeError("out of order")

    with pytest.raises(RuntimeError, match="out of order"):
        open_engine(its_encoder=toy.ToyEncoder(hook=fail)).set_bank(["a square", "another"])
    assert scores(filled) == before
    assert scores(open_engine()) == before


def test_after_reindexing_the_bank_is_encoded_by_the_new_encoder(filled, toy):
    texts = [f"a {kind}" for kind in toy.KINDS]
    filled.set_bank(texts)
    before = scores(filled)
    other = toy.ToyEncoder(seed=5)
    filled.reindex(other)
    after = scores(filled)
    assert after.keys() == before.keys()
    assert max(abs(after[id] - before[id]) for id in before) < 1e-3  # the same world, turned
    assert [hit.notes for hit in filled.search("red")] == [()] * 10
    assert len(files(filled)) == 2


def test_after_reindexing_there_and_back_the_answers_are_as_before(filled, toy):
    filled.add([Item(id="red disc 1", image=toy.png_of("blue square", 9))])
    filled.set_bank(["a red disc", "a disc"])
    filled.rebuild()
    before = scores(filled)
    filled.reindex(toy.ToyEncoder(seed=5))
    filled.search("a disc")
    filled.reindex(toy.ToyEncoder())
    after = scores(filled)
    assert max(abs(after[id] - before[id]) for id in before) < 1e-4


def test_a_read_only_store_answers_with_its_bank_even_without_its_vectors(filled, open_engine, monkeypatch):
    filled.set_bank(["a disc", "a square"])
    before = scores(filled)
    for file in (filled.path / "bank").glob("*.npy"):
        file.unlink()
    filled.close()

    def refuse(path, data):
        raise PermissionError(13, "read-only", str(path))

    monkeypatch.setattr("mmsearch.bank.atomic_write", refuse)
    again = open_engine()
    assert scores(again) == before
    assert not list((again.path / "bank").glob("*.npy"))


def test_a_store_that_cannot_be_written_refuses_a_bank(filled, open_engine, monkeypatch):
    filled.set_bank(["a disc"])
    filled.close()
    again = open_engine()
    monkeypatch.setattr(again._store.catalog.database, "read_only", True)
    with pytest.raises(StoreError, match="cannot be written"):
        again.set_bank(["a square"])
    assert again.search("a disc")[0].notes == ()


def test_searches_go_on_while_another_bank_is_set(filled, open_engine):
    banks = [["a red disc", "a disc"], ["a blue square"], None]
    right = []
    for bank in banks:
        filled.set_bank(bank)
        right.append([(hit.item.id, hit.score, hit.notes) for hit in filled.search("a red disc", k=50)])
    seen, done = [], threading.Event()

    def watch(engine):
        try:
            while not done.is_set():
                seen.append([(hit.item.id, hit.score, hit.notes) for hit in engine.search("a red disc", k=50)])
        except BaseException as error:
            seen.append(error)

    watchers = [threading.Thread(target=watch, args=(filled,)) for _ in range(3)]
    for watcher in watchers:
        watcher.start()
    for n in range(30):
        filled.set_bank(banks[n % 3])
    done.set()
    for watcher in watchers:
        watcher.join()
    wrong = [answer for answer in seen if answer not in right]
    assert seen
    assert wrong == []


def test_another_process_sees_the_new_bank(filled, open_engine):
    reader = open_engine()
    assert "hubness" not in reader.search("a red disc")[0].scores
    filled.set_bank(["a disc", "a square"])
    assert scores(reader) == scores(filled)
    filled.set_bank(None)
    assert "hubness" not in reader.search("a red disc")[0].scores


def test_pictures_as_queries_are_not_corrected_by_a_bank_of_texts(filled, toy):
    filled.set_bank(["a disc", "a square"])
    plain = filled.search(toy.image_of("red disc"), rerank=False)
    hits = filled.search(toy.image_of("red disc"), rerank=[Hubness()])
    assert [(hit.item.id, hit.score) for hit in hits] == [(hit.item.id, hit.score) for hit in plain]
    assert hits[0].notes == ("hubness: there is no bank of picture queries: set one with `mmsearch bank`",)
    assert filled.search(toy.image_of("red disc"))[0].notes == ()
