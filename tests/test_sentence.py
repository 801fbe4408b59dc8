"""``SentenceCrossEncoder`` with a tiny BERT and a tiny Qwen3-VL, against sentence-transformers' own answers."""

import sys

import numpy as np
import pytest
from PIL import Image

from mmsearch.errors import InvalidInput, LicenceRefused, MissingDependency, ModelBroken, ModelUnavailable
from mmsearch.rerank.sentence import RESEARCH_ONLY, SentenceCrossEncoder
from mmsearch.types import Hit, Item, Query

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
sentence_transformers = pytest.importorskip("sentence_transformers")
tokenizers = pytest.importorskip("tokenizers")

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
VISUAL = ["<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"]
WORDS = ["a", "red", "green", "bicycle", "dog", "on", "the", "beach", "yes", "no", "query", "document", ":", "http"]
QUERY = Query(text="a red bicycle on the beach")
TEXTS = ["red bicycle", "a dog on the beach", "green", "the " * 30, "a red dog : on a green bicycle", "no"]
TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }} : "
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %} {% endfor %}{% endfor %}"
)


def write_bert(folder, kind="BertForSequenceClassification", labels=1):
    """A tiny random BERT with a head, or without one."""
    folder.mkdir(exist_ok=True)
    vocabulary = [*SPECIAL, *WORDS]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    config = transformers.BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        num_labels=labels,
    )
    save(getattr(transformers, kind)(config), folder)
    transformers.BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=64).save_pretrained(folder)
    return folder


def save(model, folder):
    torch.manual_seed(5)
    for parameter in model.parameters():  # its own random weights are so small that every pair gets the same score
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.5)
    model.save_pretrained(folder)


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return write_bert(tmp_path_factory.mktemp("models") / "bert")


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
    """A tiny random Qwen3-VL as a reranker that compares yes with no, as sentence-transformers saves it."""
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.cross_encoder.modules import LogitScore

    folder = tmp_path_factory.mktemp("models")
    vocabulary = {word: n for n, word in enumerate([*SPECIAL, *VISUAL, *WORDS])}
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=words,
        unk_token="[UNK]",
        pad_token="[PAD]",
        eos_token="[SEP]",
        additional_special_tokens=VISUAL,
        model_max_length=512,
    )
    sizes = {"patch_size": 16, "merge_size": 2, "temporal_patch_size": 2}
    processor = transformers.Qwen3VLProcessor(
        transformers.Qwen2VLImageProcessor(**sizes, size={"shortest_edge": 32 * 32, "longest_edge": 96 * 96}),
        fast,
        transformers.Qwen3VLVideoProcessor(**sizes),
        chat_template=TEMPLATE,
    )
    rope = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [4, 2, 2], "mrope_interleaved": True}
    common = {"hidden_size": 32, "intermediate_size": 32}
    config = transformers.Qwen3VLConfig(
        text_config={
            **common,
            "vocab_size": len(vocabulary),
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 16,
            "rope_parameters": rope,
        },
        vision_config={
            **common,
            "depth": 2,
            "num_heads": 2,
            "patch_size": 16,
            "out_hidden_size": 32,
            "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0],
        },
        tie_word_embeddings=True,
        **{
            f"{name}_token_id": vocabulary[token]
            for name, token in zip(("image", "video", "vision_start", "vision_end"), VISUAL, strict=True)
        },
    )
    save(transformers.Qwen3VLForConditionalGeneration(config), folder / "backbone")
    processor.save_pretrained(folder / "backbone")
    backbone = Transformer(str(folder / "backbone"), transformer_task="any-to-any")
    judge = LogitScore(true_token_id=vocabulary["yes"], false_token_id=vocabulary["no"])
    sentence_transformers.CrossEncoder(modules=[backbone, judge], device="cpu").save_pretrained(str(folder / "qwen"))
    return folder / "qwen"


@pytest.fixture(scope="module")
def hits(tmp_path_factory):
    """Items of both a text and a picture."""
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    made = []
    for n, text in enumerate(TEXTS):
        path = folder / f"{n}.png"
        Image.fromarray(random.integers(0, 256, (40 + 9 * n, 90 - 5 * n, 3), dtype=np.uint8)).save(path)
        made.append(Hit(Item(f"i{n}", text=text, path=path), 1 - n / 100, n + 1))
    return made


