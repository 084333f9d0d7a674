"""MNIST: handwritten digits, 28 x 28 pixels; 60 000 images to train and validate on, the official 10 000 to test."""

from __future__ import annotations

from functools import partial

from netwright.core.part import Option, Paper
from netwright.engine.task import Data, Problem, Task, eval_grid
from netwright.tasks._kind import host_net, task_part
from netwright.tasks._read import kept
from netwright.tasks.vision._images import Pool, flat, normalised, official

SHAPE = (1, 28, 28)
#: size -> (training images, mlp widths, convnet widths, steps, batch)
SIZES = {"small": (10_000, (128, 128), (16, 32), 800, 64), "full": (None, (256, 256), (24, 48), 4300, 128)}


@kept
def pool(given: str) -> Pool:
    """All images (70000, 1, 28, 28), normalised, their labels, and how many are training images."""
    return normalised("mnist", "ylecun/mnist", 28, (0.1307,), (0.3081,), given)


def read(seed: int, shape: tuple[int, ...], train: int | None, given: str) -> Data:
    """5 000 of the training images validate."""
    return official(pool(given), seed, shape, val=12, train=train)


def mnist(size: str, host: str, data: str) -> Task:
    """The task at one size: vectors (784,) for the host "mlp", images (1, 28, 28) for "convnet"."""
    train, mlp, convnet, steps, batch = SIZES[size]
    problem = Problem.classification(flat(SHAPE) if host == "mlp" else SHAPE, classes=10, delta=0.002)
    return Task(
        id="task/mnist",
        name="mnist",
        version=PART.version,
        size=size,
        summary=PART.summary,
        host=f"net/{host}",
        options={"host": host},
        problem=problem,
        data=partial(read, shape=problem.input, train=train, given=data),
        net=partial(host_net, f"net/{host}", problem),
        widths=mlp if host == "mlp" else convnet,
        steps=steps,
        batch=batch,
        evals=eval_grid(steps),
        lr=(1e-4, 1e-2, 1e-3),
        slots={
            "activation": "activation/relu",
            "rule": "rule/backprop",
            "norm": "" if host == "mlp" else "layer/batch-norm",
            "optimizer": "optimizer/adam",
            "schedule": "optimizer/cosine",
        },
        control="rule/frozen-hidden",
    )


PART = task_part(
    mnist,
    paper=Paper(
        title="Gradient-Based Learning Applied to Document Recognition",
        authors="LeCun, Y., Bottou, L., Bengio, Y. and Haffner, P.",
        year=1998,
        venue="Proceedings of the IEEE 86",
    ),
    options=(
        Option("host", "mlp", "the net that parts are put into", allowed=("mlp", "convnet")),
        Option("data", "", "the folder that holds mnist/*.parquet; else NETWRIGHT_DATA, else the hub"),
    ),
    uses=("net/mlp", "net/convnet"),
    versions={"1": {"small": "50ac262a5b1edbdf", "full": "50ac262a5b1edbdf"}},
)
