"""The hyperbolic tangent: itself, scaled, damped below 0, and what it leaves of its input."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.core.part import Identity, Option, Paper

INF = math.inf
SURVEY = Paper("four-hundred-activations")


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


def tanh_of_exponential(x: Tensor) -> Tensor:
    """2 / (1 + exp(-2 x)) - 1: faster than tanh once compiled; beyond |x| = 20 it is 1 or -1 in float32."""
    return 2 / (1 + torch.exp(-2 * x.clamp(-20.0, 20.0))) - 1


def lecun_tanh(x: Tensor) -> Tensor:
    return 1.7159 * torch.tanh(x * (2 / 3))


def lecun_tanh_of_exponential(x: Tensor) -> Tensor:
    return 1.7159 * tanh_of_exponential(x * (2 / 3))


def lecun_tanh_reference(x: float) -> float:
    e = math.expm1(-4 / 3 * abs(x))
    return math.copysign(1.7159 * -e / (2 + e), x)


LECUN_TANH = activation(
    lecun_tanh,
    cls="LeCunTanh",
    compiled=lecun_tanh_of_exponential,
    summary="LeCun's tanh: scaled so that f(1) = 1 and the slope stays useful",
    formula=r"1.7159 \tanh(2 x / 3)",
    reference=lecun_tanh_reference,
    limits=(-1.7159, 1.7159),
    flops=5.0,
    paper=Paper(title="Efficient BackProp", year=1998, authors="Yann LeCun, Leon Bottou, Genevieve B. Orr, Klaus-Robert Müller"),
    tags=Tags(smooth=True, monotone=True, odd=True, delicate=True),
    values={0.0: 0.0, 1.0: 0.9999973},
    identities=(Identity("activation/tanh", scale_x=2 / 3, scale_y=1.7159),),
)


def penalized_tanh(x: Tensor, *, a: float) -> Tensor:
    y = torch.tanh(x)
    return torch.where(x > 0, y, a * y)


def penalized_tanh_of_exponential(x: Tensor, *, a: float) -> Tensor:
    y = tanh_of_exponential(x)
    return torch.where(x > 0, y, a * y)


PENALIZED_TANH = activation(
    penalized_tanh,
    cls="PenalizedTanh",
    compiled=penalized_tanh_of_exponential,
    summary="Penalized tanh: a hyperbolic tangent damped below 0",
    formula=r"\tanh x \text{ for } x > 0,\; a \tanh x \text{ below}",
    reference=lambda x, a: math.tanh(x) * (1 if x > 0 else a),
    limits=(-0.25, 1.0),
    flops=6.0,
    paper=Paper(
        title="Revise Saturated Activation Functions", authors="Bing Xu, Ruitong Huang, Mu Li", year=2016, arxiv="1602.05980"
    ),
    options=(Option("a", 0.25, "factor below 0", bounds=(0.0, 1.0)),),
    tags=Tags(monotone=True, kinks=(0.0,), delicate=True, always=("monotone",)),
    values={-1.0: -0.190399, 1.0: 0.761594},
)


SERIES = (1 / 3, -2 / 15, 17 / 315, -62 / 2835, 1382 / 155925)  # of x - tanh x, from x^3 on


def tanhshrink(x: Tensor) -> Tensor:
    small = x.clamp(-0.25, 0.25)
    square, series = small.square(), torch.zeros_like(x)
    for coefficient in reversed(SERIES):
        series = series * square + coefficient
    return torch.where(x.abs() < 0.25, series * square * small, x - torch.tanh(x))  # the difference cancels near 0


def tanhshrink_of_exponential(x: Tensor) -> Tensor:
    return x - tanh_of_exponential(x)


def tanhshrink_reference(x: float) -> float:
    if abs(x) > 20:
        return x - math.copysign(1.0, x)
    # (x cosh x - sinh x) / cosh x, whose series has only positive terms
    return math.fsum(2 * k / math.factorial(2 * k + 1) * x ** (2 * k + 1) for k in range(1, 60)) / math.cosh(x)


TANHSHRINK = activation(
    tanhshrink,
    cls="Tanhshrink",
    compiled=tanhshrink_of_exponential,
    summary="Tanhshrink: what tanh leaves of its input",
    formula=r"x - \tanh x",
    reference=tanhshrink_reference,
    paper=SURVEY,
    limits=(-INF, INF),
    flops=12.0,
    tags=Tags(smooth=True, monotone=True, odd=True, delicate=True),
    values={-1.0: -0.238406, 0.1: 0.000332005, 3.0: 2.004945},
)

PARTS = (TANH, LECUN_TANH, PENALIZED_TANH, TANHSHRINK)
