"""Checks of experiments: at the size tiny they run, repeat, give what they say, and can both hold and fail."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Collection, Mapping
from typing import Any

import torch

from netwright.bench.carry import Means
from netwright.bench.experiment import Experiment
from netwright.bench.jobs import sorted_out
from netwright.bench.table import Table, judged, lies
from netwright.core.canonical import canonical_json
from netwright.core.contract import Check, expect
from netwright.experiments._kind import ExperimentPart, GridPart, Predicate

SEEDS = 3
#: What was run once, for all checks of a process. The part is held so that its id stays its own.
_run: dict[tuple[int, str], tuple[ExperimentPart, Table]] = {}


def table(part: ExperimentPart, options: Mapping[str, Any] | None = None) -> Table:
    """The table at the size tiny, run once a process."""
    key = id(part), canonical_json(options or {})
    if key not in _run:
        _run[key] = part, afresh(part, options or {})
    return _run[key][1]


def afresh(part: ExperimentPart, options: Mapping[str, Any]) -> Table:
    """The table run anew at the size tiny: a grid with SEEDS seeds, studies with those they are declared with."""
    if isinstance(part, GridPart):
        setup = part.build("tiny", **options)
        rows = []
        for point in setup.points:
            for seed in range(SEEDS):
                numbers, _ = sorted_out(part.cell(seed=seed, **point, **setup.options))
                rows.append({**point, "seed": seed, **numbers})
        return Table(tuple(rows), points=tuple(setup.points))
    with tempfile.TemporaryDirectory() as folder:
        asked = Experiment(part, size="tiny", settings=options, out=f"{folder}/all", means=Means(executor="serial"))
        result = asked.run(progress=False)
    expect(not result.failures, "a study fails", got="; ".join(result.failures))
    return result.table


def answer(part: ExperimentPart, predicate: Predicate, rows: Table) -> tuple[bool, Any]:
    """(whether it holds of these rows, what was read): of the mean over seeds, or of the words."""
    if predicate.sort == "verdict":
        said = judged(predicate, rows, len(part.predicates))
        return said.word == "reproduced", said.reason
    mine = rows.where(predicate.at)
    values = [predicate.value(mine.of(seed)) for seed in mine.seeds]
    mean = math.nan if None in values else sum(map(float, values)) / len(values)
    lo, hi = predicate.inside
    return lo <= mean <= hi, mean


def columns(part: ExperimentPart) -> None:
    """A cell gives exactly the numbers it says, at every point; of a study every arm has a score a seed, and a word."""
    found = table(part)
    if isinstance(part, GridPart):
        for row in found.rows:
            got = set(row) - {"seed", *part.grid}
            expect(got == set(part.gives), "the numbers of a cell", got=sorted(got), wanted=sorted(part.gives))
        return
    expect(len(found.points) > 0, "nothing is asked at the size tiny")
    for point in found.points:
        mine = [arm for arm in found.arms if lies(arm, point)]
        expect(len(mine) >= 2 and all(arm["verdict"] for arm in mine), "the arms of a study", given=point, got=mine)
    scores = {(row["arm"], row["seed"], *(row[axis] for axis in part.grid)) for row in found.rows}
    expect(len(scores) == len(found.rows) == len(found.arms) * len(found.seeds), "a score an arm and seed", got=len(scores))


def repeats(part: ExperimentPart) -> None:
    """The same seed gives the same numbers, another seed others; the global generator is neither read nor moved."""
    once = {axis: values[:1] for axis, values in part.build("tiny").axes.items()}  # of one point, for studies take long
    timed = getattr(part, "timed", ())
    first, before = table(part).where(once), torch.get_rng_state()
    try:
        torch.manual_seed(1)
        state = torch.get_rng_state()
        again = afresh(part, once)
        expect(torch.equal(state, torch.get_rng_state()), "a cell draws from the global generator")
        expect(_without(again, timed) == _without(first, timed), "the same seeds give other numbers")
    finally:
        torch.set_rng_state(before)
    one, two = (_without(first.of(seed), (*timed, "seed")) for seed in (0, 1))
    expect(one != two, "two seeds give the same numbers")


def _without(rows: Table, names: Collection[str]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name not in names} for row in rows.rows]


def holds(part: ExperimentPart) -> None:
    """At the size tiny every predicate holds: what fails with a control fails for the control's reason.

    But those that a control makes hold: there they do.
    """
    plain = table(part)
    for predicate in part.predicates:
        if predicate.name not in part.made:
            there, got = answer(part, predicate, plain)
            expect(there, f"{predicate.name} at the size tiny", got=got, wanted=predicate.inside)
    for control in part.controls:
        for predicate in part.predicates:
            if predicate.name in control.makes:
                there, got = answer(part, predicate, table(part, control.options))
                expect(there, f"{predicate.name} with the control", given=control.text, got=got, wanted=predicate.inside)


def can_fail(part: ExperimentPart) -> None:
    """Each control breaks what it says it breaks."""
    for control in part.controls:
        for predicate in part.predicates:
            if predicate.name in control.breaks:
                there, got = answer(part, predicate, table(part, control.options))
                expect(not there, f"{predicate.name} holds with the control", given=control.text, got=got)


CHECKS = tuple(Check(check.__name__, check) for check in (columns, repeats, holds, can_fail))
