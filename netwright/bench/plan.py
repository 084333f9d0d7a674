"""The plan: trial points, widths, engine and stacks, decided once and stored with the study."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, final

import torch

from netwright.bench.causes import FIRST
from netwright.bench.entrant import DIMENSIONS, SHARED, Entrant
from netwright.bench.jobs import Job, Own, Training
from netwright.bench.match import match_widths
from netwright.bench.records import Run, RunRecord
from netwright.bench.request import Request
from netwright.bench.store.typed import check
from netwright.core.canonical import digest
from netwright.core.kind import OPTIMIZER
from netwright.engine.task import Problem
from netwright.tensor.streams import derive

#: Copies in one stack at most: the gain saturates here (benchmarks/engines.py), and several stacks occupy several cores.
STACK = 32
#: Floating-point operations of a training step up to which a stack beats the loop on a CPU (benchmarks/auto.py).
SMALL = 1e9
#: What one stack has to do before compiling it pays (benchmarks/auto.py): floating-point operations in all, or steps.
COMPILE_FLOPS, COMPILE_STEPS = 2e12, 20_000
EDGE = 0.1  # the outer share of a range that counts as its edge


@final
@dataclass(frozen=True)
class Plan:
    """What was decided before the first run. `widened`: rule family -> (lowest, highest, how many further trials)."""

    engines: Mapping[str, str]  # arm -> engine
    widths: Mapping[str, tuple[int, ...]]
    lr: Mapping[str, tuple[float, float]]
    widened: Mapping[str, tuple[float, float, int]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    data_hash: str = ""
    stack: int = STACK  # copies in one stack
    parts: Mapping[str, str] = field(default_factory=dict)  # arm -> digest of what fills its slots, fingerprints included

    def placed(self, entrants: Sequence[Entrant]) -> list[Entrant]:
        """The entrants at the widths that were decided."""
        return [entrant.at(self.widths[entrant.name]) for entrant in entrants]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(row: Mapping[str, Any]) -> Plan:
        """The inverse of to_json; TypeError and its like where the row is something else."""
        plan = Plan(
            dict(row["engines"]),
            {k: tuple(v) for k, v in row["widths"].items()},
            {k: tuple(v) for k, v in row["lr"].items()},
            {k: (v[0], v[1], int(v[2])) for k, v in row["widened"].items()},
            tuple(row["notes"]),
            row["data_hash"],
            int(row["stack"]),
            dict(row["parts"]),
        )
        check(plan)
        if not set(plan.parts) == set(plan.engines) == set(plan.widths) or plan.stack < 1:
            raise ValueError("it doesn't say the same of every arm")
        if not all(0 < low <= high < math.inf for low, high in plan.lr.values()):
            raise ValueError("a range of rates is none")
        return plan


def make_plan(request: Request, entrants: Sequence[Entrant], old: Plan | None = None) -> Plan:
    """Decide widths, engines, stacks and ranges. An `old` plan is returned itself while its data and parts are the same.

    Where only parts changed, what was decided for the others stays: engine class, stacks, ranges, and the widths of arms
    that are as they were, with a baseline that is as it was.
    """
    data, parts = entrants[0].task.data_hash(), {entrant.name: digest(entrant.slots)[:16] for entrant in entrants}
    if old is not None and (old.data_hash, old.parts) == (data, parts):
        return old
    kept = old if old is not None and old.data_hash == data else None
    still = {name for name in parts if kept and kept.parts[name] == parts[name]}
    if entrants[0].name not in still:
        still = set()
    widths, notes = match_widths(entrants, request.match, {name: kept.widths[name] for name in still} if kept else {})
    placed = [entrant.at(widths[entrant.name]) for entrant in entrants]
    engines, why = choose_engines(request, placed, kept.engines if kept else {})
    lr = {e.family: e.rates[:2] for e in sorted(entrants, key=lambda e: e.family)}
    if request.trials == 1:
        notes.append("not tuned: every run takes the task's published learning rate")
    else:
        notes += [
            f"{e.name}: one run a seed, as {e.parts[OPTIMIZER].part.id} finds its own rate" for e in entrants if not e.tuned
        ]
    notes += [note for entrant in placed if (note := entrant.left_to_others)]
    if kept:
        stale = tuple(f"{name}: " for name in parts if name not in still)
        notes = [*(note for note in kept.notes if not note.startswith(stale)), *notes, *why]
        return replace(kept, engines=engines, widths=widths, notes=tuple(dict.fromkeys(notes)), parts=parts)
    return Plan(engines, widths, lr, {}, (*notes, *why), data, stack_size(request), parts)


def stack_size(request: Request) -> int:
    """Copies in one stack: all runs of an arm in equal pieces of at most STACK."""
    runs = request.trials * len(request.seeds)
    return math.ceil(runs / math.ceil(runs / STACK))


def choose_engines(
    request: Request, entrants: Sequence[Entrant], old: Mapping[str, str] | None = None
) -> tuple[dict[str, str], list[str]]:
    """One engine class for all arms unless a part isn't stackable; `auto` stacks nets whose steps are small.

    old: engines of the plan before; their class stays.
    """
    task, reasons = entrants[0].task, {e.name: e.why_not_stackable(tuned=request.trials > 1) for e in entrants}
    wanted = max(old.values(), key=len) if old else request.engine  # "loop" is the shortest name of an engine
    if wanted == "auto":
        enough = request.trials * len(request.seeds) >= 4 and not task.foreign and not any(reasons.values())
        flops = max(e.flops[0] if e.flops else math.inf for e in entrants) if enough else math.inf
        wanted = "stack" if flops <= SMALL else "loop"
        if wanted == "stack" and (task.steps >= COMPILE_STEPS or flops * task.steps * stack_size(request) >= COMPILE_FLOPS):
            wanted = "stack-compiled"
    if wanted == "loop":
        return {e.name: "loop" for e in entrants}, []
    engines = {e.name: "loop" if reasons[e.name] else wanted for e in entrants}
    return engines, [f"{name} runs on the loop engine: {why}" for name, why in reasons.items() if why]


# Trial points ---------------------------------------------------------------------------------------------------------


def points(entrant: Entrant, plan: Plan, trials: int, seed: int) -> list[tuple[str, dict[str, Any]]]:
    """(stage, point) of every trial of one replicate: a scrambled Sobol sequence shifted by the seed.

    Shared dimensions (rate, weight decay) are identical for all arms; a part's own dimensions come after them.
    """
    family = entrant.family
    if trials == 1 or not entrant.tuned:
        return [("tune", _point(entrant, {"lr": entrant.rates[2]}, None))]
    widened = plan.widened.get(family)
    total = trials + (widened[2] if widened else 0)
    unit = sobol(total, seed)
    out = []
    for t, u in enumerate(unit):
        lo, hi = plan.lr[family]
        stage = "tune"
        if widened and t >= trials:
            stage = "widened"
            lo, hi = (widened[0], lo) if widened[0] < lo else (hi, widened[1])
        out.append((stage, _point(entrant, {"lr": _log(lo, hi, u[0])}, u)))
    return out


def _point(entrant: Entrant, point: dict[str, Any], u: Sequence[float] | None) -> dict[str, Any]:
    """The rate with everything else that is tuned; u = None is the middle of a shared range, and a part's defaults."""
    if isinstance(entrant.task.weight_decay, tuple):
        point["weight_decay"] = _log(*entrant.task.weight_decay, u[1] if u is not None else 0.5)
    if u is None:
        return point
    for (slot, option), v in zip(entrant.searched, u[len(SHARED) :], strict=False):
        assert option.search is not None
        lo, hi, scale = option.search
        value = _log(lo, hi, v) if scale == "log" else float(f"{lo + (hi - lo) * v:.6g}")
        point[f"{slot}.{option.name}"] = round(value) if isinstance(option.default, int) else value
    return point


