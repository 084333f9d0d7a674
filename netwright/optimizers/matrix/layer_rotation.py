"""Layca: every step turns a layer's weights by the same angle and leaves their norm as it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from netwright.core.part import Claim, Option, Paper, Protocol
from netwright.optimizers._kind import Array, Tags, optimizer, rest_options
from netwright.tensor.stepping import State


def start(p: Tensor) -> State:
    return {"mean": torch.zeros_like(p), "square": torch.zeros_like(p)}


def turned(p: Tensor, step: Tensor, lr: float) -> Tensor:
    """p turned against the step by atan(lr), its norm kept; matrices (N, out, rest) each by themselves, a flat tensor whole."""
    axes = (-2, -1) if p.dim() > 2 else (-1,)
    long = lambda x: x.square().sum(axes, keepdim=True).sqrt()  # noqa: E731
    norm = long(p)
    there = norm > 0
    step = step - p * (step * p).sum(axes, keepdim=True) / torch.where(there, norm, 1.0).square()
    far = long(step)
    new = p - lr * norm * step / torch.where(far == 0, 1.0, far)
    return torch.where(there, new / torch.where(there, long(new), 1.0) * norm, new)


def layer_rotation(
    g: Tensor,
    state: State,
    p: Tensor,
    t: int,
    *,
    lr: float,
    weight_decay: float,
    base: str,
    beta1: float,
    beta2: float,
    eps: float,
) -> tuple[Tensor, State]:
    """The step s of the base loses its part along p and is brought to |p|; p <- p - lr s, brought back to the norm it had."""
    mean = torch.lerp(state["mean"], g, 1 - beta1)
    square = beta2 * state["square"] + (1 - beta2) * g * g
    step = mean / ((square / (1 - beta2**t)).sqrt() + eps) if base == "adam" else mean
    return turned(p, step, lr), {"mean": mean, "square": square}


def reference(
    p: Array,
    gradient: Callable[[Array], Array],
    steps: int,
    *,
    lr: float,
    weight_decay: float,
    base: str,
    beta1: float,
    beta2: float,
    eps: float,
) -> Iterator[Array]:
    """Algorithm 1 by the angle: p and the unit tangent against the step span a plane, in which p turns by atan(lr)."""
    past: list[Array] = []
    for t in range(1, steps + 1):
        past.append(gradient(p))
        ages = np.arange(t)[::-1]
        step = np.tensordot(beta1**ages, past, 1)
        if base == "adam":
            weights = beta2**ages / (beta2**ages).sum()
            step = step * (1 - beta1) / (np.sqrt(np.tensordot(weights, np.square(past), 1)) + eps)
        length = np.linalg.norm(p)
        tangent = step - np.vdot(step, p) / length**2 * p
        angle = math.atan(lr)
        p = math.cos(angle) * p - math.sin(angle) * length * tangent / np.linalg.norm(tangent)
        yield p


def _step(lr: float, size: float = 1.0) -> tuple[Tensor, Tensor]:
    w, g = (torch.from_numpy(a) for a in np.random.default_rng(0).standard_normal((2, 1, 4, 3)))
    own: dict[str, Any] = {"base": "adam", "beta1": 0.9, "beta2": 0.999, "eps": 1e-12}
    return w, layer_rotation(size * g, start(w), w, 1, lr=lr, weight_decay=0.0, **own)[0]


def turns_by_its_rate() -> bool:
    """The norm stays, and the angle is atan(lr)."""
    w, new = _step(0.2)
    cosine = float((w * new).sum() / w.norm() / new.norm())
    return abs(float(new.norm() / w.norm()) - 1) < 1e-9 and abs(math.acos(cosine) - math.atan(0.2)) < 1e-9


def knows_nothing_of_the_loss_scale() -> bool:
    return bool(torch.allclose(_step(0.2)[1], _step(0.2, 1e3)[1], rtol=1e-9))


# A step of Adam at 1e-3 turns weights of 0.03 to 0.1 by 0.01 to 0.03; the paper's grid of rates is of powers of 3.
PART = optimizer(
    layer_rotation,
    name="layer-rotation",
    start=start,
    reference=reference,
    formula=r"\theta \leftarrow |\theta|\, (\theta - \eta\, \hat s_\perp |\theta|) / |\theta - \eta\, \hat s_\perp |\theta||",
    paper=Paper("layer-rotation", equation="Algorithm 1"),
    tags=Tags(
        scope="tensor",
        matrices=True,
        rates=(10.0, 30.0, 20.0),
        published=0.02,
        decay="decoupled",
        scaling="same",
        reasons={"decay": "the norm of a matrix is held, so that a decay of its values does nothing; the rest decays"},
    ),
    options=(
        Option("base", "adam", "whose step is turned into an angle", allowed=("adam", "momentum")),
        Option("beta1", 0.9, "how much of the mean gradient stays", bounds=(-1e-12, 1.0)),
        Option("beta2", 0.999, "how much of the mean square stays", bounds=(-1e-12, 1.0)),
        Option("eps", 1e-8, "added to the root", bounds=(0.0, float("inf"))),
        *rest_options("optimizer/adam", 0.05),
    ),
    uses=("optimizer/adam",),
    claims=(
        Claim(
            "angle and norm",
            "a step turns a layer's weights by atan(lr) and keeps their norm",
            "section 4",
            check=turns_by_its_rate,
        ),
        Claim(
            "loss scale",
            "the step knows nothing of the size of the gradient",
            "section 4",
            check=knows_nothing_of_the_loss_scale,
        ),
        Claim(
            "digits",
            "on digits it ends no lower than Adam",
            "abstract",
            protocol=Protocol("task/digits", "optimizer/adam", "not worse"),
        ),
        Claim(
            "mnist",
            "on MNIST it ends no lower than Adam",
            "abstract",
            protocol=Protocol("task/mnist", "optimizer/adam", "not worse"),
        ),
    ),
    deviations=(
        "order and rescaling are those of the authors' code (ispgroupucl/layer-rotation-tools), read at 32d70f3",
        "the authors leave biases and the parameters of batch norm as they are, and say that one may train them: here the rest"
        " is trained by `rest`, at rest_rate of the rate",
        "a step of size 0 is left out; the code leaves out steps of up to 1e-7. A matrix of zeros stays one",
        "momentum and Adam are the bases here; the code has RMSprop and Adagrad too",
    ),
)
