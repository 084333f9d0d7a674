"""Jobs: what an executor takes, and the records that come of it. A training is one sort, a call of any function another.

Everything here is importable by name and travels as plain data, so that any executor can do it in any process.
"""

from __future__ import annotations

import math
import os
import platform
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, final

import torch
from safetensors.torch import save

from netwright.bench.causes import described
from netwright.bench.entrant import Entrant, computing
from netwright.bench.own.source import called
from netwright.bench.records import TEST, VALIDATION, Run, RunRecord
from netwright.core.errors import BadInput, printable
from netwright.core.guard import drain, foreign
from netwright.engine.loop import Outcome, make_optimizer
from netwright.tensor.streams import global_draws


@dataclass(frozen=True)
class Job(ABC):
    """What an executor takes: runs that are done together. Abstract; travels by pickle to any process."""

    runs: tuple[Run, ...]

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(run.key for run in self.runs)

    @abstractmethod
    def perform(self) -> JobResult:
        """Do the runs. Whatever their code raises becomes a row; several that fail together ask to be redone one by one."""

    def warm(self) -> None:  # noqa: B027
        """Get ready, so that no run pays for it; what goes wrong here shows in the runs. Default: nothing."""

    def single(self, run: Run) -> Job:
        """One of its runs by itself."""
        return replace(self, runs=(run,))


@final
@dataclass(frozen=True)
class JobResult:
    """What a job gave: one record a run, and by key the arrays (safetensors) that calls returned."""

    records: tuple[RunRecord, ...]
    arrays: Mapping[str, bytes] = field(default_factory=dict)
    redo: tuple[str, ...] = ()  # keys of a stack that raised: to be trained one by one
    why: str = ""  # what the stack raised
    notes: tuple[str, ...] = ()  # what the part's code changed that isn't its own


@final
@dataclass(frozen=True)
class Training(Job):
    """Trainings of one entrant, together as a stack, or one."""

    entrant: Entrant
    engine: str  # "loop", "stack" or "stack-compiled"

    def single(self, run: Run) -> Training:
        return replace(self, runs=(run,), engine="loop")

    def warm(self) -> None:
        """Reads the job's data, and imports what torch loads at its first optimizer."""
        with suppress(Exception), foreign(self.entrant.name):
            import netwright.engine.stack  # noqa: F401

            weight, first = torch.zeros(1, requires_grad=True), self.runs[0]
            optimizer = make_optimizer([weight], self.entrant.setting(first.seed, first.point))
            weight.sum().backward()
            optimizer.step()
            for run in self.runs:
                self.entrant.data(run.seed)

    def perform(self) -> JobResult:
        with self.entrant.computing():
            if self.engine == "loop":
                return _result([self._alone(run) for run in self.runs])
            try:
                with foreign(f"a run of {self.entrant.name}"):
                    return self._together()
            except Exception as error:
                return JobResult((), {}, self.keys, f"{type(error).__name__}: {printable(str(error))[:300]}")

    def _alone(self, run: Run) -> RunRecord:
        start = time.perf_counter()
        try:
            with foreign(f"a run of {self.entrant.name}"):
                outcome = self.entrant.train(run.seed, run.point)
        except Exception as error:
            return failed_record(run, "oom" if out_of_memory(error) else "failed", error, start)
        return _record(run, outcome, "loop", time.perf_counter() - start)

    def _together(self) -> JobResult:
        start = time.perf_counter()
        runs = [(run.seed, run.point) for run in self.runs]
        outcomes = self.entrant.train_together(runs, compiled=self.engine == "stack-compiled")
        share = (time.perf_counter() - start) / len(self.runs)
        return _result([_record(run, out, "stack", share) for run, out in zip(self.runs, outcomes, strict=True)])


