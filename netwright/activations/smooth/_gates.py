"""The input times a gate: what is left at -inf, and a gate stretched beyond [0, 1]."""

from __future__ import annotations

import torch
from torch import Tensor


def gated(x: Tensor, gate: Tensor) -> Tensor:
    """x times gate, and 0 where the gate is 0, also at x = -inf."""
    return torch.where(gate != 0, x * gate, 0.0)


def reference_gated(x: float, gate: float) -> float:
    return x * gate if gate else 0.0


def expanded(x: Tensor, gate: Tensor, alpha: Tensor, limit: float = 0.0) -> Tensor:
    """x ((1 + 2 alpha) gate - alpha), elementwise; gate in [0, 1], alpha broadcast against x.

    limit: the value where x is infinite and its factor 0, a product that would be NaN.
    """
    wide = gate * (1 + 2 * alpha) - alpha
    return torch.where(x.isinf() & (wide == 0), limit, x * wide)
