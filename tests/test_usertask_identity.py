"""What a task of a user's own is identified by, and tasks that a file holds."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import toys
from mine import Net, points, task
from torch import Tensor, nn

from netwright.bench.entrant import enter_all
from netwright.bench.own.task import load_file
from netwright.bench.plan import make_plan, runs_of
from netwright.bench.request import Terms, make_request, open_task
from netwright.core.errors import BadInput, NetwrightError, UnknownName
from netwright.engine.task import Task

# Identity -------------------------------------------------------------------------------------------------------------


def keys(made: Task) -> set[str]:
    request = make_request(made, "given:mine", {}, ["default"], Terms(seeds=2, trials=1))
    entrants = enter_all(made, request)
    return {run.key for run in runs_of(request, entrants, make_plan(request, entrants))}


def absolute(out: Tensor, y: Tensor, power: float = 1.0, scale: float = 1.0) -> Tensor:
    return scale * (out - y).abs().pow(power).mean()


def test_the_same_task_has_the_same_keys() -> None:
    assert keys(task()) == keys(task()) and len(keys(task())) == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"train": points("other")},
        {"model": lambda: nn.Sequential(Net(), nn.Linear(1, 1))},
        {"loss": absolute},
        {"loss": partial(absolute, power=2.0)},
        {"higher_is_better": True},
        {"steps": 21},
        {"batch": 8},
        {"evals": 5},
        {"optimizer": toys.PLAIN},
        {"optimizer_options": {"betas": (0.5, 0.9)}},
        {"schedule": toys.FALLING},
        {"weight_decay": 0.1},
        {"clip": 1.0},
        {"version": "2"},
    ],
    ids=lambda changes: " ".join(changes),
)
def test_whatever_changes_a_result_changes_the_keys(changes: dict[str, Any]) -> None:
    assert not keys(task(**changes)) & keys(task())


def test_where_a_split_ends_is_part_of_the_identity() -> None:
    """The pool is the same; what is trained on isn't."""
    x, y = points("all", 100)
    one, other = (task(train=(x[:n], y[:n]), val=(x[n:90], y[n:90]), test=(x[90:], y[90:])) for n in (60, 70))
    assert one.data_hash() == other.data_hash()
    assert not keys(one) & keys(other)


def test_arguments_bound_to_a_function_are_part_of_the_identity() -> None:
    assert not keys(task(loss=partial(absolute, scale=1.0))) & keys(task(loss=partial(absolute, scale=2.0)))
    assert keys(task(loss=partial(absolute, scale=2.0))) == keys(task(loss=partial(absolute, scale=2.0)))


def test_what_is_only_said_of_the_scores_keeps_the_keys() -> None:
    assert keys(task(delta=0.5, worst=9.0, metric_name="error of mine")) == keys(task())


# Files ----------------------------------------------------------------------------------------------------------------

FILE = '''"""A task of mine."""
import torch
from torch import nn
import netwright

def points(seed):
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(seed))
    return x, x[:, :1]

def loss(out, y):
    return (out - y).square().mean()

def metric(out, y):
    return loss(out, y).item()

MINE = netwright.task("mine", model=lambda: nn.Linear(3, 1), train=points(0), val=points(1), test=points(2), loss=loss,
                      metric=metric, higher_is_better=False, worst=1.0, delta=0.01, steps=10, batch=8, lr=(1e-3, 1e-1))
'''


def written(folder: Path, source: str = FILE) -> str:
    path = folder / "mine.py"
    path.write_text(source, encoding="utf-8")
    return str(path)


def test_a_file_holds_a_task(tmp_path: Path) -> None:
    path = written(tmp_path)
    made = load_file(f"{path}:MINE")
    assert isinstance(made, Task) and made.id == "task/mine"
    assert load_file(path).source_hash == made.source_hash, "the only task needs no name"
    assert open_task(f"{path}:MINE", {}).data_hash() == made.data_hash()


def test_the_files_source_is_part_of_the_keys(tmp_path: Path) -> None:
    before = keys(load_file(f"{written(tmp_path)}:MINE"))
    assert keys(load_file(f"{written(tmp_path, FILE)}:MINE")) == before
    commented = FILE.replace("def loss", "# what is lost\ndef loss").replace("A task of mine.", "Mine.")
    assert keys(load_file(f"{written(tmp_path, commented)}:MINE")) == before, "comments change no result"
    edited = FILE.replace(".square()", ".abs()")
    assert not keys(load_file(f"{written(tmp_path, edited)}:MINE")) & before


def test_a_file_is_run_once_a_text(tmp_path: Path) -> None:
    count = f"open({str(tmp_path / 'count')!r}, 'a').write('x')\n"
    path = written(tmp_path, FILE + count)
    for _ in range(3):
        load_file(f"{path}:MINE")
    assert (tmp_path / "count").read_text() == "x"


@pytest.mark.parametrize(
    ("source", "tail", "kind", "words"),
    [
        (FILE, ":MINNE", UnknownName, "mine.py: no task is called 'MINNE'; did you mean MINE"),
        (FILE, ":loss", BadInput, "mine.py:loss is function; expected a task"),
        (FILE + "TWO = MINE\n", "", BadInput, r"holds 2 tasks \(MINE, TWO\); name one"),
        ("x = 1\n", "", BadInput, r"holds 0 tasks \(none\)"),
        (FILE + "\n1 / 0\n", ":MINE", BadInput, "mine.py, line 19 raised ZeroDivisionError"),
        (FILE + "\ndef (:\n", ":MINE", BadInput, "mine.py.* raised SyntaxError"),
        (FILE + "\nraise SystemExit(3)\n", ":MINE", BadInput, "raised SystemExit: 3"),
        (FILE.replace("steps=10", "steps=0"), ":MINE", BadInput, "steps=0; expected a whole number"),
        (FILE.replace("import torch\n", "import torch, no_such_module\n"), ":MINE", BadInput, "no_such_module"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(
    tmp_path: Path, source: str, tail: str, kind: type[NetwrightError], words: str
) -> None:
    with pytest.raises(kind, match=words):
        load_file(written(tmp_path, source) + tail)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no file .*none.py'; a task file is named as path/to/file.py:NAME"):
        open_task(f"{tmp_path / 'none.py'}:MINE", {})


def test_a_file_may_import_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "neighbour_of_mine.py").write_text("RATES = (1e-3, 2e-1)\n", encoding="utf-8")
    source = FILE.replace("import netwright\n", "import netwright\nfrom neighbour_of_mine import RATES\n")
    made = load_file(written(tmp_path, source.replace("lr=(1e-3, 1e-1)", "lr=RATES")) + ":MINE")
    assert made.lr[:2] == (1e-3, 2e-1)
