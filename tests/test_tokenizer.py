"""Our tokenizer gives open_clip's ids, token for token, and cuts long texts into pieces that lose nothing."""

# ruff: noqa: RUF001 letters that look like others are what these tests are about

import random
import unicodedata
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mmsearch.encoders.splitting import split
from mmsearch.encoders.tokenizer import ClipTokenizer, check_text, clean, write_tokenizer
from mmsearch.errors import InvalidInput, ModelBroken

START, END = 49406, 49407
SCRIPTS = {
    "english": "a the dog red bicycle holding children under umbrella photograph's of don't they're I'll we've he'd",
    "german": "Straße größer Mädchen fährt Öl über Übermut ẞ",
    "french": "l'été à côté d'où naïve Œuvre façade ÇA",
    "turkish": "İstanbul ışık ığdır çocuk",
    "greek": "σκύλος ΟΔΟΣ τρέχει ᾳ Ἀθῆναι",
    "russian": "собака Велосипед бежит ёж",
    "arabic": "كلب أحمر يجري ١٢٣",
    "hebrew": "כלב אדום שָׁלוֹם",
    "hindi": "नमस्ते कुत्ता १२३ दुनिया",
    "thai": "สุนัขสีแดง วิ่ง",
    "chinese": "一只红色的狗 在海边 自行车",
    "japanese": "赤い犬が走る ﾊﾝｶｸ テキスト",
    "korean": "빨간 개가 달린다",
    "emoji": "😀 👩‍👩‍👧 🇩🇪 ❤️ 🏳️‍🌈 ✈️",
    "symbols": "€ © ½ ² Ⅷ № ™ ﬁ → ∑ ♥ ═",
}
PUNCTUATION = ["!", "?", "...", ",", ".", "--", "-", "'", '"', "«", "»", "‘", "’", "“", "”", "(", ")", "[", "]", "{"]
PUNCTUATION += ["#", "@", "%", "^", "*", "_", "+", "=", "/", "\\", "|", "~", "`", "<", ">", "&", "&&", ";", ":"]
ENTITIES = ["&amp;", "&lt;b&gt;", "&quot;", "&#39;", "&eacute;", "&#x1F600;", "&nbsp;", "&amp;amp;lt;", "&nope;"]
BROKEN = ["cafÃ©", "â€œquotedâ€\x9d", "schÃ¶n", "\x00", "a\x00b", "\x1b[1m", "\u200b", "\ufeff", "\xad", "e\u0301"]
SPACES = [" ", " ", " ", "  ", "\t", "\n", "\r\n", "\u00a0", "\u2003", "\u3000", ""]

# Letters that Unicode has not assigned yet are left out: each regex engine has its own version of Unicode.
ANY_TEXT = st.text(st.characters(exclude_categories=("Cs", "Cn")), max_size=80)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    write_tokenizer(path)
    return path


@pytest.fixture(scope="module", params=[77, 32])
def pair(request, file):
    import open_clip  # here, since it takes seconds

    return ClipTokenizer(file, request.param), open_clip.SimpleTokenizer(context_length=request.param)


@pytest.fixture(scope="module")
def unbounded(file):
    """A tokenizer that cuts nothing off the texts of these tests."""
    return ClipTokenizer(file, 5000)


@pytest.fixture(scope="module")
def tokenizer(file):
    return ClipTokenizer(file, 32)


def made_texts(n):
    rng = random.Random(5)
    words = [word for script in SCRIPTS.values() for word in script.split()]
    words += [*SCRIPTS["english"].split() * 6, *PUNCTUATION, *ENTITIES, *BROKEN]
    texts = []
    for _ in range(n):
        text = ""
        for _ in range(rng.choice((1, 2, 5, 9, 20, 60))):
            word = str(rng.randint(0, 10**6)) if rng.random() < 0.05 else rng.choice(words)
            text += rng.choice((word, word, word.upper(), word.title())) + rng.choice(SPACES)
        texts.append(text)
    return texts


def ids_by_open_clip(theirs, texts):
    return theirs(texts).numpy()


def n_tokens(tokenizer, text):
    return int((tokenizer([text])[0] == END).argmax()) + 1


def test_two_thousand_texts_of_fifteen_scripts_have_the_ids_of_open_clip(pair):
    ours, theirs = pair
    texts = made_texts(2000)
    found, expected = ours(texts), ids_by_open_clip(theirs, texts)
    different = [text for text, a, b in zip(texts, found, expected, strict=True) if (a != b).any()]
    assert found.dtype == np.int64
    assert found.shape == expected.shape
    assert different == []


