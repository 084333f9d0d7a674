"""Straight pieces between corners that are given: leaky, mirrored, bounded from above or on both sides."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.core.part import Identity, Option, Paper

INF = math.inf


def leaky_relu(x: Tensor, *, a: float) -> Tensor:
    return F.leaky_relu(x, a)


def reference_leaky_relu(x: float, a: float) -> float:
    return max(x, 0.0) + a * min(x, 0.0)


LEAKY_RELU = activation(
    leaky_relu,
    cls="LeakyReLU",
    native=True,
    reference=reference_leaky_relu,
    summary="Leaky ReLU: a small slope in place of 0 for negative inputs (Maas, Hannun and Ng, 2013).",
    formula=r"\max(0,\,x) + a \min(0,\,x)",
    limits=(-math.inf, math.inf),
    paper=Paper(
        title="Rectifier Nonlinearities Improve Neural Network Acoustic Models",
        authors="Andrew L. Maas, Awni Y. Hannun, Andrew Y. Ng",
        year=2013,
        venue="ICML workshop",
    ),
    options=(Option("a", 0.01, "slope for negative inputs", search=(0.003, 0.3, "log")),),
    tags=Tags(monotone=True, kinks=(0.0,)),
    values={-3.0: -0.03, -1.0: -0.01, 0.0: 0.0, 2.0: 2.0},
    identities=(
        Identity("activation/prelu", other_options={"a": 0.01}),
        Identity("activation/relu", options={"a": 0.0}, tolerance=0.0),
    ),
    flops=2.0,
)


def absolute(x: Tensor) -> Tensor:
    return x.abs()


def reference_absolute(x: float) -> float:
    return math.sqrt(x * x)


ABS = activation(
    absolute,
    name="abs",
    cls="Abs",
    reference=reference_absolute,
    summary="The absolute value, as rectification in feature extraction (Jarrett et al., 2009).",
    formula=r"|x|",
    limits=(math.inf, math.inf),
    paper=Paper(
        title="What is the best multi-stage architecture for object recognition?",
        authors="Kevin Jarrett, Koray Kavukcuoglu, Marc'Aurelio Ranzato, Yann LeCun",
        year=2009,
        venue="ICCV",
    ),
    tags=Tags(even=True, kinks=(0.0,)),
    values={-3.0: 3.0, 0.0: 0.0, 0.5: 0.5},
    identities=(Identity("activation/prelu", other_options={"a": -1.0}, tolerance=0.0),),
)


def relu6(x: Tensor) -> Tensor:
    return x.clamp(0.0, 6.0)


def reference_relu6(x: float) -> float:
    return min(max(x, 0.0), 6.0)


RELU6 = activation(
    relu6,
    cls="ReLU6",
    reference=reference_relu6,
    summary="ReLU6: a rectifier that stops at 6 (Krizhevsky, 2010).",
    formula=r"\min(\max(0,\,x),\,6)",
    limits=(0.0, 6.0),
    paper=Paper(title="Convolutional Deep Belief Networks on CIFAR-10", authors="Alex Krizhevsky", year=2010),
    tags=Tags(monotone=True, kinks=(0.0, 6.0)),
    values={-3.0: 0.0, 0.0: 0.0, 0.5: 0.5, 5.0: 5.0, 7.0: 6.0},
    flops=2.0,
    identities=(Identity("activation/relu", tolerance=0.0, domain=(-10.0, 6.0)),),
)


def brelu(x: Tensor, *, a: float) -> Tensor:
    return x.clamp(0.0, a)


BRELU = activation(
    brelu,
    cls="BReLU",
    summary="BReLU: ReLU bounded from above",
    formula=r"\min(\max(0,\,x),\,a)",
    reference=lambda x, a: min(max(0.0, x), a),
    paper=Paper(
        title="Bounded activation functions for enhanced training stability of deep neural networks on visual "
        "pattern recognition problems",
        authors="S. S. Liew, M. Khalil-Hani, R. Bakhteri",
        year=2016,
    ),
    options=(Option("a", 1.0, "the largest output", bounds=(0.0, INF)),),
    limits=(0.0, 1.0),
    flops=2.0,
    tags=Tags(monotone=True, kinks=(0.0, 1.0), always=("monotone",)),
    values={-2.0: 0.0, 0.5: 0.5, 3.0: 1.0},
    identities=(Identity("activation/relu6", options={"a": 6.0}),),
)


def plu(x: Tensor, *, alpha: float, c: float) -> Tensor:
    return torch.maximum(alpha * (x + c) - c, torch.minimum(alpha * (x - c) + c, x))


def plu_reference(x: float, alpha: float, c: float) -> float:
    return x if abs(x) <= c else math.copysign(c + alpha * (abs(x) - c), x)


PLU = activation(
    plu,
    cls="PLU",
    summary="PLU: the identity between -c and c, straight lines of a small slope outside",
    formula=r"\max(\alpha (x + c) - c,\, \min(\alpha (x - c) + c,\, x))",
    reference=plu_reference,
    paper=Paper(
        title="PLU: The Piecewise Linear Unit Activation Function", authors="Andrei Nicolae", year=2018, arxiv="1809.09534"
    ),
    options=(
        Option("alpha", 0.1, "slope outside [-c, c]", bounds=(0.0, 1.0)),
        Option("c", 1.0, "where the slope changes", bounds=(0.0, INF)),
    ),
    limits=(-INF, INF),
    flops=8.0,
    values={-3.0: -1.2, 0.5: 0.5, 2.0: 1.1},
    tags=Tags(monotone=True, odd=True, kinks=(-1.0, 1.0), delicate=True, always=("monotone", "odd")),
)

PARTS = (LEAKY_RELU, ABS, RELU6, BRELU, PLU)
