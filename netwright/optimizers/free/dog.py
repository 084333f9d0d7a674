"""DoG: SGD at the distance come so far over the root of the sum of squared gradients; read at an average."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from netwright.core.part import Claim, Option, Paper, Protocol
from netwright.optimizers._kind import Array, Tags, optimizer
from netwright.tensor.stepping import State


def start(p: Tensor) -> State:
    return {"begun_at": p.clone(), "average": p.clone(), "farthest": p.new_zeros(()), "squares": p.new_zeros(())}


def dog(
    g: Tensor, state: State, p: Tensor, t: int, *, lr: float, weight_decay: Any, reps_rel: float, eps: float, gamma: float
) -> tuple[Tensor, State]:
    """r = max |x_i - x_0|, at first reps_rel (1 + |x_0|); G = eps + sum |g_i|^2; p <- p - lr r / sqrt(G) g.

    Read: the average a <- a + (1 + gamma) / (t + gamma) (p - a).
    """
    g = g + weight_decay * p
    first = reps_rel * (1 + p.square().sum().sqrt())
    far = (p - state["begun_at"]).square().sum().sqrt()
    farthest = first if t == 1 else torch.maximum(state["farthest"], far)
    squares = (state["squares"] if t > 1 else eps) + g.square().sum()
    new = p - lr * farthest / squares.sqrt() * g
    average = torch.lerp(state["average"], new, (1 + gamma) / (t + gamma))
    return new, {"begun_at": state["begun_at"], "average": average, "farthest": farthest, "squares": squares}


def read(p: Tensor, state: State, **options: Any) -> Tensor:
    return state["average"]


def reference(
    p: Array,
    gradient: Callable[[Array], Array],
    steps: int,
    *,
    lr: float,
    weight_decay: float,
    reps_rel: float,
    eps: float,
    gamma: float,
) -> Iterator[tuple[Array, Array]]:
    """Equation (DoG): all points and gradients kept; the average as the sum of points with weights worked out backwards."""
    points, slopes = [p.copy()], []
    for _ in range(steps):
        slopes.append(gradient(points[-1]) + weight_decay * points[-1])
        distances = [float(np.linalg.norm(x - points[0])) for x in points]
        r = max([reps_rel * (1.0 + float(np.linalg.norm(points[0]))), *distances])
        g_norms = [float(np.linalg.norm(g)) for g in slopes]
        points.append(points[-1] - lr * r / (eps + sum(n * n for n in g_norms)) ** 0.5 * slopes[-1])
        left, average = 1.0, 0 * p
        for t in range(len(slopes), 0, -1):
            share = (1.0 + gamma) / (t + gamma)
            average, left = average + left * share * points[t], left * (1.0 - share)
        yield points[-1], average


def first_step_is_known() -> bool:
    """reps_rel (1 + |x_0|) long."""
    p, g = torch.tensor([3.0, 4.0], dtype=torch.float64), torch.tensor([0.0, 50.0], dtype=torch.float64)
    new, _ = dog(g, start(p), p, 1, lr=1.0, weight_decay=0.0, reps_rel=1e-6, eps=1e-8, gamma=8.0)
    return abs(float((new - p).norm()) / 6e-6 - 1) < 1e-6


PART = optimizer(
    dog,
    start=start,
    reference=reference,
    read=read,
    formula=r"\eta_t = \max_{i \leq t} |x_i - x_0| \, / \, \sqrt{\sum_{i \leq t} |g_i|^2 + \epsilon}",
    paper=Paper(
        title="DoG is SGD's Best Friend: A Parameter-Free Dynamic Step Size Schedule",
        authors="Maor Ivgi, Oliver Hinder, Yair Carmon",
        year=2023,
        arxiv="2302.12022",
        equation="(DoG)",
    ),
    tags=Tags(scope="net", free=True, published=1.0, scaling="same"),
    options=(
        Option("reps_rel", 1e-6, "the first step over 1 + |x_0|; 1e-4 for nets with batch norm", bounds=(0.0, float("inf"))),
        Option("eps", 1e-8, "added to the sum of squares", bounds=(0.0, float("inf"))),
        Option("gamma", 8.0, "how late the average begins: 0 is the plain mean", bounds=(-1e-12, float("inf"))),
    ),
    claims=(
        Claim("first step", "the first step is reps_rel (1 + |x_0|) long", "section 3.3", check=first_step_is_known),
        Claim(
            "digits",
            "on digits it ends no lower than Adam at a tuned rate",
            "abstract",
            protocol=Protocol("task/digits", "optimizer/adam", "not worse"),
        ),
        Claim(
            "mnist",
            "on MNIST it ends no lower than Adam at a tuned rate",
            "abstract",
            protocol=Protocol("task/mnist", "optimizer/adam", "not worse"),
        ),
    ),
    deviations=(
        "equal to the authors' dog-optimizer 1.0.3; its polynomial-decay average, which the authors call needed, is what is read",
        "all groups are one; the code takes each group by itself. init_eta is left out",
    ),
)
