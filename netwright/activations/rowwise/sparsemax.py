"""Sparsemax: the nearest point of the probability simplex, often on its boundary (Martins and Astudillo, 2016).

p = max(0, z - tau), with tau such that sum p = 1. With z sorted downwards, the support is the longest prefix of k
entries for which 1 + k z_k > sum of the first k, and tau = (that sum - 1) / k.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from netwright.kinds.activation import Tags, activation
from netwright.part import Claim, Example, Paper


def sparsemax(x: Tensor, *, dim: int) -> Tensor:
    z = x.transpose(dim, -1)
    z = z - z.amax(-1, keepdim=True)  # shifting a row changes nothing, and keeps the sums small
    down = z.sort(-1, descending=True).values
    k = torch.arange(1, z.shape[-1] + 1, device=z.device, dtype=z.dtype)
    sums = down.cumsum(-1)
    size = (1 + k * down > sums).sum(-1, keepdim=True)
    tau = (sums.gather(-1, size - 1) - 1) / size.to(z.dtype)
    return (z - tau).clamp(min=0.0).transpose(dim, -1)


def reference(x: Sequence[float]) -> list[float]:
    """Michelot's way: drop what falls below the threshold until nothing does."""
    support = list(x)
    while True:
        tau = (sum(support) - 1) / len(support)
        kept = [v for v in support if v > tau]
        if len(kept) == len(support):
            return [max(0.0, v - tau) for v in x]
        support = kept


def claim_simplex() -> bool:
    """Every row is a probability vector, and some entries are exactly 0."""
    x = torch.randn(64, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    p = sparsemax(x, dim=-1)
    return bool(((p.sum(-1) - 1).abs() < 1e-12).all() and (p >= 0).all() and (p == 0).any(-1).all())


def claim_shift() -> bool:
    """Adding a constant to a row changes nothing."""
    x = torch.randn(64, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return bool(torch.allclose(sparsemax(x + 3.0, dim=-1), sparsemax(x, dim=-1), atol=1e-12))


def claim_nearest() -> bool:
    """No point of the simplex drawn at random is nearer to the row than its sparsemax."""
    g = torch.Generator().manual_seed(2)
    x = torch.randn(8, 1, 6, generator=g, dtype=torch.float64)
    others = torch.rand(8, 500, 6, generator=g, dtype=torch.float64).log().neg()
    others = others / others.sum(-1, keepdim=True)
    return bool(((x - sparsemax(x, dim=-1)).norm(dim=-1) <= (x - others).norm(dim=-1)).all())


PART = activation(
    sparsemax,
    cls="Sparsemax",
    reference=reference,
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
    ),
)
