"""Elephant: a bump with flat top and tails: an update at one input is felt near it only (Lan and Mahmood, 2023).

1 / (1 + |x / a|^d) is the logistic sigmoid of -d log|x / a|, which overflows nowhere.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.core.part import Claim, Option, Paper


def elephant(x: Tensor, *, a: float, d: float) -> Tensor:
    return torch.sigmoid(-d * torch.log((x / a).abs().clamp(min=1e-30)))


def reference(x: float, a: float, d: float) -> float:
    return 1 / (1 + abs(x / a) ** d) if abs(x / a) < 1e9 else abs(a / x) ** d


def claim_width() -> bool:
    """f(a) = f(-a) = 1/2 for every steepness."""
    x = torch.tensor([-0.5, 0.5], dtype=torch.float64)
    return all(torch.allclose(elephant(x, a=0.5, d=d), torch.full_like(x, 0.5)) for d in (2.0, 4.0, 8.0, 32.0))


def claim_steeper() -> bool:
    """The values of d = 8 at a = 1; towards d = infinity the rectangle of half-width a."""
    x = torch.tensor([0.0, 0.5, 1.0, 2.0, 3.0], dtype=torch.float64)
    wanted = torch.tensor([1.0, 0.996109, 0.5, 0.003891, 0.000152], dtype=torch.float64)
    rectangle = elephant(torch.tensor([0.9, 1.1], dtype=torch.float64), a=1.0, d=256.0)
    eight = torch.allclose(elephant(x, a=1.0, d=8.0), wanted, rtol=0, atol=1e-6)
    return eight and torch.allclose(rectangle, torch.tensor([1.0, 0.0], dtype=torch.float64), atol=1e-9)


def claim_sparse_gradient() -> bool:
    """At d = 8 the slope is -d / a r^(d-1) / (1 + r^d)^2, r = |x| / a: 4.06e-4 at 3 a and smaller beyond.

    Of N(0, 1) input, three slopes in four are below 1e-3 at a = 0.1; of ReLU's one in two is.
    """
    x = torch.linspace(3.0, 50.0, 471, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(elephant(x, a=1.0, d=4.0).sum(), x)
    four = torch.allclose(slope, -4 * x**3 / (1 + x**4) ** 2)
    (slope,) = torch.autograd.grad(elephant(x, a=1.0, d=8.0).sum(), x)
    far = abs(float(slope[0]) + 8 * 3**7 / (1 + 3**8) ** 2) < 1e-12 and float(slope.abs().max()) < 4.07e-4
    z = torch.randn(100_000, generator=torch.Generator().manual_seed(0)).requires_grad_()
    shares = []
    for y in (elephant(z, a=0.1, d=8.0), torch.relu(z)):
        (slope,) = torch.autograd.grad(y.sum(), z)
        shares.append(float((slope.abs() < 1e-3).float().mean()))
    return four and far and shares[0] > 0.7 and abs(shares[1] - 0.5) < 0.01


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
        Claim("steeper", "becomes a rectangle as d grows", check=claim_steeper),
        Claim("sparse-gradient", "has a slope near 0 away from its flanks", check=claim_sparse_gradient),
    ),
    deviations=("the part is the function; the paper also spreads the biases of the hidden layer evenly",),
)
