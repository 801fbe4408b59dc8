"""Scores of texts and of pictures on one scale, so that neither swamps the other."""

import numpy as np
import pytest

from mmsearch import Item, Query
from mmsearch.calibration import Scale, fit_scale
from mmsearch.vectors import as_unit_vectors


@pytest.fixture
def mixed(engine, folder, toy):
    """Thirty texts and thirty pictures of red discs, and five of each other kind."""
    toy.draw_all(folder, ["red disc"], 30)
    toy.draw_all(folder, [kind for kind in toy.KINDS if kind != "red disc"], 5)
    engine.add_folder(folder)
    engine.add(
        Item(id=f"text: {kind} {n}", text=f"a {kind}, number {n}")
        for kind in toy.KINDS
        for n in range(30 if kind == "red disc" else 5)
    )
    return engine


def test_plain_cosines_would_let_texts_swamp_pictures(mixed):
    texts = mixed.search("a red disc", k=10, field="text")
    pictures = mixed.search("a red disc", k=10, field="picture")
    assert texts[-1].score > pictures[0].score + 0.3


def test_texts_and_pictures_both_reach_the_top(mixed, toy):
    hits = mixed.search("a red disc", k=20)
    fields = [hit.field for hit in hits]
    assert min(fields.count("text"), fields.count("picture")) >= 4
    assert all("red disc" in hit.item.id for hit in hits)


def test_everything_that_fits_comes_before_everything_that_does_not(mixed):
    hits = mixed.search("a red disc", k=60)
    assert all("red disc" in hit.item.id for hit in hits)
    assert sorted(hit.field for hit in hits) == ["picture"] * 30 + ["text"] * 30


def test_a_picture_finds_texts_as_a_text_finds_pictures(mixed, folder, toy):
    hits = mixed.search(folder / "red disc 0.png", k=60)
    assert all("red disc" in hit.item.id for hit in hits)
    assert {hit.field for hit in hits[:20]} == {"picture", "text"}
    by_text = mixed.search(Query(id="text: red disc 0"), k=60)
    assert all("red disc" in hit.item.id for hit in by_text)
    assert {hit.field for hit in by_text[:20]} == {"picture", "text"}


def test_similar_items_come_from_both_fields(mixed):
    for id in ("red disc 0.png", "text: red disc 0"):
        hits = mixed.similar(id, k=59)
        assert all("red disc" in hit.item.id for hit in hits)
        assert id not in {hit.item.id for hit in hits}


def test_calibration_keeps_the_order_within_a_field(mixed, toy):
    together = mixed.search("a red disc", k=200)
    for field in ("picture", "text"):
        alone = mixed.search("a red disc", k=200, field=field)
        kept = [hit for hit in together if hit.field == field]
        scores = {hit.item.id: hit.score for hit in alone}
        ordered = [scores[hit.item.id] for hit in kept]
        np.testing.assert_allclose(ordered, sorted(ordered, reverse=True), atol=2e-5)
        assert len(kept) == len(alone)


def test_zero_is_a_random_item_and_one_a_typical_best_match(engine, folder, toy):
    kinds = ["red disc", "blue square", "green triangle", "yellow disc"]
    engine.add_folder(toy.draw_all(folder, kinds, 10))
    engine.add(Item(id=f"{kind} {n}", text=f"a {kind}, number {n}") for kind in kinds for n in range(10))
    hits = engine.search("a red disc", k=80)
    for field in ("picture", "text"):
        scores = [(toy.kind_of(hit.item), hit.score) for hit in hits if hit.field == field]
        assert scores[0][1] == pytest.approx(1, abs=0.1)
        assert np.mean([score for kind, score in scores if kind == "blue square"]) == pytest.approx(0, abs=0.1)


def test_a_store_whose_pictures_were_all_removed_returns_plain_cosines_again(engine, toy):
    engine.add([Item(id=kind, text=f"a {kind}") for kind in toy.KINDS])
    plain = engine.search("a red disc", k=12)
    engine.add([Item(id=f"picture of a {kind}", image=toy.image_of(kind)) for kind in toy.KINDS])
    assert engine.search("a red disc", k=12) != plain
    engine.remove([f"picture of a {kind}" for kind in toy.KINDS])
    assert engine.search("a red disc", k=12) == plain


def test_calibration_goes_by_what_is_in_the_store_not_by_what_was_removed(engine, toy):
    engine.add([Item(id=f"text {kind}", text=f"a {kind}") for kind in toy.KINDS])
    engine.add([Item(id=f"picture {kind}", image=toy.image_of(kind)) for kind in toy.KINDS])
    engine.add([Item(id=f"gone {n}", text=f"nothing of that sort, {n}") for n in range(200)])
    engine.remove([f"gone {n}" for n in range(200)])
    before = [(hit.item.id, hit.score) for hit in engine.search("a red disc", k=24)]
    engine.rebuild()
    assert [(hit.item.id, hit.score) for hit in engine.search("a red disc", k=24)] == before


def test_one_unrelated_text_among_pictures_does_not_come_first(engine, toy_folder, toy):
    engine.add_folder(toy_folder)
    engine.add(["a blue square"])
    hits = engine.search("a red disc", k=10)
    assert {toy.kind_of(hit.item) for hit in hits[:5]} == {"red disc"}


def test_two_texts_among_pictures_do_not_swamp_them(engine, toy_folder, toy):
    engine.add_folder(toy_folder)
    engine.add(["something red", "a blue square"])
    hits = engine.search("a red disc", k=5)
    assert {toy.kind_of(hit.item) for hit in hits} == {"red disc"}


def test_the_one_text_that_fits_is_found_among_pictures(engine, toy_folder, toy):
    engine.add_folder(toy_folder)
    engine.add([Item(id="the text", text="here is a red disc")])
    assert "the text" in toy.ids(engine.search("a red disc", k=6))


def test_equal_vectors_everywhere_still_give_finite_scores(engine, toy):
    engine.add([Item(id=f"{n}", text="a red disc", image=toy.image_of("red disc", n)) for n in range(3)])
    engine.add([Item(id=f"t{n}", text="a red disc") for n in range(3)])
    scores = [hit.score for hit in engine.search("a red disc")]
    assert len(scores) == 6
    assert np.isfinite(scores).all()


# The scale itself ---------------------------------------------------------------------------------------------------


def test_a_scale_makes_low_zero_and_high_one():
    np.testing.assert_allclose(Scale(0.2, 0.4)(np.array([0.2, 0.3, 0.4], dtype=np.float32)), [0, 0.5, 1], atol=1e-6)


def test_the_scale_runs_from_the_median_to_the_mean_best_match():
    queries = as_unit_vectors([[1.0, 0.0], [0.0, 1.0]])
    items = as_unit_vectors([[0.6, 0.8], [0.8, 0.6], [-1.0, 0.0]])
    scale = fit_scale(queries, items)  # cosines 0.6, 0.8, -1 and 0.8, 0.6, 0
    assert scale.low == pytest.approx(0.6)
    assert scale.high == pytest.approx(0.8)


def test_an_item_that_meets_itself_is_not_a_match():
    rows = as_unit_vectors([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    assert fit_scale(rows, rows).high == pytest.approx((0.6 + 0.8 + 0.8 + 0.0 + 0.0) / 5)


@pytest.mark.parametrize(("n_queries", "n_items"), [(0, 5), (5, 0), (5, 1), (0, 0)])
def test_without_anything_to_go_by_cosines_stay_as_they_are(n_queries, n_items):
    rows = as_unit_vectors(np.eye(8)[:5])
    assert fit_scale(rows[:n_queries], rows[:n_items]) == Scale(0.0, 1.0)
