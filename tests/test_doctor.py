"""``doctor``: silence for a healthy store, one finding with advice for each damage, and never a crash of its own."""

import hashlib
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmsearch import Engine, Item
from mmsearch.doctor import BAD, GOOD, NOTE, Finding, examine

OURS = ("store", "catalog", "vectors", "items", "index", "failures", "folders")
"""Subjects that are about the store and not about the installation."""


class ToyEncoder:
    """Vectors from a hash of the text or the pixels."""

    name = "toy"
    licence = "none"
    runtime = "numpy"
    fingerprint = "toy-1"
    image_size = 8
    dim = 24

    def encode_texts(self, texts):
        return self._rows([text.encode() for text in texts])

    def encode_images(self, images):
        return self._rows([np.asarray(image).tobytes() for image in images])

    def prepare(self, image):
        return np.asarray(image.convert("RGB"))

    def split_text(self, text):
        return [text]

    def _rows(self, contents):
        seeds = [int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big") for content in contents]
        rows = np.array([np.random.default_rng(seed).standard_normal(self.dim) for seed in seeds], dtype=np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    folder = tmp_path_factory.mktemp("template")
    (folder / "pictures").mkdir()
    for number in range(5):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "pictures" / f"{number}.png")
    with Engine.open(folder / "store", ToyEncoder()) as engine:
        engine.add_folder(folder / "pictures")
        engine.add([Item(id=f"t{n}", text=f"text {n}") for n in range(5000)])
    return folder


@pytest.fixture
def store(template, tmp_path):
    return shutil.copytree(template / "store", tmp_path / "store")


def findings(store: Path) -> list[Finding]:
    return [finding for finding in examine(store) if finding.subject in OURS]


def bad(store: Path) -> list[Finding]:
    return [finding for finding in findings(store) if finding.level == BAD]


def change(store: Path, *statements: str) -> None:
    """Change the catalog behind mmsearch's back."""
    with closing(sqlite3.connect(store / "catalog.sqlite")) as db:
        for statement in statements:
            db.execute(statement)
        db.commit()


def test_a_healthy_store_gives_no_finding_but_that_all_is_well(store):
    assert {finding.level for finding in findings(store)} == {GOOD}
    assert [finding for finding in examine(store) if finding.level == BAD] == []


def test_doctor_changes_nothing(store):
    before = {file: file.read_bytes() for file in store.rglob("*") if file.is_file()}
    findings(store)
    assert {file: file.read_bytes() for file in store.rglob("*") if file.is_file()} == before


def test_no_store_is_a_note_with_the_way_to_make_one(tmp_path):
    (finding,) = [finding for finding in examine(tmp_path / "none") if finding.subject == "store"]
    assert (finding.level, "mmsearch index" in finding.advice) == (NOTE, True)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(("row", "block"), [(0, 0), (4095, 0), (4096, 1), (4999, 1)])
def test_a_flipped_bit_in_the_vectors_is_found_in_its_block(store, row, block):
    file = store / "spaces" / "1-text-0.vectors"
    data = bytearray(file.read_bytes())
    data[row * 48 + 17] ^= 1
    file.write_bytes(data)
    (finding,) = bad(store)
    assert finding.subject == "vectors"
    assert "1-text-0.vectors" in finding.message
    assert f"blocks [{block}]" in finding.message
    assert "mmsearch reindex" in finding.advice


@pytest.mark.parametrize("harm", ["cut", "gone"])
def test_vectors_that_are_cut_or_gone_are_found_and_every_space_is_looked_at(store, harm):
    for field in ("picture", "text"):
        file = store / "spaces" / f"1-{field}-0.vectors"
        os.truncate(file, 5) if harm == "cut" else file.unlink()
    found = [finding for finding in bad(store) if finding.subject == "vectors"]
    assert all(finding.advice or "backup" in finding.message for finding in found)
    named = " ".join(finding.message for finding in found)
    assert "1-picture-0.vectors" in named
    assert "1-text-0.vectors" in named


def test_vectors_of_two_spaces_that_were_exchanged_are_found(store):
    one, other = store / "spaces" / "1-picture-0.vectors", store / "spaces" / "1-text-0.vectors"
    data = other.read_bytes()
    other.write_bytes(one.read_bytes() + data[len(one.read_bytes()) :])
    one.write_bytes(data)
    assert len(bad(store)) == 2


def test_items_that_point_behind_the_end_are_found(store):
    change(store, "UPDATE vectors SET row = 99999 WHERE space = 2 AND item = 7")
    (finding,) = bad(store)
    assert "1 items point behind its end" in finding.message
    assert finding.advice


def test_rows_that_belong_to_items_that_are_not_there_are_found(store):
    change(store, "PRAGMA foreign_keys = OFF", "DELETE FROM items WHERE id = 't7'")
    (finding,) = bad(store)
    assert finding.subject == "catalog"
    assert finding.advice


def test_a_missing_checksum_is_found(store):
    change(store, "DELETE FROM blocks WHERE space = 2 AND block = 1")
    (finding,) = bad(store)
    assert "blocks [1]" in finding.message


@pytest.mark.parametrize("harm", ["every page", "some page", "header", "cut", "empty", "gone"])
def test_a_damaged_catalog_is_found_with_advice_and_doctor_does_not_crash(store, harm):
    file = store / "catalog.sqlite"
    data = bytearray(file.read_bytes())
    match harm:
        case "every page":
            for start in range(4096, len(data), 4096):
                data[start : start + 64] = b"\xa5" * 64
        case "some page":
            data[20 * 4096 : 20 * 4096 + 64] = b"\xa5" * 64
        case "header":
            data[:16] = b"something else.."
        case "cut":
            del data[len(data) // 2 :]
        case "empty":
            data.clear()
    file.unlink() if harm == "gone" else file.write_bytes(data)
    found = bad(store)
    assert found
    for finding in found:
        words = f"{finding.message} {finding.advice}"
        assert "backup" in words or "index" in words


def test_items_without_vectors_are_noted_with_the_remedy(store):
    change(store, "DELETE FROM vectors WHERE item = 7")
    (finding,) = [finding for finding in findings(store) if finding.level != GOOD]
    assert finding.level == NOTE
    assert "1 items have no text vectors" in finding.message
    assert "mmsearch sync" in finding.advice
    with Engine.open(store, ToyEncoder()) as engine:
        engine.sync()
    assert {finding.level for finding in findings(store)} == {GOOD}


def test_pictures_and_folders_that_are_not_where_they_were_are_noted(template, tmp_path):
    shutil.copytree(template / "pictures", tmp_path / "pictures")
    with Engine.open(tmp_path / "store", ToyEncoder()) as engine:
        engine.add_folder(tmp_path / "pictures")
    (tmp_path / "pictures" / "0.png").unlink()
    (finding,) = [finding for finding in findings(tmp_path / "store") if finding.level != GOOD]
    assert (finding.level, finding.subject) == (NOTE, "items")
    assert "0.png" in finding.message
    shutil.rmtree(tmp_path / "pictures")
    noted = [finding for finding in findings(tmp_path / "store") if finding.level != GOOD]
    assert [finding.subject for finding in noted] == ["items", "folders"]
    assert all(finding.level == NOTE and finding.advice for finding in noted)


def test_files_that_could_not_be_added_are_noted_with_their_reason(store, tmp_path):
    (tmp_path / "mixed").mkdir()
    (tmp_path / "mixed" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbut no more")
    with Engine.open(store, ToyEncoder()) as engine:
        assert len(engine.add_folder(tmp_path / "mixed").failed) == 1
    (finding,) = [finding for finding in findings(store) if finding.level != GOOD]
    assert (finding.level, finding.subject) == (NOTE, "failures")
    assert "broken.png" in finding.message


def test_a_store_of_a_newer_version_is_one_finding(store):
    change(store, "PRAGMA user_version = 99")
    (finding,) = bad(store)
    assert "newer mmsearch" in finding.message


def test_a_folder_that_is_no_store_is_a_finding_and_left_alone(template):
    before = sorted((template / "pictures").iterdir())
    (finding,) = bad(template / "pictures")
    assert "no store" in finding.message
    assert sorted((template / "pictures").iterdir()) == before
