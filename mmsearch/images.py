"""Pictures opened safely and as people see them: upright, opaque, 8-bit RGB; one error per bad file.

What Pillow would do by itself and this module does not: read rare formats with a history of holes, decode bombs,
accept truncated files, ignore the camera's orientation, show hidden pixels, and turn 16-bit pictures white.
"""

from __future__ import annotations

import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any, Final, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError, features

from mmsearch.errors import InvalidInput, MissingDependency, MMSearchError, PictureError
from mmsearch.files import content_hash, display_path, read_bytes
from mmsearch.perceptual import perceptual_hash

MAX_BYTES: Final = 512 * 1024 * 1024
"""The largest file that is read."""
MAX_PIXELS: Final = 89_478_485
"""The most pixels that are decoded: 256 MiB of RGB."""
MAX_REDUCED_PIXELS: Final = 2 * MAX_PIXELS
"""The most pixels of a JPEG that is decoded at a reduced size."""
MAX_ASPECT: Final = 30
"""The longer side is at most this many times the shorter one."""

PICTURE_SUFFIXES: Final = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".heic", ".heif", ".avif"}
)
"""Suffixes, in lower case, of the files that are looked at when a folder is added."""

Source: TypeAlias = Path | bytes | Image.Image

_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", *(("AVIF",) if features.check("avif") else ()))
_HEIC_BRANDS = frozenset({b"heic", b"heix", b"hevc", b"mif1", b"msf1"})
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = frozenset({5, 6, 7, 8})
_DATE = re.compile(r"(\d{4})[:/.-](\d\d)[:/.-](\d\d)[ T](\d\d):(\d\d):(\d\d)")


@dataclass(frozen=True, slots=True)
class OpenedPicture:
    """A decoded picture and what is worth keeping of its file.

    Attributes
    ----------
    image
        Mode RGB, upright; smaller than the original where ``min_side`` allowed that.
    width, height
        Pixels of the upright original.
    taken
        When the camera says, ``2024-05-03T12:00:00`` without a time zone, or None.
    content_hash
        16 bytes: of the file's bytes, or of the decoded pixels of a picture that came from memory.
    perceptual
        40 bytes, see :mod:`mmsearch.perceptual`.
    """

    image: Image.Image
    width: int
    height: int
    taken: str | None
    content_hash: bytes
    perceptual: bytes


def open_picture(source: Source, *, min_side: int | None = None) -> OpenedPicture:
    """Open a picture safely and whole. Safe to call from many threads.

    Animations give their first frame. Transparent pixels lie on white. Levels become 8-bit: 16-bit pictures by
    dividing by 257; pictures of 32-bit integers or floats by the smallest of the scales 0..1 (floats only), 0..255
    and 0..65535 that holds all their values, else from their smallest to their largest finite value, with NaN as
    the smallest.

    Parameters
    ----------
    source
        A path (also of a member of a zip file: ``photos.zip/a.jpg``), the bytes of a file, or a PIL image, which
        is not modified.
    min_side
        The side, in pixels, that the picture is going to be resized to. It may then be decoded at a reduced size,
        which is much faster and smaller; both sides stay at least twice this (or as they were, if they were less).

    Raises
    ------
    PictureError
        If it is no picture, not whole, too large, or too elongated. One line, which starts with the path.
    MissingDependency
        If it is a HEIC picture and ``pi-heif`` is not installed.
    InvalidInput
        If ``source`` is of another type or ``min_side`` is not at least 1.
    MemoryError
        If there is not enough memory for a picture within the limits: try again with fewer at once.
    """
    if min_side is not None and min_side < 1:
        raise InvalidInput(f"expected a min_side of at least 1 pixel, got {min_side}")
    with _quiet(), _one_error(source):
        match source:
            case Path():
                return _open_bytes(read_bytes(source, MAX_BYTES), min_side)
            case bytes():
                return _open_bytes(source, min_side)
            case Image.Image():
                return _open_image(source, min_side)
    raise InvalidInput(f"expected a Path, bytes or a PIL image, got {type(source).__name__}")


def thumbnail(source: Source, side: int) -> Image.Image:
    """Open a picture and shrink it to fit in a square of ``side`` pixels; small pictures stay as they are.

    Returns a PIL image of mode RGB, upright. Raises what `open_picture` raises.
    """
    small = open_picture(source, min_side=side).image
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    return small


