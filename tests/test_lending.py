"""Runs that a study nearby has made are not made again: which are taken over, which are not, and that nothing else changes."""

from __future__ import annotations

import shutil
import time
from contextlib import closing
from pathlib import Path

import plugin
import pytest
from storing import owned, record, run
from test_experiments import TOY
from test_study import elementwise, sealed_in
from test_study import run as compared

from netwright.bench import jobs
from netwright.bench.causes import OUTSIDE
from netwright.bench.experiment import Experiment
from netwright.bench.store import database, lending, schema
from netwright.bench.store.lending import take_over
from netwright.bench.store.store import Store
from netwright.bench.study import Study
from netwright.core.canonical import canonical_json

A, B, C = elementwise(3)


@pytest.fixture(autouse=True)
def sharing(monkeypatch):
    monkeypatch.setenv(lending.SWITCH, "1")
    monkeypatch.setattr(Study, "_probe", lambda *_: None)  # what an arm costs is measured for each study by itself


@pytest.fixture
def made(monkeypatch):
    """Arm, seed and trial of every run that was carried out."""
    seen: list[tuple[str, int, int]] = []
    perform = jobs.perform

    def noting(job):
        seen.extend((run.arm, run.seed, run.trial) for run in job.runs)
        return perform(job)

    monkeypatch.setattr("netwright.bench.executors.serial.perform", noting)
    return seen


def alone(tmp_path: Path, arms, **changes):
    """The same study where nothing is nearby."""
    return compared(tmp_path / "too" / "deep" / "to be" / "found", arms, **changes)


def opened(out: Path):
    """Every record of a store but for time and place, unsealed, by key."""
    with Store.read(out) as store:
        return {r.key: store.opened(r.key).machine_free() for r in store.records()}


def taken(result) -> list[str]:
    return [note for note in result.notes if "there already" in note]


# What is shared -------------------------------------------------------------------------------------------------------


def test_another_order_of_arms_makes_nothing_again_and_says_the_same(tmp_path, made):
    compared(tmp_path / "one", [A, B], seeds=6)
    first = len(made)
    result = compared(tmp_path / "two", [B, A], seeds=6)
    assert len(made) == first == len(result.records) and taken(result) == [f"{first} runs were there already, from ../one"]
    assert opened(tmp_path / "two") == opened(tmp_path / "one") and all(sealed_in(tmp_path / "two").values())
    lone = alone(tmp_path, [B, A], seeds=6)
    assert len(made) == 2 * first and not taken(lone)
    assert result.comparisons == lone.comparisons and [s.value for s in result.scores] == [s.value for s in lone.scores]
    assert opened(tmp_path / "two") == opened(tmp_path / "too" / "deep" / "to be" / "found")


def test_of_an_added_arm_its_own_runs_are_made(tmp_path, made):
    compared(tmp_path / "one", [A, B], trials=1)
    made.clear()
    compared(tmp_path / "two", [A, B, C], trials=1)
    assert sorted(made) == [(C, 0, 0), (C, 1, 0)]
    made.clear()
    result = compared(tmp_path / "three", [A, C], trials=1)
    assert not made and taken(result) == ["2 runs were there already, from ../one", "2 runs were there already, from ../two"]


@pytest.mark.parametrize("stacked", [False, True])
def test_another_folder_of_the_same_root_shares_and_one_further_off_does_not(stacked, tmp_path, made):
    terms = {"engine": "stack" if stacked else "loop", "trials": 1}
    compared(tmp_path / "group" / "one", [A], **terms)
    made.clear()
    compared(tmp_path / "two", [A], **terms)
    compared(tmp_path / "group" / "three", [A], **terms)
    assert not made
    alone(tmp_path, [A], **terms)
    assert len(made) == 2


def test_looks_are_not_shared(tmp_path):
    assert compared(tmp_path / "one", [A, B], trials=1).looks == 1
    more = compared(tmp_path / "two", [A, B], trials=1, seeds=3)
    assert more.looks == 1 and taken(more) == ["4 runs were there already, from ../one"]


def test_cells_of_an_experiment_are_shared(tmp_path, made):
    first = Experiment(TOY, size="tiny", seeds=2, out=tmp_path / "one").run()
    assert len(made) == 4
    again = Experiment(TOY, size="tiny", seeds=2, out=tmp_path / "two").run()
    assert len(made) == 4 and again.rows == first.rows and again.words == first.words
    assert opened(tmp_path / "two") == opened(tmp_path / "one")
    Experiment(TOY, size="tiny", seeds=2, settings={"n": [100, 1000]}, out=tmp_path / "three").run()
    assert sorted(made[4:]) == [("n=1000", 0, 0), ("n=1000", 1, 0)]


def test_arrays_come_along_and_the_environment(tmp_path):
    with owned(tmp_path / "one") as one, owned(tmp_path / "two") as two:
        for store, torch in ((one, "2.0"), (two, "2.1")):
            store.set_environment({"torch": torch})
            store.add_runs([run(0), run(1)])
        one.finish([record(run(0), engine="call")], {run(0).key: b"arrays"})
        assert take_over(two, {run(0).key, run(1).key}, None, ()) == ["1 run was there already, from ../one"]
        two.finish([record(run(1))])
        assert two.weights(run(0).key) == b"arrays" and two.states() == {run(0).key: "done", run(1).key: "done"}
        assert [(e["torch"], keys) for e, keys in two.environments()] == [("2.1", (run(1).key,)), ("2.0", (run(0).key,))]


