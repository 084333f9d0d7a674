"""A training of the user's own as a task: what it has to give, what is made of it, and that it is run once."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

import netwright
from netwright.bench.carry import Means
from netwright.bench.causes import NothingWorks
from netwright.bench.entrant import enter
from netwright.bench.request import ArmSpec
from netwright.core.errors import BadInput, NetwrightError

CALLS: list[tuple[str, int, float]] = []
SKILL = {"plain": 0.6, "other": 0.75}


def train(arm: str, seed: int, point: dict[str, float]) -> dict[str, float]:
    """Best at a rate of 1e-3, on validation and on test alike."""
    CALLS.append((arm, seed, point["lr"]))
    score = SKILL[arm] - 0.05 * abs(math.log10(point["lr"]) + 3) + 0.004 * math.sin(7 * seed + len(arm))
    return {"validation": score, "test": score + 0.01, "bytes": 100.0 * len(arm)}


def plainly(arm: str, seed: int, point: dict[str, float]) -> float:
    return SKILL[arm] + 0.002 * math.sin(5 * seed)


def task(run: Any = train, **changes: Any) -> Any:
    given = {"higher_is_better": True, "worst": 0.0, "delta": 0.01, "lr": (1e-4, 1e-2)}
    return netwright.task("mine", run=run, **{**given, **changes})


def compare(out: Path, made: Any, **changes: Any) -> Any:
    given = {"seeds": 7, "trials": 3, "means": Means(executor="serial"), "out": out}
    return netwright.compare(["plain", "other"], task=made, **{**given, **changes})


def test_a_training_of_ones_own_is_tuned_judged_and_run_once(tmp_path: Path) -> None:
    CALLS.clear()
    result = compare(tmp_path, task())
    assert len(CALLS) == 2 * 7 * 3 and result.comparisons[0].verdict == "better"
    rates = {(arm, seed): [lr for a, s, lr in CALLS if (a, s) == (arm, seed)] for arm in SKILL for seed in range(7)}
    assert all(rates["plain", seed] == rates["other", seed] for seed in range(7)), "arms share the points"
    for score in result.scores:  # test of the trial that validation selected
        best = min(rates[score.arm, score.seed], key=lambda lr: abs(math.log10(lr) + 3))
        assert score.value == pytest.approx(train(score.arm, score.seed, {"lr": best})["test"])
    assert {(row.value, row.arm): row.mean for row in result.values} == {("bytes", "plain"): 500.0, ("bytes", "other"): 500.0}
    assert result.match == "none" and all(arm.cost is None or arm.cost.params is None for arm in result.arms)
    CALLS.clear()
    assert compare(tmp_path, task()).comparisons == result.comparisons and not CALLS


def test_a_plain_number_is_a_score_that_nothing_is_tuned_by(tmp_path: Path) -> None:
    result = compare(tmp_path, task(plainly, lr=None), trials=1)
    assert result.comparisons[0].verdict == "better" and not result.values
    with pytest.raises(BadInput, match="no range of rates to try: give lr= to its task"):
        compare(tmp_path, task(plainly, lr=None))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"validation": 0.5}, "expected test too"),
        ({"test": 0.5, "other": 1.0}, "expected validation too"),
        ({"validation": math.nan, "test": 0.5}, "expected finite numbers"),
        ({"validation": torch.ones(2), "test": 0.5}, "only one element tensors|converted to Scalar"),
        ("good", "could not convert"),
    ],
)
def test_what_gives_something_else_is_a_row_with_the_reason(given: Any, said: str, tmp_path: Path) -> None:
    def odd(arm: str, seed: int, point: dict[str, float]) -> Any:
        return given

    globals()["odd"] = odd
    odd.__qualname__ = "odd"
    with pytest.raises(NothingWorks, match=said):
        compare(tmp_path, task(odd))


def unlucky(arm: str, seed: int, point: dict[str, float]) -> dict[str, float]:
    return {"validation": 0.5, "test": math.nan if (arm, seed) == ("other", 1) else 0.5}


def test_a_test_score_that_is_no_number_fails_its_replicate_alone(tmp_path: Path) -> None:
    result = compare(tmp_path, task(unlucky))
    assert {r.state for r in result.records} == {"done"}
    assert [(s.arm, s.seed, s.value) for s in result.scores if s.failed] == [("other", 1, 0.0)]
    assert "other seed 1: the test score is nan" in result.notes


def wrong(arm: str) -> float:
    return 0.0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"run": wrong}, "expected a function train"),
        ({"run": 3}, "run=3"),
        ({"run": "no_such_module:train"}, "no function 'no_such_module:train'"),
        ({"loss": abs}, "and loss=, which that decides"),
        ({"worst": None}, "lacks worst="),
        ({"delta": -1.0}, "delta=-1.0"),
        ({"lr": (1.0, 0.1)}, "lowest < highest"),
    ],
)
def test_wrong_arguments_are_named(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(NetwrightError, match=said):
        task(**changes)


FILE = """
import netwright

def train(arm, seed, point):
    return {"validation": len(arm) / 10, "test": len(arm) / 10 + seed / 1000}

TASK = netwright.task("mine", run=train, higher_is_better=True, worst=0.0, delta=0.01, lr=(1e-4, 1e-2))
"""


def test_a_name_is_looked_for_in_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine_beside.py").write_text("def train(arm, seed, point):\n    return seed + len(arm)\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    result = compare(tmp_path / "out", task("mine_beside:train", lr=None), trials=1, seeds=2)
    assert [s.value for s in result.scores] == [5.0, 6.0, 5.0, 6.0]


def test_it_runs_in_worker_processes_from_a_file_and_its_source_is_in_the_key(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(FILE, encoding="utf-8")
    ref = f"{path}:TASK"
    scores = [
        [(s.arm, s.seed, s.value) for s in compare(tmp_path / kind, ref, seeds=2, trials=2, means=Means(kind, workers=2)).scores]
        for kind in ("serial", "processes")
    ]
    assert scores[0] == scores[1] and len(scores[0]) == 4
    keys = {enter(task(function), ArmSpec("plain")).key(0, {"lr": 1e-3}, "loop", "") for function in (train, plainly)}
    assert len(keys) == 2
