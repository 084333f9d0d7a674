"""Fourier activation: a learnt trigonometric sum, as large forward as backward (Khalfaoui-Hassani and Kesselheim, 2025).

f(x) = a_0 + sqrt(2) sum_k a_k cos(w_k x - p_k) / k!, frequencies w_k = k and phases p_k = pi / 4 at the start:
cos(k x) + sin(k x) = sqrt(2) cos(k x - pi / 4), the orthonormal basis of the circle.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.activations.basis._signal_propagation import sizes
from netwright.core.part import Claim, Learn, Option, Paper, Protocol

FAR = 1e6  # beyond it float32 no longer resolves a period


def fourier(x: Tensor, a: Tensor, w: Tensor, p: Tensor) -> Tensor:
    near = x.clamp(-FAR, FAR)
    total = a[0] + torch.zeros_like(x)
    for k in range(1, a.shape[0]):
        u = w[k - 1] * near
        # cos(u - p), without rounding u - p where u is large
        wave = torch.cos(u) * torch.cos(p[k - 1]) + torch.sin(u) * torch.sin(p[k - 1])
        total = total + (math.sqrt(2) / math.factorial(k)) * a[k] * wave
    return total


def reference(x: float, a: tuple[float, ...], w: tuple[float, ...], p: tuple[float, ...]) -> float:
    x = min(max(x, -FAR), FAR)
    waves = [a_k * math.cos(w_k * x - p_k) for a_k, w_k, p_k in zip(a[1:], w, p, strict=True)]
    return a[0] + math.fsum(math.sqrt(2) * wave / math.factorial(k) for k, wave in enumerate(waves, 1))


def start(options: Mapping[str, Any]) -> tuple[float, ...]:
    """a_0 = r sqrt(1 - 1 / (n!)^2), a_k = r, with r^2 = 1 / sum_k 1 / (k!)^2 = 1 / I_0(2)."""
    n = options["degree"]
    r = 1 / math.sqrt(sum(1 / math.factorial(k) ** 2 for k in range(20)))
    return (r * math.sqrt(1 - 1 / math.factorial(n) ** 2),) + (r,) * n


def claim_gain() -> bool:
    """Over a period E f^2 = E f'^2 = sum_{k < n} 1 / (k!)^2 / I_0(2): .987022 at degree 3, 1 - 1e-6 at degree 6."""
    x = (2 * math.pi / 4096) * torch.arange(4096, dtype=torch.float64)
    for degree, wanted in ((3, 0.987022), (6, 0.999999)):
        x = x.detach().requires_grad_()
        built = PART.build(degree=degree).double()
        y = built(x)
        (slope,) = torch.autograd.grad(y.sum(), x)
        if any(abs(float(v.detach().square().mean()) - wanted) > 2e-6 for v in (y, slope)):
            return False
    return True


def claim_depth() -> bool:
    """After ten normalised layers activations and gradients have an RMS within [1/2, 2]."""
    return all(0.5 < size < 2.0 for size in sizes(PART.build().double()))


PART = activation(
    fourier,
    cls="Fourier",
    reference=reference,
    formula=r"a_0 + \sqrt{2} \sum_{k=1}^{n} a_k \cos(w_k x - p_k) / k!",
    limits=(math.nan, math.nan),
    paper=Paper("orthogonal-basis-activations"),
    learn=(
        Learn("a", start),
        Learn("w", lambda options: tuple(float(k) for k in range(1, options["degree"] + 1))),
        Learn("p", lambda options: (math.pi / 4,) * options["degree"]),
    ),
    options=(Option("degree", 6, "number of waves", bounds=(0, 17)),),
    tags=Tags(
        smooth=True,
        delicate=True,
        always=("smooth",),
        reasons={"numbers": "where waves of size 1 cancel to less than 1 %, float32 keeps their rounding error, 1e-7"},
    ),
    flops=50.0,
    claims=(
        Claim("gain", "is as large forward as backward, averaged over a period", check=claim_gain),
        Claim("depth", "neither grows nor fades over ten layers, each after a norm", check=claim_depth),
        Claim(
            "mnist",
            "at least GELU's accuracy",
            protocol=Protocol("task/mnist", "activation/gelu", "not worse"),
        ),
    ),
    deviations=(
        "the waves carry a factor sqrt(2), which the official code leaves out: without it E f^2 is .72 and E f'^2 is .50, "
        "and the start is not the variance-preserving one",
        "beyond |x| = 1e6, where float32 no longer resolves a period, constant",
    ),
)
