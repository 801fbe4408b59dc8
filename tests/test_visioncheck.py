"""Flaws as the package cleanvision finds them."""

import json
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from mmsearch import Item
from mmsearch.errors import InvalidInput, MissingDependency
from mmsearch.looking import Looker
from mmsearch.visioncheck import VisionCheck

with_cleanvision = pytest.mark.skipif(
    find_spec("cleanvision") is None, reason="needs the extra: pip install 'mmsearch[cleanvision]'"
)

OURS = {
    "dark": "dark",
    "light": "bright",
    "blurry": "blurred",
    "low_information": "empty",
    "odd_aspect_ratio": "aspect",
    "odd_size": "small",
}


def scene(seed=7, side=300):
    """A picture with edges, light and shadow, in which nothing is wrong."""
    chance = np.random.default_rng(seed)
    coarse = Image.fromarray(chance.integers(0, 256, (9, 9, 3), dtype=np.uint8))
    fine = Image.fromarray(chance.integers(0, 256, (side, side, 3), dtype=np.uint8))
    return Image.blend(coarse.resize((side, side), Image.Resampling.NEAREST), fine, 0.2)


def draw(folder):
    """Pictures that are fine, of two sizes, and one with each flaw, named for it."""
    for n in range(12):
        scene(n, 280 + 40 * (n % 2)).save(folder / f"good {n}.png")
    ImageEnhance.Brightness(scene()).enhance(0.2).save(folder / "dark.png")
    Image.blend(scene(), Image.new("RGB", (300, 300), "white"), 0.98).save(folder / "bright.png")
    ImageOps.autocontrast(scene().filter(ImageFilter.GaussianBlur(12))).save(folder / "blurred.png")
    scene().crop((0, 0, 300, 90)).resize((560, 168)).save(folder / "aspect.png")
    scene().quantize(2).convert("RGB").save(folder / "empty.png")
    scene().resize((40, 40)).save(folder / "small.png")
    return folder


@pytest.fixture
def flawed(engine, folder):
    engine.add_folder(draw(folder))
    return engine


def flaws(engine, **asked):
    return Looker(engine._store).flaws(**{"method": "cleanvision"} | asked)


def kinds_of(found):
    return {(one.kind, one.item.id) for one in found}


def test_without_the_package_the_error_names_the_extra(engine, monkeypatch):
    monkeypatch.setitem(sys.modules, "cleanvision.issue_managers.image_property_issue_manager", None)
    with pytest.raises(MissingDependency, match=r"need an extra: pip install 'mmsearch\[cleanvision\]'"):
        flaws(engine)
    assert flaws(engine, method="own") == []


@pytest.mark.parametrize("method", ["", "CleanVision", None, ["own"]])
def test_other_methods_are_refused(engine, method):
    with pytest.raises(InvalidInput, match="own, cleanvision, got "):
        flaws(engine, method=method)


@with_cleanvision
def test_each_flaw_is_found_where_it_is(flawed):
    found = flaws(flawed)
    assert kinds_of(found) >= {(kind, f"{kind}.png") for kind in OURS.values()}
    assert not {one.item.id for one in found if one.item.id.startswith("good")}
    assert all(0 <= one.value < one.limit <= 1 for one in found)


@with_cleanvision
@pytest.mark.filterwarnings("default")  # that package's own way to do it, which we do not use
def test_the_answers_are_those_that_cleanvision_gives_by_itself(flawed, folder):
    from cleanvision import Imagelab

    lab = Imagelab(filepaths=[str(path) for path in sorted(folder.iterdir())], verbose=False)
    lab.find_issues({issue: {} for issue in OURS}, n_jobs=1, verbose=False)
    expected = {
        (kind, Path(path).name): score
        for issue, kind in OURS.items()
        for path, score in lab.issues.loc[lab.issues[f"is_{issue}_issue"], f"{issue}_score"].items()
    }
    assert {(one.kind, one.item.id): one.value for one in flaws(flawed)} == pytest.approx(expected)


