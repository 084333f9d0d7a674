"""The kind `experiment`: a finding or a recipe that everyone cites, run again in a form that can fail.

A cell is a function of a point and a seed that gives named numbers:

    def cell(seed, *, width) -> {"error": ..., "drift": ...}      # None: what it measures did not occur; tensors are kept

The grid is every combination of its axes; a predicate is a number of the rows of one seed, and a range fixed before the
run: its interval over the seeds inside is "reproduced", outside "not reproduced", else "cannot tell". A control is the
same experiment with something taken away, which breaks the predicates it names.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, final

from netwright.core.errors import BadInput, unknown
from netwright.core.kind import BENCH, Kind
from netwright.core.part import Part

#: Raised by hand when numbers of this file move; tests/golden fails when they move and this did not.
KIND_VERSION = 1

SIZES = ("tiny", "small", "full")
SORTS = ("number", "share", "exact")


@final
@dataclass(frozen=True)
class Predicate:
    """A statement of the finding as a number a seed, and the range in which it holds.

    value(table) -> number, of the rows of one seed (netwright.bench.table.Table); None where what it reads did not occur.
    reads: the columns it reads. sort: "number" (t interval of the mean over seeds), "share" (of seeds for which value is
    true; Clopper and Pearson), "exact" (the largest deviation, no interval). where: in the paper.
    """

    name: str
    text: str
    value: Callable[[Any], float | None]
    inside: tuple[float, float]
    reads: tuple[str, ...]
    where: str = ""
    sort: str = "number"

    def __post_init__(self) -> None:
        if self.sort not in SORTS:
            raise BadInput(f"Predicate {self.name!r}: sort={self.sort!r}; allowed: {', '.join(SORTS)}")
        lo, hi = self.inside
        if not lo <= hi or lo == -math.inf and hi == math.inf:
            raise BadInput(f"Predicate {self.name!r}: inside={self.inside}; expected (lowest, highest) that excludes something")


@final
@dataclass(frozen=True)
class Control:
    """The experiment with these options instead, in which the predicates named in `breaks` must not hold."""

    text: str
    options: Mapping[str, Any]
    breaks: tuple[str, ...]


@final
@dataclass(frozen=True)
class Figure:
    """What is drawn: y over x, a point a seed and their mean. scale: "linear", "log-x", "log-log"; theory(x) -> y."""

    x: str
    y: str
    scale: str = "linear"
    theory: Callable[[float], float] | None = None
    label: str = ""

    def __post_init__(self) -> None:
        if self.scale not in ("linear", "log-x", "log-log"):
            raise BadInput(f"Figure scale={self.scale!r}; allowed: linear, log-x, log-log")


@final
@dataclass(frozen=True)
class Tags:
    """reasons: why a contract check can't hold, {check name: reason}."""

    reasons: Mapping[str, str] = field(default_factory=dict)


@final
@dataclass(frozen=True, kw_only=True)
class ExperimentPart(Part):
    """An experiment in the shape of a grid: cell(seed, **point and options) at every point and seed.

    grid: axis -> values. gives: the names of the numbers a cell returns. sizes: size -> what differs there: axes, options,
    and "seeds". controls: what breaks the predicates, each by at least one. figure: of the table alone.
    """

    grid: Mapping[str, tuple[Any, ...]]
    gives: tuple[str, ...]
    predicates: tuple[Predicate, ...]
    controls: tuple[Control, ...]
    figure: Figure
    sizes: Mapping[str, Mapping[str, Any]]
    tags: Tags = Tags()

    def __post_init__(self) -> None:
        super().__post_init__()
        wanted = {"seed", *self.grid, *(option.name for option in self.options)}
        taken = inspect.signature(self.subject).parameters
        if set(taken) != wanted:
            raise BadInput(f"{self.id}: the cell takes {', '.join(taken)}; expected {', '.join(sorted(wanted))}")
        if set(self.sizes) != set(SIZES):
            raise BadInput(f"{self.id}: sizes {', '.join(self.sizes)}; expected {', '.join(SIZES)}")
        for size, changes in self.sizes.items():
            for name in changes:
                if name not in wanted | {"seeds"} - {"seed"}:
                    raise unknown("axis or option", name, wanted | {"seeds"}, owner=f"{self.id}, size {size}")
        columns = {*self.gives, *self.grid}
        for predicate in self.predicates:
            for name in predicate.reads:
                if name not in columns:
                    raise unknown("column", name, columns, owner=f"{self.id}, predicate {predicate.name}")
        for name in (self.figure.x, self.figure.y):
            if name not in columns:
                raise unknown("column", name, columns, owner=f"{self.id}, figure")
        names = [predicate.name for predicate in self.predicates]
        if not self.predicates or len(set(names)) < len(names):
            raise BadInput(f"{self.id}: predicates {names}; expected at least one, each with a name of its own")
        broken = [name for control in self.controls for name in control.breaks]
        for name in broken:
            if name not in names:
                raise unknown("predicate", name, names, owner=f"{self.id}, controls")
        if missing := sorted(set(names) - set(broken)):
            raise BadInput(f"{self.id}: no control breaks {', '.join(missing)}; a predicate that nothing breaks can't fail")

    @property
    def kind(self) -> str:
        return "experiment"

    @property
    def asked(self) -> tuple[str, ...]:
        return tuple(predicate.name for predicate in self.predicates)

    @property
    def cell(self) -> Callable[..., Mapping[str, Any]]:
        """The function of a point and a seed."""
        return self.subject

    def slots(self) -> tuple[str, ...]:
        return ()

    def build(self, size: str = "small", **options: Any) -> dict[str, Any]:
        """What is run at a size: {"axes": axis -> values, "options": all of them, "seeds": how many}. Raises BadInput."""
        if size not in self.sizes:
            raise unknown("size", size, self.sizes, owner=self.id)
        changes = {**self.sizes[size], **options}
        seeds = changes.pop("seeds", 8)
        known = {*self.grid, *(option.name for option in self.options)}
        for name in changes:
            if name not in known:
                raise unknown("axis or option", name, known, owner=self.id)
        axes = {}
        for axis, values in self.grid.items():
            given = changes.pop(axis, values)
            axes[axis] = tuple(given) if isinstance(given, (list, tuple)) else (given,)
            if wrong := [v for v in axes[axis] if type(v) is not type(values[0])]:
                raise BadInput(f"{self.id}: {axis}={wrong[0]!r}; expected {type(values[0]).__name__}, as in {values}")
        return {"axes": axes, "options": self.resolve(changes), "seeds": seeds}


experiment = ExperimentPart

KIND = Kind("experiment", "experiments", "a finding or a recipe, in a form that can fail", BENCH)
