"""Recommendations: what suits somebody, whatever is known of them, and why."""

import math
import shutil
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmsearch import Engine, Interaction, InvalidInput, Item, ItemNotFound, PictureError

EACH = 5
FORMS = ("texts", "pictures", "both", "mixed")


@pytest.fixture
def kinds(toy):
    """What hits show, in their order."""
    return lambda hits: [toy.kind_of(hit.item) for hit in hits]


def add_things(engine, toy, form="both", **options):
    """Five things of each kind, as texts, pictures, both, or some of each."""

    def thing(kind, n):
        has_picture = form in ("pictures", "both") or (form == "mixed" and n < 4)
        has_text = form in ("texts", "both") or (form == "mixed" and n in (0, 1, 4))
        colour, shape = kind.split()
        return Item(
            id=f"{kind} {n}",
            text=f"a {kind} with the number {n}" if has_text else None,
            image=toy.image_of(kind, n) if has_picture else None,
            metadata={"colour": colour, "shape": shape, "n": n, "tags": [colour, f"number {n}"]},
        )

    report = engine.add([thing(kind, n) for kind in toy.KINDS for n in range(EACH)])
    assert report.added == len(toy.KINDS) * EACH
    return engine


def people(toy, n=24, each=8):
    """People who like things of one colour, one after the other; the first shape of each is the most frequent."""
    told = []
    for person in range(n):
        colour = list(toy.COLOURS)[person % 4]
        for step in range(each):
            shape = toy.SHAPES[0 if step % 2 else (person + step) % 3]
            item = f"{colour} {shape} {(person * 7 + step) % EACH}"
            told.append(Interaction(f"person {person}", item, time=1e9 + 100.0 * step + person))
    return told


@pytest.fixture(scope="module")
def made(tmp_path_factory, toy):
    """Stores that are made once, for ``fresh`` to copy: one of each form, and a shop before and after it has learnt."""
    place = tmp_path_factory.mktemp("made")
    for form in FORMS:
        with Engine.open(place / form, toy.ToyEncoder()) as engine:
            add_things(engine, toy, form)
    for name in ("before", "after"):
        shutil.copytree(place / "both", place / name)
        with Engine.open(place / name, toy.ToyEncoder()) as engine:
            engine.add_interactions(people(toy))
            if name == "after":
                engine.fit_recommender()
    return place


@pytest.fixture
def fresh(made, tmp_path, open_engine):
    """Opens a copy of a store that is made already."""

    def open_copy(name):
        shutil.copytree(made / name, tmp_path / name)
        return open_engine(name)

    return open_copy


@pytest.fixture(params=FORMS)
def store(request, fresh):
    """Sixty things in each form that stores have."""
    return fresh(request.param)


@pytest.fixture
def things(fresh):
    return fresh("both")


@pytest.fixture
def shop(fresh):
    """Sixty things and 24 people, from whom nothing was learnt yet."""
    return fresh("before")


@pytest.fixture
def fitted(fresh):
    """The same after it has learnt."""
    return fresh("after")


@pytest.fixture(params=["before", "after"])
def either(request, fresh):
    """The shop before and after something was learnt."""
    return fresh(request.param)


# By content ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", [None, "mean", "nearest", "interests"])
def test_who_likes_red_discs_gets_red_discs(store, kinds, profile):
    hits = store.recommend(liked=["red disc 0", "red disc 1"], k=2, profile=profile)
    assert kinds(hits) == ["red disc"] * 2


@pytest.mark.parametrize("profile", [None, "mean", "nearest", "interests"])
def test_what_is_disliked_pushes_its_like_away(things, kinds, profile):
    liked = ["red disc 0", "red triangle 0"]
    without = kinds(things.recommend(liked=liked, k=55, profile=profile, fields={"picture": 1}))
    pushed = kinds(
        things.recommend(liked=liked, disliked=["red square 0", "blue square 0"], k=55, profile=profile,
                         fields={"picture": 1})
    )  # fmt: skip
    squares = [n for n, kind in enumerate(without) if kind.endswith("square")]
    assert sum(n for n, kind in enumerate(pushed) if kind.endswith("square")) > sum(squares)
    assert "square" not in " ".join(pushed[:6])


def test_dislikes_alone_leave_what_is_unlike_them(things, kinds):
    found = kinds(things.recommend(disliked=["red disc 0"], k=20, profile="mean"))
    assert not any("red" in kind or "disc" in kind for kind in found)


def test_two_interests_are_both_served(things, kinds):
    liked = ["red disc 0", "red disc 1", "red disc 2", "blue square 0", "blue square 1"]
    found = kinds(things.recommend(liked=liked, k=5, profile="interests"))
    assert set(found) == {"red disc", "blue square"}


