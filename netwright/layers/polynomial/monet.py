"""Mu-Layer: products of two linear maps, one of low rank, plus the first of them; no activation (Cheng et al., 2024).

y = C [(A z) * (B D z) + A z] with * entry by entry: a polynomial of degree 2 in z, so that a net of L such layers is one
of degree 2^L. Shape suffixes: B rows, I inputs, O outputs, M width of the product, L rank of the second map.
"""

from __future__ import annotations

import math
from typing import Any, final

import torch
from torch import Tensor, nn

from netwright.core.part import Claim, Option, Paper, Protocol
from netwright.layers._kind import Layer, Tags, layer, product, uniform_
from netwright.tensor.modules import drawn


@final
class MuLayer(Layer):
    """y = C [(A z) * (B D z) + A z]; (..., d_in) -> (..., d_out). A (M, I), B (M, L), D (L, I), C (O, M), no bias.

    width: M, or 0 for d_out. rank: L, or 0 for a quarter of the smaller of d_in and M, at least 1.
    """

    def __init__(self, d_in: int, d_out: int, *, width: int = 0, rank: int = 0) -> None:
        super().__init__()
        wide = width or d_out
        low = rank or max(1, min(d_in, wide) // 4)
        self.a = nn.Parameter(torch.empty(wide, d_in))
        self.b = nn.Parameter(torch.empty(wide, low))
        self.c = nn.Parameter(torch.empty(d_out, wide))
        self.d = nn.Parameter(torch.empty(low, d_in))

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """U(-1 / sqrt(fan in), 1 / sqrt(fan in)), as nn.Linear draws."""
        for p in (self.a, self.b, self.c, self.d):
            uniform_(p, 1 / math.sqrt(p.shape[1]), generator)

    @property
    def quantities(self) -> dict[str, float]:
        """width and rank as they are, not as they were asked for."""
        return {**super().quantities, "width": self.b.shape[0], "rank": self.b.shape[1]}

    def compute(self, z_BI: Tensor) -> Tensor:
        one_BM = product(z_BI, self.a)
        other_BM = product(product(z_BI, self.d), self.b)
        return product(torch.addcmul(one_BM, one_BM, other_BM), self.c)


def reference(layer: Any, z_BI: Tensor) -> Tensor:
    """The equation, a unit at a time, with the second map as the one matrix B D."""
    second = [[sum(b * d for b, d in zip(row, column, strict=True)) for column in layer.d.T.tolist()] for row in layer.b.tolist()]
    y = torch.zeros(len(z_BI), len(layer.c), dtype=torch.float64)
    for r, z in enumerate(z_BI.tolist()):
        for m, (first, low) in enumerate(zip(layer.a.tolist(), second, strict=True)):
            u = sum(w * v for w, v in zip(first, z, strict=True))
            v = sum(w * v for w, v in zip(low, z, strict=True))
            for o in range(len(layer.c)):
                y[r, o] += float(layer.c[o, m]) * (u * v + u)
    return y


def rows(n: int, d: int, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def claim_degree() -> bool:
    """Along every ray it is a polynomial of degree 2: third differences are 0, second ones are not, and f(0) is 0."""
    mu = drawn(MuLayer, 7, 5, width=9, rank=3).requires_grad_(False)
    steps = torch.arange(-3, 4, dtype=torch.float64)
    y = mu(steps[:, None, None] * rows(20, 7))
    second, third = y.diff(n=2, dim=0), y.diff(n=3, dim=0)
    return float(third.abs().max()) < 1e-12 < float(second.abs().max()) and not bool(mu(torch.zeros(1, 7).double()).any())


def claim_hessian() -> bool:
    """The Hessian of every output is the same everywhere."""
    mu = drawn(MuLayer, 4, 3, width=5).requires_grad_(False)
    for o in range(3):
        here, there = (torch.autograd.functional.hessian(lambda z, o=o: mu(z)[o], z) for z in rows(2, 4))
        if not torch.allclose(here, there, atol=1e-12) or not bool(here.any()):
            return False
    return True


@torch.no_grad()
def claim_product() -> bool:
    """Width 2 and rank 1 hold x1 x2 exactly, everywhere; width 1 holds x1 x2 + e x1 for every e but 0."""
    x = 100 * rows(50, 2)
    wanted = x[:, 0] * x[:, 1]
    two, one = drawn(MuLayer, 2, 1, width=2, rank=1), drawn(MuLayer, 2, 1, width=1, rank=1)
    for p, value in ((two.a, [[1, 0], [1, 0]]), (two.b, [[1], [0]]), (two.c, [[1, -1]]), (two.d, [[0, 1]])):
        p.copy_(torch.tensor(value))
    e = 2.0**-20
    for p, values in ((one.a, [[1, 0]]), (one.b, [[1 / e]]), (one.c, [[e]]), (one.d, [[0, 1]])):
        p.copy_(torch.tensor(values))
    close = torch.allclose(one(x)[:, 0], wanted + e * x[:, 0], rtol=1e-12)
    return close and torch.allclose(two(x)[:, 0], wanted, rtol=1e-12, atol=1e-10)


PART = layer(
    MuLayer,
    name="monet",
    reference=reference,
    formula=r"C\left[(A z) \odot (B D z) + A z\right]",
    paper=Paper("monet"),
    tags=Tags(nonlinear=True),
    options=(
        Option("width", 0, "width of the product; 0: as many as outputs", bounds=(-1, 10**6)),
        Option("rank", 0, "rank of the second map; 0: a quarter of the smaller of inputs and width", bounds=(-1, 10**6)),
    ),
    settings=({"width": 9, "rank": 3}, {"width": 1}),
    parameters="width * (d_in + rank + d_out) + rank * d_in",
    products="2 * (width * (d_in + rank + d_out) + rank * d_in)",
    elementwise="2 * width",
    claims=(
        Claim("degree", "is a polynomial of degree 2, of each input row by itself", check=claim_degree),
        Claim("hessian", "its Hessian is constant", check=claim_hessian),
        Claim("product", "holds the product of two inputs exactly", check=claim_product),
        Claim(
            "on-par",
            "without activations it performs on par with modern architectures on images",
            where="abstract",
            protocol=Protocol(task="digits", against="activation/relu", expect="not worse", seeds=6, trials=4),
        ),
    ),
    deviations=(
        "the official repository is empty, so the formula is the paper's and the start is nn.Linear's",
        "the part is the layer; the norms, spatial shifts, residuals and pyramid around it are the paper's net, and stacks"
        " without norms grow as x^(2^L)",
        "the defaults of width and rank are ours",
    ),
)
