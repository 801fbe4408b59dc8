"""CLIP's byte-pair tokenizer without torch: the same ids as open_clip's, token for token."""

from __future__ import annotations

import gzip
import html
import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmsearch.errors import InvalidInput, ModelUnavailable

START, END = "<start_of_text>", "<end_of_text>"
MAX_WORD = 100
"""Letters of one word that are read; longer runs are cut into words of this length, so that no text is slow."""

_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_N_MERGES = 49152 - 256 - 2


class ClipTokenizer:
    """Texts to (n, context) int64 token ids, padded with 0, as the CLIP text towers want them.

    Special tokens written out inside a text are read as ordinary letters: nobody can end a text early.
    """

    def __init__(self, file: Path, context: int) -> None:
        from tokenizers import Tokenizer

        self.context = context
        self._backend = Tokenizer.from_file(str(file))
        self._start, self._end = (int(self._backend.token_to_id(token) or 0) for token in (START, END))

    def __call__(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Tokenize; what exceeds the context is cut off, the last token is always the end token."""
        ids = np.zeros((len(texts), self.context), dtype=np.int64)
        encodings = self._backend.encode_batch([clean(text) for text in texts], add_special_tokens=False)
        for row, encoding in zip(ids, encodings, strict=True):
            inner = encoding.ids[: self.context - 2]
            row[: len(inner) + 2] = [self._start, *inner, self._end]
        return ids

    def split(self, text: str) -> list[str]:
        """Pieces of a text that each fit the context, cut between words, each overlapping the last by a quarter.

        The overlap keeps a phrase that straddles a cut whole in one of the pieces.
        """
        text = clean(text)
        offsets = self._backend.encode(text, add_special_tokens=False).offsets
        room = self.context - 2
        if len(offsets) <= room:
            return [text]
        starts = [i for i in range(len(offsets)) if _starts_word(text, offsets[i][0])] or [0]
        pieces, first = [], 0
        while True:
            last = min(first + room, len(offsets))
            if last < len(offsets):
                last = max((s for s in starts if first < s <= last), default=last)
            pieces.append(text[offsets[first][0] : offsets[last - 1][1]])
            if last == len(offsets):
                return pieces
            first = max((s for s in starts if first < s <= max(last - room // 4, first + 1)), default=last)


def _starts_word(text: str, position: int) -> bool:
    return position == 0 or text[position - 1].isspace()


def clean(text: str) -> str:
    """Mend broken Unicode, resolve HTML entities, fold white space and case, cut endless words (CLIP's "lower")."""
    import ftfy

    text = html.unescape(html.unescape(ftfy.fix_text(text.encode("utf-8", "replace").decode("utf-8"))))
    words = text.split()
    if any(len(word) > MAX_WORD for word in words):
        words = [word[i : i + MAX_WORD] for word in words for i in range(0, len(word), MAX_WORD)]
    return " ".join(words).lower()


def check_text(text: object) -> str:
    """Return the text if it is a str.

    Raises
    ------
    InvalidInput
        Otherwise.
    """
    if not isinstance(text, str):
        raise InvalidInput(f"expected a str as text, got {type(text).__name__}")
    return text


def write_tokenizer(file: Path) -> None:
    """Build the tokenizer from the vocabulary that open_clip ships, without importing open_clip.

    Raises
    ------
    ModelUnavailable
        If open_clip or its vocabulary is not installed.
    """
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    merges = _merges()
    letters = [chr(code) for code in _byte_letters()]
    tokens = [*letters, *(letter + "</w>" for letter in letters), *("".join(pair) for pair in merges), START, END]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.save(str(file), pretty=False)


def _merges() -> list[tuple[str, str]]:
    spec = importlib.util.find_spec("open_clip")
    folders = list(spec.submodule_search_locations or []) if spec else []
    for folder in folders:
        file = Path(folder) / "bpe_simple_vocab_16e6.txt.gz"
        if file.is_file():
            lines = gzip.decompress(file.read_bytes()).decode("utf-8").split("\n")[1 : _N_MERGES + 1]
            return [(first, second) for first, second in (line.split() for line in lines)]
    raise ModelUnavailable("the CLIP vocabulary was not found: reinstall it with pip install open-clip-torch")


def _byte_letters() -> list[int]:
    """The letters that stand for bytes, in GPT-2's order: printable ones for themselves, then 256 and on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return printable + [256 + n for n in range(256 - len(printable))]
