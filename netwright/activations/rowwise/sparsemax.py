"""Sparsemax: the nearest point of the probability simplex, often on its boundary (Martins and Astudillo, 2016).

p = max(0, z - tau), with tau such that sum p = 1. With z sorted downwards, the support is the longest prefix of k
entries for which 1 + k z_k > sum of the first k, and tau = (that sum - 1) / k.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.core.part import Claim, Example, Paper


def sparsemax(x: Tensor, *, dim: int) -> Tensor:
    z = x.transpose(dim, -1)
    z = z - z.amax(-1, keepdim=True)  # shifting a row changes nothing, and keeps the sums small
    down = z.sort(-1, descending=True).values
    k = torch.arange(1, z.shape[-1] + 1, device=z.device, dtype=z.dtype)
    sums = down.cumsum(-1)
    size = (1 + k * down > sums).sum(-1, keepdim=True)
    tau = (sums.gather(-1, size - 1) - 1) / size.to(z.dtype)
    return (z - tau).relu().transpose(dim, -1)  # unlike clamp, no slope at 0: what is on the edge is outside the support


def ahead(x: Tensor, *, dim: int) -> Tensor:
    """The same without a sort: Newton's method on f(tau) = sum max(0, z - tau) - 1, from tau = max z - 1, where f >= 0.

    f is convex and falls, so tau rises and entries only leave the support (Michelot's iteration). Of successive f, and
    supports of g entries, f_next / f + g_next / g <= 1: after K steps f <= d (1 - d^(-1/K))^K, whatever the row of d.
    That is below 1e-15 after 40 steps up to d = 2^20. Compiled, 32 of them are left out where 8 were enough for every row.
    """
    top = x.amax(dim, keepdim=True)
    tau = rise(torch.full_like(top, -1.0), x, top, dim=dim, steps=8)
    if not torch.compiler.is_compiling():
        tau = rise(tau, x, top, dim=dim, steps=32)
    else:
        f = (x - top - tau).relu().sum(dim) - 1  # no entry of p is off by more
        there = (f.abs() <= 32 * torch.finfo(x.dtype).eps).all()
        more = partial(rise, dim=dim, steps=32)
        tau = torch.cond(there, lambda tau, x, top: tau.clone(), more, (tau, x, top))
    return (x - top - tau).relu()


def rise(tau: Tensor, x: Tensor, top: Tensor, *, dim: int, steps: int) -> Tensor:
    for _ in range(steps):
        p = (x - top - tau).relu()
        tau = tau + (p.sum(dim, keepdim=True) - 1) / torch.where(p > 0, 1.0, 0.0).sum(dim, keepdim=True)
    return tau


def back(gradient: Tensor, p: Tensor, *, dim: int) -> Tensor:
    """J v = s (v - mean of v over the support), with s the indicator of the support."""
    inside = p > 0
    mean = torch.where(inside, gradient, 0.0).sum(dim, keepdim=True) / inside.to(p.dtype).sum(dim, keepdim=True)
    return torch.where(inside, gradient - mean, 0.0)


def reference(x: Sequence[float]) -> list[float]:
    """Michelot's way: drop what falls below the threshold until nothing does."""
    support = list(x)
    while True:
        tau = (sum(support) - 1) / len(support)
        kept = [v for v in support if v > tau]
        if len(kept) == len(support):
            return [max(0.0, v - tau) for v in x]
        support = kept


def _rows(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def claim_simplex() -> bool:
    """Every row is a probability vector, and some entries are exactly 0."""
    p = sparsemax(_rows(0, 64, 16), dim=-1)
    return bool(((p.sum(-1) - 1).abs() < 1e-12).all() and (p >= 0).all() and (p == 0).any(-1).all())


def claim_shift() -> bool:
    """Adding a constant to a row changes nothing."""
    x = _rows(1, 64, 16)
    return bool(torch.allclose(sparsemax(x + 3.0, dim=-1), sparsemax(x, dim=-1), atol=1e-12))


def claim_nearest() -> bool:
    """No point of the simplex drawn at random is nearer to the row than its sparsemax."""
    g = torch.Generator().manual_seed(2)
    x = torch.randn(8, 1, 6, generator=g, dtype=torch.float64)
    others = torch.rand(8, 500, 6, generator=g, dtype=torch.float64).log().neg()
    others = others / others.sum(-1, keepdim=True)
    return bool(((x - sparsemax(x, dim=-1)).norm(dim=-1) <= (x - others).norm(dim=-1)).all())


def claim_jacobian() -> bool:
    """The Jacobian is diag(s) - s s^T / |S|: by autograd through the sort, and as `back` has it."""
    x, v = _rows(3, 6), _rows(4, 6)
    s = (sparsemax(x, dim=-1) > 0).double()
    wanted = s.diag() - s.outer(s) / s.sum()
    got = torch.autograd.functional.jacobian(lambda x: sparsemax(x, dim=-1), x)
    return bool(torch.allclose(got, wanted) and torch.allclose(back(v, sparsemax(x, dim=-1), dim=-1), wanted @ v))


def claim_sorting() -> bool:
    """Newton's method ends where sorting does, also where entries shrink by constant factors and leave one by one."""
    factors = torch.linspace(1.02, 3.0, 40, dtype=torch.float64)[:, None]
    hard = torch.cat((-(factors ** -torch.arange(300.0)), factors ** -torch.arange(300.0)))
    rows = torch.cat((hard, 3 * _rows(5, 80, 300), torch.zeros(1, 300), torch.eye(300)[:1]))
    return bool(torch.allclose(ahead(rows, dim=-1), sparsemax(rows, dim=-1), rtol=0, atol=1e-13))


PART = activation(
    sparsemax,
    cls="Sparsemax",
    reference=reference,
    fused=(ahead, back),
    formula=r"\mathrm{argmin}_{p \in \Delta}\; \Vert p - x \Vert^2",
    paper=Paper("sparsemax"),
    tags=Tags(shape="rowwise", delicate=True),
    examples=(
        Example([1.0, 0.5, -1.0], [0.75, 0.25, 0.0]),
        Example([0.1, 0.0, 0.2], [1 / 3, 0.7 / 3, 1.3 / 3]),
        Example([2.0, 0.0, 0.0], [1.0, 0.0, 0.0]),
        Example([1.0, 0.8, 0.1], [0.6, 0.4, 0.0]),
    ),
    flops=20.0,
    claims=(
        Claim("simplex", "gives sparse probability vectors", check=claim_simplex),
        Claim("shift", "is invariant to shifts", check=claim_shift),
        Claim("nearest", "is the Euclidean projection on the simplex", check=claim_nearest),
        Claim("jacobian", "has the Jacobian diag(s) - s s^T / |S|", check=claim_jacobian),
        Claim("sorting", "needs no sorting: Newton's method finds the same point", check=claim_sorting),
    ),
)
