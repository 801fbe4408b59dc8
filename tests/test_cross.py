"""The joint model: what its card says on both runtimes, its rows in a store, and its stage."""

import json
import os
import re
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmsearch import Engine, Item, Query, load_encoder
from mmsearch.encoders.builtin import RERANKER_FILE, mini_folder, mini_spec
from mmsearch.encoders.export import export
from mmsearch.encoders.onnx import OnnxEncoder
from mmsearch.encoding import FieldEncoder, dequantise_joint, quantise_cells, quantise_joint
from mmsearch.errors import InvalidInput, ModelBroken
from mmsearch.images import open_picture
from mmsearch.protocols import JointEncoder
from mmsearch.rerank.cross import EmbeddedCross
from mmsearch.types import SPACES, Hit

GALLERY = Path(__file__).parents[1] / "assets" / "gallery"
TEXTS = ["a fish in clear water", "a dog", "", "!!! two red bicycles, by the sea !!!", "日本語 🙂", "a long text " * 30]
N = 6


@pytest.fixture(scope="module")
def photos():
    """Four photographs of fishes and two of monuments, by name, as bytes."""
    with zipfile.ZipFile(GALLERY / "images.zip") as archive:
        names = sorted(name for name in archive.namelist() if "photos-categorization" in name)[: N * 7 : 7]
        return {name: archive.read(name) for name in names}


@pytest.fixture(scope="module")
def pictures(photos):
    return [open_picture(data).image for data in photos.values()]


@pytest.fixture(scope="module")
def exported():
    return load_encoder("mini")


@pytest.fixture(scope="module")
def original():
    return load_encoder("mini", runtime="torch", device="cpu", precision="fp32")


@pytest.fixture(scope="module", params=["onnx", "torch"])
def mini(request, exported, original):
    return exported if request.param == "onnx" else original


# The model --------------------------------------------------------------------------------------------------------


