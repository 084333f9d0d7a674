"""D-Adaptation for SGD: dual averaging, whose rate is a growing lower bound on the distance to the solution."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from netwright.core.part import Claim, Option, Paper
from netwright.optimizers._kind import Array, Tags, optimizer
from netwright.tensor.stepping import State


def start(p: Tensor) -> State:
    scalars = {name: p.new_zeros(()) for name in ("d", "agreement", "first_norm")}
    return {"begun_at": p.clone(), "sum": torch.zeros_like(p)} | scalars


def d_adapt_sgd(
    g: Tensor, state: State, p: Tensor, t: int, *, lr: float, weight_decay: Any, momentum: float, d0: float
) -> tuple[Tensor, State]:
    """l = d lr / |g_0|: N <- N + l <g, s>, then s <- s + l g; d <- max(d, 2 N / |s|); p <- mu p + (1 - mu) (x_0 - s)."""
    d = p.new_tensor(d0) if t == 1 else state["d"]
    norm = torch.where(state["first_norm"] == 0, g.square().sum().sqrt(), state["first_norm"])
    if lr == 0:
        return p, {**state, "d": d, "first_norm": norm}
    g = g + weight_decay * p
    rate = d * lr / torch.where(norm == 0, 1, norm)
    agreement = state["agreement"] + rate * torch.dot(g, state["sum"])
    total = state["sum"] + rate * g
    size = total.square().sum().sqrt()
    new = torch.where(size == 0, d, torch.maximum(d, 2 * agreement / torch.where(size == 0, 1, size)))
    p = torch.where(size == 0, p, momentum * p + (1 - momentum) * (state["begun_at"] - total))
    return p, {"begun_at": state["begun_at"], "sum": total, "d": new, "agreement": agreement, "first_norm": norm}


def reference(
    p: Array, gradient: Callable[[Array], Array], steps: int, *, lr: float, weight_decay: float, momentum: float, d0: float
) -> Iterator[Array]:
    """Algorithm 4 of the released code: every step kept, inner products with the sum of those before it."""
    x, d, scale = p.copy(), d0, 0.0
    taken: list[Array] = []
    inner = 0.0
    for _ in range(steps):
        g = gradient(x)
        scale = scale or float(np.linalg.norm(g))
        g = g + weight_decay * x
        step = d * lr * g / scale
        inner += sum(float(np.vdot(step, earlier)) for earlier in taken)
        taken.append(step)
        s = np.sum(taken, axis=0)
        d = max(d, 2.0 * inner / float(np.linalg.norm(s)))
        x = x + (1.0 - momentum) * (p - s - x)
        yield x


def first_step_is_d0_long() -> bool:
    g = torch.tensor([3.0, -4.0], dtype=torch.float64)
    p, _ = d_adapt_sgd(g, start(torch.zeros_like(g)), torch.zeros_like(g), 1, lr=1.0, weight_decay=0.0, momentum=0.0, d0=1e-6)
    return abs(float(p.norm()) - 1e-6) < 1e-15


PART = optimizer(
    d_adapt_sgd,
    name="d-adapt-sgd",
    start=start,
    reference=reference,
    formula=r"d \leftarrow \max(d, 2 \sum \lambda_k \langle g_k, s_k \rangle / |s|)",
    paper=Paper(
        title="Learning-Rate-Free Learning by D-Adaptation",
        authors="Aaron Defazio, Konstantin Mishchenko",
        year=2023,
        arxiv="2301.07733",
        equation="Algorithm 4",
    ),
    tags=Tags(
        scope="net",
        free=True,
        published=1.0,
        scaling="same",
        reasons={
            "decay": "the norm of the first gradient, by which all are divided, is taken without the decay (released code)",
            "trains": "it diverges on the small net of this check, and so does the authors' package, step by step alike",
        },
    ),
    options=(
        Option("momentum", 0.0, "how much of the point before stays in the next", bounds=(-1e-12, 1.0)),
        Option("d0", 1e-6, "the first estimate", bounds=(0.0, float("inf"))),
    ),
    claims=(Claim("first step", "the first step is d0 long", "Algorithm 4", check=first_step_is_d0_long),),
    deviations=(
        "equal to the authors' dadaptation 3.2, whose factor 2 in the estimate is not in the paper's first algorithm",
        "weight decay is each group's own; the package reads the first group's. growth_rate is left out (Prodigy has it)",
        "where the first gradient is 0 the norm is the first one's that isn't; a rate of 0 leaves all as it is",
    ),
)
