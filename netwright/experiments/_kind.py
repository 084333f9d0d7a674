"""The kind `experiment`: a finding or a recipe that everyone cites, run again in a form that can fail. Three shapes.

grid: a cell is a function of a point and a seed that gives named numbers, run at every combination of the axes:

    def cell(seed, *, width) -> {"error": ..., "drift": ...}      # None: what it measures did not occur; tensors are kept

study: a function of a point asks a question, which the bench answers as `netwright compare` would:

    def ask(*, task, match) -> Question(task, arms=("kan", "relu"), terms={"match": match}) or None

recipe: a function makes a task of its own, and arms are compared on it: `--task recipe/NAME` takes others.

A predicate is a statement with a range, or words, fixed before the run. A control is the same experiment with something
changed, which breaks the predicates it names, or makes those hold that the finding is not borne out by.
"""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import math
from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, final

from netwright.core import catalogue
from netwright.core.errors import BadInput, UnknownName, unknown
from netwright.core.fingerprint import fingerprint
from netwright.core.kind import BENCH, Kind
from netwright.core.part import Part
from netwright.engine.task import Task

#: Raised by hand when numbers of this file move; tests/golden fails when they move and this did not.
KIND_VERSION = 1

SIZES = ("tiny", "small", "full")
SEEDS = 8  # of a size that doesn't say how many
#: Of an axis; a function where they are what the catalogue holds when it is run.
Values = tuple[Any, ...] | Callable[[], tuple[Any, ...]]
#: What a predicate is read from: a number a seed, a share of seeds, an exact value, or the bench's words on arms.
SORTS = ("number", "share", "exact", "verdict")
WORDS = ("better", "worse", "equivalent", "cannot tell", "not comparable")
#: Columns of the table of a study beside its axes: of every seed of an arm, and of every arm.
STUDIED = ("arm", "score", "verdict", "difference", "params", "flops", "step", "memory")


@final
@dataclass(frozen=True)
class Predicate:
    """A statement of the finding, and where it holds: inside=(lowest, highest), or the words of sort "verdict".

    value(table), of a netwright.bench.table.Table. sort "number": a number of the rows of one seed, told by the t interval of
    its mean over seeds; None where what it reads did not occur. "share": of seeds for which value is true; Clopper and Pearson.
    "exact": the largest deviation, no interval. "verdict": {what was compared: the bench's word, or None where it was not run}.
    reads: the columns it reads. at: the part of the grid it reads, {axis: a value, or several}. where: in the paper.
    """

    name: str
    text: str
    value: Callable[[Any], Any]
    inside: tuple[Any, ...]
    reads: tuple[str, ...]
    where: str = ""
    sort: str = "number"
    at: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.sort not in SORTS:
            raise BadInput(f"Predicate {self.name!r}: sort={self.sort!r}; allowed: {', '.join(SORTS)}")
        if self.sort == "verdict":
            for word in self.inside:
                if word not in WORDS:
                    raise unknown("verdict", word, WORDS, owner=f"Predicate {self.name!r}")
            if not self.inside or set(self.inside) & {"cannot tell", "not comparable"}:
                raise BadInput(f"Predicate {self.name!r}: inside={self.inside}; expected verdicts that tell something")
            return
        lo, hi = self.inside
        if not lo <= hi or lo == -math.inf and hi == math.inf:
            raise BadInput(f"Predicate {self.name!r}: inside={self.inside}; expected (lowest, highest) that excludes something")


def verdict(
    name: str,
    text: str,
    arm: str,
    inside: tuple[str, ...],
    at: Mapping[str, Any] | None = None,
    where: str = "",
    against: str = "verdict",
) -> Predicate:
    """The statement that the bench says one of these words of an arm, at every point there; against: as of Table.verdicts."""
    return Predicate(
        name, text, lambda table: table.verdicts(arm, against), inside, ("verdict",), where, sort="verdict", at=at or {}
    )


@final
@dataclass(frozen=True)
class Control:
    """The experiment with these options instead, in which the predicates named in `breaks` must not hold.

    makes: those that hold here and need not without it, so that a finding which isn't borne out is seen not to be missed.
    """

    text: str
    options: Mapping[str, Any]
    breaks: tuple[str, ...] = ()
    makes: tuple[str, ...] = ()


