"""SGDP: SGD with momentum, whose step is taken orthogonally to weights that a norm follows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from netwright.core.part import Claim, Option, Paper
from netwright.optimizers._kind import Array, Tags, optimizer
from netwright.optimizers.matrix._projection import projected
from netwright.tensor.stepping import State


def start(p: Tensor) -> State:
    return {"velocity": torch.zeros_like(p)}


def sgdp(
    g: Tensor,
    state: State,
    p: Tensor,
    t: int,
    *,
    lr: float,
    weight_decay: float,
    momentum: float,
    nesterov: bool,
    delta: float,
    wd_ratio: float,
    eps: float,
) -> tuple[Tensor, State]:
    """v <- mu v + g; the step v (nesterov: g + mu v), projected; p <- (1 - lr decay r / (1 - mu)) p - lr step."""
    velocity = momentum * state["velocity"] + g
    step, ratio = projected(g, p, g + momentum * velocity if nesterov else velocity, delta, wd_ratio, eps)
    return (1 - lr * weight_decay * ratio / (1 - momentum)) * p - lr * step, {"velocity": velocity}


def reference(
    p: Array,
    gradient: Callable[[Array], Array],
    steps: int,
    *,
    lr: float,
    weight_decay: float,
    momentum: float,
    nesterov: bool,
    delta: float,
    wd_ratio: float,
    eps: float,
) -> Iterator[Array]:
    """Algorithm 1: all gradients so far, aged by the momentum; angles in place of cosines."""
    past: list[Array] = []
    for _ in range(steps):
        g = gradient(p)
        past.append(g)
        v = sum((momentum**age * old for age, old in enumerate(past[::-1])), 0 * p)
        step, share = (g + momentum * v if nesterov else v), 1.0
        for pieces in (list(range(len(p))), [...]) if p.ndim == 2 else ():  # every row, or the whole
            angles = [_angle(g[i], p[i], eps) for i in pieces]
            if all(abs(math.cos(angle)) < delta / p[pieces[0]].size ** 0.5 for angle in angles):
                step = step.copy()
                for i in pieces:
                    unit = p[i] / (np.linalg.norm(p[i]) + eps)
                    step[i] -= unit * np.vdot(unit, step[i])
                share = wd_ratio
                break
        p = p * (1 - lr * weight_decay * share / (1 - momentum)) - lr * step
        yield p


def _angle(a: Array, b: Array, eps: float) -> float:
    lengths = max(eps, float(np.linalg.norm(a))) * max(eps, float(np.linalg.norm(b)))
    return math.acos(max(-1.0, min(1.0, float(np.vdot(a, b)) / lengths)))


def slows_the_growth_of_norms() -> bool:
    """Unit gradients orthogonal to the weights, momentum 0.9: squared norms grow at most a third as much as unprojected."""
    draw, ends = np.random.default_rng(0), []
    own: dict[str, Any] = {"lr": 0.05, "weight_decay": 0.0, "momentum": 0.9, "nesterov": False, "wd_ratio": 0.1, "eps": 1e-8}
    for delta in (1.0, 0.0):
        w = torch.from_numpy(draw.standard_normal((1, 1, 64)))
        w, state = w / w.norm(), start(w)
        for t in range(1, 301):
            g = torch.from_numpy(draw.standard_normal((1, 1, 64)))
            g = g - w * (g * w).sum() / w.square().sum()
            w, state = sgdp(g / g.norm(), state, w, t, delta=delta, **own)
        ends.append(float(w.square().sum()) - 1)
    return 3 * ends[0] < ends[1]


PART = optimizer(
    sgdp,
    start=start,
    reference=reference,
    formula=r"\theta \leftarrow \theta - \eta\,(v - \hat\theta\,(\hat\theta \cdot v)), \quad v \leftarrow \mu v + g",
    paper=Paper("adamp", equation="Algorithm 1"),
    tags=Tags(
        scope="tensor",
        rates=(10.0, 10.0, 10.0),
        published=0.01,
        decay="decoupled",
        scaling="linear",
        reasons={"decay": "the decay is over 1 - momentum, as momentum makes steps that much longer (released code)"},
    ),
    options=(
        Option("momentum", 0.9, "how much of the velocity stays", bounds=(-1e-12, 1.0)),
        Option("nesterov", False, "step from where the velocity leads"),
        Option("delta", 0.1, "how nearly orthogonal gradients have to be to their weights", bounds=(-1e-12, float("inf"))),
        Option("wd_ratio", 0.1, "the share of the decay where the step is projected", bounds=(-1e-12, 1.0 + 1e-12)),
        Option("eps", 1e-8, "added to norms", bounds=(0.0, float("inf"))),
    ),
    settings=({"delta": 2.0},),
    claims=(
        Claim(
            "slower growth",
            "under gradients orthogonal to the weights, norms grow at most a third as much as without the projection",
            "section 2.4",
            check=slows_the_growth_of_norms,
        ),
    ),
    deviations=(
        "momentum is 0.9 by default, as in the paper's runs; the code's default is 0. No dampening",
        "rows are those of the weight as a matrix of outputs; what is fused in one tensor is tested and projected apart",
    ),
)
