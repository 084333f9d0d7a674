"""PAU: a rational function with learnt coefficients, degrees 5 and 4 (Molina, Schramowski and Kersting, 2019).

version "A": R(x) = P(x) / (1 + sum_j |b_j x^j|), the default of the official code;
version "B": R(x) = P(x) / (1 + |sum_j b_j x^j|), the equation of the paper.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from netwright.activations.rational._shared import TARGETS, fit, horner
from netwright.kinds.activation import Tags, activation
from netwright.part import Claim, Learn, Option, Paper, Protocol

FAR = 1e6  # x^5 has to fit float32


def pau(x: Tensor, a: Tensor, b: Tensor, *, version: str) -> Tensor:
    near = x.clamp(-FAR, FAR)
    zero = torch.zeros_like(b[0])
    if version == "A":
        below = horner(near.abs(), (zero, *b.abs().unbind(0)))
    else:
        below = horner(near, (zero, *b.unbind(0))).abs()
    return horner(near, a.unbind(0)) / (1 + below) * (1 + (x - near).abs() / FAR)


def reference(x: float, a: tuple[float, ...], b: tuple[float, ...], version: str) -> float:
    if abs(x) > FAR:
        return abs(x) / FAR * reference(math.copysign(FAR, x), a, b, version)
    terms = [b_j * x**j for j, b_j in enumerate(b, 1)]
    below = sum(abs(term) for term in terms) if version == "A" else abs(sum(terms))
    return sum(a_j * x**j for j, a_j in enumerate(a)) / (1 + below)


def claim_approximates() -> bool:
    """The starting coefficients follow each target on [-3, 3]: smooth ones to 2.5e-3, those with a corner to 0.04."""
    x = torch.linspace(-3.0, 3.0, 1001, dtype=torch.float64)
    for name, target in TARGETS.items():
        a, b = (torch.tensor(c, dtype=torch.float64) for c in fit(name))
        error = max(float((pau(x, a, b, version=v) - target(x)).abs().max()) for v in ("A", "B"))
        if error > (0.04 if "relu" in name else 2.5e-3):
            return False
    return True


def claim_no_poles() -> bool:
    """The denominator is at least 1 for coefficients of any sign: |R| <= |P|."""
    g = torch.Generator().manual_seed(0)
    x = torch.linspace(-10.0, 10.0, 401, dtype=torch.float64)
    for _ in range(20):
        a, b = torch.randn(6, generator=g).double(), 10 * torch.randn(4, generator=g).double()
        above = horner(x, a.unbind(0)).abs()
        if any(bool((pau(x, a, b, version=v).abs() > above + 1e-9).any()) for v in ("A", "B")):
            return False
    return True


PART = activation(
    pau,
    cls="PAU",
    reference=reference,
    formula=r"\sum_{j=0}^{5} a_j x^j \,/\, (1 + \sum_{j=1}^{4} |b_j x^j|)",
    limits=(-math.inf, math.inf),
    paper=Paper("pau"),
    learn=(
        Learn("a", lambda options: fit(options["init"])[0]),
        Learn("b", lambda options: fit(options["init"])[1]),
    ),
    options=(
        Option("init", "leaky-relu", "the function it starts as", allowed=tuple(TARGETS)),
        Option("version", "A", "how the denominator is kept positive", allowed=("A", "B")),
    ),
    tags=Tags(smooth=True, delicate=True),
    flops=24.0,
    claims=(
        Claim("approximates", "takes the shape of common activations", check=claim_approximates),
        Claim("no-poles", "has no poles", check=claim_no_poles),
        Claim(
            "cifar10",
            "at least ReLU's accuracy on CIFAR-10",
            protocol=Protocol("task/cifar10", "activation/relu", "not worse"),
        ),
    ),
    deviations=(
        "starts from coefficients fitted here (least squares on [-3, 3], even powers below), not the published ones",
        "beyond |x| = 1e6, where float32 would overflow, a straight line through the origin",
    ),
)