@final
@dataclass(frozen=True)
class Figure:
    """What is drawn: y over x, a point a seed and their mean. scale: "linear", "log-x", "log-log"; theory(x) -> y.

    by: the axis whose values are lines of their own.
    """

    x: str
    y: str
    scale: str = "linear"
    theory: Callable[[float], float] | None = None
    label: str = ""
    by: str = ""

    def __post_init__(self) -> None:
        if self.scale not in ("linear", "log-x", "log-log"):
            raise BadInput(f"Figure scale={self.scale!r}; allowed: linear, log-x, log-log")


@final
@dataclass(frozen=True)
class Tags:
    """reasons: why a contract check can't hold, {check name: reason}."""

    reasons: Mapping[str, str] = field(default_factory=dict)


@final
@dataclass(frozen=True)
class Setup:
    """What is run: axis -> values, every option, how many seeds. arms, terms: of a recipe."""

    axes: Mapping[str, tuple[Any, ...]]
    options: Mapping[str, Any]
    seeds: int
    arms: tuple[str, ...] = ()
    terms: Mapping[str, Any] = field(default_factory=dict)

    @property
    def points(self) -> list[dict[str, Any]]:
        """Every combination of the axes."""
        return [dict(zip(self.axes, values, strict=True)) for values in itertools.product(*self.axes.values())]


