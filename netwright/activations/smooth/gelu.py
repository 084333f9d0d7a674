"""GELU: x times the probability that a standard normal variable is below x (Hendrycks and Gimpel, 2016)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from netwright.kinds.activation import Tags, activation
from netwright.part import Claim, Option, Paper, Protocol


def gelu(x: Tensor, *, approximate: str) -> Tensor:
    return F.gelu(x, approximate=approximate)


def reference(x: float, approximate: str) -> float:
    if math.isinf(x):
        return max(x, 0.0)
    if approximate == "tanh":
        return x / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return x * math.erfc(-x / math.sqrt(2.0)) / 2


def claim_symmetry() -> bool:
    """f(x) - f(-x) = x, since the gate and its mirror image add up to 1."""
    x = torch.linspace(-8.0, 8.0, 257, dtype=torch.float64)
    return bool(torch.allclose(gelu(x, approximate="none") - gelu(-x, approximate="none"), x, atol=1e-14))


def claim_approximation() -> bool:
    """On [-6, 6] the tanh form is within 4.74e-4 of the exact one."""
    x = torch.linspace(-6.0, 6.0, 4801, dtype=torch.float64)
    gap = (gelu(x, approximate="none") - gelu(x, approximate="tanh")).abs().max()
    return 4.7e-4 < float(gap) < 4.74e-4


PART = activation(
    gelu,
    cls="GELU",
    reference=reference,
    formula=r"x\,\Phi(x)",
    limits=(0.0, math.inf),
    paper=Paper("gelu"),
    options=(Option("approximate", "none", "the exact form, or the tanh approximation", allowed=("none", "tanh")),),
    tags=Tags(
        smooth=True,
        reasons={
            "numbers": "torch's kernel: 1 + erf(x / sqrt 2) cancels left of -3, leaving an absolute error of 1e-7",
            "infinities": "torch's kernel: -inf times a gate of 0 is NaN",
        },
    ),
    values={-3.0: -0.004050, -1.0: -0.158655, -0.5: -0.154269, 0.0: 0.0, 1.0: 0.841345, 2.0: 1.954500},
    flops=4.0,
    claims=(
        Claim("symmetry", "f(x) - f(-x) = x", check=claim_symmetry),
        Claim("approximation", "the tanh form is close enough to stand in for the exact one", check=claim_approximation),
        Claim(
            "mnist",
            "beats ReLU on MNIST",
            protocol=Protocol("task/mnist", "activation/relu", "better"),
        ),
        Claim(
            "cifar10",
            "beats ReLU on CIFAR-10",
            protocol=Protocol("task/cifar10", "activation/relu", "better"),
        ),
    ),
)
