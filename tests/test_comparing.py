"""``mmsearch compare``: arms over the same queries and items, samples that are said, times that are fitted."""

import json
import sys
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import typer
from PIL import Image

from mmsearch.cli import comparing as command
from mmsearch.comparing import Growth, Row, bench, check_plot, compare, plot
from mmsearch.comparing.joint import LEAST, Cost, plan
from mmsearch.comparing.values import advise, duration
from mmsearch.errors import InvalidInput, MissingDependency
from mmsearch.gallery import gallery_folder
from mmsearch.judged import read_judged
from mmsearch.metrics import Difference, Interval
from mmsearch.rerank.function import FunctionReranker
from mmsearch.rerank.stage import unscored

COMMON = {"encoder", "arm", "stages", "queries", "items", "total", "sample", "measures", "against"}
COSTS = {"ms_per_query", "one_time_ms", "bytes_per_item", "growth"}


@pytest.fixture
def pictures(toy, folder):
    """A dataset of 36 pictures, each asked for by its kind and by its very name."""
    rows = []
    for kind in toy.KINDS:
        for n in range(3):
            name = f"{kind} {n}.png"
            toy.draw(folder / name, kind, n)
            rows.append({"image": name, "id": name, "captions": [f"a {kind}", f"number {n} of {kind}"]})
    return toy.dataset(folder, rows)


@pytest.fixture
def oracle():
    """A joint model that is right by construction: it knows which picture each text is about."""

    def knows(judged):
        right = {query: next(iter(judged.qrels[id])) for query, id in zip(judged.queries, judged.ids, strict=True)}
        return FunctionReranker(lambda query, items: [float(item.id == right[query.text]) for item in items], "oracle")

    return knows


@pytest.fixture
def unique(pictures):
    """The judged queries whose text is about one picture alone."""
    judged = read_judged(pictures)
    return judged.part([n for n, query in enumerate(judged.queries) if query.startswith("number")])


def by_arm(found, sample=False):
    return {row.arm: row for row in found.rows if row.sample == sample}


# Values -------------------------------------------------------------------------------------------------------------


def test_a_line_is_recovered_from_times():
    growth = Growth.of([125, 250, 500, 1_000], [3.1 + 0.004 * n for n in (125, 250, 500, 1_000)])
    assert growth.start == pytest.approx(3.1)
    assert growth.per_item == pytest.approx(0.004)
    assert growth.at(100_000) == pytest.approx(403.1)
    assert Growth.of([10, 100, 1_000], [1, 10, 100]).exponent == pytest.approx(1)
    assert Growth.of([10, 100, 1_000], [2, 2, 2]).exponent == pytest.approx(0)


@pytest.mark.parametrize("ms", [[5.0, 4.0, 3.0], [1.0, 10.0, 40.0], [7.0, 7.0, 7.0]])
def test_noise_foretells_no_negative_time(ms):
    growth = Growth.of([100, 200, 400], ms)
    assert min(growth.start, growth.per_item) >= 0
    assert growth.at(1_000_000) >= 0


def test_bounds_hold_what_the_noise_leaves_open():
    sizes = [125, 250, 500, 1_000]
    sure = Growth.of(sizes, [3.0 + 0.01 * n for n in sizes])
    assert sure.between(100_000) == pytest.approx((1_003, 1_003))
    noisy = Growth.of(sizes, [22.0, 14.0, 17.0, 24.0])
    assert noisy.low == 0
    low, high = noisy.between(100_000)
    assert low < 30 < noisy.at(100_000) < high
    assert np.isinf(Growth.of([100, 200], [1.0, 2.0]).high)


def test_one_size_gives_no_growth():
    growth = Growth.of([12], [4.0])
    assert (growth.start, growth.per_item, growth.exponent) == (4.0, 0.0, 0.0)


@pytest.mark.parametrize(("sizes", "ms"), [([], []), ([1, 2], [1.0])])
def test_times_without_sizes_are_refused(sizes, ms):
    with pytest.raises(InvalidInput, match="one time for each"):
        Growth.of(sizes, ms)


def row(arm, encoder="mini", ms=10.0, sample=False, **against):
    measures = {"R@1": Interval(0.5, 0.4, 0.6)}
    growth = Growth.of([10, 100], [1.0, ms])
    return Row(encoder, arm, (), 200, 100, 100, sample, measures, against, ms, 1.0, 512.0, growth)