class Card:
    """The model as its card tells it: nothing shared, nothing left out, padding masked."""

    def __init__(self, model):
        from safetensors.torch import load_file

        self.model = model
        tensors = load_file(mini_folder() / RERANKER_FILE)
        self.weights = {name[6:]: value.float() for name, value in tensors.items() if name.startswith("cross.")}

    def linear(self, name, rows):
        import torch

        return torch.nn.functional.linear(rows, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def norm(self, name, rows):
        import torch

        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        return torch.nn.functional.layer_norm(rows, weight.shape, weight, bias)

    def attention(self, q, k, v, mask=None):
        import torch

        q, k, v = (rows.unflatten(-1, (4, 64)).transpose(1, 2) for rows in (q, k, v))
        found = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return found.transpose(1, 2).flatten(2)

    def cells(self, batch):
        grid = self.model.visual.trunk.forward_features(batch).flatten(2).transpose(1, 2)
        return self.norm("imn", self.linear("img.1", self.norm("img.0", grid)) + self.weights["pos"])

    def logits(self, ids, cells):
        import torch

        found = self.model.forward_intermediates(text=ids, text_indices=1, normalize_intermediates=True)
        states = found["text_intermediates"][-1].expand(len(cells), -1, -1)
        mask = torch.arange(ids.shape[1] + 1)[None, None, None] <= ids.argmax(dim=1) + 1
        x = torch.cat([self.weights["cls"].expand(len(cells), 1, -1), self.linear("txt", states)], dim=1)
        for n in range(3):
            layer = f"layers.{n}"
            q, k, v = self.linear(f"{layer}.qkv", self.norm(f"{layer}.n1", x)).chunk(3, dim=-1)
            x = x + self.linear(f"{layer}.o", self.attention(q, k, v, mask))
            k, v = self.linear(f"{layer}.kv", cells).chunk(2, dim=-1)
            x = x + self.linear(
                f"{layer}.o2", self.attention(self.linear(f"{layer}.q", self.norm(f"{layer}.n2", x)), k, v)
            )
            inner = torch.nn.functional.gelu(self.linear(f"{layer}.mlp.0", self.norm(f"{layer}.n3", x)))
            x = x + self.linear(f"{layer}.mlp.2", inner)
        return self.linear("out", self.norm("nf", x[:, 0]))[:, 0]


@pytest.fixture(scope="module")
def card(original):
    return Card(original.model)


@pytest.fixture(scope="module")
def expected(card, original, pictures):
    """Cells of the pictures, and logits by text, as the card has them."""
    import torch

    with torch.inference_mode():
        pixels = np.stack([original.prepare(picture) for picture in pictures])
        cells = card.cells(original.normalised(torch.from_numpy(pixels)))
        logits = {text: card.logits(torch.from_numpy(original.tokenize([text])), cells).numpy() for text in TEXTS}
    return cells.numpy(), logits


def test_cells_are_those_of_the_card(mini, pictures, expected):
    cells = mini.encode_joint(pictures)
    assert isinstance(mini, JointEncoder)
    assert cells.shape == (N, *mini.joint) == (N, 49, 256)
    assert cells.dtype == np.float32
    np.testing.assert_allclose(cells, expected[0], atol=1e-3)


@pytest.mark.parametrize("text", TEXTS)
def test_logits_are_those_of_the_card(mini, expected, text):
    logits = mini.match(text, expected[0])
    assert (logits.shape, logits.dtype) == ((N,), np.float32)
    np.testing.assert_allclose(logits, expected[1][text], atol=1e-3)


def test_logits_prefer_the_pictures_that_show_what_the_text_says(expected):
    fishes, monuments = np.split(expected[1]["a fish in clear water"], [4])
    assert fishes.min() > monuments.max() + 1


def test_a_logit_does_not_depend_on_the_other_pictures(mini, expected):
    cells = np.concatenate([expected[0] + shift for shift in np.linspace(0, 0.5, 12, dtype=np.float32)])
    alone = np.concatenate([mini.match(TEXTS[0], cell[None]) for cell in cells])
    assert len(np.unique(alone.round(3))) > N
    for n in (2, 7, 16, 33, len(cells)):
        assert np.abs(mini.match(TEXTS[0], cells[:n]) - alone[:n]).max() <= 1e-4


def test_a_picture_has_the_same_cells_alone_and_in_a_batch(mini, pictures):
    many = [*pictures, *pictures]
    alone = np.concatenate([mini.encode_joint([picture]) for picture in pictures])
    assert np.abs(mini.encode_joint(many) - np.concatenate([alone, alone])).max() <= 1e-4
    assert (mini.encode_joint([mini.prepare(picture) for picture in pictures]) == mini.encode_joint(pictures)).all()


def test_nothing_gives_nothing(mini):
    assert mini.encode_joint([]).shape == (0, 49, 256)
    assert mini.match("a dog", np.zeros((0, 49, 256), dtype=np.float32)).shape == (0,)


def test_a_text_that_was_just_encoded_is_not_read_again(mini, expected, monkeypatch):
    text = "a query that nobody has asked before"
    mini.encode_texts([text])
    before = mini.match(text, expected[0])
    monkeypatch.setattr(mini, "run_words", None)
    assert (mini.match(text, expected[0]) == before).all()


@pytest.mark.parametrize("shape", [(49, 256), (2, 48, 256), (2, 49, 255)])
def test_cells_of_another_shape_are_refused(mini, shape):
    with pytest.raises(InvalidInput, match=r"expected cells of the shape \(n, 49, 256\), got"):
        mini.match("a dog", np.zeros(shape, dtype=np.float32))


def test_what_is_no_text_is_refused(mini):
    with pytest.raises(InvalidInput, match="expected a str as text, got bytes"):
        mini.match(b"a dog", np.zeros((1, 49, 256), dtype=np.float32))


def test_many_threads_get_the_answers_of_one(exported, expected):
    texts = [f"{text} {n}" for n in range(4) for text in TEXTS[:3]]
    wanted = {text: exported.match(text, expected[0]) for text in texts}
    found, threads = {}, []
    for text in texts:
        threads.append(
            threading.Thread(target=lambda text=text: found.update({text: exported.match(text, expected[0])}))
        )
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.abs(found[text] - wanted[text]).max() <= 1e-4 for text in texts)


