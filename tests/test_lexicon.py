"""The words that clusters may be named with: their vectors, kept, and which of them a collection offers."""

import numpy as np
import pytest

from mmsearch import InvalidInput, Item
from mmsearch.lexicon import Lexicon, check_vocabulary, choose_words, encoded, lexicon_of
from mmsearch.selection import Selection

WORDS = ("red disc", "blue square", "green triangle")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of its own, so that nothing is kept from other tests."""
    monkeypatch.setenv("MMSEARCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def ask_for(words, encoder, **options):
    return lexicon_of(words, lambda: encoder, pictures=True, **options)


def kept_files(cache):
    return [file for file in (cache / "words").iterdir() if file.name[0] != "."]


def test_words_become_unit_rows_in_their_order(encoder):
    found = ask_for(WORDS, encoder)
    assert found.words == WORDS
    assert len(found) == 3
    assert (found.vectors.shape, found.vectors.dtype) == ((3, encoder.dim), np.float32)
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1, atol=1e-5)


def test_words_are_told_apart_by_what_they_mean(encoder):
    cosines = ask_for(WORDS, encoder).vectors @ ask_for(["a red disc", "square blue"], encoder).vectors.T
    assert cosines.argmax(axis=0).tolist() == [0, 1]


def test_kept_words_cost_no_encoding_and_are_the_same(encoder):
    first = ask_for(WORDS, encoder)
    read = encoder.texts_read
    again = ask_for(WORDS, encoder)
    assert encoder.texts_read == read > 0
    assert again.words == first.words
    np.testing.assert_allclose(again.vectors, first.vectors, atol=1e-6)


def test_only_new_words_are_encoded(encoder):
    ask_for(WORDS, encoder)
    read = encoder.texts_read
    found = ask_for(["teapot", *WORDS[::-1]], encoder)
    assert encoder.texts_read - read == 3  # prompts of one word
    assert found.words == ("teapot", *WORDS[::-1])
    np.testing.assert_allclose(found.vectors, encoded(found.words, lambda: encoder, pictures=True), atol=5e-4)


def test_what_other_prompts_and_weights_make_of_words_is_kept_apart(encoder, toy):
    ask_for(WORDS, encoder)
    for other, pictures in ((encoder, False), (toy.ToyEncoder(seed=1), True)):
        found = lexicon_of(WORDS, lambda other=other: other, pictures=pictures)
        expected = encoded(WORDS, lambda other=other: other, pictures=pictures)
        np.testing.assert_allclose(found.vectors, expected, atol=5e-4)


def test_words_with_line_ends_are_not_taken_for_others(encoder):
    ask_for(["red\ndisc", "blue"], encoder)
    found = ask_for(["red", "disc\nblue"], encoder)
    expected = encoded(found.words, lambda: encoder, pictures=True)
    np.testing.assert_allclose(found.vectors, expected, atol=5e-4)


def spoilt_files():
    """What may be in the place of kept words: by name, bytes or the arrays of a file."""
    words = np.frombuffer(b'["red disc", "blue square", "green triangle"]', dtype=np.uint8)
    good = np.eye(3, 32, dtype=np.float16)
    return {
        "empty": b"",
        "rubbish": b"rubbish",
        "half a zip": b"PK\x03\x04 and no more",
        "one array": good,
        "no vectors": {"words": words},
        "narrow": {"words": words, "vectors": good[:, :5]},
        "fewer": {"words": words, "vectors": good[:2]},
        "nan": {"words": words, "vectors": np.full_like(good, np.nan)},
        "zero": {"words": words, "vectors": np.zeros_like(good)},
        "letters": {"words": words, "vectors": np.full((3, 32), "x")},
        "no json": {"words": words[:9], "vectors": good},
        "a number": {"words": np.frombuffer(b"7", dtype=np.uint8), "vectors": good},
    }


@pytest.mark.parametrize("spoilt", spoilt_files())
def test_a_spoilt_cache_is_no_obstacle_and_is_made_good(encoder, cache, spoilt):
    expected = ask_for(WORDS, encoder).vectors
    (file,) = kept_files(cache)
    content = spoilt_files()[spoilt]
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        with open(file, "wb") as stream:
            np.savez(stream, **content) if isinstance(content, dict) else np.save(stream, content)
    for _ in range(2):
        np.testing.assert_allclose(ask_for(WORDS, encoder).vectors, expected, atol=1e-6)
    read = encoder.texts_read
    ask_for(WORDS, encoder)
    assert encoder.texts_read == read


def test_a_damaged_byte_in_the_cache_is_no_obstacle(encoder, cache):
    expected = ask_for(WORDS, encoder).vectors
    (file,) = kept_files(cache)
    whole = file.read_bytes()
    for place in range(0, len(whole), 37):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        np.testing.assert_allclose(ask_for(WORDS, encoder).vectors, expected, atol=1e-6)


def test_a_cache_that_cannot_be_written_is_no_obstacle(encoder, cache):
    cache.write_text("a file where the folder should be")
    assert ask_for(WORDS, encoder).words == WORDS


def test_words_are_stripped_and_those_that_come_twice_count_once(encoder):
    assert ask_for(["red", " red ", "blue", "red"], encoder).words == ("red", "blue")


@pytest.mark.parametrize(
    "word", ["{}", "{0}", "{word!r}", "}{", "100%", "%s", "a\nb", "\ud800", "<b>", "é 漢字 🦜", "a" * 5_000]
)
def test_words_of_any_letters_have_a_vector(encoder, word):
    found = ask_for(["red", word], encoder)
    assert found.words == ("red", word)
    assert np.isfinite(found.vectors).all()
    np.testing.assert_allclose(ask_for(["red", word], encoder).vectors, found.vectors, atol=1e-6)


def test_words_are_encoded_in_pieces_and_told_of(encoder):
    told = []
    words = [f"word {'x' * n}" for n in range(600)]
    found = ask_for(words, encoder, report=told.append)
    assert [(one.stage, one.done, one.total) for one in told] == [("words", n, 600) for n in (0, 256, 512)]
    last = encoded(words[-1:], lambda: encoder, pictures=True)
    np.testing.assert_allclose(found.vectors[[599]], last, atol=5e-4)


@pytest.mark.parametrize("vocabulary", [None, "general", "collection", ["a"], ("a", "b")])
def test_vocabularies_are_names_or_words(vocabulary):
    assert check_vocabulary(vocabulary) is None


@pytest.mark.parametrize(
    "vocabulary", ["", "nouns", [], ["a" * 5_000], [" "], [None], [b"a"], {"a"}, {"a": 1}, iter("ab"), 3, b"ab"]
)
def test_anything_else_is_refused(vocabulary):
    with pytest.raises(InvalidInput, match="vocabulary"):
        check_vocabulary(vocabulary)


# What a collection offers -----------------------------------------------------------------------------------------


@pytest.fixture
def offered(engine, toy):
    """Words for two clusters of items whose titles are given, ten items each."""

    def offer(first, second, vocabulary="collection"):
        engine.add(
            Item(f"{cluster} {n}", image=toy.png_of(kind, n), metadata={"title": title.format(n=n)})
            for cluster, (kind, title) in enumerate((("red disc", first), ("blue square", second)))
            for n in range(10)
        )
        with engine._store.reading() as view:
            chosen = Selection.of(engine._store, view)
            labels = np.array([int(id[0]) for id in chosen.ids()])
            words, allowed = choose_words(vocabulary, chosen, np.arange(20), labels, 2)
        return list(words), allowed

    return offer


def test_terms_may_name_only_the_cluster_whose_titles_have_them(offered):
    words, allowed = offered("kingfisher {n}", "teapot {n}")
    assert sorted(words) == ["kingfisher", "teapot"]
    bird, pot = words.index("kingfisher"), words.index("teapot")
    assert allowed.shape == (2, 2)
    assert allowed[:, [bird, pot]].tolist() == [[True, False], [False, True]]


@pytest.mark.parametrize("spellings", [("t-shirt", "tshirts", "t shirt"), ("sunglass", "sun-glass", "sunglass's")])
def test_spellings_of_one_word_are_one_word(offered, spellings):
    words, _ = offered(" | ".join(spellings), "teapot")
    assert len([word for word in words if word[:3] in ("t-s", "tsh", "t s", "sun")]) == 1


def test_a_term_that_the_general_list_has_is_there_once(offered):
    words, allowed = offered("teapots and tea-pot", "kingfisher", vocabulary=None)
    spelt = [word.replace("-", "").replace(" ", "").removesuffix("s") for word in words]
    assert spelt.count("teapot") == 1
    assert len(words) > 1_000
    assert allowed[:, words.index("teapot")].all()  # general words are judged by the model alone


def test_words_of_ones_own_are_taken_as_they_are(offered):
    assert offered("a", "b", vocabulary=["x", "y"]) == (["x", "y"], None)


def test_general_words_need_no_titles(offered):
    words, allowed = offered("1", "2", vocabulary="general")
    assert len(words) > 1_000
    assert allowed is None


def test_a_lexicon_of_nothing_is_empty():
    assert len(Lexicon((), np.zeros((0, 3), dtype=np.float32))) == 0
