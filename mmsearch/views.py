"""The views of a picture that the ``regions`` space holds: the whole, its mirror image and five crops."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmsearch.types import Box

if TYPE_CHECKING:
    from PIL import Image

CROP = 0.65
"""Side of a crop as a fraction of the picture's."""

_REST = 1.0 - CROP
BOXES: tuple[Box, ...] = (
    (0.0, 0.0, 1.0, 1.0),
    (0.0, 0.0, 1.0, 1.0),
    (0.0, 0.0, CROP, CROP),
    (_REST, 0.0, 1.0, CROP),
    (0.0, _REST, CROP, 1.0),
    (_REST, _REST, 1.0, 1.0),
    (_REST / 2, _REST / 2, 1.0 - _REST / 2, 1.0 - _REST / 2),
)
"""Where each view lies, by its part number: whole, mirrored, the four corners, the middle. A further part, for encoders
that have it, is the whole again, read more closely."""
WHOLE, MIRROR, CROPS = 0, 1, slice(2, 7)


def views(image: Image.Image) -> list[Image.Image]:
    """The seven views of a picture, in the order of ``BOXES``."""
    from PIL import ImageOps

    width, height = image.size
    crops = []
    for left, top, right, bottom in BOXES[2:]:
        corner = (max(round(right * width), 1), max(round(bottom * height), 1))
        crops.append(image.crop((round(left * width), round(top * height), *corner)))
    return [image, ImageOps.mirror(image), *crops]
