"""A model of a user's own as an arm: built by its function, the arm's part swapped in at the task's slot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from netwright.engine.build import Chosen
from netwright.engine.rule import Rule
from netwright.engine.task import Task
from netwright.surgery.swap import swap
from netwright.tensor.streams import initialise


def put_in(task: Task, in_net: Sequence[Chosen], learns: Chosen, seed: int, stream: int, device: str) -> Rule:
    """A user's model, the arm's part swapped in at the task's slot. stream: the seed of the part's values.

    The model's own come from the global generators, which who calls this has seeded.
    """
    model: nn.Module = task.net()
    for one in in_net:
        before = {id(p) for p in model.parameters()}
        x = task.data(seed).x[:2]
        swap(model, task.swap_slot, one.part, example=x, **one.options)
        for path, module in model.named_modules():
            fresh = [p for p in module.parameters(recurse=False) if id(p) not in before]
            if fresh and hasattr(module, "reset_parameters"):
                initialise(module, stream, f"net.{path}")
    part: Any = learns.part
    rule: Rule = part.build(model, task.problem, **learns.options)
    initialise(rule, stream, skip="net")
    return rule.to(device)
