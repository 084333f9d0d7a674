"""k-winner-take-all: the k largest entries of a row, the others 0 (Keskinen, 2024)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.activations.sparse._winners import largest, winners
from netwright.core.part import Claim, Example, Option, Paper


def kwta(x: Tensor, *, dim: int, k: float, subtract: bool) -> Tensor:
    kept, least = largest(x, k, dim)
    return torch.where(kept, x - least if subtract else x, 0.0)


def reference(x: Sequence[float], k: float, subtract: bool) -> list[float]:
    order = sorted(range(len(x)), key=lambda i: (-x[i], i))[: winners(k, len(x))]
    least = x[order[-1]] if subtract else 0.0
    y = [0.0] * len(x)
    for i in order:
        y[i] = x[i] - least
    return y


def claim_winners() -> bool:
    """Exactly k entries of a row are kept, as they are, also where entries are equal."""
    x = torch.randn(64, 40, generator=torch.Generator().manual_seed(0))
    for row in (x, x.round(), torch.ones(3, 40)):
        y = kwta(row, dim=1, k=6.0, subtract=False)
        kept = y != 0
        if not bool((kept.sum(1) <= 6).all()) or not torch.equal(y[kept], row[kept]):
            return False
    return bool(((kwta(x, dim=1, k=6.0, subtract=False) != 0).sum(1) == 6).all())


def claim_gradient() -> bool:
    """The gradient passes through the winners unchanged and nowhere else."""
    x = torch.randn(64, 40, generator=torch.Generator().manual_seed(1)).requires_grad_()
    y = kwta(x, dim=1, k=6.0, subtract=False)
    return torch.equal(torch.autograd.grad(y.sum(), x)[0], (y != 0).to(y.dtype))


def claim_equivariant() -> bool:
    """Permuting a row permutes its output; a second pass changes no nonnegative row."""
    g = torch.Generator().manual_seed(2)
    x = torch.rand(64, 40, generator=g)
    order = torch.randperm(40, generator=g)
    y = kwta(x, dim=1, k=6.0, subtract=False)
    again = kwta(y, dim=1, k=6.0, subtract=False)
    return torch.equal(kwta(x[:, order], dim=1, k=6.0, subtract=False), y[:, order]) and torch.equal(again, y)


PART = activation(
    kwta,
    cls="KWTA",
    name="kwta",
    reference=reference,
    formula=r"x_i\,[\,x_i \text{ among the } k \text{ largest}\,]",
    paper=Paper("pairwise-layer"),
    options=(
        Option("k", 0.15, "a share of the row below 1, or a whole number of entries", bounds=(0.0, 1e9)),
        Option("subtract", False, "subtract the smallest winner from all of them", allowed=(False, True)),
    ),
    tags=Tags(shape="rowwise"),
    examples=(
        Example([3.0, -1.0, 2.0, 1.0], [3.0, 0.0, 2.0, 0.0], options={"k": 2}),
        Example([-3.0, -1.0, -2.0, -1.0], [0.0, -1.0, 0.0, 0.0], options={"k": 1}),
        Example([3.0, -1.0, 2.0, 1.0], [2.0, 0.0, 1.0, 0.0], options={"k": 3, "subtract": True}),
    ),
    flops=8.0,
    claims=(
        Claim("winners", "keeps exactly k entries of a row", check=claim_winners),
        Claim("gradient", "sends the gradient through the winners only", check=claim_gradient),
        Claim("equivariant", "commutes with permutations and is idempotent on nonnegative rows", check=claim_equivariant),
    ),
    deviations=(
        "winners keep their values; the official code subtracts the smallest of them from all (subtract=True), "
        "which leaves k - 1 nonzero entries",
        "of equal entries the first win",
    ),
)
