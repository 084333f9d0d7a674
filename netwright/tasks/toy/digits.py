"""Handwritten digits, 8 x 8 pixels: 1 797 images in ten classes; ships with scikit-learn, so nothing is downloaded."""

from __future__ import annotations

from functools import cache, partial

import torch
from torch import Tensor

from netwright.core.errors import require
from netwright.core.part import Option, Paper
from netwright.engine.task import Data, Problem, Task, eval_grid, three_splits
from netwright.tasks._kind import host_net, task_part

#: Mean and standard deviation of all pixels, which run from 0 to 16.
MEAN, STD = 4.884165, 6.016788
#: size -> (mlp widths, convnet widths, steps)
SIZES = {"small": ((64, 64), (8, 16), 600), "full": ((256, 256), (16, 32), 2000)}


@cache
def pool() -> tuple[Tensor, Tensor]:
    """All images (1797, 64), normalised, and their labels (1797,)."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        require(False, "task/digits reads its images from scikit-learn; install netwright[bench]")
    digits = load_digits()
    return torch.tensor((digits.data - MEAN) / STD, dtype=torch.float32), torch.tensor(digits.target, dtype=torch.int64)


def data(seed: int, shape: tuple[int, ...]) -> Data:
    """1 077 images to train on, 360 to validate, 360 to test, drawn by the seed."""
    x, y = pool()
    return Data(x.view(-1, *shape), y, *three_splits(len(x), seed, 360, 360))


def digits(size: str, host: str) -> Task:
    """The task at one size: vectors (64,) for the host "mlp", images (1, 8, 8) for "convnet"."""
    mlp, convnet, steps = SIZES[size]
    widths = mlp if host == "mlp" else convnet
    problem = Problem.classification((64,) if host == "mlp" else (1, 8, 8), classes=10, delta=0.005)
    return Task(
        id="task/digits",
        name="digits",
        version=PART.version,
        size=size,
        summary=PART.summary,
        host=f"net/{host}",
        options={"host": host},
        problem=problem,
        data=partial(data, shape=problem.input),
        net=partial(host_net, f"net/{host}", problem),
        widths=widths,
        steps=steps,
        batch=64,
        evals=eval_grid(steps),
        lr=(3e-4, 3e-2, 3e-3),
        slots={
            "activation": "activation/relu",
            "rule": "rule/backprop",
            "norm": "" if host == "mlp" else "layer/batch-norm",
            "optimizer": "optimizer/adam",
            "schedule": "optimizer/constant",
        },
        control="rule/frozen-hidden",
    )


PART = task_part(
    digits,
    paper=Paper(
        title="Optical Recognition of Handwritten Digits",
        authors="Alpaydin, E. and Kaynak, C.",
        year=1998,
        venue="UCI Machine Learning Repository",
    ),
    options=(Option("host", "mlp", "the net that parts are put into", allowed=("mlp", "convnet")),),
    uses=("net/mlp", "net/convnet"),
    versions={"1": {"small": "a9d993cef440b911", "full": "a9d993cef440b911"}},
)
