"""Losses of tasks; they become parts when their kind is there. All work under torch.func.vmap and torch.compile.

Shape suffixes: B batch, L positions, K classes.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

#: Rows shorter than this leave torch's vectorised softmax on a CPU (about five times slower at 10 classes).
VECTOR_ROW = 16


def cross_entropy(out: Tensor, y: Tensor) -> Tensor:
    """Mean cross-entropy in nats of logits out (B, K) against labels y (B,), or (B, L, K) against (B, L).

    Columns of -inf, which have probability 0 and gradient 0, fill short rows up to the vector length on a CPU.
    """
    classes = out.shape[-1]
    if classes < VECTOR_ROW and out.device.type == "cpu":
        out = F.pad(out, (0, VECTOR_ROW - classes), value=-math.inf)
    return F.cross_entropy(out.flatten(0, -2), y.flatten())


def mean_squared_error(out: Tensor, y: Tensor) -> Tensor:
    """Mean over all elements of (out - y)^2; out and y of one shape (B, ...)."""
    return (out - y).square().mean()
