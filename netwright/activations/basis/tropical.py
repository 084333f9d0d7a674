"""Tropical activation: the largest of n + 1 lines of slopes 0 to n, intercepts learnt (Khalfaoui-Hassani and Kesselheim, 2025).

f(x) = sqrt(2) / n * max_k (k x + c_k), a polynomial of the algebra where max is the sum and + the product.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.activations.basis._signal_propagation import sizes
from netwright.core.part import Claim, Identity, Learn, Option, Paper, Protocol


def tropical(x: Tensor, c: Tensor) -> Tensor:
    n = c.shape[0] - 1
    top = c[0] / n + torch.zeros_like(x)
    for k in range(1, n + 1):
        top = torch.maximum(top, (k / n) * x + c[k] / n)  # n x could overflow where f(x) doesn't
    return math.sqrt(2) * top


def reference(x: float, c: tuple[float, ...]) -> float:
    lines = [c_k + (k * x if k else 0.0) for k, c_k in enumerate(c)]
    return math.sqrt(2) / (len(c) - 1) * max(lines)


def start(options: Mapping[str, Any]) -> tuple[float, ...]:
    return (0.0,) * (options["degree"] + 1)


def claim_gain() -> bool:
    """At the start E f(z)^2 = E f'(z)^2 = 1 for z ~ N(0, 1) and every degree; with c = 1, E f^2 is 1.75 at degree 3."""
    z = torch.linspace(-12.0, 12.0, 4801, dtype=torch.float64) + 1e-7  # no node on the corner
    density = torch.exp(-z * z / 2) / math.sqrt(2 * math.pi)

    def moments(c: Tensor) -> tuple[float, float]:
        x = z.clone().requires_grad_()
        y = tropical(x, c)
        (slope,) = torch.autograd.grad(y.sum(), x)
        return tuple(float(torch.trapezoid(v.detach() ** 2 * density, z)) for v in (y, slope))  # type: ignore[return-value]

    zero = [moments(torch.zeros(n + 1, dtype=torch.float64)) for n in (1, 3, 6)]
    one = moments(torch.ones(4, dtype=torch.float64))[0]
    return all(abs(m - 1) < 2e-3 for pair in zero for m in pair) and abs(one - 1.754) < 2e-3


def claim_depth() -> bool:
    """After ten normalised layers activations and gradients have an RMS within [1/2, 2]."""
    return all(0.5 < size < 2.0 for size in sizes(PART.build().double()))


def claim_convex() -> bool:
    """Convex and never decreasing for all intercepts, with at most n corners."""
    g = torch.Generator().manual_seed(0)
    x = torch.linspace(-8.0, 8.0, 1601, dtype=torch.float64)
    for n in (2, 5, 9):
        y = tropical(x, 3 * torch.randn(n + 1, generator=g, dtype=torch.float64))
        slopes = y.diff() / x.diff()
        corners = int((slopes.diff() > 1e-6).sum())
        if float(slopes.min()) < -1e-9 or float(slopes.diff().min()) < -1e-9 or corners > 2 * n:  # a corner touches 2 steps
            return False
    return True


PART = activation(
    tropical,
    cls="Tropical",
    reference=reference,
    formula=r"\frac{\sqrt{2}}{n} \max_{k=0}^{n} (k x + c_k)",
    limits=(0.0, math.inf),
    paper=Paper("orthogonal-basis-activations"),
    learn=(Learn("c", start),),
    options=(Option("degree", 6, "the largest slope n, before scaling", bounds=(0, 17)),),
    tags=Tags(monotone=True, kinks=(0.0,), delicate=True, always=("monotone",)),
    values={-2.0: 0.0, 0.0: 0.0, 1.0: math.sqrt(2), 3.0: 3 * math.sqrt(2)},
    flops=20.0,
    identities=(Identity("activation/relu", scale_y=math.sqrt(2)),),
    claims=(
        Claim("gain", "keeps the second moment of N(0, 1) input, forward and backward", check=claim_gain),
        Claim("depth", "neither grows nor fades over ten layers, each after a norm", check=claim_depth),
        Claim("convex", "is convex and never decreasing", check=claim_convex),
        Claim(
            "mnist",
            "at least GELU's accuracy",
            protocol=Protocol("task/mnist", "activation/gelu", "not worse"),
        ),
    ),
    deviations=(
        "intercepts start at 0, not at 1 as in the official code: with 1 the second moment is not kept "
        "(E f^2 = 1.75 at degree 3, 1.32 at degree 6)",
    ),
)
