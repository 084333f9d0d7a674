"""Code of others can't end the program, spoil its output, or leave the process other than it was."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mine
import numpy as np
import plugin
import pytest
import torch

from netwright.bench.own.task import load_file
from netwright.compare import compare
from netwright.contract.child import check
from netwright.core import catalogue
from netwright.core.errors import BadInput
from netwright.core.guard import Escape, Interrupted, drain, foreign, kept

REPO = Path(__file__).parents[1]
TERMS: dict[str, Any] = {"seeds": 1, "trials": 1, "match": "none", "steps": 2, "engine": "loop"}
ENDS = (SystemExit(), SystemExit(0), SystemExit("text"), KeyboardInterrupt(), GeneratorExit(), BaseException("bare"))


def command(*words: str, stdout: Any = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": f"{REPO}:{REPO / 'tests'}", "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-m", "netwright", *words]
    return subprocess.run(line, stdout=stdout, stderr=subprocess.PIPE, text=True, env=environment, timeout=100, check=False)


def late(error: BaseException, calls: int) -> Callable[..., Any]:
    """A loss that raises at its call of this number and later."""
    count = [0]

    def loss(out: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        count[0] += 1
        if count[0] >= calls:
            raise error
        return mine.loss(out, y)

    return loss


# Ends -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ENDS, ids=repr)
def test_no_end_of_the_program_passes(end: BaseException) -> None:
    with pytest.raises(Escape, match="would have ended the program"), foreign("it"):
        raise end
    with pytest.raises(ZeroDivisionError), foreign("it"):
        1 / 0  # noqa: B018


def test_a_pressed_key_passes() -> None:
    with pytest.raises(Interrupted), foreign("it"):
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    seen: list[BaseException] = []

    def elsewhere() -> None:
        try:
            with foreign("it"):
                raise KeyboardInterrupt
        except BaseException as error:
            seen.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert isinstance(seen[0], Escape)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_ends_where_it_would_have() -> None:
    with foreign("it"):
        if (pid := os.fork()) == 0:
            sys.exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7


@pytest.mark.parametrize("end", ENDS, ids=repr)
def test_a_loss_or_metric_that_ends_the_program_makes_a_row(end: BaseException, tmp_path: Path) -> None:
    result = compare(["default"], mine.task(loss=late(end, 5)), out=tmp_path / "loss", **TERMS | {"steps": 6})
    assert [r.state for r in result.records] == ["failed"] and repr(end) in result.records[0].error


@pytest.mark.parametrize("end", ["sys.exit(0)", "raise KeyboardInterrupt", "raise BaseException"])
def test_a_task_file_that_ends_the_program_is_named_with_its_line(end: str, tmp_path: Path) -> None:
    (tmp_path / "ends.py").write_text(f"import sys\n\n{end}\n")
    with pytest.raises(BadInput, match=r"ends.py, line 3 raised (SystemExit|KeyboardInterrupt|BaseException)"):
        load_file(str(tmp_path / "ends.py"))
    with pytest.raises(BadInput):
        check(f"{tmp_path / 'ends.py'}:PART", limit=60)


@pytest.mark.parametrize("what", ["model", "metric", "data"])
def test_a_task_whose_functions_end_the_program_is_refused(what: str) -> None:
    def ends(*_: Any) -> Any:
        sys.exit(0)

    absent = {"train": ..., "val": ..., "test": ...} if what == "data" else {}
    with pytest.raises(BadInput, match="SystemExit"):
        mine.task(**{what: ends}, **absent)


@pytest.mark.parametrize("end", ["raise SystemExit(0)", "raise KeyboardInterrupt"])
def test_a_plugin_that_ends_the_program_is_named(end: str, tmp_path: Path) -> None:
    plugin.write(tmp_path / "site", {"bad": end + "\n"})
    with plugin.installed(tmp_path / "site"):
        assert [name for name in catalogue.broken() if name.startswith("bad")]


# What is rebound ------------------------------------------------------------------------------------------------------

CHANGES: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "default dtype": (lambda: torch.set_default_dtype(torch.float64), torch.get_default_dtype),
    "default device": (lambda: torch.set_default_device("meta"), lambda: torch.empty(1).device),
    "threads": (lambda: torch.set_num_threads(torch.get_num_threads() + 1), torch.get_num_threads),
    "gradients": (lambda: torch.set_grad_enabled(False), torch.is_grad_enabled),
    "deterministic": (lambda: torch.use_deterministic_algorithms(True), torch.are_deterministic_algorithms_enabled),
    "anomaly": (lambda: torch.autograd.set_detect_anomaly(True), torch.is_anomaly_enabled),
    "environ": (lambda: os.environ.update(NETWRIGHT_TEST="1"), lambda: os.environ.get("NETWRIGHT_TEST")),
    "warnings": (lambda: warnings.simplefilter("error"), lambda: list(warnings.filters)),
    "folder": (lambda: os.chdir("/"), os.getcwd),
    "errors": (lambda: np.seterr(all="raise"), np.geterr),
    "stdout": (lambda: setattr(sys, "stdout", None), lambda: sys.stdout),
    "recursion": (lambda: sys.setrecursionlimit(5000), sys.getrecursionlimit),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_is_rebound_is_put_back_and_named(name: str) -> None:
    change, get = CHANGES[name]
    drain()
    before = get()
    with foreign("the code"):
        change()
        assert get() != before
    assert get() == before
    assert len(notes := drain()) == 1 and notes[0].startswith("the code changed") and name in notes[0] and not drain()
    with pytest.raises(ZeroDivisionError), foreign("the code"):
        change()
        1 / 0  # noqa: B018
    assert get() == before and drain() == notes


def test_random_states_are_put_back_without_a_word() -> None:
    drain()
    pairs = []
    for _ in range(2):
        with foreign("it"):
            torch.manual_seed(0), np.random.seed(0), random.seed(0)
        pairs.append((torch.get_rng_state().sum().item(), np.random.get_state()[1].sum(), random.getstate()))
    assert pairs[0] == pairs[1] and not drain()


def test_a_watched_function_keeps_the_defaults_in_the_middle_of_a_run() -> None:
    drain()

    def rebinds(x: float) -> float:
        torch.set_default_dtype(torch.float64)
        return 2 * x

    assert kept("the metric", rebinds)(2.0) == 4.0 and torch.get_default_dtype() == torch.float32
    assert drain() == ("the metric changed torch's default dtype; it was put back",)


def test_the_report_names_what_a_metric_rebinds_and_the_scores_are_as_without_it(tmp_path: Path) -> None:
    def rebinds(out: torch.Tensor, y: torch.Tensor) -> float:
        torch.set_default_dtype(torch.float64), torch.manual_seed(1), np.random.seed(1), warnings.simplefilter("always")
        return mine.error(out, y)

    results = [compare(["default"], mine.task(metric=m), out=tmp_path / m.__name__, **TERMS) for m in (mine.error, rebinds)]
    assert [r.curve for r in results[0].records] == [r.curve for r in results[1].records]
    assert not [note for note in results[0].notes if "changed" in note]
    assert [note for note in results[1].notes if "default dtype" in note]


# Output ---------------------------------------------------------------------------------------------------------------

LOUD = """
import atexit, ctypes, os, sys
import mine, netwright
print("top")
sys.stdout.write("written")
os.write(1, b"from C")
libc = ctypes.CDLL(None)
atexit.register(print, "at exit")

