"""The verbs of the bench: `compare`, a study and its report; `run`, an experiment; `judge`, scores from elsewhere."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from netwright.bench.carry import Means
from netwright.bench.experiment import Experiment, ExperimentResult
from netwright.bench.judge import Scale, judge_scores
from netwright.bench.records import StudyResult
from netwright.bench.request import ArmSpec
from netwright.bench.study import Study, Tell
from netwright.core.errors import BadInput, require
from netwright.core.part import Part
from netwright.core.writing import check_target, write_whole
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


def judge(
    scores: Mapping[str, Any],
    *,
    delta: float,
    higher_is_better: bool,
    baseline: str | None = None,
    worst: float | None = None,
    best: float | None = None,
    resolution: float | None = None,
    name: str = "scores",
    metric: str = "score",
    seeds: Sequence[int] | None = None,
    all_pairs: bool = False,
    values: Mapping[str, Mapping[str, Any]] | None = None,
    out: str | Path | None = None,
) -> StudyResult:
    """Judge scores that exist already, as `compare` judges its own; what tuning and cost were is not seen.

        netwright.judge({"relu": [0.91, 0.92, ...], "golu": [0.92, 0.94, ...]}, delta=0.005, higher_is_better=True)

    scores: arm -> scores paired by position, or seed -> score; None or NaN is a failed replicate, which scores `worst`.
    delta: the smallest difference that matters, in the metric's units. baseline: an arm other than the first.
    best, resolution: the score that can't be beaten and the smallest step of a score; where they are given, arms aren't
    called equivalent because scores are coarse or all at the top. name, metric: what the page calls them. seeds: the numbers
    of the positions. all_pairs: compare the other arms with one another too. values: name -> arm -> further values, in the
    form of the scores, which are shown and not judged. out: a folder for report.html, else none is written.
    Raises BadInput or UnknownName, naming the argument.
    """
    require(out is None or isinstance(out, (str, os.PathLike)), f"out={out!r}; expected a folder or None")
    scale = Scale(delta, higher_is_better, worst, best, resolution, metric)
    result = judge_scores(scores, scale, baseline=baseline, name=name, seeds=seeds, all_pairs=all_pairs, values=values)
    if out is not None:
        write_report(Path(out), result)
    return result


def finish(study: Study, extend: bool = False, confirm: bool = False, tell: Tell | None = None) -> StudyResult:
    """Run a study and write its report; see compare."""
    check_target(study.folder / "report.html")  # before the work that would be lost with it
    result = study.run(tell, extend=extend)
    write_report(study.folder, result)
    if confirm and (leader := leader_of(result)) is not None:
        fresh = [s + max(study.request.seeds) + 1 for s in range(len(study.request.seeds))]
        again = finish(study.again([result.baseline, leader], fresh, study.folder / "confirm"), tell=tell)
        note = f"the leader {leader} on {len(fresh)} fresh seeds: {again.comparisons[0].reason}"
        result = dataclasses.replace(result, notes=(*result.notes, note))
        write_report(study.folder, result)
    return result


def run(
    experiment: str | Part,
    *,
    size: str = "small",
    seeds: int | None = None,
    settings: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    means: Means | None = None,
    budget: float | None = None,
    tell: Tell | None = None,
) -> ExperimentResult:
    """Run an experiment and judge its predicates; its page lies in the experiment's folder. The same call continues.

        netwright.run("ntk", size="tiny")

    seeds: how many instead of the size's. settings: axes and options instead of the size's. budget: minutes after which
    nothing further is begun; what was not run stands as missing.
    """
    asked = Experiment(experiment, size=size, seeds=seeds, settings=settings, out=out, means=means, budget=budget)
    return finish_experiment(asked, tell)


def finish_experiment(asked: Experiment, tell: Tell | None = None) -> ExperimentResult:
    """Run an experiment and write its page and its result; see run."""
    from netwright.show.experiments import page, plain

    report, numbers = asked.folder / "report.html", asked.folder / "result.json"
    for target in (report, numbers):
        check_target(target)  # before the work that would be lost with it
    result = asked.run(tell)
    write_whole(report, page(result, asked.part))
    write_whole(numbers, json.dumps(plain(result), indent=1) + "\n")
    return result


def leader_of(result: StudyResult) -> str | None:
    """The best arm of a screen (several comparisons), where it is called better than the baseline."""
    better = [c for c in result.comparisons if c.b == result.baseline and c.verdict == "better"]
    if len(result.comparisons) < 2 or not better:
        return None
    sign = 1 if result.higher_is_better else -1
    return max(better, key=lambda c: sign * (c.difference or 0.0)).a


def write_report(folder: Path, result: StudyResult) -> Path:
    """The HTML report in this folder, written whole or not at all."""
    from netwright.show.html import page

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise BadInput(f"out={str(folder)!r} is a file or lies below one; expected a folder") from None
    return write_whole(folder / "report.html", page(result))
