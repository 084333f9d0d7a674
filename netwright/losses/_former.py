"""What release 0.1 had as netwright.losses: means over a batch."""

from __future__ import annotations

from torch import Tensor

from netwright.losses.classification.cross_entropy import VECTOR_ROW as VECTOR_ROW
from netwright.losses.classification.cross_entropy import mean as _entropy
from netwright.losses.regression.mse import mean as _squares


def cross_entropy(out: Tensor, y: Tensor) -> Tensor:
    """Mean cross-entropy in nats of logits out (B, K) against labels y (B,), or (B, L, K) against (B, L)."""
    return _entropy(out, y)


def mean_squared_error(out: Tensor, y: Tensor) -> Tensor:
    """Mean over all elements of (out - y)^2; out and y of one shape (B, ...)."""
    return _squares(out, y)