def test_the_joint_model_is_no_part_of_the_fingerprint_but_has_one_of_its_own(mini):
    assert mini.joint_fingerprint == mini_spec().reranker != ""
    assert mini.joint_fingerprint not in mini.fingerprint


def test_half_precision_changes_logits_little(pictures, expected):
    half = load_encoder("mini", device="cpu", precision="bf16")
    logits = half.match(TEXTS[0], half.encode_joint(pictures))
    assert np.abs(logits - expected[1][TEXTS[0]]).max() < 0.5


def test_an_unfaithful_export_is_not_taken(original, tmp_path, monkeypatch):
    run = OnnxEncoder.run_match
    monkeypatch.setattr(OnnxEncoder, "run_match", lambda self, states, cells: run(self, states, cells) + 0.1)
    with pytest.raises(ModelBroken, match=r"its logits by 0\.1"):
        export(original, tmp_path / "export")
    assert list(tmp_path.iterdir()) == []


def test_loading_the_model_leaves_the_random_numbers_of_others_alone():
    import torch

    from mmsearch.encoders.joint import JointModel

    torch.manual_seed(7)
    before = torch.get_rng_state()
    assert JointModel.load(mini_folder() / RERANKER_FILE).shape == (49, 256)
    assert (torch.get_rng_state() == before).all()


@pytest.mark.parametrize("lost", ["cross.pos", "cross.layers.1.kv.weight", "cross.out.bias"])
def test_a_model_that_is_not_whole_is_broken(tmp_path, lost):
    from safetensors.torch import load_file, save_file

    from mmsearch.encoders.joint import JointModel

    tensors = load_file(mini_folder() / RERANKER_FILE)
    del tensors[lost]
    save_file(tensors, tmp_path / RERANKER_FILE)
    with pytest.raises(ModelBroken, match=r"joint model in .* is not whole"):
        JointModel.load(tmp_path / RERANKER_FILE)


def test_a_file_of_other_heads_has_no_joint_model(tmp_path):
    from safetensors.torch import load_file, save_file

    from mmsearch.encoders.joint import JointModel

    tensors = load_file(mini_folder() / RERANKER_FILE)
    save_file({name: value for name, value in tensors.items() if "late" in name}, tmp_path / RERANKER_FILE)
    assert JointModel.load(tmp_path / RERANKER_FILE) is None


# Rows -------------------------------------------------------------------------------------------------------------


def test_a_row_gives_back_its_cells_with_their_lengths(expected):
    cells = expected[0] * np.linspace(0.01, 3, 49, dtype=np.float32)[None, :, None]
    rows = quantise_joint(cells)
    back = dequantise_joint(rows, (49, 256))
    assert (rows.shape, rows.dtype) == ((N, 49 * 258), np.int8)
    assert (back.shape, back.dtype) == (cells.shape, np.float32)
    assert (np.abs(back - cells).max(axis=2) <= np.abs(cells).max(axis=2) / 127 * 0.6).all()


def test_rows_cost_next_to_nothing_of_a_logit(exported, expected):
    back = dequantise_joint(quantise_joint(expected[0]), (49, 256))
    for text in TEXTS:
        assert np.abs(exported.match(text, back) - expected[1][text]).max() < 0.1


@pytest.mark.parametrize("level", [0.0, 1e-30, 1e30])
def test_cells_of_any_size_make_a_row(level):
    back = dequantise_joint(quantise_joint(np.full((2, 3, 4), level, dtype=np.float32)), (3, 4))
    assert np.isfinite(back).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("quantise", [quantise_joint, quantise_cells])
def test_a_picture_with_a_number_that_is_none_gets_a_row_of_zeros(quantise, bad):
    cells = np.ones((3, 4, 5), dtype=np.float32)
    cells[1, 2, 3] = bad
    assert quantise(cells).any(axis=1).tolist() == [True, False, True]


