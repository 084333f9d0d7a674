"""SwiGLU: one half of the channels, through SiLU, gates the other (Shazeer, 2020)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.core.part import Claim, Example, Paper, Protocol


def swiglu(x: Tensor, *, dim: int) -> Tensor:
    gate, value = x.chunk(2, dim)
    return F.silu(gate) * value


def reference(x: Sequence[float]) -> list[float]:
    half = len(x) // 2
    return [g / (1 + math.exp(-g)) * v for g, v in zip(x[:half], x[half:], strict=True)]


def claim_linear() -> bool:
    """Linear in the second half: twice the values, twice the output."""
    x = torch.randn(16, 2, 8, generator=torch.Generator().manual_seed(0))
    gate, value = x.unbind(1)
    once = swiglu(torch.cat((gate, value), 1), dim=1)
    return torch.equal(swiglu(torch.cat((gate, 2 * value), 1), dim=1), 2 * once)


PART = activation(
    swiglu,
    cls="SwiGLU",
    reference=reference,
    formula=r"x_1\,\sigma(x_1)\; x_2",
    paper=Paper(
        title="GLU Variants Improve Transformer",
        authors="Noam Shazeer",
        year=2020,
        arxiv="2002.05202",
    ),
    tags=Tags(shape="gated", delicate=True),
    examples=(Example([1.0, -3.0, 2.0, 0.5], [1.462117, -0.071139]),),
    flops=5.0,
    claims=(
        Claim("linear", "is linear in the gated half", check=claim_linear),
        Claim(
            "language",
            "better than GELU on language modelling at an equal number of parameters",
            protocol=Protocol("task/shakespeare", "activation/gelu", "better"),
        ),
    ),
)
