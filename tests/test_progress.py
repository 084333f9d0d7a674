"""Progress: which run was the last, how long the others take by what finished ones took, and what was there already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import files
import mine
import pytest

from netwright.bench import progress
from netwright.bench.carry import Means
from netwright.bench.experiment import Experiment
from netwright.bench.own.experiment import load_part
from netwright.bench.progress import Progress, in_words, time_left
from netwright.bench.store.store import Store
from netwright.compare import compare

TERMS: dict[str, Any] = {"match": "none", "steps": 2}


@pytest.mark.parametrize(
    ("still", "spent", "workers", "seconds"),
    [
        ({"a": 3}, {}, 1, None),
        ({"a": 3}, {"a": []}, 1, None),
        ({"a": 3}, {"a": [1.0, 3.0]}, 1, 6.0),
        ({"a": 2, "b": 4}, {"a": [1.0], "b": [10.0]}, 1, 42.0),  # each arm by its own runs
        ({"a": 2, "b": 4, "c": 1}, {"a": [1.0], "b": [3.0, 5.0]}, 1, 2 + 16 + 2.5),  # c by the mean of the others
        ({"a": 0, "c": 2}, {"a": [4.0]}, 1, 8.0),
        ({"a": 8}, {"a": [2.0]}, 4, 4.0),
        ({"a": 1}, {"a": [2.0]}, 4, 2.0),  # one run is not shared
        ({"a": 0}, {"a": [2.0]}, 4, 0.0),
        ({}, {"a": [2.0]}, 1, 0.0),
    ],
)
def test_time_left(still: Mapping[str, int], spent: Mapping[str, Sequence[float]], workers: int, seconds: float | None) -> None:
    assert time_left(still, spent, workers) == seconds


def test_time_left_in_words() -> None:
    assert [in_words(t) for t in (None, 0.2, 200.0, 0.0)] == [
        "time left not known yet",
        "about 1 s left",
        "about 3 min left",
        "done",
    ]


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "EVERY", -1.0)


def lines(said: Sequence[str], stage: str) -> list[str]:
    return [line for line in said if line.startswith(stage)]


def test_a_line_names_the_arm_the_seed_and_the_trial(often: None, tmp_path: Path) -> None:
    said: list[str] = []
    compare(["default"], mine.task(), out=tmp_path, seeds=1, trials=2, engine="loop", tell=said.append, **TERMS)
    first, *_, last = lines(said, "training")
    assert first.startswith("training 1/") and first.endswith(" left (default seed 0 trial 0)") and "about" in first
    assert ", done (default seed 0 trial " in last
    assert all("done" not in line and "left" not in line for line in lines(said, "scoring"))


def test_runs_that_were_there_are_told_once_and_count(often: None, tmp_path: Path) -> None:
    terms = {"engine": "loop", "trials": 1, "out": tmp_path, **TERMS}
    said: list[str] = []
    compare(["default"], mine.task(), seeds=2, tell=said.append, **terms)
    assert not [line for line in said if "there already" in line]
    with Store.create_or_open(tmp_path, *identity(tmp_path)) as store:
        store.requeue([store.records()[-1].key], redo=True)
    said.clear()
    compare(["default"], mine.task(), seeds=2, tell=said.append, **terms)
    assert [line for line in said if "there already" in line] == ["1 of 2 runs were there already"]
    assert lines(said, "training") == ["training 2/2, done (default seed 1)"]


def identity(folder: Path) -> tuple[str, str]:
    with Store.read(folder) as store:
        return store.study, store.request


def test_stacks_trainings_of_ones_own_and_cells_are_told_alike(often: None, tmp_path: Path) -> None:
    said: list[str] = []
    means = Means("serial")
    given: dict[str, Any] = {"seeds": 2, "match": "none", "means": means, "tell": said.append}
    compare(["default"], "moons", trials=1, steps=2, engine="stack", out=tmp_path / "stack", **given)
    compare(["a", "b"], files.loop(tmp_path, 0.0), trials=2, out=tmp_path / "own", **given)
    Experiment(load_part(files.experiment(tmp_path, 0.0)), seeds=2, out=tmp_path / "cells", means=means).run(said.append)
    told = [line.split(",")[0] for line in lines(said, "training")]
    assert told[:9] == ["training 2/2", *(f"training {n}/8" for n in range(1, 9))]
    assert [line.split(",")[0] for line in lines(said, "cells")] == [f"cells {n}/6" for n in range(1, 7)]
    text = "\n".join(said)
    assert "(default seed 1)" in text and "(b seed 1 trial 1)" in text and "(n=100 seed 1)" in text


def test_bars_show_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    said: list[str] = []
    with Progress(said.append, live=True) as bar:
        bar.start("training", 5, there=2)
        bar.advance(1, "[bold]a seed 0", "about 1 s left")
        (task,) = bar.bar.tasks
        assert (task.completed, task.total) == (3, 5) and task.fields["what"] == r"about 1 s left (\[bold]a seed 0)"
    assert said == ["2 of 5 runs were there already"]
