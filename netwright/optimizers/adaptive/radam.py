"""RAdam: Adam, whose root is used only once its variance can be told, and then with a factor for how well."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from netwright.core.part import Claim, Option, Paper
from netwright.optimizers._kind import Array, Tags, Twin, optimizer
from netwright.tensor.stepping import State


def start(p: Tensor) -> State:
    return {"mean": torch.zeros_like(p), "square": torch.zeros_like(p)}


def rectification(t: int, beta2: float) -> float:
    """The factor r_t on an adaptive step; 0 where the variance of the root isn't tractable (rho_t at most 5)."""
    most = 2 / (1 - beta2) - 1
    rho = most - 2 * t * beta2**t / (1 - beta2**t)
    if rho <= 5:
        return 0.0
    return math.sqrt((rho - 4) * (rho - 2) * most / ((most - 4) * (most - 2) * rho))


def radam(
    g: Tensor, state: State, p: Tensor, t: int, *, lr: float, weight_decay: float, beta1: float, beta2: float, eps: float
) -> tuple[Tensor, State]:
    """p <- p - lr r_t m_hat sqrt(1 - b2^t) / (sqrt(v) + eps); p <- p - lr m_hat while r_t isn't known."""
    g = g + weight_decay * p
    mean = torch.lerp(state["mean"], g, 1 - beta1)
    square = beta2 * state["square"] + (1 - beta2) * g * g
    factor = rectification(t, beta2)
    root = (square.sqrt() + eps) / math.sqrt(1 - beta2**t) / factor if factor else 1.0
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
    """Algorithm 2, by weighted sums over all gradients."""
    seen: list[Array] = []
    longest = 2.0 / (1.0 - beta2) - 1.0
    for t in range(1, steps + 1):
        seen.append(gradient(p) + weight_decay * p)
        ages = np.arange(t)[::-1]
        m_hat = np.tensordot(beta1**ages, seen, 1) * (1 - beta1) / (1 - beta1**t)
        v = np.tensordot(beta2**ages, np.square(seen), 1) * (1 - beta2)
        length = longest - 2.0 * t * beta2**t / (1.0 - beta2**t)
        if length > 5.0:
            top = (length - 4.0) * (length - 2.0) * longest
            r = (top / ((longest - 4.0) * (longest - 2.0) * length)) ** 0.5
            p = p - lr * r * m_hat * (1.0 - beta2**t) ** 0.5 / (v**0.5 + eps)
        else:
            p = p - lr * m_hat
        yield p


def begins_as_momentum() -> bool:
    """At beta2 = 0.999 the first five steps have no root, and the factor then grows to 1."""
    factors = [rectification(t, 0.999) for t in (1, 5, 6, 100, 10_000)]
    return factors[:2] == [0.0, 0.0] and 0 < factors[2] < factors[3] < factors[4] < 1 and factors[4] > 0.99


def in_torch(options: Mapping[str, Any]) -> dict[str, Any]:
    return {"betas": (options["beta1"], options["beta2"]), "eps": options["eps"]}


PART = optimizer(
    radam,
    start=start,
    reference=reference,
    formula=r"\theta \leftarrow \theta - \eta\, r_t\, \hat m / \sqrt{\hat v}",
    paper=Paper(
        title="On the Variance of the Adaptive Learning Rate and Beyond",
        authors="Liyuan Liu, Haoming Jiang, Pengcheng He, Weizhu Chen, Xiaodong Liu, Jianfeng Gao, Jiawei Han",
        year=2019,
        arxiv="1908.03265",
        equation="Algorithm 2",
    ),
    tags=Tags(scaling="linear"),
    twin=Twin(torch.optim.RAdam, in_torch),
    options=(
        Option("beta1", 0.9, "how much of the mean gradient stays", bounds=(-1e-12, 1.0)),
        Option("beta2", 0.999, "how much of the mean square stays", bounds=(-1e-12, 1.0)),
        Option("eps", 1e-8, "added to the root", bounds=(0.0, float("inf"))),
    ),
    claims=(
        Claim(
            "warm-up of its own",
            "the first five steps at beta2 0.999 are those of momentum, and the factor of the others grows to 1",
            "section 4",
            check=begins_as_momentum,
        ),
    ),
    deviations=("the root is used from rho above 5, as in the released code and torch; the paper says above 4",),
)
