"""CLIP's byte-pair tokenizer without torch: the same ids as open_clip's, token for token."""

from __future__ import annotations

import gzip
import html
import importlib.util
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmsearch.encoders.splitting import split
from mmsearch.errors import InvalidInput, ModelBroken, ModelUnavailable

START, END = "<start_of_text>", "<end_of_text>"
MAX_WORD = 100
"""Letters of one word that are read; longer runs are cut into words of this length, so that no text is slow."""

# open_clip ignores case: U+017F is an s, and U+0345, a mark whose capital is a letter, is neither mark nor letter.
_WORDS = "'[s\u017f]|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}\u0345]+"
_N_MERGES = 49152 - 256 - 2


class ClipTokenizer:
    """Texts to (n, context) int64 token ids, padded with 0, as the CLIP text towers want them.

    Special tokens written out inside a text are read as ordinary letters: nobody can end a text early.

    Parameters
    ----------
    file
        What ``write_tokenizer`` wrote; None builds the same from open_clip's vocabulary.
    context
        Token ids a row, the start and the end token among them.

    Raises
    ------
    ModelBroken
        If the file cannot be read as such a tokenizer.
    ModelUnavailable
        If there is no file and no vocabulary either.
    """

    def __init__(self, file: Path | None, context: int) -> None:
        self.context = context
        self._backend = _built() if file is None else _read(file)
        self._start, self._end = (int(self._backend.token_to_id(token)) for token in (START, END))

    def __call__(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Tokenize; what exceeds the context is cut off, the last token is always the end token."""
        ids = np.zeros((len(texts), self.context), dtype=np.int64)
        encodings = self._backend.encode_batch([clean(text) for text in texts], add_special_tokens=False)
        for row, encoding in zip(ids, encodings, strict=True):
            inner = encoding.ids[: self.context - 2]
            row[: len(inner) + 2] = [self._start, *inner, self._end]
        return ids

    def pieces(self, ids: NDArray[np.int64]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
        """The words of a row of ids, and of which word each token is a piece, (context,); -1 for what is no word."""
        end = int(np.argmax(ids == self._end)) if (ids == self._end).any() else len(ids)
        of = np.full(len(ids), -1, dtype=np.int64)
        words: list[list[int]] = [[]]
        for place in range(1, end):
            of[place] = len(words) - 1
            words[-1].append(int(ids[place]))
            if str(self._backend.id_to_token(int(ids[place]))).endswith("</w>"):
                words.append([])
        return tuple(self._letters(its) for its in words if its), of

    def _letters(self, ids: Sequence[int]) -> str:
        byte_of = _bytes_of_letters()
        letters = "".join(str(self._backend.id_to_token(one)) for one in ids).removesuffix("</w>")
        return bytes(byte_of[letter] for letter in letters).decode("utf-8", "replace")

    def split(self, text: str) -> list[str]:
        """Pieces of a text that each fit the context, in order and overlapping; the text itself if it fits."""
        room = self.context - 2
        return [text] if self._count(text) <= room else split(clean(text), self._count, room)

    def _count(self, text: str) -> int:
        # Cleaned even where it is cleaned already: that can change a text once more, and the encoder does it too.
        return len(self._backend.encode(clean(text), add_special_tokens=False).ids)


def clean(text: str) -> str:
    """Mend broken Unicode, resolve HTML entities, fold white space and case, cut endless words (CLIP's "lower")."""
    import ftfy

    return fold_spaces(html.unescape(html.unescape(ftfy.fix_text(text)))).lower()


def fold_spaces(text: str) -> str:
    """Make every run of white space one space, and cut words of more than ``MAX_WORD`` letters."""
    words = text.split()
    if any(len(word) > MAX_WORD for word in words):
        words = [word[i : i + MAX_WORD] for word in words for i in range(0, len(word), MAX_WORD)]
    return " ".join(words)


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
    """Write the tokenizer that is built from the vocabulary that open_clip ships, without importing open_clip.

    Raises
    ------
    ModelUnavailable
        If open_clip or its vocabulary is not installed.
    """
    _built().save(str(file), pretty=False)


def _read(file: Path) -> Any:  # noqa: ANN401 tokenizers has no types
    from tokenizers import Tokenizer

    try:
        backend = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises nothing more specific
        raise ModelBroken(
            f"the tokenizer {file} cannot be read ({error}): delete its folder, so it is made again"
        ) from error
    if None in (backend.token_to_id(START), backend.token_to_id(END)):
        raise ModelBroken(f"the tokenizer {file} lacks {START} or {END}: delete its folder, so it is made again")
    return backend


@cache
def _built() -> Any:  # noqa: ANN401 tokenizers has no types
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
    return tokenizer


def _merges() -> list[tuple[str, str]]:
    spec = importlib.util.find_spec("open_clip")
    folders = list(spec.submodule_search_locations or []) if spec else []
    for folder in folders:
        file = Path(folder) / "bpe_simple_vocab_16e6.txt.gz"
        if file.is_file():
            lines = gzip.decompress(file.read_bytes()).decode("utf-8").split("\n")[1 : _N_MERGES + 1]
            return [(first, second) for first, second in (line.split() for line in lines)]
    raise ModelUnavailable("the CLIP vocabulary was not found: reinstall it with pip install open-clip-torch")


@cache
def _bytes_of_letters() -> dict[str, int]:
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    order = printable + [code for code in range(256) if code not in printable]
    return {chr(code): byte for code, byte in zip(_byte_letters(), order, strict=True)}


def _byte_letters() -> list[int]:
    """The letters that stand for bytes, in GPT-2's order: printable ones for themselves, then 256 and on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return printable + [256 + n for n in range(256 - len(printable))]
