"""GEGLU: one half of the channels, through GELU, gates the other (Shazeer, 2020)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.core.part import Claim, Example, Paper, Protocol


def geglu(x: Tensor, *, dim: int) -> Tensor:
    gate, value = x.chunk(2, dim)
    return F.gelu(gate) * value


def reference(x: Sequence[float]) -> list[float]:
    half = len(x) // 2
    return [g * math.erfc(-g / math.sqrt(2)) / 2 * v for g, v in zip(x[:half], x[half:], strict=True)]


def claim_linear() -> bool:
    """Linear in the second half: twice the values, twice the output."""
    x = torch.randn(16, 2, 8, generator=torch.Generator().manual_seed(0))
    gate, value = x.unbind(1)
    once = geglu(torch.cat((gate, value), 1), dim=1)
    return torch.equal(geglu(torch.cat((gate, 2 * value), 1), dim=1), 2 * once)


PART = activation(
    geglu,
    cls="GEGLU",
    reference=reference,
    formula=r"x_1\,\Phi(x_1)\; x_2",
    paper=Paper(
        title="GLU Variants Improve Transformer",
        authors="Noam Shazeer",
        year=2020,
        arxiv="2002.05202",
    ),
    tags=Tags(shape="gated", delicate=True),
    examples=(Example([1.0, -3.0, 2.0, 0.5], [1.682689, -0.002025]),),
    flops=6.0,
    claims=(
        Claim("linear", "is linear in the gated half", check=claim_linear),
        Claim(
            "language",
            "better than GELU on language modelling at an equal number of parameters",
            protocol=Protocol("task/shakespeare", "activation/gelu", "better"),
        ),
    ),
)
