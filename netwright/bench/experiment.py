"""Running an experiment: its cells or studies by the store and the executors of the bench, then the words on its predicates."""

from __future__ import annotations

import dataclasses
import json
import math
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from netwright.bench.carry import Means, carry_out
from netwright.bench.entrant import rests_on
from netwright.bench.environment import environment
from netwright.bench.jobs import Call, sorted_out
from netwright.bench.own.source import address_of
from netwright.bench.progress import Progress
from netwright.bench.records import Run, StudyResult
from netwright.bench.store.store import Store, study_folder
from netwright.bench.study import ROOT, Study, Tell
from netwright.bench.table import Table, Word, finding, judged, labelled, lies, reach
from netwright.core import catalogue
from netwright.core.canonical import canonical_json, digest
from netwright.core.errors import BadInput, NetwrightError, printable, slug
from netwright.core.fingerprint import ENGINE_VERSION, fingerprint
from netwright.core.guard import Spent, Stopping
from netwright.core.kind import BENCH
from netwright.core.part import Part
from netwright.corpus.status import fresh

PROTOCOL = "1.0"


@final
@dataclass(frozen=True)
class ExperimentResult:
    """What came of an experiment: the word, the words on its predicates, and the table they were read from."""

    experiment: str  # part id
    size: str
    word: str
    words: tuple[Word, ...]
    table: Table
    axes: Mapping[str, tuple[Any, ...]]
    options: Mapping[str, Any]
    seeds: tuple[int, ...]
    fingerprints: Mapping[str, str]
    studies: tuple[Mapping[str, Any], ...]  # of studies, a point each: what was asked, and what its records rest on
    failures: tuple[str, ...]  # cells and studies without a row, and why
    missing: tuple[str, ...]  # those that were not run
    notes: tuple[str, ...]
    environment: Mapping[str, str]
    command: str
    seconds: float | None = None

    @property
    def rows(self) -> tuple[Mapping[str, Any], ...]:
        return self.table.rows


@final
@dataclass(frozen=True)
class Filled:
    """A table as far as it was filled."""

    table: Table
    failures: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    environment: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    studies: tuple[Mapping[str, Any], ...] = ()


