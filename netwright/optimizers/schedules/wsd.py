"""WSD: the rate warms up, stays, and falls over the last share of the steps."""

from __future__ import annotations

import math

from netwright.core.part import Option, Paper
from netwright.optimizers._kind import schedule


def wsd(step: int, steps: int, *, warmup: float, decay: float, shape: str) -> float:
    """min(1, (step + 1) / (warmup steps)); over the last `decay` of the steps times 1 - u, or 1 - sqrt(u), u from 0 to 1."""
    u = min(1.0, max(0.0, (step - (1 - decay) * steps) / (decay * steps)))
    return min(1.0, (step + 1) / (warmup * steps)) * (1 - u if shape == "linear" else 1 - math.sqrt(u))


def reference(step: int, steps: int, *, warmup: float, decay: float, shape: str) -> float:
    """By phases: rising, staying, falling."""
    falls_from = steps - steps * decay
    rise = min((step + 1.0) / (steps * warmup), 1.0)
    if step <= falls_from:
        return rise
    left = (steps - step) / (steps - falls_from)
    return rise * (left if shape == "linear" else 1.0 - (1.0 - left) ** 0.5)


PART = schedule(
    wsd,
    reference=reference,
    formula=r"\min(1, (t+1)/wT)\;(1 - \sqrt{u}), \quad u = \max(0, (t - (1-d)T) / dT)",
    paper=Paper(
        title="MiniCPM: Unveiling the Potential of Small Language Models with Scalable Training Strategies",
        authors="Shengding Hu, Yuge Tu, Xu Han, Chaoqun He, Ganqu Cui, Xiang Long, Zhi Zheng, and others",
        year=2024,
        arxiv="2404.06395",
    ),
    options=(
        Option("warmup", 0.05, "share of the steps over which the rate rises", bounds=(0.0, 1.0)),
        Option("decay", 0.2, "share of the steps over which it falls", bounds=(0.0, 1.0)),
        Option("shape", "sqrt", "how it falls", allowed=("sqrt", "linear")),
    ),
    values={(0, 100): 0.2, (50, 100): 1.0, (80, 100): 1.0, (85, 100): 0.5, (100, 100): 0.0},
    joints=lambda warmup, decay, shape: (warmup, 1 - decay),
    deviations=(
        "MiniCPM falls exponentially, with constants of its own; the falls here, to 0, are those that Hagele and others compare"
        " (2024, arXiv 2405.18392), who find 1 - sqrt best",
    ),
)
