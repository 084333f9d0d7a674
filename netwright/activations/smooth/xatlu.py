"""xATLU: x gated by an arctangent whose range is widened by a learnt amount (Huang, 2024).

g(x) = 1/2 + atan(x) / pi lies in (0, 1); (1 + 2 alpha) g(x) - alpha in (-alpha, 1 + alpha).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.activations.smooth._gates import expanded
from netwright.core.part import Claim, Learn, Paper, Protocol


def arctan_gate(x: Tensor) -> Tensor:
    """1/2 + atan(x) / pi as an angle between 0 and pi, which keeps its digits where the gate is nearly closed."""
    return torch.atan2(torch.ones_like(x), -x) / math.pi


def xatlu(x: Tensor, alpha: Tensor) -> Tensor:
    return expanded(x, arctan_gate(x), alpha, limit=-1 / math.pi)


def reference(x: float, alpha: float) -> float:
    if x < -1e8:  # x g(x) = -(1 - 1 / (3 x^2) + ...) / pi
        return -1 / math.pi - alpha * (x + 2 / math.pi) if alpha else -1 / math.pi
    return x * ((math.atan(x) + math.pi / 2) / math.pi * (1 + 2 * alpha) - alpha)


def claim_half() -> bool:
    """alpha = 0 is x g(x), bit for bit; alpha = -1/2 is x / 2."""
    x = torch.linspace(-8.0, 8.0, 321)
    base = torch.equal(xatlu(x, torch.zeros(())), x * arctan_gate(x))
    return base and torch.equal(xatlu(x, torch.tensor(-0.5)), x / 2)


def claim_symmetry() -> bool:
    """f(x) - f(-x) = x for every alpha."""
    x = torch.linspace(-8.0, 8.0, 321, dtype=torch.float64)
    alphas = [torch.tensor(a, dtype=torch.float64) for a in (-1.0, 0.0, 0.3, 2.0)]
    return all(torch.allclose(xatlu(x, a) - xatlu(-x, a), x, atol=1e-13) for a in alphas)


def claim_monotone() -> bool:
    """At alpha = 0 the slope rises from 0 to 1, and f from -1 / pi towards x - 1 / pi."""
    x = torch.linspace(-50.0, 50.0, 2001, dtype=torch.float64, requires_grad=True)
    y = xatlu(x, torch.zeros((), dtype=torch.float64))
    (slope,) = torch.autograd.grad(y.sum(), x)
    y = y.detach()
    ends = abs(float(y[0]) + 1 / math.pi) < 1e-3 and abs(float(y[-1]) - 50 + 1 / math.pi) < 1e-3
    return ends and bool((slope.diff() > 0).all()) and bool((slope > 0).all() and (slope < 1).all())


PART = activation(
    xatlu,
    cls="XATLU",
    reference=reference,
    formula=r"x \left((1 + 2\alpha)\left(\frac{1}{2} + \frac{1}{\pi}\arctan x\right) - \alpha\right)",
    limits=(-1 / math.pi, math.inf),
    paper=Paper("expanded-gating"),
    learn=(Learn("alpha", 0.0),),
    tags=Tags(smooth=True, monotone=True, delicate=True, always=("smooth",)),
    values={-3.0: -0.307249, -2.0: -0.295167, -1.0: -0.25, -0.5: -0.176208, 0.0: 0.0, 1.0: 0.75, 3.0: 2.692751},
    flops=7.0,
    claims=(
        Claim("half", "contains its base at alpha = 0 and x / 2 at alpha = -1/2", check=claim_half),
        Claim("symmetry", "f(x) - f(-x) = x, whatever alpha", check=claim_symmetry),
        Claim("monotone", "is monotone where the gate is not widened", check=claim_monotone),
        Claim(
            "language",
            "better than GELU in a language model",
            protocol=Protocol("task/shakespeare", "activation/gelu", "better"),
        ),
        Claim(
            "language-xgelu",
            "better than xGELU in a language model",
            protocol=Protocol("task/shakespeare", "activation/xgelu", "better"),
        ),
    ),
)
