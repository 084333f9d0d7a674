"""Adagrad: a step of the gradient over the root of the sum of all its squares."""

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
    return {"sum": torch.zeros_like(p)}


def adagrad(
    g: Tensor, state: State, p: Tensor, t: int, *, lr: float, weight_decay: float, lr_decay: float, eps: float
) -> tuple[Tensor, State]:
    """s <- s + g^2; p <- p - lr / (1 + (t - 1) lr_decay) g / (sqrt(s) + eps)."""
    g = g + weight_decay * p
    total = state["sum"] + g * g
    return p - lr / (1 + (t - 1) * lr_decay) * g / (total.sqrt() + eps), {"sum": total}


def reference(
    p: Array, gradient: Callable[[Array], Array], steps: int, *, lr: float, weight_decay: float, lr_decay: float, eps: float
) -> Iterator[Array]:
    """Each value over the Euclidean norm of its own gradients."""
    theta = p.copy()
    history: list[Array] = []
    for earlier in range(steps):
        history.append(gradient(theta) + theta * weight_decay)
        norm = np.linalg.norm(np.stack(history), axis=0)
        theta = theta - history[-1] * lr / ((norm + eps) * (1.0 + lr_decay * earlier))
        yield theta


def steps_shrink_as_roots() -> bool:
    """Under a constant gradient step t is lr / sqrt(t)."""
    p = torch.zeros(1, dtype=torch.float64)
    state, g = start(p), torch.full_like(p, -3.0)
    for t in range(1, 26):
        before = p
        p, state = adagrad(g, state, p, t, lr=0.1, weight_decay=0.0, lr_decay=0.0, eps=1e-10)
    return abs(float(p - before) - 0.1 / 5) < 1e-9


def in_torch(options: Mapping[str, Any]) -> dict[str, Any]:
    return dict(options)


PART = optimizer(
    adagrad,
    start=start,
    reference=reference,
    formula=r"\theta \leftarrow \theta - \eta\, g / \sqrt{\sum g^2}",
    paper=Paper(
        title="Adaptive Subgradient Methods for Online Learning and Stochastic Optimization",
        authors="John Duchi, Elad Hazan, Yoram Singer",
        year=2011,
        venue="JMLR 12",
    ),
    tags=Tags(rates=(10.0, 10.0, 10.0), published=0.01, scaling="same"),
    twin=Twin(torch.optim.Adagrad, in_torch, fused=True),
    options=(
        Option("lr_decay", 0.0, "how fast the rate falls besides", bounds=(-1e-12, float("inf"))),
        Option("eps", 1e-10, "added to the root", bounds=(0.0, float("inf"))),
    ),
    claims=(
        Claim(
            "as the root of steps",
            "under a constant gradient the t-th step is the rate over the root of t",
            "section 1.2, of the diagonal form",
            check=steps_shrink_as_roots,
        ),
    ),
    deviations=("the diagonal form; lr_decay is torch's own",),
)
