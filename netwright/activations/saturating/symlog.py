"""A logarithm on both sides of 0, and its inverse."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.core.part import Paper

INF = math.inf


DREAMER = Paper(
    title="Mastering Diverse Domains through World Models",
    authors="Danijar Hafner, Jurgis Pasukonis, Jimmy Ba, Timothy Lillicrap",
    year=2023,
    arxiv="2301.04104",
)


def symlog(x: Tensor) -> Tensor:
    return torch.where(x >= 0, torch.log1p(x.clamp(min=0.0)), -torch.log1p(-x.clamp(max=0.0)))


def symlog_of_log(x: Tensor) -> Tensor:
    return torch.where(x >= 0, torch.log(1 + x.clamp(min=0.0)), -torch.log(1 - x.clamp(max=0.0)))


SYMLOG = activation(
    symlog,
    cls="Symlog",
    compiled=symlog_of_log,
    summary="Symlog: a logarithm on both sides of 0",
    formula=r"\mathrm{sign}(x) \ln(|x| + 1)",
    reference=lambda x: math.copysign(math.log1p(abs(x)), x),
    paper=DREAMER,
    limits=(-INF, INF),
    flops=6.0,
    tags=Tags(smooth=True, monotone=True, odd=True, delicate=True),
    values={-1.0: -0.693147, 100.0: 4.615121},
    equals_at_init=("activation/safs",),
)


def symexp(x: Tensor) -> Tensor:
    return torch.where(x >= 0, torch.expm1(x.clamp(min=0.0)), -torch.expm1(-x.clamp(max=0.0)))


def symexp_reference(x: float) -> float:
    return math.copysign(math.expm1(abs(x)) if abs(x) < 709 else INF, x)


SYMEXP = activation(
    symexp,
    cls="Symexp",
    summary="Symexp: an exponential on both sides of 0, the inverse of symlog",
    formula=r"\mathrm{sign}(x) (e^{|x|} - 1)",
    reference=symexp_reference,
    paper=DREAMER,
    limits=(-INF, INF),
    flops=6.0,
    tags=Tags(
        smooth=True,
        monotone=True,
        odd=True,
        delicate=True,
        reasons={"smooth": "its slope grows by 5e8 a unit at x = 20, which is taken for a jump"},
    ),
    values={-1.0: -1.718282, 0.693147181: 1.0},
)

PARTS = (SYMLOG, SYMEXP)
