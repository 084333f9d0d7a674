"""Softplus, the logarithm of a sigmoid that is its mirror image, and a difference of two."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.activations._reference import reference_softplus
from netwright.core.part import Identity, Learn, Option, Paper

INF = math.inf
SURVEY = Paper("four-hundred-activations")


def quick_softplus(x: Tensor) -> Tensor:
    """ln(1 + e^x) of exp and log: several times faster once compiled, and exact to rounding of 1."""
    return torch.where(x > 20.0, x, torch.log(1 + torch.exp(x.clamp(max=20.0))))


def softplus(x: Tensor, *, beta: float) -> Tensor:
    return F.softplus(x, beta)


def softplus_of_exp_and_log(x: Tensor, *, beta: float) -> Tensor:
    return quick_softplus(beta * x) / beta


def reference_softplus_of(x: float, beta: float) -> float:
    return reference_softplus(beta * x) / beta


SOFTPLUS = activation(
    softplus,
    compiled=softplus_of_exp_and_log,
    cls="Softplus",
    reference=reference_softplus_of,
    summary="Softplus: a smooth, positive ReLU, the integral of the sigmoid (Dugas et al., 2000).",
    formula=r"\ln(1 + e^{\beta x}) / \beta",
    limits=(0.0, math.inf),
    paper=Paper(
        title="Incorporating Second-Order Functional Knowledge for Better Option Pricing",
        authors="Charles Dugas, Yoshua Bengio, François Bélisle, Claude Nadeau, René Garcia",
        year=2000,
        venue="NIPS",
    ),
    options=(Option("beta", 1.0, "steepness; large ones approach ReLU", bounds=(0.0, math.inf), search=(0.5, 20.0, "log")),),
    tags=Tags(smooth=True, monotone=True, delicate=True, always=("smooth", "monotone")),
    values={-3.0: 0.048587, -1.0: 0.313262, 0.0: 0.693147, 1.0: 1.313262, 3.0: 3.048587},
    flops=5.0,
)


def logsigmoid(x: Tensor) -> Tensor:
    return F.logsigmoid(x)


def logsigmoid_of_log(x: Tensor) -> Tensor:
    return x.clamp(max=0.0) - torch.log(1 + torch.exp(-x.abs()))


LOGSIGMOID = activation(
    logsigmoid,
    cls="LogSigmoid",
    compiled=logsigmoid_of_log,
    summary="Log-sigmoid: the logarithm of the logistic sigmoid",
    formula=r"\ln \sigma(x)",
    reference=lambda x: -reference_softplus(-x),
    paper=SURVEY,
    limits=(-INF, 0.0),
    flops=5.0,
    tags=Tags(smooth=True, monotone=True),
    values={0.0: -0.693147, 1.0: -0.313262, -2.0: -2.126928},
    identities=(Identity("activation/softplus", scale_x=-1.0, scale_y=-1.0),),
)


def uaf(x: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor, e: Tensor) -> Tensor:
    bend = c * x.clamp(-1e15, 1e15).square()
    p, q = a * (x + b) + bend, d * (x - b)
    gap = (a - d) * x + (a + d) * b + bend  # p - q
    # softplus(p) - softplus(q) cancels where p and q are close or both large.
    near = torch.log1p(torch.sigmoid(q) * torch.expm1(gap.clamp(-1.0, 1.0)))
    straight = torch.where((p > 0) & (q > 0), gap, torch.relu(p) - torch.relu(q))
    far = straight + torch.log1p(torch.exp(-p.abs())) - torch.log1p(torch.exp(-q.abs()))
    return torch.where(gap.abs() < 1, near, far) + e


def uaf_reference(x: float, a: float, b: float, c: float, d: float, e: float) -> float:
    if math.isinf(x):
        return x + e if x > 0 else e
    return reference_softplus(a * (x + b) + c * x * x) - reference_softplus(d * (x - b)) + e


UAF = activation(
    uaf,
    cls="UAF",
    summary="UAF, universal activation function: a difference of two softplus functions, learnt",
    formula=r"\ln(1 + e^{a (x + b) + c x^2}) - \ln(1 + e^{d (x - b)}) + e",
    reference=uaf_reference,
    paper=Paper(
        title="Universal Activation Function For Machine Learning",
        year=2020,
        arxiv="2011.03842",
        authors="Brosnan Yuen, Minh Tu Hoang, Xiaodai Dong, Tao Lu",
        code="SensorOrgNet/Universal_Activation_Function",
    ),
    learn=(Learn("a", 10.0), Learn("b", 0.0), Learn("c", 0.0), Learn("d", 9.0), Learn("e", 0.0)),
    limits=(0.0, INF),
    flops=24.0,
    tags=Tags(smooth=True, delicate=True),
    values={0.0: 0.0, 3.0: 3.0},
    deviations=(
        "starts at (10, 0, 0, 9, 0); the official code adds about 1e-6 or 1e-7 to the zeros",
        "c x^2 is kept at its value at |x| = 1e15 beyond that",
    ),
)

PARTS = (SOFTPLUS, LOGSIGMOID, UAF)
