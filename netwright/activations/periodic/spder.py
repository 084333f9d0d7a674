"""SPDER: a sine damped by a square root, for networks that represent a signal (Shah and Sitawarin, 2023)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.core.part import Claim, Option, Paper


def spder(x: Tensor, *, omega: float) -> Tensor:
    u = omega * x
    size = u.abs()
    # sqrt has an infinite slope at 0, and sin(0) * inf is NaN; the true slope of the product there is 0.
    root = torch.where(size < 1e-30, 0.0, size.clamp(min=1e-30).sqrt())
    return torch.sin(u) * root


def reference(x: float, omega: float) -> float:
    u = omega * x
    return math.sin(u) * math.sqrt(abs(u)) if math.isfinite(u) else math.nan


def slope(x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    return torch.autograd.grad(spder(x, omega=1.0).sum(), x)[0]


def claim_flat() -> bool:
    """f'(0) = 0, and next to it f'(x) is 3/2 sqrt|x|."""
    x = torch.tensor([-1e-4, -1e-6, 0.0, 1e-6, 1e-4], dtype=torch.float64)
    return float(slope(x)[2]) == 0.0 and bool(torch.allclose(slope(x), 1.5 * x.abs().sqrt(), rtol=1e-4, atol=0.0))


def claim_damped() -> bool:
    """|f(x)| <= sqrt|x|, and f reaches it at every odd multiple of pi / 2."""
    x = torch.linspace(-60.0, 60.0, 2401, dtype=torch.float64)
    peaks = torch.arange(1, 40, 2, dtype=torch.float64) * math.pi / 2
    inside = bool((spder(x, omega=1.0).abs() <= x.abs().sqrt()).all())
    return inside and bool(torch.allclose(spder(peaks, omega=1.0).abs(), peaks.sqrt()))


PART = activation(
    spder,
    cls="SPDER",
    reference=reference,
    formula=r"\sin(\omega x) \sqrt{|\omega x|}",
    limits=(math.nan, math.nan),
    paper=Paper("spder"),
    options=(Option("omega", 1.0, "factor on the input", bounds=(0.0, math.inf), search=(1.0, 30.0, "log")),),
    tags=Tags(smooth=True, odd=True, delicate=True, always=("smooth", "odd")),
    values={-3.0: -0.244427, -2.0: -1.285941, -1.0: -0.841471, -0.5: -0.339005, 0.0: 0.0, 1.0: 0.841471, 3.0: 0.244427},
    flops=5.0,
    claims=(
        Claim("flat", "is flat at 0", check=claim_flat),
        Claim("damped", "is a sine inside an envelope that grows as a square root", check=claim_damped),
    ),
    deviations=(
        "the part is the function; the official networks use omega = 30 with SIREN's initial weights",
        "the official code keeps the argument of the square root above a small constant; here the slope at 0 is 0, its limit",
        "the official scripts for audio use sin(x) arctan(x) instead",
    ),
)