def test_fields_say_what_counts(things, kinds):
    by_shape = things.recommend(liked=["red disc 0"], k=5, fields={"details": 1})
    assert all(reason.kind == "details" for hit in by_shape for reason in hit.reasons)
    assert {name for hit in things.recommend(liked=["red disc 0"], fields={"picture": 0.3, "text": 0.7})
            for name in (reason.kind for reason in hit.reasons)} == {"looks", "text"}  # fmt: skip
    assert kinds(things.recommend(liked=["red disc 0"], k=4, fields="text")) == ["red disc"] * 4


def test_fields_that_no_item_has_are_refused(fresh):
    texts = fresh("texts")
    with pytest.raises(InvalidInput, match=r"expected fields that items have \(text, details\), got 'picture'"):
        texts.recommend(liked=["red disc 0"], fields={"picture": 1})


def test_details_count_where_metadata_repeats(things):
    hits = things.recommend(liked=["red disc 0"], k=20, fields={"details": 1.0})
    assert all("red" in hit.item.id or "disc" in hit.item.id for hit in hits[:14])


# What may be liked ---------------------------------------------------------------------------------------------------


def test_pictures_and_texts_from_elsewhere_can_be_liked(things, toy, kinds, tmp_path):
    file = toy.draw(tmp_path / "elsewhere.png", "green triangle", 77)
    for like in (file, Item(path=file), Item(image=toy.image_of("green triangle", 78)), Item(text="a green triangle")):
        hits = things.recommend(liked=[like], k=5)
        assert kinds(hits) == ["green triangle"] * 5, like
    assert things.recommend(liked=[file], k=1)[0].reasons[0].because == (str(file),)


def test_a_picture_of_the_store_does_not_come_back(open_engine, toy, toy_folder):
    engine = open_engine()
    engine.add_folder(toy_folder)
    file = toy_folder / "red disc 0.png"
    hits = engine.recommend(liked=[file], k=60)
    assert len(hits) == 59
    assert "red disc 0.png" not in toy.ids(hits)
    copy = toy.write(toy_folder.parent / "copy.png", file.read_bytes())
    assert toy.ids(engine.recommend(liked=[copy], k=60)) == toy.ids(hits)
    assert "red disc 0.png" in toy.ids(engine.recommend(liked=[file], k=60, exclude_seen=False))


def test_a_picture_of_the_store_speaks_by_behaviour_too(fitted, toy, tmp_path):
    file = toy.draw(tmp_path / "copy.png", "red disc", 0)
    fitted.add([Item(id="its file", path=file)])
    fitted.add_interactions([Interaction("ann", "its file")])
    fitted.fit_recommender()
    assert toy.ids(fitted.recommend(liked=[file])) == toy.ids(fitted.recommend(liked=["its file"]))


def test_hits_and_items_of_the_store_stand_for_themselves(either, toy):
    (hit,) = either.search("a red disc", k=1)
    assert toy.ids(either.recommend(liked=[hit])) == toy.ids(either.recommend(liked=[hit.item.id]))
    assert toy.ids(either.recommend(liked=[hit.item])) == toy.ids(either.recommend(liked=[hit.item.id]))


def test_liked_can_be_any_iterable(things, toy):
    ids = ["red disc 0", "red disc 1"]
    expected = toy.ids(things.recommend(liked=ids))
    for liked in (tuple(ids), (id for id in ids), dict.fromkeys(ids, 1.0), np.array(ids)):
        assert toy.ids(things.recommend(liked=liked)) == expected


def test_weights_by_id_are_likes_and_dislikes(things, toy):
    weights = {"red disc 0": np.float32(2.0), "blue square 0": -2, "green disc 0": 0}
    hits = things.recommend(liked=weights, profile="mean", k=60)
    said = things.recommend(liked=["red disc 0"], disliked=["blue square 0"], profile="mean", k=60)
    assert [id for id in toy.ids(said) if id != "green disc 0"] == toy.ids(hits)


def test_what_is_both_liked_and_disliked_has_no_say(either, toy):
    both = either.recommend(liked=["red disc 0"], disliked=["red disc 0"], k=60)
    assert "red disc 0" not in toy.ids(both)
    assert "nothing is known of what they like" in both[0].notes[0]


def test_what_cannot_be_compared_is_not_passed_over_in_silence(fresh, toy):
    hits = fresh("texts").recommend(liked=[Item(image=toy.image_of("red disc"))], k=60)
    assert len(hits) == 60
    assert hits[0].notes == ("no item can be compared with what they like: the newest items",)


def test_what_is_not_in_the_store_leaves_behaviour_aside_with_a_note(fitted, toy, kinds):
    hits = fitted.recommend(user="person 0", liked=[Item(text="a yellow triangle")], k=30)
    assert hits[0].notes == ("what is not in the store speaks by its content alone, so behaviour was left aside",)
    assert {reason.kind for hit in hits for reason in hit.reasons} <= {"looks", "text", "details"}
    assert "yellow triangle" in kinds(hits)
    assert not {told.item for told in fitted.interactions("person 0")} & set(toy.ids(hits))
    for asked in ({"profile": "nearest"}, {"fields": "picture"}):  # which was asked for
        assert fitted.recommend(user="person 0", **asked)[0].notes == ()


