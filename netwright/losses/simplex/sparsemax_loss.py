"""The sparsemax loss: convex, and exactly 0 where the label's score exceeds all others by 1."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from netwright.core.part import Claim, Paper
from netwright.losses._kind import IGNORED, Tags, loss
from netwright.losses.simplex._by_rows import counted
from netwright.losses.simplex._by_rows import sparsemax_loss as of_rows
from netwright.tensor.terms import Terms


def sparsemax_loss(out: Tensor, y: Tensor, *, ignore_index: int) -> Terms:
    """-y z + 1/2 sum over the support of (z_j^2 - tau^2) + 1/2 |y|^2: its gradient is sparsemax(z) - y.

    out: scores (B, ..., K). y: labels (B, ...), or probabilities of out's shape.
    """
    return counted(of_rows, out, y, ignore_index)


def reference(out: Any, y: Any, *, ignore_index: int) -> list[list[tuple[float, float]]]:
    """Equation (20), tau by trying every size of the support."""
    rows = []
    for z, target in zip(out, y, strict=True):
        q = [float(v) for v in target] if isinstance(target, list) else [float(k == target) for k in range(len(z))]
        if not isinstance(target, list) and target == ignore_index:
            rows.append((0.0, 0.0))
            continue
        ordered = sorted(z, reverse=True)
        sizes = [n for n in range(1, len(z) + 1) if 1 + n * ordered[n - 1] > sum(ordered[:n])]
        tau = (sum(ordered[: sizes[-1]]) - 1) / sizes[-1]
        inside = sum(v * v - tau * tau for v in z if v > tau)
        rows.append((-sum(a * b for a, b in zip(q, z, strict=True)) + inside / 2 + sum(v * v for v in q) / 2, 1.0))
    return [rows]


def is_zero_beyond_a_margin_of_1() -> bool:
    z = torch.tensor([[2.0, 1.0, 0.0], [1.9, 1.0, 0.0]], dtype=torch.float64)
    near, far = sparsemax_loss(z, torch.tensor([0, 0]), ignore_index=-100)[0].values.tolist()
    return abs(near) < 1e-15 and far > 1e-4


PART = loss(
    sparsemax_loss,
    reference=reference,
    formula=r"-z_y + \frac{1}{2} \sum_{j \in S} (z_j^2 - \tau^2) + \frac{1}{2}",
    paper=Paper(
        title="From Softmax to Sparsemax: A Sparse Model of Attention and Multi-Label Classification",
        authors="Andre F. T. Martins, Ramon Fernandez Astudillo",
        year=2016,
        arxiv="1602.02068",
        equation="(20)",
    ),
    tags=Tags(soft=True, shift=True, proper=True, convex=True),
    options=(IGNORED,),
    values=(([[1.0, 0.5, -1.0]], [0], 0.0625), ([[2.0, 0.0, 0.0]], [1], 2.0)),
    uses=("activation/sparsemax",),
    claims=(
        Claim(
            "margin",
            "the loss is 0 exactly where the label's score exceeds the others by 1",
            "proposition 3",
            check=is_zero_beyond_a_margin_of_1,
        ),
    ),
)
