"""Tuning: what is kept and why, and that what is measured while weights are tried is what a search gives."""

import json

import numpy as np
import pytest

from mmsearch import InvalidInput, Item, Query
from mmsearch.cascade import Cascade, Step
from mmsearch.evaluation import run
from mmsearch.judged import IMAGE_TO_IMAGE, read_judged
from mmsearch.pool import NOWHERE, Pool, reciprocal
from mmsearch.profile import Profile
from mmsearch.rerank.stage import Stage
from mmsearch.testbed import place
from mmsearch.tuning import STEPS, collect, fit, folds_of, held_out, score, tune
from mmsearch.types import Hit, Signal

# What is tried is what a search gives ------------------------------------------------------------------------------


class Table(Stage):
    """Gives each hit the value that a table has for the query and the hit; NaN where it has none."""

    def __init__(self, name, values, n):
        self.name, self.values, self.n = name, values, n

    def score(self, query, hits, deadline=None):
        row = self.values[int(query.text)]
        return Signal(np.array([row.get(hit.item.id, np.nan) for hit in hits], dtype=np.float32))


def random_pool(rng, n_queries=40, width=12):
    """Candidates with many equal scores, rows of any length, and ids whose order is not that of the scores."""
    base = np.full((n_queries, width), -np.inf)
    place, relevant = np.zeros(base.shape, dtype=np.int64), np.zeros(base.shape, dtype=np.bool_)
    hits = []
    for row in range(n_queries):
        n = int(rng.integers(0, width + 1))
        ids = [f"item {number}" for number in rng.permutation(100)[:n]]
        scores = np.sort(rng.integers(0, 5, n) / 10)[::-1]
        pairs = sorted(zip(-scores, ids, strict=True))
        hits.append([Hit(Item(id=id), float(-minus), rank) for rank, (minus, id) in enumerate(pairs, start=1)])
        base[row, :n] = [hit.score for hit in hits[-1]]
        ids = [hit.item.id for hit in hits[-1]]
        place[row, :n] = [sorted(ids).index(id) for id in ids]
        relevant[row, :n] = rng.random(n) < 0.2
    queries = [Query(text=str(row)) for row in range(n_queries)]
    return Pool(queries, hits, base, relevant, place, tuple(f"picture {row // 2}" for row in range(n_queries)))


def random_stage(rng, name, pool, n):
    """Values with ties; none for some hits, and none at all for some queries."""
    table = []
    for hits in pool.hits:
        share = rng.choice([0.0, 0.3, 1.0, 1.0])
        table.append({hit.item.id: rng.integers(-5, 6) / 10 for hit in hits if rng.random() < share})
    return Table(name, table, n)


@pytest.mark.parametrize("seed", range(40))
def test_a_rank_in_the_pool_is_the_rank_that_the_cascade_gives(engine, seed):
    rng = np.random.default_rng(seed)
    pool = random_pool(rng)
    stages = [random_stage(rng, f"stage {n}", pool, int(rng.choice([3, 6, 100]))) for n in range(3)]
    weights = {}
    for stage in stages:
        pool.values[stage.name] = score(engine, pool, stage, weights)
        weights[stage.name] = float(rng.choice([0.0, 0.5, 1.0, 0.37]))
    cascade = Cascade([Step(stage, weights[stage.name]) for stage in stages])
    expected = []
    for row, (query, hits) in enumerate(zip(pool.queries, pool.hits, strict=True)):
        right = {hit.item.id for hit, one in zip(hits, pool.relevant[row], strict=False) if one}
        found = [hit.rank for hit in cascade.rerank(query, hits) if hit.item.id in right]
        expected.append(min(found, default=NOWHERE))
    assert pool.ranks(weights, np.arange(len(pool.queries))).tolist() == expected


