"""Paired differences, intervals, verdicts: what may be said of two arms after n seeds.

One pair of arms gives one difference a seed, d_s = score(a, s) - score(b, s), in the metric's own units and sign.

* p is the exact two-sided sign-flip test of the mean of d, Holm-adjusted over the m comparisons of the family.
  Where a and b are the same procedure, d_s and -d_s are equally likely, so the test is exact for any distribution
  (Fisher, The Design of Experiments, 1935; Pitman, 1937).
* The interval is Student's t at confidence 1 - level / m. It assumes near-normal differences; the verdict needs both.
* The level is 0.05; a study that is looked at again after adding seeds is tested at a lower one: see `level`.

The verdicts, with delta the smallest effect that matters:

    better, worse    n >= 6, Holm p < level, the interval excludes 0, |mean| >= delta
    equivalent       n >= 6, the whole interval lies inside (-delta, delta), or every difference is exactly zero
    cannot tell      everything else
    not comparable   a rule of the comparison was violated; nothing is tested
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from netwright.bench.records import Comparison
from netwright.core.errors import BadInput, unknown

LEVEL = 0.05  # family-wise, of a study that is looked at once
POWER = 0.8
MIN_SEEDS = 6  # fewer never give a verdict
MOST_SEEDS = 10_000  # `seeds_needed` stops here: "this many or more"
EXACT = 40  # up to this many differences all 2^n sign patterns are counted
DRAWS = 99_999  # random sign patterns above it
RESAMPLES = 9_999
ROUNDING = 1e-9  # relative; differences of rounded scores that should tie do so only to within rounding
LARGE = 1e150  # the square of anything larger overflows, so it counts as infinite

Interval = tuple[float, float]
Scores = Mapping[str, Mapping[int, float]]
Seeds = Mapping[str, Collection[int]]


def level(look: int = 1, extended: bool = False) -> float:
    """The family-wise level at which look `look` (counted from 1) of a study is tested.

    A study that is looked at once is tested at 0.05. Adding seeds after looking spends alpha: look j of an extended
    study is tested at 0.05 / 2^j, so look 2 at 0.0125 and look 3 at 0.00625. By default the first look is taken as
    the only one (its level can't be lowered after the fact), so over any number of looks at most
    0.05 + 0.0125 + 0.00625 + ... = 0.075 is spent. `extended=True` is for a study announced as extensible before its
    first look: that look is then tested at 0.025, and all looks together spend at most 0.05.
    """
    if look < 1:
        raise BadInput(f"look={look!r}; looks are counted from 1")
    return LEVEL / 2**look if extended or look > 1 else LEVEL


def sign_flip(differences: ArrayLike) -> float:
    """Two-sided p of the mean under random signs: the share of the 2^n sign patterns with |sum| >= the observed one.

    Exact for n <= 40: every sum is one of the first half's plus one of the second half's, so sorting the second
    half's 2^(n/2) sums counts all 2^n patterns. Above, p = (b + 1) / (99 999 + 1) over random patterns of a fixed
    seed (Phipson and Smyth, 2010), never 0. Ties within rounding count as reached, which can only raise p.
    All-zero and empty differences give 1. The smallest p is `smallest_p(n)`. Differences must be finite.
    """
    d = _values(differences)
    threshold = abs(float(d.sum())) - ROUNDING * float(np.abs(d).sum())
    if threshold <= 0:
        return 1.0
    if d.size > EXACT:
        generator = np.random.default_rng(d.size)
        chunks = (min(1000, DRAWS - start) for start in range(0, DRAWS, 1000))
        sums = (generator.choice((-1.0, 1.0), size=(rows, d.size)) @ d for rows in chunks)
        return (sum(int((np.abs(s) >= threshold).sum()) for s in sums) + 1) / (DRAWS + 1)
    first, second = _signed_sums(d[: d.size // 2]), np.sort(_signed_sums(d[d.size // 2 :]))
    reached = second.size * first.size - int(np.searchsorted(second, threshold - first, side="left").sum())
    return 2 * reached / 2**d.size  # the pattern and its opposite


def _signed_sums(d: NDArray[np.float64]) -> NDArray[np.float64]:
    sums = np.zeros(1)
    for value in d:
        sums = np.concatenate((sums + value, sums - value))
    return np.sort(sums)  # sorted queries make the search run through memory in order


def smallest_p(n: int) -> float:
    """The smallest p that `sign_flip` can give for n differences: 2 / 2^n, or 1 / 100 000 where it draws patterns."""
    return min(1.0, 2.0 ** (1 - n) if n <= EXACT else 1 / (DRAWS + 1))


def mcnemar(only_a: int, only_b: int) -> float:
    """Exact two-sided McNemar test: seeds where only a failed against seeds where only b did.

    Seeds where both or neither failed say nothing; of the rest, each side is Binomial(only_a + only_b, 1/2), and
    p = min(1, 2 P(X <= min(only_a, only_b))); 1 where there is none (McNemar, 1947).
    """
    n = only_a + only_b
    return min(1.0, 2 * sum(math.comb(n, k) for k in range(min(only_a, only_b) + 1)) / 2**n)


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down adjusted p-values, in the order given (Holm, 1979).

    With p_(1) <= ... <= p_(m): adjusted p_(k) = max over j <= k of min(1, (m - j + 1) p_(j)). None (a comparison that
    gave no p) stays None, yet counts in m: the family is what was asked, not what turned out to be testable.
    """
    adjusted: list[float | None] = [None] * len(ps)
    highest = 0.0
    for rank, (p, i) in enumerate(sorted((p, i) for i, p in enumerate(ps) if p is not None)):
        highest = max(highest, min(1.0, (len(ps) - rank) * p))
        adjusted[i] = highest
    return adjusted


def t_interval(values: ArrayLike, confidence: float = 0.95) -> Interval | None:
    """mean +- t(1 - (1 - confidence) / 2; n - 1) sd / sqrt(n), or None for fewer than 2 values or infinite ones."""
    from scipy.special import stdtrit  # the quantile of Student's t

    v = _values(values)
    if v.size < 2 or np.abs(v).max() >= LARGE:
        return None
    mean, half = v.mean(), stdtrit(v.size - 1, (1 + confidence) / 2) * v.std(ddof=1) / math.sqrt(v.size)
    return float(mean - half), float(mean + half)


def bootstrap_interval(values: ArrayLike, confidence: float = 0.95, resamples: int = RESAMPLES) -> Interval | None:
    """Bias-corrected and accelerated (BCa) bootstrap interval of the mean (Efron, 1987): information, never a verdict.

    With z_0 the normal quantile of the share of resampled means below the mean (ties count half), and
    a = sum (v - mean)^3 / (6 (sum (v - mean)^2)^(3/2)), the end points are the resampled means' quantiles
    Phi(z_0 + (z_0 + z) / (1 - a (z_0 + z))) at z = -+ z(confidence). Below 10 seeds it covers too rarely.
    The resampled positions depend on n only, never on the data. Equal values give (v, v); fewer than 2, None.
    """
    from scipy.special import ndtr, ndtri

    v = _values(values)
    if v.size < 2 or resamples < 1 or np.abs(v).max() >= LARGE:
        return None
    mean = float(v.mean())
    spread = v - mean
    largest = float(np.abs(spread).max())
    if largest <= ROUNDING * float(np.abs(v).max()):
        return mean, mean
    spread /= largest
    means = spread[_positions(v.size, resamples)].mean(axis=1)
    below = float((means < -ROUNDING).mean() + (np.abs(means) <= ROUNDING).mean() / 2)
    shift, skew = ndtri(below), (spread**3).sum() / (6 * (spread**2).sum() ** 1.5)
    z = ndtri((1 + confidence) / 2)
    if abs(skew) * (abs(shift) + z) < 1:
        tails = [ndtr(shift + (shift + q) / (1 - skew * (shift + q))) for q in (-z, z)]
    else:  # the correction is undefined: the plain percentiles
        tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    low, high = mean + largest * np.quantile(means, tails)
    return float(low), float(high)


@lru_cache(maxsize=4)
def _positions(n: int, resamples: int) -> NDArray[np.int64]:
    return np.random.default_rng((n, resamples)).integers(n, size=(resamples, n))


def seeds_needed(sd: float | None, delta: float, level: float = LEVEL, power: float = POWER) -> int | None:
    """The smallest n at which a paired two-sided t test at `level` finds a true difference `delta` with `power`.

    Power is P(T > t(1 - level / 2; n - 1)) for T noncentral t with n - 1 degrees of freedom and noncentrality
    sqrt(n) delta / sd: significance on the right side. None where sd, the spread of the paired differences, is
    unknown or delta is 0; MOST_SEEDS means "this many or more". It is the power of the test alone: a verdict also
    asks for |mean| >= delta, which a true difference of exactly delta meets half the time.
    """
    from scipy.special import nctdtr, stdtrit  # the noncentral t distribution, the quantile of Student's t

    if sd is None or not math.isfinite(sd) or delta <= 0:
        return None
    effect = delta / max(sd, delta / 50)  # 50 sd are found by the fewest seeds already

    def found(n: int) -> float:  # NaN, which is not below `power`, where it is 1 to rounding
        return float(1 - nctdtr(n - 1, math.sqrt(n) * effect, stdtrit(n - 1, 1 - level / 2)))

    return 2 + bisect_left(range(2, MOST_SEEDS), power, key=found)


@dataclass(frozen=True)
class Attainable:
    """Which verdicts n seeds can reach at all in a family of m comparisons, whatever the scores turn out to be."""

    n: int
    m: int
    look: int
    level: float
    smallest_p: float  # of one comparison
    smallest_holm: float  # the same, Holm-adjusted
    difference: bool  # whether better or worse can be reached
    equivalent: bool
    enough: int  # the fewest seeds with which better or worse can be reached
    sentence: str


def attainable(n: int, m: int, look: int = 1) -> Attainable:
    """What n seeds and m comparisons can say at `level(look)`: p is at least 2 / 2^n, so Holm's at least m 2 / 2^n."""
    if n < 0 or m < 1:
        raise BadInput(f"n={n!r} seeds and m={m!r} comparisons; allowed: n >= 0, m >= 1")
    alpha, least = level(look), smallest_p(n)
    adjusted = min(1.0, m * least)
    difference = n >= MIN_SEEDS and adjusted < alpha
    enough = next(k for k in itertools.count(MIN_SEEDS) if m * 2.0 ** (1 - k) < alpha)
    given = f"{_count(n, 'seed')} and {_count(m, 'comparison')}"
    if n < MIN_SEEDS:
        more = f", {enough} for 'better' or 'worse'" if enough > MIN_SEEDS else ""
        sentence = f"With {given} the only verdict is 'cannot tell': any other needs {MIN_SEEDS} seeds or more{more}."
    elif not difference:
        sentence = (
            f"With {given} nothing can be called better or worse: p can't be smaller than {adjusted:.2g}, "
            f"and it has to be below {alpha:.4g}; {enough} seeds are enough. Equivalence can be shown."
        )
    else:
        sentence = f"With {given} every verdict can be reached: p can be as small as {adjusted:.2g}, below {alpha:.4g}."
    return Attainable(n, m, look, alpha, least, adjusted, difference, n >= MIN_SEEDS, enough, sentence)


def arm_summary(scores: Mapping[int, float]) -> tuple[float | None, Interval | None, int]:
    """Mean, 95 % Student t interval and n of one arm's scores by seed; an infinite score leaves no interval."""
    v = _values([scores[seed] for seed in sorted(scores)])
    return _mean(v), t_interval(v), v.size


@dataclass(frozen=True)
class _Pair:
    """Two arms on the seeds they share. `tested`: the differences, infinite ones capped; `finite`: none was."""

    a: str
    b: str
    differences: dict[int, float]
    tested: NDArray[np.float64]
    finite: bool
    failed: tuple[frozenset[int], frozenset[int]]
    bar: str  # why they are not comparable, else ""


def compare(
    scores: Scores,
    *,
    baseline: str,
    delta: float,
    higher_is_better: bool,
    failed: Seeds | None = None,
    dropped: Seeds | None = None,
    not_comparable: Mapping[str, str] | None = None,
    looks: int = 1,
    all_pairs: bool = False,
    resamples: int = RESAMPLES,
) -> list[Comparison]:
    """Every other arm judged against the baseline, in the order given; with `all_pairs`, then also one another.

    scores: arm -> seed -> score, where failed replicates have the task's `worst`. failed: the seeds at which an arm's
    replicate failed. dropped: seeds lost to a crash of the machinery; a pair is a seed that both arms have and neither
    dropped. not_comparable: arm -> why; its comparisons count in m and are not tested. m = arms - 1, or all pairs.
    resamples=0 leaves the bootstrap out.

    Infinite scores (a task's `worst` may be one): the difference of two equal infinities is 0. For p and verdict an
    infinite difference counts as the largest finite one, at least 2 delta, with its sign: that is an odd function
    of d, so the sign-flip test stays exact. Such a pair has no interval and is never equivalent.
    Runs that all failed in both arms show nothing and give "cannot tell".

    Raises BadInput for a NaN score, a failed seed without a score or a delta below 0, UnknownName for an unknown arm.
    """
    failed, dropped, not_comparable = failed or {}, dropped or {}, not_comparable or {}
    _check(scores, baseline, delta, failed, dropped, not_comparable)
    order = [baseline, *(arm for arm in scores if arm != baseline)]
    chosen = [(a, b) for i, b in enumerate(order) for a in order[i + 1 :] if all_pairs or b == baseline]
    pairs = [_pair(a, b, scores, delta, failed, dropped, not_comparable) for a, b in chosen]
    ps = [None if pair.bar or not pair.differences else sign_flip(pair.tested) for pair in pairs]
    rows = zip(pairs, ps, holm(ps), strict=True)
    return [_comparison(*row, len(pairs), looks, delta, higher_is_better, resamples) for row in rows]


def _check(scores: Scores, baseline: str, delta: float, failed: Seeds, dropped: Seeds, why: Mapping[str, str]) -> None:
    for arm in (baseline, *failed, *dropped, *why):
        if arm not in scores:
            raise unknown("arm", arm, scores)
    if not 0 <= delta < LARGE:
        raise BadInput(f"delta={delta!r}; allowed: a finite number, 0 or more, in the metric's units")
    for arm, by_seed in scores.items():
        for seed, value in by_seed.items():
            if math.isnan(value):
                raise BadInput(f"the score of {arm} at seed {seed} is NaN; a failed replicate scores the task's worst")
        lost = set(failed.get(arm, ())) - set(by_seed) - set(dropped.get(arm, ()))
        if lost:
            raise BadInput(f"{arm} failed at seed {min(lost)} but has no score there; give it the task's worst")


def _pair(a: str, b: str, scores: Scores, delta: float, failed: Seeds, dropped: Seeds, barred: Mapping[str, str]) -> _Pair:
    seeds = sorted(set(scores[a]) & set(scores[b]) - set(dropped.get(a, ())) - set(dropped.get(b, ())))
    differences = {s: 0.0 if scores[a][s] == scores[b][s] else float(scores[a][s]) - float(scores[b][s]) for s in seeds}
    d = _values(list(differences.values()))
    finite = np.abs(d) < LARGE
    cap = max(float(np.abs(d[finite]).max(initial=0.0)), 2 * delta) or 1.0
    fails = (frozenset(failed.get(a, ())).intersection(seeds), frozenset(failed.get(b, ())).intersection(seeds))
    bar = "; ".join(f"{arm}: {barred[arm]}" for arm in (a, b) if arm in barred)
    return _Pair(a, b, differences, np.where(finite, d, np.sign(d) * cap), bool(finite.all()), fails, bar)


def _comparison(
    pair: _Pair, p_raw: float | None, p: float | None, m: int, look: int, delta: float, upward: bool, resamples: int
) -> Comparison:
    n, tested = len(pair.differences), pair.tested
    reach, confidence = attainable(n, m, look), 1 - level(look) / m
    interval = None if pair.bar else t_interval(tested, confidence)
    verdict, reason, hint = _judge(pair, interval, p, reach, delta, upward)
    needed = None
    if verdict == "cannot tell" and n >= 2 and pair.finite and tested.any():
        needed = seeds_needed(float(tested.std(ddof=1)), delta, reach.level / m)
    only_a, only_b = pair.failed[0] - pair.failed[1], pair.failed[1] - pair.failed[0]
    return Comparison(
        a=pair.a,
        b=pair.b,
        n=n,
        differences=pair.differences,
        difference=_mean(_values(list(pair.differences.values()))),
        interval=interval if pair.finite else None,
        bootstrap=bootstrap_interval(tested, confidence, resamples) if pair.finite and not pair.bar else None,
        p=p,
        p_raw=p_raw,
        verdict=verdict,
        reason=reason,
        seeds_needed=None if needed is None else max(needed, reach.enough),
        hint=hint,
        failures=(len(pair.failed[0]), len(pair.failed[1])),
        p_failures=mcnemar(len(only_a), len(only_b)) if any(pair.failed) else None,
    )


def _judge(
    pair: _Pair, interval: Interval | None, p: float | None, reach: Attainable, delta: float, upward: bool
) -> tuple[str, str, str]:
    """(verdict, reason, hint) by the rules at the top of this file."""
    a, b, n, alpha = pair.a, pair.b, reach.n, reach.level
    if pair.bar:
        return "not comparable", f"{a} and {b} can't be compared: {pair.bar}.", ""
    if p is None:
        return "cannot tell", f"No seed has a result of both {a} and {b}.", ""
    if min(map(len, pair.failed)) == n:
        return "cannot tell", f"Every run of {a} and of {b} failed ({_count(n, 'seed')}): nothing was compared.", ""
    identical = not pair.tested.any()
    if n < MIN_SEEDS or interval is None:
        reason = f"{a} and {b} share {_count(n, 'seed')}; any verdict needs at least {MIN_SEEDS}."
        return "cannot tell", reason, "identical runs so far: every difference is exactly zero" if identical else ""
    if identical:
        return "equivalent", f"Identical runs: {a} and {b} score exactly the same on all {n} seeds.", ""

    mean, (low, high) = float(pair.tested.mean()), interval
    margin = delta * (1 - ROUNDING)
    significant, apart, matters = p < alpha, low > 0 or high < 0, abs(mean) >= margin
    side = "higher" if mean > 0 else "lower"
    wanted = "higher" if upward else "lower"
    found = f"{a} scores {abs(mean):.3g} {side} than {b} on average"
    if pair.finite:
        found += f" ({100 * (1 - alpha / reach.m):.6g} % interval {low:.3g} to {high:.3g}, p = {p:.2g}, {n} seeds)"
    else:
        found += f" with infinite differences capped at {np.abs(pair.tested).max():.3g} (p = {p:.2g}, {n} seeds)"
    if significant and apart and matters:
        return ("better" if side == wanted else "worse"), f"{found}; {wanted} is better.", ""
    hint = "" if matters or not significant else f"probably real (p = {p:.2g}), but too small to matter"
    if pair.finite and -margin < low and high < margin:
        return "equivalent", f"{found}, all inside {delta:.3g} either way, the least that matters.", hint
    if not (significant or reach.difference):
        why = f"with {n} seeds and {_count(reach.m, 'comparison')} no p is below {alpha:.4g}; {reach.enough} are enough"
    elif not significant:
        why = f"p is not below {alpha:.4g}, so that may be chance"
    elif not matters:
        why = f"less than the {delta:.3g} that matters, but a difference that large isn't ruled out"
    else:
        why = "p is small, but the interval contains 0, because a few seeds differ much more than the others"
    return "cannot tell", f"{found}: {why}.", hint


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _values(values: ArrayLike) -> NDArray[np.float64]:
    return np.asarray(values, dtype=np.float64).reshape(-1)


def _mean(v: NDArray[np.float64]) -> float | None:
    """The mean; infinite if a value is; None without values or with both infinities."""
    if not v.size or (np.isposinf(v).any() and np.isneginf(v).any()):
        return None
    return float(v.mean())
