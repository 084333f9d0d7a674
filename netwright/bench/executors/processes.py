"""Jobs in spawned worker processes: limits of time and memory are enforced, and a death costs one job.

A worker reads jobs from a pipe until it is told to stop; one that dies or overstays is replaced. It may have children of its
own, which end with it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
import types
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any, final

from netwright.bench.causes import described
from netwright.bench.jobs import Job, JobResult, failed_record, perform

GRACE = 300.0  # seconds a worker may take to start, import torch and read its data, before a run counts
HEARTBEAT = 1.0  # seconds between two looks of a worker for its coordinator
Ended = tuple[Job, JobResult]


def execute(
    jobs: Sequence[Job],
    on_start: Callable[[Job], None],
    on_result: Callable[[Job, JobResult], None],
    workers: int = 2,
    limit: float | None = None,
    memory: int | None = None,
) -> None:
    """Perform jobs on `workers` processes. limit: seconds one run may take; memory: bytes of data one worker may hold."""
    todo = deque(jobs)
    pool: list[_Worker] = []
    try:
        while todo or any(w.job for w in pool):
            for idle in [w for w in pool if w.job is None and not w.process.is_alive()]:
                idle.stop()
                pool.remove(idle)
            while todo and len(pool) < workers:
                pool.append(_Worker(memory))
            for worker in pool:
                if worker.job is None and todo:
                    job = todo.popleft()
                    on_start(job)
                    worker.give(job, limit)
            ready = set(wait([w.pipe for w in pool if w.job], timeout=0.2))
            for worker in [w for w in pool if w.job]:
                # A child of a dead worker may keep its end of the pipe open: the pipe alone doesn't tell that it died.
                ended = worker.collect() if worker.pipe in ready or not worker.process.is_alive() else worker.overdue()
                if ended is None:
                    continue
                job, result = ended
                on_result(job, result)
                if result.redo:
                    todo.extendleft(job.single(run) for run in reversed(job.runs))
    finally:
        for worker in pool:
            worker.stop()


@contextmanager
def _without_main() -> Iterator[None]:
    """Hides the main module while a worker starts, which would otherwise run a user's script once more."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextmanager
def _unheard() -> Iterator[None]:
    """Ctrl-C waits, and who is started inside never hears it: a terminal sends it to a worker that is still importing too."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # which would let it through again where it is started with the first worker
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@final
class _Worker:
    """A process, the pipe to it, and the job it has, if any."""

    def __init__(self, memory: int | None) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        # A daemon may have no children, and user code may want some (a DataLoader's workers).
        self.process = context.Process(target=_serve, args=(theirs, memory), daemon=False)
        with _without_main(), _unheard():
            self.process.start()
        theirs.close()
        self.job: Job | None = None
        self.started = False
        self.deadline = float("inf")
        self.limit: float | None = None

    def give(self, job: Job, limit: float | None) -> None:
        self.job, self.limit, self.started = job, limit, False
        self.deadline = time.monotonic() + GRACE
        with suppress(OSError):  # a worker that died while idle is noticed by collect
            self.pipe.send(job)

    def collect(self) -> Ended | None:
        """The result that lies in the pipe; a broken pipe means that the worker died."""
        assert self.job is not None
        try:
            if not self.pipe.poll():
                raise EOFError
            message: Any = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join(5)
            code = self.process.exitcode
            # the kernel kills with SIGKILL what takes too much memory
            state = "oom" if code == -signal.SIGKILL and _short_of_memory() else "lost"
            return self._died(state, f"the worker process ended with code {code}")
        if message == "started":
            self.started = True
            self.deadline = float("inf") if self.limit is None else time.monotonic() + self.limit * len(self.job.runs)
            return None
        job, self.job = self.job, None
        if isinstance(message, str):  # the job could not even be read there
            return job, JobResult(tuple(failed_record(run, "failed", message) for run in job.runs))
        return job, message

    def overdue(self) -> Ended | None:
        """The job's end, where it has taken longer than its limit, or the worker too long to begin it."""
        if time.monotonic() < self.deadline or self.job is None:
            return None
        if not self.started:
            return self._died("lost", f"the worker process took longer than {GRACE:g} s to start")
        return self._died("timeout", f"took longer than the limit of {self.limit:g} s")

    def _died(self, state: str, why: str) -> Ended:
        """The end of the worker and of its job: a stack is redone as single runs, so that only the guilty one is marked."""
        assert self.job is not None
        job, self.job = self.job, None
        self.kill()
        if len(job.runs) > 1:
            return job, JobResult((), {}, job.keys, f"{state}: {why}")
        return job, JobResult((failed_record(job.runs[0], state, why),))

    def kill(self) -> None:
        """Ends the worker and whatever it started: its process group, also where only that is left."""
        if self.process.pid is not None and hasattr(os, "killpg"):
            with suppress(OSError):
                os.killpg(self.process.pid, signal.SIGKILL)
        if self.process.is_alive():
            self.process.kill()
        self.process.join(5)

    def stop(self) -> None:
        with suppress(OSError):
            self.pipe.send(None)
        if self.job is None:
            self.process.join(1)
        self.kill()
        self.pipe.close()


def _short_of_memory() -> bool:
    """Whether the kernel has killed for memory since this process began to look; unknown counts as no."""
    return _oom_kills() > _KILLS


def _oom_kills() -> int:
    with suppress(OSError, ValueError), open("/proc/vmstat", encoding="ascii") as file:
        for line in file:
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


_KILLS = _oom_kills()


def _serve(pipe: Connection, memory: int | None) -> None:
    """The worker's life: receive a job, say that it started, send the result."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the coordinator decides
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)  # a group of its own, so that its children end with it
    threading.Thread(target=_follow, args=(multiprocessing.parent_process(),), daemon=True).start()
    if memory is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    while True:
        try:
            job = pipe.recv()  # which opens the task, and so runs a user's file
        except EOFError:
            return
        except BaseException as error:
            pipe.send(described(error))
            continue
        if job is None:
            return
        job.warm()
        pipe.send("started")
        try:
            result = perform(job)
        except MemoryError as error:
            result = JobResult(tuple(failed_record(run, "oom", error) for run in job.runs))
        pipe.send(result)


def _follow(parent: Any) -> None:
    """Ends the worker and its children soon after its coordinator, whatever a job is doing."""
    while parent.is_alive():
        time.sleep(HEARTBEAT)
    if hasattr(os, "killpg"):
        os.killpg(0, signal.SIGKILL)
    os._exit(1)
