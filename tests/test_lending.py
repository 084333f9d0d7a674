"""Records belong to runs: what another question has run already is not run again, and nothing else is taken."""

from __future__ import annotations

import dataclasses
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from netwright.bench import study as studies
from netwright.bench.carry import Means
from netwright.bench.experiment import Experiment
from netwright.bench.request import ArmSpec
from netwright.bench.store import lending
from netwright.bench.store.database import FILE
from netwright.bench.store.store import Store
from netwright.core import catalogue
from netwright.core.kind import BENCH

ARMS = [ArmSpec("A"), ArmSpec("B", rekey=1), ArmSpec("C", rekey=2)]
TERMS: dict[str, Any] = {"seeds": 2, "trials": 2, "steps": 20, "match": "none", "engine": "loop"}


@pytest.fixture(autouse=True)
def sharing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(lending.SWITCH, "1")


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Arms of the runs that were made, one by one."""
    from netwright.bench import jobs

    real, found = jobs.Training.perform, []

    def perform(job: Any) -> Any:
        found.extend(run.arm for run in job.runs)
        return real(job)

    monkeypatch.setattr(jobs.Training, "perform", perform)
    return found


def ask(out: Path, arms: list[ArmSpec], **changes: Any) -> tuple[Any, list[str]]:
    said: list[str] = []
    study = studies.Study("moons", arms, out=out, means=Means(executor="serial"), **{**TERMS, **changes})
    return study.run(said.append, progress=False), said


def records(out: Path) -> dict[str, dict[str, Any]]:
    with Store.read(out) as store:
        return {record.key: store.opened(record.key).machine_free() for record in store.records()}


def test_another_order_an_added_arm_and_another_folder_share_what_was_run(tmp_path: Path, made: list[str]) -> None:
    first, _ = ask(tmp_path / "first", ARMS[:2])
    assert sorted(made) == ["A"] * 4 + ["B"] * 4
    made.clear()
    turned, said = ask(tmp_path / "turned", [ARMS[1], ARMS[0]])
    assert not made and "8 runs were made for first already" in said
    assert records(tmp_path / "turned") == records(tmp_path / "first")
    added, _ = ask(tmp_path / "added", ARMS)
    assert made == ["C"] * 4
    assert {a.name: a.scores for a in added.arms[:2]} == {a.name: a.scores for a in first.arms}
    assert turned.comparisons[0].difference == pytest.approx(-first.comparisons[0].difference)
    assert first.looks == turned.looks == added.looks == 1  # a look at one question is none at another


def test_more_seeds_and_trials_take_what_is_there(tmp_path: Path, made: list[str]) -> None:
    ask(tmp_path / "few", ARMS[:1])
    made.clear()
    ask(tmp_path / "many", ARMS[:1], seeds=3)
    assert made == ["A"] * 2


def test_nothing_is_taken_where_it_was_not_the_same(tmp_path: Path, made: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    ask(tmp_path / "first", ARMS[:1])
    made.clear()
    for changes in ({"steps": 21}, {"precision": "fp64"}, {"engine": "stack"}, {"trials": 1}):
        ask(tmp_path / f"{changes}".strip("{}").replace("'", "").replace(": ", "-"), ARMS[:1], **changes)
        assert made, changes
        made.clear()
    monkeypatch.setattr("netwright.bench.entrant.fingerprints", lambda part, options: {part.id: "another"})
    ask(tmp_path / "edited", ARMS[:1])
    assert len(made) == 4
    made.clear()
    monkeypatch.setenv(lending.SWITCH, "0")
    ask(tmp_path / "apart", ARMS[:1])
    assert len(made) == 4


def test_a_neighbour_that_cannot_be_read_is_no_trouble(tmp_path: Path, made: list[str]) -> None:
    for name, content in (("empty", b""), ("junk", b"not a database" * 100)):
        (tmp_path / name).mkdir()
        (tmp_path / name / FILE).write_bytes(content)
    ask(tmp_path / "first", ARMS[:1])
    with sqlite3.connect(tmp_path / "first" / FILE) as db:  # a row that somebody has changed
        key = db.execute("SELECT key FROM runs").fetchone()[0]
        db.execute("UPDATE runs SET record=replace(record, '\"best_val\":', '\"best_val\":1') WHERE key=?", (key,))
    db.close()
    made.clear()
    ask(tmp_path / "second", ARMS[:1])
    assert made == ["A"]  # all but that one were whole


def test_a_neighbour_at_work_is_neither_waited_for_nor_disturbed(tmp_path: Path, made: list[str]) -> None:
    ask(tmp_path / "first", ARMS[:1])
    held = Store.create_or_open(tmp_path / "first", Store.read(tmp_path / "first").study, "{}")
    with held, held._transaction():
        made.clear()
        ask(tmp_path / "second", ARMS[:1])
        assert not made


def test_what_the_same_command_would_try_again_is_not_taken(tmp_path: Path, made: list[str]) -> None:
    ask(tmp_path / "first", ARMS[:1])
    with Store.create_or_open(tmp_path / "first", Store.read(tmp_path / "first").study, "{}") as store:
        one, two, *_ = store.records()
        store.requeue([one.key, two.key], redo=True)
        outside = "OSError: gone (not the part's doing: the same command tries it again)"
        store.finish([dataclasses.replace(one, state="failed", error=outside)])
        store.finish([dataclasses.replace(two, state="failed", error="ValueError: its own")])
    made.clear()
    ask(tmp_path / "second", ARMS[:1])
    assert len(made) == 1
    assert {r["state"] for r in records(tmp_path / "second").values()} == {"done", "failed"}


def test_cells_are_shared_with_what_they_returned(tmp_path: Path) -> None:
    name = catalogue.parts(catalogue.kind_at(BENCH))[-1].name
    asked = [Experiment(name, size="tiny", seeds=seeds, out=tmp_path / str(seeds)) for seeds in (2, 3)]
    first, said = asked[0].run(progress=False), []
    more = asked[1].run(said.append, progress=False)
    assert more.rows[: len(first.rows)] == first.rows and f"{len(first.rows)} runs were made for 2 already" in said


def test_many_neighbours_are_looked_through(tmp_path: Path) -> None:
    ask(tmp_path / "first", ARMS[:1])
    whole = (tmp_path / "first" / FILE).read_bytes()
    for i in range(200):
        (tmp_path / f"n{i}").mkdir()
        (tmp_path / f"n{i}" / FILE).write_bytes(whole)
    keys = [f"{i:032x}" for i in range(100)]
    assert len(lending.beside(tmp_path / "mine")) == 201
    assert not any(lending.lent(path, keys) for path in lending.beside(tmp_path / "mine"))
    assert len(lending.lent(tmp_path / "n7" / FILE, list(records(tmp_path / "first")))) == 4
