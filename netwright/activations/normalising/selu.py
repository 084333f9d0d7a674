"""SELU: a scaled exponential unit that keeps mean 0 and variance 1 (Klambauer et al., 2017).

The fixed point (0, 1) of the map of moments fixes both constants:
alpha = -sqrt(2 / pi) / (exp(1/2) erfc(1 / sqrt 2) - 1), and the scale makes E f(z)^2 = 1 for z ~ N(0, 1).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.core.part import Claim, Paper, Protocol

ALPHA = 1.6732632423543772
SCALE = 1.0507009873554805


def selu(x: Tensor) -> Tensor:
    return F.selu(x)


def reference(x: float) -> float:
    return SCALE * (x if x > 0 else ALPHA * math.expm1(x))


def claim_fixed_point() -> bool:
    """E f(z) = 0 and E f(z)^2 = 1 for z ~ N(0, 1), by quadrature."""
    z = torch.linspace(-12.0, 12.0, 24_001, dtype=torch.float64)
    density = torch.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    y = selu(z)
    mean, square = torch.trapezoid(y * density, z), torch.trapezoid(y * y * density, z)
    return abs(float(mean)) < 1e-6 and abs(float(square) - 1) < 1e-6


def claim_constants() -> bool:
    """alpha follows from the vanishing mean alone."""
    alpha = -math.sqrt(2 / math.pi) / (math.exp(0.5) * math.erfc(1 / math.sqrt(2)) - 1)
    return abs(alpha - ALPHA) < 1e-12


def claim_depth() -> bool:
    """Thirty-two layers deep, the moments of the features are still near (0, 1)."""
    g = torch.Generator().manual_seed(0)
    h = torch.randn(256, 128, generator=g)
    for _ in range(32):
        h = selu(h @ torch.randn(128, 128, generator=g) / math.sqrt(128))
    return abs(float(h.mean())) < 0.2 and 0.6 < float(h.var()) < 1.4


PART = activation(
    selu,
    cls="SELU",
    reference=reference,
    formula=r"\lambda \max(0,\,x) + \lambda \alpha \min(0,\,e^x - 1)",
    limits=(-ALPHA * SCALE, math.inf),
    paper=Paper("selu"),
    tags=Tags(monotone=True, kinks=(0.0,)),
    values={-3.0: -1.670569, -1.0: -1.111331, 0.0: 0.0, 0.5: 0.525350, 3.0: 3.152103},
    flops=4.0,
    claims=(
        Claim("fixed-point", "keeps mean 0 and variance 1 of normal input", check=claim_fixed_point),
        Claim("constants", "its constants follow from that", check=claim_constants),
        Claim("depth", "keeps activations near (0, 1) through many layers", check=claim_depth),
        Claim(
            "mnist",
            "deep fully connected nets learn at least as well as with ReLU",
            protocol=Protocol("task/mnist", "activation/relu", "not worse"),
        ),
    ),
    deviations=("the part is the activation; alpha dropout and LeCun initialisation are not included",),
)
