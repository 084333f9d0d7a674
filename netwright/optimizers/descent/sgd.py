"""SGD: a step against the gradient, with momentum where it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from netwright.core.part import Claim, Option, Paper
from netwright.optimizers._kind import Array, Tags, Twin, optimizer
from netwright.tensor.stepping import State


def start(p: Tensor) -> State:
    return {"velocity": torch.zeros_like(p)}


def sgd(
    g: Tensor,
    state: State,
    p: Tensor,
    t: int,
    *,
    lr: float,
    weight_decay: float,
    momentum: float,
    nesterov: bool,
) -> tuple[Tensor, State]:
    """v <- momentum v + g; p <- p - lr v (nesterov: lr (g + momentum v))."""
    g = g + weight_decay * p
    velocity = momentum * state["velocity"] + g
    return p - lr * (g + momentum * velocity if nesterov else velocity), {"velocity": velocity}


def reference(
    p: Array,
    gradient: Callable[[Array], Array],
    steps: int,
    *,
    lr: float,
    weight_decay: float,
    momentum: float,
    nesterov: bool,
) -> Iterator[Array]:
    """Written out: the velocity of step n is the sum of all gradients so far, the i-th times momentum^(n - i)."""
    seen: list[Array] = []
    for _ in range(steps):
        seen.append(gradient(p) + weight_decay * p)
        velocity = sum((momentum**age * g for age, g in enumerate(reversed(seen))), np.zeros_like(p))
        p = p - lr * (seen[-1] + momentum * velocity if nesterov else velocity)
        yield p


def reaches_its_speed() -> bool:
    """Under a constant gradient the velocity goes to g / (1 - momentum)."""
    p = torch.zeros(1, dtype=torch.float64)
    state, g = start(p), torch.ones_like(p)
    for t in range(1, 200):
        p, state = sgd(g, state, p, t, lr=0.1, weight_decay=0.0, momentum=0.9, nesterov=False)
    return abs(float(state["velocity"]) - 10.0) < 1e-6


def in_torch(options: Mapping[str, Any]) -> dict[str, Any]:
    """torch refuses nesterov without momentum, which is a plain step."""
    return {"momentum": options["momentum"], "nesterov": options["nesterov"] and options["momentum"] > 0}


# A tenth of the rate where Adam's is 1e-3 is usual with momentum (0.1 and 0.01); without, ten times that.
PART = optimizer(
    sgd,
    start=start,
    reference=reference,
    formula=r"v \leftarrow \mu v + g, \quad \theta \leftarrow \theta - \eta v",
    paper=Paper(title="A Stochastic Approximation Method", authors="Herbert Robbins, Sutton Monro", year=1951),
    tags=Tags(rates=(10.0, 100.0, 50.0), published=0.01, scaling="linear"),
    twin=Twin(torch.optim.SGD, in_torch, fused=True),
    options=(
        Option("momentum", 0.0, "how much of the velocity stays", bounds=(-1e-12, 1.0)),
        Option("nesterov", False, "step from where the velocity leads"),
    ),
    settings=({"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}),
    claims=(
        Claim(
            "speed",
            "under a constant gradient the velocity goes to the gradient over 1 - momentum",
            "of momentum: Polyak (1964)",
            check=reaches_its_speed,
        ),
    ),
    deviations=(
        "rates are given, not 1/t; momentum is Polyak's (1964) and nesterov's form Sutskever's (2013), as torch has them",
        "no dampening",
    ),
)
