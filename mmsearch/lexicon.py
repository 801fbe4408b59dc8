"""``Lexicon``: the words that clusters may be named with, as vectors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import TypeAlias
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from mmsearch.errors import InvalidInput
from mmsearch.files import atomic_write
from mmsearch.places import default_cache
from mmsearch.protocols import Encoder
from mmsearch.queries import text_vectors
from mmsearch.selection import Selection
from mmsearch.types import Keys, Progress, Report, Vectors
from mmsearch.vectors import as_unit_vectors
from mmsearch.vocabulary import collection_terms, general_nouns, terms_of

Vocabulary: TypeAlias = str | Sequence[str] | None
"""``general``: the nouns that come with the package; ``collection``: the titles and keywords of the items; a list of
words of one's own; None: the first two together."""

GENERAL, COLLECTION = "general", "collection"
_PROMPTS = ("{}", "a photo of {}", "a photo of a {}")
"""A word's vector is the mean of what these say: it is closer to what the text tower was trained on than the bare word
(Radford et al., ICML 2021, section 3.1.4)."""
_BATCH = 256
MAX_WORDS = 100_000
_LONGEST = 200
_SHIPPED = Path(str(files("mmsearch.vocabulary"))) / "vectors"
"""Vectors that come with the package, made by ``benchmarks/make_words.py``."""
_MOST_KEPT = 200_000
"""Words that the cache keeps of an encoder: 100 MB at 256 numbers each."""
_TERMS = 500
"""Terms of a collection; each costs three texts to encode, and the rarest name little."""
_RARE = 1_000
"""A term must be in one of so many items."""
_CHARACTERS = 400
"""The beginning of a text says what it is about."""
_SHARE, _TIMES = 0.1, 2.0
"""The share of a cluster's members that must have a term, and how much more often than in the others."""


@dataclass(frozen=True, slots=True, eq=False)
class Lexicon:
    """Words and their vectors, (n, dim) unit rows."""

    words: tuple[str, ...]
    vectors: Vectors

    def __len__(self) -> int:
        """How many words there are."""
        return len(self.words)


def check_vocabulary(vocabulary: Vocabulary) -> None:
    """See that this is a vocabulary.

    Raises
    ------
    InvalidInput
        If it is not, or a list without words.
    """
    if vocabulary is None or (isinstance(vocabulary, str) and vocabulary in (GENERAL, COLLECTION)):
        return
    if isinstance(vocabulary, str) or not isinstance(vocabulary, Sequence):
        raise InvalidInput(
            f"expected a vocabulary as {GENERAL!r}, {COLLECTION!r} or a list of words, got {vocabulary!r:.60}"
        )
    for word in vocabulary:
        if not isinstance(word, str) or not word.strip() or len(word) > _LONGEST:
            raise InvalidInput(f"expected words of at most {_LONGEST} letters in a vocabulary, got {word!r:.60}")
    if not 0 < len(vocabulary) <= MAX_WORDS:
        raise InvalidInput(f"expected a vocabulary of 1 to {MAX_WORDS:,} words, got {len(vocabulary):,}")


def lexicon_of(
    words: Sequence[str], encoder: Callable[[], Encoder], *, pictures: bool, report: Report | None = None
) -> Lexicon:
    """Words, each once, with their vectors. Those that were encoded before are kept in the cache.

    Parameters
    ----------
    pictures
        Whether pictures are named: then words are encoded as what a photo shows, else as they are.
    """
    distinct = tuple(dict.fromkeys(word.strip() for word in words))
    name, dim = _name(encoder(), pictures), encoder().dim
    kept = default_cache() / "words" / name
    cached = _read(kept, dim)
    known = {**_read(_SHIPPED / name, dim), **cached}
    missing = [word for word in distinct if word not in known]
    if missing:
        # Rounded as they are kept, so that the first answer is the same as later ones.
        fresh = encoded(missing, encoder, pictures=pictures, report=report).astype(np.float16).astype(np.float32)
        new = dict(zip(missing, fresh, strict=True))
        known |= new
        with suppress(OSError):  # a cache that cannot be written costs time, nothing else
            write_words(kept, dict(list({**cached, **new}.items())[-_MOST_KEPT:]))
    vectors = np.array([known[word] for word in distinct], dtype=np.float32).reshape(-1, dim)
    return Lexicon(distinct, as_unit_vectors(vectors))


def encoded(
    words: Sequence[str], encoder: Callable[[], Encoder], *, pictures: bool, report: Report | None = None
) -> Vectors:
    """What an encoder makes of words, (n, dim) unit rows: the means of their prompts."""
    vectors = np.zeros((len(words), encoder().dim), dtype=np.float32)
    for start in range(0, len(words), _BATCH):
        if report is not None:
            report(Progress("words", start, len(words)))
        batch = words[start : start + _BATCH]
        said = [np.stack(text_vectors([prompt.format(word) for word in batch], encoder)) for prompt in _of(pictures)]
        vectors[start : start + _BATCH] = as_unit_vectors(np.sum(said, axis=0))
    return vectors


