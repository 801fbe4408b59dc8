"""What every encoder promises, tested on each of them: the embedded model and open_clip models, on both runtimes."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmsearch.encoders import load_encoder
from mmsearch.errors import InvalidInput
from mmsearch.protocols import CellEncoder, Encoder

VIT = {"image_size": 32, "layers": 2, "width": 32, "patch_size": 8, "head_width": 16}
TIMM = {
    "image_size": 32,
    "timm_model_name": "test_efficientnet",
    "timm_model_pretrained": False,
    "timm_pool": "avg",
    "timm_proj": "linear",
}
COCA_VIT = VIT | {"attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True}
COCA_TEXT = {"context_length": 76, "embed_cls": True, "output_tokens": True}
COCA_DECODER = {"context_length": 76, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1, "attn_pooler_heads": 2}
MODELS = {  # vision_cfg, text_cfg, the rest of model_cfg
    "clip": (VIT, {}, {}),
    "timm tower": (TIMM, {"context_length": 32}, {}),
    "as SigLIP": (VIT, {"no_causal_mask": True, "pool_type": "last", "proj_bias": True}, {"custom_text": True}),
    "CoCa": (COCA_VIT, COCA_TEXT, {"custom_text": True, "multimodal_cfg": COCA_DECODER}),
    "own tokenizer": (VIT, {"context_length": 32, "tokenizer_kwargs": {"clean": "whitespace"}}, {}),
}
TEXTS = ["a dog", "two red bicycles by the sea", "ONE two-three 'four' don't 12345", "日本語 🙂", "a cat", "fog"] * 4
ODD_TEXTS = {
    "empty": "",
    "white space": " \t\n ",
    "end of text": "a dog <end_of_text> a cat",
    "start of text": "<start_of_text>",
    "NUL": "a\x00dog\x00",
    "lone surrogate": "a dog \ud800 in the \udfff park",
    "emoji": "👩‍👩‍👧 🇩🇪 😀" * 30,
    "one endless word": "dog" * 7000,
    "many words": "a dog and " * 2000,
    "entities": "&lt;b&gt; &amp;amp; &#x1F600;",
    "right to left": "كلب أحمر שלום",
    "control letters": "".join(map(chr, range(32))),
}


def write_model(folder, vision, text, rest):
    """A model of random weights, small enough for tests, as open_clip's ``local-dir`` holds it."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2} | text
    preprocess = {"size": [32, 32], "mean": [0.5, 0.4, 0.3], "std": [0.3, 0.4, 0.5], "resize_mode": "shortest"}
    config = {
        "model_cfg": {"embed_dim": 32, "vision_cfg": vision, "text_cfg": text} | rest,
        "preprocess_cfg": preprocess,
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config), "utf-8")
    torch.manual_seed(1)
    weights = open_clip.create_model(f"local-dir:{folder}").state_dict()
    save_file({key: value.contiguous() for key, value in weights.items()}, folder / "open_clip_model.safetensors")
    return f"local-dir:{folder}"


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    """Loads an encoder by its name here, once."""
    loaded = {}
    root = tmp_path_factory.mktemp("models")

    def load_once(name):
        if name not in loaded:
            model, _, runtime = name.partition(", ")
            if model == "mini":
                loaded[name] = load_encoder("mini", runtime=runtime, device="cpu" if runtime == "torch" else None)
            else:
                path = write_model(root / name / "model", *MODELS[model])
                loaded[name] = load_encoder(path, runtime=runtime, cache=root / name / "cache")
        return loaded[name]

    return load_once


ENCODERS = ["mini, onnx", "mini, torch", "timm tower, onnx", *(f"{name}, torch" for name in MODELS)]


@pytest.fixture(scope="module", params=ENCODERS)
def encoder(request, load):
    return load(request.param)


@pytest.fixture(scope="module")
def tolerance(encoder):
    """How far numbers may lie apart that ought to be equal: bit for bit through ONNX Runtime."""
    return 0.0 if encoder.runtime.startswith("onnxruntime") else 1e-5


