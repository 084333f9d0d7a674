"""Constant: the rate stays as it is."""

from __future__ import annotations

from netwright.core.part import Paper
from netwright.optimizers._kind import schedule


def constant(step: int, steps: int) -> float:
    """1."""
    return 1.0


def reference(step: int, steps: int) -> float:
    """A share of 1 of what was given."""
    return steps / steps


PART = schedule(
    constant,
    usual=True,
    reference=reference,
    formula="1",
    paper=Paper(title="A Stochastic Approximation Method", authors="Herbert Robbins, Sutton Monro", year=1951),
    values={(0, 10): 1.0, (10, 10): 1.0},
    deviations=("the paper's own rates fall as 1/t; a constant one is what it starts from",),
)