def _open_bytes(data: bytes, min_side: int | None) -> OpenedPicture:
    if not data:
        raise PictureError("the file is empty")
    if len(data) > MAX_BYTES:
        raise PictureError(f"expected at most {MAX_BYTES:,} bytes, got {len(data):,}")
    formats = ("HEIF",) if _needs_heif(data) else _FORMATS
    with Image.open(BytesIO(data), formats=formats) as image:
        width, height = image.size
        _check_size(image)
        if min_side is not None and isinstance(image, ImageFile.ImageFile):
            image.draft(None, (2 * min_side, 2 * min_side))
        _check_pixels(image, width * height)
        # verify() does not notice a truncated file; load() does.
        image.load()
        orientation, taken = _camera_notes(image)
        picture = _reduce(_upright(_as_rgb(image), orientation), min_side)
    if orientation in _SIDEWAYS:
        width, height = height, width
    return OpenedPicture(picture, width, height, taken, content_hash(data), perceptual_hash(picture))


def _open_image(image: Image.Image, min_side: int | None) -> OpenedPicture:
    _check_size(image)
    _check_pixels(image, image.width * image.height)
    orientation, taken = _camera_notes(image)
    whole = _upright(_as_rgb(image), orientation)
    digest = content_hash(f"{whole.mode} {whole.width}x{whole.height} ".encode() + whole.tobytes())
    picture = _reduce(whole, min_side)
    return OpenedPicture(picture, whole.width, whole.height, taken, digest, perceptual_hash(picture))


def _check_size(image: Image.Image) -> None:
    short, long = sorted(image.size)
    if short < 1:
        raise PictureError(f"expected a picture with pixels, got {image.width}x{image.height}")
    if long > MAX_ASPECT * short:
        # Resizing the shorter side to a model's input would make the longer one enormous.
        raise PictureError(
            f"expected sides of at most {MAX_ASPECT} to 1, got {image.width}x{image.height}: crop the picture"
        )


def _check_pixels(image: Image.Image, pixels: int) -> None:
    """Check the size: ``pixels`` is that of the original, ``image`` may be set to be decoded at a reduced size."""
    # A progressive JPEG is held whole while it is decoded, whatever the size that comes out.
    reduced = image.width * image.height < pixels and "progressive" not in image.info
    limit = MAX_REDUCED_PIXELS if reduced else MAX_PIXELS
    if pixels > limit:
        raise PictureError(f"expected at most {limit:,} pixels, got {pixels:,}: make the picture smaller")


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    turn = _UPRIGHT.get(orientation)
    return image if turn is None else image.transpose(turn)


def _reduce(image: Image.Image, min_side: int | None) -> Image.Image:
    factor = 1 if min_side is None else min(image.size) // (2 * min_side)
    return image.reduce(factor) if factor > 1 else image


