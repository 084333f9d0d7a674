"""Square roots in place of exponentials: a softplus, a bent identity, a gate."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.core.part import Option, Paper

INF = math.inf
SURVEY = Paper("four-hundred-activations")


def squareplus(x: Tensor, *, b: float) -> Tensor:
    # (x + r) / 2 cancels left of 0, where it is b / 4 over the same expression at -x. Squares end where r and |x| are one.
    away = torch.where(x > 0, x, -x)
    low = away.clamp(max=1e15)
    large = (away + torch.sqrt(low * low + b) + (away - low)) / 2
    return torch.where(x > 0, large, b / 4 / large)


def reference_squareplus(x: float, b: float) -> float:
    large = (abs(x) + math.hypot(x, math.sqrt(b))) / 2
    return large if x >= 0 else b / (4 * large)


SQUAREPLUS = activation(
    squareplus,
    cls="Squareplus",
    reference=reference_squareplus,
    summary="Squareplus: a hyperbola in place of softplus, of sums and a square root only (Barron, 2021).",
    formula=r"(x + \sqrt{x^2 + b}) / 2",
    limits=(0.0, math.inf),
    paper=Paper(
        title="Squareplus: A Softplus-Like Algebraic Rectifier", authors="Jonathan T. Barron", year=2021, arxiv="2112.11687"
    ),
    options=(Option("b", 4.0, "width of the bend; small ones approach ReLU", bounds=(0.0, math.inf), search=(0.1, 10.0, "log")),),
    tags=Tags(smooth=True, monotone=True, delicate=True, always=("smooth", "monotone")),
    values={-3.0: 0.302776, -1.0: 0.618034, 0.0: 1.0, 1.0: 1.618034, 3.0: 3.302776},
    flops=9.0,
)


FAR = 1e18  # its square fits float32


def algebraic(x: Tensor) -> Tensor:
    """x / sqrt(1 + x^2), which is 1 or -1 at the infinities."""
    near = x.clamp(-FAR, FAR)
    return near * torch.rsqrt(1 + near.square())


def bent_identity(x: Tensor) -> Tensor:
    # (sqrt(x^2 + 1) - 1) / 2 = x t / 2 with t = x / (1 + sqrt(x^2 + 1)): no cancellation near 0 or at -inf.
    near = x.clamp(-FAR, FAR)
    t = near / (1 + torch.sqrt(1 + near.square()))
    return x * (1 + t / 2)


def bent_identity_reference(x: float) -> float:
    if abs(x) > 1e8:
        return x * (1.5 if x > 0 else 0.5)
    return x * x / (2 * (math.sqrt(x * x + 1) + 1)) + x


BENT_IDENTITY = activation(
    bent_identity,
    cls="BentIdentity",
    summary="Bent identity: a line whose slope turns from 1/2 to 3/2",
    formula=r"(\sqrt{x^2 + 1} - 1) / 2 + x",
    reference=bent_identity_reference,
    paper=SURVEY,
    limits=(-INF, INF),
    flops=7.0,
    tags=Tags(smooth=True, monotone=True, delicate=True),
    values={-1.0: -0.792893, 0.0: 0.0, 1.0: 1.207107},
)


def swim(x: Tensor, *, k: float) -> Tensor:
    return x / 2 * (1 + k * algebraic(x))


def swim_reference(x: float, k: float) -> float:
    return x / 2 * (1 + k * math.sin(math.atan(x)))


SWIM = activation(
    swim,
    cls="Swim",
    summary="Swim: x gated by an algebraic step instead of Swish's sigmoid",
    formula=r"\frac{x}{2} (1 + k x / \sqrt{1 + x^2})",
    reference=swim_reference,
    paper=Paper(
        title="Swim: A General-Purpose, High-Performing, and Efficient Activation Function for Locomotion Control Tasks",
        authors="Maryam Abdool, Tony Dear",
        year=2023,
        arxiv="2303.02640",
    ),
    options=(Option("k", 0.5, "how far the gate opens"),),
    limits=(-INF, INF),
    flops=7.0,
    tags=Tags(smooth=True, monotone=True, delicate=True, always=("smooth",)),
    values={0.0: 0.0, 1.0: 0.676777, -1.0: -0.323223},
)

PARTS = (SQUAREPLUS, BENT_IDENTITY, SWIM)
