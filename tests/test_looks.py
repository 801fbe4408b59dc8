"""What is measured of pixels, and the flaws found by it."""

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from mmsearch.curation.looks import SIDE, SMALLEST, Looks, flaws, measure
from mmsearch.errors import InvalidInput


def scene(side=400, seed=0):
    """A picture with edges, textures and all levels of grey."""
    random = np.random.default_rng(seed)
    image = Image.new("RGB", (side, side), (120, 130, 140))
    draw = ImageDraw.Draw(image)
    for _ in range(150):
        left, top, size = *random.integers(0, side, size=2).tolist(), int(random.integers(side // 40, side // 6))
        draw.rectangle((left, top, left + size, top + size), fill=tuple(random.integers(0, 256, size=3).tolist()))
    return image


def scaled(image, factor, add=0.0):
    return Image.fromarray(np.clip(np.asarray(image) * factor + add, 0, 255).astype(np.uint8))


def icon():
    """A dark drawing on white, as clip art is."""
    image = Image.new("RGB", (160, 160), "white")
    ImageDraw.Draw(image).ellipse((30, 30, 130, 130), fill=(200, 40, 30), outline="black", width=4)
    return image


def kinds(image, *size):
    return [kind for kind, _, _ in flaws(measure(image, *size))]


def test_a_plain_good_picture_has_no_flaw():
    assert kinds(scene()) == []


def test_clip_art_on_white_is_neither_bright_nor_blurred():
    assert kinds(icon()) == []


@pytest.mark.parametrize("factor", [0.25, 0.1])
def test_a_darkened_picture_is_dark(factor):
    assert kinds(scaled(scene(), factor)) == ["dark"]


def test_a_washed_out_picture_is_bright():
    assert kinds(scaled(scene(), 0.15, add=217)) == ["bright"]


@pytest.mark.parametrize("share", [0.006, 0.01, 0.02])
def test_a_blurred_picture_is_blurred(share):
    image = scene()
    assert kinds(image.filter(ImageFilter.GaussianBlur(share * image.width))) == ["blurred"]


@pytest.mark.parametrize("axis", [0, 1], ids=["up and down", "sideways"])
def test_motion_along_one_direction_is_blurred(axis):
    pixels = np.asarray(scene(), dtype=np.float64)
    moved = np.mean([np.roll(pixels, step, axis=axis) for step in range(16)], axis=0)
    assert kinds(Image.fromarray(moved.astype(np.uint8))) == ["blurred"]


def test_light_and_contrast_do_not_change_what_is_blurred():
    for image, flaw in ((scene(), []), (scene().filter(ImageFilter.GaussianBlur(4)), ["blurred"])):
        assert kinds(image) == kinds(scaled(image, 0.45)) == kinds(scaled(image, 0.4, add=80)) == flaw


def test_stripes_are_not_blurred_along_themselves():
    stripes = np.tile(np.repeat([40, 210], 8), 14)[None, :, None]
    assert kinds(Image.fromarray(np.broadcast_to(stripes, (224, 224, 3)).astype(np.uint8))) == []


def test_the_sharper_of_two_copies_has_more_sharpness():
    image = scene()
    values = [measure(image.filter(ImageFilter.GaussianBlur(radius))).sharpness for radius in (0, 1, 2, 4, 6)]
    assert values == sorted(values, reverse=True)


def test_the_resolution_hardly_matters():
    image = scene(side=896)
    sharpness = [measure(image.resize((side, side), Image.Resampling.LANCZOS)).sharpness for side in (896, 448, SIDE)]
    assert max(sharpness) < 1.15 * min(sharpness)


@pytest.mark.parametrize("colour", ["black", "white", (90, 20, 160)])
def test_a_picture_of_one_colour_is_empty_and_not_blurred(colour):
    looks = measure(Image.new("RGB", (300, 200), colour))
    found = [kind for kind, _, _ in flaws(looks)]
    assert "empty" in found
    assert "blurred" not in found
    assert (looks.entropy, looks.contrast, looks.sharpness) == (0.0, 0.0, 0.0)


def test_the_noise_of_a_camera_does_not_fill_an_empty_picture():
    noise = np.random.default_rng(0).normal(128, 2.5, size=(300, 300, 1)).repeat(3, axis=2)
    assert kinds(Image.fromarray(noise.astype(np.uint8))) == ["empty"]


def test_a_sheet_with_a_few_words_is_not_empty():
    sheet = Image.new("RGB", (300, 300), "white")
    ImageDraw.Draw(sheet).text((30, 30), "a few words", fill="black")
    assert "empty" not in kinds(sheet)


def test_a_long_picture_is_odd_and_a_tiny_one_small_by_the_size_of_the_original():
    image = scene()
    assert kinds(image, 3000, 900) == ["aspect"]
    assert kinds(image, 900, 3000) == ["aspect"]
    assert kinds(image, SMALLEST, SMALLEST) == []
    assert kinds(image, SMALLEST - 1, SMALLEST) == ["small"]


def test_half_black_half_white_has_known_figures():
    pixels = np.zeros((100, 100, 3), dtype=np.uint8)
    pixels[:, 50:] = 255
    looks = measure(Image.fromarray(pixels), 400, 100)
    assert (looks.brightness, looks.darkness, looks.contrast, looks.entropy) == (1.0, 1.0, 0.5, 1.0)
    assert (looks.aspect, looks.width, looks.height) == (4.0, 400, 100)


def test_a_flaw_says_what_was_measured_and_the_limit_it_is_beyond():
    ((kind, value, limit),) = flaws(Looks(0.9, 0.9, 0.2, 0.5, 6.0, 1.0, 300, 300))
    assert (kind, value) == ("blurred", 0.5)
    assert value < limit


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (1, 200), (3, 2)])
def test_tiny_pictures_have_finite_figures(size):
    looks = measure(scene().resize(size))
    assert np.isfinite([looks.brightness, looks.darkness, looks.contrast, looks.sharpness, looks.entropy]).all()
    assert "small" in [kind for kind, _, _ in flaws(looks)]


def test_another_mode_and_a_size_of_nothing_are_refused():
    with pytest.raises(InvalidInput, match="RGB"):
        measure(Image.new("L", (10, 10)))
    with pytest.raises(InvalidInput, match="0x5"):
        measure(Image.new("RGB", (10, 10)), 0, 5)
