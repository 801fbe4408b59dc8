"""Full-text search: what is indexed, what a query means, and what the stage ``words`` adds to a search."""

import random
import sqlite3
from contextlib import closing

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmsearch import Engine, Item, Query
from mmsearch.cascade import Cascade, Step
from mmsearch.catalog import FILE
from mmsearch.catalog.words import MAX_WORDS, match_of
from mmsearch.errors import InvalidInput
from mmsearch.filters import parse
from mmsearch.ranking import N_NAMED
from mmsearch.rerank.words import WordMatch
from mmsearch.types import Hit

CODE = "QX-4711/b"
SURE = Step(WordMatch(), weight=2.0)
"""Weighs more than any cosine: who has the words best is first."""


def found(engine, text, n=10, where=None):
    """The ids that full-text search finds, after a look at whether index and items agree."""
    catalog = engine.ranker.collection._store.catalog
    with catalog.transaction() as db:
        db.execute("INSERT INTO words (words, rank) VALUES ('integrity-check', 1)")
    return [id for _, id in catalog.find_words(text, n, None if where is None else parse(where))]


def texts(toy, n_items, **more):
    """Texts of all kinds in turn, and ``more`` by id."""
    plain = [Item(id=f"{n:04}", text=f"{toy.KINDS[n % 12]} number {n}", metadata={"n": n}) for n in range(n_items)]
    return [*plain, *(Item(id=id, **its) for id, its in more.items())]


# What is indexed ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "metadata",
    [
        {"title": "wine glass"},
        {"name": "Wine-Glass"},
        {"brand": "WINE", "sku": "glass"},
        {"keywords": ["a wine", "glass", 7, None, ["no"], {"no": "no"}]},
        {"code": "wine_glass"},
    ],
    ids=str,
)
def test_titles_are_indexed(engine, metadata):
    engine.add([Item(id="a", text="of another thing", metadata=metadata), Item(id="b", text="wine")])
    assert found(engine, "wine glass")[0] == "a"
    assert found(engine, "glass") == ["a"]


@pytest.mark.parametrize(
    "metadata",
    [{"other": "glass"}, {"title": {"en": "glass"}}, {"title": None}, {"title": True}, {"Title": "glass"}, {}],
    ids=str,
)
def test_other_metadata_is_not(engine, metadata):
    engine.add([Item(id="a", text="of another thing", metadata=metadata)])
    assert found(engine, "glass true en") == []


def test_numbers_are_codes_too(engine):
    engine.add([Item(id="a", text="one", metadata={"sku": 4711}), Item(id="b", text="two", metadata={"code": [1, 2]})])
    assert (found(engine, "4711"), found(engine, "2")) == (["a"], ["b"])


def test_odd_metadata_can_be_indexed(engine):
    odd = ["nul\0here", "half \ud800 a pair", "\U0001f600", "'; DROP TABLE items; --", '"', "", "long " * 50_000]
    engine.add(Item(id=f"{n}", text=f"text {n}", metadata={"title": title}) for n, title in enumerate(odd))
    deep = "end"
    for _ in range(300):
        deep = [deep]
    engine.add([Item(id="deep", text="deep", metadata={"title": deep})])
    assert found(engine, "pair") == ["1"]
    assert found(engine, "deep end") == ["deep"]
    assert len(engine) == len(odd) + 1


def test_a_title_weighs_more_than_a_text(engine):
    engine.add(
        [
            Item(id="a", text="one glass of three", metadata={"title": "one two three four"}),
            Item(id="b", text="one two three four", metadata={"title": "one glass of three"}),
        ]
    )
    assert found(engine, "glass") == ["b", "a"]


def test_equal_items_are_settled_by_id(engine):
    names = [f"item {n:02}" for n in range(40)]
    engine.add(Item(id=name, text="a red disc") for name in random.Random(0).sample(names, 40))
    assert found(engine, "red", n=15) == names[:15]


def test_items_without_words_have_no_entry(engine, toy):
    engine.add([Item(id="a", image=toy.png_of("red disc")), Item(id="b", image=toy.png_of("red disc", 1), text="b")])
    with closing(sqlite3.connect(engine.path / FILE)) as db:
        assert db.execute("SELECT count(*) FROM words_docsize").fetchone() == (1,)