def test_ranks_of_some_queries_are_those_among_all(engine):
    rng = np.random.default_rng(7)
    pool = random_pool(rng)
    stage = random_stage(rng, "one", pool, 4)
    pool.values["one"] = score(engine, pool, stage, {})
    everything = pool.ranks({"one": 0.5}, np.arange(40))
    chosen = np.array([31, 2, 17])
    assert pool.ranks({"one": 0.5}, chosen).tolist() == everything[chosen].tolist()
    assert pool.ranks({"one": 0.5}, np.array([], dtype=np.int64)).tolist() == []


def test_what_is_not_found_counts_as_0_however_few_candidates_there_are():
    rng = np.random.default_rng(0)
    pool = random_pool(rng, width=3)
    pool.relevant[:] = False
    ranks = pool.ranks({}, np.arange(40))
    assert reciprocal(ranks).sum() == 0
    assert (ranks > 10).all()


def test_a_stage_that_fails_for_one_query_has_nothing_to_say_on_it_and_one_that_always_fails_is_refused(engine):
    rng = np.random.default_rng(3)
    pool = random_pool(rng)
    stage = random_stage(rng, "one", pool, 100)
    asked = next(row for row, hits in enumerate(pool.hits) if hits)
    del stage.values[asked:]
    with pytest.raises(InvalidInput, match="one, which failed for every query: IndexError"):
        score(engine, pool, stage, {})
    stage.values.append(dict.fromkeys((hit.item.id for hit in pool.hits[asked]), 1.0))
    values = score(engine, pool, stage, {})
    assert np.isfinite(values).sum() == len(pool.hits[asked])
    assert "IndexError" in pool.said["one"]


def test_infinity_is_no_value(engine):
    rng = np.random.default_rng(3)
    pool = random_pool(rng)
    stage = Table("one", [dict.fromkeys((hit.item.id for hit in hits), np.inf) for hits in pool.hits], 100)
    assert not np.isfinite(score(engine, pool, stage, {})).any()


# Fitting ------------------------------------------------------------------------------------------------------------


def filled(engine, rng, n=3, **options):
    pool = random_pool(rng, **options)
    names = [f"stage {place}" for place in range(n)]
    usual = {}
    for name in names:
        stage = random_stage(rng, name, pool, int(rng.choice([3, 100])))
        pool.values[name] = score(engine, pool, stage, usual)
        usual[name] = float(rng.choice([0.5, 1.0]))
    return pool, names, usual


@pytest.mark.parametrize("seed", range(12))
def test_fitted_weights_are_never_worse_than_the_usual_ones_where_they_were_fitted(engine, seed):
    pool, names, usual = filled(engine, np.random.default_rng(seed))
    chosen = np.arange(0, 40, 2)
    fitted = fit(pool, names, usual, chosen)
    assert reciprocal(pool.ranks(fitted, chosen)).mean() >= reciprocal(pool.ranks(usual, chosen)).mean()
    assert list(fitted) == names
    assert all(fitted[name] / usual[name] in STEPS for name in names)
    assert fit(pool, names, usual, chosen) == fitted


@pytest.mark.parametrize("seed", range(12))
def test_what_is_held_out_does_not_depend_on_the_judgements_of_its_own_half(engine, seed):
    rng = np.random.default_rng(seed)
    pool, names, usual = filled(engine, rng)
    folds = [np.arange(0, 20), np.arange(20, 40)]
    before = held_out(pool, names, usual, folds)
    pool.relevant[:10] = ~pool.relevant[:10] & np.isfinite(pool.base[:10])
    after = held_out(pool, names, usual, folds)
    # The first ten have other right answers; the rest of their half is ranked by the same weights as before.
    assert after[10:20].tolist() == before[10:20].tolist()


# A world in which one stage is right --------------------------------------------------------------------------------


