"""What can be measured of a picture's pixels, and what is wrong with it.

All is measured on the luma of the picture reduced to 224 pixels along its longer side, so that the resolution hardly
matters and a picture that was decoded at a reduced size will do; smaller pictures stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmsearch.errors import InvalidInput

SIDE = 224
"""Pixels of the longer side of what is measured."""

DARKEST = 0.35
"""Dark if brightness is below: none of 2,000 photographs of Flickr8k, and all of 200 that were made 4 times darker."""
LIGHTEST = 0.2
"""Bright if darkness is below: none of the 2,000, all that were washed out to a fifth of their contrast, but only 14%
of those exposed 8 times too long, which keep some dark parts. Of clothes on white, 0.4%: the white ones."""
SOFTEST = 0.9
"""Blurred if sharpness is below: none of the 2,000, and all that were blurred by 0.5% of the longer side (sigma)."""
EMPTIEST = 0.015
"""Empty if contrast is below; the noise of a camera makes up to 0.01 of a blank wall."""
LONGEST = 3.0
"""Odd if the longer side is at least so many times the shorter one."""
SMALLEST = 64
"""Small if the shorter side has fewer pixels: a third of what the usual models read."""

_FAINT = 0.1
_WHITE = 250
_ALL_BORDER = 0.9
_LEAST_OBJECT = 0.01
Luma = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Looks:
    """What was measured of a picture.

    Attributes
    ----------
    brightness
        How bright its bright parts are: the 99th percentile of the luma, 0 to 1.
    darkness
        How dark its dark parts are: 1 less the 5th percentile of the luma, 0 to 1. Objects on a white ground have dark
        parts; overexposed and washed-out pictures do not.
    contrast
        The standard deviation of the luma, 0 to 0.5.
    sharpness
        The root mean square of the second differences of the luma by that of the first ones, along the rows or along
        the columns, whichever is less; 0 to about 3. It does not depend on light or contrast, as the variance of the
        Laplacian does, and notices motion along one direction. 0 where there is nothing to see.
    entropy
        Of the histogram of 256 grey levels, in bits: 0 for a picture of one colour, at most 8.
    aspect
        The longer side by the shorter one, at least 1.
    width, height
        Pixels of the original.
    """

    brightness: float
    darkness: float
    contrast: float
    sharpness: float
    entropy: float
    aspect: float
    width: int
    height: int


def measure(image: Image.Image, width: int | None = None, height: int | None = None) -> Looks:
    """Measure a picture of mode RGB.

    Parameters
    ----------
    image
        The picture; if it was decoded at a reduced size, at least 224 pixels along its longer side.
    width, height
        Pixels of the original; those of ``image`` if not given.

    Raises
    ------
    InvalidInput
        If the picture is of another mode or has no pixels, or a side of the original is not at least 1.
    """
    if image.mode != "RGB" or not all(image.size):
        raise InvalidInput(f"expected an RGB picture with pixels, got mode {image.mode!r} and size {image.size}")
    width, height = image.width if width is None else width, image.height if height is None else height
    if min(width, height) < 1:
        raise InvalidInput(f"expected an original of at least 1x1 pixels, got {width}x{height}")
    luma = _luma(image)
    shares = np.bincount(luma.astype(np.uint8).ravel(), minlength=256) / luma.size
    some = shares[shares > 0]
    dark, bright = np.percentile(_object(luma), 5) / 255, np.percentile(luma, 99) / 255
    return Looks(
        brightness=float(bright),
        darkness=float(1 - dark),
        contrast=float(luma.std(dtype=np.float64) / 255),
        sharpness=_sharpness(luma),
        entropy=abs(float((some * np.log2(some)).sum())),
        aspect=max(width, height) / min(width, height),
        width=width,
        height=height,
    )


def flaws(looks: Looks) -> list[tuple[str, float, float]]:
    """What is wrong with a picture: kinds, each with what was measured and the limit that it is beyond.

    ``dark`` and ``bright`` go by ``brightness`` and ``darkness``, ``blurred`` by ``sharpness``, ``empty`` by
    ``contrast``, ``aspect`` by itself and ``small`` by the shorter side. An empty picture is not called blurred too: it
    has nothing to be sharp.
    """
    empty = looks.contrast < EMPTIEST
    tests = (
        ("dark", looks.brightness, DARKEST, looks.brightness < DARKEST),
        ("bright", looks.darkness, LIGHTEST, looks.darkness < LIGHTEST),
        ("blurred", looks.sharpness, SOFTEST, looks.sharpness < SOFTEST and not empty),
        ("empty", looks.contrast, EMPTIEST, empty),
        ("aspect", looks.aspect, LONGEST, looks.aspect >= LONGEST),
        ("small", float(min(looks.width, looks.height)), float(SMALLEST), min(looks.width, looks.height) < SMALLEST),
    )
    return [(kind, value, limit) for kind, value, limit, wrong in tests if wrong]


def _luma(image: Image.Image) -> Luma:
    """The luma of the reduced picture, (height, width) float32, 0 to 255."""
    # Fractions of a level are kept: rounded away, they would look like detail in what is blurred.
    grey, share = image.convert("L").convert("F"), SIDE / max(image.size)
    if share < 1:
        size = (max(1, round(image.width * share)), max(1, round(image.height * share)))
        grey = grey.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
    return np.clip(np.asarray(grey, dtype=np.float32), 0, 255)


def _object(luma: Luma) -> Luma:
    """The pixels that are not a white ground: all but the white ones, where nearly all of the border is white."""
    border = np.concatenate([luma[0], luma[-1], luma[:, 0], luma[:, -1]])
    drawn = luma[luma < _WHITE]
    on_white = (border >= _WHITE).mean() >= _ALL_BORDER and drawn.size >= _LEAST_OBJECT * luma.size
    return drawn if on_white else luma


def _sharpness(luma: Luma) -> float:
    """The smaller ratio of second to first differences, of the directions in which there is something to see."""
    slopes, bends = zip(*(_differences(lines) for lines in (luma, luma.T)), strict=True)
    least = max(_FAINT * max(slopes), 1e-6)
    ratios = [bend / slope for slope, bend in zip(slopes, bends, strict=True) if slope >= least]
    return min(ratios, default=0.0)


def _differences(lines: Luma) -> tuple[float, float]:
    """The root mean squares of the first (central) and of the second differences along each row."""
    if lines.shape[1] < 3:
        return 0.0, 0.0
    before, at, after = lines[:, :-2], lines[:, 1:-1], lines[:, 2:]
    slope, bend = after - before, after + before - 2 * at
    return _size(slope) / 2, _size(bend)


def _size(values: Luma) -> float:
    return float(np.sqrt((values * values).mean(dtype=np.float64)))
