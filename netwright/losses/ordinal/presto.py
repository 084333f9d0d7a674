"""PRESTO: the likelihood of ordered grades with coefficients of their own at every threshold, shrunk towards one another."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from netwright.core.part import Claim, Paper
from netwright.losses._kind import IGNORED, Tags, full, loss
from netwright.tensor.terms import Terms, by_example

NARROW = 1e-6  # by how much a threshold has to lie above the one before; crossed ones count as this far apart


def presto(out: Tensor, y: Tensor, *, ignore_index: int) -> Terms:
    """-log(sigmoid(o_y) - sigmoid(o_{y-1})) of the grade y: o_k is the logit of P(grade <= k).

    out: cumulative logits (B, ..., K - 1), rising along the last axis. y: grades 0 to K - 1 (B, ...).
    """
    counts = y != ignore_index
    o, grade = torch.where(counts[..., None], full(out), 0), torch.where(counts, y, 0)
    last = o.shape[-1]
    upper = o.gather(-1, grade.clamp(max=last - 1)[..., None])[..., 0]
    lower = o.gather(-1, (grade - 1).clamp(min=0)[..., None])[..., 0]
    gap = torch.where((grade > 0) & (grade < last), upper - lower, 1.0).clamp_min(NARROW)
    # sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - e^(b - a)): no difference of probabilities is taken
    inside = torch.log(-torch.expm1(-gap))
    each = torch.where(grade < last, F.logsigmoid(upper), 0) + torch.where(grade > 0, F.logsigmoid(-lower), 0)
    return (by_example(-(each + torch.where((grade > 0) & (grade < last), inside, 0)), counts),)


def reference(out: Any, y: Any, *, ignore_index: int) -> list[list[tuple[float, float]]]:
    """The difference of two cumulative probabilities."""
    rows = []
    for o, grade in zip(out, y, strict=True):
        below = [0.0, *(1 / (1 + math.exp(-v)) for v in o), 1.0]
        share = below[grade + 1] - below[grade] if grade != ignore_index else 1.0
        rows.append((-math.log(share), float(grade != ignore_index)))
    return [rows]


# The penalty: of coefficients, which a loss of outputs doesn't see ------------------------------------------------------


def coefficients(differences: Tensor) -> Tensor:
    """b_k = D_1 + ... + D_k: differences (K - 1, features) -> the coefficients at every threshold."""
    return differences.cumsum(0)


def penalty(differences: Tensor, strength: float) -> Tensor:
    """strength sum |D|, the first row's included."""
    return strength * differences.abs().sum()


def shrunk(differences: Tensor, by: float) -> Tensor:
    """The proximal step of the penalty: every difference nearer to 0 by `by`, and 0 from there on."""
    return differences.sign() * (differences.abs() - by).clamp_min(0)


def meets_its_optimality_conditions() -> bool:
    """Proximal gradient on 60 generated rows of 3 grades: |gradient| <= strength where D is 0, and = -strength sign(D) else."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(60, 3, generator=draw, dtype=torch.float64)
    z = x[:, 0] + torch.randn(60, generator=draw, dtype=torch.float64)
    y = (z > 0).long() + (z > 1).long()
    d, a, strength = torch.zeros(2, 3, dtype=torch.float64), torch.tensor([-0.5, 0.5], dtype=torch.float64), 0.1

    def smooth(d: Tensor, a: Tensor) -> Tensor:
        return presto(a + x @ coefficients(d).T, y, ignore_index=-100)[0].values.mean()

    both = torch.func.grad(smooth, argnums=(0, 1))
    for _ in range(40):
        slope, slope_a = both(d, a)
        d, a = shrunk(d - 3 * slope, 3 * strength), a - 3 * slope_a
    slope = both(d, a)[0]
    zero = d == 0
    off = torch.where(zero, (slope.abs() - strength).clamp_min(0), (slope + strength * d.sign()).abs())
    return bool(zero.any() and (~zero).any() and float(off.max()) < 1e-6)


PART = loss(
    presto,
    reference=reference,
    formula=r"-\log(\sigma(\alpha_y + x^T \beta_y) - \sigma(\alpha_{y-1} + x^T \beta_{y-1}))",
    paper=Paper("presto", equation="(4)"),
    tags=Tags(outputs="ordinal", convex=True),
    options=(IGNORED,),
    columns=3,
    values=(([[0.0, 1.0]], [1], -math.log(1 / (1 + math.exp(-1)) - 0.5)),),
    claims=(
        Claim(
            "sparse differences",
            "under the penalty the optimality conditions of the lasso on differences hold, and some differences are 0",
            "section 2",
            check=meets_its_optimality_conditions,
        ),
    ),
    deviations=(
        "the penalty is a function of coefficients, not of outputs: `penalty`, `shrunk` and `coefficients` of this file",
        "thresholds that cross count as 1e-6 apart; the authors' code (gregfaletto/presto) stops there",
    ),
)
