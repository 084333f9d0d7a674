"""Alpha dropout: dropped entries take SELU's lower limit, and mean and variance stay 0 and 1 (Klambauer et al., 2017).

y = a (x m + alpha' (1 - m)) + b with m ~ Bernoulli(q), q = 1 - p, alpha' = -lambda alpha,
a = (q + alpha'^2 q (1 - q))^(-1/2) and b = -a (1 - q) alpha'.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.core.part import Claim, Option, Paper

LIMIT = -1.0507009873554805 * 1.6732632423543772  # of SELU at -inf


def alpha_dropout(x: Tensor, kept: Tensor, *, dim: int, p: float) -> Tensor:
    scale = 1 / math.sqrt((1 - p) * (1 + p * LIMIT**2))
    return scale * (torch.where(kept > 0, x, LIMIT) - p * LIMIT)


def draw(x: Tensor, generator: torch.Generator | None, *, dim: int, p: float) -> tuple[Tensor, ...]:
    uniform = torch.rand(x.shape, generator=generator, dtype=x.dtype, device=x.device)
    return ((uniform >= p).to(x.dtype),)


def evaluate(x: Tensor, *, dim: int, p: float) -> Tensor:
    return x


Rows = Sequence[Sequence[float]]


def reference(rows: Rows, kept: Rows, p: float) -> list[list[float]]:
    q = 1 - p
    a = (q + LIMIT**2 * q * (1 - q)) ** -0.5
    b = -a * (1 - q) * LIMIT
    return [
        [a * (v * m + LIMIT * (1 - m)) + b for v, m in zip(row, mask, strict=True)] for row, mask in zip(rows, kept, strict=True)
    ]


def reference_eval(rows: Rows, p: float) -> Rows:
    return rows


def claim_moments() -> bool:
    """Input of mean 0 and variance 1 keeps both."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(400_000, generator=g)
    for p in (0.05, 0.1, 0.5):
        y = alpha_dropout(x, *draw(x, g, dim=0, p=p), dim=0, p=p)
        if abs(float(y.mean())) > 0.01 or abs(float(y.var()) - 1) > 0.02:
            return False
    return True


def claim_constants() -> bool:
    """At p = 0.1 the affine map is 0.921285 x + 0.161971."""
    x = torch.tensor([0.0, 1.0], dtype=torch.float64)
    b, a_and_b = alpha_dropout(x, torch.ones_like(x), dim=0, p=0.1).tolist()
    return abs(b - 0.161971) < 1e-6 and abs(a_and_b - b - 0.921285) < 1e-6


PART = activation(
    alpha_dropout,
    cls="AlphaDropout",
    reference=reference,
    reference_eval=reference_eval,
    draw=draw,
    evaluate=evaluate,
    formula=r"a\,(x m + \alpha'(1 - m)) + b, \quad m \sim \mathrm{Bernoulli}(1 - p)",
    paper=Paper("selu"),
    options=(Option("p", 0.1, "the share of entries dropped", bounds=(0.0, 1.0), search=(0.01, 0.5, "log")),),
    tags=Tags(shape="stateful"),
    flops=4.0,
    claims=(
        Claim("moments", "keeps mean 0 and variance 1 in training", check=claim_moments),
        Claim("constants", "has the affine correction of the derivation", check=claim_constants),
    ),
    deviations=("the dropout alone: it goes after a SELU, or after the input; in evaluation it is the identity",),
)