def test_several_things_from_elsewhere_are_told_apart(things, toy):
    hits = things.recommend(liked=[Item(text="a red disc"), Item(text="a blue square")], k=10, profile="nearest")
    named = {id for hit in hits for reason in hit.reasons for id in reason.because}
    assert named == {"a red disc", "a blue square"}
    pictures = [Item(image=toy.image_of("red disc", n)) for n in (70, 71)]
    (hit,) = things.recommend(liked=pictures, k=1, profile="mean")
    assert hit.reasons[0].because == ("a picture",)


BAD_LIKES = [
    ("red disc 0", "put it in brackets"),
    (b"red disc 0", "put it in brackets"),
    (Path("x.png"), "put it in brackets"),
    (7, "put it in brackets"),
    (None, "put it in brackets"),
    (Item(id="red disc 0"), "put it in brackets"),
    ([7], "expected an id, a Path, an Item or a Hit, got int"),
    ([Image.new("RGB", (9, 9))], "a picture in memory is Item"),
    ([Item(text=" ")], "picture or a text"),
    ({"red disc 0": True}, "finite number"),
    ({"red disc 0": math.nan}, "finite number"),
    ({"red disc 0": math.inf}, "finite number"),
    ({"red disc 0": "1"}, "finite number"),
    ({"red disc 0": 1e300}, "finite"),
    ({"red disc 0": None}, "finite number"),
]


@pytest.mark.parametrize(("bad", "said"), BAD_LIKES, ids=[repr(bad)[:30] for bad, _ in BAD_LIKES])
def test_what_cannot_be_liked_is_refused(things, bad, said):
    for ask in (lambda: things.recommend(liked=bad), lambda: things.recommend(disliked=bad), lambda: things.next(bad)):
        with pytest.raises(InvalidInput, match=said):
            ask()


def test_unknown_ids_and_pictures_are_named(things, tmp_path):
    with pytest.raises(ItemNotFound, match="no such thing"):
        things.recommend(liked=["red disc 0", "no such thing"])
    with pytest.raises(ItemNotFound, match="no such thing"):
        things.recommend(disliked=[Item(id="no such thing")])
    with pytest.raises(ItemNotFound):
        things.recommend(liked=[""])
    with pytest.raises(PictureError, match=r"gone\.png"):
        things.recommend(liked=[tmp_path / "gone.png"])


# What people had -----------------------------------------------------------------------------------------------------


def test_what_a_person_had_is_not_shown(either, toy):
    either.add_interactions(
        [Interaction("ann", "red disc 0"), Interaction("ann", "red disc 1", weight=0.0),
         Interaction("ann", "blue disc 0", weight=-1.0)]
    )  # fmt: skip
    had = {"red disc 0", "red disc 1", "blue disc 0"}
    left = set(toy.ids(either.recommend(user="ann", k=100)))
    assert len(left) == 57
    assert not left & had
    assert set(toy.ids(either.recommend(user="ann", k=100, exclude_seen=False))) == left | had


def test_copies_of_what_a_person_had_are_not_shown(either, toy):
    either.add([Item(id="its copy", image=toy.image_of("red disc", 0), text="another text")])
    either.add_interactions([Interaction("ann", "red disc 0")])
    assert "its copy" not in toy.ids(either.recommend(user="ann", k=100))
    assert len(either.recommend(user="ann", k=100)) == 59
    (hit,) = [hit for hit in either.recommend(user="ann", k=100, exclude_seen=False) if "red disc 0" in
              [hit.item.id, *(copy.id for copy in hit.copies)]]  # fmt: skip
    assert {hit.item.id, *(copy.id for copy in hit.copies)} == {"red disc 0", "its copy"}


def test_interactions_count_at_once(either, kinds):
    assert set(kinds(either.recommend(user="new", k=10))) != {"yellow triangle"}
    either.add_interactions([Interaction("new", "yellow triangle 0"), Interaction("new", "yellow triangle 1")])
    found = kinds(either.recommend(user="new", k=5))
    assert all(kind.startswith("yellow") for kind in found)


def test_what_is_said_here_counts_beside_what_the_store_knows(either, kinds, toy):
    either.add_interactions([Interaction("ann", f"red disc {n}", time=5.0) for n in range(3)])
    hits = either.recommend(user="ann", liked=["blue square 0"], k=50, exclude_seen=True)
    assert not {"red disc 0", "red disc 1", "red disc 2", "blue square 0"} & set(toy.ids(hits))
    reasons = {id for hit in hits[:10] for reason in hit.reasons for id in reason.because}
    assert "blue square 0" in reasons
    assert reasons & {"red disc 0", "red disc 1", "red disc 2"}


