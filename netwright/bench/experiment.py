"""Running an experiment: its cells through the store and the executors that studies use, then the word on its predicates."""

from __future__ import annotations

import itertools
import json
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from netwright.bench.carry import Means, carry_out
from netwright.bench.environment import environment
from netwright.bench.jobs import Call, sorted_out
from netwright.bench.own.source import address_of
from netwright.bench.progress import Progress
from netwright.bench.records import Run
from netwright.bench.store.store import Store, study_folder
from netwright.bench.table import Table, Word, finding, judged, reach
from netwright.core import catalogue
from netwright.core.canonical import canonical_json, digest
from netwright.core.errors import BadInput, slug
from netwright.core.fingerprint import ENGINE_VERSION, fingerprint
from netwright.core.guard import Stopping
from netwright.core.kind import BENCH
from netwright.core.part import Part

ROOT = "netwright-studies"
PROTOCOL = "1.0"
Tell = Callable[[str], None]


@final
@dataclass(frozen=True)
class ExperimentResult:
    """What came of an experiment: the word, the words on its predicates, and the table they were read from."""

    experiment: str  # part id
    size: str
    word: str
    words: tuple[Word, ...]
    rows: tuple[Mapping[str, Any], ...]
    axes: Mapping[str, tuple[Any, ...]]
    options: Mapping[str, Any]
    seeds: tuple[int, ...]
    fingerprints: Mapping[str, str]
    failures: tuple[str, ...]  # cells without a row, and why
    notes: tuple[str, ...]
    environment: Mapping[str, str]
    command: str
    seconds: float | None = None


@final
class Experiment:
    """An experiment at a size, ready to run.

        result = Experiment("ntk", size="tiny").run()

    seeds: how many instead of the size's. settings: axes and options instead of the size's. Raises BadInput or UnknownName,
    naming what is wrong, before anything runs.
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
    ) -> None:
        part: Any = catalogue.get(experiment, catalogue.kind_at(BENCH)) if isinstance(experiment, str) else experiment
        self.part, self.size = part, size
        made = part.build(size, **(settings or {}))
        self.axes, self.options = made["axes"], made["options"]
        count = made["seeds"] if seeds is None else seeds
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise BadInput(f"seeds={count!r}; expected a whole number of at least 1")
        self.seeds = tuple(range(count))
        self.means = means or Means()
        words = ["netwright", "run", part.name, "--size", size, "--seeds", str(count)]
        for name, value in (settings or {}).items():
            words += ["--set", f"{name}={json.dumps(value) if isinstance(value, (list, tuple)) else value}"]
        self.command = shlex.join(words)
        self.study_id = digest({"protocol": PROTOCOL, "experiment": part.id, "axes": self.axes, "options": self.options})[:16]
        name = f"{slug(part.name)}-{self.study_id[:8]}"
        self.folder = Path(out) if out is not None else study_folder(ROOT, name)

    @property
    def points(self) -> list[dict[str, Any]]:
        """Every combination of the axes."""
        return [dict(zip(self.axes, values, strict=True)) for values in itertools.product(*self.axes.values())]

    def runs(self) -> list[Run]:
        """Every cell: a point at a seed."""
        mark = fingerprint(self.part)
        found = []
        for seed in self.seeds:  # every point early, so that what fails everywhere shows
            for point in self.points:
                label = ",".join(f"{axis}={value}" for axis, value in point.items()) or "all"
                row = {
                    "schema": 1,
                    "protocol": PROTOCOL,
                    "engine_version": ENGINE_VERSION,
                    "call": self.part.subject.__qualname__,
                    "fingerprint": mark,
                    "point": point,
                    "options": self.options,
                    "seed": seed,
                }
                found.append(Run(digest(row)[:32], label, seed, 0, {**point, **self.options}))
        return found

    def outlook(self) -> list[str]:
        """What a person should know first: how many cells, and what so many seeds can tell."""
        cells = len(self.points) * len(self.seeds)
        return [
            f"{len(self.points)} points x {len(self.seeds)} seeds = {cells} cells",
            *reach(self.part.predicates, len(self.seeds)),
        ]

    def run(self, tell: Tell | None = None, progress: bool | None = None) -> ExperimentResult:
        """Run the cells that have no record, and judge. The same call again continues, and never repeats a finished cell."""
        tell, begun = tell or (lambda text: None), time.perf_counter()
        asked = canonical_json({"experiment": self.part.id, "axes": self.axes, "options": self.options})
        store = Store.create_or_open(self.folder, self.study_id, asked, self.means.wait)
        with store:
            if store.salvaged is not None:
                tell(str(store.salvaged))
            store.set_environment(environment())
            wanted, function = self.runs(), address_of(self.part.subject)
            others = {run.key for run in store.runs() if run.seed not in self.seeds}

            def jobs_of(todo: set[str]) -> Sequence[Call]:
                return [Call((run,), function) for run in wanted if run.key in todo]

            def workers(runs: int) -> int:
                return self.means.processes(runs, lambda: self._seconds(wanted, runs))

            with Progress(tell, progress) as bar, Stopping(tell) as stop:
                carry_out(store, wanted, others, jobs_of, self.means, workers, bar, "cells", stop)
            return self._result(store, wanted, time.perf_counter() - begun)

    def _seconds(self, wanted: Sequence[Run], runs: int) -> float:
        """About how long so many cells take, by the first."""
        begun = time.perf_counter()
        try:
            sorted_out(self.part.subject(seed=wanted[0].seed, **wanted[0].point))
        except Exception:  # what a cell raises is told by its own row
            return 0.0
        return (time.perf_counter() - begun) * runs

    def _result(self, store: Store, wanted: Sequence[Run], seconds: float) -> ExperimentResult:
        records = {record.key: record for record in store.records()}
        rows, failures = [], []
        for run in wanted:
            record = records[run.key]
            axes = {axis: run.point[axis] for axis in self.axes}
            if record.state == "done" and set(record.values) >= set(self.part.gives):
                rows.append({**axes, "seed": run.seed, **{name: record.values[name] for name in self.part.gives}})
            else:
                why = record.error or f"it gave {', '.join(record.values)}; declared: {', '.join(self.part.gives)}"
                failures.append(f"{run.arm} seed {run.seed}: {record.state}, {why}")
        seeds_lost = {run.seed for run in wanted} - {seed for seed in self.seeds if self._complete(rows, seed)}
        table = Table(tuple(row for row in rows if row["seed"] not in seeds_lost))
        predicates = self.part.predicates
        words = tuple(judged(p, table, len(predicates)) for p in predicates)
        notes = [f"{len(seeds_lost)} of {len(self.seeds)} seeds lack cells and are left out"] if seeds_lost else []
        environments = store.environments()
        if len(environments) > 1:
            notes.append("records come from different environments (torch version or machine)")
        return ExperimentResult(
            experiment=self.part.id,
            size=self.size,
            word=finding(words),
            words=words,
            rows=tuple(rows),
            axes=self.axes,
            options=self.options,
            seeds=self.seeds,
            fingerprints={name: fingerprint(catalogue.get(name)) for name in self.part.uses}
            | {self.part.id: fingerprint(self.part)},
            failures=tuple(failures),
            notes=tuple(notes),
            environment={str(k): str(v) for k, v in (environments[-1][0] if environments else {}).items()},
            command=self.command,
            seconds=seconds,
        )

    def _complete(self, rows: Sequence[Mapping[str, Any]], seed: int) -> bool:
        return sum(row["seed"] == seed for row in rows) == len(self.points)
