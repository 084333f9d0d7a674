"""D-Adaptation for Adam: the rate is a growing lower bound on the distance to the solution."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from netwright.core.part import Claim, Option, Paper
from netwright.optimizers._kind import Array, Tags, optimizer
from netwright.tensor.stepping import State


def start(p: Tensor) -> State:
    return {name: torch.zeros_like(p) for name in ("mean", "square", "sum")} | {
        "d": p.new_zeros(()),
        "agreement": p.new_zeros(()),
    }


def d_adapt_adam(
    g: Tensor,
    state: State,
    p: Tensor,
    t: int,
    *,
    lr: float,
    weight_decay: Any,
    beta1: float,
    beta2: float,
    eps: float,
    d0: float,
    decouple: bool,
    use_bias_correction: bool,
) -> tuple[Tensor, State]:
    """r = sqrt(b2): N <- r N + (1 - r) d lr <g, s / (sqrt(v) + eps)> with s and v as they were; s <- r s + (1 - r) d lr g.

    d <- max(d, N / ((1 - r) |s|_1)); m <- b1 m + (1 - b1) d lr g; p <- p - m / (sqrt(v) + eps).
    """
    d = p.new_tensor(d0) if t == 1 else state["d"]
    if lr == 0:
        return p, {**state, "d": d}
    correction = math.sqrt(1 - beta2**t) / (1 - beta1**t) if use_bias_correction else 1.0
    rate, r = d * lr * correction, math.sqrt(beta2)
    if not decouple:
        g = g + weight_decay * p
    here = rate * torch.dot(g, state["sum"] / (state["square"].sqrt() + eps))
    agreement = r * state["agreement"] + (1 - r) * here
    mean = beta1 * state["mean"] + (1 - beta1) * rate * g
    square = beta2 * state["square"] + (1 - beta2) * g * g
    total = r * state["sum"] + (1 - r) * rate * g
    size = total.abs().sum()
    new = torch.where(size == 0, d, torch.maximum(d, agreement / ((1 - r) * torch.where(size == 0, 1, size))))
    decayed = p * (1 - weight_decay * rate) if decouple else p
    p = torch.where(size == 0, p, decayed - mean / (square.sqrt() + eps))
    return p, {"mean": mean, "square": square, "sum": total, "d": new, "agreement": agreement}


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
    d0: float,
    decouple: bool,
    use_bias_correction: bool,
) -> Iterator[Array]:
    """Algorithm 5, weighted sums over the whole past written out."""
    x, d, keep = p.copy(), d0, beta2**0.5
    pushes: list[Array] = []
    raw: list[Array] = []
    inner: list[float] = []

    def mean_of(rows: list[Any], stays: float) -> Any:
        return sum(((1 - stays) * stays**age * row for age, row in enumerate(reversed(rows))), 0.0 * np.asarray(rows[0]))

    for k in range(steps):
        g = gradient(x)
        if not decouple:
            g = g + weight_decay * x
        lam = d * lr
        if use_bias_correction:
            lam *= (1 - beta2 ** (k + 1)) ** 0.5 / (1 - beta1 ** (k + 1))
        s, v = (mean_of(pushes, keep), mean_of([a * a for a in raw], beta2)) if raw else (0 * p, 0 * p)
        inner.append(lam * float(np.vdot(g, s / (np.sqrt(v) + eps))))
        raw.append(g)
        pushes.append(lam * g)
        guess = mean_of(inner, keep) / ((1 - keep) * np.abs(mean_of(pushes, keep)).sum())
        d = max(d, float(guess))
        if decouple:
            x = x * (1 - weight_decay * lam)
        x = x - mean_of(pushes, beta1) / (np.sqrt(mean_of([a * a for a in raw], beta2)) + eps)
        yield x


def first_step_is_known() -> bool:
    """d0 (1 - b1) / sqrt(1 - b2) = 3.1623e-6 in every value."""
    g = torch.tensor([0.3, -2.0, 50.0], dtype=torch.float64)
    own: dict[str, Any] = {option.name: option.default for option in PART.options}
    p, _ = d_adapt_adam(g, start(g), torch.zeros_like(g), 1, lr=1.0, weight_decay=0.0, **own)
    return bool(torch.allclose(p, -1e-6 * 0.1 / math.sqrt(1e-3) * g.sign(), rtol=1e-4))


PART = optimizer(
    d_adapt_adam,
    name="d-adapt-adam",
    start=start,
    reference=reference,
    formula=r"d \leftarrow \max(d, N / ((1 - \sqrt{\beta_2})\, |s|_1))",
    paper=Paper(
        title="Learning-Rate-Free Learning by D-Adaptation",
        authors="Aaron Defazio, Konstantin Mishchenko",
        year=2023,
        arxiv="2301.07733",
        equation="Algorithm 5",
    ),
    tags=Tags(scope="net", free=True, published=1.0, scaling="same"),
    options=(
        Option("beta1", 0.9, "how much of the mean gradient stays", bounds=(-1e-12, 1.0)),
        Option("beta2", 0.999, "how much of the mean square stays; its root, of the estimate", bounds=(-1e-12, 1.0)),
        Option("eps", 1e-8, "added to the root", bounds=(0.0, float("inf"))),
        Option("d0", 1e-6, "the first estimate", bounds=(0.0, float("inf"))),
        Option("decouple", False, "decay as AdamW; else in the gradient"),
        Option("use_bias_correction", False, "Adam's correction of both means"),
    ),
    claims=(
        Claim(
            "first step", "the first step is d0 (1 - b1) / sqrt(1 - b2) in every value", "Algorithm 5", check=first_step_is_known
        ),
    ),
    deviations=(
        "equal to the authors' dadaptation 3.2; its growth_rate is left out (Prodigy has it), and layer_scale",
        "a rate of 0 leaves all as it is",
    ),
)
