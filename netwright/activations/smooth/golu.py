"""GoLU: x gated by the Gompertz function (Das et al., 2025)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.core.part import Claim, Paper, Protocol


def golu(x: Tensor) -> Tensor:
    # exp(-x) overflows and the gradient is then 0 * inf; left of -10 the gate is 0 in every dtype.
    gate = torch.exp(-torch.exp(-x.clamp(min=-10.0)))
    return torch.where(x < -10.0, 0.0, x * gate)


def reference(x: float) -> float:
    return x * math.exp(-math.exp(-x)) if x > -700.0 else 0.0


def claim_variance() -> bool:
    """Var f(z), z ~ N(0, 1), by the trapezoid rule: GoLU below SiLU below GELU."""
    z = torch.linspace(-10.0, 10.0, 4001, dtype=torch.float64)
    density = torch.exp(-z * z / 2) / math.sqrt(2 * math.pi)

    def variance(y: Tensor) -> float:
        mean = torch.trapezoid(y * density, z)
        return float(torch.trapezoid(y * y * density, z) - mean**2)

    gelu, silu = z / 2 * (1 + torch.erf(z / math.sqrt(2.0))), z * torch.sigmoid(z)
    return variance(golu(z)) < variance(silu) < variance(gelu)


PART = activation(
    golu,
    cls="GoLU",
    reference=reference,
    formula=r"x\,e^{-e^{-x}}",
    limits=(0.0, math.inf),
    paper=Paper("golu"),
    tags=Tags(smooth=True, delicate=True),
    values={-3.0: 0.0, -1.0: -0.065988, 0.0: 0.0, 1.0: 0.692201, 3.0: 2.854296},
    flops=4.0,
    claims=(
        Claim("variance", "shrinks the variance of N(0, 1) input more than GELU and SiLU", check=claim_variance),
        Claim(
            "vision",
            "at least GELU's accuracy on image classification",
            protocol=Protocol("task/cifar10", "activation/gelu", "not worse"),
        ),
        Claim(
            "language",
            "at most GELU's loss on language modelling",
            protocol=Protocol("task/shakespeare", "activation/gelu", "not worse"),
        ),
    ),
    deviations=("the paper's three constants are fixed at 1, its default",),
)
