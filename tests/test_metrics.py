"""Measures against ir-measures (trec_eval), intervals and tests against what is known of them."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsearch.errors import InvalidInput
from mmsearch.metrics import Measure, compare, evaluate, interval, parse_measure

DOCUMENTS = [f"d{n}" for n in range(12)]
GRADES = st.dictionaries(st.sampled_from(DOCUMENTS), st.integers(0, 3), min_size=1)
RANKING = st.lists(st.sampled_from([*DOCUMENTS, "x", "y"]), unique=True)


def pairs_with_ir_measures(ir, cutoffs):
    """Our measures and theirs."""
    pairs = {"MRR": ir.RR, "MAP": ir.AP, "nDCG": ir.nDCG}
    for k in cutoffs:
        pairs |= {f"R@{k}": ir.Success @ k, f"recall@{k}": ir.R @ k, f"P@{k}": ir.P @ k}
        pairs |= {f"MRR@{k}": ir.RR @ k, f"MAP@{k}": ir.AP @ k, f"nDCG@{k}": ir.nDCG @ k}
    return pairs


def assert_equal_to_ir_measures(qrels, run, cutoffs=(1, 3, 10)):
    ir = pytest.importorskip("ir_measures")
    pairs = pairs_with_ir_measures(ir, cutoffs)
    scores = evaluate(qrels, run, pairs)
    # Scores that fall with the rank, so that nothing depends on how ties are settled.
    their_run = {query: {doc: 100.0 - rank for rank, doc in enumerate(docs)} for query, docs in run.items() if docs}
    theirs = {(m.measure, m.query_id): m.value for m in ir.iter_calc(list(pairs.values()), qrels, their_run)}
    for ours, measure in pairs.items():
        expected = [theirs[measure, query] for query in qrels]
        np.testing.assert_allclose(scores[ours], expected, atol=1e-12, err_msg=ours)
    means = ir.calc_aggregate(list(pairs.values()), qrels, their_run)
    for ours, measure in pairs.items():
        assert scores.means()[ours] == pytest.approx(means[measure], abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.sampled_from("abcd"), GRADES, min_size=1),
    st.dictionaries(st.sampled_from("abcde"), RANKING, min_size=1),
)
def test_every_measure_is_that_of_ir_measures(qrels, run):
    if any(run.values()):
        assert_equal_to_ir_measures(qrels, run)


def test_every_measure_is_that_of_ir_measures_on_a_hundred_long_rankings():
    random = np.random.default_rng(0)
    names = [f"doc{n}" for n in range(300)]
    qrels = {
        f"q{n}": dict(
            zip(random.choice(names, 30, replace=False).tolist(), random.integers(0, 4, 30).tolist(), strict=True)
        )
        for n in range(100)
    }
    run = {f"q{n}": random.permutation(names)[:200].tolist() for n in range(5, 110)}
    assert_equal_to_ir_measures(qrels, run, (1, 5, 10, 100, 1000))


# One ranking by hand ------------------------------------------------------------------------------------------------


def value(measure, ranking=("x", "a", "b", "y", "c"), grades=None):
    return parse_measure(measure)(ranking, {"a": 1, "b": 3, "c": 1, "lost": 2, "bad": 0} if grades is None else grades)


def test_one_relevant_answer_among_the_first_k_is_enough_for_r_at_k():
    assert [value(f"R@{k}") for k in (1, 2, 3, 100)] == [0, 1, 1, 1]


def test_recall_is_the_share_of_the_relevant_that_was_found():
    assert [value(f"recall@{k}") for k in (1, 2, 3, 100)] == [0, 0.25, 0.5, 0.75]


def test_precision_divides_by_k_even_if_fewer_were_found():
    assert value("P@2") == 0.5
    assert value("P@10") == 0.3


def test_the_reciprocal_rank_is_that_of_the_first_relevant_answer():
    assert value("MRR") == 0.5
    assert value("MRR@1") == 0


def test_average_precision_divides_by_all_that_is_relevant():
    assert value("MAP") == pytest.approx((1 / 2 + 2 / 3 + 3 / 5) / 4)
    assert value("MAP@3") == pytest.approx((1 / 2 + 2 / 3) / 4)


def test_ndcg_weighs_grades_by_the_log_of_their_rank():
    gained = 1 / math.log2(3) + 3 / math.log2(4) + 1 / math.log2(6)
    best = 3 + 2 / math.log2(3) + 1 / math.log2(4) + 1 / math.log2(5)
    assert value("nDCG") == pytest.approx(gained / best)


def test_a_negative_grade_is_like_grade_0():
    assert value("nDCG", ["a", "b"], {"a": -2, "b": 1}) == value("nDCG", ["a", "b"], {"b": 1})
    assert value("recall@1", ["a"], {"a": -1, "b": 1}) == 0


@given(RANKING, GRADES, st.integers(1, 20))
def test_every_measure_is_between_0_and_1_and_0_without_relevant_answers(ranking, grades, k):
    for name in ("R", "recall", "P", "MRR", "MAP", "nDCG"):
        assert 0 <= Measure(name, k)(ranking, grades) <= 1 + 1e-12
        assert Measure(name, k)(ranking, dict.fromkeys(grades, 0)) == 0
        assert Measure(name, k)([], grades) == 0


# Names --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["R@10", "recall@5", "P@1", "MRR", "MRR@10", "MAP", "MAP@100", "nDCG", "nDCG@10"])
def test_a_measure_is_written_as_it_is_read(text):
    assert str(parse_measure(text)) == text
    assert parse_measure(text.upper()) == parse_measure(f" {text.lower()} ") == parse_measure(text)


@pytest.mark.parametrize(
    "text", ["", "R", "recall", "P", "hit@3", "R@", "R@0", "R@-1", "R@1.5", "R@ten", "@5", "R@²", "nDCG@"]
)
def test_what_is_no_measure_is_refused(text):
    with pytest.raises(InvalidInput, match="expected"):
        parse_measure(text)


def test_an_unknown_measure_names_the_known_ones():
    with pytest.raises(InvalidInput, match=r"R@k, recall@k, P@k, MRR, MRR@k, MAP, MAP@k, nDCG, nDCG@k.*'bleu'"):
        parse_measure("bleu")
    with pytest.raises(InvalidInput, match=r"R@k.*'bleu'"):
        Measure("bleu", 3)


# All queries --------------------------------------------------------------------------------------------------------


def test_values_are_in_the_order_of_the_judged_queries_and_unanswered_ones_are_0():
    qrels = {"b": {"x": 1}, "a": {"y": 1}, "silent": {"x": 1}, "empty": {"x": 1}}
    scores = evaluate(qrels, {"a": ["x", "y"], "b": ["x"], "nobody judged": ["x"], "empty": []}, [Measure("MRR")])
    assert scores.queries == ("b", "a", "silent", "empty")
    assert scores["MRR"].dtype == np.float64
    np.testing.assert_array_equal(scores[Measure("MRR")], [1, 0.5, 0, 0])
    assert scores.means() == {"MRR": 0.375}


def test_a_measure_that_was_not_evaluated_is_refused():
    scores = evaluate({"q": {"d": 1}}, {}, ["R@1", "MAP"])
    with pytest.raises(InvalidInput, match=r"\(R@1, MAP\), got R@5"):
        scores["R@5"]


def test_an_id_twice_in_a_ranking_is_refused():
    with pytest.raises(InvalidInput, match="'b' twice in the ranking of query 'q'"):
        evaluate({"q": {"a": 1}}, {"q": ["a", "b", "c", "b"]}, ["R@1"])


@pytest.mark.parametrize("ranking", ["abc", {"a": 0.5}])
def test_a_ranking_that_is_not_a_list_is_refused(ranking):
    with pytest.raises(InvalidInput, match="as a list of ids, best first"):
        evaluate({"q": {"a": 1}}, {"q": ranking}, ["R@1"])


@pytest.mark.parametrize("grade", [math.nan, math.inf])
def test_a_grade_that_is_not_finite_is_refused(grade):
    with pytest.raises(InvalidInput, match="finite grades"):
        evaluate({"q": {"a": grade}}, {"q": ["b"]}, ["R@1"])


def test_no_judgements_are_refused():
    with pytest.raises(InvalidInput, match="at least one query"):
        evaluate({}, {"q": ["a"]}, ["R@1"])


# Intervals ----------------------------------------------------------------------------------------------------------


def test_an_interval_holds_the_true_mean_about_as_often_as_it_says():
    random = np.random.default_rng(1)
    inside = [
        found.low <= 0.3 <= found.high
        for found in (interval((random.random(200) < 0.3).astype(float), n=400, seed=n) for n in range(300))
    ]
    assert 0.90 <= np.mean(inside) <= 0.985


def test_an_interval_is_that_of_the_normal_approximation_for_many_queries():
    values = np.random.default_rng(2).normal(5, 1, 2000)
    found = interval(values)
    half = 1.96 * values.std() / math.sqrt(2000)
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(found.value - half, abs=0.005)
    assert found.high == pytest.approx(found.value + half, abs=0.005)


def test_equal_seeds_give_equal_intervals_and_a_higher_level_a_wider_one():
    values = np.random.default_rng(3).random(100)
    assert interval(values, seed=7) == interval(values, seed=7) != interval(values, seed=8)
    wide, narrow = interval(values, level=0.99), interval(values, level=0.5)
    assert wide.low < narrow.low < narrow.value < narrow.high < wide.high


def test_captions_of_one_picture_widen_the_interval_as_if_each_picture_counted_once():
    pictures = np.random.default_rng(4).random(200)
    captions, groups = np.repeat(pictures, 5), np.repeat(np.arange(200), 5).tolist()
    alone, grouped, truth = interval(captions), interval(captions, groups=groups), interval(pictures)
    assert grouped.value == alone.value == pytest.approx(truth.value)
    width = {name: each.high - each.low for name, each in (("alone", alone), ("grouped", grouped), ("truth", truth))}
    assert width["grouped"] == pytest.approx(width["truth"], rel=0.1)
    assert width["grouped"] == pytest.approx(math.sqrt(5) * width["alone"], rel=0.15)


def test_groups_of_one_change_nothing_and_groups_of_other_sizes_keep_the_mean():
    values = np.random.default_rng(5).random(50)
    assert interval(values, groups=[f"picture {n}" for n in range(50)]) == interval(values)
    uneven = interval(values, groups=["a"] * 30 + list(range(20)))
    assert uneven.value == interval(values).value
    assert uneven.low < uneven.value < uneven.high


def test_memory_stays_bounded_for_many_queries(monkeypatch):
    values = np.random.default_rng(6).random(70)
    monkeypatch.setattr("mmsearch.metrics._DRAWS", 7 * 70 + 3)  # several uneven chunks
    assert interval(values, n=100).low < values.mean() < interval(values, n=100).high
    assert compare(values, values + 0.5, n=100).p == 1 / 101


@pytest.mark.parametrize(
    ("values", "options"),
    [
        ([], {}),
        ([[1.0]], {}),
        ([1.0, math.nan], {}),
        ([1.0, math.inf], {}),
        ([1.0], {"level": 1.0}),
        ([1.0], {"level": math.nan}),
        ([1.0], {"n": 0}),
        ([1.0], {"n": 2.5}),
        ([1.0], {"groups": ["a", "b"]}),
    ],
)
def test_an_interval_of_wrong_input_is_refused(values, options):
    with pytest.raises(InvalidInput, match="expected"):
        interval(values, **options)


# Comparisons --------------------------------------------------------------------------------------------------------


def test_a_system_does_not_differ_from_itself():
    values = np.random.default_rng(0).random(50)
    same = compare(values, values)
    assert (same.value, same.low, same.high, same.p) == (0, 0, 0, 1)
    assert not same.significant


def test_a_clear_difference_is_significant_and_has_a_sign():
    random = np.random.default_rng(1)
    worse = random.random(200) * 0.5
    better = worse + random.random(200) * 0.3
    found = compare(worse, better)
    assert found.p < 0.001
    assert 0.1 < found.low < found.value < found.high < 0.2
    assert found.significant
    back = compare(better, worse)
    assert back.value == -found.value
    assert back.high < 0
    assert back.significant


def test_p_is_that_of_all_possible_assignments():
    # Of the 2**5 signs of 1, 1, 1, 1, 1 only two give a sum as far from 0 as 5; of 1, 1, 1, 1, -1 twelve reach 3.
    n = 40_000
    assert compare([0] * 5, [1] * 5, n=n).p == pytest.approx(2 / 32, abs=0.006)
    assert compare([0] * 5, [1, 1, 1, 1, -1], n=n).p == pytest.approx(12 / 32, abs=0.012)


@pytest.mark.parametrize("unit", [0.1, 0.01, 1 / 3, 0.7])
def test_rounding_does_not_make_equal_differences_unequal(unit):
    # Of the 2**4 signs of 1, 2, 3, 7 ten give a sum as far from 0 as 1 + 2 - 3 + 7, four of them exactly as far.
    differences = np.array([1, 2, -3, 7]) * unit
    assert compare(np.zeros(4), differences, n=20_000).p == pytest.approx(10 / 16, abs=0.015)


def test_p_is_uniform_where_there_is_no_difference():
    random = np.random.default_rng(2)
    p = np.array([compare(random.random(40), random.random(40), n=300, seed=n).p for n in range(300)])
    assert 0.02 <= (p < 0.05).mean() <= 0.09
    assert 0.43 <= (p < 0.5).mean() <= 0.57


def test_groups_are_swapped_as_a_whole():
    # One lucky picture with fifty captions shows nothing; fifty pictures do.
    a, b = np.zeros(50), np.ones(50)
    lucky = compare(a, b, groups=["the picture"] * 50)
    assert lucky.p == 1
    assert not lucky.significant
    assert compare(a, b).significant


def test_pairs_count_and_not_the_two_means():
    random = np.random.default_rng(3)
    queries = random.random(100) * 10
    assert compare(queries, queries + 0.1).significant
    assert not compare(queries, random.permutation(queries) + 0.1).significant


def test_equal_seeds_give_equal_comparisons():
    a, b = np.random.default_rng(4).random((2, 60))
    assert compare(a, b, seed=1) == compare(a, b, seed=1) != compare(a, b, seed=2)


@pytest.mark.parametrize(
    ("a", "b", "options"),
    [
        ([], [], {}),
        ([1.0], [1.0, 2.0], {}),
        ([1.0, math.nan], [1.0, 1.0], {}),
        ([1.0, 1.0], [1.0, math.nan], {}),
        ([1.0, 2.0], [1.0, 2.0], {"groups": ["a"]}),
        ([1.0, 2.0], [1.0, 2.0], {"n": 0}),
    ],
)
def test_a_comparison_of_wrong_input_is_refused(a, b, options):
    with pytest.raises(InvalidInput, match="expected"):
        compare(a, b, **options)
