"""A line right of 0 and a curve that saturates left of it, other than ELU's: algebraic, a tanh, a softplus, a sigmoid."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.activations._reference import reference_sigmoid
from netwright.core.part import Identity, Learn, Option, Paper

INF = math.inf
SURVEY = Paper("four-hundred-activations")


def isrlu(x: Tensor, *, a: float) -> Tensor:
    low = -(-x).relu().clamp(max=1e15)  # its square still fits float32
    return x.clamp(min=0.0) + low / torch.sqrt(1 + a * low * low)


def reference_isrlu(x: float, a: float) -> float:
    return x if x >= 0 else -1 / math.hypot(1 / x, math.sqrt(a))


ISRLU = activation(
    isrlu,
    cls="ISRLU",
    reference=reference_isrlu,
    summary="ISRLU: an inverse square root unit left of 0, the identity right of it (Carlile et al., 2017).",
    formula=r"\max(0,\,x) + \min(0,\,x) / \sqrt{1 + a \min(0,\,x)^2}",
    limits=(-1.0, math.inf),
    paper=Paper(
        title="Improving Deep Learning by Inverse Square Root Linear Units (ISRLUs)",
        authors="Brad Carlile, Guy Delamarter, Paul Kinney, Akiko Marti, Brian Whitney",
        year=2017,
        arxiv="1710.09967",
    ),
    options=(Option("a", 1.0, "curvature; the limit at -inf is -1 / sqrt(a)", bounds=(0.0, 1e6)),),
    tags=Tags(smooth=True, monotone=True, delicate=True, always=("smooth", "monotone")),
    values={-3.0: -0.948683, -1.0: -0.707107, 0.0: 0.0, 2.0: 2.0},
    identities=(Identity("activation/isru", domain=(-10.0, 0.0)), Identity("activation/relu", domain=(0.0, 10.0))),
    flops=8.0,
)


def maxtanh(x: Tensor) -> Tensor:
    return torch.maximum(x, torch.tanh(x))


def maxtanh_of_exponential(x: Tensor) -> Tensor:
    return torch.where(x >= 0, x, 2 / (1 + torch.exp(-2 * x.clamp(-20.0, 20.0))) - 1)


MAXTANH = activation(
    maxtanh,
    cls="MaxTanh",
    compiled=maxtanh_of_exponential,
    summary="MaxTanh: the larger of the input and its hyperbolic tangent",
    formula=r"\max(x,\,\tanh x)",
    reference=lambda x: x if x > 0 else math.tanh(x),
    paper=Paper(
        title="Is it Time to Swish? Comparing Deep Learning Activation Functions Across NLP tasks",
        year=2018,
        authors="Steffen Eger, Paul Youssef, Iryna Gurevych",
        arxiv="1901.02671",
    ),
    limits=(-1.0, INF),
    flops=6.0,
    tags=Tags(smooth=True, monotone=True),
    values={-1.0: -0.761594, 2.0: 2.0},
)


def trelu(x: Tensor, b: Tensor) -> Tensor:
    return torch.where(x >= 0, x, torch.tanh(b * x))


def trelu_of_exponential(x: Tensor, b: Tensor) -> Tensor:
    """tanh(u) = 2 / (1 + exp(-2 u)) - 1; beyond |u| = 20 it is 1 or -1 in float32."""
    return torch.where(x >= 0, x, 2 / (1 + torch.exp(-2 * (b * x).clamp(-20.0, 20.0))) - 1)


TRELU = activation(
    trelu,
    cls="TReLU",
    compiled=trelu_of_exponential,
    summary="TReLU: the identity from 0 on, a hyperbolic tangent of learnt steepness below",
    formula=r"x \text{ for } x \geq 0,\; \tanh(b x) \text{ below}",
    paper=SURVEY,
    reference=lambda x, b: x if x >= 0 else math.tanh(b * x),
    learn=(Learn("b", 1.0),),
    limits=(-1.0, INF),
    flops=6.0,
    tags=Tags(smooth=True, monotone=True, delicate=True),
    values={-1.0: -0.761594, 2.0: 2.0},
    equals_at_init=("activation/maxtanh",),
)


def slu(x: Tensor) -> Tensor:
    return torch.where(x >= 0, x, 2 * torch.log1p(torch.expm1(x.clamp(max=0.0)) / 2))


def slu_of_log(x: Tensor) -> Tensor:
    return torch.where(x >= 0, x, 2 * torch.log((1 + torch.exp(x.clamp(max=0.0))) / 2))


SLU = activation(
    slu,
    cls="SLU",
    compiled=slu_of_log,
    summary="SLU: the identity from 0 on, a shifted softplus below",
    formula=r"x \text{ for } x \geq 0,\; 2 \ln((e^x + 1) / 2) \text{ below}",
    reference=lambda x: x if x >= 0 else 2 * math.log1p(math.expm1(x) / 2),
    paper=Paper(
        title="A novel softplus linear unit for deep convolutional neural networks",
        year=2018,
        authors="Huizhen Zhao, Fuxian Liu, Longyue Li, Chang Luo",
        venue="Applied Intelligence",
    ),
    limits=(-2 * math.log(2), INF),
    flops=6.0,
    tags=Tags(smooth=True, monotone=True, delicate=True),
    values={-1.0: -0.759771, 2.0: 2.0},
)


def maxsig(x: Tensor) -> Tensor:
    return torch.maximum(x, torch.sigmoid(x))


MAXSIG = activation(
    maxsig,
    cls="MaxSig",
    summary="MaxSig: the larger of the input and its sigmoid",
    formula=r"\max(x,\,\sigma(x))",
    reference=lambda x: max(x, reference_sigmoid(x)),
    paper=Paper(
        title="Is it Time to Swish? Comparing Deep Learning Activation Functions Across NLP tasks",
        year=2018,
        authors="Steffen Eger, Paul Youssef, Iryna Gurevych",
        arxiv="1901.02671",
    ),
    limits=(0.0, INF),
    flops=5.0,
    tags=Tags(monotone=True, kinks=(0.659046068,)),
    values={0.0: 0.5, -1.0: 0.268941, 2.0: 2.0},
)

PARTS = (ISRLU, MAXTANH, TRELU, SLU, MAXSIG)
