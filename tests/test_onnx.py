"""The embedded model and its export: the vectors of the reference, and never wrong ones from a damaged file."""

import hashlib
import json
import os
import re
import shutil
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageDraw

from mmsearch.encoders import load_encoder
from mmsearch.encoders.builtin import mini_check_vectors, mini_checksums, mini_folder, mini_spec
from mmsearch.encoders.onnx import OnnxEncoder
from mmsearch.errors import MMSearchError, ModelBroken
from mmsearch.images import open_picture

FILES = ["text.onnx", "image.onnx", "cells.onnx", "joint.onnx", "match.onnx", "tokenizer.json"]
TEXTS = [
    "a brown dog runs on the beach",
    "two children in red coats",
    "zebra",
    "Größe 42!",
    "日本語 🙂",
    "",
    "a b c " * 40,
]


def photograph(seed, width=600, height=400):
    """Looks like a photograph to a resampler: detail at every scale, soft edges, and a few sharp ones."""
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width, 3))
    for octave in range(2, 8):
        grid = rng.normal(0, 90 / octave, (2**octave * 2 // 3 + 1, 2**octave, 3))
        layers = [Image.fromarray(grid[..., c]).resize((width, height), Image.Resampling.BICUBIC) for c in range(3)]
        total += np.stack([np.asarray(layer) for layer in layers], axis=2)
    image = Image.fromarray((total + 120).clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(4):
        x, y, size = rng.integers(0, width), rng.integers(0, height), rng.integers(width // 20, width // 4)
        draw.ellipse((x, y, x + size, y + size), fill=tuple(int(level) for level in rng.integers(0, 256, 3)))
    return image


@pytest.fixture(scope="module")
def exported():
    encoder = load_encoder("mini")
    assert isinstance(encoder, OnnxEncoder)
    return encoder


@pytest.fixture(scope="module")
def reference():
    return load_encoder("mini", runtime="torch", device="cpu", precision="fp32")


@pytest.fixture
def copy(exported, tmp_path):
    """A cache that holds a copy of the export, to damage; and its folder in there."""
    cache = tmp_path / "cache"
    folder = cache / "encoders" / exported.folder.name
    shutil.copytree(exported.folder, folder, copy_function=os.link)
    return cache, folder


def rewrite(file, change):
    """Replace a file by a changed copy; other links to the old one keep their bytes."""
    data = bytearray(file.read_bytes())
    data = change(data) or data
    file.unlink()
    file.write_bytes(data)


def least_cosine(a, b):
    return float((a * b).sum(axis=1).min())


# What is shipped ------------------------------------------------------------------------------------------------


def test_the_shipped_files_have_the_stored_checksums():
    sums = mini_checksums()
    found = {name: hashlib.sha256((mini_folder() / name).read_bytes()).hexdigest() for name in sums}
    assert found == sums
    assert {"open_clip_model.safetensors", "open_clip_config.json"} <= set(sums)


def test_the_stored_fingerprint_is_the_one_of_the_shipped_weights(exported, reference):
    assert reference.fingerprint == mini_spec().fingerprint
    assert exported.fingerprint == mini_spec().fingerprint
    assert reference.spec == mini_spec()
    assert exported.spec == mini_spec()


def test_the_stored_specification_agrees_with_the_shipped_config():
    config = json.loads((mini_folder() / "open_clip_config.json").read_text("utf-8"))
    assert mini_spec().dim == config["model_cfg"]["embed_dim"]
    assert mini_spec().context == config["model_cfg"]["text_cfg"]["context_length"]
    assert list(mini_spec().preprocess.size) == config["preprocess_cfg"]["size"]
    assert list(mini_spec().preprocess.mean) == config["preprocess_cfg"]["mean"]


def test_the_embedded_model_states_its_terms(exported, reference):
    assert exported.name == reference.name == "mini"
    assert "non-commercial" in exported.licence
    assert exported.licence == reference.licence


def test_both_runtimes_give_the_stored_check_vectors(exported, reference):
    for encoder in (exported, reference):
        texts, images = encoder.check_vectors()
        stored_texts, stored_images = mini_check_vectors()
        assert least_cosine(texts, stored_texts) >= 0.9999
        assert least_cosine(images, stored_images) >= 0.9999


def test_half_precision_has_the_same_fingerprint(reference):
    half = load_encoder("mini", device="cpu", precision="bf16")
    assert half.fingerprint == reference.fingerprint
    assert half.runtime != reference.runtime
    assert least_cosine(half.encode_texts(TEXTS), reference.encode_texts(TEXTS)) >= 0.99


# Faithful -------------------------------------------------------------------------------------------------------


def test_texts_have_the_vectors_of_the_reference(exported, reference):
    assert (exported.tokenize(TEXTS) == reference.tokenize(TEXTS)).all()
    assert least_cosine(exported.encode_texts(TEXTS), reference.encode_texts(TEXTS)) >= 0.9999


def test_pictures_have_the_vectors_of_the_reference(exported, reference):
    noise = np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), dtype=np.uint8)
    plain = [np.full((224, 224, 3), level, dtype=np.uint8) for level in (0, 255)]
    pictures = [*(photograph(seed) for seed in range(6)), *noise, *plain]
    assert least_cosine(exported.encode_images(pictures), reference.encode_images(pictures)) >= 0.9999


@pytest.mark.parametrize("seed", [7, 8, 9])
def test_a_jpeg_decoded_at_a_reduced_size_has_nearly_the_vector_of_the_whole_one(exported, seed):
    buffer = BytesIO()
    photograph(seed, 750, 500).resize((3000, 2000), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    whole = open_picture(buffer.getvalue()).image
    reduced = open_picture(buffer.getvalue(), min_side=exported.image_size).image
    assert reduced.width < whole.width
    assert min(reduced.size) >= 2 * exported.image_size
    assert least_cosine(exported.encode_images([reduced]), exported.encode_images([whole])) >= 0.999


def test_two_loads_of_one_export_give_the_same_bits(exported):
    again = OnnxEncoder(exported.folder)
    pictures = [photograph(seed) for seed in range(2)]
    assert (again.encode_texts(TEXTS) == exported.encode_texts(TEXTS)).all()
    assert (again.encode_images(pictures) == exported.encode_images(pictures)).all()


# Damaged --------------------------------------------------------------------------------------------------------


def test_a_truncated_export_is_made_again(copy, reference):
    cache, folder = copy
    rewrite(folder / "text.onnx", lambda data: data[:-1])
    with pytest.raises(ModelBroken, match=r"text\.onnx"):
        OnnxEncoder(folder)
    again = load_encoder("mini", cache=cache)
    assert again.runtime.startswith("onnxruntime")
    assert least_cosine(again.encode_texts(TEXTS), reference.encode_texts(TEXTS)) >= 0.9999
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def use_all(folder):
    """Use everything that an export in this folder offers."""
    encoder = OnnxEncoder(folder)
    encoder.encode_texts(TEXTS)
    encoder.encode_images([photograph(1)])
    encoder.encode_cells([photograph(1)])
    encoder.match("a dog", encoder.encode_joint([photograph(1)]))


def refuse(folder):
    """Using an export in this folder must end in ModelBroken; this is what it says."""
    with pytest.raises(ModelBroken) as caught:
        use_all(folder)
    return str(caught.value)


@pytest.mark.parametrize("name", [*FILES, "export.json"])
def test_a_missing_or_empty_file_is_noticed(copy, name):
    _, folder = copy
    (folder / name).unlink()
    assert str(folder) in refuse(folder)
    (folder / name).write_bytes(b"")
    assert str(folder) in refuse(folder)


@pytest.mark.parametrize("card", ["{", "[]", "null", "{}", '{"spec": {}}', '{"spec": null, "sizes": {}}'])
def test_a_card_that_cannot_be_read_is_noticed(copy, card):
    _, folder = copy
    rewrite(folder / "export.json", lambda _: card.encode())
    assert "cannot be read" in refuse(folder)


@pytest.mark.parametrize("key", ["check_texts", "check_images"])
def test_wrong_check_vectors_are_noticed_and_the_message_says_what_to_do(copy, key):
    _, folder = copy
    card = json.loads((folder / "export.json").read_text("utf-8"))
    card[key] = np.roll(card[key], 1, axis=1).tolist()
    rewrite(folder / "export.json", lambda _: json.dumps(card).encode())
    message = refuse(folder)
    assert "mmsearch doctor" in message or "again" in message


def flip(data, start=0.2, end=0.8):
    for place in range(int(len(data) * start), int(len(data) * end), max(1, len(data) // 5000)):
        data[place] ^= 0xFF


@pytest.mark.parametrize("name", FILES)
def test_flipped_bytes_are_noticed(copy, name):
    _, folder = copy
    rewrite(folder / name, flip)
    assert refuse(folder)


def right_or_refused(load, reference, texts):
    """Whether an encoder gives the reference's vectors or none at all."""
    try:
        vectors = load().encode_texts(texts)
    except MMSearchError:
        return True
    return least_cosine(vectors, reference.encode_texts(texts)) >= 0.999


def test_damage_to_a_word_that_no_check_text_has_gives_no_wrong_vectors(copy, reference):
    cache, folder = copy
    zebra = int(reference.tokenize(["zebra"])[0, 1])
    row = reference.model.token_embedding.weight[zebra].detach().numpy().tobytes()

    def damage(data):
        place = data.index(row)
        data[place : place + len(row)] = row[::-1]

    rewrite(folder / "text.onnx", damage)
    assert right_or_refused(lambda: load_encoder("mini", cache=cache), reference, ["zebra"])


def test_two_words_exchanged_in_the_tokenizer_give_no_wrong_vectors(copy, reference):
    cache, folder = copy

    def exchange(data):
        zebra, tiger = (re.search(rb'"%s</w>":(\d+)' % word, data) for word in (b"zebra", b"tiger"))
        for place, number in ((zebra, tiger[1]), (tiger, zebra[1])):
            data[place.start(1) : place.end(1)] = number

    rewrite(folder / "tokenizer.json", exchange)
    assert right_or_refused(lambda: load_encoder("mini", cache=cache), reference, ["zebra"])


def test_damage_that_is_found_after_the_start_mends_itself(copy, exported, reference):
    cache, folder = copy
    encoder = load_encoder("mini", cache=cache)
    for name in ("cells.onnx", "joint.onnx", "match.onnx"):
        rewrite(folder / name, flip)
    (folder / "text.onnx").unlink()
    for _ in range(2):
        assert least_cosine(encoder.encode_texts(TEXTS), reference.encode_texts(TEXTS)) >= 0.9999
        for rows, expected in zip(*(one.encode_cells([photograph(1)]) for one in (encoder, exported)), strict=True):
            assert (rows * expected).sum(axis=-1).min() >= 0.9999
        logits = [one.match("a dog", one.encode_joint([photograph(1)])) for one in (encoder, exported)]
        assert np.abs(logits[0] - logits[1]).max() <= 1e-3
    load_encoder("mini", cache=cache).verify()
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_wrong_check_vectors_of_the_embedded_model_mend_themselves(copy, reference):
    cache, folder = copy
    card = json.loads((folder / "export.json").read_text("utf-8"))
    card["check_texts"] = np.roll(card["check_texts"], 1, axis=1).tolist()
    rewrite(folder / "export.json", lambda _: json.dumps(card).encode())
    encoder = load_encoder("mini", cache=cache)
    assert least_cosine(encoder.encode_texts(TEXTS), reference.encode_texts(TEXTS)) >= 0.9999


@pytest.mark.parametrize(
    ("key", "value"),
    [("context", 31), ("licence", "MIT"), ("cells", [0, 0]), ("joint", [0, 0]), ("reranker", "0" * 16)],
)
def test_a_card_whose_facts_were_changed_is_made_again(copy, key, value):
    cache, folder = copy
    card = json.loads((folder / "export.json").read_text("utf-8"))
    card["spec"][key] = value
    rewrite(folder / "export.json", lambda _: json.dumps(card).encode())
    assert load_encoder("mini", cache=cache).spec == mini_spec()


# Caches ---------------------------------------------------------------------------------------------------------


def test_a_cache_that_cannot_be_written_leaves_torch(tmp_path, exported):
    (tmp_path / "file").write_text("no folder", "utf-8")
    encoder = load_encoder("mini", cache=tmp_path / "file" / "cache")
    assert encoder.runtime.startswith("torch")
    assert encoder.fingerprint == exported.fingerprint
    assert least_cosine(encoder.encode_texts(TEXTS), exported.encode_texts(TEXTS)) >= 0.9999


def test_a_full_disk_leaves_torch(tmp_path, exported):
    resource = pytest.importorskip("resource", reason="only POSIX systems limit the size of files")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))
    try:
        encoder = load_encoder("mini", cache=tmp_path / "cache")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert encoder.runtime.startswith("torch")
    assert encoder.fingerprint == exported.fingerprint
    assert list((tmp_path / "cache").rglob("*.onnx")) == []


def test_the_embedded_model_keeps_its_name_and_cells_when_its_folder_is_loaded_as_any_other_model(copy):
    cache, _ = copy
    other = load_encoder(f"local-dir:{mini_folder()}", runtime="onnx", cache=cache)
    assert other.name == f"local-dir:{mini_folder()}"
    mini = load_encoder("mini", cache=cache)
    assert mini.name == "mini"
    assert mini.licence == mini_spec().licence
    assert mini.n_cells == mini_spec().cells[0]


def test_a_second_load_leaves_the_cache_as_it_is(copy):
    cache, _ = copy
    files = {path: path.stat().st_mtime_ns for path in cache.rglob("*")}
    load_encoder("mini", cache=cache).encode_texts(TEXTS)
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*")} == files