def test_the_index_follows_the_items(engine):
    engine.add([Item(id="a", text="one", metadata={"sku": CODE}), Item(id="b", text=f"two {CODE}")])
    assert sorted(found(engine, CODE)) == ["a", "b"]
    engine.add([Item(id="a", text="one", metadata={"sku": "other"})])
    assert (found(engine, CODE), found(engine, "other")) == (["b"], ["a"])
    engine.remove(["b"])
    assert (found(engine, CODE), found(engine, "two")) == ([], [])
    engine.add([Item(id="b", text="three")])
    assert (found(engine, CODE), found(engine, "two"), found(engine, "three")) == ([], [], ["b"])


def test_the_index_follows_files_that_are_renamed_changed_and_removed(engine, toy, folder):
    toy.draw(folder / "lisbon.png", "red disc")
    toy.draw(folder / "porto.png", "blue disc")
    engine.add_folder(folder)
    assert found(engine, "lisbon") == ["lisbon.png"]
    (folder / "lisbon.png").rename(folder / "faro.png")
    toy.draw(folder / "porto.png", "green disc")
    engine.sync()
    assert (len(found(engine, "faro")), found(engine, "lisbon"), len(found(engine, "porto"))) == (1, [], 1)
    (folder / "porto.png").unlink()
    engine.sync()
    assert found(engine, "porto") == []


def test_any_history_leaves_index_and_items_in_step(engine):
    chance = random.Random(7)
    words = [f"word{n}" for n in range(12)]
    held = {}
    for _ in range(60):
        id = f"item {chance.randrange(8)}"
        if id in held and chance.random() < 0.4:
            engine.remove([id])
            del held[id]
        else:
            text, title = (" ".join(chance.choices(words, k=3)) for _ in range(2))
            titled = chance.random() < 0.5
            engine.add([Item(id=id, text=text, metadata={"title": title} if titled else {})])
            held[id] = {*text.split(), *(title.split() if titled else ())}
    for word in words:
        assert sorted(found(engine, word)) == sorted(id for id, its in held.items() if word in its)


def test_what_is_rolled_back_leaves_no_words(engine):
    engine.add([Item(id="a", text="glass")])
    catalog = engine.ranker.collection._store.catalog

    def fail():
        with catalog.transaction():
            catalog.delete(catalog.keys(["a"]))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert found(engine, "glass") == ["a"]


# Older stores -------------------------------------------------------------------------------------------------------


def make_old(store):
    """Turn a store back to version 1, before there was a full-text index."""
    with closing(sqlite3.connect(store / FILE)) as db:
        db.executescript(
            "DROP TRIGGER events_gone; DROP TABLE events; DROP TABLE users;"
            "DROP TABLE words; DROP VIEW worded; ALTER TABLE items DROP COLUMN titles; PRAGMA user_version = 1"
        )


def test_an_older_store_is_migrated_with_all_its_items(engine, encoder, toy):
    engine.add(texts(toy, 40, coded={"text": "a thing", "metadata": {"sku": CODE}}))
    engine.add([Item(id="no words", image=toy.png_of("red disc"))])
    before = {text: found(engine, text) for text in ("red", CODE, "number 17", "thing disc")}
    engine.close()
    make_old(engine.path)
    for _ in range(2):
        with Engine.open(engine.path, encoder) as again:
            assert {text: found(again, text) for text in before} == before
            assert len(again) == 42
    with Engine.open(engine.path, encoder) as again:
        again.add([Item(id="coded", text="a thing", metadata={"sku": "changed"})])
        again.remove(["0005"])
        assert (found(again, CODE), found(again, "changed"), found(again, "number 5")[:1]) == ([], ["coded"], ["0000"])


def test_a_migration_that_is_cut_short_is_made_again(engine, encoder, monkeypatch):
    engine.add([Item(id="a", text="glass")])
    engine.close()
    make_old(engine.path)
    from mmsearch.catalog import schema

    whole = schema.MIGRATIONS
    with monkeypatch.context() as patch:
        patch.setattr(schema, "MIGRATIONS", (whole[0], (*whole[1], "SELECT cut_short()")))
        with pytest.raises(Exception, match="cut_short"):
            Engine.open(engine.path, encoder)
    with Engine.open(engine.path, encoder) as again:
        assert found(again, "glass") == ["a"]


