"""What schedule-free optimizers share: a fast sequence z, its weighted mean x, and y between them, where gradients are taken."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from netwright.core.part import Option
from netwright.tensor.stepping import State

OPTIONS = {
    option.name: option
    for option in (
        Option("beta1", 0.9, "how near to the mean gradients are taken", bounds=(0.0, 1.0)),
        Option("warmup_steps", 0, "steps over which the rate rises", bounds=(-1, float("inf"))),
        Option("r", 0.0, "power of the step in the weights of the mean", bounds=(-1e-12, float("inf"))),
        Option(
            "weight_lr_power", 2.0, "power of the largest rate so far in the weights of the mean", bounds=(-1e-12, float("inf"))
        ),
    )
}


def start_average(p: Tensor) -> State:
    return {"fast": p.clone(), "weights": p.new_zeros(()), "largest": p.new_zeros(())}


def averaged(
    step: Tensor, state: State, y: Tensor, t: int, lr: float, beta1: float, warmup_steps: int, r: float, weight_lr_power: float
) -> tuple[Tensor, State]:
    """z <- z - lr step; x <- x + c (z - x), c the share of this step's weight, t^r lr_max^power; y = (1 - b1) z + b1 x.

    In terms of y alone: y + c (z - y) - lr (1 - b1 (1 - c)) step, with z as it was.
    """
    rate = lr * min(1.0, t / warmup_steps) if warmup_steps else lr
    largest = torch.maximum(state["largest"], state["largest"].new_zeros(()) + rate)
    weight = t**r * largest**weight_lr_power
    weights = state["weights"] + weight
    c = torch.where(weights > 0, weight / torch.where(weights > 0, weights, 1), 0).to(y.dtype)
    z = state["fast"]
    y = torch.lerp(y, z, c) - rate * (1 - beta1 * (1 - c)) * step
    return y, {"fast": z - rate * step, "weights": weights, "largest": largest}


def read(y: Tensor, state: State, *, beta1: float, **options: Any) -> Tensor:
    """x, the mean, of y = (1 - b1) z + b1 x."""
    return torch.lerp(y, state["fast"], 1 - 1 / beta1)
