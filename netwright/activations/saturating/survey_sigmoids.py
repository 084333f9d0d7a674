"""Bounded, or bounded on one side, and monotone: the classical sigmoids."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.core.part import Identity, Option, Paper

#: Beyond it squares overflow in float32 and quotients have long reached their limit.
FAR = 1e15


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


def tanh(x: Tensor) -> Tensor:
    return torch.tanh(x)


def tanh_of_a_sigmoid(x: Tensor) -> Tensor:
    """2 sigmoid(2x) - 1, and where that cancels the series of tanh: several times faster once compiled."""
    u = x * x
    series = x * (1 - u * (1 / 3 - u * (2 / 15 - u * 17 / 315)))
    return torch.where(x.abs() < 0.1, series, 2 * torch.sigmoid(2 * x) - 1)


def reference_tanh(x: float) -> float:
    e = math.expm1(-2 * abs(x))
    return math.copysign(e / (e + 2), x) if x else 0.0


TANH = activation(
    tanh,
    compiled=tanh_of_a_sigmoid,
    cls="Tanh",
    native=True,
    reference=reference_tanh,
    summary="The hyperbolic tangent: a sigmoid between -1 and 1, odd, of slope 1 at 0.",
    formula=r"\tanh(x)",
    limits=(-1.0, 1.0),
    paper=Paper(
        title="Why Tanh: Choosing a Sigmoidal Function", authors="Barry L. Kalman, Stan C. Kwasny", year=1992, venue="IJCNN"
    ),
    tags=Tags(smooth=True, monotone=True, odd=True),
    values={-3.0: -0.995055, -1.0: -0.761594, 0.0: 0.0, 0.5: 0.462117, 2.0: 0.964028},
    equals_at_init=("activation/tempered-sigmoid",),
    flops=4.0,
)


def sigmoid(x: Tensor) -> Tensor:
    return torch.sigmoid(x)


def reference_sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > -700.0 else math.exp(x)


SIGMOID = activation(
    sigmoid,
    cls="Sigmoid",
    native=True,
    reference=reference_sigmoid,
    summary="The logistic sigmoid: between 0 and 1, and 1/2 at 0 (Rumelhart, Hinton and Williams, 1986).",
    formula=r"1 / (1 + e^{-x})",
    limits=(0.0, 1.0),
    paper=Paper(
        title="Learning representations by back-propagating errors",
        authors="David E. Rumelhart, Geoffrey E. Hinton, Ronald J. Williams",
        year=1986,
        venue="Nature",
        equation="(2)",
    ),
    tags=Tags(smooth=True, monotone=True),
    values={-3.0: 0.047426, -1.0: 0.268941, 0.0: 0.5, 1.0: 0.731059, 3.0: 0.952574},
    identities=(Identity("activation/tempered-sigmoid", other_options={"s": 1.0, "T": 1.0, "o": 0.0}),),
    flops=3.0,
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
    options=(Option("width", 3.0, "half-width of the ramp: 3 as in MobileNetV3 and torch.nn.Hardsigmoid, 2.5 as in early Keras, "
                    "1 as in BinaryConnect", bounds=(0.0, math.inf)),),
    tags=Tags(monotone=True, kinks=(-3.0, 3.0), delicate=True, always=("monotone",)),
    values={-3.0: 0.0, -1.0: 0.333333, 0.0: 0.5, 1.5: 0.75, 3.0: 1.0},
    flops=4.0,
)  # fmt: skip


def softsign(x: Tensor) -> Tensor:
    x = x.clamp(-FAR, FAR)  # inf / inf is NaN
    return x / (1 + x.abs())


def reference_softsign(x: float) -> float:
    return math.copysign(1 / (1 + 1 / abs(x)), x) if x else 0.0


SOFTSIGN = activation(
    softsign,
    cls="Softsign",
    reference=reference_softsign,
    summary="Softsign: a sigmoid whose tails are polynomial (Turian, Bergstra and Bengio, 2009).",
    formula=r"x / (1 + |x|)",
    limits=(-1.0, 1.0),
    paper=Paper(
        title="Quadratic Features and Deep Architectures for Chunking",
        authors="Joseph Turian, James Bergstra, Yoshua Bengio",
        year=2009,
        venue="NAACL-HLT",
    ),
    tags=Tags(smooth=True, monotone=True, odd=True, delicate=True),
    values={-3.0: -0.75, -1.0: -0.5, 0.0: 0.0, 0.5: 0.333333, 3.0: 0.75},
    flops=4.0,
)


def isru(x: Tensor, *, a: float) -> Tensor:
    x = x.clamp(-FAR, FAR)
    return x / torch.sqrt(1 + a * x * x)


def reference_isru(x: float, a: float) -> float:
    return math.copysign(1 / math.hypot(1 / x, math.sqrt(a)), x) if x else 0.0


ISRU = activation(
    isru,
    cls="ISRU",
    reference=reference_isru,
    summary="ISRU: an algebraic sigmoid, bounded by 1 / sqrt(a) (Carlile et al., 2017).",
    formula=r"x / \sqrt{1 + a x^2}",
    limits=(-1.0, 1.0),
    paper=Paper(
        title="Improving Deep Learning by Inverse Square Root Linear Units (ISRLUs)",
        authors="Brad Carlile, Guy Delamarter, Paul Kinney, Akiko Marti, Brian Whitney",
        year=2017,
        arxiv="1710.09967",
    ),
    options=(Option("a", 1.0, "curvature; the output saturates at 1 / sqrt(a)", bounds=(0.0, 1e6)),),
    tags=Tags(smooth=True, monotone=True, odd=True, delicate=True, always=("smooth", "monotone", "odd")),
    values={-3.0: -0.948683, -1.0: -0.707107, 0.0: 0.0, 0.5: 0.447214, 3.0: 0.948683},
    flops=6.0,
)

PARTS = (HARDTANH, TANH, SIGMOID, HARD_SIGMOID, SOFTSIGN, ISRU)
