"""``VisionCheck``: what the package cleanvision finds wrong with pictures, told as our own flaws are.

Only its measures, scores and marks are used. What goes around them in that package draws a progress bar, starts
processes and reads files by itself, which would know neither members of zip files nor our limits of what is opened.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmsearch.errors import InvalidInput, MissingDependency

SIDE = 512
"""Pixels of the longer side of what is measured: in a picture of 100 megapixels the measures would take gigabytes."""

_KINDS = {
    "dark": "dark",
    "light": "bright",
    "blurry": "blurred",
    "low_information": "empty",
    "odd_aspect_ratio": "aspect",
    "odd_size": "small",
}
"""Our kinds of flaws by cleanvision's issues; of ``odd_size``, those that are not ``large``."""
_BY_PIXELS = ("dark", "low_information", "blurry")  # "light" is measured along with "dark"
_BY_SHAPE = ("odd_aspect_ratio", "odd_size")

Measured = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Shape:
    """Stands in for a picture where cleanvision looks at nothing but its size: (width, height) in pixels."""

    size: tuple[int, int]


class VisionCheck:
    """Measures pictures and tells flaws as cleanvision does (https://github.com/cleanlab/cleanvision, version 0.3).

    Raises
    ------
    MissingDependency
        If cleanvision is not installed.
    """

    def __init__(self) -> None:
        try:
            from cleanvision.issue_managers.image_property_issue_manager import ImagePropertyIssueManager
        except ImportError as error:
            raise MissingDependency(
                "flaws by cleanvision need an extra: pip install 'mmsearch[cleanvision]'"
            ) from error
        manager = ImagePropertyIssueManager()
        self._properties, self._params = manager.image_properties, manager.params
        columns = [column for issue in _KINDS for column in self._properties[issue].score_columns]
        self._columns = list(dict.fromkeys(columns))

    def measure(self, image: Image.Image, width: int | None = None, height: int | None = None) -> Measured:
        """Measure a picture of mode RGB. Safe to call from many threads.

        Light, information and blur are measured on the picture reduced to 512 pixels along its longer side, smaller
        ones as they are; aspect and size are those of the original. Grey pictures of mode RGB have log2(3) bits more
        entropy by cleanvision's measure than those of mode L, so one that looks the same has the same score here.

        Parameters
        ----------
        image
            The picture, not modified; if it was decoded at a reduced size, at least 512 pixels along its longer side.
        width, height
            Pixels of the original; those of ``image`` if not given.

        Returns
        -------
        (n_measures,) float64, for ``flaws``.

        Raises
        ------
        InvalidInput
            If the picture is of another mode or has no pixels.
        """
        if image.mode != "RGB" or not all(image.size):
            raise InvalidInput(f"expected an RGB picture with pixels, got mode {image.mode!r} and size {image.size}")
        shape = _Shape((width or image.width, height or image.height))
        small = image.copy()
        small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
        told: dict[str, float] = {}
        for issue in _BY_PIXELS:
            told |= self._properties[issue].calculate(small)
        for issue in _BY_SHAPE:
            told |= self._properties[issue].calculate(shape)
        return np.array([told[column] for column in self._columns], dtype=np.float64)

    def flaws(self, measured: Measured) -> list[tuple[int, str, float, float]]:
        """What is wrong with the pictures of a collection.

        Parameters
        ----------
        measured
            (n, n_measures) float64, one row a picture. Copies count each, as they do for cleanvision: whether a size is
            odd goes by the quartiles of all.

        Returns
        -------
        list
            Position of the picture, kind, score and limit, by kind. Scores go from 0, the worst, to 1; below the limit
            it is a flaw. Kinds are those of ``Flaw`` and ``large``: of an odd size, and not less than the median.
        """
        if not len(measured):
            return []
        import pandas

        table = pandas.DataFrame(measured, columns=self._columns)
        found = []
        for issue, kind in _KINDS.items():
            its, params = self._properties[issue], self._params[issue]
            scores = its.get_scores(raw_scores=table[its.score_columns], issue_type=issue, **params)
            # The limit of odd sizes is settled only while they are scored.
            limit = float(its.threshold if issue == "odd_size" else params["threshold"])
            marked = its.mark_issue(scores, issue, limit).to_numpy()[:, 0]
            values = np.abs(scores.to_numpy()[:, 0])  # an entropy of nothing is -0.0
            large = self._is_large(measured) if issue == "odd_size" else np.zeros(len(measured), dtype=bool)
            found += [
                (int(at), "large" if large[at] else kind, float(values[at]), limit) for at in np.flatnonzero(marked)
            ]
        return found

    def _is_large(self, measured: Measured) -> NDArray[np.bool_]:
        sizes = measured[:, self._columns.index(self._properties["odd_size"].score_columns[0])]
        return np.asarray(sizes > np.median(sizes))
