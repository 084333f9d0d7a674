"""PolyNorm: a learnt sum of normalised powers of a row (Zhuo et al., 2024).

f(x) = a0 + a1 N(x) + a2 N(x^2) + a3 N(x^3), with N(v) = v / sqrt(mean(v^2) + eps) along the row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.core.part import Claim, Example, Learn, Option, Paper, Protocol


def polynorm(x: Tensor, a0: Tensor, a1: Tensor, a2: Tensor, a3: Tensor, *, dim: int, eps: float) -> Tensor:
    def normalised(v: Tensor) -> Tensor:
        return v * torch.rsqrt(v.square().mean(dim, keepdim=True) + eps)

    return a0 + a1 * normalised(x) + a2 * normalised(x.square()) + a3 * normalised(x * x.square())


def reference(x: Sequence[float], a0: float, a1: float, a2: float, a3: float, eps: float) -> list[float]:
    y = [a0] * len(x)
    for power, a in ((1, a1), (2, a2), (3, a3)):
        v = [value**power for value in x]
        rms = math.sqrt(sum(value * value for value in v) / len(v) + eps)
        y = [old + a * value / rms for old, value in zip(y, v, strict=True)]
    return y


def claim_scale() -> bool:
    """Multiplying a row by 100 changes nothing beyond what eps does."""
    x = torch.randn(32, 24, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    a = [torch.tensor(v, dtype=torch.float64) for v in (0.1, 0.2, 0.3, 0.4)]
    return bool(torch.allclose(polynorm(x, *a, dim=-1, eps=0.0), polynorm(100 * x, *a, dim=-1, eps=0.0), atol=1e-12))


PART = activation(
    polynorm,
    cls="PolyNorm",
    reference=reference,
    formula=r"a_0 + \sum_{i=1}^{3} a_i\, x^i / \mathrm{rms}(x^i)",
    paper=Paper("polycom"),
    learn=(Learn("a0", 0.0), Learn("a1", 1 / 3), Learn("a2", 1 / 3), Learn("a3", 1 / 3)),
    options=(Option("eps", 1e-6, "added to the mean square", bounds=(0.0, 1.0)),),
    tags=Tags(shape="rowwise", scale_invariant=True, delicate=True, always=("scale_invariant",)),
    examples=(Example([1.0, 2.0, 3.0, 4.0], [0.166683, 0.461432, 0.941450, 1.663938]),),
    flops=14.0,
    claims=(
        Claim("scale", "does not depend on the scale of the row", check=claim_scale),
        Claim(
            "language",
            "at most GELU's loss on language modelling",
            protocol=Protocol("task/shakespeare", "activation/gelu", "not worse"),
        ),
    ),
    deviations=("powers are divided by their root mean square, as in the official code; the paper writes the L2 norm",),
)
