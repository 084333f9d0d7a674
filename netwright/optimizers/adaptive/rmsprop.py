"""RMSprop: a step of the gradient over the root of its mean square."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from netwright.core.part import Option, Paper
from netwright.optimizers._kind import Array, Tags, Twin, optimizer
from netwright.tensor.stepping import State


def start(p: Tensor) -> State:
    return {name: torch.zeros_like(p) for name in ("mean", "square", "velocity")}


def rmsprop(
    g: Tensor,
    state: State,
    p: Tensor,
    t: int,
    *,
    lr: float,
    weight_decay: float,
    alpha: float,
    eps: float,
    momentum: float,
    centered: bool,
) -> tuple[Tensor, State]:
    """v <- a v + (1 - a) g^2; u <- momentum u + g / (sqrt(v) + eps); p <- p - lr u. centered: v less the squared mean of g."""
    g = g + weight_decay * p
    mean = torch.lerp(state["mean"], g, 1 - alpha)
    square = alpha * state["square"] + (1 - alpha) * g * g
    spread = square - mean * mean if centered else square
    velocity = momentum * state["velocity"] + g / (spread.sqrt() + eps)
    return p - lr * velocity, {"mean": mean, "square": square, "velocity": velocity}


def reference(
    p: Array,
    gradient: Callable[[Array], Array],
    steps: int,
    *,
    lr: float,
    weight_decay: float,
    alpha: float,
    eps: float,
    momentum: float,
    centered: bool,
) -> Iterator[Array]:
    """Of all gradients so far: their mean square with weights (1 - a) a^age, less their mean squared, and the sum of steps."""
    seen: list[Array] = []
    taken: list[Array] = []
    for _ in range(steps):
        seen.append(gradient(p) + weight_decay * p)
        weights = [(1 - alpha) * alpha**age for age in range(len(seen))][::-1]
        spread = np.sum([w * g * g for w, g in zip(weights, seen, strict=True)], axis=0)
        if centered:
            spread = spread - np.sum([w * g for w, g in zip(weights, seen, strict=True)], axis=0) ** 2
        taken.append(seen[-1] / (np.sqrt(spread) + eps))
        p = p - lr * np.sum([momentum**age * u for age, u in enumerate(reversed(taken))], axis=0)
        yield p


def in_torch(options: Mapping[str, Any]) -> dict[str, Any]:
    return dict(options)


PART = optimizer(
    rmsprop,
    start=start,
    reference=reference,
    formula=r"\theta \leftarrow \theta - \eta\, g / (\sqrt{v} + \epsilon)",
    paper=Paper(
        title="Lecture 6.5: rmsprop, divide the gradient by a running average of its recent magnitude",
        authors="Tijmen Tieleman, Geoffrey Hinton",
        year=2012,
        venue="COURSERA: Neural Networks for Machine Learning",
    ),
    tags=Tags(published=1e-3, scaling="same"),
    twin=Twin(torch.optim.RMSprop, in_torch),
    options=(
        Option("alpha", 0.99, "how much of the mean square stays", bounds=(-1e-12, 1.0)),
        Option("eps", 1e-8, "added to the root", bounds=(0.0, float("inf"))),
        Option("momentum", 0.0, "how much of the last step stays", bounds=(-1e-12, 1.0)),
        Option("centered", False, "divide by the spread about the mean"),
    ),
    settings=({"momentum": 0.9},),
    deviations=(
        "the lecture keeps 0.9 of the mean square; 0.99, momentum and centering (Graves, 2013) are as torch has them",
        "the rate is 0.001, as in the lecture; torch's own default is 0.01",
    ),
)
