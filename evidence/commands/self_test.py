"""Does the bench tell truth from noise? Studies of small moons whose answer is known, through the whole procedure.

    python evidence/commands/self_test.py [--studies 400] [--planted 50] [--budget MINUTES] [--out evidence/self_test.json]

identity     one part under two names, same streams: every difference is 0, the verdict says "identical runs"
false_alarm  the same part twice, arm B with initial values, order and draws of its own, 10 seeds a study, tuning and
             widening included: the share of studies that call B better or worse
power        the last studies again, arm B's test scores handicapped by 2 sd of the paired differences: how many are
             called worse

Studies of the false alarm share stacks with one another, which changes nothing in a run (tests/test_engines.py); the
first one is also run by netwright.compare and has to give the same differences. Finished studies are kept: the command
continues where it was stopped, and starts anew where the code or the data changed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from scipy.stats import beta

from netwright.bench import jobs, stats
from netwright.bench import plan as planning
from netwright.bench.entrant import Entrant, enter_all
from netwright.bench.environment import environment
from netwright.bench.records import TEST, Run, RunRecord
from netwright.bench.request import ArmSpec, Request, Terms, make_request, open_task
from netwright.bench.store.lending import SWITCH
from netwright.compare import compare
from netwright.core.writing import write_whole
from netwright.engine.task import Task

TASK, SEEDS, TRIALS = "moons", 10, 3
BATCH = 20  # studies trained together
COPIES = 200  # in one stack
ARMS = (ArmSpec("A"), ArmSpec("B", rekey=1))
HANDICAP = 2.0  # sd of the paired differences
OUT = Path(__file__).parents[1] / "self_test.json"


def request_for(task: Task, seeds: Sequence[int]) -> Request:
    """A versus B at these seeds."""
    return make_request(task, TASK, {}, ARMS, Terms(seeds=list(seeds), trials=TRIALS, engine="stack"))


def perform(entrants: Sequence[Entrant], plan: planning.Plan, runs: Sequence[Run], kept: dict[str, RunRecord]) -> None:
    """Trains runs in stacks of COPIES; kept gathers their records by key."""
    for job in planning.jobs_of(entrants, replace(plan, stack=COPIES), runs, {run.key for run in runs}):
        result = jobs.perform(job)
        if result.redo:
            raise RuntimeError(f"a stack was refused: {result.why}")
        kept.update({record.key: record for record in result.records})


def study_seeds(i: int) -> range:
    """The seeds of study i."""
    return range(SEEDS * i, SEEDS * (i + 1))


def batch(task: Task, studies: Sequence[int]) -> list[dict[str, Any]]:
    """Studies from trial points to verdicts."""
    request = request_for(task, [seed for i in studies for seed in study_seeds(i)])
    entrants = enter_all(task, request)
    plan = planning.make_plan(request, entrants)
    kept: dict[str, RunRecord] = {}
    perform(entrants, plan, planning.runs_of(request, entrants, plan), kept)
    plans = {}
    for i in studies:
        mine = request_for(task, study_seeds(i))
        widened = planning.widen(mine, entrants, plan, list(kept.values()))
        plans[i] = replace(plan, widened=widened)
    more = [
        run
        for i in studies
        if plans[i].widened
        for run in planning.runs_of(request_for(task, study_seeds(i)), entrants, plans[i])
        if run.key not in kept
    ]
    perform(entrants, plan, more, kept)
    return [judged(i, plan.placed(entrants), kept, bool(plans[i].widened)) for i in studies]


def judged(i: int, entrants: Sequence[Entrant], kept: dict[str, RunRecord], widened: bool) -> dict[str, Any]:
    """One study's row: its paired test differences B - A and its verdict."""
    scores: dict[str, dict[int, float]] = {arm.name: {} for arm in ARMS}
    failed: dict[str, set[int]] = {arm.name: set() for arm in ARMS}
    task = entrants[0].task
    for entrant in entrants:
        name = entrant.name
        for seed in study_seeds(i):
            best = planning.select([r for r in kept.values() if (r.arm, r.seed) == (name, seed)], task.problem)
            value = best.sealed[TEST] if best else None
            if value is None:
                failed[name].add(seed)
            scores[name][seed] = task.problem.worst if value is None else value
    verdict = verdict_of(task, scores["A"], scores["B"], failed)
    differences = [round(scores["B"][s] - scores["A"][s], 6) for s in study_seeds(i)]
    return {"study": i, "verdict": verdict, "widened": widened, "differences": differences}


def verdict_of(task: Task, a: dict[int, float], b: dict[int, float], failed: dict[str, set[int]] | None = None) -> str:
    """What stats says of B against A."""
    problem = task.problem
    (row,) = stats.compare(
        {"A": a, "B": b}, baseline="A", delta=problem.delta, higher_is_better=problem.higher_is_better, failed=failed, resamples=0
    )
    return row.verdict


def identity(task: Task) -> dict[str, Any]:
    """One part under two names, on both engines."""
    out: dict[str, Any] = {}
    for engine in ("loop", "stack"):
        with tempfile.TemporaryDirectory() as folder:
            twins = (ArmSpec("A"), ArmSpec("B"))
            result = compare(twins, TASK, seeds=6, trials=2, engine=engine, match="none", out=folder)
        (row,) = result.comparisons
        out[engine] = {
            "differences": sorted(set(row.differences.values())),
            "verdict": row.verdict,
            "p": row.p,
            "reason": row.reason,
        }
    out["passed"] = all(row["differences"] == [0.0] and row["verdict"] == "equivalent" for row in out.values())
    return out


