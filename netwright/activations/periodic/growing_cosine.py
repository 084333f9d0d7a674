"""GCU, the growing cosine unit: x cos x, whose many zeros let one unit draw several boundaries (Noel et al., 2021)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.core.part import Claim, Paper, Protocol


def growing_cosine(x: Tensor) -> Tensor:
    return x * torch.cos(x)


def reference(x: float) -> float:
    return x * math.cos(x) if math.isfinite(x) else math.nan


def claim_xor() -> bool:
    """The sign of one unit, f(3 x1 + 3 x2 + 2), is XOR of x1 and x2."""
    x = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    return (growing_cosine(3 * x.sum(1) + 2) > 0).tolist() == [False, True, True, False]


def claim_zeros() -> bool:
    """f changes its sign exactly at 0 and at the odd multiples of pi / 2."""
    x = torch.linspace(-9.999, 10.001, 20_001, dtype=torch.float64)
    crossed = x[:-1][growing_cosine(x)[:-1].sign() != growing_cosine(x)[1:].sign()]
    wanted = sorted([0.0, *(s * (k + 0.5) * math.pi for k in range(3) for s in (-1, 1))])
    return len(crossed) == len(wanted) and max(abs(a - b) for a, b in zip(crossed.tolist(), wanted, strict=True)) < 2e-3


PART = activation(
    growing_cosine,
    cls="GCU",
    reference=reference,
    formula=r"x \cos x",
    limits=(math.nan, math.nan),
    paper=Paper(
        title="Growing Cosine Unit: A Novel Oscillatory Activation Function That Can Speedup Training and Reduce "
        "Parameters in Convolutional Neural Networks",
        authors="Mathew Mithra Noel, Arunkumar L, Advait Trivedi, Praneet Dutta",
        year=2021,
        arxiv="2108.12943",
    ),
    tags=Tags(smooth=True, odd=True, delicate=True),
    values={-3.0: 2.969977, -1.0: -0.540302, 0.0: 0.0, 0.5: 0.438791, 1.0: 0.540302, 2.0: -0.832294, 3.0: -2.969977},
    flops=2.0,
    claims=(
        Claim("xor", "a single unit can learn XOR", check=claim_xor),
        Claim("zeros", "has infinitely many zeros, hence several boundaries a unit", check=claim_zeros),
        Claim(
            "cifar10",
            "better than ReLU on CIFAR-10",
            protocol=Protocol("task/cifar10", "activation/relu", "better"),
        ),
        Claim(
            "cifar10-mish",
            "better than Mish on CIFAR-10",
            protocol=Protocol("task/cifar10", "activation/mish", "better"),
        ),
    ),
)
