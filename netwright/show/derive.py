"""What the figures and tables count out of the records: order, selection, best-so-far, failures. No drawing here."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from statistics import median

from netwright.bench.records import CRASHES, FAILURES, ArmResult, Comparison, RunRecord, StudyResult
from netwright.show.words import finite


def ranked(result: StudyResult) -> list[ArmResult]:
    """Arms from best to worst mean; those without a mean last, in the order given."""
    sign = -1.0 if result.higher_is_better else 1.0
    return sorted(result.arms, key=lambda arm: (0, sign * arm.mean) if finite(arm.mean) else (1, 0.0))


def against_baseline(result: StudyResult) -> dict[str, Comparison]:
    """arm -> its comparison with the baseline."""
    return {c.a: c for c in result.comparisons if c.b == result.baseline}


def records_by_arm(result: StudyResult) -> dict[str, list[RunRecord]]:
    """arm -> its records by seed and trial, superseded ones left out; every arm has a list."""
    found: dict[str, list[RunRecord]] = {arm.name: [] for arm in result.arms}
    for record in sorted(result.records, key=lambda r: (r.seed, r.trial, r.stage)):
        if record.state != "superseded" and record.arm in found:
            found[record.arm].append(record)
    return found


def selected(result: StudyResult) -> set[tuple[str, int, int]]:
    """(arm, seed, trial) of every trial that validation selected."""
    return {(s.arm, s.seed, s.trial) for s in result.scores if s.trial is not None}


def went_wrong(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Every run that failed or crashed or was cancelled."""
    return [r for r in records if r.state in FAILURES | CRASHES or r.state == "cancelled"]


def validation(record: RunRecord, worst: float) -> float:
    """What the run counts for when a trial is selected: NaN where nothing is known."""
    if record.state in FAILURES:
        return worst
    return record.best_val if record.best_val is not None else math.nan


def expected_best(values: Sequence[float], higher_is_better: bool) -> list[float]:
    """Mean best of k of the n values, drawn without replacement, for k = 1..n.

    With the values sorted from worst to best, the i-th (from 0) is the best of k in C(i, k-1) of the C(n, k) draws.
    """
    ordered = sorted(values, reverse=not higher_is_better)
    n = len(ordered)
    return [sum(math.comb(i, k - 1) * v for i, v in enumerate(ordered) if i >= k - 1) / math.comb(n, k) for k in range(1, n + 1)]


def tuning_curve(records: Sequence[RunRecord], result: StudyResult) -> tuple[list[float], int]:
    """The expected best validation score after 1, 2, ... trials, as a mean over seeds, and how many seeds that is.

    Only seeds with as many known trials as the most any seed has are averaged, so that every point has the same n.
    """
    by_seed: dict[int, list[float]] = defaultdict(list)
    for record in records:
        value = validation(record, result.worst)
        if finite(value):
            by_seed[record.seed].append(value)
    longest = max(map(len, by_seed.values()), default=0)
    curves = [expected_best(v, result.higher_is_better) for v in by_seed.values() if len(v) == longest]
    return [sum(column) / len(curves) for column in zip(*curves, strict=True)], len(curves)


def limits(values: Sequence[float], higher_is_better: bool, share: float = 0.05) -> tuple[float, float] | None:
    """An axis that holds all values but the worst `share`, so that a few failed runs don't flatten the rest."""
    known = sorted(v for v in values if math.isfinite(v))
    if not known:
        return None
    cut = int(len(known) * share)
    kept = (known[cut:] if higher_is_better else known[: len(known) - cut]) or known
    lo, hi = kept[0], kept[-1]
    pad = 0.06 * (hi - lo) or max(abs(hi), 1e-3) * 0.05
    return lo - pad, hi + pad


def score_span(arms: Sequence[ArmResult]) -> tuple[float, float] | None:
    """An axis that holds every mean and every interval but those far wider than is usual in this study."""
    means = [arm.mean for arm in arms if finite(arm.mean)]
    if not means:
        return None
    pairs = [arm.interval for arm in arms if arm.interval is not None and all(map(finite, arm.interval))]
    usual = median(hi - lo for lo, hi in pairs) if pairs else 0.0
    kept = [end for lo, hi in pairs if usual == 0 or hi - lo <= 6 * usual for end in (lo, hi)]
    lo, hi = min(means + kept), max(means + kept)
    pad = 0.05 * (hi - lo) or 0.05 * abs(hi) or 1e-3
    return lo - pad, hi + pad


def paired_span(c: Comparison, delta: float) -> tuple[float, float]:
    """An axis that holds zero, +-delta, every paired difference and the interval."""
    ends = (*c.differences.values(), c.difference, *(c.interval or ()), delta, -delta, 0.0)
    values = [v for v in ends if finite(v)]
    pad = 0.06 * (max(values) - min(values)) or 1e-3
    return min(values) - pad, max(values) + pad


def shared_span(comparisons: Sequence[Comparison], delta: float) -> tuple[float, float] | None:
    """One axis for all comparisons; None where it would flatten most of them."""
    spans = [paired_span(c, delta) for c in comparisons]
    if not spans:
        return None
    lo, hi = min(span[0] for span in spans), max(span[1] for span in spans)
    return (lo, hi) if hi - lo <= 4 * median(span[1] - span[0] for span in spans) else None
