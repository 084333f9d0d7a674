"""A study from request to result: plan, run what is missing, widen once, score, judge, report."""

from __future__ import annotations

import dataclasses
import math
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, final

from netwright.bench import plan as planning
from netwright.bench import stats
from netwright.bench.carry import Means, carry_out
from netwright.bench.entrant import GIVEN, Entrant, enter_all
from netwright.bench.environment import environment
from netwright.bench.jobs import Job
from netwright.bench.outlook import estimate, outlook
from netwright.bench.progress import Progress
from netwright.bench.records import CRASHES, TEST, Cost, RunRecord, Score, StudyResult
from netwright.bench.request import ArmSpec, Terms, make_request, open_task, with_budget
from netwright.bench.result import assemble
from netwright.bench.store.store import Store, study_folder
from netwright.bench.store.typed import MISREAD, misread
from netwright.core.canonical import canonical_json, digest
from netwright.core.errors import BadInput, require
from netwright.core.guard import Stopping, drain
from netwright.engine.task import Task

ROOT = "netwright-studies"
Tell = Callable[[str], None]


@final
class Study:
    """A question: these arms on this task, by so many seeds and trials, at equal cost.

        study = Study("digits", ["relu", "golu"], seeds=10, trials=5)
        result = study.run()

    arms: part ids with options ("swish:beta=2", "golu+mono-forward"), the first is the baseline; "default" changes nothing.
    task: a task's name, "path/to/file.py:NAME", or a Task from netwright.task(...).
    Everything else as Terms and `netwright compare --help` say. Raises BadInput, UnknownName or Misfit before anything runs.
    """

    def __init__(
        self,
        task: str | Task,
        arms: Sequence[str | ArmSpec],
        *,
        task_options: dict[str, Any] | None = None,
        out: str | Path | None = None,
        means: Means | None = None,
        command: str = "",
        seeds: int | Sequence[int] = Terms.seeds,
        trials: int = Terms.trials,
        match: str = Terms.match,
        baseline: str | None = Terms.baseline,
        all_pairs: bool = Terms.all_pairs,
        engine: str = Terms.engine,
        device: str = Terms.device,
        precision: str = Terms.precision,
        threads: int = Terms.threads,
        steps: int | None = Terms.steps,
        batch: int | None = Terms.batch,
        control: bool = Terms.control,
        measures: Sequence[str] = Terms.measures,
        judge: str = Terms.judge,
        delta: float | None = Terms.delta,
        higher_is_better: bool | None = Terms.higher_is_better,
    ) -> None:
        self.terms = terms = Terms(
            seeds,
            trials,
            match,
            baseline,
            all_pairs,
            engine,
            device,
            precision,
            threads,
            steps,
            batch,
            control,
            measures,
            judge,
            delta,
            higher_is_better,
        )
        options = dict(task_options or {})
        if isinstance(task, Task):
            ref, self.task = f"{GIVEN}{task.name}", with_budget(task, terms.budget)
        else:
            ref, self.task = task, open_task(task, options, terms.budget)
        self.request = make_request(self.task, ref, options, arms, terms)
        self.entrants = enter_all(self.task, self.request)
        self.task.data(self.request.seeds[0])  # data that can't be had is said before a study begins
        self.means = means or Means()
        self.command = command or self._command(arms)
        name = f"{self.task.name}-{self.request.study_id[:8]}"
        require("\0" not in str(out or ""), f"out={str(out)!r}; a folder's name holds no zero byte")
        self.folder = Path(out) if out is not None else study_folder(ROOT, name)

    def again(self, arms: Sequence[str], seeds: Sequence[int], out: Path) -> Study:
        """These of its arms on other seeds, in a folder of its own; the first is the baseline."""
        task = self.task if self.entrants[0].opened is None else self.request.task
        by_name = {arm.name: arm for arm in self.request.arms}
        terms = {f.name: getattr(self.terms, f.name) for f in dataclasses.fields(Terms)} | {"seeds": seeds, "baseline": None}
        options = dict(self.request.task_options)
        return Study(task, [by_name[arm] for arm in arms], task_options=options, out=out, means=self.means, **terms)

    def _command(self, arms: Sequence[str | ArmSpec]) -> str:
        task = self.request.task
        if tail := ",".join(f"{k}={v}" for k, v in self.request.task_options.items()):
            task += f"{',' if ':' in task else ':'}{tail}"
        named = (a if isinstance(a, str) else a.name for a in arms)
        return shlex.join(["netwright", "compare", *named, "--task", task, *self.terms.words()])

    # -- before running

    def outlook(self) -> list[str]:
        """What a person should know first: the verdicts in reach, the number of runs, about how long it takes."""
        return outlook(self.request, self.entrants, self.folder, self.means.limit)

    # -- running

    def run(self, tell: Tell | None = None, extend: bool = False, progress: bool | None = None) -> StudyResult:
        """Run what is missing and judge. The same call again continues, and never repeats a finished run.

        extend: allow seeds to be added to a study that has been looked at, which spends alpha.
        """
        tell = tell or (lambda text: None)
        begun = time.perf_counter()
        store = Store.create_or_open(self.folder, self.request.study_id, canonical_json(self.request), self.means.wait)
        with store:
            if store.salvaged is not None:
                tell(str(store.salvaged))
            self._guard_looks(store, extend)
            store.set_environment(environment(self.request.device))
            plan = self._plan(store)
            for note in plan.notes:
                tell(note)
            with Progress(tell, progress) as bar, Stopping(tell) as stop:
                self._train(store, plan, bar, stop, retry=True)
                widened = (
                    planning.widen(self.request, self.entrants, plan, store.records())
                    if not plan.widened and not store.looks()
                    else {}
                )
                if widened:
                    plan = dataclasses.replace(
                        plan, widened=widened, notes=(*plan.notes, *_widening(widened, self.request.trials))
                    )
                    store.put_plan(plan.to_json())
                    tell(plan.notes[-1])
                    self._train(store, plan, bar, stop)
                self._score(store, plan, bar, stop)
            if {c.arm for c in store.costs()} != {entrant.name for entrant in self.entrants}:
                self._probe(store, plan, tell)
            for note in drain():
                store.note(note)
            look = store.add_look(self.request.seeds)
            return assemble(self.request, self.entrants, self.command, store, plan, look, time.perf_counter() - begun)

    def _guard_looks(self, store: Store, extend: bool) -> None:
        looks, mine = store.looks(), tuple(sorted(self.request.seeds))
        seen_no_more = not store.records()  # whatever was looked at is superseded or gone
        if not looks or mine in looks or extend or seen_no_more:
            return
        level = stats.level(len(looks) + 1)
        raise BadInput(
            f"this study has been looked at with {len(looks[-1])} seeds; other seeds now are look {len(looks) + 1}, "
            f"tested at {level:.4g} instead of 0.05. Add --extend (extend=True) if that is what you want"
        )

    def _plan(self, store: Store) -> planning.Plan:
        stored = store.plan()
        try:
            old = None if stored is None else planning.Plan.from_json(stored)
        except MISREAD as error:
            raise misread(store.path, "plan", error) from error
        plan = planning.make_plan(self.request, self.entrants, old)
        if old is not None and plan.data_hash != old.data_hash:
            store.note("the data changed since the last call: everything is run again")
        if plan is not old:
            store.put_plan(plan.to_json())
        return plan

    def _train(self, store: Store, plan: planning.Plan, bar: Progress, stop: Stopping, retry: bool = False) -> None:
        wanted = planning.runs_of(self.request, self.entrants, plan)
        others = {run.key for run in store.runs() if run.seed not in self.request.seeds}

        def jobs_of(todo: set[str]) -> Sequence[Job]:
            return planning.first_things_first(planning.jobs_of(self.entrants, plan, wanted, todo))

        def workers(runs: int) -> int:
            return self._workers(runs, plan)

        carry_out(store, wanted, others, jobs_of, self.means, workers, bar, "training", stop, retry)

    def _workers(self, runs: int, plan: planning.Plan) -> int:
        """How many worker processes so many trainings get."""
        why_not = ""
        if self.entrants[0].opened is None:
            why_not = (
                f"{self.task.name} exists only in this process, so worker processes can't import it; "
                "put it in a file and name it with --task path/to/file.py:NAME, or drop the limit"
            )
        elif self.request.device != "cpu" and not (self.means.limit or self.means.memory or self.means.executor == "processes"):
            return 0  # one process has the device

        def seconds() -> float:
            return estimate(self.entrants, plan.engines, self.request)

        return self.means.processes(runs, seconds, why_not)

    def _score(self, store: Store, plan: planning.Plan, bar: Progress, stop: Stopping) -> None:
        """The test score of every replicate. Selected runs without one, from an older release, are made once more."""
        while untested := self._scored(store, plan):
            store.requeue(untested, redo=True)
            self._train(store, plan, bar, stop)

    def _scored(self, store: Store, plan: planning.Plan) -> list[str]:
        """Store the test score of every replicate that lacks one; returns the keys of selected runs that hold none."""
        scores = {(s.arm, s.seed): s for s in store.scores()}
        records: dict[tuple[str, int], list[RunRecord]] = {}
        for record in store.records():
            records.setdefault((record.arm, record.seed), []).append(record)
        untested = []
        for entrant in self.entrants:
            for seed in self.request.seeds:
                mine = records.get((entrant.name, seed), [])
                best = planning.select(mine, self.task.problem)
                key = best.key if best else digest(sorted(r.key for r in mine))[:32]
                old = scores.get((entrant.name, seed))
                if old is not None and old.key == key and bool(old.dropped) == any(r.state in CRASHES for r in mine):
                    continue
                if (score := self._cell(store, plan, entrant, seed, mine, best, key)) is not None:
                    store.put_score(score)
                else:
                    untested.append(key)
        return untested

    def _cell(
        self,
        store: Store,
        plan: planning.Plan,
        entrant: Entrant,
        seed: int,
        mine: list[RunRecord],
        best: RunRecord | None,
        key: str,
    ) -> Score | None:
        """The score of one replicate; None where the selected run was never tested."""
        name = entrant.name
        crashes = [r for r in mine if r.state in CRASHES]
        if crashes:
            return Score(name, seed, None, math.nan, dropped=f"{crashes[0].state}: {crashes[0].error}", key=key)
        if best is None:
            return Score(name, seed, None, self.task.problem.worst, failed=True, key=key)
        lo, hi = plan.lr[entrant.family]
        place = math.log(best.point["lr"] / lo) / math.log(hi / lo) if hi > lo else 0.5
        at_edge = not planning.EDGE <= place <= 1 - planning.EDGE
        opened = store.opened(best.key)
        if TEST not in opened.sealed:
            return None
        value = opened.sealed[TEST]
        if value is None:  # the metric, or the part in evaluation: a result as a run that raises is one
            store.note(f"{name} seed {seed}: {opened.untested}")
            return Score(name, seed, best.trial, self.task.problem.worst, failed=True, key=key)
        return Score(name, seed, best.trial, value, at_edge=at_edge, key=key)

    def _probe(self, store: Store, plan: planning.Plan, tell: Tell) -> None:
        from netwright.bench.probe import probe

        if self.task.call:  # what a training of the user's own costs is not seen
            for entrant in self.entrants:
                store.put_cost(Cost(entrant.name))
            return
        states: dict[str, set[str]] = {}
        for record in store.records():
            states.setdefault(record.arm, set()).add(record.state)
        sound = {arm for arm, seen in states.items() if "done" in seen and not seen & {"timeout", "oom", "lost"}}
        costs, aa = probe(plan.placed(self.entrants), sound, tell)
        for cost in costs:
            store.put_cost(cost)
        if aa is not None:
            store.note(f"A/A {aa:.4f}")


def _widening(widened: dict[str, tuple[float, float, int]], trials: int) -> Iterator[str]:
    for family, (lo, hi, extra) in widened.items():
        yield (
            f"the best rate lay at the edge for most seeds: the range of {family} rules was widened once "
            f"to [{lo:.2g}, {hi:.2g}], {extra} further trials beside {trials} for all its arms"
        )
