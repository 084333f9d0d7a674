"""What is killed at random moments and continued ends with exactly the records of what was not, and leaves no process behind."""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import files
import pytest
from processes import THERE, descendants, outliving

from netwright.bench.store.lending import SWITCH
from netwright.bench.store.store import Store
from netwright.compare import compare

REPO = Path(__file__).parents[1]
STUDY = {"task": "moons", "seeds": 3, "trials": 2, "match": "none"}
#: Of each kind 18 runs, which together take about as long as it takes for a kill to meet them.
SCRIPTS = {
    "loop": "Study(arms=ARMS, engine='loop', steps=60, out=out, means=means, **STUDY)",
    "stack": "Study(arms=ARMS, engine='stack', steps=150, out=out, means=means, **STUDY)",
    "own": "Study(arms=['a', 'bb', 'ccc'], **STUDY | {'task': ref}, out=out, means=means)",
    "experiment": "Experiment(load_part(ref), out=out, means=means)",
}
SCRIPT = f"""
import sys
from netwright.bench.carry import Means
from netwright.bench.experiment import Experiment
from netwright.bench.own.experiment import load_part
from netwright.bench.request import ArmSpec
from netwright.bench.study import Study

out, executor, ref = sys.argv[1:]
means = Means(executor, workers=2)
STUDY = {STUDY!r}
ARMS = [ArmSpec("A"), ArmSpec("B", rekey=1), ArmSpec("C", rekey=2)]
asked = ASKED
print("begun", flush=True)
asked.run(progress=False)
print("done", flush=True)
"""
RUNS = 18
STARTING = 3.0  # seconds, about, that workers take to start
EVERY = [(kind, executor) for kind in SCRIPTS for executor in ("serial", "processes")]
#: Each kind once: what trains nets of ours serially, and the others, whose jobs get to processes alike.
QUICK = [("loop", "serial"), ("stack", "serial"), ("own", "processes"), ("experiment", "processes")]
Left = tuple[list[dict[str, Any]], list[tuple[Any, ...]]]


def start(out: Path, kind: str, executor: str) -> subprocess.Popen[str]:
    """Its process, at the moment the runs begin."""
    ref = {"own": files.loop, "experiment": files.experiment}.get(kind, lambda *_: "")(out.parent, 0.05)
    line = [sys.executable, "-c", SCRIPT.replace("ASKED", SCRIPTS[kind]), str(out), executor, ref]
    environment = {"PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin", "HOME": str(out.parent), SWITCH: "0"}
    run = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    assert run.stdout is not None and run.stdout.readline() == "begun\n", run.stderr and run.stderr.read()
    return run


def ends(run: subprocess.Popen[str]) -> None:
    out, errors = run.communicate(timeout=300)
    assert run.returncode == 0 and out == "done\n", errors


def left(out: Path) -> Left:
    with Store.read(out) as store:
        opened = [store.opened(record.key).machine_free() for record in store.records()]
        return opened, sorted((s.arm, s.seed, s.trial, s.value) for s in store.scores())


def kill(run: subprocess.Popen[str]) -> bool:
    """Kills it, and sees that what it started ends too; whether that met it before its end."""
    os.kill(run.pid, signal.SIGSTOP)  # so that it starts nothing more while we look
    started = descendants(run.pid)
    run.kill()
    met = run.wait(timeout=60) == -signal.SIGKILL
    assert not outliving(started, 30.0)
    run.communicate()
    return met


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Left, float]]:
    """What the uninterrupted leaves, and how long it takes, one run after another; made once."""
    made: dict[str, tuple[Left, float]] = {}

    def of(kind: str) -> tuple[Left, float]:
        if kind not in made:
            out = tmp_path_factory.mktemp("whole") / "out"
            run, begun = start(out, kind, "serial"), time.monotonic()
            ends(run)
            made[kind] = left(out), time.monotonic() - begun
        return made[kind]

    return of


def killed_twice(folder: Path, kind: str, executor: str, whole: Any, seed: int) -> int:
    """Kills it twice, then lets it end: two deaths of one run are forgiven, so nothing may differ. How many kills met it."""
    wanted, length = whole(kind)
    length += 0.0 if executor == "serial" else STARTING
    at, met = random.Random(seed), 0
    for _ in range(2):
        run = start(folder / "out", kind, executor)
        time.sleep(at.uniform(0.0, 0.8 * length))
        met += kill(run)
    ends(start(folder / "out", kind, executor))
    assert left(folder / "out") == wanted and len(wanted[0]) == RUNS
    assert {row["state"] for row in wanted[0]} == {"done"}
    return met


@pytest.mark.skipif(not THERE, reason="no /proc")
@pytest.mark.parametrize(("kind", "executor"), QUICK)
def test_two_kills_leave_the_records_of_the_uninterrupted(kind: str, executor: str, whole: Any, tmp_path: Path) -> None:
    assert killed_twice(tmp_path, kind, executor, whole, seed=1) >= 1


@pytest.mark.slow
@pytest.mark.skipif(not THERE, reason="no /proc")
def test_fifty_kills_leave_the_records_of_the_uninterrupted(whole: Any, tmp_path: Path) -> None:
    met = 0
    for seed, (kind, executor) in enumerate(itertools.cycle(EVERY), 10):
        if met >= 50:
            break
        folder = tmp_path / str(seed)
        folder.mkdir()
        met += killed_twice(folder, kind, executor, whole, seed)
    assert met >= 50


def test_an_interrupt_from_the_keyboard_loses_nothing_that_was_finished(tmp_path, monkeypatch):
    from netwright.bench import jobs

    perform, count = jobs.perform, []

    def interrupted(job):
        count.append(job)
        if len(count) == 4:
            raise KeyboardInterrupt
        return perform(job)

    options = {**STUDY, "out": tmp_path, "engine": "loop", "steps": 10}
    monkeypatch.setattr("netwright.bench.executors.serial.perform", interrupted)
    with pytest.raises(KeyboardInterrupt):
        compare(["default"], **options)
    with Store.read(tmp_path) as store:
        assert len(store.records()) == 3 and set(store.states().values()) == {"done", "queued"}
    result = compare(["default"], **options)
    assert len(count) == 7 and {r.state for r in result.records} == {"done"}
