"""Losses, metrics and target encodings of tasks. All of them work under torch.func.vmap and torch.compile.

Shape suffixes: B batch, L positions, K classes.
"""

from __future__ import annotations

import math

import torch
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


def accuracy(out: Tensor, y: Tensor) -> float:
    """Share of rows of out (N, K) whose largest logit is at the label y (N,); rows with a NaN count as wrong."""
    right = (out.argmax(-1) == y) & ~out.isnan().any(-1)
    return right.double().mean().item()


def mse(out: Tensor, y: Tensor) -> float:
    """`mean_squared_error` of a whole split, summed in double precision."""
    return (out.double() - y.double()).square().mean().item()


def nats(out: Tensor, y: Tensor) -> float:
    """Mean cross-entropy of a whole split, averaged in double precision: out (N, L, K), y (N, L)."""
    each = F.cross_entropy(out.flatten(0, -2).float(), y.flatten(), reduction="none")
    return each.double().mean().item()


def one_hot(y: Tensor, classes: int) -> Tensor:
    """Labels (...) as float rows (..., classes). F.one_hot reads the largest label, which vmap forbids."""
    return (y[..., None] == torch.arange(classes, device=y.device)).float()


def same(y: Tensor) -> Tensor:
    """The encoding of real-valued targets: themselves."""
    return y
