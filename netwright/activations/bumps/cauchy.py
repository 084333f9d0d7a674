"""Cauchy activation: one term of a discretised Cauchy integral, with all constants learnt (Li, Xia and Zhang, 2024)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.core.part import Claim, Learn, Paper, Protocol


def cauchy(x: Tensor, l1: Tensor, l2: Tensor, d: Tensor) -> Tensor:
    far = x.isinf()  # where numerator and denominator are both infinite
    u = torch.where(far, 0.0, x)
    return torch.where(far, 0.0, (l1 * u + l2) / (u * u + d * d))


def reference(x: float, l1: float, l2: float, d: float) -> float:
    if math.isinf(x):
        return 0.0
    return l1 * x / (x**2 + d**2) + l2 / (x**2 + d**2)


def claim_tail() -> bool:
    """x f(x) tends to l1."""
    x = torch.tensor([-1e8, 1e8], dtype=torch.float64)
    y = x * cauchy(x, *(torch.tensor(v, dtype=torch.float64) for v in (0.7, 3.0, 2.0)))
    return bool(torch.allclose(y, torch.full_like(y, 0.7), rtol=1e-6))


def claim_halves() -> bool:
    """l1 = 0 leaves an even bump of height l2 / d^2; l2 = 0 an odd function with extremes l1 / (2 d) at +-d."""
    x = torch.linspace(-8.0, 8.0, 16_001, dtype=torch.float64)
    zero, three, d = (torch.tensor(v, dtype=torch.float64) for v in (0.0, 3.0, 2.0))
    even, odd = cauchy(x, zero, three, d), cauchy(x, three, zero, d)
    bump = torch.allclose(even, even.flip(0)) and math.isclose(float(even.max()), 0.75) and int(even.argmax()) == 8000
    turn = math.isclose(float(odd.max()), 0.75) and math.isclose(float(x[odd.argmax()]), 2.0, rel_tol=1e-9)
    return bump and turn and torch.allclose(odd, -odd.flip(0))


def claim_approximates() -> bool:
    """m units reproduce an analytic function on [-1, 1] with an error that falls exponentially in m.

    The trapezoid rule for Cauchy's integral over |z| = 2 gives f(x) = (1 / m) sum_k f(z_k) z_k / (z_k - x); each pair of
    conjugate points is a function of the form (l1 u + l2) / (u^2 + d^2), u = x - Re z_k.
    """
    x = torch.linspace(-1.0, 1.0, 201, dtype=torch.float64)
    target = torch.exp(x) * torch.cos(2 * x)

    def error(m: int) -> float:
        angle = math.pi * (torch.arange(m, dtype=torch.float64)[:, None] + 0.5) / m  # those of the upper half
        z = torch.polar(torch.full_like(angle, 2.0), angle)
        w = torch.exp(z) * torch.cos(2 * z) * z / m
        units = cauchy(x - z.real, -w.real, w.imag * z.imag, z.imag)
        return float((units.sum(0) - target).abs().max())

    return error(8) < 1e-2 and error(16) < 1e-6 and error(24) < 1e-10


PART = activation(
    cauchy,
    cls="Cauchy",
    reference=reference,
    formula=r"\frac{\lambda_1 x + \lambda_2}{x^2 + d^2}",
    limits=(0.0, 0.0),
    paper=Paper("cauchy-xnet"),
    learn=(Learn("l1", 1.0), Learn("l2", 1.0), Learn("d", 1.0, bounds=(1e-3, math.inf))),
    tags=Tags(smooth=True, delicate=True, always=("smooth",)),
    values={-3.0: -0.2, -2.0: -0.2, -1.0: 0.0, -0.5: 0.4, 0.0: 1.0, 0.5: 1.2, 1.0: 1.0, 2.0: 0.6, 3.0: 0.4},
    flops=6.0,
    claims=(
        Claim("tail", "decays at both ends, as l1 / x", check=claim_tail),
        Claim("halves", "is the sum of an odd and an even function of width d", check=claim_halves),
        Claim("approximates", "sums of it approximate analytic functions exponentially well", check=claim_approximates),
        Claim(
            "mnist",
            "better than ReLU on MNIST",
            protocol=Protocol("task/mnist", "activation/relu", "better"),
        ),
        Claim(
            "cifar10",
            "better than ReLU on CIFAR-10",
            protocol=Protocol("task/cifar10", "activation/relu", "better"),
        ),
    ),
    deviations=(
        "the paper's initial values could not be established, and public implementations differ; all three start at 1",
        "d is kept at or above 0.001, so that nothing is divided by 0",
    ),
)