@final
class Experiment:
    """An experiment at a size, ready to run.

        result = Experiment("ntk", size="tiny").run()

    seeds: how many instead of the size's. settings: axes and options instead of the size's. budget: minutes after which no
    further cell or study is begun; what was not run stands as missing. Raises BadInput or UnknownName, naming what is wrong,
    before anything runs.
    """

    def __init__(
        self,
        experiment: str | Part,
        *,
        size: str = "small",
        seeds: int | None = None,
        settings: Mapping[str, Any] | None = None,
        out: str | Path | None = None,
        means: Means | None = None,
        budget: float | None = None,
    ) -> None:
        part: Any = catalogue.get(experiment, catalogue.kind_at(BENCH)) if isinstance(experiment, str) else experiment
        self.part, self.size = part, size
        self.setup = setup = part.build(size, **(settings or {}))
        count = setup.seeds if seeds is None else seeds
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise BadInput(f"seeds={count!r}; expected a whole number of at least 1")
        if budget is not None and not budget > 0:
            raise BadInput(f"budget={budget!r}; expected minutes above 0")
        self.seeds = tuple(range(count))
        self.means, self.budget = means or Means(), budget
        self.settings = dict(settings or {})
        self.command = self._command(self.settings)
        own = {"arms": setup.arms, "terms": setup.terms} if setup.arms else {}
        asked = {"experiment": part.id, "axes": setup.axes, "options": setup.options, **own}
        self.asked = canonical_json(asked)
        self.study_id = digest({"protocol": PROTOCOL, **asked})[:16]
        name = f"{slug(part.name)}-{self.study_id[:8]}"
        self.folder = Path(out) if out is not None else study_folder(ROOT, name)

    def _command(self, settings: Mapping[str, Any]) -> str:
        words = ["netwright", "run", self.part.name, "--size", self.size, "--seeds", str(len(self.seeds))]
        for name, value in settings.items():
            words += ["--set", f"{name}={json.dumps(value) if isinstance(value, (list, tuple)) else value}"]
        return shlex.join(words)

    # -- before running

    def outlook(self) -> list[str]:
        """What a person should know first: how much is run, and what so many seeds can tell."""
        points, seeds = len(self.setup.points), len(self.seeds)
        if self.part.gives:
            first = f"{points} points x {seeds} seeds = {points * seeds} cells"
        else:
            asked = [question for _, question in self.questions()]
            first = f"{len(asked)} studies of {seeds} seeds, {sum(len(q.arms) for q in asked)} arms in all"
        return [first, *reach(self.part.predicates, seeds)]

    def questions(self) -> Iterator[tuple[dict[str, Any], Any]]:
        """(point, Question) of every study."""
        for point in self.setup.points:
            if (question := self.part.question(self.setup, point)) is not None:
                yield point, question

    def runs(self) -> list[Run]:
        """Every cell of a grid: a point at a seed."""
        mark, points = fingerprint(self.part), self.setup.points
        found = []
        for seed in self.seeds:  # every point early, so that what fails everywhere shows
            for point in points:
                row = {
                    "schema": 1,
                    "protocol": PROTOCOL,
                    "engine_version": ENGINE_VERSION,
                    "call": self.part.subject.__qualname__,
                    "fingerprint": mark,
                    "point": point,
                    "options": self.setup.options,
                    "seed": seed,
                }
                found.append(Run(digest(row)[:32], labelled(point), seed, 0, {**point, **self.setup.options}))
        return found

    # -- running

    def run(
        self, tell: Tell | None = None, progress: bool | None = None, known: Mapping[str, Any] | None = None
    ) -> ExperimentResult:
        """Run what has no record, and judge. The same call again continues, and never repeats what is finished.

        known: a result as plain data (netwright.show.experiments.plain), whose cells and studies are taken over where the same is
        asked and their parts are as they were.
        """
        tell, begun = tell or (lambda text: None), time.perf_counter()
        filled = (self._cells if self.part.gives else self._studies)(tell, progress, known or {})
        predicates = self.part.predicates
        words = tuple(judged(p, filled.table, len(predicates)) for p in predicates)
        return ExperimentResult(
            experiment=self.part.id,
            size=self.size,
            word=finding(words),
            words=words,
            table=filled.table,
            axes=self.setup.axes,
            options=self.setup.options,
            seeds=self.seeds,
            fingerprints={name: fingerprint(catalogue.get(name)) for name in self.part.uses}
            | {self.part.id: fingerprint(self.part)},
            studies=filled.studies,
            failures=filled.failures,
            missing=filled.missing,
            notes=filled.notes,
            environment={str(k): str(v) for k, v in filled.environment.items()},
            command=self.command,
            seconds=time.perf_counter() - begun,
        )

    def _cells(self, tell: Tell, progress: bool | None, known: Mapping[str, Any]) -> Filled:
        store = Store.create_or_open(self.folder, self.study_id, self.asked, self.means.wait)
        with store:
            if store.salvaged is not None:
                tell(str(store.salvaged))
            store.set_environment(environment())
            known = known if known.get("options") == self.setup.options and fresh(known) else {}
            there = known.get("rows", ())
            runs, function = self.runs(), address_of(self.part.subject)
            wanted = [run for run in runs if not any(lies(row, self._place(run)) for row in there)]
            others = {run.key for run in store.runs() if run.seed not in self.seeds}

            def jobs_of(todo: set[str]) -> Sequence[Call]:
                return [Call((run,), function) for run in wanted if run.key in todo]

            def workers(runs: int) -> int:
                # a cell that is tried to see how long it takes would spend the budget
                return self.means.processes(runs, lambda: math.inf if self.budget else self._seconds(wanted, runs))

            with Progress(tell, progress) as bar, Stopping(tell, self.budget) as stop, suppress(Spent):
                carry_out(store, wanted, others, jobs_of, self.means, workers, bar, "cells", stop)
            return self._filled(store, runs, known)

    def _place(self, run: Run) -> dict[str, Any]:
        return {**{axis: run.point[axis] for axis in self.setup.axes}, "seed": run.seed}

    def _seconds(self, wanted: Sequence[Run], runs: int) -> float:
        """About how long so many cells take, by the first."""
        begun = time.perf_counter()
        try:
            sorted_out(self.part.subject(seed=wanted[0].seed, **wanted[0].point))
        except Exception:  # what a cell raises is told by its own row
            return 0.0
        return (time.perf_counter() - begun) * runs

    def _filled(self, store: Store, runs: Sequence[Run], known: Mapping[str, Any]) -> Filled:
        records = {record.key: record for record in store.records()}
        rows: list[dict[str, Any]] = []
        failures, missing = [], []
        gives, there = self.part.gives, known.get("rows", ())
        for run in runs:
            record, place = records.get(run.key), self._place(run)
            if record is None:
                found = [row for row in there if lies(row, place)]
                rows += map(dict, found)
                missing += [] if found else [f"{run.arm} seed {run.seed}"]
            elif record.state == "done" and set(record.values) >= set(gives):
                rows.append({**place, **{name: record.values[name] for name in gives}})
            else:
                why = record.error or f"it gave {', '.join(record.values)}; declared: {', '.join(gives)}"
                failures.append(f"{run.arm} seed {run.seed}: {record.state}, {why}")
        points = self.setup.points
        lost = [seed for seed in self.seeds if sum(row["seed"] == seed for row in rows) < len(points)]
        notes = [f"{len(lost)} of {len(self.seeds)} seeds lack cells; what reads these leaves them out"] if lost else []
        environments = [value for value, _ in store.environments()]
        if there and known["environment"] not in environments:
            environments.insert(0, known["environment"])
        if len(environments) > 1:
            notes.append("records come from different environments (torch version or machine)")
        table = Table(tuple(rows), points=tuple(points))
        return Filled(table, tuple(failures), tuple(missing), tuple(notes), environments[-1] if environments else {})

    def _studies(self, tell: Tell, progress: bool | None, known: Mapping[str, Any]) -> Filled:
        """Every question as a study in a folder of its own, one after another."""
        until = None if self.budget is None else time.monotonic() + 60 * self.budget
        rows: list[dict[str, Any]] = []
        arms: list[dict[str, Any]] = []
        asked, done, failures, missing = [], [], [], []
        there = {entry["question"]: entry for entry in known.get("studies", ()) if fresh(entry)}
        for point, question in self.questions():
            label = labelled(point)
            asked.append(point)
            called = question.arms if isinstance(question.arms, Mapping) else {arm: arm for arm in question.arms}
            mark = self._mark(point, question, called)
            if mark in there:
                done.append(there[mark])
                rows += [row for row in known["rows"] if lies(row, point)]
                arms += [arm for arm in known["arms"] if lies(arm, point)]
                continue
            if until is not None and time.monotonic() > until:
                missing.append(label)
                continue
            tell(f"{label}: {' '.join(called.values())}")
            try:
                study = Study(
                    question.task,
                    list(called.values()),
                    task_options=dict(question.options),
                    seeds=self.seeds,
                    out=self.folder / f"{slug(label)[:60]}-{mark[:8]}",
                    means=self.means,
                    **question.terms,
                )
                result = study.run(tell, progress=progress)
            except NetwrightError as error:  # one study that can't be asked takes nothing with it
                failures.append(f"{label}: {printable(str(error))[:400]}")
                continue
            # a task that is made here has no name that compare could be given
            command = study.command if isinstance(question.task, str) else self._command({**self.settings, **point})
            entry = {"point": point, "question": mark, "fingerprints": rests_on(study.entrants), "command": command}
            done.append({**entry, "notes": list(result.notes), "environment": dict(result.environment)})
            rows += _rows(result, point)
            arms += _arms(result, point, called)
        found = {canonical_json(entry["environment"]): entry["environment"] for entry in done}
        notes = ("studies were run in different environments (torch version or machine)",) if len(found) > 1 else ()
        table = Table(tuple(rows), tuple(arms), tuple(asked))
        last = list(found.values())[-1] if found else {}
        return Filled(table, tuple(failures), tuple(missing), notes, last, tuple(done))

    def _mark(self, point: Mapping[str, Any], question: Any, called: Mapping[str, str]) -> str:
        """Identity of what is asked at a point."""
        terms = {name: value for name, value in question.terms.items() if value is not None}
        asked = {"arms": called, "options": question.options, "terms": terms, "seeds": self.seeds}
        return digest({"point": point, "task": getattr(question.task, "id", question.task), **asked})[:16]


