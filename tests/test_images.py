"""Opening pictures: faithful to what people see, and safe against what was made to hurt."""

import base64
import os
import pickle
import struct
import subprocess
import sys
import textwrap
import warnings
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, PngImagePlugin, features

from mmsearch import images
from mmsearch.errors import InvalidInput, MissingDependency, PictureError
from mmsearch.files import content_hash
from mmsearch.images import MAX_PIXELS, PICTURE_SUFFIXES, OpenedPicture, open_picture, thumbnail
from mmsearch.perceptual import HASH_BYTES, hamming, split

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
# A HEIC file of 64x48 pixels, red on the left and blue on the right: nothing we depend on can write one.
HEIC = base64.b85decode(
    "0000SW^{RQXk}?*00000ZE0pPXk}?*ZE0a<0004fZDn*}000000000XXk=`10000000000aA{+700000000000000000000B57=IV*mgE07O6l"
    "0RRC200001p#T8@00000001Na001LtX>Mi!000000RR916=`l}WdZ;I000310BCk&F#rGn01j|zbZr0t000010002}X>f9I0002pX>en20001X"
    "Xm(>m0RwOV0058x000009`FGC{rLC*01pFT0096PKmiN^|NjGU00093kN^M!000939=ZZRVE_RDDnbDP18@KU0|1Z!00RI30{|YNAb|yz>g1-m"
    "xCm%4AOHXZ10VnZ0{|gn00967L;=Bbz=;3=025<xY;ta6Y<K_x01W^JfB*mh6lrsCWdHyG00000KmY&$KmY&$C}V74Z~y=RKmY&$0RR91FaQ7m"
    "0RR91000000{{R2@Bjb+0ssI25O8UDX#fBK00RgJ2mk;87-?{AVE_OC000000RRC7fdT^sga7~lENx_AbN~PVASeN^8G!FerN95*;~(|*ulT0O"
    "U;nd?chOrP?)L+2Zv"
)


def encode(image, form="PNG", **options):
    buffer = BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def pixels(source, **options):
    return np.asarray(open_picture(source, **options).image)


