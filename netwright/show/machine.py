"""The document that `compare --json` prints: the same facts as the page, for programs."""

from __future__ import annotations

import math
from typing import Any

from netwright.bench.causes import nothing_worked
from netwright.bench.records import Comparison, StudyResult, ValueRow
from netwright.show import words


def document(result: StudyResult, report_path: str, command: str) -> dict[str, Any]:
    """The study as plain JSON values; what is unknown, infinite or not a number is null.

    In a comparison `a` is the arm judged and `b` the baseline; `difference` is mean(a - b) in the metric's units.
    """
    arms = []
    for arm in result.arms:
        cost = arm.cost
        arms.append(
            {
                "name": arm.name,
                "mean": _number(arm.mean),
                "interval": _pair(arm.interval),
                "n": arm.n,
                "params": _number(cost.params if cost else None),
                "step_time": _number(cost.step_time if cost else None),
                "peak_memory": _number(cost.peak_memory if cost else None),
                "infer_time": _number(cost.infer_time if cost else None),
                "flops_infer": _number(cost.flops_infer if cost else None),
                "failed": arm.failed,
            }
        )
    comparisons, against_control = [[_comparison(c) for c in family] for family in (result.comparisons, result.against_control)]
    made = {
        "schema": 1,
        "study": result.study,
        "task": result.task,
        "arms": arms,
        "comparisons": comparisons,
        "control": result.control,
        "against_control": against_control,
        "report": report_path,
        "command": command,
        "cause": nothing_worked(result.records, result.scores),
    }
    if words.given(result):
        made |= {"not_seen": ["tuning", "cost"], "values": [_value(row) for row in result.values], "notes": list(result.notes)}
    return made


def _value(row: ValueRow) -> dict[str, Any]:
    return {
        "value": row.value,
        "arm": row.arm,
        "mean": _number(row.mean),
        "interval": _pair(row.interval),
        "n": row.n,
        "difference": _number(row.difference),
        "difference_interval": _pair(row.difference_interval),
        "pairs": row.pairs,
    }


def _comparison(c: Comparison) -> dict[str, Any]:
    return {
        "a": c.a,
        "b": c.b,
        "difference": _number(c.difference),
        "interval": _pair(c.interval),
        "p": _number(c.p),
        "verdict": c.verdict,
        "seeds_needed": _number(c.seeds_needed),
    }


def _number(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _pair(pair: tuple[float, float] | None) -> list[float | None] | None:
    return None if pair is None else [_number(pair[0]), _number(pair[1])]
