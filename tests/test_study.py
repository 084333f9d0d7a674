"""A study: what its jobs are called, what runs again after a change, where trials lie, what is matched, what is refused."""

from __future__ import annotations

import dataclasses
import math
import sys
from pathlib import Path

import mine
import plugin
import pytest
import torch
import toys
from typer.testing import CliRunner

from netwright.bench import jobs
from netwright.bench import plan as planning
from netwright.bench.entrant import enter_all
from netwright.bench.records import Run, RunRecord, to_json
from netwright.bench.request import ArmSpec, Terms, make_request, open_task, parse_arm, slots_of
from netwright.bench.store.store import Store
from netwright.bench.study import Study
from netwright.cli import app
from netwright.compare import compare
from netwright.core import catalogue
from netwright.core.canonical import canonical_json
from netwright.core.errors import BadInput, Misfit, UnknownName
from netwright.core.kind import OPTIMIZER, SCHEDULE

SMALL = {"task": "moons", "seeds": 2, "trials": 2, "steps": 10, "match": "none", "engine": "loop"}


def elementwise(n: int = 2) -> list[str]:
    """Ids of elementwise activations without anything to tune or to learn."""
    rows = catalogue.parts("activation")
    return [p.id for p in rows if p.tags.shape == "elementwise" and not p.learn and not any(o.search for o in p.options)][:n]


@pytest.fixture
def plugged(tmp_path):
    """A folder with two plug-in activations, installed."""
    folder = tmp_path / "site"
    sources = {"one": plugin.activation("onepart"), "two": plugin.activation("twopart", "torch.sin(x)")}
    plugin.write(folder, sources)
    with plugin.installed(folder):
        yield folder, sources


@pytest.fixture
def trained(monkeypatch):
    """The keys trained since the last look at it."""
    seen: list[str] = []
    perform = jobs.perform

    def noting(job):
        seen.extend(f"{run.arm} {run.seed} {run.trial}" for run in job.runs)
        return perform(job)

    monkeypatch.setattr("netwright.bench.executors.serial.perform", noting)
    return seen


def run(out: Path, arms, **changes):
    return compare(arms, out=out, **{**SMALL, **changes})


def request_of(arms, task="moons", **changes):
    terms = Terms(**changes)
    made = open_task(task, {}, terms.budget)
    request = make_request(made, task, {}, arms, terms)
    return request, enter_all(made, request)


# Keys and fingerprints ------------------------------------------------------------------------------------------------


def test_an_edited_part_runs_again_and_only_its_arm(tmp_path, plugged, trained):
    folder, sources = plugged
    arms, out = ["default", "onepart", "twopart"], tmp_path / "out"
    first = run(out, arms)
    assert len(trained) == 12 and first.looks == 1

    trained.clear()
    again = run(out, arms)
    assert trained == [] and again.looks == 1 and again.comparisons == first.comparisons

    sources["one"] = (
        sources["one"].replace('"""A test."""', '"""Another text."""').replace("return torch", "# why\n    return torch")
    )
    plugin.write(folder, sources)
    plugin.forget()
    run(out, arms)
    assert trained == []

    sources["one"] = sources["one"].replace("torch.tanh(x)", "torch.tanh(2 * x)")
    plugin.write(folder, sources)
    plugin.forget()
    edited = run(out, arms)
    assert sorted(trained) == sorted(f"onepart {s} {t}" for s in (0, 1) for t in (0, 1))
    assert {r.arm: len([x for x in edited.records if x.arm == r.arm]) for r in edited.records} == dict.fromkeys(arms, 4)
    with Store.read(out) as store:
        assert sum(state == "superseded" for state in store.states().values()) == 4

    trained.clear()
    run(out, arms, seeds=3, extend=True)
    assert sorted(trained) == sorted(f"{a} 2 {t}" for a in arms for t in (0, 1))


