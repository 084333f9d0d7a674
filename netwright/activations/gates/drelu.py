"""dReLU: the product of two rectified halves, zero where either is off (Song et al., 2024)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.core.part import Claim, Example, Paper, Protocol


def drelu(x: Tensor, *, dim: int) -> Tensor:
    gate, up = x.chunk(2, dim)
    return gate.relu() * up.relu()


def reference(x: Sequence[float]) -> list[float]:
    half = len(x) // 2
    return [x[i] * x[half + i] if x[i] > 0 and x[half + i] > 0 else 0.0 for i in range(half)]


def claim_sparse() -> bool:
    """Of independent symmetric halves three outputs in four are 0, where a single rectifier leaves two in four."""
    x = torch.randn(2_000, 64, generator=torch.Generator().manual_seed(0))
    return abs(float((drelu(x, dim=1) == 0).float().mean()) - 0.75) < 0.01


def claim_homogeneous() -> bool:
    """Three times the input, nine times the output."""
    x = torch.randn(64, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return torch.allclose(drelu(3 * x, dim=1), 9 * drelu(x, dim=1), rtol=1e-12, atol=0.0)


def claim_silent() -> bool:
    """Where either half is off, neither gets a gradient: the whole neuron can be skipped."""
    x = torch.randn(64, 16, generator=torch.Generator().manual_seed(2)).requires_grad_()
    y = drelu(x, dim=1)
    for gradient in torch.autograd.grad(y.sum(), x)[0].chunk(2, 1):
        if not bool((gradient[y == 0] == 0).all()):
            return False
    return True


PART = activation(
    drelu,
    cls="DReLU",
    reference=reference,
    formula=r"\max(0,\,x_1)\; \max(0,\,x_2)",
    paper=Paper("drelu-turbosparse"),
    tags=Tags(shape="gated"),
    examples=(Example([2.0, 2.0, -1.0, 3.0, -3.0, 4.0], [6.0, 0.0, 0.0]),),
    flops=3.0,
    claims=(
        Claim("sparse", "gives 75 % zeros for independent symmetric halves", check=claim_sparse),
        Claim("homogeneous", "is homogeneous of degree 2", check=claim_homogeneous),
        Claim("silent", "lets no gradient through a neuron that is off", check=claim_silent),
        Claim(
            "language",
            "at most SwiGLU's loss on language modelling",
            protocol=Protocol("task/shakespeare", "activation/swiglu", "not worse"),
        ),
    ),
)