@pytest.mark.parametrize(
    ("gain", "said"),
    [
        (
            Difference(0.056, 0.045, 0.067, 0.001),
            "better than vectors alone by 5.6 points of R@1 (4.5 to 6.7) for 12 ms",
        ),
        (Difference(0.003, -0.005, 0.011, 0.4), "no significant gain of the cascade over vectors alone (+0.3 points"),
        (Difference(-0.02, -0.03, -0.01, 0.001), "worse than vectors alone by 2.0 points of R@1 (1.0 to 3.0): leave"),
    ],
)
def test_advice_follows_the_figures(gain, said):
    (sentence,) = advise([row("embedding", ms=3.0), row("cascade", ms=15.0, embedding=gain)])
    assert said in sentence


def test_advice_on_joint_models_and_encoders():
    better, worse = Difference(0.1, 0.05, 0.15, 0.001), Difference(-0.1, -0.15, -0.05, 0.001)
    same = Difference(0.0, -0.1, 0.1, 0.9)
    rows = [
        row("embedding"),
        row("joint", ms=80_000, embedding=better),
        row("joint", embedding=better, cascade=worse),
        row("joint", cascade=same),
        row("embedding", "other", mini=better),
        row("embedding", "third", mini=same),
    ]
    said = advise(rows)
    assert "80 s a query; over 100,000 items, extrapolated, " in said[0]
    assert "is better than vectors alone by 10.0 points" in said[0]
    assert "is worse than the cascade by 10.0 points" in said[1]
    assert "not significantly different from the cascade" in said[2]
    assert said[3] == "vectors alone: other is better than mini by 10.0 points of R@1 (5.0 to 15.0)"
    assert "do not differ significantly" in said[4]
    assert duration(5_000) == "5.0 s"


# The sample ---------------------------------------------------------------------------------------------------------


def test_what_is_affordable_is_taken_whole(unique):
    planned = plan(unique, Cost(1e-6, 0.0), 60)
    assert planned.whole
    assert (len(planned.judged.queries), planned.n_items) == (36, 36)


@pytest.fixture
def many(unique):
    """Three hundred queries over the first twelve items of 36."""
    chosen = [n % 12 for n in range(300)]
    ids = tuple(f"{unique.ids[at]} {n}" for n, at in enumerate(chosen))
    part = unique.part(chosen)
    qrels = {id: unique.qrels[unique.ids[at]] for id, at in zip(ids, chosen, strict=True)}
    return replace(part, ids=ids, qrels=qrels)


def test_queries_become_fewer_first_then_items(many):
    cost = Cost(0.01, 0.0)
    fewer = plan(many, cost, 36 * 150 * 0.01 + 1e-6)
    assert (len(fewer.judged.queries), fewer.n_items, fewer.whole) == (150, 36, False)
    least = plan(many, cost, 20 * LEAST * 0.01 + 1e-6)
    assert (len(least.judged.queries), least.n_items) == (LEAST, 20)
    assert least.seconds <= 20 * LEAST * 0.01 + 1e-6 < least.whole_seconds


@pytest.mark.parametrize("seed", range(5))
def test_right_answers_are_always_in_the_sample(many, seed):
    planned = plan(many, Cost(1.0, 0.5), 0.001, seed)
    there = {item.id for item in planned.order[: planned.n_items]}
    assert there >= {id for asked in planned.judged.ids for id in planned.judged.qrels[asked]}
    assert planned.n_items < len(planned.order) == 36
    assert planned.seconds > 0.001
    assert {item.id for item in planned.order} == {item.id for item in many.items}


# All of it, in the toy world ----------------------------------------------------------------------------------------


def test_the_joint_arm_is_perfect_if_its_model_is(unique, encoder, oracle):
    found = compare(unique, encoders=[encoder], joint=oracle(unique))
    arms = by_arm(found)
    assert list(arms) == ["embedding", "cascade", "joint"]
    assert not by_arm(found, sample=True)
    assert arms["joint"].measures["R@1"] == Interval(1.0, 1.0, 1.0)
    assert arms["embedding"].measures["R@1"].value < 0.9
    assert arms["embedding"].measures["R@10"].value > 0.9
    gain = arms["joint"].against["embedding"]
    assert gain.value == pytest.approx(1 - arms["embedding"].measures["R@1"].value)
    assert gain.significant
    assert set(arms["joint"].against) == {"embedding", "cascade"}
    assert set(arms["cascade"].against) == {"embedding"}
    assert arms["cascade"].stages == ("regions",)
    for arm in arms.values():
        assert (arm.queries, arm.items, arm.total) == (36, 36, 36)
        assert arm.ms_per_query > 0
        assert arm.one_time_ms >= 0
        assert arm.growth.sizes[-1] == 36
        assert list(arm.growth.sizes) == sorted(set(arm.growth.sizes))
        assert len(arm.growth.sizes) > 2
    assert "joint model alone" in found.advice[1]
    assert "better" in found.advice[1]


