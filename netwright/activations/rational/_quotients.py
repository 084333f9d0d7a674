"""Quotients of polynomials whose denominators are never 0."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

FAR = 1e6  # x^5 has to fit float32


def horner(x: Tensor, coefficients: Sequence[Tensor]) -> Tensor:
    """sum_j coefficients[j] x^j."""
    total = coefficients[-1] * torch.ones_like(x)
    for coefficient in reversed(coefficients[:-1]):
        total = total * x + coefficient
    return total


def rational(x: Tensor, a: Tensor, b: Tensor, *, version: str) -> Tensor:
    """P(x) / Q(x), with Q = 1 + sum_j |b_j x^j| (version A) or 1 + |sum_j b_j x^j| (B); a line through 0 beyond FAR."""
    near = x.clamp(-FAR, FAR)
    zero = torch.zeros_like(b[0])
    if version == "A":
        below = horner(near.abs(), (zero, *b.abs().unbind(0)))
    else:
        below = horner(near, (zero, *b.unbind(0))).abs()
    return horner(near, a.unbind(0)) / (1 + below) * (1 + (x - near).abs() / FAR)
