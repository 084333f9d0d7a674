"""SiLU: x times its logistic sigmoid (Elfwing, Uchibe and Doya, 2017)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.core.part import Claim, Paper


def silu(x: Tensor) -> Tensor:
    return F.silu(x)


def reference(x: float) -> float:
    return x / (1 + math.exp(-x)) if x > -700.0 else 0.0


def claim_minimum() -> bool:
    """The global minimum lies near -1.28 with a value near -0.28."""
    x = torch.linspace(-8.0, 8.0, 160_001, dtype=torch.float64)
    least, at = silu(x).min(0)
    return abs(float(least) + 0.278465) < 1e-6 and abs(float(x[at]) + 1.27846) < 1e-3


PART = activation(
    silu,
    cls="SiLU",
    native=True,
    reference=reference,
    formula=r"x\,\sigma(x)",
    limits=(0.0, math.inf),
    paper=Paper(
        title="Sigmoid-Weighted Linear Units for Neural Network Function Approximation in Reinforcement Learning",
        authors="Stefan Elfwing, Eiji Uchibe, Kenji Doya",
        year=2017,
        arxiv="1702.03118",
    ),
    tags=Tags(smooth=True, reasons={"infinities": "torch's kernel: -inf / (1 + exp(inf)) is NaN"}),
    values={-3.0: -0.142278, -1.0: -0.268941, 0.0: 0.0, 1.0: 0.731059, 3.0: 2.857722},
    flops=4.0,
    claims=(Claim("minimum", "has a global minimum of about -0.28 near x = -1.28", check=claim_minimum),),
)