def test_bytes_are_those_of_the_spaces_of_an_arm(unique, encoder, oracle):
    arms = by_arm(compare(unique, encoders=[encoder], joint=oracle(unique)))
    assert arms["embedding"].bytes_per_item == encoder.dim * 2
    assert arms["cascade"].bytes_per_item == encoder.dim * 2 * 8
    assert arms["joint"].bytes_per_item == 0


def test_too_little_time_brings_a_sample_and_says_so(pictures, encoder, oracle, monkeypatch):
    judged = read_judged(pictures)
    judged = judged.part([n for n, query in enumerate(judged.queries) if query.startswith("number")][:6])
    monkeypatch.setattr(bench, "measure_cost", lambda *_: Cost(0.5, 0.0))
    found = compare(judged, encoders=[encoder], joint=oracle(judged), seconds=6 * 0.5 * 20)
    whole, sample = by_arm(found), by_arm(found, sample=True)
    assert list(whole) == ["embedding", "cascade"]
    assert list(sample) == ["embedding", "cascade", "joint"]
    assert {arm.items for arm in sample.values()} == {20}
    assert {arm.items for arm in whole.values()} == {36}
    assert sample["joint"].measures["R@1"].value == 1.0
    assert sample["joint"].extent == "6 queries over 20 of 36 items"
    assert sample["joint"].growth.sizes[-1] == 20
    assert sample["embedding"].ms_per_query is None
    assert any("6 queries over 20 of 36 items" in note for note in found.notes)
    assert any("6 queries over 20 of 36 items" in sentence for sentence in found.advice)


def test_a_sample_may_be_fewer_queries_over_everything(unique, encoder, oracle, monkeypatch):
    monkeypatch.setattr("mmsearch.comparing.joint.LEAST", 10)
    monkeypatch.setattr(bench, "measure_cost", lambda *_: Cost(0.5, 0.0))
    found = compare(unique, encoders=[encoder], joint=oracle(unique), seconds=36 * 0.5 * 12.5)
    joint = by_arm(found, sample=True)["joint"]
    assert (joint.queries, joint.items, joint.total) == (12, 36, 36)
    assert by_arm(found)["embedding"].queries == 36


def test_even_the_right_answers_may_take_longer_and_that_is_said(unique, encoder, oracle, monkeypatch):
    monkeypatch.setattr(bench, "measure_cost", lambda *_: Cost(0.5, 0.0))
    part = unique.part(range(5))
    found = compare(part, encoders=[encoder], joint=oracle(part), seconds=0.001)
    assert by_arm(found, sample=True)["joint"].items == 5
    assert any("Even that takes about 13 s" in note or "Even that takes about 12 s" in note for note in found.notes)


def test_two_encoders_give_two_groups_of_rows(unique, toy, oracle):
    found = compare(unique, encoders=[toy.ToyEncoder(), toy.ToyEncoder(seed=1)], joint=oracle(unique))
    assert [(row.encoder, row.arm) for row in found.rows] == [
        ("toy", "embedding"),
        ("toy", "cascade"),
        ("toy", "joint"),
        ("toy #2", "embedding"),
        ("toy #2", "cascade"),
    ]
    assert set(found.rows[3].against) == {"toy"}
    assert any(note.startswith("oracle reads pictures and queries themselves") for note in found.notes)
    assert any("toy #2" in sentence and "toy" in sentence for sentence in found.advice)


def test_an_encoder_without_joint_model_leaves_that_arm_out(unique, encoder):
    found = compare(unique, encoders=[encoder])
    assert list(by_arm(found)) == ["embedding", "cascade"]
    assert any("the encoder toy has none of its own" in note for note in found.notes)
    assert not any("joint model is left out" in note for note in compare(unique, encoders=[encoder], joint=False).notes)


