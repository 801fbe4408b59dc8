"""``BlipITM`` with a tiny random BLIP, against transformers' own forward pass."""

import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image

from mmsearch.errors import InvalidInput, MissingDependency, ModelBroken, ModelUnavailable
from mmsearch.rerank.blip import ENC, BlipITM
from mmsearch.types import Hit, Item, Query

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "green", "bicycle", "dog", "on", "the", "beach"]
QUERY = Query(text="a red bicycle on the beach")
VISION = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT = {**VISION, "encoder_hidden_size": 16, "max_position_embeddings": 16}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The folder of a tiny random model."""
    folder = tmp_path_factory.mktemp("blip")
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    config = transformers.BlipConfig(
        text_config={**TEXT, "vocab_size": len(WORDS) + 2, "initializer_range": 0.5, "pad_token_id": 0},
        vision_config={**VISION, "image_size": 32, "patch_size": 8, "initializer_range": 0.5},
        projection_dim=8,
        image_text_hidden_size=8,
    )
    torch.manual_seed(3)
    model = transformers.BlipForImageTextRetrieval(config)
    for parameter in model.parameters():  # its own random weights are so small that every pair gets the same score
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.5)
    model.save_pretrained(folder)
    images = transformers.BlipImageProcessor(size={"height": 32, "width": 32})
    words = transformers.BertTokenizerFast(str(folder / "vocab.txt"))
    transformers.BlipProcessor(images, words).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def hits(tmp_path_factory):
    """Ten pictures of various sizes."""
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    made = []
    for n in range(10):
        path = folder / f"{n}.png"
        pixels = random.integers(0, 256, (20 + 3 * n, 60 - 2 * n, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        made.append(Hit(Item(f"p{n}", path=path), 1 - n / 100, n + 1))
    return made


@pytest.fixture
def scorer(tiny):
    return BlipITM(tiny, device="cpu")


def directly(tiny, query, hits, first_token=None):
    """The logit differences that transformers gives, one pair at a time."""
    model = transformers.BlipForImageTextRetrieval.from_pretrained(tiny, local_files_only=True).eval()
    processor = transformers.BlipProcessor.from_pretrained(tiny, local_files_only=True)
    scores = []
    for hit in hits:
        inputs = processor(images=Image.open(hit.item.path), text=query.text, return_tensors="pt")
        if first_token is not None:
            inputs["input_ids"][:, 0] = first_token
        with torch.inference_mode():
            logits = model(**inputs).itm_score[0]
        scores.append(float(logits[1] - logits[0]))
    return np.array(scores, dtype=np.float32)


def test_scores_are_those_of_transformers(tiny, hits, scorer):
    signal = scorer.score(QUERY, hits)
    assert signal.values.dtype == np.float32
    assert signal.notes == ()
    assert np.ptp(signal.values) > 0.01
    np.testing.assert_allclose(signal.values, directly(tiny, QUERY, hits), atol=1e-5)


def test_scores_depend_on_the_text(hits, scorer):
    other = scorer.score(Query(text="green dog"), hits).values
    assert np.abs(other - scorer.score(QUERY, hits).values).max() > 0.01


def test_scores_do_not_depend_on_the_batch(tiny, hits):
    once = BlipITM(tiny, device="cpu", batch_size=16).score(QUERY, hits).values
    for size in (1, 3):
        again = BlipITM(tiny, device="cpu", batch_size=size).score(QUERY, hits[::-1]).values
        np.testing.assert_allclose(again[::-1], once, atol=1e-5)


def test_another_first_token_is_put_in(tiny, hits):
    scorer = BlipITM(tiny, device="cpu", first_token=len(WORDS) + 1)
    np.testing.assert_allclose(
        scorer.score(QUERY, hits[:3]).values, directly(tiny, QUERY, hits[:3], len(WORDS) + 1), atol=1e-5
    )
    assert scorer.fingerprint != BlipITM(tiny, device="cpu").fingerprint
    assert ENC == 30_523


def test_a_token_that_the_model_does_not_have_is_a_note(tiny, hits):
    signal = BlipITM(tiny, device="cpu", first_token=ENC).score(QUERY, hits)
    assert np.isnan(signal.values).all()
    assert "then failed: IndexError" in signal.notes[0]


def test_a_text_beyond_the_context_is_cut(tiny, hits, scorer):
    long, longer = (scorer.score(Query(text="a red dog " * n), hits[:2]).values for n in (10, 20))
    np.testing.assert_array_equal(long, longer)


def test_features_of_pictures_serve_the_next_query(hits, scorer, monkeypatch):
    scorer.score(QUERY, hits)
    vision = scorer._loaded().model.vision_model
    seen = []
    monkeypatch.setattr(vision, "forward", lambda **inputs: seen.append(inputs))  # returns nothing to work with
    signal = scorer.score(Query(text="green dog"), hits)
    assert np.isfinite(signal.values).all()
    assert seen == []


def test_features_of_pictures_are_bounded_and_do_not_change_scores(tiny, hits, scorer):
    rows = 17 * 16 * 4  # 16 patches and one more, 16 numbers of 4 bytes each
    small = BlipITM(tiny, device="cpu", picture_cache=3 * rows + 1)
    for query in (QUERY, Query(text="green dog")):
        np.testing.assert_allclose(small.score(query, hits).values, scorer.score(query, hits).values, atol=1e-5)
    assert len(small._states) == 3
    small.forget()
    assert len(small._states) == 0


def test_a_changed_picture_is_read_again(tiny, hits, tmp_path):
    path = tmp_path / "a.png"
    scorer = BlipITM(tiny, device="cpu")
    scores = []
    for hit in (hits[0], hits[5]):
        path.write_bytes(hit.item.path.read_bytes())
        scores.append(scorer.score(QUERY, [Hit(Item("a", path=path), 1.0, 1)]).values[0])
    np.testing.assert_allclose(scores, scorer.score(QUERY, [hits[0], hits[5]]).values, atol=1e-5)


def test_an_unreadable_picture_spoils_no_other(hits, scorer, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    mixed = [hits[0], Hit(Item("x", path=broken), 0.5, 2), Hit(Item("y", path=tmp_path / "gone.png"), 0.4, 3), hits[4]]
    signal = scorer.score(QUERY, mixed)
    np.testing.assert_array_equal(np.isnan(signal.values), [False, True, True, False])
    np.testing.assert_allclose(signal.values[[0, 3]], scorer.score(QUERY, hits).values[[0, 4]], atol=1e-5)
    (note,) = signal.notes
    assert note.startswith("cross: 2 of 4 pictures cannot be read, the first: ")
    assert "broken.png" in note


def test_hits_without_a_picture_are_passed_over(hits, scorer):
    text = Hit(Item("t", text="only text"), 0.5, 1)
    signal = scorer.score(QUERY, [text, hits[0]])
    np.testing.assert_array_equal(np.isnan(signal.values), [True, False])
    assert signal.notes == ()
    assert scorer.score(QUERY, [text]).notes == ("cross: no hit has a picture",)
    assert scorer.score(Query(image=b"x"), hits).notes == ("cross: reads only queries that are one text",)


def test_no_time_leaves_the_model_unloaded(hits, scorer):
    signal = scorer.score(QUERY, hits, deadline=0)
    assert np.isnan(signal.values).all()
    assert signal.notes == ("cross: scored 0 of 10, the time was up",)
    assert scorer._model is None


def test_the_model_can_be_loaded_beforehand(hits, scorer):
    scorer.prepare(None)
    assert scorer._model is not None
    assert np.isfinite(scorer.score(QUERY, hits, time.perf_counter() + 60).values).all()


def test_loading_says_nothing(hits, scorer, capfd):
    scorer.load()
    assert capfd.readouterr() == ("", "")
    assert transformers.utils.logging.is_progress_bar_enabled()


def test_half_precision_stays_close(tiny, hits, scorer):
    half = BlipITM(tiny, device="cpu", precision="bf16")
    signal = half.score(QUERY, hits)
    assert signal.values.dtype == np.float32
    np.testing.assert_allclose(signal.values, scorer.score(QUERY, hits).values, atol=0.3)
    assert half.fingerprint != scorer.fingerprint


def test_many_threads_get_the_same(tiny, hits):
    wanted = BlipITM(tiny, device="cpu").score(QUERY, hits).values
    scorer = BlipITM(tiny, device="cpu", cache_size=0, picture_cache=5000)
    wrong = []

    def ask():
        for _ in range(5):
            values = scorer.score(QUERY, hits).values
            if not np.allclose(values, wanted, atol=1e-5):
                wrong.append(values)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_fingerprints_tell_models_apart(tiny, tmp_path):
    one = BlipITM(tiny).fingerprint
    assert one == BlipITM(tiny).fingerprint
    assert one != BlipITM("Salesforce/blip-itm-base-coco").fingerprint
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "config.json").write_text("{}")
    before = BlipITM(copy).fingerprint
    (copy / "config.json").write_text("{ }")
    assert before != BlipITM(copy).fingerprint


def test_weights_of_another_kind_are_refused(tiny, hits, tmp_path):
    model = transformers.BlipForImageTextRetrieval.from_pretrained(tiny, local_files_only=True)
    transformers.BlipProcessor.from_pretrained(tiny, local_files_only=True).save_pretrained(tmp_path)
    weights = {name: value for name, value in model.state_dict().items() if not name.startswith("itm_head")}
    model.save_pretrained(tmp_path, state_dict=weights)
    scorer = BlipITM(tmp_path, device="cpu")
    with pytest.raises(ModelBroken, match=r"lacks 2 weights, such as itm_head\.bias"):
        scorer.load()
    signal = scorer.score(QUERY, hits)
    assert np.isnan(signal.values).all()
    assert "then failed: ModelBroken" in signal.notes[0]


@pytest.mark.parametrize("place", ["an empty folder", "no folder", "a repository"])
def test_weights_that_are_not_here_are_said_so(place, hits, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    model = {"an empty folder": tmp_path, "no folder": tmp_path / "gone", "a repository": "nobody/blip-nothing"}[place]
    scorer = BlipITM(model, device="cpu")
    with pytest.raises(ModelUnavailable, match="cannot be loaded"):
        scorer.load()
    signal = scorer.score(QUERY, hits)
    assert "then failed: ModelUnavailable" in signal.notes[0]
    assert np.isnan(signal.values).all()


def test_a_model_that_did_not_load_is_not_tried_again_at_once(hits, tiny, tmp_path):
    scorer = BlipITM(tmp_path, device="cpu")
    with pytest.raises(ModelUnavailable) as first:
        scorer.load()
    with pytest.raises(ModelUnavailable) as second:
        scorer.load()
    assert str(first.value) == str(second.value)
    assert second.value.__cause__ is None  # nothing was tried


def test_a_device_that_is_not_here_is_a_note(tiny, hits):
    signal = BlipITM(tiny, device="cuda:99").score(QUERY, hits)
    assert "then failed: InvalidInput: expected a device that is here" in signal.notes[0]


@pytest.mark.parametrize("package", ["torch", "transformers"])
def test_a_missing_package_names_the_extra(tiny, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependency, match=rf"{package}.*pip install 'mmsearch\[rerank\]'"):
        BlipITM(tiny)


@pytest.mark.parametrize("options", [{"precision": "fp8"}, {"model": " "}, {"picture_cache": -1}, {"batch_size": 0}])
def test_wrong_arguments_are_refused(tiny, options):
    with pytest.raises(InvalidInput):
        BlipITM(**{"model": tiny, **options})


@pytest.mark.gpu
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-3), ("fp16", 0.05)])
def test_a_gpu_gives_the_same(tiny, hits, scorer, precision, tolerance):
    values = BlipITM(tiny, device="cuda", precision=precision).score(QUERY, hits).values
    np.testing.assert_allclose(values, scorer.score(QUERY, hits).values, atol=tolerance)