def test_events_told_twice_change_nothing(things, toy):
    things.add_interactions([Interaction("ann", "red disc 0", time=1.0), Interaction("bob", "red disc 0", time=1.0)])
    things.add_interactions([Interaction("bob", "red disc 0", time=2.0), Interaction("bob", "red disc 0", "buy", 3.0)])
    once, often = (things.recommend(user=name, k=20) for name in ("ann", "bob"))
    assert toy.ids(once) == toy.ids(often)
    assert [hit.score for hit in once] == [hit.score for hit in often]


def test_an_unknown_user_gets_what_most_people_like(fitted, kinds):
    hits = fitted.recommend(user="who?", k=10)
    assert hits[0].notes == (
        "nothing is known of the user 'who?'",
        "nothing is known of what they like: what most people like",
    )
    assert Counter(kinds(hits)).keys() <= {f"{colour} disc" for colour in ("red", "green", "blue", "yellow")}
    assert [reason.kind for reason in hits[0].reasons] == ["popular"]
    assert hits[0].because() == "popular 1.0"


def test_before_anything_was_learnt_an_unknown_user_gets_the_newest_items(things, toy):
    things.add([Item(id="last", text="the last thing")])
    hits = things.recommend(k=2)
    assert toy.ids(hits)[0] == "last"
    assert hits[0].notes == ("nothing is known of what they like: the newest items",)
    assert hits[0].reasons == ()
    assert toy.ids(things.next([], k=2)) == toy.ids(hits)
    assert "nothing is known of the user 'who?'" in things.recommend(user="who?")[0].explain()


def test_who_has_only_seen_things_is_somebody_unknown_who_is_not_shown_them(fitted, toy):
    popular = toy.ids(fitted.recommend(k=60))
    fitted.add_interactions([Interaction("ann", popular[0], weight=0.0)])
    assert toy.ids(fitted.recommend(user="ann", k=60)) == popular[1:]


def test_who_has_had_everything_gets_nothing(either):
    either.add_interactions([Interaction("ann", item.id) for item in either.items()])
    assert either.recommend(user="ann") == []
    assert len(either.recommend(user="ann", exclude_seen=False, k=100)) == 60


def test_an_empty_store_has_nothing_to_recommend(engine):
    assert engine.recommend() == engine.next([]) == engine.recommend(user="ann") == []
    assert engine.recommend(diversity=1, popularity=1, novelty=1, most_per={"a": 1}) == []
    with pytest.raises(InvalidInput, match="expected interactions to learn from"):
        engine.fit_recommender()


def test_a_store_of_one_item_works(engine):
    engine.add([Item(id="one", text="a red disc")])
    engine.add_interactions([Interaction("ann", "one")])
    for fit in (lambda: None, engine.fit_recommender):
        fit()
        assert engine.recommend(user="ann") == []
        assert [hit.item.id for hit in engine.recommend(diversity=0.5)] == ["one"]
        assert [hit.item.id for hit in engine.recommend(user="ann", exclude_seen=False, novelty=1)] == ["one"]


# Options -------------------------------------------------------------------------------------------------------------


def test_there_are_as_many_as_there_are(either, toy):
    hits = either.recommend(liked=["red disc 0"], k=1_000)
    assert len(hits) == len(set(toy.ids(hits))) == 59
    assert [hit.rank for hit in hits] == list(range(1, 60))
    scores = [hit.score for hit in hits]
    assert scores == sorted(scores, reverse=True)
    assert np.isfinite(scores).all()


def test_longer_lists_go_on_where_shorter_ones_end(either, toy):
    whole = toy.ids(either.recommend(user="person 1", k=50))
    for k in (1, 7, 30):
        assert toy.ids(either.recommend(user="person 1", k=k)) == whole[:k]


def test_equal_items_are_in_the_order_of_their_ids(engine, toy):
    engine.add([Item(id=id, text="a red disc") for id in ("c", "a", "d", "b")] + [Item(id="x", text="a blue square")])
    assert toy.ids(engine.recommend(liked=["x"])) == ["a", "b", "c", "d"]
    assert toy.ids(engine.recommend(liked=["x"], k=2)) == ["a", "b"]
    assert toy.ids(engine.recommend(disliked=["d"], k=3, profile="mean")) == ["x", "a", "b"]


def test_a_filter_holds(either, toy):
    hits = either.recommend(liked=["red disc 0"], where={"colour": "blue"}, k=100)
    assert len(hits) == 15
    assert all(hit.item.metadata["colour"] == "blue" for hit in hits)
    assert either.recommend(liked=["red disc 0"], where="n > 100") == []
    assert len(either.recommend(liked=["red disc 0"], where={"colour": "red", "shape": "disc"}, k=100)) == 4
    with pytest.raises(InvalidInput):
        either.recommend(where="n >")


