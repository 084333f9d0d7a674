"""Lion: every value moves by the rate, in the direction of the sign of a mean gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from netwright.core.part import Claim, Option, Paper, Protocol
from netwright.optimizers._kind import Array, Tags, optimizer
from netwright.tensor.stepping import State


def start(p: Tensor) -> State:
    return {"mean": torch.zeros_like(p)}


def lion(
    g: Tensor, state: State, p: Tensor, t: int, *, lr: float, weight_decay: float, beta1: float, beta2: float
) -> tuple[Tensor, State]:
    """p <- (1 - lr decay) p - lr sign(b1 m + (1 - b1) g); m <- b2 m + (1 - b2) g."""
    mean = state["mean"]
    direction = torch.lerp(g, mean, beta1)
    direction = torch.where(direction.isnan(), direction, direction.sign())  # the sign of NaN is 0 in torch
    return (1 - lr * weight_decay) * p - lr * direction, {"mean": torch.lerp(mean, g, 1 - beta2)}


def reference(
    p: Array, gradient: Callable[[Array], Array], steps: int, *, lr: float, weight_decay: float, beta1: float, beta2: float
) -> Iterator[Array]:
    """Program 1, value by value: up, down, or where it is."""
    theta = [float(value) for value in p.reshape(-1)]
    m = [0.0] * len(theta)
    for _ in range(steps):
        slopes = gradient(np.array(theta).reshape(p.shape)).reshape(-1)
        for i, slope in enumerate(map(float, slopes)):
            c = beta1 * m[i] + (1.0 - beta1) * slope
            theta[i] -= lr * ((c > 0) - (c < 0) + weight_decay * theta[i])
            m[i] += (1.0 - beta2) * (slope - m[i])
        yield np.array(theta).reshape(p.shape)


def moves_all_alike() -> bool:
    """Without decay every value moves by exactly the rate."""
    g = torch.tensor([1e-9, -3.0, 700.0], dtype=torch.float64)
    p, _ = lion(g, start(g), torch.zeros_like(g), 1, lr=0.01, weight_decay=0.0, beta1=0.9, beta2=0.99)
    return bool(torch.equal(p, -0.01 * g.sign()))


PART = optimizer(
    lion,
    start=start,
    reference=reference,
    formula=r"\theta \leftarrow (1 - \eta\lambda)\,\theta - \eta\, sign(\beta_1 m + (1 - \beta_1) g)",
    paper=Paper(
        title="Symbolic Discovery of Optimization Algorithms",
        authors="Xiangning Chen, Chen Liang, Da Huang, Esteban Real, Kaiyuan Wang, Yao Liu, Hieu Pham, Xuanyi Dong, Thang Luong,"
        " Cho-Jui Hsieh, Yifeng Lu, Quoc V. Le",
        year=2023,
        arxiv="2302.06675",
        equation="Program 1",
    ),
    tags=Tags(rates=(0.1, 0.3, 0.1), published=1e-4, decay="decoupled", scaling="same"),
    options=(
        Option("beta1", 0.9, "how much of the mean gradient is in the step", bounds=(-1e-12, 1.0)),
        Option("beta2", 0.99, "how much of the mean gradient stays", bounds=(-1e-12, 1.0)),
    ),
    claims=(
        Claim("uniform steps", "every value moves by the rate", "section 4", check=moves_all_alike),
        Claim(
            "digits",
            "on digits it ends no lower than Adam",
            "abstract",
            protocol=Protocol("task/digits", "optimizer/adam", "not worse"),
        ),
        Claim(
            "mnist",
            "on MNIST it ends no lower than Adam",
            "abstract",
            protocol=Protocol("task/mnist", "optimizer/adam", "not worse"),
        ),
    ),
)
