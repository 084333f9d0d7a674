"""Mish: x times the hyperbolic tangent of its softplus (Misra, 2019)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.core.part import Claim, Paper, Protocol


def mish(x: Tensor) -> Tensor:
    return F.mish(x)


def mish_of_one_exponential(x: Tensor) -> Tensor:
    """tanh(log(1 + e)) = n / (n + 2) with e = exp(x), n = e (e + 2): several times faster once compiled."""
    e = torch.exp(x.clamp(max=20.0))
    n = e * (e + 2)
    return x * n / (n + 2)


def reference(x: float) -> float:
    if x < -700.0:
        return 0.0
    return x * math.tanh(math.log1p(math.exp(x))) if x < 700.0 else x


def claim_slope() -> bool:
    """f'(0) = 0.6 exactly: tanh(log 2) = 3/5."""
    x = torch.zeros((), dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(mish(x), x)
    return abs(float(slope) - 0.6) < 1e-15


def claim_bounded() -> bool:
    """Bounded below by -0.308843, at x = -1.19243."""
    x = torch.linspace(-8.0, 8.0, 160_001, dtype=torch.float64)
    least, at = mish(x).min(0)
    return abs(float(least) + 0.308843) < 1e-6 and abs(float(x[at]) + 1.19243) < 1e-3


PART = activation(
    mish,
    compiled=mish_of_one_exponential,
    cls="Mish",
    reference=reference,
    formula=r"x \tanh(\ln(1 + e^x))",
    limits=(0.0, math.inf),
    paper=Paper("mish"),
    tags=Tags(smooth=True, reasons={"infinities": "torch's kernel: -inf times a gate of 0 is NaN"}),
    values={-3.0: -0.145647, -1.0: -0.303401, -0.5: -0.220744, 0.0: 0.0, 1.0: 0.865098, 3.0: 2.986535},
    flops=6.0,
    claims=(
        Claim("slope", "has slope 0.6 at 0", check=claim_slope),
        Claim("bounded", "is bounded below, at about -0.31", check=claim_bounded),
        Claim(
            "cifar10",
            "better than ReLU on CIFAR-10",
            protocol=Protocol("task/cifar10", "activation/relu", "better"),
        ),
        Claim(
            "swish",
            "at least Swish's accuracy on CIFAR-10",
            protocol=Protocol("task/cifar10", "activation/swish", "not worse"),
        ),
    ),
)