@pytest.mark.parametrize("method", ["mmr", "dpp"])
def test_diversity_brings_unlike_things(either, kinds, method):
    def alikeness(diversity):
        hits = either.recommend(liked=["red disc 0"], k=10, diversity=diversity, method=method)
        assert len(hits) == 10
        vectors = np.hstack([either.vectors([hit.item.id for hit in hits], field=f)[1] for f in ("picture", "text")])
        return (vectors @ vectors.T).mean()

    values = [alikeness(diversity) for diversity in (0.0, 0.5, 1.0)]
    assert values[0] > values[1] >= values[2] - 0.02
    assert values[0] > values[2]


def test_diversity_copes_with_items_that_have_nothing_to_compare(open_engine, toy):
    mixed = add_things(open_engine(spaces=["picture"]), toy, "mixed")
    for method in ("mmr", "dpp"):
        assert len(mixed.recommend(liked=["red disc 0"], k=59, diversity=0.7, method=method)) == 59


def test_the_popularity_knob_turns_towards_what_many_know(fitted, shop):
    had = Counter(told.item for told in shop.interactions())
    means = []
    for knob in (-1, -0.5, 0, 0.5, 1):
        hits = fitted.recommend(liked=["red triangle 0"], k=10, popularity=knob)
        means.append(np.mean([np.log1p(had[hit.item.id]) for hit in hits]))
    assert means == sorted(means)
    assert means[0] < means[-1]
    assert means[0] == pytest.approx(np.mean(sorted(np.log1p(had[item.id]) for item in shop.items())[:10]), abs=0.2)


def test_popularity_that_nobody_knows_of_is_left_aside_with_a_note(shop, toy):
    hits = shop.recommend(liked=["red disc 0"], popularity=1)
    assert toy.ids(hits) == toy.ids(shop.recommend(liked=["red disc 0"]))
    assert hits[0].notes == ("what many know is not known before fit_recommender: popularity was left aside",)


def test_the_novelty_knob_turns_towards_what_is_unlike(either, toy, tmp_path):
    def nearest(liked, novelty):
        hits = either.recommend(liked=liked, k=10, novelty=novelty)
        rows = either.vectors(toy.ids(hits), field="picture")[1]
        return (rows @ either.vectors(["red disc 0"], field="picture")[1].T).mean()

    elsewhere = toy.draw(tmp_path / "elsewhere.png", "red disc", 77)
    for liked in (["red disc 0"], [elsewhere]):
        values = [nearest(liked, novelty) for novelty in (0, 0.5, 1)]
        assert values[0] > values[2], liked
        assert values[0] >= values[1] - 0.02 >= values[2] - 0.04


def test_most_per_limits_each_value(either):
    hits = either.recommend(liked=["red disc 0"], k=12, most_per={"colour": 2})
    assert Counter(hit.item.metadata["colour"] for hit in hits) == dict.fromkeys(("red", "green", "blue", "yellow"), 2)
    hits = either.recommend(liked=["red disc 0"], k=20, most_per={"colour": 4, "shape": 3})
    assert max(Counter(hit.item.metadata["colour"] for hit in hits).values()) <= 4
    assert max(Counter(hit.item.metadata["shape"] for hit in hits).values()) == 3


def test_most_per_counts_each_member_of_a_list_and_passes_items_without_the_field(things):
    things.add([Item(id=f"plain {n}", text=f"a red disc, plain {n}") for n in range(4)])
    hits = things.recommend(liked=["red disc 0"], k=50, most_per={"tags": 1})
    tags = Counter(tag for hit in hits for tag in hit.item.metadata.get("tags", ()))
    assert max(tags.values()) == 1
    assert sum(hit.item.id.startswith("plain") for hit in hits) == 4
    assert len(things.recommend(liked=["red disc 0"], k=50, most_per={"no such field": 1})) == 50


def test_all_wishes_together_hold(either):
    hits = either.recommend(
        user="person 0", liked=["green disc 0"], k=6, where={"n": {"$lte": 2}}, diversity=0.5, method="dpp",
        popularity=0.5, novelty=0.5, most_per={"shape": 2},
    )  # fmt: skip
    assert len(hits) == 6
    assert all(hit.item.metadata["n"] <= 2 for hit in hits)
    assert Counter(hit.item.metadata["shape"] for hit in hits) == dict.fromkeys(("disc", "square", "triangle"), 2)
    assert not {told.item for told in either.interactions("person 0")} & {hit.item.id for hit in hits}


