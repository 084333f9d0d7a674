"""Executors carry jobs out: one after another here, in spawned processes, or on Ray.

An executor is a function execute(jobs, on_start, on_result, ...) that calls on_result(job, result) in the coordinator,
which alone writes the store.
"""
