"""Rational functions: evaluation by Horner's rule, and a least-squares fit of one to a named function."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch import Tensor

#: What a rational unit can start as. Largest error of the fit of degrees (5, 4) on [-3, 3] beside each.
TARGETS: dict[str, Callable[[Tensor], Tensor]] = {
    "leaky-relu": lambda x: torch.where(x > 0, x, 0.01 * x),  # 0.038, at the corner
    "relu": torch.relu,  # 0.038, at the corner
    "gelu": lambda x: x * torch.special.erfc(-x / math.sqrt(2)) / 2,  # 2.4e-3
    "silu": lambda x: x * torch.sigmoid(x),  # 1.2e-6
    "tanh": torch.tanh,  # 3.5e-6
    "sigmoid": torch.sigmoid,  # 1e-7
    "identity": lambda x: x,  # 1e-6
}
#: A coefficient of exactly 0 inside |b x^j| would have gradient 0 and stay there.
LEAST = 1e-8


def horner(x: Tensor, coefficients: Sequence[Tensor]) -> Tensor:
    """sum_j coefficients[j] x^j."""
    total = coefficients[-1] * torch.ones_like(x)
    for coefficient in reversed(coefficients[:-1]):
        total = total * x + coefficient
    return total


@cache
def fit(name: str, p: int = 5, q: int = 4) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Coefficients a_0..a_p and b_1..b_q of P / Q close to the named function on [-3, 3], in least squares.

    Q = 1 + sum b_j x^j takes even powers with b_j >= 0 only, so that it has no root and every way of making Q positive
    agrees. The problem is made linear by P - f Q = 0, weighted by 1 / Q of the round before (Sanathanan and Koerner).
    """
    x = torch.linspace(-3.0, 3.0, 601, dtype=torch.float64, device="cpu")  # also while a net is built on meta
    f = TARGETS[name](x)
    numerator = torch.stack([x**j for j in range(p + 1)], 1)
    even = range(2, q + 1, 2)
    supports = [[j for i, j in enumerate(even) if bits >> i & 1] for bits in range(2 ** len(even))]
    q_of_x, best = torch.ones_like(x), (math.inf, x.new_zeros(p + 1), x.new_zeros(q))
    for _ in range(8):
        rounds = []
        for support in supports:
            powers = [-f * x**j for j in support]
            system = torch.cat((numerator, *(column[:, None] for column in powers)), 1) / q_of_x[:, None]
            solution = torch.linalg.lstsq(system, f / q_of_x, driver="gelsd").solution
            b = x.new_zeros(q)
            for j, value in zip(support, solution[p + 1 :], strict=True):
                b[j - 1] = value
            if bool((b >= 0).all()):
                residual = float((system @ solution - f / q_of_x).square().sum())
                rounds.append((residual, solution[: p + 1], b))
        _, a, b = min(rounds, key=lambda row: row[0])
        q_of_x = 1 + torch.stack([b[j - 1] * x**j for j in even]).sum(0)
        error = float((numerator @ a / q_of_x - f).square().sum())
        best = min(best, (error, a, b), key=lambda row: row[0])
    return tuple(best[1].tolist()), tuple(max(value, LEAST) for value in best[2].tolist())
