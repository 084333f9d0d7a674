"""PolyReLU: a learnt cubic polynomial of ReLU (Zhuo et al., 2024)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.core.part import Claim, Identity, Learn, Paper, Protocol


def polyrelu(x: Tensor, a0: Tensor, a1: Tensor, a2: Tensor, a3: Tensor) -> Tensor:
    r = torch.relu(x)
    return a0 + r * (a1 + r * (a2 + r * a3))


def reference(x: float, a0: float, a1: float, a2: float, a3: float) -> float:
    return a0 + a1 * x + a2 * x**2 + a3 * x**3 if x > 0 else a0


def claim_constant() -> bool:
    """Left of 0 it is the constant a0, for all coefficients."""
    g = torch.Generator().manual_seed(0)
    a = torch.randn(4, generator=g)
    return torch.equal(polyrelu(-torch.rand(64, generator=g), *a.unbind(0)), a[0].expand(64))


def claim_polynomial() -> bool:
    """Two units, f(x) and -f(-x), and a bias make any cubic with even part 0 exact: here x + x^3 / 2."""
    x = torch.linspace(-3.0, 3.0, 121, dtype=torch.float64)
    a = torch.tensor([0.0, 1.0, 0.0, 0.5], dtype=torch.float64).unbind(0)
    return bool(torch.allclose(polyrelu(x, *a) - polyrelu(-x, *a), x + x**3 / 2, atol=1e-12))


PART = activation(
    polyrelu,
    cls="PolyReLU",
    reference=reference,
    formula=r"\sum_{i=0}^{3} a_i \max(0,\,x)^i",
    limits=(0.0, math.inf),
    paper=Paper("polycom"),
    learn=(Learn("a0", 0.0), Learn("a1", 1 / 3), Learn("a2", 1 / 3), Learn("a3", 1 / 3)),
    tags=Tags(monotone=True, kinks=(0.0,), delicate=True),
    values={-3.0: 0.0, 0.0: 0.0, 1.0: 1.0, 2.0: 14 / 3},
    flops=7.0,
    identities=(
        Identity("activation/relu", options={"a1": 1.0, "a2": 0.0, "a3": 0.0}),
        Identity("activation/relu2", options={"a1": 0.0, "a2": 1.0, "a3": 0.0}),
    ),
    claims=(
        Claim("constant", "is constant for negative input", check=claim_constant),
        Claim("polynomial", "represents odd cubic polynomials exactly with two units", check=claim_polynomial),
        Claim(
            "language",
            "at most GELU's loss on language modelling",
            protocol=Protocol("task/shakespeare", "activation/gelu", "not worse"),
        ),
    ),
)