@pytest.fixture
def world(toy, folder, tmp_path):
    """Sixty pictures; what people ask names a picture's code, which only its title says."""
    toy.draw_all(folder)
    rows, asked = [], []
    for kind in toy.KINDS:
        for n in range(5):
            code = f"{kind[:1]}{kind.split()[1][:1]}{n}77"
            rows.append({"id": f"{kind} {n}", "image": f"{kind} {n}.png", "title": code, "label": kind})
            asked.append(f"the {kind} called {code}\t{kind} {n}\n")
    file = tmp_path / "qrels.tsv"
    file.write_text("".join(asked))
    toy.dataset(folder, rows)
    return read_judged(folder, qrels=file)


@pytest.fixture
def filled_engine(open_engine, folder, world):
    engine = open_engine(spaces=["picture", "text", "regions"])
    engine.add_folder(folder)
    return engine


NAMES = ["words", "regions", "hubness"]


def test_the_stage_that_is_right_is_kept_and_the_others_are_dropped(filled_engine, world):
    tuned = tune(filled_engine, world, NAMES)
    assert tuned.profile.stages == ("words",)
    assert [trial.name for trial in tuned.trials] == ["hubness", "regions", "words"]
    assert [trial.kept for trial in tuned.trials] == [False, False, True]
    assert tuned.profile.weights["words"] > 0
    assert (tuned.after <= tuned.before).mean() > 0.9
    assert (tuned.after == 1).mean() > (tuned.before == 1).mean() + 0.3
    gains = tuned.profile.figures["MRR@10 gained"]
    assert "there is no bank of text queries" in gains["hubness"]["note"]
    assert gains["words"]["note"] == ""


def test_tuning_twice_gives_the_same_profile(filled_engine, world):
    first, second = (tune(filled_engine, world, NAMES) for _ in range(2))
    assert first.profile == second.profile
    assert first.after.tolist() == second.after.tolist()
    assert json.loads(first.profile.to_json()) == json.loads(second.profile.to_json())


def test_a_profile_is_used_from_then_on_and_after_reopening(filled_engine, world, open_engine):
    query = world.queries[7]
    assert "words" not in filled_engine.search(query)[0].ranks
    filled_engine.set_profile(tune(filled_engine, world, NAMES).profile)
    (hit,) = filled_engine.search(query, k=1)
    assert "words" in hit.ranks
    assert hit.item.id == next(iter(world.qrels[world.ids[7]]))
    filled_engine.close()
    assert open_engine().search(query, k=1) == [hit]


def test_a_profile_is_not_used_for_another_encoder(filled_engine, world, toy):
    filled_engine.set_profile(tune(filled_engine, world, NAMES).profile)
    filled_engine.reindex(toy.ToyEncoder(seed=5))
    assert "words" not in filled_engine.search(world.queries[7])[0].ranks
    assert run(filled_engine, world).stages == ("regions",)


def test_an_evaluation_of_the_profile_gives_what_tuning_expects_of_its_weights(filled_engine, world):
    profile = tune(filled_engine, world, NAMES).profile
    filled_engine.set_profile(profile)
    found = run(filled_engine, world)
    assert found.stages == profile.stages
    pool = collect(filled_engine, world, named=True)
    (step,) = profile.cascade().steps
    pool.values["words"] = score(filled_engine, pool, step.stage, {})
    ranks = pool.ranks(profile.weights, np.arange(len(world.queries)))
    assert reciprocal(ranks).tolist() == found.scores["MRR@10"].tolist()


def test_the_ranks_before_are_those_of_vectors_alone(filled_engine, world):
    tuned = tune(filled_engine, world, ["hubness"])
    assert tuned.profile == Profile(
        (), {}, {}, encoder="toy-0-32", kind="text", options={}, figures=tuned.profile.figures
    )
    found = run(filled_engine, world, False)
    assert reciprocal(tuned.before).tolist() == found.scores["MRR@10"].tolist()
    assert tuned.after.tolist() == tuned.before.tolist()