# What a query means -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("the red disc", '"red" OR "disc"'),
        ("The", '"The"'),
        ("to be or not", '"be" OR "not"'),
        ("x", '"x"'),
        ("x 7", '"7"'),
        ("猫 x", '"猫"'),
        ("AB-1234", '"AB-1234"'),
        ('say "AB-1234", NEAR(a b) title:x*', '"say" OR "AB-1234" OR "NEAR" OR "title:x"'),
        ("Red red RED", '"Red"'),
        ("-- .. 😀 '' \" \0", ""),
        ("red,green", '"red" OR "green"'),
        ("a\0b\ud800glass", '"glass"'),
    ],
    ids=ascii,
)
def test_a_text_becomes_quoted_words(text, expected):
    assert match_of(text) == expected


def test_long_texts_are_cut():
    assert len(match_of(" ".join(f"word{n}" for n in range(100))).split(" OR ")) == MAX_WORDS
    assert len(match_of("a" * 100_000)) < 3_000


@pytest.mark.parametrize(
    ("stored", "asked"),
    [
        ("AB-1234", "ab 1234"),
        ("AB-1234", "ab-1234"),
        ("ab_1234", "AB/1234"),
        ("Café", "cafe"),
        ("cafe\u0301s", "Cafés"),
        ("CAFÉ", "cafe\u0301"),
        ("हिन्दी", "हिन्दी"),
        ("don't", "don\u2019t"),
        ("\u0439", "\u0438\u0306"),
        ("Straße 5", "straße"),
    ],
)
def test_words_are_found_whatever_their_case_accents_and_signs(engine, stored, asked):
    engine.add([Item(id="a", text=f"this is {stored}, see"), Item(id="b", text="nothing of that kind")])
    assert found(engine, asked) == ["a"]


def test_a_code_is_a_phrase(engine):
    engine.add([Item(id=id, text=text) for id, text in {"a": "1234 ab", "b": "ab 12345", "c": "x ab 1234 y"}.items()])
    assert found(engine, "AB-1234") == ["c"]


def test_a_filter_holds_for_words(engine, toy):
    engine.add(texts(toy, 120))
    assert found(engine, "red disc", 3, "n > 60 and n < 80") == ["0072", "0061", "0062"]
    assert found(engine, "red", where={"id": {"$in": ["0000", "0003", "nobody"]}}) == ["0000"]


@pytest.fixture(scope="module")
def sealed(toy, tmp_path_factory):
    """Items whose words nobody types."""
    with Engine.open(tmp_path_factory.mktemp("sealed") / "store", toy.ToyEncoder()) as engine:
        engine.add(Item(id=f"{n}", text=f"zqxj{n}zqxj") for n in range(30))
        yield engine


HOSTILE = st.one_of(
    st.text(max_size=200),
    st.lists(
        st.sampled_from(
            [
                '"',
                "'",
                "*",
                "(",
                ")",
                "NEAR(",
                "AND",
                "OR",
                "NOT",
                ":",
                "^",
                "+",
                "-",
                "{a b}:",
                "\0",
                "\ud800",
                "a",
                "ж",
            ]
        )
    ).map(" ".join),
    st.text(alphabet="\"'-*^:().\0\ud83d😀 a7", max_size=60),
    st.characters().map(lambda char: char * 3_000),
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=HOSTILE)
def test_no_text_is_too_odd_to_look_up(sealed, text):
    assert sealed.ranker.collection._store.catalog.find_words(text, 10) == []


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=HOSTILE)
def test_where_no_words_are_found_the_order_of_the_vectors_stands(sealed, text):
    try:
        plain = sealed.search(text, k=20, rerank=False)
    except InvalidInput:
        return
    worded = sealed.search(text, k=20, rerank=[WordMatch()])
    assert [(hit.item.id, hit.score) for hit in worded] == [(hit.item.id, hit.score) for hit in plain]
    assert {hit.notes for hit in worded} == {("words: no hit has any word of the query in its titles or text",)}


def test_endless_and_empty_texts_find_nothing(sealed):
    catalog = sealed.ranker.collection._store.catalog
    for text in ("", "a" * 100_000, "-" * 100_000, "a-" * 50_000, "a b " * 50_000, "😀" * 1_000):
        assert catalog.find_words(text, 10) == []


# The stage ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def far(engine, toy):
    """600 texts near to a query for a code in another thing, and two far from it that have the code."""
    more = {
        "titled": {"text": "yellow square", "metadata": {"title": f"Glass {CODE}", "n": 9_000}},
        "worded": {"text": f"blue triangle {CODE} and some other words", "metadata": {"n": 9_001}},
    }
    engine.add(texts(toy, 600, **more))
    return engine


