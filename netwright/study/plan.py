"""The plan: trial points, widths, engine and stacks, decided once and stored with the study."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, final

import torch

from netwright.kinds.task import Task
from netwright.part import BadInput, Misfit
from netwright.streams import derive
from netwright.study.match import match_widths
from netwright.study.records import Run, RunRecord
from netwright.study.spec import ArmSpec, Request, job_key
from netwright.study.work import Job, build_rule

#: Copies in one stack: the gain saturates at about 32 (benchmarks/engines.py), and two workers want equal shares.
STACK = 64
#: Nets above this many parameters are bound by matrix products, where stacking gains nothing on a CPU.
SMALL = 100_000
#: Steps of one stack from which compiling it pays (its 5 to 10 s against what a compiled step saves).
COMPILE_FROM = 40_000
EDGE = 0.1  # the outer share of a range that counts as its edge
DIMENSIONS = 8  # of the Sobol sequence: rate, weight decay, and up to six of a part's own


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

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(row: Mapping[str, Any]) -> Plan:
        return Plan(
            dict(row["engines"]), {k: tuple(v) for k, v in row["widths"].items()}, {k: tuple(v) for k, v in row["lr"].items()},
            {k: (v[0], v[1], int(v[2])) for k, v in row["widened"].items()}, tuple(row["notes"]), row["data_hash"],
        )  # fmt: skip


def make_plan(request: Request, task: Task) -> Plan:
    """Decide widths, engine and ranges for every arm."""
    widths, notes = match_widths(request, task)
    engines, why = choose_engines(request, task, widths)
    families = {arm.rule_family(task) for arm in request.arms}
    lr = {family: (task.lr[family][0], task.lr[family][1]) for family in sorted(families)}
    if request.trials == 1:
        notes = [*notes, "not tuned: every run takes the task's published learning rate"]
    return Plan(engines, widths, lr, {}, (*notes, *why), task.data_hash())


def choose_engines(request: Request, task: Task, widths: Mapping[str, Sequence[int]]) -> tuple[dict[str, str], list[str]]:
    """One engine class for all arms unless a part isn't stackable; `auto` stacks small fully connected nets on a CPU."""
    reasons = {arm.name: why_not_stackable(arm, task) for arm in request.arms}
    wanted = request.engine
    if wanted == "auto":
        small = max(_parameters(task, arm, widths[arm.name]) for arm in request.arms) <= SMALL
        runs = request.trials * len(request.seeds)
        stack = task.host == "mlp" and not task.foreign and small and runs >= 4 and not any(reasons.values())
        wanted = "loop"
        if stack:
            wanted = "stack-compiled" if task.steps >= COMPILE_FROM else "stack"
    if wanted == "loop":
        return {arm.name: "loop" for arm in request.arms}, []
    engines = {arm.name: "loop" if reasons[arm.name] else wanted for arm in request.arms}
    return engines, [f"{name} runs on the loop engine: {why}" for name, why in reasons.items() if why]


def why_not_stackable(arm: ArmSpec, task: Task) -> str:
    """The reason an arm can't be stacked, or ''."""
    if task.per_seed_data:
        return "its data are a function of the seed, so copies share no pool"
    part, _ = arm.filled(task)["rule"]
    return part.tags.why_not_stackable if not part.tags.stackable else ""


def _parameters(task: Task, arm: ArmSpec, widths: Sequence[int]) -> int:
    rule = build_rule(task, arm, 0, widths, meta=True)
    return sum(p.numel() for p in rule.parameters())


# Trial points ---------------------------------------------------------------------------------------------------------


def points(request: Request, task: Task, arm: ArmSpec, plan: Plan, seed: int) -> list[tuple[str, dict[str, Any]]]:
    """(stage, point) of every trial of one replicate: a scrambled Sobol sequence shifted by the seed.

    Shared dimensions (rate, weight decay) are identical for all arms; a part's own dimensions come after them.
    """
    family = arm.rule_family(task)
    if request.trials == 1:
        return [("tune", _point(task, arm, {"lr": task.lr[family][2]}, None))]
    widened = plan.widened.get(family)
    total = request.trials + (widened[2] if widened else 0)
    unit = sobol(total, seed)
    out = []
    for t, u in enumerate(unit):
        lo, hi = plan.lr[family]
        stage = "tune"
        if widened and t >= request.trials:
            stage = "widened"
            lo, hi = (widened[0], lo) if widened[0] < lo else (hi, widened[1])
        out.append((stage, _point(task, arm, {"lr": _log(lo, hi, u[0])}, u)))
    return out


