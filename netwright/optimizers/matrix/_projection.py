"""What AdamP and SGDP share: a step of weights whose scale doesn't matter is taken without the part that makes them longer.

Shape suffixes: N matrices, O outputs, R the rest.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def projected(g: Tensor, p: Tensor, step: Tensor, delta: float, wd_ratio: float, eps: float) -> tuple[Tensor, Tensor]:
    """(the step, orthogonal to the weights where these look scale-invariant; the factor on weight decay).

    Of a matrix, rows are tried first, then the whole: where every |cos(g, w)| of a view is below delta / sqrt(its size), the
    step loses its part along w. A flat tensor stays as it is.
    """
    if p.dim() < 3:
        return step, step.new_ones(())
    rows, row_fires = _view(g, p, step, (-1,), delta, eps)
    whole, whole_fires = _view(g, p, step, (-2, -1), delta, eps)
    out = torch.where(row_fires, rows, torch.where(whole_fires, whole, step))
    return out, 1 + (wd_ratio - 1) * (row_fires | whole_fires).to(step.dtype)


def _view(g: Tensor, p: Tensor, step: Tensor, axes: tuple[int, ...], delta: float, eps: float) -> tuple[Tensor, Tensor]:
    """(the step without its part along p, seen along these axes; whether all of a matrix's cosines are small, (N, 1, 1))."""
    size = math.prod(p.shape[axis] for axis in axes)
    long = lambda x: x.square().sum(axes, keepdim=True).sqrt()  # noqa: E731
    cosine = (g * p).sum(axes, keepdim=True).abs() / (long(g).clamp_min(eps) * long(p).clamp_min(eps))
    small = (cosine < delta / math.sqrt(size)).all(-2, keepdim=True)
    unit = p / (long(p) + eps)
    return step - unit * (unit * step).sum(axes, keepdim=True), small
