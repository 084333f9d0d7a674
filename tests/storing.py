"""What the tests of the store share: small studies, and other processes that hold one."""

from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

from netwright.bench.records import Cost, Run, RunRecord, Score
from netwright.bench.store import database
from netwright.bench.store.store import Store
from netwright.core.errors import BadInput

__all__ = ["GOLDEN", "BadInput", "Path", "Store", "child", "filled", "owned", "record", "run", "said", "until_full"]

GOLDEN = Path(__file__).parent / "golden" / "store_v1.sqlite"
REPO = Path(__file__).parents[1]


def run(i: int, arm: str = "a", **changes) -> Run:
    return replace(Run(f"key-{arm}-{i}", arm, i // 3, i % 3, {"lr": 0.1 / (i + 1)}), **changes)


def record(of: Run, state: str = "done", **values) -> RunRecord:
    values = {"curve": ((1, 0.5, 0.25),), "best_step": 1, "best_val": 0.25, **values}
    return RunRecord(of.key, of.arm, of.seed, of.trial, of.point, state, **values)


def owned(folder: Path, **options) -> Store:
    return Store.create_or_open(folder, "study-1", '{"task":"toy"}', **options)


def filled(folder: Path, n: int = 30, **options) -> Store:
    """A store with n finished runs and one row or more in every table."""
    made = owned(folder, **options)
    runs = [run(i) for i in range(n)]
    made.set_environment({"torch": "2.0", "cpu": "one"})
    made.add_runs(runs)
    made.lease(r.key for r in runs)
    made.finish([record(r, error="x" * 300) for r in runs], {r.key: bytes([i]) * 9000 for i, r in enumerate(runs[:4])})
    for seed in range(n // 3):
        made.put_score(Score("a", seed, 0, 0.5 + seed))
    made.put_cost(Cost("a", params=7, step_quartiles=(0.1, 0.2), widths=(8, 8)))
    made.put_plan({"engine": "loop", "runs": n})
    made.add_look(range(n // 3))
    made.note("not tuned")
    return made


def child(code: str, *arguments: object, **options) -> subprocess.Popen:
    """A Python process that has these names; it prints a line when it is where the test wants it."""
    prelude = "import sys, time, os; sys.path[:0] = sys.argv[1:3]; from storing import *; args = sys.argv[3:]\n"
    command = [sys.executable, "-c", prelude + textwrap.dedent(code), str(REPO), str(REPO / "tests")]
    command += map(str, arguments)
    return subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True, **options)


def said(process: subprocess.Popen) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def write_golden(path: Path) -> None:
    """How tests/golden/store_v1.sqlite was made, by the release that wrote schema 1. It is never made again:

    PYTHONPATH=.:tests python -c "import storing; storing.write_golden(storing.GOLDEN)"
    """
    folder = path.parent / "golden-study"
    with filled(folder, 3) as made:
        with made._transaction() as db:  # as that release did once a replicate was scored
            db.execute("DELETE FROM weights WHERE key!='key-a-0'")
        made.add_runs([run(9)])
    shutil.move(folder / database.FILE, path)
    shutil.rmtree(folder)


def until_full(made: Store) -> int:
    """Stores results until there is no room; the number stored."""
    for i in range(10_000):
        try:
            made.add_runs([run(i)])
            made.finish([record(run(i), error="x" * 3000)])
        except BadInput as error:
            assert "full or failing; what was stored before is kept" in str(error)
            return i
    raise AssertionError("it never was full")
