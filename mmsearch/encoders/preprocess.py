"""What a model does to a picture first, without torch: resize, crop or pad, to uint8 pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mmsearch.errors import InvalidInput
from mmsearch.types import Picture, Pixels

if TYPE_CHECKING:
    from PIL import Image


MAX_ASPECT = 30


@dataclass(frozen=True, slots=True)
class Preprocess:
    """Resize to ``size`` (height, width) as open_clip's inference transform does.

    ``resize_mode``: ``squash`` ignores the aspect, ``shortest`` fits the shorter side and crops the middle,
    ``longest`` fits the longer side and pads with ``fill_color``. ``mean`` and ``std`` are applied by the tower.
    """

    size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bicubic"
    resize_mode: str = "shortest"
    fill_color: int = 0

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Preprocess:
        """Read open_clip's ``preprocess_cfg``."""
        size = config["size"]
        height, width = (size, size) if isinstance(size, int) else (size[0], size[-1])
        red, green, blue = config["mean"]
        std_red, std_green, std_blue = config["std"]
        return cls(
            size=(int(height), int(width)),
            mean=(float(red), float(green), float(blue)),
            std=(float(std_red), float(std_green), float(std_blue)),
            interpolation=str(config.get("interpolation", "bicubic")),
            resize_mode=str(config.get("resize_mode", "shortest")),
            fill_color=int(config.get("fill_color", 0) or 0),
        )

    def __call__(self, image: Picture) -> Pixels:
        """Picture to (height, width, 3) uint8; pixels of that very shape pass through.

        Raises
        ------
        InvalidInput
            For pixels of another shape or dtype.
        """
        if isinstance(image, np.ndarray):
            if image.shape != (*self.size, 3) or image.dtype != np.uint8:
                raise InvalidInput(f"expected pixels {(*self.size, 3)} uint8, got {image.shape} {image.dtype}")
            return image
        if max(image.size) > MAX_ASPECT * min(image.size):
            # Fitting its short side would make a picture of gigabytes of a line of pixels.
            raise InvalidInput(f"expected a picture at most {MAX_ASPECT} times as long as wide, got {image.size}")
        image = image if image.mode == "RGB" else image.convert("RGB")
        match self.resize_mode:
            case "squash":
                fitted = self._resize(image, *self.size, self.interpolation)
            case "longest":
                fitted = self._pad(image)
            case _:
                fitted = self._crop(image)
        return np.asarray(fitted, dtype=np.uint8)

    def _resize(self, image: Image.Image, height: int, width: int, interpolation: str) -> Image.Image:
        from PIL import Image

        methods = {"bilinear": Image.Resampling.BILINEAR, "nearest": Image.Resampling.NEAREST}
        method = methods.get(interpolation, Image.Resampling.BICUBIC)
        return image if image.size == (width, height) else image.resize((width, height), method)

    def _crop(self, image: Image.Image) -> Image.Image:
        height, width = self.size
        # open_clip takes its configured interpolation for a square only, and bicubic for any other shape.
        interpolation = self.interpolation if height == width else "bicubic"
        if height == width:  # as torchvision's Resize(int): the longer side is rounded down
            short = min(image.size)
            new_width, new_height = (int(height * side / short) for side in image.size)
        else:
            scale = max(height / image.height, width / image.width)
            new_width, new_height = round(image.width * scale), round(image.height * scale)
        image = self._resize(image, new_height, new_width, interpolation)
        left, top = round((new_width - width) / 2.0), round((new_height - height) / 2.0)
        return image.crop((left, top, left + width, top + height))

    def _pad(self, image: Image.Image) -> Image.Image:
        from PIL import Image

        height, width = self.size
        scale = min(height / image.height, width / image.width)
        new_height, new_width = max(1, round(image.height * scale)), max(1, round(image.width * scale))
        fitted = self._resize(image, new_height, new_width, self.interpolation)
        canvas = Image.new("RGB", (width, height), (self.fill_color,) * 3)
        canvas.paste(fitted, ((width - fitted.width) // 2, (height - fitted.height) // 2))
        return canvas
