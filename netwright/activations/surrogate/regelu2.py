"""ReGELU2: GELU ahead, the slopes of four line segments back, two bits an element kept (Yang et al., 2024).

The segments belong to h(x) = sum_i a_i max(0, x - c_i), whose constants make the integral of (GELU - h)^2 least.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.activations.surrogate._two_bit_slopes import pack, steps, through, with_slope
from netwright.core.part import Claim, Identity, Paper, Protocol

A = (-0.04922261145617846, 1.0979632065417297, -0.048740595085551286)
C = (-3.1858810036855245, -0.001178821281161997, 3.190832613414926)


def regelu2(x: Tensor) -> Tensor:
    return with_slope(F.gelu(x), x, steps(x, A, C))


def ahead(x: Tensor) -> tuple[Tensor, Tensor]:
    return F.gelu(x), pack(x, C)


def back(gradient: Tensor, packed: Tensor) -> Tensor:
    return through(gradient, packed, A)


def reference(x: float) -> float:
    return max(x, 0.0) if math.isinf(x) else x * math.erfc(-x / math.sqrt(2.0)) / 2


def backward(x: float) -> float:
    """h'(x), from its definition."""
    return sum(a for a, c in zip(A, C, strict=True) if x > c)


def _h(x: Tensor) -> Tensor:
    return sum((a * (x - c).relu() for a, c in zip(A, C, strict=True)), torch.zeros_like(x))


def claim_constants() -> bool:
    """h tends to 0 and to x: sum a = 1 and sum a c = 0."""
    return abs(sum(A) - 1) < 1e-14 and abs(sum(a * c for a, c in zip(A, C, strict=True))) < 1e-14


def claim_distance() -> bool:
    """The integral of (GELU - h)^2 is 0.009509."""
    x = torch.linspace(-12.0, 12.0, 48_001, dtype=torch.float64)
    exact = x * torch.special.erfc(-x / math.sqrt(2)) / 2
    return abs(float(torch.trapezoid((exact - _h(x)).square(), x)) - 0.009509) < 1e-6


PART = activation(
    regelu2,
    cls="ReGELU2",
    reference=reference,
    backward=backward,
    fused=(ahead, back),
    kept=0.25,
    formula=r"x\,\Phi(x), \quad \partial = \sum_{i:\,x > c_i} a_i",
    limits=(0.0, math.inf),
    paper=Paper("approx-bp"),
    tags=Tags(
        exact_gradient=False,
        kinks=C,
        reasons={
            "numbers": "torch's kernel: 1 + erf(x / sqrt 2) cancels left of -3, leaving an absolute error of 1e-7",
            "infinities": "torch's kernel makes NaN of infinite input",
        },
    ),
    values={-3.0: -0.004050, -1.0: -0.158655, -0.5: -0.154269, 0.0: 0.0, 1.0: 0.841345, 2.0: 1.954500},
    flops=4.0,
    identities=(Identity("activation/gelu", tolerance=1e-12, note="forward only: the backward is the surrogate's"),),
    claims=(
        Claim("constants", "the surrogate has the limits of GELU", check=claim_constants),
        Claim("distance", "the surrogate is close to GELU in L2", check=claim_distance),
        Claim(
            "accuracy",
            "trains as well as the exact backward",
            protocol=Protocol("task/digits", "activation/gelu", "not worse"),
        ),
    ),
)
