"""Smooth rectifiers that are no product with a gate: softplus, its algebraic cousin, and a bounded one."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.activations.smooth._shared import quick_softplus, reference_softplus
from netwright.core.part import Learn, Option, Paper


def softplus(x: Tensor, *, beta: float) -> Tensor:
    return F.softplus(x, beta)


def softplus_of_exp_and_log(x: Tensor, *, beta: float) -> Tensor:
    return quick_softplus(beta * x) / beta


def reference_softplus_of(x: float, beta: float) -> float:
    return reference_softplus(beta * x) / beta


SOFTPLUS = activation(
    softplus,
    compiled=softplus_of_exp_and_log,
    cls="Softplus",
    reference=reference_softplus_of,
    summary="Softplus: a smooth, positive ReLU, the integral of the sigmoid (Dugas et al., 2000).",
    formula=r"\ln(1 + e^{\beta x}) / \beta",
    limits=(0.0, math.inf),
    paper=Paper(
        title="Incorporating Second-Order Functional Knowledge for Better Option Pricing",
        authors="Charles Dugas, Yoshua Bengio, François Bélisle, Claude Nadeau, René Garcia",
        year=2000,
        venue="NIPS",
    ),
    options=(Option("beta", 1.0, "steepness; large ones approach ReLU", bounds=(0.0, math.inf), search=(0.5, 20.0, "log")),),
    tags=Tags(smooth=True, monotone=True, delicate=True, always=("smooth", "monotone")),
    values={-3.0: 0.048587, -1.0: 0.313262, 0.0: 0.693147, 1.0: 1.313262, 3.0: 3.048587},
    flops=5.0,
)


def squareplus(x: Tensor, *, b: float) -> Tensor:
    # (x + r) / 2 cancels left of 0, where it is b / 4 over the same expression at -x. Squares end where r and |x| are one.
    away = torch.where(x > 0, x, -x)
    low = away.clamp(max=1e15)
    large = (away + torch.sqrt(low * low + b) + (away - low)) / 2
    return torch.where(x > 0, large, b / 4 / large)


def reference_squareplus(x: float, b: float) -> float:
    large = (abs(x) + math.hypot(x, math.sqrt(b))) / 2
    return large if x >= 0 else b / (4 * large)


SQUAREPLUS = activation(
    squareplus,
    cls="Squareplus",
    reference=reference_squareplus,
    summary="Squareplus: a hyperbola in place of softplus, of sums and a square root only (Barron, 2021).",
    formula=r"(x + \sqrt{x^2 + b}) / 2",
    limits=(0.0, math.inf),
    paper=Paper(
        title="Squareplus: A Softplus-Like Algebraic Rectifier", authors="Jonathan T. Barron", year=2021, arxiv="2112.11687"
    ),
    options=(Option("b", 4.0, "width of the bend; small ones approach ReLU", bounds=(0.0, math.inf), search=(0.1, 10.0, "log")),),
    tags=Tags(smooth=True, monotone=True, delicate=True, always=("smooth", "monotone")),
    values={-3.0: 0.302776, -1.0: 0.618034, 0.0: 1.0, 1.0: 1.618034, 3.0: 3.302776},
    flops=9.0,
)


def srs(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    # Left of 0 both sides of the fraction are multiplied by e^{x / b}, so that nothing overflows; inf / inf would be NaN.
    x = x.clamp(-1e30, 1e30)
    e = torch.exp(-x.abs() / b)
    return torch.where(x < 0, x * e, x) / torch.where(x < 0, x * e / a + 1, x / a + e)


def reference_srs(x: float, a: float, b: float) -> float:
    if x > 0:
        return 1 / (1 / a + math.exp(-x / b) / x)
    return 0.0 if x == 0 or -x / b > 700.0 else x / (x / a + math.exp(-x / b))


SRS = activation(
    srs,
    cls="SRS",
    reference=reference_srs,
    summary="Soft-root-sign: smooth, bounded on both sides, with a learnt dip and a learnt ceiling (Zhou et al., 2020).",
    formula=r"x / (x / a + e^{-x / b})",
    limits=(0.0, 2.0),
    paper=Paper(
        title="Soft-Root-Sign Activation Function",
        authors="Yuan Zhou, Dandan Li, Shuwei Huo, Sun-Yuan Kung",
        year=2020,
        arxiv="2003.00547",
    ),
    learn=(Learn("a", 2.0, bounds=(0.01, 1e4)), Learn("b", 3.0, bounds=(0.01, 1e4))),
    tags=Tags(smooth=True, delicate=True),
    values={-3.0: -2.462484, -1.0: -1.116554, 0.0: 0.0, 1.0: 0.822009, 3.0: 1.606099},
    deviations=("where b is above e a the paper's denominator is 0 at some negative input; nothing keeps the two apart",),
    flops=10.0,
)

PARTS = (SOFTPLUS, SQUAREPLUS, SRS)
