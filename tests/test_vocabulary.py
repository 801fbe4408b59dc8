"""Names for what pictures show: the list that comes along, and the terms of a collection."""

import csv
import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmsearch.errors import InvalidInput
from mmsearch.vocabulary import collection_terms, general_nouns

SYNONYMS = Path(__file__).parents[1] / "benchmarks" / "fashion_synonyms.tsv"


def test_the_general_vocabulary_has_some_thousand_names_each_once():
    nouns = general_nouns()
    assert 2000 <= len(nouns) <= 3000
    assert [noun for noun, count in Counter(nouns).items() if count > 1] == []


def test_every_name_is_lower_case_and_short():
    assert [noun for noun in general_nouns() if not re.fullmatch(r"[a-z0-9'-]+( [a-z0-9'-]+){0,2}", noun)] == []


@pytest.mark.parametrize(
    "names",
    [
        ("dog", "sparrow", "shark", "butterfly", "snake"),
        ("oak", "tulip", "apple", "carrot", "pizza", "coffee"),
        ("t-shirt", "kurta", "sari", "dupatta", "sandal", "handbag", "earring", "perfume"),
        ("chair", "frying pan", "hammer", "laptop", "smartphone", "stapler"),
        ("teddy bear", "tennis racket", "guitar", "bus", "sailing boat", "helicopter"),
        ("windmill", "castle", "traffic light", "mountain", "waterfall", "rainbow", "galaxy"),
        ("nurse", "hand", "syringe", "microscope", "arrow", "check mark", "bar chart"),
        ("portrait", "clip art", "receipt", "wedding", "kitchen", "classroom"),
    ],
)
def test_the_general_vocabulary_covers_what_people_photograph_and_draw(names):
    assert set(names) - set(general_nouns()) == set()


def test_the_vocabulary_is_read_once():
    assert general_nouns() is general_nouns()


def test_terms_are_words_and_phrases_by_the_number_of_items_that_have_them():
    texts = [["Red wine glass"], ["wine glass, wine glass"], ["white wine", "glass"]]
    assert collection_terms(texts) == [("glass", 3), ("wine", 3), ("wine glass", 2)]


def test_a_phrase_does_not_reach_over_signs_stop_words_numbers_or_texts():
    items = [["tower, clock"], ["tower of clock"], ["tower 12 clock"], ["tower", "clock"], ["tower (clock)"]]
    assert collection_terms(items) == [("clock", 5), ("tower", 5)]


def test_a_word_said_twice_is_no_phrase():
    assert collection_terms([["bye bye"], ["Bye BYE"]]) == [("bye", 2)]


def test_numbers_single_letters_and_file_endings_name_nothing():
    assert collection_terms([["IMG_0012.jpg a 3 b 3d 2024"]] * 2) == [("3d", 2)]


def test_letters_of_any_script_make_words():
    terms = dict(collection_terms([["Ψάρι हिन्दी किताब Äpfel 猫"], ["ψάρι हिन्दी किताब a\u0308pfel 猫"]]))
    assert {"ψάρι", "हिन्दी", "किताब", "हिन्दी किताब", "äpfel", "猫"} <= set(terms)
    assert set(terms.values()) == {2}


def test_hyphens_and_apostrophes_stay_inside_and_a_possessive_goes():
    found = collection_terms([["men's t-shirt -"], ["Men\u2019s T-Shirt"]])
    assert found == [("men", 2), ("men t-shirt", 2), ("t-shirt", 2)]


def test_underscores_part_words_as_spaces_do():
    assert collection_terms([["polar_bear"], ["polar bear"]]) == [("bear", 2), ("polar", 2), ("polar bear", 2)]


def test_what_most_of_many_items_share_names_nothing():
    items = [["product", "shoe" if n < 10 else "bag"] for n in range(20)]
    assert collection_terms(items) == [("bag", 10), ("shoe", 10)]
    assert ("product", 8) in collection_terms(items[:8])


def test_least_and_most_cut_the_list_and_ties_go_by_the_alphabet():
    items = [["pear"], ["pear", "fig"], ["fig", "pear"], ["apple"], ["apple"]]
    assert collection_terms(items, least=3) == [("pear", 3)]
    assert collection_terms(items, most=2) == [("pear", 3), ("apple", 2)]
    assert collection_terms([["pear"]], least=1) == [("pear", 1)]


def test_nothing_gives_nothing():
    assert collection_terms([]) == []
    assert collection_terms([[], [""], ["!? 12"]]) == []


@given(st.lists(st.lists(st.text(max_size=20), max_size=3), max_size=12))
def test_any_text_gives_terms_in_order_and_the_order_of_items_does_not_matter(items):
    found = collection_terms(items, least=1)
    assert found == collection_terms(reversed(items), least=1)
    assert found == sorted(found, key=lambda pair: (-pair[1], pair[0]))
    assert all(1 <= count <= len(items) and term.strip() for term, count in found)


@pytest.mark.parametrize(("items", "says"), [(["red shoe"], "single text 'red shoe'"), ([[1]], "got int")])
def test_texts_that_are_not_sequences_of_strings_are_refused(items, says):
    with pytest.raises(InvalidInput, match=says):
        collection_terms(items)


@pytest.mark.parametrize("wrong", [{"most": 0}, {"least": 0}, {"least": 1.5}])
def test_counts_that_make_no_sense_are_refused(wrong):
    with pytest.raises(InvalidInput, match="whole number"):
        collection_terms([["a"]], **wrong)


def test_the_accepted_names_of_fashion_types_are_each_said_once_for_a_type():
    with SYNONYMS.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file, delimiter="\t"))
    names = {kind: accepted.split(",") for kind, accepted in rows}
    assert len(names) == len(rows) >= 70
    assert [kind for kind, accepted in names.items() if len(set(accepted)) < len(accepted) or "" in accepted] == []
    assert {"clothing", "accessory", "apparel", "product"}.isdisjoint(name for its in names.values() for name in its)
