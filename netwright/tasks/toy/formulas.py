"""Formulas: regression of a smooth formula without noise, of the KAN paper's toys and of Feynman's Lectures."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, partial

import torch
from torch import Tensor

from netwright.core.part import Option, Paper
from netwright.engine.task import Data, Problem, Task, eval_grid, same, three_splits
from netwright.tasks._kind import host_net, task_part
from netwright.tasks.toy._rounding import rounded
from netwright.tensor.streams import generator

PI = math.pi
POINTS = 5000
#: name -> (ranges of the variables, the formula of their columns).
FORMULAS: dict[str, tuple[tuple[tuple[float, float], ...], Callable[..., Tensor]]] = {
    "toy": (((-1, 1),) * 2, lambda x, y: torch.exp(torch.sin(PI * x) + y**2)),
    "product": (((-1, 1),) * 2, lambda x, y: x * y),
    "four": (((-1, 1),) * 4, lambda a, b, c, d: torch.exp((torch.sin(PI * (a**2 + b**2)) + torch.sin(PI * (c**2 + d**2))) / 2)),
    "I.6.20": (((-1, 1), (0.5, 2)), lambda t, s: torch.exp(-(t**2) / (2 * s**2)) / (2 * PI * s**2) ** 0.5),
    "I.15.3x": (((-1, 1),) * 3 + ((1.1, 2),), lambda x, u, t, c: (x - u * t) / torch.sqrt(1 - u**2 / c**2)),
    "I.16.6": (((-0.8, 0.8), (-0.8, 0.8), (1, 2)), lambda u, v, c: (u + v) / (1 + u * v / c**2)),
    "I.18.4": (((0.5, 1), (-1, 1)) * 2, lambda m, r, n, s: (m * r + n * s) / (m + n)),
    "I.29.16": (
        ((-1, 1), (-1, 1), (0, 2 * PI), (0, 2 * PI)),
        lambda x, y, a, b: torch.sqrt(x**2 + y**2 - 2 * x * y * torch.cos(a - b)),
    ),
    "I.50.26": (
        ((0, 1), (0, 1), (0, 2 * PI), (0, 1)),
        lambda x, w, t, a: x * (torch.cos(w * t) + a * torch.cos(w * t) ** 2),
    ),
}
#: size -> (widths, steps)
SIZES = {"small": ((32, 32), 2000), "full": ((64, 64), 10000)}


@cache
def pool(formula: str) -> tuple[Tensor, Tensor]:
    """Variables (5000, n), uniform in their ranges and scaled to [-1, 1]; values (5000, 1) with mean 0 and variance 1."""
    ranges, f = FORMULAS[formula]
    unit = torch.rand(POINTS, len(ranges), generator=generator(0, "draw", f"task/formulas/{formula}"), dtype=torch.float64)
    x = rounded(2 * unit - 1)
    columns = [lo + (hi - lo) * (x[:, i].double() + 1) / 2 for i, (lo, hi) in enumerate(ranges)]
    y = f(*columns)[:, None]
    # Not rounded as coarsely as the inputs: the error that is asked for is below a thousandth.
    return x, (torch.round((y - y.mean()) / y.std() * 2**20) / 2**20).float()


def data(seed: int, formula: str) -> Data:
    """3 000 points to train on, 1 000 to validate, 1 000 to test, drawn by the seed."""
    x, y = pool(formula)
    return Data(x, y, *three_splits(POINTS, seed, 1000, 1000))


def digits_wrong(out: Tensor, y: Tensor) -> float:
    """log10 of the root mean square error, in standard deviations of the formula: -3 is right to a thousandth."""
    return math.log10(max(1e-12, float((out.double() - y.double()).square().mean().sqrt())))


def formulas(size: str, formula: str) -> Task:
    """The task at one size; the host is an Mlp. A failed run scores 0, as the mean of all values would."""
    widths, steps = SIZES[size]
    inputs = len(FORMULAS[formula][0])
    problem = Problem(
        "mse",
        digits_wrong,
        "log10 of the root mean square error",
        higher_is_better=False,
        worst=0.0,
        delta=0.1,
        input=(inputs,),
        output=(1,),
        gives=frozenset({"targets", "vector"}),
        encode=same,
    )
    return Task(
        id="task/formulas",
        name="formulas",
        version=PART.version,
        size=size,
        summary=PART.summary,
        options={"formula": formula},
        problem=problem,
        data=partial(data, formula=formula),
        host="net/mlp",
        net=partial(host_net, "net/mlp", problem),
        widths=widths,
        steps=steps,
        batch=128,
        evals=eval_grid(steps),
        lr=(3e-4, 3e-2, 5e-3),
        slots={
            "activation": "activation/silu",
            "rule": "rule/backprop",
            "norm": "",
            "optimizer": "optimizer/adam",
            "schedule": "optimizer/cosine",
        },
        control="rule/frozen-hidden",
    )


PART = task_part(
    formulas,
    paper=Paper("kan", equation="section 3.1"),
    options=(Option("formula", "toy", "the formula", allowed=tuple(FORMULAS)),),
    deviations=(
        "variables are scaled to [-1, 1] and values to variance 1; points are drawn anew from one pool for every seed",
        "the ranges of Feynman's formulas are those of the code's feynman.py, but that c starts at 1.1 in I.15.3x, whose"
        " root is 0 at u = c = 1",
    ),
    uses=("net/mlp",),
    versions={
        "1": {
            "small": "a315c430bba5e0a8",
            "full": "a315c430bba5e0a8",
            "formula=product": "665945d34623c5f5",
            "formula=four": "39c1f41f57ca0095",
            "formula=I.6.20": "1ec92a00d620a4e0",
            "formula=I.15.3x": "4ea26669f29c9ae1",
            "formula=I.16.6": "4309f1915d758936",
            "formula=I.18.4": "da990509531bf361",
            "formula=I.29.16": "45159ca816726870",
            "formula=I.50.26": "5fdd3cd1a9e55302",
        }
    },
)