BAD_OPTIONS = [
    *({"k": bad} for bad in (0, -1, 1.5, True, None, "3", 1_000_001)),
    *({"diversity": bad} for bad in (-0.1, 1.1, math.nan, True, "1", None)),
    *({"popularity": bad} for bad in (-1.1, 1.1, math.nan, "much")),
    *({"novelty": bad} for bad in (-0.1, 1.1, math.nan, None)),
    *({"method": bad} for bad in ("best", None, ["mmr"])),
    *({"most_per": bad} for bad in (2, ["colour"], {"colour": 0}, {"colour": True}, {"colour": 1.5})),
    *({"profile": bad} for bad in ("average", 3, ["mean"])),
    *({"fields": bad} for bad in ("sound", {"picture": -1}, {"picture": 0}, {}, {"picture": math.nan})),
    *({"user": bad} for bad in ("", 7, b"ann")),
    {"where": "colour >"},
]


@pytest.mark.parametrize("bad", BAD_OPTIONS, ids=repr)
def test_a_bad_option_is_one_clear_error(things, bad):
    for liked in ([], ["red disc 0"]):  # whether or not it would have mattered
        with pytest.raises(InvalidInput) as told:
            things.recommend(**({"liked": liked} | bad))
        assert str(told.value).startswith("expected") or "where" in bad


# Reasons -------------------------------------------------------------------------------------------------------------


def test_reasons_add_up_and_rest_on_what_the_person_had(either):
    had = {told.item for told in either.interactions("person 0")}
    for hit in either.recommend(user="person 0", k=10):
        assert hit.reasons
        assert sum(reason.share for reason in hit.reasons) == pytest.approx(1, abs=0.06)
        shares = [reason.share for reason in hit.reasons]
        assert shares == sorted(shares, reverse=True)
        assert {id for reason in hit.reasons for id in reason.because} <= had
        assert hit.because().startswith("because of ")
        assert hit.because() in hit.explain()


def test_each_form_of_store_names_its_own_evidence(fresh):
    for form, kind in (("texts", "text"), ("pictures", "looks")):
        (hit,) = fresh(form).recommend(liked=["red disc 0"], k=1, profile="nearest", fields=form.removesuffix("s"))
        assert [(reason.kind, reason.share, reason.because) for reason in hit.reasons] == [(kind, 1.0, ("red disc 0",))]
        assert hit.because() == f"because of red disc 0: {kind} 1.0"


def test_behaviour_is_named_where_it_speaks(open_engine, encoder):
    # Nothing looks like anything here: texts of one word each.
    engine = open_engine("words")
    engine.add([Item(id=word, text=word) for word in ("bread", "butter", "nail", "hammer", "sun", "moon")])
    pairs = (("bread", "butter"), ("nail", "hammer"), ("sun", "moon"))
    engine.add_interactions([Interaction(f"{pair} {n}", word) for n in range(8) for pair in pairs for word in pair])
    engine.fit_recommender()
    (hit,) = engine.recommend(liked=["nail"], k=1)
    assert hit.item.id == "hammer"
    by_behaviour = [reason for reason in hit.reasons if reason.kind in ("had together", "had next", "taste")]
    assert by_behaviour
    assert all(reason.because == ("nail",) for reason in by_behaviour)


# What goes together --------------------------------------------------------------------------------------------------


@pytest.fixture
def hardware(things):
    """People who have red discs and blue squares together, though they look unlike."""
    told = []
    for n in range(20):
        told += [Interaction(f"a{n}", f"red disc {n % 5}"), Interaction(f"a{n}", f"blue square {n % 5}")]
        told += [Interaction(f"b{n}", f"green triangle {n % 5}"), Interaction(f"b{n}", f"yellow disc {n % 5}")]
    things.add_interactions(told)
    things.fit_recommender()
    return things


def test_what_people_had_together_goes_together_though_it_looks_unlike(hardware, toy):
    hits = hardware.similar("red disc 1", complementary=True)
    assert toy.ids(hits) == ["blue square 1"]
    assert hits[0].because() == "because of red disc 1: had together 1.0"
    assert hits[0].rank == 1
    assert hardware.similar("red square 0", complementary=True) == []
    assert hardware.similar("red disc 1", complementary=True, where={"colour": "green"}) == []


def test_diversity_does_not_bring_in_what_nobody_had_together(hardware, toy):
    hardware.add_interactions([Interaction("c", f"{kind} 0") for kind in toy.KINDS] * 2)
    hardware.fit_recommender()
    hits = hardware.similar("red disc 0", k=5, complementary=True, diversity=1.0)
    assert [hit.rank for hit in hits] == [1, 2, 3, 4, 5]
    assert {hit.item.id for hit in hits} <= {f"{kind} 0" for kind in toy.KINDS}


def test_an_item_that_came_after_the_fit_goes_with_nothing_yet(hardware):
    hardware.add([Item(id="later", text="a red disc")])
    assert hardware.similar("later", complementary=True) == []
    assert hardware.similar("red disc 1", complementary=True)[0].item.id == "blue square 1"


