"""Runs that failed for a reason outside the part are tried again; where nothing works, that is said and is no success."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mine
import pytest
import torch
from typer.testing import CliRunner

from netwright.bench.carry import Means
from netwright.bench.causes import OUTSIDE, NothingWorks, Watch, described, nothing_worked, to_retry
from netwright.bench.records import RunRecord, Score
from netwright.bench.request import ArmSpec
from netwright.cli import app
from netwright.compare import compare
from netwright.core.errors import BadInput, UnknownName

TERMS: dict[str, Any] = {"trials": 1, "match": "none", "steps": 2, "engine": "loop"}


def record(state: str, error: str = "", arm: str = "a", seed: int = 0) -> RunRecord:
    return RunRecord(f"{arm}{seed}", arm, seed, 0, {}, state, error=error)


def raised(make: Callable[[], BaseException], wrap: bool) -> BaseException:
    try:
        try:
            raise make()
        except BaseException as error:
            if wrap:
                raise BadInput("data(0) raised") from error
            raise
    except BaseException as error:
        return error


@pytest.mark.parametrize("wrap", [False, True])
@pytest.mark.parametrize(
    "make",
    [
        lambda: FileNotFoundError(2, "No such file"),
        lambda: ConnectionResetError("gone"),
        lambda: TimeoutError("late"),
        lambda: ModuleNotFoundError("no module named x"),
        lambda: type("HTTPError", (OSError,), {})("503"),
        lambda: RuntimeError("DataLoader worker (pid 7) exited unexpectedly"),
    ],
)
def test_a_cause_outside_the_part_is_said_and_tried_again(make: Callable[[], BaseException], wrap: bool) -> None:
    text = described(raised(make, wrap))
    assert OUTSIDE in text and to_retry([record("failed", text)], None, ()) == ["a0"]


def test_a_part_s_own_error_is_kept() -> None:
    for error in (ValueError("x"), AssertionError(), RuntimeError("shape")):
        assert to_retry([record("failed", described(error))], None, ()) == []
    assert to_retry([record("failed", "ValueError"), record("diverged"), record("done")], None, ("failed",)) == ["a0"]


@pytest.mark.parametrize(("limit", "again"), [(None, True), (20.0, False), (10.0, False), (40.0, True)])
def test_a_run_that_was_stopped_is_tried_again_under_a_higher_limit(limit: float | None, again: bool) -> None:
    stopped = record("timeout", "took longer than the limit of 20 s")
    assert to_retry([stopped], limit, ()) == (["a0"] if again else [])


def test_states_that_are_not_tried_again_are_refused() -> None:
    with pytest.raises(UnknownName, match="diverged"):
        Means(retry=("diverged",))


def switched(path: Path, error: type[Exception]) -> Any:
    """A task whose loss raises while the file is absent, and works in the trial before a study."""
    count = [0]

    def loss(out: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        count[0] += 1
        if count[0] > 1 and not path.exists():
            raise error(f"no {path.name} {count[0]}")
        return mine.loss(out, y)

    return mine.task(loss=loss)


def test_the_same_command_mends_what_the_disk_broke(tmp_path: Path) -> None:
    task, terms = switched(tmp_path / "there", FileNotFoundError), {**TERMS, "seeds": 2, "out": tmp_path / "out"}
    result = compare(["default"], task, **terms)
    assert {r.state for r in result.records} == {"failed"} and "nothing worked" in result.notes[0]
    (tmp_path / "there").touch()
    assert {r.state for r in compare(["default"], task, **terms).records} == {"done"}


def test_retry_forces_what_is_kept_otherwise(tmp_path: Path) -> None:
    task, terms = switched(tmp_path / "there", ValueError), {**TERMS, "seeds": 2, "out": tmp_path / "out"}
    compare(["default"], task, **terms)
    (tmp_path / "there").touch()
    assert {r.state for r in compare(["default"], task, **terms).records} == {"failed"}
    mended = compare(["default"], task, means=Means(retry=("failed",)), **terms)
    assert {r.state for r in mended.records} == {"done"} and not any(s.failed for s in mended.scores)


# Nothing works --------------------------------------------------------------------------------------------------------


def test_a_study_in_which_every_arm_fails_alike_stops_early(tmp_path: Path) -> None:
    task = switched(tmp_path / "absent", ValueError)
    with pytest.raises(NothingWorks, match=r"first 4 runs, of every arm, failed alike.*ValueError: no absent"):
        compare([ArmSpec("A"), ArmSpec("B", rekey=1)], task, seeds=5, out=tmp_path / "out", **TERMS)


def test_what_stops_a_study_and_what_does_not() -> None:
    def seen(*rows: RunRecord) -> bool:
        watch = Watch({"a": 5, "b": 5})
        try:
            for row in rows:
                watch.see([row])
        except NothingWorks:
            return True
        return False

    bad, good = [record("failed", f"E {i}", arm, i) for i in (0, 1) for arm in "ab"], record("done")
    assert seen(*bad) and seen(*(record("timeout", "limit", arm) for arm in "abab"))
    assert not seen(*bad[:3]) and not seen(good, *bad) and not seen(record("diverged"), *bad)
    assert not seen(*bad[:3], record("failed", "another", "b"))
    assert not seen(*(record("failed", "E", "a", i) for i in range(5)))
    last = Watch({"a": 4})
    last.see([record("failed", "E", "a", i) for i in range(4)])  # nothing is left to spare


def test_nothing_worked_is_told_from_something() -> None:
    failed, dropped = Score("a", 0, None, 0.0, failed=True), Score("a", 1, None, 0.0, dropped="lost: x")
    assert "E" in nothing_worked([record("failed", "E")], [failed, dropped])
    assert not nothing_worked([record("failed", "E")], [failed, Score("b", 0, 0, 0.5)]) and not nothing_worked([], [])


@pytest.mark.parametrize("seeds", [1, 5])
@pytest.mark.parametrize("as_json", [True, False])
def test_the_command_is_no_success_and_says_why(seeds: int, as_json: bool, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "import mine, netwright\ncount = [0]\n"
        "def loss(out, y):\n    count[0] += 1\n    if count[0] > 1: raise ValueError('it broke')\n    return mine.loss(out, y)\n"
        "TASK = netwright.task('own', **mine.good(loss=loss))\n"
    )
    words = ["compare", "default", "--task", f"{tmp_path / 'own.py'}:TASK", "--seeds", str(seeds), "--tune", "1"]
    words += ["--steps", "2", "--out", str(tmp_path / "out"), *(["--json"] if as_json else [])]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 1 and "ValueError: it broke" in done.stderr
    if as_json:
        assert "ValueError: it broke" in json.loads(done.stdout)["cause"]
