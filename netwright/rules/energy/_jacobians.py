"""Products with Jacobians, and gradients row by row, for rules that infer states."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

Pull = Callable[[Tensor], Tensor]


def linearised(f: Callable[[Tensor], Tensor], h: Tensor) -> tuple[Tensor, Pull]:
    """f(h) in h's dtype, and v -> J^T v with the Jacobian J of f at h."""
    # Inferred states move by little: kept in what autocast returns, small steps would round to nothing.
    out, pull = torch.func.vjp(lambda h: f(h).to(h.dtype), h)[:2]
    return out, lambda v: pull(v)[0]


def widened(h: Tensor, net: nn.Module) -> Tensor:
    """h in the dtype of the net's parameters."""
    return h.to(next(net.parameters()).dtype)


def row_gradient(loss: Callable[[Tensor], Tensor], h: Tensor) -> Tensor:
    """Gradient of every row's own loss at h (B, ...): that of `loss`, a mean over the rows, times their number."""
    return len(h) * torch.func.grad(loss)(h)
