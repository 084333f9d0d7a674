"""Adamax: a step of the mean gradient over the largest gradient of the recent past."""

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
    return {"mean": torch.zeros_like(p), "largest": torch.zeros_like(p)}


def adamax(
    g: Tensor, state: State, p: Tensor, t: int, *, lr: float, weight_decay: float, beta1: float, beta2: float, eps: float
) -> tuple[Tensor, State]:
    """u <- max(b2 u, |g| + eps); p <- p - lr / (1 - b1^t) m / u."""
    g = g + weight_decay * p
    mean = torch.lerp(state["mean"], g, 1 - beta1)
    largest = torch.maximum(beta2 * state["largest"], g.abs() + eps)
    return p - lr / (1 - beta1**t) * mean / largest, {"mean": mean, "largest": largest}


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
    """Algorithm 2: the limit of an L^p norm is the largest of beta2^age |g|, taken over all gradients at once."""
    past: list[Array] = []
    for _ in range(steps):
        past.insert(0, gradient(p) + weight_decay * p)
        weights = [beta1**age for age in range(len(past))]
        m_hat = sum((w * g for w, g in zip(weights, past, strict=True)), 0 * p) / sum(weights)
        u = np.max([beta2**age * (np.abs(g) + eps) for age, g in enumerate(past)], axis=0)
        p = p - lr * m_hat / u
        yield p


def no_step_is_larger_than_the_rate() -> bool:
    """Under a constant gradient every step is the rate."""
    p = torch.zeros(2, dtype=torch.float64)
    state, g = start(p), torch.tensor([5.0, -1e-2], dtype=torch.float64)
    for t in range(1, 6):
        before = p
        p, state = adamax(g, state, p, t, lr=0.1, weight_decay=0.0, beta1=0.9, beta2=0.999, eps=0.0)
    return bool(torch.allclose(p - before, -0.1 * g.sign(), rtol=1e-9))


def in_torch(options: Mapping[str, Any]) -> dict[str, Any]:
    return {"betas": (options["beta1"], options["beta2"]), "eps": options["eps"]}


PART = optimizer(
    adamax,
    start=start,
    reference=reference,
    formula=r"\theta \leftarrow \theta - \eta\, \hat m / \max_i \beta_2^{t-i} |g_i|",
    paper=Paper(
        title="Adam: A Method for Stochastic Optimization",
        authors="Diederik P. Kingma, Jimmy Ba",
        year=2014,
        arxiv="1412.6980",
        equation="Algorithm 2",
    ),
    tags=Tags(rates=(2.0, 2.0, 2.0), published=2e-3, scaling="same"),
    twin=Twin(torch.optim.Adamax, in_torch),
    options=(
        Option("beta1", 0.9, "how much of the mean gradient stays", bounds=(-1e-12, 1.0)),
        Option("beta2", 0.999, "how much of the largest gradient stays", bounds=(-1e-12, 1.0)),
        Option("eps", 1e-8, "added to the gradient's size", bounds=(0.0, float("inf"))),
    ),
    claims=(
        Claim(
            "bounded steps",
            "under a constant gradient every step is the rate",
            "section 7.1",
            check=no_step_is_larger_than_the_rate,
        ),
    ),
    deviations=("eps, which the paper has not, is added to the gradient's size, as in torch",),
)
