"""ASH: Swish with a threshold from the mean and deviation of the row, so that a percentile passes (Lee et al., 2022)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.activations.sparse._moments import standing
from netwright.core.part import Claim, Example, Learn, Option, Paper, Protocol


def ash(x: Tensor, zk: Tensor, *, dim: int, alpha: float) -> Tensor:
    mean, deviation = standing(x, dim)
    return x * torch.sigmoid(alpha * (x - mean - zk * deviation))


def reference(x: Sequence[float], zk: float, alpha: float) -> list[float]:
    mean = math.fsum(x) / len(x)
    deviation = math.sqrt(math.fsum((v - mean) ** 2 for v in x) / len(x))
    y = []
    for v in x:
        u = alpha * (v - mean - zk * deviation)
        y.append(v * (1 / (1 + math.exp(-u)) if u > 0 else math.exp(u) / (1 + math.exp(u))))
    return y


def rows(seed: int) -> Tensor:
    return torch.randn(32, 500, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def claim_percentile() -> bool:
    """With a steep gate the entries that pass are those above mean + z_k deviations: 2.5 % of normal input at 1.96."""
    y = ash(rows(0), torch.tensor(1.96, dtype=torch.float64), dim=1, alpha=1e4)
    return abs(float((y.abs() > 1e-6).double().mean()) - 0.025) < 0.004


def claim_shift() -> bool:
    """The gate depends on where an entry stands in its row: adding 5 to a row changes no gate."""
    x, zk = rows(1), torch.tensor(2.3, dtype=torch.float64)
    return torch.allclose(ash(x + 5, zk, dim=1, alpha=3.0) / (x + 5), ash(x, zk, dim=1, alpha=3.0) / x, atol=1e-9)


def claim_constant() -> bool:
    """A constant row is halved, and its gradient is finite."""
    x = torch.full((3, 20), 1.5, requires_grad=True)
    y = ash(x, torch.tensor(2.3), dim=1, alpha=3.0)
    return torch.equal(y, x / 2) and bool(torch.autograd.grad(y.sum(), x)[0].isfinite().all())


PART = activation(
    ash,
    cls="ASH",
    reference=reference,
    formula=r"x_i\,\sigma(\alpha\,(x_i - \mu - z_k\,s)), \quad \mu, s: \text{mean and deviation of the row}",
    paper=Paper(
        title="Stochastic Adaptive Activation Function",
        authors="Kyungsu Lee, Jaeseung Yang, Haeyun Lee, Jae Youn Hwang",
        year=2022,
        venue="NeurIPS",
        arxiv="2210.11672",
    ),
    learn=(Learn("zk", 0.0),),
    options=(Option("alpha", 1.0, "steepness of the gate", bounds=(0.0, 1e6), search=(0.5, 8.0, "log")),),
    tags=Tags(shape="rowwise", delicate=True),
    examples=(Example([1.0, 1.0, 1.0], [0.5, 0.5, 0.5]),),
    flops=12.0,
    claims=(
        Claim("percentile", "lets the top percentile of a normal row pass", check=claim_percentile),
        Claim("shift", "gates by the standing of an entry in its row", check=claim_shift),
        Claim("constant", "halves a constant row", check=claim_constant),
        Claim(
            "vision",
            "at least SiLU's accuracy on image classification",
            protocol=Protocol("task/cifar10", "activation/silu", "not worse"),
        ),
    ),
    deviations=(
        "mean and deviation are taken along the channels, in the paper over all of a sample's feature map",
        "alpha here is 2 alpha there, and isn't learnt; alpha = 1 and z_k = 0 to start with are those of later code by another "
        "author (Keskinen), whose Hard ASH experiments fix alpha = 3 and z_k = 2.3",
    ),
)
