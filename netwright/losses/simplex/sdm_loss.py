"""The SDM loss: cross-entropy of scores in units of how similar an input is to what was trained on, and how far from it."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor

from netwright.core.part import Claim, Option, Paper
from netwright.losses._kind import IGNORED, Tags, loss
from netwright.losses.simplex._by_rows import counted
from netwright.losses.simplex._by_rows import sdm_loss as of_rows
from netwright.tensor.terms import Terms


def sdm_loss(out: Tensor, y: Tensor, *, q: float, d: float, ignore_index: int) -> Terms:
    """-log of (2 + q)^(d z_y) / sum_c (2 + q)^(d z_c), to the base 2 + q, with one q and d for all.

    out: scores (B, ..., K). y: labels (B, ...). With a q and a d for every input: netwright.losses.simplex._by_rows.sdm_loss.
    """
    return counted(partial(of_rows, q=q, d=d), out, y, ignore_index)


def reference(out: Any, y: Any, *, q: float, d: float, ignore_index: int) -> list[list[tuple[float, float]]]:
    """Powers of 2 + q as they stand."""
    rows = []
    for z, label in zip(out, y, strict=True):
        powers = [(2 + q) ** (d * (v - max(z))) for v in z]
        share = powers[label] / sum(powers) if label != ignore_index else 1.0
        rows.append((-math.log(share) / math.log(2 + q), float(label != ignore_index)))
    return [rows]


def is_cross_entropy_at_base_e() -> bool:
    z = torch.tensor([[2.0, 1.0, 0.0]], dtype=torch.float64)
    got = sdm_loss(z, torch.tensor([1]), q=math.e - 2, d=1.0, ignore_index=-100)[0].values
    return abs(float(got) + float(torch.log_softmax(z, -1)[0, 1])) < 1e-12


PART = loss(
    sdm_loss,
    reference=reference,
    formula=r"-\log_{2+q} \frac{(2+q)^{d z_y}}{\sum_c (2+q)^{d z_c}}",
    paper=Paper("sdm"),
    tags=Tags(shift=True, proper=True, convex=True),
    options=(
        Option("q", math.e - 2, "similarity: how many nearest training examples agree", bounds=(-1e-12, float("inf"))),
        Option("d", 1.0, "distance: how near the training examples lie, from 0 to 1", bounds=(-1e-12, 1.0 + 1e-12)),
        IGNORED,
    ),
    values=(([[2.0, 1.0, 0.0]], [0], -math.log(0.6652409557748219)),),
    claims=(Claim("cross-entropy", "q = e - 2 and d = 1 give cross-entropy", "equation (2)", check=is_cross_entropy_at_base_e),),
    deviations=(
        "one q and one d for all inputs, as options; the paper works them out for every input from its nearest neighbours",
    ),
)
