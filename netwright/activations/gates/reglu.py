"""ReGLU: one half of the channels, rectified, gates the other (Shazeer, 2020)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.core.part import Claim, Example, Paper, Protocol


def reglu(x: Tensor, *, dim: int) -> Tensor:
    gate, value = x.chunk(2, dim)
    return gate.relu() * value


def reference(x: Sequence[float]) -> list[float]:
    half = len(x) // 2
    return [g * v if g > 0 else 0.0 for g, v in zip(x[:half], x[half:], strict=True)]


def claim_sparse() -> bool:
    """Half of the outputs are 0 for symmetric input."""
    x = torch.randn(2_000, 64, generator=torch.Generator().manual_seed(0))
    return abs(float((reglu(x, dim=1) == 0).float().mean()) - 0.5) < 0.01


def claim_homogeneous() -> bool:
    """Three times the input, nine times the output."""
    x = torch.randn(64, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return torch.allclose(reglu(3 * x, dim=1), 9 * reglu(x, dim=1), rtol=1e-12, atol=0.0)


PART = activation(
    reglu,
    cls="ReGLU",
    reference=reference,
    formula=r"\max(0,\,x_1)\; x_2",
    paper=Paper(
        title="GLU Variants Improve Transformer",
        authors="Noam Shazeer",
        year=2020,
        arxiv="2002.05202",
    ),
    tags=Tags(shape="gated"),
    examples=(Example([1.0, -3.0, -2.0, 0.5], [-2.0, 0.0]),),
    flops=2.0,
    claims=(
        Claim("sparse", "gives 50 % zeros for symmetric input", check=claim_sparse),
        Claim("homogeneous", "is homogeneous of degree 2", check=claim_homogeneous),
        Claim(
            "language",
            "better than ReLU on language modelling at an equal number of parameters",
            protocol=Protocol("task/shakespeare", "activation/relu", "better"),
        ),
    ),
)
