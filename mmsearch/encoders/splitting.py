"""Cutting a long text into pieces that each fit a tokenizer's context, whatever the tokenizer."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable

_GUESSES = 3
"""Tries in proportion to the tokens counted, which mostly end the search; then halving, which always ends it."""


def split(text: str, count: Callable[[str], int], room: int) -> list[str]:
    """Pieces of at most ``room`` tokens, cut between words where there are words, overlapping by about a quarter.

    The overlap keeps a phrase that straddles a cut whole in one of the pieces. Only stretches of about the length
    of a piece are ever tokenized, so that the time is in proportion to the text.

    Parameters
    ----------
    text
        Not empty, without white space at its ends.
    count
        How many tokens a piece has when it is encoded; pieces are measured, never estimated.
    """
    words = [match.start() for match in re.finditer(r"\S+", text)]
    pieces, first, guess = [], 0, 4 * room
    while True:
        fits = _longest(text, first, first + guess, count, room)
        last = _between_words(text, words, first, fits, count, room)
        pieces.append(text[first:last].strip())
        if last == len(text):
            return pieces
        first, guess = _next_start(text, words, first, last), fits - first


def _longest(text: str, first: int, end: int, count: Callable[[str], int], room: int) -> int:
    """Where about the longest stretch ends that starts at ``first`` and fits: filled to seven eighths or more.

    One letter is always taken, however many tokens it has.
    """
    enough = room - room // 8
    low, high, tries = first + 1, len(text) + 1, 0  # up to `low` fits, up to `high` does not
    while high - low > 1:
        end = min(max(end, low + 1), high - 1)
        tokens = count(text[first:end])
        if tokens > room:
            high = end
        elif tokens >= enough or end == len(text):
            return end
        else:
            low = end
        tries += 1
        guessing = tries <= _GUESSES or high > len(text)
        end = first + (end - first) * room // max(tokens, 1) if guessing else (low + high) // 2
    return low


def _between_words(text: str, words: list[int], first: int, last: int, count: Callable[[str], int], room: int) -> int:
    """Move an end that cuts through a word to before the word, unless that leaves less than half of a piece."""
    if last == len(text) or text[last].isspace() or text[last - 1].isspace():
        return last
    start = words[bisect_right(words, last) - 1]
    return start if start > first and room // 2 <= count(text[first:start]) <= room else last


def _next_start(text: str, words: list[int], first: int, last: int) -> int:
    """A quarter before the end of the last piece, at a word: one a little earlier, else one a little later, if any."""
    wanted, earliest = last - (last - first) // 4, last - (last - first) // 2
    after = bisect_right(words, wanted)
    if words[after - 1] >= earliest and words[after - 1] > first:
        return words[after - 1]
    if after < len(words) and words[after] <= last + 1:
        return words[after]
    return wanted
