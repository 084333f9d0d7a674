"""Dice: PReLU whose switch stands at the mean of the mini-batch and is as wide as its deviation (Zhou et al., 2017).

f(s) = p s + (1 - p) alpha s, with p = sigmoid((s - E[s]) / sqrt(Var[s] + eps)): statistics a neuron, over the
mini-batch in training and moving averages in evaluation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.core.part import Claim, Example, Learn, Option, Paper, State


def dice(
    x: Tensor, alpha: Tensor, mean: Tensor, variance: Tensor, *, dim: int, eps: float, momentum: float
) -> tuple[Tensor, Tensor, Tensor]:
    others = [d for d in range(x.dim()) if d != dim % x.dim()]
    now = x.mean(others, keepdim=True) if others else x
    spread = (x - now).square().mean(others, keepdim=True) if others else torch.zeros_like(x)
    y = switch(x, alpha, now, spread, eps)
    return y, mean + momentum * (now - mean), variance + momentum * (spread - variance)


def evaluate(x: Tensor, alpha: Tensor, mean: Tensor, variance: Tensor, *, dim: int, eps: float, momentum: float) -> Tensor:
    return switch(x, alpha, mean, variance, eps)


def switch(x: Tensor, alpha: Tensor, mean: Tensor, variance: Tensor, eps: float) -> Tensor:
    p = torch.sigmoid((x - mean) * torch.rsqrt(variance + eps))
    return x * (p + (1 - p) * alpha)


Row = Sequence[float]


def reference(
    rows: Sequence[Row], alpha: float | Row, mean: Row, variance: Row, eps: float, momentum: float
) -> tuple[list[list[float]], list[float], list[float]]:
    count, width = len(rows), len(rows[0])
    means = [math.fsum(row[j] for row in rows) / count for j in range(width)]
    variances = [math.fsum((row[j] - means[j]) ** 2 for row in rows) / count for j in range(width)]
    y = reference_eval(rows, alpha, means, variances, eps, momentum)
    new_mean = [(1 - momentum) * old + momentum * now for old, now in zip(mean, means, strict=True)]
    return y, new_mean, [(1 - momentum) * old + momentum * now for old, now in zip(variance, variances, strict=True)]


def reference_eval(
    rows: Sequence[Row], alpha: float | Row, mean: Row, variance: Row, eps: float, momentum: float
) -> list[list[float]]:
    slope = [alpha] * len(rows[0]) if isinstance(alpha, float) else alpha
    return [
        [
            s * a + s * (1 - a) / 2 * (1 + math.tanh((s - m) / (2 * math.sqrt(v + eps))))
            for s, a, m, v in zip(row, slope, mean, variance, strict=True)
        ]
        for row in rows
    ]


def trained(x: Tensor, alpha: float) -> Tensor:
    zero = torch.tensor(0.0, dtype=x.dtype)
    return dice(x, zero + alpha, zero, zero + 1, dim=1, eps=1e-8, momentum=0.1)[0]


def claim_shift() -> bool:
    """The switch follows the data: adding 10 to a batch changes no gate, where that of PReLU would open for all."""
    x = torch.randn(256, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return torch.allclose(trained(x + 10, 0.0) / (x + 10), trained(x, 0.0) / x, atol=1e-6)


def claim_identity() -> bool:
    """With alpha = 1 it is the identity."""
    x = torch.randn(64, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return torch.allclose(trained(x, 1.0), x, atol=1e-12)


PART = activation(
    dice,
    cls="Dice",
    reference=reference,
    reference_eval=reference_eval,
    evaluate=evaluate,
    formula=r"p\,x + (1 - p)\,\alpha x, \quad p = \sigma((x - E[x]) / \sqrt{\mathrm{Var}[x] + \epsilon})",
    paper=Paper("deep-interest-network"),
    learn=(Learn("alpha", 0.0, per="channel"),),
    state=(State("mean", 0.0), State("variance", 1.0)),
    options=(
        Option("eps", 1e-8, "added to the variance", bounds=(0.0, 1.0)),
        Option("momentum", 0.1, "weight of the newest batch in the moving averages", bounds=(0.0, 1.0)),
    ),
    tags=Tags(shape="stateful", delicate=True),
    examples=(
        Example([[1.0, 2.0], [3.0, 2.0], [5.0, 8.0]], [[0.227103, 0.660477], [1.5, 0.660477], [3.864487, 6.435437]]),
        Example([[3.0], [3.0]], [[2.25], [2.25]], options={"alpha": 0.5}),
    ),
    flops=14.0,
    claims=(
        Claim("shift", "moves its switch with the distribution of its input", check=claim_shift),
        Claim("identity", "is the identity at alpha = 1", check=claim_identity),
    ),
    deviations=(
        "the paper's form; the official code normalises with moving statistics that it never updates, scales the gate's "
        "input by a learnt number that starts at 0, and so starts as x / 2",
        "alpha starts at 0 as in that code; the moving averages start at (0, 1) with momentum 0.1, which the paper leaves open",
    ),
)