def test_another_version_of_a_plugin_is_another_part(tmp_path, plugged, trained):
    folder, sources = plugged
    run(tmp_path / "out", ["default", "onepart"])
    plugin.write(folder, sources, version="1.1")
    plugin.forget()
    trained.clear()
    run(tmp_path / "out", ["default", "onepart"])
    assert {row.split()[0] for row in trained} == {"onepart"}


def test_a_key_names_everything_that_changes_a_result():
    a, b = elementwise()
    request, entrants = request_of([a, b])
    plan = planning.make_plan(request, entrants)
    keys = [r.key for r in planning.runs_of(request, entrants, plan)]
    assert len(set(keys)) == len(keys) == 2 * 10 * 5
    for changes in ({"precision": "fp64"}, {"steps": 5}, {"batch": 8}, {"engine": "loop"}):
        other, changed = request_of([a, b], **changes)
        assert not set(keys) & {r.key for r in planning.runs_of(other, changed, planning.make_plan(other, changed))}, changes
    for field, value in (("data_hash", "x"), ("widths", {a: (3, 3), b: (3, 3)})):
        assert not set(keys) & {r.key for r in planning.runs_of(request, entrants, planning.replace(plan, **{field: value}))}, (
            field
        )
    for value in (
        {"slots": {OPTIMIZER: toys.PLAIN}},
        {"slots": {SCHEDULE: toys.FALLING}},
        {"clip": 1.0},
        {"weight_decay": 0.1},
        {"version": "2"},
        {"size": "full"},
    ):
        if "slots" in value:
            value = {"slots": {**entrants[0].task.slots, **value["slots"]}}
        other = enter_all(dataclasses.replace(entrants[0].task, **value), request)
        assert not set(keys) & {r.key for r in planning.runs_of(request, other, plan)}, value
    more, _ = request_of([a, b], seeds=12)
    assert set(keys) < {r.key for r in planning.runs_of(more, entrants, plan)}
    assert more.study_id == request.study_id


def test_one_part_under_two_names_is_two_arms_with_identical_runs(tmp_path):
    result = run(tmp_path, [ArmSpec("A"), ArmSpec("B")], seeds=6, trials=1, engine="stack")
    assert set(result.comparisons[0].differences.values()) == {0.0}
    assert result.comparisons[0].verdict == "equivalent" and "identical runs" in result.comparisons[0].reason.lower()


def test_rekeyed_streams_share_the_split_and_the_trial_points_and_nothing_else():
    request, entrants = request_of([ArmSpec("A"), ArmSpec("B", rekey=1)], seeds=2, trials=3)
    plan = planning.make_plan(request, entrants)
    a, b = ([r for r in planning.runs_of(request, entrants, plan) if r.arm == name] for name in "AB")
    assert [(r.seed, r.trial, r.point) for r in a] == [(r.seed, r.trial, r.point) for r in b]
    rules = [entrant.build(0) for entrant in entrants]
    for (name, p), q in zip(rules[0].named_parameters(), rules[1].parameters(), strict=True):
        assert not (p == q).any(), name
    settings = [entrant.setting(r.seed, r.point) for entrant, r in zip(entrants, (a[0], b[0]), strict=True)]
    assert settings[0].seed == 0 != settings[1].seed


# Trial points ---------------------------------------------------------------------------------------------------------


