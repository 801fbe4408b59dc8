"""Names of encoders: what is recommended and on which terms, and what a name that leads nowhere says."""

import json
import os
import subprocess
import sys

import pytest

from mmsearch.encoders import MODELS, card_of, load_encoder
from mmsearch.errors import InvalidInput, LicenceRefused

# Run in a process of its own, since the hub reads its settings when it is imported.
OFFLINE = """
import json, sys
from mmsearch.encoders import load_encoder
from mmsearch.cli import run

def attempt(name, **options):
    try:
        load_encoder(name, **options)
    except Exception as error:
        return [type(error).__name__, str(error)]

answers = {
    "tag": attempt("ViT-B-32/laion2b_s34b_b79k"),
    "hub": attempt("hf-hub:nobody/no-such-model"),
    "refused": attempt("MobileCLIP2-S0/dfndr2b"),
    "accepted": attempt("MobileCLIP2-S0/dfndr2b", accept_research=True),
    "recommended": attempt("ViT-B-16-SigLIP2/webli"),
    "without a tag": attempt("ViT-B-32"),
    "unknown tag": attempt("ViT-B-32/nonsense"),
    "unknown architecture": attempt("ViT-Q-99/openai"),
    "unknown": attempt("maxi"),
}
print(json.dumps(answers))
sys.stdout.flush()
sys.argv = ["mmsearch", "index", sys.argv[1], "--store", sys.argv[2], "--encoder", "ViT-B-32/laion2b_s34b_b79k"]
run()
"""


@pytest.fixture(scope="module")
def offline(tmp_path_factory):
    """What a machine without weights and without a network answers: by name, and at the command line."""
    folder = tmp_path_factory.mktemp("offline")
    (folder / "photos").mkdir()
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hub"), "MMSEARCH_CACHE": str(folder)}
    environment.pop("MMSEARCH_ACCEPT_RESEARCH", None)
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE, str(folder / "photos"), str(folder / "store")],
        capture_output=True,
        text=True,
        env=environment,
    )
    return json.loads(done.stdout.splitlines()[0]), done


def test_a_missing_download_names_the_model_and_says_what_to_do_and_what_works(offline):
    kind, message = offline[0]["tag"]
    assert kind == "ModelUnavailable"
    assert "ViT-B-32/laion2b_s34b_b79k" in message
    assert "local-dir:" in message
    assert "HF_HOME" in message
    assert "mini" in message
    assert len(message) < 800
    assert "\n" not in message


def test_a_missing_repository_of_the_hub_is_unavailable_by_its_name(offline):
    kind, message = offline[0]["hub"]
    assert kind == "ModelUnavailable"
    assert "hf-hub:nobody/no-such-model" in message


def test_the_command_line_fails_in_a_few_lines_with_an_exit_code_of_its_own(offline):
    _, done = offline
    assert done.returncode == 4
    assert len(done.stdout.splitlines()) == 1
    assert len(done.stderr.splitlines()) <= 5
    assert "ViT-B-32/laion2b_s34b_b79k" in done.stderr
    assert "Traceback" not in done.stderr


def test_consent_to_research_weights_reaches_the_loading(offline):
    assert offline[0]["refused"][0] == "LicenceRefused"
    kind, message = offline[0]["accepted"]
    assert kind == "ModelUnavailable"
    assert "MobileCLIP2-S0/dfndr2b" in message


def test_the_recommended_model_is_only_unavailable(offline):
    kind, message = offline[0]["recommended"]
    assert kind in ("ModelUnavailable", "MissingDependency")
    assert "ViT-B-16-SigLIP2/webli" in message or "pip install" in message


def test_a_name_without_a_tag_is_answered_with_the_tags(offline):
    for which in ("without a tag", "unknown tag"):
        kind, message = offline[0][which]
        assert kind == "InvalidInput"
        assert "laion2b_s34b_b79k" in message
        assert "openai" in message


