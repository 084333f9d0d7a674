"""Elephant: a bump with flat top and tails: an update at one input is felt near it only (Lan and Mahmood, 2023).

1 / (1 + |x / a|^d) is the logistic sigmoid of -d log|x / a|, which overflows nowhere.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from netwright.kinds.activation import Tags, activation
from netwright.part import Claim, Option, Paper


def elephant(x: Tensor, *, a: float, d: float) -> Tensor:
    return torch.sigmoid(-d * torch.log((x / a).abs().clamp(min=1e-30)))


def reference(x: float, a: float, d: float) -> float:
    return 1 / (1 + abs(x / a) ** d) if abs(x / a) < 1e9 else abs(a / x) ** d


def claim_width() -> bool:
    """f(a) = f(-a) = 1/2 for every steepness."""
    x = torch.tensor([-0.5, 0.5], dtype=torch.float64)
    return all(torch.allclose(elephant(x, a=0.5, d=d), torch.full_like(x, 0.5)) for d in (2.0, 4.0, 8.0, 32.0))


def claim_sparse_gradient() -> bool:
    """At d = 8 the slope is below 1e-3 wherever |x| > 3 a."""
    x = torch.linspace(3.0, 50.0, 471, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(elephant(x, a=1.0, d=8.0).sum(), x)
    return float(slope.abs().max()) < 1e-3


PART = activation(
    elephant,
    cls="Elephant",
    reference=reference,
    formula=r"1 / (1 + |x / a|^d)",
    limits=(0.0, 0.0),
    paper=Paper("elephant"),
    options=(
        Option("a", 1.0, "half-width at half height", bounds=(0.0, math.inf), search=(0.02, 2.0, "log")),
        Option("d", 4.0, "steepness; above 1 the slope is continuous", bounds=(1.0, math.inf)),
    ),
    tags=Tags(smooth=True, even=True, delicate=True, always=("smooth", "even")),
    values={-3.0: 0.012195, -2.0: 0.058824, -1.0: 0.5, -0.5: 0.941176, 0.0: 1.0, 2.0: 0.058824},
    flops=6.0,
    claims=(
        Claim("width", "is one half at +-a, whatever d", check=claim_width),
        Claim("sparse-gradient", "has a slope near 0 away from its flanks", check=claim_sparse_gradient),
    ),
    deviations=("the part is the function; the paper also spreads the biases of the hidden layer evenly",),
)
