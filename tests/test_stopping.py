"""Ctrl-C once ends a study after the run that is being made, twice at once; either way it continues where it was."""

from __future__ import annotations

import dataclasses
import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import files
import mine
import pytest
import torch

from netwright.bench.carry import Means
from netwright.bench.own.experiment import load_part
from netwright.bench.store.store import Store
from netwright.compare import compare, run
from netwright.core.guard import Interrupted, Stopping

REPO = Path(__file__).parents[1]
TERMS: dict[str, Any] = {"seeds": 4, "trials": 1, "match": "none", "steps": 4, "engine": "loop"}


def pressed(at: int, times: int) -> Any:
    """A task during whose training Ctrl-C is pressed, at a call of the loss."""
    count = [0]

    def loss(out: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        count[0] += 1
        if count[0] == at:
            for _ in range(times):
                signal.raise_signal(signal.SIGINT)
        return mine.loss(out, y)

    return mine.task(loss=loss)


@pytest.mark.parametrize(("times", "kept"), [(1, 2), (2, 1)])
def test_once_ends_with_the_run_and_twice_at_once(times: int, kept: int, tmp_path: Path) -> None:
    said: list[str] = []
    task = pressed(1 + TERMS["steps"] + 2, times)  # in the second run, after the trial of the loss when the task was made
    with pytest.raises(Interrupted):
        compare(["default"], task, out=tmp_path, tell=said.append, **TERMS)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert [line for line in said if "press Ctrl-C again" in line]
    with Store.read(tmp_path) as store:
        assert len(store.records()) == kept and set(store.states().values()) == {"done", "queued"}
    result = compare(["default"], task, out=tmp_path, **TERMS)
    assert [r.state for r in result.records] == ["done"] * 4


def test_a_handler_of_somebody_else_stays() -> None:
    def other(number: int, frame: Any) -> None:
        raise AssertionError

    before = signal.signal(signal.SIGINT, other)
    try:
        with Stopping(print):
            assert signal.getsignal(signal.SIGINT) is other
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(("times", "kept"), [(1, 3), (2, 2)])
def test_an_experiment_stops_as_a_study_does(times: int, kept: int, tmp_path: Path) -> None:
    part, calls = load_part(files.experiment(tmp_path, 0.0)), itertools.count(1)

    def pressing(seed: int, *, n: int) -> dict[str, float]:
        if next(calls) == 3:
            for _ in range(times):
                signal.raise_signal(signal.SIGINT)
        return {"y": 1 / n + seed}

    globals()["pressing"] = pressing
    pressing.__qualname__ = "pressing"
    asked = dataclasses.replace(part, subject=pressing)
    with pytest.raises(Interrupted):
        run(asked, out=tmp_path / "out", means=Means("serial"))
    with Store.read(tmp_path / "out") as store:
        assert len(store.records()) == kept and set(store.states().values()) == {"done", "queued"}
    assert len(run(asked, out=tmp_path / "out", means=Means("serial")).rows) == 18


STUDY = ["compare", "default", "--task", "moons", "--seeds", "3", "--tune", "1", "--steps", "400", "--engine", "loop"]


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("executor", ["serial", "processes"])
@pytest.mark.parametrize("verb", ["compare", "run"])
def test_the_command_that_continues_is_printed(verb: str, executor: str, tmp_path: Path) -> None:
    words = STUDY if verb == "compare" else ["run", files.experiment(tmp_path, 0.3)]
    words = [*words, "--executor", executor, "--workers", "1", "--out", str(tmp_path / "s")]
    environment = {**os.environ, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-m", "netwright", *words]
    apart: dict[str, Any] = {"text": True, "env": environment, "start_new_session": True}
    study = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **apart)
    until = time.monotonic() + 60
    while time.monotonic() < until and not running(tmp_path / "s"):
        time.sleep(0.05)
    os.killpg(study.pid, signal.SIGINT)  # as a terminal sends it: to workers too, which are still importing
    out, errors = study.communicate(timeout=60)
    assert study.returncode == 130 and not out and "Traceback" not in errors, errors
    assert errors.splitlines()[-1].endswith(f"To continue: netwright {' '.join(words)}")
    with Store.read(tmp_path / "s") as store:
        assert store.owner() is None and set(store.states().values()) <= {"done", "queued"} and store.records()


def running(folder: Path) -> bool:
    try:
        with Store.read(folder) as store:
            return "running" in store.states().values()
    except ValueError:
        return False
