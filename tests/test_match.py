"""Widths are solved until costs are equal: within two per cent where whole numbers allow it, and the net keeps its shape."""

from __future__ import annotations

import pytest
from sample import sampled

from netwright.bench.entrant import enter
from netwright.bench.match import match_widths
from netwright.bench.request import ArmSpec, open_task
from netwright.core import catalogue
from netwright.core.errors import BadInput
from netwright.core.widths import TOLERANCE, solve


@pytest.mark.parametrize("match", ["params", pytest.param("flops", marks=pytest.mark.slow)])
def test_every_part_that_can_be_matched_is_within_two_per_cent(match):
    task = open_task("digits", {})
    slots = {"activation": "activation", "mlp": "mlp"}
    specs = []
    for part in sampled(catalogue.parts("activation")):
        slot = next(s for s in part.slots() if s in slots)
        specs.append(ArmSpec(part.name, {slot: (part.id, {})}))
    specs += [
        ArmSpec(p.name, {"rule": (p.id, {})})
        for p in sampled(catalogue.parts("rule"))
        if not set(p.tags.needs) - {"blocks"} - task.problem.gives
    ]
    base, *others = (enter(task, arm) for arm in (ArmSpec("base"), *specs))
    widths, notes = match_widths([base, *others], match)
    for arm in others:
        own, got = (arm.at(w).price(match) / base.price(match) - 1 for w in (task.widths, widths[arm.name]))
        assert abs(got) <= TOLERANCE, (arm.name, widths[arm.name], got)
        said = [n for n in notes if n.startswith(f"{arm.name}: ")]
        assert bool(said) == (abs(own) > TOLERANCE) == (widths[arm.name] != task.widths), (arm.name, own)
        shape = [w / own_w for w, own_w in zip(widths[arm.name], task.widths, strict=True)]
        assert max(shape) / min(shape) < 1.5, (arm.name, widths[arm.name])  # the net keeps its shape


@pytest.mark.parametrize("own", [(8,), (5, 5), (16, 16), (7, 3, 4)])
def test_a_solution_within_tolerance_is_found_where_there_is_one(own):
    def price(widths, heads):
        sizes = [3, *widths, 2]
        return float(sum(a * b + b for a, b in zip(sizes, sizes[1:], strict=False)) + heads * sum(widths))

    for heads in (0, 1, 3, 9, -1):
        target = price(own, 0)
        got = solve(lambda w, heads=heads: price(w, heads), own, target, TOLERANCE)
        if len(own) > 2:
            assert abs(price(got, heads) / target - 1) <= 0.05
            continue
        grid = range(1, 3 * max(own))
        every = ((a,) for a in grid) if len(own) == 1 else ((a, b) for a in grid for b in grid)
        best = min(abs(price(w, heads) / target - 1) for w in every)
        assert abs(price(got, heads) / target - 1) <= max(TOLERANCE, best), (heads, got)


def test_widths_a_part_cannot_divide_are_stepped_over():
    def price(widths):
        if widths[0] % 4:
            raise BadInput("only multiples of four")
        return float(widths[0])

    assert solve(price, (16,), 33.0, 0.02) == (32,)
