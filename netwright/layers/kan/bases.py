"""KANs on orthogonal polynomials of the squashed input: Chebyshev (Sidharth et al., 2024), Hermite, Legendre.

y_o = sum_im c_omi P_m(tanh x_i), m = 0 .. degree; P_0 = 1 holds the bias. Every family is a recursion of three terms, with
no arc cosine, whose gradient is infinite where tanh is 1 to rounding. Up to one degree all three span the same functions,
the polynomials of tanh x_i: they differ in how gradients weigh them. The authors put a layer norm behind every layer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from netwright.core.part import Claim, Option, Paper, Protocol
from netwright.layers._kind import Tags, layer
from netwright.layers.kan._basis_layer import FUSED, BasisLayer, by_loops
from netwright.layers.kan._splines import gauss
from netwright.tensor.modules import drawn


def three_terms(z_BI: Tensor, first_BI: Tensor, steps: Sequence[tuple[float, float]]) -> Tensor:
    """P_0 = first, P_(n+1) = a_n z P_n - c_n P_(n-1) for the steps (a_n, c_n), together (B, M, I)."""
    last, now, every = torch.zeros_like(first_BI), first_BI, [first_BI]
    for a, c in steps:
        last, now = now, (a * z_BI * now - c * last if c else a * z_BI * now)
        every.append(now)
    return torch.stack(every, 1)


def chebyshev_steps(degree: int) -> list[tuple[float, float]]:
    """T_(n+1) = 2 z T_n - T_(n-1), T_1 = z."""
    return [(1.0, 0.0) if n == 0 else (2.0, 1.0) for n in range(degree)]


def legendre_steps(degree: int) -> list[tuple[float, float]]:
    """(n + 1) P_(n+1) = (2 n + 1) z P_n - n P_(n-1)."""
    return [((2 * n + 1) / (n + 1), n / (n + 1)) for n in range(degree)]


def hermite_steps(degree: int) -> list[tuple[float, float]]:
    """sqrt(n + 1) h_(n+1) = z h_n - sqrt(n) h_(n-1), of h_n = He_n / sqrt(n!), orthonormal under the normal density."""
    return [(1 / math.sqrt(n + 1), math.sqrt(n / (n + 1))) for n in range(degree)]


def chebyshev(x_BI: Tensor, *, degree: int) -> Tensor:
    """T_0 .. T_degree of tanh x (B, M, I)."""
    z = torch.tanh(x_BI)
    return three_terms(z, torch.ones_like(z), chebyshev_steps(degree))


def legendre(x_BI: Tensor, *, degree: int) -> Tensor:
    """P_0 .. P_degree of tanh x (B, M, I)."""
    z = torch.tanh(x_BI)
    return three_terms(z, torch.ones_like(z), legendre_steps(degree))


def hermite(x_BI: Tensor, *, degree: int, tails: str) -> Tensor:
    """h_0 .. h_degree of tanh x, or of x itself times the fourth root of the normal density's square (B, M, I)."""
    if tails == "squash":
        z = torch.tanh(x_BI)
        return three_terms(z, torch.ones_like(z), hermite_steps(degree))
    # Twelve beyond the outermost turning point every one is below 1e-16.
    end = 2 * math.sqrt(degree) + 12
    z = x_BI.clamp(-end, end)
    return three_terms(z, torch.exp(z.square() / -4) * (2 * math.pi) ** -0.25, hermite_steps(degree))


class Polynomials(BasisLayer):
    """Base of the layers below: coefficients (O, degree + 1, I), drawn from N(0, 1 / (d_in (degree + 1))^2); no base, no bias.

    Abstract: a family names its basis.
    """

    def __init__(self, d_in: int, d_out: int, *, degree: int = 4, fused: bool = False, products: str = "") -> None:
        super().__init__()
        self._setup(d_in, d_out, degree + 1, "none", bias=False, products=products)
        self.degree = degree

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        self.coef.normal_(0, 1 / (self.coef.shape[2] * self.coef.shape[1]), generator=generator)

    @property
    def constants(self) -> dict[str, Any]:
        return {"degree": self.degree}


@final
class ChebyshevKAN(Polynomials):
    """y_o = sum_im c_omi T_m(tanh x_i), m = 0 .. degree; (..., d_in) -> (..., d_out)."""

    basis: ClassVar[Any] = staticmethod(chebyshev)


@final
class LegendreKAN(Polynomials):
    """y_o = sum_im c_omi P_m(tanh x_i), m = 0 .. degree; (..., d_in) -> (..., d_out)."""

    basis: ClassVar[Any] = staticmethod(legendre)