def test_vectors_alone_do_not_find_a_code(far, toy):
    hits = far.search(f"red disc {CODE}", k=602, rerank=False)
    assert not {"titled", "worded"} & {*toy.ids(hits[:300])}


def test_a_code_is_found_first_wherever_the_vectors_rank_it(far, toy):
    text = f"red disc {CODE}"
    true = {hit.item.id: hit.score for hit in far.search(text, k=602, rerank=False)}
    for k in (1, 2, 10, 300):
        hits = far.search(CODE, k=k, rerank=[SURE])
        assert toy.ids(hits[:2]) == ["titled", "worded"][:k]
        assert far.search(text, k=k, rerank=[Step(WordMatch(), 20.0)])[0].item.id == "titled"
    (hit,) = far.search(text, k=1, rerank=[Step(WordMatch(), 20.0)])
    assert hit.scores == {"vectors": true["titled"], "words": 1.0}
    assert hit.score == pytest.approx(true["titled"] + 20.0, abs=1e-4)


class Witness:
    """A stage that sees what the stages before it have left, and changes nothing."""

    name = "witness"
    n = 10_000

    def rerank(self, query, hits):
        self.hits = hits
        return hits


def test_added_candidates_have_their_true_scores_and_places(far, toy):
    text, witness = f"red disc {CODE}", Witness()
    plain = far.search(text, k=602, rerank=False)
    far.search(text, k=20, rerank=[Step(witness), Step(WordMatch(), 0.0)], n_candidates=20)
    seen = {hit.item.id for hit in witness.hits}
    assert toy.ids(witness.hits)[:20] == toy.ids(plain)[:20]
    assert {"titled", "worded"} < seen
    assert [(hit.item.id, hit.score) for hit in witness.hits] == [
        (hit.item.id, hit.score) for hit in plain if hit.item.id in seen
    ]  # fmt: skip


def test_retrieval_adds_named_items_in_the_order_of_their_scores(far, toy):
    text = f"red disc {CODE}"
    plain = far.search(text, k=602, rerank=False)
    retriever, catalog = far.ranker.retriever, far.ranker.collection._store.catalog
    (hits,) = retriever.search_many([text], 5, also=[catalog.keys(["worded", "0001", "titled", toy.ids(plain)[0]])])
    assert [(hit.item.id, hit.score) for hit in hits] == [
        (hit.item.id, hit.score)
        for n, hit in enumerate(plain)
        if n < 5 or hit.item.id in ("worded", "0001", "titled")
    ]  # fmt: skip
    assert [hit.rank for hit in hits] == list(range(1, len(hits) + 1))
    assert retriever.search_many([text, "blue"], 5, also=[[], []]) == retriever.search_many([text, "blue"], 5)
    assert retriever.search_many([text], 5, also=[[999_999]]) == retriever.search_many([text], 5)


def test_values_are_reciprocal_ranks(engine):
    engine.add([Item(id=id, text=text) for id, text in {"a": "glass " * 3, "b": "glass and wood", "c": "wood"}.items()])
    values = {hit.item.id: hit.scores["words"] for hit in engine.search("glass", rerank=[WordMatch()])}
    assert values == {"a": 1.0, "b": pytest.approx(61 / 62, abs=1e-5), "c": 0.0}


def test_where_and_exclude_hold_for_added_candidates(far, toy):
    def ids(**options):
        return toy.ids(far.search(CODE, k=602, rerank=[SURE], n_candidates=5, **options))

    assert ids()[:2] == ["titled", "worded"]
    assert ids(where="n > 9000")[0] == "worded"
    assert not {"titled", "worded"} & {*ids(where="n < 9000")}
    (hits,) = far.search_many([CODE], 10, rerank=[SURE], where={"title": {"$exists": True}})
    assert toy.ids(hits) == ["titled"]
    (hits,) = far.ranker.search_many([CODE], 10, rerank=[SURE], exclude=["titled"])
    assert (hits[0].item.id, "titled" in toy.ids(hits)) == ("worded", False)


