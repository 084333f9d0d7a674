"""Equal cost: hidden widths are solved until an arm costs what the baseline does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from netwright.bench.probe import median_step_ratio
from netwright.bench.request import ArmSpec, Request
from netwright.bench.work import build_rule
from netwright.core.widths import TOLERANCE, Price, solve
from netwright.engine.meter import flops_of
from netwright.engine.task import Task

FAR = 0.10  # from here on arms are not comparable at equal cost


def match_widths(
    request: Request, task: Task, known: Mapping[str, tuple[int, ...]] | None = None
) -> tuple[dict[str, tuple[int, ...]], list[str]]:
    """Widths of every arm, and notes on what was matched; known: widths decided before, by arm.

    Within 2 % unmatched, widths stay equal; otherwise they are solved, within 2 % where an integer solution exists, else
    to the nearest. Time is measured once, here, with the tolerance of its own noise.
    """
    own = tuple(task.widths)
    widths = {arm.name: own for arm in request.arms}
    notes: list[str] = []
    if request.match == "none" or len(request.arms) == 1:
        return widths, notes
    if not own:
        return widths, [f"costs are reported but not matched: {task.id} has no widths to solve for"]
    baseline = request.arms[0]
    target = 1.0 if request.match == "time" else _price(request, task, baseline)(own)
    for arm in request.arms[1:]:
        if known and arm.name in known:
            widths[arm.name] = known[arm.name]
            continue
        if request.match == "time":
            price, tolerance = _time(request, task, arm)
        else:
            price, tolerance = _price(request, task, arm), TOLERANCE
        before = price(own)
        if abs(before / target - 1) <= tolerance:
            continue
        solved = solve(price, own, target, tolerance)
        after = price(solved)
        widths[arm.name] = solved
        off = "" if abs(after / target - 1) <= tolerance else f", the nearest to be had ({100 * (after / target - 1):+.1f} %)"
        notes.append(
            f"{arm.name}: widths {_text(own)} -> {_text(solved)} to match {baseline.name} in {request.match} "
            f"({100 * (before / target - 1):+.1f} % unmatched{off})"
        )
    return widths, notes


def shortfalls(request: Request, task: Task, widths: Mapping[str, Sequence[int]]) -> dict[str, str]:
    """Arms whose cost stayed more than FAR from the baseline's although equal cost was asked for, and by how much."""
    if request.match in ("none", "time") or len(request.arms) == 1:
        return {}
    first, found = request.arms[0], {}
    target = _price(request, task, first)(widths[first.name])
    for arm in request.arms[1:]:
        off = _price(request, task, arm)(widths[arm.name]) / target - 1
        if abs(off) > FAR:
            found[arm.name] = (
                f"it has {100 * off:+.0f} % of {first.name}'s {request.match} and no width to make up for it; "
                "ask for another --match, or none"
            )
    return found


def _price(request: Request, task: Task, arm: ArmSpec) -> Price:
    if request.match == "params":
        return lambda widths: float(sum(p.numel() for p in build_rule(task, arm, 0, widths, meta=True).parameters()))
    return lambda widths: flops_of(task, build_rule(task, arm, 0, widths, meta=True))[0]


def _time(request: Request, task: Task, arm: ArmSpec) -> tuple[Price, float]:
    """Step time over the baseline's, and its tolerance: 10 %, or three times the spread of the A/A row."""
    spread = abs(median_step_ratio(request, task, request.arms[0], task.widths, request.arms[0], task.widths)[0] - 1)

    def price(widths: Sequence[int]) -> float:
        return median_step_ratio(request, task, arm, widths, request.arms[0], task.widths)[0]

    return price, max(0.10, 3 * spread)


def _text(widths: Sequence[int]) -> str:
    return "-".join(map(str, widths))
