"""CIFAR-10: photographs of ten classes, 32 x 32 pixels; 50 000 to train and validate, the official 10 000 to test."""

from __future__ import annotations

from functools import partial
from typing import Any

from netwright.core.part import Option, Paper
from netwright.engine.task import Data, Problem, Task, eval_grid
from netwright.tasks._kind import host_net, task_part
from netwright.tasks._read import kept
from netwright.tasks.vision._images import Pool, crop_and_flip, flat, normalised, official

SHAPE = (3, 32, 32)
#: size -> (training images, mlp widths, convnet widths, steps)
SIZES = {"small": (10_000, (64, 64), (16, 32, 64), 1000), "full": (None, (256, 256), (32, 64, 112), 8000)}


@kept
def pool(given: str) -> Pool:
    """All images (60000, 3, 32, 32), normalised a channel, their labels, and how many are training images."""
    return normalised("cifar10", "uoft-cs/cifar10", 32, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616), given)


def read(seed: int, shape: tuple[int, ...], train: int | None, given: str) -> Data:
    """5 000 of the training images validate."""
    return official(pool(given), seed, shape, val=10, train=train)


def cifar10(size: str, host: str, data: str) -> Task:
    """The task at one size: images (3, 32, 32), cropped and mirrored, for "convnet"; vectors (3072,) for "mlp".

    The convnet's first block halves the image, which makes a step four times cheaper.
    """
    train, mlp, convnet, steps = SIZES[size]
    image = host == "convnet"
    first: dict[str, Any] = {"stride": 2} if image else {}
    problem = Problem.classification(SHAPE if image else flat(SHAPE), classes=10, delta=0.005)
    return Task(
        id="task/cifar10",
        name="cifar10",
        version=PART.version,
        size=size,
        summary=PART.summary,
        host=f"net/{host}",
        options={"host": host},
        problem=problem,
        data=partial(read, shape=problem.input, train=train, given=data),
        net=partial(host_net, f"net/{host}", problem, **first),
        widths=convnet if image else mlp,
        steps=steps,
        batch=64,
        evals=eval_grid(steps),
        augment=crop_and_flip if image else None,
        lr=(2e-4, 2e-2, 2e-3),
        weight_decay=0.02,
        slots={
            "activation": "activation/relu",
            "rule": "rule/backprop",
            "norm": "layer/batch-norm" if image else "",
            "optimizer": "optimizer/adamw",
            "schedule": "optimizer/warmup-cosine",
        },
        control="rule/frozen-hidden",
    )


PART = task_part(
    cifar10,
    paper=Paper(
        title="Learning Multiple Layers of Features from Tiny Images",
        authors="Krizhevsky, A.",
        year=2009,
        venue="Technical report, University of Toronto",
    ),
    options=(
        Option("host", "convnet", "the net that parts are put into", allowed=("convnet", "mlp")),
        Option("data", "", "the folder that holds cifar10/*.parquet; else NETWRIGHT_DATA, else the hub"),
    ),
    uses=("net/mlp", "net/convnet"),
)
