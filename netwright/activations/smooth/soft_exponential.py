"""Soft exponential: a logarithm, the identity or an exponential, by one learnt number."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.core.part import Learn, Paper

INF = math.inf
LEAST = 2.0**-20  # of the logarithm's argument; exact in every dtype it is computed in


def soft_exponential(x: Tensor, a: Tensor) -> Tensor:
    # Each branch gets an argument that overflows neither there nor, multiplied by 0, in the gradient of the others.
    divisor = torch.where(a == 0, 1.0, a)
    rising = torch.expm1(torch.where(a > 0, a * x, 0.0)) / divisor + a
    bending = -torch.log1p(torch.where(a < 0, -a * (x + a), 0.0).clamp(min=LEAST - 1)) / divisor
    straight = x + a * (1 + x.clamp(-1e4, 1e4).square() / 2)  # to first order in a, so that a can leave 0
    return torch.where(a > 0, rising, torch.where(a < 0, bending, straight))


def soft_exponential_reference(x: float, a: float) -> float:
    if a < 0:
        return -math.log(max(LEAST, 1 - a * (x + a))) / a
    if a > 0:
        return math.expm1(a * x) / a + a if a * x < 709 else INF
    return x


PART = activation(
    soft_exponential,
    cls="SoftExponential",
    summary="Soft exponential: from a logarithm over a line to an exponential, learnt",
    formula=r"-\ln(1 - a (x + a)) / a \;(a < 0),\quad x \;(a = 0),\quad (e^{a x} - 1) / a + a \;(a > 0)",
    reference=soft_exponential_reference,
    paper=Paper(
        title="A continuum among logarithmic, linear, and exponential functions, and its potential to improve "
        "generalization in neural networks",
        authors="Luke B. Godfrey, Michael S. Gashler",
        year=2015,
        arxiv="1602.01321",
    ),
    learn=(Learn("a", 0.0),),
    limits=(-INF, INF),
    flops=12.0,
    values={-2.0: -2.0, 3.0: 3.0},
    tags=Tags(smooth=True, monotone=True, odd=True, delicate=True),
    deviations=(
        "the logarithm's argument is kept at least 2^-20; the paper's function ends where it reaches 0",
        "starts at a = 0, the identity",
    ),
)
