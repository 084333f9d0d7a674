"""A study killed at random moments and continued ends with exactly the records of one that was not."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from netwright.bench.store.store import Store
from netwright.compare import compare

REPO = Path(__file__).parents[1]
STUDY = {"task": "moons", "seeds": 3, "trials": 2, "match": "none"}
SIZES = {"loop": 60, "stack": 150}  # steps: about as long as it takes for a few kills to meet the training
SCRIPT = """
import sys
from netwright.bench.study import Study
from netwright.bench.request import ArmSpec
arms = [ArmSpec("A"), ArmSpec("B", rekey=1), ArmSpec("C", rekey=2)]
study = Study(arms=arms, out=sys.argv[1], engine=sys.argv[2], steps=int(sys.argv[3]), **{study!r})
print("begun", flush=True)
study.run(progress=False)
print("done", flush=True)
"""


def start(out: Path, engine: str) -> subprocess.Popen:
    command = [sys.executable, "-c", SCRIPT.replace("{study!r}", repr(STUDY)), str(out), engine, str(SIZES[engine])]
    env = {"PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin", "HOME": str(out.parent)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def records(out: Path):
    with Store.read(out) as store:
        opened = [store.opened(record.key).machine_free() for record in store.records()]
        return opened, sorted((s.arm, s.seed, s.trial, s.value) for s in store.scores())


def kill_and_continue(tmp_path: Path, engine: str, kills: int, seed: int) -> int:
    """Kills a study up to `kills` times, then lets it end; returns how many kills met it before its end."""
    whole = start(tmp_path / "whole", engine)
    assert whole.stdout is not None and whole.stdout.readline() == "begun\n"
    begun = time.monotonic()
    assert whole.wait(timeout=300) == 0, whole.stderr and whole.stderr.read()
    length = time.monotonic() - begun
    met, at = 0, random.Random(seed)
    for _ in range(kills):
        run = start(tmp_path / "killed", engine)
        assert run.stdout is not None and run.stdout.readline() == "begun\n"
        time.sleep(at.uniform(0.0, 0.8 * length))
        run.kill()
        met += run.wait(timeout=60) == -signal.SIGKILL
        run.communicate()
    last = start(tmp_path / "killed", engine)
    out, errors = last.communicate(timeout=300)
    assert last.returncode == 0 and out.endswith("done\n"), errors
    kept, scores = records(tmp_path / "killed")
    lost = [r for r in kept if r["state"] == "lost"]
    wanted, wanted_scores = records(tmp_path / "whole")
    assert len(wanted) == 3 * 3 * 2 and all(r["sealed"] for r in wanted)
    if lost:  # a run whose process died three times is given up, and says so; everything else is equal
        assert all(r["error"].startswith("its process was lost") for r in lost)
        dropped = {(r["arm"], r["seed"], r["trial"]) for r in lost}
        wanted = [r for r in wanted if (r["arm"], r["seed"], r["trial"]) not in dropped]
        kept = [r for r in kept if r["state"] != "lost"]
    else:
        assert scores == wanted_scores
    assert kept == wanted
    return met


@pytest.mark.parametrize("engine", SIZES)
def test_two_kills_leave_the_records_of_an_uninterrupted_study(tmp_path, engine):
    """Two deaths of one run are forgiven, so nothing at all may differ."""
    assert kill_and_continue(tmp_path, engine, 2, seed=1) >= 1
    assert not [r for r in records(tmp_path / "killed")[0] if r["state"] == "lost"]


@pytest.mark.slow
@pytest.mark.parametrize("engine", SIZES)
def test_twenty_kills_leave_the_records_of_an_uninterrupted_study(tmp_path, engine):
    assert sum(kill_and_continue(_made(tmp_path / str(i)), engine, 2, seed=10 + i) for i in range(10)) >= 12


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