def _point(task: Task, arm: ArmSpec, point: dict[str, Any], u: Sequence[float] | None) -> dict[str, Any]:
    if isinstance(task.weight_decay, tuple):
        lo, hi = task.weight_decay
        point["weight_decay"] = _log(lo, hi, u[1] if u is not None else 0.5)
    if u is None:
        return point
    dimension = 2
    for slot, value in sorted(arm.filled(task).items()):
        if isinstance(value, str):
            continue
        part, options = value
        for option in part.options:
            if option.search is not None and option.name not in options and dimension < DIMENSIONS:
                lo, hi, scale = option.search
                point[f"{slot}.{option.name}"] = _log(lo, hi, u[dimension]) if scale == "log" else lo + (hi - lo) * u[dimension]
                dimension += 1
    return point


def sobol(n: int, seed: int) -> list[list[float]]:
    """n points in [0, 1)^8: one scrambled Sobol sequence for all, shifted modulo 1 by the seed's own vector."""
    base = torch.quasirandom.SobolEngine(DIMENSIONS, scramble=True, seed=20).draw(n, dtype=torch.float64)
    shift = torch.rand(DIMENSIONS, generator=torch.Generator().manual_seed(derive(seed, "tune")), dtype=torch.float64)
    return ((base + shift) % 1.0).tolist()


def _log(lo: float, hi: float, u: float) -> float:
    return float(f"{lo * (hi / lo) ** u:.6g}")  # six digits: the same text, and key, on every machine


# Runs and jobs --------------------------------------------------------------------------------------------------------


def runs_of(request: Request, task: Task, plan: Plan) -> list[Run]:
    """Every run of the request, arm by arm, seed by seed."""
    out = []
    for arm in request.arms:
        engine = "loop" if plan.engines[arm.name] == "loop" else "stack"
        for seed in request.seeds:
            for trial, (stage, point) in enumerate(points(request, task, arm, plan, seed)):
                key = job_key(request, task, arm, seed, {**point, "trial": trial}, plan.widths[arm.name], engine, plan.data_hash)
                out.append(Run(key, arm.name, seed, trial, point, stage))
    return out


def jobs_of(request: Request, task: Task, plan: Plan, todo: Sequence[Run], workers: int = 1) -> list[Job]:
    """Runs that are still to do as jobs: single ones for the loop engine, stacks of up to STACK for the stack engine."""
    jobs = []
    for arm in request.arms:
        mine = [run for run in todo if run.arm == arm.name]
        engine, widths = plan.engines[arm.name], plan.widths[arm.name]
        size = 1 if engine == "loop" or _own_dimensions(task, arm) else STACK
        if size > 1 and mine:
            pieces = max(1, math.ceil(len(mine) / STACK), workers // len(request.arms))
            size = math.ceil(len(mine) / pieces)
        jobs += [Job(request, arm, tuple(mine[i : i + size]), widths, engine) for i in range(0, len(mine), size)]
    return jobs


def _own_dimensions(task: Task, arm: ArmSpec) -> bool:
    """Whether trials differ in more than seed and rate, which a stack does not hold."""
    return any("." in name for name in _point(task, arm, {}, [0.5] * DIMENSIONS)) or isinstance(task.weight_decay, tuple)


def widen(request: Request, task: Task, plan: Plan, records: Sequence[RunRecord]) -> dict[str, tuple[float, float, int]]:
    """Families whose best rate lies in the outer tenth of the range, on the same side, for most seeds of some arm.

    The range grows by half a decade on that side, once, for all arms of the family, with half as many trials again.
    """
    if request.trials == 1:
        return {}
    out: dict[str, tuple[float, float, int]] = {}
    for arm in request.arms:
        family = arm.rule_family(task)
        lo, hi = plan.lr[family]
        low = high = seen = 0
        for seed in request.seeds:
            best = select([r for r in records if r.arm == arm.name and r.seed == seed and r.stage == "tune"], task)
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


def select(records: Sequence[RunRecord], task: Task) -> RunRecord | None:
    """The run with the best validation score at its best evaluation; the earliest trial of equals. None if all failed."""
    best: RunRecord | None = None
    for record in sorted(records, key=lambda r: r.trial):
        if record.state != "done" or record.best_val is None:
            continue
        if best is None or best.best_val is None or task.problem.better(record.best_val, best.best_val):
            best = record
    return best


def check_reach(request: Request) -> None:
    """Raises BadInput where a request cannot be run at all."""
    if request.device.startswith("cuda") and not torch.cuda.is_available():
        raise BadInput(f"device={request.device!r}, but torch sees no CUDA device; use --device cpu")
    try:
        torch.device(request.device)
    except RuntimeError as error:
        raise BadInput(f"device={request.device!r}: {str(error).splitlines()[0]}") from None
    if request.precision == "fp64" and request.device == "mps":
        raise Misfit("precision fp64 does not exist on mps")
