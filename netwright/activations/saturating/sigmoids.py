"""Smooth steps by what they are made of: the logistic curve and SiLU's slope, quotients, the arctangent, the error function."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.core.part import Identity, Option, Paper

SURVEY = Paper("four-hundred-activations")
#: Beyond it squares overflow in float32 and quotients have long reached their limit.
FAR = 1e15


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


def dsilu(x: Tensor) -> Tensor:
    gate = torch.sigmoid(x)
    slope = gate * torch.sigmoid(-x)
    return gate + torch.where(slope > 0, x * slope, 0.0)  # not inf * 0


def dsilu_reference(x: float) -> float:
    e = math.exp(-abs(x))
    if e == 0:
        return 1.0 if x > 0 else 0.0
    return (1 + e + x * e) / (1 + e) ** 2 if x >= 0 else e * (1 + e + x) / (1 + e) ** 2


DSILU = activation(
    dsilu,
    cls="DSiLU",
    summary="dSiLU: the derivative of SiLU, a step that overshoots on both sides",
    formula=r"\sigma(x) (1 + x (1 - \sigma(x)))",
    reference=dsilu_reference,
    paper=Paper(
        title="Sigmoid-Weighted Linear Units for Neural Network Function Approximation in Reinforcement Learning",
        authors="Stefan Elfwing, Eiji Uchibe, Kenji Doya",
        year=2017,
        arxiv="1702.03118",
    ),
    limits=(0.0, 1.0),
    flops=10.0,
    tags=Tags(smooth=True, delicate=True),
    values={0.0: 0.5, 1.0: 0.927671, -1.0: 0.072329},
)


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


def arctan(x: Tensor) -> Tensor:
    return torch.atan(x)


ARCTAN = activation(
    arctan,
    cls="Arctan",
    summary="Arctan: the inverse tangent, a slowly saturating step",
    formula=r"\arctan x",
    paper=SURVEY,
    reference=lambda x: math.copysign(math.pi / 2 - math.atan2(1.0, abs(x)), x) if abs(x) > 1 else math.atan2(x, 1.0),
    limits=(-math.pi / 2, math.pi / 2),
    flops=8.0,
    tags=Tags(smooth=True, monotone=True, odd=True),
    values={0.0: 0.0, 1.0: 0.785398},
)


def erf(x: Tensor) -> Tensor:
    return torch.erf(x)


ERF = activation(
    erf,
    cls="Erf",
    summary="Erf: the error function, the step of the normal distribution",
    formula=r"\mathrm{erf}\,x",
    reference=lambda x: math.copysign(1 - math.erfc(abs(x)), x) if abs(x) > 1 else math.erf(x),
    paper=Paper(title="Computing with Infinite Networks", authors="Christopher K. I. Williams", year=1996),
    limits=(-1.0, 1.0),
    flops=6.0,
    tags=Tags(smooth=True, monotone=True, odd=True, delicate=True),
    values={0.0: 0.0, 1.0: 0.842701},
)

PARTS = (SIGMOID, DSILU, SOFTSIGN, ISRU, ARCTAN, ERF)
