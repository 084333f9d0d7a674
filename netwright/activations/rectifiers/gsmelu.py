"""gSmeLU: a rectifier built by integrating a smoothed step, its slope rising from g- to g+ (Shamir et al., 2020).

With S(r) rising smoothly from 0 to 1 over the width w = alpha + beta, r = (x + alpha) / w:
    f'(x) = g- + (g+ - g-) S(r),    f(-alpha) = t.
A linear S gives the paper's parabola between two rays; SmeLU is alpha = beta, g- = 0, g+ = 1, t = 0.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.core.part import Claim, Identity, Option, Paper, Protocol


def gsmelu(x: Tensor, *, alpha: float, beta: float, g_minus: float, g_plus: float, t: float, step: str = "linear") -> Tensor:
    width = alpha + beta
    r = ((x + alpha) / width).clamp(0.0, 1.0)
    integral = r * r / 2 if step == "linear" else r**3 * (1 - r / 2)  # of S(r) = r, or of 3 r^2 - 2 r^3; 1/2 at r = 1
    risen = width * integral + torch.relu(x - beta)  # relu, whose slope at its corner is 0: r's is still 1 there
    ray = g_minus * (x + alpha) if g_minus else 0.0  # not 0 * inf
    return t + ray + (g_plus - g_minus) * risen


def reference(x: float, alpha: float, beta: float, g_minus: float, g_plus: float, t: float, step: str = "linear") -> float:
    width = alpha + beta
    if x <= -alpha:
        return t + g_minus * (x + alpha) if g_minus else t
    if step == "linear":
        a = (g_plus - g_minus) / (2 * width)
        b = (alpha * g_plus + beta * g_minus) / width
        c = t + (alpha**2 * (g_plus + g_minus) + 2 * alpha * beta * g_minus) / (2 * width)
        inner = min(x, beta)
        return a * inner**2 + b * inner + c + g_plus * max(x - beta, 0.0)
    r = min((x + alpha) / width, 1.0)
    inner = g_minus * r + (g_plus - g_minus) * (r**3 - r**4 / 2)
    return t + width * inner + g_plus * max(x - beta, 0.0)


def claim_step() -> bool:
    """The derivative is the step itself: g- left of -alpha, g+ right of beta, a straight rise or 3 r^2 - 2 r^3 between."""
    x = torch.linspace(-3.0, 3.0, 601, dtype=torch.float64, requires_grad=True)
    r = ((x + 0.8) / 2.0).clamp(0.0, 1.0)
    for step, rise in (("linear", r), ("cubic", 3 * r**2 - 2 * r**3)):
        y = gsmelu(x, alpha=0.8, beta=1.2, g_minus=0.1, g_plus=0.9, t=0.0, step=step)
        (slope,) = torch.autograd.grad(y.sum(), x)
        if not torch.allclose(slope, 0.1 + 0.8 * rise, atol=1e-12):
            return False
    return True


def claim_rays() -> bool:
    """f(-alpha) = t; t = (g+ - g-)(beta - alpha) / 2 - g- alpha puts the right ray on g+ x, t = -g- alpha the left on g- x."""
    x = torch.tensor([-5.0, -0.8, 5.0], dtype=torch.float64)
    sizes: Any = {"alpha": 0.8, "beta": 1.2, "g_minus": 0.1, "g_plus": 0.9}
    right = gsmelu(x, **sizes, t=0.8 * 0.4 / 2 - 0.1 * 0.8)
    left = gsmelu(x, **sizes, t=-0.1 * 0.8)
    met = gsmelu(x, **sizes, t=0.3)
    near = [float(right[2]) - 4.5, float(left[0]) + 0.5, float(met[1]) - 0.3]
    return max(map(abs, near)) < 1e-12


PART = activation(
    gsmelu,
    cls="GSmeLU",
    reference=reference,
    formula=r"t + g_-(x+\alpha) + (g_+ - g_-)\left(\frac{1}{2}(\alpha+\beta)\,r^2 + \max(0,\,x-\beta)\right),\;"
    r" r = \min\left(\max\left(0,\,\frac{x+\alpha}{\alpha+\beta}\right),\,1\right)",
    limits=(-math.inf, math.inf),
    paper=Paper("smelu", equation="(11)"),
    options=(
        Option("alpha", 0.5, "the slope starts to rise at -alpha", bounds=(0.0, math.inf), search=(0.1, 4.0, "log")),
        Option("beta", 1.0, "the slope has risen at beta", bounds=(0.0, math.inf), search=(0.1, 4.0, "log")),
        Option("g_minus", 0.01, "slope on the left"),
        Option("g_plus", 1.0, "slope on the right"),
        Option("t", 0.0, "value at -alpha"),
        Option("step", "linear", "how the slope rises", allowed=("linear", "cubic")),
    ),
    tags=Tags(smooth=True, monotone=True, delicate=True, always=("smooth",)),
    values={-1.5: -0.01, -0.5: 0.0, 0.25: 0.193125, 1.0: 0.7575, 2.0: 1.7575},
    flops=9.0,
    identities=(
        Identity(
            "activation/smelu",
            options={"alpha": 0.7, "beta": 0.7, "g_minus": 0.0},
            other_options={"beta": 0.7},
            tolerance=1e-14,
            note="symmetric, slopes 0 and 1",
        ),
        Identity(
            "activation/prelu",
            options={"alpha": 1e-7, "beta": 1e-7, "g_minus": 0.25},
            other_options={"a": 0.25},
            note="alpha and beta to 0",
        ),
    ),
    claims=(
        Claim("step", "is the integral of a smoothed step", check=claim_step),
        Claim("rays", "joins two rays of any slopes, lifted by t", check=claim_rays),
        Claim(
            "cifar10",
            "at least ReLU's accuracy on image classification",
            protocol=Protocol("task/cifar10", "activation/relu", "not worse"),
        ),
    ),
    deviations=(
        "the paper treats its constants as hyperparameters; the defaults here are not the paper's",
        "step='cubic' is not in the paper: another member of the family its abstract names, rectified smooth continuous units",
    ),
)