def directly(folder, pairs):
    """What sentence-transformers gives, one pair at a time."""
    encoder = sentence_transformers.CrossEncoder(
        str(folder), device="cpu", local_files_only=True, activation_fn=torch.nn.Identity()
    )
    return np.array([encoder.predict([pair], show_progress_bar=False)[0] for pair in pairs])


class TestTexts:
    def test_are_scored_as_sentence_transformers_does(self, bert, hits):
        signal = SentenceCrossEncoder(bert, device="cpu").score(QUERY, hits)
        assert signal.values.dtype == np.float32
        assert signal.notes == ()
        assert np.ptp(signal.values) > 0.05
        np.testing.assert_allclose(signal.values, directly(bert, [(QUERY.text, text) for text in TEXTS]), atol=1e-5)

    @pytest.mark.parametrize("batch_size", [1, 2, 5])
    def test_are_scored_alike_in_any_batch(self, bert, hits, batch_size):
        once = SentenceCrossEncoder(bert, device="cpu").score(QUERY, hits).values
        again = SentenceCrossEncoder(bert, device="cpu", batch_size=batch_size).score(QUERY, hits[::-1]).values
        np.testing.assert_allclose(again[::-1], once, atol=1e-5)

    def test_are_cut_at_the_length_given(self, bert, hits):
        short = SentenceCrossEncoder(bert, device="cpu", max_length=12)
        changed = [Hit(Item("x", text=f"a red bicycle {'dog ' * n}"), 0.5, 1) for n in (10, 15)]
        one, other = (short.score(QUERY, [hit]).values for hit in changed)
        np.testing.assert_array_equal(one, other)
        whole = SentenceCrossEncoder(bert, device="cpu")
        assert whole.score(QUERY, changed[:1]).values[0] != whole.score(QUERY, changed[1:]).values[0]

    def test_are_all_that_is_judged(self, bert, hits):
        scorer = SentenceCrossEncoder(bert, device="cpu")
        without = [Hit(Item("p", path=hits[0].item.path), 0.5, 1), Hit(Item("e", text=" "), 0.5, 2)]
        signal = scorer.score(QUERY, [*without, hits[0]])
        np.testing.assert_array_equal(np.isnan(signal.values), [True, True, False])
        assert signal.notes == ()
        assert scorer.score(QUERY, without).notes == ("cross: no hit has a text",)
        assert scorer.score(Query(id="a"), hits).notes == ("cross: reads only queries that are one text",)

    def test_that_look_like_addresses_are_texts(self, bert):
        odd = "http://localhost:1/a.png"
        signal = SentenceCrossEncoder(bert, device="cpu").score(Query(text=odd), [Hit(Item("x", text=odd), 1.0, 1)])
        assert np.isfinite(signal.values).all()