@final
@dataclass(frozen=True)
class Call(Job):
    """Calls of an importable function, function(seed=..., **point) -> {name: number or tensor}, one a run.

    function: "module:name". A number may be None: what it would measure did not occur.
    """

    function: str
    threads: int = 1

    def perform(self) -> JobResult:
        with computing(self.threads):
            rows = [self._one(run) for run in self.runs]
        return _result([record for record, _ in rows], {record.key: save(arrays) for record, arrays in rows if arrays})

    def _one(self, run: Run) -> tuple[RunRecord, dict[str, torch.Tensor]]:
        start = time.perf_counter()
        try:
            with foreign(f"the cell {run.arm}"):
                function = called(self.function)
                with global_draws(run.seed, "call"):
                    given = function(seed=run.seed, **run.point)
            numbers, arrays = sorted_out(given)
        except Exception as error:
            return failed_record(run, "oom" if out_of_memory(error) else "failed", error, start), {}
        return _done(run, numbers, "call", start), arrays


@final
@dataclass(frozen=True)
class Own(Job):
    """Trainings of the user's own, function(arm, seed, point), one a run. function: as of Call.

    Whether one repeats isn't looked at: it has no first step that could be done twice.
    """

    function: str
    name: str

    def perform(self) -> JobResult:
        return _result([self._one(run) for run in self.runs])

    def _one(self, run: Run) -> RunRecord:
        start = time.perf_counter()
        try:
            with foreign(f"a run of {self.name}"):
                function = called(self.function)
                with global_draws(run.seed, "call"):
                    given = function(self.name, run.seed, dict(run.point))
            given = dict(given) if isinstance(given, Mapping) else {VALIDATION: given, TEST: given}
            if missing := [name for name in (VALIDATION, TEST) if given.get(name) is None]:
                raise BadInput(f"it returned {', '.join(map(str, given))}; expected {' and '.join(missing)} too, or one number")
            tested = float(given.pop(TEST))
            numbers, _ = sorted_out({**given, VALIDATION: float(given[VALIDATION])})
        except Exception as error:
            return failed_record(run, "oom" if out_of_memory(error) else "failed", error, start)
        validation = numbers.pop(VALIDATION)
        return _sealed(replace(_done(run, numbers, "own", start), best_val=validation), tested)


def sorted_out(given: Any) -> tuple[dict[str, float | None], dict[str, torch.Tensor]]:
    """(numbers, arrays) of what a call returned. Raises BadInput where it gave no number, or one that isn't finite."""
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
        raise BadInput(f"it returned {type(given).__name__}; expected a mapping of names to numbers and tensors")
    arrays = {n: v.detach().cpu().contiguous() for n, v in given.items() if isinstance(v, torch.Tensor) and v.dim()}
    numbers = {n: None if v is None else float(v) for n, v in given.items() if n not in arrays}
    if not numbers:
        raise BadInput("it returned no number")
    if wrong := [f"{n}={v}" for n, v in numbers.items() if v is not None and not math.isfinite(v)]:
        raise BadInput(f"it returned {', '.join(wrong)}; expected finite numbers, or None for what did not occur")
    return numbers, arrays


def _done(run: Run, numbers: Mapping[str, float | None], engine: str, start: float) -> RunRecord:
    return RunRecord(
        key=run.key,
        arm=run.arm,
        seed=run.seed,
        trial=run.trial,
        point=run.point,
        state="done",
        values=numbers,
        engine=engine,
        stage=run.stage,
        seconds=time.perf_counter() - start,
        host=platform.node(),
        pid=os.getpid(),
    )


def perform(job: Job) -> JobResult:
    """Do a job. A function, so that executors can name it."""
    return job.perform()


def _result(records: Sequence[RunRecord], arrays: Mapping[str, bytes] | None = None) -> JobResult:
    return JobResult(tuple(records), arrays or {}, notes=drain())


def _record(run: Run, out: Outcome, engine: str, seconds: float) -> RunRecord:
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
        values=dict(out.values),
        seconds=seconds,
        host=platform.node(),
        pid=os.getpid(),
    )
    return record if diverged else _sealed(record, out.test, out.untested)


def _sealed(record: RunRecord, score: float | None, why: str = "") -> RunRecord:
    """The record with its test score under seal. why: what kept it from having one, where that isn't the score itself."""
    if score is not None and math.isfinite(score):
        return replace(record, sealed={TEST: score})
    return replace(record, sealed={TEST: None}, untested=printable(why or f"the test score is {score}")[:500])


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