def test_what_goes_together_is_refused_where_it_cannot_be_known(hardware, tmp_path):
    with pytest.raises(ItemNotFound, match="no such"):
        hardware.similar("no such", complementary=True)
    with pytest.raises(InvalidInput, match="expected an item of the store"):
        hardware.similar(tmp_path / "a.png", complementary=True)
    for options in ({"field": "text"}, {"fields": "text"}, {"exact": True}, {"rerank": True}):
        with pytest.raises(InvalidInput, match="without field, fields, exact and rerank"):
            hardware.similar("red disc 0", complementary=True, **options)
    with pytest.raises(InvalidInput):
        hardware.similar("red disc 0", complementary=True, k=0)


def test_what_goes_together_has_to_be_learnt_first(shop):
    with pytest.raises(InvalidInput, match="call fit_recommender"):
        shop.similar("red disc 0", complementary=True)


# Sessions ------------------------------------------------------------------------------------------------------------


def test_the_last_items_of_a_session_say_most(store, kinds):
    red, blue = [f"red disc {n}" for n in range(3)], [f"blue square {n}" for n in range(3)]
    assert kinds(store.next([*blue[:1], *red], k=1)) == ["red disc"]
    assert kinds(store.next([*red, *blue], k=1)) == ["blue square"]
    assert kinds(store.next([*blue, *red], k=1)) == ["red disc"]


def test_the_order_of_a_session_matters(either, toy):
    forth = either.next(["red disc 0", "blue square 0"], k=20)
    back = either.next(["blue square 0", "red disc 0"], k=20)
    assert toy.ids(forth) != toy.ids(back)
    assert not {"red disc 0", "blue square 0"} & set(toy.ids(forth))


def test_what_followed_in_histories_comes_next(things, toy):
    circle = [f"{kind} 0" for kind in toy.KINDS[::5] + toy.KINDS[1::5] + toy.KINDS[2::5] + toy.KINDS[3::5]]
    things.add_interactions(
        [
            Interaction(f"p{n}", circle[(n + step) % len(circle)], time=100.0 * step)
            for n in range(60)
            for step in range(5)
        ]
    )
    things.fit_recommender()
    for start in range(len(circle) - 2):
        (hit,) = things.next(circle[start : start + 2], k=1)
        assert hit.item.id == circle[start + 2]
        assert "had next" in {reason.kind for reason in hit.reasons}


def test_a_session_comes_after_what_the_user_had(shop, toy, kinds):
    shop.add_interactions([Interaction("ann", f"blue square {n}", time=1e12 + n) for n in range(3)])
    hits = shop.next(["red triangle 0", "red triangle 1"], user="ann", k=57)
    assert kinds(hits)[0].startswith("red")
    assert not any(id in {"blue square 0", "blue square 1", "blue square 2"} for id in toy.ids(hits))


# Repeating -----------------------------------------------------------------------------------------------------------


def test_answers_are_the_same_again_and_in_threads(either):
    users = [f"person {n}" for n in range(8)]
    alone = [either.recommend(user=user, k=10, diversity=0.3) for user in users]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda user: either.recommend(user=user, k=10, diversity=0.3), users * 3))
    assert together == alone * 3


def test_recommendations_go_on_while_something_is_learnt(shop):
    stop, faults, answers = threading.Event(), [], []

    def ask():
        while not stop.is_set():
            try:
                answers.append(shop.recommend(user="person 0", k=5))
            except Exception as error:
                faults.append(error)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(3):
        shop.fit_recommender()
    stop.set()
    for thread in threads:
        thread.join()
    assert faults == []
    assert all(len(hits) == 5 for hits in answers)
    assert not any("nothing is used" in note for hits in answers for note in hits[0].notes)


def test_it_works_without_implicit(shop, monkeypatch, toy):
    monkeypatch.setitem(sys.modules, "implicit", None)
    shop.fit_recommender()
    hits = shop.recommend(user="person 0", k=10)
    assert len(hits) == 10
    assert "taste" not in {reason.kind for hit in hits for reason in hit.reasons}
    assert hits[0].notes == ()


def test_an_engine_from_elsewhere_recommends_the_same(fitted, encoder, toy):
    with Engine.open(fitted.path, encoder) as other:
        assert other.recommend(user="person 3", k=20) == fitted.recommend(user="person 3", k=20)


# Many items ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def as_of_many(monkeypatch):
    """Sixty items are treated as if they were too many to look at all of them."""
    monkeypatch.setattr("mmsearch.stock._SCANNED", 10)
    monkeypatch.setattr("mmsearch.recommend._SCORED", 10)
    monkeypatch.setattr("mmsearch.recommend._LEAST", 12)


QUESTIONS = {
    "user": {"user": "person 1"},
    "liked": {"liked": ["red disc 0"]},
    "elsewhere": {"liked": [Item(text="a red disc")]},
    "disliked": {"liked": ["red disc 0"], "disliked": ["blue disc 0"]},
    "nobody": {},
    "filter": {"user": "person 1", "where": {"shape": "disc"}},
    "limits": {"user": "person 1", "most_per": {"colour": 2, "shape": 3}},
}


