"""The bench's test of itself: its command on a few studies, and what it left in evidence/."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from pathlib import Path

import pytest

EVIDENCE = Path(__file__).parents[1] / "evidence"


@pytest.fixture(scope="module")
def command():
    spec = importlib.util.spec_from_file_location("self_test", EVIDENCE / "commands" / "self_test.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def task(command):
    return command.open_task(command.TASK, {}, {"steps": 40})


def test_shared_stacks_give_what_compare_gives_alone(command, task, monkeypatch, tmp_path):
    """Two studies of the false alarm, at a fifth of the steps, against the same study by compare."""
    whole, compare = command.make_request, command.compare
    terms = command.Terms(trials=command.TRIALS, engine="stack", steps=40)
    monkeypatch.setattr(command, "make_request", lambda *a: whole(*a[:-1], dataclasses.replace(terms, seeds=a[-1].seeds)))
    monkeypatch.setattr(command, "compare", lambda *a, **k: compare(*a, **k, steps=40))
    rows = command.batch(task, [3, 4])
    assert [row["study"] for row in rows] == [3, 4]
    assert all(len(set(row["differences"])) > 3 for row in rows)  # the twin's streams are its own
    assert rows[0]["differences"] != rows[1]["differences"]
    assert command.same_as_compare(task, rows[1])
    planted = command.power(task, rows, 2)
    assert planted["called_worse"] == 2 and planted["handicap"] < 0


def test_the_bounds_are_exact(command):
    rows = [{"verdict": "better" if i < 12 else "cannot tell", "widened": False} for i in range(400)]
    found = command.false_alarm(rows)
    assert found["called"] == 12 and found["lower_bound"] < 0.03 < found["upper_bound"]
    assert found["upper_bound"] == pytest.approx(0.0482, abs=3e-4) and found["at_most_0.05"]
    none = command.false_alarm([{"verdict": "equivalent", "widened": False}] * 58)
    assert none["lower_bound"] == 0.0 and none["upper_bound"] == pytest.approx(1 - 0.05 ** (1 / 58))


def test_the_committed_evidence_holds_what_it_claims(command):
    path = EVIDENCE / "self_test.json"
    if not path.exists():
        pytest.skip("evidence/commands/self_test.py has not been run")
    row = json.loads(path.read_text(encoding="utf-8"))
    if "false_alarm" not in row:
        pytest.skip("evidence/commands/self_test.py has not been finished")
    assert row["false_alarm"] == command.false_alarm(row["rows"])
    assert not row["false_alarm"]["above_0.05"]
    assert row["identity"]["passed"] and row["same_as_compare"] and row["power"]["passed"]
