"""Pictures are resized, cropped and padded as open_clip's own inference transform does it."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmsearch.encoders.preprocess import Preprocess
from mmsearch.errors import InvalidInput

SIZES = [(64, 64), (65, 64), (300, 200), (200, 300), (641, 427), (33, 32), (32, 33), (31, 97), (10, 7), (7, 10)]
SIZES += [(1, 1), (500, 17), (17, 500), (48, 48), (224, 223), (1000, 35)]


def picture(width, height):
    """Waves and noise: smooth parts that resampling keeps, and fine ones that show every difference."""
    rows, columns = np.mgrid[0:height, 0:width]
    waves = [np.sin(rows / 9 + n) * 90 + np.cos(columns / (5 + n)) * 60 for n in range(3)]
    noise = np.random.default_rng(width * 1000 + height).normal(0, 15, (height, width, 3))
    return Image.fromarray((np.stack(waves, axis=2) + 128 + noise).clip(0, 255).astype(np.uint8))


def made(size=(32, 32), **changes):
    return replace(Preprocess(size=size, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)), **changes)


def by_open_clip(preprocess, image):
    """open_clip's transform, as levels of 0 to 255, (height, width, 3)."""
    from open_clip.transform import image_transform  # here, since it takes seconds

    transform = image_transform(
        preprocess.size,
        is_train=False,
        mean=preprocess.mean,
        std=preprocess.std,
        resize_mode=preprocess.resize_mode,
        interpolation=preprocess.interpolation,
        fill_color=preprocess.fill_color,
    )
    return transform(image).permute(1, 2, 0).numpy() * 255


def largest_difference(preprocess, image):
    return float(np.abs(preprocess(image).astype(np.float64) - by_open_clip(preprocess, image)).max())


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [(32, 32), (24, 40), (40, 24)], ids=["square", "wide", "tall"])
@pytest.mark.parametrize("mode", ["squash", "shortest", "longest"])
def test_levels_are_open_clips_within_one(mode, size, interpolation):
    preprocess = made(size, resize_mode=mode, interpolation=interpolation)
    # open_clip cannot pad what would shrink to nothing.
    sizes = [(w, h) for w, h in SIZES if mode != "longest" or max(w, h) < 20 * min(w, h)]
    differences = {(w, h): largest_difference(preprocess, picture(w, h)) for w, h in sizes}
    assert {size: difference for size, difference in differences.items() if difference > 1} == {}


@settings(max_examples=150, deadline=None)
@given(
    mode=st.sampled_from(["squash", "shortest", "longest"]),
    size=st.sampled_from([(32, 32), (24, 40), (40, 24), (30, 31)]),
    sides=st.tuples(st.integers(15, 100), st.integers(15, 300)),
    portrait=st.booleans(),
)
def test_pictures_of_any_size_have_open_clips_levels_within_one(mode, size, sides, portrait):
    image = picture(*(sides if portrait else reversed(sides)))
    assert largest_difference(made(size, resize_mode=mode), image) <= 1


@pytest.mark.parametrize("size", [(224, 224), (384, 384)])
@pytest.mark.parametrize("mode", ["squash", "shortest", "longest"])
def test_a_large_photograph_has_open_clips_levels_within_one(mode, size):
    assert largest_difference(made(size, resize_mode=mode), picture(1503, 997)) <= 1


@pytest.mark.parametrize("fill", [0, 127, 255])
def test_padding_has_the_colour_that_the_model_asks_for(fill):
    preprocess = made(resize_mode="longest", fill_color=fill)
    pixels = preprocess(picture(100, 40))
    assert (pixels[0] == fill).all()
    assert (pixels[-1] == fill).all()
    assert largest_difference(preprocess, picture(100, 40)) <= 1


def test_pixels_that_are_prepared_already_pass_through_unchanged():
    preprocess = made(resize_mode="shortest")
    pixels = preprocess(picture(90, 50))
    assert pixels.shape == (32, 32, 3)
    assert pixels.dtype == np.uint8
    assert (preprocess(pixels) == pixels).all()


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((33, 32, 3), np.uint8),
        np.zeros((32, 32), np.uint8),
        np.zeros((32, 32, 4), np.uint8),
        np.zeros((32, 32, 3), np.float32),
        np.zeros((3, 32, 32), np.uint8),
    ],
    ids=["size", "grey", "alpha", "float", "channels first"],
)
def test_pixels_of_another_shape_or_type_are_refused(pixels):
    with pytest.raises(InvalidInput, match=r"expected pixels \(32, 32, 3\) uint8, got"):
        made()(pixels)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_pictures_of_other_modes_become_rgb(mode):
    pixels = made(resize_mode="squash")(picture(50, 40).convert(mode))
    assert pixels.shape == (32, 32, 3)
    assert pixels.dtype == np.uint8


@pytest.mark.parametrize("size", [224, [224], [224, 224], (224, 224)])
def test_sizes_are_read_in_every_form_that_configs_use(size):
    config = {"size": size, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "mode": "RGB"}
    assert Preprocess.from_config(config) == Preprocess((224, 224), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def test_a_config_is_read_with_all_that_it_says():
    config = {
        "size": [24, 40],
        "mean": [0.1, 0.2, 0.3],
        "std": [0.4, 0.5, 0.6],
        "interpolation": "bilinear",
        "resize_mode": "longest",
        "fill_color": 9,
    }
    expected = Preprocess((24, 40), (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "bilinear", "longest", 9)
    assert Preprocess.from_config(config) == expected