def test_a_joint_model_that_judges_nothing_is_left_out(unique, encoder):
    class Silent(FunctionReranker):
        def score(self, query, hits, deadline=None):
            return unscored(len(hits), "silent: has no opinion")

    found = compare(unique, encoders=[encoder], joint=Silent(lambda query, items: [], "silent"))
    assert list(by_arm(found)) == ["embedding", "cascade"]
    assert "the joint model is left out: silent: has no opinion" in found.notes


def test_pairs_without_a_number_are_counted(unique, encoder):
    half = FunctionReranker(lambda _, items: [float("nan") if " 0" in item.id else 1.0 for item in items], "half")
    found = compare(unique, encoders=[encoder], joint=half)
    assert "half gave no number for 432 of 1,296 pairs" in found.notes


def test_a_bank_joins_the_cascade(unique, encoder, tmp_path):
    queries = tmp_path / "bank.txt"
    queries.write_text("\n".join(f"some {colour} thing {n}" for colour in ("red", "blue") for n in range(20)))
    found = compare(unique, encoders=[encoder], bank=queries, joint=False)
    assert by_arm(found)["cascade"].stages == ("hubness", "regions")
    assert any(note.startswith("the bank of 40 queries took") for note in found.notes)


def test_pictures_that_ask_have_no_cascade_by_default(toy, folder, encoder):
    toy.draw_all(folder, each=2)
    rows = [{"image": f"{kind} {n}.png", "kind": kind} for kind in toy.KINDS for n in range(2)]
    found = compare(toy.dataset(folder, rows), task="image-to-image", encoders=[encoder])
    assert list(by_arm(found)) == ["embedding"]
    assert any("none of its default stages applies to image-to-image" in note for note in found.notes)
    assert found.queries == 24


def test_pictures_ask_for_texts(pictures, encoder):
    found = compare(pictures, task="image-to-text", encoders=[encoder])
    assert by_arm(found)["embedding"].bytes_per_item == encoder.dim * 2
    assert found.items == 72


def test_what_cannot_be_read_is_said(pictures, encoder):
    (pictures / "red disc 1.png").write_bytes(b"no picture")
    found = compare(pictures, encoders=[encoder], joint=False)
    assert by_arm(found)["embedding"].items == 35
    assert any("could not be added, the first:" in note for note in found.notes)


def test_a_query_that_cannot_be_asked_counts_as_unanswered(unique, encoder, oracle):
    first = "x" * 5_000
    judged = replace(unique, queries=(first, *unique.queries[1:]))
    arms = by_arm(compare(judged, encoders=[encoder], joint=oracle(judged)))
    assert arms["joint"].measures["R@1"].value == pytest.approx(35 / 36)
    with pytest.raises(InvalidInput, match="expected queries that can be asked"):
        compare(replace(unique, queries=(first,) * 36), encoders=[encoder], joint=oracle(unique))


def test_a_dataset_of_broken_pictures_is_refused(pictures, encoder):
    for file in pictures.glob("*.png"):
        file.write_bytes(b"no picture")
    with pytest.raises(InvalidInput, match="expected items that can be read"):
        compare(pictures, encoders=[encoder])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"encoders": []}, "at least one encoder"),
        ({"encoders": "mini"}, "a list"),
        ({"seconds": 0}, "more than 0 seconds"),
        ({"task": "sound-to-image"}, "expected a task"),
    ],
)
def test_wrong_options_are_refused(pictures, options, said):
    with pytest.raises(InvalidInput, match=said):
        compare(pictures, **options)


def test_json_is_plain_and_whole(unique, encoder, oracle):
    found = compare(unique, encoders=[encoder], joint=oracle(unique)).to_json()
    assert json.loads(json.dumps(found)) == json.loads(json.dumps(found, default=str))
    assert set(found) == {"task", "items", "queries", "rows", "notes", "advice"}
    for its in found["rows"]:
        assert set(its) == COMMON | COSTS
        assert set(its["measures"]) >= {"R@1", "R@5", "R@10", "MRR@10"}
        assert set(its["measures"]["R@1"]) == {"value", "low", "high"}
        assert set(its["growth"]["extrapolated_ms"]) == {"100000", "1000000"}
        assert set(its["growth"]["extrapolated_ms"]["100000"]) == {"value", "low", "high"}
    assert set(found["rows"][1]["against"]["embedding"]) == {"value", "low", "high", "p"}


# The plot -----------------------------------------------------------------------------------------------------------


