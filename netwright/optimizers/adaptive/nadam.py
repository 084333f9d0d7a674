"""NAdam: Adam with a step from where the mean gradient leads (Nesterov), under a momentum that warms up."""

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
    return {"mean": torch.zeros_like(p), "square": torch.zeros_like(p), "product": p.new_ones(())}


def nadam(
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
    momentum_decay: float,
) -> tuple[Tensor, State]:
    """p <- p - lr (mu' m / (1 - prod mu') + (1 - mu) g / (1 - prod mu)) / (sqrt(v_hat) + eps), mu' the next step's mu.

    mu = b1 (1 - 0.96^(t momentum_decay) / 2).
    """
    g = g + weight_decay * p
    mu, following = (beta1 * (1 - 0.5 * 0.96 ** (n * momentum_decay)) for n in (t, t + 1))
    product = state["product"] * mu
    mean = torch.lerp(state["mean"], g, 1 - beta1)
    square = beta2 * state["square"] + (1 - beta2) * g * g
    root = (square / (1 - beta2**t)).sqrt() + eps
    ahead = following / (1 - product * following) * mean + (1 - mu) / (1 - product) * g
    return p - lr * ahead / root, {"mean": mean, "square": square, "product": product}


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
    momentum_decay: float,
) -> Iterator[Array]:
    """The report's algorithm value by value, the momenta written out as a list first."""
    momenta = [beta1 * (1.0 - 0.96 ** (momentum_decay * n) / 2.0) for n in range(1, steps + 2)]
    theta = [float(value) for value in p.reshape(-1)]
    first, second = [0.0] * len(theta), [0.0] * len(theta)
    for t in range(1, steps + 1):
        slopes = gradient(np.array(theta).reshape(p.shape)).reshape(-1)
        so_far, with_next = float(np.prod(momenta[:t])), float(np.prod(momenta[: t + 1]))
        for i, slope in enumerate(map(float, slopes)):
            slope += weight_decay * theta[i]
            first[i] += (1.0 - beta1) * (slope - first[i])
            second[i] += (1.0 - beta2) * (slope * slope - second[i])
            g_hat, m_hat = slope / (1.0 - so_far), first[i] / (1.0 - with_next)
            m_bar = (1.0 - momenta[t - 1]) * g_hat + momenta[t] * m_hat
            theta[i] -= lr * m_bar / ((second[i] / (1.0 - beta2**t)) ** 0.5 + eps)
        yield np.array(theta).reshape(p.shape)


def in_torch(options: Mapping[str, Any]) -> dict[str, Any]:
    betas = (options["beta1"], options["beta2"])
    return {"betas": betas, "eps": options["eps"], "momentum_decay": options["momentum_decay"]}


PART = optimizer(
    nadam,
    start=start,
    reference=reference,
    formula=r"\theta \leftarrow \theta - \eta\, (\mu_{t+1} \hat m + (1 - \mu_t) \hat g) / (\sqrt{\hat v} + \epsilon)",
    paper=Paper(
        title="Incorporating Nesterov Momentum into Adam", authors="Timothy Dozat", year=2016, venue="ICLR workshop track"
    ),
    tags=Tags(published=2e-3, scaling="same"),
    twin=Twin(torch.optim.NAdam, in_torch),
    options=(
        Option("beta1", 0.9, "how much of the mean gradient stays", bounds=(-1e-12, 1.0)),
        Option("beta2", 0.999, "how much of the mean square stays", bounds=(-1e-12, 1.0)),
        Option("eps", 1e-8, "added to the root", bounds=(0.0, float("inf"))),
        Option("momentum_decay", 4e-3, "how fast the momentum of the step ahead grows to beta1", bounds=(0.0, float("inf"))),
    ),
    deviations=("as in torch, the mean itself is kept with beta1, not with the momentum that warms up",),
)
