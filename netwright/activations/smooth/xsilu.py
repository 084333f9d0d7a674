"""xSiLU: SiLU with a gate whose range is widened by a learnt amount (Huang, 2024).

The gate sigma(x) lies in (0, 1); (1 + 2 alpha) sigma(x) - alpha in (-alpha, 1 + alpha).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.activations.smooth._gates import expanded
from netwright.core.part import Claim, Identity, Learn, Paper, Protocol


def xsilu(x: Tensor, alpha: Tensor) -> Tensor:
    return expanded(x, torch.sigmoid(x), alpha)


def reference(x: float, alpha: float) -> float:
    gate = 1 / (1 + math.exp(-x)) if x > -700.0 else 0.0
    wide = gate * (1 + 2 * alpha) - alpha
    return x * wide if wide else 0.0


def claim_half() -> bool:
    """alpha = 0 is x sigma(x), bit for bit; alpha = -1/2 is x / 2."""
    x = torch.linspace(-8.0, 8.0, 321)
    return torch.equal(xsilu(x, torch.zeros(())), x * torch.sigmoid(x)) and torch.equal(xsilu(x, torch.tensor(-0.5)), x / 2)


def claim_symmetry() -> bool:
    """f(x) - f(-x) = x for every alpha."""
    x = torch.linspace(-8.0, 8.0, 321, dtype=torch.float64)
    alphas = [torch.tensor(a, dtype=torch.float64) for a in (-1.0, 0.0, 0.3, 2.0)]
    return all(torch.allclose(xsilu(x, a) - xsilu(-x, a), x, atol=1e-13) for a in alphas)


def claim_expands() -> bool:
    """The gate f(x) / x fills (-alpha, 1 + alpha): the slope tends to -alpha on the left, to 1 + alpha on the right."""
    x = torch.tensor([-50.0, 50.0], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(xsilu(x, torch.tensor(0.3, dtype=torch.float64)).sum(), x)
    return bool(torch.allclose(slope, torch.tensor([-0.3, 1.3], dtype=torch.float64), atol=1e-12))


PART = activation(
    xsilu,
    cls="XSiLU",
    reference=reference,
    formula=r"x \left((1 + 2\alpha)\,\sigma(x) - \alpha\right)",
    limits=(0.0, math.inf),
    paper=Paper("expanded-gating"),
    learn=(Learn("alpha", 0.0),),
    tags=Tags(smooth=True, delicate=True, always=("smooth",)),
    values={-3.0: -0.142278, -1.0: -0.268941, -0.5: -0.188770, 0.0: 0.0, 1.0: 0.731059, 3.0: 2.857722},
    flops=7.0,
    identities=(Identity("activation/silu", options={"alpha": 0.0}, tolerance=1e-15, note="alpha = 0"),),
    equals_at_init=("activation/silu", "activation/swish", "activation/acon-c"),
    claims=(
        Claim("half", "contains SiLU at alpha = 0 and x / 2 at alpha = -1/2", check=claim_half),
        Claim("symmetry", "f(x) - f(-x) = x, whatever alpha", check=claim_symmetry),
        Claim("expands", "widens the range of the gate to (-alpha, 1 + alpha)", check=claim_expands),
        Claim(
            "language",
            "better than SiLU in a language model",
            protocol=Protocol("task/shakespeare", "activation/silu", "better"),
        ),
    ),
)
