"""xGELU: GELU with a gate whose range is widened by a learnt amount (Huang, 2024).

The gate Phi(x) lies in (0, 1); (1 + 2 alpha) Phi(x) - alpha in (-alpha, 1 + alpha).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.activations.smooth._gates import expanded
from netwright.core.part import Claim, Identity, Learn, Paper, Protocol


def normal_gate(x: Tensor) -> Tensor:
    """Phi(x), which keeps its digits where the gate is nearly closed."""
    return torch.erfc(-x / math.sqrt(2)) / 2


def xgelu(x: Tensor, alpha: Tensor) -> Tensor:
    return expanded(x, normal_gate(x), alpha)


def of_erf(x: Tensor, alpha: Tensor) -> Tensor:
    """With erf in place of erfc: the compiler has a vector form of it."""
    return expanded(x, (1 + torch.erf(x / math.sqrt(2))) / 2, alpha)


def reference(x: float, alpha: float) -> float:
    wide = math.erfc(-x / math.sqrt(2)) / 2 * (1 + 2 * alpha) - alpha
    return x * wide if wide else 0.0


def claim_half() -> bool:
    """alpha = 0 is x Phi(x), bit for bit; alpha = -1/2 is x / 2."""
    x = torch.linspace(-8.0, 8.0, 321)
    return torch.equal(xgelu(x, torch.zeros(())), x * normal_gate(x)) and torch.equal(xgelu(x, torch.tensor(-0.5)), x / 2)


def claim_symmetry() -> bool:
    """f(x) - f(-x) = x for every alpha."""
    x = torch.linspace(-8.0, 8.0, 321, dtype=torch.float64)
    alphas = [torch.tensor(a, dtype=torch.float64) for a in (-1.0, 0.0, 0.3, 2.0)]
    return all(torch.allclose(xgelu(x, a) - xgelu(-x, a), x, atol=1e-13) for a in alphas)


def claim_expands() -> bool:
    """The gate f(x) / x fills (-alpha, 1 + alpha): the slope tends to -alpha on the left, to 1 + alpha on the right."""
    x = torch.tensor([-20.0, 20.0], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(xgelu(x, torch.tensor(0.3, dtype=torch.float64)).sum(), x)
    return bool(torch.allclose(slope, torch.tensor([-0.3, 1.3], dtype=torch.float64), atol=1e-12))


PART = activation(
    xgelu,
    compiled=of_erf,
    cls="XGELU",
    reference=reference,
    formula=r"x \left((1 + 2\alpha)\,\Phi(x) - \alpha\right)",
    limits=(0.0, math.inf),
    paper=Paper("expanded-gating"),
    learn=(Learn("alpha", 0.0),),
    tags=Tags(smooth=True, delicate=True, always=("smooth",)),
    values={-3.0: -0.004050, -2.0: -0.045500, -1.0: -0.158655, 0.0: 0.0, 1.0: 0.841345, 3.0: 2.995950},
    flops=8.0,
    identities=(Identity("activation/gelu", options={"alpha": 0.0}, tolerance=1e-14, note="alpha = 0"),),
    equals_at_init=("activation/gelu",),
    claims=(
        Claim("half", "contains GELU at alpha = 0 and x / 2 at alpha = -1/2", check=claim_half),
        Claim("symmetry", "f(x) - f(-x) = x, whatever alpha", check=claim_symmetry),
        Claim("expands", "widens the range of the gate to (-alpha, 1 + alpha)", check=claim_expands),
        Claim(
            "language",
            "better than GELU in a language model",
            protocol=Protocol("task/shakespeare", "activation/gelu", "better"),
        ),
    ),
)
