"""Snake: x plus a squared sine of learnable frequency (Ziyin, Hartwig and Ueda, 2020)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.core.part import Claim, Learn, Paper, Protocol


def snake(x: Tensor, a: Tensor) -> Tensor:
    u = a * x
    # Near u = 0, sin(u)^2 / a is u x: the same to 3e-9 relative, and defined at a = 0.
    ripple = torch.where(u.abs() < 1e-4, u * x, torch.sin(u).square() / torch.where(a == 0, 1.0, a))
    return torch.where(x.isinf(), x, x + ripple)


def reference(x: float, a: float) -> float:
    if math.isinf(x) or a == 0:
        return x
    return x - math.cos(2 * a * x) / (2 * a) + 1 / (2 * a)


def claim_period() -> bool:
    """f(x + pi / a) = f(x) + pi / a."""
    x = torch.linspace(-5.0, 5.0, 101, dtype=torch.float64)
    a = torch.tensor(2.5, dtype=torch.float64)
    shift = math.pi / 2.5
    return bool(torch.allclose(snake(x + shift, a), snake(x, a) + shift, atol=1e-12))


def claim_frequency() -> bool:
    """df/da = x sin(2 a x) / a - sin(a x)^2 / a^2, also where a x is small; at a = 0 f is x."""
    x = torch.linspace(-5.0, 5.0, 101, dtype=torch.float64)
    for value in (1e-3, 0.2, 1.0, 5.0):
        a = torch.full_like(x, value).requires_grad_()
        (slope,) = torch.autograd.grad(snake(x, a).sum(), a)
        if not torch.allclose(slope, x * torch.sin(2 * value * x) / value - (torch.sin(value * x) / value) ** 2, atol=1e-6):
            return False
    return torch.equal(snake(x, torch.zeros((), dtype=torch.float64)), x)


def claim_variance() -> bool:
    """Var f(z) = 1 + (1 + exp(-8 a^2) - 2 exp(-4 a^2)) / (8 a^2) for z ~ N(0, 1), at a = 0.45 and 1."""
    z = torch.linspace(-12.0, 12.0, 24_001, dtype=torch.float64)
    density = torch.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    for a in (0.45, 1.0):
        y = snake(z, torch.tensor(a, dtype=torch.float64))
        mean = torch.trapezoid(y * density, z)
        variance = torch.trapezoid((y - mean).square() * density, z)
        wanted = 1 + (1 + math.exp(-8 * a * a) - 2 * math.exp(-4 * a * a)) / (8 * a * a)
        if abs(float(variance) - wanted) > 1e-6:
            return False
    return True


PART = activation(
    snake,
    cls="Snake",
    reference=reference,
    formula=r"x + \sin^2(a x) / a",
    limits=(-math.inf, math.inf),
    paper=Paper("snake"),
    learn=(Learn("a", 1.0),),
    tags=Tags(smooth=True, monotone=True, delicate=True, always=("smooth", "monotone")),
    values={-3.0: -2.980085, -1.0: -0.291927, 0.0: 0.0, 0.5: 0.729849, 1.0: 1.708073, 3.0: 3.019915},
    flops=5.0,
    claims=(
        Claim("period", "is a straight line plus a function of period pi / a", check=claim_period),
        Claim("frequency", "learns its frequency by a gradient known in closed form", check=claim_frequency),
        Claim("variance", "multiplies the variance of N(0, 1) input by a known factor", check=claim_variance),
        Claim(
            "sine",
            "fits a periodic function better than ReLU",
            protocol=Protocol("task/sine", "activation/relu", "better"),
        ),
    ),
    deviations=("at a = 0 the value is x, the limit of the formula",),
)