def shipped_file(encoder: Encoder) -> Path:
    """Where the package keeps the vectors of its nouns by an encoder, if it has them."""
    return _SHIPPED / _name(encoder, True)


def write_words(file: Path, known: Mapping[str, Vectors]) -> None:
    """Write words and their vectors, (dim,) each, as float16."""
    file.parent.mkdir(parents=True, exist_ok=True)
    buffer = BytesIO()
    words = np.frombuffer(json.dumps(list(known)).encode(), dtype=np.uint8)
    np.savez(buffer, words=words, vectors=np.array(list(known.values()), dtype=np.float16))
    atomic_write(file, buffer.getvalue())


def _read(file: Path, dim: int) -> dict[str, Vectors]:
    """Words and their vectors, as ``write_words`` wrote them; none where that cannot be read."""
    try:
        with np.load(BytesIO(file.read_bytes()), allow_pickle=False) as kept:
            words, vectors = json.loads(kept["words"].tobytes()), kept["vectors"]
    except (OSError, ValueError, TypeError, EOFError, LookupError, BadZipFile):
        return {}
    if (
        not isinstance(words, list)
        or vectors.dtype != np.float16
        or vectors.shape != (len(words), dim)
        or not np.isfinite(vectors).all()
        or not vectors.any(axis=1).all()
    ):
        return {}
    return dict(zip(words, vectors.astype(np.float32), strict=True))


def _of(pictures: bool) -> tuple[str, ...]:
    return _PROMPTS if pictures else _PROMPTS[:1]


def _name(encoder: Encoder, pictures: bool) -> str:
    """A file name that is another one for other prompts or weights."""
    told = "\n".join([encoder.fingerprint, *_of(pictures)]).encode("utf-8", "surrogatepass")
    return f"{hashlib.sha256(told).hexdigest()[:32]}.npz"


def choose_words(
    vocabulary: Vocabulary, chosen: Selection, positions: Keys, labels: Keys, k: int
) -> tuple[Sequence[str], NDArray[np.bool_] | None]:
    """The words that clusters may be named with, and which of them may name which, (k, n_words); None: all any.

    A term of the collection may name a cluster only if members' own titles and texts have it: a tenth of them, and
    twice as many as elsewhere. Nouns of the general list are judged by the model alone.

    Parameters
    ----------
    positions, labels
        Members of the clusters, or a sample of them, and which of k clusters each is in.
    """
    if vocabulary is not None and not isinstance(vocabulary, str):
        return vocabulary, None
    general = general_nouns() if vocabulary in (None, GENERAL) else ()
    if vocabulary == GENERAL:
        return general, None
    texts = _texts(chosen, positions)
    found = [term for term, _ in collection_terms(texts, most=_TERMS, least=max(2, len(texts) // _RARE))]
    terms = _one_of_each(found, general)
    if not terms and not general:
        raise InvalidInput("expected items with titles or keywords for vocabulary='collection': use 'general'")
    shares = _shares(texts, {term: n for n, term in enumerate(terms)}, labels, k)
    allowed = np.ones((k, len(terms) + len(general)), dtype=np.bool_)
    allowed[:, : len(terms)] = shares >= np.maximum(_SHARE, _TIMES * shares.mean(axis=0) * (1 - 1 / k))
    return (*terms, *general), allowed


def _one_of_each(terms: Sequence[str], known: Sequence[str]) -> list[str]:
    """Terms without those that are spelt like a known word or an earlier term, but for hyphens, spaces and plurals."""
    spellings = {_spelling(word) for word in known}
    kept: dict[str, str] = {}
    for term in terms:
        if _spelling(term) not in spellings:
            kept.setdefault(_spelling(term), term)
    return list(kept.values())


def _spelling(term: str) -> str:
    return "".join(term.replace("-", "").split()).removesuffix("s")


def _texts(chosen: Selection, positions: Keys) -> list[list[str]]:
    """What the items at positions say of themselves: titles, keywords and the beginning of their text."""
    told = chosen.store.catalog.titles(chosen.keys[positions].tolist())
    return [[part[:_CHARACTERS] for part in told.get(key, ()) if part] for key in chosen.keys[positions].tolist()]


def _shares(texts: Sequence[Sequence[str]], place: Mapping[str, int], labels: Keys, k: int) -> NDArray[np.float64]:
    """The share of each cluster's members that have each term, (k, n_terms)."""
    counts = np.zeros((k, len(place)))
    for its, label in zip(texts, labels.tolist(), strict=True):
        counts[label, [place[term] for term in terms_of(its) if term in place]] += 1
    shares: NDArray[np.float64] = counts / np.maximum(np.bincount(labels, minlength=k), 1)[:, None]
    return shares
