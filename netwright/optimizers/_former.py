"""What release 0.1 listed: optimizers as (class of torch, has a fused kernel), and schedules as factor(step, steps)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from netwright.core import catalogue
from netwright.core.kind import OPTIMIZER, SCHEDULE

_every: list[Any] = catalogue.parts(catalogue.kind_with(OPTIMIZER))
OPTIMIZERS: dict[str, tuple[type[torch.optim.Optimizer], bool]] = {
    part.name: (part.twin.cls, part.twin.fused) for part in _every if OPTIMIZER in part.slots() and part.twin is not None
}
SCHEDULES: dict[str, Callable[[int, int], float]] = {
    part.name: partial(lambda step, steps, part: part.at(step, steps=steps, **part.resolve({})), part=part)
    for part in _every
    if SCHEDULE in part.slots()
}
