"""SmeLU: ReLU with a parabola in place of its corner (Shamir, Lin and Coviello, 2020).

f(x) = 0 for x <= -b, (x + b)^2 / (4 b) for |x| <= b, x for x >= b: ReLU convolved with a box of half-width b.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.core.part import Claim, Identity, Option, Paper, Protocol


def smelu(x: Tensor, *, beta: float) -> Tensor:
    return (x + beta).clamp(0.0, 2 * beta).square() / (4 * beta) + torch.relu(
        x - beta
    )  # its slope at 0 is 0: no doubled one at beta


def reference(x: float, beta: float) -> float:
    if x <= -beta:
        return 0.0
    return x if x >= beta else (x + beta) ** 2 / (4 * beta)


def claim_box() -> bool:
    """(1 / 2b) times the integral of ReLU over [x - b, x + b] is f(x)."""
    x = torch.linspace(-3.0, 3.0, 61, dtype=torch.float64)
    b = 0.7
    offsets = torch.linspace(-b, b, 2001, dtype=torch.float64)
    mean = torch.trapezoid((x[:, None] + offsets).relu(), offsets) / (2 * b)
    return bool(torch.allclose(mean, smelu(x, beta=b), atol=1e-6))


def claim_corners() -> bool:
    """The slope is clamp((x + b) / (2 b), 0, 1): 0 at -b, 1/2 at 0, 1 at b, from either side."""
    x = torch.tensor([-2.0, -0.5, 0.0, 0.25, 0.5, 2.0], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(smelu(x, beta=0.5).sum(), x)
    return slope.tolist() == [0.0, 0.0, 0.5, 0.75, 1.0, 1.0]


PART = activation(
    smelu,
    cls="SmeLU",
    reference=reference,
    formula=r"\max(0,\,x-\beta) + \min(\max(0,\,x+\beta),\,2\beta)^2 / (4\beta)",
    limits=(0.0, math.inf),
    paper=Paper("smelu"),
    options=(Option("beta", 1.0, "half-width of the parabola", bounds=(0.0, math.inf), search=(0.1, 4.0, "log")),),
    tags=Tags(smooth=True, monotone=True, always=("smooth", "monotone")),
    values={-1.0: 0.0, -0.5: 0.0625, 0.0: 0.25, 0.5: 0.5625, 1.0: 1.0, 3.0: 3.0},
    flops=5.0,
    identities=(Identity("activation/relu", options={"beta": 1e-7}, note="beta to 0"),),
    claims=(
        Claim("box", "is ReLU convolved with a box of half-width beta", check=claim_box),
        Claim("corners", "has a continuous slope", check=claim_corners),
        Claim(
            "cifar10",
            "at least ReLU's accuracy on image classification",
            protocol=Protocol("task/cifar10", "activation/relu", "not worse"),
        ),
    ),
)