def test_arms_share_the_points_and_a_parts_own_dimensions_shift_nothing(plugged, tmp_path):
    folder, sources = plugged
    more = 'options=(Option("scale", 1.0, search=(0.5, 2.0, "log")), Option("turns", 2, search=(1, 4, "linear"))),'
    sources["two"] = plugin.activation("twopart", "torch.sin(scale * turns * x)", arguments=", *, scale=1.0, turns=2", more=more)
    plugin.write(folder, sources)
    plugin.forget()
    request, entrants = request_of(["default", "onepart", "twopart"], trials=4)
    plan = planning.make_plan(request, entrants)
    assert plan.engines == dict.fromkeys(plan.engines, "loop")
    rows = {e.name: [p for s in range(5) for _, p in planning.points(e, plan, 4, s)] for e in entrants}
    assert [p["lr"] for p in rows["default"]] == [p["lr"] for p in rows["onepart"]] == [p["lr"] for p in rows["twopart"]]
    assert all(set(p) == {"lr", "activation.scale", "activation.turns"} for p in rows["twopart"])
    assert all(0.5 <= p["activation.scale"] <= 2 for p in rows["twopart"])
    assert {type(p["activation.turns"]) for p in rows["twopart"]} == {int}
    assert len({p["activation.scale"] for p in rows["twopart"]}) == 20
    lo, hi, _ = entrants[0].task.lr
    assert all(lo <= p["lr"] <= hi for p in rows["default"]) and len({p["lr"] for p in rows["default"]}) == 20
    built = entrants[2].build(0, rows["twopart"][0])
    assert built.net.blocks[1].act.options["scale"] == rows["twopart"][0]["activation.scale"]


def test_points_do_not_depend_on_how_many_there_are():
    assert planning.sobol(9, 3)[:4] == planning.sobol(4, 3)
    assert planning.sobol(4, 3) != planning.sobol(4, 4)
    rates = sorted(p[0] for p in planning.sobol(16, 0))
    assert all(abs(b - a) < 0.25 for a, b in zip(rates, rates[1:], strict=False))  # a sequence without large holes


def test_one_trial_takes_the_published_rate_and_says_so():
    request, entrants = request_of(["default"], trials=1)
    plan = planning.make_plan(request, entrants)
    assert {r.point["lr"] for r in planning.runs_of(request, entrants, plan)} == {entrants[0].task.lr[2]}
    assert any(note.startswith("not tuned") for note in plan.notes)


def record(run: Run, value: float | None, state: str = "done") -> RunRecord:
    return RunRecord(run.key, run.arm, run.seed, run.trial, run.point, state, best_val=value, best_step=1, stage=run.stage)


@pytest.mark.parametrize(("side", "sign"), [("high", 1), ("low", -1), ("middle", 0)])
def test_a_range_is_widened_once_for_all_arms_where_most_seeds_end_at_its_edge(side, sign):
    request, entrants = request_of(elementwise(), seeds=8, trials=40)
    plan = planning.make_plan(request, entrants)
    lo, hi = plan.lr["backprop"]
    runs = planning.runs_of(request, entrants, plan)

    def value(run: Run) -> float:
        place = math.log(run.point["lr"] / lo) / math.log(hi / lo)
        return sign * place if sign else -abs(place - 0.5)

    widened = planning.widen(request, entrants, plan, [record(r, value(r)) for r in runs])
    if not sign:
        assert widened == {}
        return
    assert widened["backprop"][1 if sign > 0 else 0] == pytest.approx((hi if sign > 0 else lo) * 10 ** (0.5 * sign))
    later = planning.runs_of(request, entrants, planning.replace(plan, widened=widened))
    fresh = [r for r in later if r.stage == "widened"]
    assert {r.key for r in runs} < {r.key for r in later} and len(fresh) == 2 * 8 * 20
    assert all(r.point["lr"] > hi if sign > 0 else r.point["lr"] < lo for r in fresh)
    assert [r.point for r in fresh if r.arm == request.arms[0].name] == [r.point for r in fresh if r.arm == request.arms[1].name]


def test_selection_takes_the_best_finished_run_and_the_earliest_of_equals():
    problem = open_task("moons", {}).problem
    rows = [record(Run(str(t), "a", 0, t, {}), v, s) for t, v, s in ((2, 0.9, "done"), (1, 0.9, "done"), (0, 0.99, "diverged"))]
    assert planning.select(rows, problem).trial == 1
    assert planning.select([rows[2]], problem) is None


# Plans ----------------------------------------------------------------------------------------------------------------


