"""From parts to a rule over a net: slots filled by name, every value drawn from the stream of its own path."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from netwright.core import catalogue
from netwright.core.errors import unknown
from netwright.engine.blocks import Factory
from netwright.engine.rule import Rule
from netwright.engine.task import Task
from netwright.tensor.streams import initialise

#: torch's normalisations, which a task can name for its slot `norm` beside parts of that kind: channels, channel dim -> module.
NORMS: dict[str, Factory] = {
    "none": lambda channels, dim: nn.Identity(),
    "layer": lambda channels, dim: nn.LayerNorm(channels) if dim == -1 else nn.GroupNorm(1, channels),
    "batch": lambda channels, dim: nn.BatchNorm1d(channels) if dim == -1 else nn.BatchNorm2d(channels),
    "group": lambda channels, dim: nn.GroupNorm(math.gcd(8, channels), channels),
    "rms": lambda channels, dim: nn.RMSNorm(channels),
}


def norm_named(name: str) -> Factory:
    """A normalisation by name; raises UnknownName."""
    if name not in NORMS:
        raise unknown("norm", name, NORMS)
    return NORMS[name]


def fill_named(parts: Mapping[str, Any]) -> dict[str, Factory]:
    """Factories for the slots of a host from {slot: "norm name" | (part, options)}; parts are asked to build themselves."""
    fill: dict[str, Factory] = {}
    for slot, value in parts.items():
        fill[slot] = norm_named(value) if isinstance(value, str) else value[0].factory(value[1])
        if slot == "layer" and value[0].tags.readout:
            fill["readout"] = fill[slot]
    return fill


def filled(task: Task, parts: Mapping[str, tuple[str, Mapping[str, Any]]] | None = None) -> dict[str, Any]:
    """Every slot of a task: (part, options), or the name of a normalisation for the slot `norm`.

    parts: slot -> (part id, options), laid over the task's defaults. A part that is its own nonlinearity takes the place of
    the default activation.
    """
    given = parts or {}
    out: dict[str, Any] = {}
    for slot, default in task.slots.items():
        if slot in given:
            part_id, options = given[slot]
            out[slot] = (catalogue.get(part_id), dict(options))
        elif default:
            out[slot] = default if slot == "norm" else catalogue.parse(default)
    for slot, (part_id, options) in given.items():
        out.setdefault(slot, (catalogue.get(part_id), dict(options)))
    own = any(getattr(catalogue.get(part_id).tags, "nonlinear", False) for part_id, _ in given.values())
    if own and "activation" not in given:
        out.pop("activation", None)
    return out


def build(
    task: Task, parts: Mapping[str, Any], seed: int, widths: Sequence[int], device: str = "cpu", meta: bool = False
) -> Rule:
    """The rule of `parts` (see `filled`) over the task's net, every value drawn by the seed from the stream of its own path.

    meta: leave it on the meta device (for counting).
    """
    parts = dict(parts)
    rule_part, rule_options = parts.pop("rule")
    with torch.device("meta"):
        net = task.net(fill_named(parts), tuple(widths))
        rule: Rule = rule_part.build(net, task.problem, **rule_options)
    if meta:
        return rule
    rule.to_empty(device="cpu")
    initialise(rule, seed)
    if task.host == "convnet":  # convolutions on a CPU run 1.4 times faster with the channels innermost
        rule.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return rule.to(device)
