"""Mean and deviation of a row."""

from __future__ import annotations

import torch
from torch import Tensor


def standing(x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Mean and (population) standard deviation along dim, kept; of a constant row 0, with gradient 0."""
    mean = x.mean(dim, keepdim=True)
    variance = (x - mean).square().mean(dim, keepdim=True)
    spread = variance > 0
    return mean, torch.where(spread, torch.where(spread, variance, 1.0).sqrt(), 0.0)
