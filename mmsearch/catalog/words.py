"""A text as a full-text query: which of its words count, quoted so that nothing in them is syntax."""

from __future__ import annotations

import unicodedata

TITLE_WEIGHT = 2.0
"""How much a word of a title counts for one of a text."""
MAX_WORDS = 32
MAX_LENGTH = 2_000
"""Characters of a text that are read; longer ones are documents, not questions."""
COMMON = frozenset({
    "a", "an", "and", "are", "as", "at", "by", "for", "from", "in", "is", "it", "of", "on", "or", "that", "the",
    "this", "to", "was", "with",
})  # fmt: skip
"""English words that are nearly everywhere, so that looking them up takes time and tells nothing."""

_JOINERS = frozenset("./'\u2019&+#@:")
_IDEOGRAPHS = "\u2e80"
"""The first character of the scripts in which a word may be a single letter."""


def match_of(text: str) -> str:
    """What to give to ``MATCH``: any of the words, each a phrase; empty if the text has no words.

    >>> match_of('the "AB-1234" OR red, wine-glass')
    '"AB-1234" OR "red" OR "wine-glass"'
    """
    found: dict[str, str] = {}
    for word in words_of(text):
        found.setdefault(word.casefold(), word)
    chosen = [word for plain, word in found.items() if _tells(plain)] or list(found.values())
    return " OR ".join(f'"{word}"' for word in chosen[:MAX_WORDS])


def words_of(text: str) -> list[str]:
    """The words of a text; one with signs inside, such as a product code, stays whole, for the tokenizer to split.

    >>> words_of("2 x AB-1234/b (red), -- don't")
    ['2', 'x', 'AB-1234/b', 'red', "don't"]
    """
    text = unicodedata.normalize("NFC", text[:MAX_LENGTH])  # what is typed; a pasted file name may be decomposed
    between = {ord(char): " " for char in set(text) if not (_is_letter(char) or _joins(char))}
    chunks = text.translate(between).split()
    return [_trimmed(chunk) for chunk in chunks if any(map(_is_letter, chunk))]


def _is_letter(char: str) -> bool:
    """Whether a character is of a word to the tokenizer (unicode61), or a mark on one that is."""
    category = unicodedata.category(char)
    return category[0] in "LNM" or category == "Co"


def _joins(char: str) -> bool:
    """Whether words around a character belong together: hyphens, signs in codes, and what is invisible."""
    return char in _JOINERS or unicodedata.category(char) in ("Pd", "Pc", "Cf")


def _trimmed(chunk: str) -> str:
    first = next(n for n, char in enumerate(chunk) if _is_letter(char))
    last = next(n for n in range(len(chunk), 0, -1) if _is_letter(chunk[n - 1]))
    return chunk[first:last]


def _tells(word: str) -> bool:
    """Whether a word, without case, is worth looking up."""
    single = len(word) == 1 and word.isalpha() and word < _IDEOGRAPHS
    return not single and word not in COMMON