@final
@dataclass(frozen=True)
class Question:
    """What a study asks: which arms on which task; the first arm is the baseline.

    task: as `netwright compare --task` takes it, or a Task. arms: as text, under names that predicates call them by where these
    stay while a control puts something else there. options: of the task. terms: keywords of netwright.Study.
    """

    task: str | Task
    arms: Sequence[str] | Mapping[str, str]
    options: Mapping[str, Any] = field(default_factory=dict)
    terms: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ExperimentPart(Part):
    """An experiment. Abstract: a shape says what is run at a point.

    predicates: what has to hold. controls: what breaks them, each by at least one. grid: axis -> values. sizes: size -> what
    differs there: axes, options, and "seeds". gives: the names of the numbers of a cell; empty where its points are studies.
    """

    predicates: tuple[Predicate, ...]
    controls: tuple[Control, ...]
    sizes: Mapping[str, Mapping[str, Any]]
    gives: tuple[str, ...] = ()
    grid: Mapping[str, Values] = field(default_factory=dict)
    tags: Tags = Tags()

    def __post_init__(self) -> None:
        super().__post_init__()
        if (taken := set(inspect.signature(self.subject).parameters)) != self.takes:
            wanted = ", ".join(sorted(self.takes))
            raise BadInput(f"{self.id}: its function takes {', '.join(sorted(taken))}; expected {wanted}")
        if set(self.sizes) != set(SIZES):
            raise BadInput(f"{self.id}: sizes {', '.join(self.sizes)}; expected {', '.join(SIZES)}")
        for size, changes in self.sizes.items():
            for name in changes:
                if name not in {*self.settable, "seeds"}:
                    raise unknown("axis or option", name, {*self.settable, "seeds"}, owner=f"{self.id}, size {size}")
        for predicate in self.predicates:
            for name in predicate.reads:
                if name not in self.columns:
                    raise unknown("column", name, self.columns, owner=f"{self.id}, predicate {predicate.name}")
            for name in predicate.at:
                if name not in self.grid:
                    raise unknown("axis", name, self.grid, owner=f"{self.id}, predicate {predicate.name}")
        names = [predicate.name for predicate in self.predicates]
        if not self.predicates or len(set(names)) < len(names):
            raise BadInput(f"{self.id}: predicates {names}; expected at least one, each with a name of its own")
        broken = [name for control in self.controls for name in control.breaks]
        for name in [*broken, *self.made]:
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
    def made(self) -> frozenset[str]:
        """Predicates that hold with a control, and need not without it."""
        return frozenset(name for control in self.controls for name in control.makes)

    @property
    @abstractmethod
    def takes(self) -> set[str]:
        """Names of what its function is called with."""

    @property
    @abstractmethod
    def columns(self) -> Collection[str]:
        """Of its table."""

    @property
    def settable(self) -> Collection[str]:
        """Names of what a size, a control or a person may set."""
        return {*self.grid, *(option.name for option in self.options)}

    def slots(self) -> tuple[str, ...]:
        return ()

    def question(self, setup: Setup, point: Mapping[str, Any]) -> Question | None:
        """What is asked at a point; None: nothing, or its cells are no studies."""
        return None

    def changes(self, size: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """What a size sets, with what is given laid over it. Raises UnknownName."""
        if size not in self.sizes:
            raise unknown("size", size, self.sizes, owner=self.id)
        for name in options:
            if name not in self.settable:
                raise unknown("axis or option", name, self.settable, owner=self.id)
        return {"seeds": SEEDS, **self.sizes[size], **options}

    def build(self, size: str = "small", **options: Any) -> Setup:
        """What is run at a size, with other axes and options where they are given. Raises BadInput."""
        changes = self.changes(size, options)
        seeds, axes = changes.pop("seeds"), {}
        for axis, declared in self.grid.items():
            values = declared() if callable(declared) else declared
            given = changes.pop(axis, values)
            axes[axis] = tuple(given) if isinstance(given, (list, tuple)) else (given,)
            if wrong := [v for v in axes[axis] if type(v) is not type(values[0])]:
                raise BadInput(f"{self.id}: {axis}={wrong[0]!r}; expected {type(values[0]).__name__}, as in {values}")
        return Setup(axes, self.resolve(changes), seeds)


@final
@dataclass(frozen=True, kw_only=True)
class GridPart(ExperimentPart):
    """cell(seed, **point and options) at every point and seed.

    gives: the names of the numbers a cell returns. timed: those that hang on time, which no repeat gives again. figure: of the
    table alone.
    """

    shape: ClassVar[str] = "grid"
    gives: tuple[str, ...]
    figure: Figure
    timed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in filter(None, (self.figure.x, self.figure.y, self.figure.by)):
            if name not in self.columns:
                raise unknown("column", name, self.columns, owner=f"{self.id}, figure")

    @property
    def takes(self) -> set[str]:
        return {"seed", *self.settable}

    @property
    def columns(self) -> Collection[str]:
        return (*self.grid, *self.gives)

    @property
    def cell(self) -> Callable[..., Mapping[str, Any]]:
        """The function of a point and a seed."""
        return self.subject


@final
@dataclass(frozen=True, kw_only=True)
class StudyPart(ExperimentPart):
    """ask(**point and options) -> Question, or None where nothing is asked; every question is a study over all seeds."""

    shape: ClassVar[str] = "study"

    @property
    def takes(self) -> set[str]:
        return set(self.settable)

    @property
    def columns(self) -> Collection[str]:
        return (*self.grid, *STUDIED)

    def question(self, setup: Setup, point: Mapping[str, Any]) -> Question | None:
        return self.subject(**point, **setup.options)


@final
@dataclass(frozen=True, kw_only=True)
class RecipePart(ExperimentPart):
    """make(size, **options) -> Task: a task of the file's own. Its study compares `arms`, the first is the baseline.

    terms: keywords of netwright.Study. A size may set arms and terms too.
    """

    shape: ClassVar[str] = "recipe"
    arms: tuple[str, ...]
    terms: Mapping[str, Any] = field(default_factory=dict)

    @property
    def takes(self) -> set[str]:
        return {"size", *(option.name for option in self.options)}

    @property
    def columns(self) -> Collection[str]:
        return STUDIED

    @property
    def settable(self) -> Collection[str]:
        return {"arms", "terms", *(option.name for option in self.options)}

    def task(self, size: str = "small", **options: Any) -> Task:
        """Its task at a size, which its options of that size lie under."""
        return self.subject(**self.build(size, **options).options)

    def build(self, size: str = "small", **options: Any) -> Setup:
        changes = self.changes(size, options)
        arms, terms = tuple(changes.pop("arms", self.arms)), {**self.terms, **changes.pop("terms", {})}
        seeds = changes.pop("seeds")
        return Setup({}, {"size": size, **self.resolve(changes)}, seeds, arms, terms)

    def question(self, setup: Setup, point: Mapping[str, Any]) -> Question | None:
        try:
            known = catalogue.get(self.id) is self
        except UnknownName:
            known = False
        if known:
            return Question(self.id, setup.arms, setup.options, setup.terms)
        task = self.task(**setup.options)  # of a file of the user's own
        return Question(dataclasses.replace(task, source_hash=fingerprint(self)), setup.arms, {}, setup.terms)


experiment, study, recipe = GridPart, StudyPart, RecipePart

KIND = Kind("experiment", "experiments", "a finding or a recipe, in a form that can fail", BENCH)
