"""Verdicts: against brute force, scipy, published tables of numbers, and by property."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

pytest.importorskip("scipy")
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from netwright.bench import stats
from netwright.bench.records import to_json
from netwright.bench.stats import attainable, compare, holm, level, mcnemar, seeds_needed, sign_flip
from netwright.core.errors import BadInput, UnknownName

INF = math.inf
levels_of_ties = st.integers(-4, 4).map(float)
numbers = st.floats(-100, 100).map(lambda x: round(x, 3))
difference_lists = st.lists(st.one_of(levels_of_ties, numbers), min_size=1, max_size=9)


def study(*columns: list[float]) -> dict[str, dict[int, float]]:
    """Arms "arm 0" (the baseline), "arm 1", ... with one score a seed."""
    return {f"arm {i}": dict(enumerate(map(float, column))) for i, column in enumerate(columns)}


def judged(*columns: list[float], delta: float = 0.0, higher_is_better: bool = True, **options):
    options = {"resamples": 0, "baseline": "arm 0"} | options
    return compare(study(*columns), delta=delta, higher_is_better=higher_is_better, **options)


def against_zero(differences: list[float], **options):
    return judged([0.0] * len(differences), differences, **options)[0]


# sign flip


@given(difference_lists)
def test_sign_flip_counts_every_pattern(d):
    sums = [abs(sum(s * x for s, x in zip(signs, d, strict=True))) for signs in itertools.product((1, -1), repeat=len(d))]
    expected = sum(s >= abs(sum(d)) - 1e-9 * sum(map(abs, d)) for s in sums) / len(sums)
    assert sign_flip(d) == expected


@pytest.mark.parametrize("n", [2, 6, 9, 12])
def test_sign_flip_agrees_with_scipy(n):
    d = np.random.default_rng(n).normal(0.4, 1, n)
    mean = scipy_stats.permutation_test((d,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert sign_flip(d) == pytest.approx(mean.pvalue, abs=1e-12)


def test_sign_flip_is_close_to_t_for_many_normal_differences():
    d = np.random.default_rng(0).normal(0.4, 1, 30)
    assert sign_flip(d) == pytest.approx(scipy_stats.ttest_1samp(d, 0).pvalue, rel=0.2)


@pytest.mark.parametrize(("n", "p"), [(3, 0.25), (5, 0.0625), (8, 0.0078125), (10, 0.001953125), (24, 2 / 2**24)])
def test_smallest_p_is_reached_when_all_signs_agree(n, p):
    assert sign_flip(np.arange(1, n + 1)) == stats.smallest_p(n) == p


def test_random_patterns_above_the_exact_size(monkeypatch):
    d = np.random.default_rng(3).normal(0.35, 1, 30)
    exact = sign_flip(d)
    monkeypatch.setattr(stats, "EXACT", 29)
    drawn = sign_flip(d)
    assert drawn == sign_flip(-d) == sign_flip(d)
    assert drawn == pytest.approx(exact, abs=5 * math.sqrt(exact / stats.DRAWS))
    assert sign_flip(np.ones(30)) == stats.smallest_p(30) == 1e-5


def test_ties_of_rounded_scores_count_as_reached():
    # 0.3 - 0.1 and 0.2 differ in the last bits; in exact numbers these four patterns tie with the observed one
    d = [0.3 - 0.1, -0.2, 0.5 - 0.3, 0.2]
    assert sign_flip(d) == sign_flip([1, -1, 1, 1])


def test_no_difference_gives_p_one():
    assert sign_flip([0.0] * 10) == sign_flip([]) == 1.0


# Holm, McNemar


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0] and holm([]) == []


def test_holm_counts_what_gave_no_p():
    assert holm([None, 0.01, None]) == [None, pytest.approx(0.03), None]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.randoms())
def test_holm_is_monotone_between_raw_and_bonferroni_and_ignores_order(ps, random):
    adjusted = holm(ps)
    for (p, a), (q, b) in itertools.combinations(zip(ps, adjusted, strict=True), 2):
        assert (p <= q and a <= b) or (q <= p and b <= a)
    assert all(p <= a <= min(1, len(ps) * p) for p, a in zip(ps, adjusted, strict=True))
    order = list(range(len(ps)))
    random.shuffle(order)
    assert holm([ps[i] for i in order]) == [adjusted[i] for i in order]


@given(st.integers(0, 30), st.integers(0, 30))
def test_mcnemar_is_the_binomial_test(only_a, only_b):
    expected = scipy_stats.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    assert mcnemar(only_a, only_b) == pytest.approx(expected)


# intervals


@given(st.lists(numbers, min_size=2, max_size=12), st.sampled_from([0.8, 0.95, 0.9975]))
def test_t_interval_is_that_of_scipy(values, confidence):
    if np.ptp(values) > 0:
        expected = scipy_stats.ttest_1samp(values, 0).confidence_interval(confidence)
        assert stats.t_interval(values, confidence) == pytest.approx(tuple(expected), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("make", [stats.t_interval, stats.bootstrap_interval])
def test_degenerate_intervals(make):
    assert make([]) is None and make([1.0]) is None and make([1.0, INF]) is None
    assert make([0.25] * 5) == (0.25, 0.25)
    assert make([0.1] * 10) == pytest.approx((0.1, 0.1))


@pytest.mark.parametrize("n", [6, 10, 30])
def test_bootstrap_agrees_with_scipy(n):
    values = np.random.default_rng(n).exponential(size=n)
    expected = scipy_stats.bootstrap((values,), np.mean, n_resamples=9_999, random_state=np.random.default_rng(1))
    assert stats.bootstrap_interval(values) == pytest.approx(tuple(expected.confidence_interval), abs=0.05 * values.std())


@given(st.lists(numbers, min_size=2, max_size=10))
@settings(max_examples=50)
def test_bootstrap_lies_within_the_data_and_turns_with_them(values):
    low, high = stats.bootstrap_interval(values, resamples=500)
    slack = 1e-9 * (1 + max(map(abs, values)))
    assert min(values) - slack <= low <= high <= max(values) + slack
    assert stats.bootstrap_interval([-v for v in values], resamples=500) == pytest.approx((-high, -low), abs=slack)


# planning


@pytest.mark.parametrize(("effect", "n"), [(0.3, 90), (0.5, 34), (0.8, 15), (1.0, 10), (1.5, 6), (2.0, 5)])
def test_seeds_for_80_percent_power(effect, n):
    assert seeds_needed(1.0, effect) == seeds_needed(0.01, effect * 0.01) == n


def test_seeds_needed_is_the_first_n_with_the_power():
    for effect, alpha in itertools.product((0.2, 0.7, 3.0, 12.0), (0.05, 0.05 / 20)):
        n = seeds_needed(1.0, effect, alpha)

        def power(k, effect=effect, alpha=alpha):
            return scipy_stats.nct(k - 1, math.sqrt(k) * effect).sf(scipy_stats.t.ppf(1 - alpha / 2, k - 1))

        assert power(n) >= 0.8 and (n == 2 or power(n - 1) < 0.8)


def test_seeds_needed_at_its_edges():
    assert seeds_needed(None, 1.0) is None and seeds_needed(1.0, 0.0) is None and seeds_needed(INF, 1.0) is None
    assert seeds_needed(1.0, 0.001) == seeds_needed(1.0, 1e-9) == stats.MOST_SEEDS
    assert seeds_needed(0.0, 0.1) == seeds_needed(1e-12, 0.1) == 2


@pytest.mark.parametrize(("m", "n"), [(1, 6), (5, 8), (10, 9), (20, 10), (50, 11), (100, 12), (200, 13)])
def test_fewest_seeds_for_any_significance(m, n):
    assert attainable(4, m).enough == n
    assert attainable(n, m).difference and not attainable(n - 1, m).difference


@pytest.mark.parametrize(("n", "m", "look"), list(itertools.product((5, 6, 8, 10), (1, 2, 5, 20), (1, 2, 3))))
def test_attainable_is_what_compare_can_reach(n, m, look):
    """All signs alike and hardly any spread is the strongest evidence there is."""
    strongest = [10.0 + i / 1000 for i in range(n)]
    found = judged([0.0] * n, *[strongest] * m, looks=look)
    said = attainable(n, m, look)
    assert {c.verdict for c in found} == {"better" if said.difference else "cannot tell"}
    assert found[0].p_raw == said.smallest_p and found[0].p == said.smallest_holm
    assert (judged([0.0] * n, *[[0.0] * n] * m, looks=look)[0].verdict == "equivalent") == said.equivalent
    assert f"{n} seeds" in said.sentence and ("every verdict" in said.sentence) == said.difference


def test_attainable_refuses_nonsense():
    with pytest.raises(BadInput, match="comparisons"):
        attainable(6, 0)


def test_levels_of_looks():
    assert [level(j) for j in (1, 2, 3)] == [0.05, 0.0125, 0.00625]
    assert [level(j, extended=True) for j in (1, 2, 3)] == [0.025, 0.0125, 0.00625]
    assert sum(level(j) for j in range(1, 40)) < 0.075 and sum(level(j, extended=True) for j in range(1, 40)) < 0.05
    with pytest.raises(BadInput, match="counted from 1"):
        level(0)


# verdicts


def test_better_and_worse_follow_the_direction():
    up = [1.0, 1.1, 0.9, 1.2, 1.0, 0.8]
    for higher, word in ((True, "better"), (False, "worse")):
        c = against_zero(up, delta=0.5, higher_is_better=higher)
        assert (c.verdict, c.a, c.b, c.n, c.p, c.difference) == (word, "arm 1", "arm 0", 6, 2 / 64, pytest.approx(1.0))
        assert c.interval == pytest.approx(stats.t_interval(up)) and c.seeds_needed is None
        wanted = "higher" if higher else "lower"
        assert "arm 1 scores 1 higher than arm 0" in c.reason and f"{wanted} is better" in c.reason
        assert against_zero([-x for x in up], delta=0.5, higher_is_better=not higher).verdict == word


def test_five_seeds_never_give_a_verdict():
    c = against_zero([10.0, 10.1, 10.2, 9.9, 10.0], delta=1.0)
    assert c.verdict == "cannot tell" and "at least 6" in c.reason and c.seeds_needed == 6
    c = against_zero([0.0] * 5, delta=1.0)
    assert c.verdict == "cannot tell" and "identical runs" in c.hint and c.p == 1.0


def test_identical_runs_are_equivalent():
    for delta in (0.0, 0.1):
        c = against_zero([0.0] * 6, delta=delta)
        assert (c.verdict, c.p, c.difference) == ("equivalent", 1.0, 0.0) and "Identical runs" in c.reason


def test_a_small_real_difference_is_hinted_at():
    d = [0.4, 0.5, 0.6, 0.1, 0.9, 0.5]
    c = against_zero(d, delta=0.6)
    assert c.verdict == "cannot tell" and c.p < 0.05 and "too small" in c.hint and "isn't ruled out" in c.reason
    assert c.seeds_needed == max(6, seeds_needed(np.std(d, ddof=1), 0.6))
    c = against_zero(d, delta=2.0)
    assert c.verdict == "equivalent" and "too small" in c.hint


def test_a_difference_of_exactly_delta_counts_in_spite_of_rounding():
    c = judged([0.7 + 0.01 * i for i in range(6)], [0.8 + 0.01 * i for i in range(6)], delta=0.1)[0]
    assert c.verdict == "better"


def test_an_outlier_that_makes_the_interval_contain_zero_blocks_the_verdict():
    c = against_zero([0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 50.0], delta=0.0)
    assert c.p == 2 / 2**7 and c.interval[0] < 0 and c.verdict == "cannot tell" and "interval contains 0" in c.reason


def test_too_few_seeds_for_the_family_are_named():
    up = [1.0, 1.1, 0.9, 1.2, 1.0, 0.8]
    first, second = judged([0.0] * 6, up, up, delta=0.5)
    assert first.p == 4 / 64 and first.verdict == second.verdict == "cannot tell"
    assert "no p is below 0.05; 7 are enough" in first.reason and first.seeds_needed == attainable(6, 2).enough == 7


def test_family_and_confidence():
    rng = np.random.default_rng(0)
    columns = rng.normal(size=(4, 10)).tolist()
    assert [(c.a, c.b) for c in judged(*columns)] == [(f"arm {i}", "arm 0") for i in (1, 2, 3)]
    pairs = judged(*columns, all_pairs=True)
    wanted = [(1, 0), (2, 0), (3, 0), (2, 1), (3, 1), (3, 2)]
    assert [(c.a, c.b) for c in pairs] == [(f"arm {i}", f"arm {j}") for i, j in wanted]
    c = judged(*columns, looks=2, baseline="arm 2")[0]
    assert (c.a, c.b) == ("arm 0", "arm 2")
    d = np.subtract(columns[0], columns[2])
    assert c.interval == pytest.approx(stats.t_interval(d, 1 - 0.0125 / 3)) and c.p_raw == sign_flip(d)
    assert [c.p for c in pairs] == holm([c.p_raw for c in pairs])
    assert judged(columns[0]) == []


def test_pairs_are_seeds_of_both_arms_that_neither_dropped():
    scores = {"a": {s: 1.0 for s in range(8)}, "b": {s: 2.0 for s in range(1, 10)}}
    options = {"baseline": "a", "delta": 0.1, "higher_is_better": True}
    c = compare(scores, dropped={"a": {2}, "b": [3]}, **options)[0]
    assert sorted(c.differences) == [1, 4, 5, 6, 7] and c.n == 5
    c = compare({"a": {1: 0.0}, "b": {2: 0.0}}, **options)[0]
    assert c.verdict == "cannot tell" and c.p is None and c.difference is None and "No seed" in c.reason


def test_failures_are_compared_on_the_paired_seeds():
    c = against_zero([-1.0] * 8, failed={"arm 1": set(range(7)), "arm 0": {0}}, dropped={"arm 0": {6}})
    assert c.failures == (6, 1) and c.p_failures == mcnemar(5, 0) and c.verdict == "worse"
    assert against_zero([1.0] * 6).p_failures is None
    c = against_zero([0.0] * 8, delta=1.0, failed={"arm 0": range(8), "arm 1": range(8)})
    assert c.verdict == "cannot tell" and "nothing was compared" in c.reason and c.failures == (8, 8)


def test_not_comparable_arms_count_but_are_not_tested():
    up = [1.0, 1.1, 0.9, 1.2, 1.0, 0.8, 1.0, 1.1]
    barred, other = judged([0.0] * 8, up, up, not_comparable={"arm 1": "it ran on another machine"})
    assert barred.verdict == "not comparable" and barred.p is None and barred.interval is None
    assert "another machine" in barred.reason
    assert other.verdict == "better" and other.p == 2 * other.p_raw
    everything = judged([0.0] * 8, up, up, not_comparable={"arm 0": "x"})
    assert {c.verdict for c in everything} == {"not comparable"}


def test_infinite_scores():
    small = [0.01, 0.02, 0.01, 0.015, 0.01, 0.02, 0.01, 0.01]
    lossy = {"delta": 0.5, "higher_is_better": False}
    always = against_zero([INF] * 8, failed={"arm 1": range(8)}, **lossy)
    assert (always.verdict, always.difference, always.interval, always.bootstrap) == ("worse", INF, None, None)
    assert always.p == 2 / 2**8 and "infinite" in always.reason and always.seeds_needed is None
    turned = judged([INF] * 8, small, **lossy)[0]
    assert turned.verdict == "better" and turned.difference == -INF
    once = against_zero([*small[:-1], INF], **lossy)
    assert once.verdict == "cannot tell" and once.difference == INF
    both = judged([INF, *small], [INF, *small], **lossy)[0]
    assert both.differences[0] == 0.0 and both.difference == 0.0 and both.verdict == "equivalent"
    opposite = judged([INF, 0, 0, 0, 0, 0], [0, INF, 0, 0, 0, 0], **lossy)[0]
    assert opposite.difference is None and opposite.verdict == "cannot tell" and opposite.p == 1.0


def test_nothing_computed_is_nan_even_for_huge_scores():
    for column in ([1e200, -1e200, 1e300, 0, 1, 2], [INF, -INF, 3, 0, 1, 2], [1e-320, 0, 0, 0, 0, 1e-310]):
        c = to_json(against_zero(column, delta=0.1, resamples=50))
        flat = [c["p"], c["p_raw"], c["difference"], *(c["interval"] or ()), *(c["bootstrap"] or ())]
        assert not any(isinstance(x, float) and math.isnan(x) for x in flat)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"delta": -1.0}, "delta"),
        ({"delta": math.nan}, "delta"),
        ({"failed": {"arm 1": {99}}}, "seed 99"),
    ],
)
def test_bad_requests_say_what_is_wrong(options, words):
    with pytest.raises(BadInput, match=words):
        against_zero([1.0] * 6, **options)


def test_nan_scores_and_unknown_arms_are_refused():
    with pytest.raises(BadInput, match="arm 1 at seed 1 is NaN"):
        against_zero([1.0, math.nan])
    for name in ("failed", "dropped", "not_comparable"):
        with pytest.raises(UnknownName, match="arm 3"):
            against_zero([1.0] * 6, **{name: {"arm 3": {}}})
    with pytest.raises(UnknownName, match="did you mean"):
        against_zero([1.0] * 6, baseline="arm 00")


families = st.integers(2, 4).flatmap(
    lambda arms: st.integers(1, 8).flatmap(
        lambda n: st.lists(st.lists(numbers, min_size=n, max_size=n), min_size=arms, max_size=arms)
    )
)
OPPOSITE = {"better": "worse", "worse": "better"}


@given(families, st.sampled_from([0.0, 0.5, 20.0]))
@settings(max_examples=60, deadline=None)
def test_turning_the_metric_or_the_pair_around_turns_the_verdict(columns, delta):
    found = judged(*columns, delta=delta)
    turned = judged(*[[-x for x in column] for column in columns], delta=delta, higher_is_better=False)
    assert [(c.verdict, c.p, c.seeds_needed) for c in found] == [(c.verdict, c.p, c.seeds_needed) for c in turned]
    swapped = judged(*columns[:2], delta=delta, baseline="arm 1")[0]
    alone = judged(*columns[:2], delta=delta)[0]
    assert swapped.verdict == OPPOSITE.get(alone.verdict, alone.verdict) and swapped.p == alone.p
    assert swapped.interval == (None if alone.interval is None else (-alone.interval[1], -alone.interval[0]))


@given(families, st.randoms())
@settings(max_examples=40, deadline=None)
def test_the_order_of_seeds_and_arms_changes_nothing(columns, random):
    scores = study(*columns)
    shuffled = {arm: dict(random.sample(sorted(row.items()), len(row))) for arm, row in scores.items()}
    shuffled = {"arm 0": shuffled["arm 0"], **dict(reversed(shuffled.items()))}
    options = {"baseline": "arm 0", "delta": 0.5, "higher_is_better": True, "resamples": 20}
    expected = {c.a: to_json(c) for c in compare(scores, **options)}
    assert {c.a: to_json(c) for c in compare(shuffled, **options)} == expected


@given(families, st.sampled_from([0.0, 0.5, 20.0, 300.0]), st.integers(1, 3))
@settings(max_examples=100, deadline=None)
def test_every_verdict_keeps_its_rule(columns, delta, look):
    for c in judged(*columns, delta=delta, looks=look):
        exactly_zero = not any(c.differences.values())
        if c.verdict in ("better", "worse"):
            assert c.n >= 6 and c.p < level(look) and c.interval[0] * c.interval[1] > 0
            assert abs(c.difference) >= delta * (1 - 1e-9) and (c.difference > 0) == (c.verdict == "better")
        elif c.verdict == "equivalent":
            assert c.n >= 6 and (exactly_zero or -delta < c.interval[0] <= c.interval[1] < delta)
        else:
            assert c.verdict == "cannot tell" and not (exactly_zero and c.n >= 6)
        assert c.reason.endswith(".") and to_json(c)["verdict"] == c.verdict


def test_arm_summary():
    mean, interval, n = stats.arm_summary({3: 1.0, 1: 2.0, 2: 4.0})
    assert (mean, n) == (pytest.approx(7 / 3), 3) and interval == stats.t_interval([2.0, 4.0, 1.0])
    assert stats.arm_summary({}) == (None, None, 0) and stats.arm_summary({0: 1.0}) == (1.0, None, 1)
    assert stats.arm_summary({0: 1.0, 1: INF}) == (INF, None, 2)
