"""Carrying runs out: what is queued goes to an executor as jobs, what was lost is tried again, until nothing is queued.

Trainings of a study and cells of an experiment go this one way.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, final

from netwright.bench.causes import Watch, known, to_retry
from netwright.bench.jobs import Job, JobResult
from netwright.bench.progress import Progress, in_words, time_left
from netwright.bench.records import Run, RunRecord
from netwright.bench.request import most_threads
from netwright.bench.store.lending import take_over
from netwright.bench.store.store import Store
from netwright.core.errors import BadInput, unknown
from netwright.core.guard import Stopping

EXECUTORS = ("auto", "serial", "processes", "ray")
LONG = 45.0  # seconds of estimated work from which `auto` uses worker processes


@final
@dataclass(frozen=True)
class Means:
    """How runs are carried out; none of it changes a result."""

    executor: str = "auto"
    workers: int = 0  # 0: as many as the machine has cores
    limit: float | None = None  # seconds a run
    memory: int | None = None  # bytes a worker
    wait: float | None = None  # seconds to wait for another owner of the study
    retry: tuple[str, ...] = ()  # states of runs that are made again, whatever their cause

    def __post_init__(self) -> None:
        if self.executor not in EXECUTORS:
            raise unknown("executor", self.executor, EXECUTORS)
        if self.limit is not None and not self.limit > 0:
            raise BadInput(f"limit={self.limit!r}; expected seconds above 0")
        if self.memory is not None and not (isinstance(self.memory, int) and 0 < self.memory < 2**63):
            raise BadInput(f"memory={self.memory!r}; expected a number of bytes above 0")
        if not 0 <= self.workers <= most_threads():
            raise BadInput(f"workers={self.workers!r}; expected 0 to {most_threads()} on this machine")
        known(self.retry)
        if (self.limit or self.memory) and self.executor in ("serial", "ray"):
            raise BadInput(f"a limit is enforced by worker processes; use --executor processes, not {self.executor}")

    def processes(self, runs: int, seconds: Callable[[], float], why_not: str = "") -> int:
        """How many worker processes so many runs get; 0 = none, in this process.

        seconds: about how long they take, asked where it decides. why_not: what keeps them from other processes; raises
        BadInput with it where processes were asked for.
        """
        cores = self.workers or os.cpu_count() or 1
        if self.executor == "processes" or self.limit or self.memory:
            if why_not:
                raise BadInput(why_not)
            return cores
        if self.executor != "auto" or why_not or runs < 2 or cores == 1:
            return 0
        return cores if self.workers or seconds() >= LONG else 0


def carry_out(
    store: Store,
    wanted: Sequence[Run],
    also: Collection[str],
    jobs_of: Callable[[set[str]], Sequence[Job]],
    means: Means,
    workers: Callable[[int], int],
    bar: Progress,
    stage: str,
    stop: Stopping,
    retry: bool = True,
) -> None:
    """Do every wanted run that has no record here or nearby; all others are superseded but those whose keys are `also` kept.

    jobs_of(keys) -> jobs of the runs with these keys. workers(runs) -> how many processes so many runs get. stop: asked between
    two jobs. retry: what failed for a cause outside its code is tried again. Raises NothingWorks where the first runs of every
    arm fail alike.
    """
    store.add_runs(wanted)
    keys = {run.key for run in wanted}
    store.supersede(keys | set(also))
    if retry:
        failed = [record for record in store.records() if record.key in keys]
        store.requeue(to_retry(failed, means.limit, means.retry), redo=True)
    for note in take_over(store, _queued(store, wanted), means.limit, means.retry):
        store.note(note)
        bar.tell(note)
    todo = _queued(store, wanted)
    many = workers(len(todo))
    tried_more_than_once = any(run.trial for run in wanted)
    bar.start(stage, len(wanted), len(wanted) - len(todo))
    still = Counter(run.arm for run in wanted if run.key in todo)
    watch = Watch(still)
    spent: dict[str, list[float]] = defaultdict(list)

    def measure(records: Iterable[RunRecord]) -> None:
        for record in records:
            if record.seconds is not None:
                spent[record.arm].append(record.seconds)

    measure(record for record in store.records() if record.key in keys)

    def on_start(job: Job) -> None:
        stop.check()
        store.lease(job.keys)
        store.start(job.keys)

    def on_result(job: Job, result: JobResult) -> None:
        # a lost worker's runs are queued again, a bounded number of times, before that drops their seed
        lost = [record.key for record in result.records if record.state == "lost"]
        store.finish([record for record in result.records if record.state != "lost"], result.arrays)
        again = store.requeue(lost, lost=True) if lost else ()
        store.heartbeat()
        last = job.runs[-1]
        for note in result.notes:
            store.note(note)
        if result.redo:
            store.note(f"{last.arm}: a stack of {len(job.runs)} was redone as single runs ({result.why})")
        ended = [record for record in result.records if record.key not in again]
        still.subtract(record.arm for record in ended)
        measure(ended)
        which = f"{last.arm} seed {last.seed}" + (f" trial {last.trial}" if tried_more_than_once else "")
        bar.advance(len(ended), which, in_words(time_left(still, spent, max(1, many))))
        watch.see(ended)
        stop.check()

    while todo:
        _execute(jobs_of(todo), on_start, on_result, means, many)
        todo = _queued(store, wanted)


def _queued(store: Store, runs: Sequence[Run]) -> set[str]:
    states = store.states()
    return {run.key for run in runs if states[run.key] == "queued"}


def _execute(jobs: Sequence[Job], on_start: Any, on_result: Any, means: Means, workers: int) -> None:
    if not jobs:
        return
    if means.executor == "ray":
        from netwright.bench.executors.ray import execute as on_ray

        on_ray(jobs, on_start, on_result)
    elif workers:
        from netwright.bench.executors.processes import execute as in_processes

        in_processes(jobs, on_start, on_result, workers, means.limit, means.memory)
    else:
        from netwright.bench.executors.serial import execute

        execute(jobs, on_start, on_result)