@with_cleanvision
def test_flaws_are_told_by_kind_the_worst_first(engine, folder):
    for shade in (60, 20, 40):
        scene().point(lambda level, shade=shade: level * shade // 255).save(folder / f"{shade}.png")
    engine.add_folder(folder)
    found = flaws(engine)
    assert [one.item.id for one in found if one.kind == "dark"] == ["20.png", "40.png", "60.png"]
    assert [one.kind for one in found] == sorted(one.kind for one in found)


@with_cleanvision
def test_odd_sizes_are_small_or_large(engine):
    engine.add(Item(f"{side}", image=scene(side, side)) for side in (30, *range(200, 220), 1500))
    sizes = {one.item.id: one.kind for one in flaws(engine) if one.kind in ("small", "large")}
    assert sizes == {"30": "small", "1500": "large"}


@with_cleanvision
def test_whether_a_size_is_odd_goes_by_what_passes_the_filter(flawed):
    assert ("small", "small.png") in kinds_of(flaws(flawed))
    assert "small" not in {kind for kind, _ in kinds_of(flaws(flawed, where="width < 60"))}
    assert flaws(flawed, where="width > 5000") == []


@with_cleanvision
def test_pictures_are_read_from_zip_files_too(flawed, folder, tmp_path, open_engine):
    names = sorted(path.name for path in folder.iterdir())
    with zipfile.ZipFile(tmp_path / "packed.zip", "w") as archive:
        for name in names:
            archive.write(folder / name, name)
    table = tmp_path / "items.jsonl"
    table.write_text("".join(json.dumps({"id": name, "image": f"packed.zip/{name}"}) + "\n" for name in names))
    zipped = open_engine("zipped")
    zipped.add_folder(table)
    told = [(one.kind, one.item.id, one.value, one.limit) for one in flaws(zipped)]
    assert told == [(one.kind, one.item.id, one.value, one.limit) for one in flaws(flawed)]


@with_cleanvision
def test_every_mode_that_is_read_is_measured_as_it_looks(engine, folder):
    grey = scene().convert("L").point(lambda level: level // 5)
    grey.save(folder / "grey.png")
    grey.convert("RGB").save(folder / "colour.png")
    Image.fromarray(np.asarray(grey).astype(np.uint16) * 257).save(folder / "deep.png")
    clear = grey.convert("LA")
    clear.save(folder / "opaque.png")
    engine.add_folder(folder)
    dark = {one.item.id: one.value for one in flaws(engine) if one.kind == "dark"}
    assert dark.keys() == {"grey.png", "colour.png", "deep.png", "opaque.png"}
    assert len(set(dark.values())) == 1


@with_cleanvision
def test_a_large_picture_has_the_flaws_of_the_same_one_made_smaller(engine):
    dark = ImageEnhance.Brightness(scene()).enhance(0.2)
    engine.add([Item("as it is", image=dark), Item("large", image=dark.resize((2400, 2400), Image.Resampling.NEAREST))])
    found = flaws(engine)
    assert kinds_of(found) == {("dark", "as it is"), ("dark", "large")}
    assert found[0].value == pytest.approx(found[1].value, abs=0.03)


@with_cleanvision
def test_flaws_are_told_of_each_copy(engine):
    engine.add(Item(name, image=Image.new("RGB", (20, 20), "black")) for name in "ab")
    found = flaws(engine)
    assert kinds_of(found) == {(kind, name) for kind in ("dark", "blurred", "empty") for name in "ab"}


@with_cleanvision
def test_pictures_that_cannot_be_opened_any_more_are_passed_over(flawed, folder):
    (folder / "dark.png").write_bytes(b"no picture")
    (folder / "aspect.png").unlink()
    found = kinds_of(flaws(flawed))
    assert {"bright.png", "small.png"} <= {id for _, id in found}
    assert not {"dark.png", "aspect.png"} & {id for _, id in found}


@with_cleanvision
def test_texts_and_nothing_have_no_flaws(engine):
    assert flaws(engine) == []
    engine.add([Item("a", text="dark and blurred")])
    assert flaws(engine) == []


@with_cleanvision
def test_nothing_is_shown_and_progress_is_told(flawed, capfd):
    told = []
    capfd.readouterr()
    flaws(flawed, report=told.append)
    assert capfd.readouterr() == ("", "")
    assert [(one.stage, one.done, one.total) for one in told] == [("pictures", 0, 18)]


@with_cleanvision
def test_the_two_ways_do_not_mix(flawed):
    ours = flaws(flawed, method="own")
    flaws(flawed)
    assert flaws(flawed, method="own") == Looker(flawed._store).flaws() == ours


@with_cleanvision
def test_pictures_of_other_modes_are_refused():
    with pytest.raises(InvalidInput, match="expected an RGB picture"):
        VisionCheck().measure(Image.new("L", (9, 9)))


@with_cleanvision
def test_the_smallest_pictures_have_scores():
    check = VisionCheck()
    rows = [check.measure(Image.new("RGB", size, "gray")) for size in ((1, 1), (1, 3), (3, 1), (2, 2))]
    assert np.isfinite(np.array(rows)).all()
    assert np.isfinite([(value, limit) for _, _, value, limit in check.flaws(np.array(rows))]).all()
