"""Soft-root-sign: the input over a line plus a decaying exponential."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.core.part import Learn, Paper


def srs(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    # Left of 0 both sides of the fraction are multiplied by e^{x / b}, so that nothing overflows; inf / inf would be NaN.
    x = x.clamp(-1e30, 1e30)
    e = torch.exp(-x.abs() / b)
    return torch.where(x < 0, x * e, x) / torch.where(x < 0, x * e / a + 1, x / a + e)


def reference_srs(x: float, a: float, b: float) -> float:
    if x > 0:
        return 1 / (1 / a + math.exp(-x / b) / x)
    return 0.0 if x == 0 or -x / b > 700.0 else x / (x / a + math.exp(-x / b))


PART = activation(
    srs,
    cls="SRS",
    reference=reference_srs,
    summary="Soft-root-sign: smooth, bounded on both sides, with a learnt dip and a learnt ceiling (Zhou et al., 2020).",
    formula=r"x / (x / a + e^{-x / b})",
    limits=(0.0, 2.0),
    paper=Paper(
        title="Soft-Root-Sign Activation Function",
        authors="Yuan Zhou, Dandan Li, Shuwei Huo, Sun-Yuan Kung",
        year=2020,
        arxiv="2003.00547",
    ),
    learn=(Learn("a", 2.0, bounds=(0.01, 1e4)), Learn("b", 3.0, bounds=(0.01, 1e4))),
    tags=Tags(smooth=True, delicate=True),
    values={-3.0: -2.462484, -1.0: -1.116554, 0.0: 0.0, 1.0: 0.822009, 3.0: 1.606099},
    deviations=("where b is above e a the paper's denominator is 0 at some negative input; nothing keeps the two apart",),
    flops=10.0,
)