def test_an_unknown_name_is_answered_with_where_to_look(offline):
    for which, name in (("unknown architecture", "ViT-Q-99/openai"), ("unknown", "maxi")):
        kind, message = offline[0][which]
        assert kind == "InvalidInput"
        assert name in message
        assert "mmsearch models" in message


@pytest.mark.parametrize("name", ["", "  ", None, 5, b"mini"])
def test_what_is_no_name_is_refused(name):
    with pytest.raises(InvalidInput, match="expected the name of an encoder"):
        load_encoder(name)


@pytest.mark.parametrize("runtime", ["cuda", "", "ONNX", None])
def test_a_runtime_that_does_not_exist_is_refused_with_those_that_do(runtime):
    with pytest.raises(InvalidInput, match="expected a runtime of auto, onnx, torch"):
        load_encoder("mini", runtime=runtime)


@pytest.mark.parametrize(
    "name",
    [
        "MobileCLIP2-S0/dfndr2b",
        "MobileCLIP2-L-14/dfndr2b",
        "MobileCLIP-S1/datacompdr",
        "hf-hub:apple/MobileCLIP2-S2-OpenCLIP",
        "hf-hub:apple/MobileCLIP-S1-OpenCLIP",
        "hf-hub:someone/mobileclip-s1-copy",
        "local-dir:/models/MobileCLIP2-S0/",
    ],
)
def test_research_weights_are_refused_without_consent_whether_listed_or_not(name, monkeypatch):
    monkeypatch.delenv("MMSEARCH_ACCEPT_RESEARCH", raising=False)
    assert card_of(name).research_only
    with pytest.raises(LicenceRefused, match="MMSEARCH_ACCEPT_RESEARCH=1") as caught:
        load_encoder(name)
    assert name in str(caught.value)
    assert "accept_research=True" in str(caught.value)


@pytest.mark.parametrize("name", ["hf-hub:apple/DFN2B-CLIP-ViT-B-16", "local-dir:/home/mobileclip/ViT-B-32"])
def test_an_owner_or_a_folder_above_the_model_does_not_make_it_research_only(name):
    assert not card_of(name).research_only


@pytest.mark.parametrize("name", ["hf-hub:", "local-dir:", "hf-hub: ", "local-dir: "])
def test_a_schema_with_nothing_after_it_is_answered_with_what_belongs_there(name, tmp_path):
    with pytest.raises(InvalidInput, match=f"expected {name.partition(':')[0]}:[a-z/]+"):
        load_encoder(name, cache=tmp_path)


@pytest.mark.parametrize("value", ["", "0", "no"])
def test_only_a_clear_yes_in_the_environment_is_consent(value, monkeypatch):
    monkeypatch.setenv("MMSEARCH_ACCEPT_RESEARCH", value)
    with pytest.raises(LicenceRefused, match="research only"):
        load_encoder("MobileCLIP2-S0/dfndr2b")


def test_every_recommended_name_is_one_that_open_clip_knows():
    import open_clip

    known = {f"{architecture}/{tag}" for architecture, tag in open_clip.list_pretrained()}
    named = {name for name, card in MODELS.items() if not card.built_in and not name.startswith("hf-hub:")}
    assert named <= known


def test_every_recommended_model_says_what_it_is_for_and_on_which_terms():
    for name, card in MODELS.items():
        assert card.name == name
        assert card.use
        assert card.licence
        assert card.params_m > 0
    assert "ViT-B-16-SigLIP2/webli" in MODELS
    assert "recommended" in MODELS["ViT-B-16-SigLIP2/webli"].use


def test_only_the_embedded_model_is_built_in_and_it_needs_no_consent():
    assert [name for name, card in MODELS.items() if card.built_in] == ["mini"]
    assert not MODELS["mini"].research_only
    assert "non-commercial" in MODELS["mini"].licence


def test_a_model_that_is_not_listed_says_that_its_terms_are_not_known():
    card = card_of("ViT-B-32/laion2b_s34b_b79k")
    assert card.name == "ViT-B-32/laion2b_s34b_b79k"
    assert "not known" in card.licence
    assert not card.research_only
    assert not card.built_in
