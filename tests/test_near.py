"""Near duplicates: copies are found and grouped, look-alikes are not, and crowds stay cheap."""

from io import BytesIO
from itertools import combinations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from mmsearch.curation.candidates import close_shapes, close_vectors, collapse
from mmsearch.curation.near import KINDS, Limits, Pairs, groups_of, near_pairs, scores_of, thumbnail
from mmsearch.curation.nearpixels import part_edges, same_edges
from mmsearch.errors import InvalidInput
from mmsearch.perceptual import hamming, perceptual_hash, split
from mmsearch.recommenders.itemvectors import ItemVectors

MIRROR = np.uint64(0x5555555555555555)


def scene(seed, size=(320, 240)):
    """A random picture of coloured discs and bars; no colour is so bright that a tint would clip it."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", size, tuple(rng.integers(30, 210, 3).tolist()))
    draw = ImageDraw.Draw(image)
    for n in range(14):
        x, y = (rng.random(2) * size).tolist()
        wide, high = (15 + rng.random(2) * 80).tolist()
        shape = draw.ellipse if n % 2 else draw.rectangle
        shape((x - wide, y - high, x + wide, y + high), fill=tuple(rng.integers(30, 210, 3).tolist()))
    return image


def disc(colour, size=200):
    image = Image.new("RGB", (size, size), "white")
    ImageDraw.Draw(image).ellipse((40, 40, size - 40, size - 40), fill=colour)
    return image


def card(pips, colour):
    """A playing card: nine pips, each a disc or a diamond."""
    image = Image.new("RGB", (200, 280), "white")
    draw = ImageDraw.Draw(image)
    for x in (50, 100, 150):
        for y in (60, 140, 220):
            if pips == "discs":
                draw.ellipse((x - 18, y - 18, x + 18, y + 18), fill=colour)
            else:
                draw.polygon([(x, y - 26), (x + 18, y), (x, y + 26), (x - 18, y)], fill=colour)
    return image


def jpeg(image, quality=40):
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def half(image):
    return image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS)


def mirrored(image):
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def tinted(image):
    levels = np.asarray(image, dtype=np.float64) * 1.1 * (1.04, 1.0, 0.96)
    return Image.fromarray(np.rint(levels).clip(0, 255).astype(np.uint8))


def crop(image):
    return image.crop((20, 10, 20 + round(0.9 * image.width), 10 + round(0.9 * image.height)))


def hashes(images):
    return split([perceptual_hash(image) for image in images])


def looking(images):
    return lambda positions: np.stack([thumbnail(images[position]) for position in positions])


def couples(pairs):
    return set(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))


def pairs_of(links):
    """Pairs of (first, second, score, kind)."""
    first, second, score, kind = zip(*links, strict=True)
    codes = np.array([KINDS.index(name) for name in kind], dtype=np.int8)
    return Pairs(np.array(first), np.array(second), np.array(score, dtype=np.float32), codes)


def within(shapes, bits, mask):
    """Brute force."""
    table = hamming(shapes[:, None] ^ mask, shapes[None, :]) <= bits
    return {(int(i), int(j)) for i, j in zip(*np.nonzero(table), strict=True) if i < j}


def flipped(shapes, n_bits, rng):
    """Shapes with some bits changed."""
    shapes = shapes.copy()
    for row in range(len(shapes)):
        for bit in rng.choice(64, n_bits, replace=False):
            shapes[row] ^= np.uint64(1) << np.uint64(bit)
    return shapes


# Candidates ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", range(8))
@pytest.mark.parametrize("mirror", [False, True])
def test_every_two_close_shapes_are_found_and_each_couple_once(bits, mirror):
    rng = np.random.default_rng(bits)
    base = rng.integers(0, 2**64, 120, dtype=np.uint64)
    mask = MIRROR if mirror else np.uint64(0)
    shapes = np.concatenate([base, *(flipped(base, n, rng) ^ mask for n in range(10))])
    found = [
        couple
        for first, second in close_shapes(shapes, bits, mirrored=mirror)
        for couple in zip(first.tolist(), second.tolist(), strict=True)
    ]
    assert len(found) == len(set(found))
    assert set(found) == within(shapes, bits, mask)


def test_more_bits_than_the_bands_can_promise_are_refused():
    with pytest.raises(InvalidInput, match="from 0 to 7"):
        next(close_shapes(np.zeros(2, np.uint64), 8))


def test_collapsing_keeps_unlike_colours_of_the_same_shape_apart():
    grids = np.full((4, 32), 100, np.uint8)
    grids[1, 5], grids[2, 5], grids[3, 5] = 103, 104, 106
    leaders, others = collapse(np.zeros(4, np.uint64), grids, 3)
    assert (leaders.tolist(), others.tolist()) == ([0, 2], [1, 3])


def test_20000_equal_pictures_are_19999_pairs_and_one_group():
    shapes, colours = hashes([scene(1)])
    pairs = near_pairs(shapes.repeat(20_000), colours.repeat(20_000, axis=0))
    assert len(pairs) == 19_999
    assert set(pairs.score.tolist()) == {1.0}
    (group,) = groups_of(20_000, pairs)
    assert len(group) == 20_000


def test_a_crowd_of_flat_pictures_of_nearly_one_colour_stays_small():
    colours = np.random.default_rng(0).integers(126, 130, (20_000, 32)).astype(np.uint8)
    pairs = near_pairs(np.zeros(20_000, np.uint64), colours)
    assert len(pairs) == 19_999
    assert len(groups_of(20_000, pairs)) == 1


def test_a_crowd_of_like_pictures_brings_at_most_so_many_partners_each():
    rng = np.random.default_rng(0)
    shapes = flipped(np.zeros(600, np.uint64), 3, rng)
    colours = np.full((600, 32), 128, np.uint8)
    many, few = near_pairs(shapes, colours), near_pairs(shapes, colours, most=5)
    assert len(many) > 10_000
    assert 600 < len(few) <= 600 * 5
    assert couples(few) < couples(many)


def test_pictures_without_a_vector_are_not_asked_for_neighbours():
    vectors = np.eye(4, dtype=np.float32)
    vectors[2] = 0
    rows, asked = ItemVectors(vectors, centred=False), []

    def neighbours(positions):
        asked.extend(positions.tolist())
        return [np.array([0, 3]) for _ in positions]

    found = list(close_vectors(np.arange(4), rows, neighbours))
    assert asked == [0, 1, 3]
    assert [(done, first.tolist(), second.tolist()) for done, first, second in found] == [(4, [0, 0, 1], [1, 3, 3])]


def test_an_answer_for_too_few_positions_is_refused():
    with pytest.raises(InvalidInput, match="neighbours of 4 positions, got 1"):
        list(close_vectors(np.arange(4), ItemVectors(np.eye(4), centred=False), lambda _: [np.array([0])]))


# Pairs --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("looked", [False, True])
@pytest.mark.parametrize("change", [half, jpeg, tinted, lambda image: half(jpeg(image))])
def test_copies_are_paired_with_their_original_and_with_nothing_else(change, looked):
    images = [scene(seed) for seed in range(30)]
    images += [change(image) for image in images[:20]]
    pairs = near_pairs(*hashes(images), look=looking(images) if looked else None)
    assert couples(pairs) == {(seed, 30 + seed) for seed in range(20)}
    assert pairs.score.min() > 0.5
    assert pairs.score.max() <= 1
    assert {KINDS[code] for code in pairs.kind} <= {"same", "near"}


def test_mirrored_copies_are_found_when_asked_for_and_only_then():
    images = [scene(seed) for seed in range(30)]
    images += [mirrored(image) for image in images[:20]]
    shapes, colours = hashes(images)
    assert len(near_pairs(shapes, colours)) == 0
    pairs = near_pairs(shapes, colours, mirrored=True, look=looking(images))
    expected = {(seed, 30 + seed) for seed in range(20)}
    assert couples(pairs) <= expected
    assert len(pairs) >= 16
    assert {KINDS[code] for code in pairs.kind} == {"mirrored"}


def test_vectors_lead_to_crops_that_hashes_miss_and_pixels_confirm_them():
    images = [scene(seed) for seed in range(20)]
    images += [crop(image) for image in images]
    shapes, colours = hashes(images)
    vectors = np.concatenate([np.eye(20), np.eye(20)])
    rows = ItemVectors(vectors, centred=False)

    def neighbours(positions):
        return [np.array([position % 20, position % 20 + 20, (position + 1) % 40]) for position in positions]

    missed = near_pairs(shapes, colours, look=looking(images))
    found = near_pairs(shapes, colours, rows, neighbours, look=looking(images))
    assert couples(found) <= {(seed, 20 + seed) for seed in range(20)}
    assert len(found) >= 17
    assert len(found) > len(missed) + 5
    assert "crop" in {KINDS[code] for code in found.kind}


def test_a_blue_disc_a_yellow_disc_and_a_red_one_are_three_pictures():
    images = [disc("blue"), disc("gold"), disc("red"), half(disc("gold"))]
    shapes, colours = hashes(images)
    for look in (None, looking(images)):
        assert couples(near_pairs(shapes, colours, look=look)) == {(1, 3)}


def test_a_small_thing_in_another_colour_is_another_picture():
    def small(colour):
        image = Image.new("RGB", (256, 256), "white")
        ImageDraw.Draw(image).rectangle((100, 100, 150, 160), fill=colour)
        return image

    assert len(near_pairs(*hashes([small((0, 0, 255)), small((255, 0, 0))]))) == 0


def test_cards_with_pips_of_another_shape_are_told_apart_by_their_pixels():
    images = [card("discs", "red"), card("diamonds", "red"), card("diamonds", "black"), jpeg(card("diamonds", "red"))]
    assert couples(near_pairs(*hashes(images), look=looking(images))) == {(1, 3)}


def test_flat_pictures_are_paired_only_when_their_colours_agree():
    images = [Image.new("RGB", (64, 64), colour) for colour in ("red", "blue", (254, 0, 0), "white", "black")]
    shapes, colours = hashes(images)
    # White and black have the same hash; only pixels tell them apart.
    assert couples(near_pairs(shapes[:4], colours[:4])) == {(0, 2)}
    assert (0, 1) not in couples(near_pairs(shapes, colours))


def test_what_has_the_same_hash_but_looks_different_is_not_paired():
    images = [scene(1), scene(2), jpeg(scene(1)), jpeg(scene(2))]
    shapes, colours = (array[[0, 0, 0, 0]] for array in hashes([scene(1)]))
    assert len(near_pairs(shapes, colours)) == 3
    assert couples(near_pairs(shapes, colours, look=looking(images))) == {(0, 2), (1, 3)}


@pytest.mark.parametrize("n", [0, 1])
def test_fewer_than_two_pictures_have_no_pairs(n):
    shapes, colours = np.zeros(n, np.uint64), np.zeros((n, 32), np.uint8)
    rows = ItemVectors(np.ones((n, 3), np.float32), centred=False)
    look = looking([scene(1)] * n)
    pairs = near_pairs(shapes, colours, rows, lambda asked: [asked for _ in asked], look=look, mirrored=True)
    assert len(pairs) == 0
    assert (pairs.first.dtype, pairs.score.dtype, pairs.kind.dtype) == (np.int64, np.float32, np.int8)
    assert groups_of(n, pairs) == []


def test_two_equal_pictures_are_one_pair():
    shapes, colours = hashes([scene(1), scene(1)])
    pairs = near_pairs(shapes, colours)
    assert couples(pairs) == {(0, 1)}
    assert pairs.score.tolist() == [1.0]


def test_pairs_do_not_depend_on_the_order_of_the_pictures():
    images = [scene(seed) for seed in range(12)] + [jpeg(scene(seed)) for seed in range(6)] + [scene(3)]
    shapes, colours = hashes(images)
    order = np.random.default_rng(0).permutation(len(images))
    groups = groups_of(len(images), near_pairs(shapes, colours))
    shuffled = groups_of(len(images), near_pairs(shapes[order], colours[order]))
    assert {frozenset(order[group].tolist()) for group in shuffled} == {frozenset(g.tolist()) for g in groups}


@pytest.mark.parametrize(
    ("shapes", "colours", "match"),
    [
        (np.zeros(2, np.int64), np.zeros((2, 32), np.uint8), "shape hashes"),
        (np.zeros(2, np.uint64), np.zeros((3, 32), np.uint8), "colour grids"),
        (np.zeros(2, np.uint64), np.zeros((2, 32), np.int16), "colour grids"),
    ],
)
def test_hashes_of_another_length_or_type_are_refused(shapes, colours, match):
    with pytest.raises(InvalidInput, match=match):
        near_pairs(shapes, colours)


def test_vectors_of_another_number_of_pictures_are_refused():
    with pytest.raises(InvalidInput, match="same 2 pictures, got 3"):
        near_pairs(np.zeros(2, np.uint64), np.zeros((2, 32), np.uint8), ItemVectors(np.eye(3), centred=False))


@pytest.mark.parametrize("wrong", [{"bits": 8}, {"far_bits": 3}, {"colour": float("nan")}, {"cosine": 2.0}])
def test_limits_out_of_range_are_refused(wrong):
    with pytest.raises(InvalidInput, match="expected"):
        Limits(**wrong)


def test_the_score_falls_with_the_bits_and_the_colours():
    shapes = np.array([0, 0, 0b1111, 2**64 - 1], dtype=np.uint64)
    colours = np.full((4, 32), 100, np.uint8)
    colours[1] += 8
    assert scores_of(shapes, colours, np.zeros(4, np.int64), np.arange(4)).tolist() == [1.0, 0.75, 0.875, 0.0]


# Pixels -------------------------------------------------------------------------------------------------------------


def test_slopes_agree_for_copies_and_not_for_others():
    small = np.stack([thumbnail(scene(seed)) for seed in range(20)])
    copies = np.stack([thumbnail(half(jpeg(tinted(scene(seed))))) for seed in range(20)])
    assert same_edges(small, copies).min() > 0.9
    assert same_edges(small, np.roll(copies, 1, axis=0)).max() < 0.5


def test_a_part_is_found_in_the_whole_whichever_comes_first():
    small = np.stack([thumbnail(scene(seed)) for seed in range(20)])
    parts = np.stack([thumbnail(crop(scene(seed))) for seed in range(20)])
    assert part_edges(small, parts).min() > 0.85
    assert np.allclose(part_edges(small, parts), part_edges(parts, small))
    assert part_edges(small, np.roll(parts, 1, axis=0)).max() < 0.6


def test_flat_thumbnails_agree_with_each_other_only():
    flat, other, busy = (thumbnail(image)[None] for image in (disc("white"), Image.new("RGB", (9, 9)), scene(1)))
    assert same_edges(flat, other).tolist() == [1.0]
    assert same_edges(flat, busy).tolist() == [0.0]
    assert part_edges(flat, busy).tolist() == [0.0]


# Groups -------------------------------------------------------------------------------------------------------------


def test_a_chain_is_not_one_group():
    links = [(n, n + 1, 0.9, "near") for n in range(9)]
    groups = groups_of(10, pairs_of(links))
    linked = {(first, second) for first, second, _, _ in links}
    for group in groups:
        centres = [one for one in group if all({(one, o), (o, one)} & linked for o in group if o != one)]
        assert centres
    assert max(map(len, groups)) <= 3


def test_a_group_is_one_picture_with_all_that_are_alike_to_it():
    groups = groups_of(6, pairs_of([(0, 2, 0.9, "near"), (2, 5, 0.8, "near"), (3, 4, 0.7, "mirrored")]))
    assert [group.tolist() for group in groups] == [[0, 2, 5], [3, 4]]


def test_those_that_are_the_same_follow_their_picture_into_its_group():
    links = [(0, 1, 1.0, "same"), (0, 2, 1.0, "same"), (3, 4, 1.0, "same"), (0, 3, 0.9, "near")]
    assert [group.tolist() for group in groups_of(5, pairs_of(links))] == [[0, 1, 2, 3, 4]]
    later = [(0, 4, 1.0, "same"), (1, 4, 1.0, "same"), (2, 3, 1.0, "same"), (3, 4, 0.9, "near")]
    assert [group.tolist() for group in groups_of(5, pairs_of(later))] == [[0, 1, 2, 3, 4]]


def test_groups_have_no_picture_in_common_and_hold_two_at_least():
    rng = np.random.default_rng(0)
    drawn = sorted({tuple(sorted(couple)) for couple in rng.integers(0, 60, (80, 2)).tolist() if len(set(couple)) > 1})
    groups = groups_of(60, pairs_of([(*couple, 0.9, "near") for couple in drawn]))
    assert all(len(group) > 1 for group in groups)
    assert all(not set(one) & set(other) for one, other in combinations([group.tolist() for group in groups], 2))
    assert [group[0] for group in groups] == sorted(group[0] for group in groups)


def test_all_copies_of_one_picture_are_one_group():
    images = [scene(seed) for seed in range(10)]
    images += [change(scene(3)) for change in (half, jpeg, tinted, lambda image: jpeg(image, 20))]
    (group,) = groups_of(len(images), near_pairs(*hashes(images)))
    assert group.tolist() == [3, 10, 11, 12, 13]


def test_pairs_of_pictures_that_are_not_there_are_refused():
    with pytest.raises(InvalidInput, match="below 3"):
        groups_of(3, pairs_of([(0, 3, 0.9, "near")]))
