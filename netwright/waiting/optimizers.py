"""Optimizers and schedules by name, as the engine takes them; they become parts when their kinds are there.

ENGINE_VERSION stands for this file too: tests/golden/trajectory.json has a training with each.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

#: Optimizers that act on each value alone, so that a stack of copies can share one. The flag: has a fused CPU kernel.
OPTIMIZERS: dict[str, tuple[type[torch.optim.Optimizer], bool]] = {
    "sgd": (torch.optim.SGD, True),
    "adam": (torch.optim.Adam, True),
    "adamw": (torch.optim.AdamW, True),
    "nadam": (torch.optim.NAdam, False),
    "radam": (torch.optim.RAdam, False),
    "rmsprop": (torch.optim.RMSprop, False),
    "adagrad": (torch.optim.Adagrad, True),
    "adamax": (torch.optim.Adamax, False),
    "adadelta": (torch.optim.Adadelta, False),
}

#: Factor on the rate after `step` of `steps` steps.
SCHEDULES: dict[str, Callable[[int, int], float]] = {
    "constant": lambda step, steps: 1.0,
    "cosine": lambda step, steps: 0.5 * (1 + math.cos(math.pi * step / steps)),
    "warmup-cosine": lambda step, steps: min(1.0, (step + 1) / (0.05 * steps)) * 0.5 * (1 + math.cos(math.pi * step / steps)),
}
