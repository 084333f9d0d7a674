"""RReLU: a leaky rectifier whose negative slope is drawn anew for every entry in training (Xu et al., 2015)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.core.part import Claim, Example, Option, Paper, Protocol


def rrelu(x: Tensor, slope: Tensor, *, dim: int, lower: float, upper: float) -> Tensor:
    return torch.where(x >= 0, x, slope * x)


def draw(x: Tensor, generator: torch.Generator | None, *, dim: int, lower: float, upper: float) -> tuple[Tensor, ...]:
    uniform = torch.rand(x.shape, generator=generator, dtype=x.dtype, device=x.device)
    return (lower + (upper - lower) * uniform,)


def evaluate(x: Tensor, *, dim: int, lower: float, upper: float) -> Tensor:
    return torch.where(x >= 0, x, (lower + upper) / 2 * x)


Rows = Sequence[Sequence[float]]


def reference(rows: Rows, slope: Rows, lower: float, upper: float) -> list[list[float]]:
    return [[max(v, 0.0) + a * min(v, 0.0) for v, a in zip(*both, strict=True)] for both in zip(rows, slope, strict=True)]


def reference_eval(rows: Rows, lower: float, upper: float) -> list[list[float]]:
    return [[max(v, 0.0) + (lower + upper) * min(v, 0.0) / 2 for v in row] for row in rows]


def claim_slopes() -> bool:
    """Slopes in training lie between their bounds, and their mean is the slope in evaluation."""
    x = -torch.ones(100_000)
    bounds: Any = {"lower": 0.125, "upper": 1 / 3}
    y = -rrelu(x, *draw(x, torch.Generator().manual_seed(0), dim=0, **bounds), dim=0, **bounds)
    inside = bool(((y >= 0.125) & (y <= 1 / 3)).all())
    return inside and abs(float(y.mean() + evaluate(x, dim=0, **bounds)[0])) < 1e-3


PART = activation(
    rrelu,
    cls="RReLU",
    reference=reference,
    reference_eval=reference_eval,
    draw=draw,
    evaluate=evaluate,
    formula=r"\max(0,\,x) + a \min(0,\,x), \quad a \sim U(l, u)",
    paper=Paper(
        title="Empirical Evaluation of Rectified Activations in Convolutional Network",
        authors="Bing Xu, Naiyan Wang, Tianqi Chen, Mu Li",
        year=2015,
        arxiv="1505.00853",
    ),
    options=(
        Option("lower", 0.125, "the least negative slope", bounds=(0.0, 1.0)),
        Option("upper", 1 / 3, "the largest negative slope", bounds=(0.0, 1.0)),
    ),
    tags=Tags(shape="stateful"),
    examples=(Example([2.0, 0.5], [2.0, 0.5]),),
    flops=3.0,
    claims=(
        Claim("slopes", "evaluates with the mean of the slopes it trains with", check=claim_slopes),
        Claim(
            "vision",
            "at least ReLU's accuracy on image classification",
            protocol=Protocol("task/cifar10", "activation/relu", "not worse"),
        ),
    ),
    deviations=(
        "slopes are uniform on [1/8, 1/3] and evaluation takes their mean, as in torch.nn.RReLU; the paper writes slopes from "
        "U(l, u) in [0, 1), then samples U(3, 8) and divides by the mean (slope 1/5.5) in evaluation",
    ),
)
