"""Infinite learning rate: after a warm-up and a cooldown the rate stays, for as long as data come, and anneals at the end."""

from __future__ import annotations

import math

from netwright.core.part import Claim, Option, Paper, Protocol
from netwright.optimizers._kind import schedule

PHASES = ("warm-up", "cooldown", "constant", "annealing")


def infinite_lr(step: int, steps: int, *, warmup: float, cooldown: float, constant: float, level: float, floor: float) -> float:
    """n = step / steps: n / warmup; then half a cosine from 1 to level; level; and level (floor / level)^u over the rest.

    warmup, cooldown and constant are where each phase ends, in shares of the whole run.
    """
    n = step / steps
    if n <= warmup:
        return n / warmup
    if n <= cooldown:
        return level + (1 - level) / 2 * (1 + math.cos(math.pi * (n - warmup) / (cooldown - warmup)))
    if n <= constant:
        return level
    return level * (floor / level) ** ((n - constant) / (1 - constant))


def phase(step: int, steps: int, *, warmup: float = 0.05, cooldown: float = 0.15, constant: float = 0.8) -> str:
    """In which of PHASES a step lies."""
    ends = (warmup, cooldown, constant)
    return PHASES[sum(step > end * steps for end in ends)]


def reference(step: int, steps: int, *, warmup: float, cooldown: float, constant: float, level: float, floor: float) -> float:
    """Section 3, in steps: N_w, N_c, N_s and N_e; the cosine by its half angle, the annealing by logarithms."""
    n_w, n_c, n_s, n_e = (share * steps for share in (warmup, cooldown, constant, 1.0))
    if step <= n_w:
        return step / n_w
    if step <= n_c:
        return level + (1.0 - level) * math.cos(0.5 * math.pi * (step - n_w) / (n_c - n_w)) ** 2
    if step <= n_s:
        return level
    u = (step - n_s) / (n_e - n_s)
    return math.exp((1.0 - u) * math.log(level) + u * math.log(floor))


PART = schedule(
    infinite_lr,
    name="infinite-lr",
    reference=reference,
    formula=r"\eta_c + \frac{1 - \eta_c}{2} (1 + \cos \pi \frac{n - N_w}{N_c - N_w}), \; \eta_c, \; \eta_c (\eta_m / \eta_c)^u",
    paper=Paper("infinite-lr", equation="section 3"),
    options=(
        Option("warmup", 0.05, "where the warm-up ends", bounds=(0.0, 1.0)),
        Option("cooldown", 0.15, "where the cooldown ends, after the warm-up", bounds=(0.0, 1.0)),
        Option("constant", 0.8, "where the constant phase ends, after the cooldown", bounds=(0.0, 1.0)),
        Option("level", 0.1, "the share of the rate that is kept", bounds=(0.0, 1.0)),
        Option("floor", 0.01, "the share of the rate it ends at", bounds=(0.0, 1.0)),
    ),
    # N_w, N_c, N_s, N_e = 50, 150, 800, 1000, rates 1e-3, 1e-4 and 1e-5
    values={
        (25, 1000): 0.5,
        (50, 1000): 1.0,
        (100, 1000): 0.55,
        (150, 1000): 0.1,
        (500, 1000): 0.1,
        (900, 1000): 10**-1.5,
        (1000, 1000): 0.01,
    },
    joints=lambda warmup, cooldown, constant, level, floor: (warmup, constant),
    claims=(
        Claim(
            "digits",
            "on digits it ends no lower than a cosine",
            "section 4",
            protocol=Protocol("task/digits", "optimizer/cosine", "not worse"),
        ),
        Claim(
            "mnist",
            "on MNIST it ends no lower than a cosine",
            "section 4",
            protocol=Protocol("task/mnist", "optimizer/cosine", "not worse"),
        ),
    ),
    deviations=(
        "the cooldown is the cosine's; the code has a linear and an inverse-root one too",
        "where each phase ends is a share of the whole run, as in the code; a run that goes on from before the annealing has"
        " neither warm-up nor cooldown: that is a constant rate at `level`, then this annealing",
    ),
)