class TestPictures:
    def test_are_scored_as_sentence_transformers_does(self, qwen, hits):
        signal = SentenceCrossEncoder(qwen, reads="picture", device="cpu").score(QUERY, hits)
        assert signal.notes == ()
        assert np.ptp(signal.values) > 0.05
        wanted = directly(qwen, [(QUERY.text, Image.open(hit.item.path)) for hit in hits])
        np.testing.assert_allclose(signal.values, wanted, atol=1e-4)

    def test_and_texts_together_are_too(self, qwen, hits):
        mixed = [*hits[:3], Hit(Item("t", text="green dog"), 0.5, 4), Hit(Item("p", path=hits[4].item.path), 0.4, 5)]
        signal = SentenceCrossEncoder(qwen, reads="both", device="cpu").score(QUERY, mixed)
        parts = [{"text": hit.item.text, "image": Image.open(hit.item.path)} for hit in hits[:3]]
        wanted = directly(qwen, [(QUERY.text, part) for part in [*parts, "green dog", Image.open(hits[4].item.path)]])
        np.testing.assert_allclose(signal.values, wanted, atol=1e-4)
        assert np.ptp(wanted) > 0.05

    def test_are_left_out_where_only_texts_are_read(self, qwen, hits):
        signal = SentenceCrossEncoder(qwen, reads="text", device="cpu").score(QUERY, hits)
        np.testing.assert_allclose(signal.values, directly(qwen, [(QUERY.text, text) for text in TEXTS]), atol=1e-4)

    @pytest.mark.parametrize("reads", ["picture", "both"])
    def test_are_scored_alike_in_any_batch(self, qwen, hits, reads):
        once = SentenceCrossEncoder(qwen, reads=reads, device="cpu").score(QUERY, hits).values
        again = SentenceCrossEncoder(qwen, reads=reads, device="cpu", batch_size=2).score(QUERY, hits[::-1]).values
        np.testing.assert_allclose(again[::-1], once, atol=1e-5)

    def test_are_shrunk_to_the_side_given(self, qwen, hits):
        scorer = SentenceCrossEncoder(qwen, reads="picture", device="cpu", max_side=40)
        small = [Image.open(hit.item.path) for hit in hits]
        for picture in small:
            picture.thumbnail((40, 40), Image.Resampling.LANCZOS)
        wanted = directly(qwen, [(QUERY.text, picture) for picture in small])
        np.testing.assert_allclose(scorer.score(QUERY, hits).values, wanted, atol=1e-4)

    @pytest.mark.parametrize("reads", ["picture", "both"])
    def test_that_cannot_be_read_spoil_no_other(self, qwen, hits, tmp_path, reads):
        broken = tmp_path / "broken.png"
        broken.write_bytes(b"no picture")
        signal = SentenceCrossEncoder(qwen, reads=reads, device="cpu").score(
            QUERY, [hits[0], Hit(Item("x", text="a text too", path=broken), 0.5, 2)]
        )
        np.testing.assert_array_equal(np.isnan(signal.values), [False, True])
        (note,) = signal.notes
        assert note.startswith("cross: 1 of 2 pictures cannot be read, the first: ")

    @pytest.mark.parametrize("odd", ["http://localhost:1/a.png", "/etc/hostname.png"])
    def test_are_never_fetched_because_a_text_names_one(self, qwen, odd):
        scorer = SentenceCrossEncoder(qwen, reads="both", device="cpu")
        signal = scorer.score(Query(text=odd), [Hit(Item("x", text=odd), 1.0, 1)])
        assert np.isfinite(signal.values).all()
        assert signal.notes == ()

    def test_are_missed_by_name(self, qwen):
        text = [Hit(Item("t", text="only text"), 1.0, 1)]
        nothing = [Hit(Item("n"), 1.0, 1)]
        pictures, both = (SentenceCrossEncoder(qwen, reads=reads, device="cpu") for reads in ("picture", "both"))
        assert pictures.score(QUERY, text).notes == ("cross: no hit has a picture",)
        assert both.score(QUERY, nothing).notes == ("cross: no hit has a picture or a text",)

    def test_are_no_use_to_a_model_of_texts(self, bert, hits):
        signal = SentenceCrossEncoder(bert, reads="picture", device="cpu").score(QUERY, hits)
        assert "then failed: ModelBroken" in signal.notes[0]
        assert "reads no pictures" in signal.notes[0]


