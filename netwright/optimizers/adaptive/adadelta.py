"""Adadelta: a step of the gradient in units of the root mean square of the last steps over that of the gradients."""

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
    return {"square": torch.zeros_like(p), "moved": torch.zeros_like(p)}


def adadelta(
    g: Tensor, state: State, p: Tensor, t: int, *, lr: float, weight_decay: float, rho: float, eps: float
) -> tuple[Tensor, State]:
    """v <- r v + (1 - r) g^2; d = sqrt(u + eps) / sqrt(v + eps) g; u <- r u + (1 - r) d^2; p <- p - lr d."""
    g = g + weight_decay * p
    square = rho * state["square"] + (1 - rho) * g * g
    step = (state["moved"] + eps).sqrt() / (square + eps).sqrt() * g
    return p - lr * step, {"square": square, "moved": rho * state["moved"] + (1 - rho) * step * step}


def reference(
    p: Array, gradient: Callable[[Array], Array], steps: int, *, lr: float, weight_decay: float, rho: float, eps: float
) -> Iterator[Array]:
    """Algorithm 1, value by value, with the root mean squares of its equation 9."""
    theta = [float(value) for value in p.reshape(-1)]
    slopes: list[list[float]] = [[] for _ in theta]
    steps_taken: list[list[float]] = [[] for _ in theta]

    def rms(values: list[float]) -> float:
        mean = 0.0
        for value in values:
            mean = rho * mean + (1.0 - rho) * value**2
        return float(np.sqrt(mean + eps))

    for _ in range(steps):
        g = gradient(np.array(theta).reshape(p.shape)).reshape(-1)
        for i in range(len(theta)):
            slopes[i].append(float(g[i]) + weight_decay * theta[i])
            steps_taken[i].append(rms(steps_taken[i]) / rms(slopes[i]) * slopes[i][-1])
            theta[i] -= lr * steps_taken[i][-1]
        yield np.array(theta).reshape(p.shape)


def first_step_is_of_size_eps() -> bool:
    """sqrt(eps) / sqrt(v + eps) g, before anything has moved."""
    g = torch.tensor([2.0], dtype=torch.float64)
    first, _ = adadelta(g, start(g), torch.zeros_like(g), 1, lr=1.0, weight_decay=0.0, rho=0.9, eps=1e-6)
    return abs(float(first) + (1e-6 / (0.1 * 4 + 1e-6)) ** 0.5 * 2) < 1e-12


def in_torch(options: Mapping[str, Any]) -> dict[str, Any]:
    return dict(options)


PART = optimizer(
    adadelta,
    start=start,
    reference=reference,
    formula=r"\theta \leftarrow \theta - \eta\, \frac{RMS[\Delta\theta]}{RMS[g]}\, g",
    paper=Paper(
        title="ADADELTA: An Adaptive Learning Rate Method",
        authors="Matthew D. Zeiler",
        year=2012,
        arxiv="1212.5701",
        equation="Algorithm 1",
    ),
    tags=Tags(rates=(1e3, 1e3, 1e3), published=1.0),
    twin=Twin(torch.optim.Adadelta, in_torch),
    options=(
        Option("rho", 0.9, "how much of both mean squares stays", bounds=(-1e-12, 1.0)),
        Option("eps", 1e-6, "added to both mean squares", bounds=(0.0, float("inf"))),
    ),
    claims=(
        Claim(
            "first step",
            "the first step is sqrt(eps) over the root of the gradient's mean square, times the gradient",
            "equation (10)",
            check=first_step_is_of_size_eps,
        ),
    ),
    deviations=("a rate multiplies the step, as in torch; the paper has none, which is a rate of 1",),
)
