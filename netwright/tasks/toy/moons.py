"""Two moons: points of the plane on two interleaved half circles, with noise; the quickest task of all."""

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

#: Points in the pool, and the standard deviation of the noise.
POINTS, NOISE = 4000, 0.25
#: size -> (widths, steps, training points)
SIZES = {"small": ((16, 16), 200, 400), "full": ((64, 64), 1000, 2000)}


@cache
def pool() -> tuple[Tensor, Tensor]:
    """Points (4000, 2), centred, and their moon (4000,)."""
    g = generator(0, "draw", "task/moons")
    y = torch.arange(POINTS) % 2
    angle = math.pi * torch.rand(POINTS, generator=g, dtype=torch.float64)
    upper = torch.stack((angle.cos() - 0.5, angle.sin() - 0.25), 1)
    x = torch.where(y[:, None] == 0, upper, -upper)  # the lower moon is the upper one turned about the centre
    return rounded(x + NOISE * torch.randn(POINTS, 2, generator=g, dtype=torch.float64)), y


def data(seed: int, train: int) -> Data:
    """`train` points to train on, 500 to validate, 1 000 to test, drawn by the seed."""
    x, y = pool()
    return Data(x, y, *three_splits(POINTS, seed, 500, 1000, train))


def moons(size: str) -> Task:
    """The task at one size; the host is an Mlp."""
    widths, steps, train = SIZES[size]
    problem = Problem.classification((2,), classes=2, delta=0.005)
    return Task(
        id="task/moons",
        name="moons",
        version=PART.version,
        size=size,
        summary=PART.summary,
        problem=problem,
        data=partial(data, train=train),
        host="net/mlp",
        net=partial(host_net, "net/mlp", problem),
        widths=widths,
        steps=steps,
        batch=32,
        evals=eval_grid(steps),
        lr=(3e-4, 3e-2, 1e-2),
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
    moons,
    paper=Paper(
        title="Scikit-learn: Machine Learning in Python",
        authors="Pedregosa, F. et al.",
        year=2011,
        venue="Journal of Machine Learning Research 12",
    ),
    deviations=("centred, and generated here rather than by make_moons: same curves, the angle drawn uniformly",),
    uses=("net/mlp",),
    versions={"1": {"small": "832cc7910572fe56", "full": "832cc7910572fe56"}},
)