class TestModels:
    def test_without_a_trained_head_are_refused(self, tmp_path, hits):
        scorer = SentenceCrossEncoder(write_bert(tmp_path / "plain", "BertModel"), device="cpu")
        with pytest.raises(ModelBroken, match=r"lacks 2 weights, such as classifier\.weight"):
            scorer.load()

    def test_of_several_labels_are_refused(self, tmp_path):
        scorer = SentenceCrossEncoder(write_bert(tmp_path / "three", labels=3), device="cpu")
        with pytest.raises(ModelBroken, match="gives 3 numbers a pair"):
            scorer.load()

    def test_that_know_no_sdpa_run_with_eager_attention(self, bert, hits, monkeypatch):
        wanted = SentenceCrossEncoder(bert, device="cpu").score(QUERY, hits).values
        monkeypatch.setattr(transformers.BertForSequenceClassification, "_supports_sdpa", False)
        scorer = SentenceCrossEncoder(bert, device="cpu")
        np.testing.assert_allclose(scorer.score(QUERY, hits).values, wanted, atol=1e-5)
        assert scorer._loaded().transformers_model.config._attn_implementation == "eager"

    def test_are_not_loaded_when_there_is_no_time(self, bert, hits):
        scorer = SentenceCrossEncoder(bert, device="cpu")
        signal = scorer.score(QUERY, hits, deadline=0)
        assert np.isnan(signal.values).all()
        assert signal.notes == ("cross: scored 0 of 6, the time was up",)
        assert scorer._model is None

    def test_load_without_a_word(self, bert, capfd):
        SentenceCrossEncoder(bert, device="cpu").load()
        assert capfd.readouterr() == ("", "")

    def test_run_in_half_precision(self, bert, hits):
        wanted = SentenceCrossEncoder(bert, device="cpu").score(QUERY, hits).values
        half = SentenceCrossEncoder(bert, device="cpu", precision="bf16")
        signal = half.score(QUERY, hits)
        assert half._loaded().transformers_model.dtype == torch.bfloat16
        assert signal.values.dtype == np.float32
        np.testing.assert_allclose(signal.values, wanted, atol=0.3)

    def test_that_are_not_here_are_said_so(self, hits, monkeypatch):
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        scorer = SentenceCrossEncoder("nobody/reranker-nothing", device="cpu")
        with pytest.raises(ModelUnavailable, match="cannot be loaded: it is not in the local cache"):
            scorer.load()
        assert "then failed: ModelUnavailable" in scorer.score(QUERY, hits).notes[0]

    def test_run_no_code_of_their_own_unless_trusted(self, bert, tmp_path):
        folder = write_bert(tmp_path / "custom")
        config = (folder / "config.json").read_text()
        entry = '"auto_map": {"AutoConfig": "evil.Evil", "AutoModelForSequenceClassification": "evil.Evil"}, '
        custom = config.replace("{", "{" + entry, 1).replace('"bert"', '"unheard-of"')
        (folder / "config.json").write_text(custom)
        (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
        with pytest.raises(ModelUnavailable, match="pass trust_remote_code=True"):
            SentenceCrossEncoder(folder, device="cpu").load()
        assert not (tmp_path / "ran").exists()

    def test_have_fingerprints_with_their_settings(self, bert):
        options = [{}, {"reads": "both"}, {"max_length": 9}, {"max_side": 9}, {"prompt": "a"}, {"precision": "fp32"}]
        prints = [SentenceCrossEncoder(bert, **each).fingerprint for each in options]
        assert len(set(prints)) == len(options)
        assert prints[0] == SentenceCrossEncoder(bert).fingerprint


class TestLicences:
    @pytest.fixture(autouse=True)
    def _no_consent(self, monkeypatch):
        monkeypatch.delenv("MMSEARCH_ACCEPT_RESEARCH", raising=False)

    @pytest.mark.parametrize(
        "model", ["jinaai/jina-reranker-m0", "/models/Jina-Reranker-M0/", r"C:\models\jina-reranker-m0-gguf"]
    )
    def test_for_research_only_need_consent(self, model):
        with pytest.raises(LicenceRefused, match=r"CC BY-NC 4\.0.*accept_research=True"):
            SentenceCrossEncoder(model, reads="picture")

    @pytest.mark.parametrize("name", RESEARCH_ONLY)
    def test_can_be_agreed_to(self, name, monkeypatch):
        agreed = SentenceCrossEncoder(f"jinaai/{name}", accept_research=True)
        monkeypatch.setenv("MMSEARCH_ACCEPT_RESEARCH", "1")
        by_environment = SentenceCrossEncoder(f"jinaai/{name}")
        assert agreed.fingerprint == by_environment.fingerprint
        assert name in agreed.fingerprint

    @pytest.mark.parametrize("model", ["Qwen/Qwen3-VL-Reranker-2B", "cross-encoder/ms-marco-MiniLM-L6-v2"])
    def test_that_are_free_need_none(self, model):
        assert model in SentenceCrossEncoder(model).fingerprint


def test_a_missing_package_names_the_extra(bert, monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingDependency, match=r"sentence_transformers.*pip install 'mmsearch\[rerank\]'"):
        SentenceCrossEncoder(bert)


@pytest.mark.parametrize("options", [{"reads": "sound"}, {"max_length": 0}, {"max_side": 0}, {"precision": "int8"}])
def test_wrong_arguments_are_refused(bert, options):
    with pytest.raises(InvalidInput):
        SentenceCrossEncoder(bert, **options)