def test_the_plot_is_a_picture(unique, toy, oracle, tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "measure_cost", lambda *_: Cost(0.5, 0.0))
    found = compare(unique, encoders=[toy.ToyEncoder(), toy.ToyEncoder(1)], joint=oracle(unique), seconds=1, queries=10)
    plot(found, tmp_path / "plot.png")
    with Image.open(tmp_path / "plot.png") as image:
        assert image.format == "PNG"
        assert min(image.size) > 500
        assert np.asarray(image.convert("L")).std() > 5


def test_a_plot_that_cannot_be_written_is_refused_beforehand(tmp_path, monkeypatch):
    for file in (tmp_path / "plot.txt", tmp_path / "nowhere" / "plot.png"):
        with pytest.raises(InvalidInput, match=r"expected a \.png file in a folder that exists"):
            check_plot(file)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependency, match=r"mmsearch\[plot\]"):
        check_plot(tmp_path / "plot.png")


# The command --------------------------------------------------------------------------------------------------------

NAMES = (
    "gcompris-photos-categorization-images-renewable-windmill3",
    "gcompris-photos-categorization-images-renewable-solar1",
    "gcompris-photos-explore-monuments-egypt-redpyramid",
    "gcompris-photos-explore-world-animals-animals-panda",
    "gcompris-photos-explore-world-animals-animals-polar-bear",
    "openclipart-food-pizza-pepperoni",
)
TEXTS = ("a windmill", "solar panels", "a pyramid", "a panda", "a polar bear", "a slice of pizza")


@pytest.fixture(scope="module")
def gallery(tmp_path_factory):
    """Six real pictures with a caption each."""
    folder = tmp_path_factory.mktemp("gallery")
    with zipfile.ZipFile(gallery_folder() / "images.zip") as archive:
        for name in NAMES:
            (folder / f"{name}.webp").write_bytes(archive.read(f"{name}.webp"))
    rows = [{"image": f"{name}.webp", "captions": [text]} for name, text in zip(NAMES, TEXTS, strict=True)]
    (folder / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def ask(capsys, monkeypatch):
    """Run the command in this process: (exit code, stdout, stderr)."""
    app = typer.Typer()
    app.command()(command.compare)

    def run(*arguments):
        monkeypatch.setenv("COLUMNS", "240")
        capsys.readouterr()
        try:
            app([*map(str, arguments)], standalone_mode=False)
        except InvalidInput as error:
            return 2, "", str(error)
        shown = capsys.readouterr()
        return 0, shown.out, shown.err

    return run


def test_the_command_prints_one_json_object_and_writes_the_plot(ask, gallery, tmp_path):
    code, out, err = ask(gallery, "--json", "--out", tmp_path / "plot.png", "--seconds", 60)
    assert code == 0, err
    found = json.loads(out)
    assert [row["arm"] for row in found["rows"]] == ["embedding", "cascade", "joint"]
    assert {row["encoder"] for row in found["rows"]} == {"mini"}
    assert found["rows"][1]["stages"] == ["regions", "late"]
    assert found["rows"][2]["stages"] == ["cross"]
    assert all(row["measures"]["R@1"]["value"] >= 0.5 for row in found["rows"])
    assert all(row["bytes_per_item"] > 0 for row in found["rows"])
    assert found["plot"] == str(tmp_path / "plot.png")
    with Image.open(tmp_path / "plot.png") as image:
        assert image.format == "PNG"


def test_the_command_prints_tables_and_advice(ask, gallery):
    code, out, err = ask(gallery, "--joint", "none", "--queries", 4)
    assert code == 0, err
    assert "4 queries over 6" in out
    for part in ("R@1 against", "one-time ms/item", "per 1,000 items", "* extrapolated", "the cascade"):
        assert part in out
    assert "note: ms a query: median of 4 single queries" in err


@pytest.mark.parametrize("spec", ["blip", "blip:", "magic:model", "", "none:x"])
def test_an_unknown_joint_model_is_refused(ask, gallery, spec):
    code, _, said = ask(gallery, "--joint", spec)
    assert code == 2
    assert said.startswith("expected --joint as blip:MODEL, st:MODEL or none, got")


def test_joint_models_by_name_are_made_and_loaded_later():
    assert command._joint("blip:some/model").name == "cross"
    assert command._joint("st:some/model").name
    assert command._joint(None) is True
    assert command._joint("none") is False


def test_an_unknown_task_is_refused(ask, gallery):
    code, _, said = ask(gallery, "--task", "smell-to-image")
    assert code == 2
    assert "expected a task of text-to-image" in said