def pictures(n=11):
    """Soft blobs of colour in many sizes, as decoded photographs are."""
    rng = np.random.default_rng(3)
    sizes = rng.integers(20, 300, (n, 2))
    return [
        Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)).resize(
            (int(w), int(h)), Image.Resampling.BICUBIC
        )
        for w, h in sizes
    ]


def assert_unit_rows(rows, shape):
    assert rows.shape == shape
    assert rows.dtype == np.float32
    assert np.isfinite(rows).all()
    assert np.allclose(np.linalg.norm(rows, axis=-1), 1.0, atol=1e-5)


def test_an_encoder_satisfies_the_protocol_and_says_what_it_is(encoder):
    assert isinstance(encoder, Encoder)
    assert encoder.name
    assert encoder.licence
    assert encoder.runtime
    assert encoder.dim == encoder.encode_texts(["a dog"]).shape[1]
    assert encoder.image_size == max(encoder.prepare(pictures(1)[0]).shape[:2])


def test_texts_become_unit_rows(encoder):
    assert_unit_rows(encoder.encode_texts(TEXTS), (len(TEXTS), encoder.dim))


def test_pictures_become_unit_rows(encoder):
    images = pictures()
    assert_unit_rows(encoder.encode_images(images), (len(images), encoder.dim))


def test_different_inputs_get_different_rows_and_equal_ones_equal_rows(encoder, tolerance):
    texts = encoder.encode_texts(TEXTS)
    assert len(np.unique(texts[:6].round(4), axis=0)) == 6
    assert np.abs(texts[:6] - texts[6:12]).max() <= tolerance
    assert len(np.unique(encoder.encode_images(pictures()).round(4), axis=0)) == len(pictures())


def test_no_texts_and_no_pictures_give_no_rows(encoder):
    assert_unit_rows(encoder.encode_texts([]), (0, encoder.dim))
    assert_unit_rows(encoder.encode_images([]), (0, encoder.dim))


def test_a_text_gets_the_same_row_alone_and_in_a_batch_of_any_size(encoder, tolerance):
    alone = np.concatenate([encoder.encode_texts([text]) for text in TEXTS[:6]] * 4)
    for n in (2, 3, 7, 24):
        assert np.abs(encoder.encode_texts(TEXTS[:n]) - alone[:n]).max() <= tolerance


def test_a_picture_gets_the_same_row_alone_and_in_a_batch_of_any_size(encoder, tolerance):
    images = pictures()
    alone = np.concatenate([encoder.encode_images([image]) for image in images])
    for n in (2, 3, 8, len(images)):
        assert np.abs(encoder.encode_images(images[:n]) - alone[:n]).max() <= tolerance


def test_the_same_call_gives_the_same_answer(encoder):
    assert (encoder.encode_texts(TEXTS) == encoder.encode_texts(TEXTS)).all()
    assert (encoder.encode_images(pictures(3)) == encoder.encode_images(pictures(3))).all()


def test_prepared_pictures_get_the_rows_of_the_pictures(encoder):
    images = pictures(5)
    prepared = [encoder.prepare(image) for image in images]
    assert all(pixels.dtype == np.uint8 for pixels in prepared)
    assert (encoder.encode_images(prepared) == encoder.encode_images(images)).all()
    assert all((encoder.prepare(pixels) == pixels).all() for pixels in prepared)


def test_preparing_and_encoding_leave_a_picture_as_it_was(encoder):
    image = pictures(1)[0]
    before = image.tobytes()
    encoder.prepare(image)
    encoder.encode_images([image])
    assert image.tobytes() == before


@pytest.mark.parametrize("text", ODD_TEXTS.values(), ids=ODD_TEXTS.keys())
def test_odd_texts_get_a_usable_row(encoder, text):
    assert_unit_rows(encoder.encode_texts([text, "a dog"]), (2, encoder.dim))


