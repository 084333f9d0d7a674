"""Schedule-free AdamW: gradients are taken between a fast sequence and its average, and the net is read at the average."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from netwright.core.part import Claim, Option, Paper, Protocol
from netwright.optimizers._kind import Array, Tags, optimizer
from netwright.optimizers.averaging._average import OPTIONS, averaged, read, start_average
from netwright.tensor.stepping import State


def start(p: Tensor) -> State:
    return {**start_average(p), "square": torch.zeros_like(p)}


def schedule_free(
    g: Tensor,
    state: State,
    p: Tensor,
    t: int,
    *,
    lr: float,
    weight_decay: float,
    beta1: float,
    beta2: float,
    eps: float,
    warmup_steps: int,
    r: float,
    weight_lr_power: float,
) -> tuple[Tensor, State]:
    """z <- z - lr (g / (sqrt(v_hat) + eps) + decay y); x <- the weighted mean of all z; y <- (1 - b1) z + b1 x.

    The parameter is y, where gradients are taken; v is the mean square of Adam, and there is no mean gradient.
    """
    square = beta2 * state["square"] + (1 - beta2) * g * g
    step = g / ((square / (1 - beta2**t)).sqrt() + eps) + weight_decay * p
    p, state = averaged(step, state, p, t, lr, beta1, warmup_steps, r, weight_lr_power)
    return p, {**state, "square": square}


def reference(
    p: Array,
    gradient: Callable[[Array], Array],
    steps: int,
    *,
    lr: float,
    weight_decay: float,
    beta1: float,
    beta2: float,
    eps: float,
    warmup_steps: int,
    r: float,
    weight_lr_power: float,
) -> Iterator[tuple[Array, Array]]:
    """Algorithm 1 with all three sequences kept, and x as the weighted mean of every z so far."""
    y, z = p.copy(), p.copy()
    seconds, shares = np.zeros_like(p), []
    fast: list[Array] = []
    fastest = 0.0
    for t in range(1, steps + 1):
        rate = lr * min(1.0, t / warmup_steps) if warmup_steps else lr
        fastest = max(fastest, rate)
        g = gradient(y)
        seconds = seconds + (1 - beta2) * (g * g - seconds)
        direction = g / (np.sqrt(seconds / (1 - beta2**t)) + eps)
        fast.append(z)
        shares.append(t**r * fastest**weight_lr_power)
        x = np.tensordot(np.array(shares) / sum(shares), fast, 1)
        before = z
        z = z - rate * (direction + weight_decay * y)
        # the released code: the mean is over the points before their steps, and y adds the share of the new step at once
        share = shares[-1] / sum(shares)
        x = x + share * (z - before)
        y = x * beta1 + z * (1 - beta1)
        fast[-1] = z
        yield y, x


def has_no_momentum_at_first() -> bool:
    """After one step z, x and y are one point, a step of the rate away."""
    g = torch.tensor([1e-3, -5.0], dtype=torch.float64)
    own: dict[str, Any] = {name: o.default for name, o in {o.name: o for o in PART.options}.items()}
    y, state = schedule_free(g, start(torch.zeros_like(g)), torch.zeros_like(g), 1, lr=0.1, weight_decay=0.0, **own)
    x = read(y, state, **own)
    return bool(torch.allclose(y, -0.1 * g.sign(), rtol=1e-4) and torch.equal(x, y) and torch.allclose(state["fast"], y))


PART = optimizer(
    schedule_free,
    name="schedule-free",
    start=start,
    reference=reference,
    read=read,
    formula=r"z \leftarrow z - \eta\, g(y)/\sqrt{\hat v}, \quad x \leftarrow (1-c)\,x + c\,z, \quad y = (1-\beta)\,z + \beta x",
    paper=Paper(
        title="The Road Less Scheduled",
        authors="Aaron Defazio, Xingyu Alice Yang, Harsh Mehta, Konstantin Mishchenko, Ahmed Khaled, Ashok Cutkosky",
        year=2024,
        arxiv="2405.15682",
        equation="Algorithm 1",
    ),
    tags=Tags(
        rates=(2.5, 2.5, 2.5),
        published=2.5e-3,
        decay="decoupled",
        scaling="same",
        reasons={"decay": "the decay is taken at y and shrinks z, which y follows by 1 - beta1 and the mean"},
    ),
    options=(
        OPTIONS["beta1"],
        Option("beta2", 0.999, "how much of the mean square stays", bounds=(-1e-12, 1.0)),
        Option("eps", 1e-8, "added to the root", bounds=(0.0, float("inf"))),
        OPTIONS["warmup_steps"],
        OPTIONS["r"],
        OPTIONS["weight_lr_power"],
    ),
    settings=({"warmup_steps": 5},),
    claims=(
        Claim(
            "first step",
            "the first step is Adam's, and all three points are one after it",
            "Algorithm 1",
            check=has_no_momentum_at_first,
        ),
        Claim(
            "digits",
            "on digits without a schedule it ends no lower than Adam with the schedule of the task",
            "abstract",
            protocol=Protocol("task/digits", "optimizer/adam", "not worse"),
        ),
        Claim(
            "mnist",
            "on MNIST without a schedule it ends no lower than Adam with the schedule of the task",
            "abstract",
            protocol=Protocol("task/mnist", "optimizer/adam", "not worse"),
        ),
        Claim(
            "shakespeare",
            "on tiny Shakespeare it ends no higher than AdamW with the schedule of the task",
            "abstract",
            protocol=Protocol("task/shakespeare", "optimizer/adamw", "not worse", trials=2),
        ),
    ),
    deviations=(
        "the first mean is the first step's point, as in the released code (schedulefree 1.4.1); there is another indexing",
        "weight decay is taken at y, the code's default",
    ),
)
