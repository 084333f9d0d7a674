"""What a worker does: build a rule for an arm and a seed, train it alone or in a stack, score a selected run.

Everything here is importable by name and takes plain data, so that any executor can call it in any process.
"""

from __future__ import annotations

import math
import os
import platform
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, final

import torch
from safetensors.torch import load, save
from torch import Tensor

from netwright.bench.own.model import put_in
from netwright.bench.records import Run, RunRecord
from netwright.bench.request import ArmSpec, Request, open_task
from netwright.core.canonical import canonical_json, parse
from netwright.core.errors import printable
from netwright.engine.build import build
from netwright.engine.loop import Outcome, Setting, cast, make_optimizer, predict, train
from netwright.engine.rule import Rule
from netwright.engine.task import Data, Task
from netwright.tensor.streams import forward_draws

#: Options of the task that a part's own searched options are not.
SHARED = ("lr", "weight_decay")


@final
@dataclass(frozen=True)
class Job:
    """What an executor takes: the runs of one arm that are trained together (one for the loop engine)."""

    request: Request
    arm: ArmSpec
    runs: tuple[Run, ...]
    widths: tuple[int, ...]
    engine: str  # "loop", "stack" or "stack-compiled"

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(run.key for run in self.runs)


@final
@dataclass(frozen=True)
class Result:
    """What a job gave: one record a run, and the best-step weights (safetensors) of those that can be scored."""

    records: tuple[RunRecord, ...]
    weights: Mapping[str, bytes] = field(default_factory=dict)
    redo: tuple[str, ...] = ()  # keys of a stack that raised: to be trained one by one
    why: str = ""  # what the stack raised


@lru_cache(maxsize=8)
def _task(ref: str, options: str, budget: str) -> Task:
    return open_task(ref, parse(options), parse(budget))


_GIVEN: dict[str, Task] = {}  # tasks that exist only in this process, by their reference


def task_of(request: Request) -> Task:
    """The request's task, opened once a process."""
    if request.task in _GIVEN:
        return _GIVEN[request.task]
    return _task(request.task, canonical_json(request.task_options), canonical_json(request.budget))


def give_task(ref: str, task: Task) -> None:
    """Makes a task object known under a reference in this process (a user's task that no file holds)."""
    _GIVEN[ref] = task


@lru_cache(maxsize=64)
def data_of(task: Task, seed: int, device: str) -> Data:
    """One seed's data; pools are shared between seeds where the task shares them."""
    data = task.data(seed)
    if device == "cpu":
        return data
    pool = _pool(task, device) if not task.per_seed_data else (data.x.to(device), data.y.to(device))
    return Data(*pool, data.train.to(device), data.val.to(device), data.test.to(device))


@lru_cache(maxsize=2)
def _pool(task: Task, device: str) -> tuple[Tensor, Tensor]:
    data = task.data(0)
    return data.x.to(device), data.y.to(device)


def build_rule(
    task: Task,
    arm: ArmSpec,
    seed: int,
    widths: Sequence[int],
    point: Mapping[str, Any] | None = None,
    device: str = "cpu",
    meta: bool = False,
) -> Rule:
    """The arm's rule over the arm's net, every value drawn from the stream of its own path.

    point: a trial point; whatever is not a shared dimension goes to the options of the part that searches it.
    meta: leave it on the meta device (for counting).
    """
    filled = arm.filled(task)
    for name, value in (point or {}).items():
        if name in SHARED:
            continue
        slot, _, option = name.partition(".")
        part, options = filled[slot]
        filled[slot] = (part, {**options, option: value})
    if task.foreign:
        rule_part, rule_options = filled.pop("rule")
        return put_in(task, filled, rule_part, rule_options, seed, arm.stream(seed), device)
    return build(task, filled, arm.stream(seed), widths, device, meta)


@contextmanager
def threads(n: int) -> Iterator[None]:
    """n compute threads inside, as many as before outside."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def warm(job: Job) -> None:
    """Reads the job's data, and imports what torch loads at its first optimizer, so that no run pays for them.

    What goes wrong here shows in the runs.
    """
    with suppress(Exception):
        import netwright.engine.stack  # noqa: F401

        task = task_of(job.request)
        weight = torch.zeros(1, requires_grad=True)
        optimizer = make_optimizer([{"params": [weight]}], setting_of(job, task, job.runs[0]), 0.0)
        weight.sum().backward()
        optimizer.step()
        for run in job.runs:
            data_of(task, run.seed, job.request.device)


def perform(job: Job) -> Result:
    """Train the job's runs. Whatever a part raises becomes a row; a stack that raises asks to be redone one by one."""
    with threads(job.request.threads):
        task = task_of(job.request)
        if job.engine == "loop":
            return _result([_alone(job, task, run) for run in job.runs])
        try:
            return _together(job, task)
        except Exception as error:
            return Result((), {}, job.keys, f"{type(error).__name__}: {printable(str(error))[:300]}")


