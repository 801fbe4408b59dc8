"""The perceptual hash: near for copies, far for others, defined for flat pictures."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageDraw

from mmsearch.errors import InvalidInput
from mmsearch.perceptual import HASH_BYTES, colour_distance, hamming, perceptual_hash, split


def scene(seed, size=(400, 300)):
    """A smooth random picture: a few coloured discs and bars."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", size, tuple(rng.integers(0, 256, 3).tolist()))
    draw = ImageDraw.Draw(image)
    for n in range(12):
        x, y = (rng.random(2) * size).tolist()
        wide, high = (20 + rng.random(2) * 120).tolist()
        colour = tuple(rng.integers(0, 256, 3).tolist())
        shape = draw.ellipse if n % 2 else draw.rectangle
        shape((x - wide, y - high, x + wide, y + high), fill=colour)
    return image


def as_jpeg(image, quality):
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def gaps(first, second):
    shapes, colours = split([perceptual_hash(first), perceptual_hash(second)])
    return int(hamming(shapes[:1], shapes[1:])[0]), float(colour_distance(colours[:1], colours[1:])[0])


def disc(colour):
    image = Image.new("RGB", (200, 200), "white")
    ImageDraw.Draw(image).ellipse((40, 40, 160, 160), fill=colour)
    return image


def test_a_hash_is_forty_bytes_and_the_same_each_time():
    assert len(perceptual_hash(scene(1))) == HASH_BYTES == 40
    assert perceptual_hash(scene(1)) == perceptual_hash(scene(1))


@pytest.mark.parametrize("seed", range(20))
def test_a_copy_of_half_the_size_is_near(seed):
    image = scene(seed)
    bits, levels = gaps(image, image.resize((200, 150), Image.Resampling.LANCZOS))
    assert bits <= 2
    assert levels < 1.0


@pytest.mark.parametrize("seed", range(20))
def test_a_copy_of_low_jpeg_quality_is_near(seed):
    image = scene(seed)
    bits, levels = gaps(image, as_jpeg(image, 40))
    assert bits <= 4
    assert levels < 2.0


def test_unrelated_pictures_are_far_apart():
    shapes, _ = split([perceptual_hash(scene(seed)) for seed in range(40)])
    table = hamming(shapes[:, None], shapes[None, :])
    others = table[~np.eye(len(shapes), dtype=bool)]
    assert others.min() >= 10
    assert 26 <= others.mean() <= 36


def test_discs_of_equal_luma_are_told_apart_by_their_colour():
    blue, olive = (60, 90, 255), (127, 105, 0)
    lumas = [np.asarray(disc(colour).convert("L")) for colour in (blue, olive)]
    assert np.abs(lumas[0].astype(int) - lumas[1]).max() <= 2
    bits, levels = gaps(disc(blue), disc(olive))
    assert bits <= 2
    assert levels > 20.0


@pytest.mark.parametrize("colour", ["black", "white", (128, 128, 128), (10, 200, 30)])
def test_a_picture_of_one_colour_has_no_shape_bits(colour):
    assert perceptual_hash(Image.new("RGB", (301, 77), colour))[:8] == bytes(8)


def test_noise_of_one_level_adds_no_shape_bits():
    noise = np.random.default_rng(0).integers(127, 129, (256, 256, 3)).astype(np.uint8)
    assert perceptual_hash(Image.fromarray(noise))[:8] == bytes(8)


def test_left_to_right_and_top_to_bottom_shades_are_told_apart():
    shade = np.repeat(np.arange(255, -1, -1, dtype=np.uint8)[None, :, None], 256, axis=0).repeat(3, axis=2)
    bits, _ = gaps(Image.fromarray(shade), Image.fromarray(shade.transpose(1, 0, 2).copy()))
    assert bits >= 2


def test_each_colour_byte_belongs_to_its_cell():
    image = Image.new("RGB", (400, 400), (128, 128, 128))
    image.paste((0, 0, 255), (300, 0, 400, 100))
    _, colours = split([perceptual_hash(image)])
    assert np.flatnonzero(colours[0] != 128).tolist() == [3, 16 + 3]
    assert colours[0, 3] > 250


@pytest.mark.parametrize("size", [(1, 1), (1, 30), (33, 7), (5000, 200)])
def test_every_size_can_be_hashed(size):
    assert len(perceptual_hash(Image.new("RGB", size, "red"))) == HASH_BYTES


def test_a_picture_that_is_not_rgb_is_refused():
    with pytest.raises(InvalidInput, match="expected an RGB picture"):
        perceptual_hash(Image.new("L", (8, 8)))


def test_hamming_counts_every_bit_and_broadcasts():
    shapes = np.array([0, 1, 2**63, 2**64 - 1], dtype=np.uint64)
    assert hamming(shapes, np.uint64(0)).tolist() == [0, 1, 1, 64]
    assert hamming(shapes[:, None], shapes[None, :]).shape == (4, 4)


def test_hamming_refuses_signed_hashes():
    with pytest.raises(InvalidInput, match="uint64"):
        hamming(np.array([1], dtype=np.int64), np.array([1], dtype=np.uint64))


def test_colour_distance_is_the_mean_difference_in_levels():
    low, high = np.zeros((2, 32), np.uint8), np.full((2, 32), 255, np.uint8)
    high[1, 16:] = 0
    assert colour_distance(low, high).tolist() == [255.0, 127.5]
    assert colour_distance(high, low).tolist() == [255.0, 127.5]


@pytest.mark.parametrize("bad", [np.zeros((2, 31), np.uint8), np.zeros((2, 32), np.int16)])
def test_colour_distance_refuses_what_is_no_grid(bad):
    with pytest.raises(InvalidInput, match="colour grids"):
        colour_distance(bad, np.zeros((2, 32), np.uint8))


def test_splitting_keeps_the_bytes_in_order():
    shapes, colours = split([bytes(range(40)), b"\xff" * 40])
    assert shapes.tolist() == [0x0001020304050607, 2**64 - 1]
    assert shapes.dtype == np.uint64
    assert colours[0].tolist() == list(range(8, 40))


def test_splitting_nothing_gives_empty_arrays():
    shapes, colours = split([])
    assert (shapes.shape, colours.shape) == ((0,), (0, 32))


def test_splitting_names_the_row_of_the_wrong_length():
    with pytest.raises(InvalidInput, match="row 1"):
        split([bytes(40), bytes(39)])