@pytest.mark.parametrize("token", ["<end_of_text>", "<start_of_text>"])
def test_a_special_token_does_not_hide_what_follows_it(encoder, token):
    cut, dog, cat = encoder.encode_texts([f"a dog {token}", f"a dog {token} a fish", f"a dog {token} a cat"])
    assert np.abs(dog - cat).max() > 1e-3
    assert np.abs(dog - cut).max() > 1e-3


@pytest.mark.parametrize("value", [None, 3, b"a dog", ["a dog"]], ids=repr)
def test_what_is_no_text_is_refused(encoder, value):
    with pytest.raises(InvalidInput, match="expected a str as text"):
        encoder.encode_texts(["a dog", value])


def test_one_text_in_place_of_a_list_is_refused(encoder):
    with pytest.raises(InvalidInput, match=r"expected a list of texts, got one str.*\['dog'\]"):
        encoder.encode_texts("dog")


def test_pixels_of_another_size_are_refused(encoder):
    with pytest.raises(InvalidInput, match="expected pixels"):
        encoder.encode_images([np.zeros((7, 9, 3), dtype=np.uint8)])


@pytest.mark.parametrize("text", ["a dog", "", "Two Red bicycles, by the sea!", "&amp;" + "amp;" * 9 + "lt;"])
def test_a_text_that_fits_is_one_piece_with_the_row_of_the_text(encoder, text):
    assert encoder.split_text(text) == [text]


def test_pieces_of_a_long_text_cover_its_words_in_order(encoder):
    words = [
        f"{colour} {thing} {n}" for n, colour in enumerate(["red", "green", "blue"] * 20) for thing in ("dog", "cat")
    ]
    text = " and ".join(words)
    pieces = encoder.split_text(text)
    covered, start = 0, 0
    for piece in pieces:
        start = text.index(piece, start)
        assert not text[covered:start].strip()
        covered = max(covered, start + len(piece))
    assert covered == len(text)
    assert len(pieces) > 1


LONG_TEXTS = {
    "words": "unforgettably photogenic harbour fences and " * 40,
    "digits": "1234567890 " * 60,
    "no spaces": "".join(np.random.default_rng(0).choice(list("一只红色的狗在海边追逐自行车"), 300)),
    "emoji": "".join(np.random.default_rng(0).choice(list("😀🐶🚲🌊🎈"), 300)),
    "one endless word": "".join(np.random.default_rng(0).choice(list("abcdefghijklmnopqrstuvwxyz"), 2000)),
}


@pytest.mark.parametrize("text", LONG_TEXTS.values(), ids=LONG_TEXTS.keys())
def test_each_piece_fits_the_context_so_that_nothing_of_it_is_cut_off(encoder, text):
    pieces = encoder.split_text(text)
    assert len(pieces) > 1
    assert [piece for piece in pieces if _is_cut_off(encoder, piece)] == []


def _is_cut_off(encoder, piece):
    """Whether the piece has no room for its last letter, so that it makes no difference."""
    whole, shorter = encoder.tokenize([piece, piece[:-1]])
    return bool((whole == shorter).all())


def test_the_fingerprint_is_the_same_at_every_load(encoder, load):
    again = load_encoder(encoder.name, runtime="torch", device="cpu")
    assert again.fingerprint == encoder.fingerprint
    assert again.name == encoder.name
    assert again.licence == encoder.licence


# Cells ----------------------------------------------------------------------------------------------------------


CELL_ENCODERS = ["mini, onnx", "mini, torch", "clip, onnx", "clip, torch"]


@pytest.fixture(scope="module", params=CELL_ENCODERS)
def cell_encoder(request, load):
    return load(request.param)


@pytest.fixture(scope="module")
def cell_tolerance(cell_encoder):
    """As ``tolerance``."""
    return 0.0 if cell_encoder.runtime.startswith("onnxruntime") else 1e-5


