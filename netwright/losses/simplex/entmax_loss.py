"""The entmax loss: between cross-entropy and the sparsemax loss, 0 where the label is 1 / (alpha - 1) above all others."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from netwright.core.part import Claim, Option, Paper
from netwright.losses._kind import IGNORED, Tags, loss
from netwright.losses.simplex._by_rows import counted
from netwright.losses.simplex._by_rows import entmax_loss as of_rows
from netwright.tensor.terms import Terms


def entmax_loss(out: Tensor, y: Tensor, *, alpha: float, ignore_index: int) -> Terms:
    """(p - y) z + H(p) - H(y), p = entmax(z, alpha), H(p) = (1 - sum p^alpha) / (alpha (alpha - 1)); its gradient is p - y.

    out: scores (B, ..., K). y: labels (B, ...), or probabilities of out's shape.
    """
    return counted(partial(of_rows, alpha=alpha), out, y, ignore_index)


def reference(out: Any, y: Any, *, alpha: float, ignore_index: int) -> list[list[tuple[float, float]]]:
    """Proposition 2 by bisection: p_i = max(0, (alpha - 1) z_i - tau)^(1 / (alpha - 1)), tau such that they sum to one."""
    rows = []
    for z, target in zip(out, y, strict=True):
        q = [float(v) for v in target] if isinstance(target, list) else [float(k == target) for k in range(len(z))]
        if not isinstance(target, list) and target == ignore_index:
            rows.append((0.0, 0.0))
            continue
        low, high = (alpha - 1) * max(z) - 1, (alpha - 1) * max(z)
        for _ in range(200):
            tau = (low + high) / 2
            p = [max(0.0, (alpha - 1) * v - tau) ** (1 / (alpha - 1)) for v in z]
            low, high = (tau, high) if sum(p) > 1 else (low, tau)
        gain = [(1 - sum(v**alpha for v in row)) / (alpha * (alpha - 1)) for row in (p, q)]
        rows.append((sum((a - b) * v for a, b, v in zip(p, q, z, strict=True)) + gain[0] - gain[1], 1.0))
    return [rows]


def is_zero_beyond_its_margin() -> bool:
    """At alpha = 1.5 the margin is 2."""
    z = torch.tensor([[2.0, 0.0, 0.0], [1.8, 0.0, 0.0]], dtype=torch.float64)
    near, far = entmax_loss(z, torch.tensor([0, 0]), alpha=1.5, ignore_index=-100)[0].values.tolist()
    return abs(near) < 1e-15 and far > 1e-6


PART = loss(
    entmax_loss,
    reference=reference,
    formula=r"(p - y) \cdot z + H_\alpha(p) - H_\alpha(y)",
    paper=Paper(
        title="Sparse Sequence-to-Sequence Models",
        authors="Ben Peters, Vlad Niculae, Andre F. T. Martins",
        year=2019,
        arxiv="1905.05702",
        equation="(9)",
    ),
    tags=Tags(soft=True, shift=True, proper=True, convex=True),
    options=(Option("alpha", 1.5, "1 would be cross-entropy, 2 is the sparsemax loss", bounds=(1.0, 2.0 + 1e-12)), IGNORED),
    uses=("activation/entmax", "activation/entmax15", "activation/sparsemax"),
    claims=(
        Claim(
            "margin",
            "the loss is 0 exactly where the label's score exceeds the others by 1 / (alpha - 1)",
            "proposition 2",
            check=is_zero_beyond_its_margin,
        ),
    ),
)
