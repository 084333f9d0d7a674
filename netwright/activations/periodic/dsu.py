"""Decaying sine unit: a wave that dies out on both sides and has slope 1 at 0 (Noel et al., 2021).

The paper writes (pi / 2) (sinc(x - pi) - sinc(x + pi)) with sinc(t) = sin(t) / t, which is pi^2 sin(x) / (pi^2 - x^2).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.core.part import Claim, Paper

FAR = 1e18  # its square still fits float32, and the function is below 1e-35


def dsu(x: Tensor) -> Tensor:
    t = x.clamp(-FAR, FAR)
    # Around |x| = pi numerator and denominator vanish together: sin |x| = sin(pi - |x|) leaves a sinc there, in its series.
    near = (t.abs() - math.pi).abs() < 0.5
    closed = torch.sin(t) / torch.where(near, 1.0, (math.pi - t) * (math.pi + t))
    u = torch.where(near, t.abs() - math.pi, 0.0).square()
    series = 1 - u / 6 * (1 - u / 20 * (1 - u / 42 * (1 - u / 72 * (1 - u / 110))))
    y = math.pi**2 * torch.where(near, torch.sign(t) * series / (t.abs() + math.pi), closed)
    return torch.where(x.abs() < FAR, y, 0.0)


def sinc(t: float) -> float:
    return math.sin(t) / t if t else 1.0


def reference(x: float) -> float:
    if math.isinf(x) or abs(x) < 1e-3:
        return 0.0 if math.isinf(x) else x * (1 + x * x * (1 / math.pi**2 - 1 / 6))
    return math.pi / 2 * (sinc(x - math.pi) - sinc(x + math.pi))


def claim_xor() -> bool:
    """One unit without bias solves XOR: f(w (x1 + x2)) has the same sign at (0, 0), (1, 1) and the other at (0, 1), (1, 0)."""
    sums = torch.tensor([0.0, 1.0, 1.0, 2.0])
    y = dsu(5.0 * sums - 1.0)
    return bool((y[[0, 3]] < 0).all() and (y[[1, 2]] > 0).all())


def claim_zeros() -> bool:
    """Zero at 0 and at every multiple of pi but +-pi, where it is +-pi / 2."""
    k = torch.tensor([0.0, 2.0, 3.0, -4.0, 9.0], dtype=torch.float64)
    peaks = dsu(torch.tensor([math.pi, -math.pi], dtype=torch.float64))
    return float(dsu(k * math.pi).abs().max()) < 1e-14 and (peaks.abs() - math.pi / 2).abs().max().item() < 1e-14


PART = activation(
    dsu,
    cls="DSU",
    reference=reference,
    formula=r"\frac{\pi}{2} (\mathrm{sinc}(x - \pi) - \mathrm{sinc}(x + \pi))",
    limits=(0.0, 0.0),
    paper=Paper(
        title="Biologically Inspired Oscillating Activation Functions Can Bridge the Performance Gap between Biological and "
        "Artificial Neurons",
        authors="Matthew Mithra Noel, Shubham Bharadwaj, Venkataraman Muthiah-Nakarajan, Praneet Dutta, Geraldine Bessie Amali",
        year=2021,
        arxiv="2111.04020",
    ),
    tags=Tags(smooth=True, odd=True, delicate=True),
    values={-3.0: -1.601646, -1.0: -0.936342, 0.0: 0.0, 1.0: 0.936342, math.pi: math.pi / 2},
    flops=14.0,
    claims=(
        Claim("xor", "one unit solves XOR", check=claim_xor),
        Claim("zeros", "oscillates: it has a zero at every multiple of pi but two", check=claim_zeros),
    ),
)
