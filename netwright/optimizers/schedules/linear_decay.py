"""Linear: the rate falls in a straight line to a share of itself."""

from __future__ import annotations

from netwright.core.part import Option, Paper
from netwright.optimizers._kind import schedule


def linear_decay(step: int, steps: int, *, floor: float) -> float:
    """1 - (1 - floor) step / steps."""
    return 1 - (1 - floor) * step / steps


def reference(step: int, steps: int, *, floor: float) -> float:
    """The mean of what it begins and ends at, weighted by how near each is."""
    return (float(steps - step) * 1.0 + float(step) * floor) / float(steps)


PART = schedule(
    linear_decay,
    reference=reference,
    formula=r"1 - (1 - f)\, t / T",
    paper=Paper(
        title="Optimal Linear Decay Learning Rate Schedules and Further Refinements",
        authors="Aaron Defazio, Ashok Cutkosky, Harsh Mehta, Konstantin Mishchenko",
        year=2023,
        arxiv="2310.07831",
    ),
    options=(Option("floor", 0.0, "the share of the rate it ends at", bounds=(-1e-12, 1.0)),),
    values={(0, 10): 1.0, (5, 10): 0.5, (10, 10): 0.0},
)
