"""Losses whose gradient is a map to the probability simplex minus the target, and SDM with a q and d for every input.

Sparsemax's loss (Martins and Astudillo, 2016) and entmax's (Peters et al., 2019) are Fenchel-Young losses: with
p = entmax(z, alpha) and Tsallis's entropy H(p) = (1 - sum p^alpha) / (alpha (alpha - 1)), the loss of the target y is
(p - y) z + H(p) - H(y). It is convex in z, at least 0, has the gradient p - y, and is exactly 0 for the class k where
z_k exceeds all other entries by 1 / (alpha - 1).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from netwright.core import catalogue
from netwright.core.errors import BadInput
from netwright.losses._kind import full
from netwright.tensor.terms import Terms, by_example

REDUCTIONS = ("mean", "sum", "none")
LOW = (torch.float16, torch.bfloat16)


def sparsemax_loss(z: Tensor, target: Tensor, *, dim: int = -1, reduction: str = "mean", fused: bool = False) -> Tensor:
    """Sparsemax's loss, -y z + 1/2 sum over the support of (z_j^2 - tau^2) + 1/2 |y|^2. Arguments: those of `entmax_loss`."""
    return entmax_loss(z, target, alpha=2.0, dim=dim, reduction=reduction, fused=fused)


def entmax_loss(
    z: Tensor, target: Tensor, *, alpha: float = 1.5, dim: int = -1, reduction: str = "mean", fused: bool = False
) -> Tensor:
    """The loss of alpha-entmax, for 1 < alpha <= 2.

    z: scores of any shape, the classes along dim. target: labels (int64, the shape of z without dim), or probabilities
    (floating, the shape of z; for several labels their indicator divided by their number), which get no gradient.
    reduction: "mean" or "sum" over the rows, or "none": the shape of z without dim. fused: as in netwright.make.
    Twice differentiable in z; half precision is computed in float32. Raises BadInput.
    """
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not 1 < alpha <= 2:
        raise BadInput(f"entmax_loss: alpha={alpha!r}; allowed: a number above 1 and up to 2")
    _check("entmax_loss", z, target, dim, reduction)
    work = z.float() if z.dtype in LOW else z
    if target.is_floating_point():
        y = target.detach().to(work.dtype)
    else:
        y = torch.zeros_like(work).scatter(dim, target.unsqueeze(dim), 1.0)
    each = _FenchelYoung.apply(work, y, _map(float(alpha), fused), float(alpha), dim)[0]
    return _reduced(each.to(z.dtype), reduction)


def _map(alpha: float, fused: bool) -> Callable[..., Tensor]:
    """z, dim -> p: by sorting where that is exact."""
    known = {1.5: "activation/entmax15", 2.0: "activation/sparsemax"}
    part: Any = catalogue.get(known.get(alpha, "activation/entmax"))
    function = part.fused_fn if fused else part.fn
    return function if alpha in known else lambda z, dim: function(z, dim=dim, alpha=alpha)


def _entropy(p: Tensor, alpha: float, dim: int) -> Tensor:
    return (1 - p.pow(alpha).sum(dim)) / (alpha * (alpha - 1))


