"""Shrinkage: inputs below a bound become 0, the others are moved towards it or kept."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.core.part import Option, Paper

INF = math.inf
SURVEY = Paper("four-hundred-activations")
BOUND = (Option("bound", 0.5, "inputs up to this magnitude give 0", bounds=(0.0, INF)),)


def softshrink(x: Tensor, *, bound: float) -> Tensor:
    return (x - bound).clamp(min=0.0) + (x + bound).clamp(max=0.0)


SOFTSHRINK = activation(
    softshrink,
    cls="Softshrink",
    summary="Softshrink: soft thresholding, every input moved towards 0",
    formula=r"\mathrm{sign}(x) \max(0,\,|x| - b)",
    options=BOUND,
    paper=SURVEY,
    reference=lambda x, bound: math.copysign(max(abs(x) - bound, 0.0), x),
    limits=(-INF, INF),
    flops=4.0,
    tags=Tags(monotone=True, odd=True, kinks=(-0.5, 0.5), always=("monotone", "odd")),
    values={-2.0: -1.5, 0.25: 0.0},
)


def hardshrink(x: Tensor, *, bound: float) -> Tensor:
    return torch.where(x.abs() > bound, x, 0.0)


HARDSHRINK = activation(
    hardshrink,
    cls="Hardshrink",
    summary="Hardshrink: hard thresholding, small inputs set to 0 and the others kept",
    formula=r"x \text{ where } |x| > b,\; 0 \text{ elsewhere}",
    options=BOUND,
    paper=SURVEY,
    reference=lambda x, bound: 0.0 if -bound <= x <= bound else x,
    limits=(-INF, INF),
    flops=2.0,
    tags=Tags(monotone=True, odd=True, kinks=(-0.5, 0.5), always=("monotone", "odd")),
    values={-2.0: -2.0, 0.25: 0.0},
)

PARTS = (SOFTSHRINK, HARDSHRINK)