@settings(max_examples=300, deadline=None)
@given(text=ANY_TEXT)
@example(text="")
@example(text=" \t\n ")
@example(text="'s 't 're 've 'm 'll 'd '''")
@example(text="1234567890" * 9)
def test_random_text_has_the_ids_of_open_clip(pair, text):
    ours, theirs = pair
    # Mended mojibake may have letters that are not assigned; and only open_clip obeys special tokens inside a text.
    if "_of_text>" not in clean(text) and not any(unicodedata.category(letter) == "Cn" for letter in clean(text)):
        assert ours([text]).tolist() == ids_by_open_clip(theirs, [text]).tolist(), clean(text)


@pytest.mark.parametrize("text", ["it'ſ a dog", "\u0345", "a \u0345 b"])
def test_letters_that_only_case_folding_makes_letters_have_the_ids_of_open_clip(pair, text):
    ours, theirs = pair
    assert ours([text]).tolist() == ids_by_open_clip(theirs, [text]).tolist()


@pytest.mark.parametrize("text", ["\ud800", "a dog\ud83d", "\udc00 and \udfff", "\ud83d\ude00 is a pair"])
def test_surrogates_have_the_ids_of_open_clip(pair, text):
    ours, theirs = pair
    assert ours([text]).tolist() == ids_by_open_clip(theirs, [text]).tolist()


@pytest.mark.parametrize("text", ["<end_of_text>", "<start_of_text>", "<END_OF_TEXT>", "&lt;end_of_text&gt;"])
def test_a_special_token_inside_a_text_is_read_as_ordinary_letters(tokenizer, text):
    (ids,) = tokenizer([f"a dog {text} a cat"])
    (cat,) = tokenizer(["cat"])
    assert (ids == START).nonzero()[0].tolist() == [0]
    end = (ids == END).nonzero()[0].tolist()
    assert len(end) == 1
    assert ids[end[0] - 1] == cat[1]


def test_a_text_that_is_too_long_is_cut_and_still_ends_with_the_end_token(tokenizer):
    (ids,) = tokenizer(["dog " * 500])
    assert ids[0] == START
    assert ids[-1] == END
    assert (ids[1:-1] == ids[1]).all()


@pytest.mark.parametrize("letter", ["a", "ß", "犬", "😀", "!", "7", "e\u0301"])
def test_a_word_of_twenty_thousand_letters_gives_ids_of_the_same_shape(tokenizer, letter):
    ids = tokenizer([letter * 20_000, "a dog"])
    assert ids.shape == (2, 32)
    assert ids[0, 0] == START
    assert ids[0, -1] == END


def test_a_word_of_a_hundred_letters_is_read_whole(pair):
    ours, theirs = pair
    rng = random.Random(1)
    texts = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=n)) for n in (60, 99, 100)]
    assert ours(texts).tolist() == ids_by_open_clip(theirs, texts).tolist()


def test_no_texts_give_no_rows(tokenizer):
    assert tokenizer([]).shape == (0, 32)


def test_a_batch_gives_the_ids_of_each_text_alone(tokenizer):
    texts = made_texts(200)
    assert tokenizer(texts).tolist() == [tokenizer([text])[0].tolist() for text in texts]


@pytest.mark.parametrize("value", [None, 5, b"a dog", ["a dog"]])
def test_what_is_no_text_is_refused_by_its_type(value):
    with pytest.raises(InvalidInput, match=f"expected a str as text, got {type(value).__name__}"):
        check_text(value)


@pytest.mark.parametrize("content", ["", "{", "{}", '{"model": {"type": "BPE", "vocab": {}, "merges": []}}'])
def test_a_file_that_holds_no_such_tokenizer_is_broken(tmp_path, content):
    (tmp_path / "tokenizer.json").write_text(content, "utf-8")
    with pytest.raises(ModelBroken, match=r"tokenizer\.json .*made again"):
        ClipTokenizer(tmp_path / "tokenizer.json", 32)


def test_a_tokenizer_from_the_vocabulary_is_the_one_from_a_file(tokenizer):
    texts = made_texts(200)
    assert (ClipTokenizer(None, 32)(texts) == tokenizer(texts)).all()


# Splitting ------------------------------------------------------------------------------------------------------


def at_random(parts, n, seed, between=""):
    """No two stretches of such a text are alike, so a piece of it has one place."""
    return between.join(random.Random(seed).choices(parts, k=n))