def test_what_was_matched_stays_when_another_part_changes(plugged):
    folder, sources = plugged
    request, entrants = request_of(["default", "onepart", "twopart"])
    plan = planning.make_plan(request, entrants)
    assert planning.make_plan(request, entrants, planning.Plan.from_json(plan.to_json())) == plan
    pretend = planning.replace(plan, widths={**plan.widths, "onepart": (9, 9)})
    sources["two"] = plugin.activation(
        "twopart", "slope * torch.sin(x)", arguments=", slope", more='learn=(Learn("slope", 1.0, per="channel"),),'
    )
    plugin.write(folder, sources)
    plugin.forget()
    renewed = planning.make_plan(*request_of(["default", "onepart", "twopart"]), pretend)
    assert renewed.widths["onepart"] == (9, 9) and renewed.widths["twopart"] != (9, 9)
    assert renewed.parts["twopart"] != plan.parts["twopart"] and renewed.engines == plan.engines


# Engines and jobs -----------------------------------------------------------------------------------------------------


def engines(arms, task="moons", **changes):
    return planning.choose_engines(*request_of(arms, task, **changes))


def test_auto_stacks_small_steps_and_loops_what_cannot_be_stacked(monkeypatch):
    assert set(engines(["default"])[0].values()) == {"stack"}
    assert set(engines(["default"], seeds=1, trials=1)[0].values()) == {"loop"}
    assert set(engines(["default"], "digits:host=convnet,size=full")[0].values()) == {"stack-compiled"}
    monkeypatch.setattr(planning, "SMALL", 1e7)
    assert set(engines(["default"], "digits:host=convnet")[0].values()) == {"loop"}
    assert set(engines(["default"], precision="amp")[0].values()) == {"loop"}
    found, why = engines(["default"], engine="stack", precision="amp")
    assert found == {"default": "loop"} and "mixed precision" in why[0]


def test_a_part_that_cannot_be_stacked_is_named_and_the_others_are_stacked(tmp_path):
    plugin.write(tmp_path / "site", {"slow": plugin.rule("Counting", "pass")})
    with plugin.installed(tmp_path / "site"):
        found, why = engines(["default", "counting"], engine="stack", control=False)
        assert found == {"default": "stack", "counting": "loop"}
        assert why == ["counting runs on the loop engine: it counts its steps"]
        assert set(engines(["default", "counting"], control=False)[0].values()) == {"loop"}


def test_stacks_are_the_same_after_an_interruption():
    request, entrants = request_of(elementwise(), seeds=21, trials=5)
    plan = planning.make_plan(request, entrants)
    runs = planning.runs_of(request, entrants, plan)
    jobs = planning.jobs_of(entrants, plan, runs, {r.key for r in runs})
    sizes = [len(job.runs) for job in jobs]
    assert max(sizes) <= planning.STACK and sum(sizes) == len(runs) == 210 and max(sizes) - min(sizes) <= len(jobs) // 2
    done = {key for job in jobs[:3] for key in job.keys}
    assert planning.jobs_of(entrants, plan, runs, {r.key for r in runs} - done) == jobs[3:]
    loops = planning.replace(plan, engines=dict.fromkeys(plan.engines, "loop"))
    looped = planning.jobs_of(entrants, loops, runs, {r.key for r in runs})
    assert {len(job.runs) for job in looped} == {1} and len(looped) == 210


def test_a_stack_that_raises_is_redone_as_single_runs(tmp_path, monkeypatch):
    def broken(*given, **options):
        raise RuntimeError("no batching rule")

    monkeypatch.setattr("netwright.engine.stack.train_stack", broken)
    result = run(tmp_path, ["default"], engine="stack")
    assert {(r.state, r.engine) for r in result.records} == {("done", "loop")}
    assert any("redone as single runs (RuntimeError: no batching rule)" in note for note in result.notes)


# Looks, folders, outlook ----------------------------------------------------------------------------------------------


def test_adding_seeds_after_a_look_has_to_be_wanted_and_costs_alpha(tmp_path):
    first = run(tmp_path, ["default", elementwise()[1]])
    with pytest.raises(BadInput, match="look 2.*--extend"):
        run(tmp_path, ["default", elementwise()[1]], seeds=3)
    second = run(tmp_path, ["default", elementwise()[1]], seeds=3, extend=True)
    assert (first.looks, second.looks) == (1, 2) and 0 < second.level < first.level
    assert run(tmp_path, ["default", elementwise()[1]], seeds=3).looks == 2


