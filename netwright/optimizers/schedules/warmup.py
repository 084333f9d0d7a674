"""Warm-up: the rate rises in a straight line over the first share of the steps, and stays."""

from __future__ import annotations

from netwright.core.part import Option, Paper
from netwright.optimizers._kind import schedule


def warmup(step: int, steps: int, *, share: float) -> float:
    """min(1, (step + 1) / (share steps)): never 0 at the first step."""
    return min(1.0, (step + 1) / (share * steps))


def reference(step: int, steps: int, *, share: float) -> float:
    """Of the warm-up's steps, the part that is done with this one."""
    done, wanted = float(step) + 1.0, steps * share
    return done / wanted if done < wanted else 1.0


PART = schedule(
    warmup,
    reference=reference,
    formula=r"\min(1, (t + 1) / wT)",
    paper=Paper(
        title="Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour",
        authors="Priya Goyal, Piotr Dollar, Ross Girshick, Pieter Noordhuis, Lukasz Wesolowski, Aapo Kyrola, Andrew Tulloch,"
        " Yangqing Jia, Kaiming He",
        year=2017,
        arxiv="1706.02677",
    ),
    options=(Option("share", 0.05, "share of the steps over which the rate rises", bounds=(0.0, 1.0)),),
    values={(0, 100): 0.2, (4, 100): 1.0, (100, 100): 1.0},
    joints=lambda share: (share,),
    deviations=("it rises from one step's share; the paper begins at the rate of one worker",),
)
