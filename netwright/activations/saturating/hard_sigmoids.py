"""Sigmoids of polynomial pieces, flat beyond a corner."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.core.part import Identity, Option, Paper

SURVEY = Paper("four-hundred-activations")


def hardtanh(x: Tensor) -> Tensor:
    return F.hardtanh(x)


def reference_hardtanh(x: float) -> float:
    return min(1.0, max(-1.0, x))


HARDTANH = activation(
    hardtanh,
    cls="Hardtanh",
    native=True,
    reference=reference_hardtanh,
    summary="Hard tanh: the input clipped to [-1, 1] (Collobert, 2004).",
    formula=r"\min(1,\,\max(-1,\,x))",
    limits=(-1.0, 1.0),
    paper=Paper(title="Large Scale Machine Learning", authors="Ronan Collobert", year=2004, venue="PhD thesis, Paris VI"),
    tags=Tags(monotone=True, odd=True, kinks=(-1.0, 1.0)),
    values={-3.0: -1.0, -0.5: -0.5, 0.0: 0.0, 0.5: 0.5, 3.0: 1.0},
    identities=(Identity("activation/monotonic-saturated", other_options={"base": "relu"}, tolerance=0.0),),
    flops=2.0,
)


def hard_sigmoid(x: Tensor, *, width: float) -> Tensor:
    return ((x + width) / (2 * width)).clamp(0.0, 1.0)


def reference_hard_sigmoid(x: float, width: float) -> float:
    if abs(x) >= width:
        return float(x > 0)
    return 0.5 + x / (2 * width) if abs(x) < width / 2 else (width + x) / (2 * width)


HARD_SIGMOID = activation(
    hard_sigmoid,
    cls="HardSigmoid",
    reference=reference_hard_sigmoid,
    summary="A ramp from 0 to 1 in place of the sigmoid (Courbariaux, Bengio and David, 2015; Howard et al., 2019).",
    formula=r"\min(1,\,\max(0,\,x / (2 w) + 1/2))",
    limits=(0.0, 1.0),
    paper=Paper(
        title="Searching for MobileNetV3",
        authors="Andrew Howard, Mark Sandler, Grace Chu, Liang-Chieh Chen, Bo Chen, Mingxing Tan, Weijun Wang, Yukun Zhu, "
        "Ruoming Pang, Vijay Vasudevan, Quoc V. Le, Hartwig Adam",
        year=2019,
        arxiv="1905.02244",
    ),
    options=(
        Option(
            "width",
            3.0,
            "half-width of the ramp: 3 as in MobileNetV3 and torch.nn.Hardsigmoid, 2.5 as in early Keras, 1 as in BinaryConnect",
            bounds=(0.0, math.inf),
        ),
    ),
    tags=Tags(monotone=True, kinks=(-3.0, 3.0), delicate=True, always=("monotone",)),
    values={-3.0: 0.0, -1.0: 0.333333, 0.0: 0.5, 1.5: 0.75, 3.0: 1.0},
    flops=4.0,
)


def sqnl(x: Tensor) -> Tensor:
    c = x.clamp(-2.0, 2.0)
    return c * (1 - c.abs() / 4)


def sqnl_reference(x: float) -> float:
    if abs(x) > 2:
        return math.copysign(1.0, x)
    return x - x * x / 4 if x >= 0 else x + x * x / 4


SQNL = activation(
    sqnl,
    cls="SQNL",
    summary="SQNL: two parabolas that meet at 0 and end flat at -2 and 2",
    formula=r"x - x |x| / 4 \text{ for } |x| \leq 2,\; \mathrm{sign}(x) \text{ beyond}",
    reference=sqnl_reference,
    paper=SURVEY,
    limits=(-1.0, 1.0),
    flops=5.0,
    tags=Tags(smooth=True, monotone=True, odd=True, delicate=True),
    values={-1.0: -0.75, 0.5: 0.4375, 3.0: 1.0},
)

PARTS = (HARDTANH, HARD_SIGMOID, SQNL)