@final
class HermiteKAN(Polynomials):
    """y_o = sum_im c_omi h_m(tanh x_i), h_m = He_m / sqrt(m!), m = 0 .. degree; (..., d_in) -> (..., d_out).

    tails="damp": the Hermite functions h_m(x_i) e^(-x_i^2 / 4) / (2 pi)^(1/4) instead, orthonormal on the line: local, and 0
    far outside, where tanh leaves a constant.
    """

    basis: ClassVar[Any] = staticmethod(hermite)

    def __init__(
        self, d_in: int, d_out: int, *, degree: int = 4, tails: str = "squash", fused: bool = False, products: str = ""
    ) -> None:
        super().__init__(d_in, d_out, degree=degree, fused=fused, products=products)
        self.tails = tails

    @property
    def constants(self) -> dict[str, Any]:
        return {"degree": self.degree, "tails": self.tails}


# Second writings: explicit sums, no recursion -------------------------------------------------------------------------


def chebyshev_reference(layer: Any, x_BI: Tensor) -> Tensor:
    """T_m(cos t) = cos(m t)."""
    return by_loops(layer, x_BI, lambda x, i: [math.cos(m * math.acos(math.tanh(x))) for m in range(layer.options["degree"] + 1)])


def legendre_reference(layer: Any, x_BI: Tensor) -> Tensor:
    """P_m(z) = sum_k C(m, k) C(m + k, k) ((z - 1) / 2)^k."""

    def p(z: float, m: int) -> float:
        return sum(math.comb(m, k) * math.comb(m + k, k) * ((z - 1) / 2) ** k for k in range(m + 1))

    return by_loops(layer, x_BI, lambda x, i: [p(math.tanh(x), m) for m in range(layer.options["degree"] + 1)])


