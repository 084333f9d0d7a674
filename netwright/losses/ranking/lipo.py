"""LiPO: of a list of answers, every pair whose worths differ is ordered, weighed by what its exchange would cost in DCG."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from netwright.core.part import Claim, Option, Paper
from netwright.losses._kind import Tags, full, loss
from netwright.tensor.terms import Term, Terms


def lipo(out: Tensor, y: Tensor, *, pairs: str) -> Terms:
    """The sum over pairs with y_i > y_j of D_ij log(1 + exp(-(s_i - s_j))).

    D_ij = |G_i - G_j| |1 / log(1 + r_i) - 1 / log(1 + r_j)|, G = 2^y - 1, r the rank by s, 1 the best: no gradient passes it.
    out: scores (B, N) of lists, as beta log(pi / pi_ref) of policies. y: worths (B, N). pairs "equal": D = 1.
    """
    s, worth = full(out), y.to(full(out).dtype)
    gap = s[:, :, None] - s[:, None, :]
    ordered = (worth[:, :, None] > worth[:, None, :]).to(s.dtype)
    if pairs == "lambda":
        better = (s[:, None, :] > s[:, :, None]).to(s.dtype).sum(-1)  # how many of the list score higher
        earlier = torch.ones_like(gap).tril(-1) * (s[:, None, :] == s[:, :, None])
        discount = 1 / torch.log(2 + better + earlier.sum(-1)).detach()  # 1 + rank, of equals the earlier first
        gain = 2**worth - 1
        ordered = ordered * (gain[:, :, None] - gain[:, None, :]).abs() * (discount[:, :, None] - discount[:, None, :]).abs()
    each = (ordered * F.softplus(-gap)).sum((1, 2))
    return (Term(each, torch.ones_like(each)),)


def reference(out: Any, y: Any, *, pairs: str) -> list[list[tuple[float, float]]]:
    """Equations (6) and (7), pair by pair, ranks by sorting."""
    rows = []
    for s, psi in zip(out, y, strict=True):
        order = sorted(range(len(s)), key=lambda i: -s[i])  # noqa: B023
        rank = {i: place + 1 for place, i in enumerate(order)}
        total = 0.0
        for i in range(len(s)):
            for j in range(len(s)):
                if psi[i] > psi[j]:
                    gains = abs(2.0 ** psi[i] - 2.0 ** psi[j])
                    weight = gains * abs(1 / math.log(1 + rank[i]) - 1 / math.log(1 + rank[j])) if pairs == "lambda" else 1.0
                    total += weight * math.log(1 + math.exp(s[j] - s[i]))
        rows.append((total, 1.0))
    return [rows]


def weight_of_two() -> bool:
    """Of two answers of worth 1 and 0 the weight is 1 / log 2 - 1 / log 3 = 0.5325."""
    at = lipo(torch.zeros(1, 2, dtype=torch.float64), torch.tensor([[1, 0]]), pairs="lambda")[0].values
    return abs(float(at) / math.log(2) - 0.5325) < 1e-4


def gradient_sums_to_zero() -> bool:
    s = torch.randn(3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = torch.tensor([[3, 1, 0, 2, 1]] * 3)
    g = torch.func.grad(lambda s: lipo(s, y, pairs="lambda")[0].values.sum())(s)
    return bool((g.sum(1).abs() < 1e-12).all() and (g.abs() > 0).any())


PART = loss(
    lipo,
    reference=reference,
    formula=r"\sum_{\psi_i > \psi_j} \Delta_{ij} \log(1 + e^{-(s_i - s_j)})",
    paper=Paper("lipo", equation="(6)"),
    tags=Tags(outputs="lists", shift=True),
    options=(Option("pairs", "lambda", "how pairs are weighed", allowed=("lambda", "equal")),),
    values=(([[0.0, 0.0]], [[1, 0]], 0.5324554 * math.log(2)),),
    claims=(
        Claim("two answers", "of two answers of worth 1 and 0 the weight is 0.5325", "equation (7)", check=weight_of_two),
        Claim("shift", "the gradient of a list sums to 0", "equation (6)", check=gradient_sums_to_zero),
    ),
    deviations=(
        "scores are given; a policy's are beta times its log-probability over the reference's",
        "logarithms are natural; of answers that score alike the earlier ranks first",
    ),
)