def sobol(n: int, seed: int) -> list[list[float]]:
    """n points in [0, 1)^8: one scrambled Sobol sequence for all, shifted modulo 1 by the seed's own vector."""
    base = torch.quasirandom.SobolEngine(DIMENSIONS, scramble=True, seed=20).draw(n, dtype=torch.float64)
    shift = torch.rand(DIMENSIONS, generator=torch.Generator().manual_seed(derive(seed, "tune")), dtype=torch.float64)
    return ((base + shift) % 1.0).tolist()


def _log(lo: float, hi: float, u: float) -> float:
    return float(f"{lo * (hi / lo) ** u:.6g}")  # six digits: the same text, and key, on every machine


# Runs and jobs --------------------------------------------------------------------------------------------------------


def runs_of(request: Request, entrants: Sequence[Entrant], plan: Plan) -> list[Run]:
    """Every run of the request, arm by arm, seed by seed."""
    out = []
    for entrant in plan.placed(entrants):
        engine = "loop" if plan.engines[entrant.name] == "loop" else "stack"
        for seed in request.seeds:
            for trial, (stage, point) in enumerate(points(entrant, plan, request.trials, seed)):
                key = entrant.key(seed, {**point, "trial": trial}, engine, plan.data_hash)
                out.append(Run(key, entrant.name, seed, trial, point, stage))
    return out