def test_no_cells_make_no_rows():
    assert quantise_joint(np.zeros((0, 49, 256), dtype=np.float32)).shape == (0, 49 * 258)
    assert dequantise_joint(np.zeros((0, 49 * 258), dtype=np.int8), (49, 256)).shape == (0, 49, 256)


@pytest.mark.parametrize("shape", [(2, 49 * 256), (49 * 258,)])
def test_rows_of_another_width_are_refused(shape):
    with pytest.raises(InvalidInput, match="expected rows of 49 cells of 256 numbers"):
        dequantise_joint(np.zeros(shape, dtype=np.int8), (49, 256))


# A store ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def store(tmp_path_factory, photos, exported):
    """The photographs in a store with their joint rows."""
    place = tmp_path_factory.mktemp("cross") / "store"
    with Engine.open(place, exported, spaces=["picture", "text", "joint"]) as engine:
        report = engine.add([Item(id=name, image=data) for name, data in photos.items()])
        assert (report.added, report.failed) == (N, ())
        assert engine.info().spaces["joint"].rows == N
    return place


@pytest.fixture(scope="module")
def full(store, exported):
    with Engine.open(store, exported) as engine:
        yield engine


def of_stage(hits):
    """The stage's scores by id."""
    return {hit.item.id: hit.scores["cross"] for hit in hits if "cross" in hit.scores}


def test_a_search_has_the_logits_of_torch(full, photos, expected):
    for text in TEXTS[:2]:
        found = of_stage(full.search(text, rerank=[EmbeddedCross()]))
        wanted = dict(zip(photos, expected[1][text], strict=True))
        assert found.keys() == wanted.keys()
        assert max(abs(found[name] - wanted[name]) for name in found) < 0.1  # of the int8 codes


def test_a_search_has_the_logits_of_the_stored_rows(full, photos, original):
    text = TEXTS[0]
    hits = full.search(text, rerank=[EmbeddedCross()])
    with full._store.reading() as view:
        rows = np.asarray(view.spaces["joint"].matrix)
    wanted = sorted(original.match(text, dequantise_joint(rows, original.joint)).tolist())
    np.testing.assert_allclose(sorted(of_stage(hits).values()), wanted, atol=1e-3)


def test_the_stage_adds_little_and_hits_say_what(full):
    plain = {hit.item.id: hit.score for hit in full.search(TEXTS[0], rerank=False, field="picture")}
    for hit in full.search(TEXTS[0], rerank=[EmbeddedCross()], field="picture"):
        assert hit.score == pytest.approx(plain[hit.item.id] + EmbeddedCross.weight * hit.scores["cross"], abs=1e-4)
        assert hit.notes == ()
        assert "cross: score" in hit.explain()


def test_the_best_few_are_scored(full):
    assert EmbeddedCross.n == 16
    assert EmbeddedCross.needs == ("joint",)
    assert "joint" in SPACES


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_scores_do_not_depend_on_the_batch_size(full, batch_size):
    one = of_stage(full.search(TEXTS[0], rerank=[EmbeddedCross()]))
    other = of_stage(full.search(TEXTS[0], rerank=[EmbeddedCross(batch_size=batch_size)]))
    assert max(abs(one[name] - other[name]) for name in one) <= 1e-4


def test_a_logit_is_computed_once(full, exported, monkeypatch):
    stage = EmbeddedCross()
    before = full.search(TEXTS[0], rerank=[stage])
    monkeypatch.setattr(exported, "run_match", None)
    assert full.search(TEXTS[0], rerank=[stage]) == before
    stage.forget()
    assert "cross: scored 0 of 6, then failed" in full.search(TEXTS[0], rerank=[stage])[0].notes[0]


@pytest.mark.parametrize("query", [Query(image=Image.new("RGB", (9, 9))), Query(text="a") + Query(text="b")], ids=str)
def test_other_queries_are_left_alone_with_a_note(full, query):
    hits = full.search(query, rerank=[EmbeddedCross()])
    assert hits[0].notes == ("cross: reads only queries that are one text",)
    assert of_stage(hits) == {}


