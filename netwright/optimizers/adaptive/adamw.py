"""AdamW: Adam, whose weight decay stays out of the means and shrinks the values themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from netwright.core.part import Claim, Option, Paper
from netwright.optimizers._kind import Array, Tags, Twin, optimizer
from netwright.tensor.stepping import State


def start(p: Tensor) -> State:
    return {"mean": torch.zeros_like(p), "square": torch.zeros_like(p)}


def adamw(
    g: Tensor, state: State, p: Tensor, t: int, *, lr: float, weight_decay: float, beta1: float, beta2: float, eps: float
) -> tuple[Tensor, State]:
    """p <- (1 - lr decay) p - lr m_hat / (sqrt(v_hat) + eps), with the means of Adam."""
    mean = torch.lerp(state["mean"], g, 1 - beta1)
    square = beta2 * state["square"] + (1 - beta2) * g * g
    root = (square / (1 - beta2**t)).sqrt() + eps
    return (1 - lr * weight_decay) * p - lr / (1 - beta1**t) * mean / root, {"mean": mean, "square": square}


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
) -> Iterator[Array]:
    """Algorithm 2 with the means as weighted sums over all gradients, whose weights sum to one."""
    seen: list[Array] = []
    for _ in range(steps):
        seen.append(gradient(p))
        ages = np.arange(len(seen))[::-1]
        first, second = beta1**ages, beta2**ages
        m = np.tensordot(first / first.sum(), seen, 1)
        v = np.tensordot(second / second.sum(), np.square(seen), 1)
        p = p - lr * (m / (np.sqrt(v) + eps) + weight_decay * p)
        yield p


def decays_whatever_the_gradient() -> bool:
    """Two gradients of other sizes: both values lose the same share by decay."""
    p = torch.tensor([2.0, 2.0], dtype=torch.float64)
    own = {"lr": 0.1, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8}
    g = torch.tensor([1e-3, 10.0], dtype=torch.float64)
    off, on = (adamw(g, start(p), p, 1, weight_decay=decay, **own)[0] for decay in (0.0, 0.5))
    return bool(torch.allclose(off - on, 0.1 * 0.5 * p, rtol=1e-9))


def in_torch(options: Mapping[str, Any]) -> dict[str, Any]:
    return {"betas": (options["beta1"], options["beta2"]), "eps": options["eps"]}


PART = optimizer(
    adamw,
    start=start,
    reference=reference,
    formula=r"\theta \leftarrow (1 - \eta \lambda)\, \theta - \eta\, \hat m / (\sqrt{\hat v} + \epsilon)",
    paper=Paper(
        title="Decoupled Weight Decay Regularization",
        authors="Ilya Loshchilov, Frank Hutter",
        year=2017,
        arxiv="1711.05101",
        equation="Algorithm 2",
    ),
    tags=Tags(decay="decoupled", scaling="same"),
    twin=Twin(torch.optim.AdamW, in_torch, fused=True),
    options=(
        Option("beta1", 0.9, "how much of the mean gradient stays", bounds=(-1e-12, 1.0)),
        Option("beta2", 0.999, "how much of the mean square stays", bounds=(-1e-12, 1.0)),
        Option("eps", 1e-8, "added to the root", bounds=(0.0, float("inf"))),
    ),
    claims=(
        Claim(
            "decoupled",
            "weight decay takes the same share of every value, whatever its gradients are",
            "section 2",
            check=decays_whatever_the_gradient,
        ),
    ),
    deviations=("the decay is multiplied by the rate, as in torch; the paper scales both by a schedule of their own",),
)
