"""KAF: a learnt sum of bells on a fixed grid."""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.core.part import Learn, Paper

CENTRES = tuple(i / 2 - 4.75 for i in range(20))  # exact in float32
GAMMA = 1 / (6 * 0.5**2)


def kaf(x: Tensor, a: Tensor) -> Tensor:
    x = x.clamp(-1e4, 1e4)  # 0 long before
    y = torch.zeros_like(x)
    for weight, centre in zip(a.unbind(0), CENTRES, strict=True):
        y = y + weight * torch.exp((x - centre).square() * -GAMMA)
    return y


def kaf_reference(x: float, a: tuple[float, ...]) -> float:
    return math.fsum(w * math.exp(-GAMMA * min(abs(x - d), 1e3) ** 2) for w, d in zip(a, CENTRES, strict=True))


@cache
def fitted() -> tuple[float, ...]:
    """Coefficients with which the sum follows softplus: kernel ridge regression at the centres, with a ridge of 1e-4."""
    d = torch.tensor(CENTRES, dtype=torch.float64, device="cpu")  # also where modules are built on meta
    kernel = torch.exp(-GAMMA * (d[:, None] - d).square())
    ridge = 1e-4 * torch.eye(20, dtype=d.dtype, device="cpu")
    return tuple(torch.linalg.solve(kernel + ridge, torch.log1p(torch.exp(d))).tolist())


PART = activation(
    kaf,
    cls="KAF",
    summary="KAF, kernel activation function: a learnt sum of twenty bells on a fixed grid",
    formula=r"\sum_{i=1}^{20} a_i\, e^{-\gamma (x - d_i)^2},\quad \gamma = 1 / (6 \Delta^2)",
    reference=kaf_reference,
    paper=Paper(
        title="Kafnets: kernel-based non-parametric activation functions for neural networks",
        year=2017,
        authors="Simone Scardapane, Steven Van Vaerenbergh, Simone Totaro, Aurelio Uncini",
        arxiv="1707.04035",
        code="ispamm/kernel-activation-functions",
    ),
    learn=(Learn("a", lambda options: fitted()),),
    limits=(0.0, 0.0),
    flops=80.0,
    tags=Tags(smooth=True, delicate=True, always=("smooth",)),
    deviations=(
        "starts as a fit of softplus; the official code starts at random unless it is given a function to fit",
        "gamma is the paper's, the grid ends at 4.75; the official code has 1 / (8 Delta^2) and ends at 4",
    ),
)
