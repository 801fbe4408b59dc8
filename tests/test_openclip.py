"""open_clip models: never a random or a broken one, fingerprints that tell them apart, and the runtime that suits."""

import json
import os
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from mmsearch.encoders import export, load_encoder, openclip
from mmsearch.encoders.openclip import pick_device
from mmsearch.encoders.preprocess import Preprocess
from mmsearch.encoders.spec import EncoderSpec
from mmsearch.encoders.towers import Read, TowerEncoder, is_out_of_memory
from mmsearch.errors import InvalidInput, MissingDependency, MMSearchError, ModelBroken, ModelUnavailable
from mmsearch.types import Words

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
TEXT = {"context_length": 32, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
PREPROCESS = {"size": [32, 32], "mean": [0.5, 0.4, 0.3], "std": [0.3, 0.4, 0.5], "resize_mode": "shortest"}
WEIGHTS, CONFIG = "open_clip_model.safetensors", "open_clip_config.json"
TEXTS = ["a dog", "two red bicycles", "日本語 🙂"]


def write_model(folder, vision, text=None, **rest):
    """A model of random weights, small enough for tests, as open_clip's ``local-dir`` holds it."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    config = {"model_cfg": {"embed_dim": 32, "vision_cfg": vision, "text_cfg": TEXT | (text or {})} | rest}
    (folder / CONFIG).write_text(json.dumps(config | {"preprocess_cfg": PREPROCESS}), "utf-8")
    torch.manual_seed(1)
    weights = open_clip.create_model(f"local-dir:{folder}").state_dict()
    save_file({key: value.contiguous() for key, value in weights.items()}, folder / WEIGHTS)
    return folder


def change_config(folder, change):
    config = json.loads((folder / CONFIG).read_text("utf-8"))
    change(config)
    (folder / CONFIG).write_text(json.dumps(config), "utf-8")


def change_weights(folder, change):
    """Change the weights by name in place."""
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / WEIGHTS)
    change(weights)
    save_file(weights, folder / WEIGHTS)


def by_torch(folder, **options):
    return load_encoder(f"local-dir:{folder}", runtime="torch", **{"device": "cpu"} | options)


def pixels(n=4):
    return np.random.default_rng(1).integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)


def least_cosine(a, b):
    return float((a * b).sum(axis=1).min())


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Models this small only lose time to threads."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    """A plain CLIP model; not to be changed."""
    return write_model(tmp_path_factory.mktemp("shipped") / "clip", VIT)


@pytest.fixture(scope="module")
def shipped_timm(tmp_path_factory):
    """A model with a timm image tower; not to be changed."""
    return write_model(tmp_path_factory.mktemp("shipped") / "timm", TIMM)


@pytest.fixture(scope="module")
def reference(shipped):
    return by_torch(shipped)


@pytest.fixture(scope="module")
def reference_timm(shipped_timm):
    return by_torch(shipped_timm)


@pytest.fixture
def model(shipped, tmp_path):
    """A copy of the plain CLIP model, to change."""
    return shutil.copytree(shipped, tmp_path / "model")


@pytest.fixture
def timm_model(shipped_timm, tmp_path):
    return shutil.copytree(shipped_timm, tmp_path / "timm")


# Faithful -------------------------------------------------------------------------------------------------------


def test_vectors_are_those_of_open_clip_itself(shipped, reference):
    import open_clip
    import torch

    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{shipped}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{shipped}")
    images = [Image.fromarray(p).resize((90, 50)) for p in pixels()]
    with torch.inference_mode():
        texts = model.eval().encode_text(tokenizer(TEXTS), normalize=True).numpy()
        rows = model.encode_image(torch.stack([transform(image) for image in images]), normalize=True).numpy()
    assert np.abs(reference.encode_texts(TEXTS) - texts).max() < 1e-5
    assert np.abs(reference.encode_images(images) - rows).max() < 1e-3  # pixels are rounded to whole levels


def test_the_models_own_preprocessing_is_used(reference):
    assert reference.spec.preprocess.mean == (0.5, 0.4, 0.3)
    assert reference.spec.preprocess.std == (0.3, 0.4, 0.5)
    assert reference.spec.preprocess.resize_mode == "shortest"
    assert reference.image_size == 32


def test_loading_prints_nothing(model, tmp_path, capfd):
    load_encoder(f"local-dir:{model}", cache=tmp_path / "cache").encode_texts(TEXTS)
    shown = capfd.readouterr()
    assert shown.out == ""
    assert shown.err == ""


# Never a random or a broken model -----------------------------------------------------------------------------


def test_a_folder_without_weights_is_unavailable_and_never_random(model):
    (model / WEIGHTS).unlink()
    with pytest.raises(ModelUnavailable, match=WEIGHTS):
        by_torch(model)


def test_a_folder_without_a_config_is_unavailable(model):
    (model / CONFIG).unlink()
    with pytest.raises(ModelUnavailable, match=CONFIG):
        by_torch(model)


def test_a_folder_that_is_not_there_is_unavailable_by_its_name(tmp_path):
    with pytest.raises(ModelUnavailable, match="no such folder") as caught:
        load_encoder(f"local-dir:{tmp_path / 'nowhere'}", cache=tmp_path / "cache")
    assert "nowhere" in str(caught.value)


@pytest.mark.parametrize("config", ["", "{", "[]", "{}", '{"model_cfg": {}}', '{"model_cfg": 5}'])
def test_a_config_that_cannot_be_read_is_one_clear_error(model, config):
    (model / CONFIG).write_text(config, "utf-8")
    with pytest.raises(MMSearchError, match="model"):
        by_torch(model)


@pytest.mark.parametrize("keep", [0, 5, 1000, -1])
def test_truncated_weights_are_refused(model, keep):
    data = (model / WEIGHTS).read_bytes()
    (model / WEIGHTS).write_bytes(data[:keep])
    with pytest.raises((ModelUnavailable, ModelBroken), match="does not load"):
        by_torch(model)


def test_weights_that_lack_a_tensor_are_refused(model):
    change_weights(model, lambda weights: weights.pop("text_projection"))
    with pytest.raises((ModelUnavailable, ModelBroken), match="text_projection"):
        by_torch(model)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0])
@pytest.mark.parametrize(("key", "tower"), [("visual.proj", "image"), ("text_projection", "text")])
def test_weights_that_give_no_usable_vectors_are_broken_and_the_tower_is_named(model, key, tower, value):
    change_weights(model, lambda weights: weights[key].fill_(value))
    with pytest.raises(ModelBroken, match=f"{tower} tower") as caught:
        by_torch(model)
    assert "fetch the model again" in str(caught.value)


def test_a_text_tower_that_says_the_same_of_everything_is_broken(model):
    def flatten(weights):
        weights["token_embedding.weight"].zero_()
        weights["positional_embedding"].zero_()

    change_weights(model, flatten)
    with pytest.raises(ModelBroken, match="text tower"):
        by_torch(model)


class Malicious:
    """Unpickling this makes a file."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return open, (str(self.marker), "w")


@pytest.mark.parametrize("name", ["open_clip_pytorch_model.bin", "model.pth"])
def test_a_malicious_pickle_runs_nothing(model, tmp_path, name):
    import torch

    marker = tmp_path / "it ran"
    (model / WEIGHTS).unlink()
    torch.save({"state_dict": Malicious(marker)}, model / name)
    with pytest.raises((ModelUnavailable, ModelBroken), match="does not load"):
        by_torch(model)
    (model / name).write_bytes(pickle.dumps(Malicious(marker)))
    with pytest.raises((ModelUnavailable, ModelBroken), match="does not load"):
        by_torch(model)
    assert not marker.exists()


def test_a_tokenizer_that_cannot_be_had_is_named_and_not_called_missing_weights(model):
    change_config(model, lambda config: config["model_cfg"]["text_cfg"].update(hf_tokenizer_name="some/tokenizer"))
    with pytest.raises(MMSearchError, match=r"tokenizer|transformers"):
        by_torch(model)


def test_a_missing_package_is_named_with_what_installs_it(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)  # as if it were not installed
    change_config(model, lambda config: config["model_cfg"]["text_cfg"].update(hf_tokenizer_name="some/tokenizer"))
    with pytest.raises(MissingDependency, match=r"pip install 'mmsearch\[siglip\]'"):
        by_torch(model)


# Fingerprints -------------------------------------------------------------------------------------------------


def test_the_name_and_the_place_of_a_folder_are_no_part_of_the_fingerprint(reference, model):
    (model / "README.md").write_text("notes", "utf-8")
    moved = by_torch(model)
    assert moved.name != reference.name
    assert moved.fingerprint == reference.fingerprint


DIFFERENT = {
    "mean": lambda c: c["preprocess_cfg"].update(mean=[0.5, 0.4, 0.31]),
    "std": lambda c: c["preprocess_cfg"].update(std=[0.3, 0.4, 0.6]),
    "resize mode": lambda c: c["preprocess_cfg"].update(resize_mode="squash"),
    "interpolation": lambda c: c["preprocess_cfg"].update(interpolation="bilinear"),
    "quick_gelu": lambda c: c["model_cfg"].update(quick_gelu=True),
    "tokenizer": lambda c: c["model_cfg"]["text_cfg"].update(tokenizer_kwargs={"clean": "canonicalize"}),
    "heads of the text tower": lambda c: c["model_cfg"]["text_cfg"].update(heads=4),
    "heads of the image tower": lambda c: c["model_cfg"]["vision_cfg"].update(head_width=8),
    "kind of GELU": lambda c: c["model_cfg"]["text_cfg"].update(act_kwargs={"approximate": "tanh"}),
}


@pytest.mark.parametrize("change", DIFFERENT.values(), ids=DIFFERENT.keys())
def test_the_same_weights_used_differently_have_another_fingerprint(reference, model, change):
    change_config(model, change)
    assert by_torch(model).fingerprint != reference.fingerprint


@pytest.mark.parametrize("key", ["visual.conv1.weight", "token_embedding.weight"])
def test_one_changed_weight_makes_another_fingerprint(reference, model, key):
    change_weights(model, lambda weights: weights[key].view(-1)[:1].add_(0.01))
    assert by_torch(model).fingerprint != reference.fingerprint


def test_another_context_makes_another_fingerprint(reference, model):
    change_config(model, lambda c: c["model_cfg"]["text_cfg"].update(context_length=16))
    change_weights(model, lambda w: w.update(positional_embedding=w["positional_embedding"][:16].contiguous()))
    shorter = by_torch(model)
    assert shorter.tokenize(["a dog"]).shape == (1, 16)
    assert shorter.fingerprint != reference.fingerprint
    assert shorter.spec.tokenizer != reference.spec.tokenizer


def test_every_fact_of_the_specification_but_name_and_licence_changes_the_fingerprint(reference):
    facts = reference.spec.to_json()
    plain = EncoderSpec.from_json(json.loads(json.dumps(facts)))
    changed = {"dim": 31, "weights": "0" * 16, "tokenizer": "0" * 16, "activation": "quickgelu"}
    others = [EncoderSpec.from_json(facts | {key: value}) for key, value in changed.items()]
    for key, value in {"size": (24, 24), "fill_color": 9, "resize_mode": "longest"}.items():
        others.append(EncoderSpec.from_json(facts | {"preprocess": facts["preprocess"] | {key: value}}))
    assert plain.fingerprint == reference.fingerprint
    assert EncoderSpec.from_json(facts | {"name": "x", "licence": "y"}).fingerprint == reference.fingerprint
    assert len({plain.fingerprint, *(other.fingerprint for other in others)}) == len(others) + 1


# Precision and device -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("precision", "least"), [("bf16", 0.99), ("fp16", 0.999)])
def test_precision_changes_the_runtime_but_not_the_fingerprint_nor_much_the_vectors(
    shipped_timm, reference_timm, precision, least
):
    less = by_torch(shipped_timm, precision=precision)
    assert less.fingerprint == reference_timm.fingerprint
    assert less.runtime == f"torch cpu {precision}"
    for run, inputs in (("encode_texts", TEXTS), ("run_images", pixels())):
        full, rows = getattr(reference_timm, run)(inputs), getattr(less, run)(inputs)
        assert rows.dtype == np.float32
        assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
        assert least_cosine(full, rows) >= least


def test_naming_a_precision_or_a_device_means_torch(shipped, tmp_path):
    name = f"local-dir:{shipped}"
    assert load_encoder(name, precision="bf16", cache=tmp_path).runtime.startswith("torch")
    assert load_encoder(name, device="cpu", cache=tmp_path).runtime == "torch cpu fp32"
    assert list(tmp_path.iterdir()) == []


def test_a_device_that_is_not_here_is_refused(shipped):
    import torch

    absent = "mps" if torch.cuda.is_available() else "cuda"
    for device in (absent, f"{absent}:1", "toaster", "cuda:99"):
        with pytest.raises(InvalidInput, match=f"expected a device that is here, got '{device}'"):
            by_torch(shipped, device=device)


@pytest.mark.parametrize("precision", ["int8", "fp64", "", "FP32"])
def test_a_precision_that_does_not_exist_is_refused(shipped, precision):
    with pytest.raises(InvalidInput, match="expected a precision of fp32, bf16, fp16, got"):
        by_torch(shipped, precision=precision)


def test_a_model_that_overflows_in_half_precision_is_loaded_in_fp32_unless_half_was_asked_for(model, monkeypatch):
    change_weights(model, lambda weights: weights["visual.proj"].mul_(1e7))  # rows are unit rows in fp32 all the same
    monkeypatch.setattr(openclip, "pick_device", lambda device, precision: ("cpu", precision or "fp16"))
    assert by_torch(model).runtime == "torch cpu fp32"
    with pytest.raises(ModelBroken, match="image tower"):
        by_torch(model, precision="fp16")


def test_the_cpu_computes_in_fp32_unless_told_otherwise():
    assert pick_device("cpu", None) == ("cpu", "fp32")
    assert pick_device("cpu", "bf16") == ("cpu", "bf16")


# Which runtime ------------------------------------------------------------------------------------------------

EXPORTED = {  # vision_cfg, text_cfg, the rest of model_cfg
    "clip": (VIT, {}, {}),
    "timm": (TIMM, {}, {}),
    "as SigLIP": (VIT, {"no_causal_mask": True, "pool_type": "last", "proj_bias": True}, {"custom_text": True}),
    "quick_gelu": (VIT, {}, {"quick_gelu": True}),
    "CoCa": (COCA_VIT, COCA_TEXT, {"custom_text": True, "multimodal_cfg": COCA_DECODER}),
}


@pytest.mark.parametrize("which", EXPORTED)
def test_an_export_gives_the_vectors_of_the_original(tmp_path, which):
    vision, text, rest = EXPORTED[which]
    folder = write_model(tmp_path / "model", vision, text, **rest)
    original = by_torch(folder)
    exported = load_encoder(f"local-dir:{folder}", runtime="onnx", cache=tmp_path / "cache")
    assert exported.runtime.startswith("onnxruntime")
    assert exported.fingerprint == original.fingerprint
    for n in (1, 3, 20):
        assert least_cosine(original.run_images(pixels(n)), exported.run_images(pixels(n))) >= 0.9999
        texts = [f"{TEXTS[i % 3]} {i}" for i in range(n)]
        assert least_cosine(original.encode_texts(texts), exported.encode_texts(texts)) >= 0.9999


def test_the_choice_of_the_runtime_is_remembered_so_that_the_next_start_makes_no_export(timm_model, tmp_path):
    cache = tmp_path / "cache"
    first = load_encoder(f"local-dir:{timm_model}", cache=cache)
    script = (
        "import sys; from mmsearch.encoders import load_encoder; from pathlib import Path\n"
        "encoder = load_encoder(sys.argv[1], cache=Path(sys.argv[2]))\n"
        "vector = encoder.encode_texts(['a dog'])\n"
        "print(encoder.runtime, '|', encoder.fingerprint, '|', 'torch' in sys.modules, '|', *vector[0])"
    )
    files = {path: path.stat().st_mtime_ns for path in cache.rglob("*")}
    done = subprocess.run(
        [sys.executable, "-c", script, f"local-dir:{timm_model}", str(cache)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )
    runtime, fingerprint, torch, vector = (part.strip() for part in done.stdout.split("|"))
    assert runtime == first.runtime
    assert fingerprint == first.fingerprint
    assert torch == str(not runtime.startswith("onnxruntime"))
    assert np.allclose([float(value) for value in vector.split()], first.encode_texts(["a dog"])[0], atol=1e-5)
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*")} == files


def test_a_model_that_changes_in_its_place_is_noticed(timm_model, tmp_path):
    name, cache = f"local-dir:{timm_model}", tmp_path / "cache"
    before = load_encoder(name, cache=cache)
    change_weights(timm_model, lambda weights: weights["text_projection"].mul_(-1))
    after = load_encoder(name, cache=cache)
    assert after.fingerprint != before.fingerprint
    assert least_cosine(before.encode_texts(TEXTS), -after.encode_texts(TEXTS)) > 0.999


def test_an_export_is_used_again_when_onnx_is_asked_for_again(timm_model, tmp_path):
    name, cache = f"local-dir:{timm_model}", tmp_path / "cache"
    load_encoder(name, runtime="onnx", cache=cache)
    files = {path: path.stat().st_mtime_ns for path in cache.rglob("*.onnx")}
    again = load_encoder(name, runtime="onnx", cache=cache)
    assert files
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*.onnx")} == files
    assert again.runtime.startswith("onnxruntime")
    assert [path for path in (cache / "encoders").iterdir() if path.name.startswith(".")] == []


def test_an_encoder_keeps_its_name_when_another_of_equal_weights_shares_the_cache(timm_model, tmp_path):
    copy = shutil.copytree(timm_model, tmp_path / "copy")
    names = [f"local-dir:{timm_model}", f"local-dir:{copy}", f"local-dir:{timm_model}"]
    loaded = [load_encoder(name, runtime="onnx", cache=tmp_path / "cache") for name in names]
    assert [encoder.name for encoder in loaded] == names
    assert len({encoder.fingerprint for encoder in loaded}) == 1


def test_a_choice_that_cannot_be_read_is_made_again(timm_model, tmp_path):
    name, cache = f"local-dir:{timm_model}", tmp_path / "cache"
    expected = load_encoder(name, cache=cache).encode_texts(TEXTS)
    (file,) = (cache / "choices").iterdir()
    for content in ("", "null", '{"export": "gone"}'):
        file.write_text(content, "utf-8")
        assert least_cosine(load_encoder(name, cache=cache).encode_texts(TEXTS), expected) > 0.9999


def test_a_cache_that_cannot_be_written_leaves_torch(timm_model, tmp_path):
    (tmp_path / "file").write_text("no folder", "utf-8")
    encoder = load_encoder(f"local-dir:{timm_model}", cache=tmp_path / "file" / "cache")
    assert encoder.runtime.startswith("torch")
    assert encoder.encode_texts(TEXTS).shape == (3, 32)


def test_onnx_with_a_cache_that_cannot_be_written_is_one_clear_error(timm_model, tmp_path):
    (tmp_path / "file").write_text("no folder", "utf-8")
    with pytest.raises(ModelBroken, match="MMSEARCH_CACHE"):
        load_encoder(f"local-dir:{timm_model}", runtime="onnx", cache=tmp_path / "file" / "cache")


def test_an_export_that_was_asked_for_stays_where_torch_is_the_quicker(timm_model, tmp_path, monkeypatch):
    name, cache = f"local-dir:{timm_model}", tmp_path / "cache"
    exported = load_encoder(name, runtime="onnx", cache=cache)
    monkeypatch.setattr(export, "_pictures_a_second", lambda encoder: float(encoder.runtime.startswith("torch")))
    assert load_encoder(name, cache=cache).runtime.startswith("torch")
    assert load_encoder(name, runtime="onnx", cache=cache).folder == exported.folder
    assert load_encoder(name, cache=cache).runtime.startswith("torch")


def test_an_export_that_loses_is_removed(timm_model, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "_pictures_a_second", lambda encoder: float(encoder.runtime.startswith("torch")))
    assert load_encoder(f"local-dir:{timm_model}", cache=tmp_path).runtime.startswith("torch")
    assert list((tmp_path / "encoders").iterdir()) == []


def test_an_unfaithful_text_tower_is_not_taken(timm_model, tmp_path, monkeypatch):
    run = export.OnnxEncoder.run_texts
    monkeypatch.setattr(export.OnnxEncoder, "run_texts", lambda self, ids: -run(self, ids))
    name = f"local-dir:{timm_model}"
    with pytest.raises(ModelBroken, match="differs from it: cosine -1"):
        load_encoder(name, runtime="onnx", cache=tmp_path)
    assert load_encoder(name, cache=tmp_path).runtime.startswith("torch")
    assert list((tmp_path / "encoders").iterdir()) == []


@pytest.fixture(scope="module")
def own_tokenizer(tmp_path_factory):
    """A model whose tokenizer keeps capital letters, which ours does not."""
    folder = tmp_path_factory.mktemp("own") / "model"
    return write_model(folder, TIMM, {"tokenizer_kwargs": {"clean": "whitespace"}})


def test_a_model_that_cannot_be_exported_runs_in_torch(own_tokenizer, tmp_path):
    encoder = load_encoder(f"local-dir:{own_tokenizer}", cache=tmp_path)
    assert encoder.runtime.startswith("torch")
    assert (encoder.tokenize(["a Dog"]) != encoder.tokenize(["a dog"])).any()


def test_onnx_is_refused_for_a_model_that_cannot_be_exported(own_tokenizer, tmp_path):
    with pytest.raises(MMSearchError, match=r"ONNX|onnx"):
        load_encoder(f"local-dir:{own_tokenizer}", runtime="onnx", cache=tmp_path)


# Memory -------------------------------------------------------------------------------------------------------


class Cramped(TowerEncoder):
    """Has room for so many rows at once; a row is the first number of its input, and some error beyond that."""

    def __init__(self, room, error=None):
        preprocess = Preprocess((2, 2), (0.5,) * 3, (0.5,) * 3)
        super().__init__(EncoderSpec("cramped", 2, 4, "none", "w", "t", preprocess), "here")
        self.room, self.error = room, error or MemoryError("no room")
        self.sizes = []

    def tokenize(self, texts):
        return np.array([[int(text)] * 4 for text in texts], dtype=np.int64).reshape(-1, 4)

    def split_text(self, text):
        return [text]

    def run_texts(self, ids):
        return self._run(ids[:, 0])

    def run_images(self, pixels):
        return self._run(pixels[:, 0, 0, 0])

    def run_words(self, ids):
        return self.run_texts(ids), self.run_texts(ids)[:, None]

    def run_joint(self, pixels):
        return self.run_images(pixels)[:, None]

    def run_match(self, states, cells):
        return self._run(cells[:, 0, 0])[:, 0]

    def word_pieces(self, ids):
        return ("text",), np.zeros(1, dtype=np.int64)

    def run_cells(self, pixels):
        return self.run_images(pixels), self.run_images(pixels)[:, None]

    def _run(self, numbers):
        self.sizes.append(len(numbers))
        if len(numbers) > self.room:
            raise self.error
        return np.stack([numbers, numbers], axis=1).astype(np.float32)


def numbered(n):
    return [np.full((2, 2, 3), i, dtype=np.uint8) for i in range(n)]


@pytest.mark.parametrize("room", [1, 2, 3, 7, 8])
def test_a_batch_that_does_not_fit_is_halved_until_it_does(room):
    encoder = Cramped(room)
    assert encoder.encode_images(numbered(50))[:, 0].tolist() == list(range(50))
    assert encoder.encode_texts([str(i) for i in range(50)])[:, 0].tolist() == list(range(50))


def test_a_batch_of_pairs_that_does_not_fit_is_halved_until_it_does():
    encoder = Cramped(3)
    encoder.joint, encoder.n_cells = (1, 2), 1
    encoder._read["a text"] = Read(Words((), np.zeros(0, dtype=np.int64), np.zeros((0, 2))), np.ones((1, 1, 2)))
    cells = np.repeat(np.arange(50, dtype=np.float32), 2).reshape(50, 1, 2)
    assert encoder.match("a text", cells).tolist() == list(range(50))
    encoder.sizes.clear()
    assert encoder.match("a text", cells).tolist() == list(range(50))
    assert max(encoder.sizes) <= 3


def test_the_smaller_batch_is_kept():
    encoder = Cramped(3)
    encoder.encode_images(numbered(20))
    encoder.sizes.clear()
    encoder.encode_images(numbered(20))
    assert max(encoder.sizes) <= 3


def test_texts_that_do_not_fit_make_no_later_batch_larger():
    encoder = Cramped(5)
    before = encoder.batch_size
    tried = []
    for _ in range(4):
        encoder.sizes.clear()
        encoder.encode_texts([str(i) for i in range(200)])
        tried.append(max(encoder.sizes))
    assert encoder.batch_size <= before
    assert tried == sorted(tried, reverse=True)
    assert tried[-1] <= 5


def test_one_picture_that_does_not_fit_is_an_error():
    with pytest.raises(MemoryError, match="no room"):
        Cramped(0).encode_images(numbered(3))


def test_other_errors_are_not_tried_again():
    encoder = Cramped(2, error=RuntimeError("shapes differ"))
    with pytest.raises(RuntimeError, match="shapes differ"):
        encoder.encode_images(numbered(20))
    assert len(encoder.sizes) == 1


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"), True),
        (RuntimeError("[ONNXRuntimeError] : 6 : Failed to allocate memory for requested buffer of size 7"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("bad value"), False),
    ],
    ids=lambda value: type(value).__name__ + " " + str(value)[:20],
)
def test_running_out_of_memory_is_recognised_in_every_library(error, expected):
    assert is_out_of_memory(error) is expected


def test_a_real_tower_that_runs_out_of_memory_of_torch_is_recognised():
    import torch

    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
