"""Hermite activation: a learnt sum of Hermite polynomials, as large forward as backward (Khalfaoui-Hassani and Kesselheim, 2025).

f(x) = sum_k c_k h_k(x), h_k = He_k / k!. For z ~ N(0, 1) the He_k are orthogonal with E He_k(z)^2 = k! and He_k' = k He_{k-1}:
E f(z)^2 = sum_k c_k^2 / k! and E f'(z)^2 = sum_k c_k^2 / (k - 1)!, equal at the coefficients that it starts from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.activations.basis._signal_propagation import sizes
from netwright.core.part import Claim, Learn, Option, Paper, Protocol

LARGEST = 1e30  # of x^n: with room for the coefficients in float32


def far(degree: int) -> float:
    """Where x^degree reaches LARGEST."""
    return float(LARGEST ** (1 / max(degree, 1)))


def hermite(x: Tensor, c: Tensor) -> Tensor:
    limit = far(c.shape[0] - 1)
    near = x.clamp(-limit, limit)
    before, h = torch.zeros_like(near), torch.ones_like(near)
    total = c[0] * h
    for k in range(1, c.shape[0]):
        before, h = h, (near * h - before) / k  # He_{k+1} = x He_k - k He_{k-1}, divided by (k + 1)!
        total = total + c[k] * h
    return total * (1 + (x - near).abs() / limit)


def reference(x: float, c: tuple[float, ...]) -> float:
    """He_k from its explicit sum: k! sum_m (-1)^m x^(k - 2m) / (m! (k - 2m)! 2^m)."""
    limit = far(len(c) - 1)
    if abs(x) > limit:
        return abs(x) / limit * reference(math.copysign(limit, x), c)
    terms = [
        c_k * (-0.5) ** m * x ** (k - 2 * m) / (math.factorial(m) * math.factorial(k - 2 * m))
        for k, c_k in enumerate(c)
        for m in range(k // 2 + 1)
    ]
    return math.fsum(terms)


def start(options: Mapping[str, Any]) -> tuple[float, ...]:
    """c_0 = sqrt((1 - 1 / n!) / e), c_k = 1 / sqrt(e)."""
    n = options["degree"]
    return (math.sqrt((1 - 1 / math.factorial(n)) / math.e), *(math.exp(-0.5) for _ in range(n)))


def moments(degree: int) -> tuple[float, float]:
    """E f(z)^2 and E f'(z)^2 for z ~ N(0, 1), by quadrature."""
    c = torch.tensor(start({"degree": degree}), dtype=torch.float64)
    z = torch.linspace(-12.0, 12.0, 4801, dtype=torch.float64, requires_grad=True)
    y = hermite(z, c)
    (slope,) = torch.autograd.grad(y.sum(), z)
    with torch.no_grad():
        density = torch.exp(-z * z / 2) / math.sqrt(2 * math.pi)
        return float(torch.trapezoid(y**2 * density, z)), float(torch.trapezoid(slope**2 * density, z))


def claim_gain() -> bool:
    """Forward and backward gain are the same number, sum_{k < n} 1 / k! / e, which tends to 1."""
    for degree in (1, 3, 5, 8):
        wanted = sum(1 / math.factorial(k) for k in range(degree)) / math.e
        if any(abs(found - wanted) > 1e-6 for found in moments(degree)):
            return False
    return True


def claim_depth() -> bool:
    """After ten normalised layers activations and gradients have an RMS within [1/2, 2]; those of x^3 have exploded."""
    c = torch.tensor(start({"degree": 3}), dtype=torch.float64)
    kept, cubic = sizes(lambda x: hermite(x, c)), sizes(lambda x: x**3)
    return all(0.5 < size < 2.0 for size in kept) and max(cubic) > 10.0


PART = activation(
    hermite,
    cls="Hermite",
    reference=reference,
    formula=r"\sum_{k=0}^{n} c_k\, He_k(x) / k!",
    limits=(-math.inf, math.inf),
    paper=Paper("orthogonal-basis-activations"),
    learn=(Learn("c", start),),
    options=(Option("degree", 3, "of the polynomial", bounds=(0, 17)),),
    tags=Tags(smooth=True, monotone=True, delicate=True, always=("smooth",)),
    values={0.0: 0.250419, 1.0: 0.958038},
    flops=15.0,
    claims=(
        Claim("gain", "is as large forward as backward for N(0, 1) input", check=claim_gain),
        Claim("depth", "neither grows nor fades over ten layers, each after a norm", check=claim_depth),
        Claim(
            "mnist",
            "at least GELU's accuracy",
            protocol=Protocol("task/mnist", "activation/gelu", "not worse"),
        ),
    ),
    deviations=(
        "where x^degree passes 1e30, a straight line through the origin, since float32 would overflow",
        "without the bounded, learnt squashing of the input that the official code offers as an option",
    ),
)
