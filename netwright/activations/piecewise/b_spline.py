"""B-spline activation: SiLU plus a learnt cubic spline at every neuron, a KAN's functions moved from edges to nodes (2024)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.core.part import Claim, Learn, Option, Paper, Protocol


def b_spline(x: Tensor, coef: Tensor, *, grid: int, low: float, high: float) -> Tensor:
    """silu(x) + sum_m coef_m B_m(x), with cubic B-splines on `grid` equal intervals of [low, high]; coef (grid + 3, ...)."""
    u = (x - low) * (grid / (high - low))
    total = x.clamp(min=-1e4) * torch.sigmoid(x)  # not -inf times 0
    for m, c in enumerate(coef.unbind(0)):
        a = (u - (m - 1)).abs()  # the distance from the centre, in intervals
        wide, narrow = torch.relu(2 - a), torch.relu(1 - a)
        total = total + c * (wide**3 - 4 * narrow**3) / 6
    return total


def reference(x: float, coef: tuple[float, ...], grid: int, low: float, high: float) -> float:
    """The recursion of Cox and de Boor."""
    step = (high - low) / grid
    t = [low + (i - 3) * step for i in range(grid + 7)]

    def b(m: int, p: int) -> float:
        if p == 0:
            return float(t[m] <= x < t[m + 1])
        return (x - t[m]) / (p * step) * b(m, p - 1) + (t[m + p + 1] - x) / (p * step) * b(m + 1, p - 1)

    silu = x / (1 + math.exp(-x)) if x > -700 else 0.0
    if not t[0] <= x < t[-1]:
        return silu
    return silu + sum(c * b(m, 3) for m, c in enumerate(coef))


def zeros(options: Any) -> tuple[float, ...]:
    """It starts as SiLU."""
    return (0.0,) * (options["grid"] + 3)


def claim_cubics() -> bool:
    """On the grid it can be any cubic plus SiLU: the coefficients of x^3 are products of neighbouring knots."""
    x = torch.linspace(-1, 1, 41, dtype=torch.float64)[:-1]
    knots = [-1 + (i - 3) * 0.4 for i in range(12)]
    coef = torch.tensor([knots[m + 1] * knots[m + 2] * knots[m + 3] for m in range(8)], dtype=torch.float64)
    y = b_spline(x, coef, grid=5, low=-1.0, high=1.0) - torch.nn.functional.silu(x)
    return bool(torch.allclose(y, x**3, atol=1e-12))


PART = activation(
    b_spline,
    cls="BSpline",
    reference=reference,
    formula=r"\mathrm{silu}(x) + \sum_m c_m B_m(x)",
    limits=(0.0, math.inf),
    paper=Paper("kan-critical-assessment"),
    learn=(Learn("coef", zeros, per="channel"),),
    options=(
        Option("grid", 5, "intervals of the grid", bounds=(0, 1000)),
        Option("low", -1.0, "where the grid begins"),
        Option("high", 1.0, "where it ends"),
    ),
    tags=Tags(smooth=True, delicate=True),
    values={0.0: 0.0, 1.0: 0.7310585786300049},
    flops=70.0,
    equals_at_init=("activation/acon-c", "activation/aglu", "activation/silu", "activation/swish", "activation/xsilu"),
    claims=(
        Claim("cubics", "is any cubic plus SiLU on its grid", check=claim_cubics),
        Claim(
            "closes the gap",
            "an MLP with spline activations is not worse than a KAN on formulas",
            where="abstract",
            protocol=Protocol(task="formulas", against="layer/kan", expect="not worse", seeds=8, trials=4),
        ),
        Claim(
            "digits",
            "an MLP with spline activations is not worse than a KAN on images",
            where="abstract",
            protocol=Protocol(task="digits", against="layer/kan", expect="not worse", seeds=8, trials=4),
        ),
    ),
    deviations=(
        "the base function is SiLU with a fixed factor of 1",
        "it is the ablation of the comparison, not a proposal of the paper",
    ),
)
