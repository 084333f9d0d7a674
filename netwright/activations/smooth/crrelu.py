"""CRReLU: ReLU plus a learnt multiple of x exp(-x^2 / 2), derived from an entropy functional (Sun et al., 2024)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.core.part import Claim, Identity, Learn, Paper, Protocol


def crrelu(x: Tensor, eps: Tensor) -> Tensor:
    u = x.clamp(-40.0, 40.0)  # exp(-800) is 0 in every dtype; beyond it the product and its slope would be inf * 0
    return torch.relu(x) + eps * u * torch.exp(-0.5 * u * u)


def reference(x: float, eps: float) -> float:
    correction = eps * x * math.exp(-(x**2) / 2) if math.isfinite(x) else 0.0
    return (x if x > 0 else 0.0) + correction


def claim_correction() -> bool:
    """f(x) - ReLU(x) is odd, with its extremes +- eps / sqrt(e) at x = +-1."""
    x = torch.linspace(-6.0, 6.0, 12_001, dtype=torch.float64)
    y = crrelu(x, torch.tensor(0.01, dtype=torch.float64)) - x.relu()
    most, at = y.max(0)
    odd = torch.allclose(y, -y.flip(0), atol=1e-15)
    return odd and abs(float(x[at]) - 1) < 1e-9 and math.isclose(float(most), 0.01 / math.sqrt(math.e), rel_tol=1e-9)


def claim_alive() -> bool:
    """Left of 0, where ReLU's slope is 0, the slope is eps (1 - x^2) exp(-x^2 / 2), which is 0 at x = -1 only."""
    x = torch.linspace(-4.0, -0.01, 400, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(crrelu(x, torch.tensor(0.01, dtype=torch.float64)).sum(), x)
    wanted = 0.01 * (1 - x * x) * torch.exp(-x * x / 2)
    return bool(torch.allclose(slope, wanted.detach(), atol=1e-15)) and float((slope.abs() > 1e-5).double().mean()) > 0.95


PART = activation(
    crrelu,
    cls="CRReLU",
    reference=reference,
    formula=r"\max(0,\,x) + \varepsilon\, x\, e^{-x^2 / 2}",
    limits=(0.0, math.inf),
    paper=Paper("crrelu"),
    learn=(Learn("eps", 0.01),),
    tags=Tags(kinks=(0.0,), delicate=True),
    values={-3.0: -0.000333, -2.0: -0.002707, -1.0: -0.006065, 0.0: 0.0, 0.5: 0.504412, 1.0: 1.006065, 3.0: 3.000333},
    flops=7.0,
    identities=(Identity("activation/relu", options={"eps": 0.0}, tolerance=0.0),),
    claims=(
        Claim("correction", "corrects ReLU by an odd bump of height eps / sqrt(e)", check=claim_correction),
        Claim("alive", "lets a gradient through where ReLU has none", check=claim_alive),
        Claim(
            "cifar10",
            "better than ReLU on CIFAR-10",
            protocol=Protocol("task/cifar10", "activation/relu", "better"),
        ),
        Claim(
            "cifar10-gelu",
            "better than GELU on CIFAR-10",
            protocol=Protocol("task/cifar10", "activation/gelu", "better"),
        ),
        Claim(
            "language",
            "better than GELU in a language model",
            protocol=Protocol("task/shakespeare", "activation/gelu", "better"),
        ),
    ),
    deviations=("the paper fine-tunes a language model that was trained with GELU; the claim here trains one from the start",),
)