@pytest.mark.parametrize("asked", QUESTIONS.values(), ids=QUESTIONS.keys())
def test_of_many_items_the_same_ones_are_found(either, as_of_many, monkeypatch, toy, asked):
    some = either.recommend(k=3, **asked)
    monkeypatch.undo()
    assert toy.ids(some) == toy.ids(either.recommend(k=3, **asked))


def test_of_many_items_all_are_found_if_need_be(either, as_of_many, toy):
    assert len(either.recommend(user="person 1", k=100)) == 60 - len(set(told_items(either, "person 1")))
    assert len(either.recommend(liked=["red disc 0"], k=100, most_per={"n": 12})) == 59
    assert len(either.recommend(k=1_000_000)) == 60


def told_items(engine, user):
    return [told.item for told in engine.interactions(user)]


def test_nothing_is_recommended_because_of_what_is_disliked(either):
    for options in ({"disliked": ["red disc 0"]}, {"liked": ["blue disc 0"], "disliked": ["red disc 0"]}):
        for profile in (None, "mean"):
            hits = either.recommend(**options, profile=profile)
            assert hits
            assert all("red disc 0" not in reason.because for hit in hits for reason in hit.reasons)


def test_a_picture_without_text_has_its_say_beside_an_item_with_one(things, toy, kinds, tmp_path):
    file = toy.draw(tmp_path / "outside.png", "blue square", 77)
    shown = Counter(kinds(things.recommend(liked=["red disc 0", file], k=8)))
    assert shown["blue square"] >= 2
    assert shown["red disc"] >= 2


def test_forgetting_everybody_forgets_what_was_learnt_of_them(fitted):
    assert any(hit.reasons[0].kind == "popular" for hit in fitted.recommend(user="nobody"))
    assert fitted.forget_interactions() > 0
    (note,) = {note for hit in fitted.recommend(liked=["red disc 0"], disliked=["red disc 0"]) for note in hit.notes}
    assert "the newest items" in note
    assert not list((fitted.path / "recommender").iterdir())
    with pytest.raises(InvalidInput, match="fit_recommender"):
        fitted.similar("red disc 0", complementary=True)


def test_what_is_said_now_replaces_what_a_person_thought_before(either):
    either.add_interactions([Interaction("zoe", "red disc 0", weight=5.0), Interaction("zoe", "blue disc 0", time=1.0)])
    hits = either.recommend(user="zoe", disliked=["red disc 0"])
    assert all("red disc 0" not in reason.because for hit in hits for reason in hit.reasons)
    torn = either.recommend(liked={"red disc 0": 5.0}, disliked=["red disc 0"])
    assert "nothing is known of what they like" in torn[0].notes[0]


def test_what_was_long_ago_counts_less_with_a_half_life(things, kinds):
    day = 86_400.0
    told = [Interaction("zoe", f"red disc {n}", time=1e9) for n in range(3)]
    things.add_interactions([*told, Interaction("zoe", "blue square 0", time=1e9 + 30 * day)])
    assert kinds(things.recommend(user="zoe", profile="mean", k=2)) == ["red disc"] * 2
    assert kinds(things.recommend(user="zoe", half_life=3.0, k=2)) == ["blue square"] * 2
    for bad in (0, -1.0, math.nan, math.inf):
        with pytest.raises(InvalidInput, match="half_life"):
            things.recommend(user="zoe", half_life=bad)


def test_the_popularity_knob_chooses_among_what_is_worth_showing(open_engine, toy):
    engine = open_engine("many")
    engine.add([Item(id=f"thing {n}", text=f"a {toy.KINDS[n % len(toy.KINDS)]} with number {n}") for n in range(1200)])
    engine.add_interactions([Interaction(f"p{n}", f"thing {n}") for n in range(0, 1200, 2)])
    engine.fit_recommender()
    usual = {hit.item.id for hit in engine.recommend(liked=["thing 0"], k=500)}
    for knob in (-1, 1):
        assert {hit.item.id for hit in engine.recommend(liked=["thing 0"], k=50, popularity=knob)} <= usual


def test_nothing_of_a_forgotten_person_is_left_after_the_next_fit(fitted):
    fitted.fit_recommender()
    assert len(list((fitted.path / "recommender").iterdir())) == 2  # somebody may still read the state before
    fitted.forget_interactions("person 0")
    fitted.fit_recommender()
    assert len(list((fitted.path / "recommender").iterdir())) == 1


def test_others_may_write_while_a_store_learns(fitted, toy):
    with Engine.open(fitted.path, toy.ToyEncoder()) as other:
        fitted.fit_recommender(progress=lambda now: now.done or other.add([Item(id="meanwhile", text="a red disc")]))
    assert fitted.get("meanwhile").text == "a red disc"
    assert fitted.recommend(liked=["red disc 0"], k=60)