def jobs_of(entrants: Sequence[Entrant], plan: Plan, runs: Sequence[Run], todo: Collection[str]) -> list[Job]:
    """The runs whose keys are still to do as jobs: single ones for the loop engine, stacks for the stack engine.

    Stacks are cut from all runs, so that a study that was interrupted continues with the stacks it would have had.
    """
    jobs: list[Job] = []
    for entrant in plan.placed(entrants):
        engine = plan.engines[entrant.name]
        size = 1 if engine == "loop" else plan.stack
        for stage in ("tune", "widened"):
            mine = [run for run in runs if run.arm == entrant.name and run.stage == stage]
            for i in range(0, len(mine), size):
                if left := tuple(run for run in mine[i : i + size] if run.key in todo):
                    own = Own(left, entrant.task.call, entrant.name) if entrant.task.call else None
                    jobs.append(own or Training(left, entrant, engine))
    return jobs


def first_things_first(jobs: Sequence[Job]) -> list[Job]:
    """The first jobs of every arm before all others, so that what fails for every arm shows early."""
    met: dict[str, int] = {}
    early: list[Job] = []
    late: list[Job] = []
    for job in jobs:
        arm = job.runs[0].arm
        met[arm] = met.get(arm, 0) + 1
        (early if met[arm] <= FIRST else late).append(job)
    return [*early, *late]


def widen(
    request: Request, entrants: Sequence[Entrant], plan: Plan, records: Sequence[RunRecord]
) -> dict[str, tuple[float, float, int]]:
    """Families whose best rate lies in the outer tenth of the range, on the same side, for most seeds of some arm.

    The range grows by half a decade on that side, once, for all arms of the family, with half as many trials again.
    """
    if request.trials == 1:
        return {}
    out: dict[str, tuple[float, float, int]] = {}
    for entrant in entrants:
        family, problem = entrant.family, entrant.task.problem
        lo, hi = plan.lr[family]
        if lo == hi:
            continue
        low = high = seen = 0
        for seed in request.seeds:
            best = select([r for r in records if r.arm == entrant.name and r.seed == seed and r.stage == "tune"], problem)
            if best is None:
                continue
            seen += 1
            place = math.log(best.point["lr"] / lo) / math.log(hi / lo)
            low, high = low + (place < EDGE), high + (place > 1 - EDGE)
        extra = max(1, request.trials // 2)
        if seen and 2 * high > seen:
            out[family] = (lo, hi * 10**0.5, extra)
        elif seen and 2 * low > seen:
            out.setdefault(family, (lo / 10**0.5, hi, extra))
    return out


def select(records: Sequence[RunRecord], problem: Problem) -> RunRecord | None:
    """The run with the best validation score at its best evaluation; the earliest trial of equals. None if all failed."""
    best: RunRecord | None = None
    for record in sorted(records, key=lambda r: r.trial):
        if record.state != "done" or record.best_val is None:
            continue
        if best is None or best.best_val is None or problem.better(record.best_val, best.best_val):
            best = record
    return best