def hermite_reference(layer: Any, x_BI: Tensor) -> Tensor:
    """He_m(z) = m! sum_k (-1)^k z^(m - 2k) / (2^k k! (m - 2k)!)."""
    damp = layer.options["tails"] == "damp"

    def h(z: float, m: int) -> float:
        terms = ((-1) ** k * z ** (m - 2 * k) / (2**k * math.factorial(k) * math.factorial(m - 2 * k)) for k in range(m // 2 + 1))
        return math.sqrt(math.factorial(m)) * sum(terms)

    def phi(x: float, i: int) -> list[float]:
        z, factor = (x, math.exp(-x * x / 4) / (2 * math.pi) ** 0.25) if damp else (math.tanh(x), 1.0)
        return [factor * h(z, m) for m in range(layer.options["degree"] + 1)]

    return by_loops(layer, x_BI, phi)


# Claims ---------------------------------------------------------------------------------------------------------------


def gram(values_PM: Tensor, weights_P: Tensor) -> Tensor:
    """The products of all pairs under a quadrature: (M, M)."""
    return values_PM.T @ (weights_P[:, None] * values_PM)


def claim_chebyshev() -> bool:
    """The integral of T_m T_n / sqrt(1 - z^2) is pi for m = n = 0, pi / 2 for m = n, else 0."""
    z = torch.cos(math.pi * (torch.arange(20, dtype=torch.float64) + 0.5) / 20)
    values = drawn(ChebyshevKAN, 1, 1, degree=12).features(torch.atanh(z)[:, None])[..., 0]
    wanted = torch.diag(torch.tensor([math.pi] + [math.pi / 2] * 12, dtype=torch.float64))
    return float((gram(values, torch.full_like(z, math.pi / 20)) - wanted).abs().max()) < 1e-10


def claim_legendre() -> bool:
    """The integral of P_m P_n is 2 / (2 n + 1) for m = n, else 0."""
    z, weights = gauss(20)
    values = drawn(LegendreKAN, 1, 1, degree=12).features(torch.atanh(z)[:, None])[..., 0]
    wanted = torch.diag(2 / (2 * torch.arange(13, dtype=torch.float64) + 1))
    return float((gram(values, weights) - wanted).abs().max()) < 1e-10


def claim_hermite() -> bool:
    """h_m are orthonormal under the normal density, and the damped ones on the line."""
    off = torch.arange(1, 30, dtype=torch.float64).sqrt()
    nodes, vectors = torch.linalg.eigh(torch.diag(off, 1) + torch.diag(off, -1))
    values = three_terms(nodes[:, None], torch.ones(30, 1, dtype=torch.float64), hermite_steps(12))[..., 0]
    line = torch.linspace(-20, 20, 801, dtype=torch.float64)
    damped = drawn(HermiteKAN, 1, 1, degree=12, tails="damp").features(line[:, None])[..., 0]
    gaps = (gram(values, vectors[0] ** 2), gram(damped, torch.full_like(line, 0.05)))
    return all(float((gap - torch.eye(13)).abs().max()) < 1e-10 for gap in gaps)


def claim_ends() -> bool:
    """Where tanh is 1 to rounding, T_m is 1 and its gradient 0: the arc cosine's has no value there."""
    x = torch.tensor([[30.0], [-30.0]], requires_grad=True)
    values = drawn(ChebyshevKAN, 1, 1, dtype=torch.float32).features(x)
    (slope,) = torch.autograd.grad(values.sum(), x)
    (other,) = torch.autograd.grad(torch.cos(3 * torch.acos(torch.tanh(x))).sum(), x)
    return bool((values[0] == 1).all()) and not bool(slope.any()) and bool(other.isnan().all())


def claim_span() -> bool:
    """Chebyshev, Legendre and squashed Hermite layers of one degree can be the same functions."""
    x = torch.linspace(-3, 3, 50, dtype=torch.float64)[:, None]
    one, *others = (drawn(cls, 1, 1, degree=6).features(x)[..., 0] for cls in (ChebyshevKAN, LegendreKAN, HermiteKAN))
    return all(float((one @ torch.linalg.lstsq(one, other).solution - other).abs().max()) < 1e-10 for other in others)


DEGREE = Option("degree", 4, "degree of the polynomials", bounds=(0, 33))
CODE = Paper(title="OrthogPolyKANs", authors="Boris-73-TA", year=2024, code="Boris-73-TA/OrthogPolyKANs")
SPAN = Claim("span", "up to one degree the three families are the same functions", check=claim_span)
COSTS: dict[str, Any] = {
    "tags": Tags(nonlinear=True, delicate=True),
    "settings": ({"degree": 1}, {"degree": 7}),
    "parameters": "d_in * d_out * (degree + 1)",
    "products": "2 * d_in * d_out * (degree + 1)",
    "elementwise": "d_in * (3.5 * degree + 1)",
}

PARTS = (
    layer(
        ChebyshevKAN,
        name="chebyshev-kan",
        summary="Chebyshev KAN: Chebyshev polynomials of the squashed input on every edge (Sidharth et al., 2024).",
        reference=chebyshev_reference,
        formula=r"\sum_{i,m} c_{omi}\, T_m(\tanh x_i)",
        paper=Paper(
            title="Chebyshev Polynomial-Based Kolmogorov-Arnold Networks: An Efficient Architecture for Nonlinear Function"
            " Approximation",
            authors="Sidharth SS, Keerthana AR, Gokul R, Anas KP",
            year=2024,
            arxiv="2405.07200",
            code="SynodicMonth/ChebyKAN",
        ),
        options=(DEGREE, *FUSED),
        claims=(
            Claim("orthogonal", "orthogonal under 1 / sqrt(1 - z^2)", check=claim_chebyshev),
            Claim("ends", "gradients are finite where tanh is 1 to rounding", check=claim_ends),
            SPAN,
            Claim(
                "mnist",
                "better than an MLP with as many parameters on handwritten digits",
                where="abstract",
                protocol=Protocol(task="mnist", against="activation/relu", expect="better", seeds=6, trials=4),
            ),
        ),
        deviations=("by recursion; the code's cos(m acos z) has no gradient where tanh is 1 to rounding",),
        **COSTS,
    ),
    layer(
        LegendreKAN,
        name="legendre-kan",
        summary="Legendre KAN: Legendre polynomials of the squashed input on every edge (OrthogPolyKANs, 2024).",
        reference=legendre_reference,
        formula=r"\sum_{i,m} c_{omi}\, P_m(\tanh x_i)",
        paper=CODE,
        options=(DEGREE, *FUSED),
        claims=(Claim("orthogonal", "orthogonal on [-1, 1]", check=claim_legendre), SPAN),
        **COSTS,
    ),
    layer(
        HermiteKAN,
        name="hermite-kan",
        summary="Hermite KAN: normalised Hermite polynomials on every edge, squashed or damped (OrthogPolyKANs, 2024).",
        reference=hermite_reference,
        formula=r"\sum_{i,m} c_{omi}\, \mathrm{He}_m(\tanh x_i) / \sqrt{m!}",
        paper=CODE,
        options=(DEGREE, Option("tails", "squash", "what keeps them finite", allowed=("squash", "damp")), *FUSED),
        claims=(Claim("orthonormal", "orthonormal under the normal density, damped on the line", check=claim_hermite), SPAN),
        deviations=(
            "normalised, of the probabilists' He_m; the code's physicists' polynomials grow like 2^m m!, and span the same",
            "tails='damp' is not in the code",
        ),
        **COSTS,
    ),
)
