"""Recurrent rational: one rational function, learnt once, serves every place of a net (Delfosse et al., 2021).

R(x) = P(x) / (1 + sum_j |b_j x^j|) of degrees 5 and 4: ten values a net, whatever its depth.
"""

from __future__ import annotations

import math

import torch

from netwright.activations._kind import Tags, activation
from netwright.activations.rational._quotients import FAR, horner, rational
from netwright.activations.rational._starts import TARGETS, start
from netwright.core.part import Claim, Learn, Option, Paper


def reference(x: float, a: tuple[float, ...], b: tuple[float, ...], version: str) -> float:
    if abs(x) > FAR:
        return abs(x) / FAR * reference(math.copysign(FAR, x), a, b, version)
    above = math.fsum(value * x**power for power, value in enumerate(a))
    each = [value * x**power for power, value in enumerate(b, start=1)]
    return above / (1 + (math.fsum(map(abs, each)) if version == "A" else abs(math.fsum(each))))


def claim_residual() -> bool:
    """x + R(x) = (P + x Q) / Q is again of degrees (5, 4): numerator a + (0, 1, b1, .., b4), the same denominator.

    With even powers of positive coefficients below, Q is the polynomial 1 + b2 x^2 + b4 x^4 in both versions.
    """
    g = torch.Generator().manual_seed(0)
    x = torch.linspace(-4.0, 4.0, 201, dtype=torch.float64)
    for _ in range(10):
        a, b = torch.randn(6, generator=g).double(), torch.rand(4, generator=g).double()
        b[0::2] = 0.0
        absorbed = a + torch.cat((torch.tensor([0.0, 1.0], dtype=torch.float64), b))
        quotient = horner(x, absorbed.unbind(0)) / horner(x, (torch.ones_like(b[0]), *b.unbind(0)))
        for version in ("A", "B"):
            skipped = x + rational(x, a, b, version=version)
            again = rational(x, absorbed, b, version=version)
            if not torch.allclose(again, skipped, atol=1e-12) or not torch.allclose(again, quotient, atol=1e-12):
                return False
    return True


def claim_one_set() -> bool:
    """A net of any depth learns ten values more than without activations: one module stands in all its places."""
    from netwright.engine.blocks import count_parameters

    for depth in (1, 3, 8):
        make = PART.factory({})
        places = torch.nn.Sequential(*(make(16, -1) for _ in range(depth)))
        if count_parameters(places) != 10 or len({id(place) for place in places}) != 1:
            return False
    return True


PART = activation(
    rational,
    name="recurrent-rational",
    cls="RecurrentRational",
    reference=reference,
    formula=r"\sum_{j=0}^{5} a_j x^j \,/\, (1 + \sum_{j=1}^{4} |b_j x^j|)",
    limits=(-math.inf, math.inf),
    paper=Paper("recurrent-rational"),
    learn=(Learn("a", lambda options: start(options)[0]), Learn("b", lambda options: start(options)[1])),
    options=(
        Option("init", "leaky-relu", "the function it starts as", allowed=tuple(TARGETS)),
        Option("version", "A", "how the denominator is kept positive", allowed=("A", "B")),
        Option("coefficients", "fitted", "where the start comes from", allowed=("fitted", "published")),
    ),
    tags=Tags(smooth=True, delicate=True),
    shared=True,
    alias_of="activation/pau",
    flops=24.0,
    claims=(
        Claim("residual", "takes up a residual connection without changing its degrees", check=claim_residual),
        Claim("one-set", "adds ten values to a net of any depth", check=claim_one_set),
    ),
    deviations=(
        "starts from coefficients fitted here; coefficients='published' takes those of the authors' library",
        "beyond |x| = 1e6, where float32 would overflow, a straight line through the origin",
    ),
)
