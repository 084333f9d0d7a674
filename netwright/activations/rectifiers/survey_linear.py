"""Rectifiers of straight lines, and one of a parabola between two."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.core.part import Identity, Option, Paper


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


def hard_swish(x: Tensor) -> Tensor:
    return torch.where(x > -3.0, x * ((x + 3) / 6).clamp(0.0, 1.0), 0.0)  # not -inf * 0


def reference_hard_swish(x: float) -> float:
    if abs(x) >= 3:
        return max(x, 0.0)
    return x * (x + 3) / 6


HARD_SWISH = activation(
    hard_swish,
    cls="HardSwish",
    reference=reference_hard_swish,
    summary="Hard Swish: x times a ramp in place of its sigmoid (Howard et al., 2019).",
    formula=r"x \min(1,\,\max(0,\,x / 6 + 1/2))",
    limits=(0.0, math.inf),
    paper=Paper(
        title="Searching for MobileNetV3",
        authors="Andrew Howard, Mark Sandler, Grace Chu, Liang-Chieh Chen, Bo Chen, Mingxing Tan, Weijun Wang, Yukun Zhu, "
        "Ruoming Pang, Vijay Vasudevan, Quoc V. Le, Hartwig Adam",
        year=2019,
        arxiv="1905.02244",
    ),
    tags=Tags(kinks=(-3.0, 3.0), delicate=True),
    values={-3.0: 0.0, -1.5: -0.375, -1.0: -0.333333, 0.0: 0.0, 1.0: 0.666667, 3.0: 3.0},
    identities=(Identity("activation/relu", domain=(3.0, 10.0)), Identity("activation/relu", domain=(-10.0, -3.0))),
    flops=6.0,
)


PARTS = (LEAKY_RELU, RELU6, ABS, HARD_SWISH)
