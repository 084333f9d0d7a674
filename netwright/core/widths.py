"""Widths for a price: whole numbers at which a net costs what another one does."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import count, islice

from netwright.core.errors import BadInput

TOLERANCE = 0.02
WIDEST = 16  # a solved width is at most this many times the one it starts from
SEARCH = 40  # neighbours of the last width that are tried where nothing else came within tolerance

Price = Callable[[Sequence[int]], float]


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


def told(own: Sequence[int], found: Sequence[int], goal: str, before: float, after: float, tolerance: float) -> str:
    """What became of widths, as text. before, after: the price over the target, at the widths as they were and as solved."""
    was, now = ("-".join(map(str, widths)) for widths in (own, found))
    off = "" if abs(after - 1) <= tolerance else f", the nearest to be had ({100 * (after - 1):+.1f} %)"
    return f"widths {was} -> {now} to match {goal} ({100 * (before - 1):+.1f} % unmatched{off})"


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