def test_without_time_a_note_says_so(full):
    assert "cross" in full.search(TEXTS[0], rerank=[EmbeddedCross()], budget_ms=0)[0].notes[0]
    stage = EmbeddedCross()
    hits = full.search(TEXTS[0], rerank=False)
    stage.prepare(full._ranker.collection)
    signal = stage.score(Query(text=TEXTS[0]), hits, deadline=0.0)
    assert np.isnan(signal.values).all()
    assert signal.notes == (f"cross: scored 0 of {N}, the time was up",)


def test_a_stage_that_knows_no_collection_says_so():
    signal = EmbeddedCross().score(Query(text="a dog"), [Hit(Item("a"), 0.5, 1)])
    assert signal.skipped == "cross: not prepared for a collection"


def run(script, *arguments):
    """Run a script in a process of its own; what it prints, and the top-level packages that it imports."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = re.findall(r"^import time:\s+\d+ \|\s+\d+ \|\s*(\S+)$", done.stderr, re.MULTILINE)
    return done.stdout, {name.partition(".")[0] for name in found}


def test_once_exported_neither_searching_nor_adding_imports_torch(store, full, tmp_path):
    picture = tmp_path / "red.png"
    Image.new("RGB", (80, 60), "red").save(picture)
    script = (
        "import sys, json; from mmsearch import Engine; from mmsearch.rerank.cross import EmbeddedCross\n"
        "with Engine.open(sys.argv[1]) as engine: hits = engine.search(sys.argv[2], rerank=[EmbeddedCross()])\n"
        "with Engine.open(sys.argv[3], spaces=['picture', 'joint']) as engine: engine.add_folder(sys.argv[4])\n"
        "print(json.dumps({hit.item.id: hit.scores['cross'] for hit in hits}))"
    )
    shown, imported = run(script, store, TEXTS[0], tmp_path / "other", picture)
    found, here = json.loads(shown), of_stage(full.search(TEXTS[0], rerank=[EmbeddedCross()]))
    assert found == pytest.approx(here, abs=1e-4)
    assert imported & {"torch", "open_clip", "timm"} == set()
    assert "onnxruntime" in imported


# With a toy encoder -----------------------------------------------------------------------------------------------


@pytest.fixture
def joint_encoder(toy):
    """The toy encoder with a joint model: a cell holds the picture's mean colour, a text looks for red."""

    class Joint(toy.ToyEncoder):
        joint, joint_fingerprint = (2, 3), "toy"
        matched, joined, spoil = 0, 0, False

        def encode_joint(self, images):
            self.joined += len(images)
            means = np.stack([np.asarray(image).reshape(-1, 3).mean(axis=0) for image in images]).astype(np.float32)
            return np.full((len(images), 2, 3), np.nan, np.float32) if self.spoil else np.stack([means, means], axis=1)

        def match(self, text, cells):
            self.matched += len(cells)
            return (cells[:, 0, 0] - cells[:, 0, 2]) / 255

    return Joint()


def add_three(engine, toy):
    kinds = ("red disc", "blue disc", "red square")
    return engine.add([*(Item(id=kind, image=toy.image_of(kind)) for kind in kinds), Item(id="text", text="red disc")])


WITH_JOINT = ("picture", "text", "joint")


def test_each_picture_has_a_row_and_texts_have_none(open_engine, joint_encoder, toy):
    engine = open_engine(its_encoder=joint_encoder, spaces=WITH_JOINT)
    add_three(engine, toy)
    assert engine.info().spaces["joint"].live == 3
    hits = engine.search("a disc", rerank=[EmbeddedCross()])
    assert of_stage(hits).keys() == {"red disc", "blue disc", "red square"}
    assert of_stage(hits)["red disc"] > of_stage(hits)["blue disc"]


