"""xSwiGLU: one half of the channels, through a sigmoid of learnable range, gates the other (Huang, 2024).

Of first order: the gate multiplies x_2 alone, where that of the second order multiplies x_1 x_2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.activations.gates._expanded_gates import expanded, halves
from netwright.core.part import Claim, Example, Learn, Paper, Protocol


def xswiglu(x: Tensor, alpha: Tensor, *, dim: int) -> Tensor:
    gate, value, alpha = halves(x, alpha, dim)
    return expanded(torch.sigmoid(gate), alpha) * value


def reference(x: Sequence[float], alpha: float) -> list[float]:
    half = len(x) // 2
    gates = [1 / (1 + math.exp(-g)) for g in x[:half]]
    return [((1 + 2 * alpha) * g - alpha) * v for g, v in zip(gates, x[half:], strict=True)]


def claim_half() -> bool:
    """At alpha = -1/2 the gate is 1/2, whatever its input."""
    x = torch.randn(16, 8, generator=torch.Generator().manual_seed(0))
    return torch.equal(xswiglu(x, torch.tensor(-0.5), dim=1), x[:, 4:] / 2)


def claim_range() -> bool:
    """Far from 0 the gate is -alpha and 1 + alpha."""
    x = torch.tensor([-1e8, 1e8, 1.0, 1.0], dtype=torch.float64)
    y = xswiglu(x, torch.tensor(0.25, dtype=torch.float64), dim=0)
    return bool(torch.allclose(y, torch.tensor([-0.25, 1.25], dtype=torch.float64), atol=1e-7))


PART = activation(
    xswiglu,
    cls="XSwiGLU",
    reference=reference,
    formula=r"\left((1 + 2\alpha)\,\sigma(x_1) - \alpha\right) x_2",
    paper=Paper("expanded-gating"),
    learn=(Learn("alpha", 0.0),),
    tags=Tags(shape="gated", delicate=True),
    examples=(
        Example([1.0, -3.0, 2.0, 0.5], [1.462117, 0.023713]),
        Example([1.0, -3.0, 2.0, 0.5], [1.0, 0.25], options={"alpha": -0.5}),
    ),
    flops=6.0,
    claims=(
        Claim("half", "is x_2 / 2 at alpha = -1/2", check=claim_half),
        Claim("range", "widens the range of the gate to (-alpha, 1 + alpha)", check=claim_range),
        Claim(
            "language",
            "as good as a gated unit of second order in a language model",
            protocol=Protocol("task/shakespeare", "activation/swiglu", "not worse"),
        ),
    ),
    deviations=("the official package also has the second order, which the paper finds not to gain from a wider gate",),
)
