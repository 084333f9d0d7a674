"""The bench never returns a result that other mathematics computed: a copy of the package is edited between two calls."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import netwright

LINE = "g_x = (g @ feedback_OI.to(g.dtype))"  # the error that feedback alignment and sign symmetry carry back
ARMS = ["backprop", "feedback-alignment", "sign-symmetry", "mono-forward"]


def compared(house: Path, out: Path) -> dict[str, dict[str, float]]:
    """arm -> the mean score and the number of runs that are superseded, of a small study in `out`."""
    script = (
        "import json, sys, netwright\n"
        "from netwright.core.fingerprint import fingerprint\n"
        f"study = netwright.Study('moons', {ARMS!r}, seeds=2, trials=1, steps=40, match='none', control=False, out=sys.argv[1])\n"
        "result = study.run()\n"
        "prints = {name: fingerprint(netwright.get(name)) for name in result.baseline.split() + [a.name for a in result.arms]}\n"
        "print(json.dumps([prints, {a.name: a.mean for a in result.arms}]))\n"
    )
    environment = os.environ | {"PYTHONPATH": str(house), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-c", script, str(out)]
    done = subprocess.run(words, env=environment, cwd=house, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    prints, means = json.loads(done.stdout.splitlines()[-1])
    return {"prints": prints, "means": means}


def states(house: Path, out: Path) -> dict[str, list[str]]:
    import sqlite3

    with sqlite3.connect(f"file:{out / 'study.sqlite'}?mode=ro", uri=True) as connection:
        rows = connection.execute("select arm, state from runs order by arm, seed").fetchall()
    found: dict[str, list[str]] = {}
    for arm, state in rows:
        found.setdefault(arm, []).append(state)
    return found


def test_a_changed_line_of_mathematics_outside_a_parts_own_file(tmp_path: Path) -> None:
    house, out = tmp_path / "house", tmp_path / "out"
    shutil.copytree(Path(netwright.__file__).parent, house / "netwright", ignore=shutil.ignore_patterns("__pycache__"))
    first = compared(house, out)
    (path,) = [p for p in (house / "netwright").rglob("*.py") if LINE in p.read_text(encoding="utf-8")]
    path.write_text(path.read_text(encoding="utf-8").replace(LINE, LINE.replace("(g @", "-3 * (g @")), encoding="utf-8")
    second = compared(house, out)
    moved = {name for name in ARMS if first["prints"][name] != second["prints"][name]}
    assert moved == {"feedback-alignment", "sign-symmetry"}
    assert all((first["means"][arm] != second["means"][arm]) == (arm in moved) for arm in ARMS)
    assert {arm for arm, found in states(house, out).items() if "superseded" in found} == moved