def test_the_folder_of_another_study_is_refused(tmp_path):
    run(tmp_path, ["default"], trials=1, seeds=1)
    with pytest.raises(BadInput):
        run(tmp_path, elementwise(1), trials=1, seeds=1)


def test_the_outlook_names_runs_engine_and_the_verdicts_in_reach():
    a, b = elementwise()
    lines = Study("moons", [a, b], seeds=4, trials=3).outlook()
    assert "the only verdict is 'cannot tell'" in lines[0]
    assert any("2 arms x 4 seeds x 3 trials = 24 runs of 200 steps, engine stack" in line for line in lines)
    assert any(line.startswith("about ") for line in lines)
    assert Study("moons", [a]).outlook()[0].startswith("One arm")


def test_requests_are_checked_before_anything_runs():
    task = open_task("moons", {})
    gate = next(p for p in catalogue.parts("activation") if "mlp" in p.slots())
    assert parse_arm(gate.name, task).parts.keys() == {"mlp"} and "mlp" in slots_of(task)
    for arms, options, error in (
        ([], {}, BadInput),
        (["default", "default"], {}, BadInput),
        (["default"], {"baseline": "x"}, UnknownName),
        (["default"], {"match": "parms"}, UnknownName),
        (["default"], {"engine": "stak"}, UnknownName),
        (["default"], {"seeds": 0}, BadInput),
        (["default"], {"seeds": [1, 1]}, BadInput),
        (["default"], {"trials": True}, BadInput),
        (["default"], {"steps": 0}, BadInput),
        ([catalogue.parts("task")[0].id], {}, Misfit),
        (["nothing-of-the-kind"], {}, UnknownName),
        (["+".join(elementwise())], {}, Misfit),
    ):
        with pytest.raises(error):
            make_request(task, "moons", {}, arms, Terms(**options))
    assert [
        a.name for a in make_request(task, "moons", {}, elementwise(), Terms(baseline=elementwise()[1])).arms
    ] == elementwise()[::-1]


# Test rows ------------------------------------------------------------------------------------------------------------


def sealed_in(out: Path) -> dict[str, dict[str, float | None]]:
    """What a store holds under seal, by key."""
    with Store.read(out) as store:
        return {record.key: dict(store.opened(record.key).sealed) for record in store.records()}


@pytest.mark.parametrize("engine", ["loop", "stack"])
def test_no_test_score_of_a_trial_that_was_not_selected_is_to_be_seen(engine, tmp_path):
    words = ["compare", *elementwise(), "--task", "sine", "--seeds", "3", "--tune", "3", "--steps", "10", "--match", "none"]
    done = CliRunner().invoke(app, [*words, "--engine", engine, "--out", str(tmp_path), "--json"])
    assert done.exit_code == 0, done.output
    sealed = {key: found["test"] for key, found in sealed_in(tmp_path).items()}
    assert len(set(sealed.values())) == len(sealed) >= 18
    result = Study("sine", elementwise(), seeds=3, trials=3, steps=10, match="none", engine=engine, out=tmp_path).run()
    chosen = {score.key: score.value for score in result.scores}
    assert chosen == {key: sealed[key] for key in chosen} and len(chosen) == 6
    assert not any(record.sealed for record in result.records)
    whole, page = canonical_json(to_json(result)), (tmp_path / "report.html").read_text(encoding="utf-8")
    for key, value in sealed.items():
        assert (str(value)[:8] in whole) is (key in chosen)
        assert key in chosen or not any(str(value)[:8] in text for text in (page, done.stdout, str(result)))


@pytest.fixture
def unprobed(monkeypatch):
    """What an arm costs is not measured, which takes longer than these studies do."""
    monkeypatch.setattr(Study, "_probe", lambda *_: None)


