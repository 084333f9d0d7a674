"""Softmax: exponentials divided by their sum (Bridle, 1990)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.core.part import Claim, Example, Paper


def softmax(x: Tensor, *, dim: int) -> Tensor:
    return torch.softmax(x, dim)


def reference(x: Sequence[float]) -> list[float]:
    """Each entry by the sum of the ratios to it, which needs no shift."""
    return [1.0 / sum(math.exp(min(other - v, 700.0)) for other in x) for v in x]


def _rows(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def claim_simplex() -> bool:
    """Every row is a probability vector without a zero."""
    p = softmax(3 * _rows(0, 64, 16), dim=-1)
    return bool(((p.sum(-1) - 1).abs() < 1e-12).all() and (p > 0).all())


def claim_shift() -> bool:
    """Adding a constant to a row changes nothing."""
    x = _rows(1, 64, 16)
    return bool(torch.allclose(softmax(x + 3.0, dim=-1), softmax(x, dim=-1), atol=1e-12))


def claim_jacobian() -> bool:
    """The Jacobian is diag(p) - p p^T."""
    x = _rows(2, 6)
    p = softmax(x, dim=-1)
    got = torch.autograd.functional.jacobian(lambda x: softmax(x, dim=-1), x)
    return bool(torch.allclose(got, p.diag() - p.outer(p), atol=1e-12))


def claim_logistic() -> bool:
    """With two entries it is the logistic function of their difference."""
    x = 3 * _rows(3, 64, 2)
    return bool(torch.allclose(softmax(x, dim=-1)[:, 0], torch.sigmoid(x[:, 0] - x[:, 1]), atol=1e-12))


PART = activation(
    softmax,
    cls="Softmax",
    reference=reference,
    formula=r"e^{x_i} / \sum_j e^{x_j}",
    paper=Paper(
        title="Probabilistic Interpretation of Feedforward Classification Network Outputs, with Relationships to "
        "Statistical Pattern Recognition",
        authors="John S. Bridle",
        year=1990,
        venue="Neurocomputing: Algorithms, Architectures and Applications, pp. 227-236",
    ),
    tags=Tags(shape="rowwise", delicate=True),
    examples=(Example([0.0, math.log(2.0), math.log(5.0)], [0.125, 0.25, 0.625]),),
    flops=5.0,
    claims=(
        Claim("simplex", "gives probability vectors", check=claim_simplex),
        Claim("shift", "is invariant to shifts", check=claim_shift),
        Claim("jacobian", "has the Jacobian diag(p) - p p^T", check=claim_jacobian),
        Claim("logistic", "generalises the logistic function to several alternatives", check=claim_logistic),
    ),
)
