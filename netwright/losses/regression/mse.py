"""Mean squared error: the square of what is off, on average over an example's outputs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from netwright.core.part import Claim, Paper
from netwright.losses._kind import Tags, full, loss
from netwright.tensor.terms import Term, Terms


def mse(out: Tensor, y: Tensor) -> Terms:
    """The mean over an example's outputs of (out - y)^2; out and y of one shape (B, ...)."""
    each = (full(out) - full(y)).square().flatten(1).mean(1) if out.dim() > 1 else (full(out) - full(y)).square()
    return (Term(each, torch.ones_like(each)),)


def mean(out: Tensor, y: Tensor) -> Tensor:
    """Of all elements at once."""
    return (out - y).square().mean()


def reference(out: Any, y: Any) -> list[list[tuple[float, float]]]:
    """Row by row: the sum of squares over their number."""
    rows = []
    for given, wanted in zip(out, y, strict=True):
        squares = [(a - b) ** 2 for a, b in zip(given, wanted, strict=True)]
        rows.append((sum(squares) / len(squares), 1.0))
    return [rows]


def is_least_at_the_mean() -> bool:
    """Of all constants the mean has the least error."""
    y = torch.tensor([[1.0], [2.0], [6.0]], dtype=torch.float64)
    at = [float(mse(torch.full_like(y, c), y)[0].values.mean()) for c in (3.0, 2.9, 3.1)]
    return at[0] < min(at[1:])


PART = loss(
    mse,
    reference=reference,
    mean=mean,
    formula=r"\frac{1}{d} \sum_i (\hat y_i - y_i)^2",
    paper=Paper(
        title="Nouvelles methodes pour la determination des orbites des cometes", authors="Adrien-Marie Legendre", year=1805
    ),
    tags=Tags(outputs="values", convex=True, usual="targets"),
    values=(([[1.0, 2.0]], [[0.0, 4.0]], 2.5),),
    claims=(
        Claim("mean", "of all constants the mean of the targets has the least error", "appendix", check=is_least_at_the_mean),
    ),
)
