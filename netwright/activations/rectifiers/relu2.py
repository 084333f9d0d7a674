"""Squared ReLU: sparse like ReLU, and its slope has no jump (Zhang et al., 2024; first used by So et al., 2021)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.core.part import Claim, Paper, Protocol


def relu2(x: Tensor) -> Tensor:
    return torch.relu(x).square()


def reference(x: float) -> float:
    return x * x if x > 0 else 0.0


def claim_sparse() -> bool:
    """Of N(0, 1) input, half the outputs are 0 and another fifth is below 1 % of the mean square."""
    z = torch.randn(100_000, generator=torch.Generator().manual_seed(0))
    y = relu2(z)
    zero, small = float((y == 0).float().mean()), float((y < 0.015).float().mean())
    return abs(zero - 0.5) < 0.01 and small > zero + 0.04


PART = activation(
    relu2,
    cls="ReLU2",
    reference=reference,
    formula=r"\max(0,\,x)^2",
    limits=(0.0, math.inf),
    paper=Paper("relu2"),
    tags=Tags(smooth=True, monotone=True),
    values={-3.0: 0.0, -0.5: 0.0, 0.0: 0.0, 0.5: 0.25, 1.0: 1.0, 2.0: 4.0, 3.0: 9.0},
    flops=2.0,
    claims=(
        Claim("sparse", "more of its outputs are small than ReLU's", check=claim_sparse),
        Claim(
            "language",
            "as good as SwiGLU on language modelling, at higher sparsity",
            protocol=Protocol("task/shakespeare", "activation/swiglu", "not worse"),
        ),
    ),
)
