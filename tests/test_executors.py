"""Executors: what a part does to its worker is seen in its own row and nowhere else."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path

import plugin
import pytest

from netwright.bench import jobs
from netwright.bench.carry import Means
from netwright.bench.entrant import enter
from netwright.bench.request import ArmSpec, open_task
from netwright.compare import compare
from netwright.core.errors import BadInput, UnknownName

REPO = Path(__file__).parents[1]
SMALL = {"task": "moons", "seeds": 2, "trials": 1, "steps": 20, "match": "none"}
BAD = {
    "nan": plugin.rule("Nanny", "loss = loss * (float('nan') if self.count == 7 else 1)"),
    "raises": plugin.rule("Raises", "assert self.count < 5, 'the part broke'"),
    "sleeps": plugin.rule("Sleeps", "time.sleep(3600 if self.count == 3 and self.training else 0)"),
    "bomb": plugin.rule("Bombs", "self.held = [torch.ones(2**26) for _ in range(64)]"),
    "killed": plugin.rule("Killed", "os.kill(os.getpid(), signal.SIGKILL)"),
}


def rows(result) -> dict[str, Counter]:
    out: dict[str, Counter] = {}
    for record in result.records:
        out.setdefault(record.arm, Counter())[record.state] += 1
    return out


@pytest.fixture
def bad(tmp_path):
    plugin.write(tmp_path / "site", BAD)
    with plugin.installed(tmp_path / "site"):
        yield tmp_path / "out"


def test_nan_and_errors_are_rows_of_their_own_arm_in_this_process(bad):
    result = compare(["default", "nanny", "raises"], out=bad, means=Means(executor="serial"), control=False, **SMALL)
    assert rows(result) == {"default": Counter(done=2), "nanny": Counter(diverged=2), "raises": Counter(failed=2)}
    nan = next(r for r in result.records if r.arm == "nanny")
    assert nan.bad_step == 7 and len(nan.curve) == 3 and nan.error
    assert "the part broke" in next(r.error for r in result.records if r.arm == "raises")
    assert {s.value for s in result.scores if s.arm != "default"} == {result.worst}


def test_every_kind_of_misbehaviour_costs_its_own_rows_and_no_other(bad):
    arms = ["default", "nanny", "raises", "sleeps", "bombs", "killed"]
    means = Means(executor="processes", workers=2, limit=20.0, memory=2 * 2**30)
    result = compare(arms, out=bad, means=means, control=False, **{**SMALL, "seeds": 1})
    states = {arm: next(iter(counter)) for arm, counter in rows(result).items()}
    wanted = dict(default="done", nanny="diverged", raises="failed", sleeps="timeout", bombs="oom", killed="lost")
    assert states == wanted
    by_arm = {r.arm: r for r in result.records}
    assert by_arm["nanny"].bad_step == 7
    assert "limit of 20 s" in by_arm["sleeps"].error
    assert "3 times" in by_arm["killed"].error
    scores = {s.arm: s for s in result.scores}
    assert scores["sleeps"].failed and scores["sleeps"].value == result.worst
    assert scores["bombs"].dropped.startswith("oom") and scores["killed"].dropped.startswith("lost")
    assert not scores["default"].failed and not scores["default"].dropped


def test_processes_leave_the_records_that_serial_does_without_a_main_guard(tmp_path):
    """Run as a script that has no guard and would start itself again in every worker."""
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(f"""
        from netwright.bench.carry import Means
        from netwright.compare import compare
        print("once")
        for engine in ("loop", "stack"):
            pair = []
            for kind in ("serial", "processes"):
                out = {str(tmp_path)!r} + "/" + engine + kind
                result = compare(["default"], out=out, means=Means(executor=kind, workers=2), engine=engine, **{SMALL!r})
                pair.append([record.machine_free() for record in result.records])
            assert pair[0] == pair[1] and len(pair[0]) == 2, pair
        print("same")
    """)
    )
    env = {**os.environ, "PYTHONPATH": str(REPO)}
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=500, env=env)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["once", "same"]


def test_a_stack_whose_worker_dies_is_taken_apart():
    from netwright.bench.executors.processes import _Worker

    worker = _Worker.__new__(_Worker)
    runs = tuple(jobs.Run(str(i), "a", i, 0, {"lr": 0.1}) for i in range(3))
    for given, expected in ((runs, 0), (runs[:1], 1)):
        worker.job, worker.kill = jobs.Training(given, None, "stack"), lambda: None  # type: ignore[arg-type,method-assign]
        job, result = worker._died("lost", "it ended with code -11")
        assert len(result.records) == expected and job.runs == given and worker.job is None
        assert result.redo == (job.keys if expected == 0 else ())


def test_limits_need_worker_processes():
    for means in ({"limit": 1.0, "executor": "serial"}, {"memory": 1, "executor": "ray"}, {"limit": -1.0}):
        with pytest.raises(BadInput):
            Means(**means)
    with pytest.raises(UnknownName):
        Means(executor="proceses")


def test_threads_are_put_back():
    import torch

    before = torch.get_num_threads()
    entrant = dataclasses.replace(enter(open_task("moons", {}), ArmSpec("default")), threads=before + 1)
    with entrant.computing():
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")
def test_ray_leaves_the_records_that_serial_does(tmp_path):
    serial, remote = (
        compare(["default"], out=tmp_path / kind, means=Means(executor=kind), engine="loop", **SMALL)
        for kind in ("serial", "ray")
    )
    assert [r.machine_free() for r in serial.records] == [r.machine_free() for r in remote.records]


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="ray is installed")
def test_without_ray_the_message_says_what_to_install(tmp_path):
    with pytest.raises(BadInput, match=r"netwright\[ray\]"):
        compare(["default"], out=tmp_path, means=Means(executor="ray"), **SMALL)
