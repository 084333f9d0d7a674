"""Equal cost: hidden widths are solved until an arm costs what the baseline does."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from netwright.kinds.task import Task
from netwright.part import BadInput
from netwright.study.probe import flops_of, median_step_ratio
from netwright.study.spec import ArmSpec, Request
from netwright.study.work import build_rule

TOLERANCE = 0.02
WIDEST = 16  # a matched width is at most this many times the task's own

Price = Callable[[Sequence[int]], float]


def match_widths(request: Request, task: Task) -> tuple[dict[str, tuple[int, ...]], list[str]]:
    """Widths of every arm, and notes on what was matched. Raises BadInput where the host has no widths to match.

    Within 2 % unmatched, widths stay equal; otherwise they are solved one by one from the last, within 2 % where an
    integer solution exists, else to the nearest. Time is measured once, here, with the tolerance of its own noise.
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


def solve(price: Price, widths: Sequence[int], target: float, tolerance: float) -> tuple[int, ...]:
    """Widths whose price is within tolerance of the target, changing as few of them as possible, the last first."""
    best = list(widths)
    for i in reversed(range(len(best))):

        def at(width: int, i: int = i) -> float:
            try:
                return price([*best[:i], width, *best[i + 1 :]])
            except BadInput:  # a width that the part can't divide
                return float("nan")

        best[i] = _bisect(at, best[i], target)
        if abs(price(best) / target - 1) <= tolerance:
            break
    return tuple(best)


def _bisect(at: Callable[[int], float], start: int, target: float) -> int:
    """The whole number whose price is nearest to the target; price grows with the width."""
    lo, hi = 1, start * WIDEST
    while hi - lo > 1:
        mid = (lo + hi) // 2
        value = at(mid)
        if value != value:  # not buildable: its neighbour tells the side
            value = at(mid + 1)
        lo, hi = (mid, hi) if value < target else (lo, mid)
    near = [w for w in range(max(1, lo - 1), hi + 2) if at(w) == at(w)]
    return min(near, key=lambda w: abs(at(w) - target)) if near else start


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
