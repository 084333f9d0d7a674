"""`compare`: a study, its report, and the leader once more on fresh seeds. `run`: an experiment and its page."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from netwright.bench.carry import Means
from netwright.bench.experiment import Experiment, ExperimentResult
from netwright.bench.records import StudyResult
from netwright.bench.request import ArmSpec
from netwright.bench.study import Study, Tell
from netwright.core.part import Part
from netwright.engine.task import Task


def compare(
    arms: Sequence[str | ArmSpec],
    task: str | Task = "digits",
    *,
    extend: bool = False,
    confirm: bool = False,
    tell: Tell | None = None,
    **options: Any,
) -> StudyResult:
    """Compare parts on a task: the first arm is the baseline. Returns the StudyResult; its report lies in the study's folder.

        netwright.compare(["relu", "golu"], task="digits", seeds=10, trials=5)

    extend: allow adding seeds to a study already looked at. confirm: run the leader and the baseline again on fresh seeds.
    Other options: see Study.
    """
    return finish(Study(task, arms, **options), extend, confirm, tell)


def finish(study: Study, extend: bool = False, confirm: bool = False, tell: Tell | None = None) -> StudyResult:
    """Run a study and write its report; see compare."""
    result = study.run(tell, extend=extend)
    write_report(study, result)
    if confirm and (leader := leader_of(result)) is not None:
        fresh = [s + max(study.request.seeds) + 1 for s in range(len(study.request.seeds))]
        again = finish(study.again([result.baseline, leader], fresh, study.folder / "confirm"), tell=tell)
        note = f"the leader {leader} on {len(fresh)} fresh seeds: {again.comparisons[0].reason}"
        result = dataclasses.replace(result, notes=(*result.notes, note))
        write_report(study, result)
    return result


def run(
    experiment: str | Part,
    *,
    size: str = "small",
    seeds: int | None = None,
    settings: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    means: Means | None = None,
    tell: Tell | None = None,
) -> ExperimentResult:
    """Run an experiment and judge its predicates; its page lies in the experiment's folder. The same call continues.

        netwright.run("ntk", size="tiny")

    seeds: how many instead of the size's. settings: axes and options instead of the size's.
    """
    return finish_experiment(Experiment(experiment, size=size, seeds=seeds, settings=settings, out=out, means=means), tell)


def finish_experiment(asked: Experiment, tell: Tell | None = None) -> ExperimentResult:
    """Run an experiment and write its page and its result; see run."""
    from netwright.show.experiments import page, plain

    result = asked.run(tell)
    _write(asked.folder / "report.html", page(result, asked.part))
    _write(asked.folder / "result.json", json.dumps(plain(result), indent=1) + "\n")
    return result


def leader_of(result: StudyResult) -> str | None:
    """The best arm of a screen (several comparisons), where it is called better than the baseline."""
    better = [c for c in result.comparisons if c.b == result.baseline and c.verdict == "better"]
    if len(result.comparisons) < 2 or not better:
        return None
    sign = 1 if result.higher_is_better else -1
    return max(better, key=lambda c: sign * (c.difference or 0.0)).a


def write_report(study: Study, result: StudyResult) -> Path:
    """The HTML report in the study's folder, written whole or not at all."""
    from netwright.show.html import page

    return _write(study.folder / "report.html", page(result))


def _write(path: Path, text: str) -> Path:
    half = path.with_suffix(".half")
    half.write_text(text, encoding="utf-8")
    os.replace(half, path)
    return path