def _as_rgb(image: Image.Image) -> Image.Image:
    """Make a new picture of mode RGB, 8-bit and opaque, that holds on to nothing of the file."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        rgb = _from_deep(image)
    elif image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgb = _over_white(image)
    else:
        rgb = image.convert("RGB")
    rgb.info = {}
    return rgb


def _over_white(image: Image.Image) -> Image.Image:
    if image.mode == "La":
        image = image.convert("LA")
    if image.mode != "RGBA":
        image = image.convert("RGBA")
    canvas = Image.new("RGB", image.size, "white")
    canvas.paste(image, mask=image)
    return canvas


def _from_deep(image: Image.Image) -> Image.Image:
    """Bring 16-bit and 32-bit grey levels to 8 bits; Pillow's own conversion clips them to white."""
    levels = np.asarray(image)  # (height, width)
    if image.mode in ("I", "F"):
        grey = _scaled(levels, (255.0, 65535.0) if image.mode == "I" else (1.0, 255.0, 65535.0))
    else:
        grey = (levels // 257).astype(np.uint8)
    hidden = image.info.get("transparency")
    if isinstance(hidden, int):
        grey[levels == hidden] = 255
    return Image.fromarray(grey).convert("RGB")


def _scaled(levels: NDArray[Any], scales: tuple[float, ...]) -> NDArray[np.uint8]:
    finite = levels[np.isfinite(levels)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    top = next((scale for scale in scales if high <= scale), None)
    if low >= 0.0 and top is not None:
        floor, span = 0.0, top
    else:
        floor, span = low, (high - low) or 1.0
    values = np.nan_to_num(levels.astype(np.float64), nan=low, posinf=high, neginf=low)
    values -= floor
    values *= 255.0 / span
    return np.rint(values, out=values).astype(np.uint8)


def _needs_heif(data: bytes) -> bool:
    """Whether these bytes are a HEIC picture; registers its reader with Pillow if so."""
    # An ISO media file: length, "ftyp", main brand, version, then the other brands, 4 bytes each.
    if data[4:8] != b"ftyp" or data[8:12] not in _HEIC_BRANDS:
        return False
    if b"avif" in data[16 : min(int.from_bytes(data[:4], "big"), 256)]:
        return False
    try:
        from pi_heif import register_heif_opener
    except ImportError as error:
        raise MissingDependency("HEIC pictures need an extra: pip install 'mmsearch[heic]'") from error
    register_heif_opener()
    return True


def _camera_notes(image: Image.Image) -> tuple[int, str | None]:
    """Read the EXIF orientation, 1 (upright) to 8, and the date; what cannot be read counts as absent."""
    try:
        exif = image.getexif()
        orientation, dates = exif.get(ExifTags.Base.Orientation, 1), [exif.get(ExifTags.Base.DateTime)]
        dates.insert(0, exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.DateTimeOriginal))
    except MemoryError:
        raise
    except Exception:
        # Damaged notes are no reason to refuse the picture, and Pillow raises many kinds of error for them.
        return 1, None
    taken = next((date for date in map(_iso_date, dates) if date), None)
    return (orientation if orientation in _UPRIGHT else 1), taken


def _iso_date(value: object) -> str | None:
    found = _DATE.match(value.strip()) if isinstance(value, str) else None
    if found is None:
        return None
    try:
        return datetime(*map(int, found.groups())).isoformat()  # type: ignore[arg-type]
    except ValueError:
        return None


@contextmanager
def _one_error(source: object) -> Iterator[None]:
    """Turn whatever Pillow raises into one PictureError that starts with the path."""
    name = display_path(source) + ": " if isinstance(source, Path) else ""
    try:
        yield
    except PictureError as error:
        # What comes from reading the file has its path already.
        raise (error if str(error).startswith(name) else PictureError(name + str(error))) from error.__cause__
    except MissingDependency as error:
        raise MissingDependency(name + str(error)) from error.__cause__
    except (MemoryError, MMSearchError):
        raise
    except UnidentifiedImageError as error:
        kinds = ", ".join((*_FORMATS, "HEIC"))
        raise PictureError(f"{name}expected a picture ({kinds}), got something else or a damaged one") from error
    except Image.DecompressionBombError as error:
        raise PictureError(
            f"{name}expected at most {MAX_PIXELS:,} pixels, got more: make the picture smaller"
        ) from error
    except Exception as error:
        # Decoders raise nearly everything on damaged data: OSError, SyntaxError, struct.error, IndexError, ...
        reason = " ".join(str(error).split()) or type(error).__name__
        raise PictureError(f"{name}the picture cannot be decoded: {reason}") from error


_thread = threading.local()


class _OnlyHere:
    """Looks like the compiled message pattern of a warning filter, and matches in threads inside `_quiet` only."""

    pattern = "(?!)"
    """Matches nothing: what libraries see that hand the filters to other processes."""

    def match(self, _text: str) -> bool:
        return getattr(_thread, "quiet", False)


_IGNORE_HERE = ("ignore", _OnlyHere(), Warning, None, 0)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Pillow's warnings (large pictures, odd EXIF) off people's screens: we check for ourselves.

    Not `warnings.catch_warnings`: that swaps the filters of the whole process, and two threads that overlap leave
    the wrong ones behind. This filter does nothing in all other threads, so it may stay.
    """
    filters = cast("list[Any]", warnings.filters)
    if not filters or filters[0] is not _IGNORE_HERE:
        filters.insert(0, _IGNORE_HERE)
    _thread.quiet = True
    try:
        yield
    finally:
        _thread.quiet = False
