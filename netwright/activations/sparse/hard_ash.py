"""Hard ASH: ASH with a hard sigmoid and clipped input, exactly 0 but for a few entries of the row (Keskinen, 2024)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.activations.sparse._moments import standing
from netwright.core.part import Claim, Example, Option, Paper

CEILING = 2.0


def hard_ash(x: Tensor, *, dim: int, alpha: float, zk: float) -> Tensor:
    mean, deviation = standing(x, dim)
    gate = (alpha * (x - mean - zk * deviation) / 6 + 0.5).clamp(0.0, 1.0)
    return x.clamp(0.0, CEILING) * gate


def reference(x: Sequence[float], alpha: float, zk: float) -> list[float]:
    mean = math.fsum(x) / len(x)
    threshold = mean + zk * math.sqrt(math.fsum((v - mean) ** 2 for v in x) / len(x))
    return [min(max(v, 0.0), CEILING) * min(max(alpha * (v - threshold) + 3, 0.0), 6.0) / 6 for v in x]


def claim_sparse() -> bool:
    """Of 1000 normal entries fewer than 12 % are nonzero."""
    x = torch.randn(32, 1000, generator=torch.Generator().manual_seed(0))
    return float((hard_ash(x, dim=1, alpha=3.0, zk=2.3) != 0).float().mean()) < 0.12


def claim_gradient() -> bool:
    """An entry that is off counts through the row's mean and deviation only: its gradient is affine in its value."""
    x = torch.randn(1000, generator=torch.Generator().manual_seed(1), dtype=torch.float64).requires_grad_()
    y = hard_ash(x, dim=0, alpha=3.0, zk=2.3)
    off = y == 0
    gradient = torch.autograd.grad(y.sum(), x)[0][off]
    terms = torch.stack((torch.ones_like(gradient), x.detach()[off]), 1)
    fit = terms @ torch.linalg.lstsq(terms, gradient[:, None]).solution
    return float(off.double().mean()) > 0.88 and float((fit[:, 0] - gradient).abs().max()) < 1e-9


PART = activation(
    hard_ash,
    cls="HardASH",
    reference=reference,
    formula=r"\mathrm{clip}(x_i, 0, 2)\;\mathrm{clip}(\alpha\,(x_i - \mu - z_k\,s) / 6 + 1/2,\, 0,\, 1)",
    paper=Paper("hard-ash"),
    options=(
        Option("alpha", 3.0, "steepness of the gate", bounds=(0.0, 1e6), search=(1.0, 8.0, "log")),
        Option("zk", 2.3, "how many deviations above the mean the gate is half open", search=(1.5, 2.5, "linear")),
    ),
    tags=Tags(shape="rowwise", delicate=True),
    examples=(Example([1.0, 1.0, 1.0], [0.5, 0.5, 0.5]), Example([3.0, 3.0], [1.0, 1.0])),
    flops=13.0,
    claims=(
        Claim("sparse", "leaves few nonzero entries in a row", check=claim_sparse),
        Claim(
            "gradient",
            "sends a gradient to the entries that are off through the statistics of the row alone",
            check=claim_gradient,
        ),
    ),
    deviations=(
        "formula, alpha = 3 and z_k = 2.3 are those of the official code, where z_k is 2.2, 2.3 or 2.4 and nothing is learnt",
        "mean and deviation are taken along the channels, as there over the hidden layer",
    ),
)
