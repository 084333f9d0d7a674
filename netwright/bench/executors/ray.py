"""Jobs as Ray tasks, on one machine or a cluster. Needs netwright[ray]; limits are left to Ray's own options."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from netwright.bench.jobs import Job, JobResult, failed_record, perform
from netwright.core.errors import BadInput


def execute(jobs: Sequence[Job], on_start: Callable[[Job], None], on_result: Callable[[Job, JobResult], None]) -> None:
    """Perform every job as a Ray task of one CPU; a task that Ray loses becomes a `lost` row."""
    try:
        import ray
    except ImportError:
        raise BadInput("executor ray needs the package ray; install netwright[ray], or use --executor processes") from None
    if not ray.is_initialized():
        ray.init(include_dashboard=False, log_to_driver=False)
    remote = ray.remote(num_cpus=1, max_retries=0)(perform)
    pending = {}
    for job in jobs:
        on_start(job)
        pending[remote.remote(job)] = job
    while pending:
        done, _ = ray.wait(list(pending), num_returns=1)
        job = pending.pop(done[0])
        try:
            result = ray.get(done[0])
        except ray.exceptions.RayError as error:
            result = JobResult(tuple(failed_record(run, "lost", error) for run in job.runs))
        on_result(job, result)
        for run in job.runs if result.redo else ():
            single = job.single(run)
            pending[remote.remote(single)] = single
