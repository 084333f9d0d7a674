"""AdamP: AdamW, whose step is taken orthogonally to weights that a norm follows, so that momentum doesn't make them grow."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from netwright.core.part import Claim, Option, Paper, Protocol
from netwright.optimizers._kind import Array, Tags, optimizer
from netwright.optimizers.matrix._projection import projected
from netwright.tensor.stepping import State


def start(p: Tensor) -> State:
    return {"mean": torch.zeros_like(p), "square": torch.zeros_like(p)}


def adamp(
    g: Tensor,
    state: State,
    p: Tensor,
    t: int,
    *,
    lr: float,
    weight_decay: float,
    beta1: float,
    beta2: float,
    eps: float,
    delta: float,
    wd_ratio: float,
    nesterov: bool,
) -> tuple[Tensor, State]:
    """The step of Adam, m / (sqrt(v_hat) + eps), projected; p <- (1 - lr decay r) p - lr / (1 - b1^t) step."""
    mean = torch.lerp(state["mean"], g, 1 - beta1)
    square = beta2 * state["square"] + (1 - beta2) * g * g
    root = square.sqrt() / math.sqrt(1 - beta2**t) + eps
    step, ratio = projected(g, p, (torch.lerp(g, mean, beta1) if nesterov else mean) / root, delta, wd_ratio, eps)
    return (1 - lr * weight_decay * ratio) * p - lr / (1 - beta1**t) * step, {"mean": mean, "square": square}


def reference(
    p: Array,
    gradient: Callable[[Array], Array],
    steps: int,
    *,
    lr: float,
    weight_decay: float,
    beta1: float,
    beta2: float,
    eps: float,
    delta: float,
    wd_ratio: float,
    nesterov: bool,
) -> Iterator[Array]:
    """Algorithm 2, row by row; the test of scale-invariance by the cosine of the gradient."""
    m, v = np.zeros_like(p), np.zeros_like(p)
    for t in range(1, steps + 1):
        g = gradient(p)
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2
        ahead = beta1 * m + (1 - beta1) * g if nesterov else m
        step, ratio = ahead / (np.sqrt(v) / np.sqrt(1 - beta2**t) + eps), 1.0
        for pieces in ([slice(i, i + 1) for i in range(len(p))], [slice(None)]) if p.ndim == 2 else ():
            lengths = [max(eps, float(np.linalg.norm(g[i]))) * max(eps, float(np.linalg.norm(p[i]))) for i in pieces]
            cosines = [abs(float(np.vdot(g[i], p[i]))) / length for i, length in zip(pieces, lengths, strict=True)]
            if max(cosines) * np.sqrt(p[pieces[0]].size) < delta:
                for i in pieces:
                    along = p[i] / (np.linalg.norm(p[i]) + eps)
                    step[i] = step[i] - np.vdot(along, step[i]) * along
                ratio = wd_ratio
                break
        p = p - lr * weight_decay * ratio * p - lr * step / (1 - beta1**t)
        yield p


def _tangent(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Weights (1, 4, 8), and a gradient orthogonal to every row."""
    w, g = (torch.from_numpy(a) for a in np.random.default_rng(seed).standard_normal((2, 1, 4, 8)))
    return w, g - w * (g * w).sum(-1, keepdim=True) / w.square().sum(-1, keepdim=True)


def _step(w: Tensor, g: Tensor, **changed: float) -> Tensor:
    own: dict[str, Any] = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "delta": 0.1, "wd_ratio": 0.1, "nesterov": False}
    return adamp(g, start(w), w, 1, lr=0.01, weight_decay=0.5, **{**own, **changed})[0]


def keeps_out_of_the_weights_way() -> bool:
    """Where the test fires, the step is orthogonal to every row, and the decay a tenth."""
    w, g = _tangent()
    moved = _step(w, g) - w * (1 - 0.01 * 0.5 * 0.1)
    return float((moved * w).sum(-1).abs().max()) < 1e-9 and float(moved.abs().max()) > 1e-3


def is_adamw_at_delta_0() -> bool:
    """With delta = 0 nothing is projected: the step of AdamW, decay included."""
    w, g = _tangent()
    wanted = (1 - 0.01 * 0.5) * w - 0.01 * g / (g.abs() + 1e-8)
    return bool(torch.allclose(_step(w, g, delta=0.0), wanted, rtol=1e-9))


PART = optimizer(
    adamp,
    start=start,
    reference=reference,
    formula=r"\theta \leftarrow \theta - \eta\,(s - \hat\theta\,(\hat\theta \cdot s)), \quad s = \hat m / \sqrt{\hat v}",
    paper=Paper("adamp", equation="Algorithm 2"),
    tags=Tags(scope="tensor", decay="decoupled", scaling="same"),
    options=(
        Option("beta1", 0.9, "how much of the mean gradient stays", bounds=(-1e-12, 1.0)),
        Option("beta2", 0.999, "how much of the mean square stays", bounds=(-1e-12, 1.0)),
        Option("eps", 1e-8, "added to roots and norms", bounds=(0.0, float("inf"))),
        Option("delta", 0.1, "how nearly orthogonal gradients have to be to their weights", bounds=(-1e-12, float("inf"))),
        Option("wd_ratio", 0.1, "the share of the decay where the step is projected", bounds=(-1e-12, 1.0 + 1e-12)),
        Option("nesterov", False, "step from where the mean leads"),
    ),
    settings=({"delta": 2.0},),
    claims=(
        Claim(
            "orthogonal",
            "where every row's gradient is orthogonal to it, so is the step, and the decay is a tenth",
            "section 3.2",
            check=keeps_out_of_the_weights_way,
        ),
        Claim("AdamW at delta 0", "at delta 0 it is AdamW", "Algorithm 2", check=is_adamw_at_delta_0),
        Claim(
            "digits",
            "on digits it ends higher than Adam",
            "abstract",
            protocol=Protocol("task/digits", "optimizer/adam", "better"),
        ),
        Claim(
            "mnist", "on MNIST it ends higher than Adam", "abstract", protocol=Protocol("task/mnist", "optimizer/adam", "better")
        ),
    ),
    deviations=(
        "rows are those of the weight as a matrix of outputs, a transposed convolution's too, where the code takes axis 0",
        "what is fused in one tensor is tested and projected apart",
    ),
)
