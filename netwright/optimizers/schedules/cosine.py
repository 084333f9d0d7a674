"""Cosine: the rate falls to a share of itself along half a cosine."""

from __future__ import annotations

import math

from netwright.core.part import Option, Paper
from netwright.optimizers._kind import schedule


def cosine(step: int, steps: int, *, floor: float) -> float:
    """floor + (1 - floor) (1 + cos(pi step / steps)) / 2."""
    return floor + (1 - floor) * (0.5 * (1 + math.cos(math.pi * step / steps)))


def reference(step: int, steps: int, *, floor: float) -> float:
    """Equation (5) with eta_max = 1, one period: by the half-angle formula, cos(x/2)^2 = (1 + cos x) / 2."""
    return floor + (1.0 - floor) * math.cos(0.5 * math.pi * step / steps) ** 2


PART = schedule(
    cosine,
    reference=reference,
    formula=r"f + (1 - f)\,\frac{1}{2} (1 + \cos \pi t / T)",
    paper=Paper(
        title="SGDR: Stochastic Gradient Descent with Warm Restarts",
        authors="Ilya Loshchilov, Frank Hutter",
        year=2016,
        arxiv="1608.03983",
        equation="(5)",
    ),
    options=(Option("floor", 0.0, "the share of the rate it ends at", bounds=(-1e-12, 1.0)),),
    values={(0, 10): 1.0, (5, 10): 0.5, (10, 10): 0.0},
    deviations=("one period over all steps: no restarts",),
)