class _FenchelYoung(torch.autograd.Function):
    """z, y -> the loss of every row, and p - y. Differentiating through the map would give the same with more rounding."""

    generate_vmap_rule = True

    @staticmethod
    def forward(z: Tensor, y: Tensor, to_simplex: Callable[..., Tensor], alpha: float, dim: int) -> tuple[Tensor, Tensor]:
        p = to_simplex(z, dim=dim)
        gap = p - y
        shifted = z - z.amax(dim, keepdim=True)
        # A class masked with -inf has p = 0, and costs nothing unless it is the target.
        linear = torch.where(gap == 0, 0.0, gap * shifted).sum(dim)
        return linear + _entropy(p, alpha, dim) - _entropy(y, alpha, dim), gap

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        z, _, ctx.to_simplex, _, ctx.dim = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(z, output[1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        z, gap = ctx.saved_tensors
        if torch.is_grad_enabled():  # to be differentiated again: the same p - y, as a function of z
            p = ctx.to_simplex(z, dim=ctx.dim)
            gap = gap + (p - p.detach())
        return gradient.unsqueeze(ctx.dim) * gap, None, None, None, None


def sdm(z: Tensor, q: float | Tensor, d: float | Tensor, *, dim: int = -1) -> Tensor:
    """(2 + q)^(d z_i) / sum_c (2 + q)^(d z_c) along dim, with a q and a d for every row.

    q >= 0 and 0 <= d <= 1: numbers, or tensors of the shape of z without dim, taken as constants. Raises BadInput.
    """
    _floating("sdm", z, dim)
    q, d = _rowwise("sdm", "q", q, z, dim, math.inf), _rowwise("sdm", "d", d, z, dim, 1.0)
    part: Any = catalogue.get("activation/sdm")
    work = z.float() if z.dtype in LOW else z
    return part.fn(work, dim=dim, q=q, d=d).to(z.dtype)


def sdm_loss(
    z: Tensor, target: Tensor, q: float | Tensor, d: float | Tensor, *, dim: int = -1, reduction: str = "mean"
) -> Tensor:
    """SDM's loss: -log of sdm(z, q, d) at the label, to the base 2 + q, which takes q's scale out of the gradient.

    target: labels (int64), and q, d: numbers or tensors, of the shape of z without dim. reduction: as in `entmax_loss`.
    """
    _check("sdm_loss", z, target, dim, reduction, soft=False)
    q, d = _rowwise("sdm_loss", "q", q, z, dim, math.inf), _rowwise("sdm_loss", "d", d, z, dim, 1.0)
    base = torch.log(2 + q) if isinstance(q, Tensor) else math.log(2 + q)
    work = z.float() if z.dtype in LOW else z
    logs = torch.log_softmax(work * (d * base), dim) / base
    return _reduced(-logs.gather(dim, target.unsqueeze(dim)).squeeze(dim).to(z.dtype), reduction)


def counted(rows: Callable[..., Tensor], out: Tensor, y: Tensor, ignore_index: int) -> Terms:
    """The terms of a loss of rows, in which labels of ignore_index count for nothing."""
    z, soft = full(out), y.is_floating_point()
    counts = torch.ones_like(y[..., 0], dtype=torch.bool) if soft else y != ignore_index
    bad = z.isnan().any(-1)  # the maps sort, and can't place what isn't a number
    each = rows(torch.where((counts & ~bad)[..., None], z, 0), y if soft else torch.where(counts, y, 0), reduction="none")
    return (by_example(torch.where(bad, math.nan, each), counts),)


def _reduced(each: Tensor, reduction: str) -> Tensor:
    return each.mean() if reduction == "mean" else each.sum() if reduction == "sum" else each


def _floating(owner: str, z: Tensor, dim: int) -> None:
    if not z.is_floating_point():
        raise BadInput(f"{owner}: z has dtype {z.dtype}; expected a floating dtype")
    if isinstance(dim, bool) or not isinstance(dim, int) or not -z.dim() <= dim < z.dim():
        raise BadInput(f"{owner}: dim={dim!r}, but z has {z.dim()} dimensions (shape {tuple(z.shape)})")


def _rows(z: Tensor, dim: int) -> tuple[int, ...]:
    """The shape of z without dim."""
    at = dim % z.dim()
    return (*z.shape[:at], *z.shape[at + 1 :])


def _check(owner: str, z: Tensor, target: Tensor, dim: int, reduction: str, soft: bool = True) -> None:
    _floating(owner, z, dim)
    if reduction not in REDUCTIONS:
        raise BadInput(f"{owner}: reduction={reduction!r}; allowed: {', '.join(map(repr, REDUCTIONS))}")
    rows = _rows(z, dim)
    if target.dtype == torch.int64:
        if tuple(target.shape) != rows:
            raise BadInput(
                f"{owner}: labels of shape {tuple(target.shape)}; expected {rows}, z's {tuple(z.shape)} without {dim=}"
            )
    elif not soft:
        raise BadInput(f"{owner}: target has dtype {target.dtype}; expected labels (int64)")
    elif not target.is_floating_point():
        raise BadInput(f"{owner}: target has dtype {target.dtype}; expected labels (int64) or probabilities (floating)")
    elif target.shape != z.shape:
        raise BadInput(f"{owner}: probabilities of shape {tuple(target.shape)}; expected z's {tuple(z.shape)}")


def _rowwise(owner: str, name: str, value: float | Tensor, z: Tensor, dim: int, most: float) -> float | Tensor:
    """A number, or a tensor that broadcasts against z."""
    if isinstance(value, Tensor):
        if tuple(value.shape) != _rows(z, dim):
            raise BadInput(f"{owner}: {name} of shape {tuple(value.shape)}; expected a number or shape {_rows(z, dim)}")
        return value.detach().to(torch.float32 if z.dtype in LOW else z.dtype).unsqueeze(dim)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= most or math.isinf(value):
        raise BadInput(f"{owner}: {name}={value!r}; allowed: a number from 0 to {most}")
    return float(value)