def metric(out, y):
    print("in the metric", flush=True)
    libc.puts(b"puts")
    return mine.error(out, y)

TASK = netwright.task("loud", **mine.good(metric=metric))
"""


def test_a_document_stands_alone_on_stdout(tmp_path: Path) -> None:
    (tmp_path / "loud.py").write_text(LOUD)
    words = ("--seeds", "1", "--tune", "1", "--steps", "2", "--executor", "processes", "--workers", "1", "--json")
    done = command("compare", "default", "--task", str(tmp_path / "loud.py"), "--out", str(tmp_path / "out"), *words)
    assert done.returncode == 0 and json.loads(done.stdout)["schema"] == 1, done.stderr
    for text in ("top", "written", "from C", "in the metric", "puts", "at exit"):
        assert text in done.stderr


@pytest.mark.parametrize("end", ["sys.exit(0)", "sys.exit()", "raise KeyboardInterrupt"])
def test_the_program_never_succeeds_without_a_report(end: str, tmp_path: Path) -> None:
    (tmp_path / "ends.py").write_text(f"import sys\n{end}\n")
    done = command("compare", "default", "--task", str(tmp_path / "ends.py"), "--out", str(tmp_path / "out"))
    assert done.returncode == 2 and done.stderr.startswith("error: ") and "Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_stdout_that_is_closed_or_full_is_one_line() -> None:
    with open("/dev/full", "w") as full:
        done = command("list", "--json", stdout=full)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "Traceback" not in done.stderr
    ours, theirs = os.pipe()
    os.close(ours)
    for words in (("list",), ("list", "--json")):
        done = command(*words, stdout=theirs)
        assert done.returncode == 1 and done.stderr == "error: stdout was closed before everything was written\n"
    os.close(theirs)
    script = textwrap.dedent(f"exec {sys.executable} -m netwright list >&-")
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    shut = subprocess.run(["sh", "-c", script], stderr=subprocess.PIPE, text=True, env=environment, timeout=100, check=False)
    assert not shut.stderr
