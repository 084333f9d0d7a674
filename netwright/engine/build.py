"""From parts to a rule over a net: every slot of a task holds a part, every value is drawn from the stream of its own path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

import torch

from netwright.core import catalogue
from netwright.core.kind import NET, RULE
from netwright.core.part import Part
from netwright.engine.blocks import Factory
from netwright.engine.rule import Rule
from netwright.engine.task import Task
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


def chosen(task: Task, given: Mapping[str, tuple[str, Mapping[str, Any]]] | None = None) -> dict[str, Chosen]:
    """What fills the slots of a task; a slot that nothing fills is left out.

    given: slot -> (part id, options), laid over the task's defaults. A default gives way to a part that replaces it.
    """
    out = {
        slot: Chosen(*catalogue.parse(default)) for slot, default in task.slots.items() if default and slot not in (given or {})
    }
    own = {slot: Chosen(catalogue.get(part_id), dict(options)) for slot, (part_id, options) in (given or {}).items()}
    replaced = {slot for one in own.values() for slot in one.part.replaces}
    return {slot: one for slot, one in out.items() if slot not in replaced} | own


def fill_of(parts: Mapping[str, Chosen]) -> dict[str, Factory]:
    """Factories for the places of a net, of the parts that act in it: they are asked to build themselves."""
    fill: dict[str, Factory] = {}
    for slot, one in parts.items():
        if one.place == NET:
            part: Any = one.part
            fill |= dict.fromkeys(part.fills(slot), part.factory(one.options))
    return fill


def build(
    task: Task, parts: Mapping[str, Chosen], seed: int, widths: Sequence[int], device: str = "cpu", meta: bool = False
) -> Rule:
    """The rule of `parts` over the task's net, every value drawn by the seed from the stream of its own path.

    meta: leave it on the meta device (for counting).
    """
    learns: Any = parts[RULE]
    with torch.device("meta"):
        net = task.net(fill_of(parts), tuple(widths))
        rule: Rule = learns.part.build(net, task.problem, **learns.options)
    if meta:
        return rule
    rule.to_empty(device="cpu")
    initialise(rule, seed)
    if task.host and catalogue.get(task.host).tags.channels_last:
        rule.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return rule.to(device)