def test_a_picture_is_prepared_once_for_all_fields_that_read_it_whole(joint_encoder, toy):
    fields = FieldEncoder(joint_encoder, ["picture", "regions", "joint"])
    prepared = fields.prepare(toy.image_of("red disc"))
    assert prepared["joint"][0] is prepared["picture"][0] is prepared["regions"][0]
    assert fields.widths()["joint"] == (2 * (3 + 2), "int8")


def test_rows_that_are_wanted_later_are_filled_and_pictures_are_not_encoded_again(open_engine, joint_encoder, toy):
    open_engine(its_encoder=joint_encoder).add([Item(id="a", image=toy.image_of("red disc"))])
    read = joint_encoder.pictures_read
    engine = open_engine(its_encoder=joint_encoder, spaces=WITH_JOINT)
    assert engine.search("red", rerank=[EmbeddedCross()])[0].notes[0].startswith("cross: no hit has a row in the space")
    engine.sync()
    assert engine.info().spaces["joint"].live == 1
    assert (joint_encoder.pictures_read, joint_encoder.joined) == (read, 1)
    assert engine.search("red", rerank=[EmbeddedCross()])[0].notes == ()


def test_a_changed_picture_is_scored_again_and_an_unchanged_one_is_not(open_engine, joint_encoder, toy):
    engine, stage = open_engine(its_encoder=joint_encoder, spaces=WITH_JOINT), EmbeddedCross()
    add_three(engine, toy)
    before = of_stage(engine.search("red", rerank=[stage]))
    assert joint_encoder.matched == 3
    engine.add([Item(id="blue disc", image=toy.image_of("red disc", 3))])
    after = of_stage(engine.search("red", rerank=[stage]))
    assert joint_encoder.matched == 4
    assert after["blue disc"] > before["blue disc"]
    assert after["red square"] == before["red square"]


def test_pictures_whose_cells_cannot_be_used_are_reported(open_engine, joint_encoder, toy):
    engine = open_engine(its_encoder=joint_encoder, spaces=WITH_JOINT)
    joint_encoder.spoil = True
    report = add_three(engine, toy)
    assert report.added == 1
    assert {reason for _, reason in report.failed} == {"the encoder 'toy' gave no usable vector for its joint"}


def test_an_encoder_without_a_joint_model_is_refused(open_engine, toy):
    engine = open_engine(spaces=WITH_JOINT)
    with pytest.raises(InvalidInput, match="'toy' has no joint model: leave 'joint' out of the spaces"):
        engine.add([Item(id="a", image=toy.image_of("red disc"))])


def test_a_store_without_joint_rows_is_searched_with_a_note(open_engine, toy):
    engine = open_engine()
    add_three(engine, toy)
    hits = engine.search("red", rerank=[EmbeddedCross()])
    assert toy.ids(hits) == toy.ids(engine.search("red", rerank=False))
    assert hits[0].notes == (
        "cross: no hit has a row in the space 'joint': index it with --spaces …,joint "
        "(in Python Engine.open(spaces=[…, 'joint']), then sync)",
    )


def test_a_store_that_cannot_be_asked_becomes_a_note():
    class Broken:
        def rows(self, field, hits):
            raise OSError("the disk is gone")

    stage = EmbeddedCross()
    stage.prepare(Broken())
    signal = stage.score(Query(text="a dog"), [Hit(Item("a"), 0.5, 1)])
    assert np.isnan(signal.values).all()
    assert signal.notes == ("cross: failed: OSError: the disk is gone",)


def test_whatever_the_model_raises_becomes_a_note(open_engine, joint_encoder, toy, monkeypatch):
    engine = open_engine(its_encoder=joint_encoder, spaces=WITH_JOINT)
    add_three(engine, toy)

    def fail(text, cells):
        raise RuntimeError("no such thing")

    monkeypatch.setattr(joint_encoder, "match", fail)
    hits = engine.search("red", rerank=[EmbeddedCross()])
    assert "cross: scored 0 of 3, then failed: RuntimeError: no such thing" in hits[0].notes
