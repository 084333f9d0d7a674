"""How large signals and gradients are after many layers of an activation."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def sizes(f: Callable[[Tensor], Tensor], depth: int = 10, width: int = 128) -> tuple[float, float]:
    """Root mean square of the output and of the input's gradient, after `depth` layers of random weights.

    Each layer is f(h W), the rows of h W brought to mean square 1: the gains of these activations hold for N(0, 1) input,
    and an unnormalised cubic or wave leaves it within a few layers. The gradient coming in has mean square 1.
    """
    g = torch.Generator().manual_seed(0)

    def normal() -> Tensor:
        return torch.randn(width, width, generator=g, dtype=torch.float64)

    first = normal().requires_grad_()
    h = first
    for _ in range(depth):
        z = h @ normal() / math.sqrt(width)
        h = f(z / z.square().mean(-1, keepdim=True).sqrt())
    (back,) = torch.autograd.grad(h, first, normal())
    return tuple(float(v.square().mean().sqrt()) for v in (h.detach(), back))  # type: ignore[return-value]
