"""How often the verdicts of netwright.bench.stats are wrong, and how often right: simulated studies with known truth.

    python evidence/commands/stats_tables.py [--studies 20000] [--out evidence/stats_tables.json]

A study is m arms and a baseline at n seeds; every score is drawn independently, so the m differences share the
baseline's scores and correlate by 1/2, as in a real study. Differences are normal, heavy-tailed (Student t with
3 degrees of freedom for each score) or tied (scores rounded to whole standard deviations).

Tables
    null         no arm differs: the share of studies in which any arm is called better or worse, at delta = 0, the
                 hardest setting; beside it the t intervals (Bonferroni) alone, sign-flip with Holm alone, and
                 `at_most`, which no distribution can exceed: m times the largest sign-flip p below 0.05 / m
    power        the first arm is better by 1 or 2 sd of the paired difference, delta is half of that
    equivalence  the share called equivalent when the true difference is 0, and (wrongly) when it is exactly delta
    looks        no arm differs and seeds are added until something is found: by the declared levels, and at 0.05 always
    coverage     of 95 % intervals of the mean: Student t, and the BCa bootstrap

The verdicts are computed for all studies at once by a second, plain writing (every sign pattern times every
difference); in every cell the first studies are also judged by netwright.bench.stats.compare, which has to agree.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray
from scipy import stats as scipy_stats

from netwright.bench import stats
from netwright.core.writing import check_target, write_whole

Array = NDArray[np.float64]
SEED = 20_260
DISTRIBUTIONS = ("normal", "heavy-tailed", "tied")
SEEDS, COMPARISONS = (6, 10), (1, 5, 20)
JUDGED = 20  # studies of each cell that compare() judges too
WORDS = np.array(["cannot tell", "better", "worse", "equivalent"])


def rounded_variance() -> float:
    """Variance of a standard normal number rounded to the nearest integer."""
    k = np.arange(-12, 13)
    return float((k**2 * (scipy_stats.norm.cdf(k + 0.5) - scipy_stats.norm.cdf(k - 0.5))).sum())


SPREAD = {"normal": 2**0.5, "heavy-tailed": 6**0.5, "tied": (2 * rounded_variance()) ** 0.5}  # sd of a difference


def scores(distribution: str, shape: tuple[int, ...], generator: np.random.Generator) -> Array:
    """Independent scores around 0."""
    if distribution == "heavy-tailed":
        return generator.standard_t(3, size=shape)
    drawn = generator.standard_normal(shape)
    return np.round(drawn) if distribution == "tied" else drawn


def sign_flip(d: Array) -> Array:
    """The two-sided sign-flip p of every row of d (rows, n), by all 2^(n-1) patterns whose first sign is +."""
    n = d.shape[1]
    patterns = np.array([(1, *rest) for rest in itertools.product((1, -1), repeat=n - 1)], dtype=np.float64).T
    out = np.empty(len(d))
    step = max(1, 4_000_000 // patterns.shape[1])
    for i in range(0, len(d), step):
        sums, slack = np.abs(d[i : i + step] @ patterns), 1e-9 * np.abs(d[i : i + step]).sum(axis=1, keepdims=True)
        out[i : i + step] = (sums >= np.abs(d[i : i + step].sum(axis=1, keepdims=True)) - slack).mean(axis=1)
    return out


def holm(p: Array) -> Array:
    """Holm-adjusted p of every row (studies, m)."""
    order = np.argsort(p, axis=1)
    factors = np.arange(p.shape[1], 0, -1)
    adjusted = np.maximum.accumulate(np.minimum(1, factors * np.take_along_axis(p, order, 1)), axis=1)
    out = np.empty_like(p)
    np.put_along_axis(out, order, adjusted, 1)
    return out


def judge(d: Array, delta: float, level: float = 0.05) -> dict[str, Array]:
    """Verdicts on differences d (studies, m, n), higher is better, with what they rest on."""
    studies, m, n = d.shape
    mean, sd = d.mean(axis=2), d.std(axis=2, ddof=1)
    half = scipy_stats.t.ppf(1 - level / m / 2, n - 1) * sd / n**0.5
    low, high = mean - half, mean + half
    p = holm(sign_flip(d.reshape(-1, n)).reshape(studies, m))
    apart = (low > 0) | (high < 0)
    told = (p < level) & apart & (np.abs(mean) >= delta * (1 - 1e-9))
    identical = (d == 0).all(axis=2)
    equivalent = ~told & (identical | ((low > -delta) & (high < delta)))
    verdict = np.where(told, np.where(mean > 0, 1, 2), np.where(equivalent, 3, 0))
    return {"verdict": verdict, "p": p, "apart": apart, "covers": (low <= 0) & (high >= 0)}


def check(values: Array, delta: float, verdict: Array) -> None:
    """The first studies of a cell, values (studies, m + 1, n), through netwright.bench.stats.compare: both must agree."""
    for study, expected in zip(values[:JUDGED], verdict[:JUDGED], strict=True):
        arms = {f"arm {i}": dict(enumerate(map(float, row))) for i, row in enumerate(study)}
        found = stats.compare(arms, baseline="arm 0", delta=delta, higher_is_better=True, resamples=0)
        if [c.verdict for c in found] != list(WORDS[expected]):
            raise SystemExit(f"compare() says {[c.verdict for c in found]}, the tables {list(WORDS[expected])}")


def rate(hits: ArrayLike) -> float:
    return round(float(np.asarray(hits, dtype=np.float64).mean()), 5)


def share(hits: ArrayLike) -> dict[str, float | int]:
    """Count, share, and the one-sided 95 % binomial (Clopper-Pearson) upper bound of the share."""
    k, n = int(np.sum(hits)), np.size(hits)
    bound = 1.0 if k == n else float(scipy_stats.beta.ppf(0.95, k + 1, n - k))
    return {"count": k, "share": rate(hits), "upper": round(bound, 5)}


def cells(studies: int, table: int) -> Iterator[tuple[str, int, int, Array]]:
    """(distribution, m, n, scores) of every cell, each from its own generator: no cell's numbers depend on another."""
    for i, distribution in enumerate(DISTRIBUTIONS):
        for m, n in itertools.product(COMPARISONS, SEEDS):
            generator = np.random.default_rng((SEED, table, i, m, n))
            yield distribution, m, n, scores(distribution, (studies, m + 1, n), generator)