def test_a_study_that_starts_while_another_runs_takes_what_that_has_and_both_are_right(tmp_path, monkeypatch):
    perform, inner = jobs.perform, []

    def starting(job):
        if job.runs[0].seed == 1 and not inner:
            inner.append(None)
            inner[0] = compared(tmp_path / "inner", [B, A], trials=1)
        return perform(job)

    monkeypatch.setattr("netwright.bench.executors.serial.perform", starting)
    outer = compared(tmp_path / "outer", [A, B], trials=1)
    assert taken(inner[0]) == ["1 run was there already, from ../outer"] and not taken(outer)
    assert opened(tmp_path / "inner") == opened(tmp_path / "outer") and len(opened(tmp_path / "outer")) == 4


def test_many_neighbours_are_looked_through(tmp_path):
    compared(tmp_path / "first", [A], trials=1)
    for i in range(200):
        shutil.copytree(tmp_path / "first", tmp_path / f"n{i}")
    with owned(tmp_path / "mine") as store:
        store.add_runs([run(i) for i in range(100)])
        assert len(list(lending.beside(store.path))) == 201
        assert take_over(store, set(store.states()), None, ()) == []


# What is not ----------------------------------------------------------------------------------------------------------


def test_a_part_that_was_edited_takes_nothing(tmp_path, made):
    plugin.write(tmp_path / "site", {"one": plugin.activation("onepart")})
    with plugin.installed(tmp_path / "site"):
        compared(tmp_path / "one", ["default", "onepart"], trials=1)
        plugin.write(tmp_path / "site", {"one": plugin.activation("onepart", "torch.sin(x)")})
        plugin.forget()
        made.clear()
        compared(tmp_path / "two", ["default", "onepart"], trials=1)
    assert {arm for arm, _, _ in made} == {"onepart"} and len(made) == 2


@pytest.mark.parametrize("changes", [{"steps": 11}, {"precision": "fp64"}, {"engine": "stack"}, {"trials": 2}])
def test_what_was_not_the_same_is_made(changes, tmp_path, made):
    compared(tmp_path / "one", [A], trials=1)
    made.clear()
    assert not taken(compared(tmp_path / "two", [A], **{"trials": 1, **changes})) and made


def test_studies_can_be_kept_apart(tmp_path, made, monkeypatch):
    monkeypatch.setenv(lending.SWITCH, "0")
    for name in ("one", "two"):
        compared(tmp_path / name, [A], trials=1)
    assert len(made) == 4


SEALED = {"sealed": {"test": 0.5}}


@pytest.mark.parametrize(
    ("state", "fields", "limit", "retry", "counts"),
    [
        ("done", SEALED, None, (), True),
        ("done", {"sealed": {"test": None}}, None, (), True),
        ("done", {}, None, (), False),  # of an older release, which stored weights instead
        ("done", {"engine": "call"}, None, (), True),
        ("diverged", {}, None, (), True),
        ("failed", {"error": "RuntimeError: no"}, None, (), True),
        ("failed", {"error": "RuntimeError: no"}, None, ("failed",), False),
        ("failed", {"error": f"OSError: no ({OUTSIDE})"}, None, (), False),
        ("timeout", {"error": "over the limit of 5 s"}, 5.0, (), True),
        ("timeout", {"error": "over the limit of 5 s"}, 60.0, (), False),
        ("oom", {}, None, (), False),
        ("lost", {}, None, (), False),
    ],
)
def test_results_are_taken_over_and_accidents_are_not(state, fields, limit, retry, counts, tmp_path):
    with owned(tmp_path / "one") as one, owned(tmp_path / "two") as two:
        one.set_environment({"torch": "2.0"})
        for store in (one, two):
            store.add_runs([run(0)])
        one.finish([record(run(0), state, **fields)])
        assert len(take_over(two, {run(0).key}, limit, retry)) == counts
        assert two.states()[run(0).key] == (state if counts else "queued")
        if counts:
            assert two.opened(run(0).key) == one.opened(run(0).key)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def overwritten(path: Path) -> None:
    path.write_bytes(b"no store at all" * 900)


def newer(path: Path) -> None:
    with closing(schema.connect(path)) as db:
        schema.put(db, "meta", schema.stamped("meta", "schema", canonical_json(schema.SCHEMA + 1)))


def row_changed(path: Path) -> None:
    with closing(schema.connect(path)) as db:
        db.execute("UPDATE runs SET seed=7")


def linked(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


@pytest.mark.parametrize("broken", [cut, overwritten, newer, row_changed, linked])
def test_a_damaged_newer_or_linked_sibling_is_passed_over(broken, tmp_path, made):
    first = compared(tmp_path / "broken", [A], trials=1)
    broken(tmp_path / "broken" / database.FILE)
    made.clear()
    result = compared(tmp_path / "study", [A], trials=1)
    assert len(made) == 2 and not taken(result)
    assert [s.value for s in result.scores] == [s.value for s in first.scores]


def test_nobody_waits_for_a_sibling_that_is_locked(tmp_path):
    compared(tmp_path / "locked", [A], trials=1)
    shutil.copytree(tmp_path / "locked", tmp_path / "other")
    with closing(schema.connect(tmp_path / "locked" / database.FILE)) as db, owned(tmp_path / "study") as store:
        db.execute("BEGIN EXCLUSIVE")
        with Store.read(tmp_path / "other") as other:
            store.add_runs(other.runs())
        begun = time.monotonic()
        assert take_over(store, set(store.states()), None, ()) == ["2 runs were there already, from ../other"]
        assert time.monotonic() - begun < schema.TIMEOUT / 3
