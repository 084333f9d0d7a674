"""Equal cost: hidden widths are solved until an arm costs what the baseline does."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count, islice

from netwright.kinds.task import Task
from netwright.part import BadInput
from netwright.study.probe import flops_of, median_step_ratio
from netwright.study.spec import ArmSpec, Request
from netwright.study.work import build_rule

TOLERANCE = 0.02
FAR = 0.10  # from here on arms are not comparable at equal cost
WIDEST = 16  # a matched width is at most this many times the task's own
SEARCH = 40  # neighbours of the last width that are tried where nothing else came within tolerance

Price = Callable[[Sequence[int]], float]


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


def solve(price: Price, widths: Sequence[int], target: float, tolerance: float) -> tuple[int, ...]:
    """Widths whose price is within tolerance of the target, or the nearest found.

    All widths are scaled by one factor first: solving the last alone would leave a gated net of 64-64 a bottleneck of 4.
    Then they are solved one by one from the last, which takes up what rounding left; then the last is moved step by step
    with the first following.
    """
    own = list(widths)

    def distance(some: Sequence[int]) -> float:
        try:
            value = abs(price(some) / target - 1)
        except BadInput:  # a width that the part can't divide
            return math.inf
        return value if value == value else math.inf

    best = min((own, _scaled(price, own, target)), key=distance)
    for i in reversed(range(len(own))):
        if distance(best) <= tolerance:
            return tuple(best)
        best = min((best, _fit(price, best, i, target)), key=distance)
    if len(own) > 1 and distance(best) > tolerance:
        start = best
        for last in islice(_around(start[-1]), SEARCH):
            tried = _fit(price, [*start[:-1], last], 0, target)
            best = min((best, tried), key=distance)
            if distance(best) <= tolerance:
                break
    return tuple(best)


def _around(width: int) -> Iterator[int]:
    """width - 1, width + 1, width - 2, ...: whole numbers from 1, without end."""
    for step in count(1):
        yield from (w for w in (width - step, width + step) if w >= 1)


def _scaled(price: Price, own: list[int], target: float) -> list[int]:
    """The widths times one factor, to the nearest price."""

    def at(last: int) -> list[int]:
        return [*(max(1, round(w * last / own[-1])) for w in own[:-1]), last]

    return at(_bisect(lambda last: price(at(last)), own[-1], target))


def _fit(price: Price, widths: list[int], i: int, target: float) -> list[int]:
    """The widths with number i solved for the nearest price."""

    def at(width: int) -> list[int]:
        return [*widths[:i], width, *widths[i + 1 :]]

    return at(_bisect(lambda width: price(at(width)), widths[i], target))


def _bisect(price: Callable[[int], float], start: int, target: float) -> int:
    """The whole number whose price is nearest to the target; price grows with the width, where there is one."""
    known: dict[int, float] = {}

    def at(width: int) -> float:
        if width not in known:
            try:
                known[width] = price(width)
            except BadInput:  # a width that the part can't divide
                known[width] = math.nan
        return known[width]

    lo, hi = 0, start * WIDEST + 1
    while hi - lo > 1:
        mid = (lo + hi) // 2
        value = next((at(w) for w in range(mid, hi) if at(w) == at(w)), math.inf)  # the next that can be built
        lo, hi = (mid, hi) if value < target else (lo, mid)
    near = [w for w in known if known[w] == known[w]]
    return min(near, key=lambda w: (abs(known[w] - target), w)) if near else start


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