LONG = {
    "english words": at_random([*SCRIPTS["english"].split(), "unforgettably", "photogenic", "zyzzyva"], 300, 1, " "),
    "one endless word": at_random("abcdefghijklmnopqrstuvwxyz", 3000, 2),
    "several endless words": " ".join(at_random("bcdfghjklmnpqrst", 140, n) for n in range(9)),
    "chinese without spaces": at_random(SCRIPTS["chinese"].replace(" ", ""), 400, 3),
    "japanese without spaces": at_random("日本語のテキストは長いです犬走赤", 400, 4),
    "hindi": at_random(SCRIPTS["hindi"].split(), 120, 5, " "),
    "emoji": at_random(["😀", "👩‍👩‍👧", "🇩🇪", "❤️", "✈️", "🐶"], 300, 6),
    "digits": at_random("1234567890", 400, 7),
    "punctuation": at_random("!?.,;:-", 500, 8),
    "a bit of all": at_random(["größe", "42", "don't", "犬", "😀", "...", "photo-realistic", "ёж"], 200, 9, " "),
}


@pytest.fixture(params=LONG.values(), ids=LONG.keys())
def long_text(request):
    return request.param


@pytest.mark.parametrize("context", [8, 32, 77])
def test_every_piece_of_a_long_text_fits_the_context(file, unbounded, long_text, context):
    pieces = ClipTokenizer(file, context).split(long_text)
    lengths = [n_tokens(unbounded, piece) for piece in pieces]
    assert len(pieces) > 1
    assert max(lengths) <= context


def test_pieces_cover_the_text_in_order_and_overlap_or_touch(tokenizer, long_text):
    text = clean(long_text)
    covered, start = 0, 0
    for piece in tokenizer.split(long_text):
        start = text.index(piece, start)
        assert not text[covered:start].strip()
        covered = max(covered, start + len(piece))
    assert covered == len(text)


@pytest.mark.parametrize("text", ["犬" * 60, "😀" * 60, "dog " * 20 + "犬" * 60], ids=["letters", "emoji", "both"])
def test_pieces_are_as_long_as_the_context_allows(tokenizer, unbounded, text):
    pieces = tokenizer.split(text)
    assert min(n_tokens(unbounded, piece) for piece in pieces[:-1]) >= 16


def test_pieces_of_words_are_cut_between_words_and_share_some(tokenizer):
    numbered = [f"dog{at_random('abcdefgh', 5, n)}" for n in range(200)]
    pieces = [piece.split() for piece in tokenizer.split(" ".join(numbered))]
    assert {word for piece in pieces for word in piece} == set(numbered)
    assert all(set(first) & set(second) for first, second in pairwise(pieces))


@settings(max_examples=200, deadline=None)
@given(text=ANY_TEXT)
@example(text="&amp;" + "amp;" * 9 + "lt;b")
@example(text="Ä¡\x81")
@example(text="  A  dog \n")
@example(text="")
@example(text="&AMP;" * 3)
def test_a_text_that_fits_is_one_piece_and_left_as_it_is(unbounded, text):
    assert unbounded.split(text) == [text]


@settings(max_examples=100, deadline=None)
@given(text=st.text(st.characters(exclude_categories=("Cs", "Cn")), max_size=400))
def test_random_text_is_split_into_pieces_that_fit(tokenizer, unbounded, text):
    pieces = tokenizer.split(text)
    assert pieces
    assert max(n_tokens(unbounded, piece) for piece in pieces) <= 32


def test_a_text_that_just_fits_is_one_piece_and_one_word_more_makes_two(tokenizer):
    assert len(tokenizer.split("dog " * 30)) == 1
    assert len(tokenizer.split("dog " * 31)) == 2


@pytest.mark.parametrize("text", ["dog ab " * 20_000, "x" * 100_000, ("a " * 300 + "y" * 900) * 100])
def test_the_work_of_splitting_is_in_proportion_to_the_text(text):
    read = []

    def count(piece):
        read.append(len(piece))
        return len(piece.replace(" ", ""))

    pieces = split(text.strip(), count, 30)
    assert max(len(piece.replace(" ", "")) for piece in pieces) <= 30
    assert sum(read) < 10 * len(text)


def test_a_letter_of_more_tokens_than_fit_does_not_stop_the_splitting():
    assert split("xxx", lambda piece: 9 * len(piece), 5) == ["x", "x", "x"]
