"""Exponential linear units: a line right of 0, a saturating exponential left of it."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.core.part import Identity, Learn, Option, Paper


def elu(x: Tensor, *, a: float) -> Tensor:
    return F.elu(x, a)


def reference_elu(x: float, a: float) -> float:
    return x if x > 0 else a * math.expm1(x)


ELU = activation(
    elu,
    cls="ELU",
    reference=reference_elu,
    summary="ELU: an exponential that saturates at -a for negative inputs (Clevert, Unterthiner and Hochreiter, 2015).",
    formula=r"\max(0,\,x) + a \min(0,\,e^x - 1)",
    limits=(-1.0, math.inf),
    paper=Paper(
        title="Fast and Accurate Deep Network Learning by Exponential Linear Units (ELUs)",
        authors="Djork-Arné Clevert, Thomas Unterthiner, Sepp Hochreiter",
        year=2015,
        arxiv="1511.07289",
    ),
    options=(Option("a", 1.0, "minus the limit at -inf; only at 1 there is no kink at 0", bounds=(0.0, math.inf)),),
    tags=Tags(smooth=True, monotone=True, always=("monotone",)),
    values={-3.0: -0.950213, -1.0: -0.632121, -0.5: -0.393469, 0.0: 0.0, 2.0: 2.0},
    identities=(Identity("activation/monotonic-concave", scale_x=-1.0, scale_y=-1.0),),
    flops=3.0,
)


def celu(x: Tensor, *, a: float) -> Tensor:
    return F.celu(x, a)


def reference_celu(x: float, a: float) -> float:
    return max(0.0, x) + min(0.0, a * math.expm1(min(x, 0.0) / a))


CELU = activation(
    celu,
    cls="CELU",
    reference=reference_celu,
    summary="CELU: an ELU without kink at any a, its exponential stretched along with it (Barron, 2017).",
    formula=r"\max(0,\,x) + \min(0,\,a (e^{x / a} - 1))",
    limits=(-1.0, math.inf),
    paper=Paper(
        title="Continuously Differentiable Exponential Linear Units", authors="Jonathan T. Barron", year=2017, arxiv="1704.07483"
    ),
    options=(Option("a", 1.0, "minus the limit at -inf", bounds=(0.0, math.inf)),),
    tags=Tags(smooth=True, monotone=True, always=("smooth", "monotone")),
    values={-3.0: -0.950213, -1.0: -0.632121, 0.0: 0.0, 2.0: 2.0},
    identities=(Identity("activation/elu", options={"a": 2.0}, scale_x=0.5, scale_y=2.0),),
    equals_at_init=("activation/elu",),
    flops=4.0,
)


def pelu(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return a / b * x.clamp(min=0.0) + a * torch.expm1(-(-x).relu() / b)


def reference_pelu(x: float, a: float, b: float) -> float:
    return a * x / b if x > 0 else a * math.expm1(x / b)


PELU = activation(
    pelu,
    cls="PELU",
    reference=reference_pelu,
    summary="PELU: an ELU whose scale and decay are learnt together, without kink (Trottier, Giguère and Chaib-draa, 2016).",
    formula=r"(a / b) \max(0,\,x) + a \min(0,\,e^{x / b} - 1)",
    limits=(-1.0, math.inf),
    paper=Paper(
        title="Parametric Exponential Linear Unit for Deep Convolutional Neural Networks",
        authors="Ludovic Trottier, Philippe Giguère, Brahim Chaib-draa",
        year=2016,
        arxiv="1605.09332",
    ),
    learn=(Learn("a", 1.0, bounds=(0.01, 1e4)), Learn("b", 1.0, bounds=(0.01, 1e4))),
    tags=Tags(smooth=True, monotone=True, delicate=True, always=("smooth", "monotone")),
    values={-3.0: -0.950213, -1.0: -0.632121, 0.0: 0.0, 2.0: 2.0},
    identities=(Identity("activation/celu", options={"a": 2.0, "b": 2.0}, other_options={"a": 2.0}),),
    equals_at_init=("activation/elu", "activation/celu"),
    deviations=("a and b, which the paper keeps positive, are kept from 0.01 to 10000",),
    flops=6.0,
)


def mpelu(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return x.clamp(min=0.0) + a * torch.expm1(-b * (-x).relu())


def reference_mpelu(x: float, a: float, b: float) -> float:
    return x if x > 0 else a * math.expm1(b * x)


MPELU = activation(
    mpelu,
    cls="MPELU",
    reference=reference_mpelu,
    summary="MPELU: an ELU whose negative part has a learnt scale and a learnt decay (Li et al., 2016).",
    formula=r"\max(0,\,x) + a \min(0,\,e^{b x} - 1)",
    limits=(-1.0, math.inf),
    paper=Paper(
        title="Improving Deep Neural Network with Multiple Parametric Exponential Linear Units",
        authors="Yang Li, Chunxiao Fan, Yong Li, Qiong Wu, Yue Ming",
        year=2016,
        arxiv="1606.00305",
    ),
    learn=(Learn("a", 1.0, decay=True), Learn("b", 1.0, bounds=(0.0, 1e4), decay=True)),
    tags=Tags(smooth=True, monotone=True, delicate=True),
    values={-3.0: -0.950213, -1.0: -0.632121, 0.0: 0.0, 2.0: 2.0},
    identities=(
        Identity("activation/elu", options={"a": 1.5}, other_options={"a": 1.5}),
        Identity("activation/celu", options={"a": 2.0, "b": 0.5}, other_options={"a": 2.0}),
        Identity("activation/relu", options={"a": 0.0}, tolerance=0.0),
    ),
    equals_at_init=("activation/elu", "activation/celu", "activation/pelu"),
    flops=6.0,
)

PARTS = (ELU, CELU, PELU, MPELU)
