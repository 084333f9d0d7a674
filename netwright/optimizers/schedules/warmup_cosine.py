"""Warm-up and cosine: the rate falls along half a cosine, and rises to it over the first share of the steps."""

from __future__ import annotations

import math

from netwright.core.part import Option, Paper
from netwright.optimizers._kind import schedule


def warmup_cosine(step: int, steps: int, *, warmup: float) -> float:
    """min(1, (step + 1) / (warmup steps)) (1 + cos(pi step / steps)) / 2: never 0 at the first step."""
    return min(1.0, (step + 1) / (warmup * steps)) * 0.5 * (1 + math.cos(math.pi * step / steps))


def reference(step: int, steps: int, *, warmup: float) -> float:
    """A ramp that is full after the warm-up's steps, times half a cosine by its half angle."""
    full = warmup * steps
    ramp = (step + 1) / full if step + 1 < full else 1.0
    return ramp * math.cos(0.5 * math.pi * step / steps) ** 2


PART = schedule(
    warmup_cosine,
    reference=reference,
    formula=r"\min(1, (t+1)/wT)\,\frac{1}{2} (1 + \cos \pi t / T)",
    paper=Paper(
        title="Attention Is All You Need",
        authors="Ashish Vaswani, Noam Shazeer, Niki Parmar, Jakob Uszkoreit, Llion Jones, Aidan N. Gomez, Lukasz Kaiser,"
        " Illia Polosukhin",
        year=2017,
        arxiv="1706.03762",
        equation="(3)",
    ),
    options=(Option("warmup", 0.05, "share of the steps over which the rate rises", bounds=(0.0, 1.0)),),
    values={(0, 100): 0.2, (100, 100): 0.0},
    joints=lambda warmup, **options: (warmup,),
    deviations=(
        "the paper warms up to a rate that falls as the root of the step; the cosine is of Loshchilov and Hutter (2016)",
        "the cosine runs over all steps, the warm-up's included: the two are multiplied",
    ),
)