def quarters(width=64, height=48):
    """Red, green / blue, white: no two turns of it are alike."""
    image = Image.new("RGB", (width, height), WHITE)
    image.paste(RED, (0, 0, width // 2, height // 2))
    image.paste(GREEN, (width // 2, 0, width, height // 2))
    image.paste(BLUE, (0, height // 2, width // 2, height))
    return image


def corners(image):
    """The nearest pure colours of the four quarters, row by row."""
    small = np.asarray(image.resize((2, 2), Image.Resampling.BOX), dtype=int).reshape(4, 3)
    return [tuple(np.where(colour > 127, 255, 0).tolist()) for colour in small]


def photo(width=2400, height=1800):
    rng = np.random.default_rng(3)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
    image = coarse.resize((width, height), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for n in range(40):
        x, y = (rng.random(2) * image.size).tolist()
        draw.ellipse((x, y, x + 40 + 5 * n, y + 60), fill=tuple(rng.integers(0, 256, 3).tolist()))
    return image


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, depth, colour, rows, *more):
    """A PNG of the given chunks, which no encoder of Pillow would write."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def grey_bomb(side=14000):
    return png(side, side, 1, 0, bytes((side // 8 + 1) * side))


def aspect_bomb(width, height):
    return png(width, height, 8, 0, bytes((width + 1) * height))


def large_webp():
    """The header of a WebP of 16384x16384 pixels, and next to nothing after it."""
    canvas = b"VP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + b"\xff\x3f\x00" * 2
    body = b"WEBP" + canvas + b"ANIM" + struct.pack("<I", 6) + bytes(6)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def large_bmp():
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, 30000, 30000, 1, 24, *[0] * 6)


def large_gif():
    return (
        b"GIF89a"
        + struct.pack("<HH", 65535, 65535)
        + b"\x80\0\0"
        + bytes(6)
        + b"\x2c"
        + bytes(4)
        + b"\xff" * 4
        + b"\0\x08\0;"
    )


BOMBS = {
    "pixels.png": grey_bomb,
    "just over.png": lambda: grey_bomb(9504),
    "tall.png": lambda: aspect_bomb(1, 20000),
    "wide.png": lambda: aspect_bomb(65000, 2),
    "text.png": lambda: png(1, 1, 8, 0, b"\0\0", chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(80_000_000), 9))),
    "profile.png": lambda: png(1, 1, 8, 0, b"\0\0", chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(80_000_000), 9))),
    "canvas.webp": large_webp,
    "screen.gif": large_gif,
    "header.bmp": large_bmp,
}


# Faithful: what people see


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("min_side", [None, 20])
def test_every_exif_orientation_comes_out_upright(orientation, min_side):
    upright = quarters(640, 480)
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    stored = upright.transpose(Image.Transpose(undo[orientation])) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    opened = open_picture(encode(stored, "JPEG", exif=exif, quality=95), min_side=min_side)
    assert corners(opened.image) == [RED, GREEN, BLUE, WHITE]
    assert (opened.width, opened.height) == (640, 480)
    assert (opened.image.width > opened.image.height, opened.image.size != (640, 480)) == (True, min_side is not None)


@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF"])
def test_orientation_counts_in_other_formats_too(form):
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = quarters().transpose(Image.Transpose.ROTATE_90)
    assert corners(open_picture(encode(turned, form, exif=exif)).image) == [RED, GREEN, BLUE, WHITE]


@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF"])
def test_hidden_pixels_under_full_transparency_are_white(form):
    image = Image.new("RGBA", (16, 16), (255, 0, 0, 0))
    options = {"lossless": True, "exact": True} if form == "WEBP" else {}
    assert (pixels(encode(image, form, **options)) == 255).all()


def test_half_transparent_pixels_are_mixed_with_white():
    image = Image.new("RGBA", (16, 16), (255, 0, 0, 128))
    assert np.abs(pixels(encode(image)).astype(int) - (255, 127, 127)).max() <= 1


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "La", "RGBa"])
def test_every_mode_with_alpha_lies_on_white(mode):
    image = Image.new("RGBA" if mode in ("RGBa", "PA") else "LA", (8, 8), 0)
    image = image if image.mode == mode else image.convert(mode)
    assert image.mode == mode
    assert (pixels(image) == 255).all()


def test_a_transparent_colour_of_a_palette_is_white():
    image = Image.new("P", (16, 16), 0)
    image.putpalette([*RED, *GREEN, *BLUE])
    image.paste(1, (8, 0, 16, 16))
    seen = pixels(encode(image, transparency=0))
    assert seen[0, 0].tolist() == [255, 255, 255]
    assert seen[0, 15].tolist() == list(GREEN)
    assert pixels(encode(image, transparency=bytes([255, 0])))[0, 15].tolist() == [255, 255, 255]


@pytest.mark.parametrize(("mode", "hidden"), [("L", 7), ("RGB", (1, 2, 3)), ("1", 0)])
def test_a_transparent_colour_without_a_palette_is_white(mode, hidden):
    image = Image.new(mode, (8, 8), hidden)
    assert (pixels(encode(image, transparency=hidden)) == 255).all()


def grey16(values):
    return png(4, 1, 16, 0, b"\0" + np.array(values, dtype=">u2").tobytes())


def test_a_sixteen_bit_png_keeps_its_levels():
    assert pixels(grey16([0, 257, 128 * 257, 65535]))[0, :, 0].tolist() == [0, 1, 128, 255]


def test_the_transparent_level_of_a_sixteen_bit_png_is_white():
    rows = b"\0" + np.array([0, 257, 514, 65535], dtype=">u2").tobytes()
    data = png(4, 1, 16, 0, rows, chunk(b"tRNS", struct.pack(">H", 257)))
    assert pixels(data)[0, :, 0].tolist() == [0, 255, 2, 255]


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I;16L", "I;16N"])
def test_every_sixteen_bit_mode_keeps_its_levels(mode):
    order = {"I;16B": ">u2", "I;16N": "=u2"}.get(mode, "<u2")
    levels = np.array([0, 25700, 65535], dtype=order)
    image = Image.frombytes(mode, (3, 1), levels.tobytes())
    assert image.mode == mode
    assert pixels(image)[0, :, 0].tolist() == [0, 100, 255]


@pytest.mark.parametrize("form", ["TIFF", "PNG"])
def test_a_sixteen_bit_file_written_by_pillow_keeps_its_levels(form):
    image = Image.fromarray(np.array([[0, 25700, 65535]], dtype=np.uint16))
    assert pixels(encode(image, form))[0, :, 0].tolist() == [0, 100, 255]


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        (np.array([0, 100, 255], np.int32), [0, 100, 255]),
        (np.array([0, 25700, 65535], np.int32), [0, 100, 255]),
        (np.array([-5, 0, 5], np.int32), [0, 128, 255]),
        (np.array([0, 1_000_000, 2_000_000], np.int32), [0, 128, 255]),
        (np.array([0.0, 0.2, 1.0], np.float32), [0, 51, 255]),
        (np.array([0.0, 51.0, 255.0], np.float32), [0, 51, 255]),
        (np.array([0.0, 25700.0, 65535.0], np.float32), [0, 100, 255]),
        (np.array([-3e38, 0.0, 3e38], np.float32), [0, 128, 255]),
        (np.array([np.nan, 0.2, np.inf], np.float32), [51, 51, 51]),
        (np.array([np.nan, -np.inf, 0.0], np.float32), [0, 0, 0]),
        (np.array([np.nan, np.nan, np.nan], np.float32), [0, 0, 0]),
    ],
)
def test_thirty_two_bit_levels_are_brought_to_the_scale_that_holds_them(levels, expected):
    assert pixels(Image.fromarray(levels[None, :]))[0, :, 0].tolist() == expected


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr"])
def test_a_jpeg_of_other_colour_spaces_keeps_its_colours(mode):
    opened = open_picture(encode(quarters().convert(mode), "JPEG", quality=95))
    assert corners(opened.image) == [RED, GREEN, BLUE, WHITE]
    assert opened.image.mode == "RGB"


@pytest.mark.parametrize("mode", ["HSV", "LAB", "CMYK", "YCbCr", "RGBX", "L", "1"])
def test_every_other_mode_becomes_rgb(mode):
    flat = Image.new("RGB", (8, 8), WHITE).convert(mode)
    assert flat.mode == mode
    assert pixels(flat).min() >= 254


def test_palettes_and_single_bits_are_made_smooth_before_they_are_made_small():
    stripes = Image.fromarray((np.indices((512, 512)).sum(axis=0) % 2 * 255).astype(np.uint8))
    for mode in ("1", "P"):
        data = encode(stripes.convert(mode))
        assert np.abs(pixels(data, min_side=64).astype(int) - 128).max() <= 1
        assert np.abs(np.asarray(thumbnail(data, 64)).astype(int) - 128).max() <= 1


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "TIFF"])
def test_an_animation_gives_its_first_frame(form):
    options = {"lossless": True} if form == "WEBP" else {}
    frames = [Image.new("RGB", (16, 16), colour) for colour in (RED, GREEN, BLUE)]
    data = encode(frames[0], form, save_all=True, append_images=frames[1:], **options)
    with Image.open(BytesIO(data)) as check:
        assert check.n_frames == 3
    assert (pixels(data) == RED).all()


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow was built without AVIF")
def test_an_avif_is_opened():
    assert corners(open_picture(encode(quarters(), "AVIF")).image) == [RED, GREEN, BLUE, WHITE]


def test_a_heic_is_opened_where_the_extra_is_installed():
    pytest.importorskip("pi_heif")
    opened = open_picture(HEIC)
    assert (opened.width, opened.height) == (64, 48)
    assert corners(opened.image)[0] == RED
    assert corners(opened.image)[1] == BLUE


def test_a_heic_without_the_extra_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    (tmp_path / "a.heic").write_bytes(HEIC)
    with pytest.raises(MissingDependency, match=r"a\.heic: HEIC .* pip install 'mmsearch\[heic\]'"):
        open_picture(tmp_path / "a.heic")


def test_an_avif_of_a_general_brand_is_not_taken_for_a_heic(monkeypatch):
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    data = struct.pack(">I", 24) + b"ftypmif1" + bytes(4) + b"mif1avif" + bytes(50)
    with pytest.raises(PictureError, match=r"expected a picture|cannot be decoded"):
        open_picture(data)


# What is told about a picture


def dated(**tags):
    exif = Image.Exif()
    if "changed" in tags:
        exif[0x0132] = tags["changed"]
    if "taken" in tags:
        exif.get_ifd(0x8769)[0x9003] = tags["taken"]
    return encode(quarters(), "JPEG", exif=exif)


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"taken": "2024:05:03 12:00:00", "changed": "2025:01:01 00:00:00"}, "2024-05-03T12:00:00"),
        ({"changed": "2025:01:01 00:00:09"}, "2025-01-01T00:00:09"),
        ({"taken": "0000:00:00 00:00:00", "changed": "2025:01:01 00:00:00"}, "2025-01-01T00:00:00"),
        ({"taken": "0000:00:00 00:00:00"}, None),
        ({"taken": "2023:02:29 12:00:00"}, None),
        ({"taken": "    :  :     :  :  "}, None),
        ({"taken": "yesterday"}, None),
        ({}, None),
    ],
)
def test_the_date_is_the_cameras_if_it_makes_sense(tags, expected):
    assert open_picture(dated(**tags)).taken == expected


def test_the_hashes_are_those_of_the_file_and_of_the_picture(tmp_path):
    data = encode(quarters(), "JPEG")
    (tmp_path / "a.jpg").write_bytes(data)
    opened = open_picture(tmp_path / "a.jpg")
    assert opened == OpenedPicture(opened.image, 64, 48, None, content_hash(data), opened.perceptual)
    assert len(opened.perceptual) == HASH_BYTES
    assert open_picture(data).content_hash == opened.content_hash


def test_a_reduced_picture_has_nearly_the_same_perceptual_hash():
    data = encode(photo(), "JPEG")
    shapes, _ = split([open_picture(data, min_side=side).perceptual for side in (None, 224)])
    assert hamming(shapes[:1], shapes[1:])[0] <= 2


def test_a_pil_image_is_hashed_by_what_is_seen_and_not_by_the_size_it_is_reduced_to():
    image = photo(800, 600)
    other = image.copy()
    other.putpixel((5, 5), (1, 2, 3))
    hashes = [open_picture(one, min_side=side).content_hash for one, side in ((image, None), (image, 50), (other, 50))]
    assert hashes[0] == hashes[1] != hashes[2]
    assert len(hashes[0]) == 16


def test_the_same_bytes_in_another_shape_are_another_picture():
    wide, tall = Image.new("RGB", (8, 4)), Image.new("RGB", (4, 8))
    assert open_picture(wide).content_hash != open_picture(tall).content_hash


def test_a_pil_image_is_turned_by_its_own_exif_and_not_modified():
    turned = quarters().transpose(Image.Transpose.ROTATE_90)
    turned.getexif()[0x0112] = 6
    before = (turned.mode, turned.size, turned.tobytes(), dict(turned.info))
    opened = open_picture(turned)
    opened.image.paste((9, 9, 9), (0, 0, 64, 48))
    assert (opened.width, opened.height) == (64, 48)
    assert (turned.mode, turned.size, turned.tobytes(), dict(turned.info)) == before
    assert turned.getexif()[0x0112] == 6


def test_a_pil_image_gives_what_its_file_gives():
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x0132] = "2025:01:01 00:00:00"
    data = encode(quarters(), "PNG", exif=exif)
    with Image.open(BytesIO(data)) as lazy:
        first, second = open_picture(lazy), open_picture(data)
    assert (np.asarray(first.image) == np.asarray(second.image)).all()
    assert (first.width, first.height, first.taken) == (second.width, second.height, second.taken)


def test_the_picture_holds_on_to_no_metadata():
    exif = Image.Exif()
    exif[0x010E] = "a private note"
    assert open_picture(encode(quarters(), "JPEG", exif=exif)).image.info == {}


# Reduced decoding


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("size", [(2400, 1800), (1800, 2400), (900, 895), (3001, 449)])
def test_a_reduced_picture_is_at_least_twice_the_target_and_looks_the_same(form, size):
    data = encode(photo(*size), form)
    full, reduced = open_picture(data), open_picture(data, min_side=224)
    assert min(reduced.image.size) >= 448
    assert (reduced.width, reduced.height) == (full.width, full.height) == size
    small = [one.image.resize((224, 224), Image.Resampling.BICUBIC) for one in (full, reduced)]
    gap = np.abs(np.asarray(small[0], dtype=int) - np.asarray(small[1], dtype=int))
    assert gap.mean() < 1.0


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_a_picture_that_is_small_already_is_not_reduced(form):
    assert open_picture(encode(photo(447, 300), form), min_side=224).image.size == (447, 300)


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_a_large_picture_is_kept_small_in_memory(form):
    assert open_picture(encode(photo(), form), min_side=100).image.size < (800, 600)


@pytest.mark.parametrize(("size", "expected"), [((640, 480), (64, 48)), ((48, 640), (5, 64)), ((30, 20), (30, 20))])
def test_a_thumbnail_fits_in_the_square(size, expected):
    assert thumbnail(encode(quarters(*size)), 64).size == expected


# Safe: what is refused


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused(name, tmp_path):
    (tmp_path / name).write_bytes(BOMBS[name]())
    with pytest.raises(PictureError) as caught:
        open_picture(tmp_path / name, min_side=224)
    assert str(caught.value).startswith(f"{tmp_path / name}: ")
    assert "\n" not in str(caught.value)


def test_a_tiny_aspect_bomb_is_refused_before_it_is_decoded(monkeypatch):
    data = aspect_bomb(1, 20000)
    assert len(data) < 200
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", lambda _self: pytest.fail("was decoded"))
    with pytest.raises(PictureError, match="sides of at most 30 to 1, got 1x20000: crop"):
        open_picture(data)


def test_a_pixel_bomb_is_refused_before_it_is_decoded(monkeypatch):
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", lambda _self: pytest.fail("was decoded"))
    with pytest.raises(PictureError, match=rf"at most {MAX_PIXELS:,} pixels, got more"):
        open_picture(grey_bomb())
    with pytest.raises(PictureError, match=rf"at most {MAX_PIXELS:,} pixels, got 90,326,016: make the picture smaller"):
        open_picture(grey_bomb(9504))


def test_a_panorama_of_thirty_to_one_is_opened():
    assert open_picture(encode(Image.new("RGB", (300, 10)))).width == 300
    with pytest.raises(PictureError, match="301x10"):
        open_picture(encode(Image.new("RGB", (301, 10))))


def test_a_large_jpeg_is_opened_only_where_it_can_be_decoded_reduced():
    image = Image.new("L", (10000, 9000), 200)
    baseline = encode(image, "JPEG", quality=30)
    opened = open_picture(baseline, min_side=224)
    assert (opened.width, opened.height, opened.image.height) == (10000, 9000, 563)  # an eighth, rounded up
    for data, side in ((baseline, None), (baseline, 4000), (encode(image, "JPEG", progressive=True, quality=30), 224)):
        with pytest.raises(PictureError, match=f"at most {MAX_PIXELS:,} pixels, got 90,000,000"):
            open_picture(data, min_side=side)


def test_limits_hold_for_pil_images_too():
    with pytest.raises(PictureError, match="30 to 1"):
        open_picture(Image.new("L", (1, 31)))
    with pytest.raises(PictureError, match="expected a picture with pixels, got 0x5"):
        open_picture(Image.new("L", (0, 5)))
    with pytest.raises(PictureError, match="pixels"):
        open_picture(Image.new("1", (9504, 9504)))


def test_too_many_bytes_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "MAX_BYTES", 50)
    data = encode(quarters())
    (tmp_path / "a.png").write_bytes(data)
    for source in (data, tmp_path / "a.png"):
        with pytest.raises(PictureError, match="expected at most 50 bytes"):
            open_picture(source)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
@pytest.mark.parametrize("min_side", [None, 32])
def test_a_truncated_file_is_refused(form, share, min_side):
    data = encode(photo(400, 300), form)
    with pytest.raises(PictureError):
        open_picture(data[: int(len(data) * share)], min_side=min_side)


@pytest.mark.parametrize(
    "data",
    [
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n",
        b"%PDF-1.7\n1 0 obj\n",
        b"<svg xmlns='http://www.w3.org/2000/svg' width='10' height='10'/>",
        bytes([0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 2, 0, 24, 0]) + bytes(12),
        b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 4, 4, 8, 3) + bytes(100),
        b"P6 2 2 255 " + bytes(12),
        b"SIMPLE  =                    T" + b" " * 3000,
        b"\xd7\xcd\xc6\x9a" + bytes(60),
        b"\0\0\1\0\1\0" + bytes(60),
        b"just a text file that somebody called a.jpg",
        b"\xff\xd8\xff",
        bytes(1000),
    ],
    ids=["eps", "pdf", "svg", "tga", "psd", "ppm", "fits", "wmf", "ico", "text", "jpeg start", "zeros"],
)
def test_what_is_not_on_the_list_of_formats_is_refused(data, tmp_path):
    (tmp_path / "a.jpg").write_bytes(data)
    with pytest.raises(PictureError, match=r"a\.jpg: .*(expected a picture \(JPEG, PNG|cannot be decoded)"):
        open_picture(tmp_path / "a.jpg")


@pytest.mark.parametrize("form", ["EPS", "PDF", "TGA", "PPM", "ICO", "SGI", "PCX", "DDS", "JPEG2000"])
def test_formats_that_pillow_knows_and_we_refuse(form):
    with pytest.raises(PictureError, match="expected a picture"):
        open_picture(encode(quarters(64, 64), form))


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "a.jpg").touch()
    with pytest.raises(PictureError, match=r"a\.jpg: the file is empty"):
        open_picture(tmp_path / "a.jpg")
    with pytest.raises(PictureError, match="the file is empty"):
        open_picture(b"")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no FIFOs")
def test_a_fifo_does_not_block_and_a_folder_is_refused(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    for path in (tmp_path / "a.jpg", tmp_path):
        with pytest.raises(PictureError, match="expected a"):
            open_picture(path)


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_a_symbolic_link_is_followed(tmp_path):
    (tmp_path / "a.png").write_bytes(encode(quarters()))
    (tmp_path / "b.png").symlink_to("a.png")
    assert open_picture(tmp_path / "b.png").width == 64


def test_a_member_of_a_zip_file_is_opened_and_named_when_it_is_bad(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.writestr("in/good.png", encode(quarters()))
        packed.writestr("in/bad.png", b"no picture")
    assert open_picture(tmp_path / "a.zip" / "in" / "good.png").width == 64
    with pytest.raises(PictureError, match=r"a\.zip.in.bad\.png: expected a picture"):
        open_picture(tmp_path / "a.zip" / "in" / "bad.png")


def test_the_path_is_named_once(tmp_path):
    with pytest.raises(PictureError) as caught:
        open_picture(tmp_path / "none.jpg")
    assert str(caught.value).count("none.jpg") == 1


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_an_odd_name_is_one_printable_line_in_the_error(tmp_path):
    path = tmp_path / "a\n\x1b[2Jb.jpg"
    path.write_bytes(b"no picture")
    with pytest.raises(PictureError) as caught:
        open_picture(path)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_a_damaged_file_gives_a_picture_or_a_picture_error(form):
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(quarters(40, 30), form, **({"exif": exif} if form in ("JPEG", "PNG", "WEBP", "TIFF") else {}))
    rng = np.random.default_rng(5)
    outcomes = set()
    for _ in range(300):
        damaged = bytearray(data)
        for place in rng.integers(0, len(data), 4):
            damaged[place] = rng.integers(0, 256)
        try:
            outcomes.add(open_picture(bytes(damaged), min_side=8).image.mode)
        except PictureError:
            outcomes.add("refused")
    assert "refused" in outcomes
    assert outcomes <= {"RGB", "refused"}


@pytest.mark.parametrize(
    "notes",
    [
        b"Exif\0\0",
        b"Exif\0\0MM\0*\0\0\0\x08\xff\xff",
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\xff\xff\xff\x7f\xff\xff\xff\xff",
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x69\x87\x04\0\x01\0\0\0\x08\0\0\0\0\0\0\0",
        b"Exif\0\0" + bytes(range(256)),
        b"no exif at all",
    ],
)
def test_broken_exif_does_not_refuse_the_picture(notes):
    opened = open_picture(encode(quarters(), "JPEG", exif=notes, quality=95))
    assert corners(opened.image) == [RED, GREEN, BLUE, WHITE]
    assert opened.taken is None


def test_a_lack_of_memory_is_not_the_pictures_fault(monkeypatch):
    def fail(_self):
        raise MemoryError

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", fail)
    with pytest.raises(MemoryError):
        open_picture(encode(quarters()))


@pytest.mark.parametrize("source", ["a.jpg", None, 3, np.zeros((2, 2, 3), np.uint8)])
def test_another_type_of_source_is_refused(source):
    with pytest.raises(InvalidInput, match="expected a Path, bytes or a PIL image"):
        open_picture(source)


@pytest.mark.parametrize("side", [0, -1])
def test_a_target_without_pixels_is_refused(side):
    with pytest.raises(InvalidInput, match="min_side of at least 1"):
        open_picture(encode(quarters()), min_side=side)
    with pytest.raises(InvalidInput, match="at least 1"):
        thumbnail(encode(quarters()), side)


# Threads and warnings


def test_eight_threads_get_what_one_gets(tmp_path):
    paths = []
    for n, form in enumerate(["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"] * 4):
        paths.append(tmp_path / f"{n}.bin")
        paths[-1].write_bytes(encode(photo(300 + n, 200), form))
    alone = [open_picture(path, min_side=40) for path in paths]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda path: open_picture(path, min_side=40), paths * 4))
    for one, other in zip(alone * 4, together, strict=True):
        assert one.image.tobytes() == other.image.tobytes()
        assert (one.width, one.content_hash, one.perceptual) == (other.width, other.content_hash, other.perceptual)


def test_pillows_warnings_reach_nobody_whatever_the_filters_say(tmp_path):
    broken = Image.Exif()
    broken[0x010E] = "x" * 50
    odd = encode(quarters(), "JPEG", exif=broken.tobytes()[:-30])
    for action in ("error", "always"):
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter(action)
            with pytest.raises(PictureError, match="at most 89,478,485 pixels"):
                open_picture(grey_bomb(9504))
            assert open_picture(odd).width == 64
        assert seen == []


def test_the_warnings_of_other_threads_are_left_alone():
    with ThreadPoolExecutor(1) as pool, images._quiet():
        with pytest.raises(UserWarning, match="of another thread"):
            pool.submit(warnings.warn, "of another thread", stacklevel=1).result()
        warnings.warn("of this thread", stacklevel=1)
    with pytest.raises(UserWarning, match="after it"):
        warnings.warn("after it", stacklevel=1)


def test_the_warning_filters_do_not_grow_and_can_be_sent_to_other_processes():
    open_picture(encode(quarters()))
    before = len(warnings.filters)
    for _ in range(20):
        open_picture(encode(quarters()))
    assert len(warnings.filters) == before
    assert pickle.loads(pickle.dumps(warnings.filters[0]))[0] == "ignore"


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on a process's memory")
def test_bombs_give_picture_errors_within_one_gigabyte(tmp_path):
    for name, make in BOMBS.items():
        (tmp_path / name).write_bytes(make())
    program = """
        import resource, sys
        from pathlib import Path
        from mmsearch.errors import PictureError
        from mmsearch.images import open_picture
        resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))
        for path in sorted(Path(sys.argv[1]).iterdir()):
            try:
                open_picture(path, min_side=224)
            except PictureError:
                print(path.name)
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(Path(images.__file__).parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.stderr == ""
    assert (done.returncode, done.stdout.splitlines()) == (0, sorted(BOMBS))


def test_the_suffixes_are_in_lower_case_and_hold_the_common_ones():
    assert {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".heic", ".avif"} <= PICTURE_SUFFIXES
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in PICTURE_SUFFIXES)
