"""From parts to a rule over a net: every slot of a task holds a part, every value is drawn from the stream of its own path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, final

import torch
from torch import nn

from netwright.core import catalogue
from netwright.core.errors import UnknownName, unknown
from netwright.core.kind import HOST, LOSS, NET, OPTIMIZER, RULE, SCHEDULE
from netwright.core.part import Part
from netwright.engine.blocks import Factory
from netwright.engine.rule import Rule
from netwright.engine.task import Problem, Task
from netwright.tensor.streams import initialise


@final
@dataclass(frozen=True)
class Chosen:
    """A part in a slot, with the options it was given."""

    part: Part
    options: Mapping[str, Any]

    def __str__(self) -> str:
        tail = ",".join(f"{k}={v}" for k, v in self.options.items())
        return f"{self.part.id}:{tail}" if tail else self.part.id

    @cached_property
    def resolved(self) -> dict[str, Any]:
        """All its options."""
        return self.part.resolve(self.options)

    @property
    def place(self) -> str:
        """Where it acts in a run."""
        return catalogue.kinds()[self.part.kind].place


def named(slot: str, text: str) -> Chosen:
    """The part, with its options, that a text names for a slot: "adamw:beta2=0.99". Raises UnknownName, BadInput."""
    kind = catalogue.kind_with(slot)
    try:
        part, options = catalogue.parse(text, kind)
        fits = kind is None or slot in part.slots()
    except UnknownName:
        if kind is None:
            raise
        fits = False
    if not fits:
        raise unknown(slot, text.partition(":")[0].strip(), [p.name for p in catalogue.parts(kind) if slot in p.slots()])
    part.resolve(options)
    return Chosen(part, options)


def defaults_of(task: Task) -> dict[str, str]:
    """slot -> the part that fills it by default, as text: the task's slots, the loss of its problem, and the usual others."""
    if task.call:
        return dict(task.slots)
    loss = task.problem.lowers
    usual = {slot: catalogue.usual(slot).id for slot in (OPTIMIZER, SCHEDULE) if slot not in task.slots}
    return {**task.slots, **usual, **({LOSS: loss} if loss else {})}


def problem_of(task: Task, parts: Mapping[str, Chosen]) -> Problem:
    """The task's problem, with the loss that an arm chose."""
    return replace(task.problem, objective=str(parts[LOSS])) if LOSS in parts else task.problem


def chosen(task: Task, given: Mapping[str, tuple[str, Mapping[str, Any]]] | None = None) -> dict[str, Chosen]:
    """What fills the slots of a task; a slot that nothing fills is left out.

    given: slot -> (part id, options), laid over the task's defaults. A default gives way to a part that replaces it, and
    to a net, chosen by the arm, that has no place for it.
    """
    out = {slot: named(slot, default) for slot, default in defaults_of(task).items() if default and slot not in (given or {})}
    own = {slot: Chosen(catalogue.get(part_id), dict(options)) for slot, (part_id, options) in (given or {}).items()}
    gone = {slot for one in own.values() for slot in one.part.replaces}
    if HOST in own:
        host: Any = own[HOST].part
        gone |= {slot for slot, one in out.items() if one.place == NET and slot not in host.places}
    return {slot: one for slot, one in out.items() if slot not in gone} | own


def host_of(task: Task, parts: Mapping[str, Chosen]) -> Any:
    """The net's declaration: of the one that fills its slot, else of the task's own; None for a model of the user's."""
    if HOST in parts:
        return parts[HOST].part
    return catalogue.get(task.host) if task.host else None


def fill_of(parts: Mapping[str, Chosen]) -> dict[str, Factory]:
    """Factories for the places of a net, of the parts that act in it: they are asked to build themselves."""
    fill: dict[str, Factory] = {}
    for slot, one in parts.items():
        if one.place == NET and slot != HOST:
            part: Any = one.part
            fill |= dict.fromkeys(part.fills(slot), part.factory(one.options))
    return fill


def net_of(task: Task, parts: Mapping[str, Chosen], widths: Sequence[int]) -> nn.Module:
    """The net with its places filled, on the current default device: the part in its slot, else the task's own."""
    fill = fill_of(parts)
    if HOST not in parts:
        return task.net(fill, tuple(widths))
    host: Any = parts[HOST]
    return host.part.build(task.problem, widths, fill, **host.options)


def build(
    task: Task, parts: Mapping[str, Chosen], seed: int, widths: Sequence[int], device: str = "cpu", meta: bool = False
) -> Rule:
    """The rule of `parts` over the net, every value drawn by the seed from the stream of its own path.

    meta: leave it on the meta device (for counting).
    """
    learns: Any = parts[RULE]
    with torch.device("meta"):
        net: Any = net_of(task, parts, widths)
        rule: Rule = learns.part.build(net, problem_of(task, parts), **learns.options)
    if meta:
        return rule
    rule.to_empty(device="cpu")
    initialise(rule, seed)
    host = host_of(task, parts)
    if host is not None and host.tags.channels_last:
        rule.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return rule.to(device)
