"""A noisy sine: regression of one number on one number, over several periods."""

from __future__ import annotations

import math
from functools import cache, partial

import torch
from torch import Tensor

from netwright.core.part import Paper
from netwright.engine.task import Data, Problem, Task, eval_grid, three_splits
from netwright.tasks._kind import host_net, task_part
from netwright.tasks.toy._rounding import rounded
from netwright.tensor.streams import generator

#: Points in the pool, and the standard deviation of the noise: no prediction is better than NOISE^2 = 0.01.
POINTS, NOISE = 4000, 0.1
#: size -> (periods on [-1, 1], widths, steps)
SIZES = {"small": (2, (64, 64), 1000), "full": (4, (128, 128), 4000)}


@cache
def pool(periods: int) -> tuple[Tensor, Tensor]:
    """x (4000, 1), uniform on [-1, 1], and y (4000, 1) = sin(pi periods x) + noise."""
    g = generator(0, "draw", "task/sine")
    x = rounded(2 * torch.rand(POINTS, 1, generator=g, dtype=torch.float64) - 1)
    noise = NOISE * torch.randn(POINTS, 1, generator=g, dtype=torch.float64)
    return x, rounded(torch.sin(math.pi * periods * x.double()) + noise)


def data(seed: int, periods: int) -> Data:
    """2 000 points to train on, 1 000 to validate, 1 000 to test, drawn by the seed."""
    x, y = pool(periods)
    return Data(x, y, *three_splits(POINTS, seed, 1000, 1000))


def sine(size: str) -> Task:
    """The task at one size; the host is an Mlp. A failed run scores 1, as a sine of an unrelated phase would."""
    periods, widths, steps = SIZES[size]
    problem = Problem.regression((1,), 1, worst=1.0, delta=0.001)
    return Task(
        id="task/sine",
        name="sine",
        version=PART.version,
        size=size,
        summary=PART.summary,
        problem=problem,
        data=partial(data, periods=periods),
        host="net/mlp",
        net=partial(host_net, "net/mlp", problem),
        widths=widths,
        steps=steps,
        batch=64,
        evals=eval_grid(steps),
        lr=(3e-4, 3e-2, 5e-3),
        slots={
            "activation": "activation/relu",
            "rule": "rule/backprop",
            "norm": "",
            "optimizer": "optimizer/adam",
            "schedule": "optimizer/constant",
        },
        control="rule/frozen-hidden",
    )


PART = task_part(
    sine,
    paper=Paper(
        title="Neural Networks Fail to Learn Periodic Functions and How to Fix It",
        authors="Ziyin, L., Hartwig, T. and Ueda, M.",
        year=2020,
        arxiv="2006.08195",
    ),
    deviations=("the test points lie where the training points do: the paper's question is extrapolation",),
    uses=("net/mlp",),
    versions={"1": {"small": "5a343dac7bcb0192", "full": "abf3d84fb7603fd5"}},
)
