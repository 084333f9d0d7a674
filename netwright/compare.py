"""`compare`: a study, its report, and the leader once more on fresh seeds."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from netwright.bench.records import StudyResult
from netwright.bench.request import ArmSpec
from netwright.bench.study import Study, Tell
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


def finish(study: Study, extend: bool = False, confirm: bool = False, tell: Tell | None = None) -> StudyResult:
    """Run a study and write its report; see compare."""
    check_target(report_of(study))  # before the work that would be lost with it
    result = study.run(tell, extend=extend)
    write_report(study, result)
    if confirm and (leader := leader_of(result)) is not None:
        fresh = [s + max(study.request.seeds) + 1 for s in range(len(study.request.seeds))]
        again = finish(study.again([result.baseline, leader], fresh, study.folder / "confirm"), tell=tell)
        note = f"the leader {leader} on {len(fresh)} fresh seeds: {again.comparisons[0].reason}"
        result = dataclasses.replace(result, notes=(*result.notes, note))
        write_report(study, result)
    return result


def report_of(study: Study) -> Path:
    """Where the report lies."""
    return study.folder / "report.html"


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

    return write_whole(report_of(study), page(result))
