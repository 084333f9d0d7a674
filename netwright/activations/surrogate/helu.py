"""HeLU: ReLU ahead; back, units down to -alpha still learn (Fellner and Kimhi, 2024).

The thresholds of the two passes differ, which the paper calls hysteresis: a unit falls silent at 0 and revives above -alpha.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.core.part import Claim, Identity, Option, Paper, Protocol


def helu(x: Tensor, *, alpha: float) -> Tensor:
    still_learns = torch.where(x > -alpha, x - x.detach(), 0.0)  # the value 0, the slope 1
    return torch.where(x > 0, x, still_learns)


def reference(x: float, alpha: float) -> float:
    return max(x, 0.0)


def backward(x: float, alpha: float) -> float:
    """1 above -alpha, 0 at it and below."""
    return 1.0 if x + alpha > 0 else 0.0


def claim_revives() -> bool:
    """A unit a little below 0 for every example moves back up under HeLU and never under ReLU."""
    target, alive = torch.ones(8), []
    for activate in (lambda b: helu(b, alpha=0.05), torch.relu):
        bias = torch.full((8,), -0.04, requires_grad=True)
        for _ in range(50):
            (gradient,) = torch.autograd.grad((activate(bias) - target).square().mean(), bias)
            bias = (bias - 0.1 * gradient).detach().requires_grad_()
        alive.append(bool((bias > 0).all()))
    return alive == [True, False]


def claim_inference() -> bool:
    """Ahead it is ReLU, bit for bit."""
    x = torch.randn(4096, generator=torch.Generator().manual_seed(0)) / 10
    return torch.equal(helu(x, alpha=0.05), torch.relu(x))


PART = activation(
    helu,
    cls="HeLU",
    reference=reference,
    backward=backward,
    formula=r"\max(0,\,x), \quad \partial = 1\; \mathrm{for}\; x > -\alpha",
    limits=(0.0, math.inf),
    paper=Paper("helu"),
    options=(Option("alpha", 0.05, "how far below 0 the gradient still passes", bounds=(0.0, 10.0)),),
    tags=Tags(monotone=True, kinks=(-0.05,), exact_gradient=False, always=("monotone",)),
    values={-3.0: 0.0, -0.04: 0.0, 0.0: 0.0, 2.0: 2.0},
    flops=2.0,
    identities=(Identity("activation/relu", tolerance=0.0, note="forward only: the backward has its own threshold"),),
    claims=(
        Claim("inference", "costs what ReLU costs at inference: it is ReLU there", check=claim_inference),
        Claim("revives", "keeps units near the threshold learning", check=claim_revives),
        Claim(
            "accuracy",
            "at least ReLU's accuracy",
            protocol=Protocol("task/digits", "activation/relu", "not worse"),
        ),
    ),
)
