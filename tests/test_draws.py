"""What code of others draws from the global generators repeats, wherever and in whatever order it runs; the rest is found out."""

from __future__ import annotations

import os
import random
import textwrap
from pathlib import Path
from typing import Any

import mine
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from netwright.bench.carry import Means
from netwright.bench.entrant import enter_all
from netwright.bench.executors.processes import execute
from netwright.bench.experiment import Experiment
from netwright.bench.jobs import Call, Job, JobResult, perform
from netwright.bench.own.experiment import load_part
from netwright.bench.own.source import address_of
from netwright.bench.plan import jobs_of, make_plan, runs_of
from netwright.bench.request import Terms, make_request, open_task
from netwright.compare import compare
from netwright.core import catalogue
from netwright.tensor.streams import global_draws

#: A file whose every function draws from the three global generators, and so does reading it.
FILE = """
import random

import mine
import netwright
import numpy as np
import torch
from netwright.core.part import Paper
from netwright.experiments import Control, Figure, Predicate, experiment
from torch.utils.data import Dataset


def drawn():
    return random.random() + np.random.rand() + torch.rand(()).item()


OFFSET = drawn()


class Noisy(mine.Net):
    def __init__(self):
        super().__init__()
        self.scale = 1 + drawn() / 10

    def forward(self, x):
        return super().forward(self.scale * x + OFFSET) + drawn() / 10


class Jittered(Dataset):
    def __len__(self):
        return 32

    def __getitem__(self, i):
        x = torch.full((4,), drawn())
        return x, x[:1].sin()


def data(seed):
    x = torch.from_numpy(np.random.randn(64, 4)).float() + drawn()
    return {"train": (x, x[:, :1].sin()), "val": Jittered(), "test": Jittered()}


def error(out, y):
    return mine.error(out, y) + drawn() / 100


def train(arm, seed, point):
    return {"validation": drawn() + len(arm), "test": drawn() + OFFSET}


def cell(seed, *, n):
    return {"y": drawn() + n, "z": OFFSET}


without = {"train": ..., "val": ..., "test": ...}
PER_SEED = netwright.task("per seed", **mine.good(model=Noisy, metric=error, data=data, **without))
ONE_POOL = netwright.task("one pool", **mine.good(model=Noisy, metric=error, train=Jittered()))
LOOP = netwright.task("loop", run=train, higher_is_better=True, worst=0.0, delta=0.01, lr=(1e-4, 1e-2))
PART = experiment(
    cell, name="drawing", paper=Paper(title="Mine", authors="Me", year=2026), summary="It draws.", grid={"n": (1, 10)},
    gives=("y", "z"), predicates=(Predicate("p", "it is", lambda t: t.at({"n": 1})["y"], (0.0, 9.0), ("y",)),),
    controls=(Control("none", {}, ("p",)),), figure=Figure("n", "y"),
    sizes={size: {"seeds": 3} for size in ("tiny", "small", "full")},
)
"""
#: The model as it is, and with any other activation; to a training of one's own they are two texts.
ARMS = ["default", next(p.name for p in catalogue.parts("activation") if p.tags.shape == "elementwise")]
TERMS: dict[str, Any] = {"trials": 1, "match": "none", "steps": 4}


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))  # for the workers
    path = tmp_path / "drawing.py"
    path.write_text(textwrap.dedent(FILE), encoding="utf-8")
    return path


def states() -> tuple[Any, ...]:
    return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()


def jobs(file: Path) -> list[Job]:
    """Every run of the file's tasks and experiment, by two seeds or three, as what an executor takes."""
    found: list[Job] = []
    for name in ("PER_SEED", "ONE_POOL", "LOOP"):
        ref, terms = f"{file}:{name}", Terms(seeds=2, trials=1, match="none", steps=None if name == "LOOP" else 4)
        task = open_task(ref, {}, terms.budget)
        request = make_request(task, ref, {}, ARMS, terms)
        entrants = enter_all(task, request)
        runs = runs_of(request, entrants, plan := make_plan(request, entrants))
        found += jobs_of(entrants, plan, runs, {run.key for run in runs})
    part = load_part(f"{file}:PART")
    return [*found, *(Call((run,), address_of(part.subject)) for run in Experiment(part).runs())]


def test_runs_that_draw_repeat_in_any_process_and_order(file: Path) -> None:
    here, there = {}, {}
    for job in (every := jobs(file)):
        random.random(), np.random.rand(), torch.rand(1)  # what is drawn between makes no difference
        here |= {record.key: record for record in perform(job).records}

    def keep(job: Job, result: JobResult) -> None:
        there.update({record.key: record for record in result.records})

    execute(every[::-1], lambda job: None, keep, workers=1)
    assert {key: r.machine_free() for key, r in here.items()} == {key: r.machine_free() for key, r in there.items()}
    assert {record.state for record in here.values()} == {"done"} and len(here) == 3 * len(ARMS) * 2 + 2 * 3
    drawn = {(record.engine, record.best_val or record.values["y"]) for record in here.values() if record.arm in (ARMS[0], "n=1")}
    assert len(drawn) == 3 * 2 + 3, "another seed draws other numbers"


@pytest.mark.parametrize("name", ["PER_SEED", "ONE_POOL"])
def test_scores_of_what_draws_repeat_in_any_order(name: str, file: Path, tmp_path: Path) -> None:
    scores = []
    for i, seeds in enumerate([(0, 1), (1, 0)]):
        result = compare(["default"], f"{file}:{name}", seeds=seeds, out=tmp_path / str(i), means=Means("serial"), **TERMS)
        assert not [note for note in result.notes if "repeatable" in note]
        scores.append({score.seed: score.value for score in result.scores})
    assert scores[0] == scores[1] and scores[0][0] != scores[0][1]


def test_the_global_generators_are_as_they_were(file: Path, tmp_path: Path) -> None:
    before = states()
    compare(["default"], f"{file}:ONE_POOL", seeds=1, out=tmp_path / "out", **TERMS)
    assert states() == before
    with pytest.raises(ZeroDivisionError), global_draws(0, "forward"):
        assert states() != before
        1 / 0  # noqa: B018
    assert states() == before


class Own(mine.Net):
    """A generator of its own, made with the model."""

    def __init__(self) -> None:
        super().__init__()
        self.rng = np.random.default_rng()

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + float(self.rng.normal())


class System(mine.Net):
    """Noise of the operating system."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + os.urandom(1)[0] + int.from_bytes(os.urandom(2)) / 1000


class Switched(nn.Module):
    """Noise in the place of one arm's activation alone."""

    def forward(self, x: Tensor) -> Tensor:
        return x + float(np.random.default_rng().normal())


@pytest.mark.parametrize("model", [Own, System])
def test_what_draws_from_elsewhere_is_named(model: type[nn.Module], tmp_path: Path) -> None:
    for _ in range(2):  # also where the costs are known already
        result = compare(ARMS, mine.task(model=model), out=tmp_path, seeds=1, **TERMS)
        for arm in ARMS:
            said = f"{arm} isn't repeatable: its first step, done twice from the same seed, gave two losses"
            assert [note for note in result.notes if note == said]


def test_only_the_arm_that_does_not_repeat_is_named(tmp_path: Path) -> None:
    def model() -> nn.Module:
        net = mine.Net()
        net.body[1] = Switched()
        return net

    result = compare(ARMS, mine.task(model=model, slot=Switched), out=tmp_path, seeds=1, **TERMS)
    assert [note.split()[0] for note in result.notes if "repeatable" in note] == ["default"]
