"""Muon: the momentum of a matrix, brought near an orthogonal one by five steps of Newton and Schulz."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from netwright.core.part import Claim, Option, Paper, Protocol
from netwright.optimizers._kind import Array, Tags, optimizer, rest_options
from netwright.tensor.stepping import State

#: x -> a x + b x^3 + c x^5 on singular values: steep at 0, and within 0.68 and 1.14 where it comes from 0.01 or more.
QUINTIC = (3.4445, -4.7750, 2.0315)


def start(p: Tensor) -> State:
    return {"momentum": torch.zeros_like(p)}


def orthogonalised(m: Tensor, times: int) -> Tensor:
    """(..., out, rest): every matrix near U V' of its singular value decomposition; a matrix of zeros stays one."""
    a, b, c = QUINTIC
    tall = m.shape[-2] > m.shape[-1]
    x = m.mT if tall else m
    x = x / (x.flatten(-2).norm(dim=-1)[..., None, None] + 1e-7)
    for _ in range(times):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


def muon(
    g: Tensor,
    state: State,
    p: Tensor,
    t: int,
    *,
    lr: float,
    weight_decay: float,
    momentum: float,
    nesterov: bool,
    ns_steps: int,
    scale: str,
) -> tuple[Tensor, State]:
    """m <- mu m + (1 - mu) g; p <- (1 - lr decay) p - lr s NS(m), s = sqrt(max(1, out / rest)).

    nesterov: NS of (1 - mu) g + mu m. scale "match_rms": s = 0.2 sqrt(max(out, rest)), steps as large as AdamW's.
    """
    mean = torch.lerp(state["momentum"], g, 1 - momentum)
    direction = orthogonalised(torch.lerp(g, mean, momentum) if nesterov else mean, ns_steps)
    rows, columns = p.shape[-2:]
    factor = math.sqrt(max(1, rows / columns)) if scale == "original" else 0.2 * math.sqrt(max(rows, columns))
    return (1 - lr * weight_decay) * p - lr * factor * direction, {"momentum": mean}


def reference(
    p: Array,
    gradient: Callable[[Array], Array],
    steps: int,
    *,
    lr: float,
    weight_decay: float,
    momentum: float,
    nesterov: bool,
    ns_steps: int,
    scale: str,
) -> Iterator[Array]:
    """By the singular value decomposition: Newton-Schulz maps singular values by the quintic, one by one, and keeps the rest."""
    velocity = np.zeros_like(p)
    for _ in range(steps):
        g = gradient(p)
        velocity = velocity * momentum + g * (1.0 - momentum)
        u, values, v = np.linalg.svd(g * (1.0 - momentum) + velocity * momentum if nesterov else velocity, full_matrices=False)
        values = values / (np.sqrt((values**2).sum()) + 1e-7)
        for _ in range(ns_steps):
            values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
        longer = {"original": max(1.0, p.shape[0] / p.shape[1]) ** 0.5, "match_rms": 0.2 * max(p.shape) ** 0.5}[scale]
        p = p - lr * weight_decay * p - lr * longer * (u * values) @ v
        yield p


def _drawn(*shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).standard_normal(shape))


def singular_values_in_a_band() -> bool:
    """Of inputs between 0.01 and 1 to between 0.68 and 1.14: not to 1."""
    values = torch.logspace(-2, 0, 400, dtype=torch.float64)
    a, b, c = QUINTIC
    for _ in range(5):
        values = a * values + b * values**3 + c * values**5
    return abs(float(values.min()) - 0.6818) < 2e-3 and abs(float(values.max()) - 1.1344) < 2e-3


def turns_with_its_matrix() -> bool:
    """NS(U G V) = U NS(G) V for rotations, NS(c G) = NS(G), NS(G') = NS(G)'."""
    g = _drawn(5, 3)
    (u, _), (v, _) = torch.linalg.qr(_drawn(5, 5)), torch.linalg.qr(_drawn(3, 3))
    plain = orthogonalised(g, 5)
    return bool(
        torch.allclose(orthogonalised(u @ g @ v, 5), u @ plain @ v, atol=1e-9)
        and torch.allclose(orthogonalised(1e3 * g, 5), plain, atol=1e-6)
        and torch.allclose(orthogonalised(g.mT, 5), plain.mT, atol=1e-12)
    )


def steps_as_long_in_every_matrix() -> bool:
    """The root mean square of a step is within 15 % of 1 / sqrt(max(out, rest))."""
    step = orthogonalised(_drawn(64, 256), 5)
    return abs(float(step.square().mean().sqrt()) * 16 - 1) < 0.15


# Published at 0.02 for matrices beside 3e-4 of AdamW for the rest: 20 times Adam's usual 1e-3.
PART = optimizer(
    muon,
    start=start,
    reference=reference,
    formula=r"\theta \leftarrow (1 - \eta\lambda)\,\theta - \eta\, \sqrt{\max(1, n/m)}\; NS_5(\mu m + (1 - \mu) g)",
    paper=Paper("muon"),
    tags=Tags(scope="tensor", matrices=True, rates=(20.0, 20.0, 20.0), published=0.02, decay="decoupled", scaling="same"),
    options=(
        Option("momentum", 0.95, "how much of the mean gradient stays", bounds=(-1e-12, 1.0)),
        Option("nesterov", True, "orthogonalise where the momentum leads"),
        Option("ns_steps", 5, "steps of Newton and Schulz", bounds=(0.5, 100.0)),
        Option("scale", "original", "how long a step is for the matrix's shape", allowed=("original", "match_rms")),
        *rest_options("optimizer/adamw:beta2=0.95,eps=1e-10", 0.015),
    ),
    uses=("optimizer/adamw",),
    claims=(
        Claim(
            "singular values",
            "five steps bring singular values above 0.01 into 0.68 to 1.14, and not to 1",
            "of the coefficients in the released code",
            check=singular_values_in_a_band,
        ),
        Claim(
            "equivariance",
            "the step turns with its matrix, and knows nothing of the gradient's size",
            "section 2",
            check=turns_with_its_matrix,
        ),
        Claim(
            "size of a step",
            "a step of a matrix of normal entries has the root mean square 1 / sqrt(max(out, rest)), within 15 %",
            "of the released code",
            check=steps_as_long_in_every_matrix,
        ),
        Claim(
            "digits",
            "on digits it ends higher than Adam",
            "section 1",
            protocol=Protocol("task/digits", "optimizer/adam", "better"),
        ),
        Claim(
            "mnist", "on MNIST it ends higher than Adam", "section 1", protocol=Protocol("task/mnist", "optimizer/adam", "better")
        ),
        Claim(
            "shakespeare",
            "on tiny Shakespeare it ends lower than AdamW",
            "section 1",
            protocol=Protocol("task/shakespeare", "optimizer/adamw", "better", trials=2),
        ),
    ),
    deviations=(
        "the step is that of the released code (KellerJordan/Muon), which the paper analyses and does not define",
        "products are taken in the dtype of the weights, float32 or better; the code takes them in bfloat16",
        "the code leaves embeddings and the output layer to AdamW; here a lookup table is, and an output layer where its name"
        " says that it is one: the counts are in the plan and in `taken()`",
        "queries, keys and values fused in one tensor, experts and groups of a convolution are a matrix each",
    ),
)
