"""The general vocabulary that comes with the package."""

from __future__ import annotations

from functools import cache
from importlib.resources import files


@cache
def general_nouns() -> tuple[str, ...]:
    """Some 2,700 common names of what pictures show: things, beings, scenes, signs and kinds of images.

    They are lower case, in English, mostly singular, of one to three words, each once, grouped by subject in the order
    of ``nouns.txt``. Written for mmsearch, not taken from a word list.

    >>> {"windmill", "kurta", "bar chart"} <= set(general_nouns())
    True
    """
    lines = files("mmsearch.vocabulary").joinpath("nouns.txt").read_text("utf-8").splitlines()
    return tuple(line for line in lines if line and not line.startswith("#"))
