"""The kind `task`: data, problem, host and budget. A task decides all of these; a part can change none of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

from torch import nn

from netwright.core import catalogue
from netwright.core.kind import TASK, Kind
from netwright.core.part import Option, Part
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
@dataclass(frozen=True, kw_only=True)
class TaskPart(Part):
    """A task of the house, declared by `task_part(make, ...)`. `build(size=, **options)` makes it ready to run.

    Every task has sizes small and full: make(size=, host=, ...) -> Task.

    versions: version -> size -> data hash, the newest last; also "option=value" -> hash, where an option makes other data.
    Data that come from code or a package are checked against it; whoever changes them raises the version.
    """

    tags: Tags = field(default_factory=Tags)
    versions: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if all(option.name != "size" for option in self.options):
            self._derive(options=(Option("size", "small", "how much data and how long", allowed=SIZES), *self.options))

    @property
    def kind(self) -> str:
        return "task"

    @property
    def make(self) -> Callable[..., Task]:
        """The function that is declared."""
        return self.subject

    @property
    def version(self) -> str:
        """The newest version, part of every job key."""
        return list(self.versions)[-1] if self.versions else "1"

    def slots(self) -> tuple[str, ...]:
        return ()

    def build(self, **options: Any) -> Task:
        """The Task at one size. Raises BadInput where its data can't be found, saying how to provide it."""
        return self.make(**self.resolve(options))


task_part = TaskPart

KIND = Kind("task", "tasks", "data, problem, host and budget", TASK)
