"""Named values: what measures read off trained nets, and judging arms by a value instead of the score."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import netwright
from netwright.bench import stats
from netwright.bench.carry import Means
from netwright.bench.request import ArmSpec
from netwright.bench.study import Study
from netwright.core import catalogue
from netwright.core.errors import BadInput, UnknownName
from netwright.core.kind import READ

ARMS = [ArmSpec("A"), ArmSpec("B", rekey=1)]
MEASURE = catalogue.parts(catalogue.kind_at(READ))[0]
TERMS: dict[str, Any] = {"seeds": 6, "trials": 1, "steps": 20, "match": "none", "measures": [MEASURE.name]}


def ask(out: Path, task: Any = "moons", arms: Any = ARMS, **changes: Any) -> Any:
    terms = {**TERMS, "engine": "loop", **changes}
    return Study(task, arms, out=out, means=Means(executor="serial"), **terms).run(progress=False)


def named(result: Any) -> list[str]:
    return sorted({row.value for row in result.values})


def test_a_measure_reads_every_trained_net_alone_and_in_a_stack(tmp_path: Path) -> None:
    loop, stack = (ask(tmp_path / engine, engine=engine) for engine in ("loop", "stack"))
    names = named(loop)
    assert names and all(name.startswith(f"{MEASURE.name}.") for name in names) and named(stack) == names
    for one, other in zip(loop.records, stack.records, strict=True):
        assert set(one.values) == set(names) and other.values == pytest.approx(one.values, rel=1e-3)
    row = next(row for row in loop.values if row.arm == "B")
    assert row.n == 6 and row.difference is not None and row.interval is not None
    without = ask(tmp_path / "without", measures=())
    assert [r.curve for r in without.records] == [r.curve for r in loop.records]  # looking touches nothing
    assert {r.key for r in without.records}.isdisjoint(r.key for r in loop.records)


def test_arms_are_judged_by_a_value_of_its_own_direction_and_delta(tmp_path: Path) -> None:
    name = named(ask(tmp_path))[0]
    judged = ask(tmp_path, judge=name, delta=0.5, higher_is_better=False)
    values = {arm: {r.seed: r.values[name] for r in judged.records if r.arm == arm} for arm in ("A", "B")}
    (wanted,) = stats.compare(values, baseline="A", delta=0.5, higher_is_better=False)
    (got,) = judged.comparisons
    assert (got.difference, got.p, got.verdict, got.interval) == (wanted.difference, wanted.p, wanted.verdict, wanted.interval)
    assert judged.metric == name and not judged.higher_is_better and judged.delta == 0.5
    assert {arm.name: arm.scores for arm in judged.arms} == values
    plain = ask(tmp_path)
    assert plain.metric != name and plain.metric in named(judged)  # the score stands beside, as a named value
    assert [r.seconds for r in plain.records] == [r.seconds for r in judged.records]  # nothing was run again
    assert judged.study == plain.study


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"judge": "size"}, "needs delta="),
        ({"judge": "size", "delta": 0.1}, "needs higher_is_better="),
        ({"delta": 0.1}, "unless judge="),
        ({"judge": "size", "delta": -1.0, "higher_is_better": True}, "above 0"),
        ({"measures": ["no-such-measure"]}, "no-such-measure"),
    ],
)
def test_wrong_terms_are_named_before_anything_runs(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises((BadInput, UnknownName), match=said):
        ask(tmp_path, **changes)
    assert not list(tmp_path.iterdir())


def test_a_value_that_no_run_has_is_named_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match=MEASURE.name):
        ask(tmp_path, judge=f"{MEASURE.name}.siez", delta=0.1, higher_is_better=True)


def test_a_measure_that_raises_leaves_the_run_and_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(self: Any, **options: Any) -> Any:
        def raising(net: Any, view: Any) -> Any:
            raise ValueError("it can't be read")

        return raising

    monkeypatch.setattr(type(MEASURE), "build", build)
    result = ask(tmp_path)
    assert all(r.state == "done" and not r.values for r in result.records) and len(result.scores) == 12
    assert any("it can't be read" in note for note in result.notes)


def train(arm: str, seed: int, point: dict[str, float]) -> dict[str, float]:
    size = {"small": 1.0, "large": 2.0}[arm]
    return {"validation": 0.5 + 0.001 * seed, "test": 0.5, "bytes": size + 0.01 * seed}


def test_a_training_of_ones_own_is_judged_by_its_named_value_and_not_measured(tmp_path: Path) -> None:
    task = netwright.task("own", run=train, higher_is_better=True, worst=0.0, delta=0.01)
    terms = {"task": task, "arms": ["large", "small"], "measures": ()}
    result = ask(tmp_path / "a", judge="bytes", delta=0.1, higher_is_better=False, steps=None, **terms)
    assert result.comparisons[0].verdict == "better" and result.comparisons[0].difference == pytest.approx(-1.0)
    assert ask(tmp_path / "b", steps=None, **terms).comparisons[0].verdict != "better"
    with pytest.raises(BadInput, match="training of your own"):
        ask(tmp_path / "c", steps=None, **{**terms, "measures": [MEASURE.name]})


def broken(arm: str, seed: int, point: dict[str, float]) -> dict[str, float]:
    raise ValueError(f"no {arm} today")


def test_where_nothing_worked_that_is_reported_and_not_a_missing_value(tmp_path: Path) -> None:
    task = netwright.task("broken", run=broken, higher_is_better=True, worst=0.0, delta=0.01)
    terms = {"measures": (), "steps": None, "judge": "bytes", "delta": 0.1, "higher_is_better": False, "seeds": 1}
    result = ask(tmp_path, task=task, arms=["one", "two"], **terms)
    assert result.notes and any("nothing worked" in note for note in result.notes)
    assert all(arm.mean is None and arm.failed == 1 for arm in result.arms)
