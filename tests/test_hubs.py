"""Biases: the formula, rows that come and go, and the files in which those of large stores are kept."""

import io
import json
import os
import zipfile

import numpy as np
import pytest

from mmsearch import Item
from mmsearch.bank import Bank
from mmsearch.bias import BETA, SHRINK, biases
from mmsearch.hubs import Biases
from mmsearch.rerank.hubness import Hubness

TEXTS = ("a red disc", "the disc", "a blue square", "a yellow thing", "something else")


def by_hand(rows, bank):
    """The formula as it stands in the paper, in float64, row by row."""
    found = []
    for row in rows.astype(np.float64):
        terms = [np.exp(BETA * float(row @ other)) for other in bank.astype(np.float64)]
        found.append(np.log(sum(terms) / len(terms)) / BETA)
    return np.array(found) * len(bank) / (len(bank) + SHRINK)


def unit_rows(n, dim=32, seed=0):
    rows = np.random.default_rng(seed).normal(size=(n, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def large(monkeypatch):
    """Stores of twenty pictures are large."""
    monkeypatch.setattr("mmsearch.hubs.KEPT_ROWS", 20)


def fill(engine, toy, kinds=None, each=3):
    engine.add([Item(id=f"{kind} {n}", image=toy.png_of(kind, n)) for kind in kinds or toy.KINDS for n in range(each)])
    return engine


def expected(engine, encoder, texts=TEXTS, field="picture"):
    """What hubness should say of each item, by hand."""
    ids, rows = engine.vectors(field=field)
    found = by_hand(rows, encoder.encode_texts(list(texts)))
    return {id: found.mean() - one for id, one in zip(ids, found, strict=True)}


def said(engine, query="a red disc", **options):
    hits = engine.search(query, k=100, rerank=[Hubness()], **options)
    assert not any(hit.notes for hit in hits)
    return {hit.item.id: hit.scores["hubness"] for hit in hits}


def check(engine, encoder, **options):
    right, values = expected(engine, encoder, **options), said(engine)
    assert values.keys() == right.keys()
    assert max(abs(values[id] - right[id]) for id in right) < 1e-4


def hubs_files(engine):
    return sorted(file.name for file in (engine.path / "indexes").glob("*.hubs"))


# The formula --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "size"), [(1, 1), (7, 3), (1300, 40), (3, 2000)])
def test_the_bias_is_the_papers_inverted_softmax_as_a_logarithm(n, size):
    rows, bank = unit_rows(n), unit_rows(size, seed=1)
    np.testing.assert_allclose(biases(rows, bank), by_hand(rows, bank), atol=1e-5)


def test_no_rows_have_no_biases():
    assert biases(unit_rows(0), unit_rows(3)).shape == (0,)
    assert Biases.of(np.zeros(0, dtype=np.float32)).mean == 0.0


def test_a_small_bank_counts_for_little():
    rows, bank = unit_rows(20), unit_rows(10, seed=1)
    often = biases(rows, np.repeat(bank, 100, axis=0))
    np.testing.assert_allclose(biases(rows, bank) / often, (10 / 260) / (1000 / 1250), rtol=1e-3)


def test_what_is_near_to_every_query_loses_and_what_is_far_gains(engine, toy):
    fill(engine, toy)
    engine.set_bank(["a red disc", "one red disc", "the red disc"])
    values = said(engine)
    assert max(values, key=values.get).split()[0] != "red"
    assert min(values, key=values.get).startswith("red disc")


def test_a_hubs_score_loses_its_bias(engine, toy, encoder):
    fill(engine, toy)
    engine.set_bank(list(TEXTS))
    plain = {hit.item.id: hit.score for hit in engine.search("a red disc", k=100, rerank=False)}
    right = expected(engine, encoder)
    for hit in engine.search("a red disc", k=100, rerank=[Hubness()]):
        assert hit.score == pytest.approx(plain[hit.item.id] + right[hit.item.id], abs=1e-4)


# Rows that come and go ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [False, True])
def test_biases_follow_what_is_added_removed_replaced_and_rebuilt(engine, open_engine, toy, encoder, monkeypatch, kept):
    monkeypatch.setattr("mmsearch.hubs.KEPT_ROWS", 5 if kept else 10**9)
    fill(engine, toy, toy.KINDS[:6])
    engine.set_bank(list(TEXTS))
    check(engine, encoder)
    fill(engine, toy, toy.KINDS[6:])
    check(engine, encoder)
    check(open_engine(), encoder)
    reader = open_engine()
    engine.remove([f"{kind} 0" for kind in toy.KINDS])
    engine.add([Item(id="red disc 1", image=toy.png_of("blue square", 50))])
    dead = {id: value for id, value in said(engine).items()}
    assert dead == said(reader)
    engine.rebuild()
    for one in (engine, reader, open_engine()):
        check(one, encoder)
    assert len(hubs_files(engine)) == int(kept)


def test_many_additions_cost_only_what_is_new(engine, toy, monkeypatch):
    counted = []
    monkeypatch.setattr("mmsearch.hubs.biases", lambda rows, bank: counted.append(len(rows)) or biases(rows, bank))
    fill(engine, toy, toy.KINDS[:6])
    engine.set_bank(list(TEXTS))
    said(engine)
    fill(engine, toy, toy.KINDS[6:])
    said(engine)
    said(engine)
    assert counted == [18, 18]


def test_texts_are_corrected_by_the_bias_of_texts(engine, encoder):
    engine.add([Item(id=text, text=text) for text in ("a red disc", "red", "a green square", "nothing at all")])
    engine.set_bank(list(TEXTS))
    right = expected(engine, encoder, field="text")
    values = said(engine)
    assert max(abs(values[id] - right[id]) for id in right) < 1e-4


def test_a_long_text_is_corrected_by_its_window_that_was_found(engine, encoder):
    long = "so it went on and on for ever " * 3 + "until a red disc came along one day then again on and on"
    windows = encoder.split_text(long)
    engine.add([Item(id="long", text=long), Item(id="short", text="a green square")])
    engine.set_bank(list(TEXTS))
    rows, bank = encoder.encode_texts([*windows, "a green square"]), encoder.encode_texts(list(TEXTS))
    found = by_hand(rows, bank)
    best = int(np.argmax(rows[:-1] @ encoder.encode_texts(["a red disc"])[0]))
    assert best != 0
    assert said(engine)["long"] == pytest.approx(found.mean() - found[best], abs=1e-4)


def test_where_pictures_and_texts_are_found_each_is_corrected_as_what_it_is(engine, toy, encoder):
    fill(engine, toy)
    engine.add([Item(id=f"text {n}", text=text) for n, text in enumerate(TEXTS)])
    engine.set_bank(list(TEXTS))
    right = expected(engine, encoder) | expected(engine, encoder, field="text")
    values = said(engine)
    assert values.keys() == right.keys()
    assert max(abs(values[id] - right[id]) for id in right) < 1e-4


def test_another_encoder_has_other_biases(engine, toy):
    fill(engine, toy)
    engine.set_bank(list(TEXTS))
    said(engine)
    other = toy.ToyEncoder(seed=5)
    engine.reindex(other)
    check(engine, other)


def test_banks_of_vectors_may_be_given_for_pictures_as_queries(engine, toy, encoder):
    fill(engine, toy)
    bank = encoder.encode_images([toy.image_of(kind, 77) for kind in toy.KINDS])
    engine._ranker.use_banks({"picture": Bank.of(bank)})
    ids, rows = engine.vectors()
    found = by_hand(rows, bank)
    values = said(engine, toy.image_of("red disc", 80))
    assert max(abs(values[id] - found.mean() + one) for id, one in zip(ids, found, strict=True)) < 1e-4
    assert engine.search("a red disc", rerank=[Hubness()])[0].notes[0].startswith("hubness: there is no bank of text")


# Files of large spaces ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("large")
def test_a_large_store_keeps_its_biases_beside_the_index(engine, open_engine, toy, monkeypatch):
    fill(engine, toy)
    engine.set_bank(list(TEXTS))
    assert hubs_files(engine) == ["1-picture-0.hubs"]
    before = said(engine)

    def never(rows, bank):
        raise AssertionError("computed again")

    monkeypatch.setattr("mmsearch.hubs.biases", never)
    assert said(open_engine()) == before


def archive(**arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def changed(data, **facts):
    """The same file with other facts."""
    with np.load(io.BytesIO(data)) as stored:
        told = json.loads(str(stored["facts"])) | facts
        return archive(biases=stored["biases"], facts=np.array(json.dumps(told)))


def array(value):
    buffer = io.BytesIO()
    np.save(buffer, value)
    return buffer.getvalue()


def zipped(name, data):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr(name, data)
    return buffer.getvalue()


DAMAGE = {
    "empty": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "a byte is wrong": lambda data: data[:200] + bytes([data[200] ^ 255]) + data[201:],
    "a text": lambda data: b"hello",
    "half a zip": lambda data: b"PK\x03\x04 and no more",
    "an array": lambda data: array(np.zeros(36)),
    "another zip": lambda data: zipped("a.txt", b"a"),
    "no array in it": lambda data: zipped("facts.npy", b"a"),
    "other arrays": lambda data: archive(a=np.zeros(3)),
    "facts that are no JSON": lambda data: archive(biases=np.zeros(36), facts=np.array("?")),
    "facts that are a list": lambda data: archive(biases=np.zeros(36), facts=np.array("[]")),
    "facts that are deep": lambda data: archive(biases=np.zeros(36), facts=np.array("[" * 100_000)),
    "of another bank": lambda data: changed(data, bank="0" * 16),
    "of another space": lambda data: changed(data, space="2-picture-0.vectors"),
    "of other rows": lambda data: changed(data, checksum=1),
    "of more rows": lambda data: changed(data, rows=37),
    "a pickle": lambda data: archive(biases=np.array([{}], dtype=object), facts=np.array("{}")),
}


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_or_foreign_file_of_biases_is_made_again(engine, open_engine, toy, damage):
    fill(engine, toy)
    engine.set_bank(list(TEXTS))
    before = said(engine)
    file = engine.path / "indexes" / "1-picture-0.hubs"
    whole = file.read_bytes()
    file.write_bytes(DAMAGE[damage](whole))
    assert said(open_engine()) == before
    with np.load(file) as stored:
        assert len(stored["biases"]) == 36


@pytest.mark.usefixtures("large")
def test_a_folder_in_the_place_of_the_file_does_no_harm(engine, open_engine, toy):
    fill(engine, toy)
    engine.set_bank(list(TEXTS))
    before = said(engine)
    file = engine.path / "indexes" / "1-picture-0.hubs"
    file.unlink()
    file.mkdir()
    assert said(open_engine()) == before


@pytest.mark.usefixtures("large")
def test_biases_that_cannot_be_kept_are_computed_all_the_same(engine, open_engine, toy, monkeypatch):
    def refuse(path, data):
        raise OSError(28, os.strerror(28), str(path))

    monkeypatch.setattr("mmsearch.hubs.atomic_write", refuse)
    fill(engine, toy)
    engine.set_bank(list(TEXTS))
    assert hubs_files(engine) == []
    assert said(open_engine()) == said(engine)


@pytest.mark.usefixtures("large")
def test_biases_of_spaces_that_are_gone_go_too(engine, toy):
    fill(engine, toy)
    engine.set_bank(list(TEXTS))
    engine.remove(["red disc 0"])
    engine.rebuild()
    said(engine)
    assert hubs_files(engine) == ["1-picture-1.hubs"]
    engine.reindex(toy.ToyEncoder(seed=5))
    said(engine)
    assert len(hubs_files(engine)) == 1


@pytest.mark.usefixtures("large")
def test_long_work_is_reported_and_may_be_interrupted(engine, toy, monkeypatch):
    monkeypatch.setattr("mmsearch.hubs._CHUNK", 2)
    fill(engine, toy)
    engine.set_bank(["a disc"])
    before, steps = said(engine), []
    engine.set_bank(list(TEXTS), progress=steps.append)
    assert [(step.done, step.total) for step in steps if step.total == 36] == [(0, 36), (16, 36), (32, 36)]
    engine.set_bank(["a disc"])

    def interrupt(step):
        if step.done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.set_bank(["a square", "a triangle"], progress=interrupt)
    assert said(engine) == before