def test_a_dropped_default_is_not_used_any_more(filled_engine, world):
    assert "regions" in filled_engine.search(world.queries[0])[0].ranks
    filled_engine.set_profile(tune(filled_engine, world, ["regions"]).profile)
    assert "regions" not in filled_engine.search(world.queries[0])[0].ranks
    filled_engine.set_profile(None)
    assert "regions" in filled_engine.search(world.queries[0])[0].ranks


def test_what_a_picture_asks_for_is_tuned_for_pictures(filled_engine, folder):
    tuned = tune(filled_engine, read_judged(folder, IMAGE_TO_IMAGE), ["regions"])
    assert tuned.profile.kind == "picture"


def test_folds_keep_the_queries_of_one_picture_together(toy, folder):
    toy.draw_all(folder, toy.KINDS, each=1)
    rows = [{"image": f"{kind} 0.png", "captions": [kind, f"a {kind}", f"one {kind}"]} for kind in toy.KINDS]
    judged = read_judged(toy.dataset(folder, rows))
    first, second = folds_of(judged)
    assert not {judged.groups[n] for n in first} & {judged.groups[n] for n in second}
    assert sorted([*first.tolist(), *second.tolist()]) == list(range(36))


# What is refused ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "expected stages to choose from"),
        (["magic"], "expected different stages of"),
        (["words", "words"], "expected different stages of"),
        (["second"], "expected an encoder for the stage 'second'"),
    ],
)
def test_wrong_stages_are_refused(filled_engine, world, names, message):
    with pytest.raises(InvalidInput, match=message):
        tune(filled_engine, world, names)


def test_words_are_not_tuned_on_the_texts_that_they_read(toy, folder, engine):
    toy.draw_all(folder, toy.KINDS[:4], each=1)
    engine.add_folder(toy.dataset(folder, [{"image": f"{kind} 0.png", "title": kind} for kind in toy.KINDS[:4]]))
    with pytest.raises(InvalidInput, match="the stage words reads the very texts"):
        tune(engine, read_judged(folder), ["words"])


def test_one_picture_is_too_few_and_two_keep_nothing(toy, folder, encoder):
    toy.draw_all(folder, toy.KINDS[:2], each=1)
    rows = [{"image": f"{kind} 0.png", "caption": kind} for kind in toy.KINDS[:2]]
    judged = read_judged(toy.dataset(folder, rows))
    with place(judged, None, encoder=encoder) as (engine, _):
        assert tune(engine, judged, ["regions"]).profile.stages == ()
        with pytest.raises(InvalidInput, match="at least two pictures"):
            tune(engine, judged.part([0]), ["regions"])


def test_judgements_are_not_looked_for_in_an_empty_store(engine, world):
    with pytest.raises(InvalidInput, match="expected candidates for the judged queries, got none"):
        tune(engine, world, ["regions"])


def test_a_picture_that_cannot_be_opened_asks_for_nothing(filled_engine, folder, toy):
    judged = read_judged(folder, IMAGE_TO_IMAGE)
    (folder / "red disc 0.png").unlink()
    pool = collect(filled_engine, judged)
    at = judged.ids.index("red disc 0")
    assert pool.hits[at] == []
    ranks = pool.ranks({}, np.arange(len(judged.ids)))
    assert ranks[at] == NOWHERE
    assert np.count_nonzero(ranks == NOWHERE) == 1


def test_queries_are_encoded_once_for_all_stages(filled_engine, folder, encoder):
    judged = read_judged(folder, IMAGE_TO_IMAGE)
    before = encoder.pictures_read
    tune(filled_engine, judged, ["regions"])
    assert encoder.pictures_read == before + len(judged.queries)


def test_a_picture_is_no_candidate_for_itself(filled_engine, folder):
    judged = read_judged(folder, IMAGE_TO_IMAGE)
    pool = collect(filled_engine, judged, n=20)
    assert all(len(hits) == 20 for hits in pool.hits)
    assert not any(id in (hit.item.id for hit in hits) for id, hits in zip(judged.ids, pool.hits, strict=True))
