"""Trainable matrix activation: x times a piecewise constant matrix D(x) with learnt entries (Liu et al., 2021).

The diagonal form multiplies x_i by alpha(x_i); alpha takes the value t_j on the interval (s_j, s_{j+1}] between two knots.
The tri-diagonal form adds to row i the two neighbours, each by a multiplier of its own: beta(x_{i+1}) and gamma(x_{i-1}).
Knots are spread evenly on [-reach, reach], one of them at 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.core.part import Claim, Identity, Learn, Option, Paper, Protocol


def knots(pieces: int, reach: float) -> list[float]:
    """The 2 * pieces - 1 ends of the intervals, -reach and reach the outermost; 0 alone for pieces = 1."""
    return [reach * j / (pieces - 1) for j in range(1 - pieces, pieces)] if pieces > 1 else [0.0]


def stretched(x: Tensor, t: Tensor, s: Sequence[float]) -> Tensor:
    """alpha(x) x, entry by entry; 0 where an infinite x meets the multiplier 0."""
    level = t[0]
    for j, knot in enumerate(s, 1):
        level = torch.where(x > knot, t[j], level)
    return torch.where(x.isinf() & (level == 0), 0.0, level * x)


def tmaf(x: Tensor, t: Tensor, *, pieces: int, reach: float) -> Tensor:
    return stretched(x, t, knots(pieces, reach))


def tmaf_tridiagonal(x: Tensor, t: Tensor, after: Tensor, before: Tensor, *, dim: int, pieces: int, reach: float) -> Tensor:
    s, n = knots(pieces, reach), x.shape[dim]
    edge = torch.zeros_like(x.narrow(dim, 0, 1))
    following = torch.cat((x.narrow(dim, 1, n - 1), edge), dim)
    preceding = torch.cat((edge, x.narrow(dim, 0, n - 1)), dim)
    return stretched(x, t, s) + stretched(following, after, s) + stretched(preceding, before, s)


def multiplier(x: float, t: Sequence[float], pieces: int, reach: float) -> float:
    ends = [reach * j / (pieces - 1) for j in range(1 - pieces, pieces)] if pieces > 1 else [0.0]
    return t[sum(1 for end in ends if end < x)]


def reference(x: float, t: tuple[float, ...], pieces: int, reach: float) -> float:
    return multiplier(x, t, pieces, reach) * x if multiplier(x, t, pieces, reach) else 0.0


def reference_tridiagonal(
    x: Sequence[float], t: tuple[float, ...], after: tuple[float, ...], before: tuple[float, ...], pieces: int, reach: float
) -> list[float]:
    """D(x) written out as a matrix, then multiplied by x."""
    offsets = {0: t, 1: after, -1: before}
    d = [
        [multiplier(value, offsets[j - i], pieces, reach) if abs(j - i) <= 1 else 0.0 for j, value in enumerate(x)]
        for i in range(len(x))
    ]
    return [math.fsum(entry * value for entry, value in zip(row, x, strict=True)) for row in d]


def start(options: Mapping[str, Any]) -> tuple[float, ...]:
    """`slope` left of the knot at 0, and 1 right of it."""
    return (options["slope"],) * options["pieces"] + (1.0,) * options["pieces"]


def nothing(options: Mapping[str, Any]) -> tuple[float, ...]:
    return (0.0,) * (2 * options["pieces"])


def claim_jacobian() -> bool:
    """Almost everywhere the Jacobian of the tri-diagonal form is D(x) itself: multiplying it by x gives the output."""
    g = torch.Generator().manual_seed(0)
    t, after, before = torch.randn(3, 8, generator=g, dtype=torch.float64)

    def form(x: Tensor) -> Tensor:
        return tmaf_tridiagonal(x, t, after, before, dim=-1, pieces=4, reach=2.0)

    for _ in range(10):
        x = 2 * torch.randn(7, generator=g, dtype=torch.float64)
        y, jacobian = form(x), torch.func.jacrev(form)(x)
        banded = torch.equal(jacobian, jacobian.tril(1).triu(-1))
        if not banded or not torch.allclose(jacobian @ x, y, atol=1e-12):
            return False
    return True


def claim_continuous_at_zero() -> bool:
    """Whatever the levels, f is continuous at the knot 0, and jumps by (t_j - t_{j-1}) s_j at every other knot s_j."""
    g, step = torch.Generator().manual_seed(1), 1e-9
    t = torch.randn(8, generator=g, dtype=torch.float64)
    s = torch.tensor(knots(4, 2.0), dtype=torch.float64)
    jumps = tmaf(s + step, t, pieces=4, reach=2.0) - tmaf(s - step, t, pieces=4, reach=2.0)
    return bool(torch.allclose(jumps, t.diff() * s, atol=1e-7)) and abs(float(jumps[3])) < 1e-7


def claim_identity() -> bool:
    """With all levels 1 the diagonal form is the identity."""
    x = torch.linspace(-5.0, 5.0, 101)
    return torch.equal(tmaf(x, torch.ones(8), pieces=4, reach=2.0), x)


OPTIONS = (
    Option("pieces", 3, "intervals on each side of 0", bounds=(0, 65)),
    Option("reach", 2.0, "the outermost knots", bounds=(0.0, math.inf)),
    Option("slope", 0.0, "the multiplier of negative input at the start"),
)
DEVIATIONS = (
    "knots are fixed and evenly spread, and start values are those of ReLU: the knots and start values of the paper's "
    "experiments could not be established",
    "levels are shared by all neurons by default; one set a neuron, as in the paper, with per='channel'",
)

PARTS = (
    activation(
        tmaf,
        cls="TMAF",
        reference=reference,
        formula=r"\alpha(x)\,x,\quad \alpha = t_j \text{ on } (s_j, s_{j+1}]",
        limits=(0.0, math.inf),
        paper=Paper("trainable-matrix-activation"),
        learn=(Learn("t", start),),
        options=OPTIONS,
        tags=Tags(monotone=True, kinks=(0.0,)),
        values={-3.0: 0.0, -0.5: 0.0, 0.0: 0.0, 0.5: 0.5, 3.0: 3.0},
        flops=12.0,
        identities=(
            Identity("activation/relu"),
            Identity("activation/prelu", options={"slope": 0.25}, note="one slope left of 0, 1 right of it"),
        ),
        equals_at_init=("activation/relu",),
        claims=(
            Claim("continuous-at-zero", "is continuous at 0 for all levels", check=claim_continuous_at_zero),
            Claim("identity", "contains the identity", check=claim_identity),
            Claim(
                "sine",
                "fits an oscillating function better than ReLU",
                protocol=Protocol("task/sine", "activation/relu", "better"),
            ),
        ),
        deviations=DEVIATIONS,
    ),
    activation(
        tmaf_tridiagonal,
        cls="TMAFTridiagonal",
        reference=reference_tridiagonal,
        formula=r"y_i = \alpha(x_i) x_i + \beta(x_{i+1}) x_{i+1} + \gamma(x_{i-1}) x_{i-1}",
        summary="Trainable matrix activation, tri-diagonal: each output also takes in its two neighbours (Liu et al., 2021).",
        paper=Paper("trainable-matrix-activation"),
        learn=(Learn("t", start), Learn("after", nothing), Learn("before", nothing)),
        options=OPTIONS,
        tags=Tags(shape="rowwise"),
        flops=38.0,
        claims=(Claim("jacobian", "has the matrix D(x) as its Jacobian almost everywhere", check=claim_jacobian),),
        deviations=(*DEVIATIONS, "the multipliers of the neighbours start at 0: at first it is the diagonal form"),
    ),
)
