"""Study results made of seeded numbers, for tests of the report: a friendly one and nasty ones. Nothing was trained."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from netwright.bench.records import ArmResult, Comparison, Cost, RunRecord, Score, StudyResult

WORST = 0.1
DELTA = 0.005
#: arm -> (best score, best log10 rate, verdict)
ARMS = {
    "toy-base": (0.921, -2.4, ""),
    "toy-north": (0.938, -2.5, "better"),
    "toy-east:alpha=0.5": (0.9225, -2.2, "equivalent"),
    "toy-south": (0.902, -2.8, "worse"),
    "toy-west": (0.928, -2.3, "cannot tell"),
    "toy-centre:learned=true,per=channel": (0.9245, -2.6, "cannot tell"),
}
NASTY = (
    "</script><img src=x onerror=alert(1)>",
    "\x1b[31mred\x1b[0m & \"quoted\" 'name'",
    "[bold red]markup[/] {a} {{7*7}} {% x %}",
    "naïve-été-数-Ω-$x^2$-\\frac{1}{",
    "a" * 40,
    "‮override\x00\n\tand tab",
)


def study(arms: int = 6, seeds: int = 10, trials: int = 5, names: tuple[str, ...] = ()) -> StudyResult:
    """A finished study in which runs at high rates diverge and the last arm fails at one seed altogether."""
    rng = np.random.default_rng(7)
    wanted = [list(ARMS.items())[i % len(ARMS)] for i in range(arms)]
    labels = [names[i] if i < len(names) else name if i < len(ARMS) else f"{name}-{i}" for i, (name, _) in enumerate(wanted)]
    records, scores = [], []
    for arm, (_, (top, peak, _)) in zip(labels, wanted, strict=True):
        for seed in range(seeds):
            level = 0.004 * np.sin(5.0 * seed)
            done = []
            for trial in range(trials):
                log_rate = -4 + 3 * ((trial + 0.37 * seed + 0.1) / trials % 1)
                bad = log_rate > -1.25 or (arm == labels[-1] and seed == 3)
                end = top + level - 0.02 * (log_rate - peak) ** 2 + rng.normal(0, 0.002)
                record = _run(arm, seed, trial, 10**log_rate, float(end), bad, rng)
                records.append(record)
                if record.best_val is not None:
                    done.append(record)
            best = max(done, key=lambda r: r.best_val, default=None)
            value = best.best_val - 0.006 + rng.normal(0, 0.003) if best else WORST
            scores.append(Score(arm, seed, best.trial if best else None, float(value), failed=best is None))
    return _result(labels, [v or "cannot tell" for _, (_, _, v) in wanted], tuple(range(seeds)), trials, records, scores)


def _run(arm: str, seed: int, trial: int, rate: float, end: float, bad: bool, rng: np.random.Generator) -> RunRecord:
    steps = range(50, 601, 50)
    curve = [
        (s, 2.3 * math.exp(-s / 150) + 0.2, end - 0.5 * math.exp(-s * (0.4 + 30 * rate) / 60) + rng.normal(0, 0.003))
        for s in steps
    ]
    key = f"{arm}-{seed}-{trial}"
    point = {"lr": rate, "weight_decay": 1e-4}
    if bad:
        return RunRecord(
            key,
            arm,
            seed,
            trial,
            point,
            "diverged",
            tuple(curve[:3]),
            bad_step=163,
            bad_module="blocks.1",
            error="the loss of step 163 is not finite",
            seconds=0.4,
        )
    best = max(curve, key=lambda row: row[2])
    return RunRecord(key, arm, seed, trial, point, "done", tuple(curve), best[0], float(best[2]), seconds=1.9, memory=3_500_000)


def _result(labels, verdicts, seeds, trials, records, scores) -> StudyResult:
    by_arm = {arm: {s.seed: s.value for s in scores if s.arm == arm} for arm in labels}
    arms, comparisons = [], []
    for i, arm in enumerate(labels):
        values = np.array(list(by_arm[arm].values()))
        half = 2.26 * values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else None
        cost = Cost(
            arm,
            12_810 + 64 * i,
            128,
            2.4e6 * (1 + i / 9),
            0.8e6,
            0.00061 * (1 + 0.13 * i),
            (0.0006, 0.0007 + i / 2e4),
            1 + 0.13 * i,
            0.00019,
            1_450_000 + 250_000 * (i % 3),
            (64, 64 - i),
        )
        failed = sum(s.failed for s in scores if s.arm == arm)
        spread = (values.mean() - half, values.mean() + half) if half is not None else None
        arms.append(
            ArmResult(
                arm,
                {"activation": f"activation/{arm}"},
                by_arm[arm],
                float(values.mean()),
                spread,
                len(values),
                failed,
                cost,
            )
        )
        if i:
            comparisons.append(_comparison(arm, labels[0], by_arm, "cannot tell" if failed else verdicts[i], failed))
    grid = np.linspace(-5, 5, 101)
    shapes = {
        a: tuple((x, x / (1 + math.exp(-(1 + i) * x)), 1 / (1 + math.exp(-(1 + i) * x))) for x in grid)
        for i, a in enumerate(labels)
    }
    return StudyResult(
        "5f2a9c1d7e3b",
        "toy-base against five others on toy points",
        "task/toy:size=small",
        "Ten classes of points on interleaved arcs; a two-layer perceptron.",
        "accuracy",
        True,
        WORST,
        DELTA,
        labels[0],
        seeds,
        trials,
        "params",
        tuple(arms),
        tuple(comparisons),
        tuple(records),
        tuple(scores),
        1,
        0.05,
        "stack",
        ("The range of learning rates was widened once for all arms: the best rate lay at its edge for 7 seeds.",),
        {"python": "3.11.7", "torch": "2.13.0", "machine": "x86_64, 2 cores", "threads": "1"},
        "netwright compare toy-base toy-north --task toy --seeds 10 --tune 5",
        "2026-01-02T03:04:05Z",
        431.0,
        1.004,
        shapes,
        {a: (12_000, 12_810) for a in labels},
        {a: "A. Author and B. Author, A Title (2024), arXiv:2401.00001" for a in labels[:2]},
    )


def _comparison(a: str, b: str, by_arm, verdict: str, failed: int) -> Comparison:
    differences = {s: by_arm[a][s] - by_arm[b][s] for s in by_arm[a]}
    values = np.array(list(differences.values()))
    mean, half = float(values.mean()), 3.2 * float(values.std()) / math.sqrt(len(values))
    reasons = {
        "better": "Every one of the paired differences points the same way and the interval lies above zero.",
        "worse": "The interval of the paired difference lies below zero.",
        "equivalent": "The whole interval lies within the smallest difference that matters.",
        "cannot tell": "The interval holds both zero and differences that would matter.",
    }
    unsure = verdict == "cannot tell"
    return Comparison(
        a,
        b,
        len(values),
        differences,
        mean,
        (mean - half, mean + half),
        (mean - 0.9 * half, mean + 0.9 * half),
        0.21 if unsure else 0.0098,
        0.05,
        verdict,
        reasons[verdict],
        24 if unsure else None,
        "probably real (p = 0.05), but too small to matter" if unsure and failed else "",
        (failed, 0),
        1.0 if failed else None,
    )


def nasty() -> StudyResult:
    """Hostile names everywhere a name or a message can stand."""
    made = study(len(NASTY), 6, 3, NASTY)
    evil = NASTY[0]
    records = tuple(replace(r, error=evil, bad_module=evil) if r.error else r for r in made.records)
    return replace(
        made,
        title=evil,
        task=evil,
        task_summary=evil,
        metric="<b>acc</b>",
        notes=(evil, "two\nlines \x1b[2J"),
        records=records,
        environment={evil: evil},
        command=f"netwright compare '{evil}'",
        papers={evil: f"{evil} arXiv:2401.00001"},
        comparisons=tuple(replace(c, reason=evil, hint=evil) for c in made.comparisons),
    )


def empty_handed() -> StudyResult:
    """NaN and None wherever the records allow them."""
    made = study(3, 6, 2)
    nan = math.nan
    arms = tuple(
        replace(
            a,
            mean=(None, nan, math.inf)[i],
            interval=(None, (nan, nan), (-math.inf, math.inf))[i],
            cost=(None, Cost(a.name), None)[i],
        )
        for i, a in enumerate(made.arms)
    )
    comparisons = tuple(
        replace(
            c,
            differences={0: nan, 1: math.inf},
            difference=(None, nan)[i],
            interval=(None, (nan, nan))[i],
            p=(None, nan)[i],
            seeds_needed=None,
        )
        for i, c in enumerate(made.comparisons)
    )
    records = tuple(replace(r, curve=((50, nan, nan), (100, nan, math.inf)), best_val=nan, point={}) for r in made.records)
    return replace(
        made,
        arms=arms,
        comparisons=comparisons,
        records=records,
        delta=nan,
        level=nan,
        curves={},
        shared_init={},
        papers={},
        seconds=None,
        aa_ratio=None,
        environment={},
        notes=(),
        started="",
        task_summary="",
    )


def all_failed() -> StudyResult:
    """Every run diverged or crashed; every replicate scores the task's worst."""
    made = study(3, 6, 3)
    states = ("diverged", "oom", "timeout", "failed", "lost")
    records = tuple(
        replace(r, state=states[i % 5], curve=(), best_val=None, best_step=None, error="no memory left")
        for i, r in enumerate(made.records)
    )
    scores = tuple(Score(s.arm, s.seed, None, WORST, True) for s in made.scores)
    arms = tuple(
        replace(a, scores={s: WORST for s in a.scores}, mean=WORST, interval=(WORST, WORST), failed=a.n) for a in made.arms
    )
    comparisons = tuple(
        replace(
            c,
            differences={s: 0.0 for s in c.differences},
            difference=0.0,
            interval=(0.0, 0.0),
            verdict="not comparable",
            failures=(6, 6),
            p=1.0,
        )
        for c in made.comparisons
    )
    return replace(made, arms=arms, comparisons=comparisons, records=records, scores=scores, curves={})


def single() -> StudyResult:
    """One arm, nothing to compare it with."""
    return study(1, 6, 1)