def test_pictures_become_unit_rows_of_the_whole_and_of_each_cell(cell_encoder):
    assert isinstance(cell_encoder, CellEncoder)
    assert cell_encoder.n_cells > 1
    vectors, cells = cell_encoder.encode_cells(pictures(3))
    assert_unit_rows(vectors, (3, cell_encoder.dim))
    assert_unit_rows(cells, (3, cell_encoder.n_cells, cell_encoder.cell_dim))


def test_no_pictures_give_no_cells(cell_encoder):
    vectors, cells = cell_encoder.encode_cells([])
    assert_unit_rows(vectors, (0, cell_encoder.dim))
    assert_unit_rows(cells, (0, cell_encoder.n_cells, cell_encoder.cell_dim))


def test_a_picture_gets_the_same_cells_alone_and_in_a_batch(cell_encoder, cell_tolerance):
    images = pictures(9)
    alone = [np.concatenate(rows) for rows in zip(*(cell_encoder.encode_cells([i]) for i in images), strict=True)]
    for n in (2, 5, len(images)):
        for rows, expected in zip(cell_encoder.encode_cells(images[:n]), alone, strict=True):
            assert np.abs(rows - expected[:n]).max() <= cell_tolerance


def test_pictures_prepared_for_cells_get_the_rows_of_the_pictures(cell_encoder):
    images = pictures(4)
    prepared = [cell_encoder.prepare_cells(image) for image in images]
    assert {pixels.shape for pixels in prepared} == {(cell_encoder.cell_size, cell_encoder.cell_size, 3)}
    for rows, expected in zip(cell_encoder.encode_cells(prepared), cell_encoder.encode_cells(images), strict=True):
        assert (rows == expected).all()


def test_a_picture_that_is_read_no_more_closely_has_the_vector_that_it_has_without_cells(load):
    for name in ("clip, onnx", "clip, torch"):
        encoder = load(name)
        assert encoder.cell_size == encoder.image_size
        vectors, _ = encoder.encode_cells(pictures(3))
        assert (vectors * encoder.encode_images(pictures(3))).sum(axis=1).min() >= 0.9999


@pytest.mark.parametrize("model", ["mini", "clip"])
def test_cells_and_words_are_the_same_on_both_runtimes(load, model):
    onnx, torch = (load(f"{model}, {runtime}") for runtime in ("onnx", "torch"))
    for ours, theirs in zip(onnx.encode_cells(pictures(4)), torch.encode_cells(pictures(4)), strict=True):
        assert (ours * theirs).sum(axis=-1).min() >= 0.9999
    for ours, theirs in zip(onnx.encode_words(TEXTS[:6]), torch.encode_words(TEXTS[:6]), strict=True):
        assert ours.words == theirs.words
        assert (ours.of == theirs.of).all()
        assert (ours.rows * theirs.rows).sum(axis=1).min() >= 0.9999


def test_a_vision_transformer_has_a_cell_for_each_patch_in_the_space_of_its_vectors(load):
    for name in ("clip, onnx", "clip, torch"):
        encoder = load(name)
        n_patches = (VIT["image_size"] // VIT["patch_size"]) ** 2
        assert encoder.encode_cells(pictures(2))[1].shape == (2, n_patches, encoder.dim)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ()),
        ("a dog", ("a", "dog")),
        ("Two RED bicycles, by the sea!", ("two", "red", "bicycles", ",", "by", "the", "sea", "!")),
        ("Größe photorealistisch", ("größe", "photorealistisch")),
        ("日本語 🙂", ("日本語", "🙂")),
        ("собака ёж", ("собака", "ёж")),
    ],
)
def test_the_words_of_a_text_are_whole_however_many_tokens_they_take(cell_encoder, text, words):
    (read,) = cell_encoder.encode_words([text])
    assert read.words == words
    assert_unit_rows(read.rows, (len(read.of), cell_encoder.cell_dim))
    assert len(read.of) == max(0, int((cell_encoder.tokenize([text]) != 0).sum()) - 2)
    assert sorted(set(read.of.tolist())) == list(range(len(words)))
    assert (np.diff(read.of) >= 0).all()


