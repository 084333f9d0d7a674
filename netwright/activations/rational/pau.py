"""PAU: a rational function with learnt coefficients, degrees 5 and 4 (Molina, Schramowski and Kersting, 2019).

version "A": R(x) = P(x) / (1 + sum_j |b_j x^j|), the default of the official code;
version "B": R(x) = P(x) / (1 + |sum_j b_j x^j|), the equation of the paper.
"""

from __future__ import annotations

import math

import torch

from netwright.activations._kind import Tags, activation
from netwright.activations.rational._quotients import FAR, horner, rational
from netwright.activations.rational._starts import ERRORS, TARGETS, start
from netwright.core.part import Claim, Learn, Option, Paper, Protocol


def reference(x: float, a: tuple[float, ...], b: tuple[float, ...], version: str) -> float:
    if abs(x) > FAR:
        return abs(x) / FAR * reference(math.copysign(FAR, x), a, b, version)
    terms = [b_j * x**j for j, b_j in enumerate(b, 1)]
    below = sum(abs(term) for term in terms) if version == "A" else abs(sum(terms))
    return sum(a_j * x**j for j, a_j in enumerate(a)) / (1 + below)


def claim_starts() -> bool:
    """Each start follows its target on [-3, 3] with the largest error that ERRORS states, to 10 %."""
    x = torch.linspace(-3.0, 3.0, 1201, dtype=torch.float64)
    for kind, errors in ERRORS.items():
        for name, stated in errors.items():
            for version, wanted in zip(("A", "B"), stated, strict=True):
                found = start({"init": name, "version": version, "coefficients": kind})
                a, b = (torch.tensor(values, dtype=torch.float64) for values in found)
                error = float((rational(x, a, b, version=version) - TARGETS[name](x)).abs().max())
                if abs(error - wanted) > 0.1 * wanted:
                    return False
    return True


def claim_no_poles() -> bool:
    """The denominator is at least 1 for coefficients of any sign: |R| <= |P|."""
    g = torch.Generator().manual_seed(0)
    x = torch.linspace(-10.0, 10.0, 401, dtype=torch.float64)
    for _ in range(20):
        a, b = torch.randn(6, generator=g).double(), 10 * torch.randn(4, generator=g).double()
        above = horner(x, a.unbind(0)).abs()
        if any(bool((rational(x, a, b, version=v).abs() > above + 1e-9).any()) for v in ("A", "B")):
            return False
    return True


PART = activation(
    rational,
    name="pau",
    cls="PAU",
    reference=reference,
    formula=r"\sum_{j=0}^{5} a_j x^j \,/\, (1 + \sum_{j=1}^{4} |b_j x^j|)",
    limits=(-math.inf, math.inf),
    paper=Paper("pau"),
    learn=(Learn("a", lambda options: start(options)[0]), Learn("b", lambda options: start(options)[1])),
    options=(
        Option("init", "leaky-relu", "the function it starts as", allowed=tuple(TARGETS)),
        Option("version", "A", "how the denominator is kept positive", allowed=("A", "B")),
        Option("coefficients", "fitted", "where the start comes from", allowed=("fitted", "published")),
    ),
    tags=Tags(smooth=True, delicate=True),
    flops=24.0,
    claims=(
        Claim("starts", "takes the shape of common activations, as close as stated", check=claim_starts),
        Claim("no-poles", "has no poles", check=claim_no_poles),
        Claim(
            "cifar10",
            "at least ReLU's accuracy on CIFAR-10",
            protocol=Protocol("task/cifar10", "activation/relu", "not worse"),
        ),
    ),
    deviations=(
        "starts from coefficients fitted here (least squares on [-3, 3], even powers below); "
        "coefficients='published' takes those of the authors' library",
        "beyond |x| = 1e6, where float32 would overflow, a straight line through the origin",
    ),
)