def null(studies: int) -> list[dict[str, Any]]:
    rows = []
    for distribution, m, n, values in cells(studies, 0):
        found = judge(values[:, 1:] - values[:, :1], 0.0)
        check(values, 0.0, found["verdict"])
        told = np.isin(found["verdict"], (1, 2)).any(axis=1)
        row = {"scores": distribution, "m": m, "n": n, "reachable": stats.attainable(n, m).difference}
        patterns = 2 ** (n - 1)
        row |= {"at_most": round(m * (math.ceil(0.05 / m * patterns) - 1) / patterns, 5)}
        row |= {"verdict": share(told), "t_alone": share(found["apart"].any(axis=1))}
        row |= {"sign_flip_alone": share((found["p"] < 0.05).any(axis=1))}
        rows.append(row | {"interval_covers_0": rate(found["covers"])})
    return rows


def power(studies: int) -> list[dict[str, Any]]:
    rows = []
    for effect, (distribution, m, n, values) in itertools.product((1, 2), cells(studies, 1)):
        values = values.copy()
        shift = effect * SPREAD[distribution]
        values[:, 1] += shift
        verdict = judge(values[:, 1:] - values[:, :1], shift / 2)["verdict"]
        check(values, shift / 2, verdict)
        row = {"scores": distribution, "effect_sd": effect, "m": m, "n": n}
        row |= {"better": rate(verdict[:, 0] == 1), "worse": rate(verdict[:, 0] == 2)}
        rows.append(row | {"any_other_called": rate(np.isin(verdict[:, 1:], (1, 2)).any(axis=1))})
    return rows


def equivalence(studies: int) -> list[dict[str, Any]]:
    rows = []
    for delta_sd, (distribution, m, n, values) in itertools.product((1, 2), cells(studies, 2)):
        delta = delta_sd * SPREAD[distribution]
        row: dict[str, Any] = {"scores": distribution, "delta_sd": delta_sd, "m": m, "n": n}
        for name, shift in (("true_0", 0.0), ("true_delta", delta)):
            moved = values + shift * (np.arange(m + 1) > 0)[:, None]
            verdict = judge(moved[:, 1:] - moved[:, :1], delta)["verdict"]
            check(moved, delta, verdict)
            row[name] = rate(verdict[:, 0] == 3)
        rows.append(row)
    return rows


def looks(studies: int) -> list[dict[str, Any]]:
    rows, sizes = [], (6, 10, 14)
    for i, distribution in enumerate(DISTRIBUTIONS):
        values = scores(distribution, (studies, 2, sizes[-1]), np.random.default_rng((SEED, 3, i)))
        d = values[:, 1:] - values[:, :1]
        row: dict[str, Any] = {"scores": distribution, "n_at_looks": sizes}
        for name, levels in (("declared", [stats.level(j) for j in (1, 2, 3)]), ("always_0.05", [stats.LEVEL] * 3)):
            told = [np.isin(judge(d[:, :, :n], 0.0, at)["verdict"], (1, 2)) for n, at in zip(sizes, levels, strict=True)]
            row[name] = {"levels": levels, **share(np.any(told, axis=0))}
        rows.append(row)
    return rows


def coverage(studies: int) -> list[dict[str, Any]]:
    rows = []
    for i, distribution in enumerate(DISTRIBUTIONS):
        for n in (3, 6, 10, 20):
            values = scores(distribution, (studies, n), np.random.default_rng((SEED, 4, i, n)))
            row: dict[str, Any] = {"scores": distribution, "n": n, "studies": studies}
            for name, interval in (("t", stats.t_interval), ("bca", stats.bootstrap_interval)):
                ends = np.array([interval(row) for row in values])
                row[name] = rate((ends[:, 0] <= 0) & (ends[:, 1] >= 0))
            rows.append(row)
    return rows


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=20_000, help="studies in each cell")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "stats_tables.json")
    options = parser.parse_args(arguments)
    check_target(options.out)  # before the work that would be lost with it
    tables = {make.__name__: make(options.studies) for make in (null, power, equivalence, looks)}
    tables["coverage"] = coverage(max(1, options.studies // 10))
    result = {
        "command": f"python evidence/commands/stats_tables.py --studies {options.studies}",
        "about": " ".join(__doc__.split("\n\n")[2].split()),
        "studies": options.studies,
        "seed": SEED,
        "versions": {"python": platform.python_version(), "numpy": np.__version__, "scipy": scipy.__version__},
    }
    # One row a line: short, and a changed number shows as one changed line.
    body = [json.dumps(key) + ": " + json.dumps(value) for key, value in result.items()]
    for name, rows in tables.items():
        body.append(f'"{name}": [\n  ' + ",\n  ".join(map(json.dumps, rows)) + "\n ]")
    write_whole(options.out, "{\n " + ",\n ".join(body) + "\n}\n")
    return result | tables


if __name__ == "__main__":
    worst = max(main()["null"], key=lambda row: row["verdict"]["upper"])
    sys.stdout.write(f"largest share of false calls: {worst}\n")
