"""Schedule-free SGD: gradients are taken between the steps of SGD and their average, and the net is read at the average."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from netwright.core.part import Claim, Paper
from netwright.optimizers._kind import Array, Tags, optimizer
from netwright.optimizers.averaging._average import OPTIONS, averaged, read, start_average
from netwright.tensor.stepping import State


def schedule_free_sgd(
    g: Tensor,
    state: State,
    p: Tensor,
    t: int,
    *,
    lr: float,
    weight_decay: float,
    beta1: float,
    warmup_steps: int,
    r: float,
    weight_lr_power: float,
) -> tuple[Tensor, State]:
    """z <- z - lr g(y); x <- the weighted mean of all z; y <- (1 - b1) z + b1 x, which is the parameter."""
    return averaged(g + weight_decay * p, state, p, t, lr, beta1, warmup_steps, r, weight_lr_power)


def reference(
    p: Array,
    gradient: Callable[[Array], Array],
    steps: int,
    *,
    lr: float,
    weight_decay: float,
    beta1: float,
    warmup_steps: int,
    r: float,
    weight_lr_power: float,
) -> Iterator[tuple[Array, Array]]:
    """Equations (3) to (5): z by plain steps from gradients at y, x the mean of z_1 .. z_t, weighted."""
    z, x, total, top = p.copy(), p.copy(), 0.0, 0.0
    for t in range(1, steps + 1):
        y = z + beta1 * (x - z)
        eta = lr if t > warmup_steps else lr * t / warmup_steps
        z = z - eta * (gradient(y) + weight_decay * y)
        top = max(top, eta)
        total += t**r * top**weight_lr_power
        x = x + t**r * top**weight_lr_power / total * (z - x)
        yield z + beta1 * (x - z), x


def is_the_plain_mean() -> bool:
    """On x^2 / 2 from 1 at rate 0.5 the mean goes .5 .375 .272917 .190312 .124197, the mean of z_1 .. z_t."""
    y = torch.ones(1, dtype=torch.float64)
    own: dict[str, Any] = {o.name: o.default for o in PART.options}
    state, means, fast = start_average(y), [], []
    for t in range(1, 6):
        y, state = schedule_free_sgd(y, state, y, t, lr=0.5, weight_decay=0.0, **own)
        fast.append(float(state["fast"]))
        means.append(float(read(y, state, **own)))
    known = (0.5, 0.375, 0.272917, 0.190312, 0.124197)
    plain = [float(np.mean(fast[:n])) for n in range(1, 6)]
    return all(abs(a - b) < 1e-6 for a, b in zip(means, known, strict=True)) and np.allclose(means, plain, rtol=1e-12)


# Its rates are 10 to 50 times those of SGD, by the authors' notes; those are 10 to 100 times Adam's.
PART = optimizer(
    schedule_free_sgd,
    name="schedule-free-sgd",
    start=start_average,
    reference=reference,
    read=read,
    formula=r"z \leftarrow z - \eta\, g(y), \quad x \leftarrow (1-c)\,x + c\,z, \quad y = (1-\beta)\,z + \beta x",
    paper=Paper(
        title="The Road Less Scheduled",
        authors="Aaron Defazio, Xingyu Alice Yang, Harsh Mehta, Konstantin Mishchenko, Ahmed Khaled, Ashok Cutkosky",
        year=2024,
        arxiv="2405.15682",
        equation="(3)",
    ),
    tags=Tags(rates=(300.0, 300.0, 300.0), published=1.0, scaling="linear"),
    options=tuple(OPTIONS.values()),
    settings=({"warmup_steps": 5},),
    claims=(
        Claim(
            "plain mean",
            "at a constant rate x is the mean of z_1 to z_t, the start left out",
            "equation (4)",
            check=is_the_plain_mean,
        ),
    ),
    deviations=("the first mean is the first step's point, as in the released code (schedulefree 1.4.1)",),
)
