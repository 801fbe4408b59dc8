"""open_clip's other tokenizers: Hugging Face's, and CLIP's with other settings than CLIP's own."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmsearch.encoders.splitting import split
from mmsearch.encoders.tokenizer import fold_spaces


class ForeignTokenizer:
    """Texts to (n, context) int64 token ids by a tokenizer of open_clip.

    Special tokens written out inside a text are left out, in capitals too: nobody can end a text early.

    Parameters
    ----------
    tokenizer
        What ``open_clip.get_tokenizer`` gave; its cleaning of texts is wrapped in ours.
    """

    def __init__(self, tokenizer: Any) -> None:  # noqa: ANN401 open_clip has no types
        self._backend = tokenizer
        self.context = int(tokenizer.context_length)
        tokenizer.clean_fn = _harmless(tokenizer.clean_fn, _special_tokens(tokenizer))
        self._blank = self._rows([""], 2 * self.context)[0]

    def __call__(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Tokenize; what exceeds the context is cut off."""
        return self._rows(texts, self.context)

    def split(self, text: str) -> list[str]:
        """Pieces of a text that each fit the context, in order and overlapping; the text itself if it fits."""
        if self._count(text) <= self._room:
            return [text]
        return split(fold_spaces(text), self._count, self._room)

    @cached_property
    def _room(self) -> int:
        """What ``_count`` says of the longest text that is not cut off: tried out, as each adds tokens of its own."""
        texts = ["a " * n for n in range(self.context + 2)]
        rows = self._rows(texts, self.context)
        cut = np.flatnonzero((rows[1:] == rows[:-1]).all(axis=1))
        return self._count(texts[int(cut[0]) if len(cut) else self.context])

    def _count(self, text: str) -> int:
        """Tokens of a text, up to twice the context: as far as its row differs from the empty text's.

        Asked of the rows, since tokenizers agree on nothing else.
        """
        used = np.flatnonzero(self._rows([text], 2 * self.context)[0] != self._blank)
        return int(used[-1]) + 1 if len(used) else 0

    def _rows(self, texts: Sequence[str], context: int) -> NDArray[np.int64]:
        if not texts:
            return np.zeros((0, context), dtype=np.int64)
        return np.asarray(self._backend(list(texts), context_length=context).numpy(), dtype=np.int64)


def _special_tokens(tokenizer: Any) -> list[str]:  # noqa: ANN401 open_clip has no types
    inner = getattr(tokenizer, "tokenizer", None)
    if inner is not None:
        # One letter is no protection: some pad with "!".
        return [str(token) for token in inner.all_special_tokens if len(str(token)) > 1]
    return [tokenizer.decoder[number] for number in tokenizer.all_special_ids]


def _harmless(clean: Callable[[str], str], special: list[str]) -> Callable[[str], str]:
    """A cleaning after which no special token is left: only after it, since it resolves HTML entities."""
    pattern = re.compile("|".join(map(re.escape, sorted(special, key=len, reverse=True))) or r"(?!)", re.IGNORECASE)
    return lambda text: fold_spaces(pattern.sub(" ", clean(text)))