def setting_of(job: Job, task: Task, run: Run) -> Setting:
    """The setting of one run: the task's, at the run's trial point, with the streams of the arm."""
    return Setting.of(task, job.arm.stream(run.seed), run.point, job.request.precision)


def _alone(job: Job, task: Task, run: Run) -> tuple[RunRecord, bytes | None]:
    start = time.perf_counter()
    try:
        rule = build_rule(task, job.arm, run.seed, job.widths, run.point, job.request.device)
        data = data_of(task, run.seed, job.request.device)
        part, options = job.arm.filled(task)["rule"]
        setting = setting_of(job, task, run)
        with forward_draws(setting.seed, job.request.device):
            outcome = train(rule, data, setting, part.tags_at(**options).closed_form)
    except Exception as error:
        return failed_record(run, "oom" if out_of_memory(error) else "failed", error, start), None
    return _record(run, outcome, "loop", time.perf_counter() - start)


def _together(job: Job, task: Task) -> Result:
    from netwright.engine.stack import train_stack

    start = time.perf_counter()
    device = job.request.device
    rules = [build_rule(task, job.arm, run.seed, job.widths, run.point, device) for run in job.runs]
    data = [data_of(task, run.seed, device) for run in job.runs]
    settings = [setting_of(job, task, run) for run in job.runs]
    outcomes = train_stack(rules, data, settings, compiled=job.engine == "stack-compiled")
    share = (time.perf_counter() - start) / len(job.runs)
    return _result([_record(run, out, "stack", share) for run, out in zip(job.runs, outcomes, strict=True)])


def _result(rows: Sequence[tuple[RunRecord, bytes | None]]) -> Result:
    return Result(tuple(record for record, _ in rows), {record.key: weights for record, weights in rows if weights is not None})


def _record(run: Run, out: Outcome, engine: str, seconds: float) -> tuple[RunRecord, bytes | None]:
    diverged = out.bad_step is not None or out.best_state is None
    error = "the loss is not finite" if out.bad_step is not None else "no evaluation gave a finite score" if diverged else ""
    record = RunRecord(
        key=run.key, arm=run.arm, seed=run.seed, trial=run.trial, point=run.point, state="diverged" if diverged else "done",
        curve=tuple(out.curve), best_step=out.best_step, best_val=out.best_val, bad_step=out.bad_step,
        bad_module=out.bad_module, error=error, engine=engine, stage=run.stage,
        seconds=seconds, host=platform.node(), pid=os.getpid(),
    )  # fmt: skip
    weights = None
    if not diverged and out.best_state is not None:
        weights = save({k: v.cpu().contiguous() for k, v in out.best_state.items()})
    return record, weights


def failed_record(run: Run, state: str, error: BaseException | str, start: float | None = None) -> RunRecord:
    """The row of a run that left no result."""
    text = error if isinstance(error, str) else "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]
    return RunRecord(
        key=run.key, arm=run.arm, seed=run.seed, trial=run.trial, point=run.point, state=state, error=printable(text)[:500],
        engine="loop", stage=run.stage, seconds=None if start is None else time.perf_counter() - start,
        host=platform.node(), pid=os.getpid(),
    )  # fmt: skip


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out."""
    text = str(error).lower()
    return (
        isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "not enough memory" in text or "can't allocate memory" in text
    )


def test_score(request: Request, arm: ArmSpec, run: Run, widths: Sequence[int], weights: bytes) -> float:
    """The one test evaluation of a replicate: the selected run's best-step weights on the test split."""
    with threads(request.threads):
        task = task_of(request)
        rule = build_rule(task, arm, run.seed, widths, run.point, request.device)
        setting = Setting.of(task, run.seed, run.point, request.precision)
        data = data_of(task, run.seed, request.device)
        rule, x = cast(rule, data.x[data.test], setting)
        rule.load_state_dict(load(weights))
        value = float(task.problem.metric(predict(rule, x, setting), data.y[data.test]))
    return value if math.isfinite(value) else task.problem.worst
