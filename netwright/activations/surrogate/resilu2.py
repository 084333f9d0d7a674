"""ReSiLU2: SiLU ahead, the slopes of four line segments back, two bits an element kept (Yang et al., 2024).

The segments belong to h(x) = sum_i a_i max(0, x - c_i), whose constants make the integral of (SiLU - h)^2 least.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.activations.surrogate._two_bit_slopes import pack, steps, through, with_slope
from netwright.core.part import Claim, Identity, Paper, Protocol

A = (-0.04060357190528599, 1.080925428529668, -0.040321856624382146)
C = (-6.3050461001646445, -0.0008684942046214787, 6.325815242089708)


def resilu2(x: Tensor) -> Tensor:
    return with_slope(F.silu(x), x, steps(x, A, C))


def ahead(x: Tensor) -> tuple[Tensor, Tensor]:
    return F.silu(x), pack(x, C)


def back(gradient: Tensor, packed: Tensor) -> Tensor:
    return through(gradient, packed, A)


def reference(x: float) -> float:
    return x / (1 + math.exp(-x)) if x > -700.0 else 0.0


def backward(x: float) -> float:
    """h'(x), from its definition."""
    return sum(a for a, c in zip(A, C, strict=True) if x > c)


def _h(x: Tensor) -> Tensor:
    return sum((a * (x - c).relu() for a, c in zip(A, C, strict=True)), torch.zeros_like(x))


def claim_constants() -> bool:
    """h tends to 0 and to x: sum a = 1 and sum a c = 0."""
    return abs(sum(A) - 1) < 1e-14 and abs(sum(a * c for a, c in zip(A, C, strict=True))) < 1e-14


def claim_distance() -> bool:
    """The integral of (SiLU - h)^2 is 0.039944."""
    x = torch.linspace(-24.0, 24.0, 96_001, dtype=torch.float64)
    exact = x * torch.sigmoid(x)
    return abs(float(torch.trapezoid((exact - _h(x)).square(), x)) - 0.039944) < 1e-6


PART = activation(
    resilu2,
    cls="ReSiLU2",
    reference=reference,
    backward=backward,
    fused=(ahead, back),
    kept=0.25,
    formula=r"x\,\sigma(x), \quad \partial = \sum_{i:\,x > c_i} a_i",
    limits=(0.0, math.inf),
    paper=Paper("approx-bp"),
    tags=Tags(
        exact_gradient=False,
        kinks=C,
        reasons={"infinities": "torch's kernel: -inf times a gate of 0 is NaN"},
    ),
    values={-3.0: -0.142278, -1.0: -0.268941, 0.0: 0.0, 1.0: 0.731059, 3.0: 2.857722},
    flops=4.0,
    identities=(Identity("activation/silu", tolerance=1e-12, note="forward only: the backward is the surrogate's"),),
    claims=(
        Claim("constants", "the surrogate has the limits of SiLU", check=claim_constants),
        Claim("distance", "the surrogate is close to SiLU in L2", check=claim_distance),
        Claim(
            "accuracy",
            "trains as well as the exact backward",
            protocol=Protocol("task/digits", "activation/silu", "not worse"),
        ),
    ),
)
