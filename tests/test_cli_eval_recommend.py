"""``mmsearch eval-recommend``: what it prints, what it promises to scripts, and how it refuses."""

import json
import math
import sys

import pytest

from mmsearch import Interaction, Item

ALWAYS = {"random", "popular", "items", "ease", "als", "sessions", "content", "hybrid"}
MEASURES = {f"{name}@10" for name in ("nDCG", "recall", "MRR", "R", "ILD", "novelty", "ARP", "coverage")}


@pytest.fixture
def ask_json(ask):
    """The one JSON object that a command prints, and nothing else."""

    def run(*arguments):
        code, shown, said = ask("eval-recommend", *arguments, "--json")
        assert (code, said) == (0, "")
        data, end = json.JSONDecoder().raw_decode(shown)
        assert shown[end:] == "\n"
        return data

    return run


@pytest.fixture
def bare(engine, toy):
    """The path of a store of 60 texts in which nobody has had to do with anything."""
    engine.add([Item(id=f"{kind} {n}", text=f"a {kind}") for kind in toy.KINDS for n in range(5)])
    return engine.path


@pytest.fixture
def shop(engine, bare, toy):
    """The same with 24 people, each of whom likes eight things of one colour, one after the other."""
    told = []
    for person in range(24):
        kinds = [kind for kind in toy.KINDS if kind.startswith(("red", "green", "blue", "yellow")[person % 4])]
        for n in range(8):
            item = f"{kinds[(person + n) % 3]} {(person * 7 + n) % 5}"
            told.append(Interaction(f"person {person}", item, weight=1.0, time=1e9 + 100 * n + person))
    engine.add_interactions(told)
    return bare


def numbers_of(split):
    return [number for row in split["models"].values() for one in row.values() for number in one.values()]


def test_it_prints_one_object_of_the_form_of_the_contract(ask_json, shop):
    said = ask_json("--store", shop)
    assert (said["users"], said["items"], said["interactions"]) == (24, 60, 192)
    assert list(said["splits"]) == ["warm", "cold"]
    assert said["left_out"] == {}
    for split in said["splits"].values():
        assert split["models"].keys() == ALWAYS
        assert all(row.keys() == MEASURES for row in split["models"].values())
        assert split["best_single"] in ALWAYS - {"hybrid"}
        assert split["difference"].keys() == {"value", "low", "high", "p"}
        assert all(math.isfinite(number) for number in numbers_of(split))
        for row in split["models"].values():
            assert all(one["low"] <= one["value"] <= one["high"] for one in row.values())
            assert all(0 <= row[name]["value"] <= 1 for name in MEASURES - {"novelty@10", "ILD@10"})
    assert said["splits"]["warm"]["users"] == 24
    assert said["splits"]["cold"]["cold_items"] == 12


def test_the_difference_is_between_the_hybrid_and_the_best_single_model(ask_json, shop):
    (split,) = ask_json("--store", shop, "--split", "warm")["splits"].values()
    means = {model: row["nDCG@10"]["value"] for model, row in split["models"].items()}
    hybrid = means.pop("hybrid")
    assert means[split["best_single"]] == max(means.values())
    assert split["difference"]["value"] == pytest.approx(hybrid - max(means.values()))


def test_whoever_likes_one_colour_is_foretold_better_than_by_chance(ask_json, shop):
    (split,) = ask_json("--store", shop, "--split", "warm")["splits"].values()
    assert split["models"]["items"]["nDCG@10"]["low"] > split["models"]["random"]["nDCG@10"]["value"]


def test_people_see_a_table_and_what_follows(ask, shop):
    code, shown, said = ask("eval-recommend", "--store", shop, "-k", "5")
    assert (code, said) == (0, "")
    assert "24 people, 60 items, 192 interactions" in shown
    assert "warm: what each person liked last, 24 people tested" in shown
    assert "cold: 12 items that are new to everybody" in shown
    assert shown.count("hybrid - best single (") == 2
    assert "nDCG@5" in shown
    assert all(f"\n{model} " in shown for model in ALWAYS)


def test_further_models_can_be_named(ask_json, shop):
    said = ask_json("--store", shop, "--split", "warm", "--models", " bm25,popular ")
    assert said["splits"]["warm"]["models"].keys() == ALWAYS | {"bm25"}
    everything = ask_json("--store", shop, "--split", "warm", "--models", "all")
    assert everything["splits"]["warm"]["models"].keys() >= ALWAYS | {"bm25"}


def test_equal_seeds_give_equal_answers(ask_json, shop):
    options = ["--store", shop, "--split", "cold", "--share", "0.3"]
    (first, again, other) = (ask_json(*options, "--seed", seed) for seed in (1, 1, 2))
    assert first == again
    assert first["splits"]["cold"]["cold_items"] == 18
    assert first != other


def test_one_moment_can_part_past_and_future(ask_json, shop):
    (split,) = ask_json("--store", shop, "--split", "warm", "--by", "time", "--share", "0.125")["splits"].values()
    assert split["split"] == "time"
    assert split["users"] == 24  # the eighth of everybody's eight events comes after it
    assert split["empty_histories"] == 0


def test_a_model_whose_package_is_missing_is_left_out_with_the_reason(ask, ask_json, shop, monkeypatch):
    monkeypatch.setitem(sys.modules, "implicit", None)
    said = ask_json("--store", shop, "--split", "warm")
    assert "als" not in said["splits"]["warm"]["models"]
    assert "pip install" in said["left_out"]["als"]
    code, _, told = ask("eval-recommend", "--store", shop, "--split", "warm")
    assert code == 0
    assert "left out als: " in told


def test_a_store_without_interactions_says_to_import_them(ask, bare):
    code, shown, said = ask("eval-recommend", "--store", bare)
    assert (code, shown) == (2, "")
    assert "mmsearch interactions import" in said


@pytest.mark.parametrize(
    ("options", "about"),
    [
        (["--models", "items,oracle"], "random, popular, trending, items"),
        (["--models", ","], "random, popular, trending, items"),
        (["--split", "luke"], "warm, cold, both"),
        (["--by", "chance"], "last, time"),
        (["--share", "1.5", "--split", "cold"], "between 0 and 1"),
        (["--share", "0", "--by", "time"], "between 0 and 1"),
        (["-k", "0"], "Usage: "),
        (["--seed", "-1"], "Usage: "),
    ],
)
def test_what_it_cannot_do_it_refuses_with_what_it_can(ask, shop, options, about):
    code, shown, said = ask("eval-recommend", "--store", shop, *options)
    assert (code, shown) == (2, "")
    assert about in said


def test_without_times_there_is_no_moment_to_part_by(ask, bare, engine):
    engine.add_interactions([Interaction("ann", f"red disc {n}") for n in range(3)])
    code, _, said = ask("eval-recommend", "--store", bare, "--split", "warm", "--by", "time")
    assert code == 2
    assert "times" in said
