"""Jobs, and what a worker does with them: train the runs of a job, alone or in a stack, and make records of what came of them.

Everything here is importable by name and takes plain data, so that any executor can call it in any process.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import final

import torch
from safetensors.torch import save

from netwright.bench.causes import described
from netwright.bench.entrant import Entrant
from netwright.bench.records import Run, RunRecord
from netwright.core.errors import printable
from netwright.core.guard import drain, foreign
from netwright.engine.loop import Outcome, make_optimizer


@final
@dataclass(frozen=True)
class Job:
    """What an executor takes: the runs of one entrant that are trained together (one for the loop engine)."""

    entrant: Entrant
    runs: tuple[Run, ...]
    engine: str  # "loop", "stack" or "stack-compiled"

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(run.key for run in self.runs)


@final
@dataclass(frozen=True)
class JobResult:
    """What a job gave: one record a run, and the best-step weights (safetensors) of those that can be scored."""

    records: tuple[RunRecord, ...]
    weights: Mapping[str, bytes] = field(default_factory=dict)
    redo: tuple[str, ...] = ()  # keys of a stack that raised: to be trained one by one
    why: str = ""  # what the stack raised
    notes: tuple[str, ...] = ()  # what the part's code changed that isn't its own


def warm(job: Job) -> None:
    """Reads the job's data, and imports what torch loads at its first optimizer, so that no run pays for them.

    What goes wrong here shows in the runs.
    """
    with suppress(Exception), foreign(job.entrant.name):
        import netwright.engine.stack  # noqa: F401

        weight, first = torch.zeros(1, requires_grad=True), job.runs[0]
        optimizer = make_optimizer([{"params": [weight]}], job.entrant.setting(first.seed, first.point), 0.0)
        weight.sum().backward()
        optimizer.step()
        for run in job.runs:
            job.entrant.data(run.seed)


def perform(job: Job) -> JobResult:
    """Train the job's runs. Whatever a part raises becomes a row; a stack that raises asks to be redone one by one."""
    with job.entrant.computing():
        if job.engine == "loop":
            return _result([_alone(job.entrant, run) for run in job.runs])
        try:
            with foreign(f"a run of {job.entrant.name}"):
                return _together(job)
        except Exception as error:
            return JobResult((), {}, job.keys, f"{type(error).__name__}: {printable(str(error))[:300]}")


def _alone(entrant: Entrant, run: Run) -> tuple[RunRecord, bytes | None]:
    start = time.perf_counter()
    try:
        with foreign(f"a run of {entrant.name}"):
            outcome = entrant.train(run.seed, run.point)
    except Exception as error:
        return failed_record(run, "oom" if out_of_memory(error) else "failed", error, start), None
    return _record(run, outcome, "loop", time.perf_counter() - start)


def _together(job: Job) -> JobResult:
    start = time.perf_counter()
    runs = [(run.seed, run.point) for run in job.runs]
    outcomes = job.entrant.train_together(runs, compiled=job.engine == "stack-compiled")
    share = (time.perf_counter() - start) / len(job.runs)
    return _result([_record(run, out, "stack", share) for run, out in zip(job.runs, outcomes, strict=True)])


def _result(rows: Sequence[tuple[RunRecord, bytes | None]]) -> JobResult:
    return JobResult(
        tuple(record for record, _ in rows),
        {record.key: weights for record, weights in rows if weights is not None},
        notes=drain(),
    )


def _record(run: Run, out: Outcome, engine: str, seconds: float) -> tuple[RunRecord, bytes | None]:
    diverged = out.bad_step is not None or out.best_state is None
    error = "the loss is not finite" if out.bad_step is not None else "no evaluation gave a finite score" if diverged else ""
    record = RunRecord(
        key=run.key,
        arm=run.arm,
        seed=run.seed,
        trial=run.trial,
        point=run.point,
        state="diverged" if diverged else "done",
        curve=tuple(out.curve),
        best_step=out.best_step,
        best_val=out.best_val,
        bad_step=out.bad_step,
        bad_module=out.bad_module,
        error=error,
        engine=engine,
        stage=run.stage,
        seconds=seconds,
        host=platform.node(),
        pid=os.getpid(),
    )
    weights = None
    if not diverged and out.best_state is not None:
        weights = save({k: v.cpu().contiguous() for k, v in out.best_state.items()})
    return record, weights


def failed_record(run: Run, state: str, error: BaseException | str, start: float | None = None) -> RunRecord:
    """The row of a run that left no result."""
    text = error if isinstance(error, str) else described(error)
    return RunRecord(
        key=run.key,
        arm=run.arm,
        seed=run.seed,
        trial=run.trial,
        point=run.point,
        state=state,
        error=printable(text)[:500],
        engine="loop",
        stage=run.stage,
        seconds=None if start is None else time.perf_counter() - start,
        host=platform.node(),
        pid=os.getpid(),
    )


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out."""
    text = str(error).lower()
    return (
        isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "not enough memory" in text or "can't allocate memory" in text
    )
