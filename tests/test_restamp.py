"""Records are kept across a change that moves no number, and across no other."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import netwright
from netwright.bench import restamp
from netwright.bench.restamp import Trial, chosen, stamped
from netwright.core import catalogue
from netwright.core.fingerprint import Key, fingerprint, judged

PACKAGE = Path(netwright.__file__).parent
A, B = (part.id for part in catalogue.parts("activation")[:2])
RULE = next(part.id for part in catalogue.parts("rule"))
OLD: dict[str, list[Any]] = {A: ["a" * 16, None], B: ["b" * 16, None], RULE: ["c" * 16, None]}
NEW = {name: [mark[0].upper(), None] for name, mark in OLD.items()}


def test_a_fresh_record_gets_its_present_fingerprints() -> None:
    row = {"fingerprints": {A: "a" * 16, B: "b" * 16}, "score": 1}
    assert stamped({"x": [row]}, OLD, NEW) == ({"x": [{"fingerprints": {A: "A" * 16, B: "B" * 16}, "score": 1}]}, 1, 0)
    inner = {"fingerprints": {A: "a" * 16}, "studies": [{"fingerprints": {B: "b" * 16}}, {"fingerprints": {B: "0" * 16}}]}
    wanted = {"fingerprints": {A: "A" * 16}, "studies": [{"fingerprints": {B: "B" * 16}}, {"fingerprints": {B: "0" * 16}}]}
    assert stamped(inner, OLD, NEW) == (wanted, 2, 1)


@pytest.mark.parametrize(
    "row",
    [
        {"fingerprints": {A: "a" * 16, B: "0" * 16}},
        {"fingerprints": {A: "b" * 16}},
    ],
)
def test_a_stale_record_stays_stale(row: dict[str, Any]) -> None:
    assert stamped(row, OLD, NEW) == (row, 0, 1)


def test_every_changed_definition_is_tried() -> None:
    every = [Trial("checks", str(i), (str(i),)) for i in range(100)] + [
        Trial("study", f"s{i}", (str(i),), i / 50) for i in range(100)
    ]
    keys = {str(i): [Key("netwright.wing", f"f{i // 2}")] for i in (3, 50, 51, 97)}
    picked = chosen(every, keys, "salt")
    for what in ("checks", "study"):
        mine = [t for t in picked if t.what == what]
        assert restamp.DRAWN <= len(mine) <= restamp.DRAWN + 3
        for definition in ("f1", "f25", "f48"):
            assert any(Key("netwright.wing", definition) in keys.get(p, ()) for t in mine for p in t.parts), (what, definition)
    assert picked == chosen(every, keys, "salt") != chosen(every, keys, "pepper")


def test_a_curve_without_a_loss_is_equal_to_itself(tmp_path: Path) -> None:
    """A rule in closed form has NaN for the loss of its step."""
    rule = next(p for p in catalogue.parts("rule") if p.tags.closed_form)
    command = f"netwright compare {rule.id} --task moons --seeds 1 --tune 1 --match none --no-control"
    one, other = (restamp.outcome(Trial("study", command, (rule.id,)), restamp.ROOT, tmp_path / str(i)) for i in range(2))
    assert one == other and "NaN" in one


LINE = r"(def {}\(x: Tensor\) -> Tensor:\n    return )([^\n]+)\n\n"


@pytest.mark.slow
@pytest.mark.parametrize("same", [True, False])
def test_on_a_copied_house(same: bool, tmp_path: Path) -> None:
    """One part's function is written by way of a new one, which changes nothing, or half as much again."""
    house, evidence = tmp_path / "house", tmp_path / "evidence"
    shutil.copytree(PACKAGE, house / "netwright", ignore=shutil.ignore_patterns("__pycache__"))
    git = ["git", "-C", str(house), "-c", "user.name=t", "-c", "user.email=t@t"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "before"]):
        subprocess.run([*git, *words], check=True)
    every: list[Any] = catalogue.parts("activation")
    files = {p.id: house / Path(*p.module.split(".")).with_suffix(".py") for p in every}
    alone = [p for p in every if list(files.values()).count(files[p.id]) == 1]
    part = next(p for p in alone if re.search(LINE.format(p.fn.__name__), files[p.id].read_text(encoding="utf-8")))
    other = next(p for p in every if p.id != part.id)
    entries = {p.id: {"fingerprint": fingerprint(p), "judged": judged(p), "passed": True, "checks": {}} for p in (part, other)}
    evidence.mkdir()
    (evidence / "checks.json").write_text(json.dumps({"schema": 1, "parts": entries}))
    environment = os.environ | {"PYTHONPATH": str(house), "OMP_NUM_THREADS": "1"}
    study = (
        "import netwright, sys\n"
        f"s = netwright.Study('moons', ['default', {part.id!r}], seeds=2, trials=2, steps=20, match='none', out=sys.argv[1])\n"
        "s.run()\n"
        "from netwright.bench.store.store import Store\n"
        "with Store.read(sys.argv[1]) as store: print(sorted(store.states().values()))\n"
    )

    def states() -> str:
        words = [sys.executable, "-c", study, str(tmp_path / "study")]
        done = subprocess.run(words, cwd=house, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()[-1]

    assert states() == str(["done"] * 8)
    source = files[part.id].read_text(encoding="utf-8")
    again = f"def again(y: Tensor) -> Tensor:\n    return {'y' if same else '1.5 * y'}\n\n\n"
    files[part.id].write_text(re.sub(LINE.format(part.fn.__name__), lambda m: f"{again}{m[1]}again({m[2]})\n\n", source))
    words = [
        "-m",
        "netwright.bench.restamp",
        "--since",
        "HEAD",
        "--evidence",
        str(evidence),
        "--report",
        str(tmp_path / "r.json"),
    ]
    words += ["--study", str(tmp_path / "study")]
    done = subprocess.run([sys.executable, *words], cwd=house, env=environment, capture_output=True, text=True, check=False)
    report = json.loads((tmp_path / "r.json").read_text())
    now = json.loads((evidence / "checks.json").read_text())["parts"]
    assert part.id in report["moved"], done.stderr
    assert (done.returncode == 0) == same and bool(report["different"]) != same, done.stdout
    assert (now[part.id]["fingerprint"] != entries[part.id]["fingerprint"]) == same
    assert (now[other.id] == entries[other.id]) or other.id in report["moved"]
    assert states() == str(["done"] * 8 + ["superseded"] * (0 if same else 4))
