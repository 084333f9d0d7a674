"""What products of the input with a gate share: their limit at -inf, and gates that are quick once compiled."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def expanded(x: Tensor, gate: Tensor, alpha: Tensor, limit: float = 0.0) -> Tensor:
    """x ((1 + 2 alpha) gate - alpha), elementwise; gate in [0, 1], alpha broadcast against x.

    limit: the value where x is infinite and its factor 0, a product that would be NaN.
    """
    wide = gate * (1 + 2 * alpha) - alpha
    return torch.where(x.isinf() & (wide == 0), limit, x * wide)


def gated(x: Tensor, gate: Tensor) -> Tensor:
    """x times gate, and 0 where the gate is 0, also at x = -inf."""
    return torch.where(gate != 0, x * gate, 0.0)


def quick_tanh(x: Tensor) -> Tensor:
    """tanh of one exponential: several times faster once compiled, exact to rounding of 1, and no slope lost near 1."""
    return 1 - 2 / (1 + torch.exp(2 * x.clamp(max=40.0)))


def quick_softplus(x: Tensor) -> Tensor:
    """ln(1 + e^x) of exp and log: several times faster once compiled, and exact to rounding of 1."""
    return torch.where(x > 20.0, x, torch.log(1 + torch.exp(x.clamp(max=20.0))))


def reference_sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > -700.0 else math.exp(x)


def reference_softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def reference_gated(x: float, gate: float) -> float:
    return x * gate if gate else 0.0
