"""Saturating and compressing functions of the survey: scaled tangents, quadratic steps, logarithms and their inverse."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.core.part import Identity, Option, Paper

INF = math.inf
SURVEY = Paper("four-hundred-activations")
DREAMER = Paper(
    title="Mastering Diverse Domains through World Models",
    authors="Danijar Hafner, Jurgis Pasukonis, Jimmy Ba, Timothy Lillicrap",
    year=2023,
    arxiv="2301.04104",
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


def penalized_tanh(x: Tensor, *, a: float) -> Tensor:
    y = torch.tanh(x)
    return torch.where(x > 0, y, a * y)


def penalized_tanh_of_exponential(x: Tensor, *, a: float) -> Tensor:
    y = tanh_of_exponential(x)
    return torch.where(x > 0, y, a * y)


def sqnl(x: Tensor) -> Tensor:
    c = x.clamp(-2.0, 2.0)
    return c * (1 - c.abs() / 4)


def sqnl_reference(x: float) -> float:
    if abs(x) > 2:
        return math.copysign(1.0, x)
    return x - x * x / 4 if x >= 0 else x + x * x / 4


def arctan(x: Tensor) -> Tensor:
    return torch.atan(x)


def erf(x: Tensor) -> Tensor:
    return torch.erf(x)


def symlog(x: Tensor) -> Tensor:
    return torch.where(x >= 0, torch.log1p(x.clamp(min=0.0)), -torch.log1p(-x.clamp(max=0.0)))


def symlog_of_log(x: Tensor) -> Tensor:
    return torch.where(x >= 0, torch.log(1 + x.clamp(min=0.0)), -torch.log(1 - x.clamp(max=0.0)))


def symexp(x: Tensor) -> Tensor:
    return torch.where(x >= 0, torch.expm1(x.clamp(min=0.0)), -torch.expm1(-x.clamp(max=0.0)))


def symexp_reference(x: float) -> float:
    return math.copysign(math.expm1(abs(x)) if abs(x) < 709 else INF, x)


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


def dsilu(x: Tensor) -> Tensor:
    gate = torch.sigmoid(x)
    slope = gate * torch.sigmoid(-x)
    return gate + torch.where(slope > 0, x * slope, 0.0)  # not inf * 0


def dsilu_reference(x: float) -> float:
    e = math.exp(-abs(x))
    if e == 0:
        return 1.0 if x > 0 else 0.0
    return (1 + e + x * e) / (1 + e) ** 2 if x >= 0 else e * (1 + e + x) / (1 + e) ** 2


PARTS = (
    activation(
        lecun_tanh, cls="LeCunTanh", compiled=lecun_tanh_of_exponential,
        summary="LeCun's tanh: scaled so that f(1) = 1 and the slope stays useful", formula=r"1.7159 \tanh(2 x / 3)",
        reference=lecun_tanh_reference, limits=(-1.7159, 1.7159), flops=5.0,
        paper=Paper(title="Efficient BackProp", year=1998,
                    authors="Yann LeCun, Leon Bottou, Genevieve B. Orr, Klaus-Robert Müller"),
        tags=Tags(smooth=True, monotone=True, odd=True, delicate=True), values={0.0: 0.0, 1.0: 0.9999973},
        identities=(Identity("activation/tanh", scale_x=2 / 3, scale_y=1.7159),),
    ),
    activation(
        penalized_tanh, cls="PenalizedTanh", compiled=penalized_tanh_of_exponential,
        summary="Penalized tanh: a hyperbolic tangent damped below 0",
        formula=r"\tanh x \text{ for } x > 0,\; a \tanh x \text{ below}",
        reference=lambda x, a: math.tanh(x) * (1 if x > 0 else a), limits=(-0.25, 1.0), flops=6.0,
        paper=Paper(title="Revise Saturated Activation Functions", authors="Bing Xu, Ruitong Huang, Mu Li", year=2016,
                    arxiv="1602.05980"),
        options=(Option("a", 0.25, "factor below 0", bounds=(0.0, 1.0)),),
        tags=Tags(monotone=True, kinks=(0.0,), delicate=True, always=("monotone",)), values={-1.0: -0.190399, 1.0: 0.761594},
    ),
    activation(
        sqnl, cls="SQNL", summary="SQNL: two parabolas that meet at 0 and end flat at -2 and 2",
        formula=r"x - x |x| / 4 \text{ for } |x| \leq 2,\; \mathrm{sign}(x) \text{ beyond}", reference=sqnl_reference,
        paper=SURVEY,
        limits=(-1.0, 1.0), flops=5.0, tags=Tags(smooth=True, monotone=True, odd=True, delicate=True),
        values={-1.0: -0.75, 0.5: 0.4375, 3.0: 1.0},
    ),
    activation(
        arctan, cls="Arctan", summary="Arctan: the inverse tangent, a slowly saturating step", formula=r"\arctan x", paper=SURVEY,
        reference=lambda x: math.copysign(math.pi / 2 - math.atan2(1.0, abs(x)), x) if abs(x) > 1 else math.atan2(x, 1.0),
        limits=(-math.pi / 2, math.pi / 2), flops=8.0, tags=Tags(smooth=True, monotone=True, odd=True),
        values={0.0: 0.0, 1.0: 0.785398},
    ),
    activation(
        erf, cls="Erf", summary="Erf: the error function, the step of the normal distribution", formula=r"\mathrm{erf}\,x",
        reference=lambda x: math.copysign(1 - math.erfc(abs(x)), x) if abs(x) > 1 else math.erf(x),
        paper=Paper(title="Computing with Infinite Networks", authors="Christopher K. I. Williams", year=1996),
        limits=(-1.0, 1.0), flops=6.0, tags=Tags(smooth=True, monotone=True, odd=True, delicate=True),
        values={0.0: 0.0, 1.0: 0.842701},
    ),
    activation(
        symlog, cls="Symlog", compiled=symlog_of_log, summary="Symlog: a logarithm on both sides of 0",
        formula=r"\mathrm{sign}(x) \ln(|x| + 1)", reference=lambda x: math.copysign(math.log1p(abs(x)), x), paper=DREAMER,
        limits=(-INF, INF), flops=6.0, tags=Tags(smooth=True, monotone=True, odd=True, delicate=True),
        values={-1.0: -0.693147, 100.0: 4.615121}, equals_at_init=("activation/safs",),
    ),
    activation(
        symexp, cls="Symexp", summary="Symexp: an exponential on both sides of 0, the inverse of symlog",
        formula=r"\mathrm{sign}(x) (e^{|x|} - 1)", reference=symexp_reference, paper=DREAMER, limits=(-INF, INF), flops=6.0,
        tags=Tags(smooth=True, monotone=True, odd=True, delicate=True,
                  reasons={"smooth": "its slope grows by 5e8 a unit at x = 20, which is taken for a jump"}),
        values={-1.0: -1.718282, 0.693147181: 1.0},
    ),
    activation(
        tanhshrink, cls="Tanhshrink", compiled=tanhshrink_of_exponential, summary="Tanhshrink: what tanh leaves of its input",
        formula=r"x - \tanh x", reference=tanhshrink_reference, paper=SURVEY, limits=(-INF, INF), flops=12.0,
        tags=Tags(smooth=True, monotone=True, odd=True, delicate=True), values={-1.0: -0.238406, 0.1: 0.000332005, 3.0: 2.004945},
    ),
    activation(
        dsilu, cls="DSiLU", summary="dSiLU: the derivative of SiLU, a step that overshoots on both sides",
        formula=r"\sigma(x) (1 + x (1 - \sigma(x)))", reference=dsilu_reference,
        paper=Paper(title="Sigmoid-Weighted Linear Units for Neural Network Function Approximation in Reinforcement Learning",
                    authors="Stefan Elfwing, Eiji Uchibe, Kenji Doya", year=2017, arxiv="1702.03118"),
        limits=(0.0, 1.0), flops=10.0, tags=Tags(smooth=True, delicate=True), values={0.0: 0.5, 1.0: 0.927671, -1.0: 0.072329},
    ),
)  # fmt: skip