def metric_that(breaks):
    """The error of mine.task, but what `breaks` gives on the test rows."""
    (_, y_test), plain = mine.splits()["test"], mine.error
    return lambda out, y: breaks() if torch.equal(y, y_test) else plain(out, y)


def raising():
    raise ValueError("no such rows")


@pytest.mark.usefixtures("unprobed")
@pytest.mark.parametrize(
    ("breaks", "why"),
    [(raising, "the test evaluation raised ValueError: no such rows"), (lambda: math.nan, "the test score is nan")]
    + [(lambda: math.inf, "the test score is inf"), (sys.exit, "the test evaluation raised Escape: SystemExit")],
)
def test_a_replicate_without_a_finite_test_score_fails_and_its_runs_stand(breaks, why, tmp_path):
    terms = {"seeds": 1, "trials": 2, "out": tmp_path, "match": "none"}
    result = compare(["default"], mine.task(metric=metric_that(breaks)), **terms)
    assert {(r.state, r.engine, r.error) for r in result.records} == {("done", "loop", "")}
    assert [(s.failed, s.value, s.key) for s in result.scores] == [(True, result.worst, result.scores[0].key)]
    assert len([note for note in result.notes if note.startswith(f"default seed 0: {why}")]) == 1
    assert all(found == {"test": None} for found in sealed_in(tmp_path).values())


@pytest.mark.usefixtures("unprobed")
def test_testing_moves_nothing_of_the_training(tmp_path):
    records = [
        compare(["default"], mine.task(metric=metric), seeds=1, trials=2, out=tmp_path / name, match="none").records
        for name, metric in (("whole", mine.error), ("broken", metric_that(raising)))
    ]
    rows = [[{**r.machine_free(), "key": ""} for r in found] for found in records]
    assert rows[0] == rows[1] and rows[0][0]["curve"]


# Failures and crashes -------------------------------------------------------------------------------------------------


def test_a_failed_replicate_scores_the_worst_and_a_crash_drops_the_seed_from_both_arms(tmp_path, monkeypatch):
    perform = jobs.perform

    def sabotaged(job):
        run = job.runs[0]
        if run.arm == "B" and run.seed == 1:
            return jobs.JobResult((jobs.failed_record(run, "failed", "RuntimeError: no"),))
        if run.arm == "B" and run.seed == 2:
            return jobs.JobResult((jobs.failed_record(run, "oom", "too large"),))
        return perform(job)

    monkeypatch.setattr("netwright.bench.executors.serial.perform", sabotaged)
    result = run(tmp_path, [ArmSpec("A"), ArmSpec("B")], seeds=4, trials=1)
    rows = {(s.arm, s.seed): s for s in result.scores}
    assert rows["B", 1].failed and rows["B", 1].value == result.worst == 0.0
    assert rows["B", 2].dropped.startswith("oom") and not rows["A", 2].dropped
    assert set(result.comparisons[0].differences) == {0, 1, 3} and result.comparisons[0].failures == (1, 0)
    assert any("seed 2 of B dropped: oom" in note for note in result.notes)


def test_a_lost_worker_is_tried_again_a_bounded_number_of_times(tmp_path, monkeypatch):
    tries: list[int] = []
    perform = jobs.perform

    def losing(job):
        run = job.runs[0]
        if run.seed == 0 and run.arm == "B":
            tries.append(run.trial)
            return jobs.JobResult((jobs.failed_record(run, "lost", "it was killed"),))
        if run.seed == 1 and run.arm == "B" and len(tries) < 2:
            return jobs.JobResult((jobs.failed_record(run, "lost", "it was killed"),))
        return perform(job)

    monkeypatch.setattr("netwright.bench.executors.serial.perform", losing)
    result = run(tmp_path, [ArmSpec("A"), ArmSpec("B")], trials=1)
    assert tries == [0, 0, 0]
    rows = {(s.arm, s.seed): s for s in result.scores}
    assert rows["B", 0].dropped.startswith("lost") and not rows["B", 1].dropped
