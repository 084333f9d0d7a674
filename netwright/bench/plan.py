"""The plan: trial points, widths, engine and stacks, decided once and stored with the study."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, final

import torch

from netwright.bench.match import match_widths
from netwright.bench.records import Run, RunRecord
from netwright.bench.request import ArmSpec, Request, job_key, slots_key
from netwright.bench.work import Job, build_rule
from netwright.core.canonical import digest
from netwright.core.errors import BadInput, Misfit, NetwrightError
from netwright.core.part import Option
from netwright.engine.meter import flops_of
from netwright.engine.task import Task
from netwright.tensor.streams import derive

#: Copies in one stack at most: the gain saturates here (benchmarks/engines.py), and several stacks occupy several cores.
STACK = 32
#: Floating-point operations of a training step up to which a stack beats the loop on a CPU (benchmarks/auto.py).
SMALL = 1e9
#: What one stack has to do before compiling it pays (benchmarks/auto.py): floating-point operations in all, or steps.
COMPILE_FLOPS, COMPILE_STEPS = 2e12, 20_000
EDGE = 0.1  # the outer share of a range that counts as its edge
SHARED, DIMENSIONS = 2, 8  # of the Sobol sequence: rate and weight decay, then up to six of a part's own


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

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(row: Mapping[str, Any]) -> Plan:
        return Plan(
            dict(row["engines"]), {k: tuple(v) for k, v in row["widths"].items()}, {k: tuple(v) for k, v in row["lr"].items()},
            {k: (v[0], v[1], int(v[2])) for k, v in row["widened"].items()}, tuple(row["notes"]), row["data_hash"],
            int(row["stack"]), dict(row["parts"]),
        )  # fmt: skip


def make_plan(request: Request, task: Task, old: Plan | None = None) -> Plan:
    """Decide widths, engines, stacks and ranges. An `old` plan is returned itself while its data and parts are the same.

    Where only parts changed, what was decided for the others stays: engine class, stacks, ranges, and the widths of arms
    that are as they were, with a baseline that is as it was.
    """
    data, parts = task.data_hash(), {arm.name: digest(slots_key(arm, task))[:16] for arm in request.arms}
    if old is not None and (old.data_hash, old.parts) == (data, parts):
        return old
    kept = old if old is not None and old.data_hash == data else None
    still = {name for name in parts if kept and kept.parts[name] == parts[name]}
    if request.arms[0].name not in still:
        still = set()
    widths, notes = match_widths(request, task, {name: kept.widths[name] for name in still} if kept else {})
    engines, why = choose_engines(request, task, widths, kept.engines if kept else {})
    families = sorted({arm.rule_family(task) for arm in request.arms})
    lr = {family: (task.lr[family][0], task.lr[family][1]) for family in families}
    if request.trials == 1:
        notes.append("not tuned: every run takes the task's published learning rate")
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
    request: Request, task: Task, widths: Mapping[str, Sequence[int]], old: Mapping[str, str] | None = None
) -> tuple[dict[str, str], list[str]]:
    """One engine class for all arms unless a part isn't stackable; `auto` stacks nets whose steps are small.

    old: engines of the plan before; their class stays.
    """
    reasons = {arm.name: why_not_stackable(request, task, arm) for arm in request.arms}
    wanted = max(old.values(), key=len) if old else request.engine  # "loop" is the shortest name of an engine
    if wanted == "auto":
        enough = request.trials * len(request.seeds) >= 4 and not task.foreign and not any(reasons.values())
        flops = max(_flops(task, arm, widths[arm.name]) for arm in request.arms) if enough else math.inf
        wanted = "stack" if flops <= SMALL else "loop"
        if wanted == "stack" and (task.steps >= COMPILE_STEPS or flops * task.steps * stack_size(request) >= COMPILE_FLOPS):
            wanted = "stack-compiled"
    if wanted == "loop":
        return {arm.name: "loop" for arm in request.arms}, []
    engines = {arm.name: "loop" if reasons[arm.name] else wanted for arm in request.arms}
    return engines, [f"{name} runs on the loop engine: {why}" for name, why in reasons.items() if why]


def why_not_stackable(request: Request, task: Task, arm: ArmSpec) -> str:
    """The reason an arm can't be stacked, or ''."""
    if request.precision == "amp":
        return "stacks don't know mixed precision"
    if task.per_seed_data:
        return "its data are a function of the seed, so copies share no pool"
    if isinstance(task.weight_decay, tuple) and request.trials > 1:
        return "weight decay is tuned, and copies of a stack share it"
    if request.trials > 1 and (own := [f"{slot} {option.name}" for slot, _, option in searched(arm, task)]):
        return f"its own options are tuned ({', '.join(own)}), and copies of a stack share them"
    filled = arm.filled(task)
    part, options = filled.pop("rule")
    tags = part.tags_at(**options)
    for value in filled.values():
        if not isinstance(value, str) and (why := value[0].why_not_stackable):
            return why
    if tags.closed_form:
        return "it is solved in closed form, not in steps"
    return "" if tags.stackable else tags.why_not_stackable


def searched(arm: ArmSpec, task: Task) -> list[tuple[str, Any, Option]]:
    """(slot, part, option) of every option that the arm leaves to the search: its dimensions after the shared ones."""
    found = []
    for slot, value in sorted(arm.filled(task).items()):
        if not isinstance(value, str):
            part, options = value
            found += [(slot, part, o) for o in part.options if o.search is not None and o.name not in options]
    return found[: DIMENSIONS - SHARED]


def _flops(task: Task, arm: ArmSpec, widths: Sequence[int]) -> float:
    """Of one training step; infinite where they can't be counted."""
    try:
        return flops_of(task, build_rule(task, arm, 0, widths, meta=True))[0]
    except (NetwrightError, RuntimeError, TypeError):
        return math.inf


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
    """The rate with everything else that is tuned; u = None is the middle of a shared range, and a part's defaults."""
    if isinstance(task.weight_decay, tuple):
        point["weight_decay"] = _log(*task.weight_decay, u[1] if u is not None else 0.5)
    if u is None:
        return point
    for (slot, _, option), v in zip(searched(arm, task), u[SHARED:], strict=False):
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


def runs_of(request: Request, task: Task, plan: Plan) -> list[Run]:
    """Every run of the request, arm by arm, seed by seed."""
    out = []
    for arm in request.arms:
        engine = "loop" if plan.engines[arm.name] == "loop" else "stack"
        slots, widths = slots_key(arm, task), plan.widths[arm.name]
        for seed in request.seeds:
            for trial, (stage, point) in enumerate(points(request, task, arm, plan, seed)):
                key = job_key(request, task, arm, slots, seed, {**point, "trial": trial}, widths, engine, plan.data_hash)
                out.append(Run(key, arm.name, seed, trial, point, stage))
    return out


def jobs_of(request: Request, task: Task, plan: Plan, runs: Sequence[Run], todo: Collection[str]) -> list[Job]:
    """The runs whose keys are still to do as jobs: single ones for the loop engine, stacks for the stack engine.

    Stacks are cut from all runs, so that a study that was interrupted continues with the stacks it would have had.
    """
    jobs = []
    for arm in request.arms:
        engine, widths = plan.engines[arm.name], plan.widths[arm.name]
        size = 1 if engine == "loop" else plan.stack
        for stage in ("tune", "widened"):
            mine = [run for run in runs if run.arm == arm.name and run.stage == stage]
            for i in range(0, len(mine), size):
                if left := tuple(run for run in mine[i : i + size] if run.key in todo):
                    jobs.append(Job(request, arm, left, widths, engine))
    return jobs


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
