"""Prodigy: Adam at a rate that it estimates as it goes, from how far the weights have come against their gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from netwright.core.part import Claim, Option, Paper, Protocol
from netwright.optimizers._kind import Array, Tags, optimizer
from netwright.tensor.stepping import State


def start(p: Tensor) -> State:
    flat = {"begun_at": p.clone(), **{name: torch.zeros_like(p) for name in ("mean", "square", "sum")}}
    return flat | {name: p.new_zeros(()) for name in ("d", "most", "agreement")}


def prodigy(
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
    d_coef: float,
    growth_rate: float,
    decouple: bool,
    use_bias_correction: bool,
    safeguard_warmup: bool,
) -> tuple[Tensor, State]:
    """d_hat = sum of (d / d0) d lr <g, x_0 - x> over |s|_1, s that of (d / d0) d lr g, both kept by sqrt(b2) a step.

    p <- p - lr d m / (sqrt(v) + d eps), m and v the means of d g and (d g)^2; d <- the largest d_hat so far.
    """
    first = p.new_tensor(d0)
    d, most = (first, first) if t == 1 else (state["d"], state["most"])
    if lr == 0:
        return p, {**state, "d": d, "most": most}
    correction = math.sqrt(1 - beta2**t) / (1 - beta1**t) if use_bias_correction else 1.0
    rate, stays = d * lr * correction, math.sqrt(beta2)
    if not decouple:
        g = g + weight_decay * p
    agreement = stays * state["agreement"] + d / d0 * rate * torch.dot(g, state["begun_at"] - p)
    mean = beta1 * state["mean"] + (1 - beta1) * d * g
    square = beta2 * state["square"] + (1 - beta2) * d * d * g * g
    total = stays * state["sum"] + d / d0 * (d if safeguard_warmup else rate) * g
    size = total.abs().sum()
    found = torch.where(size == 0, d, d_coef * agreement / torch.where(size == 0, 1, size))
    grown = torch.where(d == first, torch.maximum(d, found), d)
    most = torch.maximum(most, found)
    new = torch.where(size == 0, d, torch.minimum(most, grown * growth_rate))
    decayed = p * (1 - weight_decay * rate) if decouple else p
    p = torch.where(size == 0, p, decayed - rate * mean / (square.sqrt() + new * eps))
    kept = {"begun_at": state["begun_at"], "mean": mean, "square": square, "sum": total}
    return p, {**kept, "d": new, "most": most, "agreement": agreement}


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
    d_coef: float,
    growth_rate: float,
    decouple: bool,
    use_bias_correction: bool,
    safeguard_warmup: bool,
) -> Iterator[Array]:
    """Algorithm 4, sums over the whole past written out with powers of sqrt(beta2)."""
    x, d, highest = p.copy(), d0, d0
    terms: list[float] = []
    pushes: list[Array] = []
    m, v = np.zeros_like(p), np.zeros_like(p)
    for k in range(steps):
        eta = d * lr
        if use_bias_correction:
            eta *= (1 - beta2 ** (k + 1)) ** 0.5 / (1 - beta1 ** (k + 1))
        g = gradient(x)
        if not decouple:
            g = g + weight_decay * x
        terms.append(d / d0 * eta * float(np.vdot(g, p - x)))
        pushes.append((d / d0) * (d if safeguard_warmup else eta) * g)
        ages = range(k, -1, -1)
        top = sum(beta2 ** (age / 2) * term for age, term in zip(ages, terms, strict=True))
        s = sum((beta2 ** (age / 2) * push for age, push in zip(ages, pushes, strict=True)), 0 * p)
        m = m + (1 - beta1) * (d * g - m)
        v = v + (1 - beta2) * ((d * g) ** 2 - v)
        guess = d_coef * top / float(np.abs(s).sum())
        highest = max(highest, guess)
        d = min(highest, growth_rate * (max(d, guess) if d == d0 else d))
        if decouple:
            x = x - weight_decay * eta * x
        x = x - eta * m / (v**0.5 + d * eps)
        yield x.copy()


def _own() -> dict[str, Any]:
    return {option.name: option.default for option in PART.options}


def first_step_is_known() -> bool:
    """d0 (1 - b1) / sqrt(1 - b2) = 3.1623e-6 in every value."""
    g = torch.tensor([0.3, -2.0, 50.0], dtype=torch.float64)
    p, _ = prodigy(g, start(torch.zeros_like(g)), torch.zeros_like(g), 1, lr=1.0, weight_decay=0.0, **_own())
    return bool(torch.allclose(p, -1e-6 * 0.1 / math.sqrt(1e-3) * g.sign(), rtol=1e-4))


def knows_nothing_of_the_loss_scale() -> bool:
    """Forty steps on |x - 3|^2 and on 10 of it end at one point, and the estimate never falls."""
    ends, falls = [], False
    for scale in (1.0, 10.0):
        p = torch.zeros(4, dtype=torch.float64)
        state, d = start(p), 0.0
        for t in range(1, 41):
            p, state = prodigy(scale * 2 * (p - 3), state, p, t, lr=1.0, weight_decay=0.0, **_own())
            falls |= float(state["d"]) < d
            d = float(state["d"])
        ends.append(p)
    return bool(torch.allclose(ends[0], ends[1], rtol=1e-4)) and not falls


PART = optimizer(
    prodigy,
    start=start,
    reference=reference,
    formula=r"d \leftarrow \max(d, \sum \lambda_k \langle g_k, x_0 - x_k\rangle / |s_k|_1)",
    paper=Paper(
        title="Prodigy: An Expeditiously Adaptive Parameter-Free Learner",
        authors="Konstantin Mishchenko, Aaron Defazio",
        year=2023,
        arxiv="2306.06101",
        equation="Algorithm 4",
    ),
    tags=Tags(
        scope="net",
        free=True,
        published=1.0,
        decay="decoupled",
        scaling="same",
        reasons={"decay": "the decay is by the rate that it finds, d lr, and none is taken before a gradient was seen"},
    ),
    options=(
        Option("beta1", 0.9, "how much of the mean gradient stays", bounds=(-1e-12, 1.0)),
        Option("beta2", 0.999, "how much of the mean square stays; its root, of the estimate", bounds=(-1e-12, 1.0)),
        Option("eps", 1e-8, "added to the root, in units of the rate", bounds=(0.0, float("inf"))),
        Option("d0", 1e-6, "the first estimate", bounds=(0.0, float("inf"))),
        Option("d_coef", 1.0, "factor on the estimate: what to tune, if anything", bounds=(0.0, float("inf"))),
        Option("growth_rate", 1e12, "by how much the estimate grows in a step at most", bounds=(1.0 - 1e-12, math.inf)),
        Option("decouple", True, "decay as AdamW; else in the gradient"),
        Option("use_bias_correction", False, "Adam's correction of both means"),
        Option("safeguard_warmup", False, "leave the rate out of the estimate's denominator, for warm-ups"),
    ),
    settings=({"growth_rate": 1.02}, {"use_bias_correction": True}),
    claims=(
        Claim(
            "first step", "the first step is d0 (1 - b1) / sqrt(1 - b2) in every value", "Algorithm 4", check=first_step_is_known
        ),
        Claim(
            "loss scale",
            "its steps know nothing of the scale of the loss, and the estimate never falls",
            "section 4",
            check=knows_nothing_of_the_loss_scale,
        ),
        Claim(
            "digits",
            "on digits it ends no lower than Adam at a tuned rate",
            "abstract",
            protocol=Protocol("task/digits", "optimizer/adam", "not worse"),
        ),
        Claim(
            "mnist",
            "on MNIST it ends no lower than Adam at a tuned rate",
            "abstract",
            protocol=Protocol("task/mnist", "optimizer/adam", "not worse"),
        ),
    ),
    deviations=(
        "equal to the authors' prodigyopt 1.1.2; its slice_p, which saves memory, is left out",
        "a rate of 0 leaves all as it is, where the package raises",
    ),
)
