"""SimpleGate: the product of the two halves of the channels, the bilinear gate (Chen et al., 2022)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.core.part import Claim, Example, Paper


def simplegate(x: Tensor, *, dim: int) -> Tensor:
    first, second = x.chunk(2, dim)
    return first * second


def reference(x: Sequence[float]) -> list[float]:
    half = len(x) // 2
    return [x[i] * x[half + i] for i in range(half)]


def claim_homogeneous() -> bool:
    """Three times the input, nine times the output; the opposite input, the same output."""
    x = torch.randn(64, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = simplegate(x, dim=1)
    return torch.allclose(simplegate(3 * x, dim=1), 9 * y, rtol=1e-12, atol=0.0) and torch.equal(simplegate(-x, dim=1), y)


def claim_quadratic() -> bool:
    """After two linear maps W and V, output a is the quadratic form of (w_a v_a' + v_a w_a') / 2."""
    g = torch.Generator().manual_seed(1)
    w, v, x = (torch.randn(*s, generator=g, dtype=torch.float64) for s in ((5, 7), (5, 7), (32, 7)))
    outer = w[:, :, None] * v[:, None, :]
    forms = (outer + outer.transpose(1, 2)) / 2
    y = simplegate(torch.cat((x @ w.T, x @ v.T), 1), dim=1)
    return torch.allclose(y, torch.einsum("aij,bi,bj->ba", forms, x, x), atol=1e-12)


PART = activation(
    simplegate,
    cls="SimpleGate",
    reference=reference,
    formula=r"x_1\; x_2",
    paper=Paper("nafnet-simplegate"),
    tags=Tags(shape="gated"),
    examples=(Example([1.0, -3.0, 2.0, 0.5], [2.0, -1.5]),),
    flops=1.0,
    claims=(
        Claim("homogeneous", "is even and homogeneous of degree 2", check=claim_homogeneous),
        Claim("quadratic", "makes every output of a linear map before it a quadratic form of the input", check=claim_quadratic),
    ),
)
