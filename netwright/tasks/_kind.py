"""The kind `task`: data, problem, host and budget. A task decides all of these; a part can change none of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

from torch import nn

from netwright.core import catalogue
from netwright.core.kind import TASK, Kind
from netwright.core.part import Claim, Option, Paper, Part
from netwright.engine.task import Problem, Task

#: Raised by hand when numbers of this file move; tests/golden fails when they move and this did not.
KIND_VERSION = 1

SIZES = ("small", "full")


def host_net(host: str, problem: Problem, fill: Mapping[str, Any], widths: Sequence[int], **options: Any) -> nn.Module:
    """The net of this id for a problem, its places filled; with the first two bound it is a Task's `net`."""
    part: Any = catalogue.get(host)
    return part.build(problem, widths, fill, **options)


@final
@dataclass(frozen=True)
class Tags:
    """reasons: why a contract check doesn't apply to a task, {check name: reason}."""

    reasons: Mapping[str, str] = field(default_factory=dict)


@final
@dataclass(frozen=True)
class TaskPart(Part):
    """A task of the house. `build(size=, **options)` makes it ready to run.

    versions: version -> size -> data hash, the newest last; also "option=value" -> hash, where an option makes other data.
    Data that come from code or a package are checked against it; whoever changes them raises the version.
    """

    make: Callable[..., Task] | None = None
    versions: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        return "task"

    @property
    def version(self) -> str:
        """The newest version, part of every job key."""
        return list(self.versions)[-1] if self.versions else "1"

    def slots(self) -> tuple[str, ...]:
        return ()

    def build(self, **options: Any) -> Task:
        """The Task at one size. Raises BadInput where its data can't be found, saying how to provide it."""
        assert self.make is not None
        return self.make(**self.resolve(options))


def task_part(
    make: Callable[..., Task],
    *,
    paper: Paper,
    name: str = "",
    summary: str = "",
    tags: Tags | None = None,
    options: tuple[Option, ...] = (),
    claims: tuple[Claim, ...] = (),
    deviations: tuple[str, ...] = (),
    uses: tuple[str, ...] = (),
    versions: Mapping[str, Mapping[str, str]] | None = None,
) -> TaskPart:
    """Declare a task: make(size=, host=, ...) -> Task. Every task has sizes small and full."""
    source: Any = inspect.getmodule(make)
    every = (Option("size", "small", "how much data and how long", allowed=SIZES),)
    return TaskPart(
        name=name or make.__name__.replace("_", "-"),
        paper=paper,
        summary=summary or (source.__doc__ or "").strip().split("\n")[0],
        tags=tags or Tags(),
        options=every + options,
        claims=claims,
        deviations=deviations,
        uses=uses,
        module=make.__module__,
        make=make,
        versions=versions or {},
    )


KIND = Kind("task", "tasks", "data, problem, host and budget", TASK)