def test_words_that_the_context_cuts_off_are_not_there(cell_encoder):
    (read,) = cell_encoder.encode_words(["dog " * 500])
    assert set(read.words) == {"dog"}
    assert len(read.words) == len(read.rows) == cell_encoder.spec.context - 2


def test_a_text_has_the_same_words_alone_and_among_any_number_of_texts(cell_encoder, cell_tolerance):
    texts = [f"{text} {n}" for n in range(20) for text in TEXTS[:6]]
    together = cell_encoder.encode_words([*texts, texts[0]])
    cell_encoder.encode_words([f"another text {n}" for n in range(300)])  # these texts push the others out of memory
    for text, read in zip([*texts[::9], texts[0]], [*together[:-1:9], together[-1]], strict=True):
        (alone,) = cell_encoder.encode_words([text])
        assert alone is not read
        assert alone.words == read.words
        assert np.abs(alone.rows - read.rows).max() <= cell_tolerance


def test_no_texts_have_no_words(cell_encoder):
    assert cell_encoder.encode_words([]) == []


@pytest.mark.parametrize("value", [None, 3, b"a dog"], ids=repr)
def test_what_is_no_text_has_no_words(cell_encoder, value):
    with pytest.raises(InvalidInput, match="expected a str as text"):
        cell_encoder.encode_words(["a dog", value])


def test_the_words_of_texts_that_were_just_encoded_cost_no_second_run(cell_encoder, monkeypatch):
    texts = [f"a query about {n} dogs" for n in range(5)]
    cell_encoder.encode_texts(texts)
    ran = []
    for name in ("run_texts", "run_words"):
        monkeypatch.setattr(cell_encoder, name, ran.append)
    assert len(cell_encoder.encode_words(texts)) == 5
    assert ran == []


def test_a_text_has_one_vector_whether_its_words_are_read_or_not(cell_encoder, cell_tolerance):
    ids = cell_encoder.tokenize(TEXTS[:6])
    assert np.abs(cell_encoder.run_words(ids)[0] - cell_encoder.run_texts(ids)).max() <= cell_tolerance


@pytest.mark.parametrize("name", ["timm tower, onnx", "timm tower, torch", "own tokenizer, torch"])
def test_a_model_without_cells_says_so(load, name):
    encoder = load(name)
    assert encoder.n_cells == 0
    with pytest.raises(InvalidInput, match="has no cells"):
        encoder.encode_cells(pictures(1))
    with pytest.raises(InvalidInput, match="has no cells"):
        encoder.encode_words(["a dog"])


@pytest.mark.parametrize("name", ["clip, onnx", "clip, torch", "timm tower, torch"])
def test_a_model_without_a_joint_model_says_so(load, name):
    encoder = load(name)
    assert encoder.joint == (0, 0)
    with pytest.raises(InvalidInput, match="has no joint model"):
        encoder.encode_joint(pictures(1))
    with pytest.raises(InvalidInput, match="has no joint model"):
        encoder.match("a dog", np.zeros((1, 49, 256), dtype=np.float32))


def test_a_model_runs_the_same_through_onnx_runtime_and_torch(load):
    onnx = load("timm tower, onnx")
    torch = load_encoder(onnx.name, runtime="torch", device="cpu")
    assert onnx.fingerprint == torch.fingerprint
    assert onnx.licence == torch.licence
    assert Path(onnx.folder).is_dir()
    assert (onnx.encode_texts(TEXTS) * torch.encode_texts(TEXTS)).sum(axis=1).min() >= 0.9999
    assert (onnx.encode_images(pictures()) * torch.encode_images(pictures())).sum(axis=1).min() >= 0.9999