def _rows(result: StudyResult, point: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A row a score."""
    for arm in result.arms:
        for seed, score in sorted(arm.scores.items()):
            yield {**point, "arm": arm.name, "seed": seed, "score": score}


def _arms(result: StudyResult, point: Mapping[str, Any], called: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """An entry an arm: its mean score, what it costs, and the bench's word on it against the baseline, and the control."""
    role = {arm: name for name, arm in called.items()}
    against = {c.a: c for c in result.comparisons if c.b == result.baseline}
    above = {c.a: c for c in result.against_control}
    for arm in result.arms:
        judgement, cost = against.get(arm.name), arm.cost
        word = "baseline" if arm.name == result.baseline else judgement.verdict if judgement else "control"
        entry = {**point, "arm": arm.name, "role": role.get(arm.name, arm.name), "metric": result.metric, "mean": arm.mean}
        entry |= {"interval": arm.interval, "n": arm.n, "failed": arm.failed, "verdict": word}
        entry |= {name: getattr(judgement, name, None) for name in ("reason", "difference", "p")}
        entry["difference_interval"] = judgement.interval if judgement else None
        entry["against_control"] = above[arm.name].verdict if arm.name in above else None
        costs = {"params": "params", "flops": "flops_train", "step": "step_ratio", "memory": "peak_memory", "widths": "widths"}
        yield {**entry, **{name: getattr(cost, attribute, None) for name, attribute in costs.items()}}
