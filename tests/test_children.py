"""Worker processes may have children: user code that starts some gives the records that serial does, and leaves none behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from processes import THERE, alive, outliving

from netwright.bench.carry import Means
from netwright.compare import compare

REPO = Path(__file__).parents[1]
TERMS = {"seeds": 2, "trials": 1, "match": "none", "steps": 2}
TASK = """
    import inspect, multiprocessing, os, signal, subprocess, sys, time
    from pathlib import Path
    import torch
    from torch.utils.data import DataLoader, TensorDataset
    import mine, netwright

    HERE = Path(__file__).parent
    CONTEXT = multiprocessing.get_context("fork")
    IN_WORKER = multiprocessing.parent_process() is not None

    def running():
        # a run in a worker, and not the trial of a task that is just being made
        return IN_WORKER and any(frame.function == "perform" for frame in inspect.stack(0))

    def halved(x, pipe):
        pipe.send(x / 2)

    def loss(out, y):
        ours, theirs = CONTEXT.Pipe()
        child = CONTEXT.Process(target=halved, args=(2.0, theirs))
        child.start()
        value = (out - y).square().mean() * ours.recv()
        child.join()
        return value

    def loaded(seed):
        pairs = {key: TensorDataset(*mine.points(key, seed=seed)) for key in ("train", "val", "test")}
        found = {}
        for key, pair in pairs.items():
            batches = list(DataLoader(pair, 16, num_workers=1, multiprocessing_context="fork"))
            found[key] = tuple(torch.cat(one) for one in zip(*batches, strict=True))
        return found

    def begun():
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        with open(HERE / "children", "a") as file:
            print(child.pid, file=file)

    def keeps_one(out, y):
        if running() and not (HERE / "children").exists():
            begun()
        return mine.loss(out, y)

    def dies_with_one(out, y):
        if running():
            CONTEXT.Process(target=time.sleep, args=(600,)).start()
            os.kill(os.getpid(), signal.SIGKILL)
        return mine.loss(out, y)

    def hangs(out, y):
        if running():
            begun()
            time.sleep(600)
        return mine.loss(out, y)
"""


#: Name -> what is its own of the task. A file holds one: each is tried when the file is read.
OWN = {
    "forks": "loss=loss",
    "loads": "data=loaded, train=..., val=..., test=...",
    "keeps": "loss=keeps_one",
    "dies": "loss=dies_with_one",
    "hangs": "loss=hangs",
}


def task(name: str, folder: Path) -> str:
    path = folder / "task.py"
    path.write_text(textwrap.dedent(TASK) + f"\n{name} = netwright.task({name!r}, **mine.good({OWN[name]}))\n")
    return f"{path}:{name}"


def children(folder: Path) -> list[int]:
    """Those on the folder's list."""
    return list(map(int, (folder / "children").read_text().split()))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.parametrize("name", ["forks", "loads"])
def test_children_of_workers_give_the_records_of_serial(name: str, tmp_path: Path) -> None:
    found = [
        compare(["default"], task(name, tmp_path), out=tmp_path / kind, means=Means(executor=kind, workers=1), **TERMS)
        for kind in ("serial", "processes")
    ]
    one, other = ([record.machine_free() for record in result.records] for result in found)
    assert one == other and {row["state"] for row in one} == {"done"}


@pytest.mark.skipif(not THERE, reason="no /proc")
def test_children_end_with_the_study(tmp_path: Path) -> None:
    compare(["default"], task("keeps", tmp_path), out=tmp_path / "out", means=Means(executor="processes", workers=1), **TERMS)
    assert not outliving(children(tmp_path))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_worker_that_dies_and_leaves_a_child_is_noticed(tmp_path: Path) -> None:
    terms, means = {**TERMS, "seeds": 1}, Means(executor="processes", workers=1)
    result = compare(["default"], task("dies", tmp_path), out=tmp_path / "out", means=means, **terms)
    assert [record.state for record in result.records] == ["lost"]


@pytest.mark.skipif(not THERE, reason="no /proc")
def test_children_end_when_the_coordinator_is_killed(tmp_path: Path) -> None:
    script = (
        "import sys; from netwright.bench.carry import Means; from netwright.compare import compare\n"
        "compare(['default'], sys.argv[1], out=sys.argv[2], means=Means(executor='processes', workers=1), "
        f"**{TERMS!r})"
    )
    environment = {**os.environ, "PYTHONPATH": f"{REPO}:{REPO / 'tests'}"}
    study = subprocess.Popen([sys.executable, "-c", script, task("hangs", tmp_path), str(tmp_path / "out")], env=environment)
    until = time.monotonic() + 60
    while not (tmp_path / "children").exists() and time.monotonic() < until:
        time.sleep(0.1)
    time.sleep(0.2)
    assert len(alive(children(tmp_path))) == 1
    study.send_signal(signal.SIGKILL)
    study.wait(10)
    assert not outliving(children(tmp_path))
