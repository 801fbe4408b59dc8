"""The terms that a collection's own titles and keywords use."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

from mmsearch.errors import InvalidInput
from mmsearch.vectors import check_k

MANY = 20
"""With fewer items than these, a word that most of them have may still be a name."""

_STOP_WORDS = (
    "a about after all also an and any are as at be been before being but by can did do does each for from get "
    "had has have he her here hers him his how i if in into is it its just me more most my near no nor not of "
    "off on one only or other our out over own per she so some such than that the their them then there these "
    "they this those through to too two under until up upon very via was we were what when where which while "
    "who whom whose why will with within without would yes you your jpg jpeg png gif webp svg tif tiff bmp "
    "img imgp mvimg dsc dscf dscn pxl gopr vid untitled copy "
)
_STOP = frozenset(_STOP_WORDS.split())
"""English words that name nothing, the endings of file names, and what cameras begin them with."""
_APOSTROPHES = "'\u2019"
_JOINERS = frozenset(f"{_APOSTROPHES}-\u2010\u2011\u200c\u200d")
_IDEOGRAPHS = "\u2e80"
"""The first character of the scripts in which a word may be a single letter."""
_POSSESSIVE = re.compile(f"[{_APOSTROPHES}]s?$")


def collection_terms(texts: Iterable[Sequence[str]], *, most: int = 2000, least: int = 2) -> list[tuple[str, int]]:
    """Find the words and two-word phrases that items have in common.

    A word is a run of letters, marks and digits of any script with at least one letter; hyphens and apostrophes inside
    belong to it, an English possessive ending does not. Words that name nothing (a short English list), single letters
    and numbers are left out. A phrase is two words with nothing but a space between them; the same word twice is none.
    Scripts that put no space between words give whole runs.

    Parameters
    ----------
    texts
        For each item its texts, such as its title and its keywords; phrases do not reach from one into the next. Read
        once. An item without texts counts as an item.
    most
        How many terms to return at most.
    least
        The number of items that a term must be in. In collections of 20 items or more it must also be in no more than
        half of them: what all share names nothing.

    Returns
    -------
    list of (term, count)
        Terms in lower case with the number of items that have them, most first, equal counts by the alphabet. Memory
        grows with the number of different terms, by some 150 bytes each.

    Raises
    ------
    InvalidInput
        If ``most`` or ``least`` is not a positive whole number, or an item's texts are not a sequence of strings.

    >>> collection_terms([["Red wine glass"], ["The wine glass"], ["wine, glass"]])
    [('glass', 3), ('wine', 3), ('wine glass', 2)]
    """
    check_k(most)
    check_k(least)
    n, counts = 0, Counter[str]()
    for item in texts:
        n += 1
        counts.update(terms_of(item))
    ceiling = n // 2 if n >= MANY else n
    found = [(term, count) for term, count in counts.items() if least <= count <= ceiling]
    return sorted(found, key=lambda pair: (-pair[1], pair[0]))[:most]


def terms_of(item: Sequence[str]) -> set[str]:
    """The words and two-word phrases of one item's texts, each once, as ``collection_terms`` counts them.

    >>> sorted(terms_of(["The polar bear", "ice"]))
    ['bear', 'ice', 'polar', 'polar bear']
    """
    if isinstance(item, str | bytes):
        raise InvalidInput(f"expected each item's texts as a sequence of strings, got the single text {item[:40]!r}")
    terms: set[str] = set()
    for text in item:
        if not isinstance(text, str):
            raise InvalidInput(f"expected each item's texts as strings, got {type(text).__name__}")
        for run in _runs(text):
            terms.update(run)
            terms.update(f"{first} {second}" for first, second in pairwise(run) if first != second)
    return terms


def _runs(text: str) -> list[list[str]]:
    """Naming words that follow each other with only space between them."""
    runs: list[list[str]] = [[]]
    for chunk in _spaced(unicodedata.normalize("NFC", text).lower()).split():
        word = _POSSESSIVE.sub("", chunk.strip("".join(_JOINERS)))
        if _names(word):
            runs[-1].append(word)
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def _spaced(text: str) -> str:
    """Text with a lone bar for each sign, so that it ends a phrase; an underscore is a space."""
    between = {ord(char): " | " for char in set(text) if not (char.isspace() or _is_of_word(char))}
    return text.translate({**between, ord("_"): " "})


def _is_of_word(char: str) -> bool:
    return unicodedata.category(char)[0] in "LNM" or char in _JOINERS


def _names(word: str) -> bool:
    if word in _STOP or not any(char.isalpha() for char in word):
        return False
    return len(word) > 1 or word >= _IDEOGRAPHS