def test_a_filter_leaves_its_own_best_match_first(engine):
    """Ranks are among the hits: the best match in a small shop gains as much as the best of all."""
    engine.add(Item(id=f"{n:03}", text="glass " * (1 + (n < 250)), metadata={"shop": n // 290}) for n in range(300))
    engine.add([Item(id="best", text="glass glass glass", metadata={"shop": 1})])
    (hit,) = engine.search("glass", k=1, rerank=[SURE], where="shop = 1")
    assert (hit.item.id, hit.scores["words"]) == ("best", 1.0)


def test_so_many_are_added_and_no_more(engine, toy):
    engine.add(Item(id=f"{n}", image=toy.png_of("red disc", n)) for n in range(20))
    coded = {"metadata": {"sku": CODE}}
    engine.add(Item(id=f"code {n}", image=toy.png_of("yellow square", n), **coded) for n in range(80))
    witness = Witness()
    hits = engine.search(f"red disc {CODE}", k=7, n_candidates=10, rerank=[SURE, witness])
    assert (len(hits), len(witness.hits)) == (7, 10 + N_NAMED)
    assert all("words" in hit.scores for hit in witness.hits)


def test_copies_stay_one_hit_and_have_the_words_of_all(engine, toy):
    engine.add(Item(id=f"{n}", image=toy.png_of("red disc", n)) for n in range(10))
    same = toy.png_of("yellow square")
    engine.add([Item(id="x", image=same), Item(id="y", image=same, metadata={"sku": CODE}), Item(id="z", image=same)])
    for field in (None, "picture"):
        hits = engine.search(CODE, k=5, rerank=[SURE], n_candidates=5, field=field)
        assert hits[0].scores["words"] == 1.0
        assert sorted([hits[0].item.id, *(copy.id for copy in hits[0].copies)]) == ["x", "y", "z"]
        assert len({hit.item.id for hit in hits}) == len(hits)


def test_both_fields_are_searched_and_their_scores_compared(engine, toy):
    engine.add(Item(id=f"p{n}", image=toy.png_of(toy.KINDS[n % 12], n)) for n in range(60))
    engine.add(texts(toy, 60, coded={"image": toy.png_of("blue square", 99), "metadata": {"code": CODE}}))
    text = f"red disc {CODE}"
    true = {hit.item.id: hit.score for hit in engine.search(text, k=121, rerank=False)}
    hits = engine.search(text, k=10, n_candidates=10, rerank=[Step(WordMatch(), 50.0)])
    assert hits[0].item.id == "coded"
    assert all(hit.scores["vectors"] == true[hit.item.id] for hit in hits)
    assert "coded" not in toy.ids(engine.search(text, k=10, rerank=[Step(WordMatch(), 50.0)], field="text"))


def test_pictures_without_words_are_left_as_they_are(engine, toy):
    engine.add(Item(id=f"{n}", image=toy.png_of(toy.KINDS[n % 12], n)) for n in range(60))
    plain = engine.search("red disc", k=60, rerank=False)
    for cascade in (Cascade([WordMatch()], quiet=True), Cascade([WordMatch()])):
        worded = engine.search("red disc", k=60, rerank=cascade)
        assert [(hit.item.id, hit.score) for hit in worded] == [(hit.item.id, hit.score) for hit in plain]
        assert all("words" not in hit.scores and len(hit.notes) == (not cascade.quiet) for hit in worded)


def test_queries_that_are_not_one_text_are_passed_over(far, toy):
    for query in (Query(id="titled"), Query(text="glass") + Query(id="worded"), toy.image_of("red disc")):
        plain = far.search(query, k=10, rerank=False)
        worded = far.search(query, k=10, rerank=[WordMatch()])
        assert toy.ids(worded) == toy.ids(plain)
        assert all("only queries that are one text" in hit.notes[0] for hit in worded)


def test_a_batch_answers_like_single_queries(far, toy):
    queries = [CODE, "red disc", Query(id="0001"), f"red disc {CODE}", "the"]
    together = far.search_many(queries, 10, rerank=[SURE])
    assert together == [far.search(query, 10, rerank=[SURE]) for query in queries]


def test_a_stage_that_could_not_be_prepared_is_still_left_out(far):
    class Unready(WordMatch):
        name = "unready"
        n = 10_000

        def prepare(self, collection):
            raise ValueError("no")

    hits = far.search(CODE, rerank=[Unready(), WordMatch()])
    assert all("could not be prepared" in hit.notes[0] and "words" in hit.scores for hit in hits)


def test_the_stage_alone_says_that_it_was_not_prepared():
    hits = [Hit(Item("a", text="glass"), 0.9, 1)]
    (hit,) = WordMatch().rerank(Query(text="glass"), hits)
    assert (hit.score, hit.notes) == (0.9, ("words: not prepared for a collection",))


def test_words_are_off_by_default(far):
    assert "words" not in far.ranker.cascade(True).names
    assert all("words" not in hit.scores for hit in far.search(CODE))
