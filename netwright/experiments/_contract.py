"""Checks of experiments: at the size tiny they run, repeat, give what they say, and can fail."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import torch

from netwright.bench.jobs import sorted_out
from netwright.bench.table import Table
from netwright.core.contract import Check, expect
from netwright.experiments._kind import ExperimentPart

SEEDS = 3


def table(part: ExperimentPart, seeds: int = SEEDS, **options: Any) -> Table:
    """The rows at the size tiny."""
    made = part.build("tiny", **options)
    rows = []
    for values in itertools.product(*made["axes"].values()):
        point = dict(zip(made["axes"], values, strict=True))
        for seed in range(seeds):
            numbers, _ = sorted_out(part.cell(seed=seed, **point, **made["options"]))
            rows.append({**point, "seed": seed, **numbers})
    return Table(tuple(rows))


def means(part: ExperimentPart, rows: Table) -> Mapping[str, float]:
    """Each predicate's mean over the seeds; NaN where it did not occur for one."""
    found = {}
    for predicate in part.predicates:
        values = [predicate.value(rows.of(seed)) for seed in rows.seeds]
        found[predicate.name] = math.nan if None in values else sum(map(float, values)) / len(values)  # type: ignore[arg-type]
    return found


def columns(part: ExperimentPart) -> None:
    """A cell gives exactly the numbers it says, at every point."""
    for row in table(part, 1).rows:
        got = set(row) - {"seed", *part.grid}
        expect(got == set(part.gives), "the numbers of a cell", got=sorted(got), wanted=sorted(part.gives))


def repeats(part: ExperimentPart) -> None:
    """The same seed gives the same numbers, another seed others; the global generator is neither read nor moved."""
    state = torch.get_rng_state()
    first = table(part, 2)
    expect(torch.equal(state, torch.get_rng_state()), "a cell draws from the global generator")
    torch.manual_seed(1)
    try:
        expect(table(part, 2).rows == first.rows, "the same seeds give other numbers")
    finally:
        torch.set_rng_state(state)
    one, two = ([{k: v for k, v in row.items() if k != "seed"} for row in first.of(seed).rows] for seed in (0, 1))
    expect(one != two, "two seeds give the same numbers")


def holds(part: ExperimentPart) -> None:
    """At the size tiny every predicate's mean lies in its range: what fails with the control fails for the control's reason."""
    found = means(part, table(part))
    for predicate in part.predicates:
        lo, hi = predicate.inside
        value = found[predicate.name]
        expect(lo <= value <= hi, f"{predicate.name} at the size tiny", got=value, wanted=predicate.inside)


def can_fail(part: ExperimentPart) -> None:
    """Each control breaks what it says it breaks."""
    for control in part.controls:
        found = means(part, table(part, **control.options))
        for predicate in part.predicates:
            lo, hi = predicate.inside
            value = found[predicate.name]
            if predicate.name in control.breaks:
                expect(not lo <= value <= hi, f"{predicate.name} holds with the control", given=control.text, got=value)


CHECKS = (Check("columns", columns), Check("repeats", repeats), Check("holds", holds), Check("can_fail", can_fail))
