"""Jobs in spawned worker processes: limits of time and memory are enforced, and a death costs one job.

A worker reads jobs from a pipe until it is told to stop; one that dies or overstays is replaced.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

from netwright.study.work import Job, Result, failed_record, perform

GRACE = 60.0  # seconds a worker may take to start and import torch, on top of a job's limit


def execute(
    jobs: Sequence[Job],
    on_start: Callable[[Job], None],
    on_result: Callable[[Job, Result], None],
    workers: int = 2,
    limit: float | None = None,
    memory: int | None = None,
) -> None:
    """Perform jobs on `workers` processes. limit: seconds one run may take; memory: bytes one worker may hold."""
    todo = deque(jobs)
    pool: list[_Worker] = []
    try:
        while todo or any(w.job for w in pool):
            pool = [w for w in pool if w.alive()]
            while todo and len(pool) < workers:
                pool.append(_Worker(memory))
            for worker in pool:
                if worker.job is None and todo:
                    job = todo.popleft()
                    on_start(job)
                    worker.give(job, limit)
            ready = set(wait([w.pipe for w in pool if w.job], timeout=0.2))
            for worker in pool:
                if worker.job is None:
                    continue
                result = worker.collect() if worker.pipe in ready else worker.overdue()
                if result is None:
                    continue
                job, result = result
                on_result(job, result)
                if result.redo:
                    todo.extendleft(dataclasses.replace(job, runs=(run,), engine="loop") for run in reversed(job.runs))
    finally:
        for worker in pool:
            worker.stop()


class _Worker:
    def __init__(self, memory: int | None) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, memory), daemon=True)
        self.process.start()
        theirs.close()
        self.job: Job | None = None
        self.fresh = True
        self.deadline = float("inf")
        self.limit: float | None = None

    def give(self, job: Job, limit: float | None) -> None:
        self.job, self.limit = job, limit
        if limit is not None:
            share = limit * len(job.runs)
            self.deadline = time.monotonic() + share + (GRACE if self.fresh else 0.0)
        self.fresh = False
        self.pipe.send(job)

    def collect(self) -> tuple[Job, Result] | None:
        """The result that lies in the pipe; a broken pipe means that the worker died."""
        assert self.job is not None
        job = self.job
        try:
            message: Any = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join(5)
            code = self.process.exitcode
            text = f"the worker process ended with code {code}"
            # the kernel kills with SIGKILL what takes too much memory; nobody else here does
            state = "oom" if code == -signal.SIGKILL else "lost"
            return self._end(job, tuple(failed_record(run, state, text) for run in job.runs))
        if message == "started":
            if self.limit is not None:
                self.deadline = time.monotonic() + self.limit * len(job.runs)
            return None
        self.job, self.deadline = None, float("inf")
        return job, message

    def overdue(self) -> tuple[Job, Result] | None:
        """The job's end, where it has taken longer than its limit; a stack is redone as single runs."""
        if time.monotonic() < self.deadline or self.job is None:
            return None
        job = self.job
        self.kill()
        if len(job.runs) > 1:
            self.job = None
            return job, Result((), {}, job.keys)
        return self._end(job, (failed_record(job.runs[0], "timeout", f"took longer than the limit of {self.limit:g} s"),))

    def _end(self, job: Job, records: tuple[Any, ...]) -> tuple[Job, Result]:
        self.job, self.deadline = None, float("inf")
        self.kill()
        return job, Result(records)

    def alive(self) -> bool:
        return self.job is not None or self.process.is_alive()

    def kill(self) -> None:
        if self.process.is_alive():
            self.process.kill()
        self.process.join(5)

    def stop(self) -> None:
        try:
            self.pipe.send(None)
        except OSError:
            pass
        self.process.join(1)
        self.kill()
        self.pipe.close()


def _serve(pipe: Connection, memory: int | None) -> None:
    """The worker's life: receive a job, say that it started, send the result."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the coordinator decides
    if memory is not None:
        import resource

        import torch  # noqa: F401  (its libraries are mapped before the limit counts)

        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    parent = os.getppid()
    while os.getppid() == parent:
        if not pipe.poll(1.0):
            continue
        try:
            job = pipe.recv()
        except EOFError:
            return
        if job is None:
            return
        pipe.send("started")
        pipe.send(perform(job))
