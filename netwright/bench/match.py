"""Equal cost: hidden widths are solved until an entrant costs what the baseline does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from netwright.bench.entrant import Entrant
from netwright.bench.probe import median_step_ratio
from netwright.core.widths import TOLERANCE, solve, told

FAR = 0.10  # from here on arms are not comparable at equal cost


def match_widths(
    entrants: Sequence[Entrant], match: str, known: Mapping[str, tuple[int, ...]] | None = None
) -> tuple[dict[str, tuple[int, ...]], list[str]]:
    """Widths of every entrant, the baseline's first, and notes on what was matched; known: widths decided before, by name.

    Within 2 % unmatched, widths stay equal; otherwise they are solved, within 2 % where an integer solution exists, else
    to the nearest. Time is measured once, here, with the tolerance of its own noise.
    """
    baseline, *others = entrants
    own = baseline.widths
    widths = {entrant.name: own for entrant in entrants}
    notes: list[str] = []
    if match == "none" or not others:
        return widths, notes
    if not own:
        return widths, [f"costs are reported but not matched: {baseline.task.id} has no widths to solve for"]
    target = 1.0 if match == "time" else baseline.price(match)
    for entrant in others:
        if known and entrant.name in known:
            widths[entrant.name] = known[entrant.name]
            continue
        price, tolerance = _time(entrant, baseline) if match == "time" else (_price(entrant, match), TOLERANCE)
        before = price(own)
        if abs(before / target - 1) <= tolerance:
            continue
        solved = solve(price, own, target, tolerance)
        widths[entrant.name] = solved
        goal = f"{baseline.name} in {match}"
        notes.append(f"{entrant.name}: {told(own, solved, goal, before / target, price(solved) / target, tolerance)}")
    return widths, notes


def shortfalls(entrants: Sequence[Entrant], match: str) -> dict[str, str]:
    """Entrants whose cost stayed more than FAR from the baseline's although equal cost was asked for, and by how much."""
    baseline, *others = entrants
    if match in ("none", "time") or not others:
        return {}
    found, target = {}, baseline.price(match)
    for entrant in others:
        off = entrant.price(match) / target - 1
        if abs(off) > FAR:
            found[entrant.name] = (
                f"it has {100 * off:+.0f} % of {baseline.name}'s {match} and no width to make up for it; "
                "ask for another --match, or none"
            )
    return found


def _price(entrant: Entrant, match: str) -> Callable[[Sequence[int]], float]:
    return lambda widths: entrant.at(widths).price(match)


def _time(entrant: Entrant, baseline: Entrant) -> tuple[Callable[[Sequence[int]], float], float]:
    """Step time over the baseline's, and its tolerance: 10 %, or three times the spread of the A/A row."""
    spread = abs(median_step_ratio(baseline, baseline)[0] - 1)
    return lambda widths: median_step_ratio(entrant.at(widths), baseline)[0], max(0.10, 3 * spread)
