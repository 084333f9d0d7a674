"""Adam: a step of the mean gradient over the root of its mean square, both corrected for starting at 0."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from netwright.core.part import Claim, Option, Paper
from netwright.optimizers._kind import Array, Tags, Twin, optimizer
from netwright.tensor.stepping import State


def start(p: Tensor) -> State:
    return {"mean": torch.zeros_like(p), "square": torch.zeros_like(p)}


def adam(
    g: Tensor, state: State, p: Tensor, t: int, *, lr: float, weight_decay: float, beta1: float, beta2: float, eps: float
) -> tuple[Tensor, State]:
    """m <- b1 m + (1 - b1) g; v <- b2 v + (1 - b2) g^2; p <- p - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)."""
    g = g + weight_decay * p
    mean = torch.lerp(state["mean"], g, 1 - beta1)
    square = beta2 * state["square"] + (1 - beta2) * g * g
    root = (square / (1 - beta2**t)).sqrt() + eps
    return p - lr / (1 - beta1**t) * mean / root, {"mean": mean, "square": square}


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
) -> Iterator[Array]:
    """Algorithm 1, value by value."""
    theta = [float(value) for value in p.reshape(-1)]
    m, v = [0.0] * len(theta), [0.0] * len(theta)
    for t in range(1, steps + 1):
        g = gradient(np.array(theta).reshape(p.shape)).reshape(-1)
        for i, value in enumerate(theta):
            slope = float(g[i]) + weight_decay * value
            m[i] = beta1 * m[i] + (1 - beta1) * slope
            v[i] = beta2 * v[i] + (1 - beta2) * slope**2
            m_hat, v_hat = m[i] / (1 - beta1**t), v[i] / (1 - beta2**t)
            theta[i] = value - lr * m_hat / (v_hat**0.5 + eps)
        yield np.array(theta).reshape(p.shape)


def first_step_is_the_rate() -> bool:
    g = torch.tensor([1e-3, -2.0, 40.0], dtype=torch.float64)
    p, _ = adam(g, start(g), torch.zeros_like(g), 1, lr=0.01, weight_decay=0.0, beta1=0.9, beta2=0.999, eps=0.0)
    return bool(torch.allclose(p, -0.01 * g.sign(), rtol=1e-12))


def in_torch(options: Any) -> dict[str, Any]:
    return {"betas": (options["beta1"], options["beta2"]), "eps": options["eps"]}


PART = optimizer(
    adam,
    usual=True,
    start=start,
    reference=reference,
    formula=r"\theta \leftarrow \theta - \eta\, \hat m / (\sqrt{\hat v} + \epsilon)",
    paper=Paper(
        title="Adam: A Method for Stochastic Optimization",
        authors="Diederik P. Kingma, Jimmy Ba",
        year=2014,
        arxiv="1412.6980",
        equation="Algorithm 1",
    ),
    tags=Tags(scaling="same"),
    twin=Twin(torch.optim.Adam, in_torch, fused=True),
    options=(
        Option("beta1", 0.9, "how much of the mean gradient stays", bounds=(-1e-12, 1.0)),
        Option("beta2", 0.999, "how much of the mean square stays", bounds=(-1e-12, 1.0)),
        Option("eps", 1e-8, "added to the root", bounds=(0.0, float("inf"))),
    ),
    claims=(
        Claim(
            "first step",
            "the first step is the rate in every value, whatever the size of the gradient",
            "section 2.1",
            check=first_step_is_the_rate,
        ),
    ),
)