def same_as_compare(task: Task, row: dict[str, Any]) -> bool:
    """Whether netwright.compare, alone and with stacks of its own, finds the differences of this row."""
    with tempfile.TemporaryDirectory() as folder:
        seeds = list(study_seeds(row["study"]))
        result = compare(ARMS, TASK, seeds=seeds, trials=TRIALS, engine="stack", out=folder)
    (found,) = result.comparisons
    return [round(found.differences[s], 6) for s in seeds] == row["differences"] and found.verdict == row["verdict"]


def false_alarm(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How many studies call the twin better or worse, with exact one-sided 95 % bounds (Clopper-Pearson) of the share."""
    n, k = len(rows), sum(row["verdict"] in ("better", "worse") for row in rows)
    lower = float(beta.ppf(0.05, k, n - k + 1)) if k else 0.0
    upper = float(beta.ppf(0.95, k + 1, n - k)) if k < n else 1.0
    verdicts = {v: sum(row["verdict"] == v for row in rows) for v in ("better", "worse", "equivalent", "cannot tell")}
    return {
        "studies": n,
        "called": k,
        "share": k / n,
        "lower_bound": lower,
        "upper_bound": upper,
        "verdicts": verdicts,
        "widened": sum(row["widened"] for row in rows),
        "at_most_0.05": upper <= 0.05,
        "above_0.05": lower > 0.05,
    }


def power(task: Task, rows: Sequence[dict[str, Any]], planted: int) -> dict[str, Any]:
    """How many of the last studies call B worse when its test scores carry a handicap of 2 sd."""
    spread = statistics.pstdev([d for row in rows for d in row["differences"]])
    handicap = HANDICAP * spread * (-1 if task.problem.higher_is_better else 1)
    verdicts = []
    for row in rows[-planted:]:
        seeds = study_seeds(row["study"])
        b = {s: d + handicap for s, d in zip(seeds, row["differences"], strict=True)}
        verdicts.append(verdict_of(task, dict.fromkeys(seeds, 0.0), b))
    worse = verdicts.count("worse")
    return {
        "studies": len(verdicts),
        "sd": spread,
        "handicap": handicap,
        "called_worse": worse,
        "share": worse / len(verdicts),
        "passed": worse >= 0.9 * len(verdicts),
    }


def write(path: Path, row: dict[str, Any]) -> None:
    """The file, one study a line."""
    rest = json.dumps({k: v for k, v in row.items() if k != "rows"}, indent=1)
    lines = ",\n".join(f"  {json.dumps(r)}" for r in row["rows"])
    write_whole(path, f'{rest[:-2]},\n "rows": [\n{lines}\n ]\n}}\n')


def main(given: Sequence[str] | None = None) -> int:
    """0 where every test passed on all studies asked for, 1 otherwise."""
    os.environ[SWITCH] = "0"  # who compares two studies doesn't want one of them
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--studies", type=int, default=400)
    arguments.add_argument("--planted", type=int, default=50)
    arguments.add_argument("--budget", type=float, default=float("inf"), metavar="MINUTES")
    arguments.add_argument("--out", type=Path, default=OUT)
    options = arguments.parse_args(given)
    begun, task = time.monotonic(), open_task(TASK, {})
    first = request_for(task, study_seeds(0))
    entrants = enter_all(task, first)
    key = planning.runs_of(first, entrants, planning.make_plan(first, entrants))[0].key
    old = json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else {}
    if old.get("key") != key:
        old = {}
    rows: list[dict[str, Any]] = old.get("rows", [])[: options.studies]
    spent = old.get("seconds", 0.0)
    while len(rows) < options.studies:
        if time.monotonic() - begun > 60 * options.budget:
            print(f"stopped after {len(rows)} of {options.studies} studies; the same command continues")
            break
        wanted = range(len(rows), min(len(rows) + BATCH, options.studies))
        start = time.process_time()
        rows += batch(task, wanted)
        spent += time.process_time() - start
        write(options.out, {"key": key, "seconds": spent, "rows": rows})
        print(f"{len(rows)}/{options.studies} studies, {spent:.0f} s of processor time", flush=True)
    if not rows:
        return 1
    answer = {
        "key": key,
        "task": TASK,
        "seeds": SEEDS,
        "trials": TRIALS,
        "seconds": spent,
        "environment": environment(),
        "identity": identity(task),
        "same_as_compare": same_as_compare(task, rows[0]),
        "false_alarm": false_alarm(rows),
        "power": power(task, rows, options.planted),
        "rows": rows,
    }
    write(options.out, answer)
    for name in ("identity", "same_as_compare", "false_alarm", "power"):
        print(f"{name}: {json.dumps(answer[name])}")
    passed = answer["identity"]["passed"] and answer["same_as_compare"] and answer["power"]["passed"]
    return 0 if passed and not answer["false_alarm"]["above_0.05"] and len(rows) == options.studies else 1


if __name__ == "__main__":
    sys.exit(main())
