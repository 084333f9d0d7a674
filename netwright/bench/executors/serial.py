"""One job after another in this process. Enforces no limits."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from netwright.bench.jobs import Job, JobResult, perform


def execute(jobs: Sequence[Job], on_start: Callable[[Job], None], on_result: Callable[[Job, JobResult], None]) -> None:
    """Perform every job in order; a stack that asks for it is redone as single runs."""
    for job in jobs:
        on_start(job)
        result = perform(job)
        on_result(job, result)
        if result.redo:
            singles = [job.single(run) for run in job.runs]
            execute(singles, on_start, on_result)
