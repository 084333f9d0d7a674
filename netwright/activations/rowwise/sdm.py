"""SDM: a softmax whose base grows with similarity to the training set and flattens with distance (Schmaltz, 2025).

sdm(z)_i = (2 + q)^(d z_i) / sum_c (2 + q)^(d z_c). The paper gives each input its own q and d: q = 0, 1, 2, ... counts its
nearest training points up to the first that is of another class than the one predicted, or was itself predicted wrongly;
d in [0, 1] is one minus the quantile of the distance to the nearest, at the least favourable class.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.core.part import Claim, Example, Option, Paper


def sdm(x: Tensor, *, dim: int, q: float | Tensor, d: float | Tensor) -> Tensor:
    """q and d: numbers, or tensors that broadcast against x and do not vary along dim."""
    return torch.softmax(rescaled(x, dim=dim, q=q, d=d), dim)


def rescaled(x: Tensor, *, dim: int, q: float | Tensor, d: float | Tensor) -> Tensor:
    """The logits whose softmax is sdm, at most 0: shifted first, so that large logits don't overflow."""
    return (x - x.amax(dim, keepdim=True).detach()) * (d * log_base(q))


def log_base(q: float | Tensor) -> float | Tensor:
    return torch.log(2 + q) if isinstance(q, Tensor) else math.log(2 + q)


def reference(x: Sequence[float], q: float, d: float) -> list[float]:
    """Each entry by the sum of the ratios to it, which needs no shift."""
    return [1.0 / sum((2.0 + q) ** (d * (other - v)) for other in x) for v in x]


def _rows(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def claim_simplex() -> bool:
    """Every row is a probability vector, unchanged by a shift, with the largest entry where it was."""
    x = 3 * _rows(0, 64, 16)
    q, d = torch.arange(64.0)[:, None], torch.linspace(0.1, 1.0, 64, dtype=torch.float64)[:, None]
    p = sdm(x, dim=-1, q=q, d=d)
    unmoved = torch.allclose(sdm(x + 3.0, dim=-1, q=q, d=d), p, atol=1e-12)
    return bool(((p.sum(-1) - 1).abs() < 1e-12).all() and (p.argmax(-1) == x.argmax(-1)).all() and unmoved)


def claim_similarity() -> bool:
    """A larger q makes every row's largest probability larger; d = 0 makes all equal."""
    x = _rows(1, 64, 5)
    largest = torch.stack([sdm(x, dim=-1, q=q, d=0.7).amax(-1) for q in (0.0, 1.0, 5.0, 50.0)])
    return bool((largest.diff(dim=0) > 0).all() and torch.allclose(sdm(x, dim=-1, q=5.0, d=0.0), torch.tensor(0.2).double()))


def claim_jacobian() -> bool:
    """The Jacobian is d ln(2 + q) (diag(p) - p p^T)."""
    x = _rows(2, 6)
    p = sdm(x, dim=-1, q=3.0, d=0.5)
    got = torch.autograd.functional.jacobian(lambda x: sdm(x, dim=-1, q=3.0, d=0.5), x)
    return bool(torch.allclose(got, 0.5 * math.log(5.0) * (p.diag() - p.outer(p)), atol=1e-12))


LEAST = -1e-300  # bounds are exclusive, and 0 is allowed

PART = activation(
    sdm,
    cls="SDM",
    reference=reference,
    formula=r"(2 + q)^{d x_i} / \sum_c (2 + q)^{d x_c}",
    paper=Paper("sdm"),
    options=(
        Option("q", math.e - 2, "matches among the nearest training points, from 0; e - 2 is softmax", bounds=(LEAST, math.inf)),
        Option("d", 1.0, "from 0 (far from the training set) to 1 (near)", bounds=(LEAST, 1.0000000001)),
    ),
    tags=Tags(shape="rowwise", delicate=True),
    examples=(
        Example([2.0, 1.0, 0.0], [0.571429, 0.285714, 0.142857], options={"q": 0.0}),
        Example([2.0, 1.0, 0.0], [0.917197, 0.076433, 0.006369], options={"q": 10.0}),
        Example([2.0, 1.0, 0.0], [1 / 3, 1 / 3, 1 / 3], options={"d": 0.0}),
    ),
    flops=6.0,
    equals_at_init=("activation/softmax",),
    claims=(
        Claim("simplex", "gives probability vectors with softmax's argmax", check=claim_simplex),
        Claim("similarity", "is sharper the more similar, flat far away", check=claim_similarity),
        Claim("jacobian", "has the Jacobian d ln(2 + q) (diag(p) - p p^T)", check=claim_jacobian),
    ),
    deviations=("q and d are options here, one of each for the module; the paper computes them for each input",),
)
