"""Sparse parity: the parity of a few fixed bits among many; no single bit tells anything about the label."""

from __future__ import annotations

from functools import cache, partial

import torch
from torch import Tensor

from netwright.core.part import Paper
from netwright.engine.task import Data, Problem, Task, eval_grid, three_splits
from netwright.tasks._kind import host_net, task_part
from netwright.tensor.streams import generator

#: size -> (bits, bits that count, pool, widths, steps)
SIZES = {"small": (20, 4, 6000, (64, 64), 800), "full": (40, 4, 60000, (128, 128), 4000)}


@cache
def pool(bits: int, count: int, points: int) -> tuple[Tensor, Tensor]:
    """Distinct rows of -1 and 1 (points, bits), and whether an odd number of the first `count` is 1."""
    g = generator(0, "draw", "task/parity")
    numbers = torch.unique(torch.randint(2**bits, (2 * points,), generator=g))
    numbers = numbers[torch.randperm(len(numbers), generator=g)[:points]]
    x = numbers[:, None] >> torch.arange(bits) & 1
    return 2.0 * x - 1.0, x[:, :count].sum(1) % 2


def data(seed: int, bits: int, count: int, points: int) -> Data:
    """A sixth of the rows to validate, a sixth to test, the rest to train on, drawn by the seed."""
    x, y = pool(bits, count, points)
    return Data(x, y, *three_splits(len(x), seed, points // 6, points // 6))


def parity(size: str) -> Task:
    """The task at one size; the host is an Mlp. The first bits are those that count: which they are changes nothing."""
    bits, count, points, widths, steps = SIZES[size]
    problem = Problem.classification((bits,), classes=2, delta=0.01)
    return Task(
        id="task/parity",
        name="parity",
        version=PART.version,
        size=size,
        summary=PART.summary,
        problem=problem,
        data=partial(data, bits=bits, count=count, points=points),
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
    parity,
    paper=Paper(
        title="Hidden Progress in Deep Learning: SGD Learns Parities Near the Computational Limit",
        authors="Barak, B. et al.",
        year=2022,
        arxiv="2207.08799",
    ),
    uses=("net/mlp",),
    versions={"1": {"small": "d45d2b0427607e3b", "full": "e2ed3d8c30da8cd7"}},
)
